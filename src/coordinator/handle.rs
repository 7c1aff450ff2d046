//! What the HTTP routes and the command line ask of a coordinator.

use std::sync::Arc;

use crate::definition::{Definition, Diagnostic};
use crate::id::{DefinitionRef, SagaId, Seq};
use crate::payload::Payload;
use crate::saga::{Direction, Operation, Reason, Saga, StepState};
use crate::store::{OutboxEntry, SagaRecord, StoreError};

/// A saga to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The definition's name.
    pub saga: String,
    /// Its version; the newest when absent.
    pub version: Option<u32>,
    /// The saga's input.
    pub input: Payload,
    /// The saga's key; else the definition's `key` expression gives it; else there is none.
    pub key: Option<String>,
}

/// What became of a start.
#[derive(Clone, Debug)]
pub enum StartOutcome {
    /// It runs; durable.
    Started {
        /// Its id.
        id: SagaId,
        /// The version it is pinned to.
        definition: DefinitionRef,
        /// Its key.
        key: Option<String>,
        /// The saga with its commands, as it was committed.
        record: Box<SagaRecord>,
    },
    /// The key has a saga already, started with equal input.
    Exists {
        /// That saga.
        id: SagaId,
    },
}

/// What an operator wants done to one saga.
#[derive(Clone, Debug)]
pub struct Operate {
    /// The saga.
    pub id: SagaId,
    /// What; steps are named, since the caller does not know indices.
    pub action: OperatorAction,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The revision that the operator looked at; refused when the saga has moved since.
    pub expected_revision: Option<u32>,
}

/// The command that an edit would send anew with another input: the newest of its step and direction. None when that could
/// not even be made, since an expression of the definition failed.
pub fn original<'r>(record: &'r SagaRecord, definition: &Definition, step: Option<&str>) -> Option<&'r OutboxEntry> {
    let step = match step {
        Some(name) => definition.find(name)?,
        None => record.saga.state.stuck()?.step,
    };
    let of =
        |direction| record.commands.iter().rfind(|entry| entry.step_index == step.0 && entry.direction == direction);
    match record.saga.steps.get(step.at())? {
        StepState::Compensating { .. } => of(Direction::Compensation),
        _ => of(Direction::Action),
    }
}

/// The command that an edit is made of: for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its place in the saga.
    pub seq: Seq,
    /// [`Payload::canonical_hash`] of its body.
    pub sha256: [u8; 32],
}

impl From<&OutboxEntry> for Original {
    fn from(entry: &OutboxEntry) -> Self {
        Self { seq: entry.id.seq, sha256: entry.body.canonical_hash() }
    }
}

/// An operator's action, by step name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in saga::Operation")]
pub enum OperatorAction {
    Retry { step: Option<String> },
    Skip { step: Option<String> },
    Edit { step: Option<String>, input: Payload, original: Option<Original> },
    Compensate,
    Pause,
    Resume,
    Cancel,
    Abandon,
}

/// What became of a registration.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The definition.
    pub definition: Arc<Definition>,
    /// Whether it is new; otherwise it was registered before with the same content.
    pub is_new: bool,
    /// What did not stand in its way.
    pub warnings: Vec<Diagnostic>,
}

/// The coordinator could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// There is no such definition.
    #[error("there is no definition `{name}`")]
    UnknownDefinition {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// There is no such version.
    #[error("`{name}` has no version {version}")]
    UnknownVersion {
        /// The definition.
        name: String,
        /// The version asked for.
        version: u32,
        /// The versions there are.
        known: Vec<u32>,
    },
    /// The input does not satisfy the definition's schema: `(JSON pointer, message)` each.
    #[error("the input does not satisfy the schema of `{definition}`")]
    InvalidInput {
        /// The definition.
        definition: DefinitionRef,
        /// What is wrong where.
        errors: Vec<(String, String)>,
    },
    /// The definition's `key` expression cannot be evaluated on this input, or does not give a string or number.
    #[error("the key of the saga cannot be found: {0}")]
    InvalidKey(String),
    /// The key has a saga that was started with another input.
    #[error("key `{key}` of `{definition}` belongs to saga {existing}, which was started with another input")]
    KeyConflict {
        /// The definition's name.
        definition: String,
        /// The key.
        key: String,
        /// The saga that has it.
        existing: SagaId,
    },
    /// The same name and version was registered with other content.
    #[error("{definition} is registered with other content, and versions are immutable")]
    VersionImmutable {
        /// The definition.
        definition: DefinitionRef,
    },
    /// The version is deprecated, or all of them are: nothing new is started with it.
    #[error("{definition} is deprecated: {reason}")]
    VersionDeprecated {
        /// The version; the newest, where none was named.
        definition: DefinitionRef,
        /// Why it is deprecated.
        reason: String,
    },
    /// The saga cannot be moved to that version without changing what was sent.
    #[error("saga {id} cannot be moved to {to}: {}", told(.reasons))]
    MigrationRefused {
        /// The saga.
        id: SagaId,
        /// The version.
        to: DefinitionRef,
        /// Every reason.
        reasons: Vec<Reason>,
    },
    /// The definition's text has errors.
    #[error("the definition has errors")]
    InvalidDefinition(Vec<crate::definition::Diagnostic>),
    /// There is no such saga.
    #[error("there is no saga {0}")]
    UnknownSaga(SagaId),
    /// No saga of the definition has this key.
    #[error("no saga of `{definition}` has the key `{key}`")]
    UnknownKey {
        /// The definition's name.
        definition: String,
        /// The key.
        key: String,
    },
    /// The saga has no such step, or the action needs one named.
    #[error("{message}")]
    UnknownStep {
        /// What is wrong.
        message: String,
        /// The steps there are.
        known: Vec<String>,
    },
    /// There is no such queue of dead letters.
    #[error("there is no queue of dead letters `{queue}`")]
    UnknownDeadLetters {
        /// The queue asked for.
        queue: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// Dead letters that are no longer there.
    #[error("{} of `{queue}`: not there any more: {}", ids.len(), ids.join(", "))]
    DeadLetterGone {
        /// The queue.
        queue: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// Nobody knows where these dead letters came from.
    #[error("`{queue}`: nobody knows where these came from: {}", ids.join(", "))]
    NotReplayable {
        /// The queue.
        queue: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// The broker could not do it.
    #[error("{0}")]
    Broker(String),
    /// Inputs of commands are not edited here.
    #[error("inputs of failed commands are not edited on this server: it was not started with --allow-edit")]
    EditForbidden,
    /// No registered definition names this participant.
    #[error("there is no participant `{name}`")]
    UnknownParticipant {
        /// The name asked for.
        name: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// The participant has no such action in any registered definition.
    #[error("participant `{participant}` has no action `{action}`")]
    UnknownAction {
        /// The participant.
        participant: String,
        /// The action asked for.
        action: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// It is paused already, or not; or by another pause than the one that was looked at.
    #[error("nothing was changed: {why}")]
    PauseConflict {
        /// How it is.
        why: String,
    },
    /// None of the saga's steps waits for this signal.
    #[error("no step waits for the signal `{signal}`")]
    UnknownSignal {
        /// The signal.
        signal: String,
        /// Those that steps wait for.
        known: Vec<String>,
    },
    /// No saga is found by what is marked as sensitive.
    #[error("`{field}` is marked as sensitive, so that no saga is found by it: look for its key")]
    FieldSensitive {
        /// The path into the input.
        field: String,
    },
    /// The saga's state forbids it.
    #[error("saga {id} cannot {action}: {why}")]
    NotAllowed {
        /// The saga.
        id: SagaId,
        /// The action's word.
        action: &'static str,
        /// The state, as a word of the contract.
        state: &'static str,
        /// Why, in one clause.
        why: String,
    },
    /// The saga has changed since the operator looked.
    #[error("saga {id} has changed since you looked: revision {found}, not {expected}")]
    Moved {
        /// The saga.
        id: SagaId,
        /// The revision looked at.
        expected: u32,
        /// The revision now.
        found: u32,
    },
    /// Too much is waiting; try again after the given time.
    #[error("too busy: try again in {retry_after:?}")]
    Busy {
        /// When to try again.
        retry_after: std::time::Duration,
    },
    /// The coordinator is stopping.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CoordinatorError {
    /// A stable code, the same over HTTP and AMQP.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownDefinition { .. } => "DEFINITION_UNKNOWN",
            Self::UnknownVersion { .. } => "VERSION_UNKNOWN",
            Self::InvalidInput { .. } => "INPUT_INVALID",
            Self::InvalidKey(_) => "KEY_INVALID",
            Self::KeyConflict { .. } => "KEY_CONFLICT",
            Self::VersionImmutable { .. } => "VERSION_IMMUTABLE",
            Self::VersionDeprecated { .. } => "VERSION_DEPRECATED",
            Self::MigrationRefused { .. } => "MIGRATION_REFUSED",
            Self::InvalidDefinition(_) => "DEFINITION_INVALID",
            Self::UnknownSaga(_) | Self::UnknownKey { .. } => "SAGA_UNKNOWN",
            Self::UnknownStep { .. } => "STEP_UNKNOWN",
            Self::UnknownDeadLetters { .. } => "DEAD_LETTERS_UNKNOWN",
            Self::DeadLetterGone { .. } => "DEAD_LETTER_GONE",
            Self::NotReplayable { .. } => "DEAD_LETTER_NOT_REPLAYABLE",
            Self::Broker(_) => "BROKER_UNAVAILABLE",
            Self::EditForbidden => "EDIT_FORBIDDEN",
            Self::UnknownParticipant { .. } => "PARTICIPANT_UNKNOWN",
            Self::UnknownAction { .. } => "ACTION_UNKNOWN",
            Self::PauseConflict { .. } => "PAUSE_CONFLICT",
            Self::UnknownSignal { .. } => "SIGNAL_UNKNOWN",
            Self::NotAllowed { .. } => "ACTION_NOT_ALLOWED",
            Self::Moved { .. } => "SAGA_MOVED",
            Self::Busy { .. } => "BUSY",
            Self::Stopping => "STOPPING",
            Self::FieldSensitive { .. } => "FIELD_SENSITIVE",
            Self::Store(error) => error.code(),
        }
    }

    /// Whether trying again later can help, without a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Stopping => true,
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }
}

fn told(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| reason.why.as_str()).collect::<Vec<_>>().join("; ")
}

impl OperatorAction {
    /// The action of this word; `step` is for those that take one.
    pub fn of(word: &str, step: Option<String>) -> Option<Self> {
        Some(match word {
            "retry" => Self::Retry { step },
            "skip" => Self::Skip { step },
            "compensate" => Self::Compensate,
            "pause" => Self::Pause,
            "resume" => Self::Resume,
            "cancel" => Self::Cancel,
            "abandon" => Self::Abandon,
            _ => return None,
        })
    }

    /// The word in routes and commands.
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

    /// The same by step index.
    ///
    /// # Errors
    /// When a step is named that the definition does not have, or `skip` names none and it is not plain which is meant.
    pub fn resolve(&self, definition: &Definition, saga: &Saga) -> Result<Operation, CoordinatorError> {
        let known = || definition.steps.iter().map(|step| step.name.clone()).collect();
        let find = |name: &str| {
            definition.find(name).ok_or_else(|| CoordinatorError::UnknownStep {
                message: format!("{} has no step `{name}`", definition.reference),
                known: known(),
            })
        };
        Ok(match self {
            Self::Retry { step } => Operation::Retry { step: step.as_deref().map(find).transpose()? },
            Self::Skip { step: Some(step) } => Operation::Skip { step: find(step)? },
            Self::Skip { step: None } => match saga.state.stuck() {
                Some(stuck) => Operation::Skip { step: stuck.step },
                None => {
                    return Err(CoordinatorError::UnknownStep {
                        message: "`skip` needs a step unless the saga is stuck at one".to_owned(),
                        known: known(),
                    });
                }
            },
            Self::Edit { step, input, original: _ } => {
                let step = match (step, saga.state.stuck()) {
                    (Some(step), _) => find(step)?,
                    (None, Some(stuck)) => stuck.step,
                    (None, None) => {
                        return Err(CoordinatorError::UnknownStep {
                            message: "`edit` needs a step unless the saga is stuck at one".to_owned(),
                            known: known(),
                        });
                    }
                };
                Operation::Edit { step, input: input.clone() }
            }
            Self::Compensate => Operation::Compensate,
            Self::Pause => Operation::Pause,
            Self::Resume => Operation::Resume,
            Self::Cancel => Operation::Cancel,
            Self::Abandon => Operation::Abandon,
        })
    }
}
