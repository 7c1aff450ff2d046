//! What a person asks of all sagas at once. Every answer is bounded: it looks at so many rows and no more, so that a page
//! is as quick with millions of sagas as with a thousand.

use std::collections::BTreeMap;

use crate::clock::Timestamp;
use crate::id::{DefinitionRef, SagaId};
use crate::saga::{Direction, Outcome, Saga};

/// The states of the contract, in the order in which people ask for them.
pub const STATES: [&str; 6] = ["STUCK", "RUNNING", "COMPENSATING", "COMPLETED", "COMPENSATED", "ABANDONED"];

/// Whether sagas in a state may still change: an index leads to those.
pub(crate) fn is_live(state: &str) -> bool {
    matches!(state, "STUCK" | "RUNNING" | "COMPENSATING")
}

/// How many sagas a search by what no index knows looks at: those that match everything else, newest first.
pub const SEARCHED: u32 = 20_000;

/// How many sagas are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateCount {
    /// The state, as a word of the contract.
    pub state: String,
    /// How many; one more than was asked for when there are more.
    pub count: u64,
}

/// Stuck sagas that have one cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckGroup {
    /// Their definition.
    pub definition: DefinitionRef,
    /// The step's index.
    pub step_index: u16,
    /// Forward or back.
    pub direction: Direction,
    /// The error's type.
    pub error: String,
    /// How many of the sagas looked at.
    pub count: u64,
    /// Since when the first of them is stuck.
    pub since: Timestamp,
}

/// When a saga started and ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its definition.
    pub definition: DefinitionRef,
    /// Its state, as a word of the contract.
    pub state: String,
    /// When it was started.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// What a participant owes, and how it has done lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The participant.
    pub participant: String,
    /// Commands that nobody has answered yet, of those looked at.
    pub waiting: u64,
    /// When the oldest of them was decided.
    pub oldest: Option<Timestamp>,
    /// Commands that were settled lately.
    pub settled: u64,
    /// How many of them failed, or ended with nobody knowing.
    pub failed: u64,
}

/// A field of a saga's input and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldIs {
    /// Names of members, from the outside in.
    pub path: Vec<String>,
    /// Its value as text: a string without quotes, anything else as JSON.
    pub value: String,
}

/// The rows of [`super::Store::services`] put together.
pub(super) fn services(
    waiting: impl IntoIterator<Item = (String, u64, Timestamp)>,
    settled: impl IntoIterator<Item = (String, Outcome, u64)>,
) -> Vec<Service> {
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let fresh = |participant: &str| Service {
        participant: participant.to_owned(),
        waiting: 0,
        oldest: None,
        settled: 0,
        failed: 0,
    };
    for (participant, count, oldest) in waiting {
        let service = services.entry(participant.clone()).or_insert_with(|| fresh(&participant));
        service.waiting += count;
        service.oldest = Some(service.oldest.map_or(oldest, |known| known.min(oldest)));
    }
    for (participant, outcome, count) in settled {
        let service = services.entry(participant.clone()).or_insert_with(|| fresh(&participant));
        service.settled += count;
        if matches!(outcome, Outcome::Failure | Outcome::Unknown) {
            service.failed += count;
        }
    }
    services.into_values().collect()
}

/// Whether a saga is one that a search by what no index knows is after.
pub(super) fn matches(saga: &Saga, filter: &super::SagaFilter) -> bool {
    let has_status = |word: &String| saga.steps.iter().any(|step| step.status().as_str() == word);
    let has_error = |kind: &String| {
        saga.state.stuck().is_some_and(|stuck| stuck.problem.kind == *kind)
            || saga.cause.as_ref().is_some_and(|cause| cause.kind == *kind)
    };
    let has_field = |field: &FieldIs| {
        let found = field.path.iter().try_fold(saga.input.value(), |value, name| value.get(name));
        found.is_some_and(|value| match value {
            serde_json::Value::String(text) => *text == field.value,
            serde_json::Value::Null => false,
            other => {
                let text = other.to_string();
                text == field.value
            }
        })
    };
    filter.step_status.as_ref().is_none_or(has_status)
        && filter.error_type.as_ref().is_none_or(has_error)
        && filter.stuck_step.is_none_or(|step| saga.state.stuck().is_some_and(|stuck| stuck.step.0 == step))
        && filter.field.as_ref().is_none_or(has_field)
}

/// How many sagas of a definition are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaCount {
    /// The definition's name.
    pub definition: String,
    /// The state, as a word of the contract.
    pub state: String,
    /// How many.
    pub count: u64,
}

/// Which outbox entries to list. Empty fields do not filter.
#[derive(Clone, Debug, Default)]
pub struct OutboxFilter {
    /// PENDING (`Some(true)`), VERIFIED (`Some(false)`).
    pub pending: Option<bool>,
    /// Entries of one saga.
    pub saga: Option<SagaId>,
    /// Entries for one participant.
    pub participant: Option<String>,
}
