//! `GET /v1/audit`.

use axum::Json as Answer;
use axum::extract::{Extension, State};

use crate::api::App;
use crate::api::problem::{Problem, SAGA_ID_INVALID};
use crate::api::query::Query;
use crate::client::views::{AuditItem, AuditPage};
use crate::store::{AuditFilter, AuditRecord, Page};

/// Bytes of a place in the list: a row's number.
const PLACE: usize = 8;

pub(super) async fn list(
    State(app): State<App>,
    Extension(query): Extension<Query>,
) -> Result<Answer<AuditPage>, Problem> {
    let saga = query.get("saga").map(|given| {
        given.parse().map_err(|_| {
            let told: String = given.chars().take(60).collect();
            Problem::new(SAGA_ID_INVALID, format!("`{told}` is no UUID; `saga` is a saga's id here"))
        })
    });
    let filter = AuditFilter {
        saga: saga.transpose()?,
        actor: query.get("actor").map(str::to_owned),
        action: query.get("action").map(str::to_owned),
        since: query.since(app.clock.now())?,
    };
    let limit = query.limit()?;
    let after = query.cursor::<PLACE>("audit")?.map(u64::from_be_bytes);
    let mut found = app.coordinator.store().audits(&filter, &Page { after, limit: limit + 1 }).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| query.next("audit", &last.id.to_be_bytes()));
    Ok(Answer(AuditPage { items: found.into_iter().map(item).collect(), next }))
}

fn item(record: AuditRecord) -> AuditItem {
    AuditItem {
        id: record.id,
        at: record.at,
        actor: record.actor,
        action: record.action,
        saga_id: record.saga.map(|saga| saga.to_string()),
        reason: record.reason,
        detail: record.detail.value().clone(),
    }
}
