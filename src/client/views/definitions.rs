//! Definitions as they go over HTTP.

use serde::{Deserialize, Serialize};

use crate::client::views::FieldProblem;

use crate::client::views::DeprecationView;
use chrono::{DateTime, Utc};

/// `GET /v1/definitions`: every version of every definition, by name and version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DefinitionList {
    /// The versions.
    pub items: Vec<DefinitionSummary>,
}

/// `GET /v1/definitions/{name}`: every version of one definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DefinitionVersions {
    /// The definition's name.
    pub name: String,
    /// Its newest version that is not deprecated: what a start without a version gets. The newest, when all are.
    pub newest: u32,
    /// The versions, oldest first.
    pub items: Vec<DefinitionSummary>,
}

/// One definition version in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DefinitionSummary {
    /// The definition's name.
    pub name: String,
    /// The version.
    pub version: u32,
    /// The team that answers for it.
    pub owner: Option<String>,
    /// SHA-256 of its content, in hexadecimal.
    pub hash: String,
    /// When it was registered.
    pub registered_at: DateTime<Utc>,
    /// By whom.
    pub registered_by: String,
    /// Set while nothing new is started with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<DeprecationView>,
}

/// `GET /v1/definitions/{name}/{version}`, and the answer to a registration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DefinitionView {
    /// The definition's name.
    pub name: String,
    /// The version.
    pub version: u32,
    /// The team that answers for it.
    pub owner: Option<String>,
    /// Where operators read what to do.
    pub runbook: Option<String>,
    /// SHA-256 of its content, in hexadecimal.
    pub hash: String,
    /// How long a saga may take until its pivot is sent, in milliseconds; then it compensates.
    pub timeout_ms: Option<u64>,
    /// The steps, in the order of the file.
    pub steps: Vec<StepOfDefinition>,
    /// The text as it was registered.
    pub source: String,
    /// When it was registered.
    pub registered_at: DateTime<Utc>,
    /// By whom.
    pub registered_by: String,
    /// Told when it is registered: what does not forbid that, and probably should be mended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<FieldProblem>,
    /// Set while nothing new is started with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<DeprecationView>,
}

/// A step of a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepOfDefinition {
    /// Its name.
    pub name: String,
    /// The service that does it.
    pub participant: String,
    /// What the service is asked to do.
    pub action: String,
    /// The steps that must be done before it.
    pub after: Vec<String>,
    /// Whether the saga only goes forward once this step was sent.
    pub pivot: bool,
    /// Whether it has a condition, and is skipped where that is false.
    pub conditional: bool,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// When and how often it is tried again.
    pub retry: RetryView,
    /// What undoes it; `null` for none.
    pub compensation: Option<CompensationView>,
}

/// What undoes a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CompensationView {
    /// What the participant is asked to do.
    pub action: String,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// When and how often it is tried again.
    pub retry: RetryView,
}

/// A retry policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RetryView {
    /// Attempts, the first one included; `null` is without limit.
    pub max_attempts: Option<u32>,
    /// The wait before the second attempt, in milliseconds.
    pub initial_interval_ms: u64,
    /// By what the wait grows with each further attempt.
    pub backoff_coefficient: f64,
    /// The longest wait, in milliseconds.
    pub max_interval_ms: u64,
    /// Error types that are not tried again.
    pub non_retryable: Vec<String>,
}
