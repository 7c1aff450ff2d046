//! Publishes what was committed. Never the reason that anything waits: what cannot be published now stays PENDING in
//! the outbox and comes back when its publish grace ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use crate::broker::{Broker, Published, Topology};
use crate::coordinator::confirms::Confirms;
use crate::coordinator::gates::Gates;
use crate::coordinator::listeners::Listeners;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::on_the_way::OnTheWay;
use crate::coordinator::outbound::Outbound;
use crate::failpoint::{self, Point};

/// How much may wait for the broker's answers, in messages and in bytes of their bodies; at half of either no more is taken in. Not how
/// many batches: they are small when few sagas are under way, and a pause of the broker, as it has when it turns over its log,
/// would refuse starts.
const MOST: Load = Load { messages: 8_192, bytes: 64 * 1024 * 1024 };
/// Batches whose confirms may be awaited at once, so that one round trip to the broker's disk does not hold up the next.
const BATCHES_IN_FLIGHT: usize = 8;

/// Who is told what became of messages.
#[derive(Clone)]
pub(super) struct Sinks {
    pub(super) confirms: Confirms,
    pub(super) listeners: Listeners,
    pub(super) gates: Gates,
}

/// Where batches to publish are put.
#[derive(Clone)]
pub(super) struct Publisher {
    batches: mpsc::UnboundedSender<Vec<Outbound>>,
    waiting: Arc<Mutex<Load>>,
    on_the_way: OnTheWay,
    metrics: Metrics,
}

#[derive(Clone, Copy, Default)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    fn of(batch: &[Outbound]) -> Self {
        Self { messages: batch.len(), bytes: batch.iter().map(|outbound| outbound.envelope.body.len()).sum() }
    }

    fn fills(self, part: usize) -> bool {
        self.messages >= MOST.messages / part || self.bytes >= MOST.bytes / part
    }
}

impl Publisher {
    /// Starts the loop, which ends when the last clone of the publisher is gone and everything is published.
    pub(super) fn launch(broker: Arc<dyn Broker>, sinks: Sinks, metrics: Metrics, tasks: &TaskTracker) -> Self {
        let (batches, receiver) = mpsc::unbounded_channel();
        let (on_the_way, waiting) = (OnTheWay::default(), Arc::default());
        let publisher = Self { batches, waiting, on_the_way, metrics };
        tasks.spawn(run(
            Line { batches: receiver, waiting: publisher.waiting.clone() },
            broker,
            sinks,
            publisher.on_the_way.clone(),
            publisher.metrics.clone(),
        ));
        publisher
    }

    /// Puts a batch in line, but for attempts that are on their way already. When the line is full the batch is left to
    /// the publish grace.
    pub(super) fn publish(&self, mut batch: Vec<Outbound>) {
        let left_out = self.on_the_way.enter(&mut batch);
        if left_out > 0 {
            self.metrics.published_many("waiting", left_out);
        }
        if batch.is_empty() {
            return;
        }
        let load = Load::of(&batch);
        let is_full = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = waiting.fills(1);
            if !is_full {
                waiting.messages += load.messages;
                waiting.bytes += load.bytes;
            }
            is_full
        };
        let left = if is_full { Some(batch) } else { self.batches.send(batch).err().map(|error| error.0) };
        if let Some(batch) = left {
            self.metrics.published_many("postponed", batch.len());
            drop(self.on_the_way.during(&batch));
            tracing::warn!(messages = batch.len(), "the broker does not keep up: publishing later");
        }
    }

    /// Whether the line is so long that more would only be postponed.
    pub(super) fn is_backlogged(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).fills(2)
    }
}

/// The other end of the line.
struct Line {
    batches: mpsc::UnboundedReceiver<Vec<Outbound>>,
    waiting: Arc<Mutex<Load>>,
}

/// What waits, until the broker has answered.
struct Waiting {
    load: Load,
    all: Arc<Mutex<Load>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.messages -= self.load.messages;
        all.bytes -= self.load.bytes;
    }
}

async fn run(mut line: Line, broker: Arc<dyn Broker>, sinks: Sinks, on_the_way: OnTheWay, metrics: Metrics) {
    let slots = Arc::new(Semaphore::new(BATCHES_IN_FLIGHT));
    let tasks = TaskTracker::new();
    while let Some(mut batch) = line.batches.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        // What has arrived while waiting for the slot goes out together.
        while let Ok(more) = line.batches.try_recv() {
            batch.extend(more);
        }
        let waiting = Waiting { load: Load::of(&batch), all: line.waiting.clone() };
        let (broker, sinks, metrics) = (broker.clone(), sinks.clone(), metrics.clone());
        let journey = on_the_way.during(&batch);
        tasks.spawn(async move {
            publish(batch, &*broker, &sinks, &metrics).await;
            drop((journey, waiting, slot));
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
    metrics.publishing(envelopes.len());
    failpoint::reached_if(has_commands, Point::BeforePublish);
    let outcomes = broker.publish(envelopes).await;
    failpoint::reached_if(has_commands && outcomes.contains(&Published::Confirmed), Point::Confirmed);
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for ((_, routing_key), outcome) in of.iter().zip(&outcomes).filter(|((of, _), _)| of.is_some()) {
        let count = counts.entry(participant_of(routing_key)).or_default();
        // Of what is unknown the worse is assumed, until the queue is looked at.
        let is_in_queue = matches!(outcome, Published::Confirmed | Published::Unknown(_));
        *count = (count.0 + 1, count.1 + u32::from(is_in_queue));
    }
    sinks.gates.published(&counts);
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
                if let Some((id, attempt)) = of {
                    tracing::warn!(saga_id = %id.saga, attempt, routing_key, why, "no queue takes this command; trying again");
                    unroutable.insert(participant_of(&routing_key).to_owned());
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

/// A command's routing key begins with its participant.
fn participant_of(routing_key: &str) -> &str {
    routing_key.split('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;
    use crate::broker::{BrokerError, Consumer, Consuming, QueueStatus};
    use crate::coordinator::Limits;
    use crate::id::{CommandId, SagaId, Seq};
    use crate::message::{Envelope, Properties};

    /// Says what the test says, when the test says it.
    struct Slow {
        asked: mpsc::UnboundedSender<usize>,
        answers: tokio::sync::Mutex<mpsc::UnboundedReceiver<Published>>,
    }

    #[async_trait]
    impl Broker for Slow {
        async fn declare(&self, _: &Topology) -> Result<(), BrokerError> {
            Ok(())
        }

        async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
            self.asked.send(messages.len()).expect("the test listens");
            let answer = self.answers.lock().await.recv().await.expect("the test answers");
            vec![answer; messages.len()]
        }

        async fn consume_by(&self, _: &str, _: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
            Err(BrokerError::Refused("not here".to_owned()))
        }

        async fn queue(&self, _: &str) -> Result<Option<QueueStatus>, BrokerError> {
            Ok(None)
        }

        fn is_volatile(&self) -> bool {
            false
        }

        async fn describe(&self) -> Result<String, BrokerError> {
            Ok("slow".to_owned())
        }

        async fn close(&self) {}
    }

    fn batch(seqs: &[u32], attempt: u32) -> Vec<Outbound> {
        let envelope = || Envelope {
            exchange: "amends.commands".to_owned(),
            routing_key: "shop.sell".to_owned(),
            mandatory: true,
            properties: Properties::default(),
            body: Vec::new(),
        };
        let id = |seq| CommandId { saga: SagaId(uuid::Uuid::from_u128(1)), seq: Seq(seq) };
        seqs.iter().map(|&seq| Outbound { of: Some((id(seq), attempt)), envelope: envelope() }).collect()
    }

    #[tokio::test]
    async fn an_attempt_on_its_way_is_not_put_in_line_again_until_the_broker_has_answered() {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let (answer, answers) = mpsc::unbounded_channel();
        let broker = Arc::new(Slow { asked, answers: tokio::sync::Mutex::new(answers) });
        let gates = Gates::new(Limits::default(), Metrics::default());
        let sinks = Sinks { confirms: Confirms::default(), listeners: Listeners::default(), gates };
        let (confirms, tasks) = (sinks.confirms.clone(), TaskTracker::new());
        let publisher = Publisher::launch(broker, sinks, Metrics::default(), &tasks);
        let mut next = async || tokio::time::timeout(Duration::from_secs(30), asks.recv()).await.expect("it is asked");

        publisher.publish(batch(&[1, 2], 1));
        assert_eq!(next().await, Some(2));
        for _ in 0..10 {
            publisher.publish(batch(&[1, 2], 1));
        }
        publisher.publish(batch(&[1], 2));
        assert_eq!(next().await, Some(1), "only what is new: another attempt");
        answer.send(Published::Unknown("cut off".to_owned())).expect("heard");
        answer.send(Published::Unknown("cut off".to_owned())).expect("heard");

        // Nobody knows of them: they may go again.
        while !publisher.on_the_way.is_empty() {
            tokio::task::yield_now().await;
        }
        publisher.publish(batch(&[1, 2], 1));
        assert_eq!(next().await, Some(2));
        answer.send(Published::Confirmed).expect("heard");
        drop(publisher);
        tasks.close();
        tasks.wait().await;
        let confirmed = batch(&[1, 2], 1).iter().filter_map(|sent| confirms.take(sent.of?.0)).count();
        assert_eq!(confirmed, 2);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_messages_and_bytes_and_not_by_batches() {
        let (asked, mut asks) = mpsc::unbounded_channel();
        let (answer, answers) = mpsc::unbounded_channel();
        let broker = Arc::new(Slow { asked, answers: tokio::sync::Mutex::new(answers) });
        let gates = Gates::new(Limits::default(), Metrics::default());
        let sinks = Sinks { confirms: Confirms::default(), listeners: Listeners::default(), gates };
        let (metrics, tasks) = (Metrics::default(), TaskTracker::new());
        let publisher = Publisher::launch(broker, sinks, metrics.clone(), &tasks);
        let mut seqs = 1..;
        let mut take = |count: usize| seqs.by_ref().take(count).collect::<Vec<u32>>();
        let mut next = async || tokio::time::timeout(Duration::from_secs(30), asks.recv()).await.expect("it is asked");
        // Each goes to the broker by itself, which answers none.
        for _ in 0..BATCHES_IN_FLIGHT {
            publisher.publish(batch(&take(1), 1));
            next().await;
        }

        for _ in 0..MOST.messages / 2 - 1 - BATCHES_IN_FLIGHT {
            publisher.publish(batch(&take(1), 1));
        }
        assert!(!publisher.is_backlogged());
        publisher.publish(batch(&take(1), 1));
        assert!(publisher.is_backlogged());
        let postponed = |count| metrics.render().contains(&format!("kind=\"postponed\"}} {count}"));
        publisher.publish(batch(&take(MOST.messages), 1));
        assert!(!postponed(1));
        publisher.publish(batch(&take(1), 1));
        assert!(postponed(1), "{}", metrics.render());

        // One place is free: all that waits goes out, and waits no more when it is answered.
        answer.send(Published::Confirmed).expect("heard");
        assert_eq!(next().await, Some(MOST.messages / 2 - BATCHES_IN_FLIGHT + MOST.messages));
        assert!(publisher.is_backlogged());
        for _ in 0..BATCHES_IN_FLIGHT {
            answer.send(Published::Confirmed).expect("heard");
        }
        while publisher.is_backlogged() {
            tokio::task::yield_now().await;
        }
        let mut large = batch(&take(2), 1);
        large.iter_mut().for_each(|outbound| outbound.envelope.body = vec![0; MOST.bytes / 4]);
        publisher.publish(large);
        assert!(publisher.is_backlogged());
        drop(answer);
        tasks.close();
    }
}
