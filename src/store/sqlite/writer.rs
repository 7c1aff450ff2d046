//! The one connection that writes.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

use super::{kind, refused};
use crate::store::StoreError;

/// What SQLite says to a statement that makes no sense as things are.
const SQLITE_ERROR: i32 = 1;

/// Lends its connection to one user at a time.
pub(super) struct Writer {
    options: SqliteConnectOptions,
    lent: Mutex<Slot>,
}

enum Slot {
    /// With what it has seen of others' commits.
    Ready(SqliteConnection, Option<i64>),
    /// Given up, since nobody knew what state it was in: the next user gets a new one.
    Empty,
    Closed,
}

/// The connection, as long as one user has it. Whoever does not give it back, because of a panic, leaves none behind.
pub(super) struct Lent<'a> {
    slot: MutexGuard<'a, Slot>,
    pub(super) connection: SqliteConnection,
    /// `data_version` when it was asked last: another number says that another connection has written since.
    pub(super) seen: Option<i64>,
    /// Whether a transaction may be open that sqlx does not know of.
    is_open: bool,
}

impl Writer {
    pub(super) async fn open(options: SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let connection = options.connect().await?;
        Ok(Self { options, lent: Mutex::new(Slot::Ready(connection, None)) })
    }

    /// Waits for the connection.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, StoreError> {
        let mut slot = self.lent.lock().await;
        let (connection, seen) = match std::mem::replace(&mut *slot, Slot::Empty) {
            Slot::Ready(connection, seen) => (connection, seen),
            Slot::Empty => (self.options.connect().await.map_err(refused)?, None),
            Slot::Closed => {
                *slot = Slot::Closed;
                return Err(StoreError::Unavailable("the store is closed".to_owned()));
            }
        };
        Ok(Lent { slot, connection, seen, is_open: false })
    }

    pub(super) async fn close(&self) {
        let mut slot = self.lent.lock().await;
        if let Slot::Ready(connection, _) = std::mem::replace(&mut *slot, Slot::Closed)
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "SQLite did not close in good order");
        }
    }
}

impl Lent<'_> {
    /// Begins to write, and asks for `data_version`: one message to SQLite's thread for both, where a transaction of sqlx's
    /// would be two.
    pub(super) async fn begin(&mut self) -> Result<i64, StoreError> {
        self.is_open = true;
        let begin = sqlx::query_scalar("begin immediate; pragma data_version");
        begin.fetch_one(&mut self.connection).await.map_err(refused)
    }

    /// Commits what [`Lent::begin`] began.
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("commit").execute(&mut self.connection).await?;
        self.is_open = false;
        Ok(())
    }

    /// Gives the connection back and `outcome` on. After an error only if no transaction is open: SQLite ends one by
    /// itself when the disk is full or broken. Of one that was begun here that makes no difference; of another, sqlx does not
    /// notice, and then refuses to begin the next.
    pub(super) async fn give_back<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let is_good = if self.is_open {
            match sqlx::query("rollback").execute(&mut self.connection).await {
                Ok(_) => true,
                // There is none, or none any more.
                Err(sqlx::Error::Database(error)) => kind(error.as_ref()) == Some(SQLITE_ERROR),
                Err(_) => false,
            }
        } else {
            outcome.is_ok() || (self.connection.ping().await.is_ok() && !self.connection.is_in_transaction())
        };
        if is_good {
            *self.slot = Slot::Ready(self.connection, self.seen);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn writer() -> (tempfile::TempDir, Writer) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = SqliteConnectOptions::new().filename(folder.path().join("amends.db")).create_if_missing(true);
        let writer = Writer::open(options).await.expect("the file is made");
        (folder, writer)
    }

    async fn begin(writer: &Writer) -> Result<(), StoreError> {
        let mut lent = writer.lend().await?;
        let begun = lent.connection.begin_with("begin immediate").await.map(drop).map_err(refused);
        lent.give_back(begun).await
    }

    #[tokio::test]
    async fn a_transaction_that_sqlite_ended_by_itself_does_not_keep_others_from_beginning() {
        let (_folder, writer) = writer().await;
        let mut lent = writer.lend().await.expect("a connection");
        let mut transaction = lent.connection.begin_with("begin immediate").await.expect("begun");
        // As SQLite does when the disk is full, behind sqlx's back.
        sqlx::raw_sql("rollback").execute(&mut *transaction).await.expect("rolled back");
        drop(transaction);
        let outcome = lent.give_back::<()>(Err(StoreError::Unavailable("the disk is full".to_owned()))).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))));
        begin(&writer).await.expect("the next one begins");
    }

    /// What a connection has of its own, and another has not.
    async fn mark(lent: &mut Lent<'_>) {
        sqlx::raw_sql("create temp table mark (n)").execute(&mut lent.connection).await.expect("made");
    }

    async fn is_marked(writer: &Writer) -> bool {
        let mut lent = writer.lend().await.expect("a connection");
        let found = sqlx::raw_sql("select n from mark").execute(&mut lent.connection).await;
        lent.give_back(Ok(found.is_ok())).await.expect("it is good")
    }

    fn broken<T>() -> Result<T, StoreError> {
        Err(StoreError::Unavailable("the disk is full".to_owned()))
    }

    #[tokio::test]
    async fn what_was_written_before_an_error_is_taken_back_and_the_connection_kept() {
        let (_folder, writer) = writer().await;
        let mut lent = writer.lend().await.expect("a connection");
        mark(&mut lent).await;
        lent.begin().await.expect("begun");
        sqlx::raw_sql("create table t (n)").execute(&mut lent.connection).await.expect("made");
        assert!(lent.give_back::<()>(broken()).await.is_err());
        assert!(is_marked(&writer).await);
        let mut lent = writer.lend().await.expect("a connection");
        lent.begin().await.expect("the next one begins");
        sqlx::raw_sql("create table t (n)").execute(&mut lent.connection).await.expect("it is not there");
        lent.commit().await.expect("committed");
        lent.give_back(Ok(())).await.expect("given back");
        begin(&writer).await.expect("also one that sqlx knows of");
    }

    #[tokio::test]
    async fn a_connection_whose_transaction_sqlite_ended_by_itself_is_kept() {
        let (_folder, writer) = writer().await;
        let mut lent = writer.lend().await.expect("a connection");
        mark(&mut lent).await;
        lent.begin().await.expect("begun");
        sqlx::raw_sql("rollback").execute(&mut lent.connection).await.expect("rolled back");
        assert!(lent.give_back::<()>(broken()).await.is_err());
        assert!(is_marked(&writer).await);
        begin(&writer).await.expect("the next one begins");
    }

    #[tokio::test]
    async fn a_connection_that_could_not_begin_since_another_writes_is_kept() {
        let (folder, writer) = writer().await;
        let other = SqliteConnectOptions::new().filename(folder.path().join("amends.db"));
        let mut other = other.connect().await.expect("a connection");
        let mut lent = writer.lend().await.expect("a connection");
        mark(&mut lent).await;
        sqlx::raw_sql("pragma busy_timeout = 0").execute(&mut lent.connection).await.expect("set");
        sqlx::raw_sql("begin immediate").execute(&mut other).await.expect("it is free");
        let begun = lent.begin().await.map(drop);
        assert!(matches!(begun, Err(StoreError::Conflict(_))), "{begun:?}");
        assert!(lent.give_back(begun).await.is_err());
        sqlx::raw_sql("rollback").execute(&mut other).await.expect("it lets go");
        assert!(is_marked(&writer).await);
        let mut lent = writer.lend().await.expect("a connection");
        lent.begin().await.expect("now it begins");
        lent.commit().await.expect("committed");
        lent.give_back(Ok(())).await.expect("given back");
    }

    #[tokio::test]
    async fn a_connection_that_is_not_given_back_is_replaced() {
        let (_folder, writer) = writer().await;
        let mut lent = writer.lend().await.expect("a connection");
        let transaction = lent.connection.begin_with("begin immediate").await.expect("begun");
        std::mem::forget(transaction);
        drop(lent);
        begin(&writer).await.expect("the next one begins");
    }

    #[tokio::test]
    async fn a_closed_writer_lends_nothing() {
        let (_folder, writer) = writer().await;
        writer.close().await;
        assert!(matches!(begin(&writer).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(begin(&writer).await, Err(StoreError::Unavailable(_))));
    }
}
