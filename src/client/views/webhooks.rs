//! What webhooks are still to be told, as it goes over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// `GET /v1/webhooks/deliveries`: in the order in which their sagas were started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeliveryPage {
    /// The messages.
    pub items: Vec<DeliveryItem>,
    /// Where the next page begins; `null` on the last one.
    pub next: Option<String>,
}

/// One message to one webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DeliveryItem {
    /// Its id, which the webhook is told as `webhook-id`.
    pub id: String,
    /// The webhook's name in the settings.
    pub webhook: String,
    /// `stuck`, `compensation-failed` or `resolved`.
    pub event: String,
    /// The saga.
    pub saga_id: String,
    /// `PENDING`, or `PARKED` once attempts are spent.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next, if it is.
    pub next_due: Option<DateTime<Utc>>,
    /// What went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it happened.
    pub created_at: DateTime<Utc>,
}
