//! RabbitMQ through lapin. lapin keeps a connection; bringing one back, with topology and consumers, is done here.

mod begun;
mod browse;
mod consume;
mod convert;
mod declare;
mod link;
mod publish;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::amqp::address::Address;
use crate::broker::amqp::lapin_client::publish::Publisher;
use crate::broker::browse::Browser;
use crate::broker::{Broker, BrokerError, Consumer, Consuming, Published, QueueStatus, Topology};
use crate::message::Envelope;

/// How long `describe` waits for a connection: who asks wants to know how things stand now.
const DESCRIBE_WAIT: Duration = Duration::from_secs(1);
/// How long [`Broker::close`] may take.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

pub use crate::broker::amqp::lapin_client::convert::{from_lapin, to_lapin};
pub(super) use crate::broker::amqp::lapin_client::link::Link;

/// A RabbitMQ broker through lapin alone: what [`super::AmqpBroker`] is tested and measured against, and what it asks
/// seldom.
pub struct LapinBroker {
    publishing: Link,
    /// Connected once somebody consumes.
    consuming: OnceLock<Link>,
    publisher: Publisher,
    declared: Arc<Mutex<Topology>>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl LapinBroker {
    /// Starts connecting to `amqp://` or `amqps://`, and goes on doing so until [`Broker::close`].
    ///
    /// # Errors
    /// [`BrokerError::Address`].
    pub fn connect_lazily(url: &str) -> Result<Self, BrokerError> {
        Address::parse(url).map(Self::new)
    }

    fn new(address: Address) -> Self {
        let (closed, tasks) = (CancellationToken::new(), TaskTracker::new());
        let declared: Arc<Mutex<Topology>> = Arc::default();
        let publishing = Link::new("ask", address, declared.clone(), (closed.clone(), &tasks));
        let publisher = Publisher::new(publishing.clone());
        Self { publishing, consuming: OnceLock::new(), publisher, declared, closed, tasks }
    }

    /// The connection that everything is declared over, and what ends it.
    pub(super) fn parts(&self) -> (&Link, &CancellationToken, &TaskTracker) {
        (&self.publishing, &self.closed, &self.tasks)
    }

    /// The same, once it is seen that a connection can be had.
    ///
    /// # Errors
    /// [`BrokerError::Address`], or [`BrokerError::Unreachable`] with what the broker said.
    pub async fn connect(url: &str) -> Result<Self, BrokerError> {
        let broker = Self::connect_lazily(url)?;
        let connection = broker.publishing.connect().await?;
        let _ = tokio::time::timeout(DESCRIBE_WAIT, connection.close(200, "seen".into())).await;
        Ok(broker)
    }

    /// Deletes queues with whatever is in them, and forgets that they were declared. One that is not there is no error.
    ///
    /// # Errors
    /// When the broker cannot be reached in time, or says no.
    pub async fn delete(&self, queues: &[String]) -> Result<(), BrokerError> {
        self.publishing.delete(queues).await
    }

    fn address(&self) -> &Address {
        self.publishing.address()
    }
}

impl Drop for LapinBroker {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[async_trait]
impl Broker for LapinBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.publishing.declare(topology).await?;
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).merge(topology.clone());
        Ok(())
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        self.publisher.publish(messages).await
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        let ends = (self.closed.clone(), &self.tasks);
        let consuming =
            self.consuming.get_or_init(|| Link::new("consume", self.address().clone(), self.declared.clone(), ends));
        let consumer = consume::consume(consuming.clone(), queue, how, (&self.closed, &self.tasks)).await?;
        Ok(Box::new(consumer))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        self.publishing.queue(queue).await
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        Ok(Box::new(browse::browse(&self.publishing, queue).await?))
    }

    fn is_volatile(&self) -> bool {
        false
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        let live = self.publishing.live(DESCRIBE_WAIT).await?;
        let blocked = if live.connection.status().blocked() { ", which takes no messages for now" } else { "" };
        Ok(format!("RabbitMQ at {}{blocked}", self.address().masked()))
    }

    async fn close(&self) {
        self.closed.cancel();
        self.tasks.close();
        if tokio::time::timeout(CLOSE_WAIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("connections to the broker did not close in time");
        }
    }
}
