//! Participants as they go over HTTP.

use serde::{Deserialize, Serialize};

use chrono::{DateTime, Utc};

/// `GET /v1/participants`: by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ParticipantList {
    /// The participants of all registered definitions.
    pub items: Vec<ParticipantView>,
}

/// A participant, as the coordinator that was asked sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ParticipantView {
    /// Its name.
    pub name: String,
    /// Its queue.
    pub queue: String,
    /// Who consumes the queue; `null` when the broker does not tell.
    pub consumers: Option<u32>,
    /// Messages that wait in the queue.
    pub backlog: Option<u32>,
    /// How many may wait there before commands are held back in the store; 0 is no bound.
    pub window: u32,
    /// Whether so many wait there.
    pub is_full: bool,
    /// How many commands are held back, of those that the coordinator has in mind.
    pub held: usize,
    /// Whether there are more, which it reads from the store when it is their turn.
    pub holds_more: bool,
    /// When the oldest command was decided that has not been answered.
    pub oldest_unanswered: Option<DateTime<Utc>>,
    /// `closed`, or `open`: it has done nothing but fail, and is only sent probes.
    pub circuit: String,
    /// Since when the circuit is open.
    pub open_since: Option<DateTime<Utc>>,
    /// The part of its last outcomes that were time-outs or pleas for another attempt, from 0 to 1.
    pub failure_rate: f64,
}
