//! RabbitMQ. Messages go over connections of their own, written and read frame by frame (`frames`); what is asked seldom,
//! as declaring queues, goes through lapin (`lapin_client`), which can do all of it and is the reference.
//!
//! Publishing and each consumer have a connection of their own, since a broker that blocks publishers stops everything on
//! their connection, acknowledgements and heartbeats too. Connections come back by themselves, with topology and consumers.

mod address;
mod frames;
mod lapin_client;
mod settling;

/// Between our messages and those on the wire, and lapin's, for whoever tests it with whatever bytes there are.
#[doc(hidden)]
pub mod converted {
    pub use super::frames::whole::{delivered, properties, read, written};
    pub use super::lapin_client::{from_lapin, to_lapin};
}

/// The argument that says whose turn it is among a queue's consumers.
const PRIORITY: &str = "x-priority";

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use crate::broker::amqp::lapin_client::LapinBroker;

use crate::broker::amqp::frames::Publisher;
use crate::broker::amqp::lapin_client::Link;
use crate::broker::browse::Browser;
use crate::broker::{Broker, BrokerError, Consumer, Consuming, Published, QueueStatus, Topology};
use crate::message::Envelope;

/// A RabbitMQ broker. Dropping it ends its connections and consumers as [`Broker::close`] does, without waiting.
///
/// TLS (`amqps://`) verifies the broker's certificate against the system's roots. It uses the process's rustls provider;
/// when there is none, ring is installed as such at the first connection.
pub struct AmqpBroker {
    /// A [`LapinBroker`]. Its type is left out: the compiler would look through all of lapin again for each method below.
    asking: Box<dyn Broker>,
    link: Link,
    closed: CancellationToken,
    tasks: TaskTracker,
    publisher: Publisher,
}

impl AmqpBroker {
    /// Starts connecting to `amqp://` or `amqps://`, and goes on doing so until [`Broker::close`].
    ///
    /// # Errors
    /// [`BrokerError::Address`].
    pub fn connect_lazily(url: &str) -> Result<Self, BrokerError> {
        LapinBroker::connect_lazily(url).map(Self::over)
    }

    /// The same, once it is seen that a connection can be had.
    ///
    /// # Errors
    /// [`BrokerError::Address`], or [`BrokerError::Unreachable`] with what the broker said.
    pub async fn connect(url: &str) -> Result<Self, BrokerError> {
        LapinBroker::connect(url).await.map(Self::over)
    }

    fn over(asking: LapinBroker) -> Self {
        let (link, closed, tasks) = asking.parts();
        let publisher = Publisher::new(link.clone(), closed.clone(), tasks.clone());
        let (link, closed, tasks) = (link.clone(), closed.clone(), tasks.clone());
        Self { asking: Box::new(asking), link, closed, tasks, publisher }
    }

    /// Deletes queues with whatever is in them, and forgets that they were declared. One that is not there is no error.
    ///
    /// # Errors
    /// When the broker cannot be reached in time, or says no.
    pub async fn delete(&self, queues: &[String]) -> Result<(), BrokerError> {
        self.link.delete(queues).await
    }
}

#[async_trait]
impl Broker for AmqpBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.asking.declare(topology).await
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        self.publisher.publish(messages).await
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        let ends = (&self.closed, &self.tasks);
        Ok(Box::new(frames::consume(self.link.clone(), queue, how, ends).await?))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        self.asking.queue(queue).await
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        self.asking.browse(queue).await
    }

    fn is_volatile(&self) -> bool {
        false
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        let described = self.asking.describe().await?;
        let blocked = if self.publisher.is_blocked() { ", which takes no messages for now" } else { "" };
        Ok(format!("{described}{blocked}"))
    }

    async fn close(&self) {
        self.asking.close().await;
    }
}
