//! The server as commands see it: a request, its answer, and errors in words.

use std::error::Error;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::Context;
use super::error::{CliError, Exit};
use super::output::escape;

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A server's HTTP interface (section 6 of the contract).
#[derive(Clone, Debug)]
pub struct Remote {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    namespace: Option<String>,
}

impl Remote {
    /// The server that the settings name. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(context: &Context) -> Result<Self, CliError> {
        let url = context.settings.url_or_default();
        let wrong = |problem: String| {
            CliError::usage(format!("server address `{}`: {problem}", super::settings::masked(&url)))
                .help("set --url or AMENDS_URL to for example http://127.0.0.1:7070")
        };
        let base = Url::parse(&url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(wrong("it must begin with http:// or https://".to_owned()));
        }
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| CliError::failed(format!("no HTTP client: {error}")))?;
        let namespace = context.settings.namespace()?.map(|namespace| namespace.to_string());
        Ok(Self { http, base, token: context.settings.token.clone(), namespace })
    }

    /// Reads `path`, whose parts are escaped here.
    ///
    /// # Errors
    /// When the server cannot be reached or says no.
    pub async fn get(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, CliError> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(self.http.request(Method::GET, url)).await.map(|(_, body)| body)
    }

    /// Posts JSON. Returns whether something was made, with the answer.
    ///
    /// # Errors
    /// When the server cannot be reached or says no.
    pub async fn post(&self, path: &[&str], body: &Value, if_match: Option<u32>) -> Result<(bool, Value), CliError> {
        let request = self.http.request(Method::POST, self.url(path)).json(body);
        let (status, body) = self.send(matching(request, if_match)).await?;
        Ok((status == StatusCode::CREATED, body))
    }

    /// Posts JSON with parameters in the address.
    ///
    /// # Errors
    /// When the server cannot be reached or says no.
    pub async fn post_asking(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        body: &Value,
        if_match: Option<u32>,
    ) -> Result<Value, CliError> {
        let mut url = self.url(path);
        url.query_pairs_mut().extend_pairs(query);
        let request = self.http.request(Method::POST, url).json(body);
        self.send(matching(request, if_match)).await.map(|(_, body)| body)
    }

    /// Posts text as it is. Returns whether something was made, with the answer.
    ///
    /// # Errors
    /// When the server cannot be reached or says no.
    pub async fn post_text(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        kind: &str,
        text: String,
    ) -> Result<(bool, Value), CliError> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(Method::POST, url).header("content-type", kind).body(text);
        self.send(request).await.map(|(status, body)| (status == StatusCode::CREATED, body))
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().extend(path);
        }
        url
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<(StatusCode, Value), CliError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("amends-namespace", namespace);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| self.unreachable(&error))?;
        let body: Option<Value> = serde_json::from_str(&text).ok();
        match body {
            Some(body) if status.is_success() => Ok((status, body)),
            Some(problem) => Err(refused(status, &problem)),
            None => Err(CliError::failed(format!("{} answered {status} without JSON", self.address()))
                .help("check that --url or AMENDS_URL names an amends server")),
        }
    }

    fn address(&self) -> String {
        super::settings::masked(self.base.as_str().trim_end_matches('/'))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        // The last cause is the one that says something: connection refused, name not known, certificate not trusted.
        let mut cause: &dyn Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let cause = if error.is_timeout() { format!("no answer: {cause}") } else { cause.to_string() };
        CliError::failed(format!("the server at {} cannot be reached: {cause}", self.address()))
            .help("start one with `amends serve`, or name another with --url or AMENDS_URL")
    }
}

/// Only if the saga is at this revision still.
fn matching(request: RequestBuilder, revision: Option<u32>) -> RequestBuilder {
    match revision {
        Some(revision) => request.header("if-match", format!("\"{revision}\"")),
        None => request,
    }
}

/// The server's problem in words.
fn refused(status: StatusCode, problem: &Value) -> CliError {
    let text = |key: &str| problem[key].as_str().filter(|text| !text.is_empty());
    let mut message = match (text("title"), text("detail")) {
        (Some(title), Some(detail)) if !detail.contains(title) => format!("{title}: {detail}"),
        (_, Some(text)) | (Some(text), None) => text.to_owned(),
        (None, None) => format!("the server answered {status}"),
    };
    if let Some(code) = text("code") {
        message = format!("{message} [{code}]");
    }
    let mut message = escape(&message);
    for error in problem["errors"].as_array().into_iter().flatten() {
        let part = |key: &str| error[key].as_str().map(escape);
        let what = part("detail").or_else(|| part("message")).unwrap_or_default();
        let place = match (error["line"].as_u64(), error["column"].as_u64()) {
            (Some(line), Some(column)) => format!("{line}:{column}: "),
            _ => part("pointer").filter(|pointer| !pointer.is_empty()).map_or_else(String::new, |p| format!("{p}: ")),
        };
        message.push_str(&format!("\n  {place}{what}"));
        if let Some(suggestion) = part("suggestion") {
            message.push_str(&format!(" ({suggestion})"));
        }
    }
    if let Some(request) = text("requestId") {
        message.push_str(&format!("\n  request {}", escape(request)));
    }
    let error = CliError::failed(message);
    match status {
        StatusCode::UNAUTHORIZED => {
            error.exit(Exit::NotAllowed).help("set AMENDS_TOKEN to a token that this server accepts")
        }
        StatusCode::FORBIDDEN => {
            error.exit(Exit::NotAllowed).help("use a token with a higher role, or ask someone who has one")
        }
        StatusCode::CONFLICT => error.exit(Exit::Conflict),
        StatusCode::PRECONDITION_FAILED => {
            error.exit(Exit::Conflict).help("look again with `amends sagas show`, then decide on what you see")
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => error.help("try again in a moment"),
        _ => error,
    }
}
