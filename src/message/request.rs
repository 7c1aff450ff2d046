//! Requests from callers who would rather publish than call HTTP, and the answers to them.

use serde::{Deserialize, Serialize};

use crate::message::{Envelope, Properties};
use crate::payload::Payload;

/// The routing key of a start.
pub const START_KEY: &str = "start";

/// The routing key of a signal.
pub const SIGNAL_KEY: &str = "signal";

/// The body of a signal, as in `POST /v1/signals`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SignalRequest {
    /// The saga's id; otherwise `saga` and `key` say which saga is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga_id: Option<String>,
    /// The definition's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga: Option<String>,
    /// The saga's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The signal's name.
    pub signal: String,
    /// What it says; `null` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Payload>,
}

/// The body of a start, as in `POST /v1/sagas`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The definition's name.
    pub saga: String,
    /// Its version; the newest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The saga's input.
    pub input: Payload,
    /// The saga's key; the definition's own expression gives it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The saga, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Whether this request started it, or its signal was the first; otherwise it was there already.
    #[serde(default)]
    pub is_new: bool,
    /// A stable code, when the request was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Answer {
    /// The message to publish, if the request asks for an answer at all: to the default exchange, with the request's
    /// `reply_to` as routing key.
    pub fn encode(&self, request: &Envelope) -> Option<Envelope> {
        let routing_key = request.properties.reply_to.clone().filter(|key| !key.is_empty())?;
        Some(Envelope {
            exchange: String::new(),
            routing_key,
            mandatory: true,
            properties: Properties {
                correlation_id: request.properties.correlation_id.clone(),
                content_type: Some("application/json".to_owned()),
                app_id: Some("amends".to_owned()),
                ..Properties::default()
            },
            body: serde_json::to_vec(self).unwrap_or_default(),
        })
    }
}
