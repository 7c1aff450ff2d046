//! `/v1/bulk`: an operator's action on many sagas, as a job.

use std::collections::HashMap;

use axum::Json as Answer;
use axum::extract::{Extension, FromRequestParts, MatchedPath, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::filter::{fixed, pairs_of, saga_filter};
use crate::api::operate::{MAX_REASON, preview_view, reason};
use crate::api::problem::{
    BULK_COUNT_DIFFERS, BULK_ID_INVALID, BULK_NOTHING, BULK_STATE, BULK_UNCONFIRMED, BULK_UNKNOWN, BULK_UNSUPPORTED,
    FIELD_INVALID, FILTER_INVALID, PATH_INVALID, Problem, QUERY_INVALID, REASON_REQUIRED,
};
use crate::api::query::Query;
use crate::api::redact::Redact;
use crate::api::saga_view::summary;
use crate::client::views::{
    BulkCheckView, BulkItemPage, BulkItemView, BulkPage, BulkPreviewView, BulkReasonView, BulkSampleView, BulkView,
    FieldProblem,
};
use crate::clock::Timestamp;
use crate::coordinator::bulk::{BulkError, BulkPreview, BulkRequest, Chosen, MAX_RATE, RATE, UNCONFIRMED, tolerance};
use crate::coordinator::{Coordinator, CoordinatorError, OperatorAction};
use crate::id::{BulkId, SagaId};
use crate::payload::Payload;
use crate::store::bulk::{BulkItem, BulkJob, Check, ItemFilter, ItemOutcome, JobState};
use crate::store::{Page, SagaFilter};

/// Sagas that are named one by one, at most.
pub(crate) const MOST_NAMED: usize = 1_000;
/// The actions there are.
pub(crate) const ACTIONS: [&str; 7] = ["retry", "skip", "compensate", "pause", "resume", "cancel", "abandon"];

/// The `{id}` of a path.
pub(super) struct Id(BulkId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(path) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::new(PATH_INVALID, error.body_text()))?;
        let given = path.get("id").map(String::as_str).unwrap_or_default();
        given.parse().map(Self).map_err(|_| {
            let told: String = given.chars().take(60).collect();
            Problem::new(BULK_ID_INVALID, format!("`{told}` is no UUID; GET /v1/bulk lists the jobs there are"))
        })
    }
}

/// Which sagas are meant, and the same for people. States are those of sagas that may still change, unless some are named.
///
/// # Errors
/// When that makes no sense, or would be every saga there is.
pub(crate) fn matching(pairs: Vec<(String, String)>, now: Timestamp) -> Result<(SagaFilter, Value), Problem> {
    if pairs.is_empty() {
        let detail = "a filter is needed: name at least a state or a definition, for example {\"state\": \"STUCK\"}";
        return Err(Problem::new(FILTER_INVALID, detail).errors(vec![FieldProblem::at("/filter", detail)]));
    }
    let query = Query::of(pairs.clone());
    let mut filter = saga_filter(&query, now).map_err(|problem| {
        let place = FieldProblem::at("/filter", problem.detail());
        Problem::new(FILTER_INVALID, problem.detail()).errors(vec![place])
    })?;
    if filter.states.is_empty() {
        filter.states = ["STUCK", "RUNNING", "COMPENSATING"].map(str::to_owned).to_vec();
    }
    let told = fixed(&pairs, &filter);
    Ok((filter, told))
}

/// The action of this word.
///
/// # Errors
/// When there is none, or it takes no step.
pub(crate) fn action(word: &str, step: Option<String>) -> Result<OperatorAction, Problem> {
    let wrong = |pointer: &str, detail: String| {
        Problem::new(FIELD_INVALID, detail.clone()).errors(vec![FieldProblem::at(pointer, detail)])
    };
    if step.is_some() && !matches!(word, "retry" | "skip") {
        return Err(wrong("/step", format!("`{word}` takes no step")));
    }
    OperatorAction::of(word, step).ok_or_else(|| {
        let told: String = word.chars().take(60).collect();
        let detail = format!("`{told}` is no action; known are {}", ACTIONS.join(", "));
        wrong("/action", detail).suggest(word, ACTIONS)
    })
}

pub(super) async fn start(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Json(body): Json,
) -> Result<Response, Problem> {
    const KNOWN: [&str; 8] =
        ["action", "step", "filter", "sagas", "reason", "ratePerSecond", "dryRun", "expectedCount"];
    let mut fields = Fields::new(body, "", &KNOWN)?;
    let (word, step) = (fields.required_text("action"), fields.text("step"));
    let (filter, sagas) = (fields.optional("filter"), fields.optional("sagas"));
    let (given_reason, rate) = (fields.text("reason"), fields.ordinal("ratePerSecond"));
    let (dry_run, expected) = (fields.optional("dryRun"), fields.optional("expectedCount"));
    fields.finish()?;
    let wrong = |pointer: &str, detail: &str| {
        Problem::new(FIELD_INVALID, detail).errors(vec![FieldProblem::at(pointer, detail)])
    };
    let action = action(&word, step)?;
    let rate = rate.unwrap_or(RATE);
    if rate > MAX_RATE {
        return Err(wrong("/ratePerSecond", &format!("`ratePerSecond` is a whole number from 1 to {MAX_RATE}")));
    }
    let is_dry = match dry_run {
        Value::Null => false,
        Value::Bool(is_dry) => is_dry,
        _ => return Err(wrong("/dryRun", "`dryRun` is true or false")),
    };
    let expected = match expected {
        Value::Null => None,
        value => Some(value.as_u64().ok_or_else(|| wrong("/expectedCount", "`expectedCount` is a whole number"))?),
    };
    let (chosen, told) = match (filter, sagas) {
        (Value::Null, Value::Null) => return Err(wrong("/filter", "`filter` or `sagas` says which sagas are meant")),
        (Value::Object(filter), Value::Null) => {
            let (filter, told) = matching(pairs_of(&filter)?, app.clock.now())?;
            app.coordinator.may_search(&filter).await?;
            (Chosen::Matching(filter), told)
        }
        (Value::Null, Value::Array(ids)) => named(&ids).map_err(|detail| wrong("/sagas", &detail))?,
        (Value::Null, _) => return Err(wrong("/sagas", "`sagas` is a list of ids")),
        (_, Value::Null) => return Err(wrong("/filter", "`filter` is an object, for example {\"state\": \"STUCK\"}")),
        _ => return Err(wrong("/sagas", "`filter` and `sagas` cannot both be given")),
    };
    if is_dry {
        let found = app.coordinator.bulk_preview(&chosen, &action, app.clock.now()).await?;
        return Ok(Answer(preview(&app.coordinator, &action, &chosen, found).await).into_response());
    }
    let reason = reason(given_reason)?;
    let told = Payload::from(told);
    let request = BulkRequest { action, chosen, told, reason, actor: caller.name, rate, expected };
    let job = app.coordinator.bulk_start(request).await?;
    Ok((StatusCode::CREATED, Answer(view(&job, None))).into_response())
}

fn named(ids: &[Value]) -> Result<(Chosen, Value), String> {
    if ids.is_empty() || ids.len() > MOST_NAMED {
        return Err(format!("`sagas` has 1 to {MOST_NAMED} ids; use `filter` for more"));
    }
    let read = |id: &Value| id.as_str().and_then(|id| id.parse::<SagaId>().ok());
    let ids: Vec<SagaId> =
        ids.iter().map(read).collect::<Option<_>>().ok_or("`sagas` holds something that is no saga's id")?;
    let told = selected(ids.len());
    Ok((Chosen::These(ids), told))
}

/// Sagas that were named one by one, for people.
pub(crate) fn selected(count: usize) -> Value {
    json!({ "selected": count })
}

/// What a job would do.
pub(crate) async fn preview(
    coordinator: &Coordinator,
    action: &OperatorAction,
    chosen: &Chosen,
    found: BulkPreview,
) -> BulkPreviewView {
    let mut samples = Vec::new();
    let mut shown = None;
    for sample in found.samples {
        // What the operator acts on is told even where its definition cannot be read at the moment.
        let Ok(definition) = coordinator.definition(&sample.saga.definition).await else { continue };
        let Some(definition) = sample.saga.expand(&definition) else { continue };
        let (saga, secrets) = (summary(&definition, &sample.saga), sample.saga.secrets(&definition));
        let refused = match &sample.preview {
            Ok(preview) => {
                let view = || preview_view(&sample.saga, action, preview, Vec::new()).without(&secrets);
                shown.get_or_insert_with(view);
                None
            }
            Err((_, words)) => Some(words.clone().without(&secrets)),
        };
        samples.push(BulkSampleView { saga, refused });
    }
    BulkPreviewView {
        action: action.as_str().to_owned(),
        count: found.count,
        bounded: found.is_bounded,
        searched: matches!(chosen, Chosen::Matching(filter) if filter.is_search()),
        samples,
        preview: shown,
    }
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(query): Extension<Query>,
) -> Result<Answer<BulkPage>, Problem> {
    let limit = query.limit()?;
    let after = query.cursor::<16>("bulk")?.map(|bytes| BulkId(uuid::Uuid::from_bytes(bytes)));
    let mut found = match app.coordinator.bulk_jobs() {
        Ok(store) => store.jobs(&Page { after, limit: limit + 1 }).await?,
        // A store that keeps none has none.
        Err(_) => Vec::new(),
    };
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| query.next("bulk", last.of.id.0.as_bytes()));
    Ok(Answer(BulkPage { items: found.iter().map(|job| view(job, None)).collect(), next }))
}

pub(super) async fn show(
    State(app): State<App>,
    Id(id): Id,
    Extension(query): Extension<Query>,
) -> Result<Answer<BulkView>, Problem> {
    let is_checked = query.flag("check")?;
    let job = app.coordinator.bulk_job(id).await?;
    let now = if is_checked { Some(app.coordinator.bulk_check(id).await?) } else { None };
    Ok(Answer(view(&job, now)))
}

pub(super) async fn items(
    State(app): State<App>,
    Id(id): Id,
    Extension(query): Extension<Query>,
) -> Result<Answer<BulkItemPage>, Problem> {
    let filter = item_filter(query.get("outcome")).ok_or_else(|| {
        Problem::new(QUERY_INVALID, "`outcome` is open, applied, refused or failed, or left out for all")
    })?;
    let limit = query.limit()?;
    let after = query.cursor::<16>("bulk-items")?.map(|bytes| SagaId(uuid::Uuid::from_bytes(bytes)));
    app.coordinator.bulk_job(id).await?;
    let mut found = app.coordinator.bulk_jobs()?.items(id, filter, &Page { after, limit: limit + 1 }).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| query.next("bulk-items", last.saga.0.as_bytes()));
    Ok(Answer(BulkItemPage { items: found.into_iter().map(item).collect(), next }))
}

/// The items of this outcome; all if none is named.
pub(crate) fn item_filter(outcome: Option<&str>) -> Option<ItemFilter> {
    Some(match outcome {
        None => ItemFilter::All,
        Some("open") => ItemFilter::Open,
        Some("applied") => ItemFilter::Only(ItemOutcome::Applied),
        Some("refused") => ItemFilter::Only(ItemOutcome::Refused),
        Some("failed") => ItemFilter::Only(ItemOutcome::Failed),
        Some(_) => return None,
    })
}

fn item(item: BulkItem) -> BulkItemView {
    BulkItemView {
        saga: item.saga.to_string(),
        outcome: item.outcome.map_or("open", ItemOutcome::as_str).to_owned(),
        code: item.code,
        detail: item.detail,
        revision: item.revision,
        at: item.at,
    }
}

pub(super) async fn steer(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    path: MatchedPath,
    Id(id): Id,
    Json(body): Json,
) -> Result<Answer<BulkView>, Problem> {
    let mut fields = Fields::new(body, "", &["reason"])?;
    let reason = fields.text("reason").unwrap_or_default().trim().to_owned();
    fields.finish()?;
    if reason.chars().count() > MAX_REASON {
        let detail = format!("`reason` has at most {MAX_REASON} characters");
        return Err(Problem::new(REASON_REQUIRED, detail.clone()).errors(vec![FieldProblem::at("/reason", detail)]));
    }
    let to = match path.as_str().rsplit('/').next().unwrap_or_default() {
        "pause" => JobState::Paused,
        "resume" => JobState::Running,
        _ => JobState::Stopped,
    };
    let job = app.coordinator.bulk_steer(id, to, &caller.name, &reason).await?;
    Ok(Answer(view(&job, None)))
}

/// A job as it goes over the wire, with what was just found of its sagas, if that was looked at.
pub(crate) fn view(job: &BulkJob, now: Option<Check>) -> BulkView {
    let check = now.or_else(|| job.check.clone()).map(|check| check_view(job, check));
    BulkView {
        id: job.of.id.to_string(),
        action: job.of.action.clone(),
        step: job.of.step.clone(),
        filter: job.of.filter.value().clone(),
        reason: job.of.reason.clone(),
        actor: job.of.actor.clone(),
        rate_per_second: job.of.rate,
        state: job.state.as_str().to_owned(),
        total: job.total,
        applied: job.counts.applied,
        refused: job.counts.refused,
        failed: job.counts.failed,
        open: job.total.saturating_sub(job.counts.closed()),
        bounded: job.of.is_bounded,
        created_at: job.created_at,
        updated_at: job.updated_at,
        ended_at: job.ended_at,
        summary: told(job, check.as_ref()),
        check,
        next_check_at: job.check_due,
    }
}

fn check_view(job: &BulkJob, check: Check) -> BulkCheckView {
    let ended = u64::from(job.counts.closed()).saturating_sub(check.stuck + check.working);
    let reasons = check.reasons.into_iter().map(|(error, count)| BulkReasonView { error, count }).collect();
    BulkCheckView { at: check.at, stuck: check.stuck, working: check.working, ended, reasons }
}

/// How a job stands, in one sentence.
fn told(job: &BulkJob, check: Option<&BulkCheckView>) -> String {
    let mut text = format!("{}: done to {} of {}", job.of.action, job.counts.applied, job.total);
    for (count, what) in [(job.counts.refused, "refused"), (job.counts.failed, "failed")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    let open = job.total.saturating_sub(job.counts.closed());
    if open > 0 {
        text.push_str(&format!(", {open} {}", if job.state.is_over() { "left as they were" } else { "to go" }));
    }
    match check {
        None if job.state.is_over() => text.push_str("; asked, not yet seen to work"),
        None => {}
        Some(check) => {
            text.push_str(&format!("; {} still stuck", check.stuck));
            if check.working > 0 {
                text.push_str(&format!(", {} asked, not yet seen to work", check.working));
            }
            if check.ended > 0 {
                text.push_str(&format!(", {} ended", check.ended));
            }
        }
    }
    text
}

impl From<BulkError> for Problem {
    fn from(error: BulkError) -> Self {
        let told = error.to_string();
        match error {
            BulkError::Unsupported => Self::new(BULK_UNSUPPORTED, told),
            BulkError::Nothing => {
                Self::new(BULK_NOTHING, format!("{told}; widen the filter, or there is nothing to do"))
            }
            BulkError::Unconfirmed { count } => {
                let detail = format!("{told}: look at them with `dryRun`, then send `expectedCount`: {count}");
                Self::new(BULK_UNCONFIRMED, detail.clone())
                    .counting(count)
                    .errors(vec![FieldProblem::at("/expectedCount", detail)])
            }
            BulkError::OtherCount { count, expected } => {
                let off = tolerance(expected);
                let detail = format!("{told} (it may be off by {off}): look again with `dryRun`, then decide");
                Self::new(BULK_COUNT_DIFFERS, detail.clone())
                    .counting(count)
                    .errors(vec![FieldProblem::at("/expectedCount", detail)])
            }
            BulkError::Unknown(_) => Self::new(BULK_UNKNOWN, format!("{told}; GET /v1/bulk lists those there are")),
            BulkError::NotAllowed { state, .. } => {
                let help = "what runs can be paused, what is paused can be resumed, and neither is stopped yet";
                Self::new(BULK_STATE, format!("{told}; {help}")).in_state(state)
            }
            BulkError::Store(error) => CoordinatorError::from(error).into(),
        }
    }
}

/// Whether so many sagas need to be confirmed by their number.
pub(crate) fn needs_count(count: u32) -> bool {
    count > UNCONFIRMED
}
