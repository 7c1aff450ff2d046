//! `amends audit`: who did what, and why.

use super::error::{CliError, Exit};
use super::output::{Column, Format};
use super::remote::Remote;
use super::{Context, sagas};
use crate::id::SagaId;

/// Which rows; newest first.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "With --output jsonl everything is exported, page by page, unless --limit or --cursor asks for a part."
)]
pub struct Args {
    /// Only what was done to this saga
    #[arg(long, value_name = "ID", value_parser = sagas::saga_id)]
    saga: Option<SagaId>,
    /// Only what this one did: a token's name, `oidc:SUBJECT`, `cli:USER`
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this, for example `retry`, `register` or `create-token`
    #[arg(long, value_name = "WORD")]
    action: Option<String>,
    /// Only what was done at or after this time, for example 2026-01-31T12:00:00Z, or so long ago: 1d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    page: sagas::PageArgs,
}

/// Rows of a page of the export.
const ROWS: u32 = 500;

const COLUMNS: &[Column] = &[
    ("at", |row| sagas::text(&row["at"])),
    ("actor", |row| sagas::text(&row["actor"])),
    ("action", |row| sagas::text(&row["action"])),
    ("saga id", |row| sagas::text(&row["sagaId"])),
    ("reason", |row| sagas::text(&row["reason"])),
];

/// Lists or exports them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let mut query = Vec::new();
    query.extend(args.saga.map(|id| ("saga", id.to_string())));
    query.extend(args.actor.map(|actor| ("actor", actor)));
    query.extend(args.action.map(|action| ("action", action)));
    query.extend(args.since.map(|since| ("since", since)));
    let path = ["v1", "audit"];
    if context.output.format != Format::Jsonl || args.page.is_part() {
        let pages = args.page.read(&remote, &path, query).await?;
        context.output.rows(&pages.document(), &pages.items, COLUMNS)?;
        pages.tell_more();
        return Ok(Exit::Done);
    }
    // Printed as it comes: an export may be larger than memory.
    query.push(("limit", ROWS.to_string()));
    let mut cursor: Option<String> = None;
    loop {
        let mut asked = query.clone();
        asked.extend(cursor.map(|cursor| ("cursor", cursor)));
        let mut page = remote.get(&path, &asked).await?;
        let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        context.output.rows(&items, &items, COLUMNS)?;
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(Exit::Done),
        }
    }
}
