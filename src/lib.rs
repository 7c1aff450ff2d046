//! A saga coordinator: a business operation that once was one database transaction, now split across services, is made
//! whole again. Every step either stands or is amended.
//!
//! This is the tour, in the order in which a saga's data flows; a module imports only from those before it. What the
//! words mean, and every wire format, is in `docs/contract.md`.
//!
//! - A team writes a [`definition`]: steps, each an action and its compensation, read from YAML or JSON, or built in Rust
//!   out of [`action`]s as types. It is checked before it ever runs, and drawn by [`picture`].
//! - [`saga::transition`] is the state machine: a pure function of a definition, a saga and an event.
//! - What is decided travels as a [`message`]: commands, replies, lifecycle events. All of a saga is one trace
//!   ([`trace`]), whose spans [`telemetry`] sends to a collector.
//! - A [`store`] (PostgreSQL, SQLite, memory) keeps sagas and their outbox; a [`broker`] (RabbitMQ, or one inside the
//!   process) carries messages.
//! - The [`coordinator`] brings these together: replies and timers in, transitions, one commit, then publishing.
//! - [`participant`] is the SDK for the services that do the work, and [`client`] the one for those who start sagas.
//! - [`testkit`] proves a saga without servers: every fault at every place, on virtual time.
//! - [`webhook`]s are told of sagas that get stuck. [`api`], [`console`] and [`cli`] are the binary: HTTP, the operators' pages, the command line.
//!
//! A coordinator inside a process of one's own, with its state in a file:
//!
//! ```
//! use std::sync::Arc;
//! use amends::broker::in_process::InProcessBroker;
//! use amends::coordinator::{Coordinator, CoordinatorOptions, Start};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("sagas.db");
//! let store = amends::store::open(&format!("sqlite://{}", file.display())).await?;
//! store.migrate().await?;
//! let broker = Arc::new(InProcessBroker::new());
//! let coordinator = Coordinator::launch(store, broker, CoordinatorOptions::default()).await?;
//! coordinator.register(include_str!("../sagas/place-order.yaml"), "me").await?;
//! let input = serde_json::json!({
//!     "orderId": "o-1", "customer": "c-7", "card": "4242", "total": 1200, "lines": [{ "sku": "lp-1", "quantity": 1 }]
//! });
//! coordinator.start(Start { saga: "place-order".into(), version: None, input: input.into(), key: None }).await?;
//! coordinator.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Cargo features
//!
//! `server` (the default) is the binary and everything else. A service needs `participant` with `postgres` or `sqlite` and
//! `amqp`; a caller `client`; an embedded coordinator `coordinator` with a store. `typed` brings actions as types,
//! `testkit` the test kit, `otlp` traces to an OpenTelemetry collector. `failpoints` is for this package's own tests.

// What everything stands on: names and numbers as types, time, JSON as text.
pub mod clock;
#[doc(hidden)]
pub mod failpoint;
pub mod id;
pub mod payload;
pub mod trace;

// What a saga is, and what becomes of it: pure.
#[cfg(feature = "typed")]
pub mod action;

#[cfg(feature = "coordinator")]
pub mod definition;

#[cfg(feature = "coordinator")]
pub mod saga;

#[cfg(feature = "coordinator")]
pub mod picture;

pub mod message;

pub mod telemetry;

// Where state lives, and how messages travel.
#[cfg(feature = "coordinator")]
pub mod store;

#[cfg(feature = "archive")]
pub mod archive;

pub mod broker;

#[cfg(feature = "coordinator")]
pub mod coordinator;

// For services, for tests, for callers.
#[cfg(feature = "participant")]
pub mod participant;

#[cfg(feature = "testkit")]
pub mod testkit;

#[cfg(feature = "client")]
pub mod client;

// The binary.
#[cfg(feature = "server")]
pub mod webhook;

#[cfg(feature = "server")]
pub mod api;

#[cfg(feature = "server")]
pub mod console;

#[cfg(feature = "server")]
pub mod namespaces;

#[cfg(feature = "server")]
pub mod cli;
