//! From our messages to the bytes of AMQP 0-9-1. What is sent often is written straight into one buffer; lapin's codec
//! is the reference that this is tested against.

use crate::message::{Envelope, HeaderValue, Properties};

/// AMQP's word for "survives a restart of the broker".
const PERSISTENT: u8 = 2;

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
/// Ends every frame.
pub(super) const END: u8 = 0xCE;
/// What a frame has besides its payload.
pub(super) const OVERHEAD: usize = 8;

/// The only channel of a connection.
pub(super) const CHANNEL: u16 = 1;

/// Class and method of everything that is sent or understood.
pub(super) mod method {
    pub(crate) type Id = (u16, u16);

    pub(crate) const START: Id = (10, 10);
    pub(crate) const START_OK: Id = (10, 11);
    pub(crate) const TUNE: Id = (10, 30);
    pub(crate) const TUNE_OK: Id = (10, 31);
    pub(crate) const OPEN: Id = (10, 40);
    pub(crate) const OPEN_OK: Id = (10, 41);
    pub(crate) const CLOSE: Id = (10, 50);
    pub(crate) const CLOSE_OK: Id = (10, 51);
    pub(crate) const BLOCKED: Id = (10, 60);
    pub(crate) const UNBLOCKED: Id = (10, 61);
    pub(crate) const CHANNEL_OPEN: Id = (20, 10);
    pub(crate) const CHANNEL_OPEN_OK: Id = (20, 11);
    pub(crate) const CHANNEL_CLOSE: Id = (20, 40);
    pub(crate) const QOS: Id = (60, 10);
    pub(crate) const QOS_OK: Id = (60, 11);
    pub(crate) const CONSUME: Id = (60, 20);
    pub(crate) const CONSUME_OK: Id = (60, 21);
    pub(crate) const CANCEL: Id = (60, 30);
    pub(crate) const PUBLISH: Id = (60, 40);
    pub(crate) const RETURN: Id = (60, 50);
    pub(crate) const DELIVER: Id = (60, 60);
    pub(crate) const ACK: Id = (60, 80);
    pub(crate) const REJECT: Id = (60, 90);
    pub(crate) const NACK: Id = (60, 120);
    pub(crate) const SELECT: Id = (85, 10);
    pub(crate) const SELECT_OK: Id = (85, 11);
}

/// Frames in the making.
#[derive(Default)]
pub(super) struct Encoder(pub(super) Vec<u8>);

impl Encoder {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// A short string.
    ///
    /// # Errors
    /// Says what is too long; what was written of the frame before must be given up.
    pub(super) fn short(&mut self, what: &str, text: &str) -> Result<(), String> {
        let length = u8::try_from(text.len())
            .map_err(|_| format!("the {what} is {} bytes long, AMQP allows 255", text.len()))?;
        self.u8(length);
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// A long string. Nothing that is handed in is anywhere near its limit of 4 GiB.
    pub(super) fn long(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    /// Writes something whose length stands before it.
    fn measured<T>(&mut self, write: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        let at = self.0.len();
        self.u32(0);
        let written = write(self)?;
        let length = u32::try_from(self.0.len() - at - 4).map_err(|_| "longer than AMQP allows".to_owned())?;
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        Ok(written)
    }

    pub(super) fn table(&mut self, write: impl FnOnce(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.measured(write)
    }

    /// A field of a table.
    pub(super) fn field(&mut self, name: &str, value: &HeaderValue) -> Result<(), String> {
        self.short("header's name", name)?;
        match value {
            HeaderValue::Text(text) => {
                self.u8(b'S');
                self.long(text.as_bytes());
            }
            HeaderValue::Int(int) => {
                self.u8(b'l');
                self.0.extend_from_slice(&int.to_be_bytes());
            }
        }
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        kind: u8,
        channel: u16,
        write: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.u8(kind);
        self.u16(channel);
        self.measured(write)?;
        self.u8(END);
        Ok(())
    }

    pub(super) fn method(
        &mut self,
        channel: u16,
        (class, method): method::Id,
        write: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        self.frame(METHOD, channel, |frame| {
            frame.u16(class);
            frame.u16(method);
            write(frame)
        })
    }

    pub(super) fn heartbeat(&mut self) {
        self.0.extend_from_slice(&[HEARTBEAT, 0, 0, 0, 0, 0, 0, END]);
    }

    pub(super) fn ack(&mut self, tag: u64, multiple: bool) {
        self.settlement(method::ACK, tag, multiple);
    }

    pub(super) fn reject(&mut self, tag: u64, requeue: bool) {
        self.settlement(method::REJECT, tag, requeue);
    }

    fn settlement(&mut self, (class, method): method::Id, tag: u64, flag: bool) {
        self.u8(METHOD);
        self.u16(CHANNEL);
        self.u32(13);
        self.u16(class);
        self.u16(method);
        self.u64(tag);
        self.u8(flag.into());
        self.u8(END);
    }

    /// A message: its method, its properties, and its body in as many frames as it needs.
    ///
    /// # Errors
    /// Says what AMQP cannot carry; nothing of the message is left behind then.
    pub(super) fn publish(&mut self, message: &Envelope, frame_max: usize) -> Result<(), String> {
        let before = self.0.len();
        let written = self.publish_all(message, frame_max);
        if written.is_err() {
            self.0.truncate(before);
        }
        written
    }

    fn publish_all(&mut self, message: &Envelope, frame_max: usize) -> Result<(), String> {
        self.method(CHANNEL, method::PUBLISH, |frame| {
            frame.u16(0);
            frame.short("exchange", &message.exchange)?;
            frame.short("routing key", &message.routing_key)?;
            frame.u8(message.mandatory.into());
            Ok(())
        })?;
        let before = self.0.len();
        self.frame(HEADER, CHANNEL, |frame| {
            frame.u16(method::PUBLISH.0);
            frame.u16(0);
            frame.u64(message.body.len() as u64);
            frame.properties(&message.properties)
        })?;
        if self.0.len() - before > frame_max {
            return Err(format!("the headers take {} bytes, the broker allows {frame_max}", self.0.len() - before));
        }
        for part in message.body.chunks(frame_max - OVERHEAD) {
            self.frame(BODY, CHANNEL, |frame| {
                frame.0.extend_from_slice(part);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn properties(&mut self, properties: &Properties) -> Result<(), String> {
        let Properties { message_id, correlation_id, reply_to, kind, content_type, timestamp, app_id, headers } =
            properties;
        let flag = |bit: u16, is_set: bool| if is_set { 1 << bit } else { 0 };
        self.u16(
            flag(15, content_type.is_some())
                | flag(13, true)
                | flag(12, true)
                | flag(10, correlation_id.is_some())
                | flag(9, reply_to.is_some())
                | flag(7, message_id.is_some())
                | flag(6, timestamp.is_some())
                | flag(5, kind.is_some())
                | flag(3, app_id.is_some()),
        );
        if let Some(text) = content_type {
            self.short("content type", text)?;
        }
        self.table(|table| {
            for (name, value) in headers {
                table.field(name, value)?;
            }
            Ok(())
        })?;
        self.u8(PERSISTENT);
        if let Some(text) = correlation_id {
            self.short("correlation id", text)?;
        }
        if let Some(text) = reply_to {
            self.short("reply address", text)?;
        }
        if let Some(text) = message_id {
            self.short("message id", text)?;
        }
        if let Some(at) = timestamp {
            self.u64(u64::try_from(at.timestamp()).unwrap_or_default());
        }
        if let Some(text) = kind {
            self.short("type", text)?;
        }
        if let Some(text) = app_id {
            self.short("application id", text)?;
        }
        Ok(())
    }
}
