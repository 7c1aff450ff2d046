//! `/healthz`, `/readyz` and `/metrics`: for machines that watch.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;

use crate::api::App;
use crate::api::problem::Problem;
use crate::client::views::{HealthView, NamespaceHealth};
use crate::coordinator::Coordinator;
use crate::id::Namespace;

/// How long store and broker may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn alive() -> Answer<HealthView> {
    healthy("alive")
}

pub(super) async fn ready(State(app): State<App>) -> Result<Answer<HealthView>, Problem> {
    is_ready(&app.coordinator).await.map(|()| healthy("ready")).map_err(Problem::not_ready)
}

async fn is_ready(coordinator: &Coordinator) -> Result<(), String> {
    let seconds = READY_TIMEOUT.as_secs();
    let late = |_| Err(format!("store and broker do not answer within {seconds} s"));
    tokio::time::timeout(READY_TIMEOUT, coordinator.ready()).await.unwrap_or_else(late)
}

/// Whether a server with several namespaces is ready, given each one's coordinator, or why there is none yet. It is as
/// long as one of them is: what one tenant's database does must not take the server from the others. Which are not is told
/// to those who may know which there are.
pub(crate) async fn health(namespaces: Vec<(Namespace, Result<Coordinator, String>)>, may_know: bool) -> Response {
    let count = namespaces.len();
    let asked = namespaces.into_iter().map(|(namespace, coordinator)| async move {
        let outcome = match coordinator {
            Ok(coordinator) => is_ready(&coordinator).await,
            Err(reason) => Err(reason),
        };
        outcome.err().map(|reason| NamespaceHealth { namespace: namespace.to_string(), reason })
    });
    let mut not_ready: Vec<NamespaceHealth> = join_all(asked).await.into_iter().flatten().collect();
    let (is_all, is_none) = (not_ready.is_empty(), not_ready.len() == count);
    if !may_know {
        not_ready.clear();
    }
    if is_none {
        let told: Vec<_> = not_ready.iter().map(|told| format!("{}: {}", told.namespace, told.reason)).collect();
        let reason = if told.is_empty() { "none of its namespaces is ready".to_owned() } else { told.join("; ") };
        return Problem::not_ready(reason).into_response();
    }
    let Answer(view) = healthy(if is_all { "ready" } else { "degraded" });
    Answer(HealthView { not_ready, ..view }).into_response()
}

pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    app.coordinator.look_at_vitals().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.coordinator.metrics().render())
}

fn healthy(status: &str) -> Answer<HealthView> {
    Answer(HealthView {
        status: status.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        not_ready: Vec::new(),
    })
}
