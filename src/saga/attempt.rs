//! Attempts: sending, time-outs, retries, and the end of the budget.

use std::time::Duration;

use crate::clock::after;
use crate::id::StepIndex;
use crate::saga::transition::{Machine, PUBLISH_GRACE};
use crate::saga::{
    CommandState, CompensationState, Direction, Effect, Note, Outcome, Phase, Problem, SagaState, Settled, StepState,
};

/// The longest wait that a participant can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

impl Machine<'_> {
    /// Does whatever is due by now. Nothing while paused: commands stay where they are.
    pub(super) fn due(&mut self) {
        if self.saga.paused || self.saga.state.is_terminal() {
            return;
        }
        for index in self.definition.indices() {
            let Some((direction, command)) = self.step(index).in_flight() else { continue };
            if command.phase.due() > self.now {
                continue;
            }
            match command.phase {
                // A saga on its way back does not insist on its actions: nobody knows, so it is compensated.
                _ if self.is_backward() && direction == Direction::Action => {
                    self.note(Note::TimedOut(index, direction));
                    let problem = self.no_reply(index, direction);
                    self.give_up(index, problem);
                }
                Phase::Sending(_) | Phase::Held(_) => self.send_again(index),
                Phase::Awaiting(_) => {
                    self.note(Note::TimedOut(index, direction));
                    let problem = self.no_reply(index, direction);
                    self.try_again(index, direction, problem, None);
                }
                Phase::BackingOff(_) => self.send_next(index),
                Phase::Waiting(_) => self.wait_ends(index),
            }
        }
        self.look_at_parent();
        let is_late = self.saga.deadline.is_some_and(|deadline| deadline <= self.now);
        if is_late && matches!(self.saga.state, SagaState::Running) {
            self.go_backward(Problem::new("saga-timeout", "the saga's time-out passed before its pivot was sent"));
        }
    }

    /// Publishes the attempt under way, once more or after it was held back: the broker never confirmed it.
    pub(super) fn send_again(&mut self, index: StepIndex) {
        let (now, mut publish) = (self.now, None);
        self.change_command(index, |command| {
            command.phase = Phase::Sending(after(now, PUBLISH_GRACE));
            publish = Some(Effect::Publish { seq: command.seq, attempt: command.attempt });
            true
        });
        self.effects.extend(publish);
    }

    /// Sends the next attempt.
    pub(super) fn send_next(&mut self, index: StepIndex) {
        self.change_command(index, |command| {
            command.attempt = command.attempt.saturating_add(1);
            true
        });
        self.send_again(index);
    }

    /// After an attempt that did not settle the command: waits for the next one, or gives up when none is left.
    pub(super) fn try_again(
        &mut self,
        index: StepIndex,
        direction: Direction,
        problem: Problem,
        not_before: Option<Duration>,
    ) {
        let Some((_, command)) = self.step(index).in_flight() else { return };
        let (seq, attempt) = (command.seq, command.attempt);
        let since_base = attempt.saturating_sub(command.base);
        let policy = self.retry_policy(index, direction);
        let insists = direction == Direction::Compensation || !self.is_backward();
        if policy.is_spent(since_base) || !insists {
            return self.give_up(index, problem);
        }
        let own = policy.delay_after(since_base, self.jitter(seq, attempt));
        let delay = own.max(not_before.unwrap_or_default().min(MAX_RETRY_AFTER));
        let due = after(self.now, delay);
        self.change_command(index, |command| {
            command.last = Some(problem);
            command.phase = Phase::BackingOff(due);
            true
        });
        if delay.is_zero() && !self.saga.paused {
            self.send_next(index);
        }
    }

    /// Attempts are spent: nobody knows whether the command took effect. An action before the pivot is compensated,
    /// so its entry is closed as unknown; elsewhere the entry stays PENDING, since only a late reply or a person can
    /// settle it.
    pub(super) fn give_up(&mut self, index: StepIndex, problem: Problem) {
        match self.step(index).clone() {
            StepState::Pending { command } => {
                let CommandState { seq, attempt, generation, .. } = command;
                self.note(Note::StepUnknown(index, problem.clone()));
                let is_compensable = self.is_backward() || !self.is_pivot_passed();
                if is_compensable {
                    self.settle(Settled::new(seq, attempt, Outcome::Unknown).because(problem.clone()));
                }
                self.set(index, StepState::Unknown { seq, attempts: attempt, generation, problem });
            }
            StepState::Compensating { owed, compensation: CompensationState::Pending { command } } => {
                let CommandState { seq, attempt, generation, .. } = command;
                let compensation = CompensationState::Unknown { seq, attempts: attempt, generation, problem };
                self.set(index, StepState::Compensating { owed, compensation });
            }
            _ => {}
        }
    }
}
