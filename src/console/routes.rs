//! The one table of the console's routes, and the router that is built from it.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, get, post};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::{AuthConfig, Right};
use crate::clock::Clock;
use crate::console::{
    Doors, House, Inner, Links, actions, assets, audit, bulk, dead, definitions, edit, failure, guard, home, live,
    login, migrate, participants, saga, sagas, selection, webhooks,
};
use crate::coordinator::Coordinator;

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) right: Right,
    handler: fn() -> MethodRouter<House>,
}

const fn page(path: &'static str, handler: fn() -> MethodRouter<House>) -> Route {
    Route { method: Method::GET, path, right: Right::Read, handler }
}

/// A page that only operators see.
const fn closed(path: &'static str, handler: fn() -> MethodRouter<House>) -> Route {
    Route { method: Method::GET, path, right: Right::Operate, handler }
}

const fn open(method: Method, path: &'static str, handler: fn() -> MethodRouter<House>) -> Route {
    Route { method, path, right: Right::Open, handler }
}

const fn change(path: &'static str, right: Right, handler: fn() -> MethodRouter<House>) -> Route {
    Route { method: Method::POST, path, right, handler }
}

/// Every route that there is.
pub(super) const ROUTES: &[Route] = &[
    open(Method::GET, "/console", || get(home::slash)),
    open(Method::GET, "/console/assets/{file}", || get(assets::serve)),
    open(Method::GET, "/console/login", || get(login::show)),
    open(Method::POST, "/console/login", || post(login::enter)),
    change("/console/logout", Right::Read, || post(login::leave)),
    change("/console/theme", Right::Read, || post(login::theme)),
    change("/console/namespace", Right::Read, || post(login::change)),
    page("/console/", || get(home::show)),
    page("/console/sagas", || get(sagas::show)),
    change("/console/selection", Right::Read, || post(selection::show)),
    page("/console/bulk", || get(bulk::list)),
    change("/console/bulk", Right::Operate, || post(selection::start)),
    page("/console/bulk/{id}", || get(bulk::show)),
    change("/console/bulk/{id}/{word}", Right::Operate, || post(bulk::steer)),
    page("/console/sagas/{id}", || get(saga::show)),
    page("/console/sagas/{id}/history.json", || get(saga::download)),
    page("/console/sagas/{id}/edit", || get(edit::confirm)),
    change("/console/sagas/{id}/edit", Right::Operate, || post(edit::carry_out)),
    page("/console/sagas/{id}/migrate", || get(migrate::confirm)),
    change("/console/sagas/{id}/migrate", Right::Operate, || post(migrate::carry_out)),
    page("/console/sagas/{id}/{action}", || get(actions::confirm)),
    change("/console/sagas/{id}/{action}", Right::Operate, || post(actions::carry_out)),
    page("/console/definitions", || get(definitions::list)),
    page("/console/definitions/{name}/{version}", || get(definitions::show)),
    page("/console/participants/{name}", || get(participants::show)),
    page("/console/participants/{name}/{action}", || get(participants::confirm)),
    change("/console/participants/{name}/{action}", Right::Operate, || post(participants::carry_out)),
    page("/console/dead", || get(dead::show)),
    closed("/console/dead/{queue}", || get(dead::list)),
    closed("/console/dead/{queue}/{action}", || get(dead::confirm)),
    change("/console/dead/{queue}/{action}", Right::Operate, || post(dead::carry_out)),
    page("/console/webhooks", || get(webhooks::show)),
    page("/console/webhooks/{id}/{action}", || get(webhooks::confirm)),
    change("/console/webhooks/{id}/{action}", Right::Operate, || post(webhooks::carry_out)),
    page("/console/audit", || get(audit::show)),
    page("/console/events", || get(live::stream)),
    page("/console/revisions", || get(live::poll)),
    page("/console/{*rest}", || get(failure::unknown)),
];

/// A route as tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleRoute {
    /// The method.
    pub method: Method,
    /// The path, with `{names}` for its variable parts.
    pub path: &'static str,
    /// What it asks of its caller.
    pub right: Right,
}

/// Every route that the console serves.
pub fn route_table() -> Vec<ConsoleRoute> {
    let of = |route: &Route| ConsoleRoute { method: route.method.clone(), path: route.path, right: route.right };
    ROUTES.iter().map(of).collect()
}

/// The row of the table that serves `method` on the route `path`. HEAD is GET without a body.
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    // Inside another router the path begins with that one's.
    ROUTES.iter().find(|route| path.ends_with(route.path) && route.method == *method)
}

/// The console, ready to be merged with the HTTP interface. Its streams of changes end with `stop`.
pub fn router(coordinator: Coordinator, auth: AuthConfig, stop: CancellationToken) -> Router {
    router_among(coordinator, auth, stop, Default::default())
}

/// The same with links to elsewhere, and for one of several namespaces, whose consoles lead into each other for those who
/// may use them.
pub fn router_among(
    coordinator: Coordinator,
    auth: AuthConfig,
    stop: CancellationToken,
    (links, doors): (Links, Doors),
) -> Router {
    let (clock, key) = (Clock::System, OnceCell::new());
    let house = House(Arc::new(Inner { coordinator, auth, clock, key, links, stop, doors: doors.clone() }));
    doors.add(&house);
    let routes = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    routes
        .layer(CatchPanicLayer::custom(failure::panicked))
        .layer(axum::middleware::from_fn_with_state(house.clone(), guard::admit))
        .layer(axum::middleware::from_fn(guard::finish))
        .with_state(house)
}
