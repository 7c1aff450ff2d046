//! `GET /v1/participants`.

use axum::Json as Answer;
use axum::extract::State;

use crate::api::App;
use crate::api::problem::Problem;
use crate::client::views::{ParticipantList, ParticipantView};
use crate::coordinator::participants::ParticipantStatus;

pub(super) async fn list(State(app): State<App>) -> Result<Answer<ParticipantList>, Problem> {
    let items = app.coordinator.participants().await?.into_iter().map(view).collect();
    Ok(Answer(ParticipantList { items }))
}

fn view(participant: ParticipantStatus) -> ParticipantView {
    let ParticipantStatus { name, queue, status, oldest_unanswered, standing } = participant;
    ParticipantView {
        name,
        queue,
        consumers: status.map(|status| status.consumers),
        backlog: status.map(|status| status.messages),
        window: standing.window,
        is_full: standing.is_full,
        held: standing.held,
        holds_more: standing.holds_more,
        oldest_unanswered,
        circuit: if standing.open_since.is_some() { "open" } else { "closed" }.to_owned(),
        open_since: standing.open_since,
        failure_rate: (standing.failure_rate * 1_000.0).round() / 1_000.0,
    }
}
