//! State in memory: for tests and simulations.
