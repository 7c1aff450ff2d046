//! Participants that count what they are asked, in the bench's own process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::broker::topology::commands_queue;
use crate::broker::{Broker, Consumer, Published, Settlement};
use crate::cli::bench::workload::Names;
use crate::cli::error::CliError;
use crate::clock::Stopwatch;
use crate::message::{Command, Reply, ReplyBody};
use crate::payload::Payload;

#[derive(Default)]
struct Counted {
    /// How often each idempotency key has arrived.
    keys: HashMap<String, u32>,
    /// When commands were taken, in periods of a tenth of a second.
    taken: Vec<u64>,
}

/// Participants that answer every command with success.
pub(super) struct Answering {
    counted: Arc<Mutex<Counted>>,
    tasks: JoinSet<()>,
    since: Stopwatch,
}

impl Answering {
    pub(super) async fn begin(names: &Names, broker: &Arc<dyn Broker>) -> Result<Self, CliError> {
        let (counted, mut tasks, since) =
            (Arc::new(Mutex::new(Counted::default())), JoinSet::new(), Stopwatch::start());
        for name in names.participants() {
            let consumer = broker.consume(&commands_queue(&name), 1_024).await?;
            tasks.spawn(answer(broker.clone(), consumer, counted.clone(), since));
        }
        Ok(Self { counted, tasks, since })
    }

    /// Commands that came, and those among them that had come before.
    pub(super) fn commands(&self) -> (u64, u64) {
        let Ok(counted) = self.counted.lock() else { return (0, 0) };
        let all: u64 = counted.keys.values().map(|times| u64::from(*times)).sum();
        (all, all - counted.keys.len() as u64)
    }

    /// The most commands in one second, of those from `from` on.
    pub(super) fn most_per_second(&self, from: Duration) -> u64 {
        let Ok(counted) = self.counted.lock() else { return 0 };
        let from = usize::try_from(from.as_millis() / 100).unwrap_or_default();
        let taken = counted.taken.get(from.min(counted.taken.len())..).unwrap_or_default();
        taken.windows(10.min(taken.len().max(1))).map(|second| second.iter().sum()).max().unwrap_or_default()
    }

    /// Since when it counts.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn answer(
    broker: Arc<dyn Broker>,
    mut consumer: Box<dyn Consumer>,
    counted: Arc<Mutex<Counted>>,
    since: Stopwatch,
) {
    let settler = consumer.settler();
    while let Some(deliveries) = consumer.next(512).await {
        let mut replies = Vec::with_capacity(deliveries.len());
        if let Ok(mut counted) = counted.lock() {
            let at = usize::try_from(since.elapsed().as_millis() / 100).unwrap_or_default();
            if counted.taken.len() <= at {
                counted.taken.resize(at + 1, 0);
            }
            if let Some(period) = counted.taken.get_mut(at) {
                *period += deliveries.len() as u64;
            }
            for delivery in &deliveries {
                if let Ok(command) = Command::decode(&delivery.envelope) {
                    *counted.keys.entry(command.key).or_default() += 1;
                    let body = ReplyBody::Success(Payload::trusted(r#"{"reference":"4f8d2c1e90ab"}"#));
                    replies.push(Reply { token: command.token, routing_key: command.reply_to, body }.encode());
                }
            }
        }
        let outcomes = broker.publish(replies).await;
        let settled = deliveries.iter().zip(outcomes).map(|(delivery, outcome)| match outcome {
            Published::Confirmed => (delivery.tag, Settlement::Ack),
            _ => (delivery.tag, Settlement::Requeue),
        });
        settler.settle(settled.collect()).await;
    }
}
