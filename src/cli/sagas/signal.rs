//! `amends sagas signal`: what a saga waits for from outside.

use serde_json::{Value, json};

use super::{show, start, state, text};
use crate::cli::error::{CliError, Exit};
use crate::cli::remote::Remote;
use crate::cli::{Context, output};

/// Which saga, and what.
#[derive(Debug, clap::Args)]
#[command(override_usage = "amends sagas signal [OPTIONS] <ID> <NAME>\n       \
    amends sagas signal [OPTIONS] --saga <NAME> --key <KEY> <NAME>")]
#[command(after_help = "Examples:\n  \
    amends sagas signal 0198c0de-0000-7000-8000-000000000001 approval --payload '{\"by\": \"ada\"}'\n  \
    amends sagas signal approval --saga book-trip --key t-1 --payload @approval.json")]
pub struct Args {
    /// The saga's id, unless --saga and --key name it; then the signal's name
    #[arg(value_names = ["ID", "NAME"], num_args = 1..=2, required = true)]
    names: Vec<String>,
    /// The definition's name, with --key instead of an id
    #[arg(long, value_name = "NAME", requires = "key")]
    saga: Option<String>,
    /// The saga's key
    #[arg(long, requires = "saga")]
    key: Option<String>,
    /// What the signal says: JSON, `@FILE`, or `-` for standard input
    #[arg(long, value_name = "JSON|@FILE|-")]
    payload: Option<String>,
    /// Only show the saga that would be told
    #[arg(long)]
    dry_run: bool,
}

/// Sends it.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let Args { names, saga, key, payload, dry_run } = args;
    let (mut body, signal) = match (names.as_slice(), saga, key) {
        ([id, signal], None, None) => {
            let id = super::saga_id(id).map_err(|why| CliError::usage(format!("`{}`: {why}", output::escape(id))))?;
            (json!({ "sagaId": id.to_string() }), signal)
        }
        ([signal], Some(saga), Some(key)) => (json!({ "saga": saga, "key": key }), signal),
        _ => {
            return Err(CliError::usage("which saga is meant is not plain")
                .help("give `ID SIGNAL`, or `SIGNAL --saga NAME --key KEY`"));
        }
    };
    body["signal"] = signal.as_str().into();
    if let Some(payload) = payload {
        let (name, text) = match payload.as_str() {
            "-" => ("-", start::read("-")?),
            given => match given.strip_prefix('@') {
                Some(file) => (file, start::read(file)?),
                None => ("--payload", given.to_owned()),
            },
        };
        body["payload"] = serde_json::from_str(&text).map_err(|error| {
            CliError::usage(format!("payload `{name}` is no JSON: {error}"))
                .help("give JSON in quotes, `@FILE`, or `-` for standard input")
        })?;
    }
    if dry_run {
        return would_signal(&body, context).await;
    }
    let (_, result) = Remote::new(context)?.post(&["v1", "signals"], &body, None).await?;
    let saga = &result["saga"];
    let (id, state) = (text(&saga["id"]), output::escape(&state(saga)).to_string());
    let signal = output::escape(signal);
    output::note(if result["isDuplicate"] == true {
        format!("saga {id} had `{signal}` already, and the first one counts; it is {state}")
    } else {
        format!("saga {id} has `{signal}`; it is {state}")
    });
    show::print(context, saga)?;
    show::suggest(saga);
    Ok(Exit::Done)
}

async fn would_signal(body: &Value, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let id = match body["sagaId"].as_str() {
        Some(id) => id.to_owned(),
        None => {
            let query = [("saga", text(&body["saga"])), ("key", text(&body["key"]))];
            let found = remote.get(&["v1", "sagas"], &query).await?;
            let id = found["items"][0]["id"].as_str().map(str::to_owned);
            id.ok_or_else(|| CliError::failed(format!("no saga `{}` has the key `{}`", query[0].1, query[1].1)))?
        }
    };
    let saga = remote.get(&["v1", "sagas", &id], &[]).await?;
    show::print(context, &saga)?;
    output::note(format!("nothing was done; saga {id} would be told of `{}`", output::escape(&text(&body["signal"]))));
    Ok(Exit::Done)
}
