//! Carries out bulk jobs: each by one coordinator at a time, which has a lease on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::CHECK_AFTER;
use crate::coordinator::work::{Item, Waiting};
use crate::coordinator::{Coordinator, CoordinatorError, Operate, OperatorAction};
use crate::id::{BulkId, SagaId};
use crate::saga::Saga;
use crate::store::bulk::{BulkJob, BulkStore, ItemFilter, ItemOutcome, JobState, NotApplied};
use crate::store::{Page, StoreError};

/// How often is looked for jobs that nobody sees to.
const LOOK: Duration = Duration::from_secs(2);
/// For how many seconds a job is leased. When its coordinator is killed, another takes over after so long.
const LEASE: u32 = 5;
/// How often a lease is renewed while a batch is being committed.
const RENEW: Duration = Duration::from_secs(1);
/// Jobs that one coordinator carries out at a time; others wait.
const MOST_JOBS: usize = 4;
/// How many batches there are in a second, if the rate allows.
const BATCHES: u32 = 4;
/// How often a job's counts are refreshed while it runs.
const COUNT: Duration = Duration::from_secs(1);
/// How long to wait before what could not be tried is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the commit of an item may take. One that takes longer is given up for good: should it come after all, it is
/// refused since its item is closed.
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long sagas that are under way are looked at again and again.
const CHECKED_FOR: Duration = Duration::from_secs(3_600);

/// Sees to jobs until `stop`. Looks when it is woken, and now and then.
pub(in crate::coordinator) async fn run(coordinator: Coordinator, wake: Arc<Notify>, stop: CancellationToken) {
    let holder = crate::id::fresh_request_id();
    let (mut tasks, mut busy) = (JoinSet::new(), HashMap::new());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = tasks.join_next_with_id() => {
                let task = done.map_or_else(|error| error.id(), |(task, ())| task);
                busy.remove(&task);
                continue;
            }
            () = wake.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        let Some(store) = coordinator.store().bulk() else { return };
        // A store that is away is asked again.
        let found = store.waiting(holder, 100).await.unwrap_or_default();
        for id in found {
            if busy.len() < MOST_JOBS && !busy.values().any(|busy| *busy == id) {
                let worker = Worker { coordinator: coordinator.clone(), id, holder, stop: stop.clone() };
                let task = tasks.spawn(async move {
                    if let Err(error) = worker.run().await {
                        tracing::warn!(job = %id, %error, "a bulk job waits");
                        tokio::time::sleep(AGAIN).await;
                    }
                });
                busy.insert(task.id(), id);
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Sees to one job.
struct Worker {
    coordinator: Coordinator,
    id: BulkId,
    holder: Uuid,
    stop: CancellationToken,
}

impl Worker {
    async fn run(&self) -> Result<(), StoreError> {
        let Some(store) = self.coordinator.store().bulk() else { return Ok(()) };
        let Some(job) = store.lease(self.id, self.holder, LEASE).await? else { return Ok(()) };
        if job.state.is_over() {
            return self.check(store, &job).await;
        }
        let worked = self.work(store).await;
        store.count(self.id).await?;
        // Another need not wait for it to run out. There is none any more when the job was paused, stopped or finished.
        store.lease(self.id, self.holder, 0).await?;
        worked
    }

    /// Does what is open, until the job is done, paused or stopped, another has it, or this process stops.
    async fn work(&self, store: &dyn BulkStore) -> Result<(), StoreError> {
        let (mut after, mut counted) = (None, Instant::now());
        loop {
            let began = Instant::now();
            let job = store.lease(self.id, self.holder, LEASE).await?.filter(|job| job.state == JobState::Running);
            let Some(job) = job else { return Ok(()) };
            if counted.elapsed() >= COUNT {
                store.count(self.id).await?;
                counted = Instant::now();
            }
            let limit = job.of.rate.div_ceil(BATCHES);
            let open = store.items(self.id, ItemFilter::Open, &Page { after, limit }).await?;
            let sagas: Vec<SagaId> = open.iter().map(|item| item.saga).collect();
            let rest = match sagas.last() {
                Some(last) => {
                    after = Some(*last);
                    let is_all_tried = self.batch(store, &job, &sagas).await?;
                    let span = Duration::from_secs(1) * limit_of(&sagas) / job.of.rate;
                    if is_all_tried { span } else { span.max(AGAIN) }
                }
                None if store.finish(self.id, self.coordinator.0.bulk_check_after).await? => {
                    tracing::info!(job = %self.id, action = job.of.action, sagas = job.total, "a bulk job is done");
                    return Ok(());
                }
                // What could not be tried: from the start.
                None => {
                    after = None;
                    AGAIN
                }
            };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(began + rest) => {}
            }
        }
    }

    /// Has the action done to these sagas. Submitted together, they share a commit or few. False when some could not be
    /// tried and are open still.
    async fn batch(&self, store: &dyn BulkStore, job: &BulkJob, sagas: &[SagaId]) -> Result<bool, StoreError> {
        let asked = join_all(sagas.iter().map(|saga| self.ask(job, *saga)));
        tokio::pin!(asked);
        let answers = loop {
            tokio::select! {
                answers = &mut asked => break answers,
                // Whoever takes it over meanwhile does no harm.
                () = tokio::time::sleep(RENEW) => drop(store.lease(self.id, self.holder, LEASE).await),
            }
        };
        let (mut closed, mut is_all_tried) = (Vec::new(), true);
        for (saga, answer) in sagas.iter().zip(answers) {
            let (outcome, code, detail) = match answer {
                Some(Ok(_)) => {
                    self.coordinator.metrics().bulk_item(ItemOutcome::Applied.as_str());
                    continue;
                }
                Some(Err(error)) if error.is_transient() => {
                    is_all_tried = false;
                    continue;
                }
                Some(Err(error @ CoordinatorError::Store(_))) => (ItemOutcome::Failed, error.code(), error.to_string()),
                Some(Err(error)) => (ItemOutcome::Refused, error.code(), error.to_string()),
                None => {
                    let detail = format!("its commit took longer than {PATIENCE:?}; look at the saga");
                    (ItemOutcome::Failed, "BULK_NO_ANSWER", detail)
                }
            };
            self.coordinator.metrics().bulk_item(outcome.as_str());
            closed.push(NotApplied { saga: *saga, outcome, code: code.to_owned(), detail });
        }
        if !closed.is_empty() {
            store.close_items(self.id, &closed).await?;
        }
        Ok(is_all_tried)
    }

    /// `None` when there is no answer in time.
    async fn ask(&self, job: &BulkJob, saga: SagaId) -> Option<Result<Saga, CoordinatorError>> {
        let Some(action) = OperatorAction::of(&job.of.action, job.of.step.clone()) else {
            let what = format!("`{}` is no action that this program knows", job.of.action);
            return Some(Err(StoreError::Corrupt(what).into()));
        };
        let operate = Operate {
            id: saga,
            action,
            actor: job.of.actor.clone(),
            reason: job.of.reason.clone(),
            expected_revision: None,
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        if let Err(error) = self.coordinator.submit(Item::Operate(operate, Some(self.id)), Waiting::Operator(sender)) {
            return Some(Err(error));
        }
        match tokio::time::timeout(PATIENCE, receiver).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(_)) => Some(Err(CoordinatorError::Stopping)),
            Err(_) => None,
        }
    }

    /// Looks how the sagas stand; again as long as some are under way, ever more rarely.
    async fn check(&self, store: &dyn BulkStore, job: &BulkJob) -> Result<(), StoreError> {
        store.count(self.id).await?;
        let check = store.check(self.id).await?;
        let since = job.ended_at.map_or(Duration::ZERO, |ended| (check.at - ended).to_std().unwrap_or_default());
        let is_settled = check.working == 0 || since >= CHECKED_FOR;
        // As long again as it has been, so that an hour has few looks.
        let again = u32::try_from(since.as_secs()).unwrap_or(u32::MAX).max(CHECK_AFTER);
        store.keep_check(self.id, &check, (!is_settled).then_some(again)).await
    }
}

fn limit_of(sagas: &[SagaId]) -> u32 {
    u32::try_from(sagas.len()).unwrap_or(u32::MAX)
}
