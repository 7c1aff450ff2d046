//! `amends participants`: who does the work, and who does not.

use serde_json::Value;

use super::again::{WatchArgs, again};
use super::error::{CliError, Exit};
use super::output::Column;
use super::remote::Remote;
use super::{Context, output, sagas};

/// Arguments of `amends participants`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    watch: WatchArgs,
}

const COLUMNS: &[Column] = &[
    ("participant", |item| sagas::text(&item["name"])),
    ("consumers", |item| sagas::text(&item["consumers"])),
    ("backlog", |item| sagas::text(&item["backlog"])),
    ("window", |item| sagas::text(&item["window"])),
    ("held back", |item| sagas::text(&item["held"])),
    ("oldest unanswered", |item| sagas::text(&item["oldestUnanswered"])),
    ("circuit", |item| sagas::text(&item["circuit"])),
    ("failure rate", |item| sagas::text(&item["failureRate"])),
];

/// Lists them.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    again(args.watch, || once(context)).await
}

async fn once(context: &Context) -> Result<Exit, CliError> {
    let document = Remote::new(context)?.get(&["v1", "participants"], &[]).await?;
    let items = document["items"].as_array().cloned().unwrap_or_default();
    context.output.rows(&document, &items, COLUMNS)?;
    match items.iter().find(|item| item["consumers"] == 0 || item["circuit"] == "open") {
        _ if items.is_empty() => output::note("no participant yet: they come with the definitions"),
        Some(_) => output::next(&["amends outbox".to_owned(), "amends stuck".to_owned()]),
        None => {}
    }
    Ok(Exit::Done)
}

/// Those whose circuit is open, and what there is to say of it. A server that does not tell has no more to say.
pub(super) async fn failing(context: &Context) -> Vec<(String, String)> {
    let Ok(remote) = Remote::new(context) else { return Vec::new() };
    let Ok(document) = remote.get(&["v1", "participants"], &[]).await else { return Vec::new() };
    let items = document["items"].as_array().cloned().unwrap_or_default();
    let open = items.iter().filter(|item| item["circuit"] == "open");
    let told = |item: &Value| {
        (sagas::text(&item["name"]), format!("does nothing but fail since {}", sagas::text(&item["openSince"])))
    };
    open.map(told).collect()
}
