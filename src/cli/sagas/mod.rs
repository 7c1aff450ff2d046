//! `amends sagas`: start them, see what they do, step in.

mod history;
mod list;
pub mod migrate;
mod operate;
mod show;
mod signal;
mod start;
mod watch;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::{Context, graph, output};
use crate::id::SagaId;

/// `amends sagas ...`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start a saga, or many
    Start(start::Args),
    /// List sagas, newest first
    List(list::Args),
    /// Show one saga with its steps
    Show(show::Args),
    /// Show what happened to a saga, in order
    History(show::Args),
    /// Draw a saga's definition with its states
    Graph(graph::SagaArgs),
    /// Follow a saga until it ends or is stuck; exit code 3 unless it completed
    Watch(watch::Args),
    /// Tell a saga of a signal that one of its steps waits for
    Signal(signal::Args),
    /// Send again what is stuck or waits for its next attempt; with --input, what was refused with another input
    Retry(operate::Retry),
    /// Pass over a step, or over its compensation
    Skip(operate::Stepwise),
    /// Go backward: undo what was done
    Compensate(operate::Args),
    /// Send nothing new until resumed
    Pause(operate::Args),
    /// Undo a pause
    Resume(operate::Args),
    /// Go backward because the saga is no longer wanted
    Cancel(operate::Args),
    /// Give up: nothing is undone, nothing more is sent
    Abandon(operate::Args),
    /// Move to another version of the definition, where what was sent allows it
    Migrate(migrate::Args),
}

/// Runs one of them.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Start(args) => start::run(args, context).await,
        Command::List(args) => list::run(args, context).await,
        Command::Show(args) => show::run(&args, context).await,
        Command::History(args) => history::run(&args, context).await,
        Command::Graph(args) => graph::saga(&args, context).await,
        Command::Watch(args) => watch::run(&args, context).await,
        Command::Signal(args) => signal::run(args, context).await,
        Command::Retry(args) => operate::retry(args, context).await,
        Command::Skip(args) => operate::stepwise("skip", args, context).await,
        Command::Compensate(args) => operate::run("compensate", args, context).await,
        Command::Pause(args) => operate::run("pause", args, context).await,
        Command::Resume(args) => operate::run("resume", args, context).await,
        Command::Cancel(args) => operate::run("cancel", args, context).await,
        Command::Abandon(args) => operate::run("abandon", args, context).await,
        Command::Migrate(args) => migrate::run(args, context).await,
    }
}

/// Which part of a list.
#[derive(Clone, Debug, clap::Args)]
pub struct PageArgs {
    /// At most this many
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: Option<u32>,
    /// Go on from where an earlier list ended: its `next`
    #[arg(long, value_name = "CURSOR", conflicts_with = "all")]
    cursor: Option<String>,
    /// Read on to the end of the list
    #[arg(long)]
    all: bool,
}

impl PageArgs {
    /// Whether a part of the list was asked for.
    pub fn is_part(&self) -> bool {
        self.limit.is_some() || self.cursor.is_some()
    }

    /// Reads the part of the list at `path`.
    pub async fn read(self, remote: &Remote, path: &[&str], mut query: Vec<(&str, String)>) -> Result<Pages, CliError> {
        query.extend(self.limit.map(|limit| ("limit", limit.to_string())));
        let mut first = query.clone();
        first.extend(self.cursor.map(|cursor| ("cursor", cursor)));
        let found = remote.get(path, &first).await?;
        if self.all {
            pages(remote, path, query, found, None).await
        } else {
            pages(remote, path, query, found, Some(1)).await
        }
    }
}

/// A list, as far as it was read.
#[derive(Debug, Default)]
pub struct Pages {
    /// The items.
    pub items: Vec<Value>,
    /// Where the list goes on.
    pub next: Option<String>,
}

impl Pages {
    /// As the server would give it.
    pub fn document(&self) -> Value {
        json!({ "items": self.items, "next": self.next })
    }

    /// Says on stderr that there is more, and how to see it.
    pub fn tell_more(&self) {
        if let Some(next) = &self.next {
            output::note(format!("there is more: --all, or --cursor {}", output::escape(next)));
        }
    }
}

/// Follows a list from its first answer, for at most so many pages.
pub async fn pages(
    remote: &Remote,
    path: &[&str],
    query: Vec<(&str, String)>,
    first: Value,
    limit: Option<usize>,
) -> Result<Pages, CliError> {
    let mut pages = Pages::default();
    let mut answer = first;
    for read in 1.. {
        if let Value::Array(items) = answer["items"].take() {
            pages.items.extend(items);
        }
        pages.next = answer["next"].as_str().map(str::to_owned);
        let Some(next) = pages.next.clone().filter(|_| limit.is_none_or(|limit| read < limit)) else { break };
        let mut query = query.clone();
        query.push(("cursor", next));
        answer = remote.get(path, &query).await?;
    }
    Ok(pages)
}

/// Reads a saga's id from the command line.
pub fn saga_id(text: &str) -> Result<SagaId, String> {
    text.parse().map_err(|_| "a saga's id is a UUID, as `amends sagas list` shows it".to_owned())
}

/// A value as a table shows it.
pub use super::output::cell_text as text;

/// The definition that an item names, as `name v1`.
pub fn definition(item: &Value) -> String {
    match item["version"].as_u64() {
        Some(version) => format!("{} v{version}", text(&item["saga"])),
        None => text(&item["saga"]),
    }
}

/// What an operator may do to a stuck saga: each action that is possible, the first of them tried without effect before.
pub fn cures(saga: &Value) -> Vec<String> {
    let id = text(&saga["id"]);
    let told = saga["stuck"]["actions"].as_array();
    let can = |word: &str| told.is_none_or(|told| told.iter().any(|action| action == word));
    let possible: Vec<&str> = ["retry", "skip", "compensate"].into_iter().filter(|word| can(word)).collect();
    let look = possible.first().map(|word| format!("amends sagas {word} {id} --dry-run"));
    look.into_iter().chain(possible.iter().map(|word| format!("amends sagas {word} {id} --reason '...'"))).collect()
}

/// The state that a saga shows, with the pause that may lie over it.
pub fn state(saga: &Value) -> String {
    let state = text(&saga["state"]);
    if saga["paused"] == true { format!("{state} (paused)") } else { state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_possible_is_suggested() {
        let saga = json!({ "id": "7", "stuck": { "actions": ["skip", "pause", "abandon"] } });
        assert_eq!(cures(&saga), ["amends sagas skip 7 --dry-run", "amends sagas skip 7 --reason '...'"]);
        assert_eq!(cures(&json!({ "id": "7" })).len(), 4, "an older server does not tell");
    }
}
