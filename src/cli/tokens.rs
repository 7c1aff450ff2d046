//! `amends tokens`: who may use the HTTP interface and the console. Works on the store itself, so that the first token can
//! be made before anybody could show one.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::error::{CliError, Exit};
use super::namespaces::Place;
use super::output::Column;
use super::settings::masked;
use super::{Context, connect, output, sagas};
use crate::api::MOST_STALE;
use crate::api::auth::text::{check_name, token_text};
use crate::clock::{Clock, Timestamp};
use crate::definition::parse_duration;
use crate::id::{Namespace, fresh_secret};
use crate::store::tokens::{ApiToken, MAX_LIVE, NewToken, Revocation, TokenMade, TokenStore};
use crate::store::{Page, Store};

/// The longest time a token can be made for.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);
/// Tokens that are read at once.
const ROWS: u32 = 500;

/// `amends tokens ...`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a token and print it, this once: the store keeps its hash alone
    Create(CreateArgs),
    /// List tokens, newest first
    List(ListArgs),
    /// Revoke a token: every coordinator refuses it within two seconds, and its sessions in the console end
    Revoke(RevokeArgs),
}

/// What token.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Whose it is: stands in the audit log with whatever is done with it
    #[arg(value_parser = name)]
    name: String,
    /// What it may do: viewer reads; starter starts sagas, too; registrar registers definitions, too; operator acts on
    /// sagas, too; admin
    #[arg(long, value_parser = ["viewer", "starter", "registrar", "operator", "admin"])]
    role: String,
    /// How long it is good, for example 90d; for ever, if not given
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires: Option<Duration>,
    /// Why, for the audit log
    #[arg(long, default_value = "made on the command line")]
    reason: String,
    #[command(flatten)]
    by: By,
}

/// Which tokens.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Those that were revoked or have expired, too
    #[arg(long)]
    all: bool,
}

/// Which token.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    /// Its name
    name: String,
    /// Why, for the audit log
    #[arg(long, value_parser = reason)]
    reason: String,
    #[command(flatten)]
    by: By,
}

/// Who is at the command line.
#[derive(Debug, clap::Args)]
struct By {
    /// Who does it, for the audit log
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "unknown")]
    by: String,
}

impl By {
    /// Told apart from tokens' names, which have no colon.
    fn actor(&self) -> String {
        let name: String = self.by.chars().filter(|c| !c.is_control()).take(64).collect();
        format!("cli:{name}")
    }
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why".to_owned()) } else { Ok(text.to_owned()) }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let found = parse_duration(text)?;
    if found.is_zero() || found > LONGEST {
        return Err("from 1ms to ten years".to_owned());
    }
    Ok(found)
}

/// Runs one of them.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    let place = context.settings.place()?;
    let store = connect::store_of(&place).await?;
    let outcome = on(&*store, &place, command, context).await;
    store.close().await;
    outcome
}

async fn on(store: &dyn Store, place: &Place, command: Command, context: &Context) -> Result<Exit, CliError> {
    super::serve::prepare_schema(store, &place.store, false).await?;
    let tokens = store.tokens().ok_or_else(|| {
        CliError::usage(format!("{} keeps no tokens", masked(&place.store)))
            .help("name a PostgreSQL or SQLite store with --store")
    })?;
    match command {
        Command::Create(args) => create(tokens, &place.namespace, args, context).await,
        Command::List(args) => list(tokens, &args, context).await,
        Command::Revoke(args) => revoke(tokens, &args, context).await,
    }
}

async fn create(
    tokens: &dyn TokenStore,
    namespace: &Namespace,
    args: CreateArgs,
    context: &Context,
) -> Result<Exit, CliError> {
    let secret = fresh_secret().map_err(|error| CliError::failed(format!("no random numbers: {error}")))?;
    let text = token_text(namespace.as_str(), &secret);
    let new = NewToken {
        name: args.name,
        role: args.role,
        sha256: Sha256::digest(&text).into(),
        created_by: args.by.actor(),
        lifetime: args.expires,
        reason: args.reason,
    };
    match tokens.make_token(&new).await? {
        TokenMade::New(made) => {
            let mut document = view(&made, made.created_at);
            document["token"] = text.as_str().into();
            context.output.one(&document, || text.clone())?;
            let until = made.expires_at.map_or_else(String::new, |at| format!(", until {}", at.to_rfc3339()));
            output::note(format!("`{}` is {}{until}; the token is shown this once", made.name, made.role));
            Ok(Exit::Done)
        }
        TokenMade::NameTaken => {
            Err(CliError::failed(format!("there is a token called `{}` that was not revoked", new.name))
                .exit(Exit::Conflict)
                .help(format!(
                    "take another name, or revoke that one first: amends tokens revoke {} --reason ...",
                    new.name
                )))
        }
        TokenMade::TooMany => Err(CliError::failed(format!("there are {MAX_LIVE} tokens already"))
            .help("revoke those that nobody uses: `amends tokens list` tells when each was used last")),
    }
}

const COLUMNS: &[Column] = &[
    ("name", |token| sagas::text(&token["name"])),
    ("role", |token| sagas::text(&token["role"])),
    ("state", |token| sagas::text(&token["state"])),
    ("created", |token| sagas::text(&token["createdAt"])),
    ("by", |token| sagas::text(&token["createdBy"])),
    ("expires", |token| sagas::text(&token["expiresAt"])),
    ("last used", |token| sagas::text(&token["lastUsedAt"])),
];

async fn list(tokens: &dyn TokenStore, args: &ListArgs, context: &Context) -> Result<Exit, CliError> {
    let now = Clock::System.now();
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let rows = tokens.all_tokens(&Page { after, limit: ROWS }).await?;
        after = rows.last().map(|token| token.id);
        let is_last = rows.len() < ROWS as usize;
        let views = rows.iter().map(|token| view(token, now));
        items.extend(views.filter(|token| args.all || token["state"] == "good"));
        if is_last {
            break;
        }
    }
    context.output.rows(&json!({ "items": items }), &items, COLUMNS)?;
    Ok(Exit::Done)
}

async fn revoke(tokens: &dyn TokenStore, args: &RevokeArgs, context: &Context) -> Result<Exit, CliError> {
    let (token, told) = match tokens.revoke_token(&args.name, &args.by.actor(), &args.reason).await? {
        Revocation::Done(token) => {
            let within = MOST_STALE.as_secs();
            (token, format!("`{}` is revoked; coordinators refuse it within {within} s", args.name))
        }
        Revocation::Before(token) => (token, format!("`{}` was revoked before", args.name)),
        Revocation::Unknown => {
            return Err(CliError::failed(format!("there is no token called `{}`", output::escape(&args.name)))
                .help("`amends tokens list` lists those there are; those of the settings file are revoked there"));
        }
    };
    if !context.output.is_for_people() {
        context.output.one(&view(&token, Clock::System.now()), String::new)?;
    }
    output::note(told);
    Ok(Exit::Done)
}

/// A token as it is printed: never its hash.
fn view(token: &ApiToken, now: Timestamp) -> Value {
    let is_over = token.expires_at.is_some_and(|at| at <= now);
    let state = match &token.revoked {
        Some(_) => "revoked",
        None if is_over => "expired",
        None => "good",
    };
    json!({
        "name": token.name,
        "role": token.role,
        "state": state,
        "createdAt": token.created_at,
        "createdBy": token.created_by,
        "expiresAt": token.expires_at,
        "lastUsedAt": token.last_used_at,
        "revokedAt": token.revoked.as_ref().map(|revoked| revoked.at),
        "revokedBy": token.revoked.as_ref().map(|revoked| revoked.by.as_str()),
        "revokeReason": token.revoked.as_ref().map(|revoked| revoked.reason.as_str()),
    })
}
