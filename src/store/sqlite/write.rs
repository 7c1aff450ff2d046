//! The write side: load and lock (the whole file), then a few statements for each table.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::rows::{Bound, Rows, execute, rows};
use super::{refused, time};
use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::row::{self, SagaRow, SagaText, Taken, started};
use crate::store::{
    AuditRecord, Changes, Committed, DeprecationChange, HistoryRecord, NewCommand, NewSaga, SagaMigration, SagaUpdate,
    SettledCommand, Started, StoreError, Wants, latest,
};

/// Those of the wanted sagas that are asked for, and the due ones besides the wanted, in the order of their ids.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    asked: &[SagaId],
    wants: &Wants,
    now: Timestamp,
) -> Result<Vec<Saga>, StoreError> {
    let ids = |sagas: &[SagaId]| row::json(&sagas.iter().map(|id| id.0.simple().to_string()).collect::<Vec<_>>());
    let rows = sqlx::query(include_str!("sql/load.sql"))
        .bind(ids(asked))
        .bind(now.timestamp_micros())
        .bind(wants.due)
        .bind(ids(&wants.sagas))
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let mut sagas = rows.iter().map(|row| saga(row, 0)).collect::<Result<Vec<Saga>, _>>()?;
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

/// A saga from a row with the columns of `sql/saga.sql`, in their order, from column `first` on.
pub(super) fn saga(row: &SqliteRow, first: usize) -> Result<Saga, StoreError> {
    let mut columns = Columns { row, at: first };
    SagaRow {
        id: columns.next()?,
        definition_name: columns.next()?,
        definition_version: columns.next()?,
        key: columns.next()?,
        state: columns.next()?,
        paused: columns.next()?,
        revision: columns.next()?,
        next_seq: columns.next()?,
        steps: columns.next()?,
        stuck: columns.next()?,
        cause: columns.next()?,
        input: columns.next()?,
        output: columns.next()?,
        reads_outputs: columns.next()?,
        signals: columns.next()?,
        parent: columns.next()?,
        deadline_at: columns.next::<Option<i64>>()?.map(time).transpose()?,
        created_at: time(columns.next()?)?,
        updated_at: time(columns.next()?)?,
        ended_at: columns.next::<Option<i64>>()?.map(time).transpose()?,
    }
    .read()
}

/// The columns of a row, one after the other: finding each by its name takes longer than reading it.
struct Columns<'r> {
    row: &'r SqliteRow,
    at: usize,
}

impl<'r> Columns<'r> {
    fn next<T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(&mut self) -> Result<T, StoreError> {
        self.at += 1;
        self.row.try_get(self.at - 1).map_err(refused)
    }
}

/// The states that sagas were loaded in.
pub(super) struct States(Vec<(SagaId, &'static str)>);

impl States {
    /// Of sagas in the order of their ids.
    pub(super) fn of(sagas: &[Saga]) -> Self {
        Self(sagas.iter().map(|saga| (saga.id, saga.state.as_str())).collect())
    }

    /// Whether the saga is in the state that it was loaded in.
    fn keeps(&self, saga: &Saga) -> bool {
        let at = self.0.binary_search_by_key(&saga.id, |(id, _)| *id);
        at.ok().and_then(|at| self.0.get(at)).is_some_and(|(_, state)| *state == saga.state.as_str())
    }
}

/// What most changes consist of, bound: all that needs no connection.
pub(super) struct Statements {
    states: States,
    starts: Vec<Bound<'static>>,
    commands: Vec<Bound<'static>>,
    updates: Vec<Bound<'static>>,
    settled: Vec<Bound<'static>>,
    /// How many commands those settle.
    settles: u64,
    history: Vec<Bound<'static>>,
}

impl Statements {
    /// Those of the changes if all sagas are new that are to be started.
    pub(super) fn of(changes: &Changes, states: States) -> Self {
        Self { starts: INSERT_SAGAS.over(&changes.starts, bind_start), ..Self::with(changes, states, |_| true) }
    }

    /// Those that come after the starts, if only these sagas are new.
    fn with(changes: &Changes, states: States, is_new: impl Fn(SagaId) -> bool) -> Self {
        let written = || changes.starts.iter().filter(|start| is_new(start.saga.id));
        let commands: Vec<&NewCommand> = written().flat_map(|start| &start.commands).chain(&changes.commands).collect();
        let settled = latest(written().flat_map(|start| &start.settled).chain(&changes.settled));
        let history: Vec<&HistoryRecord> = written().flat_map(|start| &start.history).chain(&changes.history).collect();
        let (kept, turned): (Vec<&SagaUpdate>, Vec<&SagaUpdate>) =
            changes.updates.iter().partition(|update| states.keeps(&update.saga));
        let mut updates = KEEP_SAGAS.over(&kept, bind_update);
        updates.extend(TURN_SAGAS.over(&turned, bind_update));
        Self {
            states,
            starts: Vec::new(),
            commands: INSERT_COMMANDS.over(&commands, bind_command),
            updates,
            settles: settled.len() as u64,
            settled: SETTLE_COMMANDS.over(&settled, bind_settled),
            history: INSERT_HISTORY.over(&history, bind_history),
        }
    }
}

pub(super) async fn write(
    connection: &mut SqliteConnection,
    changes: &Changes,
    mut statements: Statements,
) -> Result<Committed, StoreError> {
    let (starts, new) = start(connection, changes, std::mem::take(&mut statements.starts)).await?;
    if new.len() != changes.starts.len() {
        statements = Statements::with(changes, statements.states, |saga| new.contains(&saga));
    }
    execute(connection, statements.commands).await?;

    let updated = execute(connection, statements.updates).await?;
    if updated != changes.updates.len() as u64 {
        return Err(StoreError::Conflict(format!(
            "{updated} of {} sagas were as they were read",
            changes.updates.len()
        )));
    }

    if execute(connection, statements.settled).await? != statements.settles {
        return Err(StoreError::Conflict("a command to be settled is not there".to_owned()));
    }

    execute(connection, statements.history).await?;
    audit(connection, &changes.audits).await?;
    migrate(connection, &changes.migrations).await?;
    deprecate(connection, &changes.deprecations).await?;
    super::bulk::applied(connection, &changes.bulk).await?;
    super::webhooks::insert(connection, changes, &new).await?;
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

static INSERT_SAGAS: Rows = rows!("sql/insert_sagas.sql", 22);
/// Of sagas that are in another state now, and of those that are not: an index that names a column is written anew by every
/// update that names it.
static TURN_SAGAS: Rows = rows!("sql/turn_sagas.sql", 16);
static KEEP_SAGAS: Rows = rows!("sql/keep_sagas.sql", 16);
static INSERT_COMMANDS: Rows = rows!("sql/insert_commands.sql", 12);
static SETTLE_COMMANDS: Rows = rows!("sql/settle_commands.sql", 8);
static INSERT_HISTORY: Rows = rows!("sql/insert_history.sql", 4);

/// Inserts the sagas whose keys are free. Returns what became of each, and the ids of the new ones.
async fn start(
    connection: &mut SqliteConnection,
    changes: &Changes,
    statements: Vec<Bound<'static>>,
) -> Result<(Vec<Started>, HashSet<SagaId>), StoreError> {
    if changes.starts.is_empty() {
        return Ok(Default::default());
    }
    let inserted = execute(connection, statements).await?;
    if inserted == changes.starts.len() as u64 {
        let new: HashSet<SagaId> = changes.starts.iter().map(|start| start.saga.id).collect();
        return Ok((vec![Started::New; new.len()], new));
    }
    let ids: Vec<String> = changes.starts.iter().map(|start| start.saga.id.0.simple().to_string()).collect();
    let there: Vec<Uuid> = sqlx::query_scalar(include_str!("sql/new_sagas.sql"))
        .bind(row::json(&ids))
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let new: HashSet<SagaId> = there.into_iter().map(SagaId).collect();
    if new.len() as u64 != inserted {
        return Err(StoreError::Refused("a saga to be started is there already".to_owned()));
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

fn bind_start<'q>(query: Bound<'q>, start: &NewSaga) -> Bound<'q> {
    let saga = &start.saga;
    let SagaText { state, steps, stuck, cause, signals, parent } = SagaText::of(saga);
    query
        .bind(saga.id.0)
        .bind(saga.definition.name.clone())
        .bind(saga.definition.version)
        .bind(saga.key.clone())
        .bind(state)
        .bind(saga.paused)
        .bind(saga.revision)
        .bind(saga.next_seq.0)
        .bind(steps)
        .bind(stuck)
        .bind(cause)
        .bind(saga.input.text().to_owned())
        .bind(start.input_hash.to_vec())
        .bind(text(saga.output.as_ref()))
        .bind(saga.reads_outputs)
        .bind(signals)
        .bind(parent)
        .bind(micros(saga.deadline))
        .bind(micros(saga.due()))
        .bind(saga.created_at.timestamp_micros())
        .bind(saga.updated_at.timestamp_micros())
        .bind(micros(saga.ended_at))
}

fn bind_update<'q>(query: Bound<'q>, update: &&SagaUpdate) -> Bound<'q> {
    let saga = &update.saga;
    let SagaText { state, steps, stuck, cause, signals, parent } = SagaText::of(saga);
    query
        .bind(saga.id.0)
        .bind(update.from_revision)
        .bind(state)
        .bind(saga.paused)
        .bind(saga.revision)
        .bind(saga.next_seq.0)
        .bind(steps)
        .bind(stuck)
        .bind(cause)
        .bind(text(saga.output.as_ref()))
        .bind(signals)
        .bind(parent)
        .bind(micros(saga.deadline))
        .bind(micros(saga.due()))
        .bind(saga.updated_at.timestamp_micros())
        .bind(micros(saga.ended_at))
}

fn bind_command<'q>(query: Bound<'q>, command: &&NewCommand) -> Bound<'q> {
    query
        .bind(command.id.saga.0)
        .bind(command.id.seq.0)
        .bind(command.step.clone())
        .bind(command.step_index)
        .bind(command.direction.as_str())
        .bind(command.generation)
        .bind(command.compensates)
        .bind(command.participant.clone())
        .bind(command.action.clone())
        .bind(command.body.text().to_owned())
        .bind(command.at.timestamp_micros())
        .bind(command.revision)
}

fn bind_settled<'q>(query: Bound<'q>, settled: &&SettledCommand) -> Bound<'q> {
    let SettledCommand { saga, settled, revision, at } = settled;
    query
        .bind(saga.0)
        .bind(settled.seq.0)
        .bind(settled.outcome.as_str())
        .bind(settled.attempt)
        .bind(text(settled.output.as_ref()))
        .bind(settled.problem.as_ref().map(row::json))
        .bind(at.timestamp_micros())
        .bind(*revision)
}

fn bind_history<'q>(query: Bound<'q>, record: &&HistoryRecord) -> Bound<'q> {
    query.bind(record.saga.0).bind(record.revision).bind(record.at.timestamp_micros()).bind(row::json(&record.event))
}

/// There are few of these, so that they come as JSON.
pub(super) async fn audit(connection: &mut SqliteConnection, audits: &[AuditRecord]) -> Result<(), StoreError> {
    if audits.is_empty() {
        return Ok(());
    }
    let audits: Vec<Value> = audits
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
    let insert = sqlx::query(include_str!("sql/insert_audit.sql")).bind(row::json(&audits));
    insert.execute(&mut *connection).await.map_err(refused)?;
    Ok(())
}

fn text(payload: Option<&Payload>) -> Option<String> {
    payload.map(|payload| payload.text().to_owned())
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.timestamp_micros())
}

/// Runs a seldom statement, whose only parameter is the batch as JSON; returns how many rows it touched.
async fn batch(connection: &mut SqliteConnection, sql: &'static str, rows: &[Value]) -> Result<u64, StoreError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query(sql).bind(row::json(&rows)).execute(&mut *connection).await.map_err(refused)?;
    Ok(done.rows_affected())
}
