//! Messages as whole frames, for whoever tests how they are read and written with whatever bytes there are.

use super::decode::{Decoder, Incoming, frame};
use super::encode::{BODY, Encoder, HEADER, METHOD, method};
use crate::message::{Envelope, Properties};

/// The properties that the payload of a content header frame holds.
///
/// # Errors
/// Why it is none.
pub fn properties(payload: &[u8]) -> Result<Properties, String> {
    Decoder(payload).header().map(|(_, properties)| properties)
}

/// The frames that publish a message.
///
/// # Errors
/// What AMQP cannot carry.
pub fn written(message: &Envelope, frame_max: usize) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder::default();
    encoder.publish(message, frame_max).map(|()| encoder.0)
}

/// The properties and the body in the frames that publish a message.
///
/// # Errors
/// Where they are none.
pub fn read(mut bytes: &[u8], frame_max: usize) -> Result<(Properties, Vec<u8>), String> {
    let (mut found, mut body) = (Properties::default(), Vec::new());
    while let Some((frame, length)) = frame(bytes, frame_max)? {
        match frame.kind {
            HEADER => found = properties(frame.payload)?,
            BODY => body.extend_from_slice(frame.payload),
            _ => {}
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok((found, body))
}

/// The first message that the frames deliver, if all of it is there.
///
/// # Errors
/// Where they are no frames, or not those of a message.
pub fn delivered(mut bytes: &[u8], frame_max: usize) -> Result<Option<Envelope>, String> {
    let mut incoming: Option<Incoming> = None;
    while let Some((frame, length)) = frame(bytes, frame_max)? {
        bytes = bytes.get(length..).unwrap_or_default();
        match (frame.kind, &mut incoming) {
            (METHOD, incoming) => {
                let mut payload = Decoder(frame.payload);
                if payload.method()? == method::DELIVER {
                    *incoming = Some(Incoming::delivered(&mut payload)?);
                }
            }
            (HEADER, Some(incoming)) => incoming.header(frame.payload)?,
            (BODY, Some(incoming)) => incoming.body(frame.payload)?,
            _ => {}
        }
        if let Some(whole) = incoming.take_if(|incoming| incoming.is_whole()) {
            return Ok(Some(whole.take().1));
        }
    }
    Ok(None)
}
