//! What went wrong, as a page.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::console::query::encode;
use crate::coordinator::CoordinatorError;
use crate::store::StoreError;

/// A page that cannot be shown or an action that was not done. Written as a page by the guard, which knows who looks.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    /// One line.
    pub(super) title: String,
    /// What it means and what to do about it.
    pub(super) detail: String,
    /// The way back, from the console's root.
    pub(super) back: Option<(String, String)>,
}

/// A failure before anybody knows who looks.
pub(super) struct Bare(pub(super) Failure);

impl Failure {
    pub(super) fn new(status: StatusCode, title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { status, title: title.into(), detail: detail.into(), back: None }
    }

    pub(super) fn missing(title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, title, detail)
    }

    pub(super) fn forbidden(title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, title, detail)
    }

    pub(super) fn conflict(title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, title, detail)
    }

    pub(super) fn wrong(title: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, title, detail)
    }

    /// The cause goes into the log; the page does not tell it.
    pub(super) fn internal(cause: impl Into<String>) -> Self {
        let cause = cause.into();
        tracing::warn!(cause, "a page of the console failed");
        let detail = "This is a fault of the server; its log says more.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "This page cannot be shown", detail)
    }

    /// With a way back.
    pub(super) fn back(self, page: impl Into<String>, words: impl Into<String>) -> Self {
        Self { back: Some((page.into(), words.into())), ..self }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for Bare {
    fn into_response(self) -> Response {
        (self.0.status, format!("{}. {}\n", self.0.title, self.0.detail)).into_response()
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a page of the console waits for the store");
            let detail = "Nothing is lost. Load the page again in a moment.";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "The store does not answer", detail);
        }
        match error {
            StoreError::FieldEncrypted => Self::wrong("Fields cannot be searched", format!("{error}.")),
            StoreError::KeyMissing { .. } => {
                let (status, title) = (StatusCode::INTERNAL_SERVER_ERROR, "This cannot be decrypted");
                tracing::error!(code = error.code(), %error, "a page of the console cannot be shown");
                Self::new(status, title, format!("{error}."))
            }
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<CoordinatorError> for Failure {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::UnknownSaga(id) => {
                Self::missing("There is no such saga", format!("No saga has the id {id}.")).back("sagas", "All sagas")
            }
            CoordinatorError::Moved { id, expected, found } => Self::conflict(
                "This saga has changed since you looked",
                format!("You looked at revision {expected}; it is at {found} now. Nothing was done: look again, then decide."),
            )
            .back(format!("sagas/{id}"), "Look again"),
            CoordinatorError::NotAllowed { id, action, state, why } => Self::conflict(
                format!("Nothing was done: {action} is not possible"),
                format!("The saga is {state}: {why}."),
            )
            .back(format!("sagas/{id}"), "Back to the saga"),
            CoordinatorError::MigrationRefused { id, ref reasons, .. } => {
                let why: Vec<&str> = reasons.iter().map(|reason| reason.why.as_str()).collect();
                Self::conflict("Nothing was done: the saga does not fit that version", format!("{}.", why.join("; ")))
                    .back(format!("sagas/{id}"), "Back to the saga")
            }
            CoordinatorError::VersionDeprecated { .. } => {
                Self::conflict("Nothing was done: that version takes in no sagas", error.to_string())
            }
            CoordinatorError::UnknownStep { message, .. } => Self::wrong("Nothing was done", message),
            CoordinatorError::UnknownDefinition { .. } | CoordinatorError::UnknownVersion { .. } => {
                Self::missing("There is no such definition", error.to_string()).back("definitions", "All definitions")
            }
            CoordinatorError::UnknownDeadLetters { .. } => {
                Self::missing("There is no such queue", format!("{error}.")).back("dead", "Dead letters")
            }
            CoordinatorError::DeadLetterGone { ref queue, .. } | CoordinatorError::NotReplayable { ref queue, .. } => {
                let back = format!("dead/{}", encode(queue));
                Self::conflict("Nothing was done", format!("{error}.")).back(back, "Look again")
            }
            CoordinatorError::Broker(why) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "The broker does not do it", format!("{why}. Nothing is lost."))
            }
            CoordinatorError::FieldSensitive { .. } => Self::wrong("This field cannot be searched", format!("{error}.")),
            CoordinatorError::EditForbidden => {
                Self::forbidden("Inputs are not edited on this server", format!("{error}."))
            }
            CoordinatorError::PauseConflict { why } => {
                Self::conflict("Nothing was changed: it is so already", format!("{why}.")).back("", "Home")
            }
            CoordinatorError::Busy { .. } | CoordinatorError::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "The coordinator is busy", format!("{error}. Nothing was done."))
            }
            CoordinatorError::Store(error) => error.into(),
            other => Self::internal(other.to_string()),
        }
    }
}

/// What no route is for.
pub(super) async fn unknown() -> Failure {
    Failure::missing("There is no such page", "The address may have been cut off.").back("", "Home")
}

/// What panicked is in the log already.
pub(super) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Failure::internal("a handler panicked").into_response()
}
