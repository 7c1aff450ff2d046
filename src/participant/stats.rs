//! What a participant has done since its start: for metrics and tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commands carried out for the first time.
    pub done: u64,
    /// Commands refused for the first time: by a handler, or for their action or input.
    pub refused: u64,
    /// Commands answered from the inbox.
    pub replayed: u64,
    /// Compensations whose action never ran.
    pub tombstones: u64,
    /// `retry` replies.
    pub retried: u64,
    /// Handlers that panicked; each is a `retry` too.
    pub panicked: u64,
    /// Messages that are no commands, now in the dead letters.
    pub rejected: u64,
    /// Replies that had to be published again.
    pub republished: u64,
}

/// The live counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub done: AtomicU64,
    pub refused: AtomicU64,
    pub replayed: AtomicU64,
    pub tombstones: AtomicU64,
    pub retried: AtomicU64,
    pub panicked: AtomicU64,
    pub rejected: AtomicU64,
    pub republished: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            done: read(&self.done),
            refused: read(&self.refused),
            replayed: read(&self.replayed),
            tombstones: read(&self.tombstones),
            retried: read(&self.retried),
            panicked: read(&self.panicked),
            rejected: read(&self.rejected),
            republished: read(&self.republished),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
