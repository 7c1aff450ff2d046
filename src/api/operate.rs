//! `POST /v1/sagas/{id}/retry` and its kin: what operators do.

use axum::Json as Answer;
use axum::extract::{Extension, MatchedPath, State};
use axum::http::HeaderMap;
use axum::http::header::IF_MATCH;
use axum::response::{IntoResponse, Response};

use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::problem::{IF_MATCH_INVALID, Problem, QUERY_INVALID, REASON_REQUIRED, ROUTE_UNKNOWN};
use crate::api::query::Query;
use crate::api::redact::{Redact, secrets_of};
use crate::api::saga_view::saga_view;
use crate::api::sagas::{Id, etag};
use crate::api::{App, sagas};
use crate::client::views::{FieldProblem, PlannedView, PreviewView};
use crate::coordinator::preview::{Planned, preview};
use crate::coordinator::{CoordinatorError, Operate, OperatorAction};
use crate::id::SagaId;
use crate::store::SagaRecord;

/// Characters of a reason, at most.
pub(crate) const MAX_REASON: usize = 1_000;

pub(super) async fn operate(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    path: MatchedPath,
    Id(id): Id,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let expected_revision = if_match(&headers)?;
    let word = path.as_str().rsplit('/').next().unwrap_or_default();
    let takes_step = matches!(word, "retry" | "skip");
    let known: &[&str] = if takes_step { &["reason", "step"] } else { &["reason"] };
    let mut fields = Fields::new(body, "", known)?;
    let reason = fields.text("reason");
    let step = fields.text("step");
    fields.finish()?;
    let action = action(word, step).ok_or_else(|| Problem::new(ROUTE_UNKNOWN, format!("`{word}` is no action")))?;
    match query.get("dryRun") {
        None | Some("false") => {}
        Some("true") => return dry_run(&app, id, &action, expected_revision).await,
        Some(_) => return Err(Problem::new(QUERY_INVALID, "`dryRun` is true or false")),
    }
    let reason = self::reason(reason)?;
    let saga = app.coordinator.operate(Operate { id, action, actor: caller.name, reason, expected_revision }).await?;
    // The saga as it was right after the action, even if it has moved on since. The action is done: should its outputs
    // not be there to read, the answer does without them.
    let commands = app.coordinator.store().saga(id).await.ok().flatten().map(|record| record.commands);
    let definition = sagas::expanded(&saga, &app.coordinator.definition(&saga.definition).await?)?;
    let record = SagaRecord { saga, commands: commands.unwrap_or_default() };
    Ok((etag(&record.saga), Answer(saga_view(&definition, &record))).into_response())
}

/// What the action would do; nothing is done.
async fn dry_run(
    app: &App,
    id: SagaId,
    action: &OperatorAction,
    expected_revision: Option<u32>,
) -> Result<Response, Problem> {
    let (definition, record) = sagas::load(app, id).await?;
    let saga = &record.saga;
    if let Some(expected) = expected_revision.filter(|expected| *expected != saga.revision) {
        return Err(CoordinatorError::Moved { id, expected, found: saga.revision }.into());
    }
    let found = preview(&definition, saga, action, app.clock.now())?;
    let view = |planned: &[Planned]| planned.iter().map(planned_view).collect();
    let answer = PreviewView {
        id: id.to_string(),
        action: action.as_str().to_owned(),
        revision: saga.revision,
        state: found.after.state.as_str().to_owned(),
        sends: view(&found.sends),
        follows: view(&found.follows),
        closes: view(&found.closes),
        ends: found.ends.map(str::to_owned),
    };
    Ok((etag(saga), Answer(answer.without(&secrets_of(&definition, &record)))).into_response())
}

fn planned_view(planned: &Planned) -> PlannedView {
    PlannedView {
        step: planned.step.clone(),
        direction: planned.direction.to_string(),
        participant: planned.participant.clone(),
        action: planned.action.clone(),
        attempt: planned.attempt,
        body: planned.body.as_ref().map(|body| body.value().clone()),
        unknown: planned.is_unknown,
    }
}

/// An operator's reason, which must be there.
pub(super) fn reason(given: Option<String>) -> Result<String, Problem> {
    let reason = given.as_deref().map(str::trim).unwrap_or_default().to_owned();
    if reason.is_empty() || reason.chars().count() > MAX_REASON {
        let detail = format!("`reason` says why, in 1 to {MAX_REASON} characters; it is kept in the audit log");
        return Err(Problem::new(REASON_REQUIRED, detail.clone()).errors(vec![FieldProblem::at("/reason", detail)]));
    }
    Ok(reason)
}

pub(crate) fn action(word: &str, step: Option<String>) -> Option<OperatorAction> {
    Some(match word {
        "retry" => OperatorAction::Retry { step },
        "skip" => OperatorAction::Skip { step },
        "compensate" => OperatorAction::Compensate,
        "pause" => OperatorAction::Pause,
        "resume" => OperatorAction::Resume,
        "cancel" => OperatorAction::Cancel,
        "abandon" => OperatorAction::Abandon,
        _ => return None,
    })
}

/// The revision that the operator looked at, as the ETag gave it.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<u32>, Problem> {
    let Some(given) = headers.get(IF_MATCH) else { return Ok(None) };
    let given = given.to_str().unwrap_or_default().trim();
    if given == "*" {
        return Ok(None);
    }
    let revision = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|text| text.parse().ok());
    revision
        .map(Some)
        .ok_or_else(|| Problem::new(IF_MATCH_INVALID, "send the saga's ETag as it came, for example `If-Match: \"7\"`"))
}
