//! The connections that units of work go over. They are not the pool's, which asks each connection whether it still
//! answers, before and after every use: two round trips where a unit of work has two of its own.

use std::sync::{Mutex, PoisonError};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Semaphore;

use super::{ACQUIRE, refused};
use crate::store::StoreError;

/// Plans for any parameters: planning for those at hand would take longer than the statement. Such a plan is kept, and it may
/// have been made when the tables were empty, where reading all of a table seems as good as any way. So there is only one way
/// for it to be: each row by its id.
const PLANS: [(&str, &str); 2] = [("plan_cache_mode", "force_generic_plan"), ("jit", "off")];

/// The planner's ways to read that are no index's: switched off where there is to be no other way.
pub(super) const OTHER_WAYS: [&str; 4] = ["enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"];

/// Units of work at once: more would wait for each other's locks, and for the disk.
const LINES: usize = 4;

pub(super) struct Lines {
    options: PgConnectOptions,
    free: Mutex<Option<Vec<PgConnection>>>,
    slots: Semaphore,
}

/// A connection, as long as one unit of work has it. Who does not give it back, after an error, leaves none behind.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    pub(super) connection: PgConnection,
    /// Whether it was idle until now: the server may have ended it meanwhile.
    pub(super) was_idle: bool,
    _slot: tokio::sync::SemaphorePermit<'a>,
}

impl Lines {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        let options = options.options(PLANS).options(OTHER_WAYS.map(|way| (way, "off")));
        Self { options, free: Mutex::new(Some(Vec::new())), slots: Semaphore::new(LINES) }
    }

    /// Waits for a connection.
    pub(super) async fn take(&self) -> Result<Line<'_>, StoreError> {
        let slot = self.slots.acquire().await.map_err(|_| closed())?;
        let idle = self.free.lock().unwrap_or_else(PoisonError::into_inner).as_mut().ok_or_else(closed)?.pop();
        let was_idle = idle.is_some();
        let connection = match idle {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        Ok(Line { lines: self, connection, was_idle, _slot: slot })
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        let late = |_| StoreError::Unavailable(format!("no connection within {ACQUIRE:?}"));
        tokio::time::timeout(ACQUIRE, self.options.connect()).await.map_err(late)?.map_err(refused)
    }

    pub(super) async fn close(&self) {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).take();
        for connection in free.into_iter().flatten() {
            if let Err(error) = connection.close().await {
                tracing::debug!(%error, "a connection did not close in good order");
            }
        }
    }
}

impl Line<'_> {
    /// Another connection instead of this one, which does not work.
    pub(super) async fn renew(&mut self) -> Result<(), StoreError> {
        self.connection = self.lines.connect().await?;
        self.was_idle = false;
        Ok(())
    }

    /// For the next unit of work; no transaction is open.
    pub(super) fn give_back(self) {
        if let Some(free) = self.lines.free.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            free.push(self.connection);
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
