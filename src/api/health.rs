//! `/healthz`, `/readyz` and `/metrics`: for machines that watch.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::api::App;
use crate::api::problem::Problem;
use crate::client::views::HealthView;

/// How long store and broker may take to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn alive() -> Answer<HealthView> {
    healthy("alive")
}

pub(super) async fn ready(State(app): State<App>) -> Result<Answer<HealthView>, Problem> {
    match tokio::time::timeout(READY_TIMEOUT, app.coordinator.ready()).await {
        Ok(Ok(())) => Ok(healthy("ready")),
        Ok(Err(reason)) => Err(Problem::not_ready(reason)),
        Err(_) => {
            let seconds = READY_TIMEOUT.as_secs();
            Err(Problem::not_ready(format!("store and broker do not answer within {seconds} s")))
        }
    }
}

pub(super) async fn metrics(State(app): State<App>) -> impl IntoResponse {
    app.coordinator.look_at_vitals().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.coordinator.metrics().render())
}

fn healthy(status: &str) -> Answer<HealthView> {
    Answer(HealthView { status: status.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}
