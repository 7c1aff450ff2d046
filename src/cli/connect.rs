//! Opens the store and the broker that the settings name.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::CliError;
use super::settings::{OidcSettings, Settings};
use crate::api::{self, AuthConfig, Oidc, OidcConfig};
use crate::broker::{self, Broker};
use crate::console;
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
/// When a token's role or hash makes no sense, or what is said of an issuer does not.
pub fn auth(settings: &Settings) -> Result<AuthConfig, CliError> {
    let mut entries = Vec::with_capacity(settings.tokens.len());
    for token in &settings.tokens {
        let wrong = |problem: String| {
            CliError::usage(format!("token `{}`: {problem}", super::output::escape(&token.name)))
                .help("see [[tokens]] in the settings file: name, role, sha256")
        };
        // What the audit log says of others must not be said of a token.
        if token.name.starts_with("oidc:") || token.name.starts_with("cli:") {
            return Err(wrong("a name cannot begin with `oidc:` or `cli:`".to_owned()));
        }
        let role = token.role.parse().map_err(wrong)?;
        entries.push(api::TokenEntry::hashed(&token.name, role, &token.sha256).map_err(wrong)?);
    }
    let auth = AuthConfig::new(entries);
    match &settings.oidc {
        Some(issuer) => Ok(auth.with_issuer(oidc(issuer)?)),
        None => Ok(auth),
    }
}

fn oidc(settings: &OidcSettings) -> Result<Oidc, CliError> {
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
    stop: CancellationToken,
) -> Result<(), CliError> {
    let console = console::router(coordinator.clone(), auth.clone(), stop.clone());
    api::serve(listener, api::router(coordinator, auth).merge(console), stop)
        .await
        .map_err(|error| CliError::failed(format!("the HTTP interface has failed: {error}")))
}
