//! The store of a world: one server, the memory store, which each coordinator reaches over a connection that fails.

mod planted;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::planted::ended;
use super::bug::Bug;
use super::evidence::Evidence;
use super::fault::Strike;
use super::sky::{Life, Place, Sky};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::id::{CommandId, DefinitionRef, SagaId};
use crate::message::TokenKey;
use crate::message::command::idempotency_key;
use crate::participant::{Recorded, Row};
use crate::saga::{EventKind, Figures, Outcome};
use crate::store::memory::MemoryStore;
use crate::store::overview::{Lifetime, Service, StateCount, StuckGroup};
use crate::store::{
    AuditFilter, AuditRecord, Changes, Committed, Decide, DefinitionRecord, HistoryRecord, Loaded, Migration, NewSaga,
    OutboxEntry, OutboxFilter, Page, Registration, SagaCount, SagaFilter, SagaRecord, SagaSummary, Started, Store,
    StoreError, StoreHealth, Wants,
};

/// The server. Clones are the same one.
#[derive(Clone)]
pub(super) struct Server(Arc<Inner>);

struct Inner {
    memory: MemoryStore,
    clock: ManualClock,
    /// Whether every transaction goes by this clock; otherwise each goes by that of the process that runs it, as where the
    /// store is a file.
    has_clock: bool,
    sky: Sky,
    evidence: Evidence,
    bug: Option<Bug>,
    /// Who wrote a saga last.
    owners: Mutex<BTreeMap<SagaId, (Place, u32)>>,
    /// Audit rows that a bug has put off.
    late: Mutex<Vec<AuditRecord>>,
}

impl Server {
    pub(super) fn new(sky: Sky, evidence: Evidence, bug: Option<Bug>, has_clock: bool) -> Self {
        let clock = ManualClock::starting_at(sky.now());
        let mut memory = MemoryStore::new(Clock::Manual(clock.clone()));
        if matches!(
            bug,
            Some(Bug::NoVersionCheck | Bug::CommitLater | Bug::EndedAgain | Bug::DecidedAfterEnd | Bug::TwoEnds)
        ) {
            memory = memory.careless();
        }
        Self(Arc::new(Inner {
            memory,
            clock,
            has_clock,
            sky,
            evidence,
            bug,
            owners: Mutex::default(),
            late: Mutex::default(),
        }))
    }

    /// The store without anything that goes wrong.
    pub(super) fn memory(&self) -> &MemoryStore {
        self.0.clock.show(self.0.sky.now());
        &self.0.memory
    }

    /// The store as it is to a process there, with the time that it goes by. Nothing else may look at the clock before
    /// the store has: so ask it at once, and not in a task that may have to wait.
    fn memory_at(&self, place: Place) -> &MemoryStore {
        self.0.clock.show(self.now_at(place));
        &self.0.memory
    }

    /// The time that a transaction of a process there goes by.
    fn now_at(&self, place: Place) -> Timestamp {
        self.0.sky.now_at(if self.0.has_clock { Place::Store } else { place })
    }

    fn has(&self, bug: Bug) -> bool {
        self.0.bug == Some(bug)
    }
}

/// The server as one process reaches it.
pub(super) struct Connection {
    pub(super) server: Server,
    pub(super) life: Life,
}

fn away() -> StoreError {
    StoreError::Unavailable("the store is cut off".to_owned())
}

impl Connection {
    fn sky(&self) -> &Sky {
        &self.server.0.sky
    }

    fn has(&self, bug: Bug) -> bool {
        self.server.has(bug)
    }

    /// Whether this process crashes here.
    async fn may_crash(&self) {
        if self.sky().strikes(Strike::Crash) {
            self.life.die();
        }
        self.life.go_on().await;
    }

    /// The way there, for what only reads: nothing is lost but time.
    async fn memory(&self) -> Result<&MemoryStore, StoreError> {
        self.life.go_on().await;
        self.sky().travel().await;
        self.life.go_on().await;
        if self.sky().is_cut(self.life.place, Place::Store) || self.sky().strikes(Strike::StoreLost) {
            self.sky().sleep(1, 200).await;
            return Err(away());
        }
        Ok(self.at_hand())
    }

    fn at_hand(&self) -> &MemoryStore {
        self.server.memory_at(self.life.place)
    }

    /// A commit that has reached the server.
    async fn carry_out(&self, mut wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        self.choose_due(&mut wants).await?;
        let seen = Arc::new(Mutex::new(None));
        let parted: Arc<Mutex<Vec<NewSaga>>> = Arc::default();
        let (slot, rest, server) = (seen.clone(), parted.clone(), self.server.clone());
        let decide: Decide = Box::new(move |loaded: Loaded| {
            let (now, ended) = (loaded.now, ended(&loaded));
            let mut changes = decide(loaded);
            server.plant(&mut changes, &ended, now);
            if server.has(Bug::RequestParted) && changes.starts.len() > 1 {
                *rest.lock().unwrap_or_else(PoisonError::into_inner) = changes.starts.split_off(1);
            }
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(changes.clone());
            changes
        });
        let memory = self.at_hand();
        let mut committed = if self.has(Bug::NoVersionCheck) {
            // Read without a lock, and written later.
            let (loaded, later) = (Arc::new(Mutex::new(None)), Wants::default());
            let slot = loaded.clone();
            let read: Decide = Box::new(move |loaded| {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
                Changes::default()
            });
            memory.commit(wants, read).await?;
            self.sky().travel().await;
            let loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(loaded) = loaded else { return Err(away()) };
            let changes = decide(loaded);
            self.at_hand().commit(later, Box::new(move |_| changes)).await?
        } else if self.has(Bug::CommitLater) {
            let read: Decide = Box::new(move |loaded| {
                drop(decide(loaded));
                Changes::default()
            });
            memory.commit(wants, read).await?;
            return Ok(self.commit_later(&seen));
        } else {
            memory.commit(wants, decide).await?
        };
        let written = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(changes) = written {
            self.server.see(&self.life, &changes, &committed).await;
            self.server.misread(&changes, &mut committed);
            if self.has(Bug::AuditLater) {
                self.audit_later();
            }
            self.start_later(&parted, &mut committed);
        }
        Ok(committed)
    }
}

impl Server {
    /// Watches a commit: everything that must hold at this very moment.
    async fn see(&self, life: &Life, changes: &Changes, committed: &Committed) {
        let sky = &self.0.sky;
        let is_empty = changes.starts.is_empty()
            && changes.updates.is_empty()
            && changes.commands.is_empty()
            && changes.settled.is_empty()
            && changes.audits.is_empty();
        if is_empty {
            return;
        }
        let new = changes.starts.iter().zip(&committed.starts).filter(|(_, started)| **started == Started::New);
        let new: Vec<_> = new.map(|(start, _)| start).collect();
        let sagas = new.iter().map(|start| &start.saga).chain(changes.updates.iter().map(|update| &update.saga));
        {
            let mut owners = self.0.owners.lock().unwrap_or_else(PoisonError::into_inner);
            let mut seen = self.0.evidence.seen();
            seen.commits += 1;
            for saga in sagas {
                let state = saga.state.as_str();
                sky.note(format_args!("{} commits {} {state} at {}", life.place, saga.id, saga.revision));
                owners.insert(saga.id, (life.place, life.number));
                seen.sightings.push(saga.clone());
            }
        }
        let settled = new.iter().flat_map(|start| &start.settled).chain(&changes.settled);
        let settled: Vec<CommandId> =
            settled.map(|settled| CommandId { saga: settled.saga, seq: settled.settled.seq }).collect();
        self.vouch(&settled).await;
        for HistoryRecord { saga, revision, at, event } in &changes.history {
            let word = match event {
                EventKind::Operated { operation } => operation.as_str(),
                EventKind::Migrated { .. } => "migrate",
                _ => continue,
            };
            let is_audited = changes.audits.iter().any(|audit| {
                audit.saga == Some(*saga)
                    && audit.at == *at
                    && audit.action == word
                    && !audit.actor.is_empty()
                    && !audit.reason.is_empty()
            });
            if !is_audited {
                let what = format!("{saga}: {word} at revision {revision} has no audit row");
                self.0.evidence.broken(15, what);
            }
        }
    }
}

impl Server {
    /// 12 and 13: what is VERIFIED is in the participant's database by now, and it says the same.
    async fn vouch(&self, settled: &[CommandId]) {
        if settled.is_empty() {
            return;
        }
        for entry in self.0.memory.commands(settled).await.unwrap_or_default() {
            let Some(verified) = &entry.verified else { continue };
            self.0.sky.note(format_args!("  {}/{} is {}", entry.id.saga, entry.id.seq, verified.outcome.as_str()));
            let database = self.0.evidence.seen().databases.get(&entry.participant).cloned();
            let Some(database) = database else { continue };
            let of = entry.id.saga;
            let key = idempotency_key(of, &entry.step, entry.direction.as_str(), entry.generation);
            let row = database.row(&key);
            let what = match (verified.outcome, &row) {
                (Outcome::Success, Some(Row::Done(Recorded::Success(output)))) => {
                    let is_same = verified.output.as_ref().is_none_or(|verified| verified.text() == output);
                    (!is_same).then_some((13, "its output is not what the participant said"))
                }
                (Outcome::Success, _) => Some((12, "the participant has nothing of it")),
                (Outcome::Failure, Some(Row::Done(Recorded::Success(_)))) => {
                    Some((12, "the participant did what counts as refused"))
                }
                // A plea for time that the definition calls a failure; the participant keeps nothing of it.
                (Outcome::Failure, None) if verified.problem.as_ref().is_some_and(|problem| problem.kind == "busy") => {
                    None
                }
                (Outcome::Failure, None) => Some((13, "the participant has not refused it")),
                _ => None,
            };
            if let Some((guarantee, what)) = what {
                self.0.evidence.broken(guarantee, format!("{key} is VERIFIED: {what}"));
            }
        }
    }
}

#[async_trait]
impl Store for Connection {
    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        self.life.go_on().await;
        let sky = self.sky().clone();
        let is_poll = wants.sagas.is_empty() && wants.due > 0;
        let is_idle =
            is_poll && self.at_hand().next_due().await?.is_none_or(|due| due > self.server.now_at(self.life.place));
        if is_idle && !sky.is_cut(self.life.place, Place::Store) {
            // Nothing is due and nobody has sent anything: not worth a delay.
            return self.carry_out(wants, decide).await;
        }
        self.may_crash().await;
        sky.travel().await;
        if sky.strikes(Strike::CommitSlow) {
            sky.sleep(20, 3_000).await;
        }
        self.life.go_on().await;
        if sky.is_cut(self.life.place, Place::Store) || sky.strikes(Strike::StoreLost) {
            sky.sleep(1, 200).await;
            return Err(away());
        }
        if sky.strikes(Strike::CommitConflict) {
            return Err(StoreError::Conflict("another one was chosen to go on".to_owned()));
        }
        if sky.strikes(Strike::CommitUnknownDropped) {
            return Err(StoreError::Unknown("the connection was lost".to_owned()));
        }
        if sky.strikes(Strike::CommitUnknownLater) {
            // The server has the COMMIT and is slow with it; the connection is gone.
            let other = Self { server: self.server.clone(), life: Life::new(self.life.place, self.life.number) };
            tokio::spawn(async move {
                other.sky().sleep(1, 1_500).await;
                drop(other.carry_out(wants, decide).await);
            });
            return Err(StoreError::Unknown("the connection was lost".to_owned()));
        }
        let committed = self.carry_out(wants, decide).await?;
        self.may_crash().await;
        if sky.strikes(Strike::CommitUnknownApplied) {
            return Err(StoreError::Unknown("the connection was lost".to_owned()));
        }
        sky.travel().await;
        self.life.go_on().await;
        if sky.is_cut(self.life.place, Place::Store) {
            return Err(StoreError::Unknown("the connection was lost".to_owned()));
        }
        self.may_crash().await;
        Ok(committed)
    }

    fn writes_at_once(&self) -> Option<usize> {
        // As PostgreSQL, which has a clock; the smaller, the more often.
        self.server.0.has_clock.then_some(1)
    }

    fn decides_ahead(&self) -> Option<usize> {
        // As SQLite. Each is carried out as a whole, in any order.
        (!self.server.0.has_clock).then_some(1)
    }

    async fn saga(&self, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
        self.memory().await?.saga(id).await
    }

    async fn saga_by_key(&self, definition: &str, key: &str) -> Result<Option<SagaId>, StoreError> {
        self.memory().await?.saga_by_key(definition, key).await
    }

    async fn sagas(&self, filter: &SagaFilter, page: &Page<SagaId>) -> Result<Vec<SagaSummary>, StoreError> {
        self.memory().await?.sagas(filter, page).await
    }

    async fn outbox(&self, filter: &OutboxFilter, page: &Page<CommandId>) -> Result<Vec<OutboxEntry>, StoreError> {
        self.memory().await?.outbox(filter, page).await
    }

    async fn commands(&self, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
        self.memory().await?.commands(ids).await
    }

    async fn pending(&self, after: Option<CommandId>, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        self.memory().await?.pending(after, limit).await
    }

    async fn history(&self, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
        self.memory().await?.history(id).await
    }

    async fn audits(&self, filter: &AuditFilter, page: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        self.memory().await?.audits(filter, page).await
    }

    async fn state_counts(&self, most: u32) -> Result<Vec<StateCount>, StoreError> {
        self.memory().await?.state_counts(most).await
    }

    async fn stuck_groups(&self, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
        self.memory().await?.stuck_groups(most).await
    }

    async fn lifetimes(&self, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
        self.memory().await?.lifetimes(since, most).await
    }

    async fn services(&self, most: u32) -> Result<Vec<Service>, StoreError> {
        self.memory().await?.services(most).await
    }

    async fn revisions(&self, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
        self.memory().await?.revisions(ids).await
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        self.memory().await?.counts().await
    }

    async fn figures(&self, definition: &DefinitionRef, since: Option<Timestamp>) -> Result<Figures, StoreError> {
        self.memory().await?.figures(definition, since).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.memory().await?.next_due().await
    }

    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError> {
        self.memory().await?.register(definition).await
    }

    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError> {
        self.memory().await?.definition(reference).await
    }

    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
        self.memory().await?.definitions(name).await
    }

    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError> {
        self.memory().await?.newest(names).await
    }

    async fn token_keys(&self, fresh: [u8; 32]) -> Result<Vec<TokenKey>, StoreError> {
        self.memory().await?.token_keys(fresh).await
    }

    async fn health(&self) -> Result<StoreHealth, StoreError> {
        self.memory().await?.health().await
    }

    async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        Ok(Vec::new())
    }

    async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError> {
        Ok(Vec::new())
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.memory().await?.check_schema().await
    }

    async fn close(&self) {}
}
