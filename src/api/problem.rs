//! Everything that can go wrong with a request, as RFC 9457 problems. The one place where errors become statuses.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::client::views::{FieldProblem, ProblemDocument};
use crate::coordinator::CoordinatorError;
use crate::definition::Diagnostic;
use crate::id::SagaId;
use crate::store::StoreError;

/// What every problem of one code has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
}

macro_rules! kinds {
    ($($code:ident = $status:literal $title:literal;)*) => {
        $(pub(super) const $code: Kind = Kind { status: $status, code: stringify!($code), title: $title };)*
        /// Every kind of problem that this interface knows.
        #[cfg(test)]
        pub(super) const ALL_KINDS: &[Kind] = &[$($code),*];
    };
}

kinds! {
    ACTION_NOT_ALLOWED = 409 "the saga's state does not allow this";
    ACTION_UNKNOWN = 422 "the participant has no such action";
    BATCH_INVALID = 422 "the batch is empty or too long";
    BODY_DUPLICATE_KEY = 400 "an object of the body has a key twice";
    BODY_HAS_NUL = 400 "the request contains a NUL character";
    BODY_INCOMPLETE = 400 "the body did not arrive whole";
    BODY_MALFORMED = 400 "the body is not JSON";
    BODY_NOT_UTF8 = 400 "the body is not UTF-8";
    BODY_TOO_DEEP = 400 "the body is nested too deeply";
    BODY_TOO_LARGE = 413 "the body is too large";
    BROKER_UNAVAILABLE = 503 "the broker does not do it at the moment";
    BULK_COUNT_DIFFERS = 409 "the number of sagas is another than expected";
    BULK_ID_INVALID = 400 "the id is no bulk job's id";
    BULK_NOTHING = 422 "no saga is meant";
    BULK_STATE = 409 "the bulk job's state does not allow this";
    BULK_UNCONFIRMED = 409 "so many sagas need to be confirmed";
    BULK_UNKNOWN = 404 "there is no such bulk job";
    BULK_UNSUPPORTED = 501 "the store keeps no bulk jobs";
    BUSY = 429 "too much is waiting";
    CONTENT_TYPE_UNSUPPORTED = 415 "this route does not read this kind of body";
    CURSOR_INVALID = 400 "the cursor is not one that this list gave";
    DEAD_LETTERS_UNKNOWN = 404 "there is no such queue of dead letters";
    DEAD_LETTER_GONE = 409 "the message is not there any more";
    DEAD_LETTER_NOT_REPLAYABLE = 422 "nobody knows where the message came from";
    DEFINITION_INVALID = 422 "the definition has errors";
    DEFINITION_UNKNOWN = 404 "there is no such definition";
    DELIVERY_UNKNOWN = 404 "there is no such message to a webhook";
    DURATION_INVALID = 422 "the duration is negative or too long";
    EDIT_FORBIDDEN = 403 "inputs of commands are not edited on this server";
    ENCRYPTION_KEY_MISSING = 500 "a key that payloads were encrypted with is missing";
    FIELD_ENCRYPTED = 422 "payloads are encrypted and cannot be searched";
    FIELD_INVALID = 400 "a field of the body is not what it should be";
    FIELD_MISSING = 400 "a field of the body is missing";
    FIELD_SENSITIVE = 422 "the field is marked as sensitive";
    FIELD_UNKNOWN = 400 "a field of the body is not known";
    FILTER_INVALID = 422 "the filter makes no sense";
    FORBIDDEN = 403 "the token's role does not allow this";
    HOST_NOT_ALLOWED = 403 "the Host header names another machine";
    IF_MATCH_INVALID = 400 "the If-Match header is no revision";
    INPUT_INVALID = 422 "the input does not satisfy the definition's schema";
    INTERNAL = 500 "something went wrong here";
    ISSUER_UNAVAILABLE = 503 "the keys of the token's issuer cannot be had at the moment";
    KEY_CONFLICT = 409 "the key belongs to a saga with another input";
    KEY_INVALID = 422 "the key is not usable";
    LIMIT_INVALID = 400 "the limit is out of range";
    METHOD_NOT_ALLOWED = 405 "this route does not know this method";
    MIGRATION_REFUSED = 409 "the saga cannot be moved to this version";
    NAMESPACE_UNKNOWN = 404 "there is no such namespace";
    NOT_READY = 503 "the coordinator cannot do its work at the moment";
    NUMBER_INVALID = 422 "a number cannot be kept exactly";
    ORIGIN_NOT_ALLOWED = 403 "the request comes from another site";
    PARTICIPANT_UNKNOWN = 404 "there is no such participant";
    PATH_INVALID = 400 "the path cannot be read";
    PAUSE_CONFLICT = 409 "it is paused already, or not";
    QUERY_INVALID = 400 "a query parameter is not what it should be";
    QUERY_UNKNOWN = 400 "a query parameter is not known";
    REASON_REQUIRED = 422 "an operator's action needs a reason";
    REQUEST_TIMEOUT = 503 "the request took too long";
    ROUTE_UNKNOWN = 404 "there is no such route";
    SAGA_ARCHIVED = 410 "the saga was moved to an archive";
    SAGA_ID_INVALID = 400 "the id is no saga's id";
    SAGA_MOVED = 412 "the saga has changed since you looked";
    SAGA_UNKNOWN = 404 "there is no such saga";
    SIGNAL_UNKNOWN = 422 "no step of the saga waits for this signal";
    STEP_UNKNOWN = 422 "the saga has no such step";
    STOPPING = 503 "the coordinator is stopping";
    STORE_REFUSED = 500 "the store could not do it";
    STORE_UNAVAILABLE = 503 "the store does not answer at the moment";
    UNAUTHENTICATED = 401 "a valid token is needed";
    VERSION_DEPRECATED = 409 "nothing new is started with this version";
    VERSION_IMMUTABLE = 409 "versions are immutable";
    VERSION_INVALID = 400 "the version is no number from 1";
    VERSION_UNKNOWN = 404 "the definition has no such version";
}

/// A request that did not work. Becomes a response without a body that carries this value along; the outermost layer,
/// which knows the request's id, writes the document.
#[derive(Clone, Debug)]
pub struct Problem {
    document: Box<ProblemDocument>,
    retry_after: Option<Duration>,
    cause: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let document = ProblemDocument {
            kind: format!("urn:amends:problem:{}", kind.code),
            title: kind.title.to_owned(),
            status: kind.status,
            detail: detail.into(),
            code: kind.code.to_owned(),
            ..ProblemDocument::default()
        };
        Self { document: Box::new(document), retry_after: None, cause: None }
    }

    pub(super) fn errors(mut self, errors: Vec<FieldProblem>) -> Self {
        self.document.errors = errors;
        self
    }

    pub(super) fn known(mut self, known: Vec<String>) -> Self {
        self.document.known = known;
        self
    }

    /// Adds what was probably meant, if anything of `known` comes near.
    pub(super) fn suggest<'a>(mut self, given: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        self.document.suggestion = nearest(given, known);
        self
    }

    /// Adds how many sagas there are.
    pub(super) fn counting(mut self, count: u64) -> Self {
        self.document.count = Some(count);
        self
    }

    /// Adds the state that forbids it.
    pub(super) fn in_state(mut self, state: &str) -> Self {
        self.document.state = Some(state.to_owned());
        self
    }

    /// What is wrong this time.
    pub(crate) fn detail(&self) -> &str {
        &self.document.detail
    }

    fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// What the log is told and the caller is not.
    fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub(super) fn internal(cause: impl Into<String>) -> Self {
        Self::new(INTERNAL, "the server's log has the cause under this request's id").because(cause)
    }

    pub(super) fn unknown_saga(id: SagaId) -> Self {
        Self::new(SAGA_UNKNOWN, format!("there is no saga {id}"))
    }

    pub(super) fn archived(id: SagaId, at: crate::clock::Timestamp) -> Self {
        let at = at.format("%Y-%m-%dT%H:%M:%SZ");
        Self::new(SAGA_ARCHIVED, format!("saga {id} has ended and was archived at {at}: `amends archive show {id}`"))
    }

    pub(super) fn timed_out() -> Self {
        let detail = "whether it took effect is not known: look again, or repeat it; a start with a key gives the same \
                      saga again";
        Self::new(REQUEST_TIMEOUT, detail).retry_after(Duration::from_secs(1))
    }

    pub(super) fn not_ready(reason: String) -> Self {
        let errors = vec![FieldProblem::at("", reason.clone())];
        Self::new(NOT_READY, reason).errors(errors).retry_after(Duration::from_secs(1))
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn code(&self) -> &str {
        &self.document.code
    }

    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// Whole seconds, rounded up, for `Retry-After`.
    pub(super) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0))
    }

    /// The document, for the request of this id; empty inside a batch's answer, which has one id for all.
    pub(super) fn into_document(self, request_id: &str) -> ProblemDocument {
        ProblemDocument { request_id: request_id.to_owned(), ..*self.document }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<CoordinatorError> for Problem {
    fn from(error: CoordinatorError) -> Self {
        use CoordinatorError as E;
        let told = error.to_string();
        match error {
            E::UnknownDefinition { name, known } => {
                let help = if known.is_empty() { "none is registered yet" } else { "`known` lists those there are" };
                let detail = format!("{told}; {help}");
                Self::new(DEFINITION_UNKNOWN, detail).suggest(&name, known.iter().map(String::as_str)).known(known)
            }
            E::UnknownVersion { known, .. } => {
                let detail = format!("{told}; `known` lists those there are");
                Self::new(VERSION_UNKNOWN, detail).known(known.iter().map(u32::to_string).collect())
            }
            E::InvalidInput { errors, .. } => {
                let at = |(pointer, message): (String, String)| FieldProblem::at(format!("/input{pointer}"), message);
                Self::new(INPUT_INVALID, told).errors(errors.into_iter().map(at).collect())
            }
            E::InvalidKey(_) => Self::new(KEY_INVALID, format!("{told}; mend the input, or give `key`")),
            E::KeyConflict { existing, .. } => {
                let mut problem = Self::new(KEY_CONFLICT, told);
                problem.document.existing = Some(existing.to_string());
                problem
            }
            E::VersionImmutable { .. } => {
                Self::new(VERSION_IMMUTABLE, format!("{told}; raise `version` to register this content"))
            }
            E::VersionDeprecated { .. } => {
                let detail = format!("{told}; name another version, or leave it out where a newer one is registered");
                Self::new(VERSION_DEPRECATED, detail)
            }
            E::MigrationRefused { reasons, .. } => {
                let errors = reasons.into_iter().map(|reason| FieldProblem {
                    code: Some(reason.code.to_owned()),
                    ..FieldProblem::at("", reason.why)
                });
                Self::new(MIGRATION_REFUSED, told).errors(errors.collect())
            }
            E::InvalidDefinition(diagnostics) => {
                let detail = match diagnostics.len() {
                    1 => "the definition has an error".to_owned(),
                    count => format!("the definition has {count} errors"),
                };
                Self::new(DEFINITION_INVALID, detail).errors(diagnostics.into_iter().map(found).collect())
            }
            E::UnknownSaga(id) => Self::unknown_saga(id),
            E::UnknownKey { .. } => Self::new(SAGA_UNKNOWN, told),
            E::UnknownStep { known, .. } => Self::new(STEP_UNKNOWN, told)
                .errors(vec![FieldProblem::at("/step", "name one of the steps in `known`")])
                .known(known),
            E::UnknownDeadLetters { queue, known } => {
                Self::new(DEAD_LETTERS_UNKNOWN, format!("{told}; `known` lists those there are"))
                    .suggest(&queue, known.iter().map(String::as_str))
                    .known(known)
            }
            E::DeadLetterGone { .. } => Self::new(
                DEAD_LETTER_GONE,
                format!("{told}; nothing was done: look again, then decide on what you see"),
            ),
            E::NotReplayable { .. } => Self::new(
                DEAD_LETTER_NOT_REPLAYABLE,
                format!("{told}; nothing was done: drop them, or publish them anew"),
            ),
            E::Broker(_) => Self::new(BROKER_UNAVAILABLE, told).retry_after(Duration::from_secs(1)),
            E::EditForbidden => Self::new(EDIT_FORBIDDEN, told),
            E::FieldSensitive { .. } => Self::new(FIELD_SENSITIVE, told),
            E::UnknownParticipant { name, known } => {
                let help =
                    if known.is_empty() { "no definition is registered yet" } else { "`known` lists those there are" };
                Self::new(PARTICIPANT_UNKNOWN, format!("{told}; {help}"))
                    .suggest(&name, known.iter().map(String::as_str))
                    .known(known)
            }
            E::UnknownAction { action, known, .. } => Self::new(ACTION_UNKNOWN, told)
                .errors(vec![FieldProblem::at("/action", "name one of the actions in `known`")])
                .suggest(&action, known.iter().map(String::as_str))
                .known(known),
            E::PauseConflict { .. } => {
                Self::new(PAUSE_CONFLICT, format!("{told}; look again with GET /v1/participants"))
            }
            E::UnknownSignal { signal, known } => {
                let help = if known.is_empty() {
                    "its definition has no `wait` steps"
                } else {
                    "`known` lists those that its steps wait for"
                };
                Self::new(SIGNAL_UNKNOWN, format!("{told}; {help}"))
                    .suggest(&signal, known.iter().map(String::as_str))
                    .known(known)
            }
            E::NotAllowed { state, .. } => {
                let mut problem = Self::new(ACTION_NOT_ALLOWED, format!("{told} (it is {state})"));
                problem.document.state = Some(state.to_owned());
                problem
            }
            E::Moved { .. } => Self::new(SAGA_MOVED, format!("{told}; look again, then decide on what you see")),
            E::Busy { retry_after } => {
                Self::new(BUSY, "too much is waiting; try again after the time in Retry-After").retry_after(retry_after)
            }
            E::Stopping => Self::new(STOPPING, "the coordinator is stopping; the next one, or another, answers")
                .retry_after(Duration::from_secs(1)),
            E::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let cause = error.to_string();
        let unavailable = |detail: &str| Self::new(STORE_UNAVAILABLE, detail).retry_after(Duration::from_secs(1));
        let problem = match error {
            StoreError::Unavailable(_) | StoreError::Conflict(_) => {
                unavailable("the store does not answer at the moment; nothing was done: try again")
            }
            StoreError::Unknown(_) => unavailable(
                "the store was lost while it was writing; whether it took effect is not known: look again, or repeat \
                 it; a start with a key gives the same saga again",
            ),
            StoreError::SchemaBehind { .. } | StoreError::SchemaAhead { .. } => {
                unavailable("the store's schema is not this program's: run `amends doctor`")
            }
            StoreError::KeyMissing { .. } => Self::new(ENCRYPTION_KEY_MISSING, cause.clone()),
            StoreError::FieldEncrypted => Self::new(FIELD_ENCRYPTED, cause.clone()),
            StoreError::Address { .. } | StoreError::Corrupt(_) | StoreError::Refused(_) => {
                Self::new(STORE_REFUSED, "the store said no; the server's log has the cause under this request's id")
            }
        };
        problem.because(cause)
    }
}

/// A finding about a definition, in the form that problems have.
pub(super) fn found(diagnostic: Diagnostic) -> FieldProblem {
    let Diagnostic { code, message, suggestion, pointer, line, column, text, .. } = diagnostic;
    FieldProblem {
        code: Some(code.to_owned()),
        pointer,
        detail: message,
        line: Some(line),
        column: Some(column),
        suggestion,
        text: Some(text).filter(|text| !text.is_empty()),
    }
}

/// The word of `known` that was probably meant.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|word| (strsim::normalized_damerau_levenshtein(&given.to_lowercase(), &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, word)| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_coordinator_has_one_status_here() {
        let id = SagaId(uuid::Uuid::nil());
        let definition = crate::id::DefinitionRef { name: "a".to_owned(), version: 1 };
        let errors = [
            CoordinatorError::UnknownDefinition { name: "a".to_owned(), known: Vec::new() },
            CoordinatorError::UnknownVersion { name: "a".to_owned(), version: 2, known: vec![1] },
            CoordinatorError::InvalidKey("no".to_owned()),
            CoordinatorError::KeyConflict { definition: "a".to_owned(), key: "k".to_owned(), existing: id },
            CoordinatorError::VersionDeprecated { definition: definition.clone(), reason: "no".to_owned() },
            CoordinatorError::MigrationRefused { id, to: definition, reasons: Vec::new() },
            CoordinatorError::InvalidDefinition(Vec::new()),
            CoordinatorError::UnknownSaga(id),
            CoordinatorError::UnknownKey { definition: "a".to_owned(), key: "k".to_owned() },
            CoordinatorError::UnknownStep { message: "no".to_owned(), known: Vec::new() },
            CoordinatorError::EditForbidden,
            CoordinatorError::FieldSensitive { field: "card".to_owned() },
            CoordinatorError::UnknownDeadLetters { queue: "a".to_owned(), known: Vec::new() },
            CoordinatorError::DeadLetterGone { queue: "a".to_owned(), ids: Vec::new() },
            CoordinatorError::NotReplayable { queue: "a".to_owned(), ids: Vec::new() },
            CoordinatorError::Broker("gone".to_owned()),
            CoordinatorError::UnknownParticipant { name: "a".to_owned(), known: Vec::new() },
            CoordinatorError::UnknownAction { participant: "a".to_owned(), action: "b".to_owned(), known: Vec::new() },
            CoordinatorError::PauseConflict { why: "it is so".to_owned() },
            CoordinatorError::NotAllowed { id, action: "skip", state: "RUNNING", why: "no".to_owned() },
            CoordinatorError::Moved { id, expected: 1, found: 2 },
            CoordinatorError::Busy { retry_after: Duration::from_millis(1_500) },
            CoordinatorError::Stopping,
            CoordinatorError::Store(StoreError::Unavailable("gone".to_owned())),
            CoordinatorError::Store(StoreError::Refused("no".to_owned())),
            CoordinatorError::Store(StoreError::KeyMissing { key: "old".to_owned() }),
            CoordinatorError::Store(StoreError::FieldEncrypted),
        ];
        for error in errors {
            let code = error.code();
            assert_eq!(Problem::from(error).code(), code);
        }
    }

    #[test]
    fn a_busy_coordinator_says_in_whole_seconds_when_to_come_back() {
        let busy = Problem::from(CoordinatorError::Busy { retry_after: Duration::from_millis(1_500) });
        assert_eq!((busy.status(), busy.retry_after_seconds()), (StatusCode::TOO_MANY_REQUESTS, Some(2)));
    }

    #[test]
    fn what_the_store_says_is_for_the_log_alone() {
        let secret = "password=hunter2";
        let problem = Problem::from(StoreError::Refused(secret.to_owned()));
        assert!(problem.cause().is_some_and(|cause| cause.contains(secret)));
        let document = serde_json::to_string(&problem.into_document("r")).expect("JSON");
        assert!(!document.contains("hunter2"), "{document}");
    }

    #[test]
    fn no_code_stands_for_two_problems() {
        let mut codes: Vec<_> = ALL_KINDS.iter().map(|kind| kind.code).collect();
        codes.dedup();
        assert_eq!(codes.len(), ALL_KINDS.len());
        assert!(codes.is_sorted());
    }

    #[test]
    fn a_near_miss_is_suggested_and_a_far_one_is_not() {
        assert_eq!(nearest("imput", ["saga", "input", "key"]).as_deref(), Some("input"));
        assert_eq!(nearest("payload", ["saga", "input", "key"]), None);
    }
}
