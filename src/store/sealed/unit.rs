//! One unit of work: open what was loaded, decide, encrypt what is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::payload::Payload;
use crate::saga::{EventKind, Operation, Saga};
use crate::store::sealed::cipher::{Key, Pen};
use crate::store::sealed::keys::Known;
use crate::store::sealed::payloads::{Hand, Open, Payloads, Seal, Trouble, but_input, key_hashes};
use crate::store::sealed::why;
use crate::store::{AuditRecord, Changes, Committed, Decide, HistoryRecord, Loaded, SagaUpdate, Started, StoreError};

/// Why a unit of work wrote nothing.
pub(super) enum Wrong {
    /// These data keys must be opened first.
    Unknown(BTreeSet<Uuid>),
    /// It cannot be done.
    Error(StoreError),
}

/// What the tries of one unit of work have in common.
pub(super) struct Shared(Mutex<State>);

struct State {
    decide: Option<Decide>,
    wrong: Option<Wrong>,
    /// The hashes of the inputs of new sagas, as they were decided.
    hashes: Vec<[u8; 32]>,
}

impl Shared {
    pub(super) fn new(decide: Decide) -> Self {
        Self(Mutex::new(State { decide: Some(decide), wrong: None, hashes: Vec::new() }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn wrong(&self) -> Option<Wrong> {
        self.with(|state| state.wrong.take())
    }

    /// The answers with hashes that can be compared with those that were given: a stored one is keyed, or was written
    /// before there was a key.
    pub(super) fn compared(&self, mut committed: Committed, key: Option<&Key>) -> Committed {
        let hashes = self.with(|state| std::mem::take(&mut state.hashes));
        for (started, plain) in committed.starts.iter_mut().zip(hashes) {
            if let (Started::Taken { input_hash, .. }, Some(key)) = (started, key)
                && *input_hash == key.keyed(&plain)
            {
                *input_hash = plain;
            }
        }
        committed
    }
}

/// One try.
pub(super) struct Unit {
    pub(super) shared: Arc<Shared>,
    pub(super) known: Known,
    /// Data keys that cannot be opened, and why.
    pub(super) closed: HashMap<Uuid, StoreError>,
    /// The sagas that somebody asks for, other than because they are due.
    pub(super) wanted: Vec<SagaId>,
    pub(super) pen: Option<Pen>,
    pub(super) hash: Option<Key>,
}

impl Unit {
    /// Runs inside the transaction. What it cannot do it writes down, and changes nothing.
    pub(super) fn run(self, loaded: Loaded) -> Changes {
        match self.changes(loaded) {
            Ok(changes) => changes,
            Err(wrong) => {
                self.shared.with(|state| state.wrong = Some(wrong));
                Changes::default()
            }
        }
    }

    fn changes(&self, loaded: Loaded) -> Result<Changes, Wrong> {
        let Loaded { now, sagas } = loaded;
        let (mut open, mut inputs, mut parked) = (Vec::with_capacity(sagas.len()), HashMap::new(), Vec::new());
        let mut unknown = BTreeSet::new();
        for stored in sagas {
            let mut saga = stored.clone();
            match saga.visit(&mut Open(&self.known)) {
                Ok(()) => {
                    inputs.insert(stored.id, stored.input);
                    open.push(saga);
                }
                Err(Trouble::Unknown(id)) if !self.closed.contains_key(&id) => {
                    unknown.insert(id);
                }
                Err(trouble) => {
                    let error = why(trouble, &self.closed);
                    if self.wanted.contains(&stored.id) {
                        return Err(Wrong::Error(error));
                    }
                    parked.push((stored, error));
                }
            }
        }
        if !unknown.is_empty() {
            return Err(Wrong::Unknown(unknown));
        }
        let decide = self.shared.with(|state| state.decide.take());
        let decide = decide.ok_or_else(|| Wrong::Error(StoreError::Conflict("it was decided already".to_owned())))?;
        let mut changes = decide(Loaded { now, sagas: open });
        self.shared.with(|state| state.hashes = changes.starts.iter().map(|start| start.input_hash).collect());
        if let Some(pen) = &self.pen {
            self.seal(&mut changes, pen, &inputs).map_err(|trouble| Wrong::Error(why(trouble, &self.closed)))?;
        }
        for (saga, error) in parked {
            park(&mut changes, saga, &error, now);
        }
        Ok(changes)
    }

    fn seal(&self, changes: &mut Changes, pen: &Pen, inputs: &HashMap<SagaId, Payload>) -> Result<(), Trouble> {
        let hand: &mut dyn Hand = &mut Seal(pen);
        for start in &mut changes.starts {
            start.saga.visit(hand)?;
            start.commands.iter_mut().try_for_each(|command| command.visit(hand))?;
            start.settled.iter_mut().try_for_each(|settled| settled.visit(hand))?;
            start.history.iter_mut().try_for_each(|record| record.visit(hand))?;
            if let Some(key) = &self.hash {
                start.input_hash = key.keyed(&start.input_hash);
            }
        }
        for SagaUpdate { saga, .. } in &mut changes.updates {
            // It never changes, and is not written again.
            match inputs.get(&saga.id) {
                Some(input) => {
                    saga.input = input.clone();
                    but_input(saga, hand)?;
                }
                None => saga.visit(hand)?,
            }
        }
        if let Some(key) = &self.hash {
            changes.audits.iter_mut().for_each(|audit| key_hashes(audit, key));
        }
        changes.commands.iter_mut().try_for_each(|command| command.visit(hand))?;
        changes.settled.iter_mut().try_for_each(|settled| settled.visit(hand))?;
        changes.webhooks.iter_mut().try_for_each(|delivery| delivery.visit(hand))?;
        changes.history.iter_mut().try_for_each(|record| record.visit(hand))
    }
}

/// A saga that is due and cannot be read would be due again at once, for ever. It is paused, and says why.
fn park(changes: &mut Changes, mut saga: Saga, error: &StoreError, now: Timestamp) {
    tracing::error!(saga = %saga.id, code = error.code(), %error, "a saga cannot be decrypted: it is paused");
    let from_revision = saga.revision;
    saga.paused = true;
    saga.revision += 1;
    saga.updated_at = now;
    let event = EventKind::Operated { operation: Operation::Pause };
    changes.history.push(HistoryRecord { saga: saga.id, revision: saga.revision, at: now, event });
    changes.audits.push(AuditRecord {
        id: 0,
        at: now,
        actor: "amends".to_owned(),
        saga: Some(saga.id),
        action: "pause".to_owned(),
        reason: format!("{}: {error}", error.code()),
        detail: Payload::from(serde_json::json!({ "fromRevision": from_revision, "toRevision": saga.revision })),
    });
    changes.updates.push(SagaUpdate { saga, from_revision });
}
