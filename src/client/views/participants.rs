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
    /// Whether operators have paused it, or actions of it: their commands are held back.
    #[serde(default)]
    pub pauses: Vec<PauseView>,
    /// The part of its last outcomes that were time-outs or pleas for another attempt, from 0 to 1.
    pub failure_rate: f64,
}

/// A pause of a participant, or of one of its actions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PauseView {
    /// The action; `null` when all of them are meant.
    pub action: Option<String>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Who paused it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The body of `POST /v1/participants/{name}/pause` and `/resume`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PauseRequest {
    /// Why; kept in the audit log.
    pub reason: String,
    /// One action of the participant, instead of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// To resume: `since` of the pause that was looked at. Another one stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
}

/// What became of a pause or its end; with `dryRun=true`, what would.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PauseResult {
    /// The participant.
    pub participant: String,
    /// The action; `null` when all of them are meant.
    pub action: Option<String>,
    /// Whether it is paused now; with `dryRun`, whether it would be.
    pub paused: bool,
    /// The pause that is, or with `dryRun` was, in force.
    pub pause: Option<PauseView>,
    /// Commands for the participant that nobody has answered yet, up to 10,000 and one more: those that are held back,
    /// and those that were sent before.
    pub unanswered: u64,
}
