//! Sagas and commands from the store's form into the contract's.

use crate::api::redact::{Redact, secrets_of};
use crate::client::views::{
    CompensationOfStep, ElementView, OutboxItem, ParentView, SagaSummaryView, SagaView, StepError, StepView, StuckView,
};
use crate::clock::Timestamp;
use crate::coordinator::view::waiting_for;
use crate::definition::{Definition, Step};
use crate::saga::{CompensationState, Direction, Owed, Problem, Saga, Skip, StepState, allowed};
use crate::store::{OutboxEntry, SagaRecord, StoreError};

/// A whole saga, without what is sensitive.
pub(crate) fn saga_view(definition: &Definition, record: &SagaRecord) -> SagaView {
    whole_view(definition, record).without(&secrets_of(definition, record))
}

/// A whole saga with everything: for who may see it.
pub(crate) fn whole_view(definition: &Definition, record: &SagaRecord) -> SagaView {
    let SagaRecord { saga, commands } = record;
    let steps = definition.steps.iter().zip(&saga.steps).enumerate();
    let of_step = |at: usize| commands.iter().filter(move |entry| usize::from(entry.step_index) == at);
    SagaView {
        id: saga.id.to_string(),
        saga: saga.definition.name.clone(),
        version: saga.definition.version,
        key: saga.key.clone(),
        state: saga.state.as_str().to_owned(),
        paused: saga.paused,
        parent: parent(saga),
        input: saga.input.value().clone(),
        output: saga.output.as_ref().map(|output| output.value().clone()),
        waiting_for: waiting_for(definition, saga),
        stuck: stuck(definition, saga),
        cause: saga.cause.as_ref().map(error),
        steps: steps.map(|(at, (step, state))| step_view(definition, step, state, saga.paused, of_step(at))).collect(),
        revision: saga.revision,
        created_at: saga.created_at,
        updated_at: saga.updated_at,
        ended_at: saga.ended_at,
        archived_at: None,
    }
}

/// A saga in a list, without what is sensitive: it must be whole where [`super::redact::must_be_whole`] says so.
pub(crate) fn summary(definition: &Definition, saga: &Saga) -> SagaSummaryView {
    let secrets = saga.secrets(definition);
    let view = SagaSummaryView {
        id: saga.id.to_string(),
        saga: saga.definition.name.clone(),
        version: saga.definition.version,
        key: saga.key.clone(),
        state: saga.state.as_str().to_owned(),
        paused: saga.paused,
        parent: parent(saga),
        waiting_for: waiting_for(definition, saga),
        stuck: stuck(definition, saga),
        revision: saga.revision,
        created_at: saga.created_at,
        updated_at: saga.updated_at,
        ended_at: saga.ended_at,
    };
    view.without(&secrets)
}

/// A saga whose payloads cannot be read, in a list: so much as can be told without them, and why.
pub(crate) fn unreadable(saga: &Saga, error: &StoreError) -> SagaSummaryView {
    SagaSummaryView {
        id: saga.id.to_string(),
        saga: saga.definition.name.clone(),
        version: saga.definition.version,
        // It may repeat what is sensitive.
        key: None,
        state: saga.state.as_str().to_owned(),
        paused: saga.paused,
        parent: parent(saga),
        waiting_for: Some(error.to_string()),
        stuck: None,
        revision: saga.revision,
        created_at: saga.created_at,
        updated_at: saga.updated_at,
        ended_at: saga.ended_at,
    }
}

fn stuck(definition: &Definition, saga: &Saga) -> Option<StuckView> {
    let stuck = saga.state.stuck()?;
    Some(StuckView {
        step: definition.step(stuck.step).name.clone(),
        direction: stuck.direction.to_string(),
        error: error(&stuck.problem),
        since: stuck.since,
        actions: allowed(definition, saga).into_iter().map(ToOwned::to_owned).collect(),
    })
}

fn step_view<'a>(
    definition: &Definition,
    step: &Step,
    state: &StepState,
    is_paused: bool,
    commands: impl Iterator<Item = &'a OutboxEntry> + Clone,
) -> StepView {
    // The newest command tells: an operator's retry makes another one.
    let action = commands.clone().filter(|entry| entry.direction == Direction::Action).last();
    let verified = action.and_then(|entry| entry.verified.as_ref());
    let last_heard = match state {
        StepState::Pending { command } => command.last.as_ref(),
        StepState::Failed { problem, .. } | StepState::Unknown { problem, .. } => Some(problem),
        _ => verified.and_then(|verified| verified.problem.as_ref()),
    };
    let due = state.in_flight().filter(|_| !is_paused).map(|(direction, command)| (direction, command.phase.due()));
    let due_of = |wanted: Direction| due.filter(|(direction, _)| *direction == wanted).map(|(_, due)| due);
    StepView {
        name: step.name.clone(),
        kind: step.work.as_str().to_owned(),
        element: element(definition, step),
        child: None,
        participant: step.participant.clone(),
        action: step.action.clone(),
        status: state.status().as_str().to_owned(),
        attempts: owed(state).map_or_else(|| state.attempts(), |owed| owed.attempts),
        output: verified.and_then(|verified| verified.output.as_ref()).map(|output| output.value().clone()),
        error: last_heard.map(error),
        next_due: due_of(Direction::Action),
        compensation: compensation(step, state, due_of(Direction::Compensation)),
    }
}

fn element(definition: &Definition, step: &Step) -> Option<ElementView> {
    let element = step.element?;
    Some(ElementView { of: definition.loops.get(element.of)?.name.clone(), index: element.index })
}

fn parent(saga: &Saga) -> Option<ParentView> {
    let parent = saga.parent.as_ref()?;
    Some(ParentView { id: parent.saga.to_string(), step: parent.step.clone() })
}

fn owed(state: &StepState) -> Option<&Owed> {
    match state {
        StepState::Compensating { owed, .. }
        | StepState::Compensated { owed, .. }
        | StepState::Skipped { by: Skip::OperatorAfterSend { owed } | Skip::OperatorCompensation { owed } } => {
            Some(owed)
        }
        _ => None,
    }
}

fn compensation(step: &Step, state: &StepState, next_due: Option<Timestamp>) -> Option<CompensationOfStep> {
    let (status, attempts, problem) = match state {
        StepState::Compensating { compensation, .. } => match compensation {
            CompensationState::Pending { command } => ("pending", command.attempt, command.last.as_ref()),
            CompensationState::Failed { attempts, problem, .. } => ("failed", *attempts, Some(problem)),
            CompensationState::Unknown { attempts, problem, .. } => ("unknown", *attempts, Some(problem)),
        },
        StepState::Compensated { attempts, .. } => ("verified", *attempts, None),
        StepState::Skipped { by: Skip::OperatorCompensation { .. } } => ("skipped", 0, None),
        _ => return None,
    };
    Some(CompensationOfStep {
        action: step.compensation.action().map(|compensation| compensation.action.clone()),
        status: status.to_owned(),
        attempts,
        error: problem.map(error),
        next_due,
    })
}

/// A command.
pub(super) fn outbox_item(entry: &OutboxEntry, now: Timestamp) -> OutboxItem {
    let verified = entry.verified.as_ref();
    let until = verified.map_or(now, |verified| verified.at);
    let millis = until.signed_duration_since(entry.decided_at).num_milliseconds().max(0);
    OutboxItem {
        saga_id: entry.id.saga.to_string(),
        saga: entry.definition.name.clone(),
        version: entry.definition.version,
        seq: entry.id.seq.0,
        step: entry.step.clone(),
        direction: entry.direction.to_string(),
        participant: entry.participant.clone(),
        action: entry.action.clone(),
        state: if verified.is_some() { "VERIFIED" } else { "PENDING" }.to_owned(),
        age: millis as f64 / 1_000.0,
        attempt: verified.map(|verified| verified.attempt).or(entry.in_flight.map(|in_flight| in_flight.attempt)),
        next_due: entry.in_flight.filter(|_| verified.is_none()).map(|in_flight| in_flight.due),
        decided_at: entry.decided_at,
        verified_at: verified.map(|verified| verified.at),
        outcome: verified.map(|verified| verified.outcome.as_str().to_owned()),
        error: verified.and_then(|verified| verified.problem.as_ref()).map(error),
    }
}

/// An error as a participant or the coordinator reports it.
pub(super) fn error(problem: &Problem) -> StepError {
    StepError { kind: problem.kind.clone(), title: problem.title.clone(), detail: problem.detail.clone() }
}
