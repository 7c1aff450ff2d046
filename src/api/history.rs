//! What happened to a saga, in order and in plain words.
//!
//! The store keeps what happened in three places: the outbox (the normal path), the history (what the outbox cannot
//! tell) and the audit log (who and why). Put together they are the events that the state machine saw; going through it
//! once more tells what followed from each.

use std::sync::Arc;

use crate::api::operate::MOST_CHANGES;
use crate::api::saga_view::error;
use crate::client::views::{ChangeView, HistoryItem};
use crate::clock::Timestamp;
use crate::coordinator::view::command_name;
use crate::definition::Definition;
use crate::id::{Seq, StepIndex};
use crate::payload::{Payload, differences};
use crate::saga::{
    Direction, Effect, Event, EventKind, Note, Operation, Outcome, Parent, Problem, ReplyOutcome, Saga, Settled,
    migrate, transition,
};
use crate::store::{AuditRecord, HistoryRecord, OutboxEntry, SagaRecord};

/// One event, with the revision that it led to.
struct Told {
    revision: u32,
    at: Timestamp,
    kind: EventKind,
}

/// The versions that a saga had before the one it has, oldest first.
pub(crate) fn earlier_versions(history: &[HistoryRecord]) -> Vec<u32> {
    let from = |record: &HistoryRecord| match record.event {
        EventKind::Migrated { from, .. } => Some(from),
        _ => None,
    };
    history.iter().filter_map(from).collect()
}

/// Everything that happened to the saga of `record`. `versions` are the definitions that it had, the present one last.
pub(crate) fn tell(
    versions: &[Arc<Definition>],
    record: &SagaRecord,
    history: &[HistoryRecord],
    audit: &[AuditRecord],
) -> Vec<HistoryItem> {
    let stored = &record.saga;
    let mut versions = versions.iter();
    let Some(first) = versions.next() else { return Vec::new() };
    let mut teller = Teller { definition: first, record, audit, items: Vec::new() };
    let mut fresh = Saga::new(stored.id, first, stored.key.clone(), stored.input.clone(), stored.created_at);
    // A later version may read what was put out under an earlier one that did not.
    fresh.reads_outputs |= stored.reads_outputs;
    // As it was at the start: what it became later is part of the history.
    fresh.parent = stored.parent.clone().map(|parent| Parent { undo: None, held: None, ..parent });
    let mut replayed = Some(fresh);
    for told in events(record, history) {
        let event = Event { now: told.at, kind: told.kind.clone() };
        let definition = teller.definition;
        if let EventKind::Migrated { .. } = told.kind {
            teller.definition = versions.next().map_or(definition, |next| next);
        }
        let next = replayed.take().and_then(|saga| match told.kind {
            EventKind::Migrated { .. } => migrate(definition, teller.definition, &saga, told.at).ok(),
            _ => transition(definition, &saga, &event).ok(),
        });
        match next.filter(|(saga, _)| saga.revision == told.revision) {
            Some((saga, effects)) => {
                teller.explained(&told, &effects);
                replayed = Some(saga);
            }
            // What is stored does not fit together. Still told, as far as each record tells it by itself.
            None => teller.unexplained(&told),
        }
    }
    teller.items
}

/// The events of the past, in order.
fn events(record: &SagaRecord, history: &[HistoryRecord]) -> Vec<Told> {
    let mut events = Vec::new();
    if history.iter().all(|record| record.revision != 1) {
        events.push(Told { revision: 1, at: record.saga.created_at, kind: EventKind::Started });
    }
    events.extend(history.iter().map(|record| Told {
        revision: record.revision,
        at: record.at,
        kind: record.event.clone(),
    }));
    // A wait is over by an event of its own, or by one that another step's entry tells.
    for entry in record.commands.iter().filter(|entry| !entry.is_wait()) {
        let Some(verified) = entry.verified.as_ref().filter(|verified| verified.outcome == Outcome::Success) else {
            continue;
        };
        // A success that came as a surprise has a record of its own.
        if history.iter().all(|record| record.revision != verified.revision) {
            let output = verified.output.clone().unwrap_or_else(|| Payload::trusted("null"));
            let outcome = ReplyOutcome::Success { output };
            let kind = EventKind::Replied { seq: entry.id.seq, attempt: verified.attempt, outcome };
            events.push(Told { revision: verified.revision, at: verified.at, kind });
        }
    }
    events.sort_by_key(|told| told.revision);
    events.dedup_by_key(|told| told.revision);
    events
}

struct Teller<'a> {
    definition: &'a Definition,
    record: &'a SagaRecord,
    audit: &'a [AuditRecord],
    items: Vec<HistoryItem>,
}

impl Teller<'_> {
    fn explained(&mut self, told: &Told, effects: &[Effect]) {
        // An answer that settles its command is told by what it settles.
        let is_settled_by = |seq| effects.iter().any(|effect| matches!(effect, Effect::Settle(of) if of.seq == seq));
        if !matches!(told.kind, EventKind::Replied { seq, .. } if is_settled_by(seq)) {
            self.event(told);
        }
        for effect in effects {
            match effect {
                Effect::Decide { seq, step, direction, .. } => {
                    let step = self.definition.step(*step);
                    self.decided(told, *seq, &step.name, &step.participant, *direction);
                }
                Effect::Publish { seq, attempt } => {
                    let text = format!("attempt {attempt} of {} is sent", self.name(*seq));
                    let item = HistoryItem { attempt: Some(*attempt), ..self.of_command(told, "sent", *seq, text) };
                    self.items.push(item);
                }
                Effect::Settle(settled) => self.settled(told, settled),
                Effect::Note(note) => self.note(told, note, effects),
                // To and from the parent: told by what became of the saga.
                Effect::Answer { .. } | Effect::LookAtParent => {}
            }
        }
    }

    fn unexplained(&mut self, told: &Told) {
        self.event(told);
        let here = told.revision;
        for entry in &self.record.commands {
            if entry.decided_revision == here {
                self.decided(told, entry.id.seq, &entry.step, &entry.participant, entry.direction);
            }
            if let Some(verified) = entry.verified.as_ref().filter(|verified| verified.revision == here) {
                let settled = Settled {
                    seq: entry.id.seq,
                    attempt: verified.attempt,
                    outcome: verified.outcome,
                    output: verified.output.clone(),
                    problem: verified.problem.clone(),
                };
                self.settled(told, &settled);
            }
        }
    }

    /// What came in from outside.
    fn event(&mut self, told: &Told) {
        let item = match &told.kind {
            EventKind::Started => {
                let key = self.record.saga.key.as_ref().map(|key| format!(" with key `{key}`"));
                let text = format!("started as {}{}", self.record.saga.definition, key.unwrap_or_default());
                plain(told, "started", text)
            }
            EventKind::Published { seq, attempt } => {
                let text = format!("the broker has attempt {attempt} of {}", self.name(*seq));
                HistoryItem { attempt: Some(*attempt), ..self.of_command(told, "published", *seq, text) }
            }
            EventKind::HeldBack { seq, attempt, until } => {
                let until = until.format("%H:%M:%S");
                let name = self.name(*seq);
                let text = format!("{name} is held back, {until} at the latest: its participant takes no more for now");
                HistoryItem { attempt: Some(*attempt), ..self.of_command(told, "held-back", *seq, text) }
            }
            EventKind::Released { seq } => {
                let text = format!("there is room for {}", self.name(*seq));
                self.of_command(told, "released", *seq, text)
            }
            EventKind::Replied { seq, attempt, outcome } => {
                let (kind, word, problem) = match outcome {
                    ReplyOutcome::Success { .. } => ("replied", "success", None),
                    ReplyOutcome::Failure { problem } => ("replied", "failure", Some(problem)),
                    ReplyOutcome::Retry { problem, .. } => ("retry-asked", "retry", Some(problem)),
                    ReplyOutcome::InProgress => ("in-progress", "in-progress", None),
                };
                let from = self.entry(*seq).map_or("the participant", |entry| entry.participant.as_str());
                let why = problem.map(|problem| format!(": {problem}")).unwrap_or_default();
                let text = format!("{from} answers `{word}` to attempt {attempt} of {}{why}", self.name(*seq));
                let error = problem.map(error);
                HistoryItem { attempt: Some(*attempt), error, ..self.of_command(told, kind, *seq, text) }
            }
            // What was due follows.
            EventKind::Due => return,
            EventKind::Signalled { signal, payload } => HistoryItem {
                output: Some(payload.value().clone()),
                ..plain(told, "signalled", format!("the signal `{signal}` came"))
            },
            EventKind::Asked { direction, .. } => {
                let what = match direction {
                    Direction::Action => "asks what became of it",
                    Direction::Compensation => "asks it to go back",
                };
                plain(told, "asked", format!("the saga that started it {what}"))
            }
            EventKind::Entombed { .. } => {
                plain(told, "entombed", "its compensation came before its start, so that it never starts".to_owned())
            }
            EventKind::ParentEnded => {
                plain(told, "parent-ended", "the saga that started it has ended, so that it may end too".to_owned())
            }
            EventKind::Operated { operation: Operation::Edit { step, input } } => self.edited(told, *step, input),
            EventKind::Operated { operation } => {
                let word = operation.as_str();
                self.by_operator(told, "operated", word, &format!("asks for `{word}`"))
            }
            EventKind::Migrated { from, to } => {
                let what = format!("moves the saga from version {from} to version {to}");
                self.by_operator(told, "migrated", "migrate", &what)
            }
        };
        self.items.push(item);
    }

    /// An operator sends what was refused with another input: where it differs, and from which command.
    fn edited(&self, told: &Told, step: StepIndex, input: &Payload) -> HistoryItem {
        let of_step = |entry: &&OutboxEntry| entry.step_index == step.0;
        let mut commands = self.record.commands.iter().filter(of_step);
        let new = commands.clone().find(|entry| entry.decided_revision == told.revision);
        let original = commands
            .rfind(|entry| new.is_some_and(|new| entry.id.seq < new.id.seq && entry.direction == new.direction));
        let changes: Vec<ChangeView> = original.map_or_else(Vec::new, |original| {
            let found = differences(original.body.value(), input.value(), MOST_CHANGES);
            found.into_iter().map(ChangeView::from).collect()
        });
        let name = command_name(&self.definition.step(step).name, new.map_or(Direction::Action, |new| new.direction));
        let of = original.map(|original| format!(" than command {}", original.id.seq)).unwrap_or_default();
        let places: Vec<String> =
            changes.iter().take(5).map(|change| format!("`{}` {}", change.pointer, change.change)).collect();
        let more = if changes.len() > 5 { " and more" } else { "" };
        let told_places = if places.is_empty() { String::new() } else { format!(" ({}{more})", places.join(", ")) };
        let what = format!("sends {name} with another input{of}{told_places}");
        HistoryItem {
            step: Some(self.definition.step(step).name.clone()),
            direction: new.map(|new| new.direction.to_string()),
            changes,
            ..self.by_operator(told, "edited", "edit", &what)
        }
    }

    fn by_operator(&self, told: &Told, kind: &str, action: &str, what: &str) -> HistoryItem {
        let row = self.audit_of(told, action);
        let who = row.map_or("an operator", |row| row.actor.as_str());
        let why = row.map(|row| format!(": {}", row.reason)).unwrap_or_default();
        HistoryItem {
            actor: row.map(|row| row.actor.clone()),
            reason: row.map(|row| row.reason.clone()),
            ..plain(told, kind, format!("{who} {what}{why}"))
        }
    }

    fn decided(&mut self, told: &Told, seq: Seq, step: &str, participant: &str, direction: Direction) {
        let name = command_name(step, direction);
        let text = format!("{name} is decided as command {seq}, for {participant}");
        let item = HistoryItem {
            step: Some(step.to_owned()),
            direction: Some(direction.to_string()),
            attempt: Some(1),
            ..plain(told, "decided", text)
        };
        self.items.push(item);
    }

    fn settled(&mut self, told: &Told, settled: &Settled) {
        let Settled { seq, attempt, outcome, output, problem } = settled;
        let name = self.name(*seq);
        let why = problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
        let text = match outcome {
            Outcome::Success => format!("{name} is verified: attempt {attempt} succeeded"),
            Outcome::Failure => format!("{name} is verified: attempt {attempt} was refused and had no effect{why}"),
            Outcome::Unknown => {
                format!("attempts of {name} are spent after {attempt}, and nobody knows whether it took effect{why}")
            }
            Outcome::Skipped => format!("{name} is closed: an operator passed over it{why}"),
            Outcome::Abandoned => format!("{name} is closed: the saga was given up{why}"),
        };
        let item = HistoryItem {
            attempt: Some(*attempt),
            outcome: Some(outcome.as_str().to_owned()),
            output: output.as_ref().map(|output| output.value().clone()),
            error: problem.as_ref().map(error),
            ..self.of_command(told, "verified", *seq, text)
        };
        self.items.push(item);
    }

    fn note(&mut self, told: &Told, note: &Note, effects: &[Effect]) {
        let has_settled = effects.iter().any(|effect| matches!(effect, Effect::Settle(_)));
        let item = match note {
            // Told by the event itself, or by the command that was settled.
            Note::Started
            | Note::Signalled(_)
            | Note::StepVerified(_)
            | Note::StepCompensated(_)
            | Note::StepUnknown(..)
            | Note::RetryAsked(..)
            | Note::Migrated { .. }
            | Note::Duplicate => return,
            Note::StepFailed(_, _) if has_settled => return,
            Note::StepFailed(step, problem) => {
                let text = format!("{} cannot be sent: {problem}", self.step(*step));
                self.of_step(told, "failed", *step, text, Some(problem))
            }
            Note::StepSkipped(step) => {
                self.of_step(told, "skipped", *step, format!("{} is passed over", self.step(*step)), None)
            }
            Note::Compensating(problem) => {
                let text = format!("the saga goes back: {problem}");
                HistoryItem { error: Some(error(problem)), ..plain(told, "compensating", text) }
            }
            Note::Completed => plain(told, "completed", "the saga is complete".to_owned()),
            Note::Compensated => plain(told, "compensated", "every effect is undone; the saga has ended".to_owned()),
            Note::Stuck(step, problem) => {
                let text = format!("the saga is stuck at {} and needs a person: {problem}", self.step(*step));
                self.of_step(told, "stuck", *step, text, Some(problem))
            }
            Note::Unstuck => plain(told, "unstuck", "the saga goes on".to_owned()),
            Note::Abandoned => plain(told, "abandoned", "the saga is given up; nothing is undone".to_owned()),
            Note::Paused => plain(told, "paused", "nothing new is sent until the saga is resumed".to_owned()),
            Note::Resumed => plain(told, "resumed", "the saga goes on".to_owned()),
            Note::TimedOut(step, direction) => {
                let name = command_name(&self.definition.step(*step).name, *direction);
                let text = format!("no answer in time to {name}; whether it took effect is not known");
                let item = self.of_step(told, "timed-out", *step, text, None);
                HistoryItem { direction: Some(direction.to_string()), ..item }
            }
            Note::Contradiction(step, what) => {
                let text = format!("an answer about {} contradicts what was recorded: {what}", self.step(*step));
                self.of_step(told, "contradicted", *step, text, None)
            }
        };
        self.items.push(item);
    }

    fn of_command(&self, told: &Told, kind: &str, seq: Seq, text: String) -> HistoryItem {
        let entry = self.entry(seq);
        HistoryItem {
            step: entry.map(|entry| entry.step.clone()),
            direction: entry.map(|entry| entry.direction.to_string()),
            ..plain(told, kind, text)
        }
    }

    fn of_step(
        &self,
        told: &Told,
        kind: &str,
        step: StepIndex,
        text: String,
        problem: Option<&Problem>,
    ) -> HistoryItem {
        let step = Some(self.definition.step(step).name.clone());
        HistoryItem { step, error: problem.map(error), ..plain(told, kind, text) }
    }

    fn entry(&self, seq: Seq) -> Option<&OutboxEntry> {
        self.record.commands.iter().find(|entry| entry.id.seq == seq)
    }

    fn name(&self, seq: Seq) -> String {
        self.entry(seq).map_or_else(|| format!("command {seq}"), |entry| command_name(&entry.step, entry.direction))
    }

    fn step(&self, step: StepIndex) -> String {
        command_name(&self.definition.step(step).name, Direction::Action)
    }

    fn audit_of(&self, told: &Told, word: &str) -> Option<&AuditRecord> {
        self.audit.iter().find(|row| row.action == word && row.detail.value()["toRevision"] == told.revision)
    }
}

fn plain(told: &Told, kind: &str, text: String) -> HistoryItem {
    HistoryItem {
        at: told.at,
        revision: told.revision,
        kind: kind.to_owned(),
        step: None,
        direction: None,
        attempt: None,
        outcome: None,
        output: None,
        error: None,
        actor: None,
        reason: None,
        changes: Vec::new(),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SagaId;

    const ONE_STEP: &str =
        "saga: one\nversion: 1\nsteps:\n  - { name: a, participant: p, action: x, compensation: none }\n";

    fn told(revision: u32) -> Vec<HistoryItem> {
        let definition = crate::definition::read(ONE_STEP).definition.expect("no errors");
        let at: Timestamp = "2026-11-23T14:00:00Z".parse().expect("a time");
        let saga = Saga::new(SagaId::fresh(), &definition, None, Payload::trusted("{}"), at);
        let event = EventKind::Operated { operation: Operation::Pause };
        let history = [HistoryRecord { saga: saga.id, revision, at, event }];
        let audit = AuditRecord {
            id: 1,
            at,
            actor: "alice".to_owned(),
            saga: Some(saga.id),
            action: "pause".to_owned(),
            reason: "lunch".to_owned(),
            detail: serde_json::json!({ "toRevision": revision }).into(),
        };
        tell(&[definition], &SagaRecord { saga, commands: Vec::new() }, &history, &[audit])
    }

    fn kinds(items: &[HistoryItem]) -> Vec<&str> {
        items.iter().map(|item| item.kind.as_str()).collect()
    }

    #[test]
    fn an_operators_action_is_told_with_who_and_why_and_what_followed() {
        let items = told(2);
        assert_eq!(kinds(&items), ["started", "decided", "operated", "paused"]);
        assert_eq!((items[2].actor.as_deref(), items[2].reason.as_deref()), (Some("alice"), Some("lunch")));
    }

    #[test]
    fn a_past_with_a_gap_is_still_told_as_far_as_it_goes() {
        let items = told(7);
        assert_eq!(kinds(&items), ["started", "decided", "operated"]);
        assert_eq!(items[2].text, "alice asks for `pause`: lunch");
    }
}
