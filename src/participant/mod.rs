//! The SDK for services that take part in sagas.
//!
//! A service author writes one handler per action and per compensation. A handler gets the command's input and an open
//! transaction of the service's own database; what it does there becomes durable together with the inbox row that
//! remembers the reply, so that however often the command is delivered, it takes effect once.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use amends::participant::{Participant, StepError, Work, refuse};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Deserialize)]
//! struct Pick { sku: String, quantity: i64 }
//!
//! #[derive(Serialize)]
//! struct Picked { left: i64 }
//!
//! async fn pick(input: Pick, mut work: Work<sqlx::Sqlite>) -> Result<Picked, StepError> {
//!     let left: Option<i64> = sqlx::query_scalar(
//!         "update stock set free = free - $1 where sku = $2 and free >= $1 returning free",
//!     )
//!     .bind(input.quantity)
//!     .bind(&input.sku)
//!     .fetch_optional(work.tx())
//!     .await?; // a database error is never a refusal: the coordinator tries again
//!     match left {
//!         Some(left) => Ok(Picked { left }),
//!         None => Err(refuse("out-of-stock", format!("not enough of {}", input.sku))),
//!     }
//! }
//!
//! async fn unpick(input: Pick, mut work: Work<sqlx::Sqlite>) -> Result<(), StepError> {
//!     sqlx::query("update stock set free = free + $1 where sku = $2")
//!         .bind(input.quantity)
//!         .bind(&input.sku)
//!         .execute(work.tx())
//!         .await?;
//!     Ok(())
//! }
//!
//! # async fn serve(pool: sqlx::SqlitePool, broker: Arc<dyn amends::broker::Broker>) -> Result<(), Box<dyn std::error::Error>> {
//! amends::participant::migrate(&pool).await?;
//! let warehouse = Participant::named("warehouse")
//!     .action("pick", pick)
//!     .action("unpick", unpick)
//!     .concurrency(16)
//!     .build(pool, broker)?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! warehouse.run(stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! What the runner keeps for every handler are the five rules of the contract's section 5:
//!
//! 1. the inbox row, the effect and the reply are one commit, the row first; a duplicate is sent the same reply again;
//! 2. a command is acknowledged only after its reply was confirmed;
//! 3. a compensation whose action never ran leaves a tombstone, which refuses the action should it come later;
//! 4. a refusal is a reply, never a requeue, and everything that is not a refusal is tried again;
//! 5. an unknown action is refused as `unknown-action`.
//!
//! The way through: [`builder`] collects handlers, `runner` takes commands from the broker and settles them,
//! `rules` decides what becomes of one, [`inbox`] keeps it, [`work`] is what a handler is given and [`error`] what it
//! may answer besides its output.

pub mod builder;
pub mod error;
pub mod inbox;
mod ledger;
mod rules;
mod runner;
mod spans;
pub mod stats;
pub mod work;

#[cfg(feature = "testkit")]
pub(crate) use builder::Limits;
#[cfg(feature = "testkit")]
pub(crate) use inbox::{Entry as InboxEntry, Recorded, Row};
#[cfg(feature = "testkit")]
pub(crate) use ledger::{Called, Ledger, SqlLedger};
#[cfg(feature = "testkit")]
pub(crate) use rules::{Handler, How, perform, unavailable};
#[cfg(feature = "testkit")]
pub(crate) use runner::Runner;
#[cfg(feature = "testkit")]
pub(crate) use work::Pulse;

pub use builder::{InvalidParticipant, Participant};
pub use error::{Refusal, RetryLater, StepError, refuse, retry_after};
pub use inbox::{Inbox, migrate, purge};
pub use runner::{RunError, RunningParticipant};
pub use stats::Stats;
pub use work::Work;
