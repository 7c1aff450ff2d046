//! State in SQLite: the embedded mode. One writer, whose batches are a few statements per table; the next batch is decided
//! and bound while it writes. Readers beside it see the last commit.

mod archive;
mod bulk;
mod data_keys;
mod figures;
mod hand;
mod overview;
mod pauses;
mod read;
mod rows;
mod tokens;
mod unit;
mod webhooks;
mod write;
mod writer;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Row};
use tokio::sync::Mutex;

use self::hand::Hand;
use self::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::failpoint::{self, Point};
use crate::id::{CommandId, DefinitionRef, SagaId};
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
    Known { version: 1, name: "initial", sql: include_str!("../../../migrations/sqlite/0001_initial.sql") },
    Known {
        version: 2,
        name: "signals_and_parents",
        sql: include_str!("../../../migrations/sqlite/0002_signals_and_parents.sql"),
    },
    Known { version: 3, name: "deprecations", sql: include_str!("../../../migrations/sqlite/0003_deprecations.sql") },
    Known { version: 4, name: "archive", sql: include_str!("../../../migrations/sqlite/0004_archive.sql") },
    Known { version: 5, name: "due_slot", sql: include_str!("../../../migrations/sqlite/0005_due_slot.sql") },
    Known { version: 6, name: "tokens", sql: include_str!("../../../migrations/sqlite/0006_tokens.sql") },
    Known { version: 7, name: "bulk", sql: include_str!("../../../migrations/sqlite/0007_bulk.sql") },
    Known {
        version: 8,
        name: "participant_pause",
        sql: include_str!("../../../migrations/sqlite/0008_participant_pause.sql"),
    },
    Known { version: 9, name: "data_keys", sql: include_str!("../../../migrations/sqlite/0009_data_keys.sql") },
    Known { version: 10, name: "webhooks", sql: include_str!("../../../migrations/sqlite/0010_webhooks.sql") },
];

/// How long to wait for another process that holds the file.
const BUSY: Duration = Duration::from_secs(5);
/// How long to wait before asking again where SQLite does not wait by itself.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
const READERS: u32 = 4;
/// Bytes of a page of a new file: with larger ones than 4,096 a commit writes fewer, and with 16,384 its rows are copied more.
const PAGE: u32 = 8_192;
/// Prepared statements that a connection keeps, those over many rows in all their sizes.
const STATEMENTS: usize = 256;
/// What a batch has at least to be decided ahead of its turn.
const WORTH_WHILE: usize = 192;

/// A store in one file.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    address: String,
    clock: Clock,
    /// The order of units of work.
    turns: Arc<Mutex<()>>,
    writer: Writer,
    hand: Hand,
    readers: SqlitePool,
    recent: Recent,
}

impl SqliteStore {
    /// Opens `sqlite://FILE`, making the file where there is none. Commits are synced to disk.
    ///
    /// # Errors
    /// [`StoreError::Address`], or [`StoreError::Unavailable`] when the file cannot be opened.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_with_clock(url, Clock::System).await
    }

    /// The same, going by another clock than the machine's.
    ///
    /// # Errors
    /// As [`SqliteStore::connect`].
    pub async fn connect_with_clock(url: &str, clock: Clock) -> Result<Self, StoreError> {
        let address = |problem: String| StoreError::Address { address: url.to_owned(), problem };
        if url.strip_prefix("sqlite://").is_none_or(str::is_empty) {
            return Err(address("expected sqlite://FILE".to_owned()));
        }
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err(address("a database in memory is not durable: use a file, or memory: for tests".to_owned()));
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| address(error.to_string()))?
            .create_if_missing(true)
            .page_size(PAGE)
            .statement_cache_capacity(STATEMENTS)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        let unavailable = |error: sqlx::Error| StoreError::Unavailable(format!("{url}: {error}"));
        let (writer, readers) = open(&options).await.map_err(unavailable)?;
        let hand = Hand::new().map_err(|error| StoreError::Unavailable(format!("{url}: a thread: {error}")))?;
        let (address, turns, recent) = (url.to_owned(), Arc::default(), Recent::new());
        Ok(Self(Arc::new(Inner { address, clock, turns, writer, hand, readers, recent })))
    }

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Vec<Migration>, StoreError> {
        let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
        let applied: i64 = sqlx::query_scalar("select user_version from pragma_user_version")
            .fetch_one(&mut *transaction)
            .await
            .map_err(refused)?;
        let pending = migrations::pending(MIGRATIONS, (applied > 0).then_some(applied))?;
        for migration in &pending {
            sqlx::raw_sql(migration.sql).execute(&mut *transaction).await.map_err(refused)?;
            let version = sqlx::AssertSqlSafe(format!("pragma user_version = {}", migration.version));
            sqlx::raw_sql(version).execute(&mut *transaction).await.map_err(refused)?;
        }
        failpoint::reached_if(!pending.is_empty(), Point::Migration);
        transaction.commit().await.map_err(refused)?;
        Ok(pending.into_iter().map(Migration::from).collect())
    }

    async fn insert_definition(
        &self,
        connection: &mut SqliteConnection,
        definition: &DefinitionRecord,
    ) -> Result<bool, StoreError> {
        let inserted = sqlx::query(
            "insert into definition (name, version, hash, source, registered_at, registered_by)
             values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
        )
        .bind(&definition.reference.name)
        .bind(definition.reference.version)
        .bind(definition.hash.as_slice())
        .bind(&definition.source)
        .bind(definition.registered_at.timestamp_micros())
        .bind(&definition.registered_by)
        .execute(connection)
        .await
        .map_err(refused)?;
        Ok(inserted.rows_affected() == 1)
    }

    async fn insert_token_key(
        &self,
        connection: &mut SqliteConnection,
        fresh: [u8; 32],
    ) -> Result<Vec<TokenKey>, StoreError> {
        sqlx::query(
            "insert into token_key (id, secret, created_at)
             select 1, $1, $2 where not exists (select 1 from token_key)",
        )
        .bind(fresh.as_slice())
        .bind(self.0.clock.now().timestamp_micros())
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
        let rows =
            sqlx::query("select id, secret from token_key").fetch_all(&mut *connection).await.map_err(refused)?;
        rows.into_iter()
            .map(|row| {
                let secret: Vec<u8> = row.try_get("secret").map_err(refused)?;
                let secret = secret.try_into().map_err(|_| StoreError::Corrupt("a token key".to_owned()))?;
                Ok(TokenKey { id: row.try_get("id").map_err(refused)?, secret })
            })
            .collect()
    }

    async fn applied(&self) -> Result<Option<i64>, StoreError> {
        let version: i64 = sqlx::query_scalar("select user_version from pragma_user_version")
            .fetch_one(&self.0.readers)
            .await
            .map_err(refused)?;
        Ok((version > 0).then_some(version))
    }
}

/// Opens the writer and the readers. Processes that turn one new file to write-ahead logging at the same time are told
/// "locked" at once, without the wait that the busy time-out promises, since each holds what the other waits for.
async fn open(options: &SqliteConnectOptions) -> Result<(Writer, SqlitePool), sqlx::Error> {
    let end = tokio::time::Instant::now() + BUSY;
    loop {
        match try_open(options).await {
            Err(error) if is_busy(&error) && tokio::time::Instant::now() < end => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn try_open(options: &SqliteConnectOptions) -> Result<(Writer, SqlitePool), sqlx::Error> {
    let writer = Writer::open(options.clone()).await?;
    let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options.clone()).await?;
    Ok((writer, readers))
}

/// SQLITE_BUSY or SQLITE_LOCKED.
fn is_busy(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if matches!(kind(error.as_ref()), Some(5 | 6)))
}

/// The low byte of an extended result code is the kind of error.
fn kind(error: &dyn sqlx::error::DatabaseError) -> Option<i32> {
    error.code()?.parse().ok().map(|code: i32| code & 0xff)
}

/// What SQLite says, as a caller needs to know it.
fn refused(error: sqlx::Error) -> StoreError {
    let text = error.to_string();
    match &error {
        sqlx::Error::Database(database) => {
            match kind(database.as_ref()) {
                // SQLITE_BUSY, SQLITE_LOCKED.
                Some(5 | 6) => StoreError::Conflict(text),
                // SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN: mended from outside, then it goes on.
                Some(10 | 13 | 14) => StoreError::Unavailable(text),
                // SQLITE_CORRUPT, SQLITE_NOTADB.
                Some(11 | 26) => StoreError::Corrupt(text),
                _ => StoreError::Refused(text),
            }
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreError::Unavailable(text)
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreError::Corrupt(text),
        _ => StoreError::Refused(text),
    }
}

/// Times are kept in microseconds.
fn time(micros: i64) -> Result<Timestamp, StoreError> {
    chrono::DateTime::from_timestamp_micros(micros)
        .ok_or_else(|| StoreError::Corrupt(format!("{micros} microseconds is no time")))
}

#[async_trait]
impl Store for SqliteStore {
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

    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        self.in_turn(wants, decide).await
    }

    fn decides_ahead(&self) -> Option<usize> {
        Some(WORTH_WHILE)
    }

    async fn saga(&self, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
        let store = self.clone();
        to_the_end(async move { read::saga(&store.0.readers, id).await }).await
    }

    async fn saga_by_key(&self, definition: &str, key: &str) -> Result<Option<SagaId>, StoreError> {
        let found: Option<uuid::Uuid> = sqlx::query_scalar(include_str!("sql/saga_by_key.sql"))
            .bind(definition)
            .bind(key)
            .fetch_optional(&self.0.readers)
            .await
            .map_err(refused)?;
        Ok(found.map(SagaId))
    }

    async fn sagas(&self, filter: &SagaFilter, page: &Page<SagaId>) -> Result<Vec<SagaSummary>, StoreError> {
        read::sagas(&self.0.readers, filter, page).await
    }

    async fn outbox(&self, filter: &OutboxFilter, page: &Page<CommandId>) -> Result<Vec<OutboxEntry>, StoreError> {
        read::outbox(&self.0.readers, filter, page).await
    }

    async fn commands(&self, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
        read::commands(&self.0.readers, ids).await
    }

    /// None: a file has one coordinator as a rule, which knows what it has settled.
    async fn settled(&self, _: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        Ok(Vec::new())
    }

    async fn pending(&self, after: Option<CommandId>, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        read::outbox(&self.0.readers, &filter, &Page { after, limit }).await
    }

    async fn history(&self, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
        read::history(&self.0.readers, id).await
    }

    async fn audits(&self, filter: &AuditFilter, page: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        read::audits(&self.0.readers, filter, page).await
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        read::counts(&self.0.readers).await
    }

    async fn state_counts(&self, most: u32) -> Result<Vec<StateCount>, StoreError> {
        overview::state_counts(&self.0.readers, most).await
    }

    async fn stuck_groups(&self, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
        overview::stuck_groups(&self.0.readers, most).await
    }

    async fn lifetimes(&self, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
        overview::lifetimes(&self.0.readers, since, most).await
    }

    async fn services(&self, most: u32) -> Result<Vec<Service>, StoreError> {
        overview::services(&self.0.readers, most).await
    }

    async fn revisions(&self, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
        overview::revisions(&self.0.readers, ids).await
    }

    async fn figures(&self, definition: &DefinitionRef, since: Option<Timestamp>) -> Result<Figures, StoreError> {
        figures::figures(&self.0.readers, definition, since).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        let due: Option<i64> = sqlx::query_scalar("select min(due_at) from saga where due_at is not null")
            .fetch_one(&self.0.readers)
            .await
            .map_err(refused)?;
        due.map(time).transpose()
    }

    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError> {
        let (store, new) = (self.clone(), definition.clone());
        let is_new = to_the_end(async move {
            let mut lent = store.0.writer.lend().await?;
            let outcome = store.insert_definition(&mut lent.connection, &new).await;
            lent.give_back(outcome).await
        });
        if is_new.await? {
            return Ok(Registration::New);
        }
        match self.definition(&definition.reference).await? {
            Some(known) if known.hash == definition.hash => Ok(Registration::Same(known)),
            Some(known) => Ok(Registration::Different(known)),
            None => Err(StoreError::Conflict("the definition vanished".to_owned())),
        }
    }

    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError> {
        let all = read::definitions(&self.0.readers, Some(&reference.name)).await?;
        Ok(all.into_iter().find(|record| record.reference == *reference))
    }

    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
        read::definitions(&self.0.readers, name).await
    }

    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError> {
        let mut newest = Vec::new();
        for name in names {
            let version: Option<u32> = sqlx::query_scalar(include_str!("sql/newest.sql"))
                .bind(name)
                .fetch_one(&self.0.readers)
                .await
                .map_err(refused)?;
            newest.extend(version.map(|version| DefinitionRef { name: name.clone(), version }));
        }
        Ok(newest)
    }

    async fn token_keys(&self, fresh: [u8; 32]) -> Result<Vec<TokenKey>, StoreError> {
        let store = self.clone();
        to_the_end(async move {
            let mut lent = store.0.writer.lend().await?;
            let outcome = store.insert_token_key(&mut lent.connection, fresh).await;
            lent.give_back(outcome).await
        })
        .await
    }

    async fn health(&self) -> Result<StoreHealth, StoreError> {
        let pragma = |sql: &'static str| async move {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.0.readers).await.map_err(refused)
        };
        let synchronous = pragma("select synchronous from pragma_synchronous").await?;
        let journal: String = sqlx::query_scalar("select journal_mode from pragma_journal_mode")
            .fetch_one(&self.0.readers)
            .await
            .map_err(refused)?;
        let version: String =
            sqlx::query_scalar("select sqlite_version()").fetch_one(&self.0.readers).await.map_err(refused)?;
        Ok(StoreHealth {
            server: format!("SQLite {version}"),
            schema_version: self.applied().await?,
            program_version: migrations::newest(MIGRATIONS),
            is_durable: synchronous >= 2,
            durability: vec![
                ("synchronous".to_owned(), if synchronous >= 2 { "full" } else { "not full" }.to_owned()),
                ("journal_mode".to_owned(), journal),
            ],
            now: self.0.clock.now(),
        })
    }

    async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        let store = self.clone();
        to_the_end(async move {
            let mut lent = store.0.writer.lend().await?;
            let outcome = store.apply(&mut lent.connection).await;
            lent.give_back(outcome).await
        })
        .await
    }

    async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError> {
        let pending = migrations::pending(MIGRATIONS, self.applied().await?)?;
        Ok(pending.into_iter().map(Migration::from).collect())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        migrations::check(MIGRATIONS, self.applied().await?, &self.0.address)
    }

    async fn close(&self) {
        self.0.readers.close().await;
        // The last connection to go puts the write-ahead log into the file and removes it.
        self.0.writer.close().await;
    }
}
