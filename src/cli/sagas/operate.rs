//! What an operator does to one saga: each action with a reason, which the audit log keeps.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{show, state, text};
use crate::cli::error::{CliError, Exit};
use crate::cli::remote::Remote;
use crate::cli::{Context, output};
use crate::id::SagaId;

/// Which saga, and why.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The saga's id
    #[arg(value_parser = super::saga_id)]
    id: SagaId,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only show what it would do: the commands in order, and those whose outcome nobody knows
    #[arg(long)]
    dry_run: bool,
    /// Only if the saga has not changed since this revision, which `show` prints
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u32>,
}

/// The same with a step, and another input.
#[derive(Debug, clap::Args)]
pub struct Retry {
    #[command(flatten)]
    stepwise: Stepwise,
    /// A file with JSON to send as the input, instead of what the participant has refused; `-` is stdin. Only where the
    /// server allows it
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

/// The same with a step.
#[derive(Debug, clap::Args)]
pub struct Stepwise {
    #[command(flatten)]
    args: Args,
    /// The step; where the saga is stuck if left out
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
}

/// Sends a step again, perhaps with another input.
pub async fn retry(retry: Retry, context: &Context) -> Result<Exit, CliError> {
    let Retry { stepwise: Stepwise { args, step }, input } = retry;
    let Some(file) = input else { return act("retry", args, step, None, context).await };
    let name = file.display().to_string();
    let text = match name.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(&file),
    };
    let text = text.map_err(|error| CliError::unreadable(&name, &error))?;
    let input = serde_json::from_str(&text)
        .map_err(|error| CliError::usage(format!("`{}` is not JSON: {error}", output::escape(&name))))?;
    act("edit", args, step, Some(input), context).await
}

/// An action on one step.
pub async fn stepwise(action: &str, stepwise: Stepwise, context: &Context) -> Result<Exit, CliError> {
    act(action, stepwise.args, stepwise.step, None, context).await
}

/// An action on the whole saga.
pub async fn run(action: &str, args: Args, context: &Context) -> Result<Exit, CliError> {
    act(action, args, None, None, context).await
}

async fn act(
    action: &str,
    args: Args,
    step: Option<String>,
    input: Option<Value>,
    context: &Context,
) -> Result<Exit, CliError> {
    let id = args.id.to_string();
    let mut body = json!({ "reason": args.reason.unwrap_or_default() });
    if let Some(step) = step {
        body["step"] = step.into();
    }
    if let Some(input) = input {
        body["input"] = input;
    }
    let remote = Remote::new(context)?;
    if args.dry_run {
        let found =
            remote.post_asking(&["v1", "sagas", &id, action], &[("dryRun", "true")], &body, args.if_revision).await?;
        return preview(action, &found, context);
    }
    let (_, saga) = remote.post(&["v1", "sagas", &id, action], &body, args.if_revision).await?;
    output::note(format!("{action}: done; saga {id} is {}", output::escape(&state(&saga))));
    show::print(context, &saga)?;
    show::suggest(&saga);
    Ok(Exit::Done)
}

/// Shows what an action would do.
fn preview(action: &str, found: &Value, context: &Context) -> Result<Exit, CliError> {
    let planned = |member: &'static str, when: &'static str| {
        found[member].as_array().into_iter().flatten().map(move |command| {
            let unknown = if command["unknown"] == true { "outcome unknown" } else { "" };
            let to = format!("{}.{}", text(&command["participant"]), text(&command["action"]));
            vec![when.to_owned(), text(&command["step"]), text(&command["direction"]), to, unknown.to_owned()]
        })
    };
    let rows = planned("sends", "now").chain(planned("follows", "then")).chain(planned("closes", "given up"));
    let rows: Vec<Vec<String>> = rows.collect();
    context.output.one(found, || match rows.is_empty() {
        true => "no command is sent".to_owned(),
        false => output::table(&["when", "step", "direction", "command", ""], rows),
    })?;
    for change in found["changes"].as_array().into_iter().flatten() {
        output::note(format!("{} {}", text(&change["change"]), output::escape(&text(&change["pointer"]))));
    }
    let (id, state) = (text(&found["id"]), text(&found["state"]));
    let ends = found["ends"].as_str().map_or_else(String::new, |ends| format!(", and in the end {ends}"));
    output::note(format!("nothing was done; after {action}, saga {id} would be {}{ends}", output::escape(&state)));
    let command = if action == "edit" { "retry --input FILE" } else { action };
    output::next(&[format!("amends sagas {command} {id} --if-revision {} --reason '...'", text(&found["revision"]))]);
    Ok(Exit::Done)
}
