//! Every kind of state against every kind of event, in one table: `state + event -> what follows`. The states are
//! reached by events from the start. The table is a reviewed snapshot: a change of the machine shows as a diff of it.

#[path = "support/sagas.rs"]
mod sagas;

use std::fmt::Write as _;

use amends::definition::Definition;
use amends::id::{Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{
    Direction, Effect, EventKind, Note, Operation, Problem, ReplyOutcome, StepState, Told, allowed, replay,
};
use sagas::{
    ATTEMPT, Driven, address, answers, asked, definition, failure, line, line_of, parent, read, retry_later, sent,
    signalled, step, success,
};

type Path = (&'static str, fn(&mut Driven<'_>));

/// How each state is reached, on `a, b, pivot p, c`.
const PATHS: &[Path] = &[
    ("a sending", |_| {}),
    ("a awaiting", |s| s.confirm_all()),
    ("a backing off", |s| drop(s.reply("a", retry_later()))),
    ("a on its second attempt", |s| {
        s.reply("a", retry_later());
        s.fire();
        s.confirm_all();
    }),
    ("a paused", |s| {
        s.confirm_all();
        s.operate(Operation::Pause);
    }),
    ("a refused while paused", |s| {
        s.operate(Operation::Pause);
        s.refuse("a");
    }),
    ("a unknown while paused", |s| {
        s.reply("a", retry_later());
        s.fire();
        s.operate(Operation::Pause);
        s.reply("a", retry_later());
    }),
    ("a skipped after send", |s| drop(s.operate(Operation::Skip { step: StepIndex(0) }))),
    ("b skipped before its turn", |s| drop(s.operate(Operation::Skip { step: StepIndex(1) }))),
    ("b awaiting", |s| {
        s.succeed("a");
        s.confirm_all();
    }),
    ("cancelled with a under way", |s| {
        s.confirm_all();
        s.operate(Operation::Cancel);
    }),
    ("a being undone, b refused", |s| {
        s.succeed("a");
        s.refuse("b");
        s.confirm_all();
    }),
    ("b unknown and being undone", |s| {
        s.succeed("a");
        s.exhaust("b", Direction::Action);
        s.confirm_all();
    }),
    ("undoing a backs off", |s| {
        s.succeed("a");
        s.refuse("b");
        s.reply_undo("a", retry_later());
    }),
    ("undoing a, paused", |s| {
        s.succeed("a");
        s.refuse("b");
        s.operate(Operation::Pause);
    }),
    ("undoing a was refused", |s| {
        s.succeed("a");
        s.refuse("b");
        s.reply_undo("a", failure());
    }),
    ("undoing a is unknown", |s| {
        s.succeed("a");
        s.refuse("b");
        s.exhaust("a", Direction::Compensation);
    }),
    ("pivot awaiting", |s| {
        s.succeed("a");
        s.succeed("b");
        s.confirm_all();
    }),
    ("pivot unknown", |s| {
        s.succeed("a");
        s.succeed("b");
        s.exhaust("p", Direction::Action);
    }),
    ("pivot refused", |s| {
        s.succeed("a");
        s.succeed("b");
        s.refuse("p");
    }),
    ("refused pivot succeeded after all", |s| {
        s.succeed("a");
        s.succeed("b");
        s.refuse("p");
        s.succeed("p");
    }),
    ("c awaiting", |s| {
        to_c(s);
        s.confirm_all();
    }),
    ("c refused", |s| {
        to_c(s);
        s.refuse("c");
    }),
    ("c unknown", |s| {
        to_c(s);
        s.exhaust("c", Direction::Action);
    }),
    ("completed", |s| {
        to_c(s);
        s.succeed("c");
    }),
    ("compensated", |s| {
        s.succeed("a");
        s.refuse("b");
        s.undone("a");
    }),
    ("abandoned with b under way", |s| {
        s.succeed("a");
        s.operate(Operation::Abandon);
    }),
];

fn to_c(saga: &mut Driven<'_>) {
    for name in ["a", "b", "p"] {
        saga.succeed(name);
    }
}

/// Every event that can be told apart in this state: each reply to each command ever decided, and the rest.
fn events(saga: &Driven<'_>) -> Vec<(String, EventKind)> {
    let mut events = Vec::new();
    for seq in 1..=saga.saga.next_seq.0 {
        let attempt = saga
            .saga
            .steps
            .iter()
            .filter_map(|step| step.in_flight().filter(|(_, command)| command.seq == Seq(seq)))
            .map(|(_, command)| command.attempt)
            .next();
        let mut attempts = vec![("", attempt.unwrap_or(1))];
        if let Some(attempt) = attempt {
            attempts.push((", attempt never sent", attempt + 1));
            if attempt > 1 {
                attempts.push((", earlier attempt", attempt - 1));
            }
        }
        for (which, attempt) in attempts {
            for (word, outcome) in [
                ("success", success()),
                ("failure", failure()),
                ("retry", retry_later()),
                (
                    "retry that is not retryable",
                    ReplyOutcome::Retry { problem: Problem::new("card-declined", ""), after: None },
                ),
                ("in-progress", ReplyOutcome::InProgress),
            ] {
                events
                    .push((format!("{word} to {seq}{which}"), EventKind::Replied { seq: Seq(seq), attempt, outcome }));
            }
            events.push((format!("confirm of {seq}{which}"), EventKind::Published { seq: Seq(seq), attempt }));
        }
    }
    events.push(("due, early".to_owned(), EventKind::Due));
    events.push(("due".to_owned(), EventKind::Due));
    events.push(("started".to_owned(), EventKind::Started));
    let operations = [
        Operation::Retry { step: None },
        Operation::Compensate,
        Operation::Cancel,
        Operation::Pause,
        Operation::Resume,
        Operation::Abandon,
    ];
    events.extend(
        operations.into_iter().map(|operation| (operation.as_str().to_owned(), EventKind::Operated { operation })),
    );
    for index in saga.definition.indices() {
        let name = &saga.definition.step(index).name;
        let operation = Operation::Skip { step: index };
        events.push((format!("skip {name}"), EventKind::Operated { operation }));
        let operation = Operation::Retry { step: Some(index) };
        events.push((format!("retry {name}"), EventKind::Operated { operation }));
        let operation = Operation::Edit { step: index, input: Payload::trusted("{}") };
        events.push((format!("edit {name}"), EventKind::Operated { operation }));
    }
    events
}

fn told(definition: &Definition, effects: &[Effect]) -> String {
    let mut words = sent(definition, effects);
    words.extend(answers(effects).into_iter().map(|answer| format!("answer {answer}")));
    for effect in effects {
        match effect {
            Effect::Settle(settled) => words.push(format!("settle {} {}", settled.seq, settled.outcome.as_str())),
            Effect::LookAtParent => words.push("look at the parent".to_owned()),
            Effect::Note(Note::Duplicate) => words.push("duplicate".to_owned()),
            Effect::Note(Note::Contradiction(_, what)) => words.push(format!("CONTRADICTION: {what}")),
            _ => {}
        }
    }
    words.join(", ")
}

/// `a`, then side by side the wait `w`, the delay `d`, the elements of `l` and the sub-saga `s`, then `z`. A sub-saga itself.
const KINDS: &str = r#"
saga: kinds
version: 1
timeout: 1h
defaults: { timeout: 30s, retry: { maxAttempts: 2, jitter: none }, compensation: { retry: { maxAttempts: 2, jitter: none } } }
steps:
  - { name: a, participant: x, action: do, compensation: { action: undo } }
  - { name: w, after: [a], wait: { signal: go, timeout: 10m } }
  - { name: d, after: [a], delay: 10m }
  - name: l
    after: [a]
    forEach: { items: "${ input.lines }", maxParallel: 1 }
    participant: x
    action: do
    input: { line: "${ item }" }
    compensation: { action: undo, input: { id: "${ steps['l'].output.id }" } }
  - { name: s, after: [a], saga: other, input: {} }
  - { name: z, after: [w, d, l, s], participant: x, action: do, compensation: { action: undo } }
"#;

/// How each state of [`KINDS`] is reached.
const PATHS_OF_KINDS: &[Path] = &[
    ("before the wait", |s| s.confirm_all()),
    ("the signal came early", |s| drop(s.signal("go"))),
    ("all under way", all_under_way),
    ("paused while waiting", |s| {
        all_under_way(s);
        s.operate(Operation::Pause);
    }),
    ("the wait was skipped", |s| {
        all_under_way(s);
        let operation = Operation::Skip { step: s.at("w") };
        s.operate(operation);
    }),
    ("an element was refused", |s| {
        all_under_way(s);
        s.refuse("l[0]");
    }),
    ("the sub-saga was refused, an element is under way", |s| {
        all_under_way(s);
        s.refuse("s");
    }),
    ("asked to go back", |s| {
        all_under_way(s);
        s.ask(Direction::Compensation, 1);
    }),
    ("asked to go back while paused", |s| {
        all_under_way(s);
        s.operate(Operation::Pause);
        s.ask(Direction::Compensation, 1);
    }),
    ("held", held),
    ("held and paused", |s| {
        held(s);
        s.operate(Operation::Pause);
    }),
    ("held, then asked to go back", |s| {
        held(s);
        s.ask(Direction::Compensation, 1);
    }),
    ("stuck going back", |s| {
        s.ask(Direction::Compensation, 1);
        s.succeed("a");
        s.reply_undo("a", failure());
    }),
    ("complete with its parent", |s| {
        held(s);
        s.apply(EventKind::ParentEnded);
    }),
    ("undone", |s| {
        s.refuse("a");
    }),
    ("abandoned while held", |s| {
        held(s);
        s.operate(Operation::Abandon);
    }),
];

fn all_under_way(saga: &mut Driven<'_>) {
    saga.succeed("a");
    saga.confirm_all();
}

fn held(saga: &mut Driven<'_>) {
    all_under_way(saga);
    saga.signal("go");
    for name in ["s", "l[0]", "l[1]"] {
        saga.reply(name, with_id());
    }
    while saga.step("d").in_flight().is_some() {
        saga.fire();
    }
    saga.succeed("z");
}

fn with_id() -> ReplyOutcome {
    ReplyOutcome::Success { output: serde_json::json!({ "id": 7 }).into() }
}

/// What is peculiar to these kinds of steps, and what might be mistaken for it.
fn events_of_kinds(saga: &Driven<'_>) -> Vec<(String, EventKind)> {
    let mut events = vec![
        ("signal".to_owned(), signalled("go")),
        ("unknown signal".to_owned(), signalled("stop")),
        ("asked what became of it".to_owned(), asked(Direction::Action, 1)),
        ("asked again what became of it".to_owned(), asked(Direction::Action, 2)),
        ("asked to go back".to_owned(), asked(Direction::Compensation, 1)),
        ("asked again to go back".to_owned(), asked(Direction::Compensation, 2)),
        ("parent ended".to_owned(), EventKind::ParentEnded),
        ("entombed".to_owned(), EventKind::Entombed { answer: address(Direction::Compensation, 1) }),
        ("due, early".to_owned(), EventKind::Due),
        ("due".to_owned(), EventKind::Due),
    ];
    for index in saga.definition.indices() {
        let name = &saga.definition.step(index).name;
        if let Some((direction, command)) = saga.saga.steps[index.at()].in_flight() {
            for (word, outcome) in
                [("success", with_id()), ("failure", failure()), ("heartbeat", ReplyOutcome::InProgress)]
            {
                let (seq, attempt) = (command.seq, command.attempt);
                events.push((format!("{word} to {direction} of {name}"), EventKind::Replied { seq, attempt, outcome }));
            }
        }
        let operation = Operation::Skip { step: index };
        events.push((format!("skip {name}"), EventKind::Operated { operation }));
    }
    let operations =
        [Operation::Retry { step: None }, Operation::Cancel, Operation::Resume, Operation::Pause, Operation::Abandon];
    let operated = |operation: Operation| (operation.as_str().to_owned(), EventKind::Operated { operation });
    events.extend(operations.map(operated));
    events
}

#[test]
fn every_state_and_event() {
    let definition = definition(&line(), Some(ATTEMPT * 100));
    let fresh = || Driven::start(&definition);
    insta::assert_snapshot!(table(PATHS, fresh, events));
}

#[test]
fn every_state_and_event_of_waits_loops_and_sub_sagas() {
    let input = serde_json::json!({ "lines": [1, 2] });
    let definition = read(KINDS, &input);
    let fresh = || Driven::start_with(&definition, input.clone(), Some(parent()));
    insta::assert_snapshot!(table(PATHS_OF_KINDS, fresh, events_of_kinds));
}

fn table<'d>(
    paths: &[Path],
    fresh: impl Fn() -> Driven<'d>,
    events: fn(&Driven<'_>) -> Vec<(String, EventKind)>,
) -> String {
    let mut table = String::new();
    for (name, path) in paths {
        let mut start = fresh();
        let definition = start.definition;
        path(&mut start);
        let state = line_of(definition, &start.saga);
        let can = allowed(definition, &start.saga).join(" ");
        writeln!(table, "\n== {name}: {state}\n   operators can: {can}").expect("a string takes it");
        for (word, kind) in events(&start) {
            let mut saga = start.clone();
            if word == "due" {
                saga.now = saga.saga.due().unwrap_or(saga.now + ATTEMPT).max(saga.now);
            }
            let what = match saga.try_apply(kind) {
                Err(illegal) => format!("illegal: {}", illegal.why),
                Ok(effects) => {
                    let after = line_of(definition, &saga.saga);
                    let told = told(definition, &effects);
                    let state = match saga.saga.revision == start.saga.revision {
                        true => "no change",
                        false => &after,
                    };
                    format!("{state}{}{told}", if told.is_empty() { "" } else { "  ! " })
                }
            };
            assert_eq!(saga.replayed(), saga.saga, "{name} + {word}");
            writeln!(table, "   + {word:<40} -> {what}").expect("a string takes it");
        }
    }
    table
}

#[test]
fn every_step_state_is_in_the_table() {
    let definition = definition(&line(), None);
    let mut seen = std::collections::BTreeSet::new();
    for (_, path) in PATHS {
        let mut saga = Driven::start(&definition);
        path(&mut saga);
        seen.extend(saga.saga.steps.iter().map(|step| step.status().as_str()));
    }
    let all = ["compensated", "compensating", "failed", "pending", "skipped", "unknown", "verified", "waiting"];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn a_history_with_a_gap_is_refused() {
    let shapes = vec![step("a", &[]), step("b", &[0])];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    saga.confirm_all();
    saga.succeed("a");
    let fresh = amends::saga::Saga::new(saga.saga.id, &definition, None, saga.saga.input.clone(), sagas::epoch());
    assert_eq!(saga.replayed(), saga.saga);
    let without: Vec<Told> = saga.history.iter().filter(|told| told.revision != 2).cloned().collect();
    assert!(replay(&definition, fresh, &without).is_err());
    assert!(matches!(saga.step("a"), StepState::Verified { .. }));
}
