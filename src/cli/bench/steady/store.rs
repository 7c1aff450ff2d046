//! What the database tells of the tables of a site, and how they are filled.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};

use super::process;
use crate::cli::bench::site::Site;
use crate::cli::error::CliError;

/// The database of a site, looked at from outside.
pub(super) struct Database {
    pub(super) pool: PgPool,
    /// The server's first process, when it runs on this machine.
    server: Option<u32>,
}

pub(super) fn failed(error: sqlx::Error) -> CliError {
    CliError::failed(format!("the database: {error}"))
}

impl Database {
    pub(super) async fn of(site: &Site) -> Result<Self, CliError> {
        if !site.store_url.starts_with("postgres") {
            return Err(CliError::usage("this bench looks into PostgreSQL").help("set --store to postgres://..."));
        }
        let pool = PgPoolOptions::new().max_connections(2).connect(&site.store_url).await.map_err(failed)?;
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&pool).await.map_err(failed)?;
        let server = u32::try_from(pid).ok().and_then(process::parent);
        Ok(Self { pool, server })
    }

    /// The CPU time of all its processes until now.
    pub(super) fn cpu(&self) -> Duration {
        self.server.and_then(process::family_cpu).unwrap_or_default()
    }

    /// Bytes and dead rows of the tables that grow.
    pub(super) async fn tables(&self) -> Result<Value, CliError> {
        let rows: Vec<(String, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
            "select c.relname::text, pg_table_size(c.oid), pg_indexes_size(c.oid), coalesce(s.n_live_tup, 0),
                 coalesce(s.n_dead_tup, 0), coalesce(s.seq_scan, 0), coalesce(s.autovacuum_count, 0)
             from pg_class c left join pg_stat_user_tables s on s.relid = c.oid
             where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
                 and c.relname in ('saga', 'outbox', 'history', 'archived_key')
             order by 1",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        Ok(rows
            .into_iter()
            .map(|(name, heap, indexes, live, dead, scans, vacuums)| {
                let told = json!({
                    "bytes": heap, "indexBytes": indexes, "liveRows": live, "deadRows": dead,
                    "sequentialScans": scans, "autovacuums": vacuums,
                });
                (name, told)
            })
            .collect::<serde_json::Map<_, _>>()
            .into())
    }

    pub(super) async fn bytes(&self) -> Result<i64, CliError> {
        sqlx::query_scalar(
            "select coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint from pg_class c
             where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed)
    }

    pub(super) async fn count(&self, sql: &'static str) -> Result<i64, CliError> {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.map_err(failed)
    }

    /// Adds `count` finished sagas, each a copy of one that the bench has run, with an id of the past and a key of its own.
    pub(super) async fn fill(&self, count: u32, told: impl Fn(u32)) -> Result<(), CliError> {
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        connection.execute("set statement_timeout = 0; set synchronous_commit = off").await.map_err(failed)?;
        let mut done = 0;
        while done < count {
            let chunk = (count - done).min(50_000);
            fill_chunk(&mut connection, done, chunk).await.map_err(failed)?;
            done += chunk;
            told(done);
        }
        connection.execute("reset synchronous_commit").await.map_err(failed)?;
        connection.execute("vacuum analyze saga; ").await.map_err(failed)?;
        connection.execute("vacuum analyze outbox").await.map_err(failed)?;
        connection.execute("checkpoint").await.ok();
        Ok(())
    }
}

async fn fill_chunk(connection: &mut PgConnection, from: u32, count: u32) -> Result<(), sqlx::Error> {
    // Ids of a year ago on, a millisecond each, in the order of starts as they would be.
    let sql = format!(
        "with model as materialized (
             select * from saga where state = 'COMPLETED' order by id limit 1
         ), fresh as materialized (
             select n, (lpad(to_hex(1730000000000 + n), 12, '0') || '7' || substr(md5(random()::text), 1, 3) || '8'
                 || substr(md5(random()::text), 1, 15))::uuid as id
             from generate_series({from}, {from} + {count} - 1) n
         ), sagas as (
             insert into saga (id, definition_name, definition_version, key, state, paused, revision, next_seq, steps, input,
                 input_hash, output, reads_outputs, created_at, updated_at, ended_at)
             select fresh.id, definition_name, definition_version, md5(n::text), state, paused, revision, next_seq, steps, input,
                 input_hash, output, reads_outputs, to_timestamp(1730000000 + n / 1000.0),
                 to_timestamp(1730000000 + n / 1000.0), to_timestamp(1730000001 + n / 1000.0)
             from fresh, model
         )
         insert into outbox (saga_id, seq, step, step_index, direction, generation, compensates, participant, action, body,
             state, decided_at, decided_revision, outcome, attempt, output, problem, verified_at, verified_revision)
         select fresh.id, seq, step, step_index, direction, generation, compensates, participant, action, body,
             o.state, decided_at, decided_revision, outcome, attempt, o.output, problem, verified_at, verified_revision
         from fresh, model join outbox o on o.saga_id = model.id
         order by fresh.id, seq"
    );
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}
