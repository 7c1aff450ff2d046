//! Replies on their way in: decoded, their tokens checked, handed to the committer; or into the dead letters.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::broker::topology::DEAD_EXCHANGE;
use crate::broker::{Broker, Consumer, Consuming, Delivery, Published, Settlement, Settler};
use crate::clock::Clock;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::work::{Item, ReplyItem, Waiting, Work};
use crate::failpoint::{self, Point};
use crate::message::reply::ReplyProblem;
use crate::message::{Reply, ReplyBody, TokenKeys};
use crate::saga::{Problem, ReplyOutcome};

/// What may be unacknowledged at once: enough for batches to form while a commit runs.
const PREFETCH: u16 = 2_048;
/// How long a consumer that is to stop waits for what it has handed on.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest wait between two tries to consume.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Consumes the reply queue until stopped.
pub(super) struct Replies {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) keys: TokenKeys,
    pub(super) work: mpsc::Sender<Work>,
    pub(super) dead: DeadLetters,
    pub(super) stop: CancellationToken,
}

impl Replies {
    /// Hands on one reply after another. `settler` is told as soon as there is a consumer, which lasts until nobody wants to
    /// settle any more.
    pub(super) async fn run(self, settler: watch::Sender<Option<Arc<dyn Settler>>>) {
        // Of several coordinators the one that has run longest comes first, and the others take what it does not: who hears of
        // a saga last need not read it when it hears of it next, and one large batch costs less than two small ones.
        let priority = -Clock::System.now().timestamp_millis();
        let how = Consuming { prefetch: PREFETCH, priority };
        let Some(mut consumer) = consume(&*self.broker, &self.dead.queue, how, &self.stop).await else { return };
        settler.send_replace(Some(consumer.settler()));
        self.hand_on(&mut *consumer).await;
        // What was handed on is still being committed, and is acknowledged after that. Not for long: what is delivered
        // meanwhile is kept from others.
        drop(self);
        drop(tokio::time::timeout(DRAIN, settler.closed()).await);
    }

    async fn hand_on(&self, consumer: &mut dyn Consumer) {
        loop {
            let deliveries = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
            };
            let Some(deliveries) = deliveries else { return };
            let mut rejected = Vec::new();
            for delivery in deliveries {
                match self.read(delivery) {
                    Ok(work) => {
                        failpoint::reached(Point::ReplyReceived);
                        if self.work.send(work).await.is_err() {
                            return;
                        }
                    }
                    Err(dead) => rejected.push(dead),
                }
            }
            self.dead.bury(rejected, &consumer.settler()).await;
        }
    }

    /// What a delivered message asks for, or the reason why it asks for nothing.
    fn read(&self, delivery: Delivery) -> Result<Work, (Delivery, &'static str)> {
        let reply = match Reply::decode(&delivery.envelope) {
            Ok(reply) => reply,
            Err(error) => return Err((delivery, error.code())),
        };
        let Ok((command, attempt)) = self.keys.verify(&reply.token) else {
            return Err((delivery, "REPLY_TOKEN_FORGED"));
        };
        let item = Item::Reply(ReplyItem { command, attempt, outcome: outcome(reply.body) });
        Ok(Work { item, waiting: Waiting::Broker(delivery) })
    }
}

/// Starts consuming, however long it takes; `None` when stopped before.
pub(super) async fn consume(
    broker: &dyn Broker,
    queue: &str,
    how: Consuming,
    stop: &CancellationToken,
) -> Option<Box<dyn Consumer>> {
    let mut pause = Duration::from_millis(100);
    loop {
        let consuming = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            consuming = broker.consume_by(queue, how) => consuming,
        };
        match consuming {
            Ok(consumer) => return Some(consumer),
            Err(error) => tracing::warn!(queue, %error, "cannot consume yet"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
        }
    }
}

fn outcome(body: ReplyBody) -> ReplyOutcome {
    let problem = |problem: ReplyProblem| Problem { kind: problem.kind, title: problem.title, detail: problem.detail };
    match body {
        ReplyBody::Success(output) => ReplyOutcome::Success { output },
        ReplyBody::Failure(reason) => ReplyOutcome::Failure { problem: problem(reason) },
        ReplyBody::Retry(reason, after) => ReplyOutcome::Retry { problem: problem(reason), after },
        ReplyBody::InProgress => ReplyOutcome::InProgress,
    }
}

/// Where messages go that change nothing: the reply queue's dead letters, each with the reason in header `amends-rejected`.
#[derive(Clone)]
pub(super) struct DeadLetters {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) metrics: Metrics,
    /// The reply queue.
    pub(super) queue: String,
}

impl DeadLetters {
    /// Publishes the messages there, then settles them.
    pub(super) async fn bury(&self, mut rejected: Vec<(Delivery, &'static str)>, settler: &Arc<dyn Settler>) {
        // What was given back meanwhile is judged when it comes again: somebody else may have taken it, and it is settled
        // for that reason.
        rejected.retain(|(delivery, _)| settler.holds(delivery.tag));
        if rejected.is_empty() {
            return;
        }
        let mut tags = Vec::with_capacity(rejected.len());
        let mut envelopes = Vec::with_capacity(rejected.len());
        for (delivery, code) in rejected {
            tracing::warn!(
                code,
                redelivered = delivery.redelivered,
                "a reply changes nothing: into {}.dead",
                self.queue
            );
            self.metrics.dead_reply(code);
            tags.push(delivery.tag);
            let mut envelope = Arc::unwrap_or_clone(delivery.envelope);
            envelope.exchange = DEAD_EXCHANGE.to_owned();
            envelope.routing_key = self.queue.clone();
            envelope.mandatory = true;
            envelope.properties.headers.insert("amends-rejected".into(), code.into());
            envelopes.push(envelope);
        }
        let outcomes = self.broker.publish(envelopes).await;
        let settlements = tags.into_iter().zip(outcomes).map(|(tag, outcome)| match outcome {
            Published::Confirmed => (tag, Settlement::Ack),
            // The queue's own dead-lettering brings it to the same place, only without the reason.
            _ => (tag, Settlement::Reject),
        });
        settler.settle(settlements.collect()).await;
    }
}
