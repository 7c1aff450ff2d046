//! Sub-sagas, from the child's side: what it says to its parent, and how the parent's end becomes its own.
//!
//! A child that has done all its steps is not complete yet: its parent may still go back and ask for its compensation,
//! and what is complete is final. So it is held until its parent has ended.

use std::time::Duration;

use crate::clock::{Timestamp, after};
use crate::payload::Payload;
use crate::saga::transition::{IllegalTransition, Machine};
use crate::saga::{Direction, Effect, Held, Note, Problem, ReplyAddress, ReplyOutcome, SagaState};

/// How often a held child looks for its parent's end by itself, at first and at last.
pub(super) const LOOK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));

impl Machine<'_> {
    /// Every step is done: says so to the parent, once, and waits for its end.
    pub(super) fn hold(&mut self) {
        let (now, output) = (self.now, self.saga.output.clone());
        let Some(parent) = &mut self.saga.parent else { return };
        if parent.held.is_some() {
            return;
        }
        parent.held = Some(Held { since: now, look_at: after(now, LOOK.0) });
        let to = parent.start.clone();
        // There is nothing left to be late with.
        self.saga.deadline = None;
        self.has_changed = true;
        self.answer(to, ReplyOutcome::Success { output: output.unwrap_or_else(null) });
    }

    /// Looks for the parent's end, ever less often.
    pub(super) fn look_at_parent(&mut self) {
        let now = self.now;
        let Some(held) = self.saga.parent.as_mut().and_then(|parent| parent.held.as_mut()) else { return };
        if held.look_at > now {
            return;
        }
        held.look_at = after(now, between(held.since, now).clamp(LOOK.0, LOOK.1));
        self.has_changed = true;
        self.effects.push(Effect::LookAtParent);
    }

    pub(super) fn parent_ended(&mut self) -> Result<(), IllegalTransition> {
        if self.saga.state.is_terminal() {
            self.note(Note::Duplicate);
            return Ok(());
        }
        if self.saga.held().is_none() {
            return Err(self.illegal("parent-ended", "it is not done yet"));
        }
        // Nothing is left to be sent, so an operator's pause has nothing left to hold up.
        self.saga.paused = false;
        self.release();
        self.end(SagaState::Completed, Note::Completed);
        Ok(())
    }

    /// The parent's command, once more or for the first time.
    pub(super) fn asked(&mut self, direction: Direction, answer: &ReplyAddress) -> Result<(), IllegalTransition> {
        if self.saga.parent.is_none() {
            return Err(self.illegal("asked", "no saga has started it"));
        }
        let outcome = match (direction, &self.saga.state) {
            (Direction::Action, SagaState::Completed) => Some(self.success()),
            (Direction::Action, SagaState::Compensated | SagaState::Abandoned) => Some(self.failure()),
            (Direction::Action, _) if self.saga.held().is_some() => Some(self.success()),
            // It will say so itself. Until then the attempt need not time out.
            (Direction::Action, _) => Some(ReplyOutcome::InProgress),
            (Direction::Compensation, SagaState::Compensated) => Some(ReplyOutcome::Success { output: null() }),
            (Direction::Compensation, SagaState::Completed) => {
                Some(refusal("sub-saga-completed", "it is complete, and what is complete is final"))
            }
            (Direction::Compensation, SagaState::Abandoned) => Some(self.failure()),
            (Direction::Compensation, _) if !self.is_backward() && self.is_pivot_passed() => {
                Some(refusal("sub-saga-past-pivot", "its pivot was sent, and from there it only goes forward"))
            }
            (Direction::Compensation, _) => None,
        };
        if let Some(outcome) = outcome {
            self.answer(answer.clone(), outcome);
            return Ok(());
        }
        if self.release() {
            self.saga.output = None;
        }
        if let Some(parent) = &mut self.saga.parent
            && parent.undo.as_ref() != Some(answer)
        {
            parent.undo = Some(answer.clone());
            self.has_changed = true;
        }
        match self.is_backward() {
            // It will say so itself, as above.
            true => self.answer(answer.clone(), ReplyOutcome::InProgress),
            false => self.go_backward(Problem::new("parent-compensates", "the saga that started it goes back")),
        }
        Ok(())
    }

    /// Instead of a start: the undoing came first. What remains is the tombstone that refuses the start.
    pub(super) fn entombed(&mut self, answer: &ReplyAddress) -> Result<(), IllegalTransition> {
        if self.saga.revision > 0 {
            return Err(self.illegal("entombed", "it was started before"));
        }
        let Some(parent) = &mut self.saga.parent else {
            return Err(self.illegal("entombed", "no saga has started it"));
        };
        parent.undo = Some(answer.clone());
        self.saga.cause = Some(Problem::new("tombstoned", "its compensation came before its start"));
        self.end(SagaState::Compensated, Note::Compensated);
        Ok(())
    }

    /// It has ended other than by its parent's end: the parent must know.
    pub(super) fn tell_parent(&mut self) {
        let Some(parent) = &self.saga.parent else { return };
        let (start, undo) = (parent.start.clone(), parent.undo.clone());
        // Of a child that was held it knows already, and asks again if it wants to go back.
        if parent.held.is_some() {
            return;
        }
        match (&self.saga.state, undo) {
            (SagaState::Compensated, Some(undo)) => self.answer(undo, ReplyOutcome::Success { output: null() }),
            (SagaState::Abandoned, Some(undo)) => self.answer(undo, self.failure()),
            (SagaState::Compensated | SagaState::Abandoned, None) => self.answer(start, self.failure()),
            _ => {}
        }
    }

    /// It is held no longer; whether it was.
    fn release(&mut self) -> bool {
        let was_held = self.saga.parent.as_mut().is_some_and(|parent| parent.held.take().is_some());
        self.has_changed |= was_held;
        was_held
    }

    fn answer(&mut self, to: ReplyAddress, outcome: ReplyOutcome) {
        self.effects.push(Effect::Answer { to, outcome });
    }

    fn success(&self) -> ReplyOutcome {
        ReplyOutcome::Success { output: self.saga.output.clone().unwrap_or_else(null) }
    }

    /// Nothing of it stands, or an operator has said that what stands is seen to.
    fn failure(&self) -> ReplyOutcome {
        let kind = match (&self.saga.state, &self.saga.cause) {
            (SagaState::Abandoned, _) => "sub-saga-abandoned",
            (_, Some(cause)) if cause.kind == "tombstoned" => "tombstoned",
            _ => "sub-saga-compensated",
        };
        let (name, state) = (&self.saga.definition.name, self.saga.state.as_str());
        // The parent's definition does not know what is sensitive here.
        let secrets = self.saga.secrets(self.definition);
        let why = self.saga.cause.as_ref().map(|cause| format!(": {}", secrets.text(&cause.title))).unwrap_or_default();
        let mut problem = Problem::new(kind, format!("sub-saga {name} is {state}{why}"));
        problem.detail = Some(format!("saga {}", self.saga.id));
        ReplyOutcome::Failure { problem }
    }
}

fn refusal(kind: &str, title: &str) -> ReplyOutcome {
    ReplyOutcome::Failure { problem: Problem::new(kind, title) }
}

fn null() -> Payload {
    Payload::from(serde_json::Value::Null)
}

fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    (later - earlier).to_std().unwrap_or_default()
}
