//! Sagas as this process has written them last: what need not be read again. Where others may write too that is a guess, and
//! whatever is written from it names the revisions that it was made from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::id::SagaId;
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::{Changes, Committed, SagaUpdate, Started};

/// Bytes that are kept, about.
const MOST: u64 = 32 << 20;
/// What a saga weighs without its payloads.
const BARE: usize = 1_024;
/// What each byte of a payload weighs: an object that was looked into takes many times its text.
const VALUE: usize = 16;

pub(super) struct Recent {
    sagas: Cache<SagaId, Saga, Weight>,
    /// How often all were forgotten.
    forgotten: AtomicU64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<SagaId, Saga> for Weight {
    fn weight(&self, _: &SagaId, saga: &Saga) -> u64 {
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
                Some((_, saga)) => found.push(saga),
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
    pub(super) fn keep(&self, changes: Changes, committed: &Committed) {
        let Changes { starts, updates, migrations, settled, .. } = changes;
        for (start, started) in starts.into_iter().zip(&committed.starts) {
            // Its outputs are in the outbox alone.
            let has_outputs = start.saga.reads_outputs
                && (!start.settled.is_empty() || settled.iter().any(|settled| settled.saga == start.saga.id));
            if *started == Started::New && !has_outputs {
                self.put(start.saga);
            }
        }
        for SagaUpdate { saga, .. } in updates {
            // Steps and outputs have moved with the version.
            if migrations.iter().any(|migration| migration.saga == saga.id) {
                self.sagas.remove(&saga.id);
            } else {
                self.put(saga);
            }
        }
    }

    fn put(&self, saga: Saga) {
        if saga.state.is_terminal() {
            self.sagas.remove(&saga.id);
        } else {
            self.sagas.insert(saga.id, saga);
        }
    }

    /// Others have written, or nobody knows what was.
    pub(super) fn forget(&self) {
        self.sagas.clear();
        // After it: who has taken what is cleared now has read the number of before.
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}
