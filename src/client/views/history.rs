//! A saga's past as it goes over HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::views::{ChangeView, StepError};
use chrono::{DateTime, Utc};

/// `GET /v1/sagas/{id}/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HistoryView {
    /// What happened, in order.
    pub items: Vec<HistoryItem>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HistoryItem {
    /// When.
    pub at: DateTime<Utc>,
    /// The saga's revision after it.
    pub revision: u32,
    /// What kind of thing, for example `decided`, `verified`, `timed-out` or `operated`.
    pub kind: String,
    /// The step that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// `action` or `compensation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<String>,
    /// The attempt that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// What became of the command: `success`, `failure`, `unknown`, `skipped` or `abandoned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What the step put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// The operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The operator's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of an edit: where the input differs from the one that was refused; the first 100 places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeView>,
    /// All of it in one plain sentence.
    pub text: String,
}
