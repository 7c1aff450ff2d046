//! The coordinator's message to a participant.

use chrono::Datelike;

use crate::clock::Timestamp;
use crate::id::{DefinitionRef, SagaId};
use crate::message::{Envelope, HeaderValue, Headers, Properties};
use crate::payload::Payload;

/// The exchange that commands go to.
pub const COMMANDS_EXCHANGE: &str = "amends.commands";

/// One attempt of a command, as a participant sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The same when the same attempt is published again.
    pub message_id: String,
    /// The attempt token: opaque, to be echoed in the reply's `correlation_id`.
    pub token: String,
    /// The reply's routing key.
    pub reply_to: String,
    /// The service.
    pub participant: String,
    /// What it is asked to do.
    pub action: String,
    /// The saga.
    pub saga_id: SagaId,
    /// The saga's definition.
    pub definition: DefinitionRef,
    /// The step's name.
    pub step: String,
    /// Whether this undoes an earlier command.
    pub is_compensation: bool,
    /// From 1.
    pub attempt: u32,
    /// The idempotency key: the same for all attempts.
    pub key: String,
    /// On a compensation: the idempotency key of the action.
    pub compensates: Option<String>,
    /// When the attempt times out.
    pub deadline: Timestamp,
    /// W3C trace context, if the saga is traced.
    pub traceparent: Option<String>,
    /// W3C trace state.
    pub tracestate: Option<String>,
    /// The step's input.
    pub body: Payload,
    /// When it was sent.
    pub sent_at: Timestamp,
}

/// A message is not a command that this program understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A property or header is not there, or not of its type.
    #[error("{0} is missing or not of its type")]
    Missing(&'static str),
    /// A header does not say what it should.
    #[error("{name} is `{value}`: {expected}")]
    Invalid {
        /// The header.
        name: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    Body(String),
}

/// The idempotency key of a command.
pub fn idempotency_key(saga: SagaId, step: &str, direction: &str, generation: u32) -> String {
    format!("{saga}/{step}/{direction}/{generation}")
}

impl Command {
    /// The message to publish.
    pub fn encode(&self) -> Envelope {
        self.clone().into_envelope()
    }

    /// As [`Command::encode`], but moves the texts instead of copying them.
    pub fn into_envelope(self) -> Envelope {
        let kind = format!("{}.{}", self.participant, self.action);
        let direction = if self.is_compensation { "compensation" } else { "action" };
        let mut headers = Headers::new();
        let mut put = |name: &'static str, value: HeaderValue| headers.insert(name.into(), value);
        put("amends-saga-id", self.saga_id.to_string().into());
        put("amends-saga", self.definition.name.into());
        put("amends-version", self.definition.version.into());
        put("amends-step", self.step.into());
        put("amends-direction", direction.into());
        put("amends-attempt", self.attempt.into());
        put("amends-key", self.key.into());
        put("amends-deadline", self.deadline.to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into());
        for (name, value) in [
            ("amends-compensates", self.compensates),
            ("traceparent", self.traceparent),
            ("tracestate", self.tracestate),
        ] {
            if let Some(value) = value {
                put(name, value.into());
            }
        }
        Envelope {
            exchange: COMMANDS_EXCHANGE.to_owned(),
            routing_key: kind.clone(),
            mandatory: true,
            properties: Properties {
                message_id: Some(self.message_id),
                correlation_id: Some(self.token),
                reply_to: Some(self.reply_to),
                kind: Some(kind),
                content_type: Some("application/json".to_owned()),
                timestamp: Some(self.sent_at),
                app_id: Some("amends".to_owned()),
                headers,
            },
            body: self.body.text().as_bytes().to_vec(),
        }
    }

    /// Reads a delivered message as a command.
    ///
    /// # Errors
    /// What is missing or wrong. Such a message can never be handled: dead-letter it.
    pub fn decode(envelope: &Envelope) -> Result<Self, CommandError> {
        let properties = &envelope.properties;
        let text = |name: &'static str| properties.text(name).map(str::to_owned).ok_or(CommandError::Missing(name));
        let number = |name: &'static str| {
            properties.int(name).and_then(|int| u32::try_from(int).ok()).ok_or(CommandError::Missing(name))
        };
        let property = |value: &Option<String>, name: &'static str| value.clone().ok_or(CommandError::Missing(name));

        let kind = property(&properties.kind, "type")?;
        let (participant, action) = kind.split_once('.').ok_or_else(|| CommandError::Invalid {
            name: "type",
            value: kind.clone(),
            expected: "expected <participant>.<action>",
        })?;
        let saga_id = text("amends-saga-id")?;
        let direction = text("amends-direction")?;
        let deadline = text("amends-deadline")?;
        Ok(Self {
            message_id: property(&properties.message_id, "message_id")?,
            token: property(&properties.correlation_id, "correlation_id")?,
            reply_to: property(&properties.reply_to, "reply_to")?,
            participant: participant.to_owned(),
            action: action.to_owned(),
            saga_id: saga_id.parse().map_err(|_| CommandError::Invalid {
                name: "amends-saga-id",
                value: saga_id,
                expected: "expected a UUID",
            })?,
            definition: DefinitionRef { name: text("amends-saga")?, version: number("amends-version")? },
            step: text("amends-step")?,
            is_compensation: match &*direction {
                "action" => false,
                "compensation" => true,
                _ => {
                    return Err(CommandError::Invalid {
                        name: "amends-direction",
                        value: direction,
                        expected: "expected `action` or `compensation`",
                    });
                }
            },
            attempt: number("amends-attempt")?,
            key: text("amends-key")?,
            compensates: properties.text("amends-compensates").map(str::to_owned),
            deadline: time(&deadline).ok_or_else(|| CommandError::Invalid {
                name: "amends-deadline",
                value: deadline.clone(),
                expected: "expected an RFC 3339 time",
            })?,
            traceparent: properties.text("traceparent").map(str::to_owned),
            tracestate: properties.text("tracestate").map(str::to_owned),
            body: Payload::parse(&envelope.body).map_err(|error| CommandError::Body(error.to_string()))?,
            sent_at: properties.timestamp.unwrap_or_default(),
        })
    }
}

/// An RFC 3339 time. West of Greenwich the year 9999 lasts longer than what can be written in UTC.
fn time(text: &str) -> Option<Timestamp> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?.to_utc();
    (0..=9999).contains(&time.year()).then_some(time)
}
