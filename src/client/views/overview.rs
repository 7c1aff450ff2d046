//! Everything at a glance, as it goes over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// `GET /v1/overview`: how much there is, what is stuck and why, how it went in the last hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct OverviewView {
    /// When it was looked at.
    pub at: DateTime<Utc>,
    /// How many sagas are in each state; of those that have ended, the newest 10,000 are counted.
    pub states: Vec<StateCountView>,
    /// Stuck sagas by cause, the most frequent first.
    pub stuck: Vec<StuckGroupView>,
    /// The last sixty minutes, the oldest first; of the newest 10,000 sagas.
    pub activity: ActivityView,
    /// What the participants owe, and how they have done lately.
    pub participants: Vec<ParticipantActivityView>,
}

/// How many sagas are in a state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StateCountView {
    /// The state.
    pub state: String,
    /// How many, up to 10,000.
    pub count: u64,
    /// Whether there are more than that.
    pub more: bool,
}

/// Stuck sagas that have one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StuckGroupView {
    /// Their definition.
    pub saga: String,
    /// Its version.
    pub version: u32,
    /// The step.
    pub step: String,
    /// Who does it; empty where a list has made the step.
    pub participant: String,
    /// What it does.
    pub action: String,
    /// `action` or `compensation`.
    pub direction: String,
    /// The error's type.
    pub error: String,
    /// How many sagas.
    pub count: u64,
    /// Since when the first of them is stuck.
    pub since: DateTime<Utc>,
}

/// The last hour by the minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ActivityView {
    /// Sagas that were started.
    pub started: Vec<u64>,
    /// Those of them that ended in that minute.
    pub ended: Vec<u64>,
    /// The median time from start to end, in milliseconds; 0 where none ended.
    pub p50_ms: Vec<u64>,
    /// That at the 95th percentile.
    pub p95_ms: Vec<u64>,
}

/// What a participant owes, and how it has done lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ParticipantActivityView {
    /// Its name.
    pub participant: String,
    /// Commands that nobody has answered yet, of the oldest 10,000.
    pub unanswered: u64,
    /// When the oldest of them was decided.
    pub oldest: Option<DateTime<Utc>>,
    /// Commands that were settled lately: of the newest 10,000.
    pub settled: u64,
    /// How many of them failed, or ended with nobody knowing.
    pub failed: u64,
}
