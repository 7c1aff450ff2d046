//! A message as any broker carries it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::clock::Timestamp;

/// Headers by their names. Those of the contract are not allocated for each message.
pub type Headers = BTreeMap<Cow<'static, str>, HeaderValue>;

/// A message: where it goes, its properties, its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The exchange; empty for the default exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Whether the broker must return it when no queue takes it.
    pub mandatory: bool,
    /// Properties and headers.
    pub properties: Properties,
    /// The body.
    pub body: Vec<u8>,
}

/// The properties of AMQP 0-9-1 that amends uses. Every message is persistent.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "named as in AMQP 0-9-1")]
pub struct Properties {
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub reply_to: Option<String>,
    /// AMQP's `type`.
    pub kind: Option<String>,
    pub content_type: Option<String>,
    /// Whole seconds on the wire.
    pub timestamp: Option<Timestamp>,
    pub app_id: Option<String>,
    pub headers: Headers,
}

/// A header's value. Other AMQP types are read as the nearest of these, or left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderValue {
    /// A string (AMQP `S`).
    Text(Cow<'static, str>),
    /// An integer of any width (sent as AMQP `l`, 64 bit).
    Int(i64),
}

impl HeaderValue {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Int(_) => None,
        }
    }

    /// The integer; text that spells one counts, since some clients send headers as strings only.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Int(int) => Some(*int),
        }
    }
}

impl From<&'static str> for HeaderValue {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u32> for HeaderValue {
    fn from(int: u32) -> Self {
        Self::Int(i64::from(int))
    }
}

impl Properties {
    /// The text of header `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(HeaderValue::as_text)
    }

    /// The integer of header `name`.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.headers.get(name).and_then(HeaderValue::as_int)
    }
}
