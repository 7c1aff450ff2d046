//! Steps that wait, loop and start other sagas, told as stories of the state machine: each test's name is the claim.

#[path = "support/sagas.rs"]
mod sagas;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends::definition::Definition;
use amends::id::StepIndex;
use amends::payload::Payload;
use amends::saga::{
    Direction, Effect, EventKind, Operation, Outcome, ReplyOutcome, SagaState, Settled, Skip, StepState, StepStatus,
};
use sagas::{Driven, address, answers, failure, parent, read, sent};
use serde_json::{Value, json};

const DEFAULTS: &str = "version: 1\ndefaults: { timeout: 30s, retry: { maxAttempts: 2, jitter: none, initialInterval: 1s, maxInterval: 1s } }\nsteps:\n";

fn definition(steps: &str, input: &Value) -> Arc<Definition> {
    read(&format!("saga: order\n{DEFAULTS}{steps}"), input)
}

fn id(id: u32) -> ReplyOutcome {
    ReplyOutcome::Success { output: json!({ "id": id }).into() }
}

fn bodies(definition: &Definition, effects: &[Effect]) -> BTreeMap<String, Value> {
    let body = |effect: &Effect| match effect {
        Effect::Decide { step, body, .. } => Some((definition.step(*step).name.clone(), body.value().clone())),
        _ => None,
    };
    effects.iter().filter_map(body).collect()
}

fn settled(effects: &[Effect]) -> Vec<(u32, Outcome)> {
    let of = |effect: &Effect| match effect {
        Effect::Settle(Settled { seq, outcome, .. }) => Some((seq.0, *outcome)),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

const LOOP: &str = r#"
  - name: reserve
    forEach: { items: "${ input.lines }", maxParallel: 2 }
    participant: x
    action: do
    input: { line: "${ item.sku }", at: "${ index }" }
    when: ${ item.sku != 'none' }
    compensation: { action: undo, input: { id: "${ steps['reserve'].output.id }", line: "${ item.sku }" } }
  - { name: pay, participant: x, action: do, input: { of: "${ steps['reserve'].output }" }, compensation: none }
  - { name: point, participant: x, action: do, pivot: true, compensation: none }
"#;

fn lines(skus: &[&str]) -> Value {
    json!({ "lines": skus.iter().map(|sku| json!({ "sku": sku })).collect::<Vec<_>>() })
}

#[test]
fn no_more_elements_are_under_way_than_is_said() {
    let input = lines(&["a", "b", "c", "d", "e", "f"]);
    let definition = definition(LOOP, &input);
    let mut saga = Driven::start_with(&definition, input, None);
    let mut order = Vec::new();
    loop {
        let flying: Vec<usize> = (0..6).filter(|&at| saga.saga.steps[at].in_flight().is_some()).collect();
        assert!(flying.len() <= 2, "{flying:?}");
        let Some(at) = flying.last() else { break };
        order.push(*at);
        saga.succeed(&format!("reserve[{at}]"));
    }
    assert_eq!(order.len(), 6, "{order:?}");
    assert_eq!(saga.step("pay").status(), StepStatus::Pending);
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn each_element_has_its_own_item_and_undoes_its_own_output() {
    let input = lines(&["a", "b", "none", "c"]);
    let definition = definition(LOOP, &input);
    let mut saga = Driven::start_with(&definition, input, None);
    let first = bodies(&definition, &saga.effects.clone());
    assert_eq!(first["reserve[0]"], json!({ "line": "a", "at": 0 }));
    assert_eq!(first["reserve[1]"], json!({ "line": "b", "at": 1 }));
    saga.reply("reserve[1]", id(11));
    saga.reply("reserve[0]", id(10));
    let pay = saga.reply("reserve[3]", id(13));
    let of = json!([{ "id": 10 }, { "id": 11 }, null, { "id": 13 }]);
    assert_eq!(bodies(&definition, &pay)["pay"], json!({ "of": of }), "null stands for what was passed over");
    let mut undo = bodies(&definition, &saga.refuse("pay"));
    // The lanes are undone in reverse order, each in its own time.
    undo.extend(bodies(&definition, &saga.undone("reserve[3]")));
    undo.extend(bodies(&definition, &saga.undone("reserve[1]")));
    undo.extend(bodies(&definition, &saga.undone("reserve[0]")));
    assert_eq!(undo["reserve[0]"], json!({ "id": 10, "line": "a" }));
    assert_eq!(undo["reserve[1]"], json!({ "id": 11, "line": "b" }));
    assert_eq!(undo["reserve[3]"], json!({ "id": 13, "line": "c" }));
    assert_eq!(saga.saga.state, SagaState::Compensated);
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn a_list_without_items_keeps_the_order_of_what_stands_around_it() {
    let input = lines(&[]);
    let steps = format!("  - {{ name: a, participant: x, action: do, compensation: {{ action: undo }} }}{LOOP}");
    let definition = definition(&steps, &input);
    let (a, pay, point) = (StepIndex(0), StepIndex(1), StepIndex(2));
    assert!(definition.graph.is_before(a, pay) && definition.graph.is_before(pay, point));
    let mut saga = Driven::start_with(&definition, input, None);
    assert_eq!(saga.step("pay").status(), StepStatus::Waiting);
    let effects = saga.succeed("a");
    assert_eq!(bodies(&definition, &effects)["pay"], json!({ "of": [] }));
}

#[test]
fn a_saga_of_nothing_but_an_empty_list_is_complete_at_once() {
    let input = lines(&[]);
    let steps =
        "  - { name: a, forEach: \"${ input.lines }\", participant: x, action: do, compensation: { action: undo } }\n";
    let definition = definition(steps, &input);
    let saga = Driven::start_with(&definition, input.clone(), None);
    assert_eq!(saga.saga.state, SagaState::Completed);
    assert_eq!(saga.replayed(), saga.saga);
    let child = Driven::start_with(&definition, input, Some(parent()));
    assert!(child.saga.held().is_some());
    assert_eq!(answers(&child.effects), ["action#1 success"]);
}

/// `w` waits while `b` cannot even be sent.
const TURNS_AT_ONCE: &str = r#"
  - { name: w, after: [], wait: { signal: go, timeout: 10m } }
  - { name: s, after: [], saga: other, input: {} }
  - { name: b, after: [w], participant: x, action: do, input: { n: "${ input.missing }" }, compensation: none }
  - { name: c, after: [], participant: x, action: do, input: { n: "${ input.missing }" }, compensation: none }
"#;

#[test]
fn what_turns_round_at_its_start_settles_what_it_began_to_wait_for() {
    let definition = definition(TURNS_AT_ONCE, &json!({}));
    let saga = Driven::start_with(&definition, json!({}), None);
    assert_eq!(saga.step("w").status(), StepStatus::Failed);
    assert_eq!(settled(&saga.effects), [(1, Outcome::Failure), (2, Outcome::Unknown)]);
    assert_eq!(sent(&definition, &saga.effects), ["do w#1", "do s#1", "undo s#1"]);
}

const WAITS: &str = r#"
  - { name: a, participant: x, action: do, compensation: { action: undo } }
  - { name: w, wait: { signal: go, timeout: 10m } }
  - { name: d, delay: 5m }
  - { name: b, participant: x, action: do, input: { by: "${ steps['w'].output.by }" }, compensation: none }
"#;

#[test]
fn a_signal_that_came_early_is_taken_when_its_step_begins() {
    let definition = definition(WAITS, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.signal("go");
    assert_eq!(saga.saga.signals.len(), 1);
    saga.operate(Operation::Pause);
    saga.succeed("a");
    let effects = saga.operate(Operation::Resume);
    assert_eq!(settled(&effects), [(2, Outcome::Success)], "decided and settled at once");
    assert!(saga.saga.signals.is_empty());
    let effects = saga.fire();
    assert_eq!(bodies(&definition, &effects)["b"], json!({ "by": "ann" }));
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn the_first_signal_counts() {
    let definition = definition(WAITS, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.signal("go");
    let bob = || EventKind::Signalled { signal: "go".to_owned(), payload: json!({ "by": "bob" }).into() };
    saga.apply(bob());
    saga.succeed("a");
    saga.apply(bob());
    let effects = saga.fire();
    assert_eq!(bodies(&definition, &effects)["b"], json!({ "by": "ann" }));
}

#[test]
fn nothing_ends_while_its_saga_is_paused_but_a_signal_is_heard() {
    let definition = definition(WAITS, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.succeed("a");
    saga.operate(Operation::Pause);
    saga.wait(Duration::from_secs(3_600));
    saga.apply(EventKind::Due);
    assert_eq!(saga.step("w").status(), StepStatus::Pending);
    saga.signal("go");
    assert_eq!(saga.step("w").status(), StepStatus::Verified);
    assert_eq!(saga.step("d").status(), StepStatus::Waiting);
    saga.operate(Operation::Resume);
    assert_eq!(saga.saga.due(), Some(saga.now + Duration::from_secs(300)), "the delay begins now");
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn a_wait_that_is_given_up_leaves_nothing_pending() {
    for end in ["cancel", "abandon", "skip", "time"] {
        let definition = definition(WAITS, &json!({}));
        let mut saga = Driven::start_with(&definition, json!({}), None);
        saga.succeed("a");
        let effects = match end {
            "cancel" => saga.operate(Operation::Cancel),
            "abandon" => saga.operate(Operation::Abandon),
            "skip" => saga.operate(Operation::Skip { step: StepIndex(1) }),
            _ => saga.fire(),
        };
        assert!(settled(&effects).iter().any(|(seq, _)| *seq == 2), "{end}: {effects:?}");
        let late = saga.try_apply(sagas::signalled("go"));
        assert!(late.is_err(), "{end}: a signal that comes too late is refused, not lost in silence");
        assert_eq!(saga.replayed(), saga.saga);
    }
}

#[test]
fn a_skipped_wait_is_not_undone() {
    let definition = definition(WAITS, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.succeed("a");
    saga.operate(Operation::Skip { step: StepIndex(1) });
    assert!(matches!(saga.step("w"), StepState::Skipped { by: Skip::OperatorAfterSend { .. } }));
    let effects = saga.operate(Operation::Cancel);
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
}

const CHILD: &str = r#"
  - { name: a, participant: x, action: do, compensation: { action: undo } }
  - { name: b, participant: x, action: do, compensation: { action: undo } }
output: { id: "${ steps['a'].output.id }" }
"#;

fn held(definition: &Definition) -> Driven<'_> {
    let mut saga = Driven::start_with(definition, json!({}), Some(parent()));
    saga.reply("a", id(1));
    let effects = saga.reply("b", id(2));
    assert_eq!(answers(&effects), ["action#1 success"]);
    assert!(saga.saga.held().is_some());
    saga
}

#[test]
fn a_sub_saga_that_goes_back_has_put_nothing_out() {
    let definition = definition(CHILD, &json!({}));
    let mut saga = held(&definition);
    assert!(saga.saga.output.is_some());
    let effects = saga.ask(Direction::Compensation, 1);
    assert_eq!(sent(&definition, &effects), ["undo b#1"]);
    assert_eq!(saga.saga.output, None, "what was put out no longer holds");
    saga.undone("b");
    let effects = saga.undone("a");
    assert_eq!(answers(&effects), ["compensation#1 success"]);
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn asked_again_to_go_back_it_says_that_it_is_on_its_way() {
    let definition = definition(CHILD, &json!({}));
    let mut saga = held(&definition);
    assert_eq!(answers(&saga.ask(Direction::Compensation, 1)), [""; 0], "it will say so when it is done");
    assert_eq!(answers(&saga.ask(Direction::Compensation, 2)), ["compensation#2 in-progress"]);
    saga.operate(Operation::Pause);
    assert_eq!(answers(&saga.ask(Direction::Compensation, 3)), ["compensation#3 in-progress"]);
    saga.operate(Operation::Resume);
    saga.undone("b");
    assert_eq!(answers(&saga.undone("a")), ["compensation#3 success"], "to where it was asked last");
}

#[test]
fn a_child_that_goes_back_by_itself_and_is_asked_to_answers_what_it_was_asked() {
    let definition = definition(CHILD, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), Some(parent()));
    saga.succeed("a");
    saga.refuse("b");
    saga.ask(Direction::Compensation, 1);
    assert_eq!(answers(&saga.undone("a")), ["compensation#1 success"]);
}

#[test]
fn a_held_child_looks_for_its_parent_ever_less_often_and_never_forgets_to() {
    let definition = definition(CHILD, &json!({}));
    let mut saga = held(&definition);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = saga.now;
        let effects = saga.fire();
        assert!(effects.contains(&Effect::LookAtParent), "{effects:?}");
        waits.push((saga.now - before).num_seconds());
    }
    assert_eq!(waits[..4], [30, 30, 60, 120]);
    assert_eq!(waits[11], 3_600, "an hour at most");
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn a_tombstone_fits_its_definition_whatever_list_that_gives() {
    let steps = r#"
  - { name: a, forEach: "${ [1, 2, 3] }", participant: x, action: do, compensation: { action: undo } }
  - { name: b, forEach: "${ input.lines }", participant: x, action: do, compensation: { action: undo } }
"#;
    for steps in [steps, &steps.replace("input.lines", "[1]")] {
        let text = format!("saga: order\n{DEFAULTS}{steps}");
        let definition = amends::definition::read(&text).definition.expect("no errors");
        let mut saga = Driven::fresh(&definition, Value::Null, Some(parent()));
        let answer = address(Direction::Compensation, 1);
        let effects = saga.apply(EventKind::Entombed { answer });
        assert_eq!(answers(&effects), ["compensation#1 success"]);
        assert_eq!(saga.saga.state, SagaState::Compensated);
        assert_eq!(saga.replayed(), saga.saga);
        let expanded = saga.saga.expand(&definition).expect("it can be read again");
        let asked = EventKind::Asked { direction: Direction::Action, answer: address(Direction::Action, 2) };
        let event = amends::saga::Event { now: saga.now, kind: asked };
        let (_, effects) = amends::saga::transition(&expanded, &saga.saga, &event).expect("it is asked");
        assert_eq!(answers(&effects), ["action#2 failure tombstoned"]);
    }
}

const PARENT: &str = r#"
  - { name: a, participant: x, action: do, compensation: { action: undo } }
  - { name: s, saga: other, input: {} }
  - { name: b, participant: x, action: do, compensation: { action: undo } }
"#;

#[test]
fn a_sub_saga_is_asked_ever_less_often_what_became_of_it() {
    let definition = definition(PARENT, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.succeed("a");
    let mut waits = Vec::new();
    for _ in 0..8 {
        saga.confirm_all();
        // The child says that it is not done yet.
        saga.reply("s", ReplyOutcome::InProgress);
        let before = saga.now;
        saga.fire();
        waits.push((saga.now - before).num_minutes());
        saga.fire();
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 16, 16, 16]);
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn a_sub_saga_under_way_is_sent_back_before_what_came_before_it() {
    let definition = definition(PARENT, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.succeed("a");
    let effects = saga.operate(Operation::Cancel);
    assert_eq!(sent(&definition, &effects), ["undo s#1"]);
    // Its start was answered after all: that changes nothing.
    saga.reply("s", id(1));
    assert_eq!(saga.step("a").status(), StepStatus::Verified);
    assert_eq!(sent(&definition, &saga.undone("s")), ["undo a#1"]);
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn a_sub_saga_that_will_not_go_back_makes_its_parent_stuck() {
    let definition = definition(PARENT, &json!({}));
    let mut saga = Driven::start_with(&definition, json!({}), None);
    saga.succeed("a");
    saga.reply("s", id(1));
    saga.refuse("b");
    saga.reply_undo("s", failure());
    let stuck = saga.saga.state.stuck().expect("it is stuck");
    assert_eq!((stuck.direction, stuck.step), (Direction::Compensation, saga.at("s")));
    let effects = saga.operate(Operation::Skip { step: saga.at("s") });
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
}

#[test]
fn five_hundred_elements_go_there_and_back() {
    let skus: Vec<String> = (0..500).map(|at| format!("sku-{at}")).collect();
    let input = lines(&skus.iter().map(String::as_str).collect::<Vec<_>>());
    let text = format!("saga: order\n{DEFAULTS}{LOOP}").replace("maxParallel: 2", "maxItems: 500, maxParallel: 20");
    let definition = amends::definition::read(&text).definition.expect("no errors");
    let payload = Payload::from(input.clone());
    let expanded = definition.expanded(&payload).expect("not too many");
    let mut saga = Driven::start_with(&expanded, input, None);
    for at in 0..500 {
        saga.reply(&format!("reserve[{at}]"), id(at));
        assert!(saga.saga.expand(&definition).is_some());
    }
    saga.refuse("pay");
    for at in (0..500).rev() {
        saga.undone(&format!("reserve[{at}]"));
    }
    assert_eq!(saga.saga.state, SagaState::Compensated);
}
