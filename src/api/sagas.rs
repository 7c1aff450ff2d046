//! `GET /v1/sagas`, `GET /v1/sagas/{id}` and its history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::{Extension, FromRequestParts, Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderName};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::api::auth::Caller;
use crate::api::filter::saga_filter;
use crate::api::problem::{PATH_INVALID, Problem, SAGA_ID_INVALID};
use crate::api::query::Query;
use crate::api::redact::{Redact, must_be_whole, secrets_of};
use crate::api::saga_view::{saga_view, summary, unreadable, whole_view};
use crate::api::{App, graph, history, operate};
use crate::client::views::{ChildView, HistoryView, SagaPage, SagaSummaryView, SagaView};
use crate::coordinator::Coordinator;
use crate::coordinator::view::awaited;
use crate::definition::sensitive::Secrets;
use crate::definition::{Definition, Work};
use crate::id::{DefinitionRef, SagaId};
use crate::message::command::idempotency_key;
use crate::picture::Picture;
use crate::saga::{Direction, Saga};
use crate::store::archive::ArchivedKey;
use crate::store::{Page, SagaRecord, Store};

/// How long the broker may take to tell of a queue; the answer does without it then.
const QUEUE_LOOK: Duration = Duration::from_millis(500);
/// Audit rows of one saga that its history shows, at most.
const MAX_AUDIT: u32 = 10_000;

/// The `{id}` of a path.
pub(super) struct Id(pub(super) SagaId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(path) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::new(PATH_INVALID, error.body_text()))?;
        let given = path.get("id").map(String::as_str).unwrap_or_default();
        given.parse().map(Self).map_err(|_| {
            let told: String = given.chars().take(60).collect();
            Problem::new(
                SAGA_ID_INVALID,
                format!("`{told}` is no UUID; a saga's id looks like {}", SagaId(uuid::Uuid::nil())),
            )
        })
    }
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(query): Extension<Query>,
) -> Result<Answer<SagaPage>, Problem> {
    let filter = saga_filter(&query, app.clock.now())?;
    app.coordinator.may_search(&filter).await?;
    let limit = query.limit()?;
    let after = query.cursor::<16>("sagas")?.map(|bytes| SagaId(uuid::Uuid::from_bytes(bytes)));
    // One more than asked for tells whether there is a next page.
    let mut found = app.coordinator.store().sagas(&filter, &Page { after, limit: limit + 1 }).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| query.next("sagas", last.saga.id.0.as_bytes()));
    let mut items = Vec::with_capacity(found.len());
    for found in found {
        let definition = app.coordinator.definition(&found.saga.definition).await?;
        if definition.has_loops() || must_be_whole(&definition, &found.saga) {
            // Which steps it has, and what of it is sensitive, depends on its input, which lists come without.
            let record = match app.coordinator.store().saga(found.saga.id).await {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) if error.is_transient() => return Err(error.into()),
                // The others are listed all the same.
                Err(error) => {
                    items.push(unreadable(&found.saga, &error));
                    continue;
                }
            };
            let definition = expanded(&record.saga, &definition)?;
            items.push(listed(&app.coordinator, &definition, &record.saga));
        } else {
            items.push(listed(&app.coordinator, &definition, &found.saga));
        }
    }
    Ok(Answer(SagaPage { items, next }))
}

/// A saga in a list, without what is sensitive: it must be whole where [`must_be_whole`] says so.
pub(crate) fn listed(coordinator: &Coordinator, definition: &Definition, saga: &Saga) -> SagaSummaryView {
    let waiting_for = coordinator.waiting_for(definition, saga).without(&saga.secrets(definition));
    SagaSummaryView { waiting_for, ..summary(definition, saga) }
}

pub(super) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    Id(id): Id,
) -> Result<Response, Problem> {
    let (definition, record) = load(&app, id).await?;
    let secrets = match reveals(&app, caller, &query, Some(id), "saga").await? {
        true => Secrets::default(),
        false => secrets_of(&definition, &record),
    };
    let mut view = whole_view(&definition, &record).without(&secrets);
    view.waiting_for = app.coordinator.waiting_for(&definition, &record.saga).without(&secrets);
    if !record.saga.paused
        && let Some(waiting_for) = &mut view.waiting_for
    {
        for hint in queue_hints(&app.coordinator, &definition, &record.saga).await {
            waiting_for.push_str(&hint);
        }
    }
    children(&**app.coordinator.store(), &definition, &record, &mut view).await;
    Ok((etag(&record.saga), Answer(view)).into_response())
}

/// Adds the sagas that the saga's steps have started. What the store cannot tell at the moment is left out.
pub(crate) async fn children(store: &dyn Store, definition: &Definition, record: &SagaRecord, view: &mut SagaView) {
    for (at, (step, told)) in definition.steps.iter().zip(&mut view.steps).enumerate() {
        let Work::Saga { name, .. } = &step.work else { continue };
        let mut starts = record.commands.iter().filter(|entry| usize::from(entry.step_index) == at);
        // An operator's retry starts another one; the newest tells.
        let Some(start) = starts.rfind(|entry| entry.direction == Direction::Action) else { continue };
        let key = idempotency_key(record.saga.id, &step.name, &start.direction.to_string(), start.generation);
        let Ok(Some(id)) = store.saga_by_key(name, &key).await else { continue };
        let Ok(Some(child)) = store.saga(id).await else { continue };
        let (state, held) = (child.saga.state.as_str().to_owned(), child.saga.held().is_some());
        told.child = Some(ChildView { id: id.to_string(), state, held });
    }
}

pub(super) async fn history(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    Id(id): Id,
) -> Result<Answer<HistoryView>, Problem> {
    let (definition, record) = load(&app, id).await?;
    let secrets = match reveals(&app, caller, &query, Some(id), "history").await? {
        true => Secrets::default(),
        false => secrets_of(&definition, &record),
    };
    let store = app.coordinator.store();
    let events = store.history(id).await?;
    let audit = store.audit(Some(id), &Page { after: None, limit: MAX_AUDIT }).await?;
    let mut versions = Vec::new();
    for version in history::earlier_versions(&events) {
        let reference = DefinitionRef { version, ..record.saga.definition.clone() };
        let definition = app.coordinator.definition(&reference).await?;
        let expanded = definition.expanded(&record.saga.input);
        versions.push(expanded.map_err(|error| Problem::internal(error.to_string()))?);
    }
    versions.push(definition);
    let items = history::tell(&versions, &record, &events, &audit);
    Ok(Answer(HistoryView { items: items.into_iter().map(|item| item.without(&secrets)).collect() }))
}

/// Whether what is sensitive is shown; that it is was written down before. Who asks for it may see it: see
/// [`super::guard`].
pub(super) async fn reveals(
    app: &App,
    caller: Caller,
    query: &Query,
    id: Option<SagaId>,
    what: &str,
) -> Result<bool, Problem> {
    if !query.flag("reveal")? {
        return Ok(false);
    }
    let given = query.get("reason").map(str::trim).filter(|reason| !reason.is_empty());
    let reason: String = given.unwrap_or("no reason was given").chars().take(operate::MAX_REASON).collect();
    app.coordinator.revealed(id, caller.name, reason, what).await?;
    Ok(true)
}

/// The definition is drawn as it is written: a `forEach` step is one box, whatever its list holds.
pub(super) async fn graph(State(app): State<App>, Id(id): Id) -> Result<impl IntoResponse, Problem> {
    let (definition, record) = load(&app, id).await?;
    let look = graph::look(&saga_view(&definition, &record));
    let whole = app.coordinator.definition(&record.saga.definition).await?;
    let headers = [(CONTENT_TYPE, "image/svg+xml"), graph::POLICY];
    Ok((etag(&record.saga), headers, Picture::of(&whole).with_states(look).svg()))
}

/// A saga with its commands and its definition.
pub(super) async fn load(app: &App, id: SagaId) -> Result<(Arc<Definition>, SagaRecord), Problem> {
    let Some(record) = app.coordinator.store().saga(id).await? else {
        return Err(match archived(app, id).await? {
            Some(known) => Problem::archived(id, known.archived_at),
            None => Problem::unknown_saga(id),
        });
    };
    let definition = app.coordinator.definition(&record.saga.definition).await?;
    Ok((expanded(&record.saga, &definition)?, record))
}

/// What is remembered of a saga that was moved to an archive.
pub(super) async fn archived(app: &App, id: SagaId) -> Result<Option<ArchivedKey>, Problem> {
    match app.coordinator.store().archive() {
        Some(archive) => Ok(archive.archived(id).await?),
        None => Ok(None),
    }
}

/// The definition with a step for each of the saga's.
pub(super) fn expanded(saga: &Saga, definition: &Arc<Definition>) -> Result<Arc<Definition>, Problem> {
    saga.expand(definition).ok_or_else(|| Problem::internal(format!("saga {} does not fit its definition", saga.id)))
}

/// The saga's revision, for `If-Match`.
pub(super) fn etag(saga: &Saga) -> [(HeaderName, HeaderValue); 1] {
    [(ETAG, etag_value(saga))]
}

pub(super) fn etag_value(saga: &Saga) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", saga.revision)).unwrap_or(HeaderValue::from_static("\"\""))
}

/// What keeps a reply from coming, as far as the broker tells. A broker that does not answer is no reason not to.
pub(crate) async fn queue_hints(coordinator: &Coordinator, definition: &Definition, saga: &Saga) -> Vec<String> {
    let mut hints = Vec::new();
    for participant in awaited(definition, saga) {
        if coordinator.standing(participant).open_since.is_some() {
            hints.push(format!("; `{participant}` only fails, so that its circuit is open and only probes are sent"));
        }
        let queue = format!("{participant}.commands");
        match tokio::time::timeout(QUEUE_LOOK, coordinator.broker().queue(&queue)).await {
            Ok(Ok(Some(status))) if status.consumers == 0 => hints.push(format!("; queue `{queue}` has no consumer")),
            Ok(Ok(None)) => hints.push(format!("; queue `{queue}` is not there")),
            _ => {}
        }
    }
    hints
}
