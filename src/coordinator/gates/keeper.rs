//! Lets out what was held back, once there is room for it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Gates, LaneName};
use crate::broker::topology::commands_queue;
use crate::broker::{Broker, BrokerError};
use crate::coordinator::CoordinatorError;
use crate::coordinator::work::{Heard, Item, TellItem, Waiting, Work};
use crate::id::CommandId;
use crate::saga::EventKind;
use crate::store::{OutboxFilter, Page, Store, StoreError};

/// How often queues are looked at that were sent to.
const LOOK: Duration = Duration::from_millis(500);
/// The least time between two looks.
const BREATH: Duration = Duration::from_millis(10);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many are let out with one commit, at most, for each participant.
const BATCH: u32 = 128;
/// How many entries of the store are read at a time, and how often in one round.
const PAGE: u32 = 500;
const PAGES: usize = 8;

/// A command whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::coordinator) struct Granted {
    pub(super) participant: String,
    pub(super) lane: LaneName,
    pub(super) id: CommandId,
}

/// Looks at the queues, and gives those their turn that wait.
pub(in crate::coordinator) struct Keeper {
    pub(in crate::coordinator) gates: Gates,
    pub(in crate::coordinator) broker: Arc<dyn Broker>,
    pub(in crate::coordinator) store: Arc<dyn Store>,
    /// Weak, so that the committer ends when everybody else is done.
    pub(in crate::coordinator) work: mpsc::WeakSender<Work>,
}

impl Keeper {
    pub(in crate::coordinator) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.round() => {}
            }
        }
    }

    async fn round(&self) {
        tokio::select! {
            biased;
            () = self.gates.0.stirred.notified() => tokio::time::sleep(BREATH).await,
            () = tokio::time::sleep(self.gates.pause()) => {}
        }
        self.gates.turn();
        join_all(self.gates.to_look_at().into_iter().map(|name| self.look(name))).await;
        if self.gates.intake().is_backlogged() {
            return;
        }
        for name in self.gates.with_more() {
            if let Err(error) = self.read(&name).await {
                tracing::warn!(participant = name, %error, "what is held back for it cannot be read yet");
            }
        }
        loop {
            let granted = self.gates.grant(BATCH);
            // First of all: should this coordinator end between the release of one that is due soon and this, nobody would
            // hear of the others for long.
            let scouts = self.gates.scouts();
            if !scouts.is_empty() {
                self.tell(&scouts).await;
            }
            if granted.is_empty() || !self.release(granted).await {
                break;
            }
        }
    }

    async fn look(&self, participant: String) {
        let sent = self.gates.with(&participant, |gate| gate.sent()).unwrap_or_default();
        let queue = commands_queue(&participant);
        let messages = match tokio::time::timeout(PATIENCE, self.broker.queue(&queue)).await {
            Ok(Ok(status)) => status.map_or(0, |status| status.messages),
            // One that may not be looked at is not kept waiting for that.
            Ok(Err(BrokerError::Refused(_) | BrokerError::Mismatch { .. } | BrokerError::Missing { .. })) => 0,
            Ok(Err(BrokerError::Unreachable { .. } | BrokerError::Address { .. })) | Err(_) => return,
        };
        self.gates.with(&participant, |gate| gate.seen(messages, sent));
    }

    /// Learns from the store what is held back for a participant, a part at a time.
    async fn read(&self, participant: &str) -> Result<(), StoreError> {
        let filter = OutboxFilter { pending: Some(true), participant: Some(participant.to_owned()), saga: None };
        for _ in 0..PAGES {
            let Some(after) = self.gates.next_page(participant) else { return Ok(()) };
            let entries = self.store.outbox(&filter, &Page { after, limit: PAGE }).await?;
            self.gates.learn(participant, &entries, entries.len() < PAGE as usize);
        }
        // There may be more.
        self.gates.0.stirred.notify_one();
        Ok(())
    }

    /// Gives them their turn. Whether that worked for all.
    async fn release(&self, granted: Vec<Granted>) -> bool {
        let ids: Vec<CommandId> = granted.iter().map(|granted| granted.id).collect();
        let outcomes = self.tell(&ids).await;
        let mut is_well = true;
        for (granted, outcome) in granted.iter().zip(outcomes) {
            let comes_again = matches!(&outcome, Err(error) if error.is_transient());
            is_well &= !comes_again;
            self.gates.turn_over(granted, comes_again);
        }
        is_well
    }

    async fn tell(&self, ids: &[CommandId]) -> Vec<Result<Heard, CoordinatorError>> {
        let mut receivers = Vec::with_capacity(ids.len());
        for id in ids {
            let (sender, receiver) = oneshot::channel();
            let item = Item::Tell(TellItem { id: id.saga, event: EventKind::Released { seq: id.seq } });
            if let Some(work) = self.work.upgrade() {
                // What cannot be taken in any more drops its sender, which is heard below.
                drop(work.send(Work { item, waiting: Waiting::Teller(sender) }).await);
            }
            receivers.push(receiver);
        }
        let heard = join_all(receivers).await.into_iter();
        heard.map(|heard| heard.unwrap_or(Err(CoordinatorError::Stopping))).collect()
    }
}

impl Gates {
    /// Forgets publishes that nothing is heard of.
    pub(super) fn turn(&self) {
        if let Ok(mut gates) = self.0.gates.lock() {
            gates.values_mut().for_each(super::Gate::turn);
        }
    }

    /// How long to wait for answers until queues are looked at: no answers are heard here where all go to another coordinator.
    fn pause(&self) -> Duration {
        let is_in_the_dark = self.is_deaf() && !self.names(|_, gate| !gate.lanes.is_empty()).is_empty();
        if is_in_the_dark { LOOK / 5 } else { LOOK }
    }

    /// Participants whose queues are worth a look: they hold commands back, or may soon have to, or were never looked at.
    fn to_look_at(&self) -> Vec<String> {
        self.names(|window, gate| gate.is_holding() || gate.is_unseen() || (window > 0 && gate.waiting() >= window / 4))
    }

    fn with_more(&self) -> Vec<String> {
        let is_low = |gate: &super::Gate| gate.lanes.len() < super::lanes::KNOWN / 2;
        let is_paused = |name: &String| self.pauses().is_paused_whole(name);
        let mut names = self.names(|_, gate| gate.has_more && is_low(gate));
        names.retain(|name| !is_paused(name));
        names
    }

    fn names(&self, is_meant: impl Fn(u32, &super::Gate) -> bool) -> Vec<String> {
        let Ok(gates) = self.0.gates.lock() else { return Vec::new() };
        let meant = gates.iter().filter(|(name, gate)| is_meant(self.0.limits.window(name), gate));
        meant.map(|(name, _)| name.clone()).collect()
    }

    /// Whose turn it is, at most `most` for each participant.
    pub(super) fn grant(&self, most: u32) -> Vec<Granted> {
        let Ok(mut gates) = self.0.gates.lock() else { return Vec::new() };
        let limits = &self.0.limits;
        let mut all = Vec::new();
        let is_paused = |name: &String| self.pauses().is_paused_whole(name);
        for (participant, gate) in gates.iter_mut().filter(|(name, gate)| !gate.lanes.is_empty() && !is_paused(name)) {
            let granted = gate.grant(limits.window(participant), most, |definition| limits.weight(definition));
            all.extend(granted.into_iter().map(|(lane, id)| Granted { participant: participant.clone(), lane, id }));
        }
        all
    }

    pub(super) fn turn_over(&self, granted: &Granted, comes_again: bool) {
        self.with(&granted.participant, |gate| gate.turn_over(&granted.lane, granted.id, comes_again));
    }

    /// Of each participant that holds commands back, one that is to be due again soon, where none is.
    pub(super) fn scouts(&self) -> Vec<CommandId> {
        let Ok(mut gates) = self.0.gates.lock() else { return Vec::new() };
        let wanting =
            gates.iter_mut().filter(|(name, gate)| gate.needs_scout() && !self.pauses().is_paused_whole(name));
        wanting.filter_map(|(_, gate)| gate.lanes.any()).collect()
    }

    /// Where reading goes on; `None` when enough is known.
    fn next_page(&self, participant: &str) -> Option<Option<CommandId>> {
        self.with(participant, |gate| {
            if !gate.has_more || gate.lanes.len() + PAGE as usize > super::lanes::KNOWN {
                return None;
            }
            if gate.read.is_none() {
                gate.has_spilled = false;
            }
            Some(gate.read)
        })?
    }

    fn learn(&self, participant: &str, entries: &[crate::store::OutboxEntry], is_last: bool) {
        self.with(participant, |gate| {
            gate.read = entries.last().map(|entry| entry.id);
            let is_held = |entry: &crate::store::OutboxEntry| entry.in_flight.is_some_and(|flight| flight.is_held);
            let is_free = |entry: &crate::store::OutboxEntry| !self.pauses().is_paused(participant, &entry.action);
            for entry in entries.iter().filter(|entry| is_held(entry) && is_free(entry)) {
                gate.remember(&entry.definition.name, entry.direction, entry.id);
            }
            if is_last {
                gate.read = None;
                gate.has_more = gate.has_spilled;
            }
        });
    }

    /// These are held back, as the store says.
    pub(in crate::coordinator) fn remember(&self, entry: &crate::store::OutboxEntry) {
        self.with(&entry.participant, |gate| gate.remember(&entry.definition.name, entry.direction, entry.id));
    }
}
