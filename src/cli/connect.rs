//! Opens the store and the broker that the settings name.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::namespaces::Place;
use super::settings::OidcSettings;
use crate::api::{self, AuthConfig, Oidc, OidcConfig};
use crate::broker::{self, Broker};
use crate::console::{self, Links};
use crate::coordinator::Coordinator;
use crate::store::sealed::{EncryptedStore, MasterKeys};
use crate::store::{self, Store, StoreError};

/// Opens the store at `url`. Its schema is not looked at.
pub async fn store(url: &str) -> Result<Arc<dyn Store>, CliError> {
    Ok(store::open(url).await?)
}

/// The same for a namespace.
pub async fn store_of(place: &Place) -> Result<Arc<dyn Store>, CliError> {
    Ok(store::open_within(&place.store, &place.namespace).await?)
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

/// The same as the namespace sees it.
pub async fn broker_of(place: &Place) -> Result<Arc<dyn Broker>, CliError> {
    Ok(broker::within(broker(&place.broker).await?, &place.namespace))
}

/// The issuer of tokens that the settings name.
///
/// # Errors
/// When what is said of it makes no sense.
pub fn oidc(settings: &OidcSettings) -> Result<Oidc, CliError> {
    let wrong = |problem: String| {
        CliError::usage(format!("[oidc]: {}", super::output::escape(&problem)))
            .help("see [oidc] in the settings file: issuer, audience, jwks, algorithms, roles_claim, roles")
    };
    let mut roles = std::collections::BTreeMap::new();
    for (value, role) in &settings.roles {
        roles.insert(value.clone(), role.parse().map_err(wrong)?);
    }
    let config = OidcConfig {
        issuer: settings.issuer.clone(),
        audience: settings.audience.clone(),
        jwks: settings.jwks.clone(),
        algorithms: settings.algorithms.clone(),
        roles_claim: settings.roles_claim.clone(),
        roles,
    };
    Oidc::new(config).map_err(wrong)
}

/// Serves HTTP until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    coordinator: Coordinator,
    auth: AuthConfig,
    links: Links,
    stop: CancellationToken,
) -> Result<(), CliError> {
    let elsewhere = (links, console::Doors::default());
    let console = console::router_among(coordinator.clone(), auth.clone(), stop.clone(), elsewhere);
    api::serve(listener, api::router(coordinator, auth).merge(console), stop)
        .await
        .map_err(|error| CliError::failed(format!("the HTTP interface has failed: {error}")))
}
