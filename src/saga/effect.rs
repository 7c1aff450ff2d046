//! What follows from an event: values that the coordinator carries out in one commit and the publish after it.

use serde::{Deserialize, Serialize};

use crate::id::{Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::{Direction, Problem, ReplyAddress, ReplyOutcome};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Record a new command as PENDING in the outbox, and publish its first attempt after the commit.
    Decide {
        /// Its place in the saga.
        seq: Seq,
        /// The step.
        step: StepIndex,
        /// Forward or back.
        direction: Direction,
        /// The last part of the idempotency key.
        generation: u32,
        /// On a compensation: the generation of the action that it undoes.
        compensates: Option<u32>,
        /// The command's body.
        body: Payload,
    },
    /// Publish an attempt of a command that the outbox already holds.
    Publish {
        /// The command.
        seq: Seq,
        /// The attempt.
        attempt: u32,
    },
    /// The command's outcome is known: mark its entry VERIFIED.
    Settle(Settled),
    /// Of a sub-saga: tell its parent, once this is committed.
    Answer {
        /// Where.
        to: ReplyAddress,
        /// What.
        outcome: ReplyOutcome,
    },
    /// Of a sub-saga: look whether its parent has ended.
    LookAtParent,
    /// Something worth telling: a lifecycle event, a counter.
    Note(Note),
}

/// A command's entry becomes VERIFIED.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// The command.
    pub seq: Seq,
    /// The attempt whose reply settled it, or the last one.
    pub attempt: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// What the step put out, on success of an action.
    pub output: Option<Payload>,
    /// What went wrong, otherwise.
    pub problem: Option<Problem>,
}

impl Settled {
    /// Without output or problem.
    pub fn new(seq: Seq, attempt: u32, outcome: Outcome) -> Self {
        Self { seq, attempt, outcome, output: None, problem: None }
    }

    /// With what the step put out.
    pub fn giving(self, output: Payload) -> Self {
        Self { output: Some(output), ..self }
    }

    /// With what went wrong.
    pub fn because(self, problem: Problem) -> Self {
        Self { problem: Some(problem), ..self }
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The participant did it.
    Success,
    /// The participant refused it.
    Failure,
    /// Attempts are spent; it is treated as if it may have taken effect.
    Unknown,
    /// An operator passed over it.
    Skipped,
    /// An operator gave the saga up.
    Abandoned,
}

impl Outcome {
    /// The word in the outbox table, for example `success`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Something worth telling about a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// It was started.
    Started,
    /// A step succeeded.
    StepVerified(StepIndex),
    /// A step was refused.
    StepFailed(StepIndex, Problem),
    /// A step's attempts are spent.
    StepUnknown(StepIndex, Problem),
    /// A step was passed over.
    StepSkipped(StepIndex),
    /// A step was undone.
    StepCompensated(StepIndex),
    /// The saga goes backward.
    Compensating(Problem),
    /// The saga is complete.
    Completed,
    /// The saga is undone.
    Compensated,
    /// The saga needs a person.
    Stuck(StepIndex, Problem),
    /// The saga needed a person and no longer does.
    Unstuck,
    /// An operator gave it up.
    Abandoned,
    /// An operator paused it.
    Paused,
    /// An operator resumed it.
    Resumed,
    /// An operator moved it to another version of its definition.
    Migrated {
        /// The version that it had.
        from: u32,
    },
    /// An attempt timed out.
    TimedOut(StepIndex, Direction),
    /// A participant asked for another attempt.
    RetryAsked(StepIndex, Direction),
    /// A signal came.
    Signalled(String),
    /// A reply repeats what is known.
    Duplicate,
    /// A reply contradicts what was recorded.
    Contradiction(StepIndex, String),
}
