//! A connection with one channel. One task reads and writes it: whole batches of frames with one system call, confirms
//! and deliveries by the bufferful. Nothing here waits for a single message.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::decode::{Begins, Decoder, Frame, Incoming, frame};
use super::encode::{BODY, CHANNEL, Encoder, HEADER, HEARTBEAT, METHOD, OVERHEAD, method};
use super::handshake::{Agreed, Opening, Problem};
use super::stream::{self, Stream};
use super::unconfirmed::Unconfirmed;
use crate::broker::amqp::PRIORITY;
use crate::broker::amqp::address::Address;
use crate::broker::{Consuming, Published};
use crate::message::{Envelope, HeaderValue};

/// How long connecting may take, and everything that is asked for before messages flow.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the broker's part of a close in good order.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// What is read at once, at most.
const READ: usize = 256 * 1024;
/// A buffer that grew beyond this is given back once it is empty.
const KEPT: usize = 1024 * 1024;

/// A message for the consumer.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) tag: u64,
    pub(super) redelivered: bool,
    pub(super) envelope: Envelope,
}

/// A connection. It ends with `closed`, in good order; or when it is lost, or the broker closes it.
pub(super) struct Session(Arc<Shared>);

struct Shared {
    purpose: String,
    agreed: Agreed,
    out: Mutex<Out>,
    /// There is something to write.
    wake: Notify,
    /// How many bytes of what was handed over are written.
    written: watch::Sender<u64>,
    blocked: AtomicBool,
    /// It does not work any more.
    lost: CancellationToken,
    why: OnceLock<String>,
}

#[derive(Default)]
struct Out {
    encoder: Encoder,
    /// All the bytes that were ever handed over.
    total: u64,
    unconfirmed: Unconfirmed,
}

/// What a session is for.
pub(super) enum Purpose<'a> {
    Publish,
    Consume { queue: &'a str, how: Consuming, to: mpsc::UnboundedSender<Vec<Arrived>> },
}

impl Session {
    /// Connects, and begins what it is for.
    ///
    /// # Errors
    /// With what the broker said.
    pub(super) async fn open(
        address: &Address,
        purpose: Purpose<'_>,
        (closed, tasks): (&CancellationToken, &TaskTracker),
    ) -> Result<Arc<Self>, Problem> {
        let opening = async {
            let stream = stream::connect(address).await?;
            let name = match purpose {
                Purpose::Publish => "publish".to_owned(),
                Purpose::Consume { queue, .. } => format!("consume {queue}"),
            };
            let (mut opening, agreed) = Opening::open(stream, address, &name).await?;
            let to = begin(&mut opening, purpose).await?;
            Ok::<_, Problem>((opening, agreed, name, to))
        };
        let late = |_| Problem::Lost(format!("no answer within {OPEN_TIMEOUT:?}"));
        let (opening, agreed, purpose, to) = tokio::time::timeout(OPEN_TIMEOUT, opening).await.map_err(late)??;
        let shared = Arc::new(Shared {
            purpose,
            agreed,
            out: Mutex::default(),
            wake: Notify::new(),
            written: watch::Sender::new(0),
            blocked: AtomicBool::new(false),
            lost: closed.child_token(),
            why: OnceLock::new(),
        });
        tasks.spawn(run(shared.clone(), opening, to, closed.clone()));
        Ok(Arc::new(Self(shared)))
    }

    /// Whether it works, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        !self.0.lost.is_cancelled()
    }

    /// Whether the broker takes no messages for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.blocked.load(Ordering::Relaxed)
    }

    /// Waits until it does not work any more; says why.
    pub(super) async fn lost(&self) -> String {
        self.0.lost.cancelled().await;
        self.0.why.get().cloned().unwrap_or_else(|| "closed".to_owned())
    }

    /// It does not work any more.
    pub(super) fn lose(&self, why: &str) {
        self.0.lose(why);
    }

    /// Hands frames over to be written.
    pub(super) fn send(&self, write: impl FnOnce(&mut Encoder)) {
        self.0.out(|out| out.write(write));
        self.0.wake.notify_one();
    }

    /// Hands a batch over to be published. Returns once it is written: what became of it comes later.
    pub(super) async fn publish(&self, messages: Vec<Envelope>) -> oneshot::Receiver<Vec<Published>> {
        let (mut encoder, mut impossible) = (Encoder::default(), Vec::new());
        for (at, message) in messages.iter().enumerate() {
            if let Err(why) = encoder.publish(message, self.0.agreed.frame_max) {
                impossible.push((at, why));
            }
        }
        let (outcome, upto) = self.0.out(|out| {
            // Tags count in the order in which messages are written.
            out.write(|all| match all.0.is_empty() {
                true => *all = encoder,
                false => all.0.extend_from_slice(&encoder.0),
            });
            (out.unconfirmed.begin(messages, impossible), out.total)
        });
        if !self.is_alive() {
            self.0.give_up();
        }
        self.0.wake.notify_one();
        let mut written = self.0.written.subscribe();
        tokio::select! {
            _ = written.wait_for(|written| *written >= upto) => {}
            () = self.0.lost.cancelled() => {}
        }
        outcome
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.0.lose("closed");
    }
}

impl Out {
    fn write(&mut self, write: impl FnOnce(&mut Encoder)) {
        let before = self.encoder.0.len();
        write(&mut self.encoder);
        self.total += (self.encoder.0.len() - before) as u64;
    }
}

impl Shared {
    fn out<T>(&self, act: impl FnOnce(&mut Out) -> T) -> T {
        act(&mut self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lose(&self, why: &str) {
        let _ = self.why.set(why.to_owned());
        self.lost.cancel();
    }

    /// Whoever waits for confirms is told that none will come.
    fn give_up(&self) {
        let why = self.why.get().map_or("closed", String::as_str);
        self.out(|out| out.unconfirmed.lose(why));
    }
}

/// Asks for what the session is for. What the broker refuses is told with its own words.
async fn begin(
    opening: &mut Opening,
    purpose: Purpose<'_>,
) -> Result<Option<mpsc::UnboundedSender<Vec<Arrived>>>, Problem> {
    match purpose {
        Purpose::Publish => {
            let select = |ask: &mut Encoder| {
                ask.u8(0);
                Ok(())
            };
            opening.ask(CHANNEL, method::SELECT, select).await?;
            opening.answer(method::SELECT_OK, |_| Ok(())).await?;
            Ok(None)
        }
        Purpose::Consume { queue, how, to } => {
            let qos = |ask: &mut Encoder| {
                ask.u32(0);
                // AMQP's 0 is "no limit": there always is one here.
                ask.u16(how.prefetch.max(1));
                ask.u8(0);
                Ok(())
            };
            opening.ask(CHANNEL, method::QOS, qos).await?;
            opening.answer(method::QOS_OK, |_| Ok(())).await?;
            let consume = |ask: &mut Encoder| {
                ask.u16(0);
                ask.short("queue name", queue)?;
                ask.short("consumer tag", "")?;
                ask.u8(0);
                ask.table(|arguments| match how.priority {
                    0 => Ok(()),
                    priority => arguments.field(PRIORITY, &HeaderValue::Int(priority)),
                })
            };
            opening.ask(CHANNEL, method::CONSUME, consume).await?;
            opening.answer(method::CONSUME_OK, |_| Ok(())).await?;
            Ok(Some(to))
        }
    }
}

async fn run(
    shared: Arc<Shared>,
    Opening { stream, unread, .. }: Opening,
    to: Option<mpsc::UnboundedSender<Vec<Arrived>>>,
    closed: CancellationToken,
) {
    let (reader, writer) = tokio::io::split(stream);
    let mut reading = Reading { shared: shared.clone(), to, incoming: None, arrived: Vec::new() };
    let exchange = async {
        tokio::select! {
            why = reading.run(reader, unread) => why,
            why = write(&shared, writer) => why,
        }
    };
    let mut exchange = std::pin::pin!(exchange);
    let why = tokio::select! {
        why = &mut exchange => why,
        // By `closed`, or because whoever had it does not want it any more.
        () = shared.lost.cancelled() => {
            shared.out(|out| out.write(|out| drop(out.method(0, method::CLOSE, |close| {
                close.u16(200);
                close.short("reply text", "closed")?;
                close.u32(0);
                Ok(())
            }))));
            shared.wake.notify_one();
            tokio::time::timeout(CLOSE_TIMEOUT, &mut exchange).await.unwrap_or_else(|_| "closed".to_owned())
        }
    };
    if closed.is_cancelled() {
        shared.lose("this program has closed the connection");
    } else if !shared.lost.is_cancelled() {
        tracing::warn!(purpose = shared.purpose, why, "the connection is gone");
    }
    shared.lose(&why);
    shared.give_up();
}

/// Writes what is handed over, and now and then a sign of life; returns why no more can be written.
async fn write(shared: &Shared, mut writer: WriteHalf<Box<dyn Stream>>) -> String {
    // Twice as often as promised, so that one that is late does no harm.
    let pause = shared.agreed.heartbeat.map_or(Duration::from_secs(3_600), |interval| interval / 2);
    let (mut bytes, mut total) = (Vec::new(), 0);
    loop {
        bytes.clear();
        if bytes.capacity() > KEPT {
            bytes = Vec::new();
        }
        shared.out(|out| std::mem::swap(&mut bytes, &mut out.encoder.0));
        if bytes.is_empty() {
            if tokio::time::timeout(pause, shared.wake.notified()).await.is_ok() {
                continue;
            }
            if shared.agreed.heartbeat.is_some() {
                shared.out(|out| out.write(Encoder::heartbeat));
            }
            continue;
        }
        let writing = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = writing.await {
            return error.to_string();
        }
        total += bytes.len() as u64;
        shared.written.send_replace(total);
    }
}

struct Reading {
    shared: Arc<Shared>,
    to: Option<mpsc::UnboundedSender<Vec<Arrived>>>,
    /// A message of which not all has come.
    incoming: Option<Incoming>,
    arrived: Vec<Arrived>,
}

impl Reading {
    /// Reads until nothing more can come; returns why.
    async fn run(&mut self, mut reader: ReadHalf<Box<dyn Stream>>, mut unread: Vec<u8>) -> String {
        // A sign of life may be late once.
        let patience = self.shared.agreed.heartbeat.map_or(Duration::from_secs(u32::MAX.into()), |pause| pause * 2);
        loop {
            let outcome = self.frames(&mut unread);
            if !self.arrived.is_empty()
                && let Some(to) = &self.to
                && to.send(std::mem::take(&mut self.arrived)).is_err()
            {
                return "nobody consumes any more".to_owned();
            }
            if let Err(why) = outcome {
                return why;
            }
            if unread.is_empty() && unread.capacity() > KEPT {
                unread = Vec::new();
            }
            unread.reserve(READ);
            match tokio::time::timeout(patience, reader.read_buf(&mut unread)).await {
                Ok(Ok(0)) => return "the broker closed the connection".to_owned(),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return format!("no sign of life from the broker for {patience:?}"),
            }
        }
    }

    /// Takes all whole frames.
    fn frames(&mut self, unread: &mut Vec<u8>) -> Result<(), String> {
        let mut at = 0;
        let outcome = loop {
            let rest = unread.get(at..).unwrap_or_default();
            match frame(rest, self.shared.agreed.frame_max - OVERHEAD) {
                Ok(Some((frame, length))) => {
                    at += length;
                    if let Err(why) = self.frame(&frame) {
                        break Err(why);
                    }
                }
                Ok(None) => break Ok(()),
                Err(why) => break Err(why),
            }
        };
        unread.drain(..at);
        outcome
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Result<(), String> {
        match frame.kind {
            METHOD => self.method(Decoder(frame.payload), frame.channel),
            HEADER => self.part(|incoming| incoming.header(frame.payload)),
            BODY => self.part(|incoming| incoming.body(frame.payload)),
            HEARTBEAT => Ok(()),
            kind => Err(format!("a frame of an unknown kind, {kind}")),
        }
    }

    fn method(&mut self, mut payload: Decoder<'_>, channel: u16) -> Result<(), String> {
        match payload.method()? {
            method::ACK => self.settled(&mut payload, &Published::Confirmed),
            method::NACK => self.settled(&mut payload, &Published::Refused),
            method::DELIVER => {
                self.incoming = Some(Incoming::delivered(&mut payload)?);
                Ok(())
            }
            method::RETURN => {
                self.incoming = Some(Incoming::returned(&mut payload)?);
                Ok(())
            }
            method::BLOCKED => {
                tracing::warn!(
                    purpose = self.shared.purpose,
                    reason = payload.short()?,
                    "the broker takes no messages for now"
                );
                self.shared.blocked.store(true, Ordering::Relaxed);
                Ok(())
            }
            method::UNBLOCKED => {
                tracing::info!(purpose = self.shared.purpose, "the broker takes messages again");
                self.shared.blocked.store(false, Ordering::Relaxed);
                Ok(())
            }
            method::CANCEL => Err("the broker ended the consumer".to_owned()),
            method::CLOSE | method::CHANNEL_CLOSE => Err(payload.said()?),
            method::CLOSE_OK => Err("closed".to_owned()),
            (class, method) => Err(format!("method {class}.{method} on channel {channel}, which nobody asked for")),
        }
    }

    fn settled(&self, payload: &mut Decoder<'_>, outcome: &Published) -> Result<(), String> {
        let (tag, flags) = (payload.u64()?, payload.u8()?);
        self.shared.out(|out| out.unconfirmed.settle(tag, flags & 1 == 1, outcome));
        Ok(())
    }

    fn part(&mut self, read: impl FnOnce(&mut Incoming) -> Result<(), String>) -> Result<(), String> {
        let incoming = self.incoming.as_mut().ok_or("a part of a message that has not begun")?;
        read(incoming)?;
        if !incoming.is_whole() {
            return Ok(());
        }
        let Some((begins, envelope)) = self.incoming.take().map(Incoming::take) else { return Ok(()) };
        match begins {
            Begins::Delivered { tag, redelivered } => self.arrived.push(Arrived { tag, redelivered, envelope }),
            Begins::Returned { why } => {
                if !self.shared.out(|out| out.unconfirmed.returned(&envelope, why)) {
                    let (id, key) = (&envelope.properties.message_id, &envelope.routing_key);
                    tracing::error!(?id, %key, "a message came back that was not sent");
                }
            }
        }
        Ok(())
    }
}
