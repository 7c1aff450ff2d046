//! Guarantees 3, 4, 5, 14, 15 and 16: what the coordinator says of a saga.

use std::collections::BTreeSet;

use amends::clock::after;
use amends::definition::Definition;
use amends::id::DefinitionRef;
use amends::payload::Payload;
use amends::saga::{Direction, Event, EventKind, Outcome, ReplyOutcome, Saga, Told, replay_across, started};

use super::{Case, Message, Stored, Verdict};

pub fn judge(case: &Case<'_>, verdict: &mut Verdict) {
    replays(case, verdict);
    is_final(case, verdict);
    is_one_thing(case, verdict);
    is_pinned(case, verdict);
    is_audited(case, verdict);
    has_ended(case, verdict);
}

fn replays(case: &Case<'_>, verdict: &mut Verdict) {
    let saga = &case.stored.saga;
    let migrations = case.stored.history.iter().filter_map(|record| match record.event {
        EventKind::Migrated { from, .. } => Some(from),
        _ => None,
    });
    let first = migrations.min().unwrap_or(saga.definition.version);
    let first = DefinitionRef { name: saga.definition.name.clone(), version: first };
    let Some(definition) = case.evidence.definitions.get(&first).and_then(|found| found.expanded(&saga.input).ok())
    else {
        return;
    };
    let mut fresh = Saga::new(saga.id, &definition, saga.key.clone(), saga.input.clone(), saga.created_at);
    fresh.parent = saga.parent.clone();
    let versions = |version: u32| -> Option<&Definition> {
        let reference = DefinitionRef { name: saga.definition.name.clone(), version };
        case.evidence.definitions.get(&reference).map(|definition| &**definition)
    };
    // What each step put out is compared through the outbox, which is where it is kept.
    let bare = |saga: Saga| Saga { outputs: Default::default(), reads_outputs: false, ..saga };
    let replayed = replay_across(&definition, &versions, fresh, &events(case.stored));
    let holds = replayed.as_ref().is_ok_and(|replayed| bare(replayed.clone()) == bare(saga.clone()));
    verdict.weigh(3, holds, Some(saga.id), || match replayed {
        Ok(replayed) => format!("replayed it is {} at revision {}", replayed.state.as_str(), replayed.revision),
        Err(error) => error.to_string(),
    });
}

/// The past as the contract says that it is kept: history rows, and outbox rows for what they leave out.
fn events(stored: &Stored) -> Vec<Told> {
    let mut told: Vec<Told> = stored
        .history
        .iter()
        .map(|record| Told { revision: record.revision, event: Event { now: record.at, kind: record.event.clone() } })
        .collect();
    let known: BTreeSet<u32> = told.iter().map(|told| told.revision).collect();
    if !known.contains(&1) {
        told.push(started(stored.saga.created_at));
    }
    for entry in stored.commands.iter().filter(|entry| !entry.is_wait()) {
        let Some(verified) = &entry.verified else { continue };
        if verified.outcome == Outcome::Success && !known.contains(&verified.revision) {
            let output = verified.output.clone().unwrap_or_else(|| Payload::trusted("null"));
            let outcome = ReplyOutcome::Success { output };
            let kind = EventKind::Replied { seq: entry.id.seq, attempt: verified.attempt, outcome };
            told.push(Told { revision: verified.revision, event: Event { now: verified.at, kind } });
        }
    }
    told.sort_by_key(|told| told.revision);
    told
}

fn is_terminal(state: &str) -> bool {
    matches!(state, "COMPLETED" | "COMPENSATED" | "ABANDONED")
}

fn is_final(case: &Case<'_>, verdict: &mut Verdict) {
    let saga = &case.stored.saga;
    let last = (saga.state.as_str(), saga.revision);
    let mut end = None;
    for sighting in case.sightings {
        let now = (sighting.state, sighting.revision);
        if let Some(end) = end {
            verdict.weigh(4, now == end, Some(saga.id), || format!("{end:?} became {now:?}"));
        } else if is_terminal(sighting.state) {
            end = Some(now);
        }
    }
    if let Some(end) = end {
        verdict.weigh(4, last == end, Some(saga.id), || format!("{end:?} became {last:?}"));
    }
    if let Some(ended) = saga.ended_at {
        let ended = after(ended, case.evidence.set_back);
        let later = case.stored.commands.iter().any(|entry| entry.decided_at > ended)
            || case.stored.history.iter().any(|record| record.at > ended);
        verdict.weigh(4, !later, Some(saga.id), || "something happened to it after its end".to_owned());
    }
}

fn is_one_thing(case: &Case<'_>, verdict: &mut Verdict) {
    let states = case.states();
    let both = states.contains("COMPLETED") && states.contains("COMPENSATED");
    verdict.weigh(5, !both, Some(case.id()), || "it was seen as both".to_owned());
    if states.contains("COMPLETED") {
        let undone = case.effects.iter().find(|effect| effect.direction == Direction::Compensation);
        verdict.weigh(5, undone.is_none(), Some(case.id()), || format!("it is COMPLETED, and undone: {undone:?}"));
    }
}

fn is_pinned(case: &Case<'_>, verdict: &mut Verdict) {
    let mut versions = BTreeSet::from([case.stored.saga.definition.version]);
    let mut has_moved = false;
    for record in &case.stored.history {
        if let EventKind::Migrated { from, to } = record.event {
            versions.extend([from, to]);
            has_moved = true;
        }
    }
    for sighting in case.sightings {
        let known = versions.contains(&sighting.version);
        verdict.weigh(14, known, Some(case.id()), || format!("it was seen with version {}", sighting.version));
    }
    for message in case.tap {
        if let Message::Command(command) = message {
            let known = versions.contains(&command.definition.version);
            verdict.weigh(14, known, Some(case.id()), || format!("{} names {}", command.key, command.definition));
        }
    }
    // What a command asks for is what the pinned version says.
    if let (Some(definition), false) = (&case.definition, has_moved) {
        for entry in &case.stored.commands {
            let step = definition.named(&entry.step);
            let as_defined = step.is_some_and(|step| match entry.direction {
                Direction::Action => (&step.participant, &step.action) == (&entry.participant, &entry.action),
                Direction::Compensation => step.compensation.action().is_some_and(|undo| undo.action == entry.action),
            });
            verdict.weigh(14, as_defined, Some(case.id()), || format!("{} is not what it was pinned to", entry.step));
        }
    }
}

fn is_audited(case: &Case<'_>, verdict: &mut Verdict) {
    let reached = |audit: &amends::store::AuditRecord, field: &str| audit.detail.value()[field].as_u64();
    for record in &case.stored.history {
        let word = match &record.event {
            EventKind::Operated { operation } => operation.as_str(),
            EventKind::Migrated { .. } => "migrate",
            _ => continue,
        };
        let row = case.stored.audits.iter().find(|audit| {
            audit.action == word
                && audit.at == record.at
                && reached(audit, "toRevision") == Some(u64::from(record.revision))
        });
        let holds = row.is_some_and(|row| !row.actor.is_empty() && !row.reason.is_empty());
        verdict.weigh(15, holds, Some(case.id()), || format!("{word} at revision {} has no row", record.revision));
    }
    for audit in &case.stored.audits {
        let changed = reached(audit, "fromRevision") != reached(audit, "toRevision");
        let record =
            case.stored.history.iter().any(|record| {
                reached(audit, "toRevision") == Some(u64::from(record.revision)) && audit.at == record.at
            });
        let what = || format!("{} is in the audit and did not happen", audit.action);
        verdict.weigh(15, record || !changed, Some(case.id()), what);
    }
}

fn has_ended(case: &Case<'_>, verdict: &mut Verdict) {
    let saga = &case.stored.saga;
    if saga.paused {
        return;
    }
    let limit = after(case.evidence.quiet_since, case.evidence.patience + case.evidence.set_back);
    let holds = match saga.state.stuck() {
        Some(stuck) => !stuck.problem.kind.is_empty() && stuck.since <= limit,
        None => saga.ended_at.is_some_and(|ended| ended <= limit),
    };
    verdict.weigh(16, holds, Some(saga.id), || format!("{} since {}", saga.state.as_str(), saga.updated_at));
}
