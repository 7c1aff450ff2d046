//! amends: a saga coordinator.

#[cfg(feature = "typed")]
pub mod action;
#[cfg(feature = "server")]
pub mod api;
pub mod broker;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(feature = "coordinator")]
pub mod coordinator;
#[cfg(feature = "coordinator")]
pub mod definition;
#[doc(hidden)]
pub mod failpoint;
pub mod id;
pub mod message;
#[cfg(feature = "participant")]
pub mod participant;
pub mod payload;
#[cfg(feature = "coordinator")]
pub mod picture;
#[cfg(feature = "coordinator")]
pub mod saga;
#[cfg(feature = "coordinator")]
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
