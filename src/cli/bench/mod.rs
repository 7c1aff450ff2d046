//! `amends bench` (section 8 of the contract): how fast sagas go through the real coordinator, beside the *floor*: the
//! same messages between a driver and the participants, with no coordinator and no database.
//!
//! Both run in turns within one call, on queues of the same kind, with the same participants. On RabbitMQ the parts are
//! processes of their own, each this same program:
//!
//! ```text
//!   driver (this process) ── POST /v1/sagas/batch ──> coordinator ──> participants
//!          <── what has ended, over a pipe ──────────
//!   floor:  driver ─────────────── the same commands ───────────────> participants
//! ```
//!
//! `site` makes and removes what a run works with, `workload` is what is sent, `floor`, `drive` and `embedded` send it,
//! `participants` and `coordinator` are the other processes, `parts` starts them, `report` tells of it.

mod coordinator;
mod drive;
mod embedded;
mod floor;
mod measure;
mod participants;
mod parts;
mod report;
mod site;
mod workload;

use super::error::{CliError, Exit};
use super::{Context, output};
use floor::Floor;
use measure::{Floors, Round};
use parts::Part;
use report::Report;
use site::{Messages, Site};
use workload::Load;

/// Arguments of `amends bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Uses a schema (PostgreSQL) or file (SQLite) and queues of its own and removes them afterwards.\n\
    With `--broker in-process` everything runs in this process, and there is no floor."
)]
pub struct Args {
    #[command(subcommand)]
    part: Option<parts::Role>,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct LoadArgs {
    /// Sagas per round, for the floor and for the coordinator
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    sagas: u32,
    /// Sagas under way at once
    #[arg(long, value_name = "M", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// How many in a hundred are refused by their last step, and compensated
    #[arg(long, value_name = "P", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    refuse_percent: u32,
    /// `bare` only answers; `sdk` keeps an inbox in a database of its own
    #[arg(long, value_enum, default_value_t)]
    participants: participants::Kind,
    /// How often floor and coordinator are measured in turns; the report has medians and every round
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How sagas are started: many with each request, or each with its own
    #[arg(long, value_enum, default_value_t)]
    starts: drive::Starts,
}

/// Measures, or plays the part of another process that is measured.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let Some(part) = args.part {
        return parts::play(part, context).await;
    }
    let load = Load::new(args.load.sagas, args.load.in_flight, args.load.refuse_percent);
    let site = Site::prepare(context).await?;
    let measured = tokio::select! {
        measured = measure(&site, &load, &args.load) => measured,
        () = interrupted() => Err(CliError::failed("the bench was stopped; what it made is removed")),
    };
    // Its processes are gone by now, so that nobody puts back what is removed here.
    let removed = site.remove().await;
    let report = measured?;
    removed?;
    context.output.one(&report, || report.table())?;
    // A saga that is stuck, where nothing can fail, is a bug.
    Ok(if report.is_whole() { Exit::Done } else { Exit::Failed })
}

async fn measure(site: &Site, load: &Load, args: &LoadArgs) -> Result<Report, CliError> {
    if !site.health.is_durable {
        let found: Vec<String> = site.health.durability.iter().map(|(name, value)| format!("{name}={value}")).collect();
        return Err(CliError::failed(format!("commits would not survive a power cut here: {}", found.join(", ")))
            .help("figures from a store that does not sync compare with nothing: switch fsync on"));
    }
    let mut rounds = Vec::new();
    let commit = measure::commit_time(&*site.store).await?;
    if site.is_embedded() {
        let bench = embedded::Embedded::launch(site, args.participants).await?;
        bench.run(&load.warm_up()).await?;
        for round in 1..=args.rounds {
            tell(round, args.rounds, "coordinator");
            rounds.push(Round { floors: None, measured: bench.run(load).await? });
        }
        bench.stop().await;
    } else if let Messages::Amqp { own, lapin } = &site.broker {
        let participants = Part::participants(site, args.participants).await?;
        let lapin_participants = Part::lapin_participants(site).await?;
        let mut coordinator = Part::coordinator(site).await?;
        let mut floor = Floor::open(own.clone(), site.names.clone(), participants.id()).await?;
        let mut lapin_floor = Floor::open(lapin.clone(), site.names.with_lapin(), lapin_participants.id()).await?;
        let mut driver = drive::Driver::new(&mut coordinator, args.starts, &site.names.run)?;
        floor.run(&load.warm_up()).await?;
        lapin_floor.run(&load.warm_up()).await?;
        driver.run(&load.warm_up()).await?;
        for round in 1..=args.rounds {
            tell(round, args.rounds, "floor");
            let own = floor.run(load).await?;
            tell(round, args.rounds, "coordinator");
            let measured = driver.run(load).await?;
            tell(round, args.rounds, "floor with lapin");
            let floors = Floors { own, lapin: lapin_floor.run(load).await? };
            rounds.push(Round { floors: Some(floors), measured });
        }
        drop(driver);
        coordinator.stop().await?;
        participants.stop().await?;
        lapin_participants.stop().await?;
    }
    Ok(Report::new(site, load, args.participants, commit, &rounds))
}

fn tell(round: u32, rounds: u32, what: &str) {
    output::note(format!("round {round} of {rounds}: {what}"));
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
