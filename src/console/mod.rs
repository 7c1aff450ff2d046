//! The operators' web console at `/console/`: pages rendered on the server, one file per page.
//!
//! ```text
//!   request ──> finish ──────> admit ───────────────> handler ──> Coordinator, Store
//!               (headers,      (host, origin,         (one file per page)
//!                failures       session, right)
//!                as pages)
//! ```
//!
//! Every route is one row of `routes::ROUTES`. Links are relative to the page that has them, so that the console works
//! under whatever path a proxy gives it. There is no script or style inside a page, and everything that comes from a
//! definition, a saga or a participant goes through the template engine, which escapes it.

mod actions;
mod assets;
mod attempts;
mod audit;
mod bulk;
mod chart;
mod dead;
mod definitions;
mod doors;
mod edit;
mod failure;
mod form;
mod guard;
mod history;
mod home;
mod json_tree;
mod layout;
mod live;
mod login;
mod migrate;
mod participants;
mod query;
mod routes;
mod saga;
mod sagas;
mod selection;
mod sequence;
mod session;
mod visit;
mod waterfall;
mod webhooks;
mod words;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::api::AuthConfig;
use crate::clock::Clock;
use crate::coordinator::Coordinator;
use crate::store::Store;

pub use doors::Doors;
pub use routes::{ConsoleRoute, route_table, router, router_among};
pub(crate) use visit::chosen;

/// What handlers work with.
#[derive(Clone)]
struct House(Arc<Inner>);

struct Inner {
    coordinator: Coordinator,
    auth: AuthConfig,
    /// For ages; nothing is decided by it.
    clock: Clock,
    /// What signs sessions, once it was read from the store.
    key: OnceCell<[u8; 32]>,
    links: Links,
    /// Ends the streams of changes.
    stop: CancellationToken,
    /// The ways to other namespaces.
    doors: Doors,
}

/// Where else things can be looked at, and for how long here.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// A trace: an address with `{traceId}` in it.
    pub trace: Option<String>,
    /// How long after their end sagas are archived; never unless set.
    pub retention: Option<Duration>,
}

impl House {
    fn coordinator(&self) -> &Coordinator {
        &self.0.coordinator
    }

    fn store(&self) -> &dyn Store {
        &**self.0.coordinator.store()
    }

    fn namespace(&self) -> &crate::id::Namespace {
        self.0.auth.namespace()
    }

    /// Where the trace of a saga can be looked at.
    fn trace_url(&self, saga: &crate::saga::Saga) -> Option<String> {
        let given = saga.trace.as_ref().map(|given| given.trace_id);
        let id = given.unwrap_or_else(|| crate::trace::trace_id(saga.id));
        self.0.links.trace.as_ref().map(|template| template.replace("{traceId}", &format!("{id:032x}")))
    }

    /// When a saga that has ended is archived at the earliest: with all that it has started, and not alone if it was started
    /// by another.
    fn leaves(&self, saga: &crate::saga::Saga) -> Option<crate::clock::Timestamp> {
        if saga.parent.is_some() {
            return None;
        }
        let kept = chrono::TimeDelta::from_std(self.0.links.retention?).ok()?;
        saga.ended_at?.checked_add_signed(kept)
    }

    fn now(&self) -> crate::clock::Timestamp {
        self.0.clock.now()
    }
}
