//! A TCP proxy that does to a connection what networks do: cuts it, stalls it, lets nobody through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Stall,
    Refuse,
}

/// A proxy in front of one server; ends, with its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Counts the cuts.
    cuts: watch::Sender<u32>,
    accepted: Arc<AtomicU32>,
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
        let accepting = accept(listener, target, mode.clone(), cuts.clone(), accepted.clone());
        Self { address, mode, cuts, accepted, _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)) }
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

    /// Everything goes through again, also what was stalled.
    pub fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }
}

async fn accept(
    listener: TcpListener,
    target: (String, u16),
    mode: watch::Sender<Mode>,
    cuts: watch::Sender<u32>,
    accepted: Arc<AtomicU32>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        if *mode.borrow() == Mode::Refuse {
            continue;
        }
        accepted.fetch_add(1, Ordering::SeqCst);
        let (mut cut, mode, target) = (cuts.subscribe(), mode.clone(), target.clone());
        connections.spawn(async move {
            tokio::select! {
                () = carry(client, target, mode) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

async fn carry(client: TcpStream, target: (String, u16), mode: watch::Sender<Mode>) {
    let Ok(server) = TcpStream::connect((target.0.as_str(), target.1)).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    // Whichever side ends first ends the connection.
    tokio::select! {
        () = pump(client_in, server_out, mode.subscribe()) => {}
        () = pump(server_in, client_out, mode.subscribe()) => {}
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if mode.wait_for(|mode| *mode != Mode::Stall).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
