//! `amends sagas show`.

use serde_json::Value;

use super::{definition, state, text};
use crate::cli::error::{CliError, Exit};
use crate::cli::remote::Remote;
use crate::cli::{Context, output};
use crate::id::SagaId;

/// Which saga.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The saga's id
    #[arg(value_parser = super::saga_id)]
    pub(super) id: SagaId,
}

/// Shows it.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let saga = Remote::new(context)?.get(&["v1", "sagas", &args.id.to_string()], &[]).await?;
    print(context, &saga)?;
    suggest(&saga);
    Ok(Exit::Done)
}

/// Prints a saga with its steps.
pub fn print(context: &Context, saga: &Value) -> Result<(), CliError> {
    context.output.one(saga, || {
        let mut lines = vec![
            ("id", text(&saga["id"])),
            ("saga", definition(saga)),
            ("key", text(&saga["key"])),
            ("state", state(saga)),
        ];
        if saga["parent"].is_object() {
            let (id, step) = (text(&saga["parent"]["id"]), text(&saga["parent"]["step"]));
            lines.push(("parent", format!("{id}, step {step}")));
        }
        let further = [
            ("waiting for", "waitingFor"),
            ("input", "input"),
            ("output", "output"),
            ("started", "createdAt"),
            ("changed", "updatedAt"),
            ("ended", "endedAt"),
            ("revision", "revision"),
        ];
        lines.extend(
            further.iter().filter(|(_, key)| !saga[*key].is_null()).map(|(name, key)| (*name, text(&saga[*key]))),
        );
        let head = lines.iter().map(|(name, value)| format!("{name:<12} {}", output::escape(value)));
        let steps = output::table(
            &["step", "participant", "status", "attempts", "note"],
            saga["steps"].as_array().into_iter().flatten().map(|step| {
                let attempts =
                    step["attempts"].as_array().map_or_else(|| text(&step["attempts"]), |all| all.len().to_string());
                vec![text(&step["name"]), who(step), text(&step["status"]), attempts, note(step)]
            }),
        );
        head.chain([String::new(), steps]).collect::<Vec<_>>().join("\n")
    })
}

/// The service that does a step; for others what kind of step it is.
fn who(step: &Value) -> String {
    match step["kind"].as_str() {
        Some(kind @ ("saga" | "wait" | "delay")) => format!("({kind})"),
        _ => text(&step["participant"]),
    }
}

/// The saga that a step has started, and its trouble.
fn note(step: &Value) -> String {
    let child = &step["child"];
    let problem = problem(step);
    if !child.is_object() {
        return problem;
    }
    let state = if child["held"] == true { "done".to_owned() } else { text(&child["state"]) };
    let told = format!("saga {} ({state})", text(&child["id"]));
    if problem.is_empty() { told } else { format!("{told}; {problem}") }
}

/// What a step says of its trouble, in one line.
pub fn problem(step: &Value) -> String {
    let problem = if step["problem"].is_object() { &step["problem"] } else { &step["error"] };
    match (problem["type"].as_str(), problem["title"].as_str().filter(|title| !title.is_empty())) {
        (Some(kind), Some(title)) => format!("{kind}: {title}"),
        (Some(kind), None) => kind.to_owned(),
        _ => String::new(),
    }
}

/// What an operator may want to do next.
pub fn suggest(saga: &Value) {
    output::next(&further(saga));
}

fn further(saga: &Value) -> Vec<String> {
    let id = text(&saga["id"]);
    if saga["paused"] == true {
        return vec![format!("amends sagas resume {id} --reason '...'"), format!("amends sagas history {id}")];
    }
    match saga["state"].as_str() {
        Some("STUCK") => super::cures(saga),
        Some("RUNNING" | "COMPENSATING") => vec![format!("amends sagas watch {id}")],
        _ => vec![format!("amends sagas history {id}")],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_next_fits_the_state() {
        let next = |state: &str, paused: bool| {
            further(&json!({ "id": "7", "state": state, "paused": paused })).first().cloned().unwrap_or_default()
        };
        assert_eq!(next("RUNNING", false), "amends sagas watch 7");
        assert_eq!(next("RUNNING", true), "amends sagas resume 7 --reason '...'");
        assert_eq!(next("STUCK", false), "amends sagas retry 7 --dry-run");
        assert_eq!(next("COMPLETED", false), "amends sagas history 7");
    }
}
