//! The same world when its saga moves to another version in the middle of things.

use std::collections::BTreeMap;

use amends::definition::Definition;
use amends::id::StepIndex;
use amends::saga::{Event, EventKind, Reason, Saga, StepState, Told, migrate, replay_across};

use super::{Entry, World};
use crate::sagas::epoch;

impl World {
    /// Moves the saga to `to`, if that is allowed.
    pub fn migrate(&mut self, to: Definition) -> Result<(), Vec<Reason>> {
        let before = self.saga.clone();
        let (saga, effects) = migrate(&self.definition, &to, &before, self.now)?;
        let kind = EventKind::Migrated { from: before.definition.version, to: saga.definition.version };
        self.saga = saga;
        self.history.push(Told { revision: self.saga.revision, event: Event { now: self.now, kind: kind.clone() } });
        self.pass_on(to);
        self.check_round_trip(&kind);
        self.check_step(&before, &effects);
        for effect in &effects {
            self.carry_out(effect);
        }
        self.check_state();
        Ok(())
    }

    /// The mistake: the state is taken over by name, and nobody asks whether it fits.
    pub fn migrate_unasked(&mut self, to: Definition) {
        let old = |index: StepIndex| self.definition.find(&to.step(index).name);
        let state = |index| old(index).map_or(StepState::Waiting, |old| self.saga.steps[old.at()].clone());
        let steps = to.indices().map(state).collect();
        let definition = to.reference.clone();
        self.saga = Saga { definition, steps, revision: self.saga.revision + 1, ..self.saga.clone() };
        if let amends::saga::SagaState::Stuck(stuck) = &mut self.saga.state {
            stuck.step = to.find(&self.definition.step(stuck.step).name).unwrap_or(StepIndex(0));
        }
        self.pass_on(to);
    }

    /// Whatever is known by a step's place goes by its new place; what belongs to steps that are gone, is gone.
    fn pass_on(&mut self, to: Definition) {
        let from = std::mem::replace(&mut self.definition, to);
        let new = |index: StepIndex| self.definition.find(&from.step(index).name);
        let outbox = std::mem::take(&mut self.outbox).into_iter();
        self.outbox = outbox.filter_map(|(seq, e)| Some((seq, Entry { step: new(e.step)?, ..e }))).collect();
        let inbox = std::mem::take(&mut self.inbox).into_iter();
        self.inbox = inbox.filter_map(|((step, d, g), reply)| Some(((new(step)?, d, g), reply))).collect();
        let effects = std::mem::take(&mut self.took_effect).into_iter();
        self.took_effect = effects.filter_map(|((step, d), count)| Some(((new(step)?, d), count))).collect();
        let amended = std::mem::take(&mut self.amended).into_iter();
        self.amended = amended.filter_map(|(step, g)| Some((new(step)?, g))).collect();
        self.earlier.push(from);
    }

    /// The state, as an observer sees it.
    pub fn state(&self) -> &'static str {
        self.saga.state.as_str()
    }

    /// Whether the history, replayed across all versions, gives the saga as it is.
    pub fn replays(&self) -> bool {
        let versions: BTreeMap<u32, &Definition> =
            self.earlier.iter().chain([&self.definition]).map(|known| (known.reference.version, known)).collect();
        let first = self.earlier.first().unwrap_or(&self.definition);
        let fresh = Saga::new(self.saga.id, first, None, self.saga.input.clone(), epoch());
        let find = |version: u32| versions.get(&version).copied();
        replay_across(first, &find, fresh, &self.history).is_ok_and(|saga| saga == self.saga)
    }
}
