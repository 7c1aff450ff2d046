//! Messages in and out, behind one trait: RabbitMQ through [`amqp`], or in-process for the embedded mode and tests.

#[cfg(feature = "amqp")]
pub mod amqp;
pub mod browse;
pub mod in_process;
mod namespaced;
pub mod topology;

use std::sync::Arc;

use async_trait::async_trait;

pub use namespaced::{beside, within};
pub use topology::{Queue, Topology};

use crate::message::Envelope;

/// The broker at an address: `amqp://`, `amqps://` or `in-process`. Does not wait for RabbitMQ to be there: whoever needs
/// it is told if it is not.
///
/// # Errors
/// [`BrokerError::Address`] when the address cannot be understood.
pub async fn open(url: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    match url.split_once("://").map_or(url, |(scheme, _)| scheme) {
        #[cfg(feature = "amqp")]
        "amqp" | "amqps" => Ok(Arc::new(amqp::AmqpBroker::connect_lazily(url)?)),
        "in-process" => Ok(Arc::new(in_process::InProcessBroker::new())),
        _ => Err(BrokerError::Address {
            // What cannot be understood may hold a password anywhere.
            address: url.split_once("://").map_or("(not a URL)", |(scheme, _)| scheme).to_owned(),
            problem: "expected amqp://…, amqps://… or in-process".to_owned(),
        }),
    }
}

/// A message broker. Implementations reconnect by themselves; a caller sees a lost connection only as an unknown outcome.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Declares exchanges, queues and bindings, now and again after every reconnection.
    ///
    /// # Errors
    /// When the broker cannot be reached in time, or holds something of the same name with other arguments.
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError>;

    /// Publishes a batch, persistent and confirmed, and waits for every outcome: one per message, in order.
    /// Never fails as a whole; while there is no connection it waits for one, up to a limit, then says [`Published::Unknown`].
    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published>;

    /// Starts consuming `queue`. The consumer outlives reconnections.
    ///
    /// # Errors
    /// When the broker cannot be reached in time or the queue is not there.
    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError>;

    /// Starts consuming `queue`, with at most `prefetch` unsettled messages, on a par with others that do.
    ///
    /// # Errors
    /// As [`Broker::consume_by`].
    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        self.consume_by(queue, Consuming::on_a_par(prefetch)).await
    }

    /// What the broker knows of a queue; `None` when there is no such queue.
    ///
    /// # Errors
    /// When the broker cannot be reached in time.
    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError>;

    /// Looks into a queue without consuming it, for people who look at dead letters.
    ///
    /// # Errors
    /// When the broker cannot be reached in time, the queue is not there, or queues cannot be looked into.
    async fn browse(&self, queue: &str) -> Result<Box<dyn browse::Browser>, BrokerError> {
        Err(BrokerError::Refused(format!("`{queue}` cannot be looked into: this broker does not know how")))
    }

    /// What the broker itself calls one of the queues that are seen here, which is what a message without an exchange is
    /// addressed to.
    fn address_of(&self, queue: &str) -> String {
        queue.to_owned()
    }

    /// Whether messages are lost when this process ends, so that after a start every PENDING command must be sent again.
    fn is_volatile(&self) -> bool;

    /// One line for `doctor` and the log: kind, address without password, server version when connected.
    async fn describe(&self) -> Result<String, BrokerError>;

    /// Ends all consumers and closes connections in good order.
    async fn close(&self);
}

/// How a queue is consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consuming {
    /// How many messages may be unsettled at once; 1 at least.
    pub prefetch: u16,
    /// What arrives goes to the consumer of the highest priority as long as it takes more, then to the next; to those of the
    /// same in turns. 0 is what other clients have. A broker inside a process takes no notice.
    pub priority: i64,
}

impl Consuming {
    /// With the priority that everybody has by default.
    pub fn on_a_par(prefetch: u16) -> Self {
        Self { prefetch, priority: 0 }
    }
}

/// What became of a published message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// The broker has it, safe on disk, in at least one queue.
    Confirmed,
    /// No queue took it.
    Returned(String),
    /// The broker refused it (`basic.nack`).
    Refused,
    /// Nobody knows: the connection was lost, or no confirm came in time. Publish again with the same message id.
    Unknown(String),
}

/// Messages of one queue.
#[async_trait]
pub trait Consumer: Send {
    /// Waits for at least one message, then returns all that have arrived, up to `max`. `None` once the broker was closed.
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>>;

    /// Settles deliveries of this consumer; can be kept apart from it.
    fn settler(&self) -> Arc<dyn Settler>;
}

/// Tells the broker what became of deliveries.
#[async_trait]
pub trait Settler: Send + Sync {
    /// Settles a batch. Tags from before a reconnection are ignored: the broker delivers those messages again.
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>);

    /// Whether a delivery is still to be settled here. It is not once the connection that it came over is gone: the broker
    /// delivers the message again, perhaps to somebody else.
    fn holds(&self, _: DeliveryTag) -> bool {
        true
    }

    /// With `false` gives the broker back whatever is not settled, for others that consume the queue, and takes nothing more
    /// until asked with `true`. Who has the queue to itself need take no notice.
    fn take_more(&self, _: bool) {}
}

/// A message that arrived.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Names it when settling.
    pub tag: DeliveryTag,
    /// Whether the broker may have delivered it before.
    pub redelivered: bool,
    /// The message. Shared with brokers that keep it until it is settled.
    pub envelope: Arc<Envelope>,
}

/// Names a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryTag {
    /// Counts the connections of this consumer.
    pub generation: u64,
    /// Counts the deliveries on that connection.
    pub tag: u64,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settlement {
    /// Done with.
    Ack,
    /// Into the queue's dead letters.
    Reject,
    /// Back into the queue, to be delivered again.
    Requeue,
}

/// What the broker knows of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// Messages ready for delivery.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

/// The broker could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address cannot be understood.
    #[error("broker address `{address}`: {problem}")]
    Address {
        /// The address, without password.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no connection, or it broke.
    #[error("broker {address} cannot be reached: {problem}")]
    Unreachable {
        /// The address, without password.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// The broker holds something of the same name with other arguments.
    #[error("{what} exists with other arguments: {problem}; delete it, or give it a policy instead of arguments")]
    Mismatch {
        /// The queue or exchange.
        what: String,
        /// What the broker said: expected and actual.
        problem: String,
    },
    /// It is not there, and this user may not make it; somebody else may.
    #[error(
        "{what} is not there, and this user may not declare it: a coordinator does, once a definition names its participant"
    )]
    Missing {
        /// The queue or exchange.
        what: String,
    },
    /// The broker said no.
    #[error("the broker refused: {0}")]
    Refused(String),
}
