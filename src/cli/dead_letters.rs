//! `amends dead-letters`: messages that nobody could take: look, bring back, or drop.

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::output::Column;
use super::remote::Remote;
use super::{Context, output, sagas};

/// `amends dead-letters ...`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the queues of dead letters with how many messages each has
    List,
    /// Show the oldest messages of a queue, which stay where they are
    Show(Show),
    /// Publish messages to where they came from, then remove them from the dead letters
    Replay(Change),
    /// Remove messages for good
    Drop(Change),
}

/// Which queue.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// The queue of dead letters, for example warehouse.commands.dead
    queue: String,
    /// At most this many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: Option<u32>,
}

/// Which messages, and why.
#[derive(Debug, clap::Args)]
pub struct Change {
    /// The queue of dead letters, for example warehouse.commands.dead
    queue: String,
    /// A message, by the id that `show` tells; may be given several times
    #[arg(long, value_name = "ID", required_unless_present = "count")]
    message: Vec<String>,
    /// Instead: the oldest so many
    #[arg(long, value_name = "NUMBER", conflicts_with = "message", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: Option<u32>,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only show which messages are meant
    #[arg(long)]
    dry_run: bool,
}

/// Runs one of them.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::List => list(context).await,
        Command::Show(args) => show(args, context).await,
        Command::Replay(args) => act("replay", args, context).await,
        Command::Drop(args) => act("drop", args, context).await,
    }
}

const QUEUES: [Column; 3] = [
    ("queue", |item| sagas::text(&item["queue"])),
    ("comes from", |item| sagas::text(&item["origin"])),
    ("messages", |item| sagas::text(&item["messages"])),
];

const LETTERS: [Column; 6] = [
    ("id", |item| sagas::text(&item["id"])),
    ("reason", |item| sagas::text(&item["reason"])),
    ("type", |item| sagas::text(&item["kind"])),
    ("saga id", |item| sagas::text(&item["sagaId"])),
    ("replay to", |item| sagas::text(&item["replayTo"])),
    ("body", |item| {
        let body = sagas::text(&item["body"]);
        if body.chars().count() > 60 { format!("{}…", body.chars().take(60).collect::<String>()) } else { body }
    }),
];

async fn list(context: &Context) -> Result<Exit, CliError> {
    let document = Remote::new(context)?.get(&["v1", "dead-letters"], &[]).await?;
    let items = document["items"].as_array().cloned().unwrap_or_default();
    context.output.rows(&document, &items, &QUEUES)?;
    if let Some(full) = items.iter().find(|item| item["messages"].as_u64().is_some_and(|count| count > 0)) {
        output::next(&[format!("amends dead-letters show {}", output::escape(&sagas::text(&full["queue"])))]);
    }
    Ok(Exit::Done)
}

async fn show(args: Show, context: &Context) -> Result<Exit, CliError> {
    let query: Vec<_> = args.limit.map(|limit| ("limit", limit.to_string())).into_iter().collect();
    let document = Remote::new(context)?.get(&["v1", "dead-letters", &args.queue], &query).await?;
    let items = document["items"].as_array().cloned().unwrap_or_default();
    context.output.rows(&document, &items, &LETTERS)?;
    if document["more"] == true {
        output::note("there are more: --limit, up to 500");
    }
    if let Some(first) = items.first() {
        let (queue, id) = (output::escape(&args.queue), output::escape(&sagas::text(&first["id"])));
        output::next(&[
            format!("amends dead-letters replay {queue} --message {id} --reason '...'"),
            format!("amends dead-letters drop {queue} --message {id} --reason '...'"),
        ]);
    }
    Ok(Exit::Done)
}

async fn act(word: &str, args: Change, context: &Context) -> Result<Exit, CliError> {
    let Change { queue, message, count, reason, dry_run } = args;
    let mut body = json!({ "reason": reason.unwrap_or_default() });
    match count {
        Some(count) => body["count"] = count.into(),
        None => body["messages"] = message.into(),
    }
    let (remote, path) = (Remote::new(context)?, ["v1", "dead-letters", queue.as_str(), word]);
    let found = match dry_run {
        true => remote.post_asking(&path, &[("dryRun", "true")], &body, None).await?,
        false => remote.post(&path, &body, None).await?.1,
    };
    let items = found["items"].as_array().cloned().unwrap_or_default();
    let done = if dry_run { "meant" } else { "done" };
    let outcome = |item: &Value| item["problem"].as_str().unwrap_or(done).to_owned();
    let rows = items.iter().map(|item| vec![sagas::text(&item["id"]), outcome(item)]);
    context.output.list(&found, &items, || output::table(&["id", "outcome"], rows))?;
    let count = sagas::text(&found["done"]);
    if dry_run {
        output::note(format!("nothing was done; {word} would be about {count} messages"));
        return Ok(Exit::Done);
    }
    output::note(format!("{word}: {count} of {} messages", items.len()));
    match items.iter().all(|item| item["problem"].is_null()) {
        true => Ok(Exit::Done),
        false => {
            Err(CliError::failed("some messages are still there").help("nothing is lost: see why above, and repeat it"))
        }
    }
}
