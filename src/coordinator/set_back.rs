//! When the store's clock was set back: what was written while it was ahead is looked at, so that it need not wait until
//! the clock shows that time again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Coordinator, CoordinatorError};
use crate::saga::EventKind;
use crate::saga::set_back::is_of_the_future;
use crate::store::{Page, SagaFilter};

/// How many to read at a time.
const PAGE: u32 = 500;
/// How long to leave the store alone between two pages: nothing here is urgent.
const PAUSE: Duration = Duration::from_millis(100);
/// How long after the first look to look once more: a transaction that began before may have been under way.
const ONCE_MORE: Duration = Duration::from_secs(10);
/// How long to wait before another try.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks at the start, since the clock may have been set back while nobody saw it, and whenever that is `noticed`.
pub(super) async fn run(coordinator: Coordinator, noticed: Arc<Notify>, stop: CancellationToken) {
    loop {
        let looking = async {
            for pause in [Duration::ZERO, ONCE_MORE] {
                tokio::time::sleep(pause).await;
                while let Err(error) = look(&coordinator).await {
                    tracing::warn!(%error, "what was written by a clock ahead of this one is not seen to yet");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            noticed.notified().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = looking => tracing::warn!("the store's clock was set back"),
        }
    }
}

async fn look(coordinator: &Coordinator) -> Result<(), CoordinatorError> {
    let (began, now) = (Instant::now(), coordinator.store().health().await?.now);
    let states = ["RUNNING", "COMPENSATING", "STUCK"].map(str::to_owned).to_vec();
    let filter = SagaFilter { states, ..SagaFilter::default() };
    let mut page = Page { after: None, limit: PAGE };
    loop {
        let sagas = coordinator.store().sagas(&filter, &page).await?;
        let Some(last) = sagas.last() else { return Ok(()) };
        page.after = Some(last.saga.id);
        for saga in sagas.iter().map(|summary| &summary.saga) {
            if is_of_the_future(saga, now + began.elapsed()) {
                match coordinator.tell(saga.id, EventKind::Due).await {
                    Err(error) if error.is_transient() => return Err(error),
                    // Whatever else is wrong with it is wrong with every event.
                    _ => {}
                }
            }
        }
        if sagas.len() < PAGE as usize {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
