//! Signals as they go over HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::views::SagaView;

/// The body of `POST /v1/sagas/{id}/signal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SignalRequest {
    /// The signal's name, as the saga's `wait` step gives it.
    pub signal: String,
    /// What it says: the output of the step that waits for it. `null` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

/// The body of `POST /v1/signals`: which saga is said by `sagaId`, or by `saga` and `key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SignalBody {
    /// The saga's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga_id: Option<String>,
    /// The definition's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The saga's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The signal's name, as the saga's `wait` step gives it.
    pub signal: String,
    /// What it says: the output of the step that waits for it. `null` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Value>,
}

impl SignalBody {
    /// A signal for the saga with this id.
    pub fn to_id(id: impl Into<String>, signal: impl Into<String>, payload: Option<Value>) -> Self {
        Self { saga_id: Some(id.into()), saga: None, key: None, signal: signal.into(), payload }
    }

    /// A signal for the saga that this key of a definition belongs to.
    pub fn to_key(
        saga: impl Into<String>,
        key: impl Into<String>,
        signal: impl Into<String>,
        payload: Option<Value>,
    ) -> Self {
        Self { saga_id: None, saga: Some(saga.into()), key: Some(key.into()), signal: signal.into(), payload }
    }
}

/// What became of a signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SignalResult {
    /// Whether the saga had it already: then this one's payload does not count.
    pub is_duplicate: bool,
    /// The saga as it is then.
    pub saga: SagaView,
}
