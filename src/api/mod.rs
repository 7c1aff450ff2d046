//! The HTTP interface (section 6 of the contract): one file per resource.
//!
//! ```text
//!   request ──> finish ──> panics ──> admit ──────────> handler ──> Coordinator, Store
//!               (id, time, (500)      (host, origin,    (one file per resource)
//!                headers,              token, query)
//!                problems)
//! ```
//!
//! Every route is one row of `routes::ROUTES`: its right, its query parameters, its handler and its documentation.
//! What is not in the table is not served, and what is in it cannot be forgotten.

mod access;
mod advice;
mod audit;
pub(crate) mod auth;
mod body;
pub(crate) mod bulk;
pub(crate) mod dead;
mod definitions;
pub(crate) mod filter;
pub(crate) mod graph;
mod guard;
mod health;
pub(crate) mod history;
mod json;
mod openapi;
pub(crate) mod operate;
mod outbox;
mod overview;
mod participants;
pub(crate) mod problem;
pub(crate) mod query;
pub(crate) mod redact;
mod routes;
pub(crate) mod saga_view;
pub(crate) mod sagas;
mod serve;
mod signal;
mod start;
mod versions;
pub(crate) mod webhooks;

pub use access::{Access, Reach};
pub use auth::oidc::{Oidc, OidcConfig};
pub use auth::{AuthConfig, MOST_STALE, Right, Role, TokenEntry, check_bind};
pub use graph::look;
pub(crate) use health::health;
pub use routes::{RouteInfo, route_table, router};
pub(crate) use routes::{away, front};
pub use serve::serve;

use crate::clock::Clock;
use crate::coordinator::Coordinator;

/// What handlers work with.
#[derive(Clone)]
struct App {
    coordinator: Coordinator,
    /// For ages and `since=1h`; nothing is decided by it.
    clock: Clock,
}
