//! What operators can do to one saga.

use crate::clock::Timestamp;
use crate::definition::{Definition, Work};
use crate::id::{Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::transition::{IllegalTransition, Machine, transition};
use crate::saga::{
    CommandState, CompensationState, Event, EventKind, Note, Operation, Outcome, Owed, Phase, Problem, Saga, SagaState,
    Settled, Skip, StepState,
};

impl Machine<'_> {
    pub(super) fn operated(&mut self, operation: &Operation) -> Result<(), IllegalTransition> {
        let word = operation.as_str();
        if self.saga.state.is_terminal() {
            return Err(self.illegal(word, "it has ended, and what has ended is final"));
        }
        if let Operation::Retry { step: Some(step) } | Operation::Skip { step } | Operation::Edit { step, .. } =
            operation
            && step.at() >= self.saga.steps.len()
        {
            return Err(self.illegal(word, format!("it has no step number {}", step.at())));
        }
        match operation {
            Operation::Pause if self.saga.paused => return Err(self.illegal(word, "it is paused already")),
            Operation::Pause => {
                self.saga.paused = true;
                self.has_changed = true;
                self.note(Note::Paused);
            }
            Operation::Resume if !self.saga.paused => return Err(self.illegal(word, "it is not paused")),
            Operation::Resume => {
                self.saga.paused = false;
                self.has_changed = true;
                self.note(Note::Resumed);
            }
            Operation::Cancel => self.turn_round(word, "cancelled", "the saga was cancelled")?,
            Operation::Compensate => {
                self.turn_round(word, "compensated-by-operator", "an operator sent the saga back")?
            }
            Operation::Abandon => self.abandon(),
            Operation::Retry { .. } | Operation::Edit { .. } if self.saga.paused => {
                return Err(self.illegal(word, "it is paused: resume it first"));
            }
            Operation::Retry { step: Some(step) } => {
                if !self.retry(*step) {
                    let name = &self.definition.step(*step).name;
                    let status = self.step(*step).status().as_str();
                    return Err(self.illegal(word, format!("step `{name}` is {status}, neither stuck nor backing off")));
                }
            }
            Operation::Retry { step: None } => {
                let retried = self.definition.indices().filter(|&step| self.retry(step)).count();
                if retried == 0 {
                    return Err(self.illegal(word, "no step is stuck or backing off"));
                }
            }
            Operation::Skip { step } => self.skip(*step)?,
            Operation::Edit { step, input } => self.edit(*step, input)?,
        }
        Ok(())
    }

    fn turn_round(&mut self, word: &'static str, kind: &str, title: &str) -> Result<(), IllegalTransition> {
        if self.is_backward() {
            return Err(self.illegal(word, "it is going back already"));
        }
        if self.is_pivot_passed() {
            return Err(self.illegal(word, "its pivot was sent, and from there it only goes forward"));
        }
        if let Some(parent) = self.saga.parent.as_ref().filter(|parent| parent.held.is_some()) {
            let why = format!("it is done, and saga {} goes on from there: cancel that one", parent.saga);
            return Err(self.illegal(word, why));
        }
        self.go_backward(Problem::new(kind, title));
        Ok(())
    }

    /// Tries a step anew that is stuck or waits for its next attempt. A recorded failure needs a new generation, since
    /// the participant's inbox would answer the old key from memory; an unknown outcome keeps its key.
    fn retry(&mut self, index: StepIndex) -> bool {
        match self.step(index).clone() {
            StepState::Pending { command: CommandState { phase: Phase::BackingOff(_), .. } }
            | StepState::Compensating {
                compensation: CompensationState::Pending { command: CommandState { phase: Phase::BackingOff(_), .. } },
                ..
            } => {
                self.change_command(index, |command| {
                    command.base = command.attempt;
                    true
                });
                self.send_next(index);
            }
            StepState::Unknown { seq, attempts, generation, problem } if !self.is_backward() => {
                let command = revived(seq, attempts, generation, problem, self.now);
                self.set(index, StepState::Pending { command });
                self.send_next(index);
            }
            StepState::Failed { generation, .. } if !self.is_backward() => self.send_action(index, generation + 1),
            StepState::Compensating { owed, compensation } => match compensation {
                CompensationState::Unknown { seq, attempts, generation, problem } => {
                    let command = revived(seq, attempts, generation, problem, self.now);
                    let compensation = CompensationState::Pending { command };
                    self.set(index, StepState::Compensating { owed, compensation });
                    self.send_next(index);
                }
                CompensationState::Failed { generation, .. } => self.send_compensation(index, owed, generation + 1),
                CompensationState::Pending { .. } => return false,
            },
            _ => return false,
        }
        true
    }

    /// Sends what was refused once more, with another body. Only what was refused: of anything else the participant may
    /// have done, or may yet do, what the body that it has asks for. The generation rises, since its inbox would answer
    /// the old key from memory.
    fn edit(&mut self, index: StepIndex, input: &Payload) -> Result<(), IllegalTransition> {
        let step = self.definition.step(index);
        if !matches!(step.work, Work::Command) {
            return Err(self.illegal("edit", format!("step `{}` is no command to a participant", step.name)));
        }
        match self.step(index).clone() {
            StepState::Failed { generation, .. } if !self.is_backward() => {
                self.send_action_with(index, generation + 1, input.clone());
            }
            StepState::Compensating { owed, compensation: CompensationState::Failed { generation, .. } }
                if step.compensation.action().is_some() =>
            {
                self.send_compensation_with(index, owed, generation + 1, input.clone());
            }
            StepState::Failed { .. } => {
                let why = format!("step `{}` was refused, and the saga goes back: nothing is sent for it", step.name);
                return Err(self.illegal("edit", why));
            }
            state => {
                let (name, status) = (&step.name, state.status().as_str());
                let why = format!("step `{name}` is {status}, and only what was refused is sent with another input");
                return Err(self.illegal("edit", why));
            }
        }
        if !self.definition.sensitive.is_empty() {
            // For `Saga::secrets`: what a participant quotes of it is hidden, too. No signal's name has a colon.
            let name = format!("edit:{}:{}", step.name, self.saga.next_seq.0);
            self.saga.signals.insert(name, input.clone());
        }
        Ok(())
    }

    fn skip(&mut self, index: StepIndex) -> Result<(), IllegalTransition> {
        let next = match (self.step(index).clone(), self.is_backward()) {
            (StepState::Waiting, false) | (StepState::Failed { .. }, false) => Skip::Operator,
            (StepState::Pending { command }, _) => {
                let CommandState { seq, attempt, generation, .. } = command;
                self.settle(Settled::new(seq, attempt, Outcome::Skipped));
                Skip::OperatorAfterSend { owed: Owed { seq, attempts: attempt, generation, known: false } }
            }
            (StepState::Unknown { seq, attempts, generation, problem }, false) => {
                self.settle(Settled::new(seq, attempts, Outcome::Skipped).because(problem));
                Skip::OperatorAfterSend { owed: Owed { seq, attempts, generation, known: false } }
            }
            (StepState::Compensating { owed, compensation }, _) => {
                self.close_compensation(&compensation, Outcome::Skipped);
                Skip::OperatorCompensation { owed }
            }
            (state, is_backward) => match self.owes(index) {
                Some(owed) if is_backward => Skip::OperatorCompensation { owed },
                _ => {
                    let (name, status) = (&self.definition.step(index).name, state.status().as_str());
                    return Err(
                        self.illegal("skip", format!("step `{name}` is {status}, which leaves nothing to skip"))
                    );
                }
            },
        };
        self.set(index, StepState::Skipped { by: next });
        self.note(Note::StepSkipped(index));
        Ok(())
    }

    fn close_compensation(&mut self, compensation: &CompensationState, outcome: Outcome) {
        match compensation {
            CompensationState::Pending { command } => {
                self.settle(Settled::new(command.seq, command.attempt, outcome));
            }
            CompensationState::Unknown { seq, attempts, problem, .. } => {
                self.settle(Settled::new(*seq, *attempts, outcome).because(problem.clone()));
            }
            CompensationState::Failed { .. } => {}
        }
    }

    /// Gives up: every entry that is still PENDING is closed, nothing is undone, and the saga ends.
    fn abandon(&mut self) {
        for index in self.definition.indices() {
            match self.step(index).clone() {
                StepState::Pending { command } => {
                    self.settle(Settled::new(command.seq, command.attempt, Outcome::Abandoned));
                }
                // Before the pivot the entry was closed when the attempts were spent.
                StepState::Unknown { seq, attempts, problem, .. } if self.is_pivot_passed() && !self.is_backward() => {
                    self.settle(Settled::new(seq, attempts, Outcome::Abandoned).because(problem));
                }
                StepState::Compensating { compensation, .. } => {
                    self.close_compensation(&compensation, Outcome::Abandoned);
                }
                _ => {}
            }
        }
        self.saga.paused = false;
        self.end(SagaState::Abandoned, Note::Abandoned);
    }
}

/// A command whose attempts were spent, about to be sent again with a fresh count.
fn revived(seq: Seq, attempts: u32, generation: u32, problem: Problem, now: Timestamp) -> CommandState {
    CommandState {
        seq,
        generation,
        attempt: attempts,
        base: attempts,
        last: Some(problem),
        phase: Phase::BackingOff(now),
    }
}

/// What an operator can do to a saga as it is now, and where; for `stuck.actions` and the console.
pub fn allowed(definition: &Definition, saga: &Saga) -> Vec<&'static str> {
    let first_stuck = saga.state.stuck().map(|stuck| stuck.step);
    let candidates = [
        Operation::Retry { step: None },
        Operation::Skip { step: first_stuck.unwrap_or(StepIndex(0)) },
        Operation::Compensate,
        Operation::Pause,
        Operation::Resume,
        Operation::Cancel,
        Operation::Abandon,
    ];
    candidates
        .into_iter()
        .filter(|operation| first_stuck.is_some() || !matches!(operation, Operation::Skip { .. }))
        .filter(|operation| {
            let kind = EventKind::Operated { operation: operation.clone() };
            transition(definition, saga, &Event { now: saga.updated_at, kind }).is_ok()
        })
        .map(|operation| operation.as_str())
        .collect()
}
