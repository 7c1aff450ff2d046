//! Consuming: a task per consumer that starts again whenever its channel or connection is gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::{Channel, types::FieldTable};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::broker::amqp::convert::from_lapin;
use crate::broker::amqp::link::{Link, REQUEST_TIMEOUT};
use crate::broker::{BrokerError, Consumer, Delivery, DeliveryTag, Settlement, Settler};

const PAUSE: Duration = Duration::from_millis(200);

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
    prefetch: u16,
    closed: &CancellationToken,
) -> Result<AmqpConsumer, BrokerError> {
    let (sender, arrived) = mpsc::channel(usize::from(prefetch.max(1)));
    let settler = Arc::new(AmqpSettler { queue: queue.to_owned(), current: Mutex::new(None) });
    let first = open(&link, queue, prefetch).await?;
    let end = closed.child_token();
    let task = Task { link, prefetch, settler: settler.clone(), sender };
    let ended = end.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = task.run(first) => {}
            () = ended.cancelled() => {}
        }
        task.settler.forget().await;
    });
    Ok(AmqpConsumer { arrived, settler, _end: end.drop_guard() })
}

struct Opened {
    link_generation: u64,
    channel: Channel,
    consumer: lapin::Consumer,
}

async fn open(link: &Link, queue: &str, prefetch: u16) -> Result<Opened, BrokerError> {
    let live = link.live(REQUEST_TIMEOUT).await?;
    let opening = async {
        let channel = live.connection.create_channel().await?;
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        Ok::<_, lapin::Error>((channel, consumer))
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, opening).await {
        Ok(Ok((channel, consumer))) => Ok(Opened { link_generation: live.generation, channel, consumer }),
        Ok(Err(error)) => Err(BrokerError::Refused(format!("cannot consume `{queue}`: {error}"))),
        Err(_) => {
            link.is_lost(live.generation);
            Err(link.address().unreachable("no answer in time"))
        }
    }
}

struct Task {
    link: Link,
    prefetch: u16,
    settler: Arc<AmqpSettler>,
    sender: mpsc::Sender<Delivery>,
}

impl Task {
    async fn run(&self, first: Opened) {
        let (mut generation, mut opened) = (0, Some(first));
        loop {
            let next = match opened.take() {
                Some(first) => Ok(first),
                None => open(&self.link, &self.settler.queue, self.prefetch).await,
            };
            match next {
                Ok(opened) => {
                    generation += 1;
                    self.deliver(generation, opened).await;
                }
                Err(error) => tracing::warn!(%error, "trying again"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hands on what arrives until the channel is gone.
    async fn deliver(&self, generation: u64, opened: Opened) {
        let Opened { link_generation, channel, mut consumer } = opened;
        self.settler.begin(generation, channel);
        while let Some(delivery) = consumer.next().await {
            let delivery = match delivery {
                Ok(delivery) => delivery,
                Err(error) => {
                    tracing::warn!(queue = self.settler.queue, %error, "consuming was cut off");
                    break;
                }
            };
            let (tag, redelivered) = (delivery.delivery_tag, delivery.redelivered);
            self.settler.delivered(tag);
            let tag = DeliveryTag { generation, tag };
            let delivery = Delivery { tag, redelivered, envelope: from_lapin(delivery) };
            if self.sender.send(delivery).await.is_err() {
                return;
            }
        }
        tracing::debug!(queue = self.settler.queue, link_generation, "the consumer ended");
    }
}

#[async_trait]
impl Consumer for AmqpConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let mut deliveries = Vec::new();
        let count = self.arrived.recv_many(&mut deliveries, max.max(1)).await;
        (count > 0).then_some(deliveries)
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
        self.with(|current| *current = Some(Current { generation, channel, unsettled: BTreeSet::new() }));
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

    /// What to send: acknowledgements up to and including one, single ones, and refusals with their requeue flag.
    fn plan(&self, deliveries: Vec<(DeliveryTag, Settlement)>) -> Option<Plan> {
        self.with(|current| {
            let current = current.as_mut()?;
            let mut plan =
                Plan { channel: current.channel.clone(), up_to: None, single: Vec::new(), refused: Vec::new() };
            let mut acks = BTreeSet::new();
            for (tag, settlement) in deliveries {
                if tag.generation != current.generation || !current.unsettled.contains(&tag.tag) {
                    continue;
                }
                match settlement {
                    Settlement::Ack => {
                        acks.insert(tag.tag);
                    }
                    Settlement::Reject => plan.refused.push((tag.tag, false)),
                    Settlement::Requeue => plan.refused.push((tag.tag, true)),
                }
            }
            for (tag, _) in &plan.refused {
                current.unsettled.remove(tag);
            }
            // A range may only be acknowledged if nothing in it is still being worked on.
            while let Some(&oldest) = current.unsettled.first() {
                if !acks.remove(&oldest) {
                    break;
                }
                current.unsettled.remove(&oldest);
                plan.up_to = Some(oldest);
            }
            for tag in &acks {
                current.unsettled.remove(tag);
            }
            plan.single.extend(acks);
            Some(plan)
        })
    }
}

struct Plan {
    channel: Channel,
    up_to: Option<u64>,
    single: Vec<u64>,
    refused: Vec<(u64, bool)>,
}

#[async_trait]
impl Settler for AmqpSettler {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        let Some(Plan { channel, up_to, single, refused }) = self.plan(deliveries) else { return };
        let settling = async {
            // Refusals first: a range that is acknowledged later must not swallow them.
            for (tag, requeue) in refused {
                channel.basic_reject(tag, BasicRejectOptions { requeue }).await?;
            }
            if let Some(tag) = up_to {
                channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
            }
            for tag in single {
                channel.basic_ack(tag, BasicAckOptions { multiple: false }).await?;
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
