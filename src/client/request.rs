//! What a caller can ask for.

/// Which sagas to list. Empty fields do not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SagaQuery {
    /// Definition name.
    pub saga: Option<String>,
    /// States, as words of the contract; any of them.
    pub states: Vec<String>,
    /// Key.
    pub key: Option<String>,
    /// Started at or after: RFC 3339, or so long ago, for example `1h`.
    pub since: Option<String>,
    /// At most this many; 50 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Which outbox entries to list. Empty fields do not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxQuery {
    /// `PENDING` or `VERIFIED`.
    pub state: Option<String>,
    /// At most this many; 50 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// Which rows of the audit log to list. Empty fields do not filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// A saga's id.
    pub saga: Option<String>,
    /// Who.
    pub actor: Option<String>,
    /// What, for example `retry`.
    pub action: Option<String>,
    /// Done at or after: RFC 3339, or so long ago, for example `1h`.
    pub since: Option<String>,
    /// At most this many; 50 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// An operator's action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send again what is stuck or backing off.
    Retry,
    /// Pass over a step, or over its compensation.
    Skip,
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

impl Action {
    /// Every action.
    pub const ALL: [Self; 7] =
        [Self::Retry, Self::Skip, Self::Compensate, Self::Pause, Self::Resume, Self::Cancel, Self::Abandon];

    /// The word in routes and commands, for example `retry`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Compensate => "compensate",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Abandon => "abandon",
        }
    }
}

impl SagaQuery {
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        push(&mut pairs, "saga", self.saga.as_ref());
        pairs.extend(self.states.iter().map(|state| ("state", state.clone())));
        push(&mut pairs, "key", self.key.as_ref());
        push(&mut pairs, "since", self.since.as_ref());
        push(&mut pairs, "limit", self.limit.as_ref());
        push(&mut pairs, "cursor", self.cursor.as_ref());
        pairs
    }
}

impl OutboxQuery {
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        push(&mut pairs, "state", self.state.as_ref());
        push(&mut pairs, "limit", self.limit.as_ref());
        push(&mut pairs, "cursor", self.cursor.as_ref());
        pairs
    }
}

impl AuditQuery {
    pub(super) fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        push(&mut pairs, "saga", self.saga.as_ref());
        push(&mut pairs, "actor", self.actor.as_ref());
        push(&mut pairs, "action", self.action.as_ref());
        push(&mut pairs, "since", self.since.as_ref());
        push(&mut pairs, "limit", self.limit.as_ref());
        push(&mut pairs, "cursor", self.cursor.as_ref());
        pairs
    }
}

fn push(pairs: &mut Vec<(&'static str, String)>, name: &'static str, value: Option<&impl ToString>) {
    pairs.extend(value.map(|value| (name, value.to_string())));
}
