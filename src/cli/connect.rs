//! Opens the store and the broker that the settings name.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::settings::{ConsoleSettings, TokenEntry};
use crate::api::{self, AuthConfig};
use crate::broker::{self, Broker};
use crate::console::{self, Links};
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

/// Who is let in, as the settings say.
///
/// # Errors
/// When a token's role or hash makes no sense.
pub fn auth(tokens: &[TokenEntry]) -> Result<AuthConfig, CliError> {
    let mut entries = Vec::with_capacity(tokens.len());
    for token in tokens {
        let wrong = |problem: String| {
            CliError::usage(format!("token `{}`: {problem}", super::output::escape(&token.name)))
                .help("see [[tokens]] in the settings file: name, role, sha256")
        };
        let role = token.role.parse().map_err(wrong)?;
        entries.push(api::TokenEntry::hashed(&token.name, role, &token.sha256).map_err(wrong)?);
    }
    Ok(AuthConfig::new(entries))
}

/// Serves HTTP until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    coordinator: Coordinator,
    auth: AuthConfig,
    settings: ConsoleSettings,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let links = Links { trace: settings.trace_url };
    let console = console::router_with(coordinator.clone(), auth.clone(), links, stop.clone());
    api::serve(listener, api::router(coordinator, auth).merge(console), stop)
        .await
        .map_err(|error| CliError::failed(format!("the HTTP interface has failed: {error}")))
}
