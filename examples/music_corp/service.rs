//! What the three services share: settings, start, stop.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use amends::broker;
use amends::participant::{self, Participant};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Postgres, raw_sql};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Error;

/// How many commands a service works on at once.
const CONCURRENCY: u16 = 16;

#[derive(clap::Args)]
pub struct Settings {
    /// The service's own database.
    #[arg(long, env = "DATABASE_URL")]
    database: PgConnectOptions,
    /// The broker that it shares with the coordinator.
    #[arg(long, env = "AMENDS_BROKER", default_value = "amqp://guest:guest@127.0.0.1:5672/%2f")]
    broker: String,
}

/// Runs a service until SIGTERM or SIGINT. Being killed at any other moment is fine too.
pub async fn run(settings: Settings, schema: &'static str, service: Participant<Postgres>) -> Result<(), Error> {
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone())?);

    // Lazy: the pool connects, and connects again, when it must.
    let pool = PgPoolOptions::new()
        .max_connections(u32::from(CONCURRENCY) + 1)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(settings.database);
    let ready = async || migrate(&pool, schema).await;
    if patiently("the database", &stop, ready).await.is_none() {
        return Ok(());
    }
    let Some(broker) = patiently("the broker", &stop, async || broker::open(&settings.broker).await).await else {
        return Ok(());
    };
    service.concurrency(CONCURRENCY).build(pool, Arc::clone(&broker))?.run(stop).await?;
    broker.close().await;
    Ok(())
}

/// The inbox, then the service's own tables; both may be applied any number of times.
async fn migrate(pool: &PgPool, schema: &'static str) -> Result<(), sqlx::Error> {
    participant::migrate(pool).await?;
    raw_sql(schema).execute(pool).await?;
    Ok(())
}

/// Tries until it works; `None` when the service is stopped before. What a service needs may start after it.
async fn patiently<T, E: Display>(
    what: &str,
    stop: &CancellationToken,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Option<T> {
    loop {
        match attempt().await {
            Ok(value) => return Some(value),
            Err(error) => tracing::warn!(%error, "waiting for {what}"),
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

fn cancel_on_signal(stop: CancellationToken) -> Result<impl Future<Output = ()>, Error> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    })
}
