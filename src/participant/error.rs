//! What a handler may answer besides its output.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::message::reply::ReplyProblem;

/// The problem type of every error that is not a refusal: a database error, a panic, an output that is too large.
pub const TECHNICAL: &str = "technical";
/// The failure type of an input that the handler's input type cannot be read from.
pub const INVALID_INPUT: &str = "invalid-input";
/// The failure type of an action that the participant has no handler for.
pub const UNKNOWN_ACTION: &str = "unknown-action";
/// The failure type of an action whose compensation came first.
pub const TOMBSTONED: &str = "tombstoned";

/// Why a handler has no output. Every error converts into [`StepError::Technical`] by `?`, so that a business refusal
/// is only ever said on purpose.
#[derive(Debug)]
pub enum StepError {
    /// The business says no. The transaction is rolled back, the refusal is recorded and sent as `failure`; the saga
    /// goes backward.
    Refused(Refusal),
    /// Not now. The transaction is rolled back, nothing is recorded, and the coordinator sends the command again.
    RetryLater(RetryLater),
    /// Something broke. As [`StepError::RetryLater`], with type [`TECHNICAL`].
    Technical(Box<dyn Error + Send + Sync>),
}

/// A business refusal: the action has had, and will have, no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    kind: String,
    title: String,
    detail: Option<String>,
}

impl Refusal {
    /// `kind` is a stable word that definitions and callers may go by, for example `card-declined`; `title` is one
    /// line for people.
    pub fn new(kind: impl Into<String>, title: impl Into<String>) -> Self {
        Self { kind: kind.into(), title: title.into(), detail: None }
    }

    /// Adds more for people.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// The wish to be asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryLater {
    kind: String,
    title: String,
    after: Option<Duration>,
}

impl RetryLater {
    /// `kind` is a stable word, for example `carrier-busy`: a definition may list it in `nonRetryable`.
    pub fn new(kind: impl Into<String>, title: impl Into<String>) -> Self {
        Self { kind: kind.into(), title: title.into(), after: None }
    }

    /// Not before this wait; else the definition's retry policy decides.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.after = Some(wait);
        self
    }
}

/// Short for a [`Refusal`] as an error: `return Err(refuse("card-declined", "the bank says no"))`.
pub fn refuse(kind: impl Into<String>, title: impl Into<String>) -> StepError {
    Refusal::new(kind, title).into()
}

/// Short for a [`RetryLater`] as an error: `return Err(retry_after(wait, "carrier-busy", "the carrier has no truck"))`.
pub fn retry_after(wait: Duration, kind: impl Into<String>, title: impl Into<String>) -> StepError {
    RetryLater::new(kind, title).after(wait).into()
}

impl From<Refusal> for StepError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RetryLater> for StepError {
    fn from(later: RetryLater) -> Self {
        Self::RetryLater(later)
    }
}

// `StepError` is no `Error` itself: as with `anyhow::Error`, that is what leaves room for this.
impl<E: Error + Send + Sync + 'static> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::Technical(Box::new(error))
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "refused, {}: {}", refusal.kind, refusal.title),
            Self::RetryLater(later) => write!(f, "later, {}: {}", later.kind, later.title),
            Self::Technical(error) => write!(f, "{error}"),
        }
    }
}

impl From<Refusal> for ReplyProblem {
    fn from(refusal: Refusal) -> Self {
        Self { kind: refusal.kind, title: shortened(&refusal.title), detail: refusal.detail.as_deref().map(shortened) }
    }
}

/// The body of a `retry` and its wait.
pub(crate) fn retry_reply(later: RetryLater) -> (ReplyProblem, Option<Duration>) {
    (ReplyProblem { kind: later.kind, title: shortened(&later.title), detail: None }, later.after)
}

/// The body of a `retry` for an error that is nobody's decision.
pub(crate) fn technical(title: &str, error: Option<&(dyn Error + 'static)>) -> ReplyProblem {
    let mut causes = Vec::new();
    let mut next = error;
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    // Many errors repeat their source in their own text.
    causes.dedup_by(|later, earlier| earlier.contains(later.as_str()));
    let detail = (!causes.is_empty()).then(|| shortened(&causes.join(": ")));
    ReplyProblem { kind: TECHNICAL.to_owned(), title: title.to_owned(), detail }
}

/// Text for people in replies is cut at this many characters: it is stored with the saga.
const LONGEST_TEXT: usize = 2_000;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_error_becomes_technical_and_only_a_refusal_refuses() {
        let broken = || -> Result<(), StepError> {
            "seven".parse::<u32>()?;
            Ok(())
        };
        assert!(matches!(broken(), Err(StepError::Technical(_))));
        assert!(matches!(refuse("no", "no"), StepError::Refused(_)));
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let cut = shortened(&"ä".repeat(LONGEST_TEXT + 5));
        assert_eq!(cut.chars().count(), LONGEST_TEXT + 1);
    }

    #[test]
    fn a_technical_problem_names_its_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the pool is empty: {0}")]
        struct Outer(#[source] std::fmt::Error);
        let problem = technical("the handler failed", Some(&Outer(std::fmt::Error)));
        let detail = problem.detail.expect("detail");
        assert_eq!(detail.matches(&std::fmt::Error.to_string()).count(), 1, "{detail}");
    }
}
