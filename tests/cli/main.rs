//! The binary as a person or a script meets it: arguments, settings, messages, exit codes.

mod bad_input;
mod canned;
mod check;
mod commands;
mod demo;
mod dry;
mod graph;
mod program;
mod signal;
mod simulate;
mod tokens;
mod versions;
