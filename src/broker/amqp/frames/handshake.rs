//! From a stream to an open channel: the questions and answers that begin a connection.

use std::time::Duration;

use lapin::uri::{AMQPUserInfo, SASLMechanism};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::decode::{Decoder, frame};
use super::encode::{CHANNEL, Encoder, HEARTBEAT, METHOD, OVERHEAD, method};
use super::stream::Stream;
use crate::broker::amqp::address::Address;

/// The largest frame that is agreed to: what RabbitMQ proposes.
const FRAME_MAX: u32 = 131_072;
/// The smallest that AMQP allows.
const FRAME_MIN: u32 = 4_096;

/// Why there is no connection, or no channel.
#[derive(Debug)]
pub(super) enum Problem {
    /// The broker's answer to what was asked for on the channel.
    Refused(String),
    /// Anything about the connection.
    Lost(String),
}

impl From<String> for Problem {
    fn from(why: String) -> Self {
        Self::Lost(why)
    }
}

/// What was agreed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    /// Bytes in a frame, its overhead included.
    pub(super) frame_max: usize,
    /// Both sides send something at least this often; `None`: nobody need.
    pub(super) heartbeat: Option<Duration>,
}

/// A connection that is being begun. Nothing is sent before it is asked for, so that every read is of one answer.
pub(super) struct Opening {
    pub(super) stream: Box<dyn Stream>,
    /// What was read and is not looked at yet.
    pub(super) unread: Vec<u8>,
    frame_max: usize,
}

impl Opening {
    /// Opens the connection and its channel. `purpose` is seen in the broker's list of connections.
    ///
    /// # Errors
    /// With what the broker said.
    pub(super) async fn open(
        stream: Box<dyn Stream>,
        address: &Address,
        purpose: &str,
    ) -> Result<(Self, Agreed), Problem> {
        let uri = address.uri();
        let mechanism = uri.query.auth_mechanism.unwrap_or_default();
        let response = response(mechanism, &uri.authority.userinfo)?;
        let mut this = Self { stream, unread: Vec::new(), frame_max: FRAME_MIN as usize };
        this.stream.write_all(b"AMQP\0\0\x09\x01").await.map_err(|error| error.to_string())?;
        // The properties of the broker may be more than the smallest frame has room for.
        this.frame_max = FRAME_MAX as usize;
        this.answer(method::START, |answer| {
            answer.u16()?;
            answer.skip_table()?;
            let mechanisms = String::from_utf8_lossy(answer.long()?);
            match mechanisms.split(' ').any(|offered| offered == mechanism.name()) {
                true => Ok(()),
                false => Err(format!("the broker does not offer {}, only {mechanisms}", mechanism.name())),
            }
        })
        .await?;
        let name = format!("amends {purpose}");
        this.ask(0, method::START_OK, |ask| {
            ask.table(|table| describe(table, &name))?;
            ask.short("mechanism", mechanism.name())?;
            ask.long(&response);
            ask.short("locale", "en_US")
        })
        .await?;
        let (frame_max, heartbeat) = this
            .answer(method::TUNE, |tune| {
                tune.u16()?;
                Ok((tune.u32()?, tune.u16()?))
            })
            .await?;
        let frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.clamp(FRAME_MIN, FRAME_MAX) };
        let heartbeat = match (heartbeat, uri.query.heartbeat.unwrap_or_default()) {
            (0, ours) | (ours, 0) => ours,
            (theirs, ours) => theirs.min(ours),
        };
        this.ask(0, method::TUNE_OK, |ask| {
            ask.u16(CHANNEL);
            ask.u32(frame_max);
            ask.u16(heartbeat);
            Ok(())
        })
        .await?;
        this.ask(0, method::OPEN, |ask| {
            ask.short("virtual host", &uri.vhost)?;
            ask.u16(0);
            Ok(())
        })
        .await?;
        this.answer(method::OPEN_OK, |_| Ok(())).await?;
        this.ask(CHANNEL, method::CHANNEL_OPEN, |ask| {
            ask.u8(0);
            Ok(())
        })
        .await?;
        this.answer(method::CHANNEL_OPEN_OK, |_| Ok(())).await?;
        let heartbeat = (heartbeat > 0).then(|| Duration::from_secs(heartbeat.into()));
        this.frame_max = frame_max as usize;
        Ok((this, Agreed { frame_max: frame_max as usize, heartbeat }))
    }

    /// Sends a method.
    pub(super) async fn ask(
        &mut self,
        channel: u16,
        method: method::Id,
        write: impl FnOnce(&mut Encoder) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut bytes = Encoder::default();
        bytes.method(channel, method, write)?;
        self.stream.write_all(&bytes.0).await.map_err(|error| error.to_string())?;
        self.stream.flush().await.map_err(|error| error.to_string())
    }

    /// Waits for a method. The broker's refusal is an error with what it said.
    pub(super) async fn answer<T>(
        &mut self,
        expected: method::Id,
        read: impl Fn(&mut Decoder<'_>) -> Result<T, String>,
    ) -> Result<T, Problem> {
        loop {
            let found = frame(&self.unread, self.frame_max - OVERHEAD)?;
            let Some((found, length)) = found else {
                let mut part = [0; 4_096];
                match self.stream.read(&mut part).await {
                    // RabbitMQ's way of refusing credentials of clients that do not understand more, and of saying that
                    // it is not ready.
                    Ok(0) => return Err("the broker closed the connection".to_owned().into()),
                    Ok(count) => self.unread.extend_from_slice(part.get(..count).unwrap_or_default()),
                    Err(error) => return Err(error.to_string().into()),
                }
                continue;
            };
            let outcome = match found.kind {
                METHOD => {
                    let mut payload = Decoder(found.payload);
                    match payload.method()? {
                        got if got == expected => Some(read(&mut payload).map_err(Problem::Lost)),
                        method::CHANNEL_CLOSE => Some(Err(Problem::Refused(payload.said()?))),
                        method::CLOSE => Some(Err(Problem::Lost(payload.said()?))),
                        method::BLOCKED | method::UNBLOCKED => None,
                        got => Some(Err(Problem::Lost(format!("method {got:?} where {expected:?} was expected")))),
                    }
                }
                HEARTBEAT => None,
                kind => Some(Err(Problem::Lost(format!("a frame of kind {kind}, where an answer was expected")))),
            };
            self.unread.drain(..length);
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }
}

fn response(mechanism: SASLMechanism, user: &AMQPUserInfo) -> Result<Vec<u8>, String> {
    match mechanism {
        SASLMechanism::Plain => Ok([b"\0", user.username.as_bytes(), b"\0", user.password.as_bytes()].concat()),
        SASLMechanism::External | SASLMechanism::Anonymous => Ok(Vec::new()),
        other => Err(format!("the mechanism {other} is not supported, only PLAIN, EXTERNAL and ANONYMOUS")),
    }
}

/// Who this is, and what it understands.
fn describe(table: &mut Encoder, name: &str) -> Result<(), String> {
    let text = |table: &mut Encoder, name: &str, value: &str| {
        table.short("property", name)?;
        table.u8(b'S');
        table.long(value.as_bytes());
        Ok::<_, String>(())
    };
    text(table, "product", "amends")?;
    text(table, "version", env!("CARGO_PKG_VERSION"))?;
    text(table, "platform", "Rust")?;
    text(table, "connection_name", name)?;
    table.short("property", "capabilities")?;
    table.u8(b'F');
    table.table(|capabilities| {
        for name in [
            "publisher_confirms",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "authentication_failure_close",
        ] {
            capabilities.short("capability", name)?;
            capabilities.u8(b't');
            capabilities.u8(1);
        }
        Ok(())
    })
}
