//! Looking into a queue without consuming it: for people who look at dead letters.
//!
//! What AMQP cannot promise: while somebody looks, nobody else sees what was got; afterwards it goes back to where it was,
//! but whoever consumes at the same time may change the order. Nothing is lost, whenever the connection breaks.

use async_trait::async_trait;

use crate::broker::BrokerError;
use crate::message::Envelope;

/// A look into one queue, over a connection of its own. Dropping it puts back what was not removed.
#[async_trait]
pub trait Browser: Send {
    /// The next message; `None` when there are no more.
    ///
    /// # Errors
    /// When the broker cannot be reached in time, or says no.
    async fn next(&mut self) -> Result<Option<Browsed>, BrokerError>;

    /// Removes a message for good.
    ///
    /// # Errors
    /// When the broker cannot be reached: it may be removed, or may not.
    async fn remove(&mut self, tag: u64) -> Result<(), BrokerError>;

    /// Puts back what was not removed, and ends the look.
    ///
    /// # Errors
    /// When the broker cannot be reached in time: what was not removed goes back all the same.
    async fn end(self: Box<Self>) -> Result<(), BrokerError>;
}

/// A message that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Browsed {
    /// Names it to its browser.
    pub tag: u64,
    /// The message, as it lies in this queue.
    pub envelope: Envelope,
    /// Why it was dead-lettered, the last time first.
    pub deaths: Vec<Death>,
}

/// Why and where a message was dead-lettered, as the broker writes it into the header `x-death`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Death {
    /// The queue that it was in.
    pub queue: String,
    /// `rejected`, `delivery_limit`, `expired` or `maxlen`.
    pub reason: String,
    /// How often.
    pub count: i64,
    /// The exchange that it was published to before.
    pub exchange: String,
    /// The routing key that it was published with before.
    pub routing_key: String,
}

/// Whether a header is the broker's own note of what has happened to a message, and no part of it.
pub fn is_note(header: &str) -> bool {
    ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count"]
        .iter()
        .any(|note| header.starts_with(note))
}
