//! Sagas counted one by one, as the databases' aggregates count them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::saga::figures::{CommandCount, Figures, Latency, QUANTILES, Undone};
use crate::saga::{Direction, Outcome, Saga, SagaState};
use crate::store::OutboxEntry;

/// Why sagas turn round that no step has turned: another order would have changed nothing.
const CAUSES_OF_THEIR_OWN: [&str; 3] = ["cancelled", "compensated-by-operator", "saga-timeout"];

type Way = (String, Direction);

/// Counts towards [`Figures`].
#[derive(Default)]
pub(super) struct Counter {
    ended: BTreeMap<&'static str, u64>,
    commands: BTreeMap<(Way, &'static str, u32), (Outcome, u64)>,
    latencies: BTreeMap<Way, Vec<Duration>>,
    turned: BTreeMap<String, u64>,
    undone: BTreeMap<(String, String), u64>,
}

impl Counter {
    /// Adds a saga that has ended.
    pub(super) fn count(&mut self, saga: &Saga, entries: &[&OutboxEntry]) {
        *self.ended.entry(saga.state.as_str()).or_default() += 1;
        let (mut bad, mut undone) = (BTreeSet::new(), BTreeSet::new());
        for entry in entries {
            let way = (entry.step.clone(), entry.direction);
            if entry.direction == Direction::Compensation {
                undone.insert(&entry.step);
            }
            let Some(verified) = &entry.verified else { continue };
            if entry.direction == Direction::Action && matches!(verified.outcome, Outcome::Failure | Outcome::Unknown) {
                bad.insert(&entry.step);
            }
            if verified.outcome == Outcome::Success && verified.attempt == 1 {
                let took = verified.at.signed_duration_since(entry.decided_at).to_std().unwrap_or_default();
                self.latencies.entry(way.clone()).or_default().push(took);
            }
            let key = (way, verified.outcome.as_str(), verified.attempt);
            self.commands.entry(key).or_insert((verified.outcome, 0)).1 += 1;
        }
        let has_own_cause = saga.cause.as_ref().is_some_and(|cause| CAUSES_OF_THEIR_OWN.contains(&cause.kind.as_str()));
        if saga.state != SagaState::Compensated || has_own_cause {
            return;
        }
        for because in bad {
            *self.turned.entry(because.clone()).or_default() += 1;
            for &step in undone.iter().filter(|step| **step != because) {
                *self.undone.entry((because.clone(), step.clone())).or_default() += 1;
            }
        }
    }

    pub(super) fn figures(self) -> Figures {
        let command = |((way, _, attempt), (outcome, count)): ((Way, _, _), (Outcome, u64))| {
            let (step, direction) = way;
            CommandCount { step, direction, outcome, attempt, count }
        };
        let undone = |((because, step), sagas)| Undone { because, step, sagas };
        Figures {
            ended: self.ended.into_iter().map(|(state, count)| (state.to_owned(), count)).collect(),
            commands: self.commands.into_iter().map(command).collect(),
            latencies: self.latencies.into_iter().map(|(way, all)| latency(way, all)).collect(),
            turned: self.turned.into_iter().collect(),
            undone: self.undone.into_iter().map(undone).collect(),
        }
    }
}

fn latency((step, direction): Way, mut all: Vec<Duration>) -> Latency {
    all.sort_unstable();
    let count = all.len() as u64;
    let at = |quantile: u32| {
        let place = (all.len() * quantile as usize).div_ceil(1_000).saturating_sub(1);
        all.get(place).copied().unwrap_or_default()
    };
    Latency { step, direction, count, quantiles: QUANTILES.map(at), longest: all.last().copied().unwrap_or_default() }
}
