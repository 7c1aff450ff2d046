//! Which namespaces there are, and whose tokens lead into which.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::api::auth::oidc::{Oidc, is_jwt};
use crate::api::auth::text::token_namespace;
use crate::api::auth::{AuthConfig, NAMESPACE, TokenEntry};
use crate::id::Namespace;

/// Which namespaces the holder of a token may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// These, of which the first is meant where nothing is said.
    Only(Vec<Namespace>),
    /// All that there are, as operators need it; the default one is meant where nothing is said.
    Every,
}

/// Which namespaces a server has, and the tokens of its settings. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Access(Arc<Inner>);

struct Inner {
    /// The default one first.
    namespaces: Vec<Namespace>,
    tokens: Vec<(TokenEntry, Reach)>,
    /// Whose tokens lead into the default namespace, too.
    issuer: Option<Arc<Oidc>>,
    /// Whether the store of one of them is known to have had a token.
    is_closed: Arc<AtomicBool>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("namespaces", &self.namespaces)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Access {
    /// A server with the default namespace and `others`. Without tokens everybody may do everything in all of them.
    pub fn new(others: Vec<Namespace>, tokens: Vec<(TokenEntry, Reach)>) -> Self {
        let others = others.into_iter().filter(|namespace| !namespace.is_default());
        let namespaces = std::iter::once(Namespace::default()).chain(others).collect();
        Self(Arc::new(Inner { namespaces, tokens, issuer: None, is_closed: Arc::default() }))
    }

    /// And with an issuer, whose tokens are for the default namespace.
    #[must_use]
    pub fn with_issuer(self, issuer: Oidc) -> Self {
        let (namespaces, tokens) = (self.0.namespaces.clone(), self.0.tokens.clone());
        let is_closed = self.0.is_closed.clone();
        Self(Arc::new(Inner { namespaces, tokens, issuer: Some(Arc::new(issuer)), is_closed }))
    }

    /// Every namespace, the default one first.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.0.namespaces
    }

    /// Whether everybody may do everything, as far as is known: a token in one of the stores closes all of them, once that
    /// store was asked for its tokens.
    pub fn is_open(&self) -> bool {
        self.is_open_but_for_the_stores() && !self.0.is_closed.load(Ordering::Relaxed)
    }

    /// Whether the settings alone let nobody in.
    pub(crate) fn is_open_but_for_the_stores(&self) -> bool {
        self.0.tokens.is_empty() && self.0.issuer.is_none()
    }

    /// Who is let into `namespace`: those whose tokens lead there, and nobody else.
    pub fn auth(&self, namespace: &Namespace) -> AuthConfig {
        let leads_there = |(_, reach): &&(TokenEntry, Reach)| reach.has(namespace);
        let tokens = self.0.tokens.iter().filter(leads_there).map(|(token, _)| token.clone()).collect();
        if !self.is_open_but_for_the_stores() {
            self.0.is_closed.store(true, Ordering::Relaxed);
        }
        let auth = AuthConfig::new(tokens).within(namespace.clone(), self.0.is_closed.clone());
        match &self.0.issuer {
            Some(issuer) if namespace.is_default() => auth.with_issuer(issuer.clone()),
            _ => auth,
        }
    }

    /// The namespace that a request is for. It is only looked for here: whether the caller may go there is found out there.
    pub(crate) fn namespace_of(&self, headers: &HeaderMap) -> Namespace {
        let named = headers.get(NAMESPACE).and_then(|name| name.to_str().ok()).and_then(|name| self.named(name));
        let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()).unwrap_or_default();
        let token = header.split_once(' ').map_or("", |(_, token)| token.trim());
        let open = self.opened_by(token);
        if self.is_open() {
            return named.or_else(|| open.first().cloned()).unwrap_or_default();
        }
        named.filter(|named| open.contains(named)).or_else(|| open.first().cloned()).unwrap_or_default()
    }

    /// The namespaces that a token may lead into, the one that is meant where nothing is said first.
    pub(crate) fn opened_by(&self, token: &str) -> Vec<Namespace> {
        match self.reach(|entry| entry.is(token)) {
            Some(reach) => self.within(reach),
            // One that lives in a store says in which; whether it does is known there alone.
            None => {
                let of_issuer = || (self.0.issuer.is_some() && is_jwt(token)).then(Namespace::default);
                let named = token_namespace(token).and_then(|name| self.named(name));
                named.or_else(of_issuer).into_iter().collect()
            }
        }
    }

    /// The namespaces that whoever holds this token may know of: none for a token that the settings do not know.
    pub(crate) fn known_to(&self, token: &str) -> Vec<Namespace> {
        self.reach(|entry| entry.is(token)).map_or_else(Vec::new, |reach| self.within(reach))
    }

    /// The namespaces that the token with this hash leads into, as the settings say.
    pub(crate) fn open_to(&self, hash: [u8; 32]) -> Vec<Namespace> {
        self.reach(|entry| entry.sha256() == hash).map_or_else(Vec::new, |reach| self.within(reach))
    }

    fn reach(&self, is_it: impl Fn(&TokenEntry) -> bool) -> Option<&Reach> {
        // All are looked at, so that the time taken tells nothing.
        self.0.tokens.iter().fold(None, |found, (entry, reach)| if is_it(entry) { Some(reach) } else { found })
    }

    fn within(&self, reach: &Reach) -> Vec<Namespace> {
        match reach {
            Reach::Only(namespaces) => namespaces.iter().filter(|namespace| self.has(namespace)).cloned().collect(),
            Reach::Every => self.0.namespaces.clone(),
        }
    }

    fn has(&self, namespace: &Namespace) -> bool {
        self.0.namespaces.contains(namespace)
    }

    pub(crate) fn named(&self, name: &str) -> Option<Namespace> {
        self.0.namespaces.iter().find(|namespace| namespace.as_str() == name).cloned()
    }
}

impl Reach {
    fn has(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Only(namespaces) => namespaces.contains(namespace),
            Self::Every => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::auth::Role;

    fn namespace(name: &str) -> Namespace {
        name.parse().expect("a name")
    }

    fn access() -> Access {
        let token = |name: &str, reach| (TokenEntry::plain(name, Role::Admin, &format!("{name}-token")), reach);
        Access::new(
            vec![namespace("acme"), namespace("beta")],
            vec![
                token("acme", Reach::Only(vec![namespace("acme")])),
                token("both", Reach::Only(vec![namespace("beta"), namespace("acme")])),
                token("all", Reach::Every),
                token("gone", Reach::Only(vec![namespace("removed")])),
            ],
        )
    }

    #[test]
    fn the_namespace_comes_from_the_token_and_the_header_chooses_among_its_own_only() {
        let of = |token: &str, header: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
            if let Some(header) = header {
                headers.insert(NAMESPACE, header.parse().expect("a header"));
            }
            access().namespace_of(&headers).to_string()
        };
        let stored = |namespace: &str| crate::api::auth::text::token_text(namespace, &[7; 32]);
        for (token, header, expected) in [
            ("acme-token", None, "acme"),
            ("acme-token", Some("beta"), "acme"),
            ("both-token", None, "beta"),
            ("both-token", Some("acme"), "acme"),
            ("both-token", Some("default"), "beta"),
            ("all-token", None, "default"),
            ("all-token", Some("beta"), "beta"),
            ("all-token", Some("nope"), "default"),
            (&*stored("acme"), None, "acme"),
            (&*stored("acme"), Some("beta"), "acme"),
            (&*stored("nope"), None, "default"),
            ("amends_acme_0123", None, "default"),
            ("gone-token", None, "default"),
            ("unknown", Some("acme"), "default"),
            ("", Some("acme"), "default"),
        ] {
            assert_eq!(of(token, header), expected, "{token} {header:?}");
        }
    }

    #[tokio::test]
    async fn a_namespace_lets_in_nobody_elses_tokens_and_is_never_open_beside_others() {
        let access = access();
        for (name, token, is_let_in) in [
            ("acme", "acme-token", true),
            ("acme", "both-token", true),
            ("acme", "all-token", true),
            ("beta", "acme-token", false),
            ("default", "both-token", false),
        ] {
            let found = access.auth(&namespace(name)).identify(token).await;
            assert_eq!(found.is_ok(), is_let_in, "{token} in {name}");
        }
        let only_acme = access.0.tokens[..1].to_vec();
        let lonely = Access::new(vec![namespace("acme")], only_acme).auth(&Namespace::default());
        assert!(
            !lonely.is_open().await.expect("it needs no store"),
            "no token leads there, which does not mean that none is asked for"
        );
    }

    #[tokio::test]
    async fn without_tokens_the_header_chooses_freely() {
        let open = Access::new(vec![namespace("acme")], Vec::new());
        let mut headers = HeaderMap::new();
        assert_eq!(open.namespace_of(&headers), Namespace::default());
        headers.insert(NAMESPACE, "acme".parse().expect("a header"));
        assert_eq!(open.namespace_of(&headers), namespace("acme"));
        assert!(open.auth(&namespace("acme")).is_open().await.expect("it needs no store"));
    }
}
