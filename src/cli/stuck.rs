//! `amends stuck`: the sagas that cannot go on without a person.

use super::again::{WatchArgs, again};
use super::error::{CliError, Exit};
use super::output::Column;
use super::remote::Remote;
use super::{Context, output, sagas};

/// Arguments of `amends stuck`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    #[command(flatten)]
    watch: WatchArgs,
}

const COLUMNS: &[Column] = &[
    ("id", |saga| sagas::text(&saga["id"])),
    ("saga", sagas::definition),
    ("key", |saga| sagas::text(&saga["key"])),
    ("since", |saga| output::moment(&saga["stuck"]["since"])),
    ("step", |saga| sagas::text(&saga["stuck"]["step"])),
    ("why", |saga| sagas::text(&saga["waitingFor"])),
];

/// Lists them. Exit code 3 when there are any, so that a cron job can ask.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let watch = args.watch;
    again(watch, || once(args.clone(), context)).await
}

async fn once(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let mut query = vec![("state", "STUCK".to_owned())];
    query.extend(args.saga.map(|saga| ("saga", saga)));
    let found = remote.get(&["v1", "sagas"], &query).await?;
    let pages = sagas::pages(&remote, &["v1", "sagas"], query, found, None).await?;
    context.output.rows(&pages.document(), &pages.items, COLUMNS)?;
    let Some(first) = pages.items.first() else {
        output::note("nothing is stuck");
        return Ok(Exit::Done);
    };
    let mut commands = vec![format!("amends sagas show {}", sagas::text(&first["id"]))];
    commands.extend(sagas::cures(first));
    output::next(&commands);
    Ok(Exit::Holds)
}
