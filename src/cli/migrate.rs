//! `amends migrate`: brings the store's schema up to this program.

use serde_json::json;

use super::error::{CliError, Exit};
use super::namespaces::Place;
use super::settings::masked;
use super::{Context, connect, output};
use crate::store::Migration;

/// Arguments of `amends migrate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the SQL that would run, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Every namespace of the settings file
    #[arg(long)]
    all: bool,
}

/// Applies what is missing, or prints it.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let places = match (args.all, context.settings.namespace()?) {
        (true, Some(_)) => {
            return Err(CliError::usage("--all and --namespace name different things").help("leave one out"));
        }
        (true, None) => context.settings.places()?,
        (false, _) => vec![context.settings.place()?],
    };
    let mut failed = None;
    for place in &places {
        if let Err(error) = of(&args, context, place).await {
            if places.len() == 1 || error.is_quiet {
                return Err(error);
            }
            // The others are brought up to date all the same.
            output::note(format!("namespace {}: {error}", place.namespace));
            failed = Some(error.exit);
        }
    }
    Ok(failed.unwrap_or(Exit::Done))
}

async fn of(args: &Args, context: &Context, place: &Place) -> Result<(), CliError> {
    let store = connect::store_of(place).await?;
    let result = migrate(args, context, &*store, place).await;
    store.close().await;
    result
}

async fn migrate(
    args: &Args,
    context: &Context,
    store: &dyn crate::store::Store,
    place: &Place,
) -> Result<(), CliError> {
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
                let schema = place.store.starts_with("postgres").then(|| place.namespace.schema()).flatten();
                let schema = schema.map(|schema| {
                    format!("create schema if not exists \"{schema}\";\nset search_path to \"{schema}\";")
                });
                schema.into_iter().chain(migrations.iter().map(as_sql)).collect::<Vec<_>>().join("\n\n")
            } else {
                output::table(
                    &["version", "name"],
                    migrations.iter().map(|m| vec![m.version.to_string(), m.name.clone()]),
                )
            }
        })?;
    }
    let place = match place.namespace.is_default() {
        true => masked(&place.store),
        false => format!("{} (namespace {})", masked(&place.store), place.namespace),
    };
    output::note(match (args.dry_run, migrations.len()) {
        (_, 0) => format!("{} is up to date", place),
        (true, count) => format!("{count} to apply to {}; run without --dry-run to do so", place),
        (false, count) => format!("{count} applied to {}", place),
    });
    Ok(())
}

/// The SQL as it is: it is meant to be read and run elsewhere, so that nothing in it is escaped.
fn as_sql(migration: &Migration) -> String {
    format!("-- {} {}\n{}", migration.version, migration.name, migration.sql.trim_end())
}
