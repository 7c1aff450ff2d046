//! The way to the broker: TCP, and TLS over it for `amqps://`.

use std::sync::Arc;

use lapin::uri::AMQPScheme;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::broker::amqp::address::Address;

/// What a connection is read from and written to.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects; with TLS the broker's certificate is verified against the system's roots.
pub(super) async fn connect(address: &Address) -> Result<Box<dyn Stream>, String> {
    let uri = address.uri();
    let (host, port) = (uri.authority.host, uri.authority.port);
    let tcp = TcpStream::connect((&*host, port)).await.map_err(|error| error.to_string())?;
    // Whole batches are written at once: nothing is gained by waiting for more.
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    match uri.scheme {
        AMQPScheme::AMQP => Ok(Box::new(tcp)),
        AMQPScheme::AMQPS => {
            let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
            let secured = connector()?.connect(name, tcp).await;
            Ok(Box::new(secured.map_err(|error| error.to_string())?))
        }
    }
}

fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "none".to_owned(), ToString::to_string);
        return Err(format!("no certificate of an authority is found on this system: {why}"));
    }
    let provider = rustls::crypto::CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()));
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
