//! What can happen to a saga.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::{Direction, Problem, ReplyAddress};

/// Something that happened, and when, on the database's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub now: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened. Stored as JSON in the history, so variants and fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// The saga was started. Only ever the first event.
    Started,
    /// A participant replied; the token was right.
    Replied {
        /// The command.
        seq: Seq,
        /// The attempt that the token names.
        attempt: u32,
        /// What the participant said.
        outcome: ReplyOutcome,
    },
    /// The broker has confirmed an attempt, and did not return it.
    Published {
        /// The command.
        seq: Seq,
        /// The attempt.
        attempt: u32,
    },
    /// The participant takes no more for now: the attempt is not sent, and waits for room.
    HeldBack {
        /// The command.
        seq: Seq,
        /// The attempt, which is not spent.
        attempt: u32,
        /// When it is tried again at the latest.
        until: Timestamp,
    },
    /// There is room at the participant: what was held back is sent now.
    Released {
        /// The command.
        seq: Seq,
    },
    /// The saga's due time has come: whatever is due by now is done.
    Due,
    /// A signal came from outside.
    Signalled {
        /// Its name.
        signal: String,
        /// What it says; the output of the step that waits for it.
        payload: Payload,
    },
    /// Of a sub-saga: its parent sent the command that started it once more, or the one that undoes it.
    Asked {
        /// Which of them.
        direction: Direction,
        /// Where the answer goes.
        answer: ReplyAddress,
    },
    /// Of a sub-saga, instead of its start: its undoing came first, so that it must never start.
    Entombed {
        /// Where the answer goes.
        answer: ReplyAddress,
    },
    /// Of a sub-saga: its parent has ended, so that nobody can ask for its compensation any more.
    ParentEnded,
    /// An operator acted.
    Operated {
        /// What the operator asked for.
        operation: Operation,
    },
    /// An operator moved the saga to another version of its definition: [`migrate()`](crate::saga::migrate()), since a
    /// transition knows one definition only.
    Migrated {
        /// The version that it had.
        from: u32,
        /// The version that it has.
        to: u32,
    },
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ReplyOutcome {
    /// Done. The body is the step's output.
    Success {
        /// The step's output.
        output: Payload,
    },
    /// Refused: no effect, and trying again would not help.
    Failure {
        /// Why.
        problem: Problem,
    },
    /// Not now: try again.
    Retry {
        /// Why.
        problem: Problem,
        /// Not before this long from now; the retry policy's own wait if absent.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<Duration>,
    },
    /// A heartbeat: the attempt's time-out starts again.
    InProgress,
}

/// What an operator can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Send again what is stuck or backing off, with a fresh count of attempts. Without a step: all of them.
    Retry {
        /// The step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepIndex>,
    },
    /// Pass over a step, or over its compensation.
    Skip {
        /// The step.
        step: StepIndex,
    },
    /// Send what the participant has refused once more, with another input; what was sent before stays as it was.
    Edit {
        /// The step.
        step: StepIndex,
        /// The body of the new command.
        input: Payload,
    },
    /// Go backward.
    Compensate,
    /// Send nothing new until resumed.
    Pause,
    /// Undo a pause.
    Resume,
    /// Go backward, because the caller no longer wants the saga.
    Cancel,
    /// Give up: nothing is undone, nothing more is sent.
    Abandon,
}

impl Operation {
    /// The word in routes and commands, for example `retry`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Retry { .. } => "retry",
            Self::Skip { .. } => "skip",
            Self::Edit { .. } => "edit",
            Self::Compensate => "compensate",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
        }
    }
}
