//! What goes over HTTP, as types: the server writes them and the client reads them (section 6 of the contract).
//!
//! Fields are only ever added, so readers ignore what they do not know. States, statuses and outcomes are words of the
//! contract, kept as text for the same reason.

mod advice;
mod audit;
mod bulk;
mod dead;
mod definitions;
mod history;
mod outbox;
mod overview;
mod participants;
mod preview;
mod problem;
mod sagas;
mod signals;
mod versions;
mod webhooks;

use serde::{Deserialize, Serialize};

pub use advice::{AdviceView, MoveView, RetriesView, TimeoutView};
pub use audit::{AuditItem, AuditPage};
pub use bulk::{
    BulkCheckView, BulkItemPage, BulkItemView, BulkPage, BulkPreviewView, BulkReasonView, BulkRequestBody,
    BulkSampleView, BulkSteerBody, BulkView,
};
pub use dead::{
    DeadLetterOutcome, DeadLetterPage, DeadLetterRequest, DeadLetterResult, DeadLetterView, DeadQueueList,
    DeadQueueView, DeathView,
};
pub use definitions::{
    CompensationView, DefinitionList, DefinitionSummary, DefinitionVersions, DefinitionView, RetryView,
    StepOfDefinition,
};
pub use history::{HistoryItem, HistoryView};
pub use outbox::{OutboxItem, OutboxPage};
pub use overview::{ActivityView, OverviewView, ParticipantActivityView, StateCountView, StuckGroupView};
pub use participants::{ParticipantList, ParticipantView, PauseRequest, PauseResult, PauseView};
pub use preview::{ChangeView, EditRequest, PlannedView, PreviewView};
pub use problem::{FieldProblem, ProblemDocument};
pub use sagas::{
    BatchItem, BatchRequest, BatchResult, ChildView, CompensationOfStep, ElementView, OperateRequest, ParentView,
    SagaPage, SagaSummaryView, SagaView, StartBody, StepError, StepView, StuckView,
};
pub use signals::{SignalBody, SignalRequest, SignalResult};
pub use versions::{DeprecationView, MigrateRequest, MigrationItem, MigrationPage, MigrationReason, ReasonRequest};
pub use webhooks::{DeliveryItem, DeliveryPage};

/// The answer of `/healthz` and `/readyz` when all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// `alive`, `ready`, or `degraded` when some of several namespaces are not ready.
    pub status: String,
    /// The program's version.
    pub version: String,
    /// The namespaces that are not ready, for whoever may know of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_ready: Vec<NamespaceHealth>,
}

/// A namespace that is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NamespaceHealth {
    /// Its name.
    pub namespace: String,
    /// Why.
    pub reason: String,
}
