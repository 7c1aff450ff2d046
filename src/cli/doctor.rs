//! `amends doctor`: looks at everything that the coordinator needs, and says what to do about what is wrong.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::error::{CliError, Exit};
use super::namespaces::Place;
use super::remote::Remote;
use super::settings::masked;
use super::{Context, connect, output};
use crate::broker::topology::{REPLIES_QUEUE, REQUESTS_QUEUE, commands_queue};
use crate::broker::{Broker, BrokerError, QueueStatus};
use crate::clock::{Clock, Timestamp};
use crate::definition;
use crate::store::{Store, StoreError, StoreHealth};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Clocks may differ by so much before it is worth a word.
const SKEW: chrono::TimeDelta = chrono::TimeDelta::seconds(2);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    check: String,
    result: Verdict,
    found: String,
    advice: Option<String>,
}

impl Check {
    fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), result: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warning(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { result: Verdict::Warning, advice: Some(advice.into()), ..Self::ok(check, found) }
    }

    fn failed(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { result: Verdict::Failed, advice: Some(advice.into()), ..Self::ok(check, found) }
    }

    fn error(check: impl Into<String>, error: CliError) -> Self {
        let advice = error.help.unwrap_or_else(|| "see the message".to_owned());
        Self::failed(check, error.message, advice)
    }
}

/// Checks everything; exit code 1 when a check fails.
pub async fn run(context: &Context) -> Result<Exit, CliError> {
    let mut checks = Vec::new();
    let place = context.settings.place()?;
    let mut participants = Vec::new();
    match patiently(async { connect::store_of(&place).await }).await {
        Ok(store) => {
            check_store(&*store, &masked(&place.store), &mut checks).await;
            check_encryption(context, &place, &*store, &mut checks).await;
            participants = participants_of(&*store, &mut checks).await;
            store.close().await;
        }
        Err(error) => checks.push(Check::error("store", error)),
    }
    check_broker(&place, &participants, &mut checks).await;
    if context.settings.url.is_some() {
        checks.push(match Remote::new(context)?.get(&["readyz"], &[]).await {
            Ok(_) => Check::ok("server", format!("{} is ready", masked(&context.settings.url_or_default()))),
            Err(error) => Check::error("server", error),
        });
        checks.extend(super::participants::failing(context).await.into_iter().map(|(name, found)| {
            let advice = "look at its log; its circuit closes by itself with its first answer";
            Check::warning(format!("participant {name}"), found, advice)
        }));
    }
    context.output.list(&json!({ "items": checks }), &checks, || {
        output::table(
            &["check", "result", "found", "advice"],
            checks.iter().map(|check| {
                let result = match check.result {
                    Verdict::Ok => "ok",
                    Verdict::Warning => "warning",
                    Verdict::Failed => "FAILED",
                };
                vec![
                    check.check.clone(),
                    result.to_owned(),
                    check.found.clone(),
                    check.advice.clone().unwrap_or_default(),
                ]
            }),
        )
    })?;
    let failed = checks.iter().filter(|check| check.result == Verdict::Failed).count();
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

async fn patiently<T>(answer: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(CliError::failed(format!("no answer in {} s", PATIENCE.as_secs()))
            .help("check that it runs, and that nothing on the way drops the connection")),
    }
}

async fn check_store(store: &dyn Store, address: &str, checks: &mut Vec<Check>) {
    let before = Clock::System.now();
    let health = match patiently(async { Ok(store.health().await?) }).await {
        Ok(health) => health,
        Err(error) => return checks.push(Check::error("store", error)),
    };
    let after = Clock::System.now();
    checks.push(Check::ok("store", format!("{} at {address}", health.server)));
    checks.push(match store.check_schema().await {
        Ok(()) => Check::ok("schema", format!("version {}", health.program_version)),
        Err(error @ (StoreError::SchemaBehind { .. } | StoreError::SchemaAhead { .. })) => {
            let found = health.schema_version.map_or_else(|| "none".to_owned(), |version| format!("version {version}"));
            Check::failed("schema", found, error.to_string())
        }
        Err(error) => Check::error("schema", error.into()),
    });
    checks.push(durability(&health));
    checks.push(clock(before, health.now, after));
}

/// Whether every data key opens with the keys of the settings, and which of those are not needed any more. Nothing to
/// say where nothing is encrypted.
async fn check_encryption(context: &Context, place: &Place, store: &dyn Store, checks: &mut Vec<Check>) {
    let masters = match context.settings.encryption.read_for(&place.entry) {
        Ok(masters) => masters.unwrap_or_default(),
        Err(error) => return checks.push(Check::error("encryption", error)),
    };
    // A schema that lacks the table has been told of.
    let Ok(found) = patiently(async { super::encryption::look(store, &masters).await }).await else { return };
    for key in found {
        let (check, held) = (format!("encryption key {}", key.name), format!("wraps {} data keys", key.data_keys));
        checks.push(match key {
            super::encryption::MasterKey { problem: Some(problem), .. } => {
                let advice = "put the key back into [encryption.keys]: sagas that need it cannot go on";
                Check::failed(check, format!("{held}; {problem}"), advice)
            }
            super::encryption::MasterKey { is_active: false, data_keys: 0, .. } => {
                Check::warning(check, held, "it is not needed any more, and can be removed from the settings")
            }
            super::encryption::MasterKey { is_active: false, name, .. } => {
                Check::warning(check, held, format!("exchange it: amends encryption rewrap --from {name}"))
            }
            _ => Check::ok(check, format!("{held}; active")),
        });
    }
}

fn durability(health: &StoreHealth) -> Check {
    let found = health.durability.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ");
    if health.is_durable {
        Check::ok("durability", found)
    } else {
        Check::failed(
            "durability",
            found,
            "turn these on: without them an acknowledged start can be lost with the power",
        )
    }
}

/// The database read its clock between `before` and `after`, so that the way there does not count as a difference.
fn clock(before: Timestamp, database: Timestamp, after: Timestamp) -> Check {
    let skew = if database < before {
        before - database
    } else if database > after {
        database - after
    } else {
        chrono::TimeDelta::zero()
    };
    let found = format!("{} ms between this machine and the database", skew.num_milliseconds());
    if skew <= SKEW {
        Check::ok("clocks", found)
    } else {
        let advice = "run NTP on both: deadlines that participants are told come from the database's clock";
        Check::warning("clocks", found, advice)
    }
}

/// The services that registered definitions name.
async fn participants_of(store: &dyn Store, checks: &mut Vec<Check>) -> Vec<String> {
    let records = match patiently(async { Ok(store.definitions(None).await?) }).await {
        Ok(records) => records,
        // The schema's own check has said why.
        Err(_) => return Vec::new(),
    };
    let mut participants: Vec<String> = Vec::new();
    for record in &records {
        match definition::read(&record.source).definition {
            Some(definition) => participants.extend(definition.participants().into_iter().map(str::to_owned)),
            None => checks.push(Check::failed(
                "definitions",
                format!("{} cannot be read by this program", record.reference),
                "run the program that registered it, or a newer one",
            )),
        }
    }
    participants.sort_unstable();
    participants.dedup();
    checks.push(Check::ok("definitions", format!("{} versions registered", records.len())));
    participants
}

async fn check_broker(place: &Place, participants: &[String], checks: &mut Vec<Check>) {
    let broker = match patiently(async { connect::broker_of(place).await }).await {
        Ok(broker) => broker,
        Err(error) => return checks.push(Check::error("broker", error)),
    };
    if broker.is_volatile() {
        let advice = "fine for a trial; for services in other processes set AMENDS_BROKER to amqp://...";
        checks.push(Check::warning("broker", "inside the process of `serve`", advice));
        return broker.close().await;
    }
    match patiently(async { Ok(broker.describe().await?) }).await {
        Ok(description) => {
            checks.push(Check::ok("broker", description));
            for queue in [REPLIES_QUEUE, REQUESTS_QUEUE] {
                let missing = "start `amends serve` once: it declares its queues";
                checks.push(queue_check(&*broker, queue, Verdict::Failed, missing).await);
            }
            for participant in participants {
                let idle = format!("start the service `{participant}`: its commands wait for it");
                checks.push(queue_check(&*broker, &commands_queue(participant), Verdict::Warning, &idle).await);
            }
            for queue in dead_queues(participants) {
                checks.extend(dead_check(&*broker, &queue).await);
            }
        }
        Err(error) => checks.push(Check::error("broker", error)),
    }
    broker.close().await;
}

fn dead_queues(participants: &[String]) -> Vec<String> {
    let live = participants.iter().map(|name| commands_queue(name));
    live.chain([REPLIES_QUEUE.to_owned(), REQUESTS_QUEUE.to_owned()]).map(|queue| format!("{queue}.dead")).collect()
}

async fn status(broker: &dyn Broker, queue: &str) -> Result<Option<QueueStatus>, CliError> {
    patiently(async { broker.queue(queue).await.map_err(|error: BrokerError| error.into()) }).await
}

async fn queue_check(broker: &dyn Broker, queue: &str, idle: Verdict, advice: &str) -> Check {
    match status(broker, queue).await {
        Ok(Some(QueueStatus { messages, consumers })) => {
            let found = format!("{consumers} consumers, {messages} messages waiting");
            if consumers > 0 {
                Check::ok(queue, found)
            } else {
                // Nobody consumes, which a coordinator that is not running explains too.
                Check::warning(queue, found, advice)
            }
        }
        Ok(None) => Check {
            result: idle,
            ..Check::warning(queue, "there is no such queue", "start `amends serve` once: it declares its queues")
        },
        Err(error) => Check::error(queue, error),
    }
}

/// Nothing to say of dead letters where there are none.
async fn dead_check(broker: &dyn Broker, queue: &str) -> Option<Check> {
    let dead = status(broker, queue).await.ok().flatten().filter(|status| status.messages > 0)?;
    let advice = "read them with your broker's own tools: each says why in its headers";
    Some(Check::warning(queue, format!("{} dead letters", dead.messages), advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_database_is_no_difference_of_clocks() {
        let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0).expect("a time");
        assert_eq!(clock(at(100), at(105), at(110)).result, Verdict::Ok);
        assert_eq!(clock(at(100), at(95), at(110)).result, Verdict::Warning);
        assert_eq!(clock(at(100), at(120), at(110)).result, Verdict::Warning);
    }
}
