//! A participant has stopped, and one definition goes on asking it: what that costs sagas that have nothing to do with it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use super::answering::Answering;
use super::{PER_REQUEST, post, rounded, tell};
use crate::broker::Topology;
use crate::broker::topology::commands_queue;
use crate::cli::bench::coordinator::FLOODED_WINDOW;
use crate::cli::bench::measure::percentile;
use crate::cli::bench::parts::{Part, Told};
use crate::cli::bench::site::Site;
use crate::cli::bench::workload::Load;
use crate::cli::error::CliError;
use crate::client::Client;
use crate::client::views::StartBody;
use crate::clock::Stopwatch;

/// A saga that takes so long does not end any more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Arguments of `amends bench fairness`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The neighbour's sagas, measured one at a time: alone, and with the flood
    #[arg(long, value_name = "N", default_value_t = 500)]
    sagas: u32,
    /// Sagas for the participant that has stopped
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    flood: u32,
    /// How often both are measured in turns; the median of the ratios counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
}

pub(super) async fn run(args: &Args, site: &mut Site) -> Result<Value, CliError> {
    let broker = site.broker.shared();
    let flooded = Topology::participant(&site.names.flooded());
    broker.declare(&flooded).await?;
    let outcome = measure(args, site).await;
    site.forget(&flooded).await?;
    outcome
}

async fn measure(args: &Args, site: &mut Site) -> Result<Value, CliError> {
    let broker = site.broker.shared();
    let mut coordinator = Part::coordinator(site).await?;
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    coordinator.listen(sender)?;
    let client = Client::new(&coordinator.ready, None);
    let failed = |error: crate::client::ClientError| CliError::failed(error.to_string());
    client.register(&site.names.flood()).await.map_err(failed)?;
    let answering = Answering::begin(&site.names, &broker).await?;
    let (run, queue) = (site.names.run.clone(), commands_queue(&site.names.flooded()));
    one_by_one(&client, &run, &mut told, (args.sagas / 10).max(1)).await?;

    let (mut rounds, mut ratios, mut deepest) = (Vec::new(), Vec::new(), 0);
    for round in 0..args.rounds.max(1) {
        let alone = one_by_one(&client, &run, &mut told, args.sagas).await?;
        let flood = tokio::spawn(pour(client.clone(), site.names.flooded(), args.flood));
        let beside = one_by_one(&client, &run, &mut told, args.sagas).await?;
        flood.await.map_err(|error| CliError::failed(error.to_string()))??;
        let depth = broker.queue(&queue).await?.map_or(0, |status| status.messages);
        deepest = deepest.max(depth);
        let millis = |took: &[Duration], percent| percentile(took, percent).as_secs_f64() * 1_000.0;
        let ratio = millis(&beside, 99) / millis(&alone, 99).max(0.001);
        tell(format!("round {}: the neighbour's p99 is {} times that without the flood", round + 1, rounded(ratio)));
        ratios.push(ratio);
        rounds.push(json!({
            "alone": { "p50Ms": rounded(millis(&alone, 50)), "p99Ms": rounded(millis(&alone, 99)) },
            "besideFlood": { "p50Ms": rounded(millis(&beside, 50)), "p99Ms": rounded(millis(&beside, 99)) },
            "p99Ratio": rounded(ratio),
            "waitingAtTheStopped": depth,
        }));
    }
    ratios.sort_by(f64::total_cmp);
    answering.stop().await;
    drop(coordinator);
    Ok(json!({
        "sagas": args.sagas,
        "flood": args.flood,
        "window": FLOODED_WINDOW,
        "rounds": rounds,
        "p99Ratio": rounded(ratios.get(ratios.len() / 2).copied().unwrap_or_default()),
        "mostWaitingAtTheStopped": deepest,
    }))
}

/// From the request to the news of the end, one saga after the other, sorted.
async fn one_by_one(
    client: &Client,
    name: &str,
    told: &mut UnboundedReceiver<Told>,
    sagas: u32,
) -> Result<Vec<Duration>, CliError> {
    let load = Load::new(sagas, 1, 0);
    let mut took = Vec::with_capacity(sagas as usize);
    // The end may be told before the answer to the start is read.
    let mut ended: HashMap<String, ()> = HashMap::new();
    for n in 0..sagas {
        let since = Stopwatch::start();
        let body = StartBody::new(name, load.input(n));
        let started = client.start(&body).await.map_err(|error| CliError::failed(error.to_string()))?;
        while ended.remove(&started.saga.id.to_string()).is_none() {
            match tokio::time::timeout(PATIENCE, told.recv()).await {
                Ok(Some(Told::Ended(ends))) => ended.extend(ends.into_iter().map(|(_, id)| (id, ()))),
                Ok(Some(Told::Commits(_))) => {}
                Ok(None) | Err(_) => return Err(CliError::failed("a saga of the neighbour does not end")),
            }
        }
        took.push(since.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

async fn pour(client: Client, name: String, sagas: u32) -> Result<(), CliError> {
    let load = Load::new(sagas.max(1), 1, 0);
    let numbers: Vec<u32> = (0..sagas).collect();
    for some in numbers.chunks(PER_REQUEST as usize) {
        post(client.clone(), some.iter().map(|n| StartBody::new(&name, load.input(*n))).collect()).await?;
    }
    Ok(())
}
