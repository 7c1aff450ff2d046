//! Consuming: a task per consumer that starts again whenever its channel or connection is gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::broker::amqp::PRIORITY;
use crate::broker::amqp::lapin_client::begun::Begun;
use crate::broker::amqp::lapin_client::convert::{from_lapin, short};
use crate::broker::amqp::lapin_client::declare::said;
use crate::broker::amqp::lapin_client::link::{Link, REQUEST_TIMEOUT};
use crate::broker::amqp::settling::{Plan, plan};
use crate::broker::{BrokerError, Consumer, Consuming, Delivery, DeliveryTag, Settlement, Settler};

pub(super) struct AmqpConsumer {
    arrived: mpsc::Receiver<Delivery>,
    settler: Arc<AmqpSettler>,
    /// Ends the task, and with it the channel, when the consumer is dropped.
    _end: DropGuard,
}

struct AmqpSettler {
    queue: String,
    current: Mutex<Option<Current>>,
}

/// The channel that deliveries come from at the moment.
struct Current {
    generation: u64,
    channel: Channel,
    /// Delivered and not settled.
    unsettled: BTreeSet<u64>,
}

/// Starts consuming; fails when the first try does.
pub(super) async fn consume(
    link: Link,
    queue: &str,
    how: Consuming,
    (closed, tasks): (&CancellationToken, &TaskTracker),
) -> Result<AmqpConsumer, BrokerError> {
    // AMQP's 0 is "no limit": there always is one here.
    let how = Consuming { prefetch: how.prefetch.max(1), ..how };
    let (sender, arrived) = mpsc::channel(usize::from(how.prefetch));
    let settler = Arc::new(AmqpSettler { queue: queue.to_owned(), current: Mutex::new(None) });
    let first = open(&link, queue, how).await?;
    let end = closed.child_token();
    let task = Task { link, how, settler: settler.clone(), sender };
    let ended = end.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = task.run(first) => {}
            () = ended.cancelled() => {}
        }
        task.settler.forget().await;
    });
    Ok(AmqpConsumer { arrived, settler, _end: end.drop_guard() })
}

struct Opened {
    channel: Channel,
    consumer: lapin::Consumer,
}

async fn open(link: &Link, queue: &str, how: Consuming) -> Result<Opened, BrokerError> {
    let name = short("queue name", queue).map_err(BrokerError::Refused)?;
    let live = link.live(REQUEST_TIMEOUT).await?;
    let opening = async {
        let channel = live.connection.create_channel().await?;
        channel.basic_qos(how.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let mut arguments = FieldTable::default();
        if how.priority != 0 {
            arguments.insert(PRIORITY.into(), AMQPValue::LongLongInt(how.priority));
        }
        let consumer = channel.basic_consume(name, "".into(), options, arguments).await?;
        Ok::<_, lapin::Error>(Opened { channel, consumer })
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, opening).await {
        Ok(opened) => opened.map_err(|error| said(link.address(), &format!("consuming `{queue}`"), &error)),
        Err(_) => {
            live.is_lost();
            Err(link.address().unreachable(format!("no answer within {REQUEST_TIMEOUT:?}")))
        }
    }
}

struct Task {
    link: Link,
    how: Consuming,
    settler: Arc<AmqpSettler>,
    sender: mpsc::Sender<Delivery>,
}

impl Task {
    async fn run(&self, first: Opened) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        let (mut generation, mut opened, mut backoff) = (0, Some(first), pauses.build());
        loop {
            let next = match opened.take() {
                Some(first) => Ok(first),
                None => open(&self.link, &self.settler.queue, self.how).await,
            };
            match next {
                Ok(opened) => {
                    generation += 1;
                    backoff = pauses.build();
                    self.deliver(generation, opened).await;
                }
                Err(error) => {
                    tracing::warn!(queue = self.settler.queue, %error, "no consumer, trying again");
                    // Deleted, perhaps. Nobody else need notice: another queue may take the same messages, so that none
                    // is returned, and the connection is as it was.
                    if matches!(error, BrokerError::Refused(_))
                        && let Err(error) = self.link.declare_again(REQUEST_TIMEOUT).await
                    {
                        tracing::warn!(queue = self.settler.queue, %error, "it cannot be declared again");
                    }
                }
            }
            tokio::time::sleep(backoff.next().unwrap_or(REQUEST_TIMEOUT)).await;
        }
    }

    /// Hands on what arrives until the channel is gone.
    async fn deliver(&self, generation: u64, Opened { channel, mut consumer }: Opened) {
        self.settler.begin(generation, channel);
        while let Some(delivery) = consumer.next().await {
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => {
                    tracing::warn!(queue = self.settler.queue, %error, "consuming was cut off");
                    return;
                }
            };
            let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
            self.settler.delivered(tag);
            let tag = DeliveryTag { generation, tag };
            let delivery = Delivery { tag, redelivered, envelope: Arc::new(from_lapin(delivery)) };
            if self.sender.send(delivery).await.is_err() {
                return;
            }
        }
        // As when its queue is deleted.
        tracing::warn!(queue = self.settler.queue, "the broker ended the consumer");
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        loop {
            let mut deliveries = Vec::new();
            if self.arrived.recv_many(&mut deliveries, max.max(1)).await == 0 {
                return None;
            }
            // What came over a connection that is gone comes again over the next.
            let generation = self.settler.generation();
            deliveries.retain(|delivery| Some(delivery.tag.generation) == generation);
            if !deliveries.is_empty() {
                return Some(deliveries);
            }
        }
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }
}

impl AmqpSettler {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Current>) -> T) -> T {
        act(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self, generation: u64, channel: Channel) {
        // The channel before goes with this: were it still open, its messages would stay with it.
        self.with(|current| *current = Some(Current { generation, channel, unsettled: BTreeSet::new() }));
    }

    fn generation(&self) -> Option<u64> {
        self.with(|current| current.as_ref().map(|current| current.generation))
    }

    fn delivered(&self, tag: u64) {
        self.with(|current| current.as_mut().is_some_and(|current| current.unsettled.insert(tag)));
    }

    /// Closes the channel: what was not settled is delivered again, to whoever consumes then.
    async fn forget(&self) {
        if let Some(current) = self.with(Option::take) {
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, current.channel.close(200, "done".into())).await;
        }
    }
}

#[async_trait]
impl Settler for AmqpSettler {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        // Planned and handed over under one lock, without giving way: a range that another call acknowledges must not
        // overtake what this one says about messages inside it, and what is planned is sent even if nobody waits for it.
        let begun = self.with(|current| {
            let Current { generation, channel, unsettled } = current.as_mut()?;
            let Plan { refused, up_to, single } = plan(*generation, unsettled, deliveries);
            let mut begun = Vec::new();
            // Refusals first: a range that is acknowledged later must not swallow them.
            for (tag, requeue) in refused {
                let channel = channel.clone();
                begun.push(Begun::now(async move { channel.basic_reject(tag, BasicRejectOptions { requeue }).await }));
            }
            let ranges = up_to.into_iter().map(|tag| (tag, true));
            for (tag, multiple) in ranges.chain(single.into_iter().map(|tag| (tag, false))) {
                let channel = channel.clone();
                begun.push(Begun::now(async move { channel.basic_ack(tag, BasicAckOptions { multiple }).await }));
            }
            Some(begun)
        });
        let settling = async {
            for begun in begun.into_iter().flatten() {
                begun.outcome().await?;
            }
            Ok::<_, lapin::Error>(())
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, settling).await {
            Ok(Ok(())) => {}
            // The channel is gone, and with it what it had delivered: the broker delivers it again.
            Ok(Err(error)) => tracing::debug!(queue = self.queue, %error, "not settled"),
            Err(_) => tracing::warn!(queue = self.queue, "the broker did not take settlements in time"),
        }
    }
}
