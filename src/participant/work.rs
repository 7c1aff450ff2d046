//! What a handler is given: the command, the open transaction, a heartbeat.

use std::fmt;
use std::sync::Arc;

use sqlx::Transaction;
use tokio::sync::OwnedMutexGuard;

use crate::broker::{Broker, Published};
use crate::message::{Command, Envelope, Reply, ReplyBody};

/// One command in the hands of its handler, with an open transaction of the service's own database.
///
/// The transaction holds the command's inbox row. When the handler returns an output, both are committed; when it
/// returns an error, both are rolled back. A handler must not commit or roll back by itself, and must not keep its
/// `Work` beyond its end: what is still held then is rolled back and tried again.
pub struct Work<DB: sqlx::Database> {
    transaction: OwnedMutexGuard<Transaction<'static, DB>>,
    command: Arc<Command>,
    pulse: Pulse,
}

impl<DB: sqlx::Database> Work<DB> {
    pub(crate) fn new(
        transaction: OwnedMutexGuard<Transaction<'static, DB>>,
        command: Arc<Command>,
        pulse: Pulse,
    ) -> Self {
        Self { transaction, command, pulse }
    }

    /// The open transaction, to run statements in: `query.execute(work.tx())`.
    pub fn tx(&mut self) -> &mut DB::Connection {
        &mut self.transaction
    }

    /// The command: saga, step, attempt, deadline, trace context.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// The idempotency key, the same for all attempts: what to hand on to a third party that wants one.
    pub fn key(&self) -> &str {
        &self.command.key
    }

    /// Tells the coordinator that the work goes on: restarts the attempt's time-out. Returns whether the broker took it;
    /// a heartbeat that was lost needs nothing but the next one.
    pub fn heartbeat(&self) -> impl Future<Output = bool> + Send + use<DB> {
        // Of its own, so that a handler's future stays `Send` where a connection is not `Sync`.
        let pulse = self.pulse.clone();
        async move { pulse.beat().await }
    }
}

impl<DB: sqlx::Database> fmt::Debug for Work<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("key", &self.command.key).field("attempt", &self.command.attempt).finish()
    }
}

/// Sends heartbeats for one attempt.
#[derive(Clone)]
pub(crate) struct Pulse {
    broker: Arc<dyn Broker>,
    heartbeat: Envelope,
}

impl Pulse {
    pub(crate) fn new(broker: Arc<dyn Broker>, command: &Command) -> Self {
        Self { broker, heartbeat: reply_to(command, ReplyBody::InProgress) }
    }

    pub(crate) async fn beat(&self) -> bool {
        let outcomes = self.broker.publish(vec![self.heartbeat.clone()]).await;
        outcomes.first() == Some(&Published::Confirmed)
    }
}

/// The message that answers this very attempt: its own token and reply queue, also when the answer is an old one.
pub(crate) fn reply_to(command: &Command, body: ReplyBody) -> Envelope {
    let mut envelope = Reply { token: command.token.clone(), routing_key: command.reply_to.clone(), body }.encode();
    envelope.properties.message_id = Some(command.message_id.clone());
    envelope
}
