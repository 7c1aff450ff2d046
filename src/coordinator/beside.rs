//! Large requests: what one starts is one transaction, which takes long. Where the store writes at once it is committed beside
//! the others, so that nobody waits for it.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use crate::coordinator::attempt::{Begun, OnItsOwn, Try};
use crate::coordinator::committer::Committer;
use crate::coordinator::work::{Item, Waiting, parted};
use crate::store::{Locking, StoreError};

/// Between two tries: not every conflict is one that the next try waits for.
const PAUSE: Duration = Duration::from_millis(100);

impl Committer {
    /// Begins with the next one, unless one is under way.
    pub(super) fn begin_beside(&mut self) {
        if self.beside.is_none()
            && let Some(unit) = self.backlog.take_large()
        {
            let (items, waiting) = parted(unit);
            self.beside = Some(self.begin_large(items, waiting).on_its_own());
        }
    }

    fn begin_large(&self, items: Vec<Item>, waiting: Vec<Waiting>) -> Begun {
        let of = Try { items: Arc::new(items), ripe: Vec::new(), due: 0, locking: Locking::Trusts };
        Begun::new(self.store.clone(), self.sources.clone(), of, waiting)
    }

    /// Takes in what one has come to. If others were in its way it is tried again as before: once more they may be, for as
    /// long.
    pub(super) async fn end_beside(&mut self, beside: OnItsOwn) {
        let mut begun = beside.turn();
        let outcome = (&mut begun.outcome).await;
        if let Err(error @ StoreError::Conflict(_)) = &outcome {
            // Not as stale: new sagas have nothing that could be.
            self.told(error, Locking::Waits, begun.of.items.len(), begun.began);
            let mut next = self.begin_large(Arc::unwrap_or_clone(begun.of.items), begun.waiting);
            next.outcome = Box::pin(async move {
                tokio::time::sleep(PAUSE).await;
                next.outcome.await
            });
            self.beside = Some(next.on_its_own());
            return;
        }
        begun.outcome = Box::pin(ready(outcome));
        self.see_through(begun).await;
    }
}
