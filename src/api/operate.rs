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
use crate::api::redact::{Redact, secrets_with};
use crate::api::saga_view::saga_view;
use crate::api::sagas::{Id, etag};
use crate::api::{App, sagas};
use crate::client::views::{ChangeView, FieldProblem, PlannedView, PreviewView};
use crate::coordinator::handle::{Original, original};
use crate::coordinator::preview::{Planned, Preview, preview};
use crate::coordinator::{CoordinatorError, Operate, OperatorAction};
use crate::definition::Definition;
use crate::id::SagaId;
use crate::payload::{Payload, differences};
use crate::saga::Saga;
use crate::store::SagaRecord;

/// Characters of a reason, at most.
pub(crate) const MAX_REASON: usize = 1_000;
/// Places in which an edited input differs that are told, at most.
pub(crate) const MOST_CHANGES: usize = 100;

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
    let known: &[&str] = match word {
        "edit" => &["reason", "step", "input"],
        "retry" | "skip" => &["reason", "step"],
        _ => &["reason"],
    };
    let mut fields = Fields::new(body, "", known)?;
    let reason = fields.text("reason");
    let step = fields.text("step");
    let input = (word == "edit").then(|| Payload::from(fields.required("input")));
    fields.finish()?;
    let (action, expected_revision) = match input {
        None => (action(word, step), expected_revision),
        Some(input) => {
            let (action, seen) = edit(&app, id, step, input).await?;
            // What the audit log says of the command that was refused is of this revision.
            (Some(action), expected_revision.or(Some(seen)))
        }
    };
    let action = action.ok_or_else(|| Problem::new(ROUTE_UNKNOWN, format!("`{word}` is no action")))?;
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

/// An edit, with what it is made of, and the revision at which that was seen.
async fn edit(app: &App, id: SagaId, step: Option<String>, input: Payload) -> Result<(OperatorAction, u32), Problem> {
    let (definition, record) = sagas::load(app, id).await?;
    let original = original(&record, &definition, step.as_deref()).map(Original::from);
    let action = OperatorAction::Edit { step, input, original };
    app.coordinator.may_do(&action)?;
    Ok((action, record.saga.revision))
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
    let given = match action {
        OperatorAction::Edit { input, .. } => Some(input),
        _ => None,
    };
    let secrets = secrets_with(&definition, &record, given);
    let view = preview_view(saga, action, &found, changes(&definition, &record, action));
    Ok((etag(saga), Answer(view.without(&secrets))).into_response())
}

pub(super) fn preview_view(
    saga: &Saga,
    action: &OperatorAction,
    found: &Preview,
    changes: Vec<ChangeView>,
) -> PreviewView {
    let view = |planned: &[Planned]| planned.iter().map(planned_view).collect();
    PreviewView {
        id: saga.id.to_string(),
        action: action.as_str().to_owned(),
        revision: saga.revision,
        state: found.after.state.as_str().to_owned(),
        sends: view(&found.sends),
        follows: view(&found.follows),
        closes: view(&found.closes),
        ends: found.ends.map(str::to_owned),
        changes,
    }
}

/// How an edited input differs from the one that was refused.
fn changes(definition: &Definition, record: &SagaRecord, action: &OperatorAction) -> Vec<ChangeView> {
    let OperatorAction::Edit { step, input, .. } = action else { return Vec::new() };
    let Some(entry) = original(record, definition, step.as_deref()) else { return Vec::new() };
    let found = differences(entry.body.value(), input.value(), MOST_CHANGES);
    found.into_iter().map(ChangeView::from).collect()
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
    OperatorAction::of(word, step)
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
