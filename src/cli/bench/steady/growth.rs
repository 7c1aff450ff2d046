//! Two stores, one empty and one full of finished sagas, measured in turns; and a load beside a foreign transaction.

use std::slice::from_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};

use super::store::{Database, failed};
use super::{rounded, tell};
use crate::archive::{Options, Progress};
use crate::cli::Context;
use crate::cli::bench::drive::{Driver, Starts};
use crate::cli::bench::measure::Measured;
use crate::cli::bench::participants::Kind;
use crate::cli::bench::parts::Part;
use crate::cli::bench::site::Site;
use crate::cli::bench::workload::Load;
use crate::cli::error::CliError;
use crate::store::Store;

/// Arguments of `amends bench growth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Finished sagas in the full store
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    finished: u32,
    /// Sagas per round and store
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    sagas: u32,
    /// Sagas under way at once
    #[arg(long, value_name = "M", default_value_t = 256)]
    in_flight: u32,
    /// How often both are measured in turns
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Archive the full store's sagas during the second half of the rounds, to a temporary folder
    #[arg(long)]
    archive: bool,
}

/// Arguments of `amends bench bloat`.
#[derive(Debug, clap::Args)]
pub struct BloatArgs {
    /// Sagas per slice
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    sagas: u32,
    /// Slices: without, with, and again without the foreign transaction, a third each
    #[arg(long, value_name = "N", default_value_t = 9)]
    slices: u32,
    /// Sagas under way at once
    #[arg(long, value_name = "M", default_value_t = 256)]
    in_flight: u32,
}

/// A store with a coordinator and participants of its own.
struct Place {
    site: Site,
    database: Database,
    participants: Part,
    coordinator: Part,
}

impl Place {
    async fn make(context: &Context) -> Result<Self, CliError> {
        let site = Site::prepare(context).await?;
        if site.is_embedded() {
            site.remove().await?;
            return Err(CliError::usage("this bench is about RabbitMQ").help("set --broker to amqp://..."));
        }
        let database = Database::of(&site).await?;
        let participants = Part::participants(&site, Kind::Bare).await?;
        let coordinator = Part::coordinator(&site).await?;
        Ok(Self { site, database, participants, coordinator })
    }

    async fn leave(self) -> Result<(), CliError> {
        self.coordinator.stop().await?;
        self.participants.stop().await?;
        self.database.pool.close().await;
        self.site.remove().await
    }
}

/// One load, with what the database used for it.
async fn round(driver: &mut Driver<'_>, database: &Database, load: &Load) -> Result<(Measured, Value), CliError> {
    let (cpu, wal) = (database.cpu(), wal(database).await?);
    let measured = driver.run(load).await?;
    let per_saga = |millis: f64| rounded(millis / f64::from(measured.ended().max(1)));
    let database_cpu = database.cpu().saturating_sub(cpu).as_secs_f64() * 1_000.0;
    let coordinator_cpu = measured.cpu.unwrap_or_default().as_secs_f64() * 1_000.0;
    let told = json!({
        "sagasPerSecond": rounded(measured.per_second()),
        "coordinatorCpuMsPerSaga": per_saga(coordinator_cpu),
        "databaseCpuMsPerSaga": per_saga(database_cpu),
        "walBytesPerSaga": per_saga((self::wal(database).await? - wal) as f64),
        "p50Ms": rounded(measured.latency(50).as_secs_f64() * 1_000.0),
        "p99Ms": rounded(measured.latency(99).as_secs_f64() * 1_000.0),
    });
    Ok((measured, told))
}

async fn wal(database: &Database) -> Result<i64, CliError> {
    database.count("select (pg_current_wal_lsn() - '0/0')::bigint").await
}

fn median(rounds: &[Value], field: &str) -> f64 {
    let mut values: Vec<f64> = rounds.iter().filter_map(|round| round[field].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn ratios(full: &[Value], empty: &[Value]) -> Value {
    let ratio = |field: &str| {
        let pairs = full.iter().zip(empty);
        let ratio = |full: &Value, empty: &Value| Some(json!({ "r": full[field].as_f64()? / empty[field].as_f64()? }));
        let all: Vec<Value> = pairs.filter_map(|(full, empty)| ratio(full, empty)).collect();
        rounded(median(&all, "r"))
    };
    let names =
        ["sagasPerSecond", "coordinatorCpuMsPerSaga", "databaseCpuMsPerSaga", "walBytesPerSaga", "p50Ms", "p99Ms"];
    names.map(|name| (name.to_owned(), Value::from(ratio(name)))).into_iter().collect::<serde_json::Map<_, _>>().into()
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<Value, CliError> {
    let (mut empty, mut full) = (Place::make(context).await?, Place::make(context).await?);
    let load = Load::new(args.sagas, args.in_flight, 0);
    let mut on_empty = Driver::new(from_mut(&mut empty.coordinator), Starts::Batch, &empty.site.names.run)?;
    let mut on_full = Driver::new(from_mut(&mut full.coordinator), Starts::Batch, &full.site.names.run)?;
    on_empty.run(&load.warm_up()).await?;
    on_full.run(&load.warm_up()).await?;

    let bytes = full.database.bytes().await?;
    full.database
        .fill(args.finished, |done| tell(format!("{done} of {} finished sagas are in", args.finished)))
        .await?;
    let per_saga = (full.database.bytes().await? - bytes) / i64::from(args.finished.max(1));
    on_full.run(&load.warm_up()).await?;

    let before = full.database.tables().await?;
    let (mut of_empty, mut of_full) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        tell(format!("round {round} of {}", args.rounds));
        of_empty.push(self::round(&mut on_empty, &empty.database, &load).await?.1);
        of_full.push(self::round(&mut on_full, &full.database, &load).await?.1);
    }
    let mut document = json!({
        "finished": args.finished,
        "bytesPerFinishedSaga": per_saga,
        "ratios": ratios(&of_full, &of_empty),
        "empty": of_empty,
        "full": of_full,
        "tablesBefore": before,
        "tablesAfter": full.database.tables().await?,
    });
    if args.archive {
        document["archiving"] = beside_archive(args, &full.site.store, &full.database, &mut on_full, &load).await?;
    }
    drop((on_empty, on_full));
    empty.leave().await?;
    full.leave().await?;
    Ok(document)
}

/// The same load while an archive run goes on, and while none does, in turns.
async fn beside_archive(
    args: &Args,
    store: &Arc<dyn Store>,
    database: &Database,
    driver: &mut Driver<'_>,
    load: &Load,
) -> Result<Value, CliError> {
    let folder = tempfile::tempdir().map_err(|error| CliError::failed(error.to_string()))?;
    // Small files, so that a round has both parts of a run in it: writing them, and removing what they hold.
    let options = Options { per_file: 1_000, ..Options::new(Duration::from_secs(86_400), folder.path()) };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (written, removed) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 1..=args.rounds {
        tell(format!("round {round} of {}: beside an archive run", args.rounds));
        alone.push(self::round(driver, database, load).await?.1);
        // Of the file at hand; a file is done when as many are removed as it holds.
        let of_file = (AtomicU64::new(0), AtomicU64::new(0));
        let counted = |progress| match progress {
            Progress::Written(sagas) => {
                let before = of_file.0.swap(sagas, Relaxed);
                written.fetch_add(if sagas >= before { sagas - before } else { sagas }, Relaxed);
            }
            Progress::Removed(sagas, of) => {
                let before = of_file.1.swap(if sagas == of { 0 } else { sagas }, Relaxed);
                removed.fetch_add(sagas.saturating_sub(before), Relaxed);
            }
        };
        tokio::select! {
            measured = self::round(driver, database, load) => beside.push(measured?.1),
            // It ends only when everything is archived.
            archived = crate::archive::run(store, &options, &counted) => { archived?; break }
        }
        // The run was cut off: its lease is given back, as after a minute.
        sqlx::query("delete from archive_lease").execute(&database.pool).await.map_err(failed)?;
    }
    Ok(json!({
        "ratios": ratios(&beside, &alone),
        "alone": alone,
        "beside": beside,
        "written": written.into_inner(),
        "removed": removed.into_inner(),
    }))
}

pub(super) async fn bloat(args: &BloatArgs, context: &Context) -> Result<Value, CliError> {
    let mut place = Place::make(context).await?;
    let load = Load::new(args.sagas, args.in_flight, 0);
    let mut driver = Driver::new(from_mut(&mut place.coordinator), Starts::Batch, &place.site.names.run)?;
    driver.run(&load.warm_up()).await?;
    let foreign = Database::of(&place.site).await?;
    let (mut slices, mut held) = (Vec::new(), None);
    let third = (args.slices / 3).max(1);
    for slice in 0..third * 3 {
        if slice == third {
            let mut transaction = foreign.pool.begin().await.map_err(failed)?;
            sqlx::query("set transaction isolation level repeatable read")
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
            sqlx::query("select count(*) from saga").execute(&mut *transaction).await.map_err(failed)?;
            held = Some(transaction);
        }
        if slice == third * 2
            && let Some(transaction) = held.take()
        {
            transaction.rollback().await.map_err(failed)?;
        }
        tell(format!("slice {} of {}", slice + 1, third * 3));
        let (_, mut told) = round(&mut driver, &place.database, &load).await?;
        told["foreignTransaction"] = held.is_some().into();
        told["tables"] = place.database.tables().await?;
        slices.push(told);
    }
    foreign.pool.close().await;
    let of = |from: u32| {
        let part: Vec<Value> = slices.iter().skip(from as usize).take(third as usize).cloned().collect();
        json!({
            "sagasPerSecond": median(&part, "sagasPerSecond"),
            "databaseCpuMsPerSaga": median(&part, "databaseCpuMsPerSaga"),
        })
    };
    let document = json!({
        "sagasPerSlice": args.sagas,
        "before": of(0), "during": of(third), "after": of(third * 2),
        "slices": slices,
    });
    drop(driver);
    place.leave().await?;
    Ok(document)
}
