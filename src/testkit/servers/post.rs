//! Between the broker and the participants: takes their commands, lets the planned faults strike, has the rest performed.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::scaled::Served;
use crate::broker::topology::commands_queue;
use crate::broker::{Broker, BrokerError, Delivery, Published, Settlement, Settler, Topology};
use crate::clock::{Clock, Timestamp};
use crate::coordinator::Coordinator;
use crate::definition::{Definition, Work};
use crate::id::{DefinitionRef, SagaId, StepIndex};
use crate::message::reply::ReplyProblem;
use crate::message::{Command, Reply, ReplyBody};
use crate::saga::{Direction, Phase, Problem, ReplyOutcome, Saga, StepState};
use crate::store::Store;
use crate::testkit::inbox::ModelInbox;
use crate::testkit::services::{Answer, Forced, Services};
use crate::testkit::{Entry, FaultKind, Plan};

/// How long until something is tried or looked at again.
const LATE: Duration = Duration::from_millis(50);
/// How many commands one participant has in hand at once.
const PREFETCH: u16 = 64;
/// How often a reply is published that the broker does not confirm.
const TRIES: u32 = 20;

/// What a run is about.
pub(super) struct House {
    pub served: Served,
    /// Expanded.
    pub definition: Arc<Definition>,
    /// What the definition is called outside this run.
    pub reference: DefinitionRef,
    pub outputs: BTreeMap<StepIndex, Value>,
    pub plan: Plan,
}

/// Everything that was seen at the participants.
#[derive(Default)]
pub(super) struct Book {
    services: Services,
    inbox: ModelInbox,
    /// Attempts that a fault may no longer strike: it strikes one once, however often it is delivered.
    met: BTreeSet<(String, u32)>,
    pub fired: BTreeSet<usize>,
    pub seen: Vec<Seen>,
    pub done: Vec<Done>,
    pub attempts: BTreeMap<(StepIndex, Direction), u32>,
}

/// A line of the timeline.
#[derive(Clone)]
pub(super) struct Seen {
    pub at: Timestamp,
    pub step: StepIndex,
    pub direction: Direction,
    pub attempt: u32,
    pub what: String,
    pub is_fault: bool,
}

/// Something in a participant's database.
#[derive(Clone, Copy)]
pub(super) enum Done {
    Effect(StepIndex, Direction, u32),
    Amended(StepIndex, u32),
}

pub(super) struct Post {
    house: House,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
    book: tokio::sync::Mutex<Book>,
    /// Commands in hand, and messages that are to come later.
    tasks: TaskTracker,
    stop: CancellationToken,
    signalled: Vec<AtomicBool>,
    panicked: Mutex<Option<Panic>>,
}

/// What a panic carries.
type Panic = Box<dyn std::any::Any + Send>;

impl Post {
    pub(super) fn new(
        house: House,
        (store, broker): (Arc<dyn Store>, Arc<dyn Broker>),
        services: Services,
        inbox: ModelInbox,
    ) -> Self {
        let signalled = house.definition.steps.iter().map(|_| AtomicBool::new(false)).collect();
        let book = tokio::sync::Mutex::new(Book { services, inbox, ..Book::default() });
        Self {
            house,
            broker,
            store,
            book,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            signalled,
            panicked: Mutex::default(),
        }
    }

    /// Declares and consumes every participant's queue.
    pub(super) async fn open(self: &Arc<Self>) -> Result<(), BrokerError> {
        for queue in self.house.served.participants.keys() {
            self.broker.declare(&Topology::participant(queue)).await?;
        }
        for queue in self.queues() {
            let mut consumer = self.broker.consume(&queue, PREFETCH).await?;
            let post = self.clone();
            tokio::spawn(async move {
                let settler = consumer.settler();
                loop {
                    let deliveries = tokio::select! {
                        deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
                        () = post.stop.cancelled() => return,
                    };
                    let Some(deliveries) = deliveries else { return };
                    for delivery in deliveries {
                        post.tasks.spawn(post.clone().guarded(delivery, settler.clone()));
                    }
                }
            });
        }
        Ok(())
    }

    /// The queues that it consumes.
    pub(super) fn queues(&self) -> impl Iterator<Item = String> + '_ {
        self.house.served.participants.keys().map(|participant| commands_queue(participant))
    }

    /// A closure that panics, by an assertion for example, is to fail the test and not to be tried again.
    async fn guarded(self: Arc<Self>, delivery: Delivery, settler: Arc<dyn Settler>) {
        if let Err(panicked) = AssertUnwindSafe(self.take(delivery, settler)).catch_unwind().await {
            self.panicked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panicked);
        }
    }

    pub(super) fn has_panicked(&self) -> bool {
        self.panicked.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What a closure panicked with.
    pub(super) fn panicked(&self) -> Option<Panic> {
        self.panicked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// What was seen; nothing more is, afterwards.
    pub(super) async fn book(&self) -> Book {
        std::mem::take(&mut *self.book.lock().await)
    }

    async fn take(&self, delivery: Delivery, settler: Arc<dyn Settler>) {
        let settle = |how| settler.settle(vec![(delivery.tag, how)]);
        let Ok(mut command) = Command::decode(&delivery.envelope) else { return settle(Settlement::Reject).await };
        let Some(step) = self.house.definition.find(&command.step) else { return settle(Settlement::Reject).await };
        let direction = if command.is_compensation { Direction::Compensation } else { Direction::Action };
        // Handlers see the names that their definition has.
        if let Some(own) = self.house.served.participants.get(&command.participant) {
            command.participant.clone_from(own);
        }
        command.definition.clone_from(&self.house.reference);
        let at = At { step, direction, attempt: command.attempt, timeout: self.timeout(step, direction) };
        let planned = self.meet(&command, at).await;
        let fired = planned.and_then(|(fired, _)| fired);
        let command = Arc::new(command);
        match planned.map(|(_, kind)| kind) {
            Some(FaultKind::Timeout | FaultKind::Drop) => {
                self.strike(at, fired, "nobody answers").await;
                settle(Settlement::Ack).await;
            }
            Some(FaultKind::Delay) => {
                self.strike(at, fired, "the command comes after the time-out").await;
                settle(Settlement::Ack).await;
                self.until_given_up(&command, at).await;
                let outcome = self.perform(&command, at, None).await;
                self.reply(&command, outcome).await;
            }
            Some(FaultKind::Duplicate) => {
                self.strike(at, fired, "the command comes twice").await;
                for _ in 0..2 {
                    let outcome = self.perform(&command, at, None).await;
                    self.reply(&command, outcome).await;
                }
                settle(Settlement::Ack).await;
            }
            Some(FaultKind::ParticipantCrashBeforeCommit) => {
                self.strike(at, fired, "the participant dies before its commit").await;
                settle(Settlement::Requeue).await;
            }
            Some(FaultKind::ParticipantCrashAfterCommit) => {
                self.perform(&command, at, None).await;
                self.strike(at, fired, "the participant dies after its commit, before it replies").await;
                settle(Settlement::Requeue).await;
            }
            Some(FaultKind::LostReply) => {
                self.perform(&command, at, None).await;
                self.strike(at, fired, "its reply is lost").await;
                settle(Settlement::Ack).await;
            }
            Some(FaultKind::LateReply) => {
                let outcome = self.perform(&command, at, None).await;
                self.strike(at, fired, "its reply comes after the time-out").await;
                settle(Settlement::Ack).await;
                self.until_given_up(&command, at).await;
                self.reply(&command, outcome).await;
            }
            Some(FaultKind::DuplicateReply) => {
                let outcome = self.perform(&command, at, None).await;
                self.strike(at, fired, "its reply comes twice").await;
                self.reply(&command, outcome.clone()).await;
                self.reply(&command, outcome).await;
                settle(Settlement::Ack).await;
            }
            Some(FaultKind::Slow) => {
                let outcome = self.perform(&command, at, None).await;
                self.strike(at, fired, "it takes longer than the time-out, with a heartbeat").await;
                tokio::time::sleep(at.timeout.mul_f64(0.6)).await;
                self.reply(&command, ReplyOutcome::InProgress).await;
                tokio::time::sleep(at.timeout.mul_f64(0.7)).await;
                self.reply(&command, outcome).await;
                settle(Settlement::Ack).await;
            }
            kind => {
                let forced = match kind {
                    Some(FaultKind::Fail) => Some(Forced::Refuse),
                    Some(FaultKind::Retry) => Some(Forced::Later),
                    _ => None,
                };
                let outcome = self.perform(&command, at, forced).await;
                if forced.is_some() && matches!(outcome, ReplyOutcome::Failure { .. } | ReplyOutcome::Retry { .. }) {
                    self.book.lock().await.fired.extend(fired);
                }
                self.reply(&command, outcome).await;
                settle(Settlement::Ack).await;
            }
        }
    }

    /// The attempt's planned fault, the first time that it is delivered.
    async fn meet(&self, command: &Command, at: At) -> Option<(Option<usize>, FaultKind)> {
        let mut book = self.book.lock().await;
        let most = book.attempts.entry((at.step, at.direction)).or_default();
        *most = (*most).max(at.attempt);
        let is_first = book.met.insert((command.key.clone(), at.attempt));
        let again = if is_first { "" } else { "once more " };
        let what = format!("{again}at {}.{}", command.participant, command.action);
        book.say(at, what, false);
        self.house.plan.at(&self.house.definition, at.step, at.direction, at.attempt).filter(|_| is_first)
    }

    async fn strike(&self, at: At, fired: Option<usize>, what: impl Into<String>) {
        let mut book = self.book.lock().await;
        book.fired.extend(fired);
        book.say(at, what, true);
    }

    /// What the participant makes of the command.
    async fn perform(&self, command: &Arc<Command>, at: At, forced: Option<Forced>) -> ReplyOutcome {
        let generation = |key: &str| key.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(1);
        let entry = Entry {
            step: at.step,
            direction: at.direction,
            generation: generation(&command.key),
            compensates: command.compensates.as_deref().map(generation),
            body: command.body.clone(),
            outcome: None,
        };
        let mut book = self.book.lock().await;
        let made_up = self.house.outputs.get(&at.step).cloned().unwrap_or_else(|| json!({}));
        let outcome = book.perform(command, &entry, forced, &made_up).await;
        book.say(at, answered(&outcome), false);
        outcome
    }

    /// Waits until the coordinator no longer waits for this attempt: what comes then is late, however busy the machine is.
    async fn until_given_up(&self, command: &Command, at: At) {
        loop {
            let Ok(Some(record)) = self.store.saga(command.saga_id).await else { return };
            let command = record.saga.steps.get(at.step.at()).and_then(StepState::in_flight);
            let waits = command.is_some_and(|(direction, command)| {
                let is_out = matches!(command.phase, Phase::Sending(_) | Phase::Held(_) | Phase::Awaiting(_));
                direction == at.direction && command.attempt == at.attempt && is_out
            });
            if !waits || self.stop.is_cancelled() {
                return;
            }
            tokio::time::sleep(LATE).await;
        }
    }

    async fn reply(&self, command: &Command, outcome: ReplyOutcome) {
        let body = body(outcome);
        let reply = Reply { token: command.token.clone(), routing_key: command.reply_to.clone(), body }.encode();
        for _ in 0..TRIES {
            if self.broker.publish(vec![reply.clone()]).await == [Published::Confirmed] {
                return;
            }
            tokio::time::sleep(LATE).await;
        }
    }

    fn timeout(&self, step: StepIndex, direction: Direction) -> Duration {
        let step = self.house.definition.step(step);
        match (direction, step.compensation.action()) {
            (Direction::Compensation, Some(undo)) => undo.timeout,
            _ => step.timeout,
        }
    }

    /// Sends the signals that come before anybody waits for them.
    pub(super) fn early_signals(self: &Arc<Self>, id: SagaId, coordinator: &Coordinator) {
        for step in self.house.definition.indices() {
            let planned = self.house.plan.at(&self.house.definition, step, Direction::Action, 1);
            if let Some((fired, FaultKind::Early)) = planned {
                self.signal(
                    id,
                    step,
                    (Duration::ZERO, 1),
                    (fired, Some("the signal comes before anybody waits")),
                    coordinator,
                );
            }
        }
    }

    /// Sends the signals that the saga waits for, halfway through their time, unless the plan says otherwise.
    pub(super) fn signals(self: &Arc<Self>, saga: &Saga, coordinator: &Coordinator) {
        for (step, state) in self.house.definition.indices().zip(&saga.steps) {
            let waits =
                matches!(self.house.definition.step(step).work, Work::Wait { .. }) && state.in_flight().is_some();
            if !waits || self.signalled.get(step.at()).is_none_or(|sent| sent.load(Ordering::SeqCst)) {
                continue;
            }
            let timeout = self.timeout(step, Direction::Action);
            let planned = self.house.plan.at(&self.house.definition, step, Direction::Action, 1);
            let fired = planned.and_then(|(fired, _)| fired);
            let (how, what) = match planned.map(|(_, kind)| kind) {
                Some(FaultKind::Timeout | FaultKind::Drop) => ((timeout, 0), Some("the signal never comes")),
                Some(FaultKind::Delay) => ((timeout * 2, 1), Some("the signal comes too late")),
                Some(FaultKind::Duplicate) => ((timeout / 2, 2), Some("the signal comes twice")),
                _ => ((timeout / 2, 1), None),
            };
            self.signal(saga.id, step, how, (fired, what), coordinator);
        }
    }

    fn signal(
        self: &Arc<Self>,
        id: SagaId,
        step: StepIndex,
        (wait, times): (Duration, u32),
        (fired, what): (Option<usize>, Option<&'static str>),
        coordinator: &Coordinator,
    ) {
        if let Some(sent) = self.signalled.get(step.at()) {
            sent.store(true, Ordering::SeqCst);
        }
        let Work::Wait { signal, .. } = &self.house.definition.step(step).work else { return };
        let (post, coordinator, signal) = (self.clone(), coordinator.clone(), signal.clone());
        self.tasks.spawn(async move {
            let at = At { step, direction: Direction::Action, attempt: 1, timeout: wait };
            if let Some(what) = what {
                post.strike(at, fired, what).await;
            }
            tokio::time::sleep(wait).await;
            let payload = post.house.outputs.get(&step).cloned().unwrap_or_else(|| json!({}));
            for _ in 0..times {
                let said = match coordinator.signal(id, signal.clone(), payload.clone().into()).await {
                    Ok(_) => format!("the signal {signal} is sent"),
                    Err(error) => format!("the signal is refused: {error}"),
                };
                post.book.lock().await.say(at, said, false);
            }
        });
    }
}

/// One attempt of a command.
#[derive(Clone, Copy)]
struct At {
    step: StepIndex,
    direction: Direction,
    attempt: u32,
    timeout: Duration,
}

impl Book {
    fn say(&mut self, at: At, what: impl Into<String>, is_fault: bool) {
        let At { step, direction, attempt, .. } = at;
        self.seen.push(Seen { at: Clock::System.now(), step, direction, attempt, what: what.into(), is_fault });
    }

    async fn perform(
        &mut self,
        command: &Arc<Command>,
        entry: &Entry,
        forced: Option<Forced>,
        made_up: &Value,
    ) -> ReplyOutcome {
        let Entry { step, direction, generation, .. } = *entry;
        let amends = entry.compensates.filter(|_| direction == Direction::Compensation);
        let outcome = if let Some(service) = self.services.real.get(&command.participant) {
            let handled = service.handle(command, forced).await;
            if handled.took_effect {
                self.done.push(Done::Effect(step, direction, generation));
            }
            handled.outcome
        } else if let Some(known) = self.inbox.known(entry) {
            return known.clone();
        } else {
            let has_nothing_to_undo = forced.is_none() && amends.is_some() && !self.inbox.has_something_to_undo(entry);
            let answer = match forced {
                Some(forced) => forced.answer(),
                None if has_nothing_to_undo => Answer::done(),
                None => self.services.perform(command, direction, made_up),
            };
            if matches!(answer, Answer::Done(_)) && !has_nothing_to_undo {
                self.done.push(Done::Effect(step, direction, generation));
            }
            let outcome = answer.outcome();
            self.inbox.record(entry, &outcome);
            outcome
        };
        if let (Some(action), ReplyOutcome::Success { .. }) = (amends, &outcome) {
            self.done.push(Done::Amended(step, action));
        }
        outcome
    }
}

fn answered(outcome: &ReplyOutcome) -> String {
    match outcome {
        ReplyOutcome::Success { .. } => "answers: success".to_owned(),
        ReplyOutcome::Failure { problem } => format!("answers: failure, {}", problem.kind),
        ReplyOutcome::Retry { problem, .. } => format!("answers: retry, {}", problem.kind),
        ReplyOutcome::InProgress => "heartbeat".to_owned(),
    }
}

fn body(outcome: ReplyOutcome) -> ReplyBody {
    let problem = |Problem { kind, title, detail }| ReplyProblem { kind, title, detail };
    match outcome {
        ReplyOutcome::Success { output } => ReplyBody::Success(output),
        ReplyOutcome::Failure { problem: found } => ReplyBody::Failure(problem(found)),
        ReplyOutcome::Retry { problem: found, after } => ReplyBody::Retry(problem(found), after),
        ReplyOutcome::InProgress => ReplyBody::InProgress,
    }
}
