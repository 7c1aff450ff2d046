//! The write side: load and lock (the whole file), then one statement per table.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::{refused, time};
use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::saga::Saga;
use crate::store::row::{self, SagaRow, SagaText, Taken, started};
use crate::store::{
    Changes, Committed, DeprecationChange, NewCommand, SagaMigration, Started, StoreError, Wants, latest,
};

/// The wanted sagas, and the due ones, in the order of their ids.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    wants: &Wants,
    now: Timestamp,
) -> Result<Vec<Saga>, StoreError> {
    let ids: Vec<String> = wants.sagas.iter().map(|id| id.0.simple().to_string()).collect();
    let rows = sqlx::query(include_str!("sql/load.sql"))
        .bind(row::json(&ids))
        .bind(now.timestamp_micros())
        .bind(wants.due)
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let mut sagas = rows.iter().map(saga).collect::<Result<Vec<Saga>, _>>()?;
    let readers: Vec<String> =
        sagas.iter().filter(|saga| saga.reads_outputs).map(|saga| saga.id.0.simple().to_string()).collect();
    if !readers.is_empty() {
        let rows = sqlx::query(include_str!("sql/outputs.sql"))
            .bind(row::json(&readers))
            .fetch_all(&mut *connection)
            .await
            .map_err(refused)?;
        let places: HashMap<SagaId, usize> = sagas.iter().enumerate().map(|(at, saga)| (saga.id, at)).collect();
        for row in rows {
            let id: Uuid = row.try_get("saga_id").map_err(refused)?;
            if let Some(saga) = places.get(&SagaId(id)).and_then(|&at| sagas.get_mut(at)) {
                let step_index = row.try_get("step_index").map_err(refused)?;
                row::output(saga, step_index, row.try_get("output").map_err(refused)?)?;
            }
        }
    }
    Ok(sagas)
}

/// A saga from a row with the columns of `sql/load.sql`.
pub(super) fn saga(row: &SqliteRow) -> Result<Saga, StoreError> {
    fn get<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        row: &'r SqliteRow,
        column: &str,
    ) -> Result<T, StoreError> {
        row.try_get(column).map_err(refused)
    }
    SagaRow {
        id: get(row, "id")?,
        definition_name: get(row, "definition_name")?,
        definition_version: get(row, "definition_version")?,
        key: get(row, "key")?,
        state: get(row, "state")?,
        paused: get(row, "paused")?,
        revision: get(row, "revision")?,
        next_seq: get(row, "next_seq")?,
        steps: get(row, "steps")?,
        stuck: get(row, "stuck")?,
        cause: get(row, "cause")?,
        input: get(row, "input")?,
        output: get(row, "output")?,
        reads_outputs: get(row, "reads_outputs")?,
        signals: get(row, "signals")?,
        parent: get(row, "parent")?,
        deadline_at: get::<Option<i64>>(row, "deadline_at")?.map(time).transpose()?,
        created_at: time(get(row, "created_at")?)?,
        updated_at: time(get(row, "updated_at")?)?,
        ended_at: get::<Option<i64>>(row, "ended_at")?.map(time).transpose()?,
    }
    .read()
}

pub(super) async fn write(connection: &mut SqliteConnection, changes: &Changes) -> Result<Committed, StoreError> {
    let (starts, new) = start(connection, changes).await?;
    let written = || changes.starts.iter().filter(|start| new.contains(&start.saga.id));
    let commands: Vec<Value> =
        written().flat_map(|start| &start.commands).chain(&changes.commands).map(command).collect();
    batch(connection, include_str!("sql/insert_commands.sql"), &commands).await?;

    let updates: Vec<Value> =
        changes.updates.iter().map(|update| changed(&update.saga, update.from_revision)).collect();
    let updated = batch(connection, include_str!("sql/update_sagas.sql"), &updates).await?;
    if updated != updates.len() as u64 {
        return Err(StoreError::Conflict(format!("{updated} of {} sagas were as they were read", updates.len())));
    }

    let settled: Vec<Value> = latest(written().flat_map(|start| &start.settled).chain(&changes.settled))
        .into_iter()
        .map(|settled| {
            json!({
                "saga": settled.saga.0.simple().to_string(),
                "seq": settled.settled.seq,
                "outcome": settled.settled.outcome,
                "attempt": settled.settled.attempt,
                "output": settled.settled.output.as_ref().map(|output| output.text()),
                "problem": settled.settled.problem.as_ref().map(row::json),
                "at": settled.at.timestamp_micros(),
                "revision": settled.revision,
            })
        })
        .collect();
    let count = batch(connection, include_str!("sql/settle_commands.sql"), &settled).await?;
    if count != settled.len() as u64 {
        return Err(StoreError::Conflict("a command to be settled is not there".to_owned()));
    }

    let history: Vec<Value> = written()
        .flat_map(|start| &start.history)
        .chain(&changes.history)
        .map(|record| {
            json!({
                "saga": record.saga.0.simple().to_string(),
                "revision": record.revision,
                "at": record.at.timestamp_micros(),
                "event": row::json(&record.event),
            })
        })
        .collect();
    batch(connection, include_str!("sql/insert_history.sql"), &history).await?;

    let audits: Vec<Value> = changes
        .audits
        .iter()
        .map(|record| {
            json!({
                "at": record.at.timestamp_micros(),
                "actor": record.actor,
                "saga": record.saga.map(|id| id.0.simple().to_string()),
                "action": record.action,
                "reason": record.reason,
                "detail": record.detail.text(),
            })
        })
        .collect();
    batch(connection, include_str!("sql/insert_audit.sql"), &audits).await?;
    migrate(connection, &changes.migrations).await?;
    deprecate(connection, &changes.deprecations).await?;
    Ok(Committed { starts })
}

async fn migrate(connection: &mut SqliteConnection, migrations: &[SagaMigration]) -> Result<(), StoreError> {
    let id = |migration: &SagaMigration| migration.saga.0.simple().to_string();
    let sagas: Vec<Value> = migrations
        .iter()
        .map(|of| json!({ "saga": id(of), "version": of.version, "reads": i32::from(of.reads_outputs) }))
        .collect();
    if batch(connection, include_str!("sql/migrate_sagas.sql"), &sagas).await? != sagas.len() as u64 {
        return Err(StoreError::Conflict("a saga to be moved is not there".to_owned()));
    }
    let steps = migrations.iter().flat_map(|of| of.steps.iter().map(move |(name, index)| (of, name, index)));
    let steps: Vec<Value> =
        steps.map(|(of, name, index)| json!({ "saga": id(of), "step": name, "index": index })).collect();
    batch(connection, include_str!("sql/reindex_commands.sql"), &steps).await?;
    Ok(())
}

async fn deprecate(connection: &mut SqliteConnection, changes: &[DeprecationChange]) -> Result<(), StoreError> {
    let rows: Vec<Value> = changes
        .iter()
        .map(|change| {
            json!({
                "name": change.reference.name,
                "version": change.reference.version,
                "deprecated": i32::from(change.is_deprecated),
                "at": change.at.timestamp_micros(),
                "actor": change.actor,
                "reason": change.reason,
            })
        })
        .collect();
    batch(connection, include_str!("sql/insert_deprecations.sql"), &rows).await?;
    Ok(())
}

/// Inserts the sagas whose keys are free. Returns what became of each, and the ids of the new ones.
async fn start(
    connection: &mut SqliteConnection,
    changes: &Changes,
) -> Result<(Vec<Started>, HashSet<SagaId>), StoreError> {
    if changes.starts.is_empty() {
        return Ok(Default::default());
    }
    let rows: Vec<Value> = changes
        .starts
        .iter()
        .map(|start| {
            let mut row = changed(&start.saga, 0);
            let saga = &start.saga;
            row["definition"] = saga.definition.name.clone().into();
            row["version"] = saga.definition.version.into();
            row["key"] = saga.key.clone().into();
            row["input"] = saga.input.text().into();
            row["hash"] = hex::encode(start.input_hash).into();
            row["reads"] = i32::from(saga.reads_outputs).into();
            row["created"] = saga.created_at.timestamp_micros().into();
            row
        })
        .collect();
    let inserted: Vec<Uuid> = sqlx::query_scalar(include_str!("sql/insert_sagas.sql"))
        .bind(row::json(&rows))
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let new: HashSet<SagaId> = inserted.into_iter().map(SagaId).collect();
    if new.len() == changes.starts.len() {
        return Ok((vec![Started::New; new.len()], new));
    }
    let others = changes.starts.iter().map(|start| &start.saga).filter(|saga| !new.contains(&saga.id));
    let names: Vec<_> = others.map(|saga| (&saga.definition.name, &saga.key)).collect();
    let rows: Vec<(String, String, Uuid, Vec<u8>)> = sqlx::query_as(include_str!("sql/taken.sql"))
        .bind(row::json(&names))
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let taken = rows.into_iter().map(|(definition, key, id, hash)| row::taken(definition, key, id, hash));
    let starts = started(&changes.starts, &new, &taken.collect::<Result<Taken, _>>()?)?;
    Ok((starts, new))
}

/// The columns that change.
fn changed(saga: &Saga, from_revision: u32) -> Value {
    let SagaText { state, steps, stuck, cause, signals, parent } = SagaText::of(saga);
    json!({
        "id": saga.id.0.simple().to_string(),
        "from": from_revision,
        "state": state,
        "paused": i32::from(saga.paused),
        "revision": saga.revision,
        "seq": saga.next_seq,
        "steps": steps,
        "stuck": stuck,
        "cause": cause,
        "output": saga.output.as_ref().map(|output| output.text()),
        "signals": signals,
        "parent": parent,
        "deadline": saga.deadline.map(|at| at.timestamp_micros()),
        "due": saga.due().map(|at| at.timestamp_micros()),
        "updated": saga.updated_at.timestamp_micros(),
        "ended": saga.ended_at.map(|at| at.timestamp_micros()),
    })
}

fn command(command: &NewCommand) -> Value {
    json!({
        "saga": command.id.saga.0.simple().to_string(),
        "seq": command.id.seq,
        "step": command.step,
        "index": command.step_index,
        "direction": command.direction,
        "generation": command.generation,
        "compensates": command.compensates,
        "participant": command.participant,
        "action": command.action,
        "body": command.body.text(),
        "at": command.at.timestamp_micros(),
        "revision": command.revision,
    })
}

/// Runs a statement whose only parameter is the batch; returns how many rows it touched.
async fn batch(connection: &mut SqliteConnection, sql: &'static str, rows: &[Value]) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query(sql).bind(row::json(&rows)).execute(&mut *connection).await.map_err(refused)?;
    Ok(done.rows_affected())
}
