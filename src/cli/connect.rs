//! Opens the store and the broker that the settings name.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::settings::TokenEntry;
use crate::broker::{self, Broker};
use crate::coordinator::Coordinator;
use crate::store::{self, Store};

/// Opens the store at `url`. Its schema is not looked at.
pub async fn store(url: &str) -> Result<Arc<dyn Store>, CliError> {
    Ok(store::open(url).await?)
}

/// Opens the broker at `url`.
pub async fn broker(url: &str) -> Result<Arc<dyn Broker>, CliError> {
    Ok(broker::open(url).await?)
}

/// Serves HTTP until `stop`, to those who show one of `tokens`; to everybody when there are none.
pub async fn serve(
    _listener: TcpListener,
    _coordinator: Coordinator,
    _tokens: &[TokenEntry],
    _stop: CancellationToken,
) -> Result<(), CliError> {
    Err(CliError::failed("this build has no HTTP interface"))
}
