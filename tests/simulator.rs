//! Whole deployments on virtual time: what must hold, holds in every world, and what is planted is noticed.

use std::collections::BTreeSet;

use amends::testkit::world::{self, Bug, Many, Outcome, Seeds, Tally};
use assert_cmd::Command;

/// Seeds of worlds in which something was wrong once, each with what it was: `SEED  what`.
const SEEDS: &str = include_str!("simulator_seeds.txt");
/// Within so many seeds every planted bug is caught.
const CAUGHT_WITHIN: u64 = 100;

fn many(from: u64, count: u64, bug: Option<Bug>) -> Tally {
    let many = Many { bug, threads: 0, until_broken: bug.map(Bug::breaks).unwrap_or_default().to_vec() };
    many.run(Seeds { from, count }, &|_| {})
}

fn told(outcome: &Outcome) -> String {
    let again = format!("again: amends simulate --seed {} --trace", outcome.seed);
    let what = outcome.violations.iter().map(|found| format!("guarantee {}: {}", found.guarantee, found.what));
    what.chain([again]).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_guarantee_holds_in_some_hundred_worlds() {
    let tally = many(0, 200, None);
    let wrong: Vec<String> = tally.wrong.iter().map(told).collect();
    assert!(wrong.is_empty(), "{} of {} worlds:\n{}", wrong.len(), tally.runs, wrong.join("\n"));
    assert_eq!(tally.runs, 200);
    for state in ["COMPLETED", "COMPENSATED", "STUCK", "ABANDONED"] {
        assert!(tally.ends.contains_key(state), "no saga ended {state}: {:?}", tally.ends);
    }
    // A fault that never strikes proves nothing, and neither does an operator who is always refused.
    for fault in world::FAULTS {
        assert!(tally.fired.contains_key(fault), "this never struck: {fault}: {:#?}", tally.fired);
    }
    for word in world::OPERATORS_DO {
        assert!(tally.operated.contains_key(word), "this was never done: {word}: {:#?}", tally.operated);
    }
}

#[test]
fn every_fault_that_was_asked_for_has_its_kinds() {
    for (asked, kinds) in [
        ("crash", &["a coordinator crashes", "a participant crashes"][..]),
        ("restart", &["a coordinator is stopped in good order", "the broker restarts", "the store is away"]),
        ("partition between any two", &["two are cut off from each other"]),
        ("message loss before confirm", &["a message is lost before its confirm", "a confirm is lost"]),
        ("duplication", &["a message arrives twice", "a consumer loses its connection"]),
        ("reordering", &["a message is overtaken"]),
        ("delay", &["a message arrives after its attempt timed out", "a participant takes long"]),
        ("slow disk", &["a commit takes long"]),
        ("lost COMMIT reply", &["the reply to a COMMIT is lost", "the reply to a participant's COMMIT is lost"]),
        ("clock skew", &["a coordinator's clock is off from the start", "a coordinator's clock jumps"]),
    ] {
        for kind in kinds {
            assert!(world::FAULTS.contains(kind), "{asked}: there is no `{kind}`");
        }
    }
}

#[test]
fn worlds_that_were_wrong_once_are_right() {
    let lines = SEEDS.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let mut wrong = Vec::new();
    for line in lines {
        let seed = line.split_whitespace().next().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| panic!("`{line}` begins with no seed"));
        let outcome = world::run(seed, None, false).expect("a world");
        if !outcome.violations.is_empty() {
            wrong.push(format!("{line}\n{}", told(&outcome)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_seed_gives_the_same_world_again() {
    for seed in 0..12 {
        let (first, second) = (world::run(seed, None, true), world::run(seed, None, true));
        let (first, second) = (first.expect("a world"), second.expect("a world"));
        let differ = first.trace.iter().zip(&second.trace).position(|(first, second)| first != second);
        let at = differ.map(|at| (&first.trace[at], &second.trace[at]));
        assert_eq!((first.hash, at), (second.hash, None), "seed {seed}");
    }
}

#[test]
fn seeds_give_different_worlds() {
    let hashes: Vec<u64> = (0..12).map(|seed| world::run(seed, None, false).expect("a world").hash).collect();
    let distinct: BTreeSet<&u64> = hashes.iter().collect();
    assert_eq!(distinct.len(), hashes.len());
}

fn amends(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::cargo_bin("amends").expect("the binary").args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_seed_gives_the_same_world_in_another_process() {
    let here = world::run(7, None, false).expect("a world");
    for _ in 0..2 {
        let (code, stdout, stderr) = amends(&["simulate", "--seed", "7", "--output", "json"]);
        assert_eq!(code, Some(0), "{stderr}");
        let told: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        assert_eq!(told["hash"], format!("{:016x}", here.hash));
    }
}

#[test]
fn a_violation_fails_with_the_line_that_runs_it_again() {
    let (code, stdout, stderr) = amends(&["simulate", "--seeds", "8", "--bug", "ends-early", "--output", "json"]);
    let told: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(code, Some(1), "{stderr}");
    let wrong = told["wrong"][0].clone();
    let again = wrong["again"].as_str().expect("a line").to_owned();
    assert!(stderr.contains(&format!("again: {again}")), "{stderr}");
    let arguments: Vec<&str> = again.split_whitespace().skip(1).collect();
    let (code, stdout, _) = amends(&[&arguments[..], &["--output", "json"]].concat());
    let replayed: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &replayed["hash"]), (Some(1), &wrong["hash"]));
    assert!(replayed["trace"].as_array().is_some_and(|lines| lines.len() > 20));
}

#[test]
fn every_planted_bug_is_caught() {
    println!("{:<22} {:>6}  {:<16} breaks", "planted bug", "seeds", "noticed as");
    let mut unseen = Vec::new();
    for bug in Bug::ALL {
        let tally = many(0, CAUGHT_WITHIN, Some(*bug));
        let broken: BTreeSet<u8> =
            tally.wrong.iter().flat_map(|outcome| &outcome.violations).map(|violation| violation.guarantee).collect();
        let breaks =
            |outcome: &&Outcome| outcome.violations.iter().any(|found| bug.breaks().contains(&found.guarantee));
        let first = tally.wrong.iter().find(breaks).map(|outcome| outcome.seed + 1);
        let seeds = first.map_or("none".to_owned(), |seeds| seeds.to_string());
        println!("{:<22} {seeds:>6}  {:<16} {:?}", bug.as_str(), format!("{broken:?}"), bug.breaks());
        unseen.extend(first.is_none().then_some(bug.as_str()));
    }
    assert!(unseen.is_empty(), "not caught within {CAUGHT_WITHIN} seeds: {unseen:?}");
}
