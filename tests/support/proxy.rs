//! A TCP proxy that does to a connection what networks do: cuts it, stalls it, lets nobody through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    Refuse,
    /// Every piece takes so long.
    Slow(Duration),
    /// What the server says is kept back when these bytes are in it, and the connection is cut.
    Swallow(&'static [u8]),
    /// AMQP's `basic.cancel` from the server is taken out of what it says.
    Uncancelled,
}

/// A proxy in front of one server; ends, with its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts the cuts.
    cuts: watch::Sender<u32>,
    accepted: Arc<AtomicU32>,
    /// Pieces that were delayed, or kept back.
    harmed: Arc<AtomicU32>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// A proxy in front of the server that `url` names.
    pub async fn before(url: &str) -> Self {
        let target = reqwest::Url::parse(url).expect("a URL");
        let target = (target.host_str().expect("a host").to_owned(), target.port().expect("a port"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let (mode, cuts) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let accepted = Arc::new(AtomicU32::new(0));
        let harmed = Arc::new(AtomicU32::new(0));
        let wire = Wire { mode: mode.clone(), harmed: harmed.clone() };
        let accepting = accept(listener, target, wire, cuts.clone(), accepted.clone());
        Self { address, mode, cuts, accepted, harmed, _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) }
    }

    /// `url` with the proxy in the server's place.
    pub fn url(&self, url: &str) -> String {
        let mut url = reqwest::Url::parse(url).expect("a URL");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(self.address.port())).expect("a port");
        url.to_string()
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.cuts.receiver_count()
    }

    /// How many connections were let through.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Cuts every connection; new ones are let through as before.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on bytes stay where they are, in both directions, while connections stay open.
    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    /// Cuts every connection and closes new ones at once.
    pub fn refuse(&self) {
        self.mode.send_replace(Mode::Refuse);
        self.cut();
    }

    /// From now on everything takes `delay` longer, in both directions.
    pub fn slow(&self, delay: Duration) {
        self.mode.send_replace(Mode::Slow(delay));
    }

    /// From now on an answer that holds `bytes` never arrives: its connection is cut instead.
    pub fn swallow(&self, bytes: &'static [u8]) {
        self.mode.send_replace(Mode::Swallow(bytes));
    }

    /// From now on nobody hears that the broker ends a consumer.
    pub fn hide_cancels(&self) {
        self.mode.send_replace(Mode::Uncancelled);
    }

    /// How many pieces were delayed or kept back so far.
    pub fn harmed(&self) -> u32 {
        self.harmed.load(Ordering::SeqCst)
    }

    /// Everything goes through again, also what was stalled.
    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

/// What a connection's pumps share.
#[derive(Clone)]
struct Wire {
    mode: watch::Sender<Mode>,
    harmed: Arc<AtomicU32>,
}

async fn accept(
    listener: TcpListener,
    target: (String, u16),
    wire: Wire,
    cuts: watch::Sender<u32>,
    accepted: Arc<AtomicU32>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        if *wire.mode.borrow() == Mode::Refuse {
            continue;
        }
        accepted.fetch_add(1, Ordering::SeqCst);
        let (mut cut, wire, target) = (cuts.subscribe(), wire.clone(), target.clone());
        connections.spawn(async move {
            tokio::select! {
                () = carry(client, target, wire) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn carry(client: TcpStream, target: (String, u16), wire: Wire) {
    let Ok(server) = TcpStream::connect((target.0.as_str(), target.1)).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    // Whichever side ends first ends the connection.
    tokio::select! {
        () = pump(client_in, server_out, &wire, false) => {}
        () = pump(server_in, client_out, &wire, true) => {}
    }
}

async fn pump(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, wire: &Wire, is_answer: bool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut mode = wire.mode.subscribe();
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        let mut piece = buffer[..count].to_vec();
        let Ok(now) = mode.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| *mode) else { return };
        match now {
            Mode::Slow(delay) => {
                wire.harmed.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(delay).await;
            }
            Mode::Swallow(bytes) if is_answer && piece.windows(bytes.len()).any(|found| found == bytes) => {
                wire.harmed.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Mode::Uncancelled if is_answer => {
                while let Some(frame) = cancel(&piece) {
                    wire.harmed.fetch_add(1, Ordering::SeqCst);
                    piece.drain(frame);
                }
            }
            _ => {}
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

/// Where a frame with the method `basic.cancel` (60.30) stands.
fn cancel(piece: &[u8]) -> Option<std::ops::Range<usize>> {
    let at = piece.windows(11).position(|bytes| bytes[0] == 1 && bytes[7..] == [0, 60, 0, 30])?;
    let length = u32::from_be_bytes(piece[at + 3..at + 7].try_into().expect("four bytes")) as usize;
    Some(at..at + 7 + length + 1)
}
