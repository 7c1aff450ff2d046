//! What an operator does to one saga: each action with a reason, which the audit log keeps.

use serde_json::json;

use super::{show, state};
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
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
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
    let mut body = json!({ "reason": args.reason });
    if let Some(step) = step {
        body["step"] = step.into();
    }
    let remote = Remote::new(context)?;
    let (_, saga) = remote.post(&["v1", "sagas", &id, action], &body, args.if_revision).await?;
    output::note(format!("{action}: done; saga {id} is {}", output::escape(&state(&saga))));
    show::print(context, &saga)?;
    show::suggest(&saga);
    Ok(Exit::Done)
}
