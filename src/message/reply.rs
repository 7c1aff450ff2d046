//! A participant's answer.

use std::time::Duration;

use crate::message::{Envelope, HeaderValue, Headers, Properties};
use crate::payload::Payload;

/// The exchange that replies go to.
pub const REPLIES_EXCHANGE: &str = "amends.replies";

/// The longest body of a reply, in bytes.
pub const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// A participant's answer to one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The command's `correlation_id`, echoed.
    pub token: String,
    /// The command's `reply_to`.
    pub routing_key: String,
    /// What the participant says.
    pub body: ReplyBody,
}

/// What a reply says.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyBody {
    /// Done; the step's output.
    Success(Payload),
    /// Refused; no effect.
    Failure(ReplyProblem),
    /// Not now; try again, not before the given wait.
    Retry(ReplyProblem, Option<Duration>),
    /// A heartbeat.
    InProgress,
}

/// The body of a `failure` or `retry`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplyProblem {
    /// A stable word, for example `card-declined`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people.
    #[serde(default)]
    pub title: String,
    /// More for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A message is not a reply. It goes to the dead letters; [`ReplyError::code`] is the reason given there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// There is no `correlation_id`.
    #[error("no correlation_id: echo the command's")]
    NoToken,
    /// There is no `amends-outcome` header.
    #[error("no amends-outcome header: expected `success`, `failure`, `retry` or `in-progress`")]
    NoOutcome,
    /// `amends-outcome` is no word of the contract.
    #[error("amends-outcome is `{0}`: expected `success`, `failure`, `retry` or `in-progress`")]
    UnknownOutcome(String),
    /// The body is not what the outcome asks for.
    #[error("the body cannot be read: {0}")]
    Body(String),
    /// The body is larger than [`MAX_REPLY_BYTES`].
    #[error("the body has {0} bytes, the limit is {MAX_REPLY_BYTES}")]
    TooLarge(usize),
}

impl ReplyError {
    /// A stable code, used in dead letters and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoToken => "REPLY_TOKEN_MISSING",
            Self::NoOutcome => "REPLY_OUTCOME_MISSING",
            Self::UnknownOutcome(_) => "REPLY_OUTCOME_UNKNOWN",
            Self::Body(_) => "REPLY_BODY_INVALID",
            Self::TooLarge(_) => "REPLY_TOO_LARGE",
        }
    }
}

impl Reply {
    /// The message to publish.
    pub fn encode(&self) -> Envelope {
        let mut headers = Headers::new();
        let (outcome, body) = match &self.body {
            ReplyBody::Success(output) => ("success", output.text().as_bytes().to_vec()),
            ReplyBody::Failure(problem) => ("failure", serde_json::to_vec(problem).unwrap_or_default()),
            ReplyBody::Retry(problem, after) => {
                if let Some(after) = after {
                    let millis = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                    headers.insert("amends-retry-after-ms".into(), HeaderValue::Int(millis));
                }
                ("retry", serde_json::to_vec(problem).unwrap_or_default())
            }
            ReplyBody::InProgress => ("in-progress", b"{}".to_vec()),
        };
        headers.insert("amends-outcome".into(), outcome.into());
        Envelope {
            exchange: REPLIES_EXCHANGE.to_owned(),
            routing_key: self.routing_key.clone(),
            mandatory: true,
            properties: Properties {
                correlation_id: Some(self.token.clone()),
                content_type: Some("application/json".to_owned()),
                headers,
                ..Properties::default()
            },
            body,
        }
    }

    /// Reads a delivered message as a reply. The token is not checked here.
    ///
    /// # Errors
    /// Why it is none; it belongs in the dead letters.
    pub fn decode(envelope: &Envelope) -> Result<Self, ReplyError> {
        let properties = &envelope.properties;
        let token = properties.correlation_id.clone().filter(|token| !token.is_empty()).ok_or(ReplyError::NoToken)?;
        let outcome = properties.text("amends-outcome").ok_or(ReplyError::NoOutcome)?;
        if envelope.body.len() > MAX_REPLY_BYTES {
            return Err(ReplyError::TooLarge(envelope.body.len()));
        }
        let problem = || -> Result<ReplyProblem, ReplyError> {
            serde_json::from_slice(&envelope.body).map_err(|error| ReplyError::Body(error.to_string()))
        };
        let body = match outcome {
            // A participant with nothing to say may send no body at all.
            "success" if envelope.body.is_empty() => ReplyBody::Success(Payload::trusted("{}")),
            "success" => {
                ReplyBody::Success(Payload::parse(&envelope.body).map_err(|error| ReplyError::Body(error.to_string()))?)
            }
            "failure" => ReplyBody::Failure(problem()?),
            "retry" => {
                let after = properties.int("amends-retry-after-ms").and_then(|ms| u64::try_from(ms).ok());
                ReplyBody::Retry(problem()?, after.map(Duration::from_millis))
            }
            "in-progress" => ReplyBody::InProgress,
            other => return Err(ReplyError::UnknownOutcome(other.chars().take(64).collect())),
        };
        Ok(Self { token, routing_key: envelope.routing_key.clone(), body })
    }
}
