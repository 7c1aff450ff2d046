//! amends: a saga coordinator.

pub mod broker;
pub mod clock;
#[cfg(feature = "coordinator")]
pub mod coordinator;
#[cfg(feature = "coordinator")]
pub mod definition;
pub mod id;
pub mod message;
pub mod payload;
#[cfg(feature = "coordinator")]
pub mod saga;
#[cfg(feature = "coordinator")]
pub mod store;
