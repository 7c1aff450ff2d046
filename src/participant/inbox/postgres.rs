//! The inbox in PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{PgConnection, PgPool, Postgres};

use super::{Entry, Inbox, POSTGRES_SCHEMA, Recorded, Row, row};

/// Waits for a transaction that has inserted the same key and not yet ended; what it left is seen by the next statement.
const CLAIM: &str = "\
insert into amends_inbox (key, saga_id, step, direction, action, status)
values ($1, $2, $3, $4, $5, $6)
on conflict (key) do nothing";

const READ: &str = "select status, outcome, body from amends_inbox where key = $1";

const RECORD: &str = "update amends_inbox set status = 'done', outcome = $2, body = $3 where key = $1";

const DELETE_OLDER: &str = "\
delete from amends_inbox where key in (
    select key from amends_inbox where recorded_at < now() - make_interval(secs => $1) limit 5000
)";

/// Keeps two processes that start at once from creating the table at once, which `if not exists` does not.
const LOCK_SCHEMA: &str = "select pg_advisory_xact_lock(hashtextextended('amends_inbox', 0))";

/// Creating what is there would be harmless but for its locks, which wait for every handler that runs elsewhere, and
/// make all others wait behind them.
const EXISTS: &str = "select to_regclass('amends_inbox') is not null";

#[async_trait]
impl Inbox for Postgres {
    // Said, not left to the database's default: in `repeatable read` a claim that had to wait fails instead.
    const BEGIN: &'static str = "begin isolation level read committed";

    async fn claim(connection: &mut PgConnection, entry: &Entry<'_>) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(CLAIM)
            .bind(entry.key)
            .bind(entry.command.saga_id.0)
            .bind(&entry.command.step)
            .bind(entry.direction())
            .bind(entry.action())
            .bind(entry.status())
            .execute(connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn read(connection: &mut PgConnection, key: &str) -> Result<Option<Row>, sqlx::Error> {
        let found: Option<(String, Option<String>, Option<String>)> =
            sqlx::query_as(READ).bind(key).fetch_optional(connection).await?;
        found.map(|(status, outcome, body)| row(&status, outcome.as_deref(), body)).transpose()
    }

    async fn record(connection: &mut PgConnection, key: &str, reply: &Recorded) -> Result<(), sqlx::Error> {
        let (outcome, body) = reply.columns();
        sqlx::query(RECORD).bind(key).bind(outcome).bind(body).execute(connection).await?;
        Ok(())
    }

    async fn delete_older(connection: &mut PgConnection, age: Duration) -> Result<u64, sqlx::Error> {
        Ok(sqlx::query(DELETE_OLDER).bind(age.as_secs_f64()).execute(connection).await?.rows_affected())
    }

    async fn apply_schema(pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut transaction = pool.begin().await?;
        sqlx::query(LOCK_SCHEMA).execute(&mut *transaction).await?;
        if !sqlx::query_scalar(EXISTS).fetch_one(&mut *transaction).await? {
            sqlx::raw_sql(POSTGRES_SCHEMA).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }
}
