//! The seam below the rules: a database that holds inbox and effects, and the handlers that work in it. SQL databases
//! in earnest; the simulator has one in memory, so that it runs these very rules.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use sqlx::{Pool, Transaction};
use tokio::sync::Mutex;

use super::error::StepError;
use super::inbox::{Entry, Inbox, Recorded, Row};
use super::rules::Handler;
use super::work::{Pulse, Work};
use crate::message::Command;

/// What a handler came to: its output as JSON text, its error, or what it panicked with.
pub(crate) type Called = Result<Result<String, StepError>, Box<dyn Any + Send>>;

/// A database with an inbox. The methods but [`Ledger::begin`] are those of [`Inbox`], on a transaction.
#[async_trait]
pub(crate) trait Ledger: Send + Sync + 'static {
    /// An open transaction; dropping it undoes it.
    type Transaction: Send + 'static;
    /// What carries out one action.
    type Handler: Send + Sync + 'static;

    async fn begin(&self) -> Result<Self::Transaction, sqlx::Error>;
    async fn claim(transaction: &mut Self::Transaction, entry: &Entry<'_>) -> Result<bool, sqlx::Error>;
    async fn read(transaction: &mut Self::Transaction, key: &str) -> Result<Option<Row>, sqlx::Error>;
    async fn record(transaction: &mut Self::Transaction, key: &str, reply: &Recorded) -> Result<(), sqlx::Error>;
    async fn commit(transaction: Self::Transaction) -> Result<(), sqlx::Error>;
    async fn rollback(transaction: Self::Transaction) -> Result<(), sqlx::Error>;

    /// Runs a handler, and takes the transaction back from it; `None` when it has not given it back.
    async fn call(
        handler: &Self::Handler,
        transaction: Self::Transaction,
        command: &Arc<Command>,
        pulse: &Pulse,
    ) -> (Called, Option<Self::Transaction>);
}

/// An SQL database.
pub(crate) struct SqlLedger<DB: Inbox> {
    pool: Pool<DB>,
}

impl<DB: Inbox> SqlLedger<DB> {
    pub(crate) fn new(pool: Pool<DB>) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl<DB: Inbox> Ledger for SqlLedger<DB> {
    type Transaction = Transaction<'static, DB>;
    type Handler = Handler<DB>;

    async fn begin(&self) -> Result<Self::Transaction, sqlx::Error> {
        self.pool.begin_with(DB::BEGIN).await
    }

    async fn claim(transaction: &mut Self::Transaction, entry: &Entry<'_>) -> Result<bool, sqlx::Error> {
        DB::claim(transaction, entry).await
    }

    async fn read(transaction: &mut Self::Transaction, key: &str) -> Result<Option<Row>, sqlx::Error> {
        DB::read(transaction, key).await
    }

    async fn record(transaction: &mut Self::Transaction, key: &str, reply: &Recorded) -> Result<(), sqlx::Error> {
        DB::record(transaction, key, reply).await
    }

    async fn commit(transaction: Self::Transaction) -> Result<(), sqlx::Error> {
        transaction.commit().await
    }

    async fn rollback(transaction: Self::Transaction) -> Result<(), sqlx::Error> {
        transaction.rollback().await
    }

    async fn call(
        handler: &Self::Handler,
        transaction: Self::Transaction,
        command: &Arc<Command>,
        pulse: &Pulse,
    ) -> (Called, Option<Self::Transaction>) {
        let shared = Arc::new(Mutex::new(transaction));
        let guard = Arc::clone(&shared).lock_owned().await;
        let work = Work::new(guard, Arc::clone(command), pulse.clone());
        let (handler, body) = (Arc::clone(handler), command.body.clone());
        // The handler is also called, not only polled, inside: a panic of either kind must not take the runner with it.
        let running = async move { handler(body, work).await };
        let result = AssertUnwindSafe(running).catch_unwind().await;
        (result, Arc::into_inner(shared).map(Mutex::into_inner))
    }
}
