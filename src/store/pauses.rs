//! Participants, or single actions of theirs, that operators have paused.

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::payload::Payload;
use crate::store::{AuditRecord, StoreError};

/// A participant, or one of its actions, that is sent nothing until it is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantPause {
    /// The participant.
    pub participant: String,
    /// The action; all of them when absent.
    pub action: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A pause, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseChange {
    /// The participant.
    pub participant: String,
    /// The action; all of them when absent.
    pub action: Option<String>,
    /// Whether it is paused from now on.
    pub is_paused: bool,
    /// The pause that was looked at before it is ended: another one stays.
    pub seen: Option<Timestamp>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl PauseChange {
    /// The word in the audit log.
    pub fn word(&self) -> &'static str {
        if self.is_paused { "participant-pause" } else { "participant-resume" }
    }

    /// The row of the audit log.
    pub(super) fn audit(&self, at: Timestamp) -> AuditRecord {
        AuditRecord {
            id: 0,
            at,
            actor: self.actor.clone(),
            saga: None,
            action: self.word().to_owned(),
            reason: self.reason.clone(),
            detail: Payload::from(serde_json::json!({ "participant": self.participant, "action": self.action })),
        }
    }

    /// The action as the table has it: empty for all of them.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn column(&self) -> String {
        self.action.clone().unwrap_or_default()
    }
}

/// A row of the table: participant, action, since when, by whom, why.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn read(
    (participant, action, since, by, reason): (String, String, Timestamp, String, String),
) -> ParticipantPause {
    ParticipantPause { participant, action: Some(action).filter(|action| !action.is_empty()), since, by, reason }
}

/// A store that keeps pauses.
#[async_trait]
pub trait PauseStore: Send + Sync {
    /// Those that are in force, by participant and action.
    async fn pauses(&self) -> Result<Vec<ParticipantPause>, StoreError>;

    /// Pauses or resumes, with the audit row in the same transaction. `None` when nothing was changed: it is paused
    /// already, or not (or by another pause than the one looked at). Gives the time of the change otherwise.
    async fn change_pause(&self, change: &PauseChange) -> Result<Option<Timestamp>, StoreError>;
}
