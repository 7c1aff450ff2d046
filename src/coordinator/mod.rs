//! Replies and timers in, one [`transition`](crate::saga) each, one commit, then publish; and recovery.

pub mod handle;

pub use handle::{CoordinatorError, Operate, Registered, Start, StartOutcome};
