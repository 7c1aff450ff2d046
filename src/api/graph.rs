//! Drawings: what they say of a running saga, and what a browser may do with them.

use axum::http::HeaderName;
use axum::http::header::CONTENT_SECURITY_POLICY;

use crate::client::views::{SagaView, StepView};
use crate::picture::{SagaLook, State, StepLook};

/// A drawing has a style sheet of its own and nothing else.
pub(super) const POLICY: (HeaderName, &str) =
    (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");

/// What a picture shows of a saga.
pub fn look(saga: &SagaView) -> SagaLook {
    let note = match (&saga.stuck, &saga.waiting_for) {
        (Some(stuck), _) => Some(format!("{} is stuck: {}", stuck.step, stuck.error.kind)),
        (None, Some(waiting_for)) if waiting_for.starts_with("attempt ") => Some(waiting_for.clone()),
        (None, Some(waiting_for)) => Some(format!("waits for {waiting_for}")),
        (None, None) => saga.cause.as_ref().map(|cause| format!("because of {}", cause.kind)),
    };
    let paused = if saga.paused { " (paused)" } else { "" };
    SagaLook {
        label: format!("{}{paused}", saga.key.as_deref().unwrap_or(&saga.id)),
        state: saga.state.clone(),
        // It is drawn: there is no code in a drawing.
        note: note.map(|note| note.replace('`', "")),
        steps: saga.steps.iter().map(step).collect(),
    }
}

fn step(step: &StepView) -> StepLook {
    let compensation = step.compensation.as_ref();
    let trouble = compensation.and_then(|compensation| compensation.error.as_ref()).or(step.error.as_ref());
    StepLook {
        name: step.name.clone(),
        state: State::of_word(&step.status),
        attempts: match compensation {
            Some(compensation) => compensation.attempts,
            None => step.attempts,
        },
        // What went wrong on the way to a good end is history.
        note: trouble.filter(|_| step.status != "verified").map(|error| error.kind.clone()),
    }
}
