//! What an operator's action would do, found out by doing it to a copy. Pure: nothing is written or sent.

use crate::clock::Timestamp;
use crate::coordinator::{CoordinatorError, OperatorAction};
use crate::definition::{COORDINATOR, Definition, Work};
use crate::id::StepIndex;
use crate::payload::Payload;
use crate::saga::{
    CompensationState, Direction, Effect, Event, EventKind, ReplyOutcome, Saga, Skip, StepState, transition,
};

/// What an action would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The saga as it would be right after.
    pub after: Saga,
    /// What is sent at once, in order.
    pub sends: Vec<Planned>,
    /// What follows, in order, if every answer is a success.
    pub follows: Vec<Planned>,
    /// Commands that are closed without an answer.
    pub closes: Vec<Planned>,
    /// The state that the saga then reaches, as a word of the contract; `None` while it waits for something else.
    pub ends: Option<&'static str>,
}

/// A command that would be sent or closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The step.
    pub step: String,
    /// Forward or back.
    pub direction: Direction,
    /// The service.
    pub participant: String,
    /// What it is asked to do.
    pub action: String,
    /// The attempt; above 1, the participant may know the command already.
    pub attempt: u32,
    /// The body, of commands that are new.
    pub body: Option<Payload>,
    /// Whether nobody knows if the step's action took effect.
    pub is_unknown: bool,
}

/// What `action` would do to `saga` at `now`. `definition` is expanded for the saga's input, and the saga comes with its
/// outputs.
///
/// # Errors
/// What [`super::Coordinator::operate`] would say.
pub fn preview(
    definition: &Definition,
    saga: &Saga,
    action: &OperatorAction,
    now: Timestamp,
) -> Result<Preview, CoordinatorError> {
    let operation = action.resolve(definition, saga)?;
    let event = Event { now, kind: EventKind::Operated { operation } };
    let (after, effects) = transition(definition, saga, &event).map_err(|illegal| CoordinatorError::NotAllowed {
        id: saga.id,
        action: action.as_str(),
        state: illegal.state,
        why: illegal.why,
    })?;
    let sends = sent(definition, saga, &after, &effects);
    let closes = effects.iter().filter_map(|effect| closed(definition, saga, effect)).collect();
    let (follows, ends) = foreseen(definition, &after, now);
    Ok(Preview { after, sends, follows, closes, ends })
}

/// What the effects send.
fn sent(definition: &Definition, before: &Saga, after: &Saga, effects: &[Effect]) -> Vec<Planned> {
    let mut sent = Vec::new();
    for effect in effects {
        match effect {
            Effect::Decide { step, direction, body, .. } => {
                let is_unknown =
                    is_unknown(before, *step) || is_unknown(after, *step) && *direction == Direction::Compensation;
                let body = Some(body.clone());
                sent.push(Planned { body, is_unknown, ..planned(definition, *step, *direction) });
            }
            Effect::Publish { seq, attempt } => {
                let of = |index: &StepIndex| {
                    let (direction, command) = after.steps.get(index.at())?.in_flight()?;
                    (command.seq == *seq).then_some((*index, direction))
                };
                if let Some((index, direction)) = definition.indices().find_map(|index| of(&index)) {
                    let is_unknown = is_unknown(before, index);
                    sent.push(Planned { attempt: *attempt, is_unknown, ..planned(definition, index, direction) });
                }
            }
            _ => {}
        }
    }
    sent.retain(|planned| !is_inner(definition, planned));
    sent
}

/// A wait or a delay is seen to by the coordinator: nothing is sent for it.
fn is_inner(definition: &Definition, planned: &Planned) -> bool {
    let work = definition.find(&planned.step).map(|index| &definition.step(index).work);
    planned.participant == COORDINATOR && work.is_some_and(|work| matches!(work, Work::Wait { .. } | Work::Delay))
}

fn planned(definition: &Definition, index: StepIndex, direction: Direction) -> Planned {
    let step = definition.step(index);
    let action = match (direction, step.compensation.action()) {
        (Direction::Compensation, Some(compensation)) => compensation.action.clone(),
        _ => step.action.clone(),
    };
    let (step, participant) = (step.name.clone(), step.participant.clone());
    Planned { step, direction, participant, action, attempt: 1, body: None, is_unknown: false }
}

fn closed(definition: &Definition, before: &Saga, effect: &Effect) -> Option<Planned> {
    let Effect::Settle(settled) = effect else { return None };
    let of = |index: StepIndex| {
        let (direction, seq) = open_command(before.steps.get(index.at())?)?;
        (seq == settled.seq).then(|| Planned {
            attempt: settled.attempt,
            is_unknown: true,
            ..planned(definition, index, direction)
        })
    };
    definition.indices().find_map(of)
}

/// The command of a step that has not been settled by an answer.
fn open_command(step: &StepState) -> Option<(Direction, crate::id::Seq)> {
    match step {
        StepState::Unknown { seq, .. } => Some((Direction::Action, *seq)),
        StepState::Compensating { compensation: CompensationState::Unknown { seq, .. }, .. } => {
            Some((Direction::Compensation, *seq))
        }
        _ => step.in_flight().map(|(direction, command)| (direction, command.seq)),
    }
}

/// Whether nobody knows if the step's action took effect.
pub fn is_unknown(saga: &Saga, index: StepIndex) -> bool {
    match saga.steps.get(index.at()) {
        Some(StepState::Unknown { .. } | StepState::Pending { .. }) => true,
        Some(StepState::Compensating { owed, compensation }) => {
            !owed.known || matches!(compensation, CompensationState::Unknown { .. })
        }
        Some(StepState::Skipped { by: Skip::OperatorAfterSend { owed } }) => !owed.known,
        _ => false,
    }
}

/// What follows if every command succeeds. Backward the real state machine is run on; forward the steps that are left are
/// told, since what they send may depend on answers that nobody has yet.
fn foreseen(definition: &Definition, after: &Saga, now: Timestamp) -> (Vec<Planned>, Option<&'static str>) {
    if after.state.is_terminal() {
        return (Vec::new(), Some(after.state.as_str()));
    }
    if after.paused || after.state.stuck().is_some() {
        return (Vec::new(), None);
    }
    if after.state.as_str() == "RUNNING" {
        let waiting = |index: &StepIndex| matches!(after.steps.get(index.at()), Some(StepState::Waiting));
        let left = definition.indices().filter(waiting);
        return (left.map(|index| planned(definition, index, Direction::Action)).collect(), Some("COMPLETED"));
    }
    let (mut saga, mut follows) = (after.clone(), Vec::new());
    // Each step has an action and a compensation to answer, and no more.
    for _ in 0..=definition.steps.len() * 2 {
        let next = saga.steps.iter().filter_map(StepState::in_flight).next();
        let Some((_, command)) = next else { break };
        let outcome = ReplyOutcome::Success { output: Payload::from(serde_json::json!({})) };
        let kind = EventKind::Replied { seq: command.seq, attempt: command.attempt, outcome };
        let Ok((next, effects)) = transition(definition, &saga, &Event { now, kind }) else { break };
        follows.extend(sent(definition, after, &next, &effects));
        if next.revision == saga.revision {
            break;
        }
        saga = next;
    }
    let ends = saga.state.is_terminal().then(|| saga.state.as_str());
    (follows, ends)
}
