//! Bulk jobs as they go over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PreviewView, SagaSummaryView};

/// The body of `POST /v1/bulk`: one action on many sagas.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BulkRequestBody {
    /// `retry`, `skip`, `compensate`, `pause`, `resume`, `cancel` or `abandon`.
    pub action: String,
    /// The step, for `retry` and `skip`; where each saga is stuck if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Which sagas: by the names and values that `GET /v1/sagas` takes. Only sagas that have not ended, unless it names
    /// states. Either this or `sagas`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// These sagas, by id; up to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sagas: Option<Vec<String>>,
    /// Why; kept in the audit log. Not needed with `dryRun`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Sagas per second, at most: 1 to 1,000, 50 unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<u32>,
    /// Tell what it would do, and do nothing.
    pub dry_run: bool,
    /// How many sagas you expect it to be: needed for more than 100, and refused when it is off by more than a twentieth
    /// (five, if that is more).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_count: Option<u64>,
}

/// What a bulk job would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkPreviewView {
    /// The action.
    pub action: String,
    /// How many sagas it would have.
    pub count: u32,
    /// Whether more match than a job takes: the newest 100,000.
    pub bounded: bool,
    /// Whether sagas were looked for among the newest 20,000 that match the indexed part of the filter only.
    pub searched: bool,
    /// Some of them, oldest first.
    pub samples: Vec<BulkSampleView>,
    /// What would happen to the first of them that allows it.
    pub preview: Option<PreviewView>,
}

/// A saga that a bulk job would have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkSampleView {
    /// The saga.
    pub saga: SagaSummaryView,
    /// Why the action would be refused, if it would.
    pub refused: Option<String>,
}

/// A bulk job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkView {
    /// Its id.
    pub id: String,
    /// The action.
    pub action: String,
    /// The step that the action names.
    pub step: Option<String>,
    /// What its sagas were found by.
    pub filter: Value,
    /// Why.
    pub reason: String,
    /// By whom.
    pub actor: String,
    /// Sagas per second, at most.
    pub rate_per_second: u32,
    /// `RUNNING`, `PAUSED`, `STOPPED` or `DONE`.
    pub state: String,
    /// Its sagas.
    pub total: u32,
    /// Sagas to which it was done. Counted once a second while it runs, exact when it is over.
    pub applied: u32,
    /// Sagas that did not allow it.
    pub refused: u32,
    /// Sagas for which it could not be tried.
    pub failed: u32,
    /// Sagas that were not seen to yet, or that were left when it was stopped.
    pub open: u32,
    /// Whether more sagas matched than a job takes.
    pub bounded: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last carried on, paused, resumed or stopped.
    pub updated_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// How its sagas stood when that was last looked at: first 10 seconds after its end.
    pub check: Option<BulkCheckView>,
    /// When that is looked at next.
    pub next_check_at: Option<DateTime<Utc>>,
    /// All of that in one plain sentence.
    pub summary: String,
}

/// How the sagas stand that a bulk job has seen to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkCheckView {
    /// When that was looked at.
    pub at: DateTime<Utc>,
    /// Sagas that are stuck, still or again.
    pub stuck: u64,
    /// Sagas that are under way: asked, not yet seen to work.
    pub working: u64,
    /// Sagas that have ended.
    pub ended: u64,
    /// What they are stuck by, the most frequent first.
    pub reasons: Vec<BulkReasonView>,
}

/// What sagas are stuck by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkReasonView {
    /// The error's type.
    pub error: String,
    /// How many sagas.
    pub count: u64,
}

/// A page of bulk jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkPage {
    /// The jobs.
    pub items: Vec<BulkView>,
    /// Where the next page begins; `null` on the last one.
    pub next: Option<String>,
}

/// A saga of a bulk job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkItemView {
    /// The saga's id.
    pub saga: String,
    /// `open`, `applied`, `refused` or `failed`.
    pub outcome: String,
    /// Why it was not done, as a stable code.
    pub code: Option<String>,
    /// Why it was not done, in words.
    pub detail: Option<String>,
    /// The saga's revision after the action.
    pub revision: Option<u32>,
    /// When it was seen to.
    pub at: Option<DateTime<Utc>>,
}

/// A page of a bulk job's sagas, in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BulkItemPage {
    /// The sagas.
    pub items: Vec<BulkItemView>,
    /// Where the next page begins; `null` on the last one.
    pub next: Option<String>,
}

/// The body of `POST /v1/bulk/{id}/pause` and its kin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct BulkSteerBody {
    /// Why, if there is more to say than the job's own reason; kept in the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
