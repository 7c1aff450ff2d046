//! The test kit, on the shipped sagas and on itself: every placement is sound, and planted bugs are found.

#[path = "support/bugs.rs"]
mod bugs;
#[path = "support/planted_bugs.rs"]
mod planted_bugs;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use amends::definition::{Definition, read};
use amends::testkit::{Answer, Extent, FaultKind, Kit, Plan, Report, Subject, explore, world};
use bugs::{Bug, machine};
use serde_json::json;

const PLACE_ORDER: &str = include_str!("../sagas/place-order.yaml");
const BOOK_TRIP: &str = include_str!("../sagas/book-trip.yaml");

async fn explored(source: &str, extent: Extent, bug: Bug) -> Report {
    let copy = || Arc::into_inner(read(source).definition.expect("sound")).expect("nobody else has it");
    explore(source)
        .made_up(extent)
        .run(async |kit| {
            let kit = kit.careless(bug != Bug::NoInbox, bug != Bug::NoTombstone);
            if bug == Bug::None { kit } else { kit.machine(machine(bug, copy() as Definition)) }
        })
        .await
}

/// With nothing but what the input's schema requires, and with everything that it names.
async fn is_sound(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas").join(name).with_extension("yaml");
    let source = std::fs::read_to_string(path).expect("readable");
    let subject = Subject::read(&source).expect("sound");
    let made_up = |extent| subject.made_up_input(extent).expect("made up");
    // A longer list changes nothing unless it is looped over; other fields may decide over conditions.
    let fields = |extent| made_up(extent).as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let mut extents = vec![Extent::Required, Extent::Everything];
    extents.dedup_by_key(|extent| fields(*extent));
    for extent in extents {
        let report = explored(&source, extent, Bug::None).await;
        println!("{report}; {} with a fault that never struck", report.unreached());
        report.assert_sound();
        assert!(report.tried() > 300, "{report}");
        assert!(report.ended("COMPLETED") > 0 && report.ended("COMPENSATED") > 0, "{report}");
        assert!(report.unreached() * 10 < report.tried(), "too little was struck: {report}");
    }
}

#[tokio::test]
async fn place_order_is_sound_under_every_single_fault() {
    is_sound("place-order").await;
}

#[tokio::test]
async fn book_trip_is_sound_under_every_single_fault() {
    is_sound("book-trip").await;
}

#[tokio::test]
async fn loyalty_signup_is_sound_under_every_single_fault() {
    is_sound("loyalty-signup").await;
}

#[tokio::test]
async fn fulfil_order_is_sound_under_every_single_fault() {
    is_sound("fulfil-order").await;
}

#[tokio::test]
async fn business_trip_is_sound_under_every_single_fault() {
    is_sound("business-trip").await;
}

#[tokio::test]
async fn join_club_is_sound_under_every_single_fault() {
    is_sound("join-club").await;
}

#[test]
fn every_shipped_saga_has_its_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas");
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let name = entry.expect("an entry").path().with_extension("");
        let name = name.file_name().expect("a name").to_string_lossy().into_owned();
        let call = format!("is_sound({name:?})");
        assert!(include_str!("testkit.rs").contains(&call), "add a test with {call}");
    }
}

#[tokio::test]
async fn pairs_of_faults_and_other_orders_are_sound_too() {
    let report = explore(SMALL).pairs(1_000).seeds(2).run(async |kit| kit).await;
    report.assert_sound();
    for seed in 1..100 {
        let run = Kit::new(BOOK_TRIP).made_up(Extent::Everything).fault("hold-room#1=delay").seed(seed).run().await;
        run.assert_sound();
    }
}

/// A kit whose warehouse moves stock between free and reserved.
fn with_stock(kit: Kit, unpicks: i64) -> Kit {
    let pick = Arc::new(Mutex::new((100, 0)));
    let (back, end) = (pick.clone(), pick.clone());
    kit.on("warehouse.pick", move |_, _| {
        let mut stock = pick.lock().expect("nobody panics");
        *stock = (stock.0 - 1, stock.1 + 1);
    })
    .on("warehouse.unpick", move |_, _| {
        let mut stock = back.lock().expect("nobody panics");
        *stock = (stock.0 + unpicks, stock.1 - 1);
    })
    .invariant("free + reserved = 100", move || {
        let (free, reserved) = *end.lock().expect("nobody panics");
        free + reserved == 100
    })
}

#[tokio::test]
async fn an_invariant_of_the_users_is_checked_at_every_end_and_the_failing_plan_is_small() {
    let report = explore(PLACE_ORDER).run(async |kit| with_stock(kit, 2)).await;
    assert!(report.broken() > 10, "{report}");
    for worst in &report.bad {
        assert!(worst.plan.faults.len() <= 1, "one fault is enough: {}", worst.plan.in_words());
        assert!(worst.violations.iter().any(|wrong| wrong.contains("free + reserved = 100")), "{worst:?}");
        assert!(worst.undone.contains(&"pick".to_owned()));
        let said = worst.report("sagas/place-order.yaml");
        assert!(said.contains("amends definitions simulate sagas/place-order.yaml --input '{"), "{said}");
        assert!(said.contains(&format!("--fault '{}'", worst.plan.faults[0])), "{said}");
        assert!(said.contains("undo:pick"), "{said}");
    }
}

/// A bug, and the guarantee that it breaks.
async fn is_found(source: &str, bug: Bug, guarantee: &str) {
    let report = explored(source, Extent::Everything, bug).await;
    let found: Vec<&String> = report.bad.iter().flat_map(|run| &run.violations).collect();
    assert!(
        found.iter().any(|text| text.starts_with(guarantee)),
        "{bug:?} should break {guarantee}: {report}, {found:#?}"
    );
}

/// Small, so that every bug can be explored in little time: two branches, a pivot, and a step after it.
const SMALL: &str = "saga: small\nversion: 1\ndefaults: { timeout: 10s, retry: { maxAttempts: 2 }, compensation: { retry: { maxAttempts: 2 } } }\nsteps:\n\
    \x20 - { name: a, participant: p, action: x, compensation: { action: u } }\n\
    \x20 - { name: b, participant: q, action: x, compensation: { action: u } }\n\
    \x20 - { name: c, participant: r, action: x, after: [a], compensation: { action: u } }\n\
    \x20 - { name: d, participant: s, action: x, after: [b, c], pivot: true, compensation: none }\n\
    \x20 - { name: e, participant: t, action: x, retry: { maxAttempts: 0 } }\n";

#[tokio::test]
async fn planted_bugs_are_found() {
    explored(SMALL, Extent::Required, Bug::None).await.assert_sound();
    let cases = [
        (Bug::DropsSettlements, "11 "),
        (Bug::CompensatesInAnyOrder, "9 "),
        (Bug::CompensatesForward, "9 "),
        (Bug::UnknownIsFailed, "8 "),
        (Bug::IgnoresThePivot, "10 "),
        (Bug::NoTombstone, "7 "),
        (Bug::NoInbox, "6 "),
        (Bug::RevisionJumps, "revision"),
        (Bug::ChangesTheDead, "4 "),
        (Bug::NeverEnds, "16 "),
        (Bug::SkipsACompensation, "8 "),
        (Bug::CompensatesTheRefused, "8 "),
        (Bug::NoReason, "16 "),
    ];
    for (bug, guarantee) in cases {
        is_found(SMALL, bug, guarantee).await;
    }
    let planted: BTreeSet<String> = cases.iter().map(|(bug, name)| format!("{bug:?}: {}", name.trim())).collect();
    let told: BTreeSet<String> = planted_bugs::told("explorer").into_iter().map(|(_, cell)| cell.to_owned()).collect();
    assert_eq!(told, planted, "docs/planted-bugs.md has what is planted here");
}

/// Those of the simulator, which `tests/simulator.rs` plants.
#[test]
fn every_bug_of_the_simulator_is_in_the_table() {
    let numbers = |bug: &world::Bug| bug.breaks().iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let row = |bug: &world::Bug| format!("{}: {}", bug.as_str(), numbers(bug));
    let planted: BTreeSet<String> = world::Bug::ALL.iter().map(row).collect();
    let told: BTreeSet<String> = planted_bugs::told("simulator").into_iter().map(|(_, cell)| cell.to_owned()).collect();
    assert_eq!(told, planted, "docs/planted-bugs.md has what is planted there");
}

/// A finder that nothing else checks could be wrong in its own way.
#[test]
fn every_bug_that_the_judge_catches_is_caught_by_the_simulator_or_the_explorer_too() {
    let rows = |finder| planted_bugs::told(finder).into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let others: BTreeSet<&str> = rows("simulator").union(&rows("explorer")).copied().collect();
    let alone: Vec<&str> = rows("judge").difference(&others).copied().collect();
    assert!(rows("judge").len() >= 20 && alone.is_empty(), "the judge alone catches {alone:?}");
}

#[tokio::test]
async fn a_planted_bug_is_found_in_a_shipped_saga() {
    is_found(PLACE_ORDER, Bug::UnknownIsFailed, "8 ").await;
}

#[tokio::test]
async fn assertions_say_what_became_of_a_saga() {
    let kit = || Kit::new(PLACE_ORDER);
    kit().run().await.assert_completed().assert_undone([]);
    let back = ["authorise-payment", "create-order"];
    kit().fault("pick#1=fail").run().await.assert_compensated().assert_undone(back);
    kit().fault("authorise-payment#2=timeout").run().await.assert_completed();
    kit().fault("authorise-payment#*=timeout").run().await.assert_compensated().assert_undone(back);
    kit().on("payments.authorise", |_, _| Answer::refused("card-declined")).run().await.assert_undone(["create-order"]);
    let declined = kit().on("payments.authorise", |_, _| Answer::Later("card-declined".into(), "no".into()));
    declined.run().await.assert_compensated();
    kit().fault("pick#1=fail").fault("undo:create-order#1=fail").run().await.assert_stuck("planned-failure");
    kit().fault("dispatch#*=lost-reply").run().await.assert_stuck("timeout");
}

#[tokio::test]
async fn a_planned_fault_that_never_strikes_fails_the_test() {
    let run = Kit::new(PLACE_ORDER).fault("undo:pick#1=fail").run().await;
    assert!(run.is_sound() && run.unfired.len() == 1);
    let said = run.faults_found().join("\n");
    assert!(said.contains("`undo:pick#1=fail` never struck"), "{said}");
    let thrown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.assert_completed().end.clone()));
    assert!(thrown.is_err());
}

#[tokio::test]
async fn every_kind_of_fault_strikes_and_is_told() {
    for kind in FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Early) {
        let run = Kit::new(PLACE_ORDER).fault(&format!("pick#1={kind}")).run().await;
        run.assert_sound();
        assert_eq!(
            run.timeline.lines.iter().filter(|line| line.fault).count(),
            usize::from(!matches!(kind, FaultKind::Fail | FaultKind::Retry)),
            "{kind}: {}",
            run.timeline
        );
    }
}

#[tokio::test]
async fn one_plan_gives_one_run() {
    let plan = Plan::quiet().with("hold-room#1=late-reply".parse().expect("a fault")).seed(7);
    let run = async || Kit::new(BOOK_TRIP).plan(plan.clone()).run().await.timeline.to_string();
    let (first, second) = (run().await, run().await);
    assert_eq!(first, second);
    let other = Kit::new(BOOK_TRIP).plan(plan.clone().seed(8)).run().await.timeline.to_string();
    assert_ne!(first, other);
}

#[tokio::test]
async fn late_commands_and_replies_meet_tombstones_and_ended_sagas() {
    let run = Kit::new(PLACE_ORDER).fault("pick#*=stale").run().await;
    run.assert_compensated();
    assert_eq!(run.effects["pick"], (0, 0), "the tombstone refused the action: {}", run.timeline);
    let run = Kit::new(PLACE_ORDER).fault("pick#*=stale-reply").run().await;
    run.assert_compensated();
    assert_eq!(run.effects["pick"], (1, 1));
}

#[test]
fn an_input_that_does_not_fit_is_refused() {
    let subject = Subject::read(PLACE_ORDER).expect("sound");
    let running = Kit::of(subject).input(json!({"orderId": 1})).try_run();
    let refused = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(running);
    assert!(refused.expect_err("it does not fit").to_string().contains("does not fit the schema"));
}

/// Every kind of step: a loop, a wait for approval, a sub-saga, a delay.
const ALL_KINDS: &str = r#"
saga: all-kinds
version: 1
input: { schema: { type: object, required: [lines], properties: { lines: { type: array, minItems: 2, items: { type: object, required: [sku], properties: { sku: { type: string } } } } } } }
defaults: { timeout: 10s, retry: { maxAttempts: 2 }, compensation: { retry: { maxAttempts: 2 } } }
steps:
  - name: reserve
    participant: stock
    action: reserve
    forEach: { items: "${ input.lines }", maxParallel: 2 }
    input: { sku: "${ item.sku }" }
    compensation: { action: release }
  - name: approval
    wait: { signal: approved, timeout: 2h }
  - name: second-look
    wait: { signal: looked-at, timeout: 1h, onTimeout: continue }
  - name: invoice
    saga: send-invoice
    input: { amount: "${ size(steps.reserve.output.filter(r, r.price > 0)) }", by: "${ steps.approval.output.by }" }
  - name: cool-off
    delay: 30m
  - name: ship
    participant: shipping
    action: ship
    pivot: true
    compensation: none
"#;

#[tokio::test]
async fn every_kind_of_step_is_sound_under_every_single_fault() {
    let report = explore(ALL_KINDS).run(async |kit| kit).await;
    println!("{report}");
    report.assert_sound();
    assert!(report.ended("COMPLETED") > 50 && report.ended("COMPENSATED") > 50, "{report}");
    let report = explore(ALL_KINDS).pairs(300).seeds(1).run(async |kit| kit.made_up(Extent::Everything)).await;
    report.assert_sound();
}

#[tokio::test]
async fn a_signal_may_never_come_come_early_or_twice() {
    let kit = || Kit::new(ALL_KINDS);
    let back = ["reserve[1]", "reserve[0]"];
    kit().run().await.assert_completed();
    kit().fault("approval=timeout").run().await.assert_compensated();
    kit().fault("approval=delay").run().await.assert_compensated();
    let run = kit().fault("approval=early").run().await;
    run.assert_completed();
    let twice = kit().fault("approval=duplicate").run().await;
    twice.assert_completed();
    assert!(run.took < twice.took, "an early signal is not waited for: {} {}", run.timeline, twice.timeline);
    kit().fault("second-look=timeout").run().await.assert_completed();
    let run = kit().fault("reserve[1]#1=fail").run().await;
    run.assert_compensated().assert_undone(["reserve[0]"]);
    let run = kit().fault("invoice#1=fail").run().await;
    run.assert_compensated();
    assert_eq!(run.undone.iter().filter(|step| back.contains(&step.as_str())).count(), 2);
}

#[tokio::test]
async fn a_sub_saga_may_fail_be_stuck_or_answer_late() {
    let kit = || Kit::new(ALL_KINDS);
    let run = kit().fault("invoice=fail").run().await;
    run.assert_compensated();
    assert!(!run.undone.contains(&"invoice".to_owned()));
    let run = kit().fault("ship=fail").fault("undo:invoice#1=late-reply").run().await;
    run.assert_compensated();
    kit().fault("invoice=late-reply").run().await.assert_completed();
    let run = kit().fault("ship=fail").fault("undo:invoice=fail").run().await;
    run.assert_stuck("planned-failure");
}

#[tokio::test]
async fn a_fault_that_cannot_strike_such_a_step_is_refused() {
    for (fault, words) in [
        ("approval=lost-reply", "a wait can be struck by timeout"),
        ("cool-off=timeout", "a delay can be struck by nothing"),
        ("ship=early", "a command can be struck by fail"),
        ("gone=fail", "has no step `gone`"),
        ("undo:ship=fail", "has no compensation"),
    ] {
        let error = Kit::new(ALL_KINDS).fault(fault).try_run().await.expect_err(fault);
        assert!(error.to_string().contains(words), "{error}");
    }
}
