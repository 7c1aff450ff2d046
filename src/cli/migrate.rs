//! `amends migrate`: brings the store's schema up to this program.

use serde_json::json;

use super::error::{CliError, Exit};
use super::settings::masked;
use super::{Context, connect, output};
use crate::store::Migration;

/// Arguments of `amends migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the SQL that would run, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Applies what is missing, or prints it.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let url = context.settings.store_or_default()?;
    let store = connect::store(&url).await?;
    let result = migrate(&args, context, &*store, &url).await;
    store.close().await;
    result
}

async fn migrate(args: &Args, context: &Context, store: &dyn crate::store::Store, url: &str) -> Result<Exit, CliError> {
    let migrations = if args.dry_run { store.pending_migrations().await? } else { store.migrate().await? };
    let document: Vec<_> = migrations
        .iter()
        .map(|migration| {
            let mut item = json!({ "version": migration.version, "name": migration.name });
            if args.dry_run {
                item["sql"] = migration.sql.as_str().into();
            }
            item
        })
        .collect();
    let is_table = context.output.is_for_people();
    if !(is_table && migrations.is_empty()) {
        context.output.list(&json!({ "items": document }), &document, || {
            if args.dry_run {
                migrations.iter().map(as_sql).collect::<Vec<_>>().join("\n\n")
            } else {
                output::table(
                    &["version", "name"],
                    migrations.iter().map(|m| vec![m.version.to_string(), m.name.clone()]),
                )
            }
        })?;
    }
    output::note(match (args.dry_run, migrations.len()) {
        (_, 0) => format!("{} is up to date", masked(url)),
        (true, count) => format!("{count} to apply to {}; run without --dry-run to do so", masked(url)),
        (false, count) => format!("{count} applied to {}", masked(url)),
    });
    Ok(Exit::Done)
}

/// The SQL as it is: it is meant to be read and run elsewhere, so that nothing in it is escaped.
fn as_sql(migration: &Migration) -> String {
    format!("-- {} {}\n{}", migration.version, migration.name, migration.sql.trim_end())
}
