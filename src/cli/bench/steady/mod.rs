//! How amends bears size and trouble: growth, memory, recovery, outages, batches of starts. Each prints what it measured
//! as one document, with the load of the machine, since figures of a shared machine compare only within one run.

mod answering;
mod fairness;
mod growth;
mod memory;
mod outage;
mod process;
mod proxy;
mod recovery;
mod starts;
mod store;

use serde_json::Value;

use super::parts::Part;
use super::site::Site;
use super::workload::Load;
use crate::cli::error::{CliError, Exit};
use crate::cli::{Context, output};
use crate::client::Client;
use crate::client::views::StartBody;

/// Starts in one request.
const PER_REQUEST: u32 = 256;

/// The benches, as commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// What a saga costs with many finished ones in the store, beside what it costs in an empty one
    Growth(growth::Args),
    /// What the store's tables do during a load while a foreign transaction stays open, and afterwards
    Bloat(growth::BloatArgs),
    /// The coordinator's memory with many sagas in flight whose participants are silent
    Memory(memory::Args),
    /// Kill the only coordinator with many sagas in flight, and start it again
    Recovery(recovery::Args),
    /// Cut the coordinator off from the broker or the store for a while, under a steady load
    Outage(outage::Args),
    /// What a flood for a participant that has stopped costs the sagas of its neighbours
    Fairness(fairness::Args),
    /// How starts by many callers are grouped into commits, and what that costs one alone
    Starts(starts::Args),
}

/// Measures and prints.
pub(in super::super) async fn run(command: Command, context: &Context) -> Result<Exit, CliError> {
    let measured = tokio::select! {
        measured = measure(command, context) => measured,
        () = super::interrupted() => Err(CliError::failed("the bench was stopped")),
    };
    let mut document = measured?;
    document["loadAverage"] = process::load_average().into();
    context.output.one(&document, || serde_json::to_string_pretty(&document).unwrap_or_default())?;
    Ok(Exit::Done)
}

async fn measure(command: Command, context: &Context) -> Result<Value, CliError> {
    match command {
        Command::Growth(args) => growth::run(&args, context).await,
        Command::Bloat(args) => growth::bloat(&args, context).await,
        Command::Memory(args) => on_a_site(context, async |site| memory::run(&args, site).await).await,
        Command::Recovery(args) => on_a_site(context, async |site| recovery::run(&args, site).await).await,
        Command::Outage(args) => on_a_site(context, async |site| outage::run(&args, site).await).await,
        Command::Fairness(args) => on_a_site(context, async |site| fairness::run(&args, site).await).await,
        Command::Starts(args) => on_a_site(context, async |site| starts::run(&args, site).await).await,
    }
}

async fn on_a_site(
    context: &Context,
    work: impl AsyncFnOnce(&mut Site) -> Result<Value, CliError>,
) -> Result<Value, CliError> {
    let mut site = Site::prepare(context).await?;
    if site.is_embedded() {
        site.remove().await?;
        return Err(CliError::usage("this bench is about RabbitMQ").help("set --broker to amqp://..."));
    }
    let outcome = work(&mut site).await;
    let removed = site.remove().await;
    let document = outcome?;
    removed?;
    Ok(document)
}

/// Starts sagas number `from` to `to`, in batches, four requests at once. Whoever is told to come back does so.
async fn start(coordinator: &Part, name: &str, from: u32, to: u32) -> Result<(), CliError> {
    let client = Client::new(&coordinator.ready, None);
    let load = Load::new(to.max(1), 1, 0);
    let mut posts = tokio::task::JoinSet::new();
    let mut next = from;
    while next < to || !posts.is_empty() {
        while next < to && posts.len() < 4 {
            let end = (next + PER_REQUEST).min(to);
            let bodies: Vec<StartBody> = (next..end).map(|n| StartBody::new(name, load.input(n))).collect();
            next = end;
            posts.spawn(post(client.clone(), bodies));
        }
        if let Some(posted) = posts.join_next().await {
            posted.map_err(|error| CliError::failed(error.to_string()))??;
        }
    }
    Ok(())
}

async fn post(client: Client, mut bodies: Vec<StartBody>) -> Result<(), CliError> {
    loop {
        let answer = client.start_batch(bodies.clone()).await.map_err(|error| CliError::failed(error.to_string()))?;
        let refused = answer.items.iter().map(|item| item.status);
        let again: Vec<StartBody> =
            bodies.into_iter().zip(refused).filter(|(_, status)| *status >= 400).map(|(body, _)| body).collect();
        if again.is_empty() {
            return Ok(());
        }
        bodies = again;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn tell(text: impl AsRef<str>) {
    output::note(text);
}

/// Rounded to three places: more would only pretend.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
