//! State in memory: for tests and simulations. Defends the same rules as the databases do.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::clock::{Clock, Timestamp};
use crate::id::{CommandId, DefinitionRef, SagaId, StepIndex};
use crate::message::TokenKey;
use crate::payload::Payload;
use crate::saga::{Direction, Outcome, Saga};
use crate::store::{
    AuditRecord, Changes, Committed, Decide, DefinitionRecord, HistoryRecord, Loaded, Migration, NewCommand,
    OutboxEntry, OutboxFilter, Page, Registration, SagaCount, SagaFilter, SagaRecord, SagaSummary, Started, Store,
    StoreError, StoreHealth, Verified, Wants, in_flight, put_outputs,
};

/// A store that forgets everything when it is dropped.
pub struct MemoryStore {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    sagas: BTreeMap<SagaId, (Saga, [u8; 32])>,
    keys: HashMap<(String, String), SagaId>,
    outbox: BTreeMap<CommandId, OutboxEntry>,
    history: BTreeMap<(SagaId, u32), HistoryRecord>,
    audit: Vec<AuditRecord>,
    definitions: BTreeMap<DefinitionRef, DefinitionRecord>,
    token_keys: Vec<TokenKey>,
}

impl MemoryStore {
    /// An empty store that goes by `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
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
        let of = |seq| CommandId { saga: id, seq: crate::id::Seq(seq) };
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

    fn insert(&mut self, command: NewCommand) -> Result<(), StoreError> {
        let NewCommand {
            id,
            step,
            step_index,
            direction,
            generation,
            compensates,
            participant,
            action,
            body,
            revision,
            at,
        } = command;
        let definition = match self.sagas.get(&id.saga) {
            Some((saga, _)) => saga.definition.clone(),
            None => return Err(StoreError::Refused(format!("a command of saga {}, which is not there", id.saga))),
        };
        let entry = OutboxEntry {
            id,
            definition,
            step,
            step_index,
            direction,
            generation,
            compensates,
            participant,
            action,
            body,
            verified: None,
            in_flight: None,
            decided_at: at,
            decided_revision: revision,
        };
        match self.outbox.insert(id, entry) {
            None => Ok(()),
            Some(_) => Err(StoreError::Refused(format!("command {} of saga {} is there already", id.seq, id.saga))),
        }
    }

    fn write(&mut self, changes: Changes) -> Result<Committed, StoreError> {
        let mut committed = Committed::default();
        for start in changes.starts {
            let saga = start.saga;
            if let Some(key) = &saga.key {
                let name = (saga.definition.name.clone(), key.clone());
                if let Some((taken, hash)) = self.keys.get(&name).and_then(|id| self.sagas.get(id)) {
                    committed.starts.push(Started::Taken { by: taken.id, input_hash: *hash });
                    continue;
                }
                self.keys.insert(name, saga.id);
            }
            if self.sagas.contains_key(&saga.id) {
                return Err(StoreError::Refused(format!("saga {} is there already", saga.id)));
            }
            self.sagas.insert(saga.id, (stored(saga), start.input_hash));
            for command in start.commands {
                self.insert(command)?;
            }
            for record in start.history {
                self.history.insert((record.saga, record.revision), record);
            }
            committed.starts.push(Started::New);
        }
        for command in changes.commands {
            self.insert(command)?;
        }
        for update in changes.updates {
            let Some((saga, _)) = self.sagas.get_mut(&update.saga.id) else {
                return Err(StoreError::Conflict(format!("saga {} is not there", update.saga.id)));
            };
            if saga.revision != update.from_revision || saga.state.is_terminal() {
                return Err(StoreError::Conflict(format!("saga {} has moved", update.saga.id)));
            }
            *saga = stored(update.saga);
        }
        for settled in changes.settled {
            let id = CommandId { saga: settled.saga, seq: settled.settled.seq };
            let Some(entry) = self.outbox.get_mut(&id) else {
                return Err(StoreError::Conflict(format!("command {} of saga {} is not there", id.seq, id.saga)));
            };
            entry.verified = Some(Verified {
                outcome: settled.settled.outcome,
                attempt: settled.settled.attempt,
                output: settled.settled.output,
                problem: settled.settled.problem,
                at: settled.at,
                revision: settled.revision,
            });
        }
        for record in changes.history {
            self.history.insert((record.saga, record.revision), record);
        }
        for mut record in changes.audits {
            record.id = self.audit.len() as u64 + 1;
            self.audit.push(record);
        }
        Ok(committed)
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
impl Store for MemoryStore {
    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let mut state = self.state.lock().await;
        let now = self.clock.now();
        let mut ids = wants.sagas;
        ids.extend(state.due(now, &ids, wants.due));
        ids.sort_unstable();
        ids.dedup();
        let sagas = ids.into_iter().filter_map(|id| state.load(id)).collect();
        let changes = decide(Loaded { now, sagas });
        let mut next = state.clone();
        let committed = next.write(changes)?;
        *state = next;
        Ok(committed)
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
        });
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

    async fn audit(&self, id: Option<SagaId>, wanted: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        let state = self.state.lock().await;
        let found = state.audit.iter().rev().filter(|record| id.is_none() || record.saga == id);
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

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.state.lock().await.sagas.values().filter_map(|(saga, _)| saga.due()).min())
    }

    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError> {
        let mut state = self.state.lock().await;
        Ok(match state.definitions.get(&definition.reference) {
            Some(known) if known.hash == definition.hash => Registration::Same(known.clone()),
            Some(known) => Registration::Different(known.clone()),
            None => {
                state.definitions.insert(definition.reference.clone(), definition.clone());
                Registration::New
            }
        })
    }

    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError> {
        Ok(self.state.lock().await.definitions.get(reference).cloned())
    }

    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
        let state = self.state.lock().await;
        let is_wanted = |record: &&DefinitionRecord| name.is_none_or(|name| record.reference.name == name);
        Ok(state.definitions.values().filter(is_wanted).cloned().collect())
    }

    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError> {
        let state = self.state.lock().await;
        let newest = |name: &String| state.definitions.keys().filter(|known| known.name == *name).max().cloned();
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
