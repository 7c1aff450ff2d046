//! Finished sagas out of the file, and back. Rows are read and written by the types of their columns, so that a column
//! that a later migration adds is archived like the others.

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe, Column, Connection, Row as _, SqliteConnection, TypeInfo, ValueRef};
use uuid::Uuid;

use super::{SqliteStore, refused, time};
use crate::clock::{Timestamp, after};
use crate::failpoint::{self, Point};
use crate::id::SagaId;
use crate::store::archive::{
    ArchiveStore, ArchivedKey, ArchivedSaga, Family, Removed, Restored, Row, Stored, removable,
};
use crate::store::task::to_the_end;
use crate::store::{StoreError, row};

/// How a column goes into JSON and comes out of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Time,
    Id,
    Hash,
    Truth,
    Plain,
}

impl Form {
    fn of(column: &str) -> Self {
        match column {
            "steps" | "stuck" | "cause" | "input" | "output" | "signals" | "parent" | "body" | "problem" | "event"
            | "detail" => Self::Json,
            "id" | "saga_id" => Self::Id,
            "input_hash" => Self::Hash,
            "paused" | "reads_outputs" => Self::Truth,
            "at" => Self::Time,
            other if other.ends_with("_at") => Self::Time,
            _ => Self::Plain,
        }
    }
}

#[async_trait]
impl ArchiveStore for SqliteStore {
    async fn lease(&self, holder: Uuid, seconds: u32) -> Result<bool, StoreError> {
        let now = self.0.clock.now();
        let until = after(now, std::time::Duration::from_secs(seconds.into()));
        self.write(move |connection| {
            Box::pin(async move {
                let taken = sqlx::query(include_str!("sql/archive_lease.sql"))
                    .bind(holder)
                    .bind(until.timestamp_micros())
                    .bind(now.timestamp_micros());
                Ok(taken.execute(connection).await.map_err(refused)?.rows_affected() == 1)
            })
        })
        .await
    }

    async fn archivable(
        &self,
        cutoff: Timestamp,
        after: Option<SagaId>,
        limit: u32,
    ) -> Result<Vec<SagaId>, StoreError> {
        let ids: Vec<Uuid> = sqlx::query_scalar(include_str!("sql/archivable.sql"))
            .bind(cutoff.timestamp_micros())
            .bind(after.map_or(Uuid::nil(), |after| after.0))
            .bind(SagaId::first_at(cutoff.timestamp_millis()).0)
            .bind(limit)
            .fetch_all(&self.0.readers)
            .await
            .map_err(refused)?;
        Ok(ids.into_iter().map(SagaId).collect())
    }

    async fn families(&self, roots: &[SagaId], cutoff: Timestamp) -> Result<Vec<Family>, StoreError> {
        let store = self.clone();
        let roots: Vec<String> = roots.iter().map(|id| id.0.simple().to_string()).collect();
        to_the_end(async move {
            // One read transaction, so that all of it is of one moment.
            let mut snapshot = store.0.readers.begin().await.map_err(refused)?;
            let members: Vec<(Uuid, Uuid)> = sqlx::query_as(include_str!("sql/families.sql"))
                .bind(row::json(&roots))
                .bind(cutoff.timestamp_micros())
                .fetch_all(&mut *snapshot)
                .await
                .map_err(refused)?;
            let mut families: Vec<(Uuid, Family)> = Vec::new();
            for (root, id) in members {
                let saga = read(&mut snapshot, id).await?;
                match families.last_mut() {
                    Some((last, family)) if *last == root => family.sagas.push(saga),
                    _ => families.push((root, Family { sagas: vec![saga] })),
                }
            }
            snapshot.rollback().await.map_err(refused)?;
            Ok(families.into_iter().map(|(_, family)| family).collect())
        })
        .await
    }

    async fn remove(&self, families: &[Family]) -> Result<Removed, StoreError> {
        let (now, families) = (self.0.clock.now(), families.to_vec());
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let removed = remove(&mut transaction, &families, now).await?;
                failpoint::reached(Point::ArchiveBeforeRemoval);
                transaction.commit().await.map_err(refused)?;
                Ok(removed)
            })
        })
        .await
    }

    async fn restore(&self, families: &[Family], dry: bool) -> Result<Restored, StoreError> {
        let families = families.to_vec();
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let mut all = Restored::default();
                for family in &families {
                    restore(&mut transaction, family, dry, &mut all).await?;
                }
                transaction.commit().await.map_err(refused)?;
                Ok(all)
            })
        })
        .await
    }

    async fn archived(&self, id: SagaId) -> Result<Option<ArchivedKey>, StoreError> {
        type Columns = (String, String, Uuid, i32, String, i64, i64, i64);
        let found: Option<Columns> = sqlx::query_as(
            "select definition_name, key, saga_id, definition_version, state, created_at, ended_at, archived_at
             from archived_key where saga_id = $1",
        )
        .bind(id.0)
        .fetch_optional(&self.0.readers)
        .await
        .map_err(refused)?;
        let read = |(definition, key, id, version, state, created, ended, archived)| {
            Ok(ArchivedKey {
                definition,
                key,
                id: SagaId(id),
                version: row::number::<i32, u32>(version)?,
                state,
                created_at: time(created)?,
                ended_at: time(ended)?,
                archived_at: time(archived)?,
            })
        };
        found.map(read).transpose()
    }

    async fn forget_keys(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let forgotten = sqlx::query(
                    "delete from archived_key where (definition_name, key) in (
                     select definition_name, key from archived_key where ended_at < $1 limit $2)",
                )
                .bind(before.timestamp_micros())
                .bind(limit);
                Ok(forgotten.execute(connection).await.map_err(refused)?.rows_affected())
            })
        })
        .await
    }

    async fn forget_jobs(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin_with("begin immediate").await.map_err(refused)?;
                let mut forgotten = 0;
                for sql in [
                    "delete from bulk_item where job_id in (
                         select id from bulk_job where ended_at < $1 and check_due is null order by id limit $2)",
                    "delete from bulk_job where id in (
                         select id from bulk_job where ended_at < $1 and check_due is null order by id limit $2)",
                ] {
                    let query = sqlx::query(sql).bind(before.timestamp_micros()).bind(limit);
                    forgotten = query.execute(&mut *transaction).await.map_err(refused)?.rows_affected();
                }
                transaction.commit().await.map_err(refused)?;
                Ok(forgotten)
            })
        })
        .await
    }
}

impl SqliteStore {
    /// Lends the writer to `work`, which runs to its end.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        to_the_end(async move {
            let mut lent = store.0.writer.lend().await?;
            let outcome = work(&mut lent.connection).await;
            lent.give_back(outcome).await
        })
        .await
    }
}

async fn read(connection: &mut SqliteConnection, id: Uuid) -> Result<ArchivedSaga, StoreError> {
    let mut tables = Vec::new();
    for sql in [
        "select * from saga where id = $1",
        "select * from outbox where saga_id = $1 order by seq",
        "select * from history where saga_id = $1 order by revision",
        "select * from audit where saga_id = $1 order by id",
    ] {
        let rows = sqlx::query(sql).bind(id).fetch_all(&mut *connection).await.map_err(refused)?;
        tables.push(rows.iter().map(to_json).collect::<Result<Vec<Row>, _>>()?);
    }
    let mut tables = tables.into_iter();
    let mut next = || tables.next().unwrap_or_default();
    let saga = next().pop().ok_or_else(|| StoreError::Conflict(format!("saga {id} vanished")))?;
    Ok(ArchivedSaga { saga, outbox: next(), history: next(), audit: next() })
}

fn to_json(row: &SqliteRow) -> Result<Row, StoreError> {
    let mut all = Row::new();
    for (at, column) in row.columns().iter().enumerate() {
        let name = column.name();
        let raw = row.try_get_raw(at).map_err(refused)?;
        let corrupt = |error: serde_json::Error| StoreError::Corrupt(format!("column {name}: {error}"));
        let value = if raw.is_null() {
            to_raw_value(&Value::Null)
        } else {
            let kind = raw.type_info().name().to_owned();
            match (Form::of(name), kind.as_str()) {
                (Form::Json, _) => RawValue::from_string(row.try_get(at).map_err(refused)?),
                (Form::Time, _) => to_raw_value(&time(row.try_get(at).map_err(refused)?)?),
                (Form::Truth, _) => to_raw_value(&row.try_get::<bool, _>(at).map_err(refused)?),
                (Form::Id, "BLOB") => to_raw_value(&row.try_get::<Uuid, _>(at).map_err(refused)?),
                (Form::Hash, _) => {
                    let hash: Vec<u8> = row.try_get(at).map_err(refused)?;
                    to_raw_value(&format!("\\x{}", hex::encode(hash)))
                }
                (_, "INTEGER") => to_raw_value(&row.try_get::<i64, _>(at).map_err(refused)?),
                _ => to_raw_value(&row.try_get::<String, _>(at).map_err(refused)?),
            }
        };
        all.insert(name.to_owned(), value.map_err(corrupt)?);
    }
    Ok(all)
}

async fn remove(connection: &mut SqliteConnection, families: &[Family], now: Timestamp) -> Result<Removed, StoreError> {
    let all = row::json(&ids(families)?);
    let stored: Vec<Stored> = sqlx::query_as(include_str!("sql/archive_stored.sql"))
        .bind(all)
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let (ids, removed) = removable(families, stored)?;
    let ids = row::json(&ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>());
    let remember = sqlx::query(
        "insert into archived_key (definition_name, key, saga_id, definition_version, state, input_hash, created_at, ended_at, archived_at)
         select definition_name, key, id, definition_version, state, input_hash, created_at, ended_at, $2
         from saga where id in (select unhex(value) from json_each($1)) and key is not null",
    );
    remember.bind(&ids).bind(now.timestamp_micros()).execute(&mut *connection).await.map_err(refused)?;
    for sql in [
        "delete from outbox where saga_id in (select unhex(value) from json_each($1))",
        "delete from history where saga_id in (select unhex(value) from json_each($1))",
        "delete from audit where saga_id in (select unhex(value) from json_each($1))",
        "delete from saga where id in (select unhex(value) from json_each($1))",
    ] {
        sqlx::query(sql).bind(&ids).execute(&mut *connection).await.map_err(refused)?;
    }
    Ok(removed)
}

async fn restore(
    connection: &mut SqliteConnection,
    family: &Family,
    dry: bool,
    all: &mut Restored,
) -> Result<(), StoreError> {
    let count = family.sagas.len() as u64;
    let is_there: bool =
        sqlx::query_scalar("select exists (select 1 from saga where id in (select unhex(value) from json_each($1)))")
            .bind(row::json(&ids(std::slice::from_ref(family))?))
            .fetch_one(&mut *connection)
            .await
            .map_err(refused)?;
    if is_there {
        all.present += count;
        return Ok(());
    }
    for saga in &family.sagas {
        let head = saga.head()?;
        let is_taken: bool = sqlx::query_scalar(include_str!("sql/restore_taken.sql"))
            .bind(&head.saga)
            .bind(&head.key)
            .bind(head.id.0)
            .fetch_one(&mut *connection)
            .await
            .map_err(refused)?;
        if is_taken {
            all.key_taken += count;
            return Ok(());
        }
    }
    all.restored += count;
    if dry {
        return Ok(());
    }
    for saga in &family.sagas {
        let head = saga.head()?;
        sqlx::query("delete from archived_key where definition_name = $1 and key = $2 and saga_id = $3")
            .bind(&head.saga)
            .bind(&head.key)
            .bind(head.id.0)
            .execute(&mut *connection)
            .await
            .map_err(refused)?;
        insert(connection, "saga", &saga.saga).await?;
        for (table, rows) in [("outbox", &saga.outbox), ("history", &saga.history), ("audit", &saga.audit)] {
            for row in rows {
                insert(connection, table, row).await?;
            }
        }
    }
    Ok(())
}

/// Inserts what the table has columns for.
async fn insert(connection: &mut SqliteConnection, table: &'static str, row: &Row) -> Result<(), StoreError> {
    let columns: Vec<String> = sqlx::query_scalar("select name from pragma_table_info($1)")
        .bind(table)
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let mut names = Vec::new();
    let mut arguments = SqliteArguments::default();
    for name in columns {
        // Audit rows are numbered anew: the numbers are of the store that gave them.
        let Some(raw) = row.get(&name).filter(|_| !(table == "audit" && name == "id")) else { continue };
        let corrupt = |why: String| StoreError::Corrupt(format!("an archived {table}.{name}: {why}"));
        let value: Value = serde_json::from_str(raw.get()).map_err(|error| corrupt(error.to_string()))?;
        let text = value.as_str();
        let added = match Form::of(&name) {
            _ if value.is_null() => arguments.add(None::<String>),
            Form::Json => arguments.add(raw.get().to_owned()),
            Form::Time => {
                let at = text.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
                arguments.add(at.ok_or_else(|| corrupt("not a time".to_owned()))?.timestamp_micros())
            }
            Form::Id => {
                let id = text.and_then(|text| Uuid::parse_str(text).ok());
                arguments.add(id.ok_or_else(|| corrupt("not an id".to_owned()))?)
            }
            Form::Hash => {
                let hash = text.and_then(|text| text.strip_prefix("\\x")).and_then(|text| hex::decode(text).ok());
                arguments.add(hash.ok_or_else(|| corrupt("not a hash".to_owned()))?)
            }
            Form::Truth => arguments.add(value.as_bool().unwrap_or_default()),
            Form::Plain => match (value.as_i64(), text) {
                (Some(number), _) => arguments.add(number),
                (None, Some(text)) => arguments.add(text.to_owned()),
                (None, None) => return Err(corrupt("neither a number nor text".to_owned())),
            },
        };
        added.map_err(|error| corrupt(error.to_string()))?;
        names.push(name);
    }
    let places = (1..=names.len()).map(|at| format!("${at}")).collect::<Vec<_>>().join(", ");
    // The names are those of the table itself.
    let sql = AssertSqlSafe(format!("insert into {table} ({}) values ({places})", names.join(", ")));
    sqlx::query_with(sql, arguments).execute(&mut *connection).await.map_err(refused)?;
    Ok(())
}

fn ids(families: &[Family]) -> Result<Vec<String>, StoreError> {
    let all = families.iter().flat_map(|family| &family.sagas);
    all.map(|saga| Ok(saga.head()?.id.0.simple().to_string())).collect()
}
