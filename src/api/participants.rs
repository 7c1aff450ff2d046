//! `GET /v1/participants`, and pauses of participants and their actions.

use std::collections::HashMap;

use axum::Json as Answer;
use axum::extract::{Extension, MatchedPath, Path, State};

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::operate::reason;
use crate::api::problem::{FIELD_INVALID, Problem};
use crate::api::query::Query;
use crate::client::views::{FieldProblem, ParticipantList, ParticipantView, PauseResult, PauseView};
use crate::clock::Timestamp;
use crate::coordinator::CoordinatorError;
use crate::coordinator::participants::ParticipantStatus;
use crate::store::pauses::{ParticipantPause, PauseChange};

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
        pauses: standing.pauses.into_iter().map(pause_view).collect(),
        failure_rate: (standing.failure_rate * 1_000.0).round() / 1_000.0,
    }
}

fn pause_view(pause: ParticipantPause) -> PauseView {
    let ParticipantPause { participant: _, action, since, by, reason } = pause;
    PauseView { action, since, by, reason }
}

/// `POST /v1/participants/{name}/pause` and `/resume`.
pub(super) async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    matched: MatchedPath,
    Path(path): Path<HashMap<String, String>>,
    Json(body): Json,
) -> Result<Answer<PauseResult>, Problem> {
    let is_paused = matched.as_str().ends_with("/pause");
    let known: &[&str] = if is_paused { &["reason", "action"] } else { &["reason", "action", "since"] };
    let mut fields = Fields::new(body, "", known)?;
    let (given, action, since) = (fields.text("reason"), fields.text("action"), fields.text("since"));
    fields.finish()?;
    let seen: Option<Timestamp> = since.map(|since| since.parse()).transpose().map_err(|_| {
        let detail = "`since` is the time that the pause has in GET /v1/participants";
        Problem::new(FIELD_INVALID, detail).errors(vec![FieldProblem::at("/since", detail)])
    })?;
    let participant = path.get("name").cloned().unwrap_or_default();
    let found = app.coordinator.look_at_pause(&participant, action.as_deref()).await?;
    let answer = |pause: Option<ParticipantPause>| PauseResult {
        participant: participant.clone(),
        action: action.clone(),
        paused: is_paused,
        pause: pause.map(pause_view),
        unanswered: found.unanswered,
    };
    if query.flag("dryRun")? {
        if found.now.is_some() == is_paused {
            let why = if is_paused { "it is paused already" } else { "it is not paused" };
            return Err(CoordinatorError::PauseConflict { why: why.to_owned() }.into());
        }
        return Ok(Answer(answer(found.now.clone())));
    }
    let (reason, actor) = (reason(given)?, caller.name);
    let change =
        PauseChange { participant: participant.clone(), action: action.clone(), is_paused, seen, actor, reason };
    let at = app.coordinator.change_pause(change.clone()).await?;
    let PauseChange { participant, action, actor: by, reason, .. } = change;
    let pause = is_paused.then_some(ParticipantPause { participant, action, since: at, by, reason });
    Ok(Answer(answer(pause)))
}
