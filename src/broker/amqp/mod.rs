//! RabbitMQ through lapin. Two connections, one to publish and one to consume, since a broker that blocks publishers
//! stops everything on their connection, acknowledgements and heartbeats too. lapin keeps a connection; bringing one
//! back, with topology and consumers, is done here.

mod consume;
mod convert;
mod link;
mod publish;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ErrorKind};
use tokio_util::sync::CancellationToken;

use crate::broker::amqp::link::{Address, Link, REQUEST_TIMEOUT};
use crate::broker::amqp::publish::Publisher;
use crate::broker::topology::{DEAD_EXCHANGE, DELIVERY_LIMIT, EXCHANGES, ExchangeKind};
use crate::broker::{Broker, BrokerError, Consumer, Published, Queue, QueueStatus, Topology};
use crate::message::Envelope;

/// A RabbitMQ broker.
pub struct AmqpBroker {
    publishing: Link,
    consuming: Link,
    publisher: Publisher,
    declared: Arc<Mutex<Topology>>,
    closed: CancellationToken,
}

impl AmqpBroker {
    /// Starts connecting to `amqp://` or, verified, `amqps://`, and goes on doing so until [`Broker::close`]. For TLS the
    /// program must have installed a rustls provider.
    ///
    /// # Errors
    /// [`BrokerError::Address`].
    pub fn connect_lazily(url: &str) -> Result<Self, BrokerError> {
        let address = Address::parse(url)?;
        let closed = CancellationToken::new();
        let publishing = Link::new("publish", address.clone(), closed.clone());
        let consuming = Link::new("consume", address, closed.clone());
        let publisher = Publisher::new(publishing.clone());
        let declared: Arc<Mutex<Topology>> = Arc::default();
        tokio::spawn(declare_again(publishing.clone(), declared.clone()));
        Ok(Self { publishing, consuming, publisher, declared, closed })
    }

    /// The same, once it is seen that a connection can be had.
    ///
    /// # Errors
    /// [`BrokerError::Address`], or [`BrokerError::Unreachable`] with what the broker said.
    pub async fn connect(url: &str) -> Result<Self, BrokerError> {
        let broker = Self::connect_lazily(url)?;
        match broker.publishing.connect().await {
            Ok(connection) => {
                let _ = connection.close(200, "seen".into()).await;
                Ok(broker)
            }
            Err(error) => {
                broker.closed.cancel();
                Err(error)
            }
        }
    }

    async fn channel(&self) -> Result<Channel, BrokerError> {
        let live = self.publishing.live(REQUEST_TIMEOUT).await?;
        match tokio::time::timeout(REQUEST_TIMEOUT, live.connection.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(self.publishing.address().unreachable(error)),
            Err(_) => {
                self.publishing.is_lost(live.generation);
                Err(self.publishing.address().unreachable("no channel in time"))
            }
        }
    }

    async fn in_time<T>(&self, request: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.publishing.address().unreachable("no answer in time")),
        }
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        let channel = self.channel().await?;
        let outcome = self.in_time(declare(&channel, topology)).await;
        // A channel that was refused something is closed already.
        let _ = channel.close(200, "done".into()).await;
        outcome?;
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).merge(topology.clone());
        Ok(())
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        self.publisher.publish(messages).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        Ok(Box::new(consume::consume(self.consuming.clone(), queue, prefetch, &self.closed).await?))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asking = async {
            match channel.queue_declare(queue.into(), options, FieldTable::default()).await {
                Ok(found) => {
                    Ok(Some(QueueStatus { messages: found.message_count(), consumers: found.consumer_count() }))
                }
                Err(error) if is_soft(&error, AMQPSoftError::NOTFOUND) => Ok(None),
                Err(error) => Err(BrokerError::Refused(error.to_string())),
            }
        };
        let status = self.in_time(asking).await;
        let _ = channel.close(200, "done".into()).await;
        status
    }

    fn is_volatile(&self) -> bool {
        false
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        let live = self.publishing.live(std::time::Duration::from_secs(1)).await?;
        let blocked = if live.connection.status().blocked() { ", which blocks publishers at the moment" } else { "" };
        Ok(format!("RabbitMQ at {}{blocked}", self.publishing.address().masked()))
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

/// After every reconnection: the broker may have come back empty.
async fn declare_again(link: Link, declared: Arc<Mutex<Topology>>) {
    let mut connections = link.connections();
    while let Some(live) = connections.next().await {
        let topology = declared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if topology.queues.is_empty() {
            continue;
        }
        let declaring = async {
            let channel = live.connection.create_channel().await.map_err(|error| link.address().unreachable(error))?;
            declare(&channel, &topology).await?;
            channel.close(200, "done".into()).await.map_err(|error| link.address().unreachable(error))
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, declaring).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "queues cannot be declared again"),
            Err(_) => link.is_lost(live.generation),
        }
    }
}

async fn declare(channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for (name, kind) in EXCHANGES {
        let kind = match kind {
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        };
        channel
            .exchange_declare(name.into(), kind, durable, FieldTable::default())
            .await
            .map_err(|error| refused(format!("exchange `{name}`"), &error))?;
    }
    for queue in &topology.queues {
        let what = || format!("queue `{}`", queue.name);
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel
            .queue_declare(queue.name.as_str().into(), options, arguments(queue))
            .await
            .map_err(|error| refused(what(), &error))?;
        for (exchange, key) in &queue.bindings {
            let (name, exchange, key) = (queue.name.as_str(), exchange.as_str(), key.as_str());
            channel
                .queue_bind(
                    name.into(),
                    exchange.into(),
                    key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await
                .map_err(|error| refused(what(), &error))?;
        }
    }
    Ok(())
}

/// The arguments of the contract: whoever declares the queue must give the same.
fn arguments(queue: &Queue) -> FieldTable {
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-queue-type".into(), text("quorum"));
    if queue.dead_letters {
        arguments.insert("x-dead-letter-exchange".into(), text(DEAD_EXCHANGE));
        arguments.insert("x-dead-letter-routing-key".into(), text(&queue.name));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    }
    arguments
}

fn refused(what: String, error: &lapin::Error) -> BrokerError {
    if is_soft(error, AMQPSoftError::PRECONDITIONFAILED) {
        BrokerError::Mismatch { what, problem: error.to_string() }
    } else {
        BrokerError::Refused(format!("{what}: {error}"))
    }
}

fn is_soft(error: &lapin::Error, kind: AMQPSoftError) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == AMQPErrorKind::Soft(kind))
}
