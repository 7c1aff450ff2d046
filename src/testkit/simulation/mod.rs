//! One saga on virtual time: the real state machine, participants with inboxes, a broker whose messages take as long as
//! the seed says, and a plan of what goes wrong. The same plan gives the same run, bit for bit.

mod ending;
mod waits;

pub(super) use ending::{allowed, budget as retry_budget};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock::{Timestamp, after};
use crate::definition::Definition;
use crate::id::{CommandId, SagaId, Seq, StepIndex};
use crate::message::Command;
use crate::message::command::idempotency_key;
use crate::payload::Payload;
use crate::saga::{Direction, Effect, Event, EventKind, ReplyOutcome};
use crate::testkit::inbox::ModelInbox;
use crate::testkit::plan::Plan;
use crate::testkit::run::Run;
use crate::testkit::services::{Answer, Forced, Services};
use crate::testkit::timeline::{Line, Timeline};
use crate::testkit::watched::Entry;
use crate::testkit::{FaultKind, Machine, Watched};

/// How long until a message of the kind `stale` arrives: longer than any saga should live.
const STALE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a crashed process is away.
const RESTART: Duration = Duration::from_secs(1);
/// By how much a late message misses its attempt's time-out.
const LATE: Duration = Duration::from_secs(1);
/// After so many events a saga counts as one that never ends.
const MAX_EVENTS: u32 = 20_000;
/// Something on its way.
#[derive(Clone, Debug)]
enum Happening {
    Deliver { seq: Seq, attempt: u32, fault: Option<FaultKind> },
    Reply { seq: Seq, attempt: u32, outcome: ReplyOutcome, fault: Option<FaultKind> },
    Confirm { seq: Seq, attempt: u32 },
    Signal { step: StepIndex },
}

/// What a simulation is made of.
pub(super) struct Setup {
    pub definition: Arc<Definition>,
    pub machine: Machine,
    pub services: Services,
    pub inbox: ModelInbox,
    pub input: Value,
    /// What each step puts out where nobody is asked.
    pub outputs: BTreeMap<StepIndex, Value>,
    pub plan: Plan,
}

pub(super) struct Simulation {
    definition: Arc<Definition>,
    services: Services,
    inbox: ModelInbox,
    outputs: BTreeMap<StepIndex, Value>,
    plan: Plan,
    watched: Watched,
    timeline: Timeline,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Happening>,
    order: u64,
    /// Overtaken messages, until the next delivery.
    held: Vec<Happening>,
    /// Attempts that were sent before: a fault strikes an attempt once, however often it is published.
    sent: BTreeSet<(Seq, u32)>,
    /// Attempts that were ever made.
    attempts: BTreeMap<(StepIndex, Direction), u32>,
    fired: BTreeSet<usize>,
    last_fault: Timestamp,
    /// When the saga came to rest after the last fault.
    rest: Option<Timestamp>,
    undone: Vec<StepIndex>,
}

impl Simulation {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { definition, machine, services, inbox, input, outputs, plan } = setup;
        let now = Timestamp::from_timestamp(1_700_000_000, 0).unwrap_or_default();
        let id = SagaId(uuid::Uuid::from_u64_pair(0x0189_0000_0000_7000, 0x8000_0000_0000_0000 | plan.seed));
        let input = Payload::from(input);
        let key = definition.key_of(&input).unwrap_or_default();
        let watched = Watched::new(definition.clone(), machine, id, key, input, now).sparing();
        Self {
            definition,
            services,
            inbox,
            outputs,
            plan,
            watched,
            timeline: Timeline::starting_at(now),
            now,
            queue: BTreeMap::new(),
            order: 0,
            held: Vec::new(),
            sent: BTreeSet::new(),
            attempts: BTreeMap::new(),
            fired: BTreeSet::new(),
            last_fault: now,
            rest: None,
            undone: Vec::new(),
        }
    }

    /// Runs until nothing is on its way and nothing is due.
    pub(super) async fn run(mut self) -> Run {
        self.send_early_signals();
        self.apply(EventKind::Started);
        let mut events = 0;
        loop {
            events += 1;
            if events > MAX_EVENTS {
                self.watched.broken(format!("16 no end within {MAX_EVENTS} events"));
                break;
            }
            let next = self.queue.keys().next().copied();
            let due = self.watched.saga().due();
            match (next, due) {
                (next, Some(due)) if next.is_none_or(|(at, _)| due <= at) => {
                    self.now = due.max(self.now);
                    self.apply(EventKind::Due);
                }
                (Some(key), _) => {
                    self.now = key.0.max(self.now);
                    if let Some(happening) = self.queue.remove(&key) {
                        self.happen(happening).await;
                    }
                }
                (None, _) if !self.held.is_empty() => self.release(),
                (None, _) => break,
            }
        }
        self.end()
    }

    async fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Signal { step } => self.signal(step),
            Happening::Confirm { seq, attempt } => self.apply(EventKind::Published { seq, attempt }),
            Happening::Reply { seq, attempt, outcome, fault } => self.answer(seq, attempt, outcome, fault),
            Happening::Deliver { seq, attempt, fault } => {
                self.deliver(seq, attempt, fault).await;
                if fault != Some(FaultKind::Reorder) {
                    self.release();
                }
            }
        }
    }

    fn release(&mut self) {
        for held in std::mem::take(&mut self.held) {
            self.later(Duration::from_millis(1), held);
        }
    }

    fn later(&mut self, wait: Duration, happening: Happening) {
        self.order += 1;
        self.queue.insert((after(self.now, wait), self.order), happening);
    }

    /// How long a message takes: 10 ms, or with a seed between 1 and 60.
    fn latency(&self, salt: u64) -> Duration {
        if self.plan.seed == 0 {
            return Duration::from_millis(10);
        }
        let drawn = crate::testkit::draw(self.plan.seed, self.order.wrapping_mul(4).wrapping_add(salt));
        Duration::from_millis(1 + drawn % 60)
    }

    /// Applies an event and carries out what follows.
    fn apply(&mut self, kind: EventKind) {
        let is_reply = matches!(kind, EventKind::Replied { .. });
        let is_signal = matches!(kind, EventKind::Signalled { .. });
        let event = Event { now: self.now, kind };
        let effects = match self.watched.apply(&event) {
            Ok(effects) => effects,
            // A signal may come when nobody waits for it any more: whoever sent it is told so.
            Err(error) if is_signal => {
                let said = Line {
                    after: self.timeline.since_start(self.now),
                    step: None,
                    compensation: false,
                    attempt: None,
                    what: format!("the signal is refused: {}", error.why),
                    state: self.watched.saga().state.as_str().to_owned(),
                    fault: false,
                };
                return self.timeline.lines.push(said);
            }
            Err(error) => {
                let number = if is_reply { "13 a true reply" } else { "an event" };
                self.watched.broken(format!("{number} was called illegal: {error}"));
                return;
            }
        };
        self.tell(&effects);
        for effect in &effects {
            match effect {
                Effect::Decide { seq, .. } => self.send(*seq, 1),
                Effect::Publish { seq, attempt } => self.send(*seq, *attempt),
                Effect::Settle(_) | Effect::Answer { .. } | Effect::LookAtParent | Effect::Note(_) => {}
            }
        }
        let saga = self.watched.saga();
        let is_at_rest = saga.state.is_terminal() || saga.state.stuck().is_some() && saga.due().is_none();
        if is_at_rest {
            self.rest = self.rest.or(Some(self.now));
        }
    }

    fn tell(&mut self, effects: &[Effect]) {
        let definition = self.definition.clone();
        let saga = self.watched.saga();
        for effect in effects {
            if let Effect::Note(note) = effect {
                if let crate::saga::Note::StepCompensated(step) = note {
                    self.undone.push(*step);
                }
                self.timeline.note(&definition, self.now, note, saga.state.as_str());
            }
        }
    }

    fn line(&mut self, step: StepIndex, direction: Direction, attempt: u32, what: impl Into<String>, is_fault: bool) {
        let line = Line {
            after: self.timeline.since_start(self.now),
            step: Some(self.definition.step(step).name.clone()),
            compensation: direction == Direction::Compensation,
            attempt: Some(attempt),
            what: what.into(),
            state: self.watched.saga().state.as_str().to_owned(),
            fault: is_fault,
        };
        self.timeline.lines.push(line);
    }

    /// The planned fault of this attempt.
    fn planned(&self, step: StepIndex, direction: Direction, attempt: u32) -> Option<(Option<usize>, FaultKind)> {
        self.plan.at(&self.definition, step, direction, attempt)
    }

    /// The fault strikes.
    fn strike(&mut self, fired: Option<usize>) {
        self.fired.extend(fired);
        self.last_fault = self.now;
        self.rest = None;
    }

    fn send(&mut self, seq: Seq, attempt: u32) {
        let Some(Entry { step, direction, .. }) = self.watched.entry(seq).cloned() else { return };
        let most = self.attempts.entry((step, direction)).or_default();
        *most = (*most).max(attempt);
        let is_first = self.sent.insert((seq, attempt));
        if !self.definition.step(step).work.is_sent() && direction == Direction::Action {
            return self.wait(step);
        }
        let planned = self.planned(step, direction, attempt).filter(|_| is_first);
        let timeout = self.timeout(step, direction);
        let (there, confirmed) = (self.latency(0), self.latency(1) / 2);
        let plain = |fault| Happening::Deliver { seq, attempt, fault };
        let what = self.address(step, direction);
        let again = if is_first { "" } else { "once more " };
        self.line(step, direction, attempt, format!("{again}to {what}"), false);
        if let Some((fired, kind)) = planned {
            // What strikes at the participant or the reply is said when it does.
            match kind {
                FaultKind::CrashBeforePublish => {
                    self.strike(fired);
                    return self.line(step, direction, attempt, "the coordinator dies before it publishes", true);
                }
                FaultKind::CrashBeforeConfirm => {
                    self.strike(fired);
                    self.line(step, direction, attempt, "the coordinator dies before the confirm", true);
                    return self.later(there, plain(None));
                }
                FaultKind::Drop => {
                    self.strike(fired);
                    self.line(step, direction, attempt, "the command is lost", true);
                }
                FaultKind::Delay | FaultKind::Stale => {
                    self.strike(fired);
                    let wait = if kind == FaultKind::Stale { STALE } else { timeout + LATE };
                    self.line(step, direction, attempt, format!("the command takes {}", words(wait)), true);
                    self.later(wait, plain(None));
                }
                FaultKind::Duplicate => {
                    self.strike(fired);
                    self.line(step, direction, attempt, "the command goes out twice", true);
                    self.later(there, plain(None));
                    self.later(there + Duration::from_millis(3), plain(None));
                }
                FaultKind::Reorder => {
                    self.strike(fired);
                    self.line(step, direction, attempt, "the command is held until another overtakes it", true);
                    self.held.push(plain(Some(FaultKind::Reorder)));
                }
                kind => self.later(there, plain(Some(kind))),
            }
        } else {
            self.later(there, plain(None));
        }
        self.later(confirmed, Happening::Confirm { seq, attempt });
    }

    async fn deliver(&mut self, seq: Seq, attempt: u32, fault: Option<FaultKind>) {
        let Some(entry) = self.watched.entry(seq).cloned() else { return };
        let (step, direction) = (entry.step, entry.direction);
        let fired = self.planned(step, direction, attempt).and_then(|(fired, _)| fired);
        let timeout = self.timeout(step, direction);
        let again = Happening::Deliver { seq, attempt, fault: None };
        match fault {
            Some(FaultKind::Timeout) => {
                self.strike(fired);
                return self.line(step, direction, attempt, "nobody answers", true);
            }
            Some(FaultKind::ParticipantCrashBeforeCommit) => {
                self.strike(fired);
                self.line(step, direction, attempt, "the participant dies before its commit", true);
                return self.later(RESTART, again);
            }
            _ => {}
        }
        let forced = match fault {
            Some(FaultKind::Fail) => Some(Forced::Refuse),
            Some(FaultKind::Retry) => Some(Forced::Later),
            _ => None,
        };
        let outcome = self.perform(&entry, seq, attempt, forced).await;
        if forced.is_some() && matches!(outcome, ReplyOutcome::Failure { .. } | ReplyOutcome::Retry { .. }) {
            self.strike(fired);
        }
        let back = self.latency(2);
        let reply = |fault| Happening::Reply { seq, attempt, outcome: outcome.clone(), fault };
        match fault {
            Some(FaultKind::ParticipantCrashAfterCommit) => {
                self.strike(fired);
                self.line(step, direction, attempt, "the participant dies after its commit, before it replies", true);
                self.later(RESTART, again);
            }
            Some(FaultKind::LostReply) => {
                self.strike(fired);
                self.line(step, direction, attempt, "its reply is lost", true);
            }
            Some(kind @ (FaultKind::LateReply | FaultKind::StaleReply)) => {
                self.strike(fired);
                let wait = if kind == FaultKind::StaleReply { STALE } else { timeout + LATE };
                self.line(step, direction, attempt, format!("its reply takes {}", words(wait)), true);
                self.later(wait, reply(None));
            }
            Some(FaultKind::DuplicateReply) => {
                self.strike(fired);
                self.line(step, direction, attempt, "its reply comes twice", true);
                self.later(back, reply(None));
                self.later(back + Duration::from_millis(7), reply(None));
            }
            Some(FaultKind::Slow) => {
                self.strike(fired);
                self.line(step, direction, attempt, "it takes longer than the time-out, with a heartbeat", true);
                let beat = Happening::Reply { seq, attempt, outcome: ReplyOutcome::InProgress, fault: None };
                self.later(timeout.mul_f64(0.8), beat);
                self.later(timeout.mul_f64(1.5), reply(None));
            }
            Some(kind @ (FaultKind::CrashBeforeCommit | FaultKind::CrashBeforeAck)) => {
                self.later(back, reply(Some(kind)));
            }
            _ => self.later(back, reply(None)),
        }
    }

    /// What the participant makes of a delivery.
    async fn perform(&mut self, entry: &Entry, seq: Seq, attempt: u32, forced: Option<Forced>) -> ReplyOutcome {
        let (step, direction) = (entry.step, entry.direction);
        let command = Arc::new(self.command(entry, seq, attempt));
        let amends = entry.compensates.filter(|_| direction == Direction::Compensation);
        if let Some(service) = self.services.real.get(&command.participant) {
            let handled = service.handle(&command, forced).await;
            if handled.took_effect {
                self.watched.has_taken_effect(step, direction, entry.generation);
            }
            if let (Some(action), ReplyOutcome::Success { .. }) = (amends, &handled.outcome) {
                self.watched.has_amended(step, action);
            }
            return handled.outcome;
        }
        if let Some(known) = self.inbox.known(entry) {
            let known = known.clone();
            self.line(step, direction, attempt, "answered from the inbox", false);
            return known;
        }
        let answer = match (forced, amends) {
            (Some(forced), _) => forced.answer(),
            (None, Some(_)) if !self.inbox.has_something_to_undo(entry) => {
                self.line(step, direction, attempt, "nothing to undo: a tombstone stays", false);
                Answer::done()
            }
            (None, _) => {
                let made_up = self.outputs.get(&step).cloned().unwrap_or_else(|| json!({}));
                let answer = self.services.perform(&command, direction, &made_up);
                if matches!(answer, Answer::Done(_)) {
                    self.watched.has_taken_effect(step, direction, entry.generation);
                }
                answer
            }
        };
        if let (Some(action), Answer::Done(_)) = (amends, &answer) {
            self.watched.has_amended(step, action);
        }
        let outcome = answer.outcome();
        self.inbox.record(entry, &outcome);
        outcome
    }

    fn answer(&mut self, seq: Seq, attempt: u32, outcome: ReplyOutcome, fault: Option<FaultKind>) {
        let Some(Entry { step, direction, .. }) = self.watched.entry(seq).cloned() else { return };
        let fired = self.planned(step, direction, attempt).and_then(|(fired, _)| fired);
        let again = Happening::Reply { seq, attempt, outcome: outcome.clone(), fault: None };
        if fault == Some(FaultKind::CrashBeforeCommit) {
            self.strike(fired);
            self.line(step, direction, attempt, "the coordinator dies before it commits the reply", true);
            return self.later(RESTART, again);
        }
        self.line(step, direction, attempt, said(&outcome), false);
        self.apply(EventKind::Replied { seq, attempt, outcome });
        if fault == Some(FaultKind::CrashBeforeAck) {
            self.strike(fired);
            self.line(step, direction, attempt, "the coordinator dies before it acknowledges the reply", true);
            self.later(RESTART, again);
        }
    }

    fn timeout(&self, step: StepIndex, direction: Direction) -> Duration {
        let step = self.definition.step(step);
        match (direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => compensation.timeout,
            _ => step.timeout,
        }
    }

    fn address(&self, step: StepIndex, direction: Direction) -> String {
        let step = self.definition.step(step);
        let action = match (direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => &compensation.action,
            _ => &step.action,
        };
        format!("{}.{action}", step.participant)
    }

    fn command(&self, entry: &Entry, seq: Seq, attempt: u32) -> Command {
        let Entry { step, direction, generation, compensates, body, .. } = entry;
        let saga = self.watched.saga();
        let definition = self.definition.step(*step);
        let key = |direction: Direction, generation| {
            idempotency_key(saga.id, &definition.name, direction.as_str(), generation)
        };
        Command {
            message_id: CommandId { saga: saga.id, seq }.message_id(attempt).to_string(),
            token: format!("{seq}/{attempt}"),
            reply_to: "amends.replies".to_owned(),
            participant: definition.participant.clone(),
            action: self.address(*step, *direction).split_off(definition.participant.len() + 1),
            saga_id: saga.id,
            definition: saga.definition.clone(),
            step: definition.name.clone(),
            is_compensation: *direction == Direction::Compensation,
            attempt,
            key: key(*direction, *generation),
            compensates: compensates.map(|generation| key(Direction::Action, generation)),
            deadline: after(self.now, self.timeout(*step, *direction)),
            traceparent: None,
            tracestate: None,
            body: body.clone(),
            sent_at: self.now,
        }
    }
}

fn said(outcome: &ReplyOutcome) -> String {
    match outcome {
        ReplyOutcome::Success { .. } => "replied: success".to_owned(),
        ReplyOutcome::Failure { problem } => format!("replied: failure, {}", problem.kind),
        ReplyOutcome::Retry { problem, .. } => format!("replied: retry, {}", problem.kind),
        ReplyOutcome::InProgress => "heartbeat".to_owned(),
    }
}

fn words(wait: Duration) -> String {
    crate::testkit::timeline::in_words(wait)
}
