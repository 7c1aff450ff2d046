//! `[[webhooks]]` of the settings file.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::error::CliError;
use super::output::escape;
use crate::coordinator::HookEvent;
use crate::id::Namespace;
use crate::webhook::signature::Secret;
use crate::webhook::{Endpoint, address};

/// The keys of one entry.
pub const KEYS: &[&str] = &[
    "name",
    "namespace",
    "url",
    "events",
    "definitions",
    "secrets",
    "allow_private",
    "timeout_seconds",
    "max_attempts",
    "first_wait_seconds",
];
/// Webhooks, at most.
const MOST: usize = 32;
/// Seconds that one attempt may take, at most.
const LONGEST_TIMEOUT: u64 = 60;

/// One webhook, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEntry {
    /// Its name.
    pub name: String,
    /// The namespace that it is told of; the default one unless said.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Where it is.
    pub url: String,
    /// What it is told; everything, when absent.
    #[serde(default)]
    pub events: Vec<String>,
    /// Of sagas of which definitions; of all, when absent.
    #[serde(default)]
    pub definitions: Vec<String>,
    /// Where the secrets are: `env:NAME` or `file:PATH` each.
    pub secrets: Vec<String>,
    /// Whether addresses are allowed that are not public.
    #[serde(default)]
    pub allow_private: bool,
    /// How long one attempt may take.
    #[serde(default = "ten")]
    pub timeout_seconds: u64,
    /// After so many attempts a message is parked.
    #[serde(default = "fifteen")]
    pub max_attempts: u32,
    /// The wait after the first attempt.
    #[serde(default = "five")]
    pub first_wait_seconds: u64,
}

fn ten() -> u64 {
    10
}

fn fifteen() -> u32 {
    15
}

fn five() -> u64 {
    5
}

/// The webhooks of each namespace, with their secrets.
///
/// # Errors
/// What is wrong with which of them, and the way out.
pub fn endpoints(
    entries: &[WebhookEntry],
    namespaces: &[Namespace],
) -> Result<BTreeMap<Namespace, Vec<Endpoint>>, CliError> {
    if entries.len() > MOST {
        return Err(CliError::usage(format!("{} webhooks are too many", entries.len()))
            .help(format!("have up to {MOST} in the settings file")));
    }
    let mut endpoints: BTreeMap<Namespace, Vec<Endpoint>> = BTreeMap::new();
    for entry in entries {
        let wrong = |(problem, help): (String, String)| {
            CliError::usage(format!("webhook `{}`: {problem}", escape(&entry.name))).help(help)
        };
        let name = entry.namespace.as_deref().unwrap_or(Namespace::DEFAULT);
        let namespace = namespaces.iter().find(|namespace| namespace.as_str() == name).ok_or_else(|| {
            let help = "name one of [[namespaces]], or leave it out for the default one".to_owned();
            wrong((format!("there is no namespace `{}`", escape(name)), help))
        })?;
        let endpoint = endpoint(entry).map_err(wrong)?;
        let others = endpoints.entry(namespace.clone()).or_default();
        if others.iter().any(|other| other.name == endpoint.name) {
            let help = "give each a name of its own: what is still to be told is kept under it".to_owned();
            return Err(wrong(("is there twice".to_owned(), help)));
        }
        others.push(endpoint);
    }
    Ok(endpoints)
}

fn endpoint(entry: &WebhookEntry) -> Result<Endpoint, (String, String)> {
    let wrong = |problem: String, help: &str| (problem, help.to_owned());
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !(1..=64).contains(&entry.name.len()) || !entry.name.bytes().all(is_name) {
        return Err(wrong("a name is 1 to 64 letters, digits, `-`, `_` or `.`".to_owned(), "for example `pager`"));
    }
    let to_url = "for example https://hooks.example.org/amends";
    let url = Url::parse(&entry.url).map_err(|error| wrong(format!("its url: {error}"), to_url))?;
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("its url must be http:// or https://, without user and password".to_owned(), to_url));
    }
    if !entry.allow_private {
        address::check_literal(&url).map_err(|problem| wrong(problem, "name a public address"))?;
    }
    let mut events = Vec::new();
    for word in &entry.events {
        let known = HookEvent::ALL.into_iter().find(|event| event.as_str() == word);
        events.push(known.ok_or_else(|| {
            wrong(format!("`{}` is no event", escape(word)), "the events are stuck, compensation-failed, resolved")
        })?);
    }
    if events.is_empty() {
        events = HookEvent::ALL.to_vec();
    }
    let mut secrets = Vec::new();
    for place in &entry.secrets {
        secrets.extend(read_secrets(place)?);
    }
    if secrets.is_empty() {
        return Err(wrong("it has no secret".to_owned(), "secrets = [\"env:AMENDS_WEBHOOK_SECRET\"]"));
    }
    if !(1..=LONGEST_TIMEOUT).contains(&entry.timeout_seconds) {
        return Err(wrong(format!("timeout_seconds is 1 to {LONGEST_TIMEOUT}"), "leave it out for 10"));
    }
    if !(1..=100).contains(&entry.max_attempts) {
        return Err(wrong("max_attempts is 1 to 100".to_owned(), "leave it out for 15, which takes nearly 7 hours"));
    }
    if entry.first_wait_seconds > 3_600 {
        return Err(wrong("first_wait_seconds is 0 to 3600".to_owned(), "leave it out for 5"));
    }
    Ok(Endpoint {
        name: entry.name.clone(),
        url,
        events,
        definitions: entry.definitions.clone(),
        secrets,
        allow_private: entry.allow_private,
        timeout: Duration::from_secs(entry.timeout_seconds),
        max_attempts: entry.max_attempts,
        first_wait: Duration::from_secs(entry.first_wait_seconds),
    })
}

/// The secrets at a place: the settings file itself is no place for them.
fn read_secrets(place: &str) -> Result<Vec<Secret>, (String, String)> {
    let text = match place.split_once(':') {
        Some(("env", name)) => std::env::var(name)
            .map_err(|_| (format!("the variable {} is not set", escape(name)), "set it to a secret".to_owned()))?,
        Some(("file", path)) => std::fs::read_to_string(path).map_err(|error| {
            (format!("its secrets in `{}` cannot be read: {error}", escape(path)), "one a line".to_owned())
        })?,
        _ => {
            let help = "write secrets = [\"env:AMENDS_WEBHOOK_SECRET\"] or [\"file:/run/secrets/webhook\"]";
            return Err(("a secret's place is `env:NAME` or `file:PATH`".to_owned(), help.to_owned()));
        }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let make = "make one with: echo whsec_$(openssl rand -base64 32)";
    lines.map(|line| Secret::parse(line).map_err(|problem| (format!("a secret: {problem}"), make.to_owned()))).collect()
}
