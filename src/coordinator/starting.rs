//! Many starts at once: together, or each by itself.

use tokio::sync::{mpsc, oneshot};

use crate::coordinator::coordinator::BUSY;
use crate::coordinator::work::{Item, StartItem, Together, Waiting, Work};
use crate::coordinator::{Coordinator, CoordinatorError, Start, StartOutcome};
use crate::trace::TraceContext;

impl Coordinator {
    /// Starts sagas that nobody asked for together, in as many transactions as suits the others.
    pub(super) async fn start_each(
        &self,
        starts: Vec<(Start, Option<TraceContext>)>,
    ) -> Vec<Result<StartOutcome, CoordinatorError>> {
        self.start_all(starts, false).await
    }

    pub(super) async fn start_all(
        &self,
        starts: Vec<(Start, Option<TraceContext>)>,
        are_together: bool,
    ) -> Vec<Result<StartOutcome, CoordinatorError>> {
        let mut prepared = Vec::with_capacity(starts.len());
        for (start, trace) in starts {
            let item = self.prepare(start, false).await;
            prepared.push(item.map(|item| StartItem { trace: trace.map(Box::new), ..item }));
        }
        let count = prepared.iter().flatten().count();
        let together = Together::of(count).filter(|_| are_together);
        let put = |item: StartItem, place: mpsc::Permit<'_, Work>| {
            let (sender, receiver) = oneshot::channel();
            let item = Item::Start(StartItem { together: together.clone(), ..item });
            place.send(Work { item, waiting: Waiting::Starter(sender) });
            receiver
        };
        let answers: Vec<_> = {
            let work = self.work();
            let work = work.as_ref();
            // All of them or none, so that none waits for others that never come.
            let mut places = work.filter(|_| are_together).map(|work| work.try_reserve_many(count));
            let mut place = |item: StartItem| match (&mut places, work) {
                (Some(Ok(places)), _) => places.next().map(|place| put(item, place)).ok_or(CoordinatorError::Stopping),
                (Some(Err(error)), _) => Err(not_taken(error)),
                (None, Some(work)) => {
                    work.try_reserve().map(|place| put(item, place)).map_err(|error| not_taken(&error))
                }
                (None, None) => Err(CoordinatorError::Stopping),
            };
            prepared.into_iter().map(|item| item.and_then(&mut place)).collect()
        };
        let mut results = Vec::with_capacity(answers.len());
        for answer in answers {
            results.push(match answer {
                Ok(receiver) => receiver.await.unwrap_or(Err(CoordinatorError::Stopping)),
                Err(error) => Err(error),
            });
        }
        results
    }
}

/// Why what is to be committed cannot be taken in.
pub(super) fn not_taken<T>(error: &mpsc::error::TrySendError<T>) -> CoordinatorError {
    match error {
        mpsc::error::TrySendError::Full(_) => BUSY,
        mpsc::error::TrySendError::Closed(_) => CoordinatorError::Stopping,
    }
}
