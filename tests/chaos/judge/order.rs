//! Guarantees 9 and 10: which way, and in which order.

use amends::message::ReplyBody;
use amends::saga::{Direction, Outcome};
use amends::store::OutboxEntry;

use super::{Case, Message, Verdict};

pub fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    in_reverse(case, verdict);
    only_forward(case, verdict);
}

fn compensations<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a OutboxEntry> {
    case.stored.commands.iter().filter(|entry| entry.direction == Direction::Compensation)
}

/// Two compensations of which the second must wait for the first: `late` undoes what `early` builds on.
fn in_reverse(case: &Case<'_>, verdict: &mut Verdict) {
    let Some(definition) = &case.definition else { return };
    let index = |name: &str| definition.indices().find(|index| definition.step(*index).name == name);
    for early in compensations(case) {
        for late in compensations(case) {
            let (Some(a), Some(b)) = (index(&late.step), index(&early.step)) else { continue };
            if !definition.graph.is_before(a, b) {
                continue;
            }
            // By the coordinator's own word,
            let is_over = early.verified.as_ref().is_some_and(|verified| {
                matches!(verified.outcome, Outcome::Success | Outcome::Skipped)
                    && verified.revision <= late.decided_revision
            });
            // by the order in which messages were seen,
            let first = |is: &dyn Fn(&Message<'_>) -> bool| case.tap.iter().position(is);
            let sent = first(&|message| matches!(message, Message::Command(command) if command.key == case.key(late)));
            let done = first(&|message| match message {
                Message::Reply { reply, command, .. } => {
                    *command == early.id && matches!(reply.body, ReplyBody::Success(_))
                }
                Message::Command(_) => false,
            });
            let was_seen = match (sent, done) {
                (Some(sent), Some(done)) => done < sent,
                (Some(_), None) => {
                    let is_skipped = early.verified.as_ref().is_some_and(|v| v.outcome == Outcome::Skipped);
                    is_skipped || case.is_vouched_for(early)
                }
                (None, _) => true,
            };
            // and by the participant's, where both have the same.
            let effect =
                |step: &str| case.effects.iter().position(|e| e.direction == Direction::Compensation && e.step == step);
            let same = early.participant == late.participant;
            let was_done = match (effect(&early.step), effect(&late.step)) {
                (Some(early), Some(late)) if same => early < late,
                _ => true,
            };
            verdict.weigh(9, is_over && was_seen && was_done, Some(case.id()), || {
                format!("{} was undone before {}, which came after it", late.step, early.step)
            });
        }
    }
}

fn only_forward(case: &Case<'_>, verdict: &mut Verdict) {
    let Some(definition) = &case.definition else { return };
    let pivots = case.stored.commands.iter().filter(|entry| {
        entry.direction == Direction::Action && definition.named(&entry.step).is_some_and(|step| step.pivot)
    });
    for pivot in pivots {
        // A pivot that was refused is one that was never passed.
        if pivot.verified.as_ref().is_some_and(|verified| verified.outcome == Outcome::Failure) {
            continue;
        }
        let back = compensations(case).find(|entry| entry.id.seq > pivot.id.seq);
        verdict.weigh(10, back.is_none(), Some(case.id()), || {
            format!("{} was undone after the pivot was sent", back.map(|entry| &*entry.step).unwrap_or_default())
        });
        let at = |is: &dyn Fn(&amends::message::Command) -> bool| {
            case.tap.iter().position(|message| matches!(message, Message::Command(command) if is(command)))
        };
        let (sent, undone) = (at(&|command| command.key == case.key(pivot)), at(&|command| command.is_compensation));
        let holds = sent.is_none() || undone.is_none();
        verdict.weigh(10, holds, Some(case.id()), || "a compensation was seen beside the pivot".to_owned());
    }
}
