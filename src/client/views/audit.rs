//! The audit log as it goes over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `GET /v1/audit`: newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// The rows.
    pub items: Vec<AuditItem>,
    /// Where the next page begins; `null` on the last one.
    pub next: Option<String>,
}

/// Something that somebody did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AuditItem {
    /// The row's number; grows.
    pub id: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who: a token's name, `oidc:` and the subject of an issuer's token, `cli:` and the user of a command on the store,
    /// or `anonymous`.
    pub actor: String,
    /// What, for example `retry`, `register` or `revoke-token`.
    pub action: String,
    /// The saga, if it was about one.
    pub saga_id: Option<String>,
    /// Why.
    pub reason: String,
    /// The rest.
    pub detail: Value,
}
