//! The inbox in SQLite.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};

use super::{Entry, Inbox, Recorded, Row, SQLITE_SCHEMA, row};

const CLAIM: &str = "\
insert into amends_inbox (key, saga_id, step, direction, action, status)
values ($1, $2, $3, $4, $5, $6)
on conflict (key) do nothing";

const READ: &str = "select status, outcome, body from amends_inbox where key = $1";

const RECORD: &str = "update amends_inbox set status = 'done', outcome = $2, body = $3 where key = $1";

const DELETE_OLDER: &str = "\
delete from amends_inbox where key in (
    select key from amends_inbox
    where recorded_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', $1)) limit 5000
)";

/// Looked at first, since the migration would wait for every handler that writes.
const EXISTS: &str = "select exists (select 1 from sqlite_schema where name = 'amends_inbox_recorded_at')";

#[async_trait]
impl Inbox for Sqlite {
    // Takes the write lock at once: a duplicate waits here, up to the connection's busy time-out, and two readers
    // that both want to write cannot fail each other later.
    const BEGIN: &'static str = "begin immediate";

    async fn claim(connection: &mut SqliteConnection, entry: &Entry<'_>) -> Result<bool, sqlx::Error> {
        let done = sqlx::query(CLAIM)
            .bind(entry.key)
            .bind(entry.command.saga_id.to_string())
            .bind(&entry.command.step)
            .bind(entry.direction())
            .bind(entry.action())
            .bind(entry.status())
            .execute(connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn read(connection: &mut SqliteConnection, key: &str) -> Result<Option<Row>, sqlx::Error> {
        let found: Option<(String, Option<String>, Option<String>)> =
            sqlx::query_as(READ).bind(key).fetch_optional(connection).await?;
        found.map(|(status, outcome, body)| row(&status, outcome.as_deref(), body)).transpose()
    }

    async fn record(connection: &mut SqliteConnection, key: &str, reply: &Recorded) -> Result<(), sqlx::Error> {
        let (outcome, body) = reply.columns();
        sqlx::query(RECORD).bind(key).bind(outcome).bind(body).execute(connection).await?;
        Ok(())
    }

    async fn delete_older(connection: &mut SqliteConnection, age: Duration) -> Result<u64, sqlx::Error> {
        Ok(sqlx::query(DELETE_OLDER).bind(age.as_secs_f64()).execute(connection).await?.rows_affected())
    }

    async fn apply_schema(pool: &SqlitePool) -> Result<(), sqlx::Error> {
        if sqlx::query_scalar(EXISTS).fetch_one(pool).await? {
            return Ok(());
        }
        let mut transaction = pool.begin_with(Self::BEGIN).await?;
        sqlx::raw_sql(SQLITE_SCHEMA).execute(&mut *transaction).await?;
        transaction.commit().await
    }
}
