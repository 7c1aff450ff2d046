//! The guarantees as properties: random definitions, random orders of events, participants that keep an inbox, faults,
//! operators. Time only moves when the test moves it. Planted bugs show that each property can fail.

#[path = "support/sagas.rs"]
mod sagas;
#[path = "support/world.rs"]
mod world;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use sagas::{Shape, step};
use world::{Bug, Move, World};

/// Up to eight steps; with a pivot, every other step lies before or after it.
fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let one = (any::<u8>(), 0_u8..10, 0_u8..10, 1_u32..4, 0_u32..4);
    (prop::collection::vec(one, 1..8), prop::option::of(any::<prop::sample::Index>())).prop_map(|(raw, pivot)| {
        let pivot = pivot.map(|at| at.index(raw.len()));
        let mut shapes: Vec<Shape> = raw
            .iter()
            .enumerate()
            .map(|(at, &(links, when, compensation, attempts, more))| {
                let after: Vec<usize> = match pivot {
                    Some(pivot) if at == pivot => (0..at).collect(),
                    Some(pivot) if at > pivot => {
                        (pivot..at).filter(|&before| before == pivot || links >> (before % 8) & 1 == 1).collect()
                    }
                    _ => (0..at).filter(|&before| links >> (before % 8) & 1 == 1).collect(),
                };
                let mut shape = step(&format!("s{at}"), &after).attempts(attempts);
                shape.compensation_attempts = Some(attempts + more);
                shape.when = (when < 2).then_some(when == 0);
                shape.compensated = compensation > 1;
                shape
            })
            .collect();
        if let Some(pivot) = pivot {
            shapes[pivot].pivot = true;
            shapes[pivot].when = None;
            for shape in &mut shapes[pivot + 1..] {
                shape.compensated = false;
            }
        }
        shapes
    })
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (0_u8..32, any::<u8>(), 0_u8..16).prop_map(|(what, which, how)| Move { what, which, how });
    prop::collection::vec(one, 0..60)
}

fn violations(shapes: &[Shape], has_timeout: bool, moves: &[Move], bug: Bug) -> Vec<String> {
    let mut world = World::new(shapes, has_timeout, bug);
    world.run(moves);
    world.violations.into_iter().collect()
}

proptest! {
    #![proptest_config(Config { cases: 1_500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_guarantee_holds(shapes in shapes(), has_timeout: bool, moves in moves()) {
        let found = violations(&shapes, has_timeout, &moves, Bug::None);
        prop_assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn the_random_cases_reach_every_state() {
    let mut runner = TestRunner::deterministic();
    let strategy = (shapes(), any::<bool>(), moves());
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..PATIENCE {
        let (shapes, has_timeout, moves) = strategy.new_tree(&mut runner).expect("a case").current();
        let mut world = World::new(&shapes, has_timeout, Bug::None);
        world.run(&moves);
        reached.extend(world.reached);
    }
    let all = ["ABANDONED", "COMPENSATED", "COMPENSATING", "COMPLETED", "RUNNING", "STUCK"];
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), all);
}

/// How many random cases a planted bug may survive.
const PATIENCE: usize = 3_000;

#[track_caller]
fn caught(bug: Bug, property: &str) {
    let mut runner = TestRunner::deterministic();
    let strategy = (shapes(), any::<bool>(), moves());
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..PATIENCE {
        let (shapes, has_timeout, moves) = strategy.new_tree(&mut runner).expect("a case").current();
        let found = violations(&shapes, has_timeout, &moves, bug);
        if found.iter().any(|text| text.starts_with(property)) {
            return;
        }
        others.extend(found);
    }
    panic!("{bug:?} was never reported as a breach of `{property}`, only {others:?}");
}

#[test]
fn a_dropped_settlement_is_caught() {
    caught(Bug::DropsSettlements, "11 ");
}

#[test]
fn compensating_in_any_order_is_caught() {
    caught(Bug::CompensatesInAnyOrder, "9 ");
}

#[test]
fn treating_unknown_as_failed_is_caught() {
    caught(Bug::UnknownIsFailed, "8 ");
}

#[test]
fn an_effect_left_by_treating_unknown_as_failed_is_caught() {
    caught(Bug::UnknownIsFailed, "net effect");
}

#[test]
fn ignoring_the_pivot_is_caught() {
    caught(Bug::IgnoresThePivot, "10 ");
}

#[test]
fn a_missing_tombstone_is_caught() {
    caught(Bug::NoTombstone, "7 ");
}

#[test]
fn a_missing_inbox_is_caught() {
    caught(Bug::NoInbox, "6 ");
}

#[test]
fn a_revision_that_jumps_is_caught() {
    caught(Bug::RevisionJumps, "revision");
}

#[test]
fn sending_while_paused_is_caught() {
    caught(Bug::SendsWhilePaused, "pause");
}

#[test]
fn changing_what_has_ended_is_caught() {
    caught(Bug::ChangesTheDead, "4 ");
}

#[test]
fn a_saga_that_never_ends_is_caught() {
    caught(Bug::NeverEnds, "16 ");
}

#[test]
fn an_event_left_out_of_the_history_is_caught() {
    caught(Bug::ForgetsHistory, "3 ");
}
