//! Guarantees 11, 12 and 13: what the outbox says of commands, held against participants' tables and the traffic.

use amends::clock::after;
use amends::definition::Definition;
use amends::message::ReplyBody;
use amends::saga::{Direction, Outcome};
use amends::store::{OutboxEntry, Verified};

use super::{Case, Kept, Message, Verdict};

pub fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    for entry in case.stored.commands.iter().filter(|entry| !entry.is_wait()) {
        let Some(verified) = &entry.verified else {
            let state = &case.stored.saga.state;
            let what = || format!("{} is PENDING, the saga {}", entry.step, state.as_str());
            verdict.weigh(11, !state.is_terminal(), Some(case.id()), what);
            continue;
        };
        verdict.weigh(11, true, None, String::new);
        if matches!(verified.outcome, Outcome::Success | Outcome::Failure) {
            let refused_for_good = is_retry_for_good(case.definition.as_deref(), entry, verified);
            if !refused_for_good {
                is_durable(case, entry, verified, verdict);
            }
            has_its_reply(case, entry, verified, refused_for_good, verdict);
        }
    }
}

/// A `retry` of a type that the definition calls not worth one: nothing is recorded of it.
fn is_retry_for_good(definition: Option<&Definition>, entry: &OutboxEntry, verified: &Verified) -> bool {
    let Some(step) = definition.and_then(|definition| definition.named(&entry.step)) else { return false };
    let kind = verified.problem.as_ref().map(|problem| &problem.kind);
    verified.outcome == Outcome::Failure && kind.is_some_and(|kind| step.retry.non_retryable.contains(kind))
}

fn is_durable(case: &Case<'_>, entry: &OutboxEntry, verified: &Verified, verdict: &mut Verdict) {
    let key = case.key(entry);
    let row = case.row(entry);
    let says_so = row.is_some_and(|row| match verified.outcome {
        Outcome::Success => row.kept == Kept::Success,
        _ => row.kept != Kept::Success,
    });
    let what = || format!("{key} is VERIFIED, its participant has {:?}", row.map(|row| row.kept));
    verdict.weigh(12, says_so, Some(case.id()), what);
    if let Some(row) = row {
        verdict.weigh(12, row.at <= after(verified.at, case.evidence.set_back), Some(case.id()), || {
            format!("{key} was VERIFIED before it was done")
        });
    }
}

fn has_its_reply(case: &Case<'_>, entry: &OutboxEntry, verified: &Verified, as_retry: bool, verdict: &mut Verdict) {
    let says_so = |body: &ReplyBody| match (verified.outcome, body) {
        (Outcome::Success, ReplyBody::Success(output)) => {
            // What a compensation puts out is not kept.
            entry.direction == Direction::Compensation || verified.output.as_ref().is_none_or(|kept| kept == output)
        }
        (Outcome::Failure, ReplyBody::Failure(_)) => true,
        (Outcome::Failure, ReplyBody::Retry(..)) => as_retry,
        _ => false,
    };
    let replied = case.tap.iter().any(|message| match message {
        Message::Reply { reply, command, attempt } => {
            *command == entry.id && *attempt == verified.attempt && says_so(&reply.body)
        }
        Message::Command(_) => false,
    });
    let key = case.key(entry);
    // There must not be many.
    if !replied && case.is_vouched_for(entry) {
        verdict.unheard.push((case.id(), key));
    } else {
        verdict.weigh(13, replied, Some(case.id()), || format!("{key} is VERIFIED by no reply with its token"));
    }
}
