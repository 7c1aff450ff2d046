//! Messages as they come over the wire, and as the client library has them.

use amends::broker::amqp::converted::{delivered, from_lapin, properties, read, to_lapin, written};
use amends::message::{Command, Envelope, Properties, Reply};
use lapin::BasicProperties;
use lapin::message::Delivery;

/// AMQP's short strings have a byte for their length.
const SHORT: usize = 255;
/// What RabbitMQ offers.
const FRAME_MAX: usize = 131_072;
/// Before the properties in a content header frame: the class, a weight, and how long the body is.
const HEAD: [u8; 12] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The properties of a content header are a message's, or an error; they can be sent again, over the wire as through the
/// client library, and are the same then, unless a text is too long for AMQP. So it is with a message of our own. What
/// is no frame is an error, too.
pub fn becomes_a_message_and_back(bytes: &[u8]) {
    comes_back(&super::message::envelope(bytes));
    let payload = [&HEAD, bytes].concat();
    if let Ok(properties) = properties(&payload) {
        let message = Envelope { properties, ..super::message::envelope(b"") };
        // Whoever gets it makes of it what it can.
        drop((Command::decode(&message), Reply::decode(&message)));
        comes_back(&message);
    }
    if let Ok(Some(message)) = delivered(bytes, FRAME_MAX) {
        comes_back(&message);
    }
}

fn comes_back(message: &Envelope) {
    let expected = since_1970(&message.properties);
    match written(message, FRAME_MAX) {
        Ok(frames) => {
            assert_eq!(read(&frames, FRAME_MAX), Ok((expected.clone(), message.body.clone())));
            let cut = &frames[..frames.len() / 2];
            assert!(read(cut, FRAME_MAX).is_ok(), "half of it is not wrong yet");
        }
        Err(why) => assert!(longest(message) > SHORT || why.starts_with("the headers take"), "{why}: {message:?}"),
    }
    match to_lapin(&message.properties) {
        Ok(properties) => assert_eq!(received(properties, &message.body), expected),
        Err(why) => assert!(longest(message) > SHORT, "{why}: {message:?}"),
    }
}

fn received(properties: BasicProperties, body: &[u8]) -> Properties {
    let mut delivery = Delivery::mock(1, "amends.replies".into(), "amends.replies".into(), false, body.to_vec());
    delivery.properties = properties;
    from_lapin(delivery).properties
}

/// AMQP has whole seconds, and no time before 1970.
fn since_1970(properties: &Properties) -> Properties {
    let timestamp = properties.timestamp.map(|at| at.max(chrono::DateTime::UNIX_EPOCH));
    Properties { timestamp, ..properties.clone() }
}

fn longest(message: &Envelope) -> usize {
    let Properties { message_id, correlation_id, reply_to, kind, content_type, app_id, headers, .. } =
        &message.properties;
    let texts = [message_id, correlation_id, reply_to, kind, content_type, app_id].into_iter().flatten();
    let texts = texts.chain([&message.exchange, &message.routing_key]).map(String::len);
    texts.chain(headers.keys().map(|name| name.len())).max().unwrap_or_default()
}
