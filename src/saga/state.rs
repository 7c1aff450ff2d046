//! A saga's state. One variant per real phase, with just the data of that phase.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, after};
use crate::definition::{Definition, Step};
use crate::id::{DefinitionRef, SagaId, Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::written;
use crate::trace::TraceContext;

/// One running instance of a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Saga {
    /// Its id.
    pub id: SagaId,
    /// The definition version that it is pinned to.
    pub definition: DefinitionRef,
    /// At most one saga per definition and key.
    pub key: Option<String>,
    /// What it was started with.
    pub input: Payload,
    /// Where it stands.
    pub state: SagaState,
    /// Whether an operator has paused it: replies are applied, nothing new is sent.
    pub paused: bool,
    /// Rises by one with every event that changed the saga; the version column that every update checks.
    pub revision: u32,
    /// The next command's place.
    pub next_seq: Seq,
    /// One entry per step of the definition, in its order.
    pub steps: Vec<StepState>,
    /// When the saga gives up going forward; `None` without a time-out, and once the pivot was sent.
    pub deadline: Option<Timestamp>,
    /// Why it went backward, once it has.
    pub cause: Option<Problem>,
    /// What the completed saga put out.
    pub output: Option<Payload>,
    /// What the steps put out. Loaded from the outbox where the definition reads outputs; never stored with the saga.
    pub outputs: BTreeMap<StepIndex, Payload>,
    /// Whether [`Saga::outputs`] must be loaded with the saga.
    pub reads_outputs: bool,
    /// Signals that came before the step that waits for them, by name.
    pub signals: BTreeMap<String, Payload>,
    /// The saga that started this one, and waits for its end.
    pub parent: Option<Parent>,
    /// The span that it is a part of, if whoever started it gave one.
    pub trace: Option<Box<TraceContext>>,
    /// When it was started.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it reached a terminal state.
    pub ended_at: Option<Timestamp>,
}

/// The saga that started this one as one of its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parent {
    /// Its id.
    pub saga: SagaId,
    /// The step.
    pub step: String,
    /// How many sagas stand above this one.
    pub depth: u8,
    /// Where to say what became of the start.
    pub start: ReplyAddress,
    /// Where to say what became of the compensation, once the parent has asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<ReplyAddress>,
    /// Every step is done, and what remains is the parent's fate: until it has ended it may ask for compensation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// Since when a sub-saga is done and waits for its parent's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when.
    pub since: Timestamp,
    /// When to look whether the parent has ended. It says so itself; this is for the case that it could not.
    pub look_at: Timestamp,
}

/// Where a reply goes: what a command carries to be echoed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyAddress {
    /// The attempt token.
    pub token: String,
    /// The routing key.
    pub reply_to: String,
}

/// Where a saga stands. Terminal states are final.
#[derive(Clone, Debug, PartialEq)]
pub enum SagaState {
    /// Going forward.
    Running,
    /// Going backward: what was done is being undone.
    Compensating,
    /// Every step is verified or skipped. Terminal.
    Completed,
    /// Every effect is undone. Terminal.
    Compensated,
    /// Cannot go on without a person.
    Stuck(Stuck),
    /// Given up by an operator, whose word it is. Terminal.
    Abandoned,
}

/// Why a saga cannot go on without a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stuck {
    /// The way the saga was going, and will go on once it is free.
    pub direction: Direction,
    /// The step that holds it up; the first, when there are several.
    pub step: StepIndex,
    /// What happened there.
    pub problem: Problem,
    /// Since when.
    pub since: Timestamp,
}

/// Forward, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// A step's action.
    Action,
    /// A step's compensation.
    Compensation,
}

impl Direction {
    /// The word on the wire: `action` or `compensation`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
        }
    }

    /// What the participant is asked to do by a step's command of this direction.
    pub(crate) fn action_of(self, step: &Step) -> &str {
        match (self, step.compensation.action()) {
            (Self::Compensation, Some(compensation)) => &compensation.action,
            _ => &step.action,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as a participant or the coordinator reports it: the body of a `failure` or `retry` reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable, machine-readable word, for example `card-declined`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// More for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Problem {
    /// A problem without detail.
    pub fn new(kind: impl Into<String>, title: impl Into<String>) -> Self {
        Self { kind: kind.into(), title: title.into(), detail: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.title, &self.detail) {
            ("", None) => f.write_str(&self.kind),
            ("", Some(detail)) => write!(f, "{}: {detail}", self.kind),
            (title, None) => write!(f, "{}: {title}", self.kind),
            (title, Some(detail)) => write!(f, "{}: {title}: {detail}", self.kind),
        }
    }
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "s", rename_all = "kebab-case", try_from = "written::Step")]
pub enum StepState {
    /// Never sent.
    Waiting,
    /// The action was sent and its outcome is not known.
    Pending {
        /// The action's command.
        #[serde(flatten)]
        command: CommandState,
    },
    /// The action succeeded.
    Verified {
        /// The action's command.
        seq: Seq,
        /// Attempts that it took.
        attempts: u32,
        /// Its generation, which is part of the idempotency key that a compensation names.
        generation: u32,
    },
    /// The participant said: no effect. Or, where `seq` is `None`, the command could not even be made.
    Failed {
        /// The action's command, if one was sent.
        seq: Option<Seq>,
        /// Attempts that it took.
        attempts: u32,
        /// The generation that failed; an operator's retry uses the next.
        generation: u32,
        /// What the participant said.
        problem: Problem,
    },
    /// Attempts are spent and nobody knows whether the action took effect.
    Unknown {
        /// The action's command.
        seq: Seq,
        /// Attempts that it took.
        attempts: u32,
        /// Its generation; an operator's retry keeps it.
        generation: u32,
        /// What was last heard.
        problem: Problem,
    },
    /// Passed over.
    Skipped {
        /// By whom.
        by: Skip,
    },
    /// Being undone.
    Compensating {
        /// The action's command and what is known of it.
        owed: Owed,
        /// How far undoing has come.
        compensation: CompensationState,
    },
    /// Undone, or known to have left nothing.
    Compensated {
        /// The action's command and what is known of it.
        owed: Owed,
        /// The compensation's command.
        seq: Seq,
        /// Attempts that it took.
        attempts: u32,
    },
}

/// Who passed over a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Skip {
    /// Its `when` was false.
    Condition,
    /// It waited for a signal that did not come in time, and goes on without.
    TimedOut,
    /// An operator, before any command was sent.
    Operator,
    /// An operator, after the action was sent: its outcome counts as unknown if the saga compensates later.
    OperatorAfterSend {
        /// The action's command and what is known of it.
        owed: Owed,
    },
    /// An operator passed over the compensation, having seen to it by other means.
    OperatorCompensation {
        /// The action's command and what is known of it.
        owed: Owed,
    },
}

/// An action whose compensation is owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// The action's command.
    pub seq: Seq,
    /// Attempts that it took.
    pub attempts: u32,
    /// The generation, which is part of the idempotency key that the compensation names.
    pub generation: u32,
    /// Whether it is known to have succeeded; otherwise nobody knows.
    pub known: bool,
}

/// How far undoing a step has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "c", rename_all = "kebab-case", try_from = "written::Compensation")]
pub enum CompensationState {
    /// Sent; its outcome is not known.
    Pending {
        /// The compensation's command.
        #[serde(flatten)]
        command: CommandState,
    },
    /// The participant refused it, or (`seq` is `None`) its command could not be made. The saga is stuck.
    Failed {
        /// The compensation's command, if one was sent.
        seq: Option<Seq>,
        /// Attempts that it took.
        attempts: u32,
        /// The generation that failed; an operator's retry uses the next.
        generation: u32,
        /// Why.
        problem: Problem,
    },
    /// Attempts are spent. The saga is stuck.
    Unknown {
        /// The compensation's command.
        seq: Seq,
        /// Attempts that it took.
        attempts: u32,
        /// Its generation; an operator's retry keeps it.
        generation: u32,
        /// What was last heard.
        problem: Problem,
    },
}

/// A command whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandState {
    /// Its place in the saga.
    pub seq: Seq,
    /// Rises when an operator has a recorded failure tried anew.
    #[serde(rename = "g")]
    pub generation: u32,
    /// The attempt that is under way or was the last, from 1.
    #[serde(rename = "a")]
    pub attempt: u32,
    /// The attempt after which the retry policy's count began: 0, or the last one before an operator's retry.
    #[serde(rename = "b", default, skip_serializing_if = "is_zero")]
    pub base: u32,
    /// What was last heard of an attempt that did not settle it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Problem>,
    /// What the coordinator waits for, and until when.
    #[serde(flatten)]
    pub phase: Phase,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What the coordinator waits for with one command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "p", content = "due", rename_all = "kebab-case")]
pub enum Phase {
    /// The broker's confirm. When due, the same attempt is published again.
    Sending(Timestamp),
    /// The participant's reply. When due, the attempt has timed out.
    Awaiting(Timestamp),
    /// The end of the wait between attempts. When due, the next attempt is sent.
    BackingOff(Timestamp),
    /// Of a `wait` or `delay` step: the signal or the time. Nothing was sent.
    Waiting(Timestamp),
    /// Room at the participant, which takes no more for now: the attempt was not sent. When due, it is tried again.
    Held(Timestamp),
}

impl Phase {
    /// When something must be done about it.
    pub fn due(&self) -> Timestamp {
        match self {
            Self::Sending(due) | Self::Awaiting(due) | Self::BackingOff(due) | Self::Waiting(due) | Self::Held(due) => {
                *due
            }
        }
    }
}

/// A step's status in the words of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the words are defined with StepState")]
pub enum StepStatus {
    Waiting,
    Pending,
    Verified,
    Failed,
    Unknown,
    Skipped,
    Compensating,
    Compensated,
}

impl StepStatus {
    /// The word of the contract, for example `waiting`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Skipped => "skipped",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
        }
    }
}

impl StepState {
    /// The status in the words of the contract.
    pub fn status(&self) -> StepStatus {
        match self {
            Self::Waiting => StepStatus::Waiting,
            Self::Pending { .. } => StepStatus::Pending,
            Self::Verified { .. } => StepStatus::Verified,
            Self::Failed { .. } => StepStatus::Failed,
            Self::Unknown { .. } => StepStatus::Unknown,
            Self::Skipped { .. } => StepStatus::Skipped,
            Self::Compensating { .. } => StepStatus::Compensating,
            Self::Compensated { .. } => StepStatus::Compensated,
        }
    }

    /// The command whose outcome is being waited for, with its direction.
    pub fn in_flight(&self) -> Option<(Direction, &CommandState)> {
        match self {
            Self::Pending { command } => Some((Direction::Action, command)),
            Self::Compensating { compensation: CompensationState::Pending { command }, .. } => {
                Some((Direction::Compensation, command))
            }
            _ => None,
        }
    }

    /// Attempts of the command that the status speaks of.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Waiting | Self::Skipped { by: Skip::Condition | Skip::TimedOut | Skip::Operator } => 0,
            Self::Pending { command } => command.attempt,
            Self::Verified { attempts, .. }
            | Self::Failed { attempts, .. }
            | Self::Unknown { attempts, .. }
            | Self::Compensated { attempts, .. } => *attempts,
            Self::Skipped { by: Skip::OperatorAfterSend { owed } | Skip::OperatorCompensation { owed } } => {
                owed.attempts
            }
            Self::Compensating { compensation, .. } => match compensation {
                CompensationState::Pending { command } => command.attempt,
                CompensationState::Failed { attempts, .. } | CompensationState::Unknown { attempts, .. } => *attempts,
            },
        }
    }

    /// What went wrong, where the status speaks of something that did.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Failed { problem, .. }
            | Self::Unknown { problem, .. }
            | Self::Compensating {
                compensation: CompensationState::Failed { problem, .. } | CompensationState::Unknown { problem, .. },
                ..
            } => Some(problem),
            _ => None,
        }
    }
}

impl SagaState {
    /// Whether nothing can change any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Abandoned)
    }

    /// The word of the contract, for example `RUNNING`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
            Self::Stuck(_) => "STUCK",
            Self::Abandoned => "ABANDONED",
        }
    }

    /// The details, when stuck.
    pub fn stuck(&self) -> Option<&Stuck> {
        match self {
            Self::Stuck(stuck) => Some(stuck),
            _ => None,
        }
    }
}

impl Saga {
    /// A saga to which nothing has happened yet. `definition` is [expanded](Definition::expanded) for `input`. Feed it [`EventKind::Started`](crate::saga::EventKind::Started).
    pub fn new(id: SagaId, definition: &Definition, key: Option<String>, input: Payload, now: Timestamp) -> Self {
        Self {
            id,
            definition: definition.reference.clone(),
            key,
            input,
            state: SagaState::Running,
            paused: false,
            revision: 0,
            next_seq: Seq(1),
            steps: vec![StepState::Waiting; definition.steps.len()],
            deadline: definition.timeout.map(|timeout| after(now, timeout)),
            cause: None,
            output: None,
            outputs: BTreeMap::new(),
            reads_outputs: definition.reads_outputs,
            signals: BTreeMap::new(),
            parent: None,
            trace: None,
            created_at: now,
            updated_at: now,
            ended_at: None,
        }
    }

    /// The definition with a step for each of this saga's; `None` when it is not this saga's definition.
    pub fn expand(&self, definition: &Arc<Definition>) -> Option<Arc<Definition>> {
        let fits = |definition: &Arc<Definition>| definition.steps.len() == self.steps.len();
        // A tombstone has no input, and steps that were never looked at: one for each of the definition.
        let expanded = definition.expanded(&self.input).ok();
        expanded.into_iter().chain([definition.clone()]).find(fits)
    }

    /// Since when it is done and waits for its parent's end, if it does.
    pub fn held(&self) -> Option<Held> {
        self.parent.as_ref()?.held
    }

    /// When the coordinator must look at this saga again by itself; `None` when only a message or a person can move it.
    pub fn due(&self) -> Option<Timestamp> {
        if self.paused || self.state.is_terminal() {
            return None;
        }
        let commands = self.steps.iter().filter_map(StepState::in_flight).map(|(_, command)| command.phase.due());
        let deadline = self.deadline.filter(|_| matches!(self.state, SagaState::Running));
        commands.chain(deadline).chain(self.held().map(|held| held.look_at)).min()
    }
}
