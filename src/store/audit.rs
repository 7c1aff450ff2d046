//! What people did, and which of it to list.

use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::payload::Payload;

/// What an operator, or whoever registers definitions or gives out tokens, did.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// Grows; given by the store when written (0 until then).
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// Who: the token's name, or `anonymous`.
    pub actor: String,
    /// The saga, if it was about one.
    pub saga: Option<SagaId>,
    /// What, for example `retry` or `register`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// The rest, as JSON.
    pub detail: Payload,
}

/// Which rows of the audit log to list. Empty fields do not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// About this saga.
    pub saga: Option<SagaId>,
    /// By whom.
    pub actor: Option<String>,
    /// What, for example `retry`.
    pub action: Option<String>,
    /// Done at or after.
    pub since: Option<Timestamp>,
}

impl AuditFilter {
    /// Whether `record` is one to list.
    pub fn takes(&self, record: &AuditRecord) -> bool {
        (self.saga.is_none() || record.saga == self.saga)
            && self.actor.as_ref().is_none_or(|actor| *actor == record.actor)
            && self.action.as_ref().is_none_or(|action| *action == record.action)
            && self.since.is_none_or(|since| record.at >= since)
    }
}
