//! Tells of what happened: counters, the log, lifecycle events.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::coordinator::listeners::Listeners;
use crate::coordinator::metrics::Metrics;
use crate::definition::Definition;
use crate::id::{SagaId, StepIndex};
use crate::message::LifecycleEvent;
use crate::saga::{Note, Problem, Saga};

/// Something worth telling, about which saga.
pub(super) struct Noted {
    pub(super) saga: SagaId,
    pub(super) definition: Arc<Definition>,
    pub(super) key: Option<String>,
    pub(super) revision: u32,
    pub(super) at: Timestamp,
    /// When the saga was started.
    pub(super) since: Timestamp,
    pub(super) note: Note,
    /// Its trace, if it has one.
    pub(super) trace: Option<u128>,
}

impl Noted {
    /// What is told to the log and to listeners is without what the definition marks as sensitive.
    pub(super) fn of(
        definition: &Arc<Definition>,
        saga: &Saga,
        mut note: Note,
        at: Timestamp,
        trace: Option<u128>,
    ) -> Self {
        let mut key = saga.key.clone();
        if !definition.sensitive.is_empty() {
            let secrets = saga.secrets(definition);
            key.iter_mut().for_each(|key| secrets.redact(key));
            note = note.redacted(&secrets);
        }
        let (definition, since) = (definition.clone(), saga.created_at);
        Self { saga: saga.id, definition, key, revision: saga.revision, at, since, note, trace }
    }
}

/// Counts and logs what happened, and gives the lifecycle event for it, if there is one and somebody may listen.
pub(super) fn tell(noted: &Noted, metrics: &Metrics, listeners: Option<&Listeners>) -> Option<LifecycleEvent> {
    let definition = &noted.definition;
    let name = definition.reference.name.as_str();
    let is_heard = |event: &str| listeners.is_some_and(|listeners| listeners.may_hear(name, event));
    // Every line about a saga says which one in these fields; `docs/operations.md` tells of them.
    macro_rules! log {
        ($level:ident, $text:literal $(, $field:ident = $value:expr)*) => {
            tracing::$level!(
                saga_id = %noted.saga, saga = name, version = definition.reference.version,
                trace_id = noted.trace.map(|id| format!("{id:032x}")) $(, $field = $value)*, $text
            )
        };
    }
    let saga = |kind: &'static str, data: &dyn Fn() -> Value| {
        log!(debug, "saga", what = kind);
        metrics.saga(name, kind);
        is_heard(kind).then(|| (kind, data()))
    };
    let step = |kind: &'static str, event: &'static str, at: StepIndex, data: &dyn Fn() -> Value| {
        log!(debug, "step", what = kind, step = step_name(definition, at));
        metrics.step(name, kind);
        is_heard(event).then(|| (event, data()))
    };
    let ended = |kind: &'static str| {
        metrics.saga_took(name, kind, noted.at - noted.since);
        saga(kind, &|| json!({}))
    };
    let told = match &noted.note {
        Note::Started => saga("started", &|| json!({})),
        Note::Compensating(problem) => saga("compensating", &|| json!({ "cause": problem })),
        Note::Completed => ended("completed"),
        Note::Compensated => ended("compensated"),
        Note::Stuck(at, problem) => {
            log!(warn, "saga is stuck", step = step_name(definition, *at), problem = tracing::field::display(problem));
            saga("stuck", &|| of_step(definition, *at, Some(problem)))
        }
        Note::Unstuck => saga("unstuck", &|| json!({})),
        Note::Abandoned => ended("abandoned"),
        Note::Paused => saga("paused", &|| json!({})),
        Note::Resumed => saga("resumed", &|| json!({})),
        Note::Migrated { from } => saga("migrated", &|| json!({ "fromVersion": from })),
        Note::StepVerified(at) => step("verified", "step-verified", *at, &|| of_step(definition, *at, None)),
        Note::StepFailed(at, problem) => {
            step("failed", "step-failed", *at, &|| of_step(definition, *at, Some(problem)))
        }
        Note::StepUnknown(at, problem) => {
            step("unknown", "step-unknown", *at, &|| of_step(definition, *at, Some(problem)))
        }
        Note::StepSkipped(at) => step("skipped", "step-skipped", *at, &|| of_step(definition, *at, None)),
        Note::StepCompensated(at) => step("compensated", "step-compensated", *at, &|| of_step(definition, *at, None)),
        Note::TimedOut(at, direction) => {
            log!(debug, "attempt timed out", step = step_name(definition, *at), direction = direction.as_str());
            metrics.step(name, "timed-out");
            None
        }
        Note::RetryAsked(at, direction) => {
            let (step, direction) = (step_name(definition, *at), direction.as_str());
            log!(debug, "participant asked for another attempt", step = step, direction = direction);
            metrics.step(name, "retry-asked");
            None
        }
        Note::Contradiction(at, what) => {
            log!(warn, "replies contradict each other", step = step_name(definition, *at), what = what);
            metrics.step(name, "contradiction");
            None
        }
        Note::Signalled(signal) => saga("signalled", &|| json!({ "signal": signal })),
        Note::Duplicate => None,
    };
    told.map(|(event, data)| LifecycleEvent {
        saga: noted.saga,
        definition: definition.reference.clone(),
        key: noted.key.clone(),
        revision: noted.revision,
        name: event,
        at: noted.at,
        data,
    })
}

fn step_name(definition: &Definition, at: StepIndex) -> &str {
    &definition.step(at).name
}

pub(super) fn of_step(definition: &Definition, at: StepIndex, problem: Option<&Problem>) -> Value {
    let step = definition.step(at);
    match problem {
        Some(problem) => json!({ "step": step.name, "participant": step.participant, "error": problem }),
        None => json!({ "step": step.name, "participant": step.participant }),
    }
}
