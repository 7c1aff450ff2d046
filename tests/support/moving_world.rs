//! One saga among participants that keep an inbox, a broker that loses, repeats and reorders, and an operator; and a
//! checker that watches it all from outside, by what is sent and what takes effect.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::{BTreeMap, BTreeSet};

use amends::definition::{Definition, Graph};
use amends::id::{Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{
    Direction, Effect, Event, EventKind, Operation, Outcome, Problem, ReplyOutcome, Saga, SagaState, Skip, StepState,
    Told, replay, transition,
};

use crate::sagas::{Shape, definition, epoch, failure, retry_later, success};

#[path = "world_migration.rs"]
mod migration;

/// A mistake planted in the machine or in the participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    DropsSettlements,
    CompensatesInAnyOrder,
    UnknownIsFailed,
    IgnoresThePivot,
    NoTombstone,
    NoInbox,
    RevisionJumps,
    SendsWhilePaused,
    ChangesTheDead,
    NeverEnds,
    ForgetsHistory,
}

/// One random thing that happens: `what` it is, to `which` of the candidates, and `how` it goes.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub what: u8,
    pub which: u8,
    pub how: u8,
}

/// An outbox entry as the checker sees it.
#[derive(Clone, Debug)]
struct Entry {
    step: StepIndex,
    direction: Direction,
    generation: u32,
    compensates: Option<u32>,
    outcome: Option<Outcome>,
}

type Key = (StepIndex, Direction, u32);

pub struct World {
    definition: Definition,
    /// What it was before the saga was moved.
    earlier: Vec<Definition>,
    /// What the machine is run with where the bug is a misread definition.
    wrong: Definition,
    bug: Bug,
    saga: Saga,
    now: amends::clock::Timestamp,
    history: Vec<Told>,
    outbox: BTreeMap<Seq, Entry>,
    /// Commands on their way, and everything that was ever sent.
    commands: Vec<(Seq, u32)>,
    ever_sent: Vec<(Seq, u32)>,
    replies: Vec<(Seq, u32, ReplyOutcome)>,
    ever_replied: Vec<(Seq, u32, ReplyOutcome)>,
    inbox: BTreeMap<Key, ReplyOutcome>,
    /// Effects in participants' databases.
    took_effect: BTreeMap<(StepIndex, Direction), u32>,
    /// Steps whose compensation was done, with or without an effect, by key of the action.
    amended: BTreeSet<(StepIndex, u32)>,
    ends_seen: BTreeSet<&'static str>,
    pub violations: BTreeSet<String>,
    /// Every state that the saga was in.
    pub reached: BTreeSet<&'static str>,
}

impl World {
    pub fn new(shapes: &[Shape], has_timeout: bool, bug: Bug) -> Self {
        let timeout = has_timeout.then_some(std::time::Duration::from_secs(60));
        let right = definition(shapes, timeout);
        let mut wrong = definition(shapes, timeout);
        match bug {
            Bug::CompensatesInAnyOrder => {
                wrong.graph = Graph::new(vec![Vec::new(); shapes.len()]).expect("no edges, no cycle");
            }
            Bug::IgnoresThePivot => wrong.steps.iter_mut().for_each(|step| step.pivot = false),
            _ => {}
        }
        let id = "01890000-0000-7000-8000-000000000001".parse().expect("an id");
        let input = Payload::from(serde_json::json!({ "order": 1 }));
        let saga = Saga::new(id, &right, None, input, epoch());
        let mut world = Self {
            definition: right,
            earlier: Vec::new(),
            wrong,
            bug,
            saga,
            now: epoch(),
            history: Vec::new(),
            outbox: BTreeMap::new(),
            commands: Vec::new(),
            ever_sent: Vec::new(),
            replies: Vec::new(),
            ever_replied: Vec::new(),
            inbox: BTreeMap::new(),
            took_effect: BTreeMap::new(),
            amended: BTreeSet::new(),
            ends_seen: BTreeSet::new(),
            violations: BTreeSet::new(),
            reached: BTreeSet::new(),
        };
        world.apply(EventKind::Started);
        world
    }

    /// The random part, then faults stop and everything is answered, then every old message comes once more.
    pub fn run(&mut self, moves: &[Move]) {
        self.happen(moves);
        self.heal();
        self.repeat_everything();
        self.check_end();
    }

    /// The random part alone.
    pub fn happen(&mut self, moves: &[Move]) {
        for &one in moves {
            self.make(one);
        }
    }

    fn broken(&mut self, what: impl Into<String>) {
        self.violations.insert(what.into());
    }

    fn make(&mut self, Move { what, which, how }: Move) {
        let at = |len: usize| usize::from(which) % len;
        match what {
            0..=9 if !self.commands.is_empty() => {
                let command = self.commands[at(self.commands.len())];
                if how != 0 {
                    self.commands.retain(|other| *other != command);
                }
                self.deliver(command, how);
            }
            10..=17 if !self.replies.is_empty() => {
                let index = at(self.replies.len());
                let reply = if how == 0 { self.replies[index].clone() } else { self.replies.swap_remove(index) };
                self.answer(reply);
            }
            18 if !self.commands.is_empty() => drop(self.commands.swap_remove(at(self.commands.len()))),
            19 if !self.replies.is_empty() => drop(self.replies.swap_remove(at(self.replies.len()))),
            20 if !self.ever_replied.is_empty() => self.answer(self.ever_replied[at(self.ever_replied.len())].clone()),
            21..=22 if !self.ever_sent.is_empty() => {
                let (seq, attempt) = self.ever_sent[at(self.ever_sent.len())];
                self.apply(EventKind::Published { seq, attempt });
            }
            23..=26 => self.fire(),
            27 => {
                self.apply(EventKind::Due);
            }
            28..=31 => self.operate(which, how),
            _ => {}
        }
    }

    fn operate(&mut self, which: u8, how: u8) {
        let step = StepIndex(u16::from(which) % u16::try_from(self.saga.steps.len()).expect("few steps"));
        let operation = match how {
            0..=2 => Operation::Pause,
            3..=6 => Operation::Resume,
            7..=8 => Operation::Retry { step: None },
            9 => Operation::Retry { step: Some(step) },
            10..=12 => Operation::Skip { step },
            13 => Operation::Compensate,
            14 => Operation::Cancel,
            _ if which.is_multiple_of(4) => Operation::Abandon,
            _ => return,
        };
        self.apply(EventKind::Operated { operation });
    }

    fn fire(&mut self) {
        let later = amends::clock::after(self.now, crate::sagas::ATTEMPT * 2);
        self.now = self.saga.due().unwrap_or(later).max(self.now);
        self.apply(EventKind::Due);
    }

    fn answer(&mut self, (seq, attempt, outcome): (Seq, u32, ReplyOutcome)) {
        if !self.apply(EventKind::Replied { seq, attempt, outcome }) {
            self.broken("13 a true reply was called illegal");
        }
    }

    /// A participant receives a command. `how` says what it makes of it.
    fn deliver(&mut self, (seq, attempt): (Seq, u32), how: u8) {
        let Some(Entry { step, direction, generation, compensates, .. }) = self.outbox.get(&seq).cloned() else {
            return;
        };
        let key = (step, direction, generation);
        let known = self.inbox.get(&key).cloned().filter(|_| self.bug != Bug::NoInbox);
        let reply = match (known, how) {
            (Some(reply), _) => reply,
            (None, 10..=11) => failure(),
            (None, 12) => retry_later(),
            (None, 13) => ReplyOutcome::InProgress,
            (None, 14) => return,
            (None, _) => {
                self.perform(step, direction, generation, compensates);
                success()
            }
        };
        if matches!(reply, ReplyOutcome::Success { .. } | ReplyOutcome::Failure { .. }) {
            self.inbox.insert(key, reply.clone());
        }
        self.ever_replied.push((seq, attempt, reply.clone()));
        // The reply itself may be lost.
        if how != 15 {
            self.replies.push((seq, attempt, reply));
        }
    }

    fn perform(&mut self, step: StepIndex, direction: Direction, generation: u32, compensates: Option<u32>) {
        match (direction, compensates) {
            (Direction::Action, _) => {
                if self.amended.contains(&(step, generation)) {
                    self.broken("7 an action took effect after its compensation");
                }
            }
            (Direction::Compensation, compensates) => {
                let action = compensates.unwrap_or_default();
                self.amended.insert((step, action));
                match self.inbox.get(&(step, Direction::Action, action)) {
                    Some(ReplyOutcome::Success { .. }) => {}
                    Some(_) => return,
                    None => {
                        if self.bug != Bug::NoTombstone {
                            let problem = Problem::new("tombstoned", "compensated before it came");
                            self.inbox.insert((step, Direction::Action, action), ReplyOutcome::Failure { problem });
                        }
                        return;
                    }
                }
            }
        }
        let count = self.took_effect.entry((step, direction)).or_default();
        *count += 1;
        if *count > 1 {
            self.broken("6 an effect was made twice");
        }
    }

    fn heal(&mut self) {
        if self.saga.paused {
            self.apply(EventKind::Operated { operation: Operation::Resume });
        }
        for _ in 0..400 {
            if self.saga.state.is_terminal() {
                return;
            }
            while let Some(command) = self.commands.pop() {
                let (seq, attempt) = command;
                self.apply(EventKind::Published { seq, attempt });
                self.deliver(command, 1);
            }
            while let Some(reply) = self.replies.pop() {
                self.answer(reply);
            }
            if self.saga.due().is_some() {
                self.fire();
            } else if let SagaState::Stuck(stuck) = &self.saga.state {
                if stuck.problem.kind.is_empty() {
                    self.broken("16 stuck without a reason");
                }
                self.apply(EventKind::Operated { operation: Operation::Retry { step: None } });
            } else if !self.saga.state.is_terminal() {
                self.broken(format!("16 {} with nothing that could move it", self.saga.state.as_str()));
                return;
            }
        }
        self.broken("16 no end within a bounded number of events");
    }

    /// A day later the broker delivers everything once more.
    fn repeat_everything(&mut self) {
        for command in self.ever_sent.clone() {
            self.deliver(command, 1);
        }
        for reply in self.ever_replied.clone() {
            self.answer(reply);
        }
        for (seq, attempt) in self.ever_sent.clone() {
            self.apply(EventKind::Published { seq, attempt });
        }
        self.apply(EventKind::Due);
    }

    /// Applies the event, watched. Whether it was legal.
    fn apply(&mut self, kind: EventKind) -> bool {
        let event = Event { now: self.now, kind };
        let Ok((after, effects)) = self.buggy_transition(&event) else { return false };
        let before = std::mem::replace(&mut self.saga, after);
        let skips_history = self.bug == Bug::ForgetsHistory && matches!(event.kind, EventKind::Published { .. });
        if self.saga.revision != before.revision && !skips_history {
            self.history.push(Told { revision: self.saga.revision, event: event.clone() });
        }
        self.reached.insert(self.saga.state.as_str());
        self.check_round_trip(&event.kind);
        self.check_step(&before, &effects);
        for effect in &effects {
            self.carry_out(effect);
        }
        self.check_state();
        true
    }

    fn buggy_transition(&mut self, event: &Event) -> Result<(Saga, Vec<Effect>), ()> {
        let mut given = self.saga.clone();
        if self.bug == Bug::SendsWhilePaused && event.kind == EventKind::Due {
            given.paused = false;
        }
        let definition = match self.bug {
            Bug::IgnoresThePivot => &self.wrong,
            Bug::CompensatesInAnyOrder if self.saga.cause.is_some() => &self.wrong,
            _ => &self.definition,
        };
        let (mut saga, mut effects) = transition(definition, &given, event).map_err(drop)?;
        match self.bug {
            Bug::DropsSettlements => {
                effects.retain(|effect| !matches!(effect, Effect::Settle(s) if s.outcome == Outcome::Unknown));
            }
            Bug::UnknownIsFailed => {
                while let Some((at, seq)) = unsure(&saga) {
                    effects.retain(|effect| !matches!(effect, Effect::Decide { seq: s, .. } if *s == seq));
                    let kind = EventKind::Replied { seq, attempt: 1, outcome: success() };
                    let revision = saga.revision;
                    let (next, more) = transition(definition, &saga, &Event { now: event.now, kind }).map_err(drop)?;
                    saga = Saga { revision, ..next };
                    effects.extend(more.into_iter().filter(|e| !matches!(e, Effect::Settle(s) if s.seq == seq)));
                    let problem = Problem::new("timeout", "taken for a refusal");
                    saga.steps[at] = StepState::Failed { seq: None, attempts: 0, generation: 1, problem };
                }
            }
            Bug::RevisionJumps if saga.revision > 3 && saga.revision != self.saga.revision => saga.revision += 1,
            Bug::SendsWhilePaused => {
                saga.paused = saga.paused || (self.saga.paused && event.kind == EventKind::Due);
            }
            Bug::ChangesTheDead if self.saga.state.is_terminal() => saga.revision += 1,
            Bug::NeverEnds if saga.state == SagaState::Completed => saga.state = SagaState::Running,
            _ => {}
        }
        Ok((saga, effects))
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Decide { seq, step, direction, generation, compensates, .. } => {
                let (step, direction, generation, compensates) = (*step, *direction, *generation, *compensates);
                self.check_decision(step, direction, compensates);
                let entry = Entry { step, direction, generation, compensates, outcome: None };
                if self.outbox.insert(*seq, entry).is_some() {
                    self.broken("a command's number was used twice");
                }
                self.commands.push((*seq, 1));
                self.ever_sent.push((*seq, 1));
            }
            Effect::Publish { seq, attempt } => {
                if self.outbox.get(seq).is_none_or(|entry| entry.outcome.is_some()) {
                    self.broken("12 a command is sent again whose entry is VERIFIED or missing");
                }
                self.commands.push((*seq, *attempt));
                self.ever_sent.push((*seq, *attempt));
            }
            Effect::Settle(settled) => match self.outbox.get_mut(&settled.seq) {
                Some(entry) => entry.outcome = Some(settled.outcome),
                None => self.broken("11 a command was settled that was never decided"),
            },
            Effect::Answer { .. } | Effect::LookAtParent => {}
            Effect::Note(_) => {}
        }
    }

    fn last(&self, step: StepIndex, direction: Direction) -> Option<&Entry> {
        self.outbox.values().rev().find(|entry| entry.step == step && entry.direction == direction)
    }

    fn is_compensation_skipped(&self, step: StepIndex) -> bool {
        matches!(self.saga.steps[step.at()], StepState::Skipped { by: Skip::OperatorCompensation { .. } })
    }

    /// Whether, as far as anyone can see from outside, nothing of the step is left to undo.
    fn is_amended(&self, step: StepIndex) -> bool {
        let Some(action) = self.last(step, Direction::Action) else { return true };
        let is_undone =
            self.last(step, Direction::Compensation).is_some_and(|undo| undo.outcome == Some(Outcome::Success));
        let needs_none = self.definition.step(step).compensation.action().is_none();
        action.outcome == Some(Outcome::Failure)
            || is_undone
            || action.outcome.is_some() && needs_none
            || self.is_compensation_skipped(step)
    }

    fn check_decision(&mut self, step: StepIndex, direction: Direction, compensates: Option<u32>) {
        let pivot_holds = self.definition.pivot().is_some_and(|pivot| {
            self.last(pivot, Direction::Action).is_some_and(|entry| entry.outcome != Some(Outcome::Failure))
        });
        let others: Vec<StepIndex> = self.definition.indices().collect();
        match direction {
            Direction::Action => {
                for before in others.iter().filter(|&&other| self.definition.graph.is_before(other, step)) {
                    if !matches!(self.saga.steps[before.at()], StepState::Verified { .. } | StepState::Skipped { .. }) {
                        self.violations.insert("order: a step was sent before one that it depends on was done".into());
                    }
                }
            }
            Direction::Compensation => {
                let action = self.last(step, Direction::Action).map(|entry| (entry.generation, entry.outcome));
                match action {
                    None => self.broken("8 a step that was never sent was compensated"),
                    Some((_, Some(Outcome::Failure))) => self.broken("8 a refused step was compensated"),
                    Some((generation, _)) if compensates != Some(generation) => {
                        self.broken("8 a compensation names another action");
                    }
                    Some(_) => {}
                }
                if pivot_holds {
                    self.broken("10 a compensation was sent after the pivot");
                }
                for &later in self.definition.graph.descendants(step).to_vec().iter() {
                    if !self.is_amended(later) {
                        self.broken("9 a step was compensated before one that depends on it");
                    }
                }
            }
        }
    }

    fn check_step(&mut self, before: &Saga, effects: &[Effect]) {
        let sends = effects.iter().any(|e| matches!(e, Effect::Decide { .. } | Effect::Publish { .. }));
        let settles = effects.iter().any(|e| matches!(e, Effect::Settle(_)));
        let has_changed = Saga { revision: 0, ..before.clone() } != Saga { revision: 0, ..self.saga.clone() };
        let rise = self.saga.revision - before.revision;
        if rise > 1 || (has_changed || sends || settles) && rise == 0 {
            self.broken("revision did not rise by one with an event that changed the saga");
        }
        if before.state.is_terminal() && (has_changed || rise > 0 || sends || settles) {
            self.broken("4 a terminal state is final");
        }
        if before.paused && self.saga.paused && sends {
            self.broken("pause: a paused saga sent something");
        }
    }

    fn check_state(&mut self) {
        let ended = match self.saga.state {
            SagaState::Completed => Some("completed"),
            SagaState::Compensated => Some("compensated"),
            _ => None,
        };
        self.ends_seen.extend(ended);
        if self.ends_seen.len() > 1 {
            self.broken("5 both completed and compensated");
        }
        let is_terminal = self.saga.state.is_terminal();
        if is_terminal && self.outbox.values().any(|entry| entry.outcome.is_none()) {
            self.broken("11 a terminal saga has a PENDING entry");
        }
        let flies = self.saga.steps.iter().any(|step| step.in_flight().is_some());
        let is_stuck = self.saga.state.stuck().is_some();
        let is_at_rest = self.saga.paused || is_terminal || is_stuck && !flies;
        if self.saga.due().is_none() != is_at_rest {
            self.broken(format!("16 due() of a saga that is {} is {:?}", self.saga.state.as_str(), self.saga.due()));
        }
    }

    fn check_round_trip(&mut self, kind: &EventKind) {
        let text = serde_json::to_string(&self.saga.steps).expect("steps are JSON");
        let back: Result<Vec<StepState>, _> = serde_json::from_str(&text);
        if back.ok().as_ref() != Some(&self.saga.steps) {
            self.broken(format!("store: steps come back changed: {text}"));
        }
        let text = serde_json::to_string(kind).expect("an event is JSON");
        if serde_json::from_str::<EventKind>(&text).ok().as_ref() != Some(kind) {
            self.broken(format!("store: an event comes back changed: {text}"));
        }
    }

    fn check_end(&mut self) {
        let fresh = Saga::new(self.saga.id, &self.definition, None, self.saga.input.clone(), epoch());
        if self.earlier.is_empty() && (self.bug == Bug::None || self.bug == Bug::ForgetsHistory) {
            match replay(&self.definition, fresh, &self.history) {
                Ok(saga) if saga == self.saga => {}
                other => self.broken(format!("3 the replay gives something else: {other:?}")),
            }
        }
        for step in self.definition.indices().collect::<Vec<_>>() {
            let count = |direction| self.took_effect.get(&(step, direction)).copied().unwrap_or_default();
            let (done, undone) = (count(Direction::Action), count(Direction::Compensation));
            let state = &self.saga.steps[step.at()];
            let is_compensable = self.definition.step(step).compensation.action().is_some();
            match self.saga.state {
                SagaState::Compensated => {
                    if !self.is_amended(step) {
                        self.broken("8 a step of outcome success or unknown was not compensated");
                    }
                    if is_compensable && !self.is_compensation_skipped(step) && done != undone {
                        self.broken("net effect: a step of a compensated saga stands");
                    }
                }
                SagaState::Completed if matches!(state, StepState::Verified { .. }) && (done, undone) != (1, 0) => {
                    self.broken("net effect: a step of a completed saga does not stand exactly once");
                }
                _ => {}
            }
        }
    }
}

/// A step whose outcome nobody knows and whose compensation has been sent, with that command.
fn unsure(saga: &Saga) -> Option<(usize, Seq)> {
    saga.steps.iter().enumerate().find_map(|(at, step)| match (step, step.in_flight()) {
        (StepState::Compensating { owed, .. }, Some((_, command))) if !owed.known => Some((at, command.seq)),
        _ => None,
    })
}
