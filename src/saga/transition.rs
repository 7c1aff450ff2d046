//! The one function that every saga goes through: simulation, property tests and the real coordinator all run it.

use std::cell::OnceCell;

use crate::clock::{Timestamp, after};
use crate::definition::{Definition, RetryPolicy, Work};
use crate::id::{SagaId, Seq, StepIndex};
use crate::saga::{
    CommandState, CompensationState, Direction, Effect, Event, EventKind, Note, Phase, Problem, Saga, SagaState,
    Settled, Skip, StepState,
};

/// How long the broker has to confirm a command before it is published again. Short, so that a command that was
/// committed but never published (a crash in between) comes back within seconds, not after the attempt's time-out.
pub const PUBLISH_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// The longest that a command is held back before it is tried again, should nobody say earlier that there is room.
pub const HELD_AT_MOST: std::time::Duration = std::time::Duration::from_secs(600);

/// Why a command is given up that was held back.
pub(super) const TURNED_WHILE_HELD: &str = "the saga turned back while the command was held back";

/// How often the time doubles that a sub-saga's answer is waited for: from a minute to a quarter of an hour.
const MAX_CHILD_DOUBLINGS: u32 = 4;

/// An event that the saga's state does not allow. Nothing changes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("saga {id} is {state} and cannot take `{event}`: {why}")]
pub struct IllegalTransition {
    /// The saga.
    pub id: SagaId,
    /// Its state, as a word of the contract.
    pub state: &'static str,
    /// The event.
    pub event: &'static str,
    /// Why, in one clause.
    pub why: String,
}

/// What becomes of `saga` through `event`, and what follows from it. `definition` is [expanded](Definition::expanded) for
/// the saga's input. When nothing changes (a duplicate, a late reply
/// that says nothing new, a timer that fired too early) the saga comes back with the same revision.
///
/// # Errors
/// [`IllegalTransition`] when the state does not allow the event: an operator's action out of place, or a command that
/// this saga has never decided.
pub fn transition(
    definition: &Definition,
    saga: &Saga,
    event: &Event,
) -> Result<(Saga, Vec<Effect>), IllegalTransition> {
    let mut machine = Machine {
        definition,
        saga: saga.clone(),
        now: event.now,
        effects: Vec::new(),
        has_changed: false,
        items: OnceCell::new(),
    };
    machine.shorten_waits();
    match &event.kind {
        EventKind::Started => machine.started()?,
        EventKind::Replied { seq, attempt, outcome } => machine.replied(*seq, *attempt, outcome)?,
        EventKind::Published { seq, attempt } => machine.published(*seq, *attempt),
        EventKind::HeldBack { seq, attempt, until } => machine.held_back(*seq, *attempt, *until),
        EventKind::Released { seq } => machine.released(*seq),
        EventKind::Due => machine.due(),
        EventKind::Signalled { signal, payload } => machine.signalled(signal, payload)?,
        EventKind::Asked { direction, answer } => machine.asked(*direction, answer)?,
        EventKind::Entombed { answer } => machine.entombed(answer)?,
        EventKind::ParentEnded => machine.parent_ended()?,
        EventKind::Operated { operation } => machine.operated(operation)?,
        EventKind::Migrated { .. } => return Err(machine.illegal("migrate", "that takes both definitions")),
    }
    Ok(machine.finish())
}

/// A transition under way.
pub(super) struct Machine<'a> {
    pub(super) definition: &'a Definition,
    pub(super) saga: Saga,
    pub(super) now: Timestamp,
    pub(super) effects: Vec<Effect>,
    pub(super) has_changed: bool,
    /// The items of each of the definition's loops, once they were needed.
    pub(super) items: OnceCell<Vec<Vec<serde_json::Value>>>,
}

impl Machine<'_> {
    /// Decides whatever the state now allows, if anything has changed.
    pub(super) fn finish(mut self) -> (Saga, Vec<Effect>) {
        if self.has_changed {
            self.advance();
            self.saga.revision += 1;
            self.saga.updated_at = self.now;
        }
        (self.saga, self.effects)
    }

    fn started(&mut self) -> Result<(), IllegalTransition> {
        if self.saga.revision > 0 {
            return Err(self.illegal("started", "it was started before"));
        }
        self.has_changed = true;
        self.note(Note::Started);
        Ok(())
    }

    /// The broker has the attempt: from now on its time-out counts.
    fn published(&mut self, seq: Seq, attempt: u32) {
        if self.saga.state.is_terminal() {
            return;
        }
        let Some((index, direction)) = self.in_flight(seq) else { return };
        let timeout = self.timeout(index, direction);
        let now = self.now;
        self.change_command(index, |command| {
            let is_news = command.attempt == attempt && matches!(command.phase, Phase::Sending(_) | Phase::Held(_));
            if is_news {
                command.phase = Phase::Awaiting(after(now, timeout));
            }
            is_news
        });
    }

    /// The attempt was not sent, and is not spent: it goes out once there is room.
    fn held_back(&mut self, seq: Seq, attempt: u32, until: Timestamp) {
        if self.saga.state.is_terminal() {
            return;
        }
        let Some((index, direction)) = self.in_flight(seq) else { return };
        let mut is_news = false;
        self.change_command(index, |command| {
            is_news = command.attempt == attempt && matches!(command.phase, Phase::Sending(_));
            if is_news {
                command.phase = Phase::Held(until);
            }
            is_news
        });
        // A saga that turned round in the meantime does not wait for its own action's turn.
        if is_news && direction == Direction::Action && self.is_backward() {
            self.give_up(index, Problem::new("given-up", TURNED_WHILE_HELD));
        }
    }

    /// There is room for a command that was held back. One of a paused saga goes out when that is resumed.
    fn released(&mut self, seq: Seq) {
        if self.saga.state.is_terminal() {
            return;
        }
        let Some((index, _)) = self.in_flight(seq) else { return };
        let Some((_, CommandState { phase: Phase::Held(until), .. })) = self.step(index).in_flight() else { return };
        match self.saga.paused {
            false => self.send_again(index),
            true if *until > self.now => {
                let now = self.now;
                self.change_command(index, |command| {
                    command.phase = Phase::Held(now);
                    true
                });
            }
            true => {}
        }
    }

    /// The step whose command `seq` is in flight.
    pub(super) fn in_flight(&self, seq: Seq) -> Option<(StepIndex, Direction)> {
        self.definition.indices().find_map(|index| {
            let (direction, command) = self.step(index).in_flight()?;
            (command.seq == seq).then_some((index, direction))
        })
    }

    pub(super) fn step(&self, index: StepIndex) -> &StepState {
        &self.saga.steps[index.at()]
    }

    pub(super) fn set(&mut self, index: StepIndex, state: StepState) {
        self.saga.steps[index.at()] = state;
        self.has_changed = true;
    }

    /// Changes the step's command in flight, if it has one; `change` says whether it did.
    pub(super) fn change_command(&mut self, index: StepIndex, change: impl FnOnce(&mut CommandState) -> bool) {
        let command = match &mut self.saga.steps[index.at()] {
            StepState::Pending { command }
            | StepState::Compensating { compensation: CompensationState::Pending { command }, .. } => command,
            _ => return,
        };
        if change(command) {
            self.has_changed = true;
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        self.effects.push(Effect::Note(note));
    }

    pub(super) fn settle(&mut self, settled: Settled) {
        self.effects.push(Effect::Settle(settled));
    }

    pub(super) fn timeout(&self, index: StepIndex, direction: Direction) -> std::time::Duration {
        let step = self.definition.step(index);
        let timeout = match (direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => compensation.timeout,
            _ => step.timeout,
        };
        match (&step.work, self.step(index).in_flight()) {
            // A sub-saga may wait for days, and says by itself when it is done: it is asked ever less often.
            (Work::Saga { .. }, Some((_, command))) => {
                let doublings = command.attempt.saturating_sub(command.base).saturating_sub(1);
                timeout.saturating_mul(1 << doublings.min(MAX_CHILD_DOUBLINGS))
            }
            _ => timeout,
        }
    }

    pub(super) fn retry_policy(&self, index: StepIndex, direction: Direction) -> &RetryPolicy {
        let step = self.definition.step(index);
        match (direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => &compensation.retry,
            _ => &step.retry,
        }
    }

    /// Whether the saga is on its way back.
    pub(super) fn is_backward(&self) -> bool {
        match &self.saga.state {
            SagaState::Compensating => true,
            SagaState::Stuck(stuck) => stuck.direction == Direction::Compensation,
            SagaState::Running | SagaState::Completed | SagaState::Compensated | SagaState::Abandoned => false,
        }
    }

    /// Whether the point of no return lies behind: the pivot was sent, and has not been refused. A pivot that was
    /// skipped counts once everything before it is done, since from then on steps are sent that nothing undoes.
    pub(super) fn is_pivot_passed(&self) -> bool {
        self.definition.pivot().is_some_and(|pivot| match self.step(pivot) {
            StepState::Waiting | StepState::Failed { .. } => false,
            StepState::Skipped { by: Skip::Condition | Skip::TimedOut | Skip::Operator } => {
                self.is_everything_before_done(pivot)
            }
            _ => true,
        })
    }

    pub(super) fn illegal(&self, event: &'static str, why: impl Into<String>) -> IllegalTransition {
        IllegalTransition { id: self.saga.id, state: self.saga.state.as_str(), event, why: why.into() }
    }

    /// Where in `0.0..1.0` the jitter of this attempt falls. Drawn from the ids, not from a random source, so that a
    /// replay draws the same.
    pub(super) fn jitter(&self, seq: Seq, attempt: u32) -> f64 {
        let (high, low) = self.saga.id.0.as_u64_pair();
        // SplitMix64's finaliser: every input bit reaches every output bit.
        let mut x = high ^ low.rotate_left(32) ^ (u64::from(seq.0) << 32 | u64::from(attempt));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        (x >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The problem of an attempt that nobody answered.
    pub(super) fn no_reply(&self, index: StepIndex, direction: Direction) -> Problem {
        let timeout = self.timeout(index, direction);
        Problem::new("timeout", format!("no reply within {timeout:?}"))
    }
}
