//! The store of a world: one server, the memory store, which each coordinator reaches over a connection that fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::bug::Bug;
use super::evidence::Evidence;
use super::fault::Strike;
use super::sky::{Life, Place, Sky};
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::id::{CommandId, DefinitionRef, SagaId, Seq};
use crate::message::TokenKey;
use crate::message::command::idempotency_key;
use crate::participant::{Recorded, Row};
use crate::saga::{Direction, EventKind, Figures, Outcome, Phase, Saga, SagaState, Settled};
use crate::store::memory::MemoryStore;
use crate::store::overview::{Lifetime, Service, StateCount, StuckGroup};
use crate::store::{
    AuditFilter, AuditRecord, Changes, Committed, Decide, DefinitionRecord, HistoryRecord, Loaded, Migration,
    NewCommand, OutboxEntry, OutboxFilter, Page, Registration, SagaCount, SagaFilter, SagaMigration, SagaRecord,
    SagaSummary, SagaUpdate, SettledCommand, Started, Store, StoreError, StoreHealth, Wants,
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
        let (slot, server) = (seen.clone(), self.server.clone());
        let decide: Decide = Box::new(move |loaded: Loaded| {
            let (now, ended) = (loaded.now, ended(&loaded));
            let mut changes = decide(loaded);
            server.plant(&mut changes, &ended, now);
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
        }
        Ok(committed)
    }

    /// With a bug: says that it is done, and does it some milliseconds later, unless the process dies until then.
    fn commit_later(&self, seen: &Arc<Mutex<Option<Changes>>>) -> Committed {
        let Some(changes) = seen.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Committed::default();
        };
        let committed = Committed { starts: vec![Started::New; changes.starts.len()] };
        let (server, life) = (self.server.clone(), self.life.clone());
        tokio::spawn(async move {
            server.0.sky.sleep(1, 30).await;
            if !life.is_over() {
                let written = changes.clone();
                if let Ok(committed) = server.memory().commit(Wants::default(), Box::new(move |_| changes)).await {
                    server.see(&life, &written, &committed).await;
                }
            }
        });
        committed
    }

    fn audit_later(&self) {
        let late = std::mem::take(&mut *self.server.late());
        if late.is_empty() {
            return;
        }
        let (server, life) = (self.server.clone(), self.life.clone());
        tokio::spawn(async move {
            server.0.sky.sleep(1, 30).await;
            if !life.is_over() {
                let changes = Changes { audits: late, ..Changes::default() };
                let _ = server.memory().commit(Wants::default(), Box::new(move |_| changes)).await;
            }
        });
    }

    /// With a bug: some sagas that are due are not seen to.
    async fn choose_due(&self, wants: &mut Wants) -> Result<(), StoreError> {
        let forgets = [Bug::DueByOwner, Bug::RetriesForgotten, Bug::OutboxForgotten, Bug::DayLate];
        if wants.due == 0 || !forgets.iter().any(|bug| self.has(*bug)) {
            return Ok(());
        }
        let limit = std::mem::take(&mut wants.due);
        let now = self.server.now_at(self.life.place);
        let now = if self.has(Bug::DayLate) { now - Duration::from_secs(86_400) } else { now };
        let page = Page { after: None, limit };
        let all = self.server.memory().sagas(&SagaFilter::default(), &page).await?;
        let me = (self.life.place, self.life.number);
        let is_mine = |id: SagaId| {
            let owners = self.server.0.owners.lock().unwrap_or_else(PoisonError::into_inner);
            owners.get(&id).is_none_or(|owner| *owner == me)
        };
        let is_forgotten = |saga: &Saga| {
            let mut phases = saga.steps.iter().filter_map(|step| step.in_flight()).map(|(_, command)| &command.phase);
            phases.any(|phase| match phase {
                Phase::BackingOff(_) => self.has(Bug::RetriesForgotten),
                Phase::Sending(_) | Phase::Held(_) => self.has(Bug::OutboxForgotten),
                _ => false,
            })
        };
        let due = all.into_iter().map(|summary| summary.saga).filter(|saga| {
            saga.due().is_some_and(|due| due <= now)
                && !is_forgotten(saga)
                && (!self.has(Bug::DueByOwner) || is_mine(saga.id))
        });
        wants.sagas.extend(due.map(|saga| saga.id));
        wants.sagas.sort_unstable();
        wants.sagas.dedup();
        Ok(())
    }
}

/// Sagas that had ended before.
fn ended(loaded: &Loaded) -> Vec<Saga> {
    loaded.sagas.iter().filter(|saga| saga.state.is_terminal()).cloned().collect()
}

impl Server {
    fn late(&self) -> std::sync::MutexGuard<'_, Vec<AuditRecord>> {
        self.0.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is written, where a bug says so.
    fn plant(&self, changes: &mut Changes, ended: &[Saga], now: Timestamp) {
        match self.0.bug {
            Some(Bug::NoKeyCheck) => {
                for start in &mut changes.starts {
                    if self.0.sky.dice(|dice| dice.happens(500)) {
                        start.saga.key = None;
                    }
                }
            }
            Some(Bug::NoAudit) => changes.audits.clear(),
            Some(Bug::AuditLater) => self.late().append(&mut changes.audits),
            Some(Bug::HistoryLost) => changes.history.retain(|_| !self.0.sky.dice(|dice| dice.happens(100))),
            Some(Bug::EndedAgain) => {
                for saga in ended {
                    let mut again = saga.clone();
                    let from_revision = again.revision;
                    again.revision += 1;
                    again.updated_at = now;
                    changes.updates.push(SagaUpdate { saga: again, from_revision });
                }
            }
            Some(Bug::EndsEarly) => {
                let ends = |id: SagaId| {
                    changes.updates.iter().any(|update| update.saga.id == id && update.saga.state.is_terminal())
                };
                let kept: Vec<bool> = changes.settled.iter().map(|settled| !ends(settled.saga)).collect();
                let mut kept = kept.into_iter();
                changes.settled.retain(|_| kept.next() == Some(true));
            }
            Some(Bug::DecidedAfterEnd) => ended.iter().for_each(|saga| self.decide_once_more(changes, saga, now)),
            Some(Bug::TwoEnds) => {
                let other_end = |update: &SagaUpdate| {
                    let saga = Saga {
                        state: SagaState::Compensated,
                        revision: update.saga.revision + 1,
                        ..update.saga.clone()
                    };
                    SagaUpdate { saga, from_revision: update.saga.revision }
                };
                let completed = changes.updates.iter().filter(|update| update.saga.state == SagaState::Completed);
                let other_ends: Vec<SagaUpdate> = completed.map(other_end).collect();
                changes.updates.extend(other_ends);
            }
            Some(Bug::MovedSilently) => self.move_silently(changes),
            _ => {}
        }
    }

    fn decide_once_more(&self, changes: &mut Changes, saga: &Saga, now: Timestamp) {
        let of = |seq| CommandId { saga: saga.id, seq: Seq(seq) };
        let seen = self.0.evidence.seen();
        let Some((_, sent)) = seen.published.range(of(0)..of(u32::MAX)).next() else { return };
        let (id, revision) = (CommandId { saga: saga.id, seq: saga.next_seq }, saga.revision + 1);
        changes.commands.push(NewCommand {
            id,
            step: sent.step.clone(),
            step_index: 0,
            direction: Direction::Action,
            generation: 1,
            compensates: None,
            participant: sent.participant.clone(),
            action: sent.action.clone(),
            body: sent.body.clone(),
            revision,
            at: now,
        });
        let settled = Settled::new(id.seq, 1, Outcome::Skipped);
        changes.settled.push(SettledCommand { saga: saga.id, settled, revision, at: now });
    }

    fn move_silently(&self, changes: &mut Changes) {
        for SagaUpdate { saga, .. } in &changes.updates {
            let version = if saga.definition.version == 1 { 2 } else { 1 };
            let other = DefinitionRef { version, ..saga.definition.clone() };
            let is_there = self.0.evidence.seen().registered.contains(&other);
            if is_there && !saga.state.is_terminal() && self.0.sky.dice(|dice| dice.happens(300)) {
                let (saga, reads_outputs) = (saga.id, saga.reads_outputs);
                changes.migrations.push(SagaMigration { saga, version, reads_outputs, steps: Vec::new() });
            }
        }
    }

    /// With a bug: what became of a start with a key that is taken.
    fn misread(&self, changes: &Changes, committed: &mut Committed) {
        for (start, started) in changes.starts.iter().zip(&mut committed.starts) {
            let Started::Taken { input_hash, .. } = started else { continue };
            match self.0.bug {
                Some(Bug::InputIgnored) => *input_hash = start.input_hash,
                Some(Bug::RepeatRefused) => *input_hash = [0; 32],
                _ => {}
            }
        }
    }

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

    fn decides_ahead(&self) -> Option<usize> {
        Some(1) // Each is carried out as a whole, in any order.
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
