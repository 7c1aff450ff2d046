//! `amends bulk`: one action on many sagas, as a job of the server.

mod follow;
mod start;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::output::{self, Column, cell_text as text};
use super::remote::Remote;
use super::sagas::PageArgs;
use super::{Context, again};
use crate::id::BulkId;

/// `amends bulk ...`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Send again what is stuck or waits for its next attempt
    Retry(start::Stepwise),
    /// Pass over a step, or over its compensation
    Skip(start::Stepwise),
    /// Go backward: undo what was done
    Compensate(start::Args),
    /// Send nothing new until resumed; with a job's id, hold that job
    Pause(start::OrJob),
    /// Undo a pause; with a job's id, go on with that job
    Resume(start::OrJob),
    /// Go backward because the sagas are no longer wanted
    Cancel(start::Args),
    /// Give up: nothing is undone, nothing more is sent
    Abandon(start::Args),
    /// List jobs, newest first
    List(ListArgs),
    /// Show one job
    Show(ShowArgs),
    /// List the sagas of a job with what became of each
    Items(ItemsArgs),
    /// Follow a job to its end; exit code 3 when sagas of it failed or are still stuck
    Watch(JobArgs),
    /// End a job for good; what is not done yet is left as it is
    Stop(SteerArgs),
}

/// Which job.
#[derive(Clone, Debug, clap::Args)]
pub struct JobArgs {
    /// The job's id
    #[arg(value_parser = job_id)]
    id: BulkId,
}

/// Which job, and why.
#[derive(Debug, clap::Args)]
pub struct SteerArgs {
    /// The job's id
    #[arg(value_parser = job_id)]
    id: BulkId,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Which job, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct ShowArgs {
    /// The job's id
    #[arg(value_parser = job_id)]
    id: BulkId,
    /// Look now how its sagas stand
    #[arg(long)]
    check: bool,
}

/// Which jobs.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    watch: again::WatchArgs,
}

/// Which sagas of a job.
#[derive(Clone, Debug, clap::Args)]
pub struct ItemsArgs {
    /// The job's id
    #[arg(value_parser = job_id)]
    id: BulkId,
    /// Only those of which this became
    #[arg(long, value_parser = ["open", "applied", "refused", "failed"])]
    outcome: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

const JOBS: &[Column] = &[
    ("id", |job| text(&job["id"])),
    ("action", |job| text(&job["action"])),
    ("state", |job| text(&job["state"])),
    ("sagas", |job| text(&job["total"])),
    ("done", |job| text(&job["applied"])),
    ("refused", |job| text(&job["refused"])),
    ("failed", |job| text(&job["failed"])),
    ("still stuck", |job| text(&job["check"]["stuck"])),
    ("by", |job| text(&job["actor"])),
    ("reason", |job| text(&job["reason"])),
];

const ITEMS: &[Column] = &[
    ("saga", |item| text(&item["saga"])),
    ("outcome", |item| text(&item["outcome"])),
    ("code", |item| text(&item["code"])),
    ("why", |item| text(&item["detail"])),
    ("at", |item| text(&item["at"])),
];

fn job_id(text: &str) -> Result<BulkId, String> {
    text.parse().map_err(|_| "a bulk job's id is a UUID, as `amends bulk list` shows it".to_owned())
}

/// Runs one of them.
pub async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Retry(args) => start::stepwise("retry", args, context).await,
        Command::Skip(args) => start::stepwise("skip", args, context).await,
        Command::Compensate(args) => start::run("compensate", None, args, context).await,
        Command::Pause(args) => start::or_job("pause", args, context).await,
        Command::Resume(args) => start::or_job("resume", args, context).await,
        Command::Cancel(args) => start::run("cancel", None, args, context).await,
        Command::Abandon(args) => start::run("abandon", None, args, context).await,
        Command::List(args) => {
            let watch = args.watch;
            again::again(watch, || list(args.clone(), context)).await
        }
        Command::Show(args) => show(&args, context).await,
        Command::Items(args) => items(args, context).await,
        Command::Watch(args) => follow::run(&Remote::new(context)?, &args.id.to_string(), context).await,
        Command::Stop(args) => steer("stop", args.id, args.reason, context).await,
    }
}

async fn list(args: ListArgs, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let pages = args.page.read(&remote, &["v1", "bulk"], Vec::new()).await?;
    context.output.rows(&pages.document(), &pages.items, JOBS)?;
    pages.tell_more();
    if let Some(first) = pages.items.first() {
        output::next(&[format!("amends bulk show {}", text(&first["id"]))]);
    }
    Ok(Exit::Done)
}

async fn show(args: &ShowArgs, context: &Context) -> Result<Exit, CliError> {
    let id = args.id.to_string();
    let query = if args.check { vec![("check", "true".to_owned())] } else { Vec::new() };
    let job = Remote::new(context)?.get(&["v1", "bulk", &id], &query).await?;
    print(&job, context)?;
    suggest(&job);
    Ok(Exit::Done)
}

async fn items(args: ItemsArgs, context: &Context) -> Result<Exit, CliError> {
    let remote = Remote::new(context)?;
    let query = args.outcome.map(|outcome| ("outcome", outcome)).into_iter().collect();
    let pages = args.page.read(&remote, &["v1", "bulk", &args.id.to_string(), "items"], query).await?;
    context.output.rows(&pages.document(), &pages.items, ITEMS)?;
    pages.tell_more();
    Ok(Exit::Done)
}

async fn steer(word: &str, id: BulkId, reason: Option<String>, context: &Context) -> Result<Exit, CliError> {
    let id = id.to_string();
    let (_, job) = Remote::new(context)?.post(&["v1", "bulk", &id, word], &json!({ "reason": reason }), None).await?;
    print(&job, context)?;
    suggest(&job);
    Ok(Exit::Done)
}

/// Prints a job.
fn print(job: &Value, context: &Context) -> Result<(), CliError> {
    context.output.one(job, || {
        let mut rows: Vec<Vec<String>> = [
            ("job", text(&job["id"])),
            ("state", text(&job["state"])),
            ("summary", text(&job["summary"])),
            ("filter", job["filter"].to_string()),
            ("reason", text(&job["reason"])),
            ("by", text(&job["actor"])),
            ("per second", text(&job["ratePerSecond"])),
            ("started", text(&job["createdAt"])),
            ("ended", text(&job["endedAt"])),
            ("checked", text(&job["check"]["at"])),
        ]
        .map(|(name, value)| vec![name.to_owned(), value])
        .into();
        for reason in job["check"]["reasons"].as_array().into_iter().flatten() {
            rows.push(vec!["stuck by".to_owned(), format!("{}: {}", text(&reason["error"]), text(&reason["count"]))]);
        }
        output::table(&["", ""], rows)
    })
}

/// Commands to go on with.
fn suggest(job: &Value) {
    let id = text(&job["id"]);
    output::next(&match job["state"].as_str() {
        Some("RUNNING") => vec![format!("amends bulk watch {id}"), format!("amends bulk pause {id}")],
        Some("PAUSED") => vec![format!("amends bulk resume {id}"), format!("amends bulk stop {id}")],
        _ => vec![format!("amends bulk items {id} --outcome refused"), format!("amends bulk show {id} --check")],
    });
}
