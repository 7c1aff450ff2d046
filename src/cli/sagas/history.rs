//! `amends sagas history`.

use super::show::{Args, problem};
use super::text;
use crate::cli::error::{CliError, Exit};
use crate::cli::remote::Remote;
use crate::cli::{Context, output};

/// Shows what happened, in order.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let answer = Remote::new(context)?.get(&["v1", "sagas", &args.id.to_string(), "history"], &[]).await?;
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    let header = ["at", "kind", "step", "direction", "attempt", "note"];
    context.output.list(&answer, &items, || {
        output::table(
            &header,
            items.iter().map(|item| {
                let note = match problem(item) {
                    none if none.is_empty() => text(&item["text"]),
                    problem => problem,
                };
                vec![
                    text(&item["at"]),
                    text(&item["kind"]),
                    text(&item["step"]),
                    text(&item["direction"]),
                    text(&item["attempt"]),
                    note,
                ]
            }),
        )
    })?;
    Ok(Exit::Done)
}
