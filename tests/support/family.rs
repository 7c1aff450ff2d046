//! Sagas that start one another, each a real saga under `transition`: messages between them are lost, repeated and
//! reordered, services keep an inbox, operators meddle with all of them. A checker watches from outside.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use amends::clock::{Timestamp, after};
use amends::definition::{Definition, Work};
use amends::id::{SagaId, Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{
    Direction, Effect, Event, EventKind, Operation, Outcome, Parent, Problem, ReplyAddress, ReplyOutcome, Saga,
    SagaState, StepState, Told, transition,
};
use serde_json::{Value, json};

#[path = "family_checks.rs"]
mod checks;

/// A mistake planted in the sagas or in what carries their messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// A sub-saga is complete as soon as its steps are done.
    CompletesAtOnce,
    /// A compensation that comes before its start is forgotten, and the start takes effect however late it comes.
    NoTombstone,
    /// A start that is delivered twice starts two sagas.
    StartsTwice,
    /// A sub-saga says that nothing of it stands as soon as it turns round.
    RefusesTooEarly,
    /// Nobody tells a sub-saga that its parent has ended.
    NobodyTells,
    /// A sub-saga that looks is always told that its parent has ended.
    ParentSeemsEnded,
    /// What is asked again is not answered.
    AnswersOnce,
    /// The parent does not compensate sub-sagas whose end it has not heard of.
    UnknownIsFailed,
    /// What the parent asked for is missing from the history.
    ForgetsHistory,
    /// A wait that was given up stays in the outbox.
    LeavesWaits,
    /// A signal that comes early is lost.
    LosesEarlySignals,
}

/// One random thing that happens.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub what: u8,
    pub which: u8,
    pub how: u8,
}

#[derive(Clone, Debug)]
struct Entry {
    step: StepIndex,
    direction: Direction,
    generation: u32,
    compensates: Option<u32>,
    body: Value,
    outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq)]
enum Message {
    Command { from: usize, seq: Seq, attempt: u32 },
    Reply { to: usize, seq: Seq, attempt: u32, outcome: ReplyOutcome },
    ParentEnded { of: usize },
    Look { child: usize },
}

struct Member {
    definition: Arc<Definition>,
    key: Option<String>,
    fresh: Saga,
    saga: Saga,
    history: Vec<Told>,
    outbox: BTreeMap<Seq, Entry>,
    /// Signals that were heard, and taken.
    heard: BTreeSet<String>,
}

pub struct Family {
    bug: Bug,
    definitions: BTreeMap<String, Arc<Definition>>,
    members: Vec<Member>,
    now: Timestamp,
    channel: Vec<Message>,
    ever: Vec<Message>,
    /// What services recorded, by saga, step, direction and generation; and what stands in their databases.
    inbox: BTreeMap<(usize, StepIndex, Direction, u32), ReplyOutcome>,
    effects: BTreeMap<(usize, StepIndex, Direction), u32>,
    /// An operator has passed over something or given a saga up, so that what stands is his affair.
    has_meddled: bool,
    pub violations: BTreeSet<String>,
    pub reached: BTreeSet<&'static str>,
}

impl Family {
    /// A saga of the first definition, just started. The others are those that it and its sub-sagas start.
    pub fn new(definitions: &[Arc<Definition>], input: Value, bug: Bug) -> Self {
        let by_name = definitions.iter().map(|definition| (definition.reference.name.clone(), definition.clone()));
        let mut family = Self {
            bug,
            definitions: by_name.collect(),
            members: Vec::new(),
            now: crate::sagas::epoch(),
            channel: Vec::new(),
            ever: Vec::new(),
            inbox: BTreeMap::new(),
            effects: BTreeMap::new(),
            has_meddled: false,
            violations: BTreeSet::new(),
            reached: BTreeSet::new(),
        };
        let first = definitions.first().expect("a definition").reference.name.clone();
        family.join(&first, None, Payload::from(input), None, EventKind::Started);
        family
    }

    /// The random part; then faults stop and everything is answered; then every old message comes once more.
    pub fn run(&mut self, moves: &[Move]) {
        for &one in moves {
            self.make(one);
        }
        self.heal();
        let (ended, ever) = (self.revisions(), self.ever.clone());
        for message in ever {
            self.deliver(message, 1);
        }
        let (then, now) = (ended.len(), self.revisions());
        // Only the tombstone of what was given up before it could start may still be set.
        let are_tombstones = |of: &[Member]| of.iter().all(|member| member.saga.state == SagaState::Compensated);
        if now[..then] != ended[..] || !are_tombstones(&self.members[then..]) {
            self.broken(format!("4 what has ended is final: {ended:?}, then {now:?}"));
        }
        self.check_end();
    }

    pub fn is_of(&self, states: &[&str]) -> bool {
        self.members.iter().map(|member| member.saga.state.as_str()).eq(states.iter().copied())
    }

    fn revisions(&self) -> Vec<u32> {
        self.members.iter().map(|member| member.saga.revision).collect()
    }

    fn broken(&mut self, what: impl Into<String>) {
        self.violations.insert(what.into());
    }

    fn send(&mut self, message: Message) {
        self.ever.push(message.clone());
        self.channel.push(message);
    }

    fn make(&mut self, Move { what, which, how }: Move) {
        let at = |len: usize| usize::from(which) % len;
        let member = at(self.members.len());
        match what {
            0..=17 if !self.channel.is_empty() => {
                let index = at(self.channel.len());
                let message = if how == 0 { self.channel[index].clone() } else { self.channel.swap_remove(index) };
                self.deliver(message, how);
            }
            18 if !self.channel.is_empty() => drop(self.channel.swap_remove(at(self.channel.len()))),
            // A coordinator dies after a commit: what it was about to publish is gone.
            19 => self.channel.truncate(self.channel.len().saturating_sub(usize::from(how % 4))),
            20 if !self.ever.is_empty() => self.deliver(self.ever[at(self.ever.len())].clone(), how),
            21..=22 => {
                let sent: Vec<(usize, Seq, u32)> = self.ever.iter().filter_map(command).collect();
                if let Some((from, seq, attempt)) = sent.get(at(sent.len().max(1))).copied() {
                    self.apply(from, EventKind::Published { seq, attempt });
                }
            }
            23..=25 => self.fire(member),
            26..=27 => self.signal(member, usize::from(how)),
            28..=31 => self.operate(member, how),
            _ => {}
        }
    }

    fn signal(&mut self, at: usize, which: usize) {
        let signals: Vec<String> = self.members[at].definition.signals().into_iter().map(str::to_owned).collect();
        let Some(signal) = signals.get(which % signals.len().max(1)).cloned() else { return };
        let is_early = self.members[at]
            .definition
            .waits_for(&signal)
            .is_some_and(|step| self.members[at].saga.steps[step.at()] == StepState::Waiting);
        let event = EventKind::Signalled { signal: signal.clone(), payload: Payload::from(json!({ "id": "signal" })) };
        if self.apply(at, event) {
            self.members[at].heard.insert(signal.clone());
            if is_early && self.bug == Bug::LosesEarlySignals {
                self.members[at].saga.signals.remove(&signal);
            }
        }
    }

    fn operate(&mut self, at: usize, how: u8) {
        let steps = u16::try_from(self.members[at].saga.steps.len()).expect("few steps");
        let step = StepIndex(u16::from(how) % steps.max(1));
        let operation = match how {
            0..=3 => Operation::Pause,
            4..=7 => Operation::Resume,
            8 => Operation::Retry { step: None },
            9 => Operation::Skip { step },
            10..=11 => Operation::Compensate,
            12..=13 => Operation::Cancel,
            14 => Operation::Abandon,
            _ => return,
        };
        let meddles = matches!(operation, Operation::Skip { .. } | Operation::Abandon);
        if self.apply(at, EventKind::Operated { operation }) {
            self.has_meddled |= meddles;
        }
    }

    fn fire(&mut self, at: usize) {
        let later = after(self.now, std::time::Duration::from_secs(40));
        self.now = self.members[at].saga.due().unwrap_or(later).max(self.now);
        self.apply(at, EventKind::Due);
    }

    fn deliver(&mut self, message: Message, how: u8) {
        match message {
            Message::Command { from, seq, attempt } => self.obey(from, seq, attempt, how),
            Message::Reply { to, seq, attempt, outcome } => {
                if !self.apply(to, EventKind::Replied { seq, attempt, outcome }) {
                    self.broken("13 a true reply was called illegal");
                }
            }
            Message::ParentEnded { of } => {
                let is_over = |at: &usize| {
                    self.members[*at].saga.parent.as_ref().map(|p| p.saga) == Some(self.members[of].saga.id)
                };
                for child in (0..self.members.len()).filter(is_over).collect::<Vec<_>>() {
                    self.apply(child, EventKind::ParentEnded);
                }
            }
            Message::Look { child } => self.look(child),
        }
    }

    /// What the coordinator does for a sub-saga that looks for its parent's end.
    fn look(&mut self, child: usize) {
        let Some(Parent { saga, step, start, .. }) = self.members[child].saga.parent.clone() else { return };
        let Some(parent) = self.members.iter().find(|member| member.saga.id == saga) else { return };
        let index = parent.definition.find(&step);
        let waits = parent.outbox.values().rfind(|e| Some(e.step) == index && e.direction == Direction::Action);
        let waits = waits.is_some_and(|entry| entry.outcome.is_none());
        if self.bug == Bug::NobodyTells {
            return;
        }
        if parent.saga.state.is_terminal() || self.bug == Bug::ParentSeemsEnded {
            self.apply(child, EventKind::ParentEnded);
        } else if waits {
            self.apply(child, EventKind::Asked { direction: Direction::Action, answer: start });
        }
    }

    /// A command arrives at a service or, for a sub-saga, at the coordinator. `how` says what a service makes of it.
    fn obey(&mut self, from: usize, seq: Seq, attempt: u32, how: u8) {
        let Some(entry) = self.members[from].outbox.get(&seq).cloned() else { return };
        let reply = match self.members[from].definition.step(entry.step).work.clone() {
            Work::Saga { name, .. } => return self.obey_for_child(from, seq, attempt, &entry, &name),
            _ => self.service(from, &entry, how),
        };
        if let Some(outcome) = reply {
            self.send(Message::Reply { to: from, seq, attempt, outcome });
        }
    }

    fn obey_for_child(&mut self, from: usize, seq: Seq, attempt: u32, entry: &Entry, name: &str) {
        let answer = ReplyAddress { token: format!("{from}/{}/{attempt}", seq.0), reply_to: "replies".to_owned() };
        let generation = entry.compensates.unwrap_or(entry.generation);
        let (id, step) = (self.members[from].saga.id, self.members[from].definition.step(entry.step).name.clone());
        let key = format!("{id}/{step}/action/{generation}");
        let holder = self
            .members
            .iter()
            .position(|member| member.definition.reference.name == name && member.key.as_deref() == Some(key.as_str()));
        let direction = entry.direction;
        match holder.filter(|_| self.bug != Bug::StartsTwice || direction == Direction::Compensation) {
            Some(child) => {
                let has_asked = self.members[child].saga.parent.as_ref().is_some_and(|p| p.start != answer);
                if self.bug == Bug::AnswersOnce && has_asked && self.members[child].saga.state.is_terminal() {
                    return;
                }
                self.apply(child, EventKind::Asked { direction, answer });
            }
            None if direction == Direction::Action && entry.outcome.is_some() && self.bug != Bug::NoTombstone => {}
            None => {
                let parent = Parent { saga: id, step, depth: 1, start: answer.clone(), undo: None, held: None };
                let input = Payload::from(entry.body["input"].clone());
                match direction {
                    Direction::Action => self.join(name, Some(key), input, Some(parent), EventKind::Started),
                    Direction::Compensation if self.bug == Bug::NoTombstone => {
                        let outcome = ReplyOutcome::Success { output: Payload::from(Value::Null) };
                        self.send(Message::Reply { to: from, seq, attempt, outcome });
                    }
                    Direction::Compensation => {
                        let input = Payload::from(Value::Null);
                        self.join(name, Some(key), input, Some(parent), EventKind::Entombed { answer });
                    }
                }
            }
        }
    }

    fn service(&mut self, from: usize, entry: &Entry, how: u8) -> Option<ReplyOutcome> {
        let key = |direction, generation| (from, entry.step, direction, generation);
        let own = key(entry.direction, entry.generation);
        let reply = match (self.inbox.get(&own).cloned(), how) {
            (Some(reply), _) => reply,
            (None, 10..=11) => crate::sagas::failure(),
            (None, 12) => crate::sagas::retry_later(),
            (None, 13) => return None,
            (None, _) => {
                let is_there = match entry.compensates.map(|generation| key(Direction::Action, generation)) {
                    None => true,
                    Some(action) => {
                        let problem = Problem::new("tombstoned", "compensated before it came");
                        let known = self.inbox.entry(action).or_insert(ReplyOutcome::Failure { problem });
                        matches!(known, ReplyOutcome::Success { .. })
                    }
                };
                if is_there {
                    let count = self.effects.entry((from, entry.step, entry.direction)).or_default();
                    *count += 1;
                    if *count > 1 {
                        self.broken("6 an effect was made twice");
                    }
                }
                ReplyOutcome::Success { output: Payload::from(json!({ "id": entry.step.0 })) }
            }
        };
        if matches!(reply, ReplyOutcome::Success { .. } | ReplyOutcome::Failure { .. }) {
            self.inbox.insert(own, reply.clone());
        }
        (how != 14).then_some(reply)
    }

    /// A saga is started, or its tombstone is set.
    fn join(&mut self, name: &str, key: Option<String>, input: Payload, parent: Option<Parent>, event: EventKind) {
        let definition = self.definitions[name].clone();
        let definition = match &event {
            EventKind::Entombed { .. } => definition,
            _ => definition.expanded(&input).expect("a list of the input"),
        };
        let number = self.members.len() + 1;
        let id: SagaId = format!("01890000-0000-7000-8000-{number:012}").parse().expect("an id");
        let mut fresh = Saga::new(id, &definition, key.clone(), input, self.now);
        fresh.parent = parent;
        let (history, outbox, saga) = (Vec::new(), BTreeMap::new(), fresh.clone());
        self.members.push(Member { definition, key, fresh, saga, history, outbox, heard: BTreeSet::new() });
        if number > 40 {
            self.broken("16 sagas start one another without end");
            return;
        }
        self.apply(number - 1, event);
    }

    /// Applies the event, watched. Whether it was legal.
    fn apply(&mut self, at: usize, kind: EventKind) -> bool {
        let event = Event { now: self.now, kind };
        let member = &self.members[at];
        let before = member.saga.clone();
        let Ok((mut saga, mut effects)) = transition(&member.definition, &before, &event) else { return false };
        self.misdo(&before, &mut saga, &mut effects);
        let forgets = self.bug == Bug::ForgetsHistory && matches!(event.kind, EventKind::Asked { .. });
        let member = &mut self.members[at];
        member.saga = saga;
        if member.saga.revision != before.revision && !forgets {
            member.history.push(Told { revision: member.saga.revision, event });
        }
        self.check_change(at, &before, &effects);
        for effect in effects {
            self.carry_out(at, effect);
        }
        let member = &self.members[at];
        if member.saga.state.is_terminal() && !before.state.is_terminal() && self.bug != Bug::NobodyTells {
            self.send(Message::ParentEnded { of: at });
        }
        self.check_state(at);
        true
    }

    fn misdo(&self, before: &Saga, saga: &mut Saga, effects: &mut Vec<Effect>) {
        match self.bug {
            Bug::CompletesAtOnce if saga.held().is_some() => {
                saga.parent.as_mut().expect("it is held by one").held = None;
                saga.state = SagaState::Completed;
                saga.ended_at = Some(self.now);
            }
            Bug::RefusesTooEarly => {
                let has_turned = saga.cause.is_some() && before.cause.is_none() && !saga.state.is_terminal();
                if let (true, Some(parent)) = (has_turned, &saga.parent) {
                    let outcome = crate::sagas::failure();
                    effects.push(Effect::Answer { to: parent.start.clone(), outcome });
                }
            }
            Bug::UnknownIsFailed => {
                for step in &mut saga.steps {
                    if let StepState::Compensating { owed, .. } = step
                        && !owed.known
                        && before.parent.is_none()
                    {
                        let problem = Problem::new("timeout", "taken for a refusal");
                        *step = StepState::Failed { seq: None, attempts: 0, generation: 1, problem };
                    }
                }
            }
            Bug::LeavesWaits => {
                effects.retain(|effect| !matches!(effect, Effect::Settle(s) if s.problem.as_ref().is_some_and(|p| p.kind == "given-up" && s.outcome == Outcome::Failure)));
            }
            _ => {}
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::Decide { seq, step, direction, generation, compensates, body } => {
                if direction == Direction::Compensation {
                    self.check_order(at, step);
                }
                let body = body.value().clone();
                let entry = Entry { step, direction, generation, compensates, body, outcome: None };
                let member = &mut self.members[at];
                let is_sent = member.definition.step(step).work.is_sent();
                if member.outbox.insert(seq, entry).is_some() {
                    self.broken("a command's number was used twice");
                }
                if is_sent {
                    self.send(Message::Command { from: at, seq, attempt: 1 });
                }
            }
            Effect::Publish { seq, attempt } => {
                let entry = self.members[at].outbox.get(&seq);
                if entry.is_none_or(|e| e.outcome.is_some()) {
                    self.broken("12 a command is sent again whose entry is VERIFIED or missing");
                }
                self.send(Message::Command { from: at, seq, attempt });
            }
            Effect::Settle(settled) => match self.members[at].outbox.get_mut(&settled.seq) {
                Some(entry) => entry.outcome = Some(settled.outcome),
                None => self.broken("11 a command was settled that was never decided"),
            },
            Effect::Answer { to, outcome } => {
                let numbers: Vec<u32> = to.token.split('/').map(|number| number.parse().expect("a number")).collect();
                let (to, seq, attempt) = (numbers[0] as usize, Seq(numbers[1]), numbers[2]);
                self.send(Message::Reply { to, seq, attempt, outcome });
            }
            Effect::LookAtParent => self.send(Message::Look { child: at }),
            Effect::Note(_) => {}
        }
    }

    fn heal(&mut self) {
        for _ in 0..900 {
            for at in 0..self.members.len() {
                if self.members[at].saga.paused {
                    self.apply(at, EventKind::Operated { operation: Operation::Resume });
                }
            }
            if self.members.iter().all(|member| member.saga.state.is_terminal()) {
                return;
            }
            (0..self.members.len()).for_each(|at| self.signal(at, 0));
            if !self.channel.is_empty() {
                let message = self.channel.remove(0);
                if let Some((from, seq, attempt)) = command(&message) {
                    self.apply(from, EventKind::Published { seq, attempt });
                }
                self.deliver(message, 1);
                continue;
            }
            let dues: Vec<_> =
                self.members.iter().enumerate().filter_map(|(at, member)| Some((member.saga.due()?, at))).collect();
            // What is stuck needs a person; the others wait for it, and look now and then in vain.
            match self.members.iter().position(|member| member.saga.state.stuck().is_some()) {
                Some(at) => self.free(at),
                None => match dues.into_iter().min() {
                    Some((_, at)) => self.fire(at),
                    None => break,
                },
            }
        }
        let states: Vec<_> = self.members.iter().map(|member| member.saga.state.as_str()).collect();
        self.broken(format!("16 no end within a bounded number of events: {states:?}"));
    }

    fn free(&mut self, at: usize) {
        let saga = &self.members[at].saga;
        let Some(stuck) = saga.state.stuck().cloned() else { return };
        if stuck.problem.kind.is_empty() {
            self.broken("16 stuck without a reason");
        }
        // No retry helps: the sub-saga will not go back, or there is nothing to send.
        let is_for_good = ["expression-error", "not-compensable", "sub-saga-past-pivot", "sub-saga-abandoned"];
        let operation = match is_for_good.contains(&stuck.problem.kind.as_str()) {
            true => {
                self.has_meddled = true;
                Operation::Skip { step: stuck.step }
            }
            false => Operation::Retry { step: None },
        };
        if !self.apply(at, EventKind::Operated { operation }) {
            self.broken(format!("16 stuck for good: {:?}", stuck.problem));
            self.apply(at, EventKind::Operated { operation: Operation::Abandon });
        }
    }
}

fn command(message: &Message) -> Option<(usize, Seq, u32)> {
    match message {
        Message::Command { from, seq, attempt } => Some((*from, *seq, *attempt)),
        _ => None,
    }
}
