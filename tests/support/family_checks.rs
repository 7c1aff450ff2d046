//! What must hold for sagas that start one another, seen from outside.

use amends::definition::Work;
use amends::id::StepIndex;
use amends::saga::{Direction, Effect, Held, Parent, Saga, SagaState, Skip, StepState, replay};

use super::{Bug, Family, Member};

impl Family {
    pub(super) fn check_change(&mut self, at: usize, before: &Saga, effects: &[Effect]) {
        let saga = self.members[at].saga.clone();
        self.reached.insert(saga.state.as_str());
        if saga.held().is_some() {
            self.reached.insert("HELD");
        }
        let sends = effects.iter().any(|effect| matches!(effect, Effect::Decide { .. } | Effect::Publish { .. }));
        let settles = effects.iter().any(|effect| matches!(effect, Effect::Settle(_)));
        let has_changed = Saga { revision: saga.revision, ..before.clone() } != saga;
        let rise = saga.revision.checked_sub(before.revision);
        if rise.is_none_or(|rise| rise > 1 || (has_changed || sends || settles) && rise == 0) {
            self.broken("revision did not rise by one with an event that changed the saga");
        }
        if before.state.is_terminal() && (has_changed || sends || settles) {
            self.broken("4 a terminal state is final");
        }
        if before.paused && saga.paused && sends {
            self.broken("pause: a paused saga sent something");
        }
        let text = serde_json::to_string(&saga.parent).expect("a parent is JSON");
        if serde_json::from_str::<Option<Parent>>(&text).ok().as_ref() != Some(&saga.parent) {
            self.broken(format!("store: a parent comes back changed: {text}"));
        }
    }

    /// Nothing is undone before what was built on it: sub-sagas have ended by then.
    pub(super) fn check_order(&mut self, at: usize, step: StepIndex) {
        let member = &self.members[at];
        let later = member.definition.graph.descendants(step);
        let is_under_way = |child: &&Member| {
            let Some(own) = child.saga.parent.as_ref().filter(|own| own.saga == member.saga.id) else { return false };
            let Some(step) = member.definition.find(&own.step).filter(|step| later.contains(step)) else {
                return false;
            };
            let is_skipped = matches!(member.saga.steps[step.at()], StepState::Skipped { .. });
            let is_undone = member.definition.step(step).compensation.action().is_some();
            is_undone && !is_skipped && !child.saga.state.is_terminal()
        };
        if self.members.iter().any(|child| is_under_way(&child)) {
            self.broken("9 a step was compensated before a sub-saga that came after it");
        }
    }

    pub(super) fn check_state(&mut self, at: usize) {
        let member = &self.members[at];
        let saga = member.saga.clone();
        let is_terminal = saga.state.is_terminal();
        if is_terminal && member.outbox.values().any(|entry| entry.outcome.is_none()) {
            self.broken("11 a terminal saga has a PENDING entry");
        }
        let parent = saga.parent.as_ref().and_then(|p| self.members.iter().find(|member| member.saga.id == p.saga));
        if saga.state == SagaState::Completed && parent.is_some_and(|parent| !parent.saga.state.is_terminal()) {
            self.broken("family: a sub-saga is complete before its parent has ended");
        }
        let flies = saga.steps.iter().any(|step| step.in_flight().is_some());
        let is_at_rest = saga.paused || is_terminal || saga.state.stuck().is_some() && !flies;
        if saga.due().is_none() != is_at_rest {
            self.broken(format!("16 due() of a saga that is {} is {:?}", saga.state.as_str(), saga.due()));
        }
        if let Some(Held { since, look_at }) = saga.held()
            && look_at <= since
        {
            self.broken("16 a sub-saga that is held does not look for its parent");
        }
    }

    pub(super) fn check_end(&mut self) {
        for at in 0..self.members.len() {
            let member = &self.members[at];
            let found = replay(&member.definition, member.fresh.clone(), &member.history);
            let is_honest = matches!(self.bug, Bug::None | Bug::ForgetsHistory);
            if is_honest && found.as_ref().ok() != Some(&member.saga) {
                self.broken(format!("3 the replay gives something else: {found:?}"));
            }
            self.check_effects(at);
            self.check_children(at);
            self.check_signals(at);
        }
    }

    /// What stands in services' databases is what the saga says.
    fn check_effects(&mut self, at: usize) {
        if self.has_meddled {
            return;
        }
        for step in self.members[at].definition.clone().indices() {
            let count = |direction| self.effects.get(&(at, step, direction)).copied().unwrap_or_default();
            let (done, undone) = (count(Direction::Action), count(Direction::Compensation));
            let Member { definition, saga, .. } = &self.members[at];
            let named = definition.step(step);
            match (&saga.state, saga.steps.get(step.at())) {
                (SagaState::Compensated, _) if named.compensation.action().is_some() && done != undone => {
                    self.broken("net effect: a step of a compensated saga stands");
                }
                (SagaState::Completed, Some(StepState::Verified { .. }))
                    if named.work == Work::Command && (done, undone) != (1, 0) =>
                {
                    self.broken("net effect: a step of a completed saga does not stand exactly once");
                }
                _ => {}
            }
        }
    }

    /// What became of a sub-saga is what its parent says.
    fn check_children(&mut self, at: usize) {
        let id = self.members[at].saga.id;
        let children: Vec<usize> = (0..self.members.len())
            .filter(|&child| self.members[child].saga.parent.as_ref().is_some_and(|parent| parent.saga == id))
            .collect();
        for child in children {
            let (parent, child) = (&self.members[at], &self.members[child]);
            let step = child.saga.parent.as_ref().and_then(|own| parent.definition.find(&own.step)).expect("its step");
            let (named, state) = (parent.definition.step(step), &parent.saga.steps[step.at()]);
            let is_excused = matches!(
                state,
                StepState::Skipped {
                    by: Skip::OperatorCompensation { .. } | Skip::OperatorAfterSend { .. } | Skip::Operator
                }
            ) || child.saga.state == SagaState::Abandoned;
            if is_excused {
                continue;
            }
            let is_newest = child.key.as_deref().is_some_and(|key| {
                let last = parent.outbox.values().rfind(|e| e.step == step && e.direction == Direction::Action);
                last.is_some_and(|entry| key.ends_with(&format!("/{}", entry.generation)))
            });
            let undone = named.compensation.action().is_some();
            let what = match (&parent.saga.state, state, &child.saga.state) {
                (SagaState::Compensated, _, SagaState::Completed) if undone => {
                    "a sub-saga of a compensated saga stands"
                }
                (_, StepState::Compensated { .. }, SagaState::Completed) => "a compensated step's sub-saga stands",
                (_, StepState::Failed { .. }, SagaState::Completed) => "a refused step's sub-saga stands",
                (SagaState::Completed, StepState::Verified { .. }, SagaState::Compensated) if is_newest => {
                    "a sub-saga of a completed saga is undone"
                }
                (_, StepState::Verified { .. }, SagaState::Completed) | (_, _, SagaState::Compensated) => continue,
                _ => continue,
            };
            self.broken(format!("family: {what}"));
        }
    }

    /// A signal that was heard in time is the step's output.
    fn check_signals(&mut self, at: usize) {
        let Member { definition, saga, heard, .. } = &self.members[at];
        let is_lost = heard.iter().any(|signal| {
            let step = definition.waits_for(signal).expect("it was heard");
            matches!(&saga.steps[step.at()], StepState::Skipped { by: Skip::TimedOut })
                || saga
                    .cause
                    .as_ref()
                    .is_some_and(|cause| cause.kind == "signal-timeout" && cause.title.contains(&format!("`{signal}`")))
        });
        if is_lost {
            self.broken("signal: one that was heard is not there");
        }
    }
}
