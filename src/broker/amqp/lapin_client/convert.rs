//! Between our messages and lapin's.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::message::{Envelope, HeaderValue, Properties};

/// AMQP's word for "survives a restart of the broker".
const PERSISTENT: u8 = 2;

/// AMQP's short string, whose limit lapin would panic at.
pub(super) fn short(what: &str, text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|_| format!("the {what} is {} bytes long, AMQP allows 255", text.len()))
}

/// Our properties as lapin sends them.
///
/// # Errors
/// Which text is longer than AMQP allows.
pub fn to_lapin(properties: &Properties) -> Result<BasicProperties, String> {
    let mut converted = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let Properties { message_id, correlation_id, reply_to, kind, content_type, timestamp, app_id, headers } =
        properties;
    if let Some(text) = message_id {
        converted = converted.with_message_id(short("message id", text)?);
    }
    if let Some(text) = correlation_id {
        converted = converted.with_correlation_id(short("correlation id", text)?);
    }
    if let Some(text) = reply_to {
        converted = converted.with_reply_to(short("reply address", text)?);
    }
    if let Some(text) = kind {
        converted = converted.with_type(short("type", text)?);
    }
    if let Some(text) = content_type {
        converted = converted.with_content_type(short("content type", text)?);
    }
    if let Some(at) = timestamp {
        converted = converted.with_timestamp(u64::try_from(at.timestamp()).unwrap_or_default());
    }
    if let Some(text) = app_id {
        converted = converted.with_app_id(short("application id", text)?);
    }
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_ref().into()),
            HeaderValue::Int(int) => AMQPValue::LongLongInt(*int),
        };
        table.insert(short("header's name", name)?, value);
    }
    Ok(converted.with_headers(table))
}

/// What lapin has received, as our message.
pub fn from_lapin(delivery: lapin::message::Delivery) -> Envelope {
    let properties = &delivery.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let headers = properties.headers().iter().flat_map(|table| table.inner().iter());
    let timestamp =
        properties.timestamp().and_then(|seconds| chrono::DateTime::from_timestamp(i64::try_from(seconds).ok()?, 0));
    Envelope {
        exchange: delivery.exchange.to_string(),
        routing_key: delivery.routing_key.to_string(),
        mandatory: false,
        properties: Properties {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            kind: text(properties.kind()),
            content_type: text(properties.content_type()),
            timestamp,
            app_id: text(properties.app_id()),
            headers: headers.filter_map(|(name, value)| Some((name.to_string().into(), header(value)?))).collect(),
        },
        body: delivery.data,
    }
}

/// Clients of other languages choose other widths; what is neither text nor an integer is left out.
fn header(value: &AMQPValue) -> Option<HeaderValue> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned().into(),
        AMQPValue::ShortString(text) => text.to_string().into(),
        AMQPValue::ShortShortInt(int) => HeaderValue::Int(i64::from(*int)),
        AMQPValue::ShortShortUInt(int) => HeaderValue::Int(i64::from(*int)),
        AMQPValue::ShortInt(int) => HeaderValue::Int(i64::from(*int)),
        AMQPValue::ShortUInt(int) => HeaderValue::Int(i64::from(*int)),
        AMQPValue::LongInt(int) => HeaderValue::Int(i64::from(*int)),
        AMQPValue::LongUInt(int) => HeaderValue::Int(i64::from(*int)),
        AMQPValue::LongLongInt(int) => HeaderValue::Int(*int),
        _ => return None,
    })
}
