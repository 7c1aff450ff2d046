//! The outbox as it goes over HTTP.

use serde::{Deserialize, Serialize};

use crate::client::views::StepError;
use chrono::{DateTime, Utc};

/// `GET /v1/outbox`: oldest saga first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutboxPage {
    /// The entries.
    pub items: Vec<OutboxItem>,
    /// Where the next page begins; `null` on the last one.
    pub next: Option<String>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OutboxItem {
    /// The saga that decided it.
    pub saga_id: String,
    /// The saga's definition.
    pub saga: String,
    /// The definition's version.
    pub version: u32,
    /// Its place among the saga's commands, from 1.
    pub seq: u32,
    /// The step.
    pub step: String,
    /// `action` or `compensation`.
    pub direction: String,
    /// The service.
    pub participant: String,
    /// What the service is asked to do.
    pub action: String,
    /// `PENDING` or `VERIFIED`.
    pub state: String,
    /// Seconds since it was decided; once VERIFIED, the seconds that it took.
    pub age: f64,
    /// The attempt that is under way, was the last, or settled it.
    pub attempt: Option<u32>,
    /// While PENDING: when the coordinator does something about it, if nothing comes before.
    pub next_due: Option<DateTime<Utc>>,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
    /// When its outcome became durably known.
    pub verified_at: Option<DateTime<Utc>>,
    /// `success`, `failure`, `unknown`, `skipped` or `abandoned`, once VERIFIED.
    pub outcome: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
}
