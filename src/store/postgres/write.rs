//! The write side: load and lock in the order of ids, then one statement per table, over arrays.

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::refused;
use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::saga::Saga;
use crate::store::row::{self, SagaRow, SagaText, Taken, int, started};
use crate::store::{
    AuditRecord, Changes, Committed, DeprecationChange, HistoryRecord, Loaded, NewCommand, NewSaga, SagaMigration,
    SagaUpdate, SettledCommand, Started, StoreError, Wants, latest,
};

/// The wanted sagas and the due ones that nobody else holds, in the order of their ids; and the time once all are held.
pub(super) async fn load(connection: &mut PgConnection, wants: &Wants) -> Result<Loaded, StoreError> {
    let ids: Vec<Uuid> = wants.sagas.iter().map(|id| id.0).collect();
    let query = sqlx::query(include_str!("sql/load.sql")).bind(&ids).bind(i64::from(wants.due));
    let rows = query.fetch_all(&mut *connection).await.map_err(refused)?;
    loaded(connection, &rows).await
}

/// The wanted sagas as they are, in the order of their ids, and a time after that; nothing is held. What is written from
/// it names the revisions that were read.
pub(super) async fn look(connection: &mut PgConnection, sagas: &[SagaId]) -> Result<Loaded, StoreError> {
    let ids: Vec<Uuid> = sagas.iter().map(|id| id.0).collect();
    let query = sqlx::query(include_str!("sql/load_unlocked.sql")).bind(&ids);
    let rows = query.fetch_all(&mut *connection).await.map_err(refused)?;
    loaded(connection, &rows).await
}

async fn loaded(connection: &mut PgConnection, rows: &[PgRow]) -> Result<Loaded, StoreError> {
    let Some(first) = rows.first() else { return Err(StoreError::Corrupt("no time was given".to_owned())) };
    let now: Timestamp = first.try_get(0).map_err(refused)?;
    let mut sagas = Vec::with_capacity(rows.len());
    for row in rows {
        // The one row that nothing was found for holds the time alone.
        if row.try_get::<Option<Uuid>, _>(1).map_err(refused)?.is_some() {
            sagas.push(saga(row, 1)?);
        }
    }
    outputs(connection, &mut sagas).await?;
    Ok(Loaded { now, sagas })
}

async fn outputs(connection: &mut PgConnection, sagas: &mut [Saga]) -> Result<(), StoreError> {
    let readers: Vec<Uuid> = sagas.iter().filter(|saga| saga.reads_outputs).map(|saga| saga.id.0).collect();
    if readers.is_empty() {
        return Ok(());
    }
    let rows: Vec<(Uuid, i32, String)> = sqlx::query_as(include_str!("sql/outputs.sql"))
        .bind(&readers)
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let places: HashMap<SagaId, usize> = sagas.iter().enumerate().map(|(at, saga)| (saga.id, at)).collect();
    for (id, step_index, output) in rows {
        if let Some(saga) = places.get(&SagaId(id)).and_then(|&at| sagas.get_mut(at)) {
            row::output(saga, step_index, output)?;
        }
    }
    Ok(())
}

/// A saga from a row with the columns of `sql/saga.sql`, in their order, from column `first` on.
pub(super) fn saga(row: &PgRow, first: usize) -> Result<Saga, StoreError> {
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
        deadline_at: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
        ended_at: columns.next()?,
    }
    .read()
}

/// The columns of a row, one after the other: finding each by its name takes longer than reading it.
struct Columns<'r> {
    row: &'r PgRow,
    at: usize,
}

impl<'r> Columns<'r> {
    fn next<T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(&mut self) -> Result<T, StoreError> {
        self.at += 1;
        self.row.try_get(self.at - 1).map_err(refused)
    }
}

pub(super) async fn write(connection: &mut PgConnection, changes: &Changes) -> Result<Committed, StoreError> {
    let (starts, new) = start(connection, &changes.starts).await?;
    let written = || changes.starts.iter().filter(|start| new.contains(&start.saga.id));
    let commands: Vec<&NewCommand> = written().flat_map(|start| &start.commands).chain(&changes.commands).collect();
    // First, so that a saga that is not as it was read is told as that, and not by a command that is there already.
    update(connection, &changes.updates).await?;
    insert_commands(connection, &commands).await?;
    settle(connection, &latest(written().flat_map(|start| &start.settled).chain(&changes.settled))).await?;
    let history: Vec<&HistoryRecord> = written().flat_map(|start| &start.history).chain(&changes.history).collect();
    insert_history(connection, &history).await?;
    insert_audit(connection, &changes.audits).await?;
    migrate(connection, &changes.migrations).await?;
    deprecate(connection, &changes.deprecations).await?;
    super::bulk::applied(connection, &changes.bulk).await?;
    super::webhooks::insert(connection, changes, &new).await?;
    Ok(Committed { starts })
}

pub(super) type Bound<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Sagas to start, in the order of keys, so that two batches with the same keys wait for each other instead of locking up.
pub(super) struct Starts<'a> {
    ordered: Vec<&'a NewSaga>,
    texts: Vec<SagaText>,
}

impl<'a> Starts<'a> {
    pub(super) fn of(starts: &'a [NewSaga]) -> Self {
        let mut ordered: Vec<&NewSaga> = starts.iter().collect();
        ordered.sort_by(|a, b| (&a.saga.definition.name, &a.saga.key).cmp(&(&b.saga.definition.name, &b.saga.key)));
        let texts = ordered.iter().map(|start| SagaText::of(&start.saga)).collect();
        Self { ordered, texts }
    }

    pub(super) fn bind<'q>(&'q self, query: Bound<'q>) -> Bound<'q> {
        let Self { ordered, texts } = self;
        let sagas = || ordered.iter().map(|start| &start.saga);
        query
            .bind(sagas().map(|saga| saga.id.0).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.definition.name.as_str()).collect::<Vec<_>>())
            .bind(sagas().map(|saga| int(saga.definition.version)).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.key.as_deref()).collect::<Vec<_>>())
            .bind(texts.iter().map(|text| text.state).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.paused).collect::<Vec<_>>())
            .bind(sagas().map(|saga| int(saga.revision)).collect::<Vec<_>>())
            .bind(sagas().map(|saga| int(saga.next_seq.0)).collect::<Vec<_>>())
            .bind(texts.iter().map(|text| text.steps.as_str()).collect::<Vec<_>>())
            .bind(texts.iter().map(|text| text.stuck.as_deref()).collect::<Vec<_>>())
            .bind(texts.iter().map(|text| text.cause.as_deref()).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.input.text()).collect::<Vec<_>>())
            .bind(ordered.iter().map(|start| start.input_hash.as_slice()).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.output.as_ref().map(|output| output.text())).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.reads_outputs).collect::<Vec<_>>())
            .bind(texts.iter().map(|text| text.signals.as_deref()).collect::<Vec<_>>())
            .bind(texts.iter().map(|text| text.parent.as_deref()).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.deadline).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.due()).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.created_at).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.updated_at).collect::<Vec<_>>())
            .bind(sagas().map(|saga| saga.ended_at).collect::<Vec<_>>())
    }
}

/// Inserts the sagas whose keys are free. Returns what became of each, and the ids of the new ones.
async fn start(
    connection: &mut PgConnection,
    starts: &[NewSaga],
) -> Result<(Vec<Started>, HashSet<SagaId>), StoreError> {
    if starts.is_empty() {
        return Ok(Default::default());
    }
    let ordered = Starts::of(starts);
    let inserted = ordered
        .bind(sqlx::query(include_str!("sql/insert_sagas.sql")))
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    let id = |row: &PgRow| row.try_get(0).map(SagaId).map_err(refused);
    let new: HashSet<SagaId> = inserted.iter().map(id).collect::<Result<_, _>>()?;
    let outcomes = if new.len() == starts.len() {
        vec![Started::New; starts.len()]
    } else {
        started(starts, &new, &taken(connection, starts, &new).await?)?
    };
    Ok((outcomes, new))
}

/// The sagas whose keys the others wanted.
async fn taken(connection: &mut PgConnection, starts: &[NewSaga], new: &HashSet<SagaId>) -> Result<Taken, StoreError> {
    let others = || starts.iter().map(|start| &start.saga).filter(|saga| !new.contains(&saga.id));
    let rows: Vec<(String, String, Uuid, Vec<u8>)> = sqlx::query_as(include_str!("sql/taken.sql"))
        .bind(others().map(|saga| saga.definition.name.as_str()).collect::<Vec<_>>())
        .bind(others().map(|saga| saga.key.as_deref()).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await
        .map_err(refused)?;
    rows.into_iter().map(|(definition, key, id, hash)| row::taken(definition, key, id, hash)).collect()
}

async fn insert_commands(connection: &mut PgConnection, commands: &[&NewCommand]) -> Result<(), StoreError> {
    if commands.is_empty() {
        return Ok(());
    }
    bind_commands(sqlx::query(include_str!("sql/insert_commands.sql")), commands)
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}

pub(super) fn bind_commands<'q>(query: Bound<'q>, commands: &[&'q NewCommand]) -> Bound<'q> {
    query
        .bind(commands.iter().map(|command| command.id.saga.0).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| int(command.id.seq.0)).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.step.as_str()).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| i32::from(command.step_index)).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.direction.as_str()).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| int(command.generation)).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.compensates.map(int)).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.participant.as_str()).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.action.as_str()).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.body.text()).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| command.at).collect::<Vec<_>>())
        .bind(commands.iter().map(|command| int(command.revision)).collect::<Vec<_>>())
}

async fn update(connection: &mut PgConnection, updates: &[SagaUpdate]) -> Result<(), StoreError> {
    if updates.is_empty() {
        return Ok(());
    }
    let texts: Vec<SagaText> = updates.iter().map(|update| SagaText::of(&update.saga)).collect();
    let done = bind_updates(sqlx::query(include_str!("sql/update_sagas.sql")), updates, &texts)
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    match done.rows_affected() {
        changed if changed == updates.len() as u64 => Ok(()),
        changed => Err(StoreError::Conflict(format!("{changed} of {} sagas were as they were read", updates.len()))),
    }
}

pub(super) fn bind_updates<'q>(query: Bound<'q>, updates: &'q [SagaUpdate], texts: &'q [SagaText]) -> Bound<'q> {
    let sagas = || updates.iter().map(|update| &update.saga);
    query
        .bind(sagas().map(|saga| saga.id.0).collect::<Vec<_>>())
        .bind(updates.iter().map(|update| int(update.from_revision)).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.state).collect::<Vec<_>>())
        .bind(sagas().map(|saga| saga.paused).collect::<Vec<_>>())
        .bind(sagas().map(|saga| int(saga.revision)).collect::<Vec<_>>())
        .bind(sagas().map(|saga| int(saga.next_seq.0)).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.steps.as_str()).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.stuck.as_deref()).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.cause.as_deref()).collect::<Vec<_>>())
        .bind(sagas().map(|saga| saga.output.as_ref().map(|output| output.text())).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.signals.as_deref()).collect::<Vec<_>>())
        .bind(texts.iter().map(|text| text.parent.as_deref()).collect::<Vec<_>>())
        .bind(sagas().map(|saga| saga.deadline).collect::<Vec<_>>())
        .bind(sagas().map(|saga| saga.due()).collect::<Vec<_>>())
        .bind(sagas().map(|saga| saga.updated_at).collect::<Vec<_>>())
        .bind(sagas().map(|saga| saga.ended_at).collect::<Vec<_>>())
}

async fn settle(connection: &mut PgConnection, settled: &[&SettledCommand]) -> Result<(), StoreError> {
    if settled.is_empty() {
        return Ok(());
    }
    let done = bind_settled(sqlx::query(include_str!("sql/settle_commands.sql")), settled)
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    match done.rows_affected() {
        written if written == settled.len() as u64 => Ok(()),
        _ => Err(StoreError::Conflict("a command to be settled is not there".to_owned())),
    }
}

pub(super) fn bind_settled<'q>(query: Bound<'q>, settled: &[&'q SettledCommand]) -> Bound<'q> {
    let each = || settled.iter().map(|settled| &settled.settled);
    query
        .bind(settled.iter().map(|settled| settled.saga.0).collect::<Vec<_>>())
        .bind(each().map(|settled| int(settled.seq.0)).collect::<Vec<_>>())
        .bind(each().map(|settled| settled.outcome.as_str()).collect::<Vec<_>>())
        .bind(each().map(|settled| int(settled.attempt)).collect::<Vec<_>>())
        .bind(each().map(|settled| settled.output.as_ref().map(|output| output.text())).collect::<Vec<_>>())
        .bind(each().map(|settled| settled.problem.as_ref().map(row::json)).collect::<Vec<_>>())
        .bind(settled.iter().map(|settled| settled.at).collect::<Vec<_>>())
        .bind(settled.iter().map(|settled| int(settled.revision)).collect::<Vec<_>>())
}

async fn insert_history(connection: &mut PgConnection, history: &[&HistoryRecord]) -> Result<(), StoreError> {
    if history.is_empty() {
        return Ok(());
    }
    bind_history(sqlx::query(include_str!("sql/insert_history.sql")), history)
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}

pub(super) fn bind_history<'q>(query: Bound<'q>, history: &[&'q HistoryRecord]) -> Bound<'q> {
    query
        .bind(history.iter().map(|record| record.saga.0).collect::<Vec<_>>())
        .bind(history.iter().map(|record| int(record.revision)).collect::<Vec<_>>())
        .bind(history.iter().map(|record| record.at).collect::<Vec<_>>())
        .bind(history.iter().map(|record| row::json(&record.event)).collect::<Vec<_>>())
}

pub(super) async fn insert_audit(connection: &mut PgConnection, audits: &[AuditRecord]) -> Result<(), StoreError> {
    if audits.is_empty() {
        return Ok(());
    }
    bind_audits(sqlx::query(include_str!("sql/insert_audit.sql")), audits)
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}

pub(super) fn bind_audits<'q>(query: Bound<'q>, audits: &'q [AuditRecord]) -> Bound<'q> {
    query
        .bind(audits.iter().map(|record| record.at).collect::<Vec<_>>())
        .bind(audits.iter().map(|record| record.actor.as_str()).collect::<Vec<_>>())
        .bind(audits.iter().map(|record| record.saga.map(|id| id.0)).collect::<Vec<_>>())
        .bind(audits.iter().map(|record| record.action.as_str()).collect::<Vec<_>>())
        .bind(audits.iter().map(|record| record.reason.as_str()).collect::<Vec<_>>())
        .bind(audits.iter().map(|record| record.detail.text()).collect::<Vec<_>>())
}

async fn migrate(connection: &mut PgConnection, migrations: &[SagaMigration]) -> Result<(), StoreError> {
    if migrations.is_empty() {
        return Ok(());
    }
    let done = sqlx::query(include_str!("sql/migrate_sagas.sql"))
        .bind(migrations.iter().map(|migration| migration.saga.0).collect::<Vec<_>>())
        .bind(migrations.iter().map(|migration| int(migration.version)).collect::<Vec<_>>())
        .bind(migrations.iter().map(|migration| migration.reads_outputs).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    if done.rows_affected() != migrations.len() as u64 {
        return Err(StoreError::Conflict("a saga to be moved is not there".to_owned()));
    }
    let steps = || migrations.iter().flat_map(|of| of.steps.iter().map(move |(name, index)| (of.saga.0, name, *index)));
    sqlx::query(include_str!("sql/reindex_commands.sql"))
        .bind(steps().map(|(saga, ..)| saga).collect::<Vec<_>>())
        .bind(steps().map(|(_, name, _)| name.as_str()).collect::<Vec<_>>())
        .bind(steps().map(|(.., index)| i32::from(index)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}

async fn deprecate(connection: &mut PgConnection, changes: &[DeprecationChange]) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/insert_deprecations.sql"))
        .bind(changes.iter().map(|change| change.reference.name.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| int(change.reference.version)).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.is_deprecated).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.at).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.actor.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.reason.as_str()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await
        .map_err(refused)?;
    Ok(())
}
