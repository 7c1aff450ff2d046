//! Consuming: a task per consumer that starts again whenever its connection is gone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::handshake::Problem;
use super::session::{Arrived, OPEN_TIMEOUT, Purpose, Session};
use crate::broker::amqp::lapin_client::Link;
use crate::broker::amqp::settling::{Plan, plan};
use crate::broker::{BrokerError, Consumer, Consuming, Delivery, DeliveryTag, Settlement, Settler};

/// After so long without a message the broker is asked whether it still knows the consumer.
const SILENCE: Duration = Duration::from_secs(3);
/// After so long without a message the consumer is made anew, at first and at most; each time twice as long. When a quorum
/// queue is deleted and declared again at once, RabbitMQ 3.10 gives our consumer to the new queue without a word, and what it
/// delivers to it then never arrives: the queue has a consumer and no messages, as one has for which there is nothing to do.
const RENEWAL: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(600)];

pub(in crate::broker::amqp) struct FrameConsumer {
    /// What arrives at once, with the connection that it came over. No more than the prefetch is ever in it.
    arrived: mpsc::UnboundedReceiver<(u64, Vec<Arrived>)>,
    /// Of that, what was not asked for yet.
    rest: VecDeque<Delivery>,
    settler: Arc<FrameSettler>,
    /// Ends the task, and with it the connection, when the consumer is dropped.
    _end: DropGuard,
}

struct FrameSettler {
    current: Mutex<Option<Current>>,
    /// Whether more messages are wanted.
    takes_more: watch::Sender<bool>,
}

/// The connection that deliveries come from at the moment.
struct Current {
    generation: u64,
    session: Arc<Session>,
    /// Delivered and not settled.
    unsettled: BTreeSet<u64>,
}

/// Starts consuming; fails when the first try does.
pub(in crate::broker::amqp) async fn consume(
    link: Link,
    queue: &str,
    how: Consuming,
    (closed, tasks): (&CancellationToken, &TaskTracker),
) -> Result<FrameConsumer, BrokerError> {
    let (sender, arrived) = mpsc::unbounded_channel();
    let settler = Arc::new(FrameSettler { current: Mutex::new(None), takes_more: watch::Sender::new(true) });
    let end = closed.child_token();
    let task = Task { link, queue: queue.to_owned(), how, settler: settler.clone(), sender, end, tasks: tasks.clone() };
    let first = task.open().await?;
    let end = task.end.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = task.run(first) => {}
            () = task.end.cancelled() => {}
        }
        task.settler.with(Option::take);
    });
    Ok(FrameConsumer { arrived, rest: VecDeque::new(), settler, _end: end.drop_guard() })
}

struct Task {
    link: Link,
    queue: String,
    how: Consuming,
    settler: Arc<FrameSettler>,
    sender: mpsc::UnboundedSender<(u64, Vec<Arrived>)>,
    end: CancellationToken,
    tasks: TaskTracker,
}

struct Opened {
    session: Arc<Session>,
    arrived: mpsc::UnboundedReceiver<Vec<Arrived>>,
}

impl Task {
    async fn open(&self) -> Result<Opened, BrokerError> {
        // Whatever keeps the broker away keeps it away from both; and its queues are declared again first.
        self.link.live(OPEN_TIMEOUT).await?;
        let (to, arrived) = mpsc::unbounded_channel();
        let purpose = Purpose::Consume { queue: &self.queue, how: self.how, to };
        match Session::open(self.link.address(), purpose, (&self.end, &self.tasks)).await {
            Ok(session) => Ok(Opened { session, arrived }),
            Err(Problem::Refused(why)) => Err(BrokerError::Refused(format!("consuming `{}`: {why}", self.queue))),
            Err(Problem::Lost(why)) => Err(self.link.address().unreachable(why)),
        }
    }

    async fn run(&self, first: Opened) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        let (mut generation, mut opened, mut backoff) = (0, Some(first), pauses.build());
        let mut renewal = RENEWAL[0];
        loop {
            self.settler.is_taking_more().await;
            let next = match opened.take() {
                Some(first) => Ok(first),
                None => self.open().await,
            };
            match next {
                Ok(session) => {
                    generation += 1;
                    backoff = pauses.build();
                    match self.deliver(generation, session, renewal).await {
                        Ended::Silent(next) => {
                            renewal = RENEWAL[1].min(renewal * 2);
                            opened = Some(next);
                            continue;
                        }
                        Ended::CutOff => renewal = RENEWAL[0],
                        Ended::Unwanted => return,
                    }
                }
                Err(error) => {
                    tracing::warn!(queue = self.queue, %error, "no consumer, trying again");
                    // Deleted, perhaps. Nobody else need notice: another queue may take the same messages, so that none
                    // is returned, and the connection is as it was.
                    if matches!(error, BrokerError::Refused(_))
                        && let Err(error) = self.link.declare_again(OPEN_TIMEOUT).await
                    {
                        tracing::warn!(queue = self.queue, %error, "it cannot be declared again");
                    }
                }
            }
            tokio::time::sleep(backoff.next().unwrap_or(OPEN_TIMEOUT)).await;
        }
    }

    /// Hands on what arrives until the connection is gone, nothing has come for as long as `renewal`, or nobody wants it any
    /// more.
    async fn deliver(&self, generation: u64, Opened { session, mut arrived }: Opened, renewal: Duration) -> Ended {
        self.settler.begin(generation, session.clone());
        if !*self.settler.takes_more.borrow() {
            // None were wanted any more while the connection was made.
            self.settler.with(Option::take);
            return Ended::CutOff;
        }
        let (mut doubts, mut last) = (0, Instant::now());
        loop {
            match tokio::time::timeout(SILENCE, arrived.recv()).await {
                Ok(Some(batch)) => {
                    (doubts, last) = (0, Instant::now());
                    self.settler.delivered(batch.iter().map(|arrived| arrived.tag));
                    if self.sender.send((generation, batch)).is_err() {
                        return Ended::Unwanted;
                    }
                }
                Ok(None) => break,
                Err(_) if self.is_forgotten().await => doubts += 1,
                Err(_) => doubts = 0,
            }
            // Twice in a row: a message may just be on its way.
            if doubts > 1 {
                session.lose("the broker has forgotten the consumer");
            } else if last.elapsed() >= renewal && self.settler.is_idle() {
                last = Instant::now();
                // Before the other one ends, so that the queue is never without a consumer.
                match self.open().await {
                    Ok(next) if arrived.is_empty() => {
                        session.lose("nothing has come for long");
                        tracing::debug!(queue = self.queue, "consuming begins anew");
                        return Ended::Silent(next);
                    }
                    Ok(next) => next.session.lose("it is not needed"),
                    Err(error) => tracing::debug!(queue = self.queue, %error, "consuming cannot begin anew"),
                }
            }
        }
        let why = session.lost().await;
        tracing::warn!(queue = self.queue, why, "consuming was cut off");
        Ended::CutOff
    }
}

/// Why nothing more arrives over a connection.
enum Ended {
    CutOff,
    /// We have given it up ourselves, since nothing came, for this one.
    Silent(Opened),
    Unwanted,
}

impl Task {
    /// Whether the broker has ended the consumer without saying so, as RabbitMQ sometimes does when a queue is deleted and
    /// declared again: nobody consumes the queue, or it has messages and gives us none.
    async fn is_forgotten(&self) -> bool {
        match self.link.queue(&self.queue).await {
            Ok(Some(status)) => status.consumers == 0 || (status.messages > 0 && self.settler.is_idle()),
            Ok(None) => true,
            Err(_) => false,
        }
    }
}

impl FrameConsumer {
    fn take(&mut self, (generation, batch): (u64, Vec<Arrived>)) {
        // What came over a connection that is gone comes again over the next.
        if self.settler.generation() == Some(generation) {
            self.rest.extend(batch.into_iter().map(|Arrived { tag, redelivered, envelope }| Delivery {
                tag: DeliveryTag { generation, tag },
                redelivered,
                envelope: Arc::new(envelope),
            }));
        }
    }
}

#[async_trait]
impl Consumer for FrameConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let max = max.max(1);
        let generation = self.settler.generation();
        self.rest.retain(|delivery| Some(delivery.tag.generation) == generation);
        while self.rest.is_empty() {
            let batch = self.arrived.recv().await?;
            self.take(batch);
        }
        while self.rest.len() < max
            && let Ok(batch) = self.arrived.try_recv()
        {
            self.take(batch);
        }
        let later = self.rest.split_off(max.min(self.rest.len()));
        Some(std::mem::replace(&mut self.rest, later).into())
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }
}

impl FrameSettler {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Current>) -> T) -> T {
        act(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self, generation: u64, session: Arc<Session>) {
        self.with(|current| *current = Some(Current { generation, session, unsettled: BTreeSet::new() }));
    }

    fn generation(&self) -> Option<u64> {
        self.with(|current| current.as_ref().map(|current| current.generation))
    }

    /// Waits until more messages are wanted.
    async fn is_taking_more(&self) {
        // Cannot end: the sender is at hand.
        let _ = self.takes_more.subscribe().wait_for(|takes_more| *takes_more).await;
    }

    /// Whether everything that was delivered is settled.
    fn is_idle(&self) -> bool {
        self.with(|current| current.as_ref().is_some_and(|current| current.unsettled.is_empty()))
    }

    fn delivered(&self, tags: impl Iterator<Item = u64>) {
        self.with(|current| {
            if let Some(current) = current {
                current.unsettled.extend(tags);
            }
        });
    }
}

#[async_trait]
impl Settler for FrameSettler {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        // Planned and handed over under one lock: a range that another call acknowledges must not overtake what this one
        // says about messages inside it. That it is written need not be waited for: if the connection is lost, what it
        // had delivered comes again.
        self.with(|current| {
            let Some(Current { generation, session, unsettled }) = current.as_mut() else { return };
            let Plan { refused, up_to, single } = plan(*generation, unsettled, deliveries);
            session.send(|encoder| {
                // Refusals first: a range that is acknowledged later must not swallow them.
                refused.into_iter().for_each(|(tag, requeue)| encoder.reject(tag, requeue));
                up_to.into_iter().for_each(|tag| encoder.ack(tag, true));
                single.into_iter().for_each(|tag| encoder.ack(tag, false));
            });
        });
    }

    fn holds(&self, tag: DeliveryTag) -> bool {
        self.generation() == Some(tag.generation)
    }

    fn take_more(&self, more: bool) {
        self.takes_more.send_replace(more);
        // With the connection what is not settled is given back. Should one be being made, it is seen to as soon as it is.
        if !more && let Some(current) = self.with(Option::take) {
            current.session.lose("what it had delivered was given back");
        }
    }
}
