//! What goes over the wire: commands, replies, lifecycle events; their headers and bodies, encoded and decoded
//! (section 5 of the contract). Pure: knows nothing of lapin.

pub mod command;
pub mod envelope;
pub mod lifecycle;
pub mod reply;
pub mod request;
#[cfg(feature = "coordinator")]
pub mod token;

pub use command::Command;
pub use envelope::{Envelope, HeaderValue, Headers, Properties};
pub use lifecycle::LifecycleEvent;
pub use reply::{Reply, ReplyBody};
#[cfg(feature = "coordinator")]
pub use token::{TokenKey, TokenKeys};
