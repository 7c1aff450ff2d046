//! API tokens: who may use the HTTP interface and the console. A store knows them by their hashes alone.

use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::store::{Page, StoreError};

/// Tokens of one store that are good at the same time, at most: a coordinator keeps all of them in memory.
pub const MAX_LIVE: u32 = 1_000;
/// How much later than the last time a use is written down again.
pub const COARSE: Duration = Duration::from_secs(3_600);

/// A token as it is kept, without its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Grows.
    pub id: u64,
    /// Whose it is: written into the audit log. No two tokens have the same name, unless revoked.
    pub name: String,
    /// A word of the contract, for example `operator`.
    pub role: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// From when on it is no longer accepted.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, give or take [`COARSE`].
    pub last_used_at: Option<Timestamp>,
    /// Set once it was revoked.
    pub revoked: Option<RevokedToken>,
}

/// When, by whom and why a token was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokedToken {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Whose it is.
    pub name: String,
    /// A word of the contract.
    pub role: String,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
    /// By whom.
    pub created_by: String,
    /// How long it is good; for ever, if not given.
    pub lifetime: Option<Duration>,
    /// Why, for the audit log.
    pub reason: String,
}

/// What became of a token to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenMade {
    /// It is there, and so is its row in the audit log.
    New(ApiToken),
    /// There is a token of this name that was not revoked.
    NameTaken,
    /// There are [`MAX_LIVE`] already.
    TooMany,
}

/// What became of a revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is revoked, and there is a row in the audit log.
    Done(ApiToken),
    /// It was revoked before; nothing was written.
    Before(ApiToken),
    /// There was never a token of this name.
    Unknown,
}

/// A token that is good at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// Its id.
    pub id: u64,
    /// Whose it is.
    pub name: String,
    /// A word of the contract.
    pub role: String,
    /// SHA-256 of its text.
    pub sha256: [u8; 32],
    /// When it was last used, as far as it is written down.
    pub last_used_at: Option<Timestamp>,
}

/// The tokens that are good at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveTokens {
    /// That moment, by the store's clock.
    pub now: Timestamp,
    /// Whether there was ever any: a store in which all were revoked has none that is good, and is not open to everybody.
    pub any_ever: bool,
    /// Those that are neither revoked nor expired.
    pub tokens: Vec<LiveToken>,
}

/// A store that keeps tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Makes a token, with its audit row in the same transaction.
    async fn make_token(&self, token: &NewToken) -> Result<TokenMade, StoreError>;

    /// Revokes the token of this name, with an audit row in the same transaction.
    async fn revoke_token(&self, name: &str, by: &str, reason: &str) -> Result<Revocation, StoreError>;

    /// All tokens, revoked and expired ones too, newest first.
    async fn all_tokens(&self, page: &Page<u64>) -> Result<Vec<ApiToken>, StoreError>;

    /// Those that are good now.
    async fn live_tokens(&self) -> Result<LiveTokens, StoreError>;

    /// Writes down that a token was used now, unless that was done less than [`COARSE`] ago.
    async fn token_used(&self, id: u64) -> Result<(), StoreError>;
}

/// What the audit log tells of a token.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn audited(token: &ApiToken, action: &str) -> crate::store::AuditRecord {
    let mut detail = serde_json::json!({ "token": token.name, "tokenId": token.id, "role": token.role });
    if let Some(expires_at) = token.expires_at {
        detail["expiresAt"] = expires_at.to_rfc3339().into();
    }
    let (at, actor, reason) = match &token.revoked {
        Some(revoked) => (revoked.at, revoked.by.clone(), revoked.reason.clone()),
        None => (token.created_at, token.created_by.clone(), String::new()),
    };
    let (action, detail) = (action.to_owned(), crate::payload::Payload::from(detail));
    crate::store::AuditRecord { id: 0, at, actor, saga: None, action, reason, detail }
}
