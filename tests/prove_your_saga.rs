//! `examples/prove_your_saga.rs` proves its saga, is short, and is quick.

#[path = "../examples/prove_your_saga.rs"]
mod example;

use std::time::Duration;

use amends::clock::Stopwatch;

#[test]
fn a_team_proves_its_saga_under_every_single_fault_in_under_forty_lines_and_ten_seconds() {
    let clock = Stopwatch::start();
    example::main();
    let took = clock.elapsed();
    println!("in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let lines = include_str!("../examples/prove_your_saga.rs").lines().count();
    assert!(lines < 40, "{lines} lines");
}
