//! Waits: who sends their signals, and when.

use std::time::Duration;

use serde_json::json;

use super::{Happening, LATE, STALE, Simulation, words};
use crate::definition::Work;
use crate::id::StepIndex;
use crate::saga::{Direction, EventKind};
use crate::testkit::FaultKind;

impl Simulation {
    /// Signals that the plan has come before anybody waits for them.
    pub(super) fn send_early_signals(&mut self) {
        for step in self.definition.clone().indices() {
            if let Some((fired, FaultKind::Early)) = self.planned(step, Direction::Action, 1) {
                self.strike(fired);
                self.later(Duration::from_millis(2), Happening::Signal { step });
            }
        }
    }

    /// A step waits: for its time, or for a signal, which somebody sends halfway through unless the plan says otherwise.
    pub(super) fn wait(&mut self, step: StepIndex) {
        let (action, timeout) = (Direction::Action, self.timeout(step, Direction::Action));
        let signal = Happening::Signal { step };
        let Work::Wait { signal: name, .. } = &self.definition.step(step).work else {
            return self.line(step, action, 1, format!("waits for {}", words(timeout)), false);
        };
        self.line(step, action, 1, format!("waits for the signal {name}"), false);
        let planned = self.planned(step, action, 1);
        if let Some((fired, _)) = planned.filter(|(_, kind)| *kind != FaultKind::Early) {
            self.strike(fired);
        }
        match planned.map(|(_, kind)| kind) {
            Some(FaultKind::Timeout | FaultKind::Drop) => {
                self.line(step, action, 1, "the signal never comes", true);
            }
            Some(kind @ (FaultKind::Delay | FaultKind::Stale)) => {
                let wait = timeout + if kind == FaultKind::Stale { STALE } else { LATE };
                self.line(step, action, 1, format!("the signal takes {}", words(wait)), true);
                self.later(wait, signal);
            }
            Some(FaultKind::Early) => self.line(step, action, 1, "the signal came before", true),
            other => {
                self.later(timeout / 2, signal.clone());
                if other == Some(FaultKind::Duplicate) {
                    self.line(step, action, 1, "the signal comes twice", true);
                    self.later(timeout / 2 + LATE, signal);
                }
            }
        }
    }

    pub(super) fn signal(&mut self, step: StepIndex) {
        let Work::Wait { signal, .. } = &self.definition.step(step).work else { return };
        let payload = self.outputs.get(&step).cloned().unwrap_or_else(|| json!({})).into();
        self.apply(EventKind::Signalled { signal: signal.clone(), payload });
    }
}
