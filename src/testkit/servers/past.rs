//! What the store tells of a saga in the end, put through every check that a simulation makes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::end;
use super::post::{Book, Done, Seen};
use crate::definition::Definition;
use crate::id::StepIndex;
use crate::payload::Payload;
use crate::saga::{Direction, Effect, Event, EventKind, Note, Outcome, ReplyOutcome, Saga, Told, started};
use crate::store::{HistoryRecord, SagaRecord};
use crate::testkit::run::Run;
use crate::testkit::timeline::{Line, Timeline};
use crate::testkit::{Machine, Plan, Watched};

/// A saga as the store has it.
pub(super) struct Past {
    /// As it was registered, expanded.
    pub definition: Arc<Definition>,
    /// As it was given.
    pub original: Arc<Definition>,
    pub machine: Machine,
    pub record: SagaRecord,
    pub history: Vec<HistoryRecord>,
    pub plan: Plan,
}

impl Past {
    /// Replays what happened, with what was done at the participants, and checks all of it.
    pub(super) fn run(self, book: Book, is_over: bool, place: String) -> Run {
        let stored = &self.record.saga;
        let mut watched = Watched::new(
            self.definition.clone(),
            self.machine.clone(),
            stored.id,
            stored.key.clone(),
            stored.input.clone(),
            stored.created_at,
        );
        for done in &book.done {
            match *done {
                Done::Effect(step, direction, generation) => watched.has_taken_effect(step, direction, generation),
                Done::Amended(step, generation) => watched.has_amended(step, generation),
            }
        }
        let mut timeline = Timeline::starting_at(stored.created_at);
        let mut seen = book.seen.iter().peekable();
        let mut undone = Vec::new();
        for told in self.told() {
            while let Some(earlier) = seen.next_if(|seen| seen.at <= told.event.now) {
                timeline.lines.push(self.line(&timeline, earlier, &watched));
            }
            let effects = match watched.apply(&told.event) {
                Ok(effects) => effects,
                Err(error) => {
                    watched.broken(format!("3 the history cannot be replayed: {error}"));
                    break;
                }
            };
            for effect in &effects {
                let Effect::Note(note) = effect else { continue };
                if let Note::StepCompensated(step) = note {
                    undone.push(self.name(*step));
                }
                timeline.note(&self.definition, told.event.now, note, watched.saga().state.as_str());
            }
        }
        for later in seen {
            timeline.lines.push(self.line(&timeline, later, &watched));
        }
        // What each step put out is compared by the store's own tests.
        let bare = |saga: &Saga| Saga { outputs: Default::default(), reads_outputs: false, ..saga.clone() };
        if bare(watched.saga()) != bare(stored) {
            let (replayed, stored) = (watched.saga().state.as_str(), stored.state.as_str());
            watched.broken(format!("3 the store says {stored}, its history {replayed}, or they differ in a step"));
        }
        watched.check_end();
        if !is_over {
            watched.broken(format!("16 {} after the retry budget and 60 seconds", stored.state.as_str()));
        }
        let unfired = self.plan.faults.iter().enumerate().filter(|(at, _)| !book.fired.contains(at));
        let effects = self.definition.indices().map(|step| {
            let of = |direction| watched.effects_of(step, direction);
            (self.name(step), (of(Direction::Action), of(Direction::Compensation)))
        });
        let mut saga = stored.clone();
        saga.definition.clone_from(&self.original.reference);
        Run {
            end: end(&self.definition, stored, is_over),
            violations: watched.violations.iter().cloned().collect(),
            unfired: unfired.map(|(_, fault)| fault.clone()).collect(),
            undone,
            effects: effects.collect(),
            attempts: book.attempts.iter().map(|((step, way), most)| ((self.name(*step), *way), *most)).collect(),
            took: (stored.updated_at - stored.created_at).to_std().unwrap_or_default(),
            input: stored.input.value().clone(),
            timeline,
            plan: self.plan.clone(),
            place: Some(place),
            saga,
        }
    }

    fn name(&self, step: StepIndex) -> String {
        self.definition.step(step).name.clone()
    }

    fn line(&self, timeline: &Timeline, seen: &Seen, watched: &Watched) -> Line {
        Line {
            after: timeline.since_start(seen.at),
            step: Some(self.name(seen.step)),
            compensation: seen.direction == Direction::Compensation,
            attempt: Some(seen.attempt),
            what: seen.what.clone(),
            state: watched.saga().state.as_str().to_owned(),
            fault: seen.is_fault,
        }
    }

    /// Every event in order: history rows, and outbox rows for what they leave out.
    fn told(&self) -> Vec<Told> {
        let SagaRecord { saga, commands } = &self.record;
        let told = |record: &HistoryRecord| Told {
            revision: record.revision,
            event: Event { now: record.at, kind: record.event.clone() },
        };
        let mut all: Vec<Told> = self.history.iter().map(told).collect();
        let known: BTreeSet<u32> = all.iter().map(|told| told.revision).collect();
        if !known.contains(&1) {
            all.push(started(saga.created_at));
        }
        for entry in commands.iter().filter(|entry| !entry.is_wait()) {
            let Some(verified) = &entry.verified else { continue };
            if verified.outcome == Outcome::Success && !known.contains(&verified.revision) {
                let output = verified.output.clone().unwrap_or_else(|| Payload::trusted("null"));
                let outcome = ReplyOutcome::Success { output };
                let kind = EventKind::Replied { seq: entry.id.seq, attempt: verified.attempt, outcome };
                all.push(Told { revision: verified.revision, event: Event { now: verified.at, kind } });
            }
        }
        all.sort_by_key(|told| told.revision);
        all
    }
}
