//! `amends sagas history`.

use serde_json::Value;

use super::show::{Args, problem};
use super::text;
use crate::cli::error::{CliError, Exit};
use crate::cli::output::Column;
use crate::cli::remote::Remote;
use crate::cli::{Context, output};

const COLUMNS: &[Column] = &[
    ("at", |item| text(&item["at"])),
    ("kind", |item| text(&item["kind"])),
    ("step", |item| text(&item["step"])),
    ("direction", |item| text(&item["direction"])),
    ("attempt", |item| text(&item["attempt"])),
    ("note", note),
];

fn note(item: &Value) -> String {
    match problem(item) {
        none if none.is_empty() => text(&item["text"]),
        problem => problem,
    }
}

/// Shows what happened, in order.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let answer = Remote::new(context)?.get(&["v1", "sagas", &args.id.to_string(), "history"], &[]).await?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    context.output.rows(&answer, &items, COLUMNS)?;
    output::next(&[format!("amends sagas show {}", args.id)]);
    Ok(Exit::Done)
}
