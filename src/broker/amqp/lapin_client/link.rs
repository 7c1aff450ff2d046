//! One connection that comes back: whoever needs it waits until it is there, whoever sees it fail says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::StreamExt;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::amqp::address::Address;
use crate::broker::amqp::lapin_client::convert::short;
use crate::broker::amqp::lapin_client::declare::{declare, declare_again, declare_missing, is_no_queue, said};
use crate::broker::{BrokerError, QueueStatus, Topology};

/// How long connecting may take, and every single request to the broker.
pub(in crate::broker::amqp) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to see whether the connection is still there, besides being told.
const WATCH: Duration = Duration::from_millis(200);
/// How long to wait for the broker's part of a close in good order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection of lapin's whose type the compiler does not see: it takes a second to find out that it may go from thread to
/// thread, once more for each future that has one somewhere inside.
#[derive(Clone)]
pub(in crate::broker::amqp) struct Held(Arc<dyn Lapin>);

trait Lapin: Send + Sync {
    fn connection(&self) -> &Connection;
}

impl Lapin for Connection {
    fn connection(&self) -> &Connection {
        self
    }
}

impl std::ops::Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0.connection()
    }
}

/// A connection that works, as far as is known.
#[derive(Clone)]
pub(in crate::broker::amqp) struct Live {
    /// Counts the connections of a link.
    pub(in crate::broker::amqp) generation: u64,
    pub(in crate::broker::amqp) connection: Held,
    broken: CancellationToken,
}

impl Live {
    /// It does not work any more: a new one is made.
    pub(in crate::broker::amqp) fn is_lost(&self) {
        self.broken.cancel();
    }
}

#[derive(Clone)]
enum State {
    Up(Live),
    /// Why.
    Down(Arc<str>),
}

/// Connects, and connects again, until `closed`.
#[derive(Clone)]
pub(in crate::broker::amqp) struct Link {
    purpose: &'static str,
    address: Address,
    state: Arc<watch::Sender<State>>,
    declared: Arc<Mutex<Topology>>,
    closed: CancellationToken,
}

impl Link {
    /// Starts connecting; `purpose` is seen in the broker's list of connections.
    pub(in crate::broker::amqp) fn new(
        purpose: &'static str,
        address: Address,
        declared: Arc<Mutex<Topology>>,
        (closed, tasks): (CancellationToken, &TaskTracker),
    ) -> Self {
        let state = Arc::new(watch::Sender::new(State::Down("not connected yet".into())));
        let link = Self { purpose, address, state, declared, closed };
        tasks.spawn(link.clone().supervise());
        link
    }

    pub(in crate::broker::amqp) fn address(&self) -> &Address {
        &self.address
    }

    /// The connection, as soon as there is one, within `limit`.
    pub(in crate::broker::amqp) async fn live(&self, limit: Duration) -> Result<Live, BrokerError> {
        let mut state = self.state.subscribe();
        // A connection that somebody has just found broken is not given to anybody else.
        let is_up = |state: &State| matches!(state, State::Up(live) if !live.broken.is_cancelled());
        tokio::select! {
            found = tokio::time::timeout(limit, state.wait_for(is_up)) => {
                if let Ok(Ok(found)) = found && let State::Up(live) = &*found {
                    return Ok(live.clone());
                }
            }
            () = self.closed.cancelled() => {
                return Err(self.address.unreachable("this program has closed the connection"));
            }
        }
        let why = match &*self.state.borrow() {
            State::Up(_) => "the broker did not answer in time".into(),
            State::Down(why) => why.clone(),
        };
        Err(self.address.unreachable(format!("no connection within {limit:?}: {why}")))
    }

    /// Asks something over a channel of its own.
    pub(super) async fn request<T, F>(&self, act: impl FnOnce(Channel) -> F + Send) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, BrokerError>> + Send,
    {
        let live = self.live(REQUEST_TIMEOUT).await?;
        let asking = async {
            let channel = live.connection.create_channel().await.map_err(|error| self.address.unreachable(error))?;
            let outcome = act(channel.clone()).await;
            if channel.status().connected() {
                let _ = channel.close(200, "done".into()).await;
            }
            outcome
        };
        tokio::time::timeout(REQUEST_TIMEOUT, asking).await.unwrap_or_else(|_| {
            live.is_lost();
            Err(self.address.unreachable(format!("no answer within {REQUEST_TIMEOUT:?}")))
        })
    }

    /// Declares `topology` on the connection that there is.
    pub(super) async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        if !topology.only_missing {
            return self.request(|channel| async move { declare(&self.address, &channel, topology).await }).await;
        }
        let live = self.live(REQUEST_TIMEOUT).await?;
        let declaring = declare_missing(&self.address, &live.connection, topology);
        tokio::time::timeout(REQUEST_TIMEOUT, declaring).await.unwrap_or_else(|_| {
            live.is_lost();
            Err(self.address.unreachable(format!("no answer within {REQUEST_TIMEOUT:?}")))
        })
    }

    /// Deletes queues, and forgets that they were declared.
    pub(in crate::broker::amqp) async fn delete(&self, queues: &[String]) -> Result<(), BrokerError> {
        let gone = |queue: &crate::broker::Queue| queues.contains(&queue.name);
        self.declared.lock().unwrap_or_else(PoisonError::into_inner).queues.retain(|queue| !gone(queue));
        for queue in queues {
            let name = short("queue name", queue).map_err(BrokerError::Refused)?;
            let delete = |channel: Channel| async move {
                let outcome = channel.queue_delete(name, QueueDeleteOptions::default()).await;
                outcome.map(|_| ()).map_err(|error| said(&self.address, &format!("queue `{queue}`"), &error))
            };
            self.request(delete).await?;
        }
        Ok(())
    }

    /// What is to be said of a queue; `None` when there is none of this name.
    pub(in crate::broker::amqp) async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        let name = short("queue name", queue).map_err(BrokerError::Refused)?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.request(|channel| async move {
            match channel.queue_declare(name, options, FieldTable::default()).await {
                Ok(found) => {
                    Ok(Some(QueueStatus { messages: found.message_count(), consumers: found.consumer_count() }))
                }
                Err(error) if is_no_queue(&error) => Ok(None),
                Err(error) => Err(said(&self.address, &format!("queue `{queue}`"), &error)),
            }
        })
        .await
    }

    /// Connects once, to tell at once what is wrong with an address.
    pub(in crate::broker::amqp) async fn connect(&self) -> Result<Connection, BrokerError> {
        let name = format!("amends {}", self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        match tokio::time::timeout(REQUEST_TIMEOUT, Connection::connect_uri(self.address.uri(), properties)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.address.unreachable(error)),
            Err(_) => Err(self.address.unreachable(format!("no answer within {REQUEST_TIMEOUT:?}"))),
        }
    }

    /// Connects and declares what is remembered: the broker may have come back empty, and a message that is published
    /// before its queue is there again would be returned.
    async fn connect_and_declare(&self) -> Result<Connection, BrokerError> {
        let connection = self.connect().await?;
        self.declare_on(&connection).await?;
        Ok(connection)
    }

    /// Declares what is remembered on the connection that there is: somebody has deleted a queue from under it.
    pub(in crate::broker::amqp) async fn declare_again(&self, limit: Duration) -> Result<(), BrokerError> {
        self.declare_on(&self.live(limit).await?.connection).await
    }

    async fn declare_on(&self, connection: &Connection) -> Result<(), BrokerError> {
        let topology = self.declared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !topology.queues.is_empty() {
            let declaring = declare_again(&self.address, connection, &topology);
            match tokio::time::timeout(REQUEST_TIMEOUT, declaring).await {
                Ok(outcome) => outcome?,
                Err(_) => return Err(self.address.unreachable("queues are not declared in time")),
            }
        }
        Ok(())
    }

    async fn supervise(self) {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .with_jitter()
            .without_max_times();
        let (mut generation, mut backoff) = (0, pauses.build());
        while !self.closed.is_cancelled() {
            let connecting = tokio::select! {
                connecting = self.connect_and_declare() => connecting,
                () = self.closed.cancelled() => break,
            };
            let why = match connecting {
                Ok(connection) => {
                    generation += 1;
                    backoff = pauses.build();
                    tracing::info!(purpose = self.purpose, address = self.address.masked(), generation, "connected");
                    self.keep(generation, Held(Arc::new(connection))).await
                }
                Err(error) => error.to_string(),
            };
            if self.closed.is_cancelled() {
                break;
            }
            let pause = backoff.next().unwrap_or(WATCH);
            tracing::warn!(purpose = self.purpose, why, "no connection, trying again in {pause:?}");
            self.state.send_replace(State::Down(why.into()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Lends the connection out until it is lost or closed; says why.
    async fn keep(&self, generation: u64, connection: Held) -> String {
        let broken = CancellationToken::new();
        self.state.send_replace(State::Up(Live { generation, connection: connection.clone(), broken: broken.clone() }));
        let mut events = std::pin::pin!(connection.events_listener());
        let mut why = "the connection was lost".to_owned();
        while connection.status().connected() {
            tokio::select! {
                () = self.closed.cancelled() => break,
                () = broken.cancelled() => {
                    "the broker did not answer in time".clone_into(&mut why);
                    break;
                }
                Some(event) = events.next() => match event {
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(purpose = self.purpose, reason, "the broker takes no messages for now");
                    }
                    Event::ConnectionUnblocked => tracing::info!(purpose = self.purpose, "the broker takes messages again"),
                    Event::Error(error) => why = error.to_string(),
                    _ => {}
                },
                () = tokio::time::sleep(WATCH) => {}
            }
        }
        broken.cancel();
        // In good order if it still works; it must not be waited for if not.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "closed".into())).await;
        why
    }
}
