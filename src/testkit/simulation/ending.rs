//! The end of a run: what can only be told once nothing happens any more.

use std::time::Duration;

use super::Simulation;
use crate::clock::after;
use crate::definition::Definition;
use crate::id::StepIndex;
use crate::saga::{Direction, PUBLISH_GRACE};
use crate::testkit::UNLIMITED;
use crate::testkit::run::{End, Run};

/// What guarantee 16 allows beyond the remaining retry budget.
const SLACK: Duration = Duration::from_secs(60);

impl Simulation {
    pub(super) fn end(mut self) -> Run {
        self.watched.check_end();
        let saga = self.watched.saga().clone();
        let name = |step: StepIndex| self.definition.step(step).name.clone();
        let end = End::of(&self.definition, &saga);
        if let End::Unended { state } = &end {
            self.watched.broken(format!("16 {state} with nothing that could move it"));
        }
        if let Some(rest) = self.rest {
            let allowed = after(self.last_fault, allowed(&self.definition));
            if rest > allowed {
                self.watched.broken(format!("16 it came to rest at {rest}, after the retry budget and {SLACK:?}"));
            }
        }
        let unfired = self.plan.faults.iter().enumerate().filter(|(at, _)| !self.fired.contains(at));
        Run {
            end,
            unfired: unfired.map(|(_, fault)| fault.clone()).collect(),
            undone: self.undone.iter().map(|&step| name(step)).collect(),
            effects: self
                .definition
                .indices()
                .map(|step| {
                    let of = |direction| self.watched.effects_of(step, direction);
                    (name(step), (of(Direction::Action), of(Direction::Compensation)))
                })
                .collect(),
            attempts: self
                .attempts
                .into_iter()
                .map(|((step, direction), most)| ((name(step), direction), most))
                .collect(),
            took: self.timeline.since_start(self.rest.unwrap_or(self.now)),
            violations: self.watched.violations.iter().cloned().collect(),
            input: saga.input.value().clone(),
            timeline: self.timeline,
            plan: self.plan,
            place: None,
            saga,
        }
    }
}

/// How long a saga may take when nothing strikes any more: its retry budget and some slack.
pub(in crate::testkit) fn allowed(definition: &Definition) -> Duration {
    budget(definition).saturating_add(SLACK)
}

/// The longest that a saga can take when nothing strikes any more: every attempt of every command, with its waits.
pub(in crate::testkit) fn budget(definition: &Definition) -> Duration {
    let mut total = Duration::ZERO;
    for step in &definition.steps {
        let undo = step.compensation.action().map(|undo| (&undo.retry, undo.timeout));
        if !step.work.is_sent() {
            total = total.saturating_add(step.timeout);
        }
        for (policy, timeout) in std::iter::once((&step.retry, step.timeout)).chain(undo) {
            for attempt in 1..=policy.max_attempts.unwrap_or(UNLIMITED + 2).min(1_000) {
                // A heartbeat restarts the time-out once.
                let one = timeout * 2 + PUBLISH_GRACE + policy.delay_after(attempt, 1.0);
                total = total.saturating_add(one);
            }
        }
    }
    total
}
