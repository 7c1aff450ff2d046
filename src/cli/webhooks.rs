//! `amends webhooks`: what webhooks are still to be told, and what they did not take.

use serde_json::{Value, json};
use uuid::Uuid;

use super::error::{CliError, Exit};
use super::output::{self, Column};
use super::remote::Remote;
use super::{Context, sagas};

/// Arguments of `amends webhooks`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List messages that webhooks have not taken yet
    List(ListArgs),
    /// Try a message again, from its first attempt
    Retry(Args),
    /// Drop a message for good: the webhook is not told
    Drop(Args),
}

/// Which ones.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// PENDING: still tried. PARKED: attempts are spent, and a person must see to it
    #[arg(long, value_name = "STATE", ignore_case = true, value_parser = ["PENDING", "PARKED"])]
    state: Option<String>,
    #[command(flatten)]
    page: sagas::PageArgs,
}

/// Which one, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The message's id
    id: Uuid,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

const COLUMNS: &[Column] = &[
    ("id", |item| sagas::text(&item["id"])),
    ("webhook", |item| sagas::text(&item["webhook"])),
    ("event", |item| sagas::text(&item["event"])),
    ("saga id", |item| sagas::text(&item["sagaId"])),
    ("state", |item| sagas::text(&item["state"])),
    ("attempts", |item| sagas::text(&item["attempts"])),
    ("next due", |item| sagas::text(&item["nextDue"])),
    ("problem", |item| sagas::text(&item["problem"])),
];

/// Lists them, or sees to one.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::List(args) => list(args, context).await,
        Command::Retry(args) => see_to("retry", args, context).await,
        Command::Drop(args) => see_to("drop", args, context).await,
    }
}

async fn list(args: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let query = args.state.map(|state| ("state", state.to_uppercase())).into_iter().collect();
    let pages = args.page.read(&remote, &["v1", "webhooks", "deliveries"], query).await?;
    context.output.rows(&pages.document(), &pages.items, COLUMNS)?;
    pages.tell_more();
    let parked = pages.items.iter().find(|item| item["state"] == "PARKED");
    if let Some(id) = parked.and_then(|item| item["id"].as_str()) {
        output::next(&[format!("amends webhooks retry {} --reason '...'", output::escape(id))]);
    }
    Ok(Exit::Done)
}

async fn see_to(action: &str, args: Args, context: &Context) -> Result<Exit, CliError> {
    let id = args.id.to_string();
    let path = ["v1", "webhooks", "deliveries", &id, action];
    let (_, item): (bool, Value) = Remote::new(context)?.post(&path, &json!({ "reason": args.reason }), None).await?;
    output::note(format!("{action}: done"));
    let items = [item];
    context.output.rows(&json!({ "items": items, "next": null }), &items, COLUMNS)?;
    Ok(Exit::Done)
}
