//! `amends outbox`: commands that were decided, and what is known of their outcome.

use super::again::{WatchArgs, again};
use super::error::{CliError, Exit};
use super::output::Column;
use super::remote::Remote;
use super::{Context, output, sagas};

/// Arguments of `amends outbox`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// PENDING: the outcome is not known yet. VERIFIED: it is, durably
    #[arg(long, value_name = "STATE", default_value = "PENDING", ignore_case = true, value_parser = ["PENDING", "VERIFIED"])]
    state: String,
    #[command(flatten)]
    page: sagas::PageArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

const COLUMNS: &[Column] = &[
    ("saga id", |entry| sagas::text(&entry["sagaId"])),
    ("saga", sagas::definition),
    ("step", |entry| sagas::text(&entry["step"])),
    ("direction", |entry| sagas::text(&entry["direction"])),
    ("state", |entry| sagas::text(&entry["state"])),
    ("attempt", |entry| sagas::text(&entry["attempt"])),
    ("age", |entry| sagas::text(&entry["age"])),
    ("next due", |entry| output::moment(&entry["nextDue"])),
];

/// Lists them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let watch = args.watch;
    again(watch, || once(args.clone(), context)).await
}

async fn once(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let query = vec![("state", args.state.to_uppercase())];
    let pages = args.page.read(&remote, &["v1", "outbox"], query).await?;
    context.output.rows(&pages.document(), &pages.items, COLUMNS)?;
    pages.tell_more();
    match pages.items.first() {
        Some(first) => output::next(&[
            format!("amends sagas show {}", sagas::text(&first["sagaId"])),
            "amends participants".to_owned(),
        ]),
        None => output::note(format!("no command is {}", args.state.to_uppercase())),
    }
    Ok(Exit::Done)
}
