//! What bugs do to transactions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Connection, Server};
use crate::clock::Timestamp;
use crate::id::{CommandId, DefinitionRef, SagaId, Seq};
use crate::saga::{Direction, Outcome, Phase, Saga, SagaState, Settled};
use crate::store::{
    AuditRecord, Changes, Committed, Loaded, NewCommand, NewSaga, Page, SagaFilter, SagaMigration, SagaUpdate,
    SettledCommand, Started, Store, StoreError, Wants,
};
use crate::testkit::world::bug::Bug;

impl Connection {
    /// With a bug: says that it is done, and does it some milliseconds later, unless the process dies until then.
    pub(super) fn commit_later(&self, seen: &Arc<Mutex<Option<Changes>>>) -> Committed {
        let Some(changes) = seen.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Committed::default();
        };
        let committed = Committed { starts: vec![Started::New; changes.starts.len()] };
        self.write_later(changes);
        committed
    }

    /// With a bug: what operators did is written down some milliseconds later.
    pub(super) fn audit_later(&self) {
        let late = std::mem::take(&mut *self.server.late());
        if !late.is_empty() {
            self.write_later(Changes { audits: late, ..Changes::default() });
        }
    }

    /// With a bug: what was parted from a request is started some milliseconds later.
    pub(super) fn start_later(&self, parted: &Mutex<Vec<NewSaga>>, committed: &mut Committed) {
        let starts = std::mem::take(&mut *parted.lock().unwrap_or_else(PoisonError::into_inner));
        if !starts.is_empty() {
            committed.starts.extend(vec![Started::New; starts.len()]);
            self.write_later(Changes { starts, ..Changes::default() });
        }
    }

    /// Some milliseconds later, unless the process dies until then.
    fn write_later(&self, changes: Changes) {
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
    }

    /// With a bug: some sagas that are due are not seen to.
    pub(super) async fn choose_due(&self, wants: &mut Wants) -> Result<(), StoreError> {
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
pub(super) fn ended(loaded: &Loaded) -> Vec<Saga> {
    loaded.sagas.iter().filter(|saga| saga.state.is_terminal()).cloned().collect()
}

impl Server {
    fn late(&self) -> std::sync::MutexGuard<'_, Vec<AuditRecord>> {
        self.0.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is written, where a bug says so.
    pub(super) fn plant(&self, changes: &mut Changes, ended: &[Saga], now: Timestamp) {
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
    pub(super) fn misread(&self, changes: &Changes, committed: &mut Committed) {
        for (start, started) in changes.starts.iter().zip(&mut committed.starts) {
            let Started::Taken { input_hash, .. } = started else { continue };
            match self.0.bug {
                Some(Bug::InputIgnored) => *input_hash = start.input_hash,
                Some(Bug::RepeatRefused) => *input_hash = [0; 32],
                _ => {}
            }
        }
    }
}
