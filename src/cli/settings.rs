//! Where settings come from: flag over environment over file. Flags and environment are read by clap, the file here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::error::CliError;
use super::webhook_settings::WebhookEntry;
use crate::console::Links;
use crate::store::sealed::MasterKeys;

/// Where `serve` listens unless told otherwise.
pub const DEFAULT_HTTP: &str = "127.0.0.1:7070";

/// The keys of the settings file.
const KEYS: &[&str] = &[
    "store",
    "broker",
    "http",
    "url",
    "operators",
    "tokens",
    "namespaces",
    "oidc",
    "encryption",
    "traces",
    "console",
    "webhooks",
];
/// The keys of a table, or of one entry of a list.
const ENTRY_KEYS: &[(&str, &[&str])] = &[
    ("operators", &["allow_edit"]),
    ("tokens", &["name", "role", "sha256", "namespace", "namespaces"]),
    ("namespaces", &["name", "store", "broker", "window", "windows", "weights", "encryption_key"]),
    ("encryption", &["active", "keys"]),
    ("oidc", &["issuer", "audience", "jwks", "algorithms", "roles_claim", "roles"]),
    ("traces", &["endpoint", "ratio"]),
    ("console", &["trace_url"]),
    ("webhooks", super::webhook_settings::KEYS),
];

/// The options that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Settings (flag over environment over file)")]
pub struct SettingsArgs {
    /// Where state lives: `postgres://USER:PASSWORD@HOST/DATABASE` or `sqlite://FILE`
    #[arg(long, global = true, value_name = "URL", env = "AMENDS_STORE", hide_env_values = true)]
    store: Option<String>,
    /// The message broker: `amqp://USER:PASSWORD@HOST:5672/VHOST` or `in-process`
    #[arg(long, global = true, value_name = "URL", env = "AMENDS_BROKER", hide_env_values = true)]
    broker: Option<String>,
    /// Where `serve` listens [default: 127.0.0.1:7070]
    #[arg(long, global = true, value_name = "ADDRESS", env = "AMENDS_HTTP", hide_env_values = true)]
    http: Option<String>,
    /// The server to talk to [default: http://127.0.0.1:7070]
    #[arg(long, global = true, value_name = "URL", env = "AMENDS_URL", hide_env_values = true)]
    url: Option<String>,
    /// The token to show to the server; better set in the environment than on a command line others can see
    #[arg(long, global = true, value_name = "TOKEN", env = "AMENDS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The namespace (tenant): of the server, for a token that is for several; of the store, for commands that open it
    #[arg(long, global = true, value_name = "NAME", env = "AMENDS_NAMESPACE", hide_env_values = true)]
    namespace: Option<String>,
    /// A settings file in TOML: store, broker, http, url, [[tokens]], [[namespaces]], [oidc], [operators], [encryption], [traces],
    /// [console] and [[webhooks]]
    #[arg(long, global = true, value_name = "FILE", env = "AMENDS_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// What applies to one run of the program.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Where state lives.
    pub store: Option<String>,
    /// The broker.
    pub broker: Option<String>,
    /// Where `serve` listens.
    pub http: Option<String>,
    /// The server to talk to.
    pub url: Option<String>,
    /// What to show to that server.
    pub token: Option<String>,
    /// Which namespace is meant.
    pub namespace: Option<String>,
    /// The namespaces besides the default one. From the file only.
    pub namespaces: Vec<NamespaceEntry>,
    /// Who may use the server that `serve` runs. From the file only.
    pub tokens: Vec<TokenEntry>,
    /// An issuer whose tokens that server accepts, too. From the file only.
    pub oidc: Option<OidcSettings>,
    /// What operators may do on the server that `serve` runs. From the file; a flag of `serve` adds to it.
    pub operators: Operators,
    /// What payloads are encrypted with. From the file only.
    pub encryption: Encryption,
    /// Where traces go. From the file only; flags and environment win.
    pub traces: TraceSettings,
    /// What the console is told. From the file only.
    pub console: ConsoleSettings,
    /// Who is told of sagas that get stuck. From the file only.
    pub webhooks: Vec<WebhookEntry>,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// The collector's address.
    pub endpoint: Option<String>,
    /// The share of sagas whose traces are sent.
    pub ratio: Option<f64>,
}

/// What the console is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsoleSettings {
    /// Where a trace is looked at: an address with `{traceId}` in it.
    pub trace_url: Option<String>,
}

impl ConsoleSettings {
    /// The same as the console takes it, where ended sagas are kept for so long.
    pub fn links(&self, retention: Option<Duration>) -> Links {
        Links { trace: self.trace_url.clone(), retention }
    }
}

/// An issuer of tokens (OpenID Connect).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// What a token's `iss` must be.
    pub issuer: String,
    /// What its `aud` must be, or hold.
    pub audience: String,
    /// Where the issuer's keys are: `https://…`, or a file.
    pub jwks: String,
    /// What it may be signed with.
    #[serde(default = "OidcSettings::usual_algorithms")]
    pub algorithms: Vec<String>,
    /// The claim that tells the roles, with dots between the parts of its path.
    #[serde(default = "OidcSettings::usual_claim")]
    pub roles_claim: String,
    /// Which of its values gives which role.
    pub roles: BTreeMap<String, String>,
}

impl OidcSettings {
    fn usual_algorithms() -> Vec<String> {
        ["RS256", "ES256"].map(str::to_owned).into()
    }

    fn usual_claim() -> String {
        "roles".to_owned()
    }
}

/// What operators may do beyond what they always may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operators {
    /// Whether they may send a command that was refused with another input.
    pub allow_edit: bool,
}

/// What payloads are encrypted with, if they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encryption {
    /// The name of the key that wraps what is written with from now on; without it nothing more is encrypted.
    pub active: Option<String>,
    /// Where each master key is, by name.
    pub keys: BTreeMap<String, KeyPlace>,
}

/// Where a master key is: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyPlace {
    /// A file that holds it.
    pub file: Option<PathBuf>,
    /// A variable of the environment that holds it.
    pub env: Option<String>,
}

impl Encryption {
    /// The keys, read from where they are; `None` when there are none.
    ///
    /// # Errors
    /// Which of them cannot be read, and why.
    pub fn read(&self) -> Result<Option<MasterKeys>, CliError> {
        if self.keys.is_empty() && self.active.is_none() {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for (name, place) in &self.keys {
            let wrong = |problem: String| {
                let name = super::output::escape(name);
                CliError::usage(format!("encryption key `{name}`: {problem}"))
                    .help("see [encryption] in deploy/amends.sample.toml and docs/secrets.md")
            };
            let text = match (&place.file, &place.env) {
                (Some(file), None) => std::fs::read_to_string(file)
                    .map_err(|error| wrong(format!("`{}` cannot be read: {error}", file.display())))?,
                (None, Some(env)) => std::env::var(env).map_err(|_| wrong(format!("{env} is not set")))?,
                _ => return Err(wrong("say where it is, by `file` or by `env`".to_owned())),
            };
            keys.push((name.clone(), MasterKeys::parse(&text).map_err(wrong)?));
        }
        let masters = MasterKeys::new(self.active.clone(), keys)
            .map_err(|problem| CliError::usage(problem).help("name one of [encryption.keys], or leave `active` out"))?;
        Ok(Some(masters))
    }

    /// The same for one namespace, with the key that its entry names.
    ///
    /// # Errors
    /// When there is no such key, or one cannot be read.
    pub fn read_for(&self, entry: &NamespaceEntry) -> Result<Option<MasterKeys>, CliError> {
        of_namespace(self.read()?, entry)
    }
}

/// The keys, with the one active that the namespace's entry names.
///
/// # Errors
/// When there is no such key.
pub fn of_namespace(masters: Option<MasterKeys>, entry: &NamespaceEntry) -> Result<Option<MasterKeys>, CliError> {
    let Some(key) = &entry.encryption_key else { return Ok(masters) };
    let active = masters.unwrap_or_default().with_active(key).map_err(|problem| {
        CliError::usage(format!("namespace `{}`: encryption_key: {problem}", super::output::escape(&entry.name)))
            .help("name one of [encryption.keys], or leave it out")
    })?;
    Ok(Some(active))
}

/// One token that the server accepts. The file holds its hash, so that reading the file does not give it away.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    /// Whose it is; written into the audit log.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// SHA-256 of the token, in hexadecimal.
    pub sha256: String,
    /// The namespace that it leads into; the default one unless said.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The namespaces among which its holder may choose, the first unless they do; `["*"]` are all.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// One namespace besides the default one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceEntry {
    /// Its name.
    pub name: String,
    /// Where its state lives: in PostgreSQL always in the schema `amends_<name>`.
    pub store: Option<String>,
    /// Its broker, where that is not everybody's.
    pub broker: Option<String>,
    /// The window of its participants, where that is not everybody's.
    pub window: Option<u32>,
    /// The window of single participants.
    pub windows: BTreeMap<String, u32>,
    /// The turns of its definitions.
    pub weights: BTreeMap<String, u32>,
    /// The key that wraps what it writes with, where that is not everybody's: one of `[encryption.keys]`.
    pub encryption_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    store: Option<String>,
    broker: Option<String>,
    http: Option<String>,
    url: Option<String>,
    operators: Operators,
    tokens: Vec<TokenEntry>,
    namespaces: Vec<NamespaceEntry>,
    oidc: Option<OidcSettings>,
    encryption: Encryption,
    traces: TraceSettings,
    console: ConsoleSettings,
    webhooks: Vec<WebhookEntry>,
}

impl Settings {
    /// Puts flags and environment over the file.
    ///
    /// # Errors
    /// When the file cannot be read or holds what it should not.
    pub fn resolve(args: SettingsArgs) -> Result<Self, CliError> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => Self::default(),
        };
        // An empty variable is one that is not set: that is how compose files pass on what they do not have.
        let over = |flag: Option<String>, file: Option<String>| flag.filter(|value| !value.is_empty()).or(file);
        Ok(Self {
            store: over(args.store, file.store),
            broker: over(args.broker, file.broker),
            http: over(args.http, file.http),
            url: over(args.url, file.url),
            token: over(args.token, None),
            namespace: over(args.namespace, None),
            ..file
        })
    }

    /// The settings that a file with this text holds.
    ///
    /// # Errors
    /// What is wrong, with line and column, and the way out.
    pub fn from_file_text(text: &str) -> Result<Self, (String, String)> {
        let File {
            store,
            broker,
            http,
            url,
            operators,
            tokens,
            namespaces,
            oidc,
            encryption,
            traces,
            console,
            webhooks,
        } = parse_file(text)?;
        Ok(Self {
            store,
            broker,
            http,
            url,
            token: None,
            namespace: None,
            namespaces,
            tokens,
            oidc,
            operators,
            encryption,
            traces,
            console,
            webhooks,
        })
    }

    /// The store to use: the one set, or SQLite under the user's data folder, which is made if need be.
    ///
    /// # Errors
    /// When there is no such folder, or it cannot be made.
    pub fn store_or_default(&self) -> Result<String, CliError> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let way_out = "name a place for it with --store sqlite://FILE or AMENDS_STORE";
        let folders = directories::ProjectDirs::from("", "", "amends")
            .ok_or_else(|| CliError::usage("this user has no data folder").help(way_out))?;
        let folder = folders.data_dir();
        std::fs::create_dir_all(folder).map_err(|error| {
            CliError::failed(format!("`{}` cannot be made: {error}", folder.display())).help(way_out)
        })?;
        Ok(format!("sqlite://{}", folder.join("amends.db").display()))
    }

    /// The broker to use: the one set, or the one inside the process.
    pub fn broker_or_default(&self) -> &str {
        self.broker.as_deref().unwrap_or("in-process")
    }

    /// Where `serve` listens.
    pub fn http_or_default(&self) -> &str {
        self.http.as_deref().unwrap_or(DEFAULT_HTTP)
    }

    /// The server to talk to: the one set, or where `serve` listens with the same settings.
    pub fn url_or_default(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("http://{}", self.http_or_default()))
    }
}

fn read_file(path: &Path) -> Result<Settings, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        CliError::usage(format!("settings file `{}` cannot be read: {error}", path.display()))
            .help("name one that can with --config or AMENDS_CONFIG, or leave both out")
    })?;
    Settings::from_file_text(&text)
        .map_err(|(problem, help)| CliError::usage(format!("settings file `{}`, {problem}", path.display())).help(help))
}

/// The settings in `text`; else what is wrong, with line and column, and the way out.
fn parse_file(text: &str) -> Result<File, (String, String)> {
    use toml::de::{DeTable, DeValue};
    let wrong = |error: toml::de::Error| {
        // One without a place is about the whole: nesting beyond what is read.
        let place = place(text, error.span().map_or(0, |span| span.start));
        (format!("{place}{}", error.message()), format!("the keys are {}", KEYS.join(", ")))
    };
    let table = DeTable::parse(text).map_err(wrong)?;
    for (key, value) in table.get_ref() {
        known(text, key.get_ref(), key.span().start, KEYS)?;
        let name: &str = key.get_ref();
        let Some((_, keys)) = ENTRY_KEYS.iter().find(|(entry, _)| *entry == name) else { continue };
        let tables: Vec<&DeTable<'_>> = match value.get_ref() {
            DeValue::Table(table) => vec![table],
            DeValue::Array(entries) => entries.iter().filter_map(|entry| entry.get_ref().as_table()).collect(),
            _ => Vec::new(),
        };
        for key in tables.into_iter().flat_map(|table| table.keys()) {
            known(text, key.get_ref(), key.span().start, keys)?;
        }
    }
    toml::from_str(text).map_err(wrong)
}

fn known(text: &str, key: &str, at: usize, keys: &[&str]) -> Result<(), (String, String)> {
    if keys.contains(&key) {
        return Ok(());
    }
    let nearest = keys.iter().map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
    let help = match nearest {
        Some((distance, known)) if distance <= 2 => format!("did you mean `{known}`?"),
        _ => format!("the keys are {}", keys.join(", ")),
    };
    Err((format!("{}unknown key `{}`", place(text, at), super::output::escape(key)), help))
}

fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: ")
}

/// `url` with its password, if any, replaced: for messages.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    // A password may hold an unescaped `@`: the last one ends it.
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(name, _)| name);
            format!("{scheme}://{user}:***@{host}{tail}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> (String, String) {
        parse_file(text).expect_err("the text has an error")
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        assert_eq!(
            problem("http = \"127.0.0.1:1\"\nstroe = \"sqlite://x\"\n"),
            ("line 2, column 1: unknown key `stroe`".to_owned(), "did you mean `store`?".to_owned())
        );
        assert_eq!(problem("[oidc]\nisuer = \"a\"\n").1, "did you mean `issuer`?");
        assert_eq!(problem("[[tokens]]\nname = \"a\"\nrole = \"viewer\"\nsha265 = \"\"\n").1, "did you mean `sha256`?");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_place() {
        let (problem, _) = problem("store = 5\n");
        assert!(problem.starts_with("line 1, column 9: "), "{problem}");
    }

    #[test]
    fn flags_win_over_the_file_and_empty_ones_do_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("amends.toml");
        std::fs::write(&file, "store = \"sqlite://file\"\nhttp = \"127.0.0.1:1\"\n").expect("written");
        let args = SettingsArgs {
            store: Some("sqlite://flag".to_owned()),
            http: Some(String::new()),
            config: Some(file),
            ..SettingsArgs::default()
        };
        let settings = Settings::resolve(args).expect("settings");
        assert_eq!(settings.store.as_deref(), Some("sqlite://flag"));
        assert_eq!(settings.http_or_default(), "127.0.0.1:1");
        assert_eq!(settings.url_or_default(), "http://127.0.0.1:1");
    }

    #[test]
    fn passwords_are_masked_also_when_they_hold_an_at_sign() {
        assert_eq!(masked("postgres://me:p@ss:w@host:5432/db"), "postgres://me:***@host:5432/db");
        assert_eq!(masked("sqlite://a/b"), "sqlite://a/b");
    }
}
