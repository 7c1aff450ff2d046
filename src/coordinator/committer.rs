//! The commit rule: whatever has arrived becomes one transaction; what it decided is published straight from memory;
//! only then are replies acknowledged and callers answered.

use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Delivery, DeliveryTag, Settlement};
use crate::clock::Timestamp;
use crate::coordinator::acknowledgements::Acknowledgements;
use crate::coordinator::attempt::{Begun, OnItsOwn, Try, has_ended};
use crate::coordinator::backlog::{self, Backlog};
use crate::coordinator::latencies::Latencies;
use crate::coordinator::listeners::Listeners;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::outbound::{self, Outbound};
use crate::coordinator::plan::{Plan, Sources, Verdict};
use crate::coordinator::publisher::Publisher;
use crate::coordinator::replies::DeadLetters;
use crate::coordinator::telling::tell;
use crate::coordinator::timer::Timer;
use crate::coordinator::traces::{self, Given};
use crate::coordinator::work::{Item, ReplyItem, TellItem, Waiting, Work, parted};
use crate::coordinator::{CoordinatorError, Ended, StartOutcome, relatives};
use crate::id::{CommandId, SagaId};
use crate::message::Envelope;
use crate::saga::{Note, Outcome, Parent, ReplyOutcome};
use crate::store::{Committed, Locking, OutboxEntry, Started, Store, StoreError};

/// What is taken out of the channel at once.
const RECEIVED: usize = 1_024;
/// What waits here at most, besides what is still in the channel.
const MAX_BACKLOG: usize = 4_096;
/// How many due sagas one transaction claims at most.
const MAX_DUE: u32 = 256;
/// The longest wait between two tries while the store is away.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Confirms written down with one commit at most.
const MAX_RIPE: usize = 1_024;
/// So many transactions lock their sagas after a conflict: another coordinator hears of the same ones, and to be refused
/// once more would cost more than to wait.
const CONTENDED: u32 = 64;
/// After so many conflicts in a row of sagas that were not read, as many transactions as this read theirs: other coordinators
/// write the same ones.
const MAX_WARY: u32 = 4_096;

pub(super) struct Committer {
    pub(super) store: Arc<dyn Store>,
    pub(super) sources: Arc<Sources>,
    pub(super) publisher: Publisher,
    pub(super) dead: DeadLetters,
    pub(super) metrics: Metrics,
    pub(super) latencies: Latencies,
    pub(super) acknowledgements: Acknowledgements,
    /// What has arrived, and waits.
    pub(super) received: Vec<Work>,
    pub(super) backlog: Backlog,
    /// The batch after the one that is being written.
    pub(super) ahead: Option<OnItsOwn>,
    /// A large request, committed beside the others.
    pub(super) beside: Option<OnItsOwn>,
    pub(super) work: mpsc::Receiver<Work>,
    /// For what a commit makes necessary by itself. Weak, so that the loop ends when everybody else is done.
    pub(super) again: mpsc::WeakSender<Work>,
    pub(super) stop: CancellationToken,
    /// Who listens to lifecycle events, unless there are to be none.
    pub(super) listeners: Option<Listeners>,
    pub(super) ended: Option<mpsc::UnboundedSender<Ended>>,
    pub(super) timer: Timer,
    /// Told when the store's clock was set back.
    pub(super) set_back: Arc<Notify>,
    /// How many of the next transactions lock their sagas.
    pub(super) contended: u32,
    /// How many of the next transactions read their sagas, also those that were written here last.
    pub(super) wary: u32,
    /// How many would after another conflict.
    pub(super) wariness: u32,
}

impl Committer {
    /// Commits until the last sender of work is gone.
    pub(super) async fn run(mut self) {
        loop {
            let is_over = poll!(pin!(has_ended(&mut self.beside))).is_ready();
            if let Some(ahead) = self.ahead.take() {
                self.see_through(ahead.turn()).await;
                continue;
            }
            if let Some(beside) = self.beside.take_if(|_| is_over) {
                self.end_beside(beside).await;
                continue;
            }
            let is_ready = self.backlog.len() > 0 && (self.beside.is_none() || self.backlog.is_ready());
            let is_due = if !is_ready {
                let wait = self.acknowledgements.wait();
                tokio::select! {
                    biased;
                    count = self.work.recv_many(&mut self.received, RECEIVED) => {
                        if count == 0 {
                            return self.end().await;
                        }
                        self.timer.wait().is_zero()
                    }
                    () = has_ended(&mut self.beside) => false,
                    () = tokio::time::sleep(self.timer.wait()), if !self.stop.is_cancelled() => true,
                    () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {
                        self.acknowledgements.send().await;
                        false
                    }
                }
            } else {
                self.timer.wait().is_zero()
            };
            // While the broker does not keep up, more commands from timers would only be postponed again.
            let due = if is_due && !self.publisher.is_backlogged() { MAX_DUE } else { 0 };
            if is_due {
                self.timer.looked();
            }
            let batch = self.next();
            if due > 0 || !batch.is_empty() {
                self.commit(batch, due).await;
            }
        }
    }

    /// Sees the rest through.
    async fn end(mut self) {
        loop {
            if let Some(ahead) = self.ahead.take() {
                self.see_through(ahead.turn()).await;
            }
            let batch = self.backlog.take_large().unwrap_or_else(|| self.backlog.take());
            if !batch.is_empty() {
                self.commit(batch, 0).await;
            } else if self.ahead.is_none() {
                break;
            }
        }
        if let Some(beside) = self.beside.take() {
            self.see_through(beside.turn()).await;
        }
        self.acknowledgements.end().await;
    }

    /// What is to be committed next, of all that has arrived.
    fn next(&mut self) -> Vec<Work> {
        self.received.drain(..).for_each(|work| self.backlog.push(work));
        while self.backlog.len() < MAX_BACKLOG
            && let Ok(work) = self.work.try_recv()
        {
            self.backlog.push(work);
        }
        self.sources.gates.intake().backlogged(self.publisher.is_backlogged());
        self.begin_beside();
        self.backlog.take()
    }

    async fn commit(&mut self, batch: Vec<Work>, due: u32) {
        let begun = self.begin(batch, due);
        self.see_through(begun).await;
    }

    fn begin(&mut self, batch: Vec<Work>, due: u32) -> Begun {
        let (items, waiting) = parted(batch);
        self.try_again(items, waiting, due)
    }

    /// The next try of a batch.
    fn try_again(&mut self, items: Vec<Item>, waiting: Vec<Waiting>, due: u32) -> Begun {
        let (items, waiting) = self.acknowledgements.those_held(items, waiting);
        let locking = self.locking();
        let ripe = self.sources.confirms.ripe(MAX_RIPE);
        Begun::new(
            self.store.clone(),
            self.sources.clone(),
            Try { items: Arc::new(items), ripe, due, locking },
            waiting,
        )
    }

    /// Waits for what comes of a try. Meanwhile the next batch is begun, where the store decides it while it writes this
    /// one: as soon as there is enough for it, since many small commits cost more than a few large ones.
    async fn outcome(&mut self, begun: &mut Begun) -> Result<(Committed, Plan), StoreError> {
        let may_begin = begun.of.due == 0 && begun.of.locking == Locking::Trusts;
        let enough = self.store.decides_ahead().filter(|_| may_begin).unwrap_or(usize::MAX);
        // The store is asked for this one first.
        if let Poll::Ready(outcome) = poll!(&mut begun.outcome) {
            return outcome;
        }
        loop {
            let is_open = enough < usize::MAX && self.ahead.is_none();
            let is_enough = self.backlog.ready() >= enough;
            if is_open && is_enough && !self.timer.wait().is_zero() {
                let batch = self.next();
                self.ahead = Some(self.begin(batch, 0).on_its_own());
                continue;
            }
            tokio::select! {
                biased;
                outcome = &mut begun.outcome => return outcome,
                () = self.acknowledgements.is_late(begun.began) => self.acknowledgements.give_back(),
                count = self.work.recv_many(&mut self.received, RECEIVED), if is_open && !is_enough && self.backlog.len() < MAX_BACKLOG => {
                    if count == 0 {
                        return (&mut begun.outcome).await;
                    }
                    self.received.drain(..).for_each(|work| self.backlog.push(work));
                }
            }
        }
    }

    /// Commits a batch, however often it takes. A batch that the store refuses is cut up, so that one bad item does not
    /// hold up the others.
    pub(super) async fn see_through(&mut self, mut begun: Begun) {
        let mut pause = Duration::from_millis(20);
        loop {
            let outcome = self.outcome(&mut begun).await;
            let Begun { of: Try { items, ripe, due, locking }, mut waiting, began, .. } = begun;
            // The store has dropped its half by now; should it not have, a copy does as well.
            let mut items = Arc::unwrap_or_clone(items);
            let error = match outcome {
                Ok((committed, plan)) => {
                    self.metrics.commit("committed", items.len(), began.elapsed());
                    if locking == Locking::Trusts {
                        self.wariness /= 2;
                    }
                    return self.finish(items, waiting, committed, plan).await;
                }
                Err(error) => error,
            };
            self.acknowledgements.failed(&error).await;
            let was_bare = ripe.is_empty();
            if error.is_transient() {
                self.sources.confirms.keep(ripe);
            } else {
                // One of them may be of a saga that cannot be read, which would hold up every batch from now on. Of the
                // others a command is published once more at worst.
                self.sources.confirms.forget(&ripe);
            }
            self.told(&error, locking, items.len(), began);
            self.take_in().await;
            if items.is_empty() {
                // Only timers: they will be due again.
                return tokio::time::sleep(pause).await;
            }
            if !error.is_transient() {
                if !was_bare {
                    // Perhaps no item of the batch is the culprit.
                    begun = self.try_again(items, waiting, due);
                    continue;
                }
                return self.commit_each(items, waiting, error).await;
            }
            let mut is_at_once = false;
            if matches!(error, StoreError::Conflict(_)) {
                if locking == Locking::Trusts {
                    self.wariness = (self.wariness * 2).clamp(1, MAX_WARY);
                    // The next try is one of them.
                    self.wary = self.wariness + 1;
                    is_at_once = true;
                } else {
                    // Somebody else was quicker: with locks, the next try waits for them and not for a pause.
                    self.contended = CONTENDED;
                    is_at_once = locking == Locking::Checks;
                }
            } else {
                (items, waiting) = self.answer_callers(items, waiting, error).await;
                if items.is_empty() {
                    return;
                }
            }
            if !is_at_once {
                tokio::select! {
                    biased;
                    // Unacknowledged replies are delivered again, to whoever is left.
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                }
            }
            begun = self.try_again(items, waiting, due);
        }
    }

    /// Counts a try that came to nothing, and says so.
    pub(super) fn told(&self, error: &StoreError, locking: Locking, batch: usize, began: Instant) {
        if locking == Locking::Trusts && matches!(error, StoreError::Conflict(_)) {
            self.metrics.commit("stale", batch, began.elapsed());
            tracing::debug!(%error, batch, "what was remembered of the sagas held no longer");
        } else {
            self.metrics.commit(kind(error), batch, began.elapsed());
            tracing::warn!(%error, batch, "commit failed");
        }
    }

    /// What was begun ahead need not wait until the batch before it succeeds: it is finished, or comes after that batch.
    async fn take_in(&mut self) {
        let Some(ahead) = self.ahead.take() else { return };
        let Begun { of, mut waiting, began, outcome } = ahead.turn();
        let outcome = outcome.await;
        let mut items = Arc::unwrap_or_clone(of.items);
        match outcome {
            Ok((committed, plan)) => {
                self.metrics.commit("committed", items.len(), began.elapsed());
                Box::pin(self.finish(items, waiting, committed, plan)).await;
            }
            Err(error) => {
                self.sources.confirms.keep(of.ripe);
                self.told(&error, of.locking, items.len(), began);
                if matches!(error, StoreError::Unknown(_) | StoreError::Unavailable(_)) {
                    (items, waiting) = self.answer_callers(items, waiting, error).await;
                }
                let batch = items.into_iter().zip(waiting).map(|(item, waiting)| Work { item, waiting });
                self.backlog.put_back(batch);
            }
        }
    }

    /// While nobody else writes the same sagas nobody need be kept from them.
    fn locking(&mut self) -> Locking {
        if self.contended > 0 {
            self.contended -= 1;
            return Locking::Waits;
        }
        if self.wary > 0 {
            self.wary -= 1;
            return Locking::Checks;
        }
        Locking::Trusts
    }

    /// The store refused the batch for good: one by one, so that only the culprit fails. What one request starts stays together
    /// unless the culprit is in it.
    async fn commit_each(&mut self, items: Vec<Item>, waiting: Vec<Waiting>, error: StoreError) {
        if items.len() > 1 {
            let batch = items.into_iter().zip(waiting).map(|(item, waiting)| Work { item, waiting }).collect();
            for part in backlog::parts(batch) {
                Box::pin(self.commit(part, 0)).await;
            }
            return;
        }
        for waiting in waiting {
            match waiting {
                Waiting::Broker(delivery) => self.bury(vec![(delivery, "REPLY_REFUSED_BY_STORE")]).await,
                caller => {
                    caller.fail(CoordinatorError::Store(error.clone()));
                }
            }
        }
    }

    /// After the commit: publish first, since that is what sagas wait for; then acknowledge and answer.
    async fn finish(&mut self, items: Vec<Item>, waiting: Vec<Waiting>, committed: Committed, plan: Plan) {
        let Plan {
            verdicts,
            mut outbound,
            starts,
            outbound_of_starts,
            again,
            mut notes,
            missing,
            dues,
            now,
            claimed,
            latest,
            looks,
            orphans,
            mut traced,
        } = plan;
        let mut is_new = committed.starts.iter().map(|started| matches!(started, Started::New));
        outbound.extend(outbound_of_starts.into_iter().filter(|_| is_new.next() == Some(true)).flatten());
        let of_starts = starts.into_iter().zip(&committed.starts);
        let never_were: Vec<SagaId> =
            of_starts.filter(|(_, started)| **started != Started::New).map(|(id, _)| id).collect();
        notes.retain(|noted| !never_were.contains(&noted.saga));
        self.latencies.sent(&outbound, &self.metrics);
        self.publisher.publish(outbound);
        self.publish_again(again, traced.given(), now).await;
        if let Some(traces) = &self.sources.traces {
            traces.tell(traced, &never_were);
        }
        if let Some(lag) = latest {
            self.metrics.timer_lag(lag);
        }

        self.timer.hear(now, &dues);
        if self.timer.was_set_back() {
            self.set_back.notify_one();
        }
        if claimed >= MAX_DUE as usize {
            // There may be more.
            self.timer.wake();
        }
        let mut acks: Vec<(DeliveryTag, Settlement)> = Vec::new();
        let mut dead: Vec<(Delivery, &'static str)> = Vec::new();
        let mut doubtful: Vec<(ReplyItem, Delivery, bool)> = Vec::new();
        let mut deferred: Vec<Work> = Vec::new();
        let mut started = committed.starts.into_iter();
        for ((item, waiting), verdict) in items.into_iter().zip(waiting).zip(verdicts) {
            match (verdict, item, waiting) {
                (Verdict::Done, item, Waiting::Broker(delivery)) => {
                    if let Item::Reply(reply) = &item {
                        self.latencies.heard(reply.command, &reply.outcome);
                    }
                    self.metrics.reply("applied");
                    self.sources.gates.hears();
                    acks.push((delivery.tag, Settlement::Ack));
                }
                (Verdict::Duplicate { has_ended }, Item::Reply(reply), Waiting::Broker(delivery)) => {
                    doubtful.push((reply, delivery, has_ended));
                }
                (Verdict::Dead(code), _, Waiting::Broker(delivery)) => dead.push((delivery, code)),
                (Verdict::Start(record), Item::Start(mut start), Waiting::Starter(sender)) => {
                    // Whoever hears of it may start the next.
                    start.turn = None;
                    let answer = match started.next() {
                        Some(Started::New) => Ok(StartOutcome::Started {
                            id: start.id,
                            definition: start.definition.reference.clone(),
                            key: start.key,
                            record,
                        }),
                        Some(Started::Taken { by, input_hash }) if input_hash == start.input_hash => {
                            Ok(StartOutcome::Exists { id: by })
                        }
                        Some(Started::Taken { by, .. }) => Err(CoordinatorError::KeyConflict {
                            definition: start.definition.reference.name.clone(),
                            key: start.key.unwrap_or_default(),
                            existing: by,
                        }),
                        None => {
                            Err(StoreError::Corrupt("the store did not say what became of a start".to_owned()).into())
                        }
                    };
                    drop(sender.send(answer));
                }
                (Verdict::Operated(answer), _, Waiting::Operator(sender)) => drop(sender.send(*answer)),
                (Verdict::Told(answer), _, Waiting::Teller(sender)) => drop(sender.send(*answer)),
                (Verdict::Deferred, item, waiting) => deferred.push(Work { item, waiting }),
                // A verdict of one kind on an item of another: cannot be, and whoever waits is told so.
                (_, _, waiting) => {
                    if let Some(tag) = waiting.fail(CoordinatorError::Stopping) {
                        acks.push((tag, Settlement::Requeue));
                    }
                }
            }
        }
        self.judge(doubtful, &mut acks, &mut dead).await;
        self.acknowledgements.add(acks).await;
        self.bury(dead).await;
        self.sources.gates.observe(&notes);
        self.tell(&notes);
        self.tell_children(looks, orphans);
        if !missing.is_empty() {
            for reference in missing {
                if let Err(error) = self.sources.registry.get(&reference).await {
                    tracing::error!(%reference, %error, "a saga's definition cannot be loaded");
                }
            }
            if !deferred.is_empty() {
                Box::pin(self.commit(deferred, 0)).await;
            }
        }
    }

    /// Publishes attempts of commands whose bodies only the outbox has: retries, and what was never confirmed.
    async fn publish_again(&mut self, again: Vec<(CommandId, u32)>, given: Given, now: Timestamp) {
        if again.is_empty() {
            return;
        }
        let ids: Vec<CommandId> = again.iter().map(|(id, _)| *id).collect();
        let entries = match self.store.commands(&ids).await {
            Ok(entries) => entries,
            // The publish grace brings them back.
            Err(error) => return tracing::warn!(%error, "commands to send again cannot be read"),
        };
        let mut batch = Vec::with_capacity(entries.len());
        for entry in entries {
            let attempt = again.iter().find(|(id, _)| *id == entry.id).map(|(_, attempt)| *attempt);
            if let Some(attempt) = attempt
                && let Some(definition) = self.sources.registry.known(&entry.definition)
            {
                let mut sent = outbound::attempt(&definition, &entry, attempt, &self.sources.to, now);
                let (traces, saga) = (self.sources.traces.as_ref(), entry.id.saga);
                traces::stamp(&mut sent, traces::carried(traces, saga, given.get(&saga), (entry.id, attempt)));
                batch.push(sent);
            }
        }
        // Those that were held back go out for the first time.
        self.latencies.sent(&batch, &self.metrics);
        self.publisher.publish(batch);
    }

    /// Replies to commands that are settled already. One that repeats what is recorded, or was only delivered again, is
    /// acknowledged; one that says something else, or comes out of nowhere after the end, belongs in the dead letters.
    async fn judge(
        &self,
        doubtful: Vec<(ReplyItem, Delivery, bool)>,
        acks: &mut Vec<(DeliveryTag, Settlement)>,
        dead: &mut Vec<(Delivery, &'static str)>,
    ) {
        if doubtful.is_empty() {
            return;
        }
        let ids: Vec<CommandId> = doubtful.iter().map(|(reply, ..)| reply.command).collect();
        let entries = self.store.commands(&ids).await.unwrap_or_default();
        for (reply, delivery, has_ended) in doubtful {
            let entry = entries.iter().find(|entry| entry.id == reply.command);
            let is_honest = delivery.redelivered || !has_ended;
            if entry.is_some_and(|entry| repeats(entry, &reply.outcome)) && is_honest {
                self.metrics.reply("duplicate");
                acks.push((delivery.tag, Settlement::Ack));
            } else if has_ended {
                dead.push((delivery, "REPLY_AFTER_END"));
            } else {
                dead.push((delivery, "REPLY_REPLAYED"));
            }
        }
    }

    fn tell(&self, notes: &[crate::coordinator::plan::Noted]) {
        if let Some(ended) = &self.ended {
            let ends = notes.iter().filter_map(|noted| Some(Ended { id: noted.saga, how: end(&noted.note)? }));
            // Nobody listens any more: then there is nobody to tell.
            let _ = ends.map(|end| ended.send(end)).find(Result::is_err);
        }
        let events: Vec<Outbound> = notes
            .iter()
            .filter_map(|noted| tell(noted, &self.metrics, self.listeners.as_ref()))
            .map(|event| Outbound { of: None, envelope: Envelope { mandatory: true, ..event.encode() } })
            .collect();
        self.publisher.publish(events);
    }

    /// Sub-sagas whose parent has ended are complete. What is lost here they find out by themselves, looking now and then.
    fn tell_children(&self, looks: Vec<(SagaId, Parent)>, orphans: Vec<(String, String)>) {
        if looks.is_empty() && orphans.is_empty() {
            return;
        }
        let (store, work) = (self.store.clone(), self.again.clone());
        tokio::spawn(async move {
            for (id, event) in relatives::news(&*store, looks, orphans).await {
                let Some(work) = work.upgrade() else { return };
                let (sender, _) = oneshot::channel();
                let item = Item::Tell(TellItem { id, event });
                if work.send(Work { item, waiting: Waiting::Teller(sender) }).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn bury(&self, dead: Vec<(Delivery, &'static str)>) {
        if let Some(settler) = self.acknowledgements.settler() {
            self.dead.bury(dead, &settler).await;
        }
    }
}

fn end(note: &Note) -> Option<&'static str> {
    match note {
        Note::Completed => Some("completed"),
        Note::Compensated => Some("compensated"),
        Note::Abandoned => Some("abandoned"),
        Note::Stuck(..) => Some("stuck"),
        _ => None,
    }
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => "unavailable",
        StoreError::Unknown(_) => "unknown",
        StoreError::Conflict(_) => "conflict",
        _ => "refused",
    }
}

/// Whether the reply says what the entry records, or nothing that is recorded at all.
fn repeats(entry: &OutboxEntry, outcome: &ReplyOutcome) -> bool {
    let Some(verified) = &entry.verified else { return true };
    match outcome {
        ReplyOutcome::Success { output } => {
            verified.outcome == Outcome::Success && verified.output.as_ref().is_none_or(|recorded| recorded == output)
        }
        ReplyOutcome::Failure { problem } => {
            verified.outcome == Outcome::Failure && verified.problem.as_ref() == Some(problem)
        }
        // Heartbeats and pleas for time that were overtaken.
        ReplyOutcome::Retry { .. } | ReplyOutcome::InProgress => true,
    }
}
