//! The read side.

use sqlx::postgres::{PgPool, PgRow};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row, Transaction};
use uuid::Uuid;

use super::lines::OTHER_WAYS;
use super::refused;
use super::write::saga as read_saga;
use crate::clock::Timestamp;
use crate::id::{CommandId, DefinitionRef, SagaId, Seq};
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::overview::SEARCHED;
use crate::store::row::{self, OutboxRow, int};
use crate::store::{
    AuditFilter, AuditRecord, DefinitionRecord, HistoryRecord, OutboxEntry, OutboxFilter, Page, SagaCount, SagaFilter,
    SagaRecord, SagaSummary, StoreError, put_outputs,
};

pub(super) async fn saga(pool: &PgPool, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
    // One snapshot, so that the saga and its commands are of one moment.
    let mut snapshot = pool.begin_with("begin isolation level repeatable read, read only").await.map_err(refused)?;
    let found =
        sqlx::query(include_str!("sql/saga.sql")).bind(id.0).fetch_optional(&mut *snapshot).await.map_err(refused)?;
    let Some(found) = found else { return Ok(None) };
    let mut saga: Saga = read_saga(&found, 0)?;
    let rows =
        sqlx::query(include_str!("sql/entries.sql")).bind(id.0).fetch_all(&mut *snapshot).await.map_err(refused)?;
    snapshot.rollback().await.map_err(refused)?;
    let commands = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    put_outputs(&mut saga, &commands);
    Ok(Some(SagaRecord { saga, commands }))
}

/// A transaction that reads in the order of an index, whatever the planner takes the tables to hold. While they grow fast
/// its figures are old: what it believes to be a handful it would gather and sort, which is all of them, for every page.
async fn in_order(pool: &PgPool) -> Result<Transaction<'static, Postgres>, StoreError> {
    let off = OTHER_WAYS.iter().chain(&["enable_sort"]).map(|way| format!("; set local {way} = off"));
    let begin = format!("begin read only{}", off.collect::<String>());
    pool.begin_with(AssertSqlSafe(begin)).await.map_err(refused)
}

pub(super) async fn sagas(
    pool: &PgPool,
    filter: &SagaFilter,
    page: &Page<SagaId>,
) -> Result<Vec<SagaSummary>, StoreError> {
    let bound = |sql| {
        sqlx::query(sql)
            .bind(&filter.definition)
            .bind((!filter.states.is_empty()).then_some(&filter.states))
            .bind(&filter.key)
            .bind(filter.since)
            .bind(filter.paused)
    };
    let (after, limit) = (page.after.map(|after| after.0), i64::from(page.limit));
    // What is asked most often has a statement of its own that goes by an index, however many sagas there are.
    if filter.is_plain() && filter.key.is_some() {
        let query = bound(include_str!("sql/sagas_by_key.sql")).bind(after).bind(limit);
        return summaries(&query.fetch_all(pool).await.map_err(refused)?);
    }
    if filter.is_plain() && filter.is_live() {
        let mut transaction = in_order(pool).await?;
        let query = bound(include_str!("sql/sagas_live.sql")).bind(after.unwrap_or(Uuid::max())).bind(limit);
        let rows = query.fetch_all(&mut *transaction).await.map_err(refused)?;
        transaction.rollback().await.map_err(refused)?;
        return summaries(&rows);
    }
    let rows = bound(include_str!("sql/sagas.sql"))
        .bind(after)
        .bind(limit)
        .bind(filter.version.map(int))
        .bind(filter.until)
        .bind(&filter.step_status)
        .bind(&filter.error_type)
        .bind(filter.stuck_step.map(i32::from))
        .bind(filter.field.as_ref().map(|field| &field.path))
        .bind(i64::from(if filter.is_search() { SEARCHED } else { page.limit }))
        .bind(filter.field.as_ref().map(|field| &field.value))
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    summaries(&rows)
}

fn summaries(rows: &[PgRow]) -> Result<Vec<SagaSummary>, StoreError> {
    rows.iter().map(|row| Ok(SagaSummary { saga: read_saga(row, 0)? })).collect()
}

pub(super) async fn outbox(
    pool: &PgPool,
    filter: &OutboxFilter,
    page: &Page<CommandId>,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let (saga, limit) = (filter.saga.map(|saga| saga.0), i64::from(page.limit));
    let after = page.after.map(|after| (after.saga.0, int(after.seq.0)));
    let bound = |sql| sqlx::query(sql).bind(saga).bind(&filter.participant);
    let rows = if filter.pending == Some(true) {
        let (saga, seq) = after.unwrap_or((Uuid::nil(), 0));
        let query = bound(include_str!("sql/pending.sql")).bind(saga).bind(seq).bind(limit);
        let mut transaction = in_order(pool).await?;
        let rows = query.fetch_all(&mut *transaction).await.map_err(refused)?;
        transaction.rollback().await.map_err(refused)?;
        rows
    } else {
        let query = bound(include_str!("sql/outbox.sql")).bind(filter.pending.map(|_| "VERIFIED"));
        let query = query.bind(after.map(|(saga, _)| saga)).bind(after.map(|(_, seq)| seq)).bind(limit);
        query.fetch_all(pool).await.map_err(refused)?
    };
    rows.iter().map(entry).collect()
}

pub(super) async fn commands(pool: &PgPool, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
    let rows = sqlx::query(include_str!("sql/commands.sql"))
        .bind(ids.iter().map(|id| id.saga.0).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| int(id.seq.0)).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.iter().map(entry).collect()
}

pub(super) async fn settled(connection: &mut PgConnection, ids: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
    let rows: Vec<(Uuid, i32)> = sqlx::query_as(include_str!("sql/settled.sql"))
        .bind(ids.iter().map(|id| id.saga.0).collect::<Vec<_>>())
        .bind(ids.iter().map(|id| int(id.seq.0)).collect::<Vec<_>>())
        .fetch_all(connection)
        .await
        .map_err(refused)?;
    rows.into_iter().map(|(saga, seq)| Ok(CommandId { saga: SagaId(saga), seq: Seq(row::number(seq)?) })).collect()
}

fn entry(row: &PgRow) -> Result<OutboxEntry, StoreError> {
    fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
        row: &'r PgRow,
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
        decided_at: get(row, "decided_at")?,
        decided_revision: get(row, "decided_revision")?,
        outcome: get(row, "outcome")?,
        attempt: get(row, "attempt")?,
        output: get(row, "output")?,
        problem: get(row, "problem")?,
        verified_at: get(row, "verified_at")?,
        verified_revision: get(row, "verified_revision")?,
    }
    .read()
}

pub(super) async fn history(pool: &PgPool, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
    let rows: Vec<(Uuid, i32, Timestamp, String)> =
        sqlx::query_as("select saga_id, revision, at, event::text from history where saga_id = $1 order by revision")
            .bind(id.0)
            .fetch_all(pool)
            .await
            .map_err(refused)?;
    rows.into_iter().map(|(saga, revision, at, event)| row::history(saga, revision, at, &event)).collect()
}

pub(super) async fn audits(
    pool: &PgPool,
    filter: &AuditFilter,
    page: &Page<u64>,
) -> Result<Vec<AuditRecord>, StoreError> {
    type Columns = (i64, Timestamp, String, Option<Uuid>, String, String, String);
    let rows: Vec<Columns> = sqlx::query_as(include_str!("sql/audits.sql"))
        .bind(filter.saga.map(|id| id.0))
        .bind(page.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)))
        .bind(i64::from(page.limit))
        .bind(&filter.actor)
        .bind(&filter.action)
        .bind(filter.since)
        .fetch_all(pool)
        .await
        .map_err(refused)?;
    rows.into_iter()
        .map(|(id, at, actor, saga, action, reason, detail)| {
            let (id, saga) = (row::number(id)?, saga.map(SagaId));
            Ok(AuditRecord { id, at, actor, saga, action, reason, detail: Payload::trusted(detail) })
        })
        .collect()
}

pub(super) async fn counts(pool: &PgPool) -> Result<Vec<SagaCount>, StoreError> {
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

pub(super) async fn definitions(pool: &PgPool, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
    type Columns = (String, i32, Vec<u8>, String, Timestamp, String, Option<Timestamp>, Option<String>, Option<String>);
    let rows: Vec<Columns> =
        sqlx::query_as(include_str!("sql/definitions.sql")).bind(name).fetch_all(pool).await.map_err(refused)?;
    rows.into_iter()
        .map(|(name, version, hash, source, registered_at, registered_by, at, actor, reason)| {
            Ok(DefinitionRecord {
                reference: DefinitionRef { name, version: row::number(version)? },
                hash: hash.try_into().map_err(|_| StoreError::Corrupt("a definition's hash".to_owned()))?,
                source,
                registered_at,
                registered_by,
                deprecated: row::deprecation(at, actor, reason),
            })
        })
        .collect()
}
