//! Lifecycle events for whoever wants to know: CloudEvents 1.0 in structured JSON mode.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::id::{DefinitionRef, SagaId};
use crate::message::{Envelope, Properties};

/// The exchange that lifecycle events go to.
pub const EVENTS_EXCHANGE: &str = "amends.events";

/// Something that happened to a saga.
#[derive(Clone, Debug, PartialEq)]
pub struct LifecycleEvent {
    /// The saga.
    pub saga: SagaId,
    /// Its definition.
    pub definition: DefinitionRef,
    /// Its key.
    pub key: Option<String>,
    /// The saga's revision after it; with the saga's id and `name` the event's identity, so that repeats can be told.
    pub revision: u32,
    /// What happened, for example `step-verified`.
    pub name: &'static str,
    /// When.
    pub at: Timestamp,
    /// More about it.
    pub data: Value,
}

impl LifecycleEvent {
    /// The message to publish. Not mandatory: an event that nobody is bound to may be dropped.
    pub fn encode(&self) -> Envelope {
        let Self { saga, definition, key, revision, name, at, data } = self;
        let mut about = json!({ "sagaId": saga, "saga": definition.name, "version": definition.version, "key": key });
        if let (Value::Object(about), Value::Object(data)) = (&mut about, data) {
            about.extend(data.clone());
        }
        let event = json!({
            "specversion": "1.0",
            "id": format!("{saga}/{revision}/{name}"),
            "source": format!("amends/{}", definition.name),
            "type": format!("amends.saga.{name}"),
            "subject": saga,
            "time": at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            "datacontenttype": "application/json",
            "data": about,
        });
        Envelope {
            exchange: EVENTS_EXCHANGE.to_owned(),
            routing_key: format!("{}.{name}", definition.name),
            mandatory: false,
            properties: Properties {
                message_id: Some(format!("{saga}/{revision}/{name}")),
                content_type: Some("application/cloudevents+json".to_owned()),
                timestamp: Some(*at),
                app_id: Some("amends".to_owned()),
                ..Properties::default()
            },
            body: event.to_string().into_bytes(),
        }
    }
}
