//! `amends stuck`: the sagas that cannot go on without a person.

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::{Context, output, sagas};

/// Arguments of `amends stuck`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
}

/// Lists them. Exit code 3 when there are any, so that a cron job can ask.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let mut query = vec![("state", "STUCK".to_owned())];
    query.extend(args.saga.map(|saga| ("saga", saga)));
    let found = remote.get(&["v1", "sagas"], &query).await?;
    let pages = sagas::pages(&remote, &["v1", "sagas"], query, found, None).await?;
    let header = ["id", "saga", "key", "since", "step", "why"];
    context.output.list(&pages.document(), &pages.items, || {
        output::table(
            &header,
            pages.items.iter().map(|saga| {
                let stuck = &saga["stuck"];
                vec![
                    sagas::text(&saga["id"]),
                    sagas::definition(saga),
                    sagas::text(&saga["key"]),
                    sagas::text(&stuck["since"]),
                    sagas::text(&stuck["step"]),
                    sagas::text(&saga["waitingFor"]),
                ]
            }),
        )
    })?;
    let Some(first) = pages.items.first() else {
        output::note("nothing is stuck");
        return Ok(Exit::Done);
    };
    let id = sagas::text(&first["id"]);
    output::next(&[
        format!("amends sagas history {id}"),
        format!("amends sagas retry {id} --reason '...'"),
        format!("amends sagas compensate {id} --reason '...'"),
    ]);
    Ok(Exit::Holds)
}
