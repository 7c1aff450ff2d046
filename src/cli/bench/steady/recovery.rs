//! The only coordinator is killed with many sagas in flight, and started again.

use std::time::Duration;

use serde_json::{Value, json};

use super::answering::Answering;
use super::store::Database;
use super::{rounded, start, tell};
use crate::cli::bench::parts::Part;
use crate::cli::bench::site::Site;
use crate::cli::error::CliError;
use crate::clock::Stopwatch;

/// Nothing moves for so long only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(600);
/// All sagas are counted so often: more often, it would be a part of the load.
const BETWEEN_COUNTS: Duration = Duration::from_secs(1);

/// Arguments of `amends bench recovery`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sagas in flight when it is killed
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    sagas: u32,
}

pub(super) async fn run(args: &Args, site: &mut Site) -> Result<Value, CliError> {
    let database = Database::of(site).await?;
    let mut first = Part::coordinator(site).await?;
    // What it tells is read, or it would wait for that.
    let (sender, _told) = tokio::sync::mpsc::unbounded_channel();
    first.listen(sender)?;
    let since = Stopwatch::start();
    start(&first, &site.names.run, 0, args.sagas).await?;
    tell(format!("{} sagas are in flight after {:.1} s", args.sagas, since.elapsed().as_secs_f64()));
    // Participants answer from now on, so that the coordinator is killed amid work.
    let answering = Answering::begin(&site.names, &site.broker.shared()).await?;
    let advanced = "select count(*) from outbox where state = 'VERIFIED'";
    let began = Stopwatch::start();
    while database.count(advanced).await? < i64::from(args.sagas / 50) && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first moment at which every saga that is in flight now will have been looked at: its next reply is applied.
    let died = Stopwatch::start();
    drop(first);
    // The process is gone; what it had sent and not committed is done by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = database.count(advanced).await?;
    let untouched =
        database.count("select count(*) from saga where state = 'RUNNING' and revision <= 2 and next_seq = 2").await?;
    let (commands, duplicates) = answering.commands();
    tell(format!("killed with {before} commands verified; {commands} were sent, {duplicates} of them twice"));

    let at = answering.age();
    let started = Stopwatch::start();
    let mut second = Part::coordinator(site).await?;
    let (sender, _told_again) = tokio::sync::mpsc::unbounded_channel();
    second.listen(sender)?;
    let ready = started.elapsed();
    let progress = loop {
        if database.count(advanced).await? > before {
            break started.elapsed();
        }
        if started.elapsed() > PATIENCE {
            return Err(CliError::failed("nothing goes on after the restart"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let left = "select count(*) from saga where state = 'RUNNING' and next_seq = 2";
    let evaluated = loop {
        if database.count(left).await? == 0 {
            break started.elapsed();
        }
        if started.elapsed() > PATIENCE {
            return Err(CliError::failed("not all sagas go on after the restart"));
        }
        tokio::time::sleep(BETWEEN_COUNTS).await;
    };
    tell(format!("every saga went on within {:.1} s", evaluated.as_secs_f64()));
    let live = "select count(*) from saga where state in ('RUNNING', 'COMPENSATING', 'STUCK')";
    let ended = loop {
        if database.count(live).await? == 0 {
            break started.elapsed();
        }
        if started.elapsed() > PATIENCE {
            return Err(CliError::failed("not all sagas end after the restart"));
        }
        tokio::time::sleep(BETWEEN_COUNTS).await;
    };
    let (all, twice) = answering.commands();
    let most = answering.most_per_second(at);
    let document = json!({
        "inFlight": args.sagas,
        "untouchedWhenKilled": untouched,
        "downSeconds": rounded(died.elapsed().saturating_sub(started.elapsed()).as_secs_f64()),
        "readySeconds": rounded(ready.as_secs_f64()),
        "firstProgressSeconds": rounded(progress.as_secs_f64()),
        "allEvaluatedSeconds": rounded(evaluated.as_secs_f64()),
        "allEndedSeconds": rounded(ended.as_secs_f64()),
        "commands": all,
        "duplicates": twice,
        "duplicatesPerInFlight": rounded(twice as f64 / f64::from(args.sagas.max(1))),
        "mostCommandsInOneSecond": most,
        "commandsPerSecondOnAverage": rounded((all - commands) as f64 / ended.as_secs_f64().max(0.001)),
    });
    answering.stop().await;
    second.stop().await?;
    database.pool.close().await;
    Ok(document)
}
