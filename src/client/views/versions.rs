//! Deprecation and migration as they go over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Since when, by whom and why nothing new is started with a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeprecationView {
    /// Since when.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The body of `POST /v1/definitions/{name}/{version}/deprecate` and `undeprecate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReasonRequest {
    /// Why; kept in the audit log.
    pub reason: String,
}

/// The body of `POST /v1/sagas/{id}/migrate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MigrateRequest {
    /// The version.
    pub to: u32,
    /// Why; kept in the audit log.
    pub reason: String,
}

/// `GET /v1/definitions/{name}/{version}/migration`: what would become of the sagas in flight, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MigrationPage {
    /// The sagas; pages may be short, and empty, before the last.
    pub items: Vec<MigrationItem>,
    /// Where the next page begins; `null` on the last.
    pub next: Option<String>,
}

/// What would become of one saga: `GET /v1/sagas/{id}/migration`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MigrationItem {
    /// The saga's id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The version that it has.
    pub from: u32,
    /// The version asked about.
    pub to: u32,
    /// Whether it can be moved.
    pub compatible: bool,
    /// Why not: every reason.
    pub reasons: Vec<MigrationReason>,
}

/// Why a saga cannot be moved to a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MigrationReason {
    /// A stable word, for example `STEP_REMOVED`.
    pub code: String,
    /// The step that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// In one clause.
    pub why: String,
}
