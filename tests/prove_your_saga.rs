//! `examples/prove_your_saga.rs` proves its saga, and is short.

#[path = "../examples/prove_your_saga.rs"]
mod example;

use amends::clock::Stopwatch;

/// How long it took is printed, not checked: a machine that is busy says nothing about the kit.
#[test]
fn a_team_proves_its_saga_under_every_single_fault_in_under_forty_lines() {
    let clock = Stopwatch::start();
    example::main();
    println!("in {:?}", clock.elapsed());
    let lines = include_str!("../examples/prove_your_saga.rs").lines().count();
    assert!(lines < 40, "{lines} lines");
}
