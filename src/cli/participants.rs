//! `amends participants`: who does the work, and who does not; and pauses of them.

use serde_json::{Value, json};

use super::again::{WatchArgs, again};
use super::error::{CliError, Exit};
use super::output::Column;
use super::remote::Remote;
use super::{Context, output, sagas};

/// What to do; without a command they are listed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    watch: WatchArgs,
}

/// `amends participants ...`
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List participants: their queues, what waits there, whether they only fail, and whether they are paused
    List,
    /// Hold back the commands for a participant, or for one of its actions, until resumed
    Pause(Change),
    /// Undo a pause: what was held back goes out bit by bit
    Resume(Change),
}

/// Which participant, and why.
#[derive(Debug, clap::Args)]
struct Change {
    /// The participant's name
    name: String,
    /// One of its actions, instead of all
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only show what it would be about
    #[arg(long)]
    dry_run: bool,
}

/// Lists, pauses or resumes them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    match args.command {
        None | Some(Command::List) => again(args.watch, || list(context)).await,
        Some(Command::Pause(change)) => act("pause", change, context).await,
        Some(Command::Resume(change)) => act("resume", change, context).await,
    }
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
    ("paused", paused),
];

/// What of a participant is paused.
fn paused(item: &Value) -> String {
    let pauses = item["pauses"].as_array().into_iter().flatten();
    let told: Vec<String> = pauses
        .map(|pause| {
            let what = pause["action"].as_str().map_or(String::new(), |action| format!("{action} "));
            format!("{what}by {}: {}", sagas::text(&pause["by"]), sagas::text(&pause["reason"]))
        })
        .collect();
    if told.is_empty() { "-".to_owned() } else { told.join("; ") }
}

async fn list(context: &Context) -> Result<Exit, CliError> {
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

async fn act(word: &str, change: Change, context: &Context) -> Result<Exit, CliError> {
    let Change { name, action, reason, dry_run } = change;
    let mut body = json!({ "reason": reason.unwrap_or_default() });
    let flag = action.as_deref().map_or(String::new(), |action| format!(" --action {action}"));
    let what = output::escape(&action.as_deref().map_or(name.clone(), |action| format!("{name}.{action}")));
    if let Some(action) = action {
        body["action"] = action.into();
    }
    let (remote, path) = (Remote::new(context)?, ["v1", "participants", name.as_str(), word]);
    let found = match dry_run {
        true => remote.post_asking(&path, &[("dryRun", "true")], &body, None).await?,
        false => remote.post(&path, &body, None).await?.1,
    };
    let unanswered = sagas::text(&found["unanswered"]);
    context.output.one(&found, || {
        let state = if found["paused"] == true { "paused" } else { "not paused" };
        output::table(
            &["participant", "state", "unanswered commands"],
            [vec![what.clone(), state.to_owned(), unanswered]],
        )
    })?;
    let (name, flag) = (output::escape(&name), output::escape(&flag));
    match (dry_run, word) {
        (true, _) => {
            output::note("nothing was done");
            output::next(&[format!("amends participants {word} {name}{flag} --reason '...'")]);
        }
        (false, "pause") => {
            output::note(format!(
                "{what} is paused: what is in its queue already may still be done; new commands are held back"
            ));
            output::next(&[format!("amends participants resume {name}{flag} --reason '...'")]);
        }
        (false, _) => {
            output::note(format!("{what} is resumed: what was held back goes out bit by bit"));
            output::next(&["amends participants".to_owned()]);
        }
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
