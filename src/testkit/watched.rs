//! One saga, watched from outside: by what is decided, sent and settled, and by what takes effect in participants'
//! databases. Checks the guarantees at every state, whatever drives the saga.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::definition::Definition;
use crate::id::{SagaId, Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::{
    Direction, Effect, Event, EventKind, IllegalTransition, Outcome, Phase, Reason, ReplyOutcome, Saga, SagaState,
    Skip, StepState, Told, migrate, replay_across, transition,
};

/// What a saga is run through: [`transition`], or in a test a broken one.
#[derive(Clone)]
pub struct Machine(Arc<Run>);

type Run = dyn Fn(&Definition, &Saga, &Event) -> Result<(Saga, Vec<Effect>), IllegalTransition> + Send + Sync;

impl Machine {
    /// A machine of the caller's own: the way to plant a bug and see that it is caught.
    pub fn new(
        run: impl Fn(&Definition, &Saga, &Event) -> Result<(Saga, Vec<Effect>), IllegalTransition> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(run))
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new(transition)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Machine")
    }
}

/// An outbox entry as it is seen from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The step.
    pub step: StepIndex,
    /// Forward or back.
    pub direction: Direction,
    /// The last part of the idempotency key.
    pub generation: u32,
    /// On a compensation: the generation of the action that it undoes.
    pub compensates: Option<u32>,
    /// The command's body.
    pub body: Payload,
    /// What became of it; `None` while PENDING.
    pub outcome: Option<Outcome>,
}

/// A saga, its outbox and its participants' effects, with every breach of a guarantee that was seen.
#[derive(Clone, Debug)]
pub struct Watched {
    definition: Arc<Definition>,
    /// What it was before the saga was moved to another version, oldest first.
    earlier: Vec<Arc<Definition>>,
    machine: Machine,
    fresh: Saga,
    saga: Saga,
    outbox: BTreeMap<Seq, Entry>,
    /// Effects in participants' databases.
    took_effect: BTreeMap<(StepIndex, Direction), u32>,
    /// Steps whose compensation was done, with or without an effect, by generation of the action.
    amended: BTreeSet<(StepIndex, u32)>,
    /// Ends that were ever seen.
    ends: BTreeSet<&'static str>,
    /// What is known to come back from the stores as it was, where one of each shape is enough.
    known: Option<HashSet<Shape>>,
    /// Every event that changed the saga, in order.
    pub history: Vec<Told>,
    /// Every breach that was seen, each starting with the number of the guarantee, where it is one of the numbered.
    pub violations: BTreeSet<String>,
    /// Every state that the saga was in, as words of the contract.
    pub reached: BTreeSet<&'static str>,
}

impl Watched {
    /// A saga that has not been started. `definition` is [expanded](Definition::expanded) for `input`.
    pub fn new(
        definition: Arc<Definition>,
        machine: Machine,
        id: SagaId,
        key: Option<String>,
        input: Payload,
        now: Timestamp,
    ) -> Self {
        let fresh = Saga::new(id, &definition, key, input, now);
        Self {
            definition,
            earlier: Vec::new(),
            machine,
            saga: fresh.clone(),
            fresh,
            outbox: BTreeMap::new(),
            took_effect: BTreeMap::new(),
            amended: BTreeSet::new(),
            ends: BTreeSet::new(),
            known: None,
            history: Vec::new(),
            violations: BTreeSet::new(),
            reached: BTreeSet::new(),
        }
    }

    /// Checks only one state and event of each shape for whether it comes back from the stores as it was. The rest
    /// differs in numbers and times, and to write and read all of them takes half the time of an exploration.
    #[must_use]
    pub fn sparing(self) -> Self {
        Self { known: Some(HashSet::new()), ..self }
    }

    /// The definition.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The saga as it is now.
    pub fn saga(&self) -> &Saga {
        &self.saga
    }

    /// The outbox entry of a command that was decided.
    pub fn entry(&self, seq: Seq) -> Option<&Entry> {
        self.outbox.get(&seq)
    }

    /// How often the step took effect in this direction.
    pub fn effects_of(&self, step: StepIndex, direction: Direction) -> u32 {
        self.took_effect.get(&(step, direction)).copied().unwrap_or_default()
    }

    /// Records a breach.
    pub fn broken(&mut self, what: impl Into<String>) {
        self.violations.insert(what.into());
    }

    /// What the machine would make of the event; nothing is recorded.
    ///
    /// # Errors
    /// When the saga's state does not allow it.
    pub fn peek(&self, event: &Event) -> Result<(Saga, Vec<Effect>), IllegalTransition> {
        (self.machine.0)(&self.definition, &self.saga, event)
    }

    /// Applies the event and checks everything that can be checked. Returns what is to be carried out.
    ///
    /// # Errors
    /// When the saga's state does not allow it; nothing has changed then.
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, IllegalTransition> {
        let (after, effects) = self.peek(event)?;
        let before = std::mem::replace(&mut self.saga, after);
        if self.saga.revision != before.revision {
            self.history.push(Told { revision: self.saga.revision, event: event.clone() });
        }
        self.reached.insert(self.saga.state.as_str());
        if self.saga.revision != before.revision {
            self.check_round_trip(&before, &event.kind);
        }
        self.check_change(&before, &effects);
        for effect in &effects {
            self.record(effect);
        }
        self.check_state();
        Ok(effects)
    }

    /// Moves the saga to another version, as an operator would. `to` is expanded for the saga's input.
    ///
    /// # Errors
    /// Every reason why it must not be moved; nothing has changed then.
    pub fn migrate(&mut self, to: Arc<Definition>, now: Timestamp) -> Result<Vec<Effect>, Vec<Reason>> {
        let (saga, effects) = migrate(&self.definition, &to, &self.saga, now)?;
        let kind = EventKind::Migrated { from: self.saga.definition.version, to: saga.definition.version };
        let before = self.replace(saga, to);
        self.check_round_trip(&before, &kind);
        self.history.push(Told { revision: self.saga.revision, event: Event { now, kind } });
        self.check_change(&before, &effects);
        for effect in &effects {
            self.record(effect);
        }
        self.check_state();
        Ok(effects)
    }

    /// Puts another saga and definition in place, unchecked and not told in the history; gives the saga that was there.
    /// Whatever is known by a step's place goes by the place of the step of the same name; of steps that are gone,
    /// nothing is known any more.
    pub fn replace(&mut self, saga: Saga, definition: Arc<Definition>) -> Saga {
        let from = std::mem::replace(&mut self.definition, definition);
        let new = |index: StepIndex| self.definition.find(&from.step(index).name);
        let outbox = std::mem::take(&mut self.outbox).into_iter();
        self.outbox =
            outbox.filter_map(|(seq, entry)| Some((seq, Entry { step: new(entry.step)?, ..entry }))).collect();
        let effects = std::mem::take(&mut self.took_effect).into_iter();
        self.took_effect = effects.filter_map(|((step, way), count)| Some(((new(step)?, way), count))).collect();
        let amended = std::mem::take(&mut self.amended).into_iter();
        self.amended = amended.filter_map(|(step, generation)| Some((new(step)?, generation))).collect();
        self.earlier.push(from);
        std::mem::replace(&mut self.saga, saga)
    }

    /// A participant has carried out a command, and its database shows it.
    pub fn has_taken_effect(&mut self, step: StepIndex, direction: Direction, generation: u32) {
        if direction == Direction::Action && self.amended.contains(&(step, generation)) {
            self.broken("7 an action took effect after its compensation");
        }
        let count = self.took_effect.entry((step, direction)).or_default();
        *count += 1;
        if *count > 1 {
            self.broken("6 an effect was made twice");
        }
    }

    /// A participant has answered a compensation with success, whether there was anything to undo or not.
    pub fn has_amended(&mut self, step: StepIndex, action_generation: u32) {
        self.amended.insert((step, action_generation));
    }

    fn record(&mut self, effect: &Effect) {
        match effect {
            Effect::Decide { seq, step, direction, generation, compensates, body } => {
                let (step, direction, generation, compensates) = (*step, *direction, *generation, *compensates);
                self.check_decision(step, direction, compensates);
                let entry = Entry { step, direction, generation, compensates, body: body.clone(), outcome: None };
                if self.outbox.insert(*seq, entry).is_some() {
                    self.broken("a command's number was used twice");
                }
            }
            Effect::Publish { seq, .. } => {
                if self.outbox.get(seq).is_none_or(|entry| entry.outcome.is_some()) {
                    self.broken("12 a command is sent again whose entry is VERIFIED or missing");
                }
            }
            Effect::Settle(settled) => match self.outbox.get_mut(&settled.seq) {
                Some(entry) => entry.outcome = Some(settled.outcome),
                None => self.broken("11 a command was settled that was never decided"),
            },
            Effect::Answer { .. } | Effect::LookAtParent | Effect::Note(_) => {}
        }
    }

    /// The newest command of a step in a direction.
    fn last(&self, step: StepIndex, direction: Direction) -> Option<&Entry> {
        self.outbox.values().rev().find(|entry| entry.step == step && entry.direction == direction)
    }

    fn step(&self, step: StepIndex) -> Option<&StepState> {
        self.saga.steps.get(step.at())
    }

    fn is_compensation_skipped(&self, step: StepIndex) -> bool {
        matches!(self.step(step), Some(StepState::Skipped { by: Skip::OperatorCompensation { .. } }))
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
        let definition = self.definition.clone();
        match direction {
            Direction::Action => {
                // One event may send a step, find that another cannot be sent, and begin to undo what the first came after.
                let is_done = |before: StepIndex| match self.step(before) {
                    Some(StepState::Compensating { owed, .. } | StepState::Compensated { owed, .. }) => {
                        let outcome = self.last(before, Direction::Action).and_then(|entry| entry.outcome);
                        owed.known || outcome == Some(Outcome::Skipped)
                    }
                    Some(state) => matches!(state, StepState::Verified { .. } | StepState::Skipped { .. }),
                    None => false,
                };
                let is_early =
                    definition.indices().any(|before| definition.graph.is_before(before, step) && !is_done(before));
                if is_early {
                    self.broken("order: a step was sent before one that it depends on was done");
                }
            }
            Direction::Compensation => {
                match self.last(step, Direction::Action).map(|entry| (entry.generation, entry.outcome)) {
                    None => self.broken("8 a step that was never sent was compensated"),
                    Some((_, Some(Outcome::Failure))) => self.broken("8 a refused step was compensated"),
                    Some((generation, _)) if compensates != Some(generation) => {
                        self.broken("8 a compensation names another action");
                    }
                    Some(_) => {}
                }
                let pivot = definition.pivot().and_then(|pivot| self.last(pivot, Direction::Action));
                if pivot.is_some_and(|entry| entry.outcome != Some(Outcome::Failure)) {
                    self.broken("10 a compensation was sent after the pivot");
                }
                if definition.graph.descendants(step).iter().any(|&later| !self.is_amended(later)) {
                    self.broken("9 a step was compensated before one that depends on it");
                }
            }
        }
    }

    fn check_change(&mut self, before: &Saga, effects: &[Effect]) {
        let sends = effects.iter().any(|effect| matches!(effect, Effect::Decide { .. } | Effect::Publish { .. }));
        let settles = effects.iter().any(|effect| matches!(effect, Effect::Settle(_)));
        let has_changed = Saga { revision: self.saga.revision, ..before.clone() } != self.saga;
        let rise = self.saga.revision.checked_sub(before.revision);
        if rise.is_none_or(|rise| rise > 1 || (has_changed || sends || settles) && rise == 0) {
            self.broken("revision did not rise by one with an event that changed the saga");
        }
        if before.state.is_terminal() && (has_changed || rise != Some(0) || sends || settles) {
            self.broken("4 a terminal state is final");
        }
        if before.paused && self.saga.paused && sends {
            self.broken("pause: a paused saga sent something");
        }
    }

    fn check_state(&mut self) {
        self.ends.extend(match self.saga.state {
            SagaState::Completed => Some("completed"),
            SagaState::Compensated => Some("compensated"),
            _ => None,
        });
        if self.ends.len() > 1 {
            self.broken("5 both completed and compensated");
        }
        let is_terminal = self.saga.state.is_terminal();
        if is_terminal && self.outbox.values().any(|entry| entry.outcome.is_none()) {
            self.broken("11 a terminal saga has a PENDING entry");
        }
        let flies = self.saga.steps.iter().any(|step| step.in_flight().is_some());
        let stuck = self.saga.state.stuck();
        if stuck.is_some_and(|stuck| stuck.problem.kind.is_empty()) {
            self.broken("16 stuck without a reason");
        }
        let stuck = self.saga.state.stuck();
        let is_at_rest = self.saga.paused || is_terminal || stuck.is_some() && !flies;
        if self.saga.due().is_none() != is_at_rest {
            self.broken(format!("16 due() of a saga that is {} is {:?}", self.saga.state.as_str(), self.saga.due()));
        }
    }

    /// What the stores keep as JSON must come back as it was.
    fn check_round_trip(&mut self, before: &Saga, kind: &EventKind) {
        let known = &mut self.known;
        let mut is_new = |shape| known.as_mut().is_none_or(|known| known.insert(shape));
        let mut lost = Vec::new();
        for (now, _) in self.saga.steps.iter().zip(&before.steps).filter(|(now, then)| now != then) {
            if is_new(Shape::of_step(now)) && !comes_back(now) {
                lost.push(format!("store: a step comes back changed: {now:?}"));
            }
        }
        if is_new(Shape::of_event(kind)) && !comes_back(kind) {
            lost.push(format!("store: an event comes back changed: {kind:?}"));
        }
        self.violations.extend(lost);
    }

    /// Checks what can only be told once nothing happens any more: the replay, and what stands in participants'
    /// databases.
    pub fn check_end(&mut self) {
        let versions = self.earlier.iter().chain([&self.definition]);
        let versions: BTreeMap<u32, &Definition> =
            versions.map(|version| (version.reference.version, version.as_ref())).collect();
        let first = self.earlier.first().unwrap_or(&self.definition);
        let find = |version: u32| versions.get(&version).copied();
        match replay_across(first, &find, self.fresh.clone(), &self.history) {
            Ok(saga) if saga == self.saga => {}
            Ok(saga) => self.broken(format!("3 the replay gives something else: {:?}, {:?}", saga.state, saga.steps)),
            Err(error) => self.broken(format!("3 the history cannot be replayed: {error}")),
        }
        for step in self.definition.clone().indices() {
            let (done, undone) =
                (self.effects_of(step, Direction::Action), self.effects_of(step, Direction::Compensation));
            // A wait has no effect; its signal is nobody's work.
            let is_sent = self.definition.step(step).work.is_sent();
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
                SagaState::Completed
                    if is_sent
                        && matches!(self.step(step), Some(StepState::Verified { .. }))
                        && (done, undone) != (1, 0) =>
                {
                    self.broken("net effect: a step of a completed saga does not stand exactly once");
                }
                _ => {}
            }
        }
    }
}

/// Which variants a state or an event is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Step { state: Discriminant<StepState>, phase: Option<Discriminant<Phase>>, attempt: bool, problem: bool },
    Event { kind: Discriminant<EventKind>, outcome: Option<Discriminant<ReplyOutcome>> },
}

impl Shape {
    fn of_step(step: &StepState) -> Self {
        let command = step.in_flight().map(|(_, command)| command);
        Self::Step {
            state: discriminant(step),
            phase: command.map(|command| discriminant(&command.phase)),
            attempt: command.is_some_and(|command| command.attempt > 1),
            problem: command.is_some_and(|command| command.last.is_some()),
        }
    }

    fn of_event(kind: &EventKind) -> Self {
        let outcome = match kind {
            EventKind::Replied { outcome, .. } => Some(discriminant(outcome)),
            _ => None,
        };
        Self::Event { kind: discriminant(kind), outcome }
    }
}

fn comes_back<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq>(value: &T) -> bool {
    let text = serde_json::to_string(value);
    text.is_ok_and(|text| serde_json::from_str::<T>(&text).is_ok_and(|back| back == *value))
}
