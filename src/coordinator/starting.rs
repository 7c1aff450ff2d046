//! Many starts at once: together, or each by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::coordinator::coordinator::BUSY;
use crate::coordinator::gates::Turn;
use crate::coordinator::work::{Item, StartItem, Together, Waiting, Work};
use crate::coordinator::{Coordinator, CoordinatorError, Start, StartOutcome};
use crate::trace::TraceContext;

type Prepared = Vec<Result<StartItem, CoordinatorError>>;

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
        let prepared: Prepared = if are_together {
            self.admit_together(prepared)
        } else {
            prepared.into_iter().map(|item| item.and_then(|item| self.admit(item))).collect()
        };
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

    fn admit(&self, item: StartItem) -> Result<StartItem, CoordinatorError> {
        let turn = self.turn(&item.definition.reference.name, 1)?;
        Ok(StartItem { turn: Some(turn), ..item })
    }

    /// All that can be started, or nothing of it: whoever is to try one again tries all again, which would be another
    /// transaction.
    fn admit_together(&self, prepared: Prepared) -> Prepared {
        let passing_one = prepared.iter().find_map(|item| passing(item.as_ref().err()?));
        match passing_one.map_or_else(|| self.turns(&prepared), Err) {
            Ok(turns) => {
                let admit = |item: StartItem| {
                    let turn = turns.get(&item.definition.reference.name).cloned();
                    StartItem { turn, ..item }
                };
                prepared.into_iter().map(|item| item.map(admit)).collect()
            }
            Err(error) => {
                let neither = |item: Result<_, _>| item.and_then(|_| Err(passing(&error).unwrap_or(BUSY)));
                prepared.into_iter().map(neither).collect()
            }
        }
    }

    /// One turn for all starts of a definition.
    fn turns(&self, prepared: &Prepared) -> Result<BTreeMap<String, Arc<Turn>>, CoordinatorError> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for item in prepared.iter().flatten() {
            *counts.entry(&item.definition.reference.name).or_default() += 1;
        }
        counts.into_iter().map(|(name, count)| Ok((name.to_owned(), self.turn(name, count)?))).collect()
    }

    fn turn(&self, definition: &str, count: usize) -> Result<Arc<Turn>, CoordinatorError> {
        self.0.gates.intake().enter(definition, count).ok_or(BUSY)
    }
}

/// The same error, if trying again later can help.
fn passing(error: &CoordinatorError) -> Option<CoordinatorError> {
    match error {
        CoordinatorError::Busy { retry_after } => Some(CoordinatorError::Busy { retry_after: *retry_after }),
        CoordinatorError::Stopping => Some(CoordinatorError::Stopping),
        CoordinatorError::Store(error) if error.is_transient() => Some(CoordinatorError::Store(error.clone())),
        _ => None,
    }
}

/// Why what is to be committed cannot be taken in.
pub(super) fn not_taken<T>(error: &mpsc::error::TrySendError<T>) -> CoordinatorError {
    match error {
        mpsc::error::TrySendError::Full(_) => BUSY,
        mpsc::error::TrySendError::Closed(_) => CoordinatorError::Stopping,
    }
}
