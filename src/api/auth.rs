//! Who may do what: bearer tokens with roles. Without tokens everybody may do everything, which is why that is only
//! for loopback addresses.

use std::net::SocketAddr;
use std::str::FromStr;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::api::problem::{
    FORBIDDEN, HOST_NOT_ALLOWED, NAMESPACE_UNKNOWN, ORIGIN_NOT_ALLOWED, Problem, UNAUTHENTICATED,
};
use crate::id::Namespace;

/// The header that says which namespace is meant, where there is a choice.
pub(crate) const NAMESPACE: &str = "amends-namespace";

/// The tokens that a server accepts. Empty: no token is needed.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    tokens: Vec<TokenEntry>,
    /// Whether a token is asked for although there is none that is accepted.
    is_closed: bool,
    namespace: Namespace,
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
}

/// Who asks; the name goes into the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) name: String,
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

    /// Whose it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it may do.
    pub(crate) fn role(&self) -> Role {
        self.role
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

impl AuthConfig {
    /// A server that accepts these tokens and no others; with none at all, everybody.
    pub fn new(tokens: Vec<TokenEntry>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// The same for one namespace of several.
    #[must_use]
    pub fn within(self, namespace: Namespace) -> Self {
        Self { namespace, ..self }
    }

    /// The same, where a token is asked for even if there are none: others have some, and nobody comes past them.
    #[must_use]
    pub fn closed(self) -> Self {
        Self { is_closed: true, ..self }
    }

    /// The namespace that it lets into.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.tokens.is_empty() && !self.is_closed
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

    /// Lets the caller through if it may do what the route asks for.
    pub(super) fn admit(&self, headers: &HeaderMap, right: Right, is_change: bool) -> Result<Caller, Problem> {
        if self.is_open() {
            same_machine(headers)?;
        }
        if is_change {
            same_origin(headers)?;
        }
        let anonymous = Caller { name: "anonymous".to_owned() };
        if self.is_open() || right == Right::Open {
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
        let Some(entry) = self.find(token.trim()) else { return Err(refused("this token is not accepted here")) };
        if !entry.role.may(right) {
            let (name, role, needed) = (&entry.name, entry.role.as_str(), right.least_role());
            let detail = format!("token `{name}` has the role {role}; this needs {needed}");
            return Err(Problem::new(FORBIDDEN, detail));
        }
        Ok(Caller { name: entry.name.clone() })
    }

    /// The token with its name and role, if it is one that is accepted here.
    pub(crate) fn find(&self, token: &str) -> Option<&TokenEntry> {
        self.find_hash(Sha256::digest(token).into())
    }

    /// The token whose SHA-256 is `hash`. Compares with every token, so that the time taken tells nothing.
    pub(crate) fn find_hash(&self, hash: [u8; 32]) -> Option<&TokenEntry> {
        let mut found = None;
        for entry in &self.tokens {
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
/// When others than this machine's users could reach it and no token is asked for.
pub fn check_bind(address: SocketAddr, auth: &AuthConfig) -> Result<(), String> {
    if auth.is_open() && !address.ip().to_canonical().is_loopback() {
        return Err(format!(
            "{address} can be reached from other machines, and no tokens are set: listen on 127.0.0.1, or set tokens"
        ));
    }
    Ok(())
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

    #[test]
    fn a_token_is_known_by_its_hash_and_gives_its_name() {
        let bearer = |token: &str| headers(&[("authorization", token)]);
        let admitted = auth().admit(&bearer("Bearer s3cret"), Right::Operate, true).expect("it is let in");
        assert_eq!(admitted.name, "ops");
        let code = |token: &str| auth().admit(&bearer(token), Right::Read, false).map_err(|p| p.code().to_owned());
        assert_eq!(code("bearer look").map(|caller| caller.name).as_deref(), Ok("eye"));
        for wrong in ["Bearer s3cre", "Bearer ", "Basic s3cret", "s3cret"] {
            assert_eq!(code(wrong).expect_err(wrong), "UNAUTHENTICATED");
        }
        assert!(TokenEntry::hashed("x", Role::Viewer, "abc").is_err());
    }

    #[test]
    fn roles_include_no_more_than_they_say() {
        let rights = [Right::Read, Right::Start, Right::Register, Right::Operate];
        let table = [
            (Role::Viewer, [true, false, false, false]),
            (Role::Starter, [true, true, false, false]),
            (Role::Registrar, [true, false, true, false]),
            (Role::Operator, [true, true, true, true]),
            (Role::Admin, [true, true, true, true]),
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

    #[test]
    fn a_change_from_a_page_of_another_site_is_refused() {
        let from = |origin: &str| {
            let given = headers(&[("host", "127.0.0.1:7070"), ("origin", origin)]);
            AuthConfig::default().admit(&given, Right::Start, true).map_err(|problem| problem.code().to_owned())
        };
        assert!(from("http://127.0.0.1:7070").is_ok());
        for origin in ["https://evil.example", "null", "http://127.0.0.1:8080"] {
            assert_eq!(from(origin).expect_err(origin), "ORIGIN_NOT_ALLOWED");
        }
    }

    #[test]
    fn without_tokens_only_loopback_is_listened_on() {
        let open = AuthConfig::default();
        for (address, is_fine) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("0.0.0.0:1", false), ("10.1.1.1:1", false)]
        {
            let address = address.parse().expect("an address");
            assert_eq!(check_bind(address, &open).is_ok(), is_fine, "{address}");
            assert!(check_bind(address, &auth()).is_ok());
        }
    }
}
