//! The guarantees as properties: random definitions, random orders of events, participants that keep an inbox, faults,
//! operators. Time only moves when the test moves it. Planted bugs show that each property can fail.

#[path = "support/bugs.rs"]
mod bugs;
#[path = "support/sagas.rs"]
mod sagas;
#[path = "support/world.rs"]
mod world;

use bugs::Bug;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use sagas::{Shape, definition, step};
use serde_json::json;
use world::{Move, World};

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

fn world(shapes: &[Shape], has_timeout: bool, bug: Bug) -> World {
    let timeout = has_timeout.then_some(std::time::Duration::from_secs(60));
    World::new(|| definition(shapes, timeout), json!({ "order": 1 }), json!({ "done": true }), bug)
}

fn violations(shapes: &[Shape], has_timeout: bool, moves: &[Move], bug: Bug) -> Vec<String> {
    let mut world = world(shapes, has_timeout, bug);
    world.run(moves);
    world.violations().iter().cloned().collect()
}

proptest! {
    #![proptest_config(Config { cases: 1_500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_guarantee_holds(shapes in shapes(), has_timeout: bool, moves in moves()) {
        let found = violations(&shapes, has_timeout, &moves, Bug::None);
        prop_assert!(found.is_empty(), "{found:#?}");
    }
}

/// A definition as people write it: with expressions that read inputs and outputs along the graph, conditions, retries,
/// and now and then something that does not hold together.
fn text(shapes: &[Shape], has_timeout: bool, wishes: &[u8]) -> String {
    let wish = |at: usize| wishes.get(at % wishes.len().max(1)).copied().unwrap_or_default();
    let mut text = String::from("saga: random\nversion: 1\n");
    if has_timeout {
        text.push_str("timeout: 60s\n");
    }
    text.push_str("defaults: { timeout: 30s, retry: { jitter: none, initialInterval: 1s } }\nsteps:\n");
    for (at, shape) in shapes.iter().enumerate() {
        let names: Vec<&str> = shape.after.iter().map(|&before| shapes[before].name.as_str()).collect();
        text.push_str(&format!("  - name: {}\n    after: [{}]\n", shape.name, names.join(", ")));
        match wish(at + 1) {
            0..=25 if !shape.pivot => {
                let end = if wish(at) % 2 == 0 { "continue" } else { "fail" };
                text.push_str(&format!("    wait: {{ signal: go-{at}, timeout: 20s, onTimeout: {end} }}\n"));
                continue;
            }
            26..=40 if !shape.pivot => {
                text.push_str("    delay: 10s\n");
                continue;
            }
            41..=60 if !shape.pivot => {
                text.push_str("    saga: other\n    input: { of: 1 }\n");
                if wish(at) < 20 {
                    text.push_str("    compensation: none\n");
                }
                continue;
            }
            61..=80 if !shape.pivot => text.push_str("    forEach: { items: \"${ input.lines }\", maxParallel: 2 }\n"),
            _ => {}
        }
        text.push_str(&format!("    participant: p{at}\n    action: do\n"));
        match (wish(at), names.first()) {
            (0..=79, Some(before)) => {
                text.push_str(&format!("    input: {{ of: \"${{ steps['{before}'].output.id }}\", at: {at} }}\n"));
            }
            (80..=129, Some(before)) => text.push_str(&format!(
                "    input: {{ of: \"${{ has(steps.{before}.output) ? steps.{before}.output.n + 1 : 0 }}\" }}\n"
            )),
            // Of a step that may not be before this one at all.
            (130..=139, _) => text.push_str("    input: { of: \"${ steps['s1'].output.id }\" }\n"),
            _ => text.push_str("    input: { order: \"${ input.order }\" }\n"),
        }
        match (shape.when, names.last()) {
            (Some(true), Some(before)) if wish(at + 3) < 80 => {
                text.push_str(&format!(
                    "    when: ${{ !has(steps['{before}'].output) || steps['{before}'].output.n > 1 }}\n"
                ));
            }
            (Some(holds), _) => {
                text.push_str(&format!("    when: ${{ input.order {} 1 }}\n", if holds { "==" } else { ">" }))
            }
            (None, _) => {}
        }
        text.push_str(&format!("    retry: {{ maxAttempts: {} }}\n", shape.attempts.unwrap_or_default()));
        if shape.pivot {
            text.push_str("    pivot: true\n");
        }
        let own = format!("${{ has(steps.{0}.output) ? steps.{0}.output.id : 'none' }}", shape.name);
        let attempts = shape.compensation_attempts.unwrap_or_default();
        match (shape.compensated, wish(at + 5)) {
            (false, 250..) => {}
            (false, _) => text.push_str("    compensation: none\n"),
            (true, 0..=99) => text.push_str(&format!(
                "    compensation: {{ action: undo, input: {{ id: \"{own}\" }}, retry: {{ maxAttempts: {attempts} }} }}\n"
            )),
            (true, _) => text.push_str(&format!("    compensation: {{ action: undo, retry: {{ maxAttempts: {attempts} }} }}\n")),
        }
    }
    text
}

/// The definition that the reader makes of a text, if it accepts it, for this caller alone.
fn accepted(text: &str) -> Option<amends::definition::Definition> {
    let definition = amends::definition::read(text).definition?;
    let expanded = definition.expanded(&input().into()).expect("three lines are not too many");
    drop(definition);
    // A definition keeps its expansions, but goes with the last handle to it.
    std::sync::Arc::into_inner(expanded)
}

fn input() -> serde_json::Value {
    json!({ "order": 1, "lines": [{ "n": 1 }, { "n": 2 }, { "n": 3 }] })
}

fn world_of(text: &str, bug: Bug) -> Option<World> {
    accepted(text)?;
    let make = || accepted(text).expect("accepted before");
    Some(World::new(make, input(), json!({ "id": "x", "n": 2 }), bug))
}

proptest! {
    #![proptest_config(Config { cases: 500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_the_reader_accepts_never_gets_into_an_illegal_state(
        shapes in shapes(), has_timeout: bool, wishes in prop::collection::vec(any::<u8>(), 8), moves in moves()
    ) {
        let text = text(&shapes, has_timeout, &wishes);
        if let Some(mut world) = world_of(&text, Bug::None) {
            world.run(&moves);
            prop_assert!(world.violations().is_empty(), "{:#?}\n{text}", world.violations());
        }
    }
}

/// A case that the random ones found: skipping a step lets one that comes after it begin, and another, which cannot be
/// sent without the output, sends the saga back, all in one event.
#[test]
fn a_skipped_step_counts_as_done_for_those_that_it_let_begin() {
    let text = "saga: random\nversion: 1\nsteps:\n  \
        - { name: a, after: [], participant: p, action: do, compensation: { action: undo } }\n  \
        - { name: b, after: [a], wait: { signal: go, timeout: 20s, onTimeout: continue } }\n  \
        - { name: c, after: [a], participant: p, action: do, input: { of: \"${ steps['a'].output.id }\" }, compensation: none }\n";
    let mut world = world_of(text, Bug::None).expect("the reader accepts it");
    // An operator skips step a.
    world.run(&[Move { what: 28, which: 0, how: 10 }]);
    assert_eq!(world.violations().iter().collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(world.reached().contains("COMPENSATING"), "{:?}", world.reached());
}

/// What stands in the texts of steps that are more than a command, of conditions, pivots and what is read of others.
const KINDS: [&str; 9] = [
    " wait: ",
    " delay: ",
    " saga: ",
    " forEach: ",
    " when: ",
    " pivot: ",
    "onTimeout: continue",
    "onTimeout: fail",
    "steps['",
];

#[test]
fn random_texts_are_mostly_but_not_always_accepted_and_reach_every_state() {
    let mut runner = TestRunner::deterministic();
    let strategy = (shapes(), any::<bool>(), prop::collection::vec(any::<u8>(), 8), moves());
    let mut reached = std::collections::BTreeSet::new();
    let mut kinds = std::collections::BTreeMap::new();
    let (mut yes, mut no, mut caught) = (0, 0, 0);
    for _ in 0..400 {
        let (shapes, has_timeout, wishes, moves) = strategy.new_tree(&mut runner).expect("a case").current();
        let text = text(&shapes, has_timeout, &wishes);
        let Some(mut world) = world_of(&text, Bug::None) else {
            no += 1;
            continue;
        };
        yes += 1;
        for kind in KINDS {
            *kinds.entry(kind).or_insert(0) += usize::from(text.contains(kind));
        }
        world.run(&moves);
        reached.extend(world.reached().iter().copied());
        let mut broken = world_of(&text, Bug::CompensatesInAnyOrder).expect("accepted before");
        broken.run(&moves);
        caught += usize::from(!broken.violations().is_empty());
    }
    assert!(yes > 200 && no > 5, "{yes} accepted, {no} refused");
    assert!(kinds.values().all(|count| *count > 20), "of each kind of step there is enough: {kinds:?}");
    assert!(caught > 5, "the planted bug was seen in only {caught} of {yes} cases");
    let all = ["ABANDONED", "COMPENSATED", "COMPENSATING", "COMPLETED", "RUNNING", "STUCK"];
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn the_random_cases_reach_every_state() {
    let mut runner = TestRunner::deterministic();
    let strategy = (shapes(), any::<bool>(), moves());
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..PATIENCE {
        let (shapes, has_timeout, moves) = strategy.new_tree(&mut runner).expect("a case").current();
        let mut world = world(&shapes, has_timeout, Bug::None);
        world.run(&moves);
        reached.extend(world.reached().iter().copied());
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
