//! Our frames beside those of amq-protocol, the codec under lapin: what one writes the other reads, and the other way
//! round; and whatever comes, nothing panics.

use std::borrow::Cow;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, WriteContext, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, basic};
use amq_protocol::types::{AMQPValue, FieldArray, FieldTable, LongString, ShortString};
use proptest::prelude::*;

use super::decode::{Begins, Decoder, Incoming, frame};
use super::encode::{BODY, Encoder, HEADER, METHOD, method};
use crate::message::{Envelope, HeaderValue, Headers, Properties};

const FRAME_MAX: usize = 4_096;

fn envelope() -> impl Strategy<Value = Envelope> {
    let short = || proptest::option::of("\\PC{0,40}");
    let value = prop_oneof!["\\PC{0,60}".prop_map(HeaderValue::from), any::<i64>().prop_map(HeaderValue::Int)];
    let headers = proptest::collection::btree_map("[a-z-]{1,20}".prop_map(Cow::Owned), value, 0..6);
    let texts = (short(), short(), short(), short(), short(), short());
    let body = proptest::collection::vec(any::<u8>(), 0..10_000);
    let at = proptest::option::of(0..4_000_000_000_i64);
    ("[a-z.]{0,20}", "[a-z.]{0,20}", any::<bool>(), texts, at, headers, body).prop_map(
        |(exchange, routing_key, mandatory, texts, at, headers, body)| {
            let (message_id, correlation_id, reply_to, kind, content_type, app_id) = texts;
            let timestamp = at.and_then(|at| chrono::DateTime::from_timestamp(at, 0));
            let properties =
                Properties { message_id, correlation_id, reply_to, kind, content_type, timestamp, app_id, headers };
            Envelope { exchange, routing_key, mandatory, properties, body }
        },
    )
}

/// What amq-protocol makes of our bytes.
fn read_by_reference(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).expect("a frame");
        frames.push(frame);
        bytes = rest;
    }
    frames
}

fn write_by_reference(frame: &AMQPFrame) -> Vec<u8> {
    let written = gen_frame(frame)(WriteContext::from(Vec::new())).expect("it is written");
    written.into_inner().0
}

/// What we make of bytes: the message that they hold.
fn read(mut bytes: &[u8]) -> Result<Option<(Begins, Envelope)>, String> {
    let mut incoming: Option<Incoming> = None;
    while let Some((found, length)) = frame(bytes, FRAME_MAX)? {
        bytes = bytes.get(length..).unwrap_or_default();
        match (found.kind, &mut incoming) {
            (METHOD, incoming) => {
                let mut payload = Decoder(found.payload);
                match payload.method()? {
                    method::DELIVER => *incoming = Some(Incoming::delivered(&mut payload)?),
                    method::RETURN => *incoming = Some(Incoming::returned(&mut payload)?),
                    _ => return Ok(None),
                }
            }
            (HEADER, Some(incoming)) => incoming.header(found.payload)?,
            (BODY, Some(incoming)) => incoming.body(found.payload)?,
            _ => return Ok(None),
        }
    }
    Ok(incoming.filter(Incoming::is_whole).map(Incoming::take))
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).expect("short")
}

proptest! {
    #[test]
    fn what_we_write_is_what_lapin_reads(sent in envelope()) {
        let mut encoder = Encoder::default();
        encoder.publish(&sent, FRAME_MAX).expect("written");
        let mut frames = read_by_reference(&encoder.0).into_iter();
        let Some(AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Publish(publish)))) = frames.next() else {
            panic!("a publish comes first")
        };
        prop_assert_eq!(publish.exchange.as_str(), &sent.exchange);
        prop_assert_eq!(publish.routing_key.as_str(), &sent.routing_key);
        prop_assert_eq!((publish.mandatory, publish.immediate), (sent.mandatory, false));
        let Some(AMQPFrame::Header(1, header)) = frames.next() else { panic!("then its header") };
        prop_assert_eq!(header.body_size, sent.body.len() as u64);
        let (got, expected) = (&header.properties, &sent.properties);
        let text = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
        prop_assert_eq!(text(got.message_id()), expected.message_id.clone());
        prop_assert_eq!(text(got.correlation_id()), expected.correlation_id.clone());
        prop_assert_eq!(text(got.reply_to()), expected.reply_to.clone());
        prop_assert_eq!(text(got.kind()), expected.kind.clone());
        prop_assert_eq!(text(got.content_type()), expected.content_type.clone());
        prop_assert_eq!(text(got.app_id()), expected.app_id.clone());
        prop_assert_eq!(*got.timestamp(), expected.timestamp.map(|at| at.timestamp().unsigned_abs()));
        prop_assert_eq!(*got.delivery_mode(), Some(2));
        let headers: Headers = got.headers().iter().flat_map(|table| table.inner()).map(|(name, value)| {
            let value = match value {
                AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).expect("text").into(),
                AMQPValue::LongLongInt(int) => HeaderValue::Int(*int),
                other => panic!("{other:?}"),
            };
            (name.to_string().into(), value)
        }).collect();
        prop_assert_eq!(&headers, &expected.headers);
        let mut body = Vec::new();
        for frame in frames {
            let AMQPFrame::Body(1, part) = frame else { panic!("nothing but the body follows") };
            prop_assert!(part.len() <= FRAME_MAX - 8);
            body.extend_from_slice(&part);
        }
        prop_assert_eq!(body, sent.body);
    }

    #[test]
    fn what_lapin_writes_is_what_we_read(sent in envelope(), tag: u64, redelivered: bool) {
        let properties = &sent.properties;
        let mut table = FieldTable::default();
        for (name, value) in &properties.headers {
            table.insert(short(name), match value {
                HeaderValue::Text(text) => AMQPValue::LongString(text.as_ref().into()),
                HeaderValue::Int(int) => AMQPValue::LongLongInt(*int),
            });
        }
        // What is neither text nor integer is left out, and what follows it is still found.
        let mut array = FieldArray::default();
        array.push(AMQPValue::Boolean(true));
        array.push(AMQPValue::LongString(LongString::from("deep")));
        for (name, value) in [
            ("0-array", AMQPValue::FieldArray(array)),
            ("0-flag", AMQPValue::Boolean(true)),
            ("0-double", AMQPValue::Double(0.5)),
            ("0-nothing", AMQPValue::Void),
            ("0-time", AMQPValue::Timestamp(7)),
            ("0-table", AMQPValue::FieldTable(FieldTable::default())),
        ] {
            table.insert(short(name), value);
        }
        let mut basic = basic::AMQPProperties::default().with_headers(table).with_priority(3);
        if let Some(text) = &properties.message_id { basic = basic.with_message_id(short(text)); }
        if let Some(text) = &properties.correlation_id { basic = basic.with_correlation_id(short(text)); }
        if let Some(text) = &properties.reply_to { basic = basic.with_reply_to(short(text)); }
        if let Some(text) = &properties.kind { basic = basic.with_type(short(text)); }
        if let Some(text) = &properties.content_type { basic = basic.with_content_type(short(text)); }
        if let Some(text) = &properties.app_id { basic = basic.with_app_id(short(text)); }
        if let Some(at) = properties.timestamp { basic = basic.with_timestamp(at.timestamp().unsigned_abs()); }
        let deliver = basic::Deliver {
            consumer_tag: short("a"), delivery_tag: tag, redelivered, exchange: short(&sent.exchange),
            routing_key: short(&sent.routing_key),
        };
        let header = AMQPContentHeader { class_id: 60, body_size: sent.body.len() as u64, properties: basic };
        let mut bytes = write_by_reference(&AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))));
        bytes.extend(write_by_reference(&AMQPFrame::Header(1, header)));
        for part in sent.body.chunks(FRAME_MAX - 8) {
            bytes.extend(write_by_reference(&AMQPFrame::Body(1, part.to_vec())));
        }
        let (begins, got) = read(&bytes).expect("understood").expect("whole");
        prop_assert_eq!(begins, Begins::Delivered { tag, redelivered });
        prop_assert_eq!(got, Envelope { mandatory: false, ..sent });
        // However it is cut, it is a message that is not whole.
        let cut = usize::try_from(tag).unwrap_or(7) % bytes.len();
        prop_assert!(read(&bytes[..cut]).expect("so far understood").is_none() || sent_body_is_empty_after(&bytes, cut));
    }

    #[test]
    fn bytes_that_are_no_frames_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&bytes);
        let _ = Decoder(&bytes).header();
        let _ = Incoming::delivered(&mut Decoder(&bytes));
        let _ = Incoming::returned(&mut Decoder(&bytes));
    }

    #[test]
    fn a_message_with_a_wrong_byte_is_an_error_or_another_message(sent in envelope(), at: prop::sample::Index, byte: u8) {
        let mut encoder = Encoder::default();
        encoder.publish(&sent, FRAME_MAX).expect("written");
        // Our own header and body, behind a deliver.
        let deliver = basic::Deliver {
            consumer_tag: short("a"), delivery_tag: 1, redelivered: false, exchange: short(""), routing_key: short("k"),
        };
        let mut bytes = write_by_reference(&AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))));
        let (_, published) = frame(&encoder.0, FRAME_MAX).expect("a frame").expect("whole");
        bytes.extend_from_slice(&encoder.0[published..]);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes);
    }
}

/// A message without a body is whole with its header; one frame fewer is still one message.
fn sent_body_is_empty_after(bytes: &[u8], cut: usize) -> bool {
    read(&bytes[..cut]).ok().flatten().is_some_and(|(_, envelope)| envelope.body.is_empty())
}

#[test]
fn what_is_too_long_for_amqp_leaves_nothing_behind() {
    let mut encoder = Encoder::default();
    encoder.ack(1, false);
    let before = encoder.0.clone();
    let good = Envelope {
        exchange: String::new(),
        routing_key: "k".to_owned(),
        mandatory: true,
        properties: Properties::default(),
        body: Vec::new(),
    };
    let mut long = good.clone();
    long.properties.kind = Some("k".repeat(256));
    assert_eq!(encoder.publish(&long, FRAME_MAX), Err("the type is 256 bytes long, AMQP allows 255".to_owned()));
    let mut wide = good.clone();
    wide.properties.headers.insert("h".into(), "x".repeat(FRAME_MAX).into());
    assert!(encoder.publish(&wide, FRAME_MAX).is_err());
    assert_eq!(encoder.0, before);
    assert_eq!(encoder.publish(&good, FRAME_MAX), Ok(()));
}

#[test]
fn a_frame_longer_than_agreed_is_refused_before_it_is_waited_for() {
    let said = frame(&[1, 0, 1, 0, 1, 0, 0], FRAME_MAX).expect_err("refused");
    assert_eq!(said, "a frame of 65536 bytes, where 4096 bytes were agreed");
    assert!(frame(b"AMQP\0\0\x09\x01", FRAME_MAX).expect_err("refused").contains("another version"));
    assert_eq!(
        frame(&[8, 0, 0, 0, 0, 0, 0, 0xCF], FRAME_MAX),
        Err("a frame that does not end where it should".to_owned())
    );
    assert_eq!(frame(&[8, 0, 0, 0], FRAME_MAX), Ok(None));
}
