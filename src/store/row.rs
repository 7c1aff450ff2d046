//! Between rows and values, the same for every database: enums as words, structures as JSON text.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::{CommandId, DefinitionRef, SagaId, Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::figures::{CommandCount, Figures, Latency, Undone};
use crate::saga::{Direction, Outcome, Parent, Saga, SagaState, StepState};
use crate::store::overview::StuckGroup;
use crate::store::{
    Deprecation, HistoryRecord, InFlight, NewSaga, OutboxEntry, SettledCommand, Started, StoreError, Verified,
};
use crate::trace::TraceContext;

/// Reads rows into a structure whose fields are named as the columns are. Sqlx has a derive for that, with which every build
/// would compile both databases' drivers a second time, and SQLite with them.
macro_rules! columns {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident {
        $($of:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        $visibility struct $name {
            $($of $field: $type,)*
        }

        impl<'r, R: sqlx::Row> sqlx::FromRow<'r, R> for $name
        where
            &'static str: sqlx::ColumnIndex<R>,
            $($type: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,)*
        {
            fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
                Ok(Self { $($field: row.try_get(stringify!($field))?,)* })
            }
        }
    };
}
pub(in crate::store) use columns;

/// A row of `saga`, each column as the database gives it.
pub(super) struct SagaRow {
    pub(super) id: Uuid,
    pub(super) definition_name: String,
    pub(super) definition_version: i32,
    pub(super) key: Option<String>,
    pub(super) state: String,
    pub(super) paused: bool,
    pub(super) revision: i32,
    pub(super) next_seq: i32,
    pub(super) steps: String,
    pub(super) stuck: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) input: String,
    pub(super) output: Option<String>,
    pub(super) reads_outputs: bool,
    pub(super) signals: Option<String>,
    pub(super) parent: Option<String>,
    pub(super) deadline_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
}

impl SagaRow {
    pub(super) fn read(self) -> Result<Saga, StoreError> {
        let id = SagaId(self.id);
        let corrupt = |what: &str| StoreError::Corrupt(format!("saga {id}: {what}"));
        let state = match (self.state.as_str(), &self.stuck) {
            ("RUNNING", None) => SagaState::Running,
            ("COMPENSATING", None) => SagaState::Compensating,
            ("COMPLETED", None) => SagaState::Completed,
            ("COMPENSATED", None) => SagaState::Compensated,
            ("ABANDONED", None) => SagaState::Abandoned,
            ("STUCK", Some(stuck)) => SagaState::Stuck(parse(stuck)?),
            (other, _) => return Err(corrupt(&format!("state {other}"))),
        };
        let (parent, trace) = self.parent.as_deref().map(origin).transpose()?.unwrap_or_default();
        Ok(Saga {
            id,
            definition: DefinitionRef { name: self.definition_name, version: number(self.definition_version)? },
            key: self.key,
            input: Payload::trusted(self.input),
            state,
            paused: self.paused,
            revision: number(self.revision)?,
            next_seq: Seq(number(self.next_seq)?),
            steps: parse::<Vec<StepState>>(&self.steps)?,
            deadline: self.deadline_at,
            cause: self.cause.as_deref().map(parse).transpose()?,
            output: self.output.map(Payload::trusted),
            outputs: BTreeMap::new(),
            reads_outputs: self.reads_outputs,
            signals: self.signals.as_deref().map(parse).transpose()?.unwrap_or_default(),
            parent,
            trace,
            created_at: self.created_at,
            updated_at: self.updated_at,
            ended_at: self.ended_at,
        })
    }
}

/// The columns of `saga` that are JSON or words.
pub(super) struct SagaText {
    pub(super) state: &'static str,
    pub(super) steps: String,
    pub(super) stuck: Option<String>,
    pub(super) cause: Option<String>,
    pub(super) signals: Option<String>,
    pub(super) parent: Option<String>,
}

impl SagaText {
    pub(super) fn of(saga: &Saga) -> Self {
        Self {
            state: saga.state.as_str(),
            steps: json(&saga.steps),
            stuck: saga.state.stuck().map(json),
            cause: saga.cause.as_ref().map(json),
            signals: (!saga.signals.is_empty()).then(|| json(&saga.signals)),
            parent: (saga.parent.is_some() || saga.trace.is_some())
                .then(|| json(&Origin { parent: saga.parent.as_ref(), trace: saga.trace.as_deref() })),
        }
    }
}

/// The column `parent`: where a saga comes from. Of most there is nothing to say.
#[derive(Serialize)]
struct Origin<'s> {
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    parent: Option<&'s Parent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'s TraceContext>,
}

fn origin(text: &str) -> Result<(Option<Parent>, Option<Box<TraceContext>>), StoreError> {
    #[derive(Deserialize)]
    struct Head {
        saga: Option<IgnoredAny>,
        trace: Option<Box<TraceContext>>,
    }
    let Head { saga, trace } = parse(text)?;
    Ok((saga.map(|_| parse(text)).transpose()?, trace))
}

/// One per command: one that is settled twice in a batch, as unknown and then by a late reply, counts as it was last.
pub(super) fn latest<'s>(settled: impl Iterator<Item = &'s SettledCommand>) -> Vec<&'s SettledCommand> {
    let latest: BTreeMap<_, _> = settled.map(|settled| ((settled.saga, settled.settled.seq), settled)).collect();
    latest.into_values().collect()
}

/// A row of `outbox`, joined with the definition and the steps of its saga.
pub(super) struct OutboxRow {
    pub(super) saga_id: Uuid,
    pub(super) seq: i32,
    pub(super) definition_name: String,
    pub(super) definition_version: i32,
    pub(super) steps: String,
    pub(super) step: String,
    pub(super) step_index: i32,
    pub(super) direction: String,
    pub(super) generation: i32,
    pub(super) compensates: Option<i32>,
    pub(super) participant: String,
    pub(super) action: String,
    pub(super) body: String,
    pub(super) decided_at: Timestamp,
    pub(super) decided_revision: i32,
    pub(super) outcome: Option<String>,
    pub(super) attempt: Option<i32>,
    pub(super) output: Option<String>,
    pub(super) problem: Option<String>,
    pub(super) verified_at: Option<Timestamp>,
    pub(super) verified_revision: Option<i32>,
}

impl OutboxRow {
    pub(super) fn read(self) -> Result<OutboxEntry, StoreError> {
        let id = CommandId { saga: SagaId(self.saga_id), seq: Seq(number(self.seq)?) };
        let verified = match (self.outcome, self.attempt, self.verified_at, self.verified_revision) {
            (Some(outcome), Some(attempt), Some(at), Some(revision)) => Some(Verified {
                outcome: word::<Outcome>(&outcome)?,
                attempt: number(attempt)?,
                output: self.output.map(Payload::trusted),
                problem: self.problem.as_deref().map(parse).transpose()?,
                at,
                revision: number(revision)?,
            }),
            _ => None,
        };
        let in_flight = if verified.is_none() { flight(&self.steps, id.seq)? } else { None };
        Ok(OutboxEntry {
            id,
            definition: DefinitionRef { name: self.definition_name, version: number(self.definition_version)? },
            step: self.step,
            step_index: number(self.step_index)?,
            direction: word::<Direction>(&self.direction)?,
            generation: number(self.generation)?,
            compensates: self.compensates.map(number).transpose()?,
            participant: self.participant,
            action: self.action,
            body: Payload::trusted(self.body),
            verified,
            in_flight,
            decided_at: self.decided_at,
            decided_revision: number(self.decided_revision)?,
        })
    }
}

fn flight(steps: &str, seq: Seq) -> Result<Option<InFlight>, StoreError> {
    let steps: Vec<StepState> = parse(steps)?;
    let found = steps.iter().filter_map(StepState::in_flight).find(|(_, command)| command.seq == seq);
    Ok(found.map(|(_, command)| InFlight::of(command)))
}

pub(super) fn history(saga: Uuid, revision: i32, at: Timestamp, event: &str) -> Result<HistoryRecord, StoreError> {
    Ok(HistoryRecord { saga: SagaId(saga), revision: number(revision)?, at, event: parse(event)? })
}

/// All three columns are there, or none.
pub(super) fn deprecation(at: Option<Timestamp>, actor: Option<String>, reason: Option<String>) -> Option<Deprecation> {
    Some(Deprecation { at: at?, actor: actor?, reason: reason? })
}

/// A row of `figures_commands.sql`.
pub(super) type CommandRow = (String, String, String, i32, i64);
/// A row of `figures_latencies.sql`: the quantiles, then the longest, in microseconds.
pub(super) type LatencyRow = (String, String, i64, Vec<i64>);

/// What the aggregates gave.
pub(super) fn figures(
    ended: Vec<(String, i64)>,
    commands: Vec<CommandRow>,
    latencies: Vec<LatencyRow>,
    turned: Vec<(String, i64)>,
    undone: Vec<(String, String, i64)>,
) -> Result<Figures, StoreError> {
    let counted = |(name, count)| Ok((name, number(count)?));
    let command = |(step, direction, outcome, attempt, count): CommandRow| {
        let (direction, outcome) = (word(&direction)?, word(&outcome)?);
        Ok(CommandCount { step, direction, outcome, attempt: number(attempt)?, count: number(count)? })
    };
    let latency = |(step, direction, count, micros): LatencyRow| {
        let mut took = micros
            .into_iter()
            .map(|micros| Ok(Duration::from_micros(number(micros)?)))
            .collect::<Result<Vec<_>, _>>()?;
        let (longest, quantiles) = (took.pop().unwrap_or_default(), took.try_into());
        let quantiles = quantiles.map_err(|_| StoreError::Corrupt("quantiles are missing".to_owned()))?;
        Ok(Latency { step, direction: word(&direction)?, count: number(count)?, quantiles, longest })
    };
    let pair = |(because, step, sagas)| Ok(Undone { because, step, sagas: number(sagas)? });
    Ok(Figures {
        ended: ended.into_iter().map(counted).collect::<Result<_, StoreError>>()?,
        commands: commands.into_iter().map(command).collect::<Result<_, StoreError>>()?,
        latencies: latencies.into_iter().map(latency).collect::<Result<_, StoreError>>()?,
        turned: turned.into_iter().map(counted).collect::<Result<_, StoreError>>()?,
        undone: undone.into_iter().map(pair).collect::<Result<_, StoreError>>()?,
    })
}

/// A row of `stuck_groups.sql`: name, version, step, direction, error, how many, since.
pub(super) type StuckRow = (String, i32, i32, String, String, i64, String);

pub(super) fn stuck_group(row: StuckRow) -> Result<StuckGroup, StoreError> {
    let (name, version, step_index, direction, error, count, since) = row;
    Ok(StuckGroup {
        definition: DefinitionRef { name, version: number(version)? },
        step_index: number(step_index)?,
        direction: word(&direction)?,
        error,
        count: number(count)?,
        since: since.parse().map_err(|_| StoreError::Corrupt(format!("`{since}` is no time")))?,
    })
}

/// How many commands of which participant ended how.
pub(super) fn outcomes(rows: Vec<(String, String, i64)>) -> Result<Vec<(String, Outcome, u64)>, StoreError> {
    rows.into_iter().map(|(name, outcome, count)| Ok((name, word(&outcome)?, number(count)?))).collect()
}

/// No saga that was started at or after `since` has a smaller id, since ids begin with the time: a bound for the index. An
/// hour is left for clocks that differ.
pub(super) fn first_id(since: Timestamp) -> Uuid {
    let millis = u64::try_from(since.timestamp_millis() - 3_600_000).unwrap_or_default();
    Uuid::from_u64_pair(millis << 16, 0)
}

/// An output to be put into [`Saga::outputs`].
pub(super) fn output(saga: &mut Saga, step_index: i32, output: String) -> Result<(), StoreError> {
    saga.outputs.insert(StepIndex(number(step_index)?), Payload::trusted(output));
    Ok(())
}

/// Who has which key: definition and key, saga and its input's hash.
pub(super) type Taken = HashMap<DefinitionAndKey, Holder>;

pub(super) fn taken(
    definition: String,
    key: String,
    id: Uuid,
    hash: Vec<u8>,
) -> Result<(DefinitionAndKey, Holder), StoreError> {
    let hash = hash.try_into().map_err(|_| StoreError::Corrupt(format!("saga {id}: the hash of its input")))?;
    Ok(((definition, key), (SagaId(id), hash)))
}

/// What became of each start: those in `new` were written, the keys of the others are `taken`.
pub(super) fn started(starts: &[NewSaga], new: &HashSet<SagaId>, taken: &Taken) -> Result<Vec<Started>, StoreError> {
    let outcome = |start: &NewSaga| {
        if new.contains(&start.saga.id) {
            return Ok(Started::New);
        }
        let name = (start.saga.definition.name.clone(), start.saga.key.clone().unwrap_or_default());
        match taken.get(&name) {
            Some(&(by, input_hash)) => Ok(Started::Taken { by, input_hash }),
            None => Err(StoreError::Conflict(format!("the saga that has the key of {} vanished", start.saga.id))),
        }
    };
    starts.iter().map(outcome).collect()
}

/// JSON text of a value of ours, whose keys are all strings: it cannot fail.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn word<T: DeserializeOwned>(word: &str) -> Result<T, StoreError> {
    serde_json::from_value(word.into()).map_err(|error| StoreError::Corrupt(error.to_string()))
}

/// A definition's name and a key: at most one saga.
pub(super) type DefinitionAndKey = (String, String);

/// The saga that has a key, with its input's hash.
pub(super) type Holder = (SagaId, [u8; 32]);

pub(super) fn number<A, B>(number: A) -> Result<B, StoreError>
where
    A: TryInto<B> + Copy + std::fmt::Display,
{
    number.try_into().map_err(|_| StoreError::Corrupt(format!("{number} is out of range")))
}

/// A revision, seq or count in the databases' integer type. Counters that rise by one never come near its end.
pub(super) fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
