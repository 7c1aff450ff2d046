//! Migrations: once, safely by several at a time, and told apart from what does not fit.

use amends::store::{StoreError, open};
use rstest::rstest;
use sqlx::{Connection, PgConnection, SqliteConnection};

use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::{at_fresh_address, on, side_by_side};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_is_behind_until_it_is_migrated(#[values(Sqlite, Postgres)] kind: Kind) {
    at_fresh_address(kind, async |url: String| {
        let store = open(&url).await.expect("the store opens");
        let behind = store.check_schema().await;
        let Err(StoreError::SchemaBehind { found: 0, needed, store: address }) = behind else { panic!("{behind:?}") };
        assert_eq!(address, url, "this one has no password");
        let pending = store.pending_migrations().await.expect("a read");
        assert_eq!(pending.last().map(|migration| migration.version), Some(needed));
        assert!(pending.iter().all(|migration| migration.sql.contains(" table ")));
        assert_eq!(store.health().await.expect("health").schema_version, None);

        assert_eq!(store.migrate().await.expect("migration"), pending);

        store.check_schema().await.expect("it fits");
        assert_eq!(store.pending_migrations().await.expect("a read"), []);
        assert_eq!(store.migrate().await.expect("migration"), [], "again is nothing");
        let health = store.health().await.expect("health");
        assert_eq!((health.schema_version, health.program_version), (Some(needed), needed));
        store.close().await;
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_migrations_apply_each_once(#[values(Sqlite, Postgres)] kind: Kind) {
    at_fresh_address(kind, async |url: String| {
        let applied = side_by_side((0..5).map(|_| {
            let url = url.clone();
            async move {
                let store = open(&url).await.expect("the store opens");
                let applied = store.migrate().await.expect("migration");
                store.check_schema().await.expect("it fits");
                store.close().await;
                applied.len()
            }
        }))
        .await;
        assert_eq!(applied.iter().filter(|count| **count > 0).count(), 1, "{applied:?}");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_from_the_future_is_left_alone(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        if kind == Sqlite {
            let mut connection = SqliteConnection::connect(&rig.url).await.expect("a connection");
            sqlx::raw_sql("pragma user_version = 999").execute(&mut connection).await.expect("a statement");
        } else {
            let mut connection = PgConnection::connect(&rig.url).await.expect("a connection");
            let insert = "insert into amends_migration (version, name) values (999, 'future')";
            sqlx::raw_sql(insert).execute(&mut connection).await.expect("a statement");
        }
        for refused in [rig.store.check_schema().await.err(), rig.store.migrate().await.err()] {
            assert!(matches!(refused, Some(StoreError::SchemaAhead { found: 999, .. })), "{refused:?}");
        }
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn health_tells_server_time_and_durability(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let health = rig.store.health().await.expect("health");
        let name = match kind {
            Memory => "memory",
            Sqlite | Kind::Sealed => "SQLite 3.",
            Postgres => "PostgreSQL 1",
        };
        assert!(health.server.starts_with(name), "{}", health.server);
        assert_eq!(health.is_durable, kind != Memory, "{:?}", health.durability);
        rig.store.check_schema().await.expect("it fits");
        assert!(rig.now().await >= health.now);
    })
    .await;
}
