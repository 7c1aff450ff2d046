//! State in PostgreSQL, shared by any number of coordinators. READ COMMITTED; the row lock and the revision are the
//! arbiter.

mod archive;
mod at_once;
mod bulk;
mod data_keys;
mod figures;
mod lines;
mod overview;
mod pauses;
mod read;
mod tokens;
mod unit;
mod webhooks;
mod write;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};

use lines::Lines;

use crate::clock::Timestamp;
use crate::failpoint::{self, Point};
use crate::id::{CommandId, DefinitionRef, Namespace, SagaId};
use crate::message::TokenKey;
use crate::saga::Figures;
use crate::store::migrations::{self, Known};
use crate::store::overview::{Lifetime, Service, StateCount, StuckGroup};
use crate::store::recent::Recent;
use crate::store::task::to_the_end;
use crate::store::{
    AuditFilter, AuditRecord, Committed, Decide, DefinitionRecord, HistoryRecord, Migration, OutboxEntry, OutboxFilter,
    Page, Registration, SagaCount, SagaFilter, SagaRecord, SagaSummary, Store, StoreError, StoreHealth, Wants,
};

const MIGRATIONS: &[Known] = &[
    Known { version: 1, name: "initial", sql: include_str!("../../../migrations/postgres/0001_initial.sql") },
    Known {
        version: 2,
        name: "signals_and_parents",
        sql: include_str!("../../../migrations/postgres/0002_signals_and_parents.sql"),
    },
    Known { version: 3, name: "deprecations", sql: include_str!("../../../migrations/postgres/0003_deprecations.sql") },
    Known { version: 4, name: "archive", sql: include_str!("../../../migrations/postgres/0004_archive.sql") },
    Known { version: 5, name: "due_slot", sql: include_str!("../../../migrations/postgres/0005_due_slot.sql") },
    Known { version: 6, name: "tokens", sql: include_str!("../../../migrations/postgres/0006_tokens.sql") },
    Known { version: 7, name: "bulk", sql: include_str!("../../../migrations/postgres/0007_bulk.sql") },
    Known {
        version: 8,
        name: "participant_pause",
        sql: include_str!("../../../migrations/postgres/0008_participant_pause.sql"),
    },
    Known { version: 9, name: "data_keys", sql: include_str!("../../../migrations/postgres/0009_data_keys.sql") },
    Known { version: 10, name: "webhooks", sql: include_str!("../../../migrations/postgres/0010_webhooks.sql") },
];

/// Connections to the database: batches need few.
const CONNECTIONS: u32 = 8;
/// How long to wait for one.
const ACQUIRE: Duration = Duration::from_secs(5);

/// A store in a PostgreSQL database.
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    /// Without the password.
    address: String,
    namespace: Namespace,
    pool: PgPool,
    lines: Lines,
    recent: Recent,
}

impl PostgresStore {
    /// Connects to `postgres://…`.
    ///
    /// # Errors
    /// [`StoreError::Address`], or [`StoreError::Unavailable`] when nothing answers there.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_within(url, &Namespace::default()).await
    }

    /// The same for a namespace, which has a schema of its own.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn connect_within(url: &str, namespace: &Namespace) -> Result<Self, StoreError> {
        let store = Self::lazily(url, namespace.clone())?;
        let unavailable = |error: sqlx::Error| StoreError::Unavailable(format!("{}: {error}", store.0.address));
        store.0.pool.acquire().await.map_err(unavailable)?;
        Ok(store)
    }

    /// The same without waiting for the database: it is connected to when it is needed.
    ///
    /// # Errors
    /// [`StoreError::Address`].
    pub fn connect_lazily(url: &str) -> Result<Self, StoreError> {
        Self::lazily(url, Namespace::default())
    }

    fn lazily(url: &str, namespace: Namespace) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| StoreError::Address { address: mask(url), problem: error.to_string() })?;
        let options = options.application_name("amends").options([
            // A connection that was lost in the middle must not hold its locks for long.
            ("idle_in_transaction_session_timeout", "30s"),
            ("lock_timeout", "10s"),
            ("statement_timeout", "60s"),
        ]);
        let options = match namespace.schema() {
            // Every connection sees this schema alone, so that no statement can name another's tables by mistake.
            Some(schema) => options.options([("search_path", quoted(&schema))]),
            None => options,
        };
        let lines = Lines::new(options.clone());
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            // Should a transaction ever have been left open, nobody inherits it. This sees what sqlx counts; a BEGIN whose
            // future was dropped it does not count, which is why all transactions run by `to_the_end`.
            .after_release(|connection, _| {
                Box::pin(async move {
                    if connection.is_in_transaction() {
                        connection.execute("rollback").await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self(Arc::new(Inner { address: mask(url), namespace, pool, lines, recent: Recent::new() })))
    }

    async fn apply(&self) -> Result<Vec<Migration>, StoreError> {
        self.check_place().await?;
        let mut connection = self.0.pool.acquire().await.map_err(refused)?;
        let mut transaction = connection.begin().await.map_err(refused)?;
        // Whoever migrates at the same time waits here, and then finds nothing to do.
        for statement in [
            "set local lock_timeout = 0",
            "set local statement_timeout = 0",
            "select pg_advisory_xact_lock(hashtext('amends.migrate'))",
        ] {
            sqlx::query(statement).execute(&mut *transaction).await.map_err(refused)?;
        }
        self.make_schema(&mut transaction).await?;
        let table = "create table if not exists amends_migration (
             version    bigint      not null primary key,
             name       text        not null,
             applied_at timestamptz not null default clock_timestamp())";
        sqlx::query(table).execute(&mut *transaction).await.map_err(refused)?;
        let applied: Option<i64> = sqlx::query_scalar("select max(version) from amends_migration")
            .fetch_one(&mut *transaction)
            .await
            .map_err(refused)?;
        let pending = migrations::pending(MIGRATIONS, applied)?;
        for migration in &pending {
            sqlx::raw_sql(migration.sql).execute(&mut *transaction).await.map_err(refused)?;
            sqlx::query("insert into amends_migration (version, name) values ($1, $2)")
                .bind(migration.version)
                .bind(migration.name)
                .execute(&mut *transaction)
                .await
                .map_err(refused)?;
        }
        failpoint::reached_if(!pending.is_empty(), Point::Migration);
        transaction.commit().await.map_err(refused)?;
        Ok(pending.into_iter().map(Migration::from).collect())
    }

    /// Makes a namespace's schema. Asked for only where there is none: to ask again takes rights on the database, which
    /// whoever owns a schema that was made for them need not have.
    async fn make_schema(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let Some(schema) = self.0.namespace.schema().map(|schema| quoted(&schema)) else { return Ok(()) };
        let found: Option<String> = sqlx::query_scalar("select to_regnamespace($1)::text")
            .bind(&schema)
            .fetch_one(&mut *connection)
            .await
            .map_err(refused)?;
        if found.is_none() {
            let make = sqlx::AssertSqlSafe(format!("create schema {schema}"));
            sqlx::query(make).execute(connection).await.map_err(refused)?;
        }
        Ok(())
    }

    /// That connections lead where they should: a pooler in between may drop what they ask for when they open.
    async fn check_place(&self) -> Result<(), StoreError> {
        let Some(schema) = self.0.namespace.schema() else { return Ok(()) };
        let path: String = sqlx::query_scalar("select current_setting('search_path')")
            .fetch_one(&self.0.pool)
            .await
            .map_err(refused)?;
        if path.trim_matches('"') == schema {
            return Ok(());
        }
        Err(StoreError::Refused(format!(
            "connections lead to `{path}` instead of the schema `{schema}`: whatever is between here and PostgreSQL must \
             pass on the option search_path"
        )))
    }

    async fn applied(&self) -> Result<Option<i64>, StoreError> {
        let table: Option<String> = sqlx::query_scalar("select to_regclass('amends_migration')::text")
            .fetch_one(&self.0.pool)
            .await
            .map_err(refused)?;
        match table {
            None => Ok(None),
            Some(_) => sqlx::query_scalar("select max(version) from amends_migration")
                .fetch_one(&self.0.pool)
                .await
                .map_err(refused),
        }
    }
}

/// A schema's name as SQL takes it, also with `-` in it.
fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// An address without its password, also where it was not written as it should be.
fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".to_owned() };
    // A password that was not escaped may hold any of `@/?`, so what comes before the last `@` is not trusted.
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (user.split([':', '/', '?']).next().map(|name| (name, user.contains(':'))), host),
        None => (None, rest),
    };
    // A password may also stand among the parameters.
    let host = host.split('?').next().unwrap_or_default();
    // Without a host, `user:password` stands where host and port belong.
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !name.starts_with('[') && !port.split('/').next().is_some_and(is_number) => {
            format!("{name}:***")
        }
        _ => host.to_owned(),
    };
    match user {
        Some((name, true)) => format!("{scheme}://{name}:***@{host}"),
        Some((name, false)) => format!("{scheme}://{name}@{host}"),
        None => format!("{scheme}://{host}"),
    }
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What PostgreSQL says, as a caller needs to know it.
fn refused(error: sqlx::Error) -> StoreError {
    let text = error.to_string();
    match &error {
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // serialization_failure, deadlock_detected, lock_not_available.
            Some("40001" | "40P01" | "55P03") => StoreError::Conflict(text),
            // The server is going down, coming up, full, or out of connections; or it cut a session off.
            Some(code) if code.starts_with("57P") || code.starts_with("53") || code.starts_with("08") => {
                StoreError::Unavailable(text)
            }
            Some("57014" | "25P03" | "58030") => StoreError::Unavailable(text),
            _ => StoreError::Refused(text),
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Unavailable(text),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt(text),
        _ => StoreError::Refused(text),
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn archive(&self) -> Option<&dyn crate::store::archive::ArchiveStore> {
        Some(self)
    }

    fn tokens(&self) -> Option<&dyn crate::store::tokens::TokenStore> {
        Some(self)
    }

    fn pauses(&self) -> Option<&dyn crate::store::pauses::PauseStore> {
        Some(self)
    }

    fn bulk(&self) -> Option<&dyn crate::store::bulk::BulkStore> {
        Some(self)
    }

    fn data_keys(&self) -> Option<&dyn crate::store::data_keys::DataKeyStore> {
        Some(self)
    }

    fn webhooks(&self) -> Option<&dyn crate::store::webhooks::WebhookStore> {
        Some(self)
    }

    fn writes_at_once(&self) -> Option<usize> {
        // As many as a commit has at most of those that nobody asked for together.
        Some(128)
    }

    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let store = self.clone();
        to_the_end(async move { store.unit(wants, decide).await }).await
    }

    async fn saga(&self, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
        let store = self.clone();
        to_the_end(async move { read::saga(&store.0.pool, id).await }).await
    }

    async fn saga_by_key(&self, definition: &str, key: &str) -> Result<Option<SagaId>, StoreError> {
        let found: Option<uuid::Uuid> = sqlx::query_scalar(include_str!("sql/saga_by_key.sql"))
            .bind(definition)
            .bind(key)
            .fetch_optional(&self.0.pool)
            .await
            .map_err(refused)?;
        Ok(found.map(SagaId))
    }

    async fn sagas(&self, filter: &SagaFilter, page: &Page<SagaId>) -> Result<Vec<SagaSummary>, StoreError> {
        read::sagas(&self.0.pool, filter, page).await
    }

    async fn outbox(&self, filter: &OutboxFilter, page: &Page<CommandId>) -> Result<Vec<OutboxEntry>, StoreError> {
        read::outbox(&self.0.pool, filter, page).await
    }

    async fn commands(&self, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
        read::commands(&self.0.pool, ids).await
    }

    async fn settled(&self, ids: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        let (store, ids) = (self.clone(), ids.to_vec());
        to_the_end(async move { store.settled_of(&ids).await }).await
    }

    async fn pending(&self, after: Option<CommandId>, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        read::outbox(&self.0.pool, &filter, &Page { after, limit }).await
    }

    async fn history(&self, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
        read::history(&self.0.pool, id).await
    }

    async fn audits(&self, filter: &AuditFilter, page: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        read::audits(&self.0.pool, filter, page).await
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        read::counts(&self.0.pool).await
    }

    async fn state_counts(&self, most: u32) -> Result<Vec<StateCount>, StoreError> {
        overview::state_counts(&self.0.pool, most).await
    }

    async fn stuck_groups(&self, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
        overview::stuck_groups(&self.0.pool, most).await
    }

    async fn lifetimes(&self, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
        overview::lifetimes(&self.0.pool, since, most).await
    }

    async fn services(&self, most: u32) -> Result<Vec<Service>, StoreError> {
        overview::services(&self.0.pool, most).await
    }

    async fn revisions(&self, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
        overview::revisions(&self.0.pool, ids).await
    }

    async fn figures(&self, definition: &DefinitionRef, since: Option<Timestamp>) -> Result<Figures, StoreError> {
        figures::figures(&self.0.pool, definition, since).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        sqlx::query_scalar(
            "select min(due_at) from saga where due_slot = (select min(due_slot) from saga where due_slot is not null)",
        )
        .fetch_one(&self.0.pool)
        .await
        .map_err(refused)
    }

    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError> {
        let inserted = sqlx::query(
            "insert into definition (name, version, hash, source, registered_at, registered_by)
             values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
        )
        .bind(&definition.reference.name)
        .bind(crate::store::row::int(definition.reference.version))
        .bind(definition.hash.as_slice())
        .bind(&definition.source)
        .bind(definition.registered_at)
        .bind(&definition.registered_by)
        .execute(&self.0.pool)
        .await
        .map_err(refused)?;
        if inserted.rows_affected() == 1 {
            return Ok(Registration::New);
        }
        match self.definition(&definition.reference).await? {
            Some(known) if known.hash == definition.hash => Ok(Registration::Same(known)),
            Some(known) => Ok(Registration::Different(known)),
            None => Err(StoreError::Conflict("the definition vanished".to_owned())),
        }
    }

    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError> {
        let all = read::definitions(&self.0.pool, Some(&reference.name)).await?;
        Ok(all.into_iter().find(|record| record.reference == *reference))
    }

    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
        read::definitions(&self.0.pool, name).await
    }

    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError> {
        let rows: Vec<(String, i32)> = sqlx::query_as(include_str!("sql/newest.sql"))
            .bind(names)
            .fetch_all(&self.0.pool)
            .await
            .map_err(refused)?;
        let newest =
            |(name, version)| Ok(DefinitionRef { name, version: crate::store::row::number::<i32, u32>(version)? });
        rows.into_iter().map(newest).collect()
    }

    async fn token_keys(&self, fresh: [u8; 32]) -> Result<Vec<TokenKey>, StoreError> {
        sqlx::query(
            "insert into token_key (id, secret, created_at)
             select 1, $1, clock_timestamp() where not exists (select from token_key) on conflict do nothing",
        )
        .bind(fresh.as_slice())
        .execute(&self.0.pool)
        .await
        .map_err(refused)?;
        let rows: Vec<(i16, Vec<u8>)> =
            sqlx::query_as("select id, secret from token_key").fetch_all(&self.0.pool).await.map_err(refused)?;
        rows.into_iter()
            .map(|(id, secret)| {
                let secret = secret.try_into().map_err(|_| StoreError::Corrupt("a token key".to_owned()))?;
                Ok(TokenKey { id: crate::store::row::number(id)?, secret })
            })
            .collect()
    }

    async fn health(&self) -> Result<StoreHealth, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "select name, setting from pg_settings
             where name in ('fsync', 'synchronous_commit', 'full_page_writes') order by name",
        )
        .fetch_all(&self.0.pool)
        .await
        .map_err(refused)?;
        let is_durable = rows.iter().all(|(_, setting)| setting != "off");
        let (version, now): (String, Timestamp) =
            sqlx::query_as("select current_setting('server_version'), clock_timestamp()")
                .fetch_one(&self.0.pool)
                .await
                .map_err(refused)?;
        Ok(StoreHealth {
            server: format!("PostgreSQL {version}"),
            schema_version: self.applied().await?,
            program_version: migrations::newest(MIGRATIONS),
            is_durable,
            durability: rows,
            now,
        })
    }

    async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        let store = self.clone();
        to_the_end(async move { store.apply().await }).await
    }

    async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError> {
        let pending = migrations::pending(MIGRATIONS, self.applied().await?)?;
        Ok(pending.into_iter().map(Migration::from).collect())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.check_place().await?;
        let Inner { address, namespace, .. } = &*self.0;
        let place = match namespace.is_default() {
            true => address.clone(),
            false => format!("{address} --namespace {namespace}"),
        };
        migrations::check(MIGRATIONS, self.applied().await?, &place)
    }

    async fn close(&self) {
        self.0.lines.close().await;
        self.0.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(mask("postgres://anna:secret@host:5432/db"), "postgres://anna:***@host:5432/db");
        assert_eq!(mask("postgres://anna@host/db?password=secret"), "postgres://anna@host/db");
        assert_eq!(mask("postgres://host"), "postgres://host");
        assert_eq!(mask("anna:secret"), "(not a URL)");
        assert_eq!(mask("postgres://anna:se/cr@et?x@host/db?a=b"), "postgres://anna:***@host/db");
        assert_eq!(mask("postgres://anna:secret"), "postgres://anna:***");
        assert_eq!(mask("postgres://anna@[::1]:5432/db"), "postgres://anna@[::1]:5432/db");
        assert_eq!(mask("postgres://host/db?user=a:b&password=secret@x"), "postgres://host:***@x");
    }
}
