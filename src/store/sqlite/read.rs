//! The read side.

use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use uuid::Uuid;

use super::write::saga as read_saga;
use super::{refused, time};
use crate::id::{CommandId, DefinitionRef, SagaId};
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::overview::SEARCHED;
use crate::store::row::{self, OutboxRow};
use crate::store::{
    AuditFilter, AuditRecord, DefinitionRecord, HistoryRecord, OutboxEntry, OutboxFilter, Page, SagaCount, SagaFilter,
    SagaRecord, SagaSummary, StoreError,
};

/// Greater than every id. Bound where no cursor is given, so that the statement can always go by the index.
const AFTER_ALL: [u8; 17] = [0xff; 17];

pub(super) async fn saga(pool: &SqlitePool, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
    // One read transaction, so that the saga and its commands are of one moment.
    let mut snapshot = pool.begin().await.map_err(refused)?;
    let found =
        sqlx::query(include_str!("sql/saga.sql")).bind(id.0).fetch_optional(&mut *snapshot).await.map_err(refused)?;
    let Some(found) = found else { return Ok(None) };
    let mut saga: Saga = read_saga(&found, 0)?;
    let rows =
        sqlx::query(include_str!("sql/entries.sql")).bind(id.0).fetch_all(&mut *snapshot).await.map_err(refused)?;
    let commands = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    crate::store::put_outputs(&mut saga, &commands);
    Ok(Some(SagaRecord { saga, commands }))
}

pub(super) async fn sagas(
    pool: &SqlitePool,
    filter: &SagaFilter,
    page: &Page<SagaId>,
) -> Result<Vec<SagaSummary>, StoreError> {
    // What is asked most often has a statement of its own that goes by an index, however many sagas there are.
    let indexed = match filter {
        filter if !filter.is_plain() => None,
        SagaFilter { key: Some(_), .. } => Some(include_str!("sql/sagas_by_key.sql")),
        filter if filter.is_live() => Some(include_str!("sql/sagas_live.sql")),
        _ => None,
    };
    if let Some(sql) = indexed {
        let rows = sqlx::query(sql)
            .bind(&filter.definition)
            .bind((!filter.states.is_empty()).then(|| row::json(&filter.states)))
            .bind(&filter.key)
            .bind(filter.since.map(|since| since.timestamp_micros()))
            .bind(filter.paused)
            .bind(page.after.map_or_else(|| AFTER_ALL.to_vec(), |after| after.0.as_bytes().to_vec()))
            .bind(page.limit)
            .fetch_all(pool)
            .await
            .map_err(refused)?;
        return rows.iter().map(|row| Ok(SagaSummary { saga: read_saga(row, 0)? })).collect();
    }
    let rows = sqlx::query(include_str!("sql/sagas.sql"))
        .bind(&filter.definition)
        .bind((!filter.states.is_empty()).then(|| row::json(&filter.states)))
        .bind(&filter.key)
        .bind(filter.since.map(|since| since.timestamp_micros()))
        .bind(filter.paused)
        .bind(page.after.map_or_else(|| AFTER_ALL.to_vec(), |after| after.0.as_bytes().to_vec()))
        .bind(page.limit)
        .bind(filter.version)
        .bind(filter.until.map(|until| until.timestamp_micros()))
        .bind(&filter.step_status)
        .bind(&filter.error_type)
        .bind(filter.stuck_step)
        .bind(filter.field.as_ref().map(|field| path(&field.path)))
        .bind(if filter.is_search() { SEARCHED } else { page.limit })
        .bind(filter.field.as_ref().map(|field| &field.value))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.iter().map(|row| Ok(SagaSummary { saga: read_saga(row, 0)? })).collect()
}

/// A path as SQLite's JSON functions write it. A name with a quotation mark cannot be written: no field has it.
fn path(names: &[String]) -> String {
    let mut path = "$".to_owned();
    for name in names {
        let name = if name.contains('"') { "\u{fffd}" } else { name.as_str() };
        path.push_str(&format!(".\"{name}\""));
    }
    path
}

pub(super) async fn outbox(
    pool: &SqlitePool,
    filter: &OutboxFilter,
    page: &Page<CommandId>,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let query = match filter.pending {
        Some(true) => sqlx::query(include_str!("sql/pending.sql")),
        other => sqlx::query(include_str!("sql/outbox.sql")).bind(other.map(|_| "VERIFIED")),
    };
    let (after_saga, after_seq) =
        page.after.map_or((Vec::new(), 0), |after| (after.saga.0.as_bytes().to_vec(), after.seq.0));
    let rows = query
        .bind(filter.saga.map(|saga| saga.0))
        .bind(&filter.participant)
        .bind(after_saga)
        .bind(after_seq)
        .bind(page.limit)
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.iter().map(entry).collect()
}

pub(super) async fn commands(pool: &SqlitePool, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
    let wanted: Vec<(String, u32)> = ids.iter().map(|id| (id.saga.0.simple().to_string(), id.seq.0)).collect();
    let rows = sqlx::query(include_str!("sql/commands.sql"))
        .bind(row::json(&wanted))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.iter().map(entry).collect()
}

fn entry(row: &SqliteRow) -> Result<OutboxEntry, StoreError> {
    fn get<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        row: &'r SqliteRow,
        column: &str,
    ) -> Result<T, StoreError> {
        row.try_get(column).map_err(refused)
    }
    OutboxRow {
        saga_id: get(row, "saga_id")?,
        seq: get(row, "seq")?,
        definition_name: get(row, "definition_name")?,
        definition_version: get(row, "definition_version")?,
        steps: get(row, "steps")?,
        step: get(row, "step")?,
        step_index: get(row, "step_index")?,
        direction: get(row, "direction")?,
        generation: get(row, "generation")?,
        compensates: get(row, "compensates")?,
        participant: get(row, "participant")?,
        action: get(row, "action")?,
        body: get(row, "body")?,
        decided_at: time(get(row, "decided_at")?)?,
        decided_revision: get(row, "decided_revision")?,
        outcome: get(row, "outcome")?,
        attempt: get(row, "attempt")?,
        output: get(row, "output")?,
        problem: get(row, "problem")?,
        verified_at: get::<Option<i64>>(row, "verified_at")?.map(time).transpose()?,
        verified_revision: get(row, "verified_revision")?,
    }
    .read()
}

pub(super) async fn history(pool: &SqlitePool, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
    let rows: Vec<(Uuid, i32, i64, String)> =
        sqlx::query_as("select saga_id, revision, at, event from history where saga_id = $1 order by revision")
            .bind(id.0)
            .fetch_all(pool)
            .await
            .map_err(refused)?;
    rows.into_iter().map(|(saga, revision, at, event)| row::history(saga, revision, time(at)?, &event)).collect()
}

pub(super) async fn audits(
    pool: &SqlitePool,
    filter: &AuditFilter,
    page: &Page<u64>,
) -> Result<Vec<AuditRecord>, StoreError> {
    type Columns = (i64, i64, String, Option<Uuid>, String, String, String);
    let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/audits.sql"))
        .bind(filter.saga.map(|id| id.0))
        .bind(page.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
        .bind(page.limit)
        .bind(&filter.actor)
        .bind(&filter.action)
        .bind(filter.since.map(|since| since.timestamp_micros()))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.into_iter()
        .map(|(id, at, actor, saga, action, reason, detail)| {
            let (id, at, saga) = (row::number(id)?, time(at)?, saga.map(SagaId));
            Ok(AuditRecord { id, at, actor, saga, action, reason, detail: Payload::trusted(detail) })
        })
        .collect()
}

pub(super) async fn counts(pool: &SqlitePool) -> Result<Vec<SagaCount>, StoreError> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select definition_name, state, count(*) from saga group by definition_name, state order by 1, 2",
    )
    .fetch_all(pool)
    .await
    .map_err(refused)?;
    rows.into_iter()
        .map(|(definition, state, count)| Ok(SagaCount { definition, state, count: row::number(count)? }))
        .collect()
}

pub(super) async fn definitions(pool: &SqlitePool, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
    type Columns = (String, u32, Vec<u8>, String, i64, String, Option<i64>, Option<String>, Option<String>);
    let rows: Vec<Columns> =
        sqlx::query_as(include_str!("sql/definitions.sql")).bind(name).fetch_all(pool).await.map_err(refused)?;
    rows.into_iter()
        .map(|(name, version, hash, source, registered_at, registered_by, at, actor, reason)| {
            Ok(DefinitionRecord {
                reference: DefinitionRef { name, version },
                hash: hash.try_into().map_err(|_| StoreError::Corrupt("a definition's hash".to_owned()))?,
                source,
                registered_at: time(registered_at)?,
                registered_by,
                deprecated: row::deprecation(at.map(time).transpose()?, actor, reason),
            })
        })
        .collect()
}
