//! Why a call did not work.

use std::fmt;
use std::time::Duration;

use crate::client::views::ProblemDocument;

/// A call did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client cannot be made: a wrong address, or no rustls provider for `https`.
    #[error("no client for `{url}`: {problem}")]
    Setup {
        /// The address, without user name and password.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The body cannot be written as JSON.
    #[error("the request cannot be written as JSON: {0}")]
    Encode(#[source] serde_json::Error),
    /// The coordinator was not reached, or the connection broke: whether the request took effect is unknown. Repeat
    /// reads, and starts that have a key.
    #[error("{url} cannot be reached: {cause}")]
    Unreachable {
        /// Where the request went.
        url: String,
        /// The innermost cause, for example `connection refused`.
        cause: String,
        /// All of it.
        #[source]
        source: reqwest::Error,
    },
    /// The coordinator said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// What answered does not speak this interface.
    #[error("{url} answered {status} with what is no answer of an amends server: {problem}")]
    Unexpected {
        /// Where the request went.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the answer.
        problem: String,
    },
}

/// What the coordinator said when it said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where the request went.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The problem document.
    pub problem: ProblemDocument,
    /// When to try again, where the coordinator says so.
    pub retry_after: Option<Duration>,
}

impl ClientError {
    /// The stable code of a refusal, for example `KEY_CONFLICT`.
    pub fn code(&self) -> Option<&str> {
        self.refusal().map(|refusal| refusal.problem.code.as_str())
    }

    /// What the coordinator said, if it was reached.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the same request can work later, without anybody mending anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => matches!(refusal.status, 429 | 503),
            Self::Setup { .. } | Self::Encode(_) | Self::Unexpected { .. } => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProblemDocument { code, detail, errors, .. } = &self.problem;
        write!(f, "{detail} [{code}]")?;
        for error in errors {
            match (error.line, error.column) {
                (Some(line), Some(column)) => write!(f, "\n  {line}:{column}: {}", error.detail)?,
                _ if error.pointer.is_empty() => write!(f, "\n  {}", error.detail)?,
                _ => write!(f, "\n  {}: {}", error.pointer, error.detail)?,
            }
        }
        Ok(())
    }
}
