//! Judges a world that has come to rest: what the store holds, what participants did, what clients were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::evidence::{Request, Seen, Told, Violation};
use crate::clock::Timestamp;
use crate::definition::{Definition, Work};
use crate::id::{DefinitionRef, SagaId};
use crate::message::command::idempotency_key;
use crate::payload::Payload;
use crate::saga::{
    Direction, Event, EventKind, Outcome, ReplyOutcome, Saga, SagaState, Skip, StepState, Told as Happened, migrate,
    started, transition,
};
use crate::store::memory::MemoryStore;
use crate::store::{AuditRecord, HistoryRecord, OutboxEntry, Page, SagaFilter, Store, StoreError};

/// Everything that is known of one saga.
struct Case<'a> {
    saga: Saga,
    commands: Vec<OutboxEntry>,
    history: Vec<HistoryRecord>,
    audits: Vec<AuditRecord>,
    definition: Arc<Definition>,
    /// The versions that it had, expanded for its input.
    versions: BTreeMap<u32, Arc<Definition>>,
    sightings: Vec<&'a Saga>,
    seen: &'a Seen,
}

/// What was found wrong.
pub(super) struct Verdict {
    pub(super) violations: BTreeSet<Violation>,
    /// How many sagas ended in which state.
    pub(super) ends: BTreeMap<&'static str, u64>,
}

/// Judges everything.
pub(super) async fn judge(
    store: &MemoryStore,
    seen: &Seen,
    definitions: &BTreeMap<DefinitionRef, Arc<Definition>>,
) -> Result<Verdict, StoreError> {
    let mut verdict = Verdict { violations: seen.violations.clone(), ends: BTreeMap::new() };
    let all = store.sagas(&SagaFilter::default(), &Page { after: None, limit: u32::MAX }).await?;
    let mut sagas: BTreeMap<SagaId, (Saga, Vec<OutboxEntry>)> = BTreeMap::new();
    for summary in all {
        if let Some(record) = store.saga(summary.saga.id).await? {
            sagas.insert(record.saga.id, (record.saga, record.commands));
        }
    }
    verdict.starts(seen, &sagas);
    verdict.requests(seen, &sagas);
    for (saga, commands) in sagas.values() {
        *verdict.ends.entry(saga.state.as_str()).or_default() += 1;
        let Some(definition) = definitions.get(&saga.definition).and_then(|found| saga.expand(found)) else {
            verdict.broken(14, saga.id, "it is of a definition that nobody registered");
            continue;
        };
        let case = Case {
            commands: commands.clone(),
            history: store.history(saga.id).await?,
            audits: store.audit(Some(saga.id), &Page { after: None, limit: u32::MAX }).await?,
            versions: versions(saga, definitions),
            definition,
            sightings: seen.sightings.iter().filter(|seen| seen.id == saga.id).collect(),
            seen,
            saga: saga.clone(),
        };
        verdict.replays(&case);
        verdict.is_final(&case);
        verdict.effects(&case);
        verdict.undone(&case);
        verdict.order(&case);
        verdict.messages(&case);
        verdict.operators(&case);
        verdict.relatives(&case, &sagas);
    }
    let audits = store.audit(None, &Page { after: None, limit: u32::MAX }).await?;
    for (reference, word) in &seen.stood {
        let told = seen.stood.iter().filter(|other| *other == &(reference.clone(), *word)).count();
        let is_it = |audit: &&AuditRecord| {
            audit.action == *word && audit.detail.value()["definition"] == serde_json::json!(reference)
        };
        let written = audits.iter().filter(is_it).filter(|audit| !audit.reason.is_empty()).count();
        if written < told {
            let what = format!("{word} of {reference} was done {told} times and audited {written} times");
            verdict.violations.insert(Violation { guarantee: 15, what });
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn broken(&mut self, guarantee: u8, saga: SagaId, what: impl Into<String>) {
        self.violations.insert(Violation { guarantee, what: format!("saga {saga}: {}", what.into()) });
    }

    /// 1 and 2.
    fn starts(&mut self, seen: &Seen, sagas: &BTreeMap<SagaId, (Saga, Vec<OutboxEntry>)>) {
        let mut owners: BTreeMap<(&str, &str), SagaId> = BTreeMap::new();
        for (saga, _) in sagas.values() {
            if let Some(key) = &saga.key
                && owners.insert((&saga.definition.name, key), saga.id).is_some()
            {
                self.broken(2, saga.id, format!("key {key} has another saga, too"));
            }
        }
        let mut first: BTreeMap<(&str, &str), SagaId> = BTreeMap::new();
        for start in &seen.starts {
            let name = start.key.as_deref().map(|key| (start.definition.as_str(), key));
            match start.told {
                Told::Saga(id) => {
                    let Some((saga, _)) = sagas.get(&id) else {
                        self.broken(1, id, "it was acknowledged and is not there");
                        continue;
                    };
                    if saga.input.canonical_hash() != start.input_hash {
                        self.broken(2, id, "it answers for a start with another input");
                    }
                    if let Some(other) = name.and_then(|name| first.insert(name, id)).filter(|other| *other != id) {
                        self.broken(2, id, format!("its key was given to {other} before"));
                    }
                }
                Told::Conflict => {
                    let owner = name.and_then(|name| owners.get(&name)).and_then(|id| sagas.get(id));
                    if owner.is_none_or(|(saga, _)| saga.input.canonical_hash() == start.input_hash) {
                        let what = format!("{:?} was refused as in conflict, with nothing", start.key);
                        self.violations.insert(Violation { guarantee: 2, what });
                    }
                }
                Told::Requested => {
                    // A request may have come while nothing new was to be started.
                    let may_be_refused = seen.deprecated.contains(&start.definition);
                    if !may_be_refused && name.is_some_and(|name| !owners.contains_key(&name)) {
                        let what = format!("the request for {:?} was confirmed, and there is no saga", start.key);
                        self.violations.insert(Violation { guarantee: 1, what });
                    }
                }
            }
        }
    }

    /// What one request starts is one transaction: all of it or nothing, at one time.
    fn requests(&mut self, seen: &Seen, sagas: &BTreeMap<SagaId, (Saga, Vec<OutboxEntry>)>) {
        // While nothing new is to be started, some of it may be refused before.
        for Request { definition, keys } in seen.requests.iter().filter(|of| !seen.deprecated.contains(&of.definition))
        {
            let is_of_it = |saga: &&Saga| {
                saga.definition.name == *definition && saga.key.as_ref().is_some_and(|key| keys.contains(key))
            };
            let started = sagas.values().map(|(saga, _)| saga).filter(is_of_it);
            let times: Vec<Timestamp> = started.map(|saga| saga.created_at).collect();
            if !times.is_empty() && (times.len() != keys.len() || times.iter().any(|time| *time != times[0])) {
                let what = format!("of a request for {keys:?} there are {} sagas, begun at {times:?}", times.len());
                self.violations.insert(Violation { guarantee: 0, what });
            }
        }
    }

    /// 3: the history, replayed event by event, gives every state that was ever committed.
    fn replays(&mut self, case: &Case<'_>) {
        let of = &case.saga;
        let mut definition = case.first_definition();
        let fresh = |saga: &Saga, definition: &Definition| {
            let mut fresh = Saga::new(saga.id, definition, saga.key.clone(), saga.input.clone(), saga.created_at);
            fresh.parent = case.sightings.first().map_or(&saga.parent, |first| &first.parent).clone();
            fresh
        };
        let mut replayed = fresh(of, &definition);
        // What a later version reads was put out under an earlier one, which may have had no use for it.
        replayed.reads_outputs |= case.versions.values().any(|version| version.reads_outputs);
        if let Some(parent) = &mut replayed.parent {
            (parent.undo, parent.held) = (None, None);
        }
        let mut expected = case.sightings.iter().copied().peekable();
        let mut last = None;
        for happened in case.events() {
            let before = replayed.revision;
            let moved = match happened.event.kind {
                EventKind::Migrated { to, .. } => match case.versions.get(&to) {
                    Some(next) => {
                        let moved = migrate(&definition, next, &replayed, happened.event.now);
                        definition = next.clone();
                        moved.map_err(|reasons| format!("{reasons:?}"))
                    }
                    None => Err(format!("there is no version {to}")),
                },
                _ => transition(&definition, &replayed, &happened.event).map_err(|error| error.to_string()),
            };
            match moved {
                Ok((next, _)) => replayed = next,
                Err(error) => return self.broken(3, of.id, format!("its history cannot be replayed: {error}")),
            }
            if replayed.revision != happened.revision || replayed.revision == before {
                let what = format!("after revision {before} its history tells of {}", happened.revision);
                return self.broken(3, of.id, what);
            }
            while let Some(committed) = expected.next_if(|committed| committed.revision <= replayed.revision) {
                if committed.revision == replayed.revision && !is_same(committed, &replayed) {
                    let what =
                        format!("at revision {} it was something else than its history tells", replayed.revision);
                    return self.broken(3, of.id, what);
                }
            }
            last = Some(replayed.revision);
        }
        if last != Some(of.revision) || !is_same(of, &replayed) {
            self.broken(3, of.id, format!("replayed it is {} at {last:?}", replayed.state.as_str()));
        }
    }

    /// 4, 5 and 14.
    fn is_final(&mut self, case: &Case<'_>) {
        let of = &case.saga;
        let mut states = BTreeSet::from([of.state.as_str()]);
        let mut end: Option<&Saga> = None;
        for saga in &case.sightings {
            states.insert(saga.state.as_str());
            if let Some(end) = end {
                self.broken(4, of.id, format!("{} at {} was written again", end.state.as_str(), end.revision));
            }
            if saga.state.is_terminal() {
                end = Some(saga);
            }
            let (version, told) = (saga.definition.version, case.version_at(saga.revision));
            if version != told {
                self.broken(
                    14,
                    of.id,
                    format!("at revision {} it was of version {version}, not {told}", saga.revision),
                );
            }
        }
        if of.definition.version != case.version_at(of.revision) {
            self.broken(14, of.id, format!("it is of {}, and its history does not say so", of.definition));
        }
        if states.contains("COMPLETED") && states.contains("COMPENSATED") {
            self.broken(5, of.id, "it was both completed and compensated");
        }
        let is_undone = case.effects().any(|effect| effect.direction == Direction::Compensation);
        if of.state == SagaState::Completed && is_undone {
            self.broken(5, of.id, "it is completed, and something was undone");
        }
    }

    /// 6 and 7.
    fn effects(&mut self, case: &Case<'_>) {
        let mut seen = BTreeSet::new();
        for effect in case.effects() {
            if !seen.insert((&effect.step, effect.direction)) {
                self.broken(6, case.saga.id, format!("{} took effect twice", effect.key));
            }
            if effect.direction == Direction::Action && seen.contains(&(&effect.step, Direction::Compensation)) {
                self.broken(7, case.saga.id, format!("{} took effect after its compensation", effect.key));
            }
        }
        for entry in case.commands.iter().filter(|entry| entry.direction == Direction::Compensation) {
            let succeeded = entry.verified.as_ref().is_some_and(|verified| verified.outcome == Outcome::Success);
            let (done, undone) =
                (case.stands(&entry.step, Direction::Action), case.stands(&entry.step, Direction::Compensation));
            if succeeded && done && !undone && entry.participant != crate::definition::COORDINATOR {
                self.broken(7, case.saga.id, format!("{} took effect beside its tombstone", entry.step));
            }
        }
    }

    /// 8.
    fn undone(&mut self, case: &Case<'_>) {
        let compensations = || case.commands.iter().filter(|entry| entry.direction == Direction::Compensation);
        for entry in compensations() {
            let is_of_an_action = case.commands.iter().any(|other| {
                other.step == entry.step
                    && other.direction == Direction::Action
                    && Some(other.generation) == entry.compensates
                    && other.id.seq < entry.id.seq
            });
            if !is_of_an_action {
                self.broken(8, case.saga.id, format!("{} was never sent, and undone", entry.step));
            }
        }
        for effect in case.effects().filter(|effect| effect.direction == Direction::Compensation) {
            if !case.stands(&effect.step, Direction::Action) {
                self.broken(8, case.saga.id, format!("{} was undone and never done", effect.step));
            }
        }
        if case.saga.state == SagaState::Compensated {
            for step in case.definition.steps.iter().filter(|step| step.compensation.action().is_some()) {
                let sent = case.commands.iter().rev();
                let sent = sent.clone().find(|entry| entry.step == step.name && entry.direction == Direction::Action);
                let Some(sent) = sent else { continue };
                let is_refused = matches!(sent.verified.as_ref().map(|v| v.outcome), Some(Outcome::Failure));
                let is_undone = compensations().any(|entry| {
                    let outcome = entry.verified.as_ref().map(|verified| verified.outcome);
                    entry.step == step.name && matches!(outcome, Some(Outcome::Success | Outcome::Skipped))
                });
                if case.is_passed_over(&step.name) {
                    continue;
                }
                if !is_refused && !is_undone {
                    self.broken(8, case.saga.id, format!("{} is not compensated", step.name));
                }
                let (done, undone) =
                    (case.stands(&step.name, Direction::Action), case.stands(&step.name, Direction::Compensation));
                if done && !undone {
                    self.broken(8, case.saga.id, format!("it is compensated, and {} still stands", step.name));
                }
            }
        }
        if case.saga.state == SagaState::Completed {
            for entry in case.commands.iter().filter(|entry| entry.direction == Direction::Action && !entry.is_wait()) {
                let succeeded = entry.verified.as_ref().is_some_and(|verified| verified.outcome == Outcome::Success);
                let is_service = entry.participant != crate::definition::COORDINATOR;
                if succeeded && is_service && !case.stands(&entry.step, Direction::Action) {
                    self.broken(12, case.saga.id, format!("it is completed, and {} never took effect", entry.step));
                }
            }
        }
    }

    /// 9 and 10, and that no step is sent before those that it depends on are done.
    fn order(&mut self, case: &Case<'_>) {
        let definition = &case.definition;
        let entries = |step: &str, direction| {
            let step = step.to_owned();
            case.commands.iter().filter(move |entry| entry.step == step && entry.direction == direction)
        };
        for entry in &case.commands {
            let Some(index) = definition.find(&entry.step) else {
                self.broken(14, case.saga.id, format!("its definition has no {}", entry.step));
                continue;
            };
            let decided = entry.decided_revision;
            match entry.direction {
                Direction::Action => {
                    for before in definition.indices().filter(|&before| definition.graph.is_before(before, index)) {
                        let step = definition.step(before);
                        let pending = entries(&step.name, Direction::Action).next_back().is_some_and(|entry| {
                            entry.verified.as_ref().is_none_or(|verified| verified.revision > decided)
                        });
                        let never = entries(&step.name, Direction::Action).next().is_none() && step.when.is_none();
                        let is_skipped = case.audits.iter().any(|audit| audit.action == "skip");
                        if (pending || never) && !is_skipped {
                            self.broken(0, case.saga.id, format!("{} was sent before {}", entry.step, step.name));
                        }
                    }
                }
                Direction::Compensation => {
                    for &later in definition.graph.descendants(index) {
                        let step = definition.step(later);
                        let Some(action) = entries(&step.name, Direction::Action).next_back() else { continue };
                        let settled = |entry: &OutboxEntry, wanted: &[Outcome]| {
                            entry.verified.as_ref().is_some_and(|verified| {
                                wanted.contains(&verified.outcome) && verified.revision <= decided
                            })
                        };
                        let is_undone = entries(&step.name, Direction::Compensation)
                            .any(|entry| settled(entry, &[Outcome::Success, Outcome::Skipped]));
                        let is_undone = is_undone || case.is_passed_over(&step.name);
                        let needs_none = step.compensation.action().is_none() && action.verified.is_some();
                        if !is_undone && !needs_none && !settled(action, &[Outcome::Failure]) {
                            self.broken(9, case.saga.id, format!("{} was undone before {}", entry.step, step.name));
                        }
                    }
                }
            }
        }
        let pivot = definition.pivot().map(|pivot| definition.step(pivot).name.clone());
        let pivot = pivot.and_then(|pivot| entries(&pivot, Direction::Action).next_back());
        let is_refused = |entry: &OutboxEntry| entry.verified.as_ref().is_some_and(|v| v.outcome == Outcome::Failure);
        if let Some(pivot) = pivot.filter(|entry| !is_refused(entry)) {
            let back = case
                .commands
                .iter()
                .find(|entry| entry.direction == Direction::Compensation && entry.id.seq > pivot.id.seq);
            if let Some(back) = back {
                self.broken(10, case.saga.id, format!("{} was undone after the pivot was sent", back.step));
            }
        }
    }

    /// 11, 4 and what commands were sent as.
    fn messages(&mut self, case: &Case<'_>) {
        for entry in &case.commands {
            if entry.verified.is_none() && case.saga.state.is_terminal() {
                self.broken(11, case.saga.id, format!("it has ended, and {} is PENDING", entry.step));
            }
            let end = case.sightings.iter().find(|saga| saga.state.is_terminal());
            if end.is_some_and(|end| entry.decided_revision > end.revision) {
                self.broken(4, case.saga.id, format!("it had ended, and {} was decided", entry.step));
            }
            let Some(step) = case.definition.named(&entry.step) else { continue };
            let is_as_defined = match entry.direction {
                Direction::Action => step.participant == entry.participant && step.action == entry.action,
                Direction::Compensation => step.compensation.action().is_some_and(|undo| undo.action == entry.action),
            };
            if !is_as_defined {
                self.broken(14, case.saga.id, format!("{} is not what its definition says", entry.step));
            }
            if let Some(sent) = case.seen.published.get(&entry.id)
                && (sent.definition.name != case.saga.definition.name
                    || !case.versions.contains_key(&sent.definition.version)
                    || sent.action != entry.action)
            {
                self.broken(14, case.saga.id, format!("{} was sent for {}", entry.step, sent.definition));
            }
        }
    }

    /// 15: what operators were told was done is in the audit.
    fn operators(&mut self, case: &Case<'_>) {
        for (_, word) in case.seen.operated.iter().filter(|(id, _)| *id == case.saga.id) {
            let told = case.seen.operated.iter().filter(|other| **other == (case.saga.id, *word)).count();
            let written = case.audits.iter().filter(|audit| audit.action == **word).count();
            if written < told {
                self.broken(15, case.saga.id, format!("{word} was done {told} times and audited {written} times"));
            }
        }
        for audit in &case.audits {
            let happened = case.history.iter().any(|record| {
                let is_it = match &record.event {
                    EventKind::Operated { operation } => operation.as_str() == audit.action,
                    EventKind::Migrated { .. } => audit.action == "migrate",
                    _ => false,
                };
                is_it && record.at == audit.at
            });
            let changed = audit.detail.value()["fromRevision"] != audit.detail.value()["toRevision"];
            if changed && !happened {
                self.broken(15, case.saga.id, format!("{} is in the audit and did not happen", audit.action));
            }
        }
    }

    /// What became of sub-sagas fits what became of those that started them.
    fn relatives(&mut self, case: &Case<'_>, sagas: &BTreeMap<SagaId, (Saga, Vec<OutboxEntry>)>) {
        for entry in case.commands.iter().filter(|entry| entry.direction == Direction::Action) {
            let Some(Work::Saga { name, .. }) = case.definition.named(&entry.step).map(|step| &step.work) else {
                continue;
            };
            let key = idempotency_key(case.saga.id, &entry.step, "action", entry.generation);
            let child = sagas
                .values()
                .map(|(saga, _)| saga)
                .find(|saga| saga.definition.name == *name && saga.key.as_ref() == Some(&key));
            let outcome = entry.verified.as_ref().map(|verified| verified.outcome);
            let state = child.map(|child| &child.state);
            if case.saga.state == SagaState::Completed
                && outcome == Some(Outcome::Success)
                && state != Some(&SagaState::Completed)
            {
                self.broken(12, case.saga.id, format!("it is completed, and its {} is {state:?}", entry.step));
            }
            let is_given_up = matches!(state, Some(SagaState::Abandoned));
            if case.saga.state == SagaState::Compensated
                && outcome != Some(Outcome::Failure)
                && !matches!(state, None | Some(SagaState::Compensated))
                && !is_given_up
                && !case.is_passed_over(&entry.step)
            {
                self.broken(8, case.saga.id, format!("it is compensated, and its {} is {state:?}", entry.step));
            }
        }
    }
}

impl<'a> Case<'a> {
    fn effects(&self) -> impl Iterator<Item = &'a super::evidence::Effect> {
        let id = self.saga.id;
        self.seen.effects.iter().filter(move |effect| effect.saga == id)
    }

    /// The version that its history gives it at this revision.
    fn version_at(&self, revision: u32) -> u32 {
        let moves = self.history.iter().filter_map(|record| match record.event {
            EventKind::Migrated { from, to } => Some((record.revision, from, to)),
            _ => None,
        });
        let first = moves.clone().next().map(|(_, from, _)| from);
        let last = moves.take_while(|(at, _, _)| *at <= revision).last().map(|(_, _, to)| to);
        last.or(first).or(self.sightings.first().map(|first| first.definition.version)).unwrap_or_default()
    }

    fn first_definition(&self) -> Arc<Definition> {
        self.versions.get(&self.version_at(0)).unwrap_or(&self.definition).clone()
    }

    /// Whether an operator has said that it need not be undone.
    fn is_passed_over(&self, step: &str) -> bool {
        let state = self.definition.find(step).and_then(|index| self.saga.steps.get(index.at()));
        matches!(state, Some(StepState::Skipped { by: Skip::OperatorCompensation { .. } }))
    }

    fn stands(&self, step: &str, direction: Direction) -> bool {
        self.effects().any(|effect| effect.step == step && effect.direction == direction)
    }

    /// The past as it is kept: history rows, and outbox rows for what they leave out.
    fn events(&self) -> Vec<Happened> {
        let told = |record: &HistoryRecord| Happened {
            revision: record.revision,
            event: Event { now: record.at, kind: record.event.clone() },
        };
        let mut events: Vec<Happened> = self.history.iter().map(told).collect();
        let known: BTreeSet<u32> = events.iter().map(|event| event.revision).collect();
        if !known.contains(&1) {
            events.push(started(self.saga.created_at));
        }
        for entry in self.commands.iter().filter(|entry| !entry.is_wait()) {
            if let Some(verified) = &entry.verified
                && verified.outcome == Outcome::Success
                && !known.contains(&verified.revision)
            {
                let output = verified.output.clone().unwrap_or_else(|| Payload::trusted("null"));
                let outcome = ReplyOutcome::Success { output };
                let kind = EventKind::Replied { seq: entry.id.seq, attempt: verified.attempt, outcome };
                events.push(Happened { revision: verified.revision, event: Event { now: verified.at, kind } });
            }
        }
        events.sort_by_key(|event| event.revision);
        events
    }
}

/// The versions of its definition.
fn versions(saga: &Saga, definitions: &BTreeMap<DefinitionRef, Arc<Definition>>) -> BTreeMap<u32, Arc<Definition>> {
    let same = definitions.iter().filter(|(reference, _)| reference.name == saga.definition.name);
    same.filter_map(|(reference, found)| Some((reference.version, saga.expand(found)?))).collect()
}

/// What each step put out is compared through the outbox, which is where it is kept.
fn is_same(one: &Saga, other: &Saga) -> bool {
    let bare = |saga: &Saga| Saga { outputs: BTreeMap::new(), reads_outputs: false, ..saga.clone() };
    bare(one) == bare(other)
}
