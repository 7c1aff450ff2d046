//! The one connection that writes.

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

use super::refused;
use crate::store::StoreError;

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
        Ok(Lent { slot, connection, seen })
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
    /// Gives the connection back and `outcome` on. After an error only if no transaction is open: SQLite ends one by
    /// itself when the disk is full or broken, which sqlx does not notice, and then refuses to begin another.
    pub(super) async fn give_back<T>(mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        let is_good = outcome.is_ok() || (self.connection.ping().await.is_ok() && !self.connection.is_in_transaction());
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
