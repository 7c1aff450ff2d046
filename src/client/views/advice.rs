//! Advice as it goes over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// `GET /v1/definitions/{name}/advice`: what the recorded outcomes say about a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AdviceView {
    /// The definition's name.
    pub saga: String,
    /// The version whose sagas were looked at.
    pub version: u32,
    /// Only those started since then, if set.
    pub since: Option<DateTime<Utc>>,
    /// How many of them have ended.
    pub sagas: u64,
    /// Steps to move, the most useful first; what they gain adds up.
    pub moves: Vec<MoveView>,
    /// The steps before the pivot in the order that results; empty without moves.
    pub order: Vec<String>,
    /// Time-outs that do not fit.
    pub timeouts: Vec<TimeoutView>,
    /// Retries that never helped.
    pub retries: Vec<RetriesView>,
    /// What nothing can be said about yet, and why.
    pub silent: Vec<String>,
    /// By what measure advice is given.
    pub criterion: String,
}

/// A step that would better come earlier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MoveView {
    /// The step.
    pub step: String,
    /// The step that it would come before.
    pub before: String,
    /// Sagas that would have compensated fewer steps.
    pub sagas: u64,
    /// Compensations that they would have saved.
    pub saved: u64,
    /// Compensations of the moved step that others would have needed instead, about.
    pub added: u64,
    /// All of it in one plain sentence.
    pub text: String,
}

/// A time-out that does not fit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TimeoutView {
    /// The step.
    pub step: String,
    /// `action` or `compensation`.
    pub direction: String,
    /// `tight` or `loose`.
    pub fit: String,
    /// The time-out as it is, in milliseconds.
    pub timeout_ms: u64,
    /// One that would fit, in milliseconds.
    pub suggested_ms: u64,
    /// Successes at the first attempt that were measured.
    pub measured: u64,
    /// Half of them took at most so long, in milliseconds.
    pub p50_ms: f64,
    /// 95 of 100 took at most so long, in milliseconds.
    pub p95_ms: f64,
    /// 99 of 100 took at most so long, in milliseconds.
    pub p99_ms: f64,
    /// The longest of them, in milliseconds.
    pub longest_ms: f64,
    /// All of it in one plain sentence.
    pub text: String,
}

/// Attempts that never helped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RetriesView {
    /// The step.
    pub step: String,
    /// `action` or `compensation`.
    pub direction: String,
    /// The last attempt that ever succeeded.
    pub last_useful: u32,
    /// Commands that were tried again after it; none succeeded.
    pub commands: u64,
    /// The share that could still be helped, at most, with 95 % confidence.
    pub at_most: f64,
    /// All of it in one plain sentence.
    pub text: String,
}
