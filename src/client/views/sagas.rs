//! Sagas as they go over HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::views::ProblemDocument;
use chrono::{DateTime, Utc};

/// The body of `POST /v1/sagas`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StartBody {
    /// The definition's name.
    pub saga: String,
    /// Its version; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The saga's input.
    pub input: Value,
    /// The saga's key; the definition's own expression gives it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl StartBody {
    /// A start of the newest version, with the key that the definition gives it.
    pub fn new(saga: impl Into<String>, input: Value) -> Self {
        Self { saga: saga.into(), version: None, input, key: None }
    }
}

/// The body of `POST /v1/sagas/batch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BatchRequest {
    /// The starts; at most 1,000.
    pub sagas: Vec<StartBody>,
}

/// The answer of `POST /v1/sagas/batch`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// One result per start, in order.
    pub items: Vec<BatchItem>,
}

/// What became of one start of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct BatchItem {
    /// The HTTP status that the start would have had alone: 201 started, 200 its key had a saga already.
    pub status: u16,
    /// The saga, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why it was refused, otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemDocument>,
}

/// The body of an operator's action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct OperateRequest {
    /// Why; kept in the audit log. At most 1,000 characters.
    pub reason: String,
    /// The step, for `retry` and `skip`; the one that is stuck when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// `GET /v1/sagas`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaPage {
    /// The sagas.
    pub items: Vec<SagaSummaryView>,
    /// Where the next page begins; `null` on the last one.
    pub next: Option<String>,
}

/// A saga in a list: without input, output and steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaSummaryView {
    /// Its id.
    pub id: String,
    /// The definition's name.
    pub saga: String,
    /// The definition's version that it is pinned to.
    pub version: u32,
    /// At most one saga per definition and key.
    pub key: Option<String>,
    /// `RUNNING`, `COMPENSATING`, `COMPLETED`, `COMPENSATED`, `STUCK` or `ABANDONED`.
    pub state: String,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// The saga that started it as one of its steps, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    /// What it waits for, in one plain sentence; `null` when it has ended.
    pub waiting_for: Option<String>,
    /// Why it cannot go on without a person, when stuck.
    pub stuck: Option<StuckView>,
    /// Rises with every change.
    pub revision: u32,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// `GET /v1/sagas/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SagaView {
    /// Its id.
    pub id: String,
    /// The definition's name.
    pub saga: String,
    /// The definition's version that it is pinned to.
    pub version: u32,
    /// At most one saga per definition and key.
    pub key: Option<String>,
    /// `RUNNING`, `COMPENSATING`, `COMPLETED`, `COMPENSATED`, `STUCK` or `ABANDONED`.
    pub state: String,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// The saga that started it as one of its steps, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<ParentView>,
    /// What it was started with.
    pub input: Value,
    /// What it put out, once completed.
    pub output: Option<Value>,
    /// What it waits for, in one plain sentence; `null` when it has ended.
    pub waiting_for: Option<String>,
    /// Why it cannot go on without a person, when stuck.
    pub stuck: Option<StuckView>,
    /// Why it went backward, or completed without an output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<StepError>,
    /// Its steps, in the order of the definition.
    pub steps: Vec<StepView>,
    /// Rises with every change; the `ETag` too, for `If-Match` on operator actions.
    pub revision: u32,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// When it was moved to an archive: in the answer to a start whose key belongs to such a saga, which is without
    /// input, output and steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<DateTime<Utc>>,
}

impl SagaView {
    /// Whether nothing can change any more.
    pub fn has_ended(&self) -> bool {
        self.ended_at.is_some()
    }
}

/// Why a saga cannot go on without a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StuckView {
    /// The step that holds it up.
    pub step: String,
    /// The way it was going: `action` or `compensation`.
    pub direction: String,
    /// What happened there.
    pub error: StepError,
    /// Since when.
    pub since: DateTime<Utc>,
    /// What an operator can do now, for example `retry`.
    pub actions: Vec<String>,
}

/// What went wrong, as the participant or the coordinator tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepError {
    /// A stable, machine-readable word, for example `card-declined`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people.
    #[serde(default)]
    pub title: String,
    /// More for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The saga that started another as one of its steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ParentView {
    /// Its id.
    pub id: String,
    /// The step.
    pub step: String,
}

/// The saga that a step has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChildView {
    /// Its id.
    pub id: String,
    /// Its state, as of any saga. One that is done is `RUNNING` until its parent has ended.
    pub state: String,
    /// Whether it has done all its steps and only waits for its parent's end.
    pub held: bool,
}

/// Which element of which `forEach` step a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ElementView {
    /// The name of the step in the definition.
    pub of: String,
    /// Its place in the list, from 0.
    pub index: usize,
}

/// A step of a saga.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// What kind of work it is: `command`, `saga`, `wait` or `delay`.
    #[serde(default)]
    pub kind: String,
    /// Of a `forEach` step: which element it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub element: Option<ElementView>,
    /// Of a `saga` step: the saga that it has started, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildView>,
    /// The service that does it.
    pub participant: String,
    /// What the service is asked to do.
    pub action: String,
    /// `waiting`, `pending`, `verified`, `failed`, `unknown`, `skipped`, `compensating` or `compensated`.
    pub status: String,
    /// Attempts of the action.
    pub attempts: u32,
    /// What it put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// What went wrong, or with the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// When the coordinator does something about the action, if nothing comes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<DateTime<Utc>>,
    /// Its compensation, once it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CompensationOfStep>,
}

/// How far undoing a step has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct CompensationOfStep {
    /// What the service is asked to do; absent for a step that nothing undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `pending`, `verified`, `failed`, `unknown` or `skipped`.
    pub status: String,
    /// Attempts.
    pub attempts: u32,
    /// What went wrong, or with the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StepError>,
    /// When the coordinator does something about it, if nothing comes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<DateTime<Utc>>,
}
