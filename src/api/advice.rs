//! `GET /v1/definitions/{name}/advice`: what the recorded outcomes say.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};

use crate::api::App;
use crate::api::problem::{PATH_INVALID, Problem, VERSION_INVALID};
use crate::api::query::Query;
use crate::client::views::{AdviceView, MoveView, RetriesView, TimeoutView};
use crate::id::DefinitionRef;
use crate::saga::advice::{CRITERION, Fit, Move, Retries, Timeout};
use crate::saga::advise;
use crate::saga::figures::{Latency, QUANTILES};

pub(super) async fn show(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    Extension(query): Extension<Query>,
) -> Result<Answer<AdviceView>, Problem> {
    let Path(name) = path.map_err(|error| Problem::new(PATH_INVALID, error.body_text()))?;
    let since = query.since(app.clock.now())?;
    let version = match query.get("version").map(str::parse) {
        None => None,
        Some(Ok(version)) if version > 0 => Some(version),
        Some(_) => return Err(Problem::new(VERSION_INVALID, "`version` is a whole number from 1")),
    };
    let definition = app.coordinator.version(&name, version).await?;
    let DefinitionRef { name: saga, version } = definition.reference.clone();
    let figures = app.coordinator.store().figures(&definition.reference, since).await?;
    let advice = advise(&definition, &figures);
    Ok(Answer(AdviceView {
        saga,
        version,
        since,
        sagas: figures.sagas(),
        moves: advice.moves.into_iter().map(moved).collect(),
        order: advice.order,
        timeouts: advice.timeouts.into_iter().map(timeout).collect(),
        retries: advice.retries.into_iter().map(retries).collect(),
        silent: advice.silent,
        criterion: CRITERION.to_owned(),
    }))
}

fn moved(found: Move) -> MoveView {
    let text = found.to_string();
    let Move { step, before, sagas, saved, added, .. } = found;
    MoveView { step, before, sagas, saved, added, text }
}

fn timeout(found: Timeout) -> TimeoutView {
    let text = found.to_string();
    let Timeout { step, direction, fit, timeout, suggested, measured } = found;
    TimeoutView {
        step,
        direction: direction.to_string(),
        fit: if fit == Fit::Tight { "tight" } else { "loose" }.to_owned(),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        suggested_ms: u64::try_from(suggested.as_millis()).unwrap_or(u64::MAX),
        measured: measured.count,
        p50_ms: quantile(&measured, 500),
        p95_ms: quantile(&measured, 950),
        p99_ms: quantile(&measured, 990),
        longest_ms: millis(measured.longest),
        text,
    }
}

fn quantile(measured: &Latency, wanted: u32) -> f64 {
    let at = QUANTILES.iter().position(|known| *known == wanted);
    at.and_then(|at| measured.quantiles.get(at)).copied().map_or(0.0, millis)
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

fn retries(found: Retries) -> RetriesView {
    let text = found.to_string();
    let Retries { step, direction, last_useful, commands, at_most } = found;
    RetriesView { step, direction: direction.to_string(), last_useful, commands, at_most, text }
}
