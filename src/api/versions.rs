//! Deprecating versions, and moving sagas from one to another.

use axum::Json as Answer;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::definitions::{NameAndVersion, reference, whole};
use crate::api::operate::{if_match, reason};
use crate::api::problem::{FIELD_MISSING, Problem, VERSION_INVALID};
use crate::api::query::Query;
use crate::api::saga_view::saga_view;
use crate::api::sagas::{Id, etag, load};
use crate::client::views::{DefinitionView, MigrationItem, MigrationPage, MigrationReason};
use crate::coordinator::{Deprecate, Migrate, MigrationPlan};
use crate::id::SagaId;
use crate::store::Page;

pub(super) async fn deprecate(
    app: State<App>,
    caller: Extension<Caller>,
    path: NameAndVersion,
    body: Json,
) -> Result<Answer<DefinitionView>, Problem> {
    change(app, caller, path, body, true).await
}

pub(super) async fn undeprecate(
    app: State<App>,
    caller: Extension<Caller>,
    path: NameAndVersion,
    body: Json,
) -> Result<Answer<DefinitionView>, Problem> {
    change(app, caller, path, body, false).await
}

async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    path: NameAndVersion,
    Json(body): Json,
    is_deprecated: bool,
) -> Result<Answer<DefinitionView>, Problem> {
    let reference = reference(path)?;
    let mut fields = Fields::new(body, "", &["reason"])?;
    let given = fields.text("reason");
    fields.finish()?;
    let reason = reason(given)?;
    // Whether it changed anything: asking twice for the same is as good as once.
    app.coordinator
        .deprecate(Deprecate { reference: reference.clone(), is_deprecated, actor: caller.name, reason })
        .await?;
    Ok(Answer(whole(&app, &reference).await?))
}

pub(super) async fn plan_all(
    State(app): State<App>,
    path: NameAndVersion,
    Extension(query): Extension<Query>,
) -> Result<Answer<MigrationPage>, Problem> {
    let (from, to) = (reference(path)?, to(&query)?);
    let after = query.cursor::<16>("migration")?.map(|bytes| SagaId(uuid::Uuid::from_bytes(bytes)));
    let page = Page { after, limit: query.limit()? };
    let (plans, next) = app.coordinator.plan_migrations(&from, to, &page).await?;
    let next = next.map(|last| query.next("migration", last.0.as_bytes()));
    Ok(Answer(MigrationPage { items: plans.into_iter().map(|plan| item(plan, to)).collect(), next }))
}

pub(super) async fn plan_one(
    State(app): State<App>,
    Id(id): Id,
    Extension(query): Extension<Query>,
) -> Result<Answer<MigrationItem>, Problem> {
    let to = to(&query)?;
    Ok(Answer(item(app.coordinator.plan_migration(id, to).await?, to)))
}

pub(super) async fn migrate(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Id(id): Id,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let expected_revision = if_match(&headers)?;
    let mut fields = Fields::new(body, "", &["to", "reason"])?;
    let (to, given) = (fields.ordinal("to"), fields.text("reason"));
    fields.finish()?;
    let to = to.ok_or_else(|| Problem::new(FIELD_MISSING, "`to` is missing: the version to move the saga to"))?;
    let reason = reason(given)?;
    app.coordinator.migrate(Migrate { id, to, actor: caller.name, reason, expected_revision }).await?;
    let (definition, record) = load(&app, id).await?;
    Ok((etag(&record.saga), Answer(saga_view(&definition, &record))).into_response())
}

fn to(query: &Query) -> Result<u32, Problem> {
    let given = query.get("to").unwrap_or_default();
    given.parse().ok().filter(|version| *version > 0).ok_or_else(|| {
        Problem::new(VERSION_INVALID, "`to` names the version to move to, a whole number from 1: for example ?to=2")
    })
}

fn item(plan: MigrationPlan, to: u32) -> MigrationItem {
    let reasons: Vec<MigrationReason> = plan
        .reasons
        .into_iter()
        .map(|reason| MigrationReason { code: reason.code.to_owned(), step: reason.step, why: reason.why })
        .collect();
    MigrationItem {
        id: plan.saga.id.to_string(),
        state: plan.saga.state.as_str().to_owned(),
        from: plan.saga.definition.version,
        to,
        compatible: reasons.is_empty(),
        reasons,
    }
}
