//! State in memory: for tests and simulations. Defends the same rules as the databases do.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::clock::{Clock, Timestamp};
use crate::id::{CommandId, DefinitionRef, SagaId, Seq, StepIndex};
use crate::message::TokenKey;
use crate::payload::Payload;
use crate::saga::{Direction, Figures, Outcome, Saga, Settled};
use crate::store::counter::Counter;
use crate::store::overview::{self, Lifetime, Service, StateCount, StuckGroup};
use crate::store::pauses::{ParticipantPause, PauseChange, PauseStore};
use crate::store::{
    AuditFilter, AuditRecord, Changes, Committed, Decide, DefinitionRecord, Deprecation, DeprecationChange,
    HistoryRecord, Loaded, Migration, NewCommand, NewSaga, OutboxEntry, OutboxFilter, Page, Registration, SagaCount,
    SagaFilter, SagaMigration, SagaRecord, SagaSummary, SagaUpdate, SettledCommand, Started, Store, StoreError,
    StoreHealth, Verified, Wants, in_flight, put_outputs,
};

/// A store that forgets everything when it is dropped.
pub struct MemoryStore {
    clock: Clock,
    /// Whether the rules are left out.
    is_careless: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sagas: BTreeMap<SagaId, (Saga, [u8; 32])>,
    keys: HashMap<(String, String), SagaId>,
    outbox: BTreeMap<CommandId, OutboxEntry>,
    history: BTreeMap<(SagaId, u32), HistoryRecord>,
    audit: Vec<AuditRecord>,
    definitions: BTreeMap<DefinitionRef, DefinitionRecord>,
    deprecations: Vec<DeprecationChange>,
    pauses: BTreeMap<(String, Option<String>), ParticipantPause>,
    token_keys: Vec<TokenKey>,
}

impl MemoryStore {
    /// An empty store that goes by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, is_careless: false, state: Mutex::default() }
    }

    /// The same, but what is written last stands, whatever it contradicts: to see that the lack of rules is noticed.
    #[cfg(feature = "testkit")]
    #[must_use]
    pub fn careless(self) -> Self {
        Self { is_careless: true, ..self }
    }
}

impl State {
    fn load(&self, id: SagaId) -> Option<Saga> {
        let (saga, _) = self.sagas.get(&id)?;
        let mut saga = saga.clone();
        if saga.reads_outputs {
            for entry in self.entries(id) {
                if let Some(Verified { outcome: Outcome::Success, output: Some(output), .. }) = &entry.verified
                    && entry.direction == Direction::Action
                {
                    saga.outputs.insert(StepIndex(entry.step_index), output.clone());
                }
            }
        }
        Some(saga)
    }

    fn entries(&self, id: SagaId) -> impl Iterator<Item = &OutboxEntry> {
        let of = |seq| CommandId { saga: id, seq: Seq(seq) };
        self.outbox.range(of(0)..=of(u32::MAX)).map(|(_, entry)| entry)
    }

    /// The entry with the attempt and due time that the saga's row tells.
    fn with_flight(&self, entry: &OutboxEntry) -> OutboxEntry {
        let mut entry = entry.clone();
        if let (None, Some((saga, _))) = (&entry.verified, self.sagas.get(&entry.id.saga)) {
            entry.in_flight = in_flight(saga).find(|(seq, _)| *seq == entry.id.seq).map(|(_, flight)| flight);
        }
        entry
    }

    fn due(&self, now: Timestamp, wanted: &[SagaId], limit: u32) -> Vec<SagaId> {
        let mut due: Vec<(Timestamp, SagaId)> = self
            .sagas
            .values()
            .filter_map(|(saga, _)| Some((saga.due().filter(|due| *due <= now)?, saga.id)))
            .filter(|(_, id)| !wanted.contains(id))
            .collect();
        due.sort_unstable();
        due.into_iter().take(limit as usize).map(|(_, id)| id).collect()
    }

    /// What becomes of each start: the first of a key wins, also within a batch.
    fn starts(&self, starts: &[NewSaga]) -> Vec<Started> {
        let mut fresh: HashMap<(&str, &str), &NewSaga> = HashMap::new();
        let mut outcomes = Vec::with_capacity(starts.len());
        for start in starts {
            let saga = &start.saga;
            outcomes.push(match &saga.key {
                None => Started::New,
                Some(key) => {
                    let name = (saga.definition.name.clone(), key.clone());
                    let stored = self.keys.get(&name).and_then(|id| self.sagas.get(id));
                    match (stored, fresh.entry((&saga.definition.name, key))) {
                        (Some((saga, hash)), _) => Started::Taken { by: saga.id, input_hash: *hash },
                        (None, Entry::Occupied(first)) => {
                            Started::Taken { by: first.get().saga.id, input_hash: first.get().input_hash }
                        }
                        (None, Entry::Vacant(free)) => {
                            free.insert(start);
                            Started::New
                        }
                    }
                }
            });
        }
        outcomes
    }

    /// Refuses what the databases' statements and constraints refuse, before anything is written.
    fn check(&self, changes: &Plan) -> Result<(), StoreError> {
        let mut sagas = HashSet::new();
        for NewSaga { saga, .. } in &changes.starts {
            if self.sagas.contains_key(&saga.id) || !sagas.insert(saga.id) {
                return Err(StoreError::Refused(format!("saga {} is there already", saga.id)));
            }
            check_row(saga)?;
        }
        let mut commands = HashSet::new();
        for command in &changes.commands {
            let CommandId { saga, seq } = command.id;
            if !self.sagas.contains_key(&saga) && !sagas.contains(&saga) {
                return Err(StoreError::Refused(format!("a command of saga {saga}, which is not there")));
            }
            if self.outbox.contains_key(&command.id) || !commands.insert(command.id) {
                return Err(StoreError::Refused(format!("command {seq} of saga {saga} is there already")));
            }
            if command.compensates.is_some() != (command.direction == Direction::Compensation) {
                return Err(StoreError::Refused(format!("command {seq} of saga {saga} compensates no action")));
            }
        }
        let mut updated = HashSet::new();
        for SagaUpdate { saga, from_revision } in &changes.updates {
            let is_as_read = self.sagas.get(&saga.id).is_some_and(|(stored, _)| {
                stored.revision == *from_revision && stored.revision < saga.revision && !stored.state.is_terminal()
            });
            if !is_as_read || !updated.insert(saga.id) {
                return Err(StoreError::Conflict(format!("saga {} is not as it was read", saga.id)));
            }
            check_row(saga)?;
        }
        for settled in &changes.settled {
            let id = CommandId { saga: settled.saga, seq: settled.settled.seq };
            if !self.outbox.contains_key(&id) && !commands.contains(&id) {
                return Err(StoreError::Conflict(format!("command {} of saga {} is not there", id.seq, id.saga)));
            }
            if settled.settled.output.is_some() && settled.settled.outcome != Outcome::Success {
                return Err(StoreError::Refused(format!("command {} of saga {} failed with output", id.seq, id.saga)));
            }
        }
        for SagaMigration { saga, .. } in &changes.migrations {
            if !updated.contains(saga) {
                return Err(StoreError::Conflict(format!("saga {saga} is moved without being updated")));
            }
        }
        let mut history = HashSet::new();
        for HistoryRecord { saga, revision, .. } in &changes.history {
            if self.history.contains_key(&(*saga, *revision)) || !history.insert((*saga, *revision)) {
                return Err(StoreError::Refused(format!("revision {revision} of saga {saga} is told already")));
            }
        }
        Ok(())
    }

    fn migrate(&mut self, migrations: Vec<SagaMigration>) {
        for SagaMigration { saga: id, version, reads_outputs, steps } in migrations {
            let Some((saga, _)) = self.sagas.get_mut(&id) else { continue };
            saga.definition.version = version;
            saga.reads_outputs = reads_outputs;
            let of = |seq| CommandId { saga: id, seq: Seq(seq) };
            for (_, entry) in self.outbox.range_mut(of(0)..=of(u32::MAX)) {
                entry.definition.version = version;
                if let Some((_, index)) = steps.iter().find(|(name, _)| *name == entry.step) {
                    entry.step_index = *index;
                }
            }
        }
    }

    fn deprecation(&self, reference: &DefinitionRef) -> Option<Deprecation> {
        let last = self.deprecations.iter().rev().find(|change| change.reference == *reference)?;
        let DeprecationChange { at, actor, reason, .. } = last.clone();
        last.is_deprecated.then_some(Deprecation { at, actor, reason })
    }

    fn with_deprecation(&self, record: &DefinitionRecord) -> DefinitionRecord {
        DefinitionRecord { deprecated: self.deprecation(&record.reference), ..record.clone() }
    }

    fn write(&mut self, changes: Changes, is_careless: bool) -> Result<Committed, StoreError> {
        let starts = self.starts(&changes.starts);
        let plan = Plan::of(changes, &starts);
        if !is_careless {
            self.check(&plan)?;
        }
        for NewSaga { saga, input_hash, .. } in plan.starts {
            if let Some(key) = &saga.key {
                self.keys.insert((saga.definition.name.clone(), key.clone()), saga.id);
            }
            self.sagas.insert(saga.id, (stored(saga), input_hash));
        }
        for command in plan.commands {
            if let Some((saga, _)) = self.sagas.get(&command.id.saga) {
                self.outbox.insert(command.id, entry(command, saga.definition.clone()));
            }
        }
        for update in plan.updates {
            if let Some((saga, _)) = self.sagas.get_mut(&update.saga.id) {
                let (definition, reads_outputs) = (saga.definition.clone(), saga.reads_outputs);
                *saga = Saga { definition, reads_outputs, ..stored(update.saga) };
            }
        }
        self.migrate(plan.migrations);
        self.deprecations.extend(plan.deprecations);
        for SettledCommand { saga, settled, revision, at } in plan.settled {
            if let Some(entry) = self.outbox.get_mut(&CommandId { saga, seq: settled.seq }) {
                let Settled { outcome, attempt, output, problem, .. } = settled;
                entry.verified = Some(Verified { outcome, attempt, output, problem, at, revision });
            }
        }
        for record in plan.history {
            self.history.insert((record.saga, record.revision), record);
        }
        for mut record in plan.audits {
            record.id = self.audit.len() as u64 + 1;
            self.audit.push(record);
        }
        Ok(Committed { starts })
    }
}

/// [`Changes`] without the starts whose keys are taken, each start's rows with those of its table.
struct Plan {
    starts: Vec<NewSaga>,
    updates: Vec<SagaUpdate>,
    commands: Vec<NewCommand>,
    settled: Vec<SettledCommand>,
    history: Vec<HistoryRecord>,
    audits: Vec<AuditRecord>,
    migrations: Vec<SagaMigration>,
    deprecations: Vec<DeprecationChange>,
}

impl Plan {
    fn of(changes: Changes, outcomes: &[Started]) -> Self {
        // There are no bulk jobs here, and so no items of them; and nobody tells webhooks from here.
        let Changes {
            starts,
            updates,
            commands,
            settled,
            history,
            audits,
            migrations,
            deprecations,
            bulk: _,
            webhooks: _,
        } = changes;
        let (mut new, mut first_commands, mut first_history) = (Vec::new(), Vec::new(), Vec::new());
        let mut first_settled = Vec::new();
        for (mut start, _) in starts.into_iter().zip(outcomes).filter(|(_, outcome)| **outcome == Started::New) {
            first_commands.append(&mut start.commands);
            first_settled.append(&mut start.settled);
            first_history.append(&mut start.history);
            new.push(start);
        }
        first_commands.extend(commands);
        first_settled.extend(settled);
        first_history.extend(history);
        let (commands, settled, history) = (first_commands, first_settled, first_history);
        Self { starts: new, updates, commands, settled, history, audits, migrations, deprecations }
    }
}

/// The constraints of the table `saga`.
fn check_row(saga: &Saga) -> Result<(), StoreError> {
    let broken = |rule: &str| Err(StoreError::Refused(format!("saga {}: {rule}", saga.id)));
    match saga {
        Saga { ended_at, state, .. } if ended_at.is_some() != state.is_terminal() => {
            broken("a saga has an end when its state is terminal, and only then")
        }
        Saga { revision: 0, .. } => broken("revisions count from 1"),
        Saga { next_seq: Seq(0), .. } => broken("commands count from 1"),
        _ => Ok(()),
    }
}

fn entry(command: NewCommand, definition: DefinitionRef) -> OutboxEntry {
    OutboxEntry {
        id: command.id,
        definition,
        step: command.step,
        step_index: command.step_index,
        direction: command.direction,
        generation: command.generation,
        compensates: command.compensates,
        participant: command.participant,
        action: command.action,
        body: command.body,
        verified: None,
        in_flight: None,
        decided_at: command.at,
        decided_revision: command.revision,
    }
}

/// Outputs are stored with the outbox alone.
fn stored(mut saga: Saga) -> Saga {
    saga.outputs.clear();
    saga
}

fn page<T, C: PartialOrd>(items: impl Iterator<Item = T>, page: &Page<C>, is_after: impl Fn(&T, &C) -> bool) -> Vec<T> {
    items
        .filter(|item| page.after.as_ref().is_none_or(|cursor| is_after(item, cursor)))
        .take(page.limit as usize)
        .collect()
}

#[async_trait]
impl PauseStore for MemoryStore {
    async fn pauses(&self) -> Result<Vec<ParticipantPause>, StoreError> {
        Ok(self.state.lock().await.pauses.values().cloned().collect())
    }

    async fn change_pause(&self, change: &PauseChange) -> Result<Option<Timestamp>, StoreError> {
        let (mut state, now) = (self.state.lock().await, self.clock.now());
        let name = (change.participant.clone(), change.action.clone());
        let is_seen = |known: &ParticipantPause| change.seen.is_none_or(|seen| seen == known.since);
        if change.is_paused == state.pauses.contains_key(&name) || !state.pauses.get(&name).is_none_or(is_seen) {
            return Ok(None);
        }
        if change.is_paused {
            let (participant, action) = name.clone();
            let (by, reason) = (change.actor.clone(), change.reason.clone());
            state.pauses.insert(name, ParticipantPause { participant, action, since: now, by, reason });
        } else {
            state.pauses.remove(&name);
        }
        let mut row = change.audit(now);
        row.id = state.audit.len() as u64 + 1;
        state.audit.push(row);
        Ok(Some(now))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn pauses(&self) -> Option<&dyn PauseStore> {
        Some(self)
    }

    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let mut ids = wants.sagas;
        ids.extend(state.due(now, &ids, wants.due));
        ids.sort_unstable();
        ids.dedup();
        let sagas = ids.into_iter().filter_map(|id| state.load(id)).collect();
        let changes = decide(Loaded { now, sagas });
        state.write(changes, self.is_careless)
    }

    async fn saga(&self, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
        let state = self.state.lock().await;
        let commands: Vec<OutboxEntry> = state.entries(id).map(|entry| state.with_flight(entry)).collect();
        let Some(mut saga) = state.load(id) else { return Ok(None) };
        put_outputs(&mut saga, &commands);
        Ok(Some(SagaRecord { saga, commands }))
    }

    async fn saga_by_key(&self, definition: &str, key: &str) -> Result<Option<SagaId>, StoreError> {
        Ok(self.state.lock().await.keys.get(&(definition.to_owned(), key.to_owned())).copied())
    }

    async fn sagas(&self, filter: &SagaFilter, wanted: &Page<SagaId>) -> Result<Vec<SagaSummary>, StoreError> {
        let state = self.state.lock().await;
        let found = state.sagas.values().rev().map(|(saga, _)| saga).filter(|saga| {
            filter.definition.as_ref().is_none_or(|name| *name == saga.definition.name)
                && (filter.states.is_empty() || filter.states.iter().any(|state| state == saga.state.as_str()))
                && filter.key.as_ref().is_none_or(|key| saga.key.as_ref() == Some(key))
                && filter.since.is_none_or(|since| saga.created_at >= since)
                && filter.paused.is_none_or(|paused| saga.paused == paused)
                && filter.version.is_none_or(|version| saga.definition.version == version)
                && filter.until.is_none_or(|until| saga.created_at < until)
                && wanted.after.is_none_or(|after| saga.id < after)
        });
        let most = if filter.is_search() { overview::SEARCHED as usize } else { usize::MAX };
        let found = found.take(most).filter(|saga| overview::matches(saga, filter));
        let found = page(found, wanted, |saga, after| saga.id < *after);
        let summary = |saga: &Saga| SagaSummary { saga: Saga { input: Payload::trusted("null"), ..saga.clone() } };
        Ok(found.into_iter().map(summary).collect())
    }

    async fn outbox(&self, filter: &OutboxFilter, wanted: &Page<CommandId>) -> Result<Vec<OutboxEntry>, StoreError> {
        let state = self.state.lock().await;
        let found = state.outbox.values().filter(|entry| {
            filter.pending.is_none_or(|pending| entry.verified.is_none() == pending)
                && filter.saga.is_none_or(|saga| entry.id.saga == saga)
                && filter.participant.as_ref().is_none_or(|name| *name == entry.participant)
        });
        let found = page(found, wanted, |entry, after| entry.id > *after);
        Ok(found.into_iter().map(|entry| state.with_flight(entry)).collect())
    }

    async fn commands(&self, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
        let state = self.state.lock().await;
        Ok(ids.iter().filter_map(|id| state.outbox.get(id)).map(|entry| state.with_flight(entry)).collect())
    }

    async fn pending(&self, after: Option<CommandId>, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        self.outbox(&filter, &Page { after, limit }).await
    }

    async fn history(&self, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
        let state = self.state.lock().await;
        Ok(state.history.range((id, 0)..=(id, u32::MAX)).map(|(_, record)| record.clone()).collect())
    }

    async fn audits(&self, filter: &AuditFilter, wanted: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        let state = self.state.lock().await;
        let found = state.audit.iter().rev().filter(|record| filter.takes(record));
        Ok(page(found, wanted, |record, after| record.id < *after).into_iter().cloned().collect())
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        let state = self.state.lock().await;
        let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (saga, _) in state.sagas.values() {
            *counts.entry((saga.definition.name.clone(), saga.state.as_str().to_owned())).or_default() += 1;
        }
        let count = |((definition, state), count)| SagaCount { definition, state, count };
        Ok(counts.into_iter().map(count).collect())
    }

    async fn state_counts(&self, most: u32) -> Result<Vec<StateCount>, StoreError> {
        let state = self.state.lock().await;
        let count = |word: &str| {
            let is_it = |(saga, _): &&(Saga, _)| saga.state.as_str() == word;
            let (sagas, most) = (state.sagas.values().rev(), most as usize + 1);
            let count = match overview::is_live(word) {
                true => sagas.filter(is_it).take(most).count(),
                false => sagas.take(most).filter(is_it).count(),
            };
            StateCount { state: word.to_owned(), count: count as u64 }
        };
        Ok(overview::STATES.into_iter().map(count).collect())
    }

    async fn stuck_groups(&self, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
        let state = self.state.lock().await;
        let mut groups: BTreeMap<(DefinitionRef, u16, Direction, String), (u64, Timestamp)> = BTreeMap::new();
        let stuck = state.sagas.values().rev().filter_map(|(saga, _)| Some((saga, saga.state.stuck()?)));
        for (saga, stuck) in stuck.take(most as usize) {
            let name = (saga.definition.clone(), stuck.step.0, stuck.direction, stuck.problem.kind.clone());
            let group = groups.entry(name).or_insert((0, stuck.since));
            *group = (group.0 + 1, group.1.min(stuck.since));
        }
        let group = |((definition, step_index, direction, error), (count, since))| StuckGroup {
            definition,
            step_index,
            direction,
            error,
            count,
            since,
        };
        let mut groups: Vec<StuckGroup> = groups.into_iter().map(group).collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.count), group.since));
        Ok(groups)
    }

    async fn lifetimes(&self, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
        let state = self.state.lock().await;
        let found = state.sagas.values().rev().map(|(saga, _)| saga).filter(|saga| saga.created_at >= since);
        let lifetime = |saga: &Saga| Lifetime {
            definition: saga.definition.clone(),
            state: saga.state.as_str().to_owned(),
            created_at: saga.created_at,
            ended_at: saga.ended_at,
        };
        Ok(found.take(most as usize).map(lifetime).collect())
    }

    async fn services(&self, most: u32) -> Result<Vec<Service>, StoreError> {
        let state = self.state.lock().await;
        let waiting = state.outbox.values().filter(|entry| entry.verified.is_none()).take(most as usize);
        let waiting = waiting.map(|entry| (entry.participant.clone(), 1, entry.decided_at));
        let settled = state.outbox.values().rev().filter_map(|entry| Some((entry, entry.verified.as_ref()?)));
        let settled =
            settled.take(most as usize).map(|(entry, verified)| (entry.participant.clone(), verified.outcome, 1));
        Ok(overview::services(waiting, settled))
    }

    async fn revisions(&self, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
        let state = self.state.lock().await;
        Ok(ids.iter().filter_map(|id| Some((*id, state.sagas.get(id)?.0.revision))).collect())
    }

    async fn figures(&self, definition: &DefinitionRef, since: Option<Timestamp>) -> Result<Figures, StoreError> {
        let state = self.state.lock().await;
        let mut counter = Counter::default();
        for (saga, _) in state.sagas.values() {
            let is_wanted = saga.definition == *definition && since.is_none_or(|since| saga.created_at >= since);
            if is_wanted && saga.ended_at.is_some() {
                counter.count(saga, &state.entries(saga.id).collect::<Vec<_>>());
            }
        }
        Ok(counter.figures())
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state.lock().await.sagas.values().filter_map(|(saga, _)| saga.due()).min())
    }

    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError> {
        let mut state = self.state.lock().await;
        Ok(match state.definitions.get(&definition.reference) {
            Some(known) if known.hash == definition.hash => Registration::Same(state.with_deprecation(known)),
            Some(known) => Registration::Different(state.with_deprecation(known)),
            None => {
                state.definitions.insert(definition.reference.clone(), definition.clone());
                Registration::New
            }
        })
    }

    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError> {
        let state = self.state.lock().await;
        Ok(state.definitions.get(reference).map(|record| state.with_deprecation(record)))
    }

    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
        let state = self.state.lock().await;
        let is_wanted = |record: &&DefinitionRecord| name.is_none_or(|name| record.reference.name == name);
        Ok(state.definitions.values().filter(is_wanted).map(|record| state.with_deprecation(record)).collect())
    }

    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError> {
        let state = self.state.lock().await;
        let is_open = |known: &&DefinitionRef| state.deprecation(known).is_none();
        let newest =
            |name: &String| state.definitions.keys().filter(|known| known.name == *name).filter(is_open).max().cloned();
        Ok(names.iter().filter_map(newest).collect())
    }

    async fn token_keys(&self, fresh: [u8; 32]) -> Result<Vec<TokenKey>, StoreError> {
        let mut state = self.state.lock().await;
        if state.token_keys.is_empty() {
            state.token_keys.push(TokenKey { id: 1, secret: fresh });
        }
        Ok(state.token_keys.clone())
    }

    async fn health(&self) -> Result<StoreHealth, StoreError> {
        Ok(StoreHealth {
            server: "memory".to_owned(),
            schema_version: None,
            program_version: 0,
            is_durable: false,
            durability: vec![("storage".to_owned(), "memory".to_owned())],
            now: self.clock.now(),
        })
    }

    async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        Ok(Vec::new())
    }

    async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError> {
        Ok(Vec::new())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {}
}
