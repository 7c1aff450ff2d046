//! `amends sagas list`.

use super::{PageArgs, definition, state, text};
use crate::cli::again::{WatchArgs, again};
use crate::cli::error::{CliError, Exit};
use crate::cli::filters::FilterArgs;
use crate::cli::output::Column;
use crate::cli::remote::Remote;
use crate::cli::{Context, output};

/// Which sagas.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    watch: WatchArgs,
    // Last, since its heading would stand over what follows.
    #[command(flatten)]
    filter: FilterArgs,
}

const COLUMNS: &[Column] = &[
    ("id", |saga| text(&saga["id"])),
    ("saga", definition),
    ("key", |saga| text(&saga["key"])),
    ("state", state),
    ("started", |saga| output::moment(&saga["createdAt"])),
    ("waiting for", |saga| text(&saga["waitingFor"])),
];

/// Lists them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let watch = args.watch;
    again(watch, || once(args.clone(), context)).await
}

async fn once(args: Args, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let pages = args.page.read(&remote, &["v1", "sagas"], args.filter.pairs()).await?;
    context.output.rows(&pages.document(), &pages.items, COLUMNS)?;
    pages.tell_more();
    if let Some(first) = pages.items.first() {
        output::next(&[format!("amends sagas show {}", text(&first["id"]))]);
    } else if pages.next.is_none() {
        output::note("no saga matches");
    }
    Ok(Exit::Done)
}
