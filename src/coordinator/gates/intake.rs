//! How many starts may wait for a commit, so that a flood of one definition leaves room for the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Starts of one definition that wait for a commit at once; the others are told to come back.
const STARTING: usize = 2_048;

#[derive(Clone, Default)]
pub(in crate::coordinator) struct Intake(Arc<Inner>);

#[derive(Default)]
struct Inner {
    starting: Mutex<HashMap<String, Arc<AtomicUsize>>>,
    /// The broker does not take what was decided already.
    is_backlogged: AtomicBool,
}

/// A start that waits for its commit; gives its place back when dropped.
pub(in crate::coordinator) struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Intake {
    /// A place for a start of this definition among those that wait for a commit; none when it has too many there, or
    /// while what was decided before does not go out.
    pub(in crate::coordinator) fn enter(&self, definition: &str) -> Option<Arc<Turn>> {
        if self.is_backlogged() {
            return None;
        }
        let mut starting = self.0.starting.lock().ok()?;
        let count = match starting.get(definition) {
            Some(count) => count.clone(),
            None => starting.entry(definition.to_owned()).or_default().clone(),
        };
        if count.fetch_add(1, Ordering::Relaxed) >= STARTING {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Arc::new(Turn(count)))
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
        let turns: Vec<_> = (0..STARTING).map(|_| intake.enter("flood").expect("room")).collect();
        assert!(intake.enter("flood").is_none());
        let other = intake.enter("other").expect("room");
        drop((turns, other));
        assert!(intake.enter("flood").is_some());
        intake.backlogged(true);
        assert!(intake.enter("other").is_none(), "the broker does not take what there is");
        intake.backlogged(false);
        assert!(intake.enter("other").is_some());
    }
}
