//! The databases that every claim is checked on, each test with one of its own.

use std::time::Duration;

use amends::participant::{Inbox, migrate};
use async_trait::async_trait;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Pool, Postgres, Sqlite, SqliteConnection, SqlitePool};

/// What a test needs of a database beside the inbox: a table of effects.
#[async_trait]
pub trait TestDatabase: Inbox {
    /// A fresh database with an inbox; the guard deletes what must be deleted.
    async fn fresh() -> (Pool<Self>, Option<tempfile::TempDir>);
    async fn effect(connection: &mut Self::Connection, name: &str) -> Result<(), sqlx::Error>;
    /// A statement that fails inside a transaction.
    async fn fail(connection: &mut Self::Connection) -> Result<(), sqlx::Error>;
    /// A statement that fails as one does whose transaction gives way to another, where the database has that.
    async fn conflict(connection: &mut Self::Connection) -> Result<(), sqlx::Error>;
    async fn effects(pool: &Pool<Self>) -> Vec<String>;
    /// `(status, outcome)` of a key.
    async fn inbox(pool: &Pool<Self>, key: &str) -> Option<(String, Option<String>)>;
    async fn run(pool: &Pool<Self>, statement: &'static str) -> Result<(), sqlx::Error>;
}

const EFFECTS: &str = "create table effects (place integer, name text)";
const EFFECT: &str = "insert into effects (place, name) select count(*), $1 from effects";
const ALL_EFFECTS: &str = "select name from effects order by place, name";
const INBOX: &str = "select status, outcome from amends_inbox where key = $1";

#[async_trait]
impl TestDatabase for Sqlite {
    async fn fresh() -> (SqlitePool, Option<tempfile::TempDir>) {
        let folder = tempfile::tempdir().expect("a folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("service.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(60));
        let pool = SqlitePoolOptions::new().max_connections(8).connect_with(options).await.expect("a pool");
        migrate(&pool).await.expect("the inbox");
        Self::run(&pool, EFFECTS).await.expect("effects");
        (pool, Some(folder))
    }

    async fn effect(connection: &mut SqliteConnection, name: &str) -> Result<(), sqlx::Error> {
        sqlx::query(EFFECT).bind(name).execute(connection).await.map(drop)
    }

    async fn fail(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query("insert into nowhere values (1)").execute(connection).await.map(drop)
    }

    async fn conflict(_: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        Ok(())
    }

    async fn effects(pool: &SqlitePool) -> Vec<String> {
        sqlx::query_scalar(ALL_EFFECTS).fetch_all(pool).await.expect("effects")
    }

    async fn inbox(pool: &SqlitePool, key: &str) -> Option<(String, Option<String>)> {
        sqlx::query_as(INBOX).bind(key).fetch_optional(pool).await.expect("inbox")
    }

    async fn run(pool: &SqlitePool, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(pool).await.map(drop)
    }
}

#[async_trait]
impl TestDatabase for Postgres {
    async fn fresh() -> (PgPool, Option<tempfile::TempDir>) {
        let admin = std::env::var("AMENDS_TEST_STORE").expect("AMENDS_TEST_STORE is not set: run ./test");
        let server = PgPoolOptions::new().max_connections(1).connect(&admin).await.expect("the server");
        let name = format!("participant_{}", amends::id::fresh_request_id().simple());
        sqlx::query(AssertSqlSafe(format!("create database {name}"))).execute(&server).await.expect("a database");
        server.close().await;
        let options = admin.parse::<sqlx::postgres::PgConnectOptions>().expect("a URL").database(&name);
        let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await.expect("a pool");
        migrate(&pool).await.expect("the inbox");
        Self::run(&pool, EFFECTS).await.expect("effects");
        (pool, None)
    }

    async fn effect(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
        sqlx::query(EFFECT).bind(name).execute(connection).await.map(drop)
    }

    async fn fail(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("insert into nowhere values (1)").execute(connection).await.map(drop)
    }

    async fn conflict(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let raise = "do $$ begin raise exception 'deadlock detected' using errcode = '40P01'; end $$";
        sqlx::query(raise).execute(connection).await.map(drop)
    }

    async fn effects(pool: &PgPool) -> Vec<String> {
        sqlx::query_scalar(ALL_EFFECTS).fetch_all(pool).await.expect("effects")
    }

    async fn inbox(pool: &PgPool, key: &str) -> Option<(String, Option<String>)> {
        sqlx::query_as(INBOX).bind(key).fetch_optional(pool).await.expect("inbox")
    }

    async fn run(pool: &PgPool, statement: &'static str) -> Result<(), sqlx::Error> {
        sqlx::query(statement).execute(pool).await.map(drop)
    }
}
