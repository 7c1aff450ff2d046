//! Sagas that start other sagas, as properties of the whole family: random definitions, faults between them, operators
//! who meddle with each. Planted bugs show that each property can fail.

#[path = "support/family.rs"]
mod family;
#[path = "support/sagas.rs"]
mod sagas;

use std::sync::Arc;

use amends::definition::{Definition, read};
use family::{Bug, Family, Move};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

const DEFAULTS: &str = "defaults: { timeout: 30s, retry: { maxAttempts: 2, jitter: none, initialInterval: 1s }, compensation: { retry: { maxAttempts: 2 } } }\nsteps:\n";

/// One of the definitions: `bits` say what it has.
fn text(name: &str, child: Option<&str>, bits: u16) -> String {
    let has = |bit: u16| bits >> bit & 1 == 1;
    let mut text = format!("saga: {name}\nversion: 1\n");
    if has(0) {
        text.push_str("timeout: 10m\n");
    }
    text.push_str(DEFAULTS);
    text.push_str("  - { name: first, participant: a, action: do, compensation: { action: undo } }\n");
    let mut last = vec!["first"];
    if has(1) {
        let then = if has(2) { "continue" } else { "fail" };
        text.push_str(&format!("  - {{ name: nod, wait: {{ signal: nod, timeout: 5m, onTimeout: {then} }} }}\n"));
        last = vec!["nod"];
    }
    if let Some(child) = child {
        let after = if has(3) { "[]" } else { "[first]" };
        let each = if has(4) { ", forEach: { items: \"${ input.lines }\", maxParallel: 1 }" } else { "" };
        let none = if has(5) && has(6) { ", compensation: none" } else { "" };
        text.push_str(&format!(
            "  - {{ name: sub, saga: {child}, after: {after}, input: {{ lines: [1, 2] }}{each}{none} }}\n"
        ));
        last.push("sub");
    }
    if has(7) {
        text.push_str(
            "  - { name: beside, participant: b, action: do, after: [first], forEach: \"${ input.lines }\", input: { n: \"${ item }\" }, compensation: { action: undo, input: { id: \"${ has(steps['beside'].output) ? steps['beside'].output.id : 0 }\" } } }\n"
        );
        last.push("beside");
    }
    text.push_str(&format!(
        "  - {{ name: second, participant: b, action: do, after: [{}], compensation: {{ action: undo }} }}\n",
        last.join(", ")
    ));
    if has(8) {
        text.push_str("  - { name: point, participant: c, action: do, pivot: true, compensation: none }\n");
        match child.filter(|_| has(9)) {
            Some(child) => text.push_str(&format!("  - {{ name: late, saga: {child}, input: {{ lines: [] }} }}\n")),
            None => text.push_str("  - { name: late, participant: c, action: do }\n"),
        }
    }
    text.push_str("output: { of: \"${ has(steps['second'].output) }\" }\n");
    text
}

/// A parent, its child, and perhaps a grandchild. Sub-sagas with a pivot would only get stuck more often.
fn definitions(bits: [u16; 3]) -> Vec<Arc<Definition>> {
    let [parent, child, grandchild] = bits;
    let has_third = grandchild & 1 == 1;
    let texts = [
        text("parent", Some("child"), parent),
        text("child", has_third.then_some("grandchild"), child & if child & 3 == 3 { 0x3ff } else { 0xff }),
        text("grandchild", None, grandchild & 0xff),
    ];
    let definition = |text: &String| {
        let checked = read(text);
        checked.definition.unwrap_or_else(|| panic!("{text}\n{:#?}", checked.diagnostics))
    };
    texts.iter().map(definition).collect()
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = (0_u8..32, any::<u8>(), 0_u8..16).prop_map(|(what, which, how)| Move { what, which, how });
    prop::collection::vec(one, 0..120)
}

fn run(bits: [u16; 3], moves: &[Move], bug: Bug) -> Family {
    let mut family = Family::new(&definitions(bits), json!({ "lines": [1, 2] }), bug);
    family.run(moves);
    family
}

proptest! {
    #![proptest_config(Config { cases: 1_000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_guarantee_holds_for_the_whole_family(bits: [u16; 3], moves in moves()) {
        let family = run(bits, &moves, Bug::None);
        prop_assert!(family.violations.is_empty(), "{:#?}", family.violations);
    }
}

#[test]
fn the_random_families_reach_every_state() {
    let mut runner = TestRunner::deterministic();
    let strategy = (any::<[u16; 3]>(), moves());
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..300 {
        let (bits, moves) = strategy.new_tree(&mut runner).expect("a case").current();
        reached.extend(run(bits, &moves, Bug::None).reached);
    }
    let all = ["ABANDONED", "COMPENSATED", "COMPENSATING", "COMPLETED", "HELD", "RUNNING", "STUCK"];
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), all);
}

/// How many random cases a planted bug may survive.
const PATIENCE: usize = 2_000;

#[track_caller]
fn caught(bug: Bug, property: &str) {
    let mut runner = TestRunner::deterministic();
    let strategy = (any::<[u16; 3]>(), moves());
    let mut others = std::collections::BTreeSet::new();
    for _ in 0..PATIENCE {
        let (bits, moves) = strategy.new_tree(&mut runner).expect("a case").current();
        let found = run(bits, &moves, bug).violations;
        if found.iter().any(|text| text.starts_with(property)) {
            return;
        }
        others.extend(found);
    }
    panic!("{bug:?} was never reported as a breach of `{property}`, only {others:?}");
}

#[test]
fn a_sub_saga_that_completes_at_once_is_caught() {
    caught(Bug::CompletesAtOnce, "family: a sub-saga is complete before");
}

#[test]
fn a_missing_tombstone_is_caught() {
    caught(Bug::NoTombstone, "family: a sub-saga of a compensated saga stands");
}

#[test]
fn a_start_that_takes_effect_twice_is_caught() {
    caught(Bug::StartsTwice, "family: ");
}

#[test]
fn a_refusal_before_everything_is_undone_is_caught() {
    caught(Bug::RefusesTooEarly, "9 ");
}

#[test]
fn a_sub_saga_that_waits_for_ever_is_caught() {
    caught(Bug::NobodyTells, "16 ");
}

#[test]
fn an_end_that_is_told_too_early_is_caught() {
    caught(Bug::ParentSeemsEnded, "family: a sub-saga is complete before");
}

#[test]
fn a_question_without_an_answer_is_caught() {
    caught(Bug::AnswersOnce, "16 ");
}

#[test]
fn a_sub_saga_that_is_forgotten_is_caught() {
    caught(Bug::UnknownIsFailed, "family: ");
}

#[test]
fn what_the_parent_asked_left_out_of_the_history_is_caught() {
    caught(Bug::ForgetsHistory, "3 ");
}

#[test]
fn a_wait_that_stays_in_the_outbox_is_caught() {
    caught(Bug::LeavesWaits, "11 ");
}

#[test]
fn a_lost_early_signal_is_caught() {
    caught(Bug::LosesEarlySignals, "signal: ");
}
