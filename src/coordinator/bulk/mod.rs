//! Operators' actions on many sagas, as jobs that survive whoever carries them out.
//!
//! ```text
//!   POST /v1/bulk ──> find the sagas, write them down ──> bulk_job, bulk_item
//!   run: lease a job ──> its open items ──> committer, as ordinary operator actions
//!                                           (saga, audit row and item in one transaction)
//! ```
//!
//! Which sagas a job has is fixed when it is made. An item is closed in the transaction that changes its saga, and that
//! transaction is refused if the item is closed already, so that each is done once, whoever was killed when, and even if
//! two coordinators should think that they hold the job.

mod run;

use std::collections::BTreeSet;

use crate::clock::Timestamp;
use crate::coordinator::preview::{Preview, preview};
use crate::coordinator::{Coordinator, CoordinatorError, OperatorAction};
use crate::id::{BulkId, SagaId};
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::bulk::{BulkJob, BulkStore, Check, JobState, NewBulk};
use crate::store::{AuditRecord, Page, SagaFilter, SagaSummary, StoreError};

pub(super) use run::run;

/// Sagas of one job, at most; the newest of those that match.
pub const MOST_SAGAS: u32 = 100_000;
/// Beyond so many sagas a job must be confirmed by their number.
pub const UNCONFIRMED: u32 = 100;
/// Sagas per second, unless told otherwise.
pub const RATE: u32 = 50;
/// Sagas per second, at most.
pub const MAX_RATE: u32 = 1_000;
/// Seconds after the last item before it is looked how the sagas stand, unless told otherwise.
pub const CHECK_AFTER: u32 = 10;
/// Sagas that a preview shows.
const SAMPLES: usize = 10;
/// Sagas that are read at a time.
const PAGE: u32 = 1_000;

/// Which sagas.
#[derive(Clone, Debug)]
pub enum Chosen {
    /// Those that match.
    Matching(SagaFilter),
    /// These.
    These(Vec<SagaId>),
}

/// What is to be done to many sagas.
#[derive(Clone, Debug)]
pub struct BulkRequest {
    /// The action.
    pub action: OperatorAction,
    /// On which sagas.
    pub chosen: Chosen,
    /// The same for people, as JSON.
    pub told: Payload,
    /// Why.
    pub reason: String,
    /// By whom.
    pub actor: String,
    /// Sagas per second, at most.
    pub rate: u32,
    /// How many sagas the operator has seen it to be.
    pub expected: Option<u64>,
}

/// What a job would do.
#[derive(Clone, Debug)]
pub struct BulkPreview {
    /// How many sagas there are.
    pub count: u32,
    /// Whether more match than a job takes.
    pub is_bounded: bool,
    /// Some of them, oldest first.
    pub samples: Vec<Sample>,
}

/// One of the sagas that a job would have.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The saga.
    pub saga: Saga,
    /// What the action would do to it, or why it would be refused: stable code and words.
    pub preview: Result<Preview, (&'static str, String)>,
}

/// A bulk job could not be made, found or steered.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The store keeps no jobs.
    #[error("this store keeps no bulk jobs: use postgres://… or sqlite://…")]
    Unsupported,
    /// There is nothing to do.
    #[error("no saga matches")]
    Nothing,
    /// More sagas than an operator may have meant.
    #[error("{count} sagas match, and over {UNCONFIRMED} need to be confirmed by their number")]
    Unconfirmed {
        /// How many.
        count: u64,
    },
    /// Not as many sagas as the operator has seen.
    #[error("{count} sagas match now, not {expected}")]
    OtherCount {
        /// How many.
        count: u64,
        /// How many there were to be.
        expected: u64,
    },
    /// There is no such job.
    #[error("there is no bulk job {0}")]
    Unknown(BulkId),
    /// The job's state forbids it.
    #[error("bulk job {id} cannot {word}: it is {state}")]
    NotAllowed {
        /// The job.
        id: BulkId,
        /// What was to be done.
        word: &'static str,
        /// Its state.
        state: &'static str,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// By how many sagas the confirmed number may be off: sagas come and go while somebody reads.
pub fn tolerance(expected: u64) -> u64 {
    (expected / 20).max(5)
}

/// The sagas of a choice.
struct Found {
    ids: Vec<SagaId>,
    is_bounded: bool,
    samples: Vec<SagaId>,
}

impl Coordinator {
    fn bulk_store(&self) -> Result<&dyn BulkStore, BulkError> {
        self.store().bulk().ok_or(BulkError::Unsupported)
    }

    /// What a job would do: how many sagas it would have, and what would become of some of them. Nothing is done.
    ///
    /// # Errors
    /// What the store says.
    pub async fn bulk_preview(
        &self,
        chosen: &Chosen,
        action: &OperatorAction,
        now: Timestamp,
    ) -> Result<BulkPreview, BulkError> {
        let found = self.bulk_find(chosen).await?;
        let mut samples = Vec::new();
        for id in &found.samples {
            let Some(record) = self.store().saga(*id).await? else { continue };
            let foreseen = self.foresee(&record.saga, action, now).await;
            let preview = foreseen.map_err(|error| (error.code(), error.to_string()));
            samples.push(Sample { saga: record.saga, preview });
        }
        Ok(BulkPreview { count: count(&found.ids), is_bounded: found.is_bounded, samples })
    }

    async fn foresee(&self, saga: &Saga, action: &OperatorAction, now: Timestamp) -> Result<Preview, CoordinatorError> {
        let definition = self.definition(&saga.definition).await?;
        let corrupt = || StoreError::Corrupt(format!("saga {} does not fit its definition", saga.id));
        let definition = saga.expand(&definition).ok_or_else(corrupt)?;
        preview(&definition, saga, action, now)
    }

    /// Makes a job, and has it carried out. Returns once it is durable.
    ///
    /// # Errors
    /// See [`BulkError`]; nothing was done.
    pub async fn bulk_start(&self, request: BulkRequest) -> Result<BulkJob, BulkError> {
        let store = self.bulk_store()?;
        let found = self.bulk_find(&request.chosen).await?;
        let total = found.ids.len() as u64;
        match request.expected {
            _ if total == 0 => return Err(BulkError::Nothing),
            None if total > u64::from(UNCONFIRMED) => return Err(BulkError::Unconfirmed { count: total }),
            Some(expected) if expected.abs_diff(total) > tolerance(expected) => {
                return Err(BulkError::OtherCount { count: total, expected });
            }
            _ => {}
        }
        let step = match &request.action {
            OperatorAction::Retry { step } | OperatorAction::Skip { step } => step.clone(),
            _ => None,
        };
        let job = NewBulk {
            id: BulkId::fresh(),
            action: request.action.as_str().to_owned(),
            step,
            filter: request.told,
            reason: request.reason.clone(),
            actor: request.actor.clone(),
            rate: request.rate,
            is_bounded: found.is_bounded,
        };
        let detail = serde_json::json!({
            "bulk": job.id, "action": job.action, "step": job.step, "filter": job.filter.value(), "sagas": total,
            "ratePerSecond": job.rate,
        });
        let audit = self.bulk_audit("bulk-start", &request.actor, &request.reason, detail).await?;
        store.create(&job, &found.ids, &audit).await?;
        self.0.bulk.notify_one();
        self.bulk_job(job.id).await
    }

    async fn bulk_audit(
        &self,
        action: &str,
        actor: &str,
        reason: &str,
        detail: serde_json::Value,
    ) -> Result<AuditRecord, StoreError> {
        let at = self.store().health().await?.now;
        let (actor, action, reason) = (actor.to_owned(), action.to_owned(), reason.to_owned());
        Ok(AuditRecord { id: 0, at, actor, saga: None, action, reason, detail: Payload::from(detail) })
    }

    /// The sagas of a choice, oldest first.
    async fn bulk_find(&self, chosen: &Chosen) -> Result<Found, StoreError> {
        let (mut ids, mut is_bounded) = (Vec::new(), false);
        match chosen {
            Chosen::These(given) => {
                let given: BTreeSet<SagaId> = given.iter().copied().collect();
                ids.extend(given);
            }
            Chosen::Matching(filter) => {
                let mut page = Page { after: None, limit: PAGE };
                loop {
                    let found: Vec<SagaSummary> = self.store().sagas(filter, &page).await?;
                    let is_last = found.len() < PAGE as usize;
                    page.after = found.last().map(|last| last.saga.id);
                    ids.extend(found.into_iter().map(|found| found.saga.id));
                    if is_last {
                        break;
                    }
                    if ids.len() >= MOST_SAGAS as usize {
                        is_bounded = true;
                        break;
                    }
                }
                ids.sort_unstable();
            }
        }
        let samples = ids.iter().copied().take(SAMPLES).collect();
        Ok(Found { ids, is_bounded, samples })
    }

    /// A job.
    ///
    /// # Errors
    /// [`BulkError::Unknown`], or what the store says.
    pub async fn bulk_job(&self, id: BulkId) -> Result<BulkJob, BulkError> {
        self.bulk_store()?.job(id).await?.ok_or(BulkError::Unknown(id))
    }

    /// Where jobs are read from.
    ///
    /// # Errors
    /// [`BulkError::Unsupported`].
    pub fn bulk_jobs(&self) -> Result<&dyn BulkStore, BulkError> {
        self.bulk_store()
    }

    /// Looks now how the sagas of a job stand.
    ///
    /// # Errors
    /// What the store says.
    pub async fn bulk_check(&self, id: BulkId) -> Result<Check, BulkError> {
        Ok(self.bulk_store()?.check(id).await?)
    }

    /// Pauses, resumes or stops a job. What of it is being committed at the moment is still done.
    ///
    /// # Errors
    /// [`BulkError::Unknown`], [`BulkError::NotAllowed`], or what the store says; nothing was done.
    pub async fn bulk_steer(&self, id: BulkId, to: JobState, actor: &str, reason: &str) -> Result<BulkJob, BulkError> {
        let word = match to {
            JobState::Paused => "pause",
            JobState::Running => "resume",
            _ => "stop",
        };
        let store = self.bulk_store()?;
        let detail = serde_json::json!({ "bulk": id });
        let audit = self.bulk_audit(&format!("bulk-{word}"), actor, reason, detail).await?;
        let is_done = store.steer(id, to, self.0.bulk_check_after, &audit).await?;
        let job = self.bulk_job(id).await?;
        if !is_done {
            return Err(BulkError::NotAllowed { id, word, state: job.state.as_str() });
        }
        self.0.bulk.notify_one();
        Ok(job)
    }
}

fn count(ids: &[SagaId]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::tolerance;

    #[test]
    fn a_count_may_be_off_by_a_twentieth_and_by_five_in_any_case() {
        assert_eq!([tolerance(0), tolerance(100), tolerance(300), tolerance(10_000)], [5, 5, 15, 500]);
    }
}
