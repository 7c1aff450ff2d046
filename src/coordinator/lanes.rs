//! The ways to the committers. Every saga has one of them, so that transactions which run at the same time never concern
//! the same saga, and none of them waits for another.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use crate::coordinator::work::Work;
use crate::id::SagaId;

/// Transactions at once: while one waits for the disk, or for its statements, the next is planned and written. More of
/// them only make each smaller.
pub(super) const LANES: usize = 2;

/// Where work is put to be committed. The committers end when the last clone is gone and everything is done.
#[derive(Clone)]
pub(super) struct Lanes(Arc<[mpsc::Sender<Work>]>);

/// The same for those that the committers need not wait for.
#[derive(Clone)]
pub(super) struct WeakLanes(Weak<[mpsc::Sender<Work>]>);

/// Which lane a saga goes by. The last byte of its id is random.
pub(super) fn lane_of(saga: SagaId) -> usize {
    usize::from(saga.0.as_bytes()[15]) % LANES
}

impl Lanes {
    /// With the other ends, one for each committer, for `waiting` things in all.
    pub(super) fn open(waiting: usize) -> (Self, Vec<mpsc::Receiver<Work>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(waiting / LANES)).unzip();
        (Self(senders.into()), receivers)
    }

    fn of(&self, work: &Work) -> &mpsc::Sender<Work> {
        &self.0[lane_of(work.item.place())]
    }

    /// Does not wait for room.
    pub(super) fn try_send(&self, work: Work) -> Result<(), mpsc::error::TrySendError<Work>> {
        self.of(&work).try_send(work)
    }

    /// Waits for room.
    pub(super) async fn send(&self, work: Work) -> Result<(), mpsc::error::SendError<Work>> {
        self.of(&work).send(work).await
    }

    pub(super) fn downgrade(&self) -> WeakLanes {
        WeakLanes(Arc::downgrade(&self.0))
    }
}

impl WeakLanes {
    pub(super) fn upgrade(&self) -> Option<Lanes> {
        self.0.upgrade().map(Lanes)
    }
}
