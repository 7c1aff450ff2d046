//! Messages as they come over the wire: the client library's types become ours, and ours its.

use amends::broker::amqp::converted::{received, sent};
use amends::message::{Command, Envelope, Properties, Reply};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::protocol::basic::parse_properties;

/// AMQP's short strings have a byte for their length.
const SHORT: usize = 255;

/// The properties of a content header frame, with whatever comes after them as the body, become a message, if the client
/// library can read them at all; and that becomes the same properties again. The same bytes as one of our own messages
/// can be sent unless a text is too long.
pub fn becomes_a_message_and_back(bytes: &[u8]) {
    let own = super::message::envelope(bytes);
    match sent(&own.properties) {
        Ok(properties) => is_the_same(&own, properties),
        Err(why) => assert!(longest(&own.properties) > SHORT, "{why}: {own:?}"),
    }
    let Ok((body, properties)) = parse_properties(bytes) else { return };
    let message = delivered(properties, body);
    // Whoever gets it makes of it what it can.
    drop((Command::decode(&message), Reply::decode(&message)));
    let again = sent(&message.properties).unwrap_or_else(|why| panic!("{why}: {message:?}"));
    is_the_same(&message, again);
}

fn delivered(properties: BasicProperties, body: &[u8]) -> Envelope {
    let mut delivery = Delivery::mock(1, "amends.replies".into(), "amends.replies".into(), false, body.to_vec());
    delivery.properties = properties;
    received(delivery)
}

fn is_the_same(message: &Envelope, properties: BasicProperties) {
    assert_eq!(delivered(properties, &message.body).properties, since_1970(&message.properties));
}

/// AMQP has no time before 1970.
fn since_1970(properties: &Properties) -> Properties {
    let timestamp = properties.timestamp.map(|at| at.max(chrono::DateTime::UNIX_EPOCH));
    Properties { timestamp, ..properties.clone() }
}

fn longest(properties: &Properties) -> usize {
    let Properties { message_id, correlation_id, reply_to, kind, content_type, app_id, headers, .. } = properties;
    let texts = [message_id, correlation_id, reply_to, kind, content_type, app_id].into_iter().flatten();
    texts.chain(headers.keys()).map(String::len).max().unwrap_or_default()
}
