//! What an operator's action would do, as it goes over HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer of an operator action with `dryRun=true`: nothing was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PreviewView {
    /// The saga.
    pub id: String,
    /// The action.
    pub action: String,
    /// The saga's revision that was looked at: send it as `If-Match` to act on exactly this.
    pub revision: u32,
    /// The saga's state right after.
    pub state: String,
    /// What is sent at once, in order.
    pub sends: Vec<PlannedView>,
    /// What follows, in order, if every answer is a success.
    pub follows: Vec<PlannedView>,
    /// Commands that are closed without an answer.
    pub closes: Vec<PlannedView>,
    /// The state that the saga then reaches; `null` while it waits for something else.
    pub ends: Option<String>,
    /// Of an edit: where the input differs from the one that was refused; the first 100 places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeView>,
}

/// A place in which an edited input differs from the one that was refused. The values stand in the two commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChangeView {
    /// The place, as a JSON pointer.
    pub pointer: String,
    /// `added`, `removed` or `changed`.
    pub change: String,
}

impl From<crate::payload::Difference> for ChangeView {
    fn from(found: crate::payload::Difference) -> Self {
        Self { change: found.kind().to_owned(), pointer: found.pointer }
    }
}

/// The body of `POST /v1/sagas/{id}/edit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct EditRequest {
    /// Why; kept in the audit log. At most 1,000 characters.
    pub reason: String,
    /// The step; the one that is stuck when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The input to send instead of the one that was refused.
    pub input: Value,
}

/// A command that would be sent or closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PlannedView {
    /// The step.
    pub step: String,
    /// `action` or `compensation`.
    pub direction: String,
    /// The service.
    pub participant: String,
    /// What it is asked to do.
    pub action: String,
    /// The attempt.
    pub attempt: u32,
    /// The body, of commands that are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Whether nobody knows if the step's action took effect.
    pub unknown: bool,
}
