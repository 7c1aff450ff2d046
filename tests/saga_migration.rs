//! Sagas that move to another version while they run. Random definitions, random changes to them, random moments: what
//! is accepted keeps every guarantee, and what is refused is refused for a reason that a person can check.

#[path = "support/bugs.rs"]
mod bugs;
#[path = "support/sagas.rs"]
mod sagas;
#[path = "support/world.rs"]
mod world;

use std::collections::BTreeMap;

use amends::definition::{Compensation, Condition, Definition, Template, read};
use amends::payload::Payload;
use amends::saga::{
    Direction, EventKind, Operation, Reason, ReplyOutcome, SagaState, StepStatus, Told, compatible, migrate,
    replay_across,
};
use bugs::Bug;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use sagas::{Driven, Shape, definition, epoch, failure, line, step, success};
use serde_json::json;
use world::{Move, World};

/// A change to a definition: what, where, and how.
type Edit = (u8, u8, u8);

/// Up to seven steps, in half of the cases with a pivot.
fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let one = (any::<u8>(), 0_u8..10, 0_u8..10, 1_u32..4);
    (prop::collection::vec(one, 1..8), prop::option::of(0_usize..8)).prop_map(|(raw, pivot)| {
        let shapes: Vec<Shape> = raw
            .iter()
            .enumerate()
            .map(|(at, &(links, when, compensation, attempts))| {
                let after: Vec<usize> = (0..at).filter(|&before| links >> (before % 8) & 1 == 1).collect();
                let mut shape = step(&format!("s{at}"), &after).attempts(attempts);
                shape.when = (when < 2).then_some(when == 0);
                shape.compensated = compensation > 1;
                shape.pivot = pivot == Some(at);
                shape
            })
            .collect();
        valid(shapes)
    })
}

/// The same with what a definition must hold to: one pivot at most, and every other step before or after it.
fn valid(mut shapes: Vec<Shape>) -> Vec<Shape> {
    let pivot = shapes.iter().position(|shape| shape.pivot);
    for (at, shape) in shapes.iter_mut().enumerate() {
        shape.after.retain(|before| *before < at);
        match pivot {
            Some(pivot) if at == pivot => {
                shape.after = (0..at).collect();
                (shape.when, shape.compensated) = (None, false);
            }
            Some(pivot) if at > pivot => {
                shape.after.retain(|before| *before > pivot);
                shape.after.insert(0, pivot);
                (shape.pivot, shape.compensated) = (false, false);
            }
            _ => {}
        }
    }
    shapes
}

fn edited(shapes: &[Shape], edits: &[Edit]) -> Vec<Shape> {
    let mut shapes = shapes.to_vec();
    for &(what, place, how) in edits {
        let at = usize::from(place) % shapes.len();
        match what {
            0..=2 => {
                // A new step; everything from here on moves one place down.
                let after: Vec<usize> = (0..at).filter(|before| how >> (before % 8) & 1 == 1).collect();
                for shape in &mut shapes[at..] {
                    shape.after.iter_mut().filter(|before| **before >= at).for_each(|before| *before += 1);
                }
                let fresh = (0..).map(|n| format!("n{n}")).find(|name| shapes.iter().all(|shape| shape.name != *name));
                shapes.insert(at, step(&fresh.expect("there are enough numbers"), &after));
                if let Some(next) = shapes.get_mut(at + 1).filter(|_| how % 2 == 0) {
                    next.after.push(at);
                }
            }
            3..=4 if shapes.len() > 1 => {
                shapes.remove(at);
                for shape in &mut shapes {
                    shape.after.retain(|before| *before != at);
                    shape.after.iter_mut().filter(|before| **before > at).for_each(|before| *before -= 1);
                }
            }
            5 if at > 0 => {
                // Two neighbours change places in the file, and in the graph if they depended on each other.
                shapes.swap(at - 1, at);
                shapes[at - 1].after.retain(|before| *before < at - 1);
                for shape in &mut shapes[at + 1..] {
                    for before in &mut shape.after {
                        *before = if *before == at {
                            at - 1
                        } else if *before == at - 1 {
                            at
                        } else {
                            *before
                        };
                    }
                }
                if how % 2 == 0 {
                    shapes[at].after.push(at - 1);
                }
            }
            6 => shapes[at].attempts = Some(u32::from(how % 5) + 1),
            7 => shapes[at].compensated = !shapes[at].compensated,
            8 => shapes[at].when = (how % 3 > 0).then_some(how % 3 == 1),
            9 if at > 0 => {
                let before = usize::from(how) % at;
                match shapes[at].after.iter().position(|other| *other == before) {
                    Some(found) => drop(shapes[at].after.remove(found)),
                    None => shapes[at].after.push(before),
                }
            }
            10 => {
                shapes.iter_mut().for_each(|shape| shape.pivot = false);
                shapes[at].pivot = how % 2 == 0;
            }
            _ => {}
        }
    }
    for shape in &mut shapes {
        shape.after.sort_unstable();
        shape.after.dedup();
    }
    valid(shapes)
}

fn version(shapes: &[Shape], number: u32) -> Definition {
    let mut made = definition(shapes, None);
    made.reference.version = number;
    made
}

fn moves(most: usize) -> impl Strategy<Value = Vec<Move>> {
    let one = (0_u8..32, any::<u8>(), 0_u8..16).prop_map(|(what, which, how)| Move { what, which, how });
    prop::collection::vec(one, 0..most)
}

#[derive(Clone, Debug)]
struct Case {
    shapes: Vec<Shape>,
    before: Vec<Move>,
    edits: Vec<Edit>,
    between: Vec<Move>,
    more_edits: Vec<Edit>,
    after: Vec<Move>,
}

fn cases() -> impl Strategy<Value = Case> {
    let edits = || prop::collection::vec((0_u8..11, any::<u8>(), any::<u8>()), 1..4);
    (shapes(), moves(30), edits(), moves(12), edits(), moves(30)).prop_map(
        |(shapes, before, edits, between, more_edits, after)| Case {
            shapes,
            before,
            edits,
            between,
            more_edits,
            after,
        },
    )
}

fn world_of(shapes: &[Shape]) -> World {
    World::new(|| definition(shapes, None), json!({ "order": 1 }), json!({ "done": true }), Bug::None)
}

/// Runs the case; gives the world at its end and in which states its saga was moved.
fn run(case: &Case) -> (World, Vec<&'static str>) {
    let mut world = world_of(&case.shapes);
    let mut moved = Vec::new();
    world.happen(&case.before);
    let second = edited(&case.shapes, &case.edits);
    let mut state = world.state();
    let is_second = world.migrate(version(&second, 2)).is_ok();
    moved.extend(is_second.then_some(state));
    world.happen(&case.between);
    state = world.state();
    let third = edited(if is_second { &second } else { &case.shapes }, &case.more_edits);
    moved.extend(world.migrate(version(&third, 3)).is_ok().then_some(state));
    world.run(&case.after);
    (world, moved)
}

proptest! {
    #![proptest_config(Config { cases: 2_500, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_saga_that_was_moved_keeps_every_guarantee_and_replays_to_what_is_stored(case in cases()) {
        let (world, _) = run(&case);
        prop_assert!(world.violations().is_empty(), "{:#?}", world.violations());
    }
}

#[test]
fn sagas_are_moved_in_every_state_in_which_they_run() {
    let mut runner = TestRunner::deterministic();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..3_000 {
        let case = cases().new_tree(&mut runner).expect("a case").current();
        for state in run(&case).1 {
            *seen.entry(state).or_default() += 1;
        }
    }
    let often = |state: &str| seen.get(state).copied().unwrap_or_default();
    assert!(often("RUNNING") > 300 && often("COMPENSATING") > 100 && often("STUCK") > 20, "{seen:?}");
    assert_eq!(seen.len(), 3, "what has ended is never moved: {seen:?}");
}

#[test]
fn moving_a_saga_unasked_is_caught() {
    let mut runner = TestRunner::deterministic();
    for _ in 0..3_000 {
        let case = cases().new_tree(&mut runner).expect("a case").current();
        let mut world = world_of(&case.shapes);
        world.happen(&case.before);
        if matches!(world.state(), "RUNNING" | "COMPENSATING" | "STUCK") {
            world.migrate_unasked(version(&edited(&case.shapes, &case.edits), 2));
            world.run(&case.after);
            // Its history says nothing of the move, so the replay does not count.
            if world.violations().iter().any(|text| !text.starts_with("3 ")) {
                return;
            }
        }
    }
    panic!("no guarantee was ever broken");
}

fn codes(reasons: Result<(), Vec<Reason>>) -> Vec<String> {
    let told = |reason: Reason| format!("{} {}", reason.code, reason.step.unwrap_or_default()).trim_end().to_owned();
    reasons.expect_err("it is refused").into_iter().map(told).collect()
}

fn asked(driven: &Driven<'_>, to: &Definition) -> Result<(), Vec<Reason>> {
    compatible(driven.definition, to, &driven.saga, driven.now).map(drop)
}

/// a is done, b was sent; p and c are still to come.
fn half_way(first: &Definition) -> Driven<'_> {
    let mut driven = Driven::start(first);
    driven.succeed("a");
    driven
}

#[test]
fn what_was_not_sent_yet_may_change_at_will() {
    let first = definition(&line(), None);
    let driven = half_way(&first);
    let to = version(&[step("a", &[]), step("b", &[0]), step("x", &[1]), step("q", &[2]).pivot()], 2);
    let (moved, effects) = migrate(&first, &to, &driven.saga, driven.now).expect("it fits");
    assert_eq!(moved.definition, to.reference);
    assert_eq!(moved.revision, driven.saga.revision + 1);
    let statuses: Vec<StepStatus> = moved.steps.iter().map(|step| step.status()).collect();
    assert_eq!(statuses, [StepStatus::Verified, StepStatus::Pending, StepStatus::Waiting, StepStatus::Waiting]);
    assert_eq!(sagas::sent(&to, &effects), Vec::<String>::new(), "b is still being waited for");
}

#[test]
fn a_step_that_is_no_longer_waited_for_is_sent_at_once() {
    let first = definition(&line(), None);
    let driven = half_way(&first);
    let beside = version(&[step("a", &[]), step("b", &[0]), step("x", &[]), step("p", &[0, 1, 2]).pivot()], 2);
    let (moved, effects) = migrate(&first, &beside, &driven.saga, driven.now).expect("it fits");
    assert_eq!(sagas::sent(&beside, &effects), ["do x#1"]);
    assert_eq!(moved.next_seq.0, driven.saga.next_seq.0 + 1);
}

#[test]
fn every_change_to_what_was_sent_is_a_reason_and_all_are_told() {
    let first = definition(&line(), None);
    let driven = half_way(&first);
    let mut to = version(&line(), 2);
    to.steps[0].participant = "others".to_owned();
    to.steps[1].action = "redo".to_owned();
    to.steps[1].input = Template::literal(json!({ "step": "b", "more": 1 }));
    to.steps[1].compensation = Compensation::None;
    let found = codes(asked(&driven, &to));
    // The action, its input, and the compensation with all that it said.
    assert!(found.contains(&"STEP_CHANGED a".to_owned()), "{found:?}");
    assert!(found.iter().filter(|code| *code == "STEP_CHANGED b").count() >= 4, "{found:?}");
}

#[test]
fn time_outs_retries_and_conditions_of_what_was_sent_may_change() {
    let first = definition(&line(), None);
    let driven = half_way(&first);
    let mut to = version(&line(), 2);
    for step in &mut to.steps[..2] {
        step.timeout *= 2;
        step.retry.max_attempts = None;
        step.when = Some(Condition::new(Template::literal(json!(false))));
    }
    asked(&driven, &to).expect("it fits");
}

#[test]
fn a_sent_step_that_is_gone_or_comes_in_another_order_is_refused() {
    let first = definition(&line(), None);
    let driven = half_way(&first);
    let gone = version(&[step("b", &[]), step("p", &[0]).pivot()], 2);
    assert_eq!(codes(asked(&driven, &gone)), ["STEP_REMOVED a"]);
    let turned = version(&[step("b", &[]), step("a", &[0]), step("p", &[0, 1]).pivot()], 2);
    assert_eq!(codes(asked(&driven, &turned)), ["ORDER_CHANGED a", "ORDER_CHANGED b"]);
    let parallel = version(&[step("a", &[]), step("b", &[]), step("p", &[0, 1]).pivot()], 2);
    assert_eq!(codes(asked(&driven, &parallel)), ["ORDER_CHANGED b"], "it would be undone in another order");
    let in_between = version(&[step("a", &[]), step("x", &[0]), step("b", &[1]), step("p", &[2]).pivot()], 2);
    assert_eq!(codes(asked(&driven, &in_between)), ["ORDER_CHANGED b"]);
}

#[test]
fn the_pivot_does_not_move_across_what_was_sent() {
    let first = definition(&line(), None);
    let driven = half_way(&first);
    let earlier = version(&[step("a", &[]), step("b", &[0]).pivot(), step("p", &[1]).uncompensated()], 2);
    assert!(codes(asked(&driven, &earlier)).contains(&"PIVOT_CHANGED b".to_owned()));
    let mut driven = half_way(&first);
    driven.succeed("b");
    let later =
        version(&[step("a", &[]), step("b", &[0]), step("p", &[1]).uncompensated(), step("c", &[2]).pivot()], 2);
    assert_eq!(codes(asked(&driven, &later)), ["PIVOT_CHANGED p"], "the pivot was sent");
    let none = version(&[step("a", &[]), step("b", &[0]), step("q", &[1])], 2);
    asked(&half_way(&first), &none).expect("a pivot that was not sent yet may go");
}

#[test]
fn a_saga_that_has_ended_or_is_there_already_stays() {
    let first = definition(&line(), None);
    let mut driven = half_way(&first);
    let to = version(&line(), 2);
    assert_eq!(codes(asked(&driven, &first)), ["SAME_VERSION"]);
    driven.operate(Operation::Abandon);
    assert_eq!(codes(asked(&driven, &to)), ["ENDED"]);
    let mut other = version(&line(), 2);
    other.reference.name = "another".to_owned();
    assert_eq!(codes(asked(&half_way(&first), &other)), ["OTHER_DEFINITION"]);
}

#[test]
fn the_new_time_out_counts_from_the_saga_s_start() {
    let first = definition(&line(), None);
    let mut driven = half_way(&first);
    let minute = std::time::Duration::from_secs(60);
    let mut to = definition(&line(), Some(minute));
    to.reference.version = 2;
    let moved = compatible(&first, &to, &driven.saga, driven.now).expect("it fits");
    assert_eq!(moved.deadline, Some(amends::clock::after(epoch(), minute)));
    driven.wait(minute);
    assert_eq!(codes(asked(&driven, &to)), ["TIMEOUT_PASSED"]);
}

const UNMENDED: &str = "
saga: order
version: 1
steps:
  - { name: a, participant: one, action: do, compensation: none }
  - { name: p, participant: two, action: do, pivot: true, compensation: none }
  - { name: c, participant: three, action: do, input: { to: '${ input.adress }' } }
";

fn stuck_after_the_pivot(definition: &Definition) -> Driven<'_> {
    let mut driven = Driven::start(definition);
    driven.succeed("a");
    driven.succeed("p");
    assert!(matches!(driven.saga.state, SagaState::Stuck(_)));
    driven
}

#[test]
fn a_saga_that_is_stuck_at_a_wrong_expression_is_mended_by_a_new_version() {
    let first = read(UNMENDED).definition.expect("no errors");
    let mended = UNMENDED.replace("version: 1", "version: 2").replace("input.adress", "input.order");
    let second = read(&mended).definition.expect("no errors");
    let driven = stuck_after_the_pivot(&first);
    let (saga, _) = migrate(&first, &second, &driven.saga, driven.now).expect("nothing of it was sent");
    let mut history = driven.history.clone();
    let event = amends::saga::Event { now: driven.now, kind: EventKind::Migrated { from: 1, to: 2 } };
    history.push(Told { revision: saga.revision, event });
    let mut driven = Driven { definition: &second, saga, history, ..driven };
    let effects = driven.operate(Operation::Retry { step: None });
    assert_eq!(sagas::sent(&second, &effects), ["do c#1"]);
    driven.succeed("c");
    assert_eq!(driven.saga.state, SagaState::Completed);

    let fresh = amends::saga::Saga::new(driven.saga.id, &first, None, driven.saga.input.clone(), epoch());
    let versions = |version| (version == 2).then_some(&*second);
    let replayed = replay_across(&first, &versions, fresh, &driven.history).expect("it fits together");
    assert_eq!(replayed, driven.saga);
}

#[test]
fn what_a_new_version_reads_is_there_although_the_old_one_did_not_read_it() {
    let source = |version: u32, input: &str| {
        format!(
            "saga: order\nversion: {version}\nsteps:\n  - {{ name: a, participant: one, action: do, compensation: none }}\n  \
             - {{ name: b, participant: two, action: do, compensation: none }}\n  \
             - {{ name: c, participant: three, action: do, compensation: none{input} }}\n"
        )
    };
    let first = read(&source(1, "")).definition.expect("no errors");
    let second = read(&source(2, ", input: { of: \"${ steps['a'].output.done }\" }")).definition.expect("no errors");
    let mut driven = Driven::start(&first);
    driven.succeed("a");
    assert!(driven.saga.outputs.is_empty(), "nobody reads them");
    // As the coordinator does: what was put out comes from the outbox.
    let mut saga = driven.saga.clone();
    saga.outputs.insert(driven.at("a"), Payload::from(json!({ "done": true })));
    let (saga, _) = migrate(&first, &second, &saga, driven.now).expect("it fits");
    assert!(saga.reads_outputs);
    let mut history = driven.history.clone();
    let event = amends::saga::Event { now: driven.now, kind: EventKind::Migrated { from: 1, to: 2 } };
    history.push(Told { revision: saga.revision, event });
    let mut driven = Driven { definition: &second, saga, history, ..driven };
    let effects = driven.succeed("b");
    let bodies: Vec<&serde_json::Value> = effects
        .iter()
        .filter_map(|effect| match effect {
            amends::saga::Effect::Decide { body, .. } => Some(body.value()),
            _ => None,
        })
        .collect();
    assert_eq!(bodies, [&json!({ "of": true })]);
    let fresh = amends::saga::Saga::new(driven.saga.id, &first, None, driven.saga.input.clone(), epoch());
    let versions = |version| (version == 2).then_some(&*second);
    let replayed = replay_across(&first, &versions, fresh, &driven.history).expect("it fits together");
    assert_eq!(replayed, driven.saga);
}

#[test]
fn a_compensation_that_could_not_be_made_can_be_mended_and_one_that_was_sent_cannot() {
    let source = |version: u32, field: &str, action: &str| {
        format!(
            "saga: order\nversion: {version}\nsteps:\n  - name: a\n    participant: one\n    action: do\n    \
             compensation: {{ action: {action}, input: {{ of: \"${{ input.{field} }}\" }} }}\n  \
             - {{ name: b, participant: two, action: do, compensation: none }}\n"
        )
    };
    let wrong = read(&source(1, "ordre", "undo")).definition.expect("no errors");
    let right = read(&source(2, "order", "undo")).definition.expect("no errors");
    let mut driven = Driven::start(&wrong);
    driven.succeed("a");
    driven.refuse("b");
    assert!(matches!(driven.saga.state, SagaState::Stuck(_)));
    asked(&driven, &right).expect("the compensation was never sent");
    let other = read(&source(2, "order", "revert")).definition.expect("no errors");
    assert_eq!(codes(asked(&driven, &other)), ["STEP_CHANGED a"]);

    let mut driven = Driven::start(&right);
    driven.succeed("a");
    driven.reply("b", failure());
    assert_eq!(driven.step("a").in_flight().map(|(direction, _)| direction), Some(Direction::Compensation));
    let third = read(&source(3, "order + 0", "undo")).definition.expect("no errors");
    assert_eq!(codes(asked(&driven, &third)), ["STEP_CHANGED a"]);
}

#[test]
fn a_late_reply_after_the_move_counts_as_it_would_have() {
    let first = definition(&line(), None);
    let mut driven = half_way(&first);
    let seq = driven.seq("b", Direction::Action);
    // b is second of four here and third of four there.
    let to = version(&[step("x", &[]), step("a", &[]), step("b", &[1]), step("p", &[0, 2]).pivot()], 2);
    let (saga, _) = migrate(&first, &to, &driven.saga, driven.now).expect("it fits");
    driven = Driven { definition: &to, saga, ..driven };
    driven.reply_to(seq, 1, success());
    assert_eq!(driven.step("b").status(), StepStatus::Verified);
    let outcome = ReplyOutcome::Success { output: Payload::from(json!(1)) };
    assert!(driven.try_apply(EventKind::Replied { seq: amends::id::Seq(99), attempt: 1, outcome }).is_err());
}

fn each(version: u32, items: &str, more: &str) -> std::sync::Arc<Definition> {
    let source = format!(
        "saga: order\nversion: {version}\nsteps:\n  - name: reserve\n    participant: stock\n    action: reserve\n    \
         forEach: {{ items: '${{ {items} }}' }}\n    input: {{ line: '${{ item }}' }}\n    \
         compensation: {{ action: release }}\n  \
         - {{ name: approve, wait: {{ signal: approved, timeout: 1h, onTimeout: fail }} }}\n{more}"
    );
    let checked = read(&source);
    checked.definition.unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
}

fn of_lines(lines: &[&str]) -> amends::saga::Saga {
    let id = "01890000-0000-7000-8000-000000000001".parse().expect("an id");
    let input = Payload::from(json!({ "lines": lines, "others": lines }));
    let definition = each(1, "input.lines", "").expanded(&input).expect("a list");
    amends::saga::Saga::new(id, &definition, None, input, epoch())
}

#[test]
fn elements_of_a_list_and_waits_move_with_the_saga() {
    let (first, second) = (
        each(1, "input.lines", ""),
        each(2, "input.lines", "  - { name: ship, participant: stock, action: ship, compensation: none }\n"),
    );
    let saga = of_lines(&["a", "b"]);
    let expanded = amends::saga::expanded_for(&first, &saga).expect("it fits");
    let mut driven =
        Driven { definition: &expanded, saga, now: epoch(), history: Vec::new(), effects: Vec::new(), parent: None };
    driven.apply(EventKind::Started);
    driven.succeed("reserve[0]");
    driven.succeed("reserve[1]");
    assert_eq!(driven.step("approve").status(), StepStatus::Pending);
    let to = amends::saga::expanded_for(&second, &driven.saga).expect("it fits");
    let (saga, _) = migrate(&expanded, &to, &driven.saga, driven.now).expect("it fits");
    let mut driven = Driven { definition: &to, saga, ..driven };
    assert_eq!(driven.saga.steps.len(), 4);
    let payload = Payload::from(json!({ "by": "anna" }));
    let effects = driven.apply(EventKind::Signalled { signal: "approved".to_owned(), payload });
    assert_eq!(sagas::sent(&to, &effects), ["do ship#1"]);
}

#[test]
fn another_list_or_another_signal_is_another_meaning() {
    let first = each(1, "input.lines", "");
    let saga = of_lines(&["a"]);
    let expanded = amends::saga::expanded_for(&first, &saga).expect("it fits");
    let mut driven =
        Driven { definition: &expanded, saga, now: epoch(), history: Vec::new(), effects: Vec::new(), parent: None };
    driven.apply(EventKind::Started);
    let others = each(2, "input.others", "");
    let to = amends::saga::expanded_for(&others, &driven.saga).expect("it fits");
    assert_eq!(codes(asked(&driven, &to)), ["STEP_CHANGED reserve[0]"]);
    let gone = each(3, "input.nothing", "");
    let reasons = amends::saga::expanded_for(&gone, &driven.saga).expect_err("there is no such list");
    assert_eq!(reasons[0].code, "INPUT_INVALID");

    driven.succeed("reserve[0]");
    let mut other =
        amends::saga::expanded_for(&each(4, "input.lines", ""), &driven.saga).expect("it fits").steps.clone();
    let approve = other.iter_mut().find(|step| step.name == "approve").expect("the wait");
    approve.timeout *= 2;
    let mut to = definition(&[step("x", &[]), step("y", &[0])], None);
    to.reference.version = 4;
    to.graph = expanded.graph.clone();
    to.loops = expanded.loops.clone();
    to.steps.clone_from(&other);
    asked(&driven, &to).expect("a longer wait is the same wait");
    to.steps[1].work = amends::definition::Work::Delay;
    assert_eq!(codes(asked(&driven, &to))[0], "STEP_CHANGED approve");
}

#[test]
fn a_sub_saga_that_has_told_its_parent_stays_as_it_was_told() {
    let first = definition(&line(), None);
    let mut driven = half_way(&first);
    let start = amends::saga::ReplyAddress { token: "t".to_owned(), reply_to: "r".to_owned() };
    let held = Some(amends::saga::Held { since: epoch(), look_at: epoch() });
    let parent = driven.saga.id;
    driven.saga.parent =
        Some(amends::saga::Parent { saga: parent, step: "s".to_owned(), depth: 1, start, undo: None, held });
    assert_eq!(codes(asked(&driven, &version(&line(), 2))), ["HELD"]);
}
