//! `POST /v1/sagas` and `POST /v1/sagas/batch`.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::api::body::{Fields, Json};
use crate::api::problem::{BATCH_INVALID, KEY_INVALID, Problem};
use crate::api::saga_view::saga_view;
use crate::api::{App, sagas};
use crate::client::views::{BatchItem, BatchResult, FieldProblem, SagaView};
use crate::coordinator::{CoordinatorError, Start, StartOutcome};
use crate::definition;
use crate::id::SagaId;
use crate::payload::Payload;
use crate::store::SagaRecord;
use crate::store::archive::ArchivedKey;
use crate::trace::TraceContext;

/// Starts in one batch, at most.
const MAX_BATCH: usize = 1_000;

pub(super) async fn one(State(app): State<App>, headers: HeaderMap, Json(body): Json) -> Result<Response, Problem> {
    let start = read(body, "")?;
    let outcome = app.coordinator.start_within(vec![(start, trace(&headers))]).await.pop();
    match outcome.unwrap_or(Err(CoordinatorError::Stopping))? {
        StartOutcome::Exists { id } => {
            if let (None, Some(known)) = (app.coordinator.store().saga(id).await?, sagas::archived(&app, id).await?) {
                return Ok((StatusCode::OK, Answer(archived_view(known))).into_response());
            }
            let (definition, record) = sagas::load(&app, id).await?;
            Ok((StatusCode::OK, sagas::etag(&record.saga), Answer(saga_view(&definition, &record))).into_response())
        }
        StartOutcome::Started { id, record, .. } => started(&app, id, &record).await,
    }
}

/// From what was committed: to read it again would cost more than the start.
async fn started(app: &App, id: SagaId, record: &SagaRecord) -> Result<Response, Problem> {
    let location = HeaderValue::from_str(&format!("/v1/sagas/{id}")).map_err(|e| Problem::internal(e.to_string()))?;
    let definition = app.coordinator.definition(&record.saga.definition).await?;
    let definition = sagas::expanded(&record.saga, &definition)?;
    let body = Answer(saga_view(&definition, record));
    Ok((StatusCode::CREATED, [(LOCATION, location), (ETAG, sagas::etag_value(&record.saga))], body).into_response())
}

pub(super) async fn batch(
    State(app): State<App>,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Answer<BatchResult>, Problem> {
    let trace = trace(&headers);
    let mut fields = Fields::new(body, "", &["sagas"])?;
    let sagas = fields.required("sagas");
    fields.finish()?;
    let refused = |detail: String| {
        let errors = vec![FieldProblem::at("/sagas", detail.clone())];
        Problem::new(BATCH_INVALID, detail).errors(errors)
    };
    let Value::Array(sagas) = sagas else { return Err(refused("`sagas` must be an array of starts".to_owned())) };
    if !(1..=MAX_BATCH).contains(&sagas.len()) {
        let found = sagas.len();
        return Err(refused(format!("a batch has 1 to {MAX_BATCH} starts, not {found}; use several batches")));
    }
    let mut starts = Vec::new();
    let mut readable = Vec::new();
    for (at, saga) in sagas.into_iter().enumerate() {
        readable.push(read(saga, &format!("/sagas/{at}")).map(|start| starts.push((start, trace.clone()))));
    }
    let mut outcomes = app.coordinator.start_within(starts).await.into_iter();
    let items = readable.into_iter().map(|readable| match readable {
        Err(problem) => refused_item(problem),
        Ok(()) => match outcomes.next() {
            Some(Ok(StartOutcome::Started { id, .. })) => accepted_item(StatusCode::CREATED, id),
            Some(Ok(StartOutcome::Exists { id })) => accepted_item(StatusCode::OK, id),
            Some(Err(error)) => refused_item(error.into()),
            None => refused_item(Problem::internal("a start of a batch has no outcome")),
        },
    });
    Ok(Answer(BatchResult { items: items.collect() }))
}

/// The caller's span. A `tracestate` in several lines is left out, since nobody sends one.
fn trace(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    TraceContext::parse(text("traceparent")?, text("tracestate"))
}

fn accepted_item(status: StatusCode, id: SagaId) -> BatchItem {
    BatchItem { status: status.as_u16(), id: Some(id.to_string()), problem: None }
}

fn refused_item(problem: Problem) -> BatchItem {
    BatchItem { status: problem.status().as_u16(), id: None, problem: Some(problem.into_document("")) }
}

fn read(body: Value, pointer: &str) -> Result<Start, Problem> {
    let mut fields = Fields::new(body, pointer, &["saga", "version", "input", "key"])?;
    let saga = fields.required_text("saga");
    let version = fields.ordinal("version");
    let input = Payload::from(fields.required("input"));
    let key = fields.text("key");
    fields.finish()?;
    if let Some(Err(detail)) = key.as_deref().map(definition::check_key) {
        let errors = vec![FieldProblem::at(format!("{pointer}/key"), detail.clone())];
        return Err(Problem::new(KEY_INVALID, detail).errors(errors));
    }
    Ok(Start { saga, version, input, key })
}

/// What is left of a saga in the store once it was archived.
fn archived_view(known: ArchivedKey) -> SagaView {
    SagaView {
        id: known.id.to_string(),
        saga: known.definition,
        version: known.version,
        key: Some(known.key),
        state: known.state,
        paused: false,
        parent: None,
        input: Value::Null,
        output: None,
        waiting_for: None,
        stuck: None,
        cause: None,
        steps: Vec::new(),
        revision: 0,
        created_at: known.created_at,
        updated_at: known.ended_at,
        ended_at: Some(known.ended_at),
        archived_at: Some(known.archived_at),
    }
}
