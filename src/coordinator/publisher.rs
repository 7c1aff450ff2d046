//! Publishes what was committed. Never the reason that anything waits: what cannot be published now stays PENDING in
//! the outbox and comes back when its publish grace ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Published, Topology};
use crate::coordinator::confirms::Confirms;
use crate::coordinator::listeners::Listeners;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::outbound::Outbound;
use crate::failpoint::{self, Point};

/// Batches that may wait to be published.
const WAITING_BATCHES: usize = 64;
/// Batches whose confirms may be awaited at once, so that one round trip to the broker's disk does not hold up the next.
const BATCHES_IN_FLIGHT: usize = 8;

/// Who is told what became of messages.
#[derive(Clone)]
pub(super) struct Sinks {
    pub(super) confirms: Confirms,
    pub(super) listeners: Listeners,
}

/// Where batches to publish are put.
#[derive(Clone)]
pub(super) struct Publisher {
    batches: mpsc::Sender<Vec<Outbound>>,
    metrics: Metrics,
}

impl Publisher {
    /// Starts the loop, which ends when the last clone of the publisher is gone and everything is published.
    pub(super) fn launch(broker: Arc<dyn Broker>, sinks: Sinks, metrics: Metrics, tasks: &TaskTracker) -> Self {
        let (batches, receiver) = mpsc::channel(WAITING_BATCHES);
        tasks.spawn(run(receiver, broker, sinks, metrics.clone()));
        Self { batches, metrics }
    }

    /// Puts a batch in line. When the line is full the batch is left to the publish grace.
    pub(super) fn publish(&self, batch: Vec<Outbound>) {
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.batches.try_send(batch) {
            let (mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) = error;
            for _ in &batch {
                self.metrics.published("postponed");
            }
            tracing::warn!(messages = batch.len(), "the broker does not keep up: publishing later");
        }
    }

    /// Whether the line is so long that more would only be postponed.
    pub(super) fn is_backlogged(&self) -> bool {
        self.batches.capacity() < WAITING_BATCHES / 2
    }
}

async fn run(mut batches: mpsc::Receiver<Vec<Outbound>>, broker: Arc<dyn Broker>, sinks: Sinks, metrics: Metrics) {
    let slots = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
    let tasks = TaskTracker::new();
    while let Some(mut batch) = batches.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        // What has arrived while waiting for the slot goes out together.
        while let Ok(more) = batches.try_recv() {
            batch.extend(more);
        }
        let (broker, sinks, metrics) = (broker.clone(), sinks.clone(), metrics.clone());
        tasks.spawn(async move {
            publish(batch, &*broker, &sinks, &metrics).await;
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}

async fn publish(batch: Vec<Outbound>, broker: &dyn Broker, sinks: &Sinks, metrics: &Metrics) {
    let (of, envelopes): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|outbound| ((outbound.of, outbound.envelope.routing_key.clone()), outbound.envelope))
        .unzip();
    let has_commands = of.iter().any(|(of, _)| of.is_some());
    failpoint::reached_if(has_commands, Point::BeforePublish);
    let outcomes = broker.publish(envelopes).await;
    failpoint::reached_if(has_commands && outcomes.contains(&Published::Confirmed), Point::Confirmed);
    let mut unroutable = BTreeSet::new();
    let mut confirmed = Vec::with_capacity(outcomes.len());
    let mut others = 0;
    for ((of, routing_key), outcome) in of.into_iter().zip(outcomes) {
        match (outcome, of) {
            (Published::Confirmed, Some(attempt)) => confirmed.push(attempt),
            (Published::Confirmed, None) => {
                others += 1;
                sinks.listeners.learn(&routing_key, true);
            }
            // Lifecycle events come back when nobody listens, and answers to a coordinator that is gone.
            (Published::Returned(_), None) => {
                metrics.published("unheard");
                sinks.listeners.learn(&routing_key, false);
            }
            (Published::Returned(why), of) => {
                metrics.published("returned");
                if of.is_some() {
                    tracing::warn!(routing_key, why, "no queue takes this command; trying again");
                    unroutable.insert(routing_key.split('.').next().unwrap_or_default().to_owned());
                }
            }
            (Published::Refused, _) => metrics.published("refused"),
            (Published::Unknown(why), _) => {
                metrics.published("unknown");
                tracing::debug!(routing_key, why, "publish outcome unknown; trying again");
            }
        }
    }
    metrics.published_many("confirmed", confirmed.len() + others);
    sinks.confirms.add(confirmed);
    // Somebody deleted a queue or a binding: put it back before the next try.
    for participant in unroutable {
        if let Err(error) = broker.declare(&Topology::participant(&participant)).await {
            tracing::warn!(participant, %error, "its queue cannot be declared");
        }
    }
}
