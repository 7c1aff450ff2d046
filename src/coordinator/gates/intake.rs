//! How many starts may wait for a commit, so that a flood of one definition leaves room for the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use prometheus_client::metrics::gauge::Gauge;

/// Starts of one definition that wait for a commit at once; the others are told to come back.
const STARTING: usize = 2_048;

#[derive(Clone, Default)]
pub(in crate::coordinator) struct Intake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    starting: Mutex<HashMap<String, Arc<AtomicUsize>>>,
    /// How many they are.
    waiting: Gauge,
    /// The broker does not take what was decided already.
    is_backlogged: AtomicBool,
}

/// Starts that wait for their commit; gives their places back when dropped.
pub(in crate::coordinator) struct Turn {
    all: Arc<AtomicUsize>,
    count: usize,
    waiting: Gauge,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.all.fetch_sub(self.count, Ordering::Relaxed);
        self.waiting.dec_by(gauged(self.count));
    }
}

fn gauged(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Intake {
    /// One that shows in `waiting` how many starts wait.
    pub(super) fn new(waiting: Gauge) -> Self {
        Self(Arc::new(Inner { waiting, ..Inner::default() }))
    }

    /// Places for `count` starts of this definition, which one transaction is to have, among those that wait for a commit. None
    /// when it has too many there, though more than there are places find some while nothing else of it waits; and none while
    /// what was decided before does not go out.
    pub(in crate::coordinator) fn enter(&self, definition: &str, count: usize) -> Option<Arc<Turn>> {
        if self.is_backlogged() {
            return None;
        }
        let mut starting = self.0.starting.lock().ok()?;
        let all = match starting.get(definition) {
            Some(all) => all.clone(),
            None => starting.entry(definition.to_owned()).or_default().clone(),
        };
        let before = all.fetch_add(count, Ordering::Relaxed);
        self.0.waiting.inc_by(gauged(count));
        let turn = Turn { all, count, waiting: self.0.waiting.clone() };
        (before == 0 || before + count <= STARTING).then(|| Arc::new(turn))
    }

    /// Whether what was decided already does not go out: nothing new is taken in meanwhile.
    pub(in crate::coordinator) fn backlogged(&self, is_backlogged: bool) {
        self.0.is_backlogged.store(is_backlogged, Ordering::Relaxed);
    }

    pub(super) fn is_backlogged(&self) -> bool {
        self.0.is_backlogged.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_definition_leaves_room_for_the_others() {
        let intake = Intake::default();
        let turns: Vec<_> = (0..STARTING).map(|_| intake.enter("flood", 1).expect("room")).collect();
        assert!(intake.enter("flood", 1).is_none());
        let other = intake.enter("other", 1).expect("room");
        drop((turns, other));
        assert!(intake.enter("flood", 1).is_some());
        intake.backlogged(true);
        assert!(intake.enter("other", 1).is_none(), "the broker does not take what there is");
        intake.backlogged(false);
        assert!(intake.enter("other", 1).is_some());
    }

    #[test]
    fn a_request_has_places_for_all_of_it_or_none() {
        let intake = Intake::default();
        let one = intake.enter("flood", 1).expect("room");
        assert!(intake.enter("flood", STARTING).is_none(), "there is one too few");
        let rest = intake.enter("flood", STARTING - 1).expect("room");
        assert!(intake.enter("flood", 1).is_none());
        drop((one, rest));
        let large = intake.enter("flood", 2 * STARTING).expect("it need not wait for more places than there are");
        assert!(intake.enter("flood", 1).is_none());
        drop(large);
        assert!(intake.enter("flood", 1).is_some());
    }
}
