//! Moving sagas to another version of their definition: one, or all in flight of a version.

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{pages, text};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::Column;
use crate::cli::remote::Remote;
use crate::cli::{Context, output};
use crate::id::SagaId;

/// Requests under way at once.
const AT_ONCE: usize = 8;

/// Which sagas, where to, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The saga's id
    #[arg(value_parser = super::saga_id, required_unless_present = "saga", conflicts_with_all = ["saga", "from"])]
    id: Option<SagaId>,
    /// All sagas in flight of this definition
    #[arg(long, value_name = "NAME", requires = "from")]
    saga: Option<String>,
    /// The version that they have
    #[arg(long, value_name = "VERSION", requires = "saga")]
    from: Option<u32>,
    /// The version that they are to have
    #[arg(long, value_name = "VERSION")]
    to: u32,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only tell what would be done; exit code 3 when some cannot be moved
    #[arg(long)]
    dry_run: bool,
}

/// Moves them, or tells what would become of them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let mut items = match (args.id, args.saga, args.from) {
        (Some(id), ..) => {
            let query = [("to", args.to.to_string())];
            vec![remote.get(&["v1", "sagas", &id.to_string(), "migration"], &query).await?]
        }
        (None, Some(saga), Some(from)) => plan(&remote, &saga, from, args.to).await?,
        (None, ..) => return Err(CliError::usage("name a saga by its id, or several by --saga and --from")),
    };
    let reason = args.reason.filter(|_| !args.dry_run);
    if let Some(reason) = &reason {
        let moves = items.into_iter().map(|item| moved(&remote, item, args.to, reason));
        let results: Vec<Result<Value, CliError>> = futures_util::stream::iter(moves).buffered(AT_ONCE).collect().await;
        items = results.into_iter().collect::<Result<_, _>>()?;
    }
    context.output.rows(&json!({ "items": items }), &items, COLUMNS)?;
    let refused = items.iter().filter(|item| item["compatible"] != true).count();
    let fit = items.len() - refused;
    let verb = if reason.is_some() { "moved" } else { "could be moved" };
    output::note(format!("{fit} {verb} to version {}, {refused} refused", args.to));
    if let (Some(_), Some(stuck)) = (&reason, items.iter().find(|item| item["state"] == "STUCK")) {
        output::next(&[format!("amends sagas retry {} --reason '...'", text(&stuck["id"]))]);
    }
    Ok(match (refused, reason) {
        (0, _) => Exit::Done,
        (_, None) => Exit::Holds,
        (_, Some(_)) => Exit::Conflict,
    })
}

/// What would become of the sagas in flight of a version.
///
/// # Errors
/// When the server cannot be reached or says no.
pub async fn plan(remote: &Remote, saga: &str, from: u32, to: u32) -> Result<Vec<Value>, CliError> {
    let from = from.to_string();
    let path = ["v1", "definitions", saga, &from, "migration"];
    let query = vec![("to", to.to_string())];
    let first = remote.get(&path, &query).await?;
    Ok(pages(remote, &path, query, first, None).await?.items)
}

/// Moves one saga, unless the plan says no. One that has moved on since is refused as the plan would have.
async fn moved(remote: &Remote, mut item: Value, to: u32, reason: &str) -> Result<Value, CliError> {
    if item["compatible"] != true {
        return Ok(item);
    }
    let id = text(&item["id"]);
    match remote.post(&["v1", "sagas", &id, "migrate"], &json!({ "to": to, "reason": reason }), None).await {
        Ok((_, saga)) => item["state"] = saga["state"].clone(),
        Err(error) if error.exit == Exit::Conflict => {
            item["compatible"] = false.into();
            item["reasons"] = json!([{ "code": "REFUSED", "why": error.message }]);
        }
        Err(error) => return Err(error),
    }
    Ok(item)
}

const COLUMNS: &[Column] = &[
    ("id", |item| text(&item["id"])),
    ("state", |item| text(&item["state"])),
    ("from", |item| text(&item["from"])),
    ("to", |item| text(&item["to"])),
    ("fits", |item| if item["compatible"] == true { "yes" } else { "no" }.to_owned()),
    ("why not", |item| {
        let reasons = item["reasons"].as_array().into_iter().flatten();
        reasons.map(|reason| text(&reason["why"])).collect::<Vec<_>>().join("; ")
    }),
];
