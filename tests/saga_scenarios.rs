//! The state machine told as stories: each test's name is the claim.

#[path = "support/sagas.rs"]
mod sagas;

use std::time::Duration;

use amends::clock::after;
use amends::definition::Template;
use amends::id::StepIndex;
use amends::payload::Payload;
use amends::saga::{
    Direction, Effect, EventKind, Note, Operation, Outcome, PUBLISH_GRACE, Phase, Problem, ReplyOutcome, SagaState,
    StepState, StepStatus,
};
use sagas::{ATTEMPT, Driven, definition, failure, line, retry_later, sent, step, success};
use serde_json::json;

fn has_note(effects: &[Effect], wanted: impl Fn(&Note) -> bool) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Note(note) if wanted(note)))
}

#[test]
fn every_step_verified_completes_the_saga() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    for name in ["a", "b", "p", "c"] {
        saga.succeed(name);
    }
    assert_eq!(saga.saga.state, SagaState::Completed);
    assert_eq!(saga.saga.due(), None);
    assert_eq!(saga.replayed(), saga.saga);
}

#[test]
fn refusal_goes_backward() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.succeed("a");
    let effects = saga.refuse("b");
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
    assert_eq!(saga.saga.cause, Some(Problem::new("refused", "no")));
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
    assert_eq!(saga.step("b").status(), StepStatus::Failed, "a refused step left no effect and is not compensated");
}

#[test]
fn unknown_is_compensated_too() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.exhaust("a", Direction::Action);
    assert_eq!(saga.saga.state, SagaState::Compensating);
    assert_eq!(saga.step("a").status(), StepStatus::Compensating);
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

#[test]
fn late_success_is_compensated() {
    let shapes = vec![step("a", &[]).attempts(1), step("b", &[]), step("c", &[0, 1])];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    let late = saga.seq("a", Direction::Action);
    saga.confirm_all();
    saga.refuse("b");
    saga.exhaust("a", Direction::Action);
    let effects = saga.reply_to(late, 1, success());
    assert!(effects.iter().any(|e| matches!(e, Effect::Settle(s) if s.outcome == Outcome::Success)), "{effects:?}");
    assert!(matches!(saga.step("a"), StepState::Compensating { owed, .. } if owed.known));
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

#[test]
fn success_of_an_earlier_attempt_settles_the_command() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.confirm_all();
    saga.fire();
    saga.fire();
    let seq = saga.seq("a", Direction::Action);
    assert_eq!(saga.step("a").attempts(), 2);
    let effects = saga.reply_to(seq, 1, success());
    assert_eq!(sent(&definition, &effects), ["do b#1"]);
}

#[test]
fn failed_compensation_is_stuck_and_retry_uses_a_new_generation() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.succeed("a");
    saga.refuse("b");
    saga.reply_undo("a", failure());
    assert_eq!(saga.saga.state.stuck().map(|stuck| stuck.direction), Some(Direction::Compensation));
    assert_eq!(saga.saga.due(), None);
    let effects = saga.operate(Operation::Retry { step: None });
    assert_eq!(sent(&definition, &effects), ["undo a#2"]);
    assert_eq!(saga.saga.state, SagaState::Compensating);
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

/// The body of the command that the effects decide.
fn decided(effects: &[Effect]) -> Payload {
    let body = effects.iter().find_map(|effect| match effect {
        Effect::Decide { body, .. } => Some(body.clone()),
        _ => None,
    });
    body.expect("a command is decided")
}

#[test]
fn what_was_refused_is_sent_with_another_input_as_a_new_generation_and_replays() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    for name in ["a", "b", "p"] {
        saga.succeed(name);
    }
    let c = StepIndex(3);
    let edited = Payload::from(json!({ "qty": 3 }));
    let edit = || Operation::Edit { step: c, input: edited.clone() };
    assert!(saga.refused(edit()).contains("step `c` is pending, and only what was refused"), "it may yet be done");
    saga.refuse("c");
    assert!(saga.saga.state.stuck().is_some(), "beyond the pivot there is no way back");
    assert!(saga.refused(Operation::Edit { step: StepIndex(0), input: edited.clone() }).contains("`a` is verified"));
    let effects = saga.operate(edit());
    assert_eq!(sent(&definition, &effects), ["do c#2"], "its inbox would answer the old key from memory");
    assert_eq!(decided(&effects), edited);
    assert_eq!(saga.replayed(), saga.saga, "the input is part of the event");
    saga.refuse("c");
    let effects = saga.operate(Operation::Retry { step: None });
    assert_eq!(sent(&definition, &effects), ["do c#3"]);
    assert_ne!(decided(&effects), edited, "a retry sends what the definition says");
    saga.succeed("c");
    assert_eq!(saga.saga.state, SagaState::Completed);
}

#[test]
fn a_refused_compensation_is_sent_with_another_input_and_an_unknown_one_is_not() {
    let definition = definition(&line(), None);
    let edit = Operation::Edit { step: StepIndex(0), input: Payload::from(json!({ "id": "a-1" })) };
    let mut saga = Driven::start(&definition);
    saga.succeed("a");
    saga.refuse("b");
    saga.reply_undo("a", failure());
    let effects = saga.operate(edit.clone());
    assert_eq!(
        (sent(&definition, &effects), decided(&effects).text()),
        (vec!["undo a#2".to_owned()], r#"{"id":"a-1"}"#)
    );
    saga.undone("a");
    assert_eq!((saga.saga.state.as_str(), saga.replayed()), ("COMPENSATED", saga.saga.clone()));
    assert!(saga.refused(edit.clone()).contains("final"));

    let mut unknown = Driven::start(&definition);
    unknown.succeed("a");
    unknown.refuse("b");
    unknown.exhaust("a", Direction::Compensation);
    assert!(
        unknown.refused(edit.clone()).contains("only what was refused"),
        "it may have been done with the old input"
    );
    unknown.operate(Operation::Pause);
    assert!(unknown.refused(edit).contains("resume it first"));
}

#[test]
fn retry_after_unknown_keeps_its_key() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.succeed("a");
    saga.refuse("b");
    let seq = saga.seq("a", Direction::Compensation);
    saga.exhaust("a", Direction::Compensation);
    assert!(saga.saga.state.stuck().is_some());
    let effects = saga.operate(Operation::Retry { step: Some(StepIndex(0)) });
    assert_eq!(sent(&definition, &effects), [format!("again {seq}/3")], "no new command, so the same key");
}

#[test]
fn parallel_branches_are_undone_in_reverse_dependency_order() {
    // a, then b and c side by side, then d after both, then e that is refused.
    let shapes = vec![step("a", &[]), step("b", &[0]), step("c", &[0]), step("d", &[1, 2]), step("e", &[3])];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    for name in ["a", "c", "b", "d"] {
        saga.succeed(name);
    }
    let effects = saga.refuse("e");
    assert_eq!(sent(&definition, &effects), ["undo d#1"]);
    let effects = saga.undone("d");
    assert_eq!(sent(&definition, &effects), ["undo c#1", "undo b#1"]);
    assert_eq!(sent(&definition, &saga.undone("b")), [""; 0]);
    let effects = saga.undone("c");
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

#[test]
fn a_step_under_way_is_settled_before_what_it_depends_on_is_undone() {
    let shapes = vec![step("a", &[]), step("b", &[0]), step("c", &[0])];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    saga.succeed("a");
    assert_eq!(sent(&definition, &saga.refuse("b")), [""; 0], "c is still under way");
    let effects = saga.succeed("c");
    assert_eq!(sent(&definition, &effects), ["undo c#1"]);
}

fn at_pivot(definition: &amends::definition::Definition) -> Driven<'_> {
    let mut saga = Driven::start(definition);
    saga.succeed("a");
    saga.succeed("b");
    saga
}

#[test]
fn pivot_refused_goes_back() {
    let definition = definition(&line(), None);
    let mut saga = at_pivot(&definition);
    let effects = saga.refuse("p");
    assert_eq!(sent(&definition, &effects), ["undo b#1"]);
    saga.undone("b");
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

#[test]
fn pivot_unknown_is_stuck() {
    let definition = definition(&line(), None);
    let mut saga = at_pivot(&definition);
    saga.exhaust("p", Direction::Action);
    let stuck = saga.saga.state.stuck().expect("stuck").clone();
    assert_eq!((stuck.direction, stuck.problem.kind.as_str()), (Direction::Action, "timeout"));
    assert!(saga.refused(Operation::Compensate).contains("pivot was sent"));
    saga.succeed("p");
    assert_eq!(saga.saga.state, SagaState::Running, "a late reply frees it");
}

#[test]
fn after_the_pivot_refusal_is_stuck() {
    let definition = definition(&line(), None);
    let mut saga = at_pivot(&definition);
    saga.succeed("p");
    saga.refuse("c");
    assert_eq!(saga.saga.state.stuck().map(|stuck| stuck.direction), Some(Direction::Action));
    let effects = saga.operate(Operation::Retry { step: None });
    assert_eq!(sent(&definition, &effects), ["do c#2"]);
    saga.succeed("c");
    assert_eq!(saga.saga.state, SagaState::Completed);
}

#[test]
fn cancel_is_refused_once_the_pivot_was_sent() {
    let definition = definition(&line(), None);
    let mut saga = at_pivot(&definition);
    assert!(saga.refused(Operation::Cancel).contains("pivot was sent"));
    let mut earlier = Driven::start(&definition);
    earlier.operate(Operation::Cancel);
    assert_eq!(earlier.saga.state, SagaState::Compensating);
}

#[test]
fn paused_saga_sends_nothing_but_applies_replies() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.operate(Operation::Pause);
    assert_eq!(saga.saga.due(), None);
    assert_eq!(sent(&definition, &saga.succeed("a")), [""; 0]);
    assert_eq!(saga.step("a").status(), StepStatus::Verified);
    saga.wait(ATTEMPT * 100);
    assert_eq!(saga.apply(EventKind::Due), []);
    let effects = saga.operate(Operation::Resume);
    assert_eq!(sent(&definition, &effects), ["do b#1"]);
}

#[test]
fn a_saga_that_must_turn_round_when_resumed_sends_nothing_forward() {
    let shapes = vec![step("a", &[]), step("b", &[]), step("c", &[1])];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    saga.operate(Operation::Pause);
    saga.refuse("a");
    saga.succeed("b");
    let effects = saga.operate(Operation::Resume);
    assert_eq!(sent(&definition, &effects), ["undo b#1"]);
}

#[test]
fn skip_after_send_is_compensated_later() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.operate(Operation::Skip { step: StepIndex(0) });
    let effects = saga.refuse("b");
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
    saga.undone("a");
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

#[test]
fn a_step_skipped_before_its_turn_does_not_free_what_follows() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    let effects = saga.operate(Operation::Skip { step: StepIndex(1) });
    assert_eq!(sent(&definition, &effects), [""; 0], "a is still under way");
    let effects = saga.succeed("a");
    assert_eq!(sent(&definition, &effects), ["do p#1"]);
}

#[test]
fn a_pivot_skipped_before_its_turn_is_not_yet_passed() {
    let definition = definition(&line(), Some(Duration::from_secs(900)));
    let mut saga = Driven::start(&definition);
    saga.operate(Operation::Skip { step: StepIndex(2) });
    assert!(saga.saga.deadline.is_some(), "nothing irrevocable has been sent");
    saga.succeed("a");
    let effects = saga.refuse("b");
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
    let mut other = Driven::start(&definition);
    other.operate(Operation::Skip { step: StepIndex(2) });
    other.succeed("a");
    other.succeed("b");
    assert_eq!(other.saga.deadline, None);
    assert!(other.refused(Operation::Cancel).contains("pivot"));
}

#[test]
fn success_after_failure_is_owed() {
    let shapes = vec![step("a", &[]), step("b", &[])];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    saga.refuse("a");
    let effects = saga.succeed("a");
    assert!(has_note(&effects, |note| matches!(note, Note::Contradiction(..))));
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
}

#[test]
fn success_of_a_refused_pivot_that_nothing_undoes_is_stuck() {
    let definition = definition(&line(), None);
    let mut saga = at_pivot(&definition);
    saga.refuse("p");
    saga.succeed("p");
    let stuck = saga.saga.state.stuck().expect("never reported as compensated");
    assert_eq!(stuck.problem.kind, "not-compensable");
    saga.undone("b");
    assert!(saga.saga.state.stuck().is_some());
}

#[test]
fn non_retryable_retry_is_a_refusal() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.reply("a", ReplyOutcome::Retry { problem: Problem::new("card-declined", "no"), after: None });
    assert_eq!(saga.step("a").status(), StepStatus::Failed);
    assert_eq!(saga.saga.state, SagaState::Compensated);
}

#[test]
fn retry_waits_as_long_as_the_participant_asks() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    let asked = Duration::from_secs(77);
    saga.reply("a", ReplyOutcome::Retry { problem: Problem::new("busy", ""), after: Some(asked) });
    assert_eq!(saga.saga.due(), Some(after(saga.now, asked)));
    assert_eq!(sent(&definition, &saga.fire()), ["again 1/2"]);
}

#[test]
fn spent_retries_count_as_unknown() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.reply("a", retry_later());
    saga.fire();
    let effects = saga.reply("a", retry_later());
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
}

#[test]
fn in_progress_restarts_the_timeout() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.confirm_all();
    saga.wait(ATTEMPT / 2);
    saga.reply("a", ReplyOutcome::InProgress);
    assert_eq!(saga.saga.due(), Some(after(saga.now, ATTEMPT)));
    assert_eq!(saga.step("a").attempts(), 1);
}

#[test]
fn saga_timeout_compensates_until_the_pivot_is_sent() {
    let definition = definition(&line(), Some(Duration::from_secs(10)));
    let mut late = Driven::start(&definition);
    late.succeed("a");
    late.confirm_all();
    late.fire();
    assert_eq!(late.saga.state, SagaState::Compensating);
    assert_eq!(late.saga.cause.as_ref().map(|cause| cause.kind.as_str()), Some("saga-timeout"));
    let mut sent = at_pivot(&definition);
    sent.confirm_all();
    sent.wait(Duration::from_secs(11));
    assert_eq!(sent.apply(EventKind::Due), []);
    assert_eq!(sent.saga.state, SagaState::Running);
}

#[test]
fn unconfirmed_publish_is_repeated_with_the_same_attempt() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    assert_eq!(saga.saga.due(), Some(after(saga.now, PUBLISH_GRACE)));
    assert_eq!(sent(&definition, &saga.fire()), ["again 1/1"]);
    saga.confirm_all();
    let (_, command) = saga.step("a").in_flight().expect("in flight");
    assert_eq!(command.phase, Phase::Awaiting(after(saga.now, ATTEMPT)));
}

#[test]
fn a_confirm_after_the_end_changes_nothing() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    saga.operate(Operation::Abandon);
    let ended = saga.saga.clone();
    saga.confirm_all();
    saga.succeed("a");
    assert_eq!(saga.saga, ended);
}

#[test]
fn abandon_closes_every_open_entry_once() {
    let shapes = vec![step("a", &[]).attempts(1), step("p", &[0]).pivot()];
    let definition = definition(&shapes, None);
    let mut saga = Driven::start(&definition);
    saga.succeed("a");
    saga.exhaust("p", Direction::Action);
    assert!(saga.saga.state.stuck().is_some());
    let effects = saga.operate(Operation::Abandon);
    let closed: Vec<_> = effects
        .iter()
        .filter_map(|e| if let Effect::Settle(s) = e { Some((s.seq.0, s.outcome)) } else { None })
        .collect();
    assert_eq!(closed, [(2, Outcome::Abandoned)]);
    assert_eq!(saga.saga.state, SagaState::Abandoned);
}

#[test]
fn a_false_condition_skips_and_steps_after_it_go_on() {
    let shapes = vec![step("a", &[]).when(false), step("b", &[0])];
    let definition = definition(&shapes, None);
    let saga = Driven::start(&definition);
    assert_eq!(saga.step("a").status(), StepStatus::Skipped);
    assert_eq!(saga.step("b").status(), StepStatus::Pending);
}

#[test]
fn an_expression_that_fails_is_a_refusal_without_effect() {
    let shapes = vec![step("a", &[]), step("b", &[0])];
    let mut definition = definition(&shapes, None);
    definition.steps[1].when = Some(amends::definition::Condition::new(Template::literal(json!("neither"))));
    let mut saga = Driven::start(&definition);
    let effects = saga.succeed("a");
    assert_eq!(sent(&definition, &effects), ["undo a#1"]);
    assert_eq!(saga.saga.cause.as_ref().map(|cause| cause.kind.as_str()), Some("expression-error"));
}

#[test]
fn an_operation_on_a_step_that_does_not_exist_is_refused() {
    let definition = definition(&line(), None);
    let mut saga = Driven::start(&definition);
    assert!(saga.refused(Operation::Skip { step: StepIndex(99) }).contains("no step number 99"));
    assert!(saga.refused(Operation::Retry { step: Some(StepIndex(99)) }).contains("no step number 99"));
}
