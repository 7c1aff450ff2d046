//! Starts over HTTP, each by a request of its own: how many share a commit when many callers start at once, and how long
//! one takes when nothing else goes on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rounded;
use super::store::Database;
use crate::cli::bench::measure::{commit_time, percentile};
use crate::cli::bench::parts::{Part, Told};
use crate::cli::bench::site::Site;
use crate::cli::bench::workload::Load;
use crate::cli::error::CliError;
use crate::client::Client;
use crate::client::views::StartBody;
use crate::clock::Stopwatch;

/// Arguments of `amends bench starts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Callers at once, each with one start at a time
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,8,64,256")]
    callers: Vec<u32>,
    /// Starts per number of callers
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    starts: u32,
}

pub(super) async fn run(args: &Args, site: &mut Site) -> Result<Value, CliError> {
    let database = Database::of(site).await?;
    let commit = commit_time(&*site.store).await?;
    let mut coordinator = Part::coordinator(site).await?;
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    coordinator.listen(sender)?;
    let mut commits = async |coordinator: &mut Part| -> Result<u64, CliError> {
        coordinator.ask().await?;
        loop {
            match told.recv().await {
                Some(Told::Commits(commits)) => return Ok(commits),
                Some(_) => {}
                None => return Err(CliError::failed("the coordinator ended before the bench did")),
            }
        }
    };
    let client = Client::new(&coordinator.ready, None);
    run_callers(&client, &site.names.run, 8, 200).await?;
    let mut rows = Vec::new();
    for &callers in &args.callers {
        let callers = callers.max(1);
        // A single caller has time for fewer.
        let starts = if callers == 1 { (args.starts / 10).max(50) } else { args.starts };
        let before = commits(&mut coordinator).await?;
        let since = Stopwatch::start();
        let took = run_callers(&client, &site.names.run, callers, starts).await?;
        let elapsed = since.elapsed();
        let used = commits(&mut coordinator).await?.saturating_sub(before);
        let millis = |percent| rounded(percentile(&took, percent).as_secs_f64() * 1_000.0);
        rows.push(json!({
            "callers": callers,
            "starts": took.len(),
            "startsPerSecond": rounded(took.len() as f64 / elapsed.as_secs_f64().max(0.001)),
            "commitsPerStart": rounded(used as f64 / took.len().max(1) as f64),
            "p50Ms": millis(50),
            "p99Ms": millis(99),
        }));
    }
    database.pool.close().await;
    drop(coordinator);
    Ok(json!({ "storeCommitMs": rounded(commit.as_secs_f64() * 1_000.0), "rows": rows }))
}

async fn run_callers(client: &Client, name: &str, callers: u32, starts: u32) -> Result<Vec<Duration>, CliError> {
    let load = Load::new(starts, 1, 0);
    let mut tasks: JoinSet<Result<Vec<Duration>, CliError>> = JoinSet::new();
    for caller in 0..callers {
        let (client, name) = (client.clone(), name.to_owned());
        tasks.spawn(async move {
            let mut took = Vec::new();
            for n in (caller..starts).step_by(callers as usize) {
                let body = StartBody::new(&name, load.input(n));
                let since = Stopwatch::start();
                client.start(&body).await.map_err(|error| CliError::failed(error.to_string()))?;
                took.push(since.elapsed());
            }
            Ok(took)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.extend(done.map_err(|error| CliError::failed(error.to_string()))??);
    }
    all.sort_unstable();
    Ok(all)
}
