//! `/v1/definitions` and what lies below.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::auth::Caller;
use crate::api::body::DefinitionText;
use crate::api::problem::{PATH_INVALID, Problem, VERSION_INVALID, found};
use crate::api::query::Query;
use crate::api::{App, graph};
use crate::client::views::{
    CompensationView, DefinitionList, DefinitionSummary, DefinitionVersions, DefinitionView, DeprecationView,
    RetryView, StepOfDefinition,
};
use crate::coordinator::CoordinatorError;
use crate::definition::{Definition, RetryPolicy};
use crate::id::{DefinitionRef, StepIndex};
use crate::picture::Picture;
use crate::store::{DefinitionRecord, Deprecation};

pub(super) async fn register(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    DefinitionText(source): DefinitionText,
) -> Result<Response, Problem> {
    if query.flag("denyWarnings")? {
        let checked = app.coordinator.check(&source).await?;
        if !checked.diagnostics.is_empty() {
            return Err(CoordinatorError::InvalidDefinition(checked.diagnostics).into());
        }
    }
    let registered = app.coordinator.register(&source, &caller.name).await?;
    let DefinitionRef { name, version } = &registered.definition.reference;
    let location = HeaderValue::from_str(&format!("/v1/definitions/{name}/{version}"));
    let location = location.map_err(|error| Problem::internal(error.to_string()))?;
    let mut view = view(&registered.definition, record(&app, &registered.definition.reference).await?);
    view.warnings = registered.warnings.into_iter().map(found).collect();
    let body = Answer(view);
    Ok(match registered.is_new {
        true => (StatusCode::CREATED, [(LOCATION, location)], body).into_response(),
        false => body.into_response(),
    })
}

pub(super) async fn list(State(app): State<App>) -> Result<Answer<DefinitionList>, Problem> {
    let records = app.coordinator.store().definitions(None).await?;
    Ok(Answer(DefinitionList { items: summaries(&app, records).await? }))
}

pub(super) async fn versions(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Answer<DefinitionVersions>, Problem> {
    let Path(name) = path.map_err(|error| Problem::new(PATH_INVALID, error.body_text()))?;
    let items = summaries(&app, app.coordinator.store().definitions(Some(&name)).await?).await?;
    let open = items.iter().filter(|item| item.deprecated.is_none()).map(|item| item.version).max();
    let Some(newest) = open.or(items.iter().map(|item| item.version).max()) else {
        let mut known: Vec<String> =
            app.coordinator.store().definitions(None).await?.into_iter().map(|record| record.reference.name).collect();
        known.dedup();
        return Err(CoordinatorError::UnknownDefinition { name, known }.into());
    };
    Ok(Answer(DefinitionVersions { name, newest, items }))
}

pub(super) type NameAndVersion = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn version(State(app): State<App>, path: NameAndVersion) -> Result<Answer<DefinitionView>, Problem> {
    Ok(Answer(whole(&app, &reference(path)?).await?))
}

/// A version with its source.
pub(super) async fn whole(app: &App, reference: &DefinitionRef) -> Result<DefinitionView, Problem> {
    let definition = app.coordinator.definition(reference).await?;
    Ok(view(&definition, record(app, reference).await?))
}

pub(super) async fn graph(State(app): State<App>, path: NameAndVersion) -> Result<impl IntoResponse, Problem> {
    let definition = app.coordinator.definition(&reference(path)?).await?;
    // A version never changes, so what was drawn once may be kept.
    let headers = [(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "private, max-age=86400"), graph::POLICY];
    Ok((headers, Picture::of(&definition).svg()))
}

pub(super) fn reference(path: NameAndVersion) -> Result<DefinitionRef, Problem> {
    let Path((name, given)) = path.map_err(|error| Problem::new(PATH_INVALID, error.body_text()))?;
    match given.parse() {
        Ok(version) if version > 0 => Ok(DefinitionRef { name, version }),
        _ => {
            let told: String = given.chars().take(30).collect();
            Err(Problem::new(VERSION_INVALID, format!("`{told}` is no version; versions are whole numbers from 1")))
        }
    }
}

async fn record(app: &App, reference: &DefinitionRef) -> Result<DefinitionRecord, Problem> {
    let record = app.coordinator.store().definition(reference).await?;
    record.ok_or_else(|| Problem::internal(format!("{reference} is known but not stored")))
}

async fn summaries(app: &App, records: Vec<DefinitionRecord>) -> Result<Vec<DefinitionSummary>, Problem> {
    let mut items = Vec::with_capacity(records.len());
    for record in records {
        let definition = app.coordinator.definition(&record.reference).await?;
        items.push(DefinitionSummary {
            name: record.reference.name,
            version: record.reference.version,
            owner: definition.owner.clone(),
            hash: hex::encode(record.hash),
            registered_at: record.registered_at,
            registered_by: record.registered_by,
            deprecated: record.deprecated.map(deprecation),
        });
    }
    Ok(items)
}

fn view(definition: &Definition, record: DefinitionRecord) -> DefinitionView {
    DefinitionView {
        name: record.reference.name,
        version: record.reference.version,
        owner: definition.owner.clone(),
        runbook: definition.runbook.clone(),
        hash: hex::encode(record.hash),
        timeout_ms: definition.timeout.map(millis),
        steps: definition.indices().map(|index| step(definition, index)).collect(),
        source: record.source,
        registered_at: record.registered_at,
        registered_by: record.registered_by,
        warnings: Vec::new(),
        deprecated: record.deprecated.map(deprecation),
    }
}

fn deprecation(deprecation: Deprecation) -> DeprecationView {
    let Deprecation { at, actor, reason } = deprecation;
    DeprecationView { at, by: actor, reason }
}

fn step(definition: &Definition, index: StepIndex) -> StepOfDefinition {
    let step = definition.step(index);
    let after = definition.graph.dependencies(index);
    StepOfDefinition {
        name: step.name.clone(),
        participant: step.participant.clone(),
        action: step.action.clone(),
        after: after.iter().map(|&before| definition.step(before).name.clone()).collect(),
        pivot: step.pivot,
        conditional: step.when.is_some(),
        timeout_ms: millis(step.timeout),
        retry: retry(&step.retry),
        compensation: step.compensation.action().map(|compensation| CompensationView {
            action: compensation.action.clone(),
            timeout_ms: millis(compensation.timeout),
            retry: retry(&compensation.retry),
        }),
    }
}

fn retry(policy: &RetryPolicy) -> RetryView {
    RetryView {
        max_attempts: policy.max_attempts,
        initial_interval_ms: millis(policy.initial_interval),
        backoff_coefficient: policy.backoff_coefficient,
        max_interval_ms: millis(policy.max_interval),
        non_retryable: policy.non_retryable.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
