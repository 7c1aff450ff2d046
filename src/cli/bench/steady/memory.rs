//! Sagas that nobody answers: what the coordinator keeps of them.

use serde_json::{Value, json};

use super::store::Database;
use super::{process, rounded, start, tell};
use crate::cli::bench::parts::Part;
use crate::cli::bench::site::Site;
use crate::cli::error::CliError;
use crate::clock::Stopwatch;

/// Arguments of `amends bench memory`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sagas in flight at each look, growing
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10000,100000")]
    sagas: Vec<u32>,
    /// Seconds to wait before each look
    #[arg(long, value_name = "S", default_value_t = 10)]
    settle: u64,
}

pub(super) async fn run(args: &Args, site: &mut Site) -> Result<Value, CliError> {
    let database = Database::of(site).await?;
    let coordinator = Part::coordinator(site).await?;
    let resident = || process::resident(coordinator.id()).unwrap_or_default() as f64 / f64::from(1 << 20);
    let empty = resident();
    let (mut looks, mut started, mut most) = (Vec::new(), 0, empty);
    for &sagas in &args.sagas {
        let since = Stopwatch::start();
        while started < sagas {
            let end = (started + 5_000).min(sagas);
            start(&coordinator, &site.names.run, started, end).await?;
            started = end;
            most = most.max(resident());
        }
        let took = since.elapsed();
        for _ in 0..args.settle * 4 {
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
            most = most.max(resident());
        }
        tell(format!("{sagas} in flight: {:.1} MiB, {most:.1} MiB at most", resident()));
        looks.push(json!({
            "inFlight": sagas,
            "residentMiB": rounded(resident()),
            "mostMiB": rounded(most),
            "startsPerSecond": rounded(f64::from(sagas) / took.as_secs_f64().max(0.001)),
            "tables": database.tables().await?,
        }));
    }
    database.pool.close().await;
    drop(coordinator);
    let of = |at: usize| looks.get(at).and_then(|look: &Value| look["mostMiB"].as_f64());
    let growth =
        of(looks.len().wrapping_sub(1)).zip(of(looks.len().wrapping_sub(2))).map(|(last, before)| last / before);
    Ok(json!({ "emptyMiB": rounded(empty), "looks": looks, "lastOverTheOneBefore": growth.map(rounded) }))
}
