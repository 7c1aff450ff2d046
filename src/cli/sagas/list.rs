//! `amends sagas list`.

use super::{PageArgs, definition, state, text};
use crate::cli::again::{WatchArgs, again};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::Column;
use crate::cli::remote::Remote;
use crate::cli::{Context, output};

/// Which sagas.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only sagas in this state; may be given more than once
    #[arg(long, ignore_case = true,
        value_parser = ["RUNNING", "COMPENSATING", "COMPLETED", "COMPENSATED", "STUCK", "ABANDONED"])]
    state: Vec<String>,
    /// Only the saga with this key
    #[arg(long)]
    key: Option<String>,
    /// Only sagas started at or after this time, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    since: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

const COLUMNS: &[Column] = &[
    ("id", |saga| text(&saga["id"])),
    ("saga", definition),
    ("key", |saga| text(&saga["key"])),
    ("state", state),
    ("started", |saga| output::moment(&saga["createdAt"])),
    ("waiting for", |saga| text(&saga["waitingFor"])),
];

fn rfc3339(text: &str) -> Result<String, String> {
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}; write it like 2026-01-31T12:00:00Z")),
    }
}

/// Lists them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let watch = args.watch;
    again(watch, || once(args.clone(), context)).await
}

async fn once(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let mut query = Vec::new();
    query.extend(args.saga.map(|saga| ("saga", saga)));
    if !args.state.is_empty() {
        query.push(("state", args.state.join(",").to_uppercase()));
    }
    query.extend(args.key.map(|key| ("key", key)));
    query.extend(args.since.map(|since| ("since", since)));
    let pages = args.page.read(&remote, &["v1", "sagas"], query).await?;
    context.output.rows(&pages.document(), &pages.items, COLUMNS)?;
    pages.tell_more();
    if let Some(first) = pages.items.first() {
        output::next(&[format!("amends sagas show {}", text(&first["id"]))]);
    } else if pages.next.is_none() {
        output::note("no saga matches");
    }
    Ok(Exit::Done)
}
