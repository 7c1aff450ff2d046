//! The participants: bare ones, which only answer, and ones with the SDK and a database of their own.

use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Database, Executor, Pool, Postgres, Sqlite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::workload::{ACTION, Names, REFUSAL, REFUSE_MARK, STEPS, UNDO};
use crate::broker::topology::commands_queue;
use crate::broker::{Broker, Consumer, Delivery, Published, Settlement};
use crate::cli::error::CliError;
use crate::cli::output;
use crate::message::reply::ReplyProblem;
use crate::message::{Envelope, Reply, ReplyBody};
use crate::participant::{self, Inbox, Participant, RunningParticipant, StepError, Work, refuse};
use crate::payload::Payload;

/// Commands that one participant has taken and not acknowledged, at most.
const PREFETCH: u16 = 2_048;
/// Batches of replies whose confirms are awaited at once.
const BATCHES: usize = 8;
/// Commands that a participant with a database works on at once; each takes a connection.
const CONCURRENCY: u16 = 16;
/// What an effect of a participant with a database is.
const EFFECTS: &str =
    "create table if not exists effect (saga text not null, step text not null, undone integer not null)";

/// What the participants do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Answer, and nothing else
    #[default]
    Bare,
    /// Record effect and reply in one transaction of a database of their own, with the SDK
    Sdk,
}

/// Participants at work.
pub(super) struct AtWork {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl AtWork {
    /// Lets all of them take commands. `services` is the address of their database.
    pub(super) async fn begin(
        kind: Kind,
        names: &Names,
        broker: &Arc<dyn Broker>,
        services: &str,
    ) -> Result<Self, CliError> {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        match kind {
            Kind::Bare => {
                for (step, name) in names.participants().iter().enumerate() {
                    let consumer = broker.consume(&commands_queue(name), PREFETCH).await?;
                    let is_last = step + 1 == STEPS.len();
                    tasks.spawn(bare(broker.clone(), consumer, is_last, stop.clone()));
                }
            }
            Kind::Sdk if services.starts_with("sqlite:") => {
                for name in names.participants() {
                    // One file each: they are services of their own, and SQLite has one writer per file.
                    let file = services.trim_start_matches("sqlite://").replace("services", &name);
                    let options = SqliteConnectOptions::new()
                        .filename(file)
                        .create_if_missing(true)
                        .journal_mode(SqliteJournalMode::Wal)
                        .synchronous(SqliteSynchronous::Full);
                    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
                    let service = sqlite_service(&name, pool.map_err(broken)?, broker).await?;
                    launch(&mut tasks, service, &stop);
                }
            }
            Kind::Sdk => {
                let options: PgConnectOptions = services.parse().map_err(broken)?;
                let connections = u32::from(CONCURRENCY) * 3;
                let pool =
                    PgPoolOptions::new().max_connections(connections).connect_with(options).await.map_err(broken)?;
                for name in names.participants() {
                    let service = postgres_service(&name, pool.clone(), broker).await?;
                    launch(&mut tasks, service, &stop);
                }
            }
        }
        Ok(Self { tasks, stop })
    }

    /// Takes nothing new and ends.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn broken(error: sqlx::Error) -> CliError {
    CliError::failed(format!("a participant's database: {error}"))
}

fn launch<DB: Inbox>(tasks: &mut JoinSet<()>, service: RunningParticipant<DB>, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = service.run(stop).await {
            output::note(format!("a participant ended: {error}"));
        }
    });
}

/// Whatever has arrived is answered as one batch; the commands are acknowledged once the broker has the replies.
async fn bare(broker: Arc<dyn Broker>, mut consumer: Box<dyn Consumer>, is_last: bool, stop: CancellationToken) {
    let (settler, slots) = (consumer.settler(), Arc::new(Semaphore::new(BATCHES)));
    loop {
        let deliveries = tokio::select! {
            deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
            () = stop.cancelled() => return,
        };
        let (Some(deliveries), Ok(slot)) = (deliveries, slots.clone().acquire_owned().await) else { return };
        let (broker, settler) = (broker.clone(), settler.clone());
        tokio::spawn(async move {
            let replies = deliveries.iter().map(|delivery| answer(delivery, is_last)).collect();
            let outcomes = broker.publish(replies).await;
            let settled = deliveries.iter().zip(outcomes).map(|(delivery, outcome)| match outcome {
                Published::Confirmed => (delivery.tag, Settlement::Ack),
                _ => (delivery.tag, Settlement::Requeue),
            });
            settler.settle(settled.collect()).await;
            drop(slot);
        });
    }
}

fn answer(delivery: &Delivery, is_last: bool) -> Envelope {
    let Envelope { properties, body, .. } = &*delivery.envelope;
    let is_refused = is_last && body.windows(REFUSE_MARK.len()).any(|part| part == REFUSE_MARK);
    let body = if is_refused {
        let problem = ReplyProblem { kind: REFUSAL.to_owned(), title: "refused".to_owned(), detail: None };
        ReplyBody::Failure(problem)
    } else {
        ReplyBody::Success(Payload::trusted(r#"{"reference":"4f8d2c1e90ab","at":1764000000}"#))
    };
    let token = properties.correlation_id.clone().unwrap_or_default();
    Reply { token, routing_key: properties.reply_to.clone().unwrap_or_default(), body }.encode()
}

async fn sqlite_service(
    name: &str,
    pool: Pool<Sqlite>,
    broker: &Arc<dyn Broker>,
) -> Result<RunningParticipant<Sqlite>, CliError> {
    async fn effect(input: Value, mut work: Work<Sqlite>, undone: i32) -> Result<Value, StepError> {
        let (saga, step) = (work.command().saga_id.to_string(), work.command().step.clone());
        let insert = sqlx::query("insert into effect values ($1, $2, $3)").bind(saga).bind(&step).bind(undone);
        insert.execute(work.tx()).await?;
        reply(&input, &step, undone)
    }
    prepare(&pool).await?;
    build(
        Participant::named(name)
            .concurrency(CONCURRENCY)
            .action(ACTION, |input, work| effect(input, work, 0))
            .action(UNDO, |input, work| effect(input, work, 1)),
        pool,
        broker,
    )
}

async fn postgres_service(
    name: &str,
    pool: Pool<Postgres>,
    broker: &Arc<dyn Broker>,
) -> Result<RunningParticipant<Postgres>, CliError> {
    async fn effect(input: Value, mut work: Work<Postgres>, undone: i32) -> Result<Value, StepError> {
        let (saga, step) = (work.command().saga_id.to_string(), work.command().step.clone());
        let insert = sqlx::query("insert into effect values ($1, $2, $3)").bind(saga).bind(&step).bind(undone);
        insert.execute(work.tx()).await?;
        reply(&input, &step, undone)
    }
    prepare(&pool).await?;
    build(
        Participant::named(name)
            .concurrency(CONCURRENCY)
            .action(ACTION, |input, work| effect(input, work, 0))
            .action(UNDO, |input, work| effect(input, work, 1)),
        pool,
        broker,
    )
}

async fn prepare<DB: Inbox>(pool: &Pool<DB>) -> Result<(), CliError>
where
    for<'c> &'c Pool<DB>: Executor<'c, Database = DB>,
    <DB as Database>::Arguments: sqlx::IntoArguments<DB>,
{
    participant::migrate(pool).await.map_err(broken)?;
    pool.execute(EFFECTS).await.map_err(broken)?;
    Ok(())
}

fn build<DB: Inbox>(
    participant: Participant<DB>,
    pool: Pool<DB>,
    broker: &Arc<dyn Broker>,
) -> Result<RunningParticipant<DB>, CliError> {
    participant.build(pool, broker.clone()).map_err(|error| CliError::failed(error.to_string()))
}

fn reply(input: &Value, step: &str, undone: i32) -> Result<Value, StepError> {
    let is_last = STEPS.last() == Some(&step);
    if is_last && undone == 0 && input["refuse"] == true {
        return Err(refuse(REFUSAL, "refused"));
    }
    Ok(json!({ "reference": "4f8d2c1e90ab", "at": 1_764_000_000 }))
}
