//! Replies: on time, late, repeated, and contradicting each other.

use crate::clock::after;
use crate::id::{Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::transition::{IllegalTransition, Machine};
use crate::saga::{
    CommandState, CompensationState, Direction, Note, Outcome, Owed, Phase, Problem, ReplyOutcome, Settled, Skip,
    StepState,
};

/// What a step's state has to do with the command that a reply names.
#[derive(Clone, Copy)]
enum Relation {
    /// It waits for this reply.
    InFlight(Direction),
    /// It is the step's action, settled one way or other.
    Action,
    /// It is the step's compensation, settled one way or other.
    Compensation,
}

impl Machine<'_> {
    pub(super) fn replied(&mut self, seq: Seq, attempt: u32, outcome: &ReplyOutcome) -> Result<(), IllegalTransition> {
        if seq >= self.saga.next_seq {
            return Err(self.illegal("reply", format!("it has never decided command {seq}")));
        }
        if self.saga.state.is_terminal() {
            self.late(seq, outcome);
            return Ok(());
        }
        let related = self.definition.indices().find_map(|index| Some((index, relation(self.step(index), seq)?)));
        match related {
            Some((index, Relation::InFlight(direction))) => self.settles(index, direction, attempt, outcome)?,
            Some((index, Relation::Action)) => self.revises_action(index, attempt, outcome),
            Some((index, Relation::Compensation)) => self.revises_compensation(index, attempt, outcome),
            // An operator has replaced the command by one of a later generation, or passed over it.
            None => self.note(Note::Duplicate),
        }
        Ok(())
    }

    /// A reply to a saga that has ended: states that have ended are final.
    fn late(&mut self, seq: Seq, outcome: &ReplyOutcome) {
        let related = self.definition.indices().find_map(|index| Some((index, relation(self.step(index), seq)?)));
        let contradicts = related.is_some_and(|(index, _)| {
            matches!(
                (self.step(index), outcome),
                (StepState::Failed { .. }, ReplyOutcome::Success { .. })
                    | (StepState::Verified { .. }, ReplyOutcome::Failure { .. })
            )
        });
        match related {
            Some((index, _)) if contradicts => self.contradiction(index, "after the saga's end"),
            _ => self.note(Note::Duplicate),
        }
    }

    /// A reply to a command in flight. A late reply to an earlier attempt settles it just as well: the key is the same.
    fn settles(
        &mut self,
        index: StepIndex,
        direction: Direction,
        attempt: u32,
        outcome: &ReplyOutcome,
    ) -> Result<(), IllegalTransition> {
        let Some((_, command)) = self.step(index).in_flight() else { return Ok(()) };
        let command = command.clone();
        if self.is_wait(index) {
            return Err(self.illegal("reply", format!("command {} is a wait, which nobody replies to", command.seq)));
        }
        if attempt > command.attempt {
            return Err(self.illegal("reply", format!("attempt {attempt} of command {} was never sent", command.seq)));
        }
        let is_current = attempt == command.attempt;
        match outcome {
            ReplyOutcome::Success { output } => self.succeed(index, direction, &command, attempt, output),
            ReplyOutcome::Failure { problem } => self.fail(index, direction, &command, attempt, problem),
            ReplyOutcome::Retry { problem, .. }
                if self.retry_policy(index, direction).non_retryable.contains(&problem.kind) =>
            {
                self.fail(index, direction, &command, attempt, problem);
            }
            ReplyOutcome::Retry { problem, after } if is_current && !matches!(command.phase, Phase::BackingOff(_)) => {
                self.note(Note::RetryAsked(index, direction));
                self.try_again(index, direction, problem.clone(), *after);
            }
            ReplyOutcome::InProgress if is_current => {
                let due = after(self.now, self.timeout(index, direction));
                self.change_command(index, |command| {
                    command.phase = Phase::Awaiting(due);
                    true
                });
            }
            // Of an attempt that has been given up already: the next one is on its way or waiting.
            ReplyOutcome::Retry { .. } | ReplyOutcome::InProgress => self.note(Note::Duplicate),
        }
        Ok(())
    }

    fn succeed(
        &mut self,
        index: StepIndex,
        direction: Direction,
        command: &CommandState,
        attempt: u32,
        output: &Payload,
    ) {
        let (seq, attempts, generation) = (command.seq, command.attempt, command.generation);
        match (direction, self.step(index).clone()) {
            (Direction::Action, _) => self.verify(index, seq, attempts, generation, attempt, output),
            (Direction::Compensation, StepState::Compensating { owed, .. }) => {
                self.settle(Settled::new(seq, attempt, Outcome::Success));
                self.set(index, StepState::Compensated { owed, seq, attempts });
                self.note(Note::StepCompensated(index));
            }
            (Direction::Compensation, _) => {}
        }
    }

    pub(super) fn verify(
        &mut self,
        index: StepIndex,
        seq: Seq,
        attempts: u32,
        generation: u32,
        attempt: u32,
        output: &Payload,
    ) {
        self.settle(Settled::new(seq, attempt, Outcome::Success).giving(output.clone()));
        self.keep_output(index, output);
        self.set(index, StepState::Verified { seq, attempts, generation });
        self.note(Note::StepVerified(index));
    }

    fn keep_output(&mut self, index: StepIndex, output: &Payload) {
        if self.saga.reads_outputs {
            self.saga.outputs.insert(index, output.clone());
        }
    }

    fn fail(
        &mut self,
        index: StepIndex,
        direction: Direction,
        command: &CommandState,
        attempt: u32,
        problem: &Problem,
    ) {
        let (seq, attempts, generation, problem) = (command.seq, command.attempt, command.generation, problem.clone());
        self.settle(Settled::new(seq, attempt, Outcome::Failure).because(problem.clone()));
        match (direction, self.step(index).clone()) {
            (Direction::Compensation, StepState::Compensating { owed, .. }) => {
                let compensation = CompensationState::Failed { seq: Some(seq), attempts, generation, problem };
                self.set(index, StepState::Compensating { owed, compensation });
            }
            _ => {
                self.note(Note::StepFailed(index, problem.clone()));
                self.set(index, StepState::Failed { seq: Some(seq), attempts, generation, problem });
            }
        }
    }

    /// A reply to an action that was settled without it.
    fn revises_action(&mut self, index: StepIndex, attempt: u32, outcome: &ReplyOutcome) {
        match (self.step(index).clone(), outcome) {
            (StepState::Unknown { seq, attempts, generation, .. }, ReplyOutcome::Success { output }) => {
                self.verify(index, seq, attempts, generation, attempt, output);
            }
            (StepState::Unknown { seq, attempts, generation, .. }, ReplyOutcome::Failure { problem }) => {
                self.settle(Settled::new(seq, attempt, Outcome::Failure).because(problem.clone()));
                self.note(Note::StepFailed(index, problem.clone()));
                let problem = problem.clone();
                self.set(index, StepState::Failed { seq: Some(seq), attempts, generation, problem });
            }
            // The participant said "no effect" and then "done": what it did must be undone after all.
            (StepState::Failed { seq: Some(seq), attempts, generation, .. }, ReplyOutcome::Success { output }) => {
                self.contradiction(index, "success after failure");
                self.verify(index, seq, attempts, generation, attempt, output);
            }
            (StepState::Verified { .. }, ReplyOutcome::Failure { .. }) => {
                self.contradiction(index, "failure after success");
            }
            (StepState::Skipped { by: Skip::OperatorAfterSend { owed } }, ReplyOutcome::Success { output })
                if !owed.known =>
            {
                self.settle(Settled::new(owed.seq, attempt, Outcome::Success).giving(output.clone()));
                self.keep_output(index, output);
                self.set(index, StepState::Skipped { by: Skip::OperatorAfterSend { owed: known(owed) } });
            }
            (StepState::Skipped { by: Skip::OperatorAfterSend { owed } }, ReplyOutcome::Failure { problem })
                if !owed.known =>
            {
                self.settle(Settled::new(owed.seq, attempt, Outcome::Failure).because(problem.clone()));
                self.set(index, StepState::Skipped { by: Skip::Operator });
            }
            (StepState::Compensating { owed, compensation }, ReplyOutcome::Success { output }) if !owed.known => {
                self.settle(Settled::new(owed.seq, attempt, Outcome::Success).giving(output.clone()));
                self.keep_output(index, output);
                let Owed { seq, attempts, generation, .. } = owed;
                let next = match compensation {
                    // Its command could not be made, likely for want of this very output: it is owed anew.
                    CompensationState::Failed { seq: None, .. } => StepState::Verified { seq, attempts, generation },
                    compensation => StepState::Compensating { owed: known(owed), compensation },
                };
                self.set(index, next);
            }
            (
                StepState::Compensating { owed, compensation: CompensationState::Failed { seq: None, .. } },
                ReplyOutcome::Failure { problem },
            ) if !owed.known => {
                self.settle(Settled::new(owed.seq, attempt, Outcome::Failure).because(problem.clone()));
                let Owed { seq, attempts, generation, .. } = owed;
                let problem = problem.clone();
                self.set(index, StepState::Failed { seq: Some(seq), attempts, generation, problem });
            }
            // Everything else says nothing that would change what is owed.
            _ => self.note(Note::Duplicate),
        }
    }

    /// A reply to a compensation that was settled without it.
    fn revises_compensation(&mut self, index: StepIndex, attempt: u32, outcome: &ReplyOutcome) {
        match (self.step(index).clone(), outcome) {
            (StepState::Compensating { owed, compensation }, ReplyOutcome::Success { .. }) => {
                let (seq, attempts) = match compensation {
                    CompensationState::Unknown { seq, attempts, .. } => (seq, attempts),
                    CompensationState::Failed { seq: Some(seq), attempts, .. } => {
                        self.contradiction(index, "compensation: success after failure");
                        (seq, attempts)
                    }
                    _ => return self.note(Note::Duplicate),
                };
                self.settle(Settled::new(seq, attempt, Outcome::Success));
                self.set(index, StepState::Compensated { owed, seq, attempts });
                self.note(Note::StepCompensated(index));
            }
            (
                StepState::Compensating {
                    owed,
                    compensation: CompensationState::Unknown { seq, attempts, generation, .. },
                },
                ReplyOutcome::Failure { problem },
            ) => {
                self.settle(Settled::new(seq, attempt, Outcome::Failure).because(problem.clone()));
                let compensation =
                    CompensationState::Failed { seq: Some(seq), attempts, generation, problem: problem.clone() };
                self.set(index, StepState::Compensating { owed, compensation });
            }
            (StepState::Compensated { .. }, ReplyOutcome::Failure { .. }) => {
                self.contradiction(index, "compensation: failure after success");
            }
            _ => self.note(Note::Duplicate),
        }
    }

    fn contradiction(&mut self, index: StepIndex, what: &str) {
        self.note(Note::Contradiction(index, what.to_owned()));
    }
}

fn known(owed: Owed) -> Owed {
    Owed { known: true, ..owed }
}

fn relation(step: &StepState, seq: Seq) -> Option<Relation> {
    if let Some((direction, command)) = step.in_flight()
        && command.seq == seq
    {
        return Some(Relation::InFlight(direction));
    }
    let (action, compensation) = match step {
        StepState::Waiting | StepState::Pending { .. } => (None, None),
        StepState::Skipped { by: Skip::Condition | Skip::TimedOut | Skip::Operator } => (None, None),
        StepState::Verified { seq, .. } | StepState::Unknown { seq, .. } => (Some(*seq), None),
        StepState::Failed { seq, .. } => (*seq, None),
        StepState::Skipped { by: Skip::OperatorAfterSend { owed } | Skip::OperatorCompensation { owed } } => {
            (Some(owed.seq), None)
        }
        StepState::Compensating { owed, compensation } => (
            Some(owed.seq),
            match compensation {
                CompensationState::Pending { .. } => None,
                CompensationState::Failed { seq, .. } => *seq,
                CompensationState::Unknown { seq, .. } => Some(*seq),
            },
        ),
        StepState::Compensated { owed, seq, .. } => (Some(owed.seq), Some(*seq)),
    };
    if action == Some(seq) {
        Some(Relation::Action)
    } else if compensation == Some(seq) {
        Some(Relation::Compensation)
    } else {
        None
    }
}
