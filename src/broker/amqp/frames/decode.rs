//! From the bytes of AMQP 0-9-1 to our messages. The broker is trusted to speak AMQP, and not to do so without mistakes:
//! whatever comes is either understood or an error that ends the connection, and never a panic.

use super::encode::method::Id;
use super::encode::{END, OVERHEAD};
use crate::message::{Envelope, HeaderValue, Headers, Properties};

/// A frame without its frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) channel: u16,
    pub(super) payload: &'a [u8],
}

/// The first frame of `bytes`, if all of it is there, and its whole length.
///
/// # Errors
/// When this is no frame, or one longer than agreed.
pub(super) fn frame(bytes: &[u8], frame_max: usize) -> Result<Option<(Frame<'_>, usize)>, String> {
    let mut head = Decoder(bytes);
    let (Ok(kind), Ok(channel), Ok(length)) = (head.u8(), head.u16(), head.u32()) else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > frame_max {
        // What a broker of another protocol version says instead begins with these letters.
        let what =
            if bytes.starts_with(b"AMQP") { "another version of AMQP".to_owned() } else { format!("{length} bytes") };
        return Err(format!("a frame of {what}, where {frame_max} bytes were agreed"));
    }
    match (head.0.get(..length), head.0.get(length)) {
        (Some(payload), Some(&END)) => Ok(Some((Frame { kind, channel, payload }, length + OVERHEAD))),
        (Some(_), Some(_)) => Err("a frame that does not end where it should".to_owned()),
        _ => Ok(None),
    }
}

/// What is left to read of a payload.
pub(super) struct Decoder<'a>(pub(super) &'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a frame that ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("a frame that ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn short(&mut self) -> Result<String, String> {
        let length = self.u8()?;
        self.take(length.into()).map(text)
    }

    pub(super) fn long(&mut self) -> Result<&'a [u8], String> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// Which method this is.
    pub(super) fn method(&mut self) -> Result<Id, String> {
        Ok((self.u16()?, self.u16()?))
    }

    /// Code and text of a close or a return.
    pub(super) fn said(&mut self) -> Result<String, String> {
        Ok(format!("{} {}", self.u16()?, self.short()?))
    }

    /// A content header: how long the body is, and the properties.
    pub(super) fn header(&mut self) -> Result<(u64, Properties), String> {
        let (_class, _weight, length, flags) = (self.u16()?, self.u16()?, self.u64()?, self.u16()?);
        let has = |bit: u16| flags & (1 << bit) != 0;
        if has(0) {
            return Err("a message with properties that AMQP 0-9-1 does not know".to_owned());
        }
        let mut properties = Properties::default();
        if has(15) {
            properties.content_type = Some(self.short()?);
        }
        if has(14) {
            self.short()?;
        }
        if has(13) {
            properties.headers = self.headers()?;
        }
        if has(12) {
            self.u8()?;
        }
        if has(11) {
            self.u8()?;
        }
        if has(10) {
            properties.correlation_id = Some(self.short()?);
        }
        if has(9) {
            properties.reply_to = Some(self.short()?);
        }
        if has(8) {
            self.short()?;
        }
        if has(7) {
            properties.message_id = Some(self.short()?);
        }
        if has(6) {
            let seconds = i64::try_from(self.u64()?).ok();
            properties.timestamp = seconds.and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0));
        }
        if has(5) {
            properties.kind = Some(self.short()?);
        }
        if has(4) {
            self.short()?;
        }
        if has(3) {
            properties.app_id = Some(self.short()?);
        }
        Ok((length, properties))
    }

    /// A table of headers. Clients of other languages choose other widths; what is neither text nor an integer is left
    /// out.
    fn headers(&mut self) -> Result<Headers, String> {
        let mut table = Self(self.long()?);
        let mut headers = Headers::new();
        while !table.0.is_empty() {
            let name = table.short()?;
            if let Some(value) = table.value()? {
                headers.insert(name.into(), value);
            }
        }
        Ok(headers)
    }

    /// The names and texts of a table, as brokers describe themselves with.
    pub(super) fn skip_table(&mut self) -> Result<(), String> {
        self.long().map(drop)
    }

    /// A value, as RabbitMQ reads the types: `s` is a short integer, `l` and `L` both have a sign. Tables and arrays are
    /// passed over by their length: whoever publishes may nest them as deeply as a frame is long.
    fn value(&mut self) -> Result<Option<HeaderValue>, String> {
        let int = |int: i64| Ok(Some(HeaderValue::Int(int)));
        match self.u8()? {
            b'S' => Ok(Some(text(self.long()?).into())),
            b'b' => int(self.array().map(i8::from_be_bytes)?.into()),
            b'B' => int(self.u8()?.into()),
            b's' | b'U' => int(self.array().map(i16::from_be_bytes)?.into()),
            b'u' => int(self.u16()?.into()),
            b'I' => int(self.array().map(i32::from_be_bytes)?.into()),
            b'i' => int(self.u32()?.into()),
            b'l' | b'L' => int(self.array().map(i64::from_be_bytes)?),
            b't' => self.skip(1),
            b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'd' | b'T' => self.skip(8),
            b'V' => Ok(None),
            b'x' | b'F' | b'A' => self.long().map(|_| None),
            other => Err(format!("a header of an unknown type, {other:#x}")),
        }
    }

    fn skip(&mut self, count: usize) -> Result<Option<HeaderValue>, String> {
        self.take(count).map(|_| None)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How a message that arrives begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// Delivered to a consumer.
    Delivered { tag: u64, redelivered: bool },
    /// Published by this connection, and no queue took it: why.
    Returned { why: String },
}

/// A message on its way in: its method has come, then its header, then its body in parts.
pub(super) struct Incoming {
    begins: Begins,
    envelope: Envelope,
    /// How much of the body is still to come; not known before the header has come.
    left: Option<u64>,
}

impl Incoming {
    pub(super) fn delivered(method: &mut Decoder<'_>) -> Result<Self, String> {
        let _consumer = method.short()?;
        let (tag, redelivered) = (method.u64()?, method.u8()? & 1 == 1);
        Self::begin(Begins::Delivered { tag, redelivered }, method)
    }

    pub(super) fn returned(method: &mut Decoder<'_>) -> Result<Self, String> {
        let why = method.said()?;
        Self::begin(Begins::Returned { why }, method)
    }

    fn begin(begins: Begins, method: &mut Decoder<'_>) -> Result<Self, String> {
        let envelope = Envelope {
            exchange: method.short()?,
            routing_key: method.short()?,
            mandatory: false,
            properties: Properties::default(),
            body: Vec::new(),
        };
        Ok(Self { begins, envelope, left: None })
    }

    pub(super) fn header(&mut self, payload: &[u8]) -> Result<(), String> {
        if self.left.is_some() {
            return Err("two headers for one message".to_owned());
        }
        let (length, properties) = Decoder(payload).header()?;
        self.envelope.properties = properties;
        // The length is a promise only: memory is taken as the parts arrive.
        self.envelope.body.reserve_exact(usize::try_from(length).unwrap_or_default().min(1 << 20));
        self.left = Some(length);
        Ok(())
    }

    pub(super) fn body(&mut self, payload: &[u8]) -> Result<(), String> {
        let left = self.left.ok_or("a body without its header")?;
        self.left = Some(left.checked_sub(payload.len() as u64).ok_or("a body longer than its header says")?);
        self.envelope.body.extend_from_slice(payload);
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.left == Some(0)
    }

    pub(super) fn take(self) -> (Begins, Envelope) {
        (self.begins, self.envelope)
    }
}
