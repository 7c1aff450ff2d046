//! Which attempts are on their way to the broker, which has not yet said what became of them. While it takes nothing, an
//! attempt whose publish grace ends would otherwise be put in line again and again, and participants would have to answer
//! every copy once it takes messages again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use crate::coordinator::outbound::Outbound;
use crate::id::CommandId;

#[derive(Clone, Default)]
pub(super) struct OnTheWay(Arc<Mutex<HashSet<(CommandId, u32)>>>);

impl OnTheWay {
    /// Leaves out what is on its way already; the rest is from now on. How many were left out.
    pub(super) fn enter(&self, batch: &mut Vec<Outbound>) -> usize {
        let before = batch.len();
        if let Ok(mut known) = self.0.lock() {
            batch.retain(|outbound| outbound.of.is_none_or(|attempt| known.insert(attempt)));
        }
        before - batch.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_ok_and(|known| known.is_empty())
    }

    /// These are on their way for as long as what is given lives, however that ends.
    pub(super) fn during(&self, batch: &[Outbound]) -> Journey {
        Journey { on_the_way: self.clone(), attempts: batch.iter().filter_map(|outbound| outbound.of).collect() }
    }
}

/// Attempts whose fate nobody knows yet.
pub(super) struct Journey {
    on_the_way: OnTheWay,
    attempts: Vec<(CommandId, u32)>,
}

impl Drop for Journey {
    fn drop(&mut self) {
        if let Ok(mut known) = self.on_the_way.0.lock() {
            for attempt in &self.attempts {
                known.remove(attempt);
            }
        }
    }
}
