//! What an operator does to one saga: each action with a reason, which the audit log keeps.

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

/// The same with a step.
#[derive(Debug, clap::Args)]
pub struct Stepwise {
    #[command(flatten)]
    args: Args,
    /// The step; where the saga is stuck if left out
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
}

/// An action on one step.
pub async fn stepwise(action: &str, stepwise: Stepwise, context: &Context) -> Result<Exit, CliError> {
    act(action, stepwise.args, stepwise.step, context).await
}

/// An action on the whole saga.
pub async fn run(action: &str, args: Args, context: &Context) -> Result<Exit, CliError> {
    act(action, args, None, context).await
}

async fn act(action: &str, args: Args, step: Option<String>, context: &Context) -> Result<Exit, CliError> {
    let id = args.id.to_string();
    let mut body = json!({ "reason": args.reason.unwrap_or_default() });
    if let Some(step) = step {
        body["step"] = step.into();
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
    let (id, state) = (text(&found["id"]), text(&found["state"]));
    let ends = found["ends"].as_str().map_or_else(String::new, |ends| format!(", and in the end {ends}"));
    output::note(format!("nothing was done; after {action}, saga {id} would be {}{ends}", output::escape(&state)));
    output::next(&[format!("amends sagas {action} {id} --if-revision {} --reason '...'", text(&found["revision"]))]);
    Ok(Exit::Done)
}
