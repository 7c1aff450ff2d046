//! One connection that comes back: whoever needs it waits until it is there, whoever sees it fail says so.

use std::sync::Arc;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::broker::BrokerError;

/// How long connecting may take, and every single request to the broker.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to see whether the connection is still there, besides being told.
const WATCH: Duration = Duration::from_millis(200);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// A connection, with its number.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) generation: u64,
    pub(super) connection: Arc<Connection>,
}

/// Connects, and connects again.
#[derive(Clone)]
pub(super) struct Link {
    purpose: &'static str,
    address: Address,
    live: watch::Sender<Option<Live>>,
    lost: Arc<Notify>,
    closed: CancellationToken,
}

/// Where the broker is; prints without the password.
#[derive(Clone)]
pub(super) struct Address {
    uri: Arc<str>,
    masked: Arc<str>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let masked = mask(url);
        let uri: lapin::uri::AMQPUri = url.parse().map_err(|problem: String| BrokerError::Address {
            address: masked.clone(),
            problem: problem.replace(url, &masked),
        })?;
        // A connection that is half open is noticed after two missed heartbeats.
        let mut uri = uri;
        uri.query.heartbeat.get_or_insert(5);
        uri.query.connection_timeout.get_or_insert(5_000);
        Ok(Self { uri: uri.to_string().into(), masked: masked.into() })
    }

    pub(super) fn masked(&self) -> &str {
        &self.masked
    }

    pub(super) fn unreachable(&self, problem: impl ToString) -> BrokerError {
        BrokerError::Unreachable { address: self.masked.to_string(), problem: problem.to_string() }
    }
}

/// The address without its password.
fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}{path}")
        }
        None => url.to_owned(),
    }
}

/// One connection after the other.
pub(super) struct Connections {
    live: watch::Receiver<Option<Live>>,
    closed: CancellationToken,
    seen: u64,
}

impl Connections {
    pub(super) async fn next(&mut self) -> Option<Live> {
        let seen = self.seen;
        let is_new = |live: &Option<Live>| live.as_ref().is_some_and(|live| live.generation > seen);
        let live = tokio::select! {
            live = self.live.wait_for(is_new) => live.ok()?.clone()?,
            () = self.closed.cancelled() => return None,
        };
        self.seen = live.generation;
        Some(live)
    }
}

impl Link {
    /// Starts connecting; `purpose` is seen in the broker's list of connections.
    pub(super) fn new(purpose: &'static str, address: Address, closed: CancellationToken) -> Self {
        let link = Self { purpose, address, live: watch::Sender::new(None), lost: Arc::default(), closed };
        tokio::spawn(link.clone().supervise());
        link
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The connection, as soon as there is one, within `limit`.
    pub(super) async fn live(&self, limit: Duration) -> Result<Live, BrokerError> {
        let mut live = self.live.subscribe();
        let connected = tokio::time::timeout(limit, live.wait_for(Option::is_some));
        tokio::select! {
            connected = connected => match connected {
                Ok(Ok(live)) => live.clone().ok_or_else(|| self.address.unreachable("closed")),
                _ => Err(self.address.unreachable(format!("no connection within {limit:?}"))),
            },
            () = self.closed.cancelled() => Err(self.address.unreachable("the connection was closed by this program")),
        }
    }

    /// Every connection from now on, until closed.
    pub(super) fn connections(&self) -> Connections {
        Connections { live: self.live.subscribe(), closed: self.closed.clone(), seen: 0 }
    }

    /// Connection `generation` does not work any more: a new one is made.
    pub(super) fn is_lost(&self, generation: u64) {
        let is_current = self.live.borrow().as_ref().is_some_and(|live| live.generation == generation);
        if is_current {
            self.lost.notify_one();
        }
    }

    /// Connects once, to tell at once what is wrong with an address.
    pub(super) async fn connect(&self) -> Result<Connection, BrokerError> {
        let properties =
            ConnectionProperties::default().with_connection_name(format!("amends {}", self.purpose).into());
        match tokio::time::timeout(REQUEST_TIMEOUT, Connection::connect(&self.address.uri, properties)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.address.unreachable(error)),
            Err(_) => Err(self.address.unreachable(format!("no answer within {REQUEST_TIMEOUT:?}"))),
        }
    }

    async fn supervise(self) {
        let (mut generation, mut pause) = (0, FIRST_PAUSE);
        while !self.closed.is_cancelled() {
            match self.connect().await {
                Ok(connection) => {
                    generation += 1;
                    pause = FIRST_PAUSE;
                    tracing::info!(purpose = self.purpose, address = self.address.masked(), generation, "connected");
                    let connection = Arc::new(connection);
                    self.live.send_replace(Some(Live { generation, connection: connection.clone() }));
                    self.watch(&connection).await;
                    self.live.send_replace(None);
                    // In good order if it still works; it must not be waited for if not.
                    let closing = connection.close(200, "closed".into());
                    let _ = tokio::time::timeout(Duration::from_secs(1), closing).await;
                }
                Err(error) => tracing::warn!(purpose = self.purpose, %error, "trying again in {pause:?}"),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                () = self.closed.cancelled() => {}
            }
        }
    }

    /// Until the connection is lost or closed.
    async fn watch(&self, connection: &Connection) {
        let mut was_blocked = false;
        while connection.status().connected() {
            let is_blocked = connection.status().blocked();
            if is_blocked != was_blocked {
                tracing::warn!(purpose = self.purpose, is_blocked, "the broker has changed whether it takes messages");
                was_blocked = is_blocked;
            }
            tokio::select! {
                () = self.closed.cancelled() => return,
                () = self.lost.notified() => return,
                () = tokio::time::sleep(WATCH) => {}
            }
        }
        tracing::warn!(purpose = self.purpose, "the connection is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(mask("amqp://anna:secret@host:5672/%2f"), "amqp://anna:***@host:5672/%2f");
        assert_eq!(mask("amqp://anna:s@cr@t@host"), "amqp://anna:***@host");
        assert_eq!(mask("amqp://host"), "amqp://host");
        assert_eq!(mask("anna:secret"), "(not a URL)");
    }
}
