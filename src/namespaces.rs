//! Several namespaces behind one address: each has an interface, a console, a coordinator, a store and names on the broker
//! of its own, and none knows of the others. What is in front finds out whose a request is, by its token, and passes it on.
//!
//! ```text
//!   request ──> front ───────────────> acme:    api, console ──> Coordinator, Store, Broker of acme
//!               (token, session       beta:    api, console ──> Coordinator, Store, Broker of beta
//!                or, where there is   default: ...
//!                a choice, header)
//! ```
//!
//! That is no decision about who may do what: each namespace checks the token again, among those that lead into it, and
//! refuses who means another.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::{self, Access, AuthConfig};
use crate::console::{self, Doors, Links};
use crate::coordinator::Coordinator;
use crate::id::Namespace;

/// The namespaces of a server, as far as they are there. Clones are handles to the same.
#[derive(Clone)]
pub struct Namespaces(Arc<Inner>);

struct Inner {
    access: Access,
    doors: Doors,
    links: Links,
    front: Router,
    /// Every namespace of `access`.
    houses: BTreeMap<Namespace, RwLock<House>>,
    stop: CancellationToken,
}

/// What serves one namespace.
#[derive(Clone)]
struct House {
    auth: AuthConfig,
    router: Router,
    coordinator: Result<Coordinator, String>,
}

impl House {
    fn away(access: &Access, namespace: &Namespace, reason: String) -> Self {
        let auth = access.auth(namespace).away();
        Self { router: api::away(auth.clone()), auth, coordinator: Err(reason) }
    }
}

impl Namespaces {
    /// All of `access`, of which none is there yet. The consoles' streams of changes end with `stop`, and their links lead
    /// where `links` says.
    pub fn new(access: Access, links: Links, stop: CancellationToken) -> Self {
        let away = |namespace: &Namespace| {
            (namespace.clone(), RwLock::new(House::away(&access, namespace, "it is being opened".to_owned())))
        };
        let houses = access.namespaces().iter().map(away).collect();
        let doors = Doors::new(access.clone());
        Self(Arc::new_cyclic(|this: &std::sync::Weak<Inner>| {
            let this = this.clone();
            let ready = get(move |headers: HeaderMap| {
                let this = this.clone();
                async move {
                    match this.upgrade() {
                        Some(inner) => Self(inner).ready(&headers).await,
                        None => api::health(Vec::new(), false).await,
                    }
                }
            });
            // Only what asks for no token comes here.
            let front = api::front(access.auth(&Namespace::default()), ready);
            Inner { access, doors, links, front, houses, stop }
        }))
    }

    /// From now on `namespace` is served by this coordinator, also to whom tokens of its store let in. Where it ever had one,
    /// no namespace of this server is open to everybody any more.
    pub async fn open(&self, namespace: &Namespace, coordinator: Coordinator) {
        let auth = self.0.access.auth(namespace).with_store(coordinator.store().clone());
        if let Err(error) = auth.is_open().await {
            // The first request asks again, and is answered once the store is.
            tracing::warn!(%namespace, %error, "whether the store has tokens is not known yet");
        }
        let (stop, elsewhere) = (self.0.stop.clone(), (self.0.links.clone(), self.0.doors.clone()));
        let console = console::router_among(coordinator.clone(), auth.clone(), stop, elsewhere);
        let router = api::router(coordinator.clone(), auth.clone()).merge(console);
        self.set(namespace, House { auth, router, coordinator: Ok(coordinator) });
    }

    /// Why `namespace` is not there.
    pub fn fail(&self, namespace: &Namespace, reason: String) {
        self.set(namespace, House::away(&self.0.access, namespace, reason));
    }

    /// The coordinators of those that are there.
    pub fn coordinators(&self) -> Vec<Coordinator> {
        self.0.houses.values().filter_map(|house| house_of(house).coordinator.ok()).collect()
    }

    /// Which namespaces there are, the default one first.
    pub fn names(&self) -> &[Namespace] {
        self.0.access.namespaces()
    }

    /// All of it as one interface, ready to serve.
    pub fn router(&self) -> Router {
        Router::new().fallback(dispatch).with_state(self.clone())
    }

    fn set(&self, namespace: &Namespace, house: House) {
        if let Some(place) = self.0.houses.get(namespace) {
            *place.write().unwrap_or_else(PoisonError::into_inner) = house;
        }
    }

    /// The interface that a request is for.
    fn find(&self, path: &str, headers: &HeaderMap) -> Router {
        let access = &self.0.access;
        if matches!(path, "/healthz" | "/readyz") {
            return self.0.front.clone();
        }
        let namespace = match path == "/console" || path.starts_with("/console/") {
            true => self.of_console(headers),
            false => access.namespace_of(headers),
        };
        self.house(&namespace).map_or_else(|| self.0.front.clone(), |house| house.router)
    }

    /// Whose console a visitor is in; who is in none yet, or in one that is away, comes to one that is there.
    fn of_console(&self, headers: &HeaderMap) -> Namespace {
        let access = &self.0.access;
        let is_here = |namespace: &Namespace| self.house(namespace).is_some_and(|house| house.coordinator.is_ok());
        let chosen = console::chosen(headers, access.is_open()).and_then(|name| access.named(name));
        chosen.filter(|namespace| is_here(namespace)).unwrap_or_else(|| {
            let namespace = if access.is_open() { access.namespace_of(headers) } else { Namespace::default() };
            let first = std::iter::once(&namespace).chain(access.namespaces()).find(|namespace| is_here(namespace));
            first.cloned().unwrap_or_default()
        })
    }

    fn house(&self, namespace: &Namespace) -> Option<House> {
        self.0.houses.get(namespace).map(house_of)
    }

    /// The namespaces that whoever holds this token may know of.
    async fn known_to(&self, token: &str) -> Vec<Namespace> {
        let known = self.0.access.known_to(token);
        if !known.is_empty() {
            return known;
        }
        // Not one of the settings: the namespace that it names has to say whether it is good.
        let Some(namespace) = self.0.access.opened_by(token).pop() else { return Vec::new() };
        match self.house(&namespace) {
            Some(house) if house.auth.identify(token).await.is_ok() => vec![namespace],
            _ => Vec::new(),
        }
    }

    /// Whether those namespaces that the caller may know of are ready; without a token, all of them, unnamed.
    async fn ready(&self, headers: &HeaderMap) -> Response {
        let access = &self.0.access;
        let token = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok()?.split_once(' '));
        let known = match token {
            Some((_, token)) => self.known_to(token.trim()).await,
            None if access.is_open() => access.namespaces().to_vec(),
            None => Vec::new(),
        };
        let asked = if known.is_empty() { access.namespaces() } else { &*known };
        let states = asked.iter().filter_map(|namespace| Some((namespace.clone(), self.house(namespace)?.coordinator)));
        api::health(states.collect(), !known.is_empty()).await
    }
}

fn house_of(place: &RwLock<House>) -> House {
    place.read().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn dispatch(State(namespaces): State<Namespaces>, request: Request) -> Response {
    let router = namespaces.find(request.uri().path(), request.headers());
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
