//! Guarantees 6, 7 and 8: what participants did, by their own tables.

use std::collections::BTreeSet;

use amends::id::Seq;
use amends::message::command::idempotency_key;
use amends::saga::{Direction, Outcome};
use amends::store::OutboxEntry;

use super::{Case, Kept, Verdict};

pub fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    once(case, verdict);
    never_after_its_compensation(case, verdict);
    all_that_may_have_happened(case, verdict);
    nothing_else(case, verdict);
}

fn once(case: &Case<'_>, verdict: &mut Verdict) {
    let mut seen = BTreeSet::new();
    for effect in case.effects {
        verdict.weigh(6, seen.insert(effect), Some(case.id()), || format!("twice: {effect:?}"));
    }
}

fn never_after_its_compensation(case: &Case<'_>, verdict: &mut Verdict) {
    for (at, effect) in case.effects.iter().enumerate() {
        if effect.direction == Direction::Action {
            let undone = case.effects[..at]
                .iter()
                .any(|other| other.direction == Direction::Compensation && other.step == effect.step);
            verdict.weigh(7, !undone, Some(case.id()), || format!("after its compensation: {effect:?}"));
        }
    }
    for entry in case.stored.commands.iter().filter(|entry| entry.direction == Direction::Compensation) {
        let Some(generation) = entry.compensates else { continue };
        let key = idempotency_key(case.id(), &entry.step, "action", generation);
        let refused = case.inbox.get(&*key).is_some_and(|row| row.kept == Kept::Tombstone);
        let done = case.effects.iter().any(|e| e.step == entry.step && e.direction == Direction::Action);
        verdict.weigh(7, !(refused && done), Some(case.id()), || format!("{key} has a tombstone and an effect"));
    }
}

/// What is known of the end of the command at `seq`, if the entry is that of a compensation that is over.
fn is_over(entry: &OutboxEntry) -> bool {
    let done = |outcome| matches!(outcome, Outcome::Success | Outcome::Skipped);
    entry.verified.as_ref().is_some_and(|verified| done(verified.outcome))
}

/// Whether an operator has said that something stays as it is.
fn was_left_by_operator(case: &Case<'_>) -> bool {
    case.stored.audits.iter().any(|audit| matches!(&*audit.action, "skip" | "abandon"))
}

fn all_that_may_have_happened(case: &Case<'_>, verdict: &mut Verdict) {
    if case.stored.saga.state.as_str() != "COMPENSATED" {
        return;
    }
    let Some(definition) = &case.definition else { return };
    for entry in case.stored.commands.iter().filter(|entry| entry.direction == Direction::Action) {
        let has_compensation = definition.named(&entry.step).is_some_and(|step| step.compensation.action().is_some());
        let outcome = entry.verified.as_ref().map(|verified| verified.outcome);
        if !has_compensation || matches!(outcome, Some(Outcome::Failure)) {
            continue;
        }
        let undone = case
            .stored
            .commands
            .iter()
            .any(|other| other.step == entry.step && other.direction == Direction::Compensation && is_over(other));
        verdict.weigh(8, undone || was_left_by_operator(case), Some(case.id()), || {
            format!("{} is not compensated", entry.step)
        });
    }
    for effect in case.effects.iter().filter(|effect| effect.direction == Direction::Action) {
        if definition.named(&effect.step).is_some_and(|step| step.compensation.action().is_some()) {
            let count = |direction| {
                let same =
                    |e: &&&super::Effect| e.step == effect.step && e.direction == direction && e.part == effect.part;
                case.effects.iter().filter(same).count()
            };
            let net = count(Direction::Action) <= count(Direction::Compensation) || was_left_by_operator(case);
            verdict.weigh(8, net, Some(case.id()), || format!("left behind: {effect:?}"));
        }
    }
}

fn nothing_else(case: &Case<'_>, verdict: &mut Verdict) {
    for entry in case.stored.commands.iter().filter(|entry| entry.direction == Direction::Compensation) {
        let action = case.stored.commands.iter().find(|other| {
            other.step == entry.step
                && other.direction == Direction::Action
                && Some(other.generation) == entry.compensates
                && other.id.seq < Seq(entry.id.seq.0)
        });
        verdict.weigh(8, action.is_some(), Some(case.id()), || format!("{} was never sent, and undone", entry.step));
    }
    for effect in case.effects.iter().filter(|effect| effect.direction == Direction::Compensation) {
        let done = case
            .effects
            .iter()
            .any(|e| e.step == effect.step && e.direction == Direction::Action && e.part == effect.part);
        verdict.weigh(8, done, Some(case.id()), || format!("undone, and never done: {effect:?}"));
    }
}
