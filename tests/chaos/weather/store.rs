//! What becomes of PostgreSQL.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::{Dice, Land, SEEN};
use crate::city::{ATTEMPT, City, SERVICES};
use crate::support::eventually_within;

impl Land {
    pub(super) async fn restart_postgres(&mut self, kill: bool) {
        let before = started_at(&self.city).await;
        if kill {
            self.city.postgres.kill_and_restart().await;
        } else {
            self.city.postgres.restart().await;
        }
        assert_ne!(started_at(&self.city).await, before, "it is another server");
    }

    /// The coordinators' tables cannot grow.
    pub(super) async fn store_disk_full(&mut self) {
        let disk = self.city.postgres.disk("space").expect("a small disk");
        let filler = fill(&disk);
        let what = "PostgreSQL has no room for data";
        self.is_full(what, "could not extend file", async || {}).await;
        tokio::time::sleep(ATTEMPT).await;
        std::fs::remove_file(filler).expect("there is room again");
    }

    /// PostgreSQL has nowhere to write its log, and panics, perhaps several times.
    pub(super) async fn log_disk_full(&mut self) {
        let disk = self.city.postgres.disk("wal").expect("a small disk");
        let filler = fill(&disk);
        let pool = PgPool::connect_lazy(&self.city.postgres.url()).expect("the address is right");
        let switch = "select pg_switch_wal() from (select pg_logical_emit_message(false, 'chaos', 'x')) as written";
        let what = "PostgreSQL has no room for its log";
        // What is set aside is used up first.
        self.is_full(what, "PANIC", async || drop(pool.execute(switch).await)).await;
        tokio::time::sleep(ATTEMPT).await;
        std::fs::remove_file(filler).expect("there is room again");
        // It gives up when it has no room to recover.
        eventually_within(SEEN, "PostgreSQL is back", async || {
            self.city.postgres.start_again_if_ended().await;
            pool.execute("select 1").await.ok()
        })
        .await;
    }

    async fn is_full(&self, what: &str, sign: &str, mut meanwhile: impl AsyncFnMut()) {
        let before = complaints(&self.city.postgres.log(), sign);
        eventually_within(SEEN, what, async || {
            meanwhile().await;
            (complaints(&self.city.postgres.log(), sign) > before).then_some(())
        })
        .await;
    }

    /// Others take every connection there is, also those that coordinators lose meanwhile.
    pub(super) async fn take_connections(&mut self) {
        let (url, mut taken, mut refusals, mut lost) = (self.city.postgres.url(), Vec::new(), 0, 0);
        let begun = tokio::time::Instant::now();
        while refusals == 0 || lost == 0 || begun.elapsed() < ATTEMPT + Duration::from_secs(1) {
            assert!(begun.elapsed() < SEEN, "{refusals} connections were refused, and coordinators lost {lost}");
            match PgConnection::connect(&url).await {
                Ok(connection) => taken.push(connection),
                Err(error) => {
                    let code = error.as_database_error().and_then(|error| error.code());
                    assert_eq!(code.as_deref(), Some("53300"), "too many connections: {error}");
                    refusals += 1;
                    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'amends'";
                    let first = taken.first_mut().expect("there is one");
                    let cut: i64 = sqlx::query_scalar(cut).fetch_one(first).await.expect("it was connected before");
                    lost += cut;
                    if lost == 0 {
                        // All were taken while no coordinator had any: there is one to be had now, whoever comes first.
                        taken.truncate(taken.len().saturating_sub(1).max(1));
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
        for connection in taken {
            let _ = connection.close().await;
        }
    }

    /// A foreign transaction locks a whole table that somebody needs.
    pub(super) async fn lock_table(&mut self, dice: &mut Dice) {
        let a_while = if self.is_patient { dice.one(&[3, 3, 12]) } else { 3 };
        let (database, table) = match dice.below(2) {
            0 => ("amends", "saga"),
            _ => (dice.one(&SERVICES), "amends_inbox"),
        };
        let mut connection = PgConnection::connect(&self.city.database(database)).await.expect("PostgreSQL answers");
        let mut transaction = connection.begin().await.expect("it begins");
        let lock = AssertSqlSafe(format!("lock table {table} in access exclusive mode"));
        transaction.execute(sqlx::query(lock)).await.expect("it is locked");
        let waiting = "select count(*) from pg_locks where not granted and relation = $1::regclass";
        eventually_within(SEEN, "somebody waits for the lock", async || {
            let query = sqlx::query_scalar(waiting).bind(table);
            let count: i64 = query.fetch_one(&mut *transaction).await.expect("PostgreSQL answers");
            (count > 0).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(a_while)).await;
        transaction.rollback().await.expect("it ends");
    }
}

fn complaints(log: &str, sign: &str) -> usize {
    log.lines().filter(|line| line.contains(sign) && line.contains("No space left on device")).count()
}

/// Fills a disk to the last page.
fn fill(disk: &Path) -> std::path::PathBuf {
    let path = disk.join("filler");
    let mut file = std::fs::File::create(&path).expect("the filler is made");
    for piece in [1024 * 1024, 4096] {
        let zeros = vec![0; piece];
        while file.write_all(&zeros).is_ok() {}
    }
    path
}

async fn started_at(city: &City) -> String {
    let pool = PgPool::connect(&city.postgres.url()).await.expect("PostgreSQL answers");
    sqlx::query_scalar("select pg_postmaster_start_time()::text").fetch_one(&pool).await.expect("it says when")
}
