//! From sagas and what waits for them to what is written and what is done after the commit. The store runs it inside the
//! transaction or ahead of it, tests run it alone; besides what it gives it takes confirms and places at gates.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::coordinator::confirms::Confirms;
use crate::coordinator::gates::{Asked, Gates};
use crate::coordinator::handle::Original;
use crate::coordinator::hooks::{self, Hook};
use crate::coordinator::outbound::{self, Outbound, ReturnAddress, answer, first_attempt};
use crate::coordinator::registry::Registry;
use crate::coordinator::relatives;
pub(super) use crate::coordinator::telling::Noted;
use crate::coordinator::traces::{self, Traced, Traces};
use crate::coordinator::work::{Heard, Item, MigrateItem, StartItem, TellItem};
use crate::coordinator::{CoordinatorError, Operate, OperatorAction};
use crate::definition::Definition;
use crate::id::{BulkId, CommandId, DefinitionRef, SagaId};
use crate::payload::Payload;
use crate::saga::{
    Direction, Effect, Event, EventKind, Note, Operation, Parent, Phase, Reason, ReplyOutcome, Saga, SagaState,
    Settled, StepState, expanded_for, migrate, transition,
};
use crate::store::bulk::Applied;
use crate::store::{
    AuditRecord, Changes, HistoryRecord, Loaded, NewCommand, NewSaga, SagaMigration, SagaRecord, SagaUpdate,
    SettledCommand,
};

/// What the plan draws on besides the sagas.
pub(super) struct Sources {
    pub(super) registry: Arc<Registry>,
    pub(super) to: ReturnAddress,
    pub(super) confirms: Confirms,
    pub(super) gates: Gates,
    /// Where spans go, if traces are recorded.
    pub(super) traces: Option<Traces>,
    /// Who is told of sagas that get stuck.
    pub(super) hooks: Vec<Hook>,
}

/// What to do once the changes are committed.
#[derive(Default)]
pub(super) struct Plan {
    /// One per item.
    pub(super) verdicts: Vec<Verdict>,
    /// Commands to publish, of sagas that existed before.
    pub(super) outbound: Vec<Outbound>,
    /// The sagas of [`Changes::starts`], in their order.
    pub(super) starts: Vec<SagaId>,
    /// Per start, in the order of [`Changes::starts`]: what to publish if it turns out to be new.
    pub(super) outbound_of_starts: Vec<Vec<Outbound>>,
    /// Attempts to publish whose bodies only the outbox has.
    pub(super) again: Vec<(CommandId, u32)>,
    /// What happened, for counters and lifecycle events.
    pub(super) notes: Vec<Noted>,
    /// Definitions that must be loaded before these sagas can go on.
    pub(super) missing: Vec<DefinitionRef>,
    /// The due times of the sagas.
    pub(super) dues: Vec<Timestamp>,
    /// The database's time.
    pub(super) now: Timestamp,
    /// Sagas that were claimed because they were due.
    pub(super) claimed: usize,
    /// How late the latest of them was.
    pub(super) latest: Option<TimeDelta>,
    /// Sub-sagas that look for their parent's end.
    pub(super) looks: Vec<(SagaId, Parent)>,
    /// Sub-sagas whose parent has ended with this commit: definition and key.
    pub(super) orphans: Vec<(String, String)>,
    /// What there is to tell of traces.
    pub(super) traced: Traced,
}

/// What became of an item.
pub(super) enum Verdict {
    /// It took effect, or was a defined no-op.
    Done,
    /// A reply that repeats what is recorded, or seems to: its content has yet to be compared.
    Duplicate { has_ended: bool },
    /// A reply that belongs in the dead letters, with the reason's code.
    Dead(&'static str),
    /// A start: see [`crate::store::Committed::starts`], which has them in the order of the items.
    Start(Box<SagaRecord>),
    /// An operator's action.
    Operated(Box<Result<Saga, CoordinatorError>>),
    /// An event that somebody told.
    Told(Box<Result<Heard, CoordinatorError>>),
    /// The definition is not in memory: once more, when it is.
    Deferred,
}

/// Applies every item, confirm and due timer to the sagas that were loaded.
pub(super) fn plan(items: &[Item], loaded: Loaded, sources: &Sources) -> (Changes, Plan) {
    let Loaded { now, sagas } = loaded;
    let mut planner = Planner { sources, now, changes: Changes::default(), plan: Plan { now, ..Plan::default() } };
    let mut by_saga: BTreeMap<SagaId, Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        planner.plan.verdicts.push(Verdict::Dead("REPLY_SAGA_UNKNOWN"));
        match item {
            Item::Start(start) => planner.start(at, start),
            Item::Operate(Operate { id, .. }, _) | Item::Migrate(MigrateItem { id, .. }) => {
                let unknown = Err(CoordinatorError::UnknownSaga(*id));
                planner.plan.verdicts[at] = Verdict::Operated(Box::new(unknown));
                by_saga.entry(*id).or_default().push(at);
            }
            Item::Tell(tell) => {
                let unknown = Err(CoordinatorError::UnknownSaga(tell.id));
                planner.plan.verdicts[at] = Verdict::Told(Box::new(unknown));
                by_saga.entry(tell.id).or_default().push(at);
            }
            Item::Reply(reply) => by_saga.entry(reply.command.saga).or_default().push(at),
        }
    }
    for saga in sagas {
        let concerned = by_saga.remove(&saga.id).unwrap_or_default();
        planner.saga(saga, items, &concerned);
    }
    (planner.changes, planner.plan)
}

struct Planner<'a> {
    sources: &'a Sources,
    now: Timestamp,
    changes: Changes,
    plan: Plan,
}

impl Planner<'_> {
    fn start(&mut self, at: usize, start: &StartItem) {
        let StartItem { id, definition, key, input, input_hash, parent, trace, tombstone, turn: _, together: _ } =
            start;
        let mut saga = Saga::new(*id, definition, key.clone(), input.clone(), self.now);
        saga.parent = parent.clone();
        saga.trace = trace.clone();
        let kind = match tombstone {
            Some(answer) => EventKind::Entombed { answer: answer.clone() },
            None => EventKind::Started,
        };
        let event = Event { now: self.now, kind };
        let before = self.before(definition, &saga);
        let Ok((mut saga, effects)) = transition(definition, &saga, &event) else {
            // A fresh saga takes this event in every definition.
            self.plan.verdicts[at] = Verdict::Deferred;
            return;
        };
        self.after(before, definition, &saga, &event.kind);
        self.tell_hooks(false, definition, &saga);
        let (mut commands, mut settled, mut outbound) = (Vec::new(), Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Decide { .. } => {
                    commands.extend(self.decided(definition, &saga, effect, &mut outbound));
                }
                Effect::Note(note) => self.note(definition, &saga, note),
                Effect::Answer { to, outcome } => outbound.push(answer(to, outcome)),
                // It may turn round at once, and then gives up what it has begun to wait for.
                Effect::Settle(of) => settled.push(self.settled(&saga, of)),
                Effect::Publish { .. } | Effect::LookAtParent => {}
            }
        }
        let (revision, event) = (saga.revision, event.kind);
        let is_ordinary = matches!(event, EventKind::Started);
        let history = (!is_ordinary).then(|| HistoryRecord { saga: saga.id, revision, at: self.now, event });
        let mut history: Vec<HistoryRecord> = history.into_iter().collect();
        let is_forward = matches!(saga.state, SagaState::Running);
        outbound.retain(|outbound| {
            // What holds an action of a saga back that has turned round decides more, which has no place here.
            let Some((id, attempt)) = outbound.of.filter(|_| is_forward) else { return true };
            let Some(until) = self.held_until(definition, &saga, id) else { return true };
            let kind = EventKind::HeldBack { seq: id.seq, attempt, until };
            let Ok((next, _)) = transition(definition, &saga, &Event { now: self.now, kind: kind.clone() }) else {
                return true;
            };
            saga = next;
            history.push(HistoryRecord { saga: saga.id, revision: saga.revision, at: self.now, event: kind });
            false
        });
        for HistoryRecord { event, .. } in &history {
            self.plan.traced.held(saga.id, event);
        }
        self.watch(&saga);
        let entries = commands.iter().map(|command| outbound::entry(definition, &saga, command)).collect();
        let record = SagaRecord { saga: saga.clone(), commands: entries };
        self.plan.verdicts[at] = Verdict::Start(Box::new(record));
        self.plan.starts.push(saga.id);
        self.plan.outbound_of_starts.push(outbound);
        self.changes.starts.push(NewSaga { saga, input_hash: *input_hash, commands, settled, history });
    }

    fn saga(&mut self, stored: Saga, items: &[Item], concerned: &[usize]) {
        let Some(definition) = self.sources.registry.known(&stored.definition) else {
            self.plan.missing.push(stored.definition);
            for &at in concerned {
                self.plan.verdicts[at] = Verdict::Deferred;
            }
            return;
        };
        let Some(mut definition) = stored.expand(&definition) else {
            // It was expanded when the saga was started, and neither has changed.
            let definition = &stored.definition;
            tracing::error!(saga_id = %stored.id, saga = definition.name, version = definition.version, "its list is no longer one");
            return;
        };
        let first = (self.plan.outbound.len(), self.plan.again.len());
        let (from_revision, was_terminal, was_paused) = (stored.revision, stored.state.is_terminal(), stored.paused);
        let mut saga = stored;
        for &at in concerned {
            let verdict = match &items[at] {
                Item::Reply(reply) => {
                    let kind = EventKind::Replied {
                        seq: reply.command.seq,
                        attempt: reply.attempt,
                        outcome: reply.outcome.clone(),
                    };
                    let verdict = self.reply(&definition, &mut saga, kind);
                    let is_in_flight =
                        |step: &StepState| step.in_flight().is_some_and(|(_, of)| of.seq == reply.command.seq);
                    if !saga.steps.iter().any(is_in_flight) {
                        // Its publish need not be written down any more.
                        self.sources.confirms.take(reply.command);
                    }
                    verdict
                }
                Item::Operate(operate, job) => {
                    let operated = self.operate(&definition, &mut saga, operate, *job);
                    Verdict::Operated(Box::new(operated.map(|()| saga.clone())))
                }
                Item::Migrate(item) => {
                    let moved = self.migrate(&mut definition, &mut saga, item);
                    Verdict::Operated(Box::new(moved.map(|()| saga.clone())))
                }
                Item::Tell(tell) => Verdict::Told(Box::new(self.told(&definition, &mut saga, tell))),
                Item::Start(_) => Verdict::Deferred,
            };
            self.plan.verdicts[at] = verdict;
        }
        self.confirm(&definition, &mut saga);
        if let Some(due) = saga.due().filter(|due| *due <= self.now) {
            self.plan.claimed += 1;
            self.find_held(&definition, &saga, self.now);
            self.plan.latest = self.plan.latest.max(Some(self.now - due));
            // Never illegal; and what is not due after all changes nothing.
            let _ = self.apply(&definition, &mut saga, EventKind::Due);
        }
        if was_paused && !saga.paused {
            self.find_held(&definition, &saga, Timestamp::MAX_UTC);
        }
        self.hold_back(&definition, &mut saga, first);
        self.watch(&saga);
        if saga.state.is_terminal() && !was_terminal {
            self.plan.orphans.extend(relatives::children(&definition, &saga));
        }
        if saga.revision > from_revision {
            self.changes.updates.push(SagaUpdate { saga, from_revision });
        }
    }

    /// When this command is tried again, if its participant takes no more for now.
    fn held_until(&self, definition: &Definition, saga: &Saga, id: CommandId) -> Option<Timestamp> {
        let in_flight = saga.steps.iter().zip(&definition.steps).find_map(|(state, step)| {
            let (direction, command) = state.in_flight()?;
            (command.seq == id.seq).then_some((step, direction))
        });
        let (step, direction) = in_flight?;
        let (participant, definition) = (&*step.participant, &*saga.definition.name);
        let action = direction.action_of(step);
        self.sources.gates.admit(&Asked { participant, action, definition, direction, id }, self.now)
    }

    /// Takes back what was to be sent for this saga, from these places on, and cannot go out now.
    fn hold_back(&mut self, definition: &Arc<Definition>, saga: &mut Saga, (mut sent, mut again): (usize, usize)) {
        loop {
            let is_first = sent < self.plan.outbound.len();
            let next = match is_first {
                true => self.plan.outbound[sent].of,
                false => self.plan.again.get(again).copied(),
            };
            if !is_first && next.is_none() {
                return;
            }
            let held = next.and_then(|(id, attempt)| Some((id, attempt, self.held_until(definition, saga, id)?)));
            match (held, is_first) {
                (None, true) => sent += 1,
                (None, false) => again += 1,
                (Some((id, attempt, until)), _) => {
                    if is_first {
                        self.plan.outbound.remove(sent);
                    } else {
                        self.plan.again.remove(again);
                    }
                    // Never illegal, and of a saga that has ended nothing is sent. What it decides is looked at here, too.
                    let _ = self.apply(definition, saga, EventKind::HeldBack { seq: id.seq, attempt, until });
                }
            }
        }
    }

    /// What is held back and comes due by itself, or is resumed, may be unknown to the gates here: another coordinator held it back.
    fn find_held(&self, definition: &Definition, saga: &Saga, by: Timestamp) {
        for (state, step) in saga.steps.iter().zip(&definition.steps) {
            let Some((direction, command)) = state.in_flight() else { continue };
            if let Phase::Held(due) = command.phase
                && due <= by
            {
                let (participant, definition) = (&*step.participant, &*saga.definition.name);
                let (action, id) = (direction.action_of(step), CommandId { saga: saga.id, seq: command.seq });
                self.sources.gates.found(&Asked { participant, action, definition, direction, id });
            }
        }
    }

    fn reply(&mut self, definition: &Arc<Definition>, saga: &mut Saga, kind: EventKind) -> Verdict {
        let has_ended = saga.state.is_terminal();
        match self.apply(definition, saga, kind) {
            Err(_) => Verdict::Dead("REPLY_NOT_EXPECTED"),
            Ok(notes) if notes.iter().any(|note| matches!(note, Note::Contradiction(..))) => {
                Verdict::Dead("REPLY_CONTRADICTS")
            }
            Ok(notes) if notes.contains(&Note::Duplicate) => Verdict::Duplicate { has_ended },
            Ok(_) => Verdict::Done,
        }
    }

    fn told(
        &mut self,
        definition: &Arc<Definition>,
        saga: &mut Saga,
        tell: &TellItem,
    ) -> Result<Heard, CoordinatorError> {
        if let EventKind::Signalled { signal, .. } = &tell.event
            && definition.waits_for(signal).is_none()
        {
            let known = definition.signals().into_iter().map(str::to_owned).collect();
            return Err(CoordinatorError::UnknownSignal { signal: signal.clone(), known });
        }
        let notes = self.apply(definition, saga, tell.event.clone()).map_err(|illegal| {
            CoordinatorError::NotAllowed { id: saga.id, action: illegal.event, state: illegal.state, why: illegal.why }
        })?;
        Ok(Heard { saga: saga.clone(), is_duplicate: notes.contains(&Note::Duplicate) })
    }

    fn operate(
        &mut self,
        definition: &Arc<Definition>,
        saga: &mut Saga,
        operate: &Operate,
        job: Option<BulkId>,
    ) -> Result<(), CoordinatorError> {
        if let Some(expected) = operate.expected_revision
            && expected != saga.revision
        {
            return Err(CoordinatorError::Moved { id: saga.id, expected, found: saga.revision });
        }
        let operation = operate.action.resolve(definition, saga)?;
        let before = saga.revision;
        let kind = EventKind::Operated { operation: operation.clone() };
        self.apply(definition, saga, kind).map_err(|illegal| CoordinatorError::NotAllowed {
            id: saga.id,
            action: operate.action.as_str(),
            state: illegal.state,
            why: illegal.why,
        })?;
        let (at, revision) = (self.now, saga.revision);
        let mut detail = serde_json::json!({ "fromRevision": before, "toRevision": revision });
        match &operation {
            // What it says may be nobody's business who reads the log: the commands have it, and here is which.
            Operation::Edit { step, input } => {
                let hash = |hash: [u8; 32]| hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                detail["operation"] = serde_json::json!({ "operation": "edit", "step": step });
                // Guesses can be tried against a hash.
                let is_open = definition.sensitive.is_empty();
                if is_open {
                    detail["sha256"] = hash(input.canonical_hash()).into();
                }
                if let OperatorAction::Edit { original: Some(Original { seq, sha256 }), .. } = operate.action {
                    detail["original"] = match is_open {
                        true => serde_json::json!({ "seq": seq, "sha256": hash(sha256) }),
                        false => serde_json::json!({ "seq": seq }),
                    };
                }
            }
            _ => detail["operation"] = serde_json::json!(operation),
        }
        if let Some(job) = job {
            detail["bulk"] = serde_json::json!(job);
            self.changes.bulk.push(Applied { job, saga: saga.id, revision, at });
        }
        self.changes.audits.push(AuditRecord {
            id: 0,
            at: self.now,
            actor: operate.actor.clone(),
            saga: Some(saga.id),
            action: operate.action.as_str().to_owned(),
            reason: operate.reason.clone(),
            detail: Payload::from(detail),
        });
        Ok(())
    }

    /// Moves the saga to another version; `definition` is that one from then on.
    fn migrate(
        &mut self,
        definition: &mut Arc<Definition>,
        saga: &mut Saga,
        item: &MigrateItem,
    ) -> Result<(), CoordinatorError> {
        let (id, before) = (saga.id, saga.revision);
        let refused =
            |reasons: Vec<Reason>| CoordinatorError::MigrationRefused { id, to: item.to.reference.clone(), reasons };
        let to = &expanded_for(&item.to, saga).map_err(refused)?;
        let must_be_as_seen = to.reads_outputs && !saga.reads_outputs;
        let expected = item.expected_revision.or(must_be_as_seen.then_some(item.seen_revision));
        if let Some(expected) = expected.filter(|expected| *expected != before) {
            return Err(CoordinatorError::Moved { id, expected, found: before });
        }
        let mut given = saga.clone();
        if must_be_as_seen {
            given.outputs.clone_from(&item.outputs);
        }
        let (next, effects) = migrate(definition, to, &given, self.now).map_err(refused)?;
        let (old, new) = (definition.reference.version, to.reference.version);
        let was_stuck = saga.state.stuck().is_some();
        *saga = next;
        *definition = to.clone();
        self.tell_hooks(was_stuck, definition, saga);
        self.carry_out(definition, saga, effects);
        let event = EventKind::Migrated { from: old, to: new };
        self.changes.history.push(HistoryRecord { saga: id, revision: saga.revision, at: self.now, event });
        // Of two moves in one batch the last one counts.
        self.changes.migrations.retain(|migration| migration.saga != id);
        self.changes.migrations.push(SagaMigration {
            saga: id,
            version: new,
            reads_outputs: saga.reads_outputs,
            steps: to.indices().map(|index| (to.step(index).name.clone(), index.0)).collect(),
        });
        let detail = serde_json::json!({
            "fromVersion": old, "toVersion": new, "fromRevision": before, "toRevision": saga.revision,
        });
        self.changes.audits.push(AuditRecord {
            id: 0,
            at: self.now,
            actor: item.actor.clone(),
            saga: Some(id),
            action: "migrate".to_owned(),
            reason: item.reason.clone(),
            detail: Payload::from(detail),
        });
        Ok(())
    }

    /// Writes down which publishes were confirmed since, as long as the saga is being written anyway.
    fn confirm(&mut self, definition: &Arc<Definition>, saga: &mut Saga) {
        let sending: Vec<_> = saga
            .steps
            .iter()
            .filter_map(|step| step.in_flight())
            .filter(|(_, command)| matches!(command.phase, Phase::Sending(_) | Phase::Held(_)))
            .map(|(_, command)| (command.seq, command.attempt))
            .collect();
        for (seq, attempt) in sending {
            if self.sources.confirms.take(CommandId { saga: saga.id, seq }) == Some(attempt) {
                let _ = self.apply(definition, saga, EventKind::Published { seq, attempt });
            }
        }
    }

    /// Applies one event and writes down what follows from it.
    fn apply(
        &mut self,
        definition: &Arc<Definition>,
        saga: &mut Saga,
        kind: EventKind,
    ) -> Result<Vec<Note>, crate::saga::IllegalTransition> {
        let is_told_by_outbox = is_told_by_outbox(saga, &kind);
        let event = Event { now: self.now, kind };
        let before = self.before(definition, saga);
        let (next, effects) = transition(definition, saga, &event)?;
        let has_changed = next.revision > saga.revision;
        let was_stuck = saga.state.stuck().is_some();
        *saga = next;
        self.after(before, definition, saga, &event.kind);
        self.tell_hooks(was_stuck, definition, saga);
        let notes = self.carry_out(definition, saga, effects);
        if has_changed && !is_told_by_outbox {
            let revision = saga.revision;
            self.changes.history.push(HistoryRecord { saga: saga.id, revision, at: self.now, event: event.kind });
        }
        Ok(notes)
    }

    /// Writes down what followed from an event that left the saga as it is now.
    fn carry_out(&mut self, definition: &Arc<Definition>, saga: &Saga, effects: Vec<Effect>) -> Vec<Note> {
        let mut notes = Vec::new();
        for effect in effects {
            match effect {
                Effect::Decide { .. } => {
                    let mut outbound = std::mem::take(&mut self.plan.outbound);
                    let command = self.decided(definition, saga, effect, &mut outbound);
                    self.plan.outbound = outbound;
                    self.changes.commands.extend(command);
                }
                Effect::Publish { seq, attempt } => {
                    let id = CommandId { saga: saga.id, seq };
                    self.plan.again.push((id, attempt));
                    self.plan.traced.again(self.sources.traces.as_ref(), saga, (id, attempt), self.now);
                }
                Effect::Settle(settled) => {
                    let settled = self.settled(saga, settled);
                    self.changes.settled.push(settled);
                }
                Effect::Answer { to, outcome } => self.plan.outbound.push(answer(to, outcome)),
                Effect::LookAtParent => {
                    self.plan.looks.extend(saga.parent.clone().map(|parent| (saga.id, parent)));
                }
                Effect::Note(note) => {
                    self.note(definition, saga, note.clone());
                    notes.push(note);
                }
            }
        }
        notes
    }

    fn decided(
        &mut self,
        definition: &Arc<Definition>,
        saga: &Saga,
        effect: Effect,
        outbound: &mut Vec<Outbound>,
    ) -> Option<NewCommand> {
        let Effect::Decide { seq, step, direction, generation, compensates, body } = effect else { return None };
        let (id, at) = (CommandId { saga: saga.id, seq }, self.now);
        let named = definition.step(step);
        let action = match direction {
            Direction::Action => named.action.clone(),
            Direction::Compensation => named.compensation.action()?.action.clone(),
        };
        let command = NewCommand {
            id,
            step: named.name.clone(),
            step_index: step.0,
            direction,
            generation,
            compensates,
            participant: named.participant.clone(),
            action,
            body,
            revision: saga.revision,
            at,
        };
        if named.work.is_sent() {
            let mut first = first_attempt(definition, &command, &self.sources.to, at);
            self.plan.traced.first(self.sources.traces.as_ref(), saga, (id, &mut first), at);
            outbound.push(first);
        }
        Some(command)
    }

    fn settled(&self, saga: &Saga, settled: Settled) -> SettledCommand {
        SettledCommand { saga: saga.id, settled, revision: saga.revision, at: self.now }
    }

    fn note(&mut self, definition: &Arc<Definition>, saga: &Saga, note: Note) {
        let trace = traces::trace_id(self.sources.traces.as_ref(), saga);
        self.plan.notes.push(Noted::of(definition, saga, note, self.now, trace));
    }

    fn before(&self, definition: &Definition, saga: &Saga) -> Option<traces::Before> {
        self.sources.traces.as_ref().and_then(|traces| traces.before(definition, saga))
    }

    fn after(&mut self, before: Option<traces::Before>, definition: &Arc<Definition>, saga: &Saga, kind: &EventKind) {
        if let (Some(traces), Some(before)) = (&self.sources.traces, before) {
            self.plan.traced.after((traces, before), definition, saga, (self.now, kind));
        }
    }

    fn tell_hooks(&mut self, was_stuck: bool, definition: &Definition, saga: &Saga) {
        let hooks = &self.sources.hooks;
        if !hooks.is_empty() && was_stuck != saga.state.stuck().is_some() {
            self.changes.webhooks.extend(hooks::told(hooks, saga, definition, self.now));
        }
    }

    fn watch(&mut self, saga: &Saga) {
        self.plan.dues.extend(saga.due());
    }
}

/// A success that settles the command in flight can be read from its outbox entry; everything else needs a row of its own.
fn is_told_by_outbox(saga: &Saga, kind: &EventKind) -> bool {
    let EventKind::Replied { seq, outcome: ReplyOutcome::Success { .. }, .. } = kind else { return false };
    saga.steps.iter().filter_map(|step| step.in_flight()).any(|(_, command)| command.seq == *seq)
}
