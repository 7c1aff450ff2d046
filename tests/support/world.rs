//! One saga among participants that keep an inbox, a broker that loses, repeats and reorders, and an operator: random
//! moves. What is checked, and the inbox, are the test kit's.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::sync::Arc;

use amends::definition::Definition;
use amends::id::{Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{Direction, Effect, Event, EventKind, Operation, Reason, ReplyOutcome, Saga, SagaState, StepState};
use amends::testkit::{Entry, ModelInbox, Watched};

use crate::bugs::{Bug, machine};
use crate::sagas::{epoch, failure, retry_later, success};

/// One random thing that happens: `what` it is, to `which` of the candidates, and `how` it goes.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub what: u8,
    pub which: u8,
    pub how: u8,
}

pub struct World {
    bug: Bug,
    watched: Watched,
    now: amends::clock::Timestamp,
    /// Commands on their way, and everything that was ever sent.
    commands: Vec<(Seq, u32)>,
    ever_sent: Vec<(Seq, u32)>,
    replies: Vec<(Seq, u32, ReplyOutcome)>,
    ever_replied: Vec<(Seq, u32, ReplyOutcome)>,
    inbox: ModelInbox,
    output: ReplyOutcome,
}

impl World {
    /// A saga that has just been started. `make` is called twice: some bugs misread the definition.
    pub fn new(make: impl Fn() -> Definition, input: serde_json::Value, output: serde_json::Value, bug: Bug) -> Self {
        let id = "01890000-0000-7000-8000-000000000001".parse().expect("an id");
        let (definition, machine) = (Arc::new(make()), machine(bug, make()));
        let watched = Watched::new(definition, machine, id, None, Payload::from(input), epoch());
        let mut inbox = ModelInbox::default();
        inbox.remembers = bug != Bug::NoInbox;
        inbox.leaves_tombstones = bug != Bug::NoTombstone;
        let mut world = Self {
            bug,
            watched,
            now: epoch(),
            commands: Vec::new(),
            ever_sent: Vec::new(),
            replies: Vec::new(),
            ever_replied: Vec::new(),
            inbox,
            output: ReplyOutcome::Success { output: Payload::from(output) },
        };
        world.apply(EventKind::Started);
        world
    }

    /// Every breach of a guarantee.
    pub fn violations(&self) -> &BTreeSet<String> {
        &self.watched.violations
    }

    /// Every state that the saga was in.
    pub fn reached(&self) -> &BTreeSet<&'static str> {
        &self.watched.reached
    }

    /// The random part, then faults stop and everything is answered, then every old message comes once more.
    pub fn run(&mut self, moves: &[Move]) {
        self.happen(moves);
        self.heal();
        self.repeat_everything();
        if self.bug == Bug::ForgetsHistory {
            self.watched.history.retain(|told| !matches!(told.event.kind, EventKind::Published { .. }));
        }
        self.watched.check_end();
    }

    /// The random part alone.
    pub fn happen(&mut self, moves: &[Move]) {
        for &one in moves {
            self.make(one);
        }
    }

    /// The saga's state, in the contract's words.
    pub fn state(&self) -> &'static str {
        self.watched.saga().state.as_str()
    }

    /// Moves the saga to `to`, if that is allowed.
    pub fn migrate(&mut self, to: Definition) -> Result<(), Vec<Reason>> {
        let from = self.watched.definition().clone();
        let effects = self.watched.migrate(Arc::new(to), self.now)?;
        self.has_moved(&from);
        self.carry_out(effects);
        Ok(())
    }

    /// The mistake: the state is taken over by name, and nobody asks whether it fits.
    pub fn migrate_unasked(&mut self, to: Definition) {
        let (from, before) = (self.watched.definition().clone(), self.watched.saga().clone());
        let state = |index: StepIndex| from.find(&to.step(index).name).map(|old| before.steps[old.at()].clone());
        let steps = to.indices().map(|index| state(index).unwrap_or(StepState::Waiting)).collect();
        let definition = to.reference.clone();
        let mut saga = Saga { definition, steps, revision: before.revision + 1, ..before.clone() };
        if let SagaState::Stuck(stuck) = &mut saga.state {
            stuck.step = to.find(&from.step(stuck.step).name).unwrap_or(StepIndex(0));
        }
        self.watched.replace(saga, Arc::new(to));
        self.has_moved(&from);
    }

    fn has_moved(&mut self, from: &Definition) {
        let to = self.watched.definition();
        self.inbox.renumber(|index| to.find(&from.step(index).name));
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
            27 if which.is_multiple_of(2) => {
                self.apply(EventKind::Due);
            }
            27 => self.signal(usize::from(how)),
            28..=31 => self.operate(which, how),
            _ => {}
        }
    }

    /// Somebody sends a signal: early, in time, late or once more.
    fn signal(&mut self, which: usize) {
        let signals: Vec<String> = self.watched.definition().signals().into_iter().map(str::to_owned).collect();
        if let Some(signal) = signals.get(which % signals.len().max(1)) {
            let payload = Payload::from(serde_json::json!({ "id": "signal", "n": 2 }));
            self.apply(EventKind::Signalled { signal: signal.clone(), payload });
        }
    }

    fn operate(&mut self, which: u8, how: u8) {
        let step = StepIndex(u16::from(which) % u16::try_from(self.watched.saga().steps.len()).expect("few steps"));
        let operation = match how {
            0..=2 => Operation::Pause,
            3..=6 => Operation::Resume,
            7..=8 => Operation::Retry { step: None },
            9 => Operation::Retry { step: Some(step) },
            10..=12 => Operation::Skip { step },
            13 => Operation::Compensate,
            14 => Operation::Cancel,
            _ if which.is_multiple_of(4) => Operation::Abandon,
            _ => Operation::Edit { step, input: Payload::from(serde_json::json!({ "edited": which })) },
        };
        self.apply(EventKind::Operated { operation });
    }

    fn fire(&mut self) {
        let later = amends::clock::after(self.now, crate::sagas::ATTEMPT * 2);
        self.now = self.watched.saga().due().unwrap_or(later).max(self.now);
        self.apply(EventKind::Due);
    }

    fn answer(&mut self, (seq, attempt, outcome): (Seq, u32, ReplyOutcome)) {
        if !self.apply(EventKind::Replied { seq, attempt, outcome }) {
            self.watched.broken("13 a true reply was called illegal");
        }
    }

    /// A participant receives a command. `how` says what it makes of it.
    fn deliver(&mut self, (seq, attempt): (Seq, u32), how: u8) {
        let Some(entry) = self.watched.entry(seq).cloned() else { return };
        let reply = match (self.inbox.known(&entry).cloned(), how) {
            (Some(reply), _) => reply,
            (None, 10..=11) => failure(),
            (None, 12) => retry_later(),
            (None, 13) => ReplyOutcome::InProgress,
            (None, 14) => return,
            (None, _) => {
                self.perform(&entry);
                if entry.direction == Direction::Action { self.output.clone() } else { success() }
            }
        };
        self.inbox.record(&entry, &reply);
        self.ever_replied.push((seq, attempt, reply.clone()));
        // The reply itself may be lost.
        if how != 15 {
            self.replies.push((seq, attempt, reply));
        }
    }

    fn perform(&mut self, entry: &Entry) {
        if let (Direction::Compensation, Some(action)) = (entry.direction, entry.compensates) {
            self.watched.has_amended(entry.step, action);
            if !self.inbox.has_something_to_undo(entry) {
                return;
            }
        }
        self.watched.has_taken_effect(entry.step, entry.direction, entry.generation);
    }

    fn heal(&mut self) {
        if self.watched.saga().paused {
            self.apply(EventKind::Operated { operation: Operation::Resume });
        }
        for _ in 0..400 {
            if self.watched.saga().state.is_terminal() {
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
            if self.watched.saga().due().is_some() {
                self.fire();
            } else if let SagaState::Stuck(stuck) = &self.watched.saga().state {
                // What an expression cannot give, for example because an operator skipped the step that it reads, no
                // retry will.
                if stuck.problem.kind == "expression-error" {
                    return;
                }
                self.apply(EventKind::Operated { operation: Operation::Retry { step: None } });
            } else if !self.watched.saga().state.is_terminal() {
                let state = self.watched.saga().state.as_str();
                self.watched.broken(format!("16 {state} with nothing that could move it"));
                return;
            }
        }
        self.watched.broken("16 no end within a bounded number of events");
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
        let Ok(effects) = self.watched.apply(&Event { now: self.now, kind }) else { return false };
        self.carry_out(effects);
        true
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let (Effect::Decide { seq, .. } | Effect::Publish { seq, .. }) = effect else { continue };
            let attempt = if let Effect::Publish { attempt, .. } = effect { attempt } else { 1 };
            let entry = self.watched.entry(seq).expect("what was decided is known");
            if !self.watched.definition().step(entry.step).work.is_sent() {
                continue;
            }
            self.commands.push((seq, attempt));
            self.ever_sent.push((seq, attempt));
        }
    }
}
