//! Who may do what: bearer tokens with roles. Without tokens everybody may do everything, which is why that is only
//! for loopback addresses.
//!
//! A token is looked for among those of the settings, then among those of the store ([`stored`]); what neither knows and
//! looks like a JWT is shown to the issuer's keys, where there is one ([`oidc`]).

pub(crate) mod oidc;
mod stored;
pub(crate) mod text;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::problem::{
    FORBIDDEN, HOST_NOT_ALLOWED, ISSUER_UNAVAILABLE, NAMESPACE_UNKNOWN, ORIGIN_NOT_ALLOWED, Problem, UNAUTHENTICATED,
};
use crate::clock::Timestamp;
use crate::id::Namespace;
use crate::store::{Store, StoreError};
use oidc::Oidc;
use stored::StoredTokens;

/// The header that says which namespace is meant, where there is a choice.
pub(crate) const NAMESPACE: &str = "amends-namespace";

pub use stored::MOST_STALE;

/// Who is let in. With nothing set: everybody.
#[derive(Clone, Default)]
pub struct AuthConfig {
    tokens: Arc<[TokenEntry]>,
    stored: Option<Arc<StoredTokens>>,
    oidc: Option<Arc<Oidc>>,
    namespace: Namespace,
    /// Whether the namespace is still to be opened, so that nobody knows its store's tokens.
    is_away: bool,
    /// Whether a token is asked for although there is none that is accepted: another namespace of the server has some.
    is_closed: Arc<AtomicBool>,
}

/// One token that a server accepts, known by its hash alone.
///
/// A plain SHA-256 serves for tokens that are random (32 bytes or so); it would not for words that people think up.
#[derive(Clone)]
pub struct TokenEntry {
    name: String,
    role: Role,
    sha256: [u8; 32],
}

/// What the holder of a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, and starts sagas.
    Starter,
    /// Reads, and registers definitions.
    Registrar,
    /// Reads, starts, registers, and acts on sagas.
    Operator,
    /// Everything.
    Admin,
}

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// Nothing, not even a token.
    Open,
    /// To read.
    Read,
    /// To start sagas.
    Start,
    /// To register definitions.
    Register,
    /// To act on sagas.
    Operate,
    /// To see what is sensitive; each time is audited.
    Reveal,
}

/// Who asks; the name goes into the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) name: String,
}

/// Whom a token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) proof: Proof,
}

/// What an identity was shown with, which is what a session of the console rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A token of this SHA-256, good as long as it is found.
    Token([u8; 32]),
    /// An issuer's word, which holds until then.
    Issuer(Timestamp),
}

/// Why a token names nobody who may do anything.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It is not accepted; why not.
    Unknown(String),
    /// It is good, and its holder has no role here.
    NoRole(String),
    /// Nobody can say at the moment: the issuer's keys cannot be had.
    Issuer(String),
    /// Nobody can say at the moment: the store does not answer.
    Store(StoreError),
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Viewer, Self::Starter, Self::Registrar, Self::Operator, Self::Admin];

    /// The word in settings, for example `viewer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Starter => "starter",
            Self::Registrar => "registrar",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether this role includes `right`.
    pub fn may(self, right: Right) -> bool {
        match right {
            Right::Open | Right::Read => true,
            Right::Start => matches!(self, Self::Starter | Self::Operator | Self::Admin),
            Right::Register => matches!(self, Self::Registrar | Self::Operator | Self::Admin),
            Right::Operate => matches!(self, Self::Operator | Self::Admin),
            Right::Reveal => self == Self::Admin,
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.as_str() == word).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|role| role.as_str()).collect();
            format!("`{word}` is no role; known are {}", known.join(", "))
        })
    }
}

impl Right {
    /// The least role that has it, for documentation.
    pub(super) fn least_role(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Read => "viewer",
            Self::Start => "starter",
            Self::Register => "registrar",
            Self::Operate => "operator",
            Self::Reveal => "admin",
        }
    }
}

impl std::fmt::Debug for TokenEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenEntry").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl TokenEntry {
    /// The token whose SHA-256, in hexadecimal, is `sha256`.
    ///
    /// # Errors
    /// When `sha256` is not 64 hexadecimal digits.
    pub fn hashed(name: impl Into<String>, role: Role, sha256: &str) -> Result<Self, String> {
        let name = name.into();
        let mut hash = [0; 32];
        hex::decode_to_slice(sha256.trim(), &mut hash)
            .map_err(|_| format!("token `{name}`: sha256 must be 64 hexadecimal digits"))?;
        Ok(Self { name, role, sha256: hash })
    }

    /// Its SHA-256.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Whether `token` is it. Takes as long if it is not.
    pub(crate) fn is(&self, token: &str) -> bool {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.sha256.ct_eq(&hash).into()
    }

    /// The token itself.
    pub fn plain(name: impl Into<String>, role: Role, token: &str) -> Self {
        Self { name: name.into(), role, sha256: Sha256::digest(token).into() }
    }
}

impl std::fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (has_store, has_issuer) = (self.stored.is_some(), self.oidc.is_some());
        f.debug_struct("AuthConfig")
            .field("tokens", &self.tokens)
            .field("store", &has_store)
            .field("oidc", &has_issuer)
            .finish()
    }
}

impl From<TokenEntry> for Identity {
    fn from(entry: TokenEntry) -> Self {
        Self { name: entry.name, role: entry.role, proof: Proof::Token(entry.sha256) }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Unknown(why) => Self::new(UNAUTHENTICATED, why),
            Refused::NoRole(why) => Self::new(FORBIDDEN, why),
            Refused::Issuer(why) => Self::new(ISSUER_UNAVAILABLE, why),
            Refused::Store(error) => error.into(),
        }
    }
}

impl AuthConfig {
    /// A server that accepts these tokens and no others; with none at all, everybody.
    pub fn new(tokens: Vec<TokenEntry>) -> Self {
        Self { tokens: tokens.into(), ..Self::default() }
    }

    /// The same for one namespace of several, of which all are closed, by the same flag, once one has tokens: nobody comes
    /// past them.
    #[must_use]
    pub(crate) fn within(self, namespace: Namespace, is_closed: Arc<AtomicBool>) -> Self {
        Self { namespace, is_closed, ..self }
    }

    /// The same while its store is away: nobody can say whether a token of it is good.
    #[must_use]
    pub(crate) fn away(self) -> Self {
        Self { is_away: true, ..self }
    }

    /// The namespace that it lets into.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Refuses who means another namespace. Whether there is one of that name is not said.
    pub(super) fn check_namespace(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match headers.get(NAMESPACE) {
            Some(named) if named.as_bytes() != self.namespace.as_str().as_bytes() => {
                let named: String = String::from_utf8_lossy(named.as_bytes()).chars().take(60).collect();
                Err(Problem::new(NAMESPACE_UNKNOWN, format!("there is no namespace `{named}` for you")))
            }
            _ => Ok(()),
        }
    }

    /// And those of the store. What is known of them is [`MOST_STALE`] old at most.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn Store>) -> Self {
        Self { stored: Some(Arc::new(StoredTokens::new(store))), ..self }
    }

    /// And those that an issuer has signed.
    #[must_use]
    pub fn with_issuer(self, oidc: impl Into<Arc<Oidc>>) -> Self {
        Self { oidc: Some(oidc.into()), ..self }
    }

    /// Whether everybody may do everything: no token is set, no issuer is, and the store never had one either.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn is_open(&self) -> Result<bool, StoreError> {
        if !self.is_open_as_known() {
            return Ok(false);
        }
        let is_closed = match &self.stored {
            Some(stored) => stored.any_ever().await?,
            None => false,
        };
        if is_closed {
            self.is_closed.store(true, Ordering::Relaxed);
        }
        Ok(!is_closed)
    }

    /// The same as far as is known without asking anybody.
    fn is_open_as_known(&self) -> bool {
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        let any_known = self.stored.as_ref().is_some_and(|stored| stored.any_known());
        self.is_open_but_for_the_store() && !is_closed && !any_known
    }

    /// Whether tokens of an issuer are accepted.
    pub(crate) fn has_issuer(&self) -> bool {
        self.oidc.is_some()
    }

    /// Whether the settings alone let nobody in.
    pub(crate) fn is_open_but_for_the_store(&self) -> bool {
        self.tokens.is_empty() && self.oidc.is_none()
    }

    /// Whether anybody could be let in with what there is now.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn lets_somebody_in(&self) -> Result<bool, StoreError> {
        if !self.is_open_but_for_the_store() {
            return Ok(true);
        }
        match &self.stored {
            Some(stored) => {
                let is_closed = stored.count().await? > 0;
                self.is_closed.fetch_or(is_closed, Ordering::Relaxed);
                Ok(is_closed)
            }
            None => Ok(false),
        }
    }

    /// Lets the caller through if it may do what the route asks for.
    pub(super) async fn admit(&self, headers: &HeaderMap, right: Right, is_change: bool) -> Result<Caller, Problem> {
        // What asks for nothing is answered also while the store is away.
        let is_open = if right == Right::Open { self.is_open_as_known() } else { self.is_open().await? };
        if is_open {
            same_machine(headers)?;
        }
        if is_change {
            same_origin(headers)?;
        }
        let anonymous = Caller { name: "anonymous".to_owned() };
        if is_open || right == Right::Open {
            return Ok(anonymous);
        }
        let refused = |detail: &str| Problem::new(UNAUTHENTICATED, detail);
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Err(refused("send a token in the header `Authorization: Bearer ...`"));
        };
        let (scheme, token) = header.to_str().ok().and_then(|header| header.split_once(' ')).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused("the Authorization header must be `Bearer ...`"));
        }
        let found = self.identify(token.trim()).await?;
        if !found.role.may(right) {
            let (name, role, needed) = (&found.name, found.role.as_str(), right.least_role());
            let detail = format!("token `{name}` has the role {role}; this needs {needed}");
            return Err(Problem::new(FORBIDDEN, detail));
        }
        Ok(Caller { name: found.name })
    }

    /// Whom the token names.
    pub(crate) async fn identify(&self, token: &str) -> Result<Identity, Refused> {
        let hash = Sha256::digest(token).into();
        if let Some(entry) = self.find_set(hash) {
            return Ok(entry.clone().into());
        }
        match (text::token_namespace(token), &self.stored, &self.oidc) {
            (Some(named), Some(stored), _) if named == self.namespace.as_str() => {
                if let Some(entry) = stored.find(hash).await.map_err(Refused::Store)? {
                    return Ok(entry.into());
                }
            }
            (Some(named), None, _) if self.is_away && named == self.namespace.as_str() => {
                let why = "the namespace is not ready yet; the server goes on trying";
                return Err(Refused::Store(StoreError::Unavailable(why.to_owned())));
            }
            (None, _, Some(oidc)) if oidc::is_jwt(token) => return oidc.identify(token).await,
            _ => {}
        }
        Err(Refused::Unknown("this token is not accepted here".to_owned()))
    }

    /// Whom the token of this SHA-256 names, if it is accepted still.
    pub(crate) async fn find_hash(&self, hash: [u8; 32]) -> Result<Option<Identity>, StoreError> {
        if let Some(entry) = self.find_set(hash) {
            return Ok(Some(entry.clone().into()));
        }
        match &self.stored {
            Some(stored) => Ok(stored.find(hash).await?.map(Identity::from)),
            None => Ok(None),
        }
    }

    /// The token of the settings whose SHA-256 is `hash`. Compares with every one, so that the time taken tells nothing.
    fn find_set(&self, hash: [u8; 32]) -> Option<&TokenEntry> {
        let mut found = None;
        for entry in self.tokens.iter() {
            if bool::from(entry.sha256.ct_eq(&hash)) {
                found = Some(entry);
            }
        }
        found
    }
}

/// Whether a server may listen on `address` with these tokens.
///
/// # Errors
/// When others than this machine's users could reach it and no token is asked for, or there is none that is good; or when
/// nobody can say, since the store does not answer.
pub async fn check_bind(address: SocketAddr, auth: &AuthConfig) -> Result<(), String> {
    if address.ip().to_canonical().is_loopback() || auth.lets_somebody_in().await.map_err(|error| error.to_string())? {
        return Ok(());
    }
    Err(format!(
        "{address} can be reached from other machines, and no tokens are set: listen on 127.0.0.1, or set tokens"
    ))
}

/// A page in the user's browser could reach an open server under a name of its own that resolves to loopback (DNS
/// rebinding); the Host header gives it away.
pub(crate) fn same_machine(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_loopback(host) {
        return Ok(());
    }
    let detail = "without tokens only localhost, 127.0.0.1 and [::1] are answered; use one of them, or set tokens";
    Err(Problem::new(HOST_NOT_ALLOWED, detail))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    is_address || name == "localhost" || name.ends_with(".localhost")
}

/// A page of another site could send a change that the user never asked for; the Origin header gives it away.
pub(crate) fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let origin = origin.to_str().unwrap_or_default();
    if origin.split_once("://").is_some_and(|(_, site)| site.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(Problem::new(ORIGIN_NOT_ALLOWED, "changes are not accepted from pages of other sites"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (axum::http::HeaderName::from_static(name), value.parse().expect("a header"))
        };
        pairs.iter().map(pair).collect()
    }

    fn auth() -> AuthConfig {
        let hash = hex::encode(Sha256::digest("s3cret"));
        let hashed = TokenEntry::hashed("ops", Role::Operator, &hash).expect("a hash");
        AuthConfig::new(vec![hashed, TokenEntry::plain("eye", Role::Viewer, "look")])
    }

    #[tokio::test]
    async fn a_token_is_known_by_its_hash_and_gives_its_name() {
        let bearer = |token: &str| headers(&[("authorization", token)]);
        let admitted = auth().admit(&bearer("Bearer s3cret"), Right::Operate, true).await.expect("it is let in");
        assert_eq!(admitted.name, "ops");
        let code = async |token: &str| {
            auth().admit(&bearer(token), Right::Read, false).await.map_err(|problem| problem.code().to_owned())
        };
        assert_eq!(code("bearer look").await.map(|caller| caller.name).as_deref(), Ok("eye"));
        for wrong in ["Bearer s3cre", "Bearer ", "Basic s3cret", "s3cret"] {
            assert_eq!(code(wrong).await.expect_err(wrong), "UNAUTHENTICATED");
        }
        assert!(TokenEntry::hashed("x", Role::Viewer, "abc").is_err());
    }

    #[test]
    fn roles_include_no_more_than_they_say() {
        let rights = [Right::Read, Right::Start, Right::Register, Right::Operate, Right::Reveal];
        let table = [
            (Role::Viewer, [true, false, false, false, false]),
            (Role::Starter, [true, true, false, false, false]),
            (Role::Registrar, [true, false, true, false, false]),
            (Role::Operator, [true, true, true, true, false]),
            (Role::Admin, [true, true, true, true, true]),
        ];
        for (role, expected) in table {
            assert_eq!(rights.map(|right| role.may(right)), expected, "{role:?}");
            assert_eq!(role.as_str().parse(), Ok(role));
        }
    }

    #[test]
    fn an_open_server_answers_loopback_names_only() {
        for host in
            ["localhost", "localhost:7070", "127.0.0.1:7070", "127.1.2.3", "[::1]:7070", "a.localhost", "LOCALHOST."]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "0.0.0.0"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_change_from_a_page_of_another_site_is_refused() {
        let from = async |origin: &str| {
            let given = headers(&[("host", "127.0.0.1:7070"), ("origin", origin)]);
            let admitted = AuthConfig::default().admit(&given, Right::Start, true).await;
            admitted.map_err(|problem| problem.code().to_owned())
        };
        assert!(from("http://127.0.0.1:7070").await.is_ok());
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert_eq!(from(origin).await.expect_err(origin), "ORIGIN_NOT_ALLOWED");
        }
    }

    #[tokio::test]
    async fn without_tokens_only_loopback_is_listened_on() {
        let open = AuthConfig::default();
        for (address, is_fine) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("10.1.1.1:1", false)]
        {
            let address = address.parse().expect("an address");
            assert_eq!(check_bind(address, &open).await.is_ok(), is_fine, "{address}");
            assert!(check_bind(address, &auth()).await.is_ok());
        }
    }
}
