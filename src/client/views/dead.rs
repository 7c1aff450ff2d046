//! Dead letters as they go over HTTP.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /v1/dead-letters`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadQueueList {
    /// The queues of dead letters.
    pub items: Vec<DeadQueueView>,
}

/// A queue of dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadQueueView {
    /// Its name.
    pub queue: String,
    /// The queue whose messages come here.
    pub origin: String,
    /// How many messages it has; `null` when the broker does not tell.
    pub messages: Option<u32>,
}

/// `GET /v1/dead-letters/{queue}`: the oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterPage {
    /// The messages.
    pub items: Vec<DeadLetterView>,
    /// Whether there are more.
    pub more: bool,
}

/// A message that nobody could take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterView {
    /// Its message id, or a hash of what it says.
    pub id: String,
    /// Why it is here: a code of the coordinator, or the broker's word, for example `rejected`.
    pub reason: String,
    /// What the broker says of its way here, the last time first.
    pub deaths: Vec<DeathView>,
    /// Exchange and routing key that it is published to when it is replayed; `null` when nobody knows.
    pub replay_to: Option<String>,
    /// Its `type`.
    pub kind: Option<String>,
    /// Its `content_type`.
    pub content_type: Option<String>,
    /// Its `timestamp`.
    pub timestamp: Option<DateTime<Utc>>,
    /// The saga that its headers name.
    pub saga_id: Option<String>,
    /// Its headers, texts and whole numbers. What its token is, is nobody's business.
    pub headers: BTreeMap<String, Value>,
    /// Its body as text, up to 64 KiB; what is not UTF-8 is replaced.
    pub body: String,
    /// How long the body is, in bytes.
    pub body_bytes: usize,
}

/// Where and why a message was dead-lettered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeathView {
    /// The queue that it was in.
    pub queue: String,
    /// `rejected`, `delivery_limit`, `expired` or `maxlen`.
    pub reason: String,
    /// How often.
    pub count: i64,
}

/// The body of `POST /v1/dead-letters/{queue}/replay` and `/drop`: `messages` or `count`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterRequest {
    /// Why; kept in the audit log.
    pub reason: String,
    /// The ids of the messages; all of them must still be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<Vec<String>>,
    /// Instead: the oldest so many, up to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// What became of dead letters; with `dryRun=true`, which are meant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterResult {
    /// The queue.
    pub queue: String,
    /// How many were replayed or dropped; with `dryRun`, how many would be.
    pub done: usize,
    /// One per message, in order.
    pub items: Vec<DeadLetterOutcome>,
}

/// What became of one dead letter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterOutcome {
    /// Its id.
    pub id: String,
    /// Why it is still there; `null` when it was done.
    pub problem: Option<String>,
}
