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
mod plot;
mod report;
mod site;
mod steady;
mod workload;

use std::path::PathBuf;

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
    /// Coordinators on the one store, each in a process of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    coordinators: u32,
    /// Measures with each of these numbers in flight, one after the other, instead of --in-flight; --sagas bounds each
    #[arg(long, value_name = "M,M,...", value_delimiter = ',', conflicts_with = "in_flight",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sweep: Vec<u32>,
    /// Where to draw what a sweep finds, as SVG
    #[arg(long, value_name = "FILE", requires = "sweep")]
    plot: Option<PathBuf>,
}

/// Sagas per one in flight, in a sweep: enough for medians, and small numbers in flight take no hour.
const SWEPT: u32 = 100;

/// Measures, or plays the part of another process that is measured.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if let Some(part) = args.part {
        return parts::play(part, context).await;
    }
    let loads: Vec<Load> = match &*args.load.sweep {
        [] => vec![Load::new(args.load.sagas, args.load.in_flight, args.load.refuse_percent)],
        sweep => {
            let sagas = |in_flight: u32| in_flight.saturating_mul(SWEPT).min(args.load.sagas);
            let load = |&in_flight| Load::new(sagas(in_flight), in_flight, args.load.refuse_percent);
            sweep.iter().map(load).collect()
        }
    };
    let site = Site::prepare(context).await?;
    let measured = tokio::select! {
        measured = measure_all(&site, &loads, &args.load) => measured,
        () = interrupted() => Err(CliError::failed("the bench was stopped; what it made is removed")),
    };
    // Its processes are gone by now, so that nobody puts back what is removed here.
    let removed = site.remove().await;
    let reports = measured?;
    removed?;
    if let Some(file) = &args.load.plot {
        let unwritten = |error| CliError::failed(format!("{}: {error}", file.display()));
        std::fs::write(file, plot::svg(&reports)).map_err(unwritten)?;
    }
    match &*reports {
        [report] => context.output.one(report, || report.table())?,
        reports => {
            let tables = || reports.iter().map(Report::table).collect::<Vec<_>>().join("\n\n");
            context.output.one(&serde_json::json!({ "sweep": reports }), tables)?;
        }
    }
    // A saga that is stuck, where nothing can fail, is a bug.
    Ok(if reports.iter().all(Report::is_whole) { Exit::Done } else { Exit::Failed })
}

async fn measure_all(site: &Site, loads: &[Load], args: &LoadArgs) -> Result<Vec<Report>, CliError> {
    let mut reports = Vec::new();
    for load in loads {
        if loads.len() > 1 {
            output::note(format!("{} in flight", load.in_flight));
        }
        reports.push(measure(site, load, args).await?);
    }
    Ok(reports)
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
        let mut coordinators = Vec::new();
        for _ in 0..args.coordinators {
            coordinators.push(Part::coordinator(site).await?);
        }
        let mut floor = Floor::open(own.clone(), site.names.clone(), participants.id()).await?;
        let mut lapin_floor = Floor::open(lapin.clone(), site.names.with_lapin(), lapin_participants.id()).await?;
        let mut driver = drive::Driver::new(&mut coordinators, args.starts, &site.names.run)?;
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
        for coordinator in coordinators {
            coordinator.stop().await?;
        }
        participants.stop().await?;
        lapin_participants.stop().await?;
    }
    Ok(Report::new(site, load, args, commit, &rounds))
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
