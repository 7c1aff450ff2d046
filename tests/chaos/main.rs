//! Real processes, killed at named points and at random, and an independent judge over what they leave behind.
//!
//! A representative part takes a few minutes; `docs/chaos.md` tells how to have all of it.

mod city;
mod clocks;
mod judge;
mod kill_points;
mod storm;
mod summary;
mod weather;

#[path = "../support/mod.rs"]
mod support;
