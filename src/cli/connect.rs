//! Opens the store and the broker that the settings name.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::settings::TokenEntry;
use crate::api::{self, AuthConfig};
use crate::broker::{self, Broker};
use crate::console;
use crate::coordinator::Coordinator;
use crate::store::sealed::{EncryptedStore, MasterKeys};
use crate::store::{self, Store, StoreError};

/// Opens the store at `url`. Its schema is not looked at.
pub async fn store(url: &str) -> Result<Arc<dyn Store>, CliError> {
    Ok(store::open(url).await?)
}

/// The store with its payloads encrypted, if there are keys for it.
pub fn encrypted(store: Arc<dyn Store>, masters: Option<MasterKeys>) -> Result<Sealed, CliError> {
    Ok(match masters {
        None => Sealed { store, check: None },
        Some(masters) => {
            let sealed = Arc::new(EncryptedStore::new(store, masters)?);
            Sealed { store: sealed.clone(), check: Some(sealed) }
        }
    })
}

/// A store, and what asks whether its keys are right.
pub struct Sealed {
    /// What to work with.
    pub store: Arc<dyn Store>,
    check: Option<Arc<EncryptedStore>>,
}

impl Sealed {
    /// Whether the keys are right. To be asked once the schema is there.
    ///
    /// # Errors
    /// Which key is missing or wrong.
    pub async fn check(&self) -> Result<(), StoreError> {
        match &self.check {
            Some(sealed) => sealed.check_keys().await,
            None => Ok(()),
        }
    }
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
    stop: CancellationToken,
) -> Result<(), CliError> {
    let console = console::router(coordinator.clone(), auth.clone(), stop.clone());
    api::serve(listener, api::router(coordinator, auth).merge(console), stop)
        .await
        .map_err(|error| CliError::failed(format!("the HTTP interface has failed: {error}")))
}
