//! Replies and timers in, one [`transition`](crate::saga::transition) each, one commit, then publish; and recovery.
//!
//! ```text
//!   amends.replies ──> replies ──┐                    ┌──> publisher ──> amends.commands
//!   HTTP: start, operate ────────┼──> committer ──────┤
//!   due times in the store ──────┘   (plan in one     └──> acknowledgements, answers
//!                                     transaction)
//! ```

mod acknowledgements;
mod attempt;
mod backlog;
mod beside;
pub mod bulk;
mod children;
mod committer;
mod confirms;
#[expect(clippy::module_inception, reason = "the type is what the module is about")]
mod coordinator;
#[cfg(test)]
mod cost;
pub mod dead;
mod declare;
mod gates;
pub mod handle;
mod hooks;
mod latencies;
mod listeners;
mod metrics;
mod milestones;
mod on_the_way;
mod outbound;
pub mod overview;
pub mod participants;
pub mod pauses;
mod plan;
pub mod preview;
mod publisher;
mod recovery;
mod registry;
mod relatives;
mod replies;
mod requests;
mod reveal;
mod set_back;
mod signals;
mod starting;
mod telling;
mod timer;
mod traces;
mod unanswered;
mod versions;
pub mod view;
mod vitals;
mod work;

pub use coordinator::{Coordinator, CoordinatorOptions, Ended};
pub use gates::{Limits, Standing};
pub use handle::{CoordinatorError, Operate, OperatorAction, Registered, Start, StartOutcome};
pub use hooks::{Hook, HookEvent};
pub use metrics::Metrics;
pub use signals::{Signal, Target};
pub use versions::{Deprecate, Migrate, MigrationPlan};
pub use work::Heard;
