//! The coordinator is cut off from the broker or from the store for a while, under a steady load.

use std::time::Duration;

use serde_json::{Value, json};

use super::answering::Answering;
use super::proxy::Proxy;
use super::store::Database;
use super::{rounded, tell};
use crate::cli::bench::parts::Part;
use crate::cli::bench::site::Site;
use crate::cli::bench::workload::Load;
use crate::cli::error::CliError;
use crate::client::Client;
use crate::client::views::StartBody;
use crate::clock::Stopwatch;

/// Nothing moves for so long only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the load starts its share.
const BEAT: Duration = Duration::from_millis(100);

/// Arguments of `amends bench outage`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is away
    #[arg(long, value_enum, default_value_t)]
    of: What,
    /// For how many seconds
    #[arg(long, value_name = "S", default_value_t = 60)]
    seconds: u64,
    /// Sagas started per second, before, during and after
    #[arg(long, value_name = "N", default_value_t = 100)]
    rate: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// RabbitMQ
    #[default]
    Broker,
    /// The database
    Store,
}

pub(super) async fn run(args: &Args, site: &mut Site) -> Result<Value, CliError> {
    let database = Database::of(site).await?;
    let (store, broker) = (site.store_url.clone(), site.broker_url.clone());
    let proxy = Proxy::before(if args.of == What::Broker { &broker } else { &store }).await?;
    match args.of {
        What::Broker => site.broker_url = proxy.url(&broker)?,
        What::Store => site.store_url = proxy.url(&store)?,
    }
    let mut coordinator = Part::coordinator(site).await?;
    // What it tells is read, or it would wait for that.
    let (sender, _told) = tokio::sync::mpsc::unbounded_channel();
    coordinator.listen(sender)?;
    (site.store_url, site.broker_url) = (store, broker);
    let answering = Answering::begin(&site.names, &site.broker.shared()).await?;
    let load = tokio::spawn(steady(Client::new(&coordinator.ready, None), site.names.run.clone(), args.rate));

    tokio::time::sleep(Duration::from_secs(10)).await;
    proxy.open(false);
    tell(format!("the {:?} is away", args.of).to_lowercase());
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let (ended, live) = (ended(&database).await?, live(&database).await?);
    let (before, twice_before) = answering.commands();
    proxy.open(true);
    let since = Stopwatch::start();
    let at = answering.age();
    tell(format!("it is back; {live} sagas are in flight"));
    let first = loop {
        if answering.commands().0 > before {
            break since.elapsed();
        }
        if since.elapsed() > PATIENCE {
            return Err(CliError::failed("nothing is published after the outage"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Drained when no more sagas are in flight than a steady load keeps there.
    let usual = i64::from(args.rate).max(10);
    let drained = loop {
        if self::live(&database).await? <= usual {
            break since.elapsed();
        }
        if since.elapsed() > PATIENCE {
            return Err(CliError::failed("the backlog does not drain"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let per_second = (self::ended(&database).await? - ended) as f64 / drained.as_secs_f64().max(0.001);
    let (all, twice) = answering.commands();
    let most = answering.most_per_second(at);
    load.abort();
    let document = json!({
        "of": format!("{:?}", args.of).to_lowercase(),
        "awaySeconds": args.seconds,
        "arrivalsPerSecond": args.rate,
        "backlog": live,
        "firstPublishSeconds": rounded(first.as_secs_f64()),
        "drainedSeconds": rounded(drained.as_secs_f64()),
        "endedPerSecondWhileDraining": rounded(per_second),
        "drainOverArrivals": rounded(per_second / f64::from(args.rate.max(1))),
        "commandsAfter": all - before,
        "duplicates": twice - twice_before,
        "mostCommandsInOneSecond": most,
    });
    answering.stop().await;
    drop(coordinator);
    database.pool.close().await;
    Ok(document)
}

async fn ended(database: &Database) -> Result<i64, CliError> {
    database.count("select count(*) from saga where ended_at is not null").await
}

async fn live(database: &Database) -> Result<i64, CliError> {
    database.count("select count(*) from saga where state in ('RUNNING', 'COMPENSATING', 'STUCK')").await
}

/// Starts sagas at a steady rate; those that are refused are not started again.
async fn steady(client: Client, name: String, rate: u32) {
    let load = Load::new(u32::MAX, 1, 0);
    let mut beat = tokio::time::interval(BEAT);
    let (mut n, mut owed, mut posts) = (0, 0, tokio::task::JoinSet::new());
    loop {
        beat.tick().await;
        owed += rate;
        let count = owed / 10;
        owed %= 10;
        let bodies: Vec<StartBody> = (n..n + count).map(|n| StartBody::new(&name, load.input(n))).collect();
        n += count;
        let client = client.clone();
        if !bodies.is_empty() && posts.len() < 64 {
            posts.spawn(async move { client.start_batch(bodies).await.is_ok() });
        }
        while posts.try_join_next().is_some() {}
    }
}
