//! Every kind of state against every kind of event, in one table: `state + event -> what follows`. The states are
//! reached by events from the start. The table is a reviewed snapshot: a change of the machine shows as a diff of it.

#[path = "support/sagas.rs"]
mod sagas;

use std::fmt::Write as _;

use amends::definition::Definition;
use amends::id::{Seq, StepIndex};
use amends::saga::{
    Direction, Effect, EventKind, Note, Operation, Problem, ReplyOutcome, StepState, Told, allowed, replay,
};
use sagas::{ATTEMPT, Driven, definition, failure, line, line_of, retry_later, sent, step, success};

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
    }
    events
}

fn told(definition: &Definition, effects: &[Effect]) -> String {
    let mut words = sent(definition, effects);
    for effect in effects {
        match effect {
            Effect::Settle(settled) => words.push(format!("settle {} {}", settled.seq, settled.outcome.as_str())),
            Effect::Note(Note::Duplicate) => words.push("duplicate".to_owned()),
            Effect::Note(Note::Contradiction(_, what)) => words.push(format!("CONTRADICTION: {what}")),
            _ => {}
        }
    }
    words.join(", ")
}

#[test]
fn every_state_and_event() {
    let definition = definition(&line(), Some(ATTEMPT * 100));
    let mut table = String::new();
    for (name, path) in PATHS {
        let mut start = Driven::start(&definition);
        path(&mut start);
        let state = line_of(&definition, &start.saga);
        let can = allowed(&definition, &start.saga).join(" ");
        writeln!(table, "\n== {name}: {state}\n   operators can: {can}").expect("a string takes it");
        for (word, kind) in events(&start) {
            let mut saga = start.clone();
            if word == "due" {
                saga.now = saga.saga.due().unwrap_or(saga.now + ATTEMPT).max(saga.now);
            }
            let what = match saga.try_apply(kind) {
                Err(illegal) => format!("illegal: {}", illegal.why),
                Ok(effects) => {
                    let after = line_of(&definition, &saga.saga);
                    let told = told(&definition, &effects);
                    let state = match saga.saga.revision == start.saga.revision {
                        true => "no change",
                        false => &after,
                    };
                    format!("{state}{}{told}", if told.is_empty() { "" } else { "  ! " })
                }
            };
            writeln!(table, "   + {word:<40} -> {what}").expect("a string takes it");
        }
    }
    insta::assert_snapshot!(table);
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
