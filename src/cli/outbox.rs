//! `amends outbox`: commands that were decided, and what is known of their outcome.

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::{Context, output, sagas};

/// Arguments of `amends outbox`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// PENDING: the outcome is not known yet. VERIFIED: it is, durably
    #[arg(long, value_name = "STATE", default_value = "PENDING", ignore_case = true, value_parser = ["PENDING", "VERIFIED"])]
    state: String,
    #[command(flatten)]
    page: sagas::PageArgs,
}

/// Lists them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let query = vec![("state", args.state.to_uppercase())];
    let pages = args.page.read(&remote, &["v1", "outbox"], query).await?;
    let header = ["saga id", "saga", "step", "direction", "state", "attempt", "age", "next due"];
    context.output.list(&pages.document(), &pages.items, || {
        output::table(
            &header,
            pages.items.iter().map(|entry| {
                vec![
                    sagas::text(&entry["sagaId"]),
                    sagas::definition(entry),
                    sagas::text(&entry["step"]),
                    sagas::text(&entry["direction"]),
                    sagas::text(&entry["state"]),
                    sagas::text(&entry["attempt"]),
                    sagas::text(&entry["age"]),
                    sagas::text(&entry["nextDue"]),
                ]
            }),
        )
    })?;
    pages.tell_more();
    Ok(Exit::Done)
}
