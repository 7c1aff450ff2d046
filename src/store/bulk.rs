//! Bulk jobs: an operator's action on many sagas. Which sagas is written down when the job is made, so that none slips in
//! later; what became of each is written with the deed, in one transaction, so that each is done once, whoever is killed
//! when.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::{BulkId, SagaId};
use crate::payload::Payload;
use crate::store::{AuditRecord, Page, StoreError};

/// Groups of stuck sagas that a check tells of, at most.
pub const MOST_REASONS: u32 = 20;

/// A job to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewBulk {
    /// Its id.
    pub id: BulkId,
    /// The action's word, for example `retry`.
    pub action: String,
    /// The step that the action names.
    pub step: Option<String>,
    /// What the sagas were found by, as JSON. For people; the sagas themselves are written down.
    pub filter: Payload,
    /// Why.
    pub reason: String,
    /// By whom.
    pub actor: String,
    /// Sagas per second, at most.
    pub rate: u32,
    /// Whether more sagas match than the job takes.
    pub is_bounded: bool,
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It is being carried out.
    Running,
    /// It waits to be resumed.
    Paused,
    /// It was ended before all was done, for good.
    Stopped,
    /// Each of its sagas was seen to.
    Done,
}

impl JobState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Stopped => "STOPPED",
            Self::Done => "DONE",
        }
    }

    /// Whether nothing more will be done.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Done)
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Running, Self::Paused, Self::Stopped, Self::Done]
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| StoreError::Corrupt(format!("`{word}` is no state of a bulk job")))
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkJob {
    /// What it was made as.
    pub of: NewBulk,
    /// How it stands.
    pub state: JobState,
    /// Its sagas.
    pub total: u32,
    /// What became of them, as last counted: within a second while it is carried out, exact once it is over.
    pub counts: Counts,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last carried on, paused, resumed or stopped.
    pub updated_at: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
    /// How its sagas stood when that was last looked at, after its end.
    pub check: Option<Check>,
    /// When that is looked at next.
    pub check_due: Option<Timestamp>,
}

/// What became of a job's sagas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The action was done.
    pub applied: u32,
    /// The saga did not allow it.
    pub refused: u32,
    /// It could not be tried.
    pub failed: u32,
}

impl Counts {
    /// How many were seen to.
    pub fn closed(self) -> u32 {
        self.applied + self.refused + self.failed
    }
}

/// How the sagas stand that a job has seen to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// When that was looked at.
    pub at: Timestamp,
    /// Sagas that are stuck, still or again.
    pub stuck: u64,
    /// Sagas that are under way: asked, not yet seen to work.
    pub working: u64,
    /// The errors that they are stuck by, the most frequent first.
    pub reasons: Vec<(String, u64)>,
}

/// What became of one saga of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemOutcome {
    /// The action was done.
    Applied,
    /// The saga did not allow it.
    Refused,
    /// It could not be tried.
    Failed,
}

impl ItemOutcome {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn read(word: &str) -> Result<Self, StoreError> {
        [Self::Applied, Self::Refused, Self::Failed]
            .into_iter()
            .find(|outcome| outcome.as_str() == word)
            .ok_or_else(|| StoreError::Corrupt(format!("`{word}` is no outcome of an item")))
    }
}

/// A saga of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkItem {
    /// The saga.
    pub saga: SagaId,
    /// What became of it; `None` while it was not seen to.
    pub outcome: Option<ItemOutcome>,
    /// Why not, as a stable code.
    pub code: Option<String>,
    /// Why not, in words.
    pub detail: Option<String>,
    /// The saga's revision after the action.
    pub revision: Option<u32>,
    /// When it was seen to.
    pub at: Option<Timestamp>,
}

/// An item whose action is done with this commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The job.
    pub job: BulkId,
    /// The saga.
    pub saga: SagaId,
    /// Its revision after the action.
    pub revision: u32,
    /// When.
    pub at: Timestamp,
}

/// An item whose action was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotApplied {
    /// The saga.
    pub saga: SagaId,
    /// [`ItemOutcome::Refused`] or [`ItemOutcome::Failed`].
    pub outcome: ItemOutcome,
    /// Why, as a stable code.
    pub code: String,
    /// Why, in words.
    pub detail: String,
}

/// Which items to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemFilter {
    /// All.
    All,
    /// Those that were not seen to.
    Open,
    /// Those of which this became.
    Only(ItemOutcome),
}

impl ItemFilter {
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn as_str(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::Open => Some("open"),
            Self::Only(outcome) => Some(outcome.as_str()),
        }
    }
}

/// A store that bulk jobs are kept in.
#[async_trait]
pub trait BulkStore: Send + Sync {
    /// Makes a job that runs, with its sagas and its audit row: whole, or not at all.
    async fn create(&self, job: &NewBulk, sagas: &[SagaId], audit: &AuditRecord) -> Result<(), StoreError>;

    /// A job.
    async fn job(&self, id: BulkId) -> Result<Option<BulkJob>, StoreError>;

    /// Jobs, newest first.
    async fn jobs(&self, page: &Page<BulkId>) -> Result<Vec<BulkJob>, StoreError>;

    /// Sagas of a job, in the order of their ids.
    async fn items(&self, id: BulkId, filter: ItemFilter, page: &Page<SagaId>) -> Result<Vec<BulkItem>, StoreError>;

    /// Pauses, resumes or stops a job, with its audit row. False, and nothing is written, when its state does not allow
    /// it: what runs can be paused, what is paused can run, and what is not over can be stopped. The sagas of one that is
    /// stopped are looked at after `check_in` seconds.
    async fn steer(&self, id: BulkId, to: JobState, check_in: u32, audit: &AuditRecord) -> Result<bool, StoreError>;

    /// Jobs that somebody has to see to and nobody but `holder` does: they run, or their sagas are to be looked at.
    async fn waiting(&self, holder: Uuid, limit: u32) -> Result<Vec<BulkId>, StoreError>;

    /// Takes or renews the right to see to a job, for so many seconds; 0 gives it back. `None` while another has it, and
    /// when there is nothing to see to.
    async fn lease(&self, id: BulkId, holder: Uuid, seconds: u32) -> Result<Option<BulkJob>, StoreError>;

    /// Closes items that were not applied; those that are closed already stay as they are.
    async fn close_items(&self, id: BulkId, items: &[NotApplied]) -> Result<(), StoreError>;

    /// Counts the items, for [`BulkJob::counts`].
    async fn count(&self, id: BulkId) -> Result<(), StoreError>;

    /// Ends a job that runs and has no open items, and has its sagas looked at after so many seconds. False when it is not
    /// so.
    async fn finish(&self, id: BulkId, check_in: u32) -> Result<bool, StoreError>;

    /// Looks how the sagas stand that a job has seen to.
    async fn check(&self, id: BulkId) -> Result<Check, StoreError>;

    /// Keeps what was found, and whether to look again after so many seconds.
    async fn keep_check(&self, id: BulkId, check: &Check, again_in: Option<u32>) -> Result<(), StoreError>;
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
crate::store::row::columns! {
    /// A job's row.
    #[derive(Debug)]
    pub(super) struct JobRow {
        pub(super) id: Uuid,
        pub(super) action: String,
        pub(super) step: Option<String>,
        pub(super) filter: String,
        pub(super) reason: String,
        pub(super) actor: String,
        pub(super) rate: i32,
        pub(super) state: String,
        pub(super) total: i32,
        pub(super) is_bounded: bool,
        pub(super) applied: i32,
        pub(super) refused: i32,
        pub(super) failed: i32,
        pub(super) created_at: Timestamp,
        pub(super) updated_at: Timestamp,
        pub(super) ended_at: Option<Timestamp>,
        pub(super) checked: Option<String>,
        pub(super) check_due: Option<Timestamp>,
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl JobRow {
    pub(super) fn read(self) -> Result<BulkJob, StoreError> {
        use crate::store::row::number;
        let check = self.checked.map(|text| serde_json::from_str(&text)).transpose();
        Ok(BulkJob {
            of: NewBulk {
                id: BulkId(self.id),
                action: self.action,
                step: self.step,
                filter: Payload::trusted(self.filter),
                reason: self.reason,
                actor: self.actor,
                rate: number(self.rate)?,
                is_bounded: self.is_bounded,
            },
            state: JobState::read(&self.state)?,
            total: number(self.total)?,
            counts: Counts {
                applied: number(self.applied)?,
                refused: number(self.refused)?,
                failed: number(self.failed)?,
            },
            created_at: self.created_at,
            updated_at: self.updated_at,
            ended_at: self.ended_at,
            check: check.map_err(|error| StoreError::Corrupt(format!("a bulk job's check: {error}")))?,
            check_due: self.check_due,
        })
    }
}

/// What a check found: states with the errors of those that are stuck, and how many of each.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn checked(at: Timestamp, rows: Vec<(String, Option<String>, i64)>) -> Result<Check, StoreError> {
    let mut check = Check { at, ..Check::default() };
    for (state, error, count) in rows {
        let count: u64 = crate::store::row::number(count)?;
        if state == "STUCK" {
            check.stuck += count;
            check.reasons.push((error.unwrap_or_default(), count));
        } else {
            check.working += count;
        }
    }
    check.reasons.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    check.reasons.truncate(MOST_REASONS as usize);
    Ok(check)
}

/// The states that a job may come from on its way to `to`.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn from_states(to: JobState) -> &'static [&'static str] {
    match to {
        JobState::Paused => &["RUNNING"],
        JobState::Running => &["PAUSED"],
        JobState::Stopped => &["RUNNING", "PAUSED"],
        // Jobs are done by themselves: see `BulkStore::finish`.
        JobState::Done => &[],
    }
}

/// What the store says when an item was closed by somebody else before.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn closed_before() -> StoreError {
    StoreError::Refused("an item of a bulk job is closed already".to_owned())
}
