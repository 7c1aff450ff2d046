//! `GET /v1/webhooks/deliveries` and what a person does to them.

use std::collections::HashMap;

use axum::Json as Answer;
use axum::extract::{Extension, MatchedPath, Path, State};
use uuid::Uuid;

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::operate::reason;
use crate::api::problem::{DELIVERY_UNKNOWN, Problem};
use crate::api::query::Query;
use crate::client::views::{DeliveryItem, DeliveryPage};
use crate::payload::Payload;
use crate::store::webhooks::Delivery;
use crate::store::{AuditRecord, Page, Store, StoreError};

/// Bytes of a place in the list: an id.
const PLACE: usize = 16;

pub(super) async fn list(
    State(app): State<App>,
    Extension(query): Extension<Query>,
) -> Result<Answer<DeliveryPage>, Problem> {
    let states = query.words("state", &["PENDING", "PARKED"])?;
    let parked = match states.as_slice() {
        [state] => Some(state == "PARKED"),
        _ => None,
    };
    let limit = query.limit()?;
    let after = query.cursor::<PLACE>("deliveries")?.map(Uuid::from_bytes);
    let mut found = match app.coordinator.store().webhooks() {
        Some(store) => store.deliveries(parked, &Page { after, limit: limit + 1 }).await?,
        None => Vec::new(),
    };
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| query.next("deliveries", last.id.as_bytes()));
    Ok(Answer(DeliveryPage { items: found.into_iter().map(item).collect(), next }))
}

pub(super) async fn see_to(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    route: MatchedPath,
    Path(path): Path<HashMap<String, String>>,
    Json(body): Json,
) -> Result<Answer<DeliveryItem>, Problem> {
    let mut fields = Fields::new(body, "", &["reason"])?;
    let given = fields.text("reason");
    fields.finish()?;
    let reason = reason(given)?;
    let id = path.get("id").map(String::as_str).unwrap_or_default();
    let unknown = || {
        let told: String = id.chars().take(60).collect();
        Problem::new(DELIVERY_UNKNOWN, format!("there is no delivery `{told}`: it may have been taken by now"))
    };
    let Ok(id) = Uuid::parse_str(id) else { return Err(unknown()) };
    let is_retry = route.as_str().ends_with("/retry");
    let found = change(&**app.coordinator.store(), id, is_retry, (caller.name, reason)).await?;
    found.map(|delivery| Answer(item(delivery))).ok_or_else(unknown)
}

/// Has a delivery tried again, or drops it, for somebody and a reason. `None` when there is no such delivery.
pub(crate) async fn change(
    store: &dyn Store,
    id: Uuid,
    is_retry: bool,
    (actor, reason): (String, String),
) -> Result<Option<Delivery>, StoreError> {
    let Some(webhooks) = store.webhooks() else { return Ok(None) };
    let audit = AuditRecord {
        id: 0,
        at: store.health().await?.now,
        actor,
        saga: None,
        action: if is_retry { "webhook-retry" } else { "webhook-drop" }.to_owned(),
        reason,
        detail: Payload::from(serde_json::json!({ "delivery": id })),
    };
    match is_retry {
        true => webhooks.retry_delivery(id, audit).await,
        false => webhooks.drop_delivery(id, audit).await,
    }
}

fn item(delivery: Delivery) -> DeliveryItem {
    let Delivery { id, webhook, event, saga, body: _, attempts, due, problem, at } = delivery;
    DeliveryItem {
        id: id.to_string(),
        webhook,
        event,
        saga_id: saga.to_string(),
        state: if due.is_some() { "PENDING" } else { "PARKED" }.to_owned(),
        attempts,
        next_due: due,
        problem,
        created_at: at,
    }
}
