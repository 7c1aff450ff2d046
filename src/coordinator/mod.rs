//! Replies and timers in, one [`transition`](crate::saga) each, one commit, then publish; and recovery.

#[expect(clippy::module_inception, reason = "the type is what the module is about")]
mod coordinator;
pub mod handle;
mod metrics;

pub use coordinator::Coordinator;
pub use handle::{CoordinatorError, Operate, OperatorAction, Registered, Start, StartOutcome};
pub use metrics::Metrics;
