//! Publishing: a whole batch is handed over, then every confirm awaited. Batches share a channel and overlap.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handshake::Problem;
use super::session::{Purpose, Session};
use crate::broker::Published;
use crate::broker::amqp::lapin_client::Link;
use crate::failpoint::{self, Point};
use crate::message::Envelope;
use crate::message::command::COMMANDS_EXCHANGE;

/// How long to wait for a connection before a batch is given back.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// How long the broker has to confirm a batch. After that nobody knows what it has.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Batches that may be on their way at once: with the next two a bound for memory on both sides.
const BATCHES: usize = 8;
/// Unconfirmed messages per batch.
const WINDOW: usize = 2_048;
/// The same in bytes of bodies; a larger message goes alone.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

pub(in crate::broker::amqp) struct Publisher {
    /// Where queues are declared, before anything is published over a new connection.
    link: Link,
    slots: Semaphore,
    session: Mutex<Option<Arc<Session>>>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl Publisher {
    pub(in crate::broker::amqp) fn new(link: Link, closed: CancellationToken, tasks: TaskTracker) -> Self {
        Self { link, slots: Semaphore::new(BATCHES), session: Mutex::default(), closed, tasks }
    }

    pub(in crate::broker::amqp) async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let count = messages.len();
        let Ok(_slot) = self.slots.acquire().await else {
            return unknown(count, "the broker was closed");
        };
        let mut rest = messages;
        let mut outcomes = Vec::with_capacity(count);
        while !rest.is_empty() {
            let later = rest.split_off(window(&rest));
            outcomes.extend(self.publish_window(rest).await);
            rest = later;
        }
        outcomes
    }

    async fn publish_window(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let count = messages.len();
        let session = match self.session(Instant::now() + CONNECTION_WAIT).await {
            Ok(session) => session,
            Err(why) => return unknown(count, &why),
        };
        let has_commands = messages.iter().any(|message| message.exchange == COMMANDS_EXCHANGE);
        let publishing = async {
            let outcome = session.publish(messages).await;
            failpoint::reached_if(has_commands, Point::PublishedNotConfirmed);
            outcome.await
        };
        match tokio::time::timeout(CONFIRM_TIMEOUT, publishing).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(_)) => unknown(count, "the connection was lost"),
            Err(_) => {
                let why = format!("no confirm within {CONFIRM_TIMEOUT:?}");
                session.lose(&why);
                unknown(count, &why)
            }
        }
    }

    /// The connection. Nothing was sent yet, so that one that turns out to be gone is no reason to give up before `end`.
    async fn session(&self, end: Instant) -> Result<Arc<Session>, String> {
        let why = std::sync::Mutex::new("another batch is connecting".to_owned());
        let connecting = async {
            let mut current = self.session.lock().await;
            let mut pauses = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(5))
                .with_jitter()
                .without_max_times()
                .build();
            loop {
                if let Some(session) = &*current
                    && session.is_alive()
                {
                    return session.clone();
                }
                match self.connect(end).await {
                    Ok(session) => {
                        tracing::info!(purpose = "publish", address = self.link.address().masked(), "connected");
                        *current = Some(session);
                    }
                    Err(problem) => {
                        *why.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = problem;
                        tokio::time::sleep(pauses.next().unwrap_or(CONNECTION_WAIT)).await;
                    }
                }
            }
        };
        tokio::select! {
            connected = tokio::time::timeout_at(end, connecting) => connected.map_err(|_| {
                let why = why.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                self.link.address().unreachable(format!("no connection within {CONNECTION_WAIT:?}: {why}")).to_string()
            }),
            () = self.closed.cancelled() => Err("this program has closed the connection".to_owned()),
        }
    }

    /// Connects once what is remembered is declared again: the broker may have come back empty, and a message that is
    /// published before its queue is there would be returned.
    async fn connect(&self, end: Instant) -> Result<Arc<Session>, String> {
        let left = end.saturating_duration_since(Instant::now());
        self.link.declare_again(left).await.map_err(|error| error.to_string())?;
        let opened = Session::open(self.link.address(), Purpose::Publish, (&self.closed, &self.tasks)).await;
        opened.map_err(|(Problem::Refused(why) | Problem::Lost(why))| why)
    }

    /// Whether the broker takes no messages for now.
    pub(in crate::broker::amqp) fn is_blocked(&self) -> bool {
        let session = self.session.try_lock().ok();
        session.is_some_and(|session| session.as_ref().is_some_and(|session| session.is_blocked()))
    }
}

/// How many of `messages` go at once: at least one.
fn window(messages: &[Envelope]) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Envelope| {
        bytes += message.body.len();
        bytes <= WINDOW_BYTES
    };
    messages.iter().take(WINDOW).take_while(fits).count().max(1).min(messages.len())
}

fn unknown(count: usize, why: &str) -> Vec<Published> {
    vec![Published::Unknown(why.to_owned()); count]
}
