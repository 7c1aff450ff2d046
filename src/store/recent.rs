//! Sagas as this process has written them last: what need not be read again. Where others may write too that is a guess, and
//! whatever is written from it names the revisions that it was made from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::id::SagaId;
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::{Changes, Committed, HistoryRecord, NewCommand, NewSaga, SagaUpdate, SettledCommand, Started};

/// Bytes that are kept, about.
const MOST: u64 = 32 << 20;
/// What a saga weighs without its payloads.
const BARE: usize = 1_024;
/// What each byte of a payload weighs: an object that was looked into takes many times its text.
const VALUE: usize = 16;

pub(super) struct Recent {
    sagas: Cache<SagaId, Box<Saga>, Weight>,
    /// How often all were forgotten.
    forgotten: AtomicU64,
}

#[derive(Clone)]
struct Weight;

/// What nobody needs after a commit. It takes a while to drop, for which nobody need wait.
#[must_use]
pub(super) struct Leftover {
    _ended: Vec<Saga>,
    _of_starts: Vec<(Vec<NewCommand>, Vec<SettledCommand>, Vec<HistoryRecord>)>,
    _changes: Changes,
}

impl Weighter<SagaId, Box<Saga>> for Weight {
    fn weight(&self, _: &SagaId, saga: &Box<Saga>) -> u64 {
        let payloads = saga.outputs.values().chain(&saga.output).chain(saga.signals.values()).chain([&saga.input]);
        let values: usize = payloads.map(|payload: &Payload| payload.text().len() * VALUE).sum();
        let problems = saga.cause.iter().chain(saga.state.stuck().map(|stuck| &stuck.problem));
        let told: usize =
            problems.map(|problem| problem.title.len() + problem.detail.as_ref().map_or(0, String::len)).sum();
        (BARE + saga.steps.len() * 64 + values + told) as u64
    }
}

impl Recent {
    pub(super) fn new() -> Self {
        let most = usize::try_from(MOST).unwrap_or_default() / BARE;
        Self { sagas: Cache::with_weighter(most, MOST, Weight), forgotten: AtomicU64::new(0) }
    }

    /// Takes out those of `wanted` that are here; whoever writes them puts them back.
    pub(super) fn take(&self, wanted: &[SagaId]) -> (Vec<Saga>, Vec<SagaId>) {
        let wanted: BTreeSet<SagaId> = wanted.iter().copied().collect();
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for id in wanted {
            match self.sagas.remove(&id) {
                Some((_, saga)) => found.push(*saga),
                None => others.push(id),
            }
        }
        (found, others)
    }

    /// Takes out the `wanted`, if all are here.
    pub(super) fn take_all(&self, wanted: &[SagaId]) -> Option<Vec<Saga>> {
        if !wanted.iter().all(|id| self.sagas.contains_key(id)) {
            return None;
        }
        // Those that somebody else was quicker to take are read again, and these with them.
        let (found, others) = self.take(wanted);
        others.is_empty().then_some(found)
    }

    /// How often all were forgotten: when that is another number, what was taken before holds no longer.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// What was written is committed.
    pub(super) fn keep(&self, mut changes: Changes, committed: &Committed) -> Leftover {
        let (starts, updates) = (std::mem::take(&mut changes.starts), std::mem::take(&mut changes.updates));
        let (mut ended, mut of_starts) = (Vec::new(), Vec::with_capacity(starts.len()));
        for (start, started) in starts.into_iter().zip(&committed.starts) {
            let NewSaga { saga, commands, settled, history, .. } = start;
            // Its outputs are in the outbox alone.
            let has_outputs = saga.reads_outputs
                && (!settled.is_empty() || changes.settled.iter().any(|settled| settled.saga == saga.id));
            if *started == Started::New && !has_outputs {
                ended.extend(self.put(saga));
            }
            of_starts.push((commands, settled, history));
        }
        for SagaUpdate { saga, .. } in updates {
            // Steps and outputs have moved with the version.
            if changes.migrations.iter().any(|migration| migration.saga == saga.id) {
                self.sagas.remove(&saga.id);
            } else {
                ended.extend(self.put(saga));
            }
        }
        Leftover { _ended: ended, _of_starts: of_starts, _changes: changes }
    }

    /// Gives it back if it is not to be remembered, since it has ended.
    fn put(&self, saga: Saga) -> Option<Saga> {
        if saga.state.is_terminal() {
            self.sagas.remove(&saga.id);
            Some(saga)
        } else {
            self.sagas.insert(saga.id, Box::new(saga));
            None
        }
    }

    /// Others have written, or nobody knows what was.
    pub(super) fn forget(&self) {
        self.sagas.clear();
        // After it: who has taken what is cleared now has read the number of before.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}
