//! Waits: for a signal from outside, or just for time to pass.

use crate::definition::{OnTimeout, Work};
use crate::id::StepIndex;
use crate::payload::Payload;
use crate::saga::transition::{IllegalTransition, Machine};
use crate::saga::{CommandState, Note, Outcome, Phase, Problem, Settled, Skip, StepState};

impl Machine<'_> {
    /// A signal. The first one counts, whether the step waits for it already or not; to say it again says nothing new.
    pub(super) fn signalled(&mut self, signal: &str, payload: &Payload) -> Result<(), IllegalTransition> {
        let Some(index) = self.definition.waits_for(signal) else {
            return Err(self.illegal("signal", format!("none of its steps waits for `{signal}`")));
        };
        let is_known = matches!(self.step(index), StepState::Verified { .. }) || self.saga.signals.contains_key(signal);
        if is_known {
            self.note(Note::Duplicate);
            return Ok(());
        }
        if self.saga.state.is_terminal() {
            return Err(self.illegal("signal", "it has ended, and what has ended is final"));
        }
        if self.is_backward() {
            return Err(self.illegal("signal", "it is going back"));
        }
        match self.step(index).clone() {
            StepState::Waiting => {
                self.saga.signals.insert(signal.to_owned(), payload.clone());
                self.has_changed = true;
            }
            StepState::Pending { command } => self.wait_succeeds(index, &command, payload),
            state => {
                let (name, status) = (&self.definition.step(index).name, state.status().as_str());
                return Err(self.illegal("signal", format!("step `{name}` is {status}: the signal came too late")));
            }
        }
        self.note(Note::Signalled(signal.to_owned()));
        Ok(())
    }

    /// The step has begun to wait: perhaps its signal is there already.
    pub(super) fn take_early_signal(&mut self, index: StepIndex) {
        let Work::Wait { signal, .. } = &self.definition.step(index).work else { return };
        if let Some(payload) = self.saga.signals.remove(signal)
            && let StepState::Pending { command } = self.step(index).clone()
        {
            self.wait_succeeds(index, &command, &payload);
        }
    }

    /// The time of a `wait` or `delay` step is over.
    pub(super) fn wait_ends(&mut self, index: StepIndex) {
        let StepState::Pending { command } = self.step(index).clone() else { return };
        let step = self.definition.step(index);
        let problem = |signal: &str| {
            Problem::new("signal-timeout", format!("the signal `{signal}` did not come within {:?}", step.timeout))
        };
        match &step.work {
            Work::Wait { signal, on_timeout: OnTimeout::Fail } => self.wait_fails(index, problem(signal)),
            Work::Wait { signal, on_timeout: OnTimeout::Continue } => {
                let CommandState { seq, attempt, .. } = command;
                self.settle(Settled::new(seq, attempt, Outcome::Failure).because(problem(signal)));
                self.set(index, StepState::Skipped { by: Skip::TimedOut });
                self.note(Note::StepSkipped(index));
            }
            Work::Delay | Work::Command | Work::Saga { .. } => {
                self.wait_succeeds(index, &command, &Payload::from(serde_json::Value::Null));
            }
        }
    }

    /// A wait has no effect, so to end it without its signal is a refusal.
    pub(super) fn wait_fails(&mut self, index: StepIndex, problem: Problem) {
        let StepState::Pending { command: CommandState { seq, attempt, generation, .. } } = self.step(index).clone()
        else {
            return;
        };
        self.settle(Settled::new(seq, attempt, Outcome::Failure).because(problem.clone()));
        self.note(Note::StepFailed(index, problem.clone()));
        self.set(index, StepState::Failed { seq: Some(seq), attempts: attempt, generation, problem });
    }

    fn wait_succeeds(&mut self, index: StepIndex, command: &CommandState, payload: &Payload) {
        self.verify(index, command.seq, command.attempt, command.generation, command.attempt, payload);
    }

    /// Whether the step's command is a wait, which nobody replies to.
    pub(super) fn is_wait(&self, index: StepIndex) -> bool {
        matches!(self.step(index).in_flight(), Some((_, CommandState { phase: Phase::Waiting(_), .. })))
    }
}
