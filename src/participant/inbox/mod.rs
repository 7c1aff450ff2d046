//! The inbox: the table, in the service's own database, that makes each command take effect once.
//!
//! [`Inbox`] is the seam, one implementation per database. The tables are published as [`POSTGRES_SCHEMA`] and
//! [`SQLITE_SCHEMA`], for services that apply them with their own migration tool.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Pool;

use crate::message::Command;

/// The inbox table for PostgreSQL; may be applied any number of times.
pub const POSTGRES_SCHEMA: &str = include_str!("../../../migrations/participant/postgres.sql");

/// The inbox table for SQLite; may be applied any number of times.
pub const SQLITE_SCHEMA: &str = include_str!("../../../migrations/participant/sqlite.sql");

/// The longest idempotency key, in bytes: the schema's limit.
pub const MAX_KEY_BYTES: usize = 512;

/// A database that can hold an inbox. Implemented for `sqlx::Postgres` and `sqlx::Sqlite`.
///
/// All methods but [`Inbox::apply_schema`] and [`Inbox::delete_older`] run inside a transaction begun with
/// [`Inbox::BEGIN`].
#[async_trait]
pub trait Inbox: sqlx::Database {
    /// Begins a transaction in which [`Inbox::claim`] waits for a concurrent claim of the same key and then sees
    /// what it left.
    const BEGIN: &'static str;

    /// Claims a key: inserts its row unless there is one. Waits for a transaction that has claimed it and not yet
    /// ended. Returns whether the row is new.
    async fn claim(connection: &mut Self::Connection, entry: &Entry<'_>) -> Result<bool, sqlx::Error>;

    /// What a claimed key's row says.
    async fn read(connection: &mut Self::Connection, key: &str) -> Result<Option<Row>, sqlx::Error>;

    /// Records the reply in the row that this transaction has claimed.
    async fn record(connection: &mut Self::Connection, key: &str, reply: &Recorded) -> Result<(), sqlx::Error>;

    /// Deletes some of the rows that are older than `age`. Returns how many; 0 when none is left.
    async fn delete_older(connection: &mut Self::Connection, age: Duration) -> Result<u64, sqlx::Error>;

    /// Creates the table and its index unless they are there. Safe to run from several processes at once.
    async fn apply_schema(pool: &Pool<Self>) -> Result<(), sqlx::Error>;
}

/// What is written when a key is claimed.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The key to claim.
    pub key: &'a str,
    /// The command that claims it.
    pub command: &'a Command,
    /// As what.
    pub claim: Claim,
}

/// As what a key is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// By its own command, to be carried out in this transaction.
    Open,
    /// By the compensation of the action that the key belongs to.
    Tombstone,
}

impl<'a> Entry<'a> {
    /// The claim of a command on its own key.
    pub fn own(command: &'a Command) -> Self {
        Self { key: &command.key, command, claim: Claim::Open }
    }

    /// The claim of a compensation on the key of its action.
    pub fn tombstone(command: &'a Command, action_key: &'a str) -> Self {
        Self { key: action_key, command, claim: Claim::Tombstone }
    }

    /// Whether it is a command's claim on its own key.
    #[cfg(feature = "testkit")]
    pub(crate) fn is_own(&self) -> bool {
        self.claim == Claim::Open
    }

    fn direction(&self) -> &'static str {
        match self.claim {
            Claim::Open if self.command.is_compensation => "compensation",
            Claim::Open | Claim::Tombstone => "action",
        }
    }

    fn action(&self) -> Option<&'a str> {
        match self.claim {
            Claim::Open => Some(&self.command.action),
            Claim::Tombstone => None,
        }
    }

    fn status(&self) -> &'static str {
        match self.claim {
            Claim::Open => "open",
            Claim::Tombstone => "tombstone",
        }
    }
}

/// An inbox row that another transaction has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// The command is done; its reply.
    Done(Recorded),
    /// The action was compensated before it ran.
    Tombstone,
}

/// A reply as the inbox keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The output, JSON.
    Success(String),
    /// The problem, JSON.
    Failure(String),
}

impl Recorded {
    fn columns(&self) -> (&'static str, &str) {
        match self {
            Self::Success(body) => ("success", body),
            Self::Failure(body) => ("failure", body),
        }
    }
}

/// Reads the columns `status, outcome, body` of a committed row.
fn row(status: &str, outcome: Option<&str>, body: Option<String>) -> Result<Row, sqlx::Error> {
    match (status, outcome, body) {
        ("tombstone", _, _) => Ok(Row::Tombstone),
        ("done", Some("success"), Some(body)) => Ok(Row::Done(Recorded::Success(body))),
        ("done", Some("failure"), Some(body)) => Ok(Row::Done(Recorded::Failure(body))),
        // The schema's checks leave this out; a hand-made table may not.
        (status, outcome, _) => Err(sqlx::Error::Decode(
            format!("the inbox row has status `{status}` and outcome `{}`", outcome.unwrap_or("null")).into(),
        )),
    }
}

/// Applies the inbox migration; safe to run at every start, also of several processes at once.
///
/// # Errors
/// When the database cannot be reached or does not allow it. Try again, or apply the schema by hand.
pub async fn migrate<DB: Inbox>(pool: &Pool<DB>) -> Result<(), sqlx::Error> {
    DB::apply_schema(pool).await
}

/// Deletes inbox rows, tombstones too, that are older than `age`, in portions, and returns how many.
///
/// Keep rows for longer than the longest saga takes, operators' retries included: a command that is delivered after
/// its row was deleted takes effect again.
///
/// # Errors
/// When the database fails; what was deleted until then stays deleted.
pub async fn purge<DB: Inbox>(pool: &Pool<DB>, age: Duration) -> Result<u64, sqlx::Error> {
    let mut total = 0;
    loop {
        let mut connection = pool.acquire().await?;
        let deleted = DB::delete_older(&mut connection, age).await?;
        if deleted == 0 {
            return Ok(total);
        }
        total += deleted;
    }
}
