//! Proof under failure, for users' sagas and for our own: a saga on virtual time with planned faults, and an explorer
//! that tries every fault at every place. No servers, no sleeps.
//!
//! ```
//! use amends::testkit::Kit;
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let run = Kit::new(include_str!("../../sagas/place-order.yaml"))
//!     .fault("authorise-payment#*=timeout") // nobody ever answers
//!     .run()
//!     .await;
//! run.assert_compensated().assert_undone(["authorise-payment", "create-order"]);
//! # });
//! ```
//!
//! The way through: a [`Plan`] of [`Fault`]s goes into a [`Kit`] with the user's participants; the simulation runs the
//! real [`transition`](crate::saga::transition) on virtual time, [`Watched`] checks the guarantees at every state, and
//! a [`Run`] says what became of it. [`explore`] does so for every fault at every place.

mod explore;
mod fault;
mod inbox;
mod kit;
mod made_up;
mod plan;
mod run;
mod servers;
mod services;
mod simulation;
mod timeline;
mod watched;
#[cfg(feature = "participant")]
pub mod world;

pub use explore::{Explorer, Placed, Report, explore};
pub use fault::{Attempts, Fault, FaultKind, InvalidFault, UNLIMITED};
pub use inbox::ModelInbox;
pub use kit::{InvalidPlan, Kit, Subject};
pub use made_up::Extent;
pub use plan::{Expectation, Plan};
pub use run::{End, Run};
pub use services::Answer;
pub use timeline::{Line, Timeline};
pub use watched::{Entry, Machine, Watched};

/// The `salt`-th number that `seed` gives. SplitMix64's finaliser: every input bit reaches every output bit.
fn draw(seed: u64, salt: u64) -> u64 {
    let mut x = seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
