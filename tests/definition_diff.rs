//! What `definitions diff` finds, one change at a time.

use amends::definition::{Diff, Side, StepChange, diff, read};
use serde_json::{Value, json};

const FIRST: &str = "
saga: order
version: 1
owner: fulfilment
timeout: 15m
input: { schema: { type: object, required: [id] } }
steps:
  - { name: create, participant: orders, action: create, compensation: { action: cancel } }
  - { name: pay, participant: payments, action: pay, input: { amount: '${ input.total }' }, compensation: { action: refund } }
  - { name: pick, participant: warehouse, action: pick, compensation: { action: unpick } }
  - { name: confirm, participant: orders, action: confirm, pivot: true, compensation: none }
";

/// What changes when each of `edits` replaces its text.
fn after(edits: &[(&str, &str)]) -> Diff {
    let mut second = FIRST.replace("version: 1", "version: 2");
    for (old, new) in edits {
        assert!(second.contains(old), "{old} is not there");
        second = second.replacen(old, new, 1);
    }
    between(FIRST, &second)
}

fn between(first: &str, second: &str) -> Diff {
    let (one, two) = (read(first), read(second));
    let from = one.definition.unwrap_or_else(|| panic!("{:?}", one.diagnostics));
    let to = two.definition.unwrap_or_else(|| panic!("{:?}", two.diagnostics));
    diff(Side { definition: &from, source: first }, Side { definition: &to, source: second })
}

/// `step kind: what from -> to`, one per change.
fn told(diff: &Diff) -> Vec<String> {
    let change = |place: &str, change: &amends::definition::Change| {
        format!("{place}: {} {} -> {}", change.what, change.from, change.to)
    };
    let mut told: Vec<String> = diff.saga.iter().map(|found| change("saga", found)).collect();
    for step in &diff.steps {
        let place = format!("{} {}", step.step, step.kind.as_str());
        match step.kind {
            StepChange::Added | StepChange::Removed => told.push(place),
            _ if step.changes.is_empty() => told.push(place),
            _ => told.extend(step.changes.iter().map(|found| change(&place, found))),
        }
    }
    told
}

#[test]
fn the_same_content_is_no_change_however_it_is_written() {
    assert!(after(&[]).same);
    let spelled = [
        ("'${ input.total }'", "'${input.total}'"),
        ("timeout: 15m", "timeout: 900s"),
        ("action: pick, ", "timeout: 30s, action: pick, after: [pay], "),
    ];
    let diff = after(&spelled);
    assert!(diff.same, "{:?}", told(&diff));
}

#[test]
fn every_kind_of_change_is_named() {
    for (old, new, expected) in [
        ("owner: fulfilment", "owner: sales", r#"saga: owner "fulfilment" -> "sales""#),
        ("timeout: 15m", "timeout: 1h", r#"saga: timeout "15m" -> "1h""#),
        ("version: 2", "version: 2\nkey: '${ input.id }'", r#"saga: key null -> "${ input.id }""#),
        ("version: 2", "version: 2\noutput: { a: 1 }", r#"saga: output null -> {"a":1}"#),
        ("participant: payments", "participant: bank", r#"pay changed: participant "payments" -> "bank""#),
        ("action: pay,", "action: charge,", r#"pay changed: action "pay" -> "charge""#),
        (
            "action: pick,",
            "action: pick, when: '${ input.id != 1 }',",
            r#"pick changed: when null -> "${ input.id != 1 }""#,
        ),
        ("action: pick,", "action: pick, timeout: 2m,", r#"pick changed: timeout "30s" -> "2m""#),
        ("action: pick,", "action: pick, after: [create, pay],", r#"pick changed: after ["pay"] -> ["create","pay"]"#),
        ("action: pick,", "action: pick, retry: { maxAttempts: 9 },", "pick changed: retry.maxAttempts 5 -> 9"),
        ("action: refund", "action: void", r#"pay changed: compensation "refund" -> "void""#),
        (
            "action: unpick",
            "action: unpick, retry: { jitter: none }",
            r#"pick changed: compensation.retry.jitter "full" -> "none""#,
        ),
        (
            "compensation: { action: unpick }",
            "compensation: { action: unpick, input: { a: '$${ b }' } }",
            r#"pick changed: compensation.input "${ input }" -> {"a":"$${ b }"}"#,
        ),
    ] {
        assert_eq!(told(&after(&[(old, new)])), [expected]);
    }
}

#[test]
fn a_schema_is_compared_as_it_is_written() {
    let diff = after(&[("required: [id]", "required: [id, total]")]);
    let [change] = diff.saga.as_slice() else { panic!("{:?}", told(&diff)) };
    assert_eq!((change.what, &change.to["required"]), ("input.schema", &json!(["id", "total"])));
}

#[test]
fn a_changed_input_changes_the_compensation_that_takes_it_over() {
    let diff = after(&[("input.total", "input.sum")]);
    let what: Vec<&str> = diff.steps[0].changes.iter().map(|change| change.what).collect();
    assert_eq!(what, ["input", "compensation.input"]);
}

#[test]
fn the_pivot_moves_from_step_to_step() {
    let diff = after(&[
        ("action: confirm, pivot: true", "action: confirm"),
        ("action: pick, compensation: { action: unpick }", "action: pick, pivot: true, compensation: none"),
    ]);
    let told = told(&diff);
    assert!(told.contains(&"pick changed: pivot false -> true".to_owned()), "{told:?}");
    assert!(told.contains(&"confirm changed: pivot true -> false".to_owned()), "{told:?}");
}

#[test]
fn steps_that_are_new_gone_or_elsewhere_are_told_apart() {
    let line = |name: &str| FIRST.lines().find(|line| line.contains(&format!("name: {name},"))).expect("a step");
    let (pay, pick) = (line("pay"), line("pick"));
    let both = format!("{pay}\n{pick}");
    let moved = after(&[(&both, &format!("{pick}\n{pay}"))]);
    let kinds: Vec<(&str, StepChange)> = moved.steps.iter().map(|step| (step.step.as_str(), step.kind)).collect();
    assert_eq!(kinds.iter().filter(|(_, kind)| *kind == StepChange::Moved).count(), 1, "one of the two: {kinds:?}");

    let renamed = after(&[("name: pick", "name: pack")]);
    let kinds: Vec<(&str, StepChange)> = renamed.steps.iter().map(|step| (step.step.as_str(), step.kind)).collect();
    assert_eq!(kinds, [("pack", StepChange::Added), ("confirm", StepChange::Changed), ("pick", StepChange::Removed)]);
    let said: Vec<&str> = renamed.steps[0].changes.iter().map(|change| change.what).collect();
    assert!(said.starts_with(&["work", "participant", "action", "input"]), "a new step is told whole: {said:?}");
    assert!(renamed.steps[0].changes.iter().all(|change| change.from == Value::Null));
}

#[test]
fn what_only_some_kinds_of_steps_say_is_compared_too() {
    let wait = "steps:\n  - { name: approve, wait: { signal: yes-please, timeout: 2m, onTimeout: fail } }";
    let first = FIRST.replace("steps:", wait);
    let second = first.replace("onTimeout: fail", "onTimeout: continue").replace("timeout: 2m", "timeout: 3m");
    let expected = [r#"approve changed: onTimeout "fail" -> "continue""#, r#"approve changed: timeout "2m" -> "3m""#];
    assert_eq!(told(&between(&first, &second)), expected);
    let list = "action: pick, forEach: { items: '${ input.lines }', maxParallel: 2 },";
    let changes = told(&after(&[("action: pick,", list)]));
    assert_eq!(changes[0], r#"pick changed: forEach.items null -> "${ input.lines }""#, "{changes:?}");
}

#[test]
fn a_diff_is_told_in_json_too() {
    let json = serde_json::to_value(after(&[("name: pick", "name: pack")])).expect("JSON");
    assert_eq!(json["from"], json!({ "name": "order", "version": 1 }));
    assert_eq!(json["same"], json!(false));
    assert_eq!(json["steps"][0]["kind"], json!("added"));
    assert_eq!(json["steps"][1]["changes"][0], json!({ "what": "after", "from": ["pick"], "to": ["pack"] }));
}
