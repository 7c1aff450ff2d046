//! Takes commands from the broker, has them performed, replies, and settles them: in this order, whatever breaks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Pool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::builder::Limits;
use super::inbox::{Inbox, MAX_KEY_BYTES};
use super::ledger::{Ledger, SqlLedger};
use super::rules::{Handler, How, Performed, perform, unavailable};
use super::spans;
use super::stats::{Counters, Stats, count};
use super::work::{Pulse, reply_to};
use crate::broker::topology::commands_queue;
use crate::broker::{Broker, BrokerError, Consumer, Delivery, Published, Settlement, Settler, Topology};
use crate::failpoint::{self, Point};
use crate::message::{Command, Envelope};
use crate::telemetry::Recorder;

/// How often a command is performed when the database fails, before the coordinator is asked to send it again.
const DATABASE_TRIES: u32 = 6;
/// How often a reply that no queue takes is published, before the command goes back to its queue, whose delivery limit
/// then bounds it.
const RETURNED_TRIES: u32 = 5;
/// The first wait after something outside failed; doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A participant connected to its database and broker. Cheap to clone.
pub struct RunningParticipant<DB: Inbox>(Runner<SqlLedger<DB>>);

/// The same for any ledger.
pub(crate) struct Runner<L: Ledger>(Arc<Inner<L>>);

struct Inner<L: Ledger> {
    name: String,
    handlers: HashMap<String, L::Handler>,
    limits: Limits,
    ledger: L,
    broker: Arc<dyn Broker>,
    /// Takes the spans of what is done.
    recorder: Option<Recorder>,
    counters: Counters,
}

/// A participant cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The broker will not have its queue as it must be; waiting does not mend it.
    #[error("participant `{participant}` cannot have its queue: {source}")]
    Queue {
        /// The participant.
        participant: String,
        /// What the broker says.
        source: BrokerError,
    },
}

impl<DB: Inbox> Clone for RunningParticipant<DB> {
    fn clone(&self) -> Self {
        Self(Runner(Arc::clone(&self.0.0)))
    }
}

impl<DB: Inbox> fmt::Debug for RunningParticipant<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningParticipant").field("name", &self.0.0.name).finish_non_exhaustive()
    }
}

impl<DB: Inbox> RunningParticipant<DB> {
    pub(crate) fn new(
        name: String,
        handlers: HashMap<String, Handler<DB>>,
        limits: Limits,
        pool: Pool<DB>,
        broker: Arc<dyn Broker>,
        recorder: Option<Recorder>,
    ) -> Self {
        Self(Runner::new(name, handlers, limits, SqlLedger::new(pool), broker, recorder))
    }

    /// What it has done since it was built.
    pub fn stats(&self) -> Stats {
        self.0.0.counters.snapshot()
    }

    /// Declares its queue, should it not be there, and works until `stop` is cancelled or the broker is closed; outlives lost connections to
    /// broker and database. On a stop it takes nothing new, finishes what runs, replies, settles, and returns.
    ///
    /// # Errors
    /// Only when the broker will not have the queue: it may not be used, or an exchange exists as another kind. A queue that
    /// is not there and may not be declared is waited for.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), RunError> {
        self.0.run(stop).await
    }
}

impl<L: Ledger> Runner<L> {
    pub(crate) fn new(
        name: String,
        handlers: HashMap<String, L::Handler>,
        limits: Limits,
        ledger: L,
        broker: Arc<dyn Broker>,
        recorder: Option<Recorder>,
    ) -> Self {
        let counters = Counters::default();
        Self(Arc::new(Inner { name, handlers, limits, ledger, broker, recorder, counters }))
    }

    /// As [`RunningParticipant::run`].
    pub(crate) async fn run(&self, stop: CancellationToken) -> Result<(), RunError> {
        let Some(mut consumer) = self.0.connect(&stop).await? else { return Ok(()) };
        tracing::info!(participant = self.0.name, actions = self.0.handlers.len(), "taking commands");
        let settler = consumer.settler();
        let slots = Arc::new(Semaphore::new(usize::from(self.0.limits.concurrency)));
        let running = TaskTracker::new();
        loop {
            // One slot first, then as many messages as there are slots: nothing is taken that cannot start at once.
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                slot = Arc::clone(&slots).acquire_owned() => slot,
            };
            let Ok(first) = first else { break };
            let deliveries = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                deliveries = consumer.next(1 + slots.available_permits()) => deliveries,
            };
            let Some(deliveries) = deliveries else { break };
            let mut first = Some(first);
            for delivery in deliveries {
                let slot = match first.take() {
                    Some(slot) => slot,
                    None => match Arc::clone(&slots).acquire_owned().await {
                        Ok(slot) => slot,
                        Err(_) => break,
                    },
                };
                self.start(delivery, slot, Arc::clone(&settler), &stop, &running);
            }
        }
        running.close();
        if tokio::time::timeout(self.0.limits.grace, running.wait()).await.is_err() {
            tracing::warn!(participant = self.0.name, left = running.len(), "stopped before everything was done");
        }
        Ok(())
    }

    /// Takes one message in hand, on a task of its own that nobody aborts: dropping the future of a transaction could
    /// leave it open.
    fn start(
        &self,
        delivery: Delivery,
        slot: OwnedSemaphorePermit,
        settler: Arc<dyn Settler>,
        stop: &CancellationToken,
        running: &TaskTracker,
    ) {
        let (inner, stop) = (Arc::clone(&self.0), stop.clone());
        running.spawn(async move {
            let settlement = inner.take(&delivery, &stop).await;
            settler.settle(vec![(delivery.tag, settlement)]).await;
            drop(slot);
        });
    }
}

impl<L: Ledger> Inner<L> {
    /// Declares the queue and consumes it, however long the broker is away. `None` when stopped before.
    async fn connect(&self, stop: &CancellationToken) -> Result<Option<Box<dyn Consumer>>, RunError> {
        // A coordinator declares it too, once a definition names the participant: a service needs no right to.
        let topology = Topology::participant(&self.name).if_missing();
        let queue = commands_queue(&self.name);
        // Twice as many as are worked on, so that the next is here when one is done.
        let prefetch = self.limits.concurrency.saturating_mul(2);
        let mut wait = FIRST_WAIT;
        loop {
            let attempt = async {
                self.broker.declare(&topology).await?;
                self.broker.consume(&queue, prefetch).await
            };
            let connected = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                connected = attempt => connected,
            };
            match connected {
                Ok(consumer) => return Ok(Some(consumer)),
                Err(error @ (BrokerError::Unreachable { .. } | BrokerError::Missing { .. })) => {
                    tracing::warn!(participant = self.name, %error, "waiting for the broker");
                }
                Err(source) => return Err(RunError::Queue { participant: self.name.clone(), source }),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(wait) => wait = longer(wait),
            }
        }
    }

    /// From a message to its settlement.
    async fn take(&self, delivery: &Delivery, stop: &CancellationToken) -> Settlement {
        let command = match self.read(delivery) {
            Ok(command) => command,
            Err(problem) => {
                count(&self.counters.rejected);
                tracing::error!(participant = self.name, problem, "not a command, into the dead letters");
                return Settlement::Reject;
            }
        };
        let (command, begun) = spans::begin(self.recorder.as_ref(), command);
        let command = Arc::new(command);
        let span = tracing::info_span!(
            "command",
            saga_id = %command.saga_id,
            saga = command.definition.name,
            step = command.step,
            key = command.key,
            action = command.action,
            attempt = command.attempt,
            trace_id = spans::trace_id(&command),
        );
        async {
            let performed = self.perform_alive(&command).await;
            self.count(performed.how);
            if let (Some(recorder), Some(begun)) = (&self.recorder, begun) {
                recorder.record(begun.end(&command, performed.how, &*self.broker));
            }
            tracing::debug!(how = ?performed.how, "performed");
            self.reply(reply_to(&command, performed.reply), stop).await
        }
        .instrument(span)
        .await
    }

    /// Reads a message as a command that this participant can keep in its inbox.
    fn read(&self, delivery: &Delivery) -> Result<Command, String> {
        let command = Command::decode(&delivery.envelope).map_err(|error| error.to_string())?;
        if command.participant != self.name {
            return Err(format!("it is for participant `{}`", command.participant));
        }
        if command.is_compensation != command.compensates.is_some() {
            return Err("amends-compensates belongs on every compensation and on nothing else".to_owned());
        }
        let keys = [Some(&command.key), command.compensates.as_ref()];
        for key in keys.into_iter().flatten() {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(format!("a key has {} bytes: expected 1 to {MAX_KEY_BYTES}", key.len()));
            }
        }
        if command.compensates.as_ref() == Some(&command.key) {
            return Err("a compensation names its own key as its action's".to_owned());
        }
        let texts = [&command.key, &command.step, &command.action].into_iter().chain(&command.compensates);
        if texts.into_iter().any(|text| text.chars().any(char::is_control)) {
            return Err("a header holds a control character".to_owned());
        }
        Ok(command)
    }

    /// Performs a command with heartbeats while it takes.
    async fn perform_alive(&self, command: &Arc<Command>) -> Performed {
        let pulse = Pulse::new(Arc::clone(&self.broker), command);
        let performing = self.perform_bounded(command, &pulse);
        let Some(every) = self.limits.heartbeat else { return performing.await };
        tokio::pin!(performing);
        let mut beats = tokio::time::interval_at(tokio::time::Instant::now() + every, every);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                performed = &mut performing => return performed,
                // Not awaited here: a slow broker must not hold the handler up.
                _ = beats.tick() => drop(tokio::spawn({ let pulse = pulse.clone(); async move { pulse.beat().await } })),
            }
        }
    }

    /// Performs a command, a few times if the database fails. After a COMMIT of unknown outcome the second time tells.
    async fn perform_bounded(&self, command: &Arc<Command>, pulse: &Pulse) -> Performed {
        let handler = self.handlers.get(&command.action);
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            tries += 1;
            match perform(&self.ledger, command, handler, pulse).await {
                Ok(performed) => return performed,
                Err(error) if tries >= DATABASE_TRIES => {
                    tracing::error!(%error, "the database failed, to be tried again by the coordinator");
                    return unavailable(&error);
                }
                Err(error) => tracing::warn!(%error, tries, "the database failed"),
            }
            tokio::time::sleep(wait).await;
            wait = longer(wait);
        }
    }

    fn count(&self, how: How) {
        let counters = &self.counters;
        match how {
            How::Done => count(&counters.done),
            How::Refused => count(&counters.refused),
            How::Replayed => count(&counters.replayed),
            How::Tombstone => count(&counters.tombstones),
            How::Retry => count(&counters.retried),
            How::Panicked => {
                count(&counters.retried);
                count(&counters.panicked);
            }
        }
    }

    /// Publishes a reply until the broker has it. Until then the command stays unacknowledged, and its slot taken.
    async fn reply(&self, reply: Envelope, stop: &CancellationToken) -> Settlement {
        failpoint::reached(Point::ParticipantBeforeReply);
        let mut wait = FIRST_WAIT;
        let mut returned = 0;
        loop {
            match self.broker.publish(vec![reply.clone()]).await.into_iter().next() {
                Some(Published::Confirmed) => return Settlement::Ack,
                Some(Published::Returned(reason)) => {
                    returned += 1;
                    tracing::error!(reason, reply_to = reply.routing_key, "no queue takes the reply");
                    if returned >= RETURNED_TRIES {
                        return Settlement::Requeue;
                    }
                }
                Some(Published::Refused) => tracing::warn!("the broker refused the reply"),
                Some(Published::Unknown(problem)) => tracing::warn!(problem, "nobody knows whether the reply arrived"),
                None => tracing::error!("the broker said nothing about the reply"),
            }
            // Delivered again, it will be answered from the inbox.
            if stop.is_cancelled() {
                return Settlement::Requeue;
            }
            count(&self.counters.republished);
            tokio::time::sleep(wait).await;
            wait = longer(wait);
        }
    }
}

fn longer(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST_WAIT)
}
