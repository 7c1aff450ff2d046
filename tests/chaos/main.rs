//! Real processes, killed at named points and at random, and an independent judge over what they leave behind.
//!
//! ```text
//! cargo test --test chaos                                    # a representative part, about two minutes
//! AMENDS_SWEEP=all cargo test --test chaos kill -- --nocapture           # every named point at every step
//! AMENDS_CHAOS_SECONDS=3600 cargo test --test chaos storm -- --nocapture # an hour; AMENDS_CHAOS_SEED=N for another
//! ```

mod city;
mod clocks;
mod judge;
mod kill_points;
mod storm;
mod summary;
mod weather;

#[path = "../support/mod.rs"]
mod support;
