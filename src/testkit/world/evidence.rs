//! What was seen of a world while it ran. The judge has nothing else but what the store holds at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::Database;
use crate::id::{CommandId, DefinitionRef, SagaId};
use crate::message::Command;
use crate::message::TokenKeys;
use crate::saga::{Direction, Saga};

/// A guarantee that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Its number; 0 for what must hold besides the numbered ones.
    pub guarantee: u8,
    /// What was seen.
    pub what: String,
}

/// Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Evidence(Arc<Mutex<Seen>>);

#[derive(Default)]
pub(super) struct Seen {
    /// What took effect, in order.
    pub(super) effects: Vec<Effect>,
    /// Every state of a saga that was committed, in order.
    pub(super) sightings: Vec<Saga>,
    pub(super) starts: Vec<Start>,
    /// What was to be started at once.
    pub(super) requests: Vec<Request>,
    /// What operators were told was done: the saga and the action's word.
    pub(super) operated: Vec<(SagaId, &'static str)>,
    /// What they were told of definitions: the version and the word.
    pub(super) stood: Vec<(DefinitionRef, &'static str)>,
    /// Definitions of which a version was deprecated for a while.
    pub(super) deprecated: BTreeSet<String>,
    /// Definitions that there are.
    pub(super) registered: BTreeSet<DefinitionRef>,
    pub(super) violations: BTreeSet<Violation>,
    /// The last attempt of each command that was published, for whoever forges replies.
    pub(super) published: BTreeMap<CommandId, Command>,
    pub(super) keys: Option<TokenKeys>,
    /// The participants' databases, by participant.
    pub(super) databases: BTreeMap<String, Database>,
    pub(super) commits: u64,
    /// Callers that are not done.
    pub(super) callers: u64,
    pub(super) commands: u64,
}

/// An effect in a participant's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) saga: SagaId,
    pub(super) step: String,
    pub(super) direction: Direction,
    pub(super) key: String,
}

/// What a client was told of a start.
pub(super) struct Start {
    pub(super) definition: String,
    pub(super) key: Option<String>,
    pub(super) input_hash: [u8; 32],
    pub(super) told: Told,
}

/// Sagas that one request starts, in one transaction.
pub(super) struct Request {
    pub(super) definition: String,
    pub(super) keys: Vec<String>,
}

/// What became of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// This saga answers for it.
    Saga(SagaId),
    /// The key belongs to a saga of another input.
    Conflict,
    /// The broker has confirmed the request.
    Requested,
}

impl Evidence {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn broken(&self, guarantee: u8, what: impl Into<String>) {
        self.seen().violations.insert(Violation { guarantee, what: what.into() });
    }
}
