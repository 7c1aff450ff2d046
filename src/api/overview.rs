//! `GET /v1/overview`: everything at a glance.

use axum::Json as Answer;
use axum::extract::State;

use crate::api::App;
use crate::api::problem::Problem;
use crate::client::views::{ActivityView, OverviewView, ParticipantActivityView, StateCountView, StuckGroupView};
use crate::coordinator::CoordinatorError;
use crate::coordinator::overview::{Cause, MOST, overview};
use crate::store::overview::{Service, StateCount};

pub(super) async fn show(State(app): State<App>) -> Result<Answer<OverviewView>, Problem> {
    let at = app.clock.now();
    let found = overview(&app.coordinator, at).await.map_err(CoordinatorError::from)?;
    let activity = found.activity;
    Ok(Answer(OverviewView {
        at,
        states: found.states.into_iter().map(state).collect(),
        stuck: found.causes.into_iter().map(group).collect(),
        activity: ActivityView {
            started: activity.started,
            ended: activity.ended,
            p50_ms: activity.middle,
            p95_ms: activity.slow,
        },
        participants: found.services.into_iter().map(participant).collect(),
    }))
}

fn state(StateCount { state, count }: StateCount) -> StateCountView {
    let most = u64::from(MOST);
    StateCountView { state, count: count.min(most), more: count > most }
}

fn group(cause: Cause) -> StuckGroupView {
    let Cause { group, step, participant, action } = cause;
    StuckGroupView {
        saga: group.definition.name,
        version: group.definition.version,
        step,
        participant,
        action,
        direction: group.direction.to_string(),
        error: group.error,
        count: group.count,
        since: group.since,
    }
}

fn participant(service: Service) -> ParticipantActivityView {
    let Service { participant, waiting, oldest, settled, failed } = service;
    ParticipantActivityView { participant, unanswered: waiting, oldest, settled, failed }
}
