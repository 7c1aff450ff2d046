//! A TCP proxy before a server, that can be closed and opened.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cli::error::CliError;

pub(super) struct Proxy {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Before the server that `url` names.
    pub(super) async fn before(url: &str) -> Result<Self, CliError> {
        let failed = |why: String| CliError::failed(format!("no proxy before the server: {why}"));
        let parsed = reqwest::Url::parse(url).map_err(|error| failed(error.to_string()))?;
        let host = parsed.host_str().unwrap_or("127.0.0.1").to_owned();
        let port = parsed.port().unwrap_or(if url.starts_with("amqp") { 5_672 } else { 5_432 });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| failed(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| failed(error.to_string()))?;
        let is_open = watch::Sender::new(true);
        let accepting = tokio::spawn(accept(listener, (host, port), is_open.clone()));
        Ok(Self { address, is_open, accepting })
    }

    /// `url` by way of the proxy.
    pub(super) fn url(&self, url: &str) -> Result<String, CliError> {
        let broken = || CliError::failed("the address has no place for a host and port");
        let mut url = reqwest::Url::parse(url).map_err(|_| broken())?;
        url.set_host(Some("127.0.0.1")).map_err(|_| broken())?;
        url.set_port(Some(self.address.port())).map_err(|()| broken())?;
        Ok(url.to_string())
    }

    /// Cuts every connection and takes no others, or takes them again.
    pub(super) fn open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: (String, u16), is_open: watch::Sender<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        let mut watched = is_open.subscribe();
        if !*watched.borrow_and_update() {
            continue;
        }
        let target = target.clone();
        connections.spawn(async move {
            let Ok(mut to) = TcpStream::connect(target).await else { return };
            // Small messages go as they come, as they would without a proxy.
            let _ = (from.set_nodelay(true), to.set_nodelay(true));
            tokio::select! {
                _ = copy_bidirectional(&mut from, &mut to) => {}
                _ = watched.wait_for(|is_open| !is_open) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
