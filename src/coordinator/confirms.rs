//! Which attempts the broker has confirmed, until that is written down. Kept in memory only: when it is lost, a command
//! is published once more, which the participant's inbox answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Stopwatch;
use crate::id::{CommandId, SagaId};

/// A confirm this old is written down with the next commit; most commands are settled before.
const SETTLED_BY_THEN: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub(super) struct Confirms(Arc<Mutex<HashMap<CommandId, (u32, Stopwatch)>>>);

impl Confirms {
    pub(super) fn add(&self, command: CommandId, attempt: u32) {
        if let Ok(mut confirms) = self.0.lock() {
            confirms.insert(command, (attempt, Stopwatch::start()));
        }
    }

    /// The attempt that was confirmed, which is then forgotten.
    pub(super) fn take(&self, command: CommandId) -> Option<u32> {
        self.0.lock().ok()?.remove(&command).map(|(attempt, _)| attempt)
    }

    /// Sagas with confirms that have waited long enough to be written, at most `limit`. Those whose saga has gone on
    /// in the meantime are dropped here as well, since [`Confirms::take`] is only asked about commands in flight.
    pub(super) fn ripe(&self, limit: usize) -> Vec<SagaId> {
        let Ok(confirms) = self.0.lock() else { return Vec::new() };
        confirms
            .iter()
            .filter(|(_, (_, since))| since.elapsed() > SETTLED_BY_THEN)
            .map(|(id, _)| id.saga)
            .take(limit)
            .collect()
    }

    /// Forgets what is said of these commands' sagas and was not taken by a plan.
    pub(super) fn forget(&self, sagas: &[SagaId]) {
        if let Ok(mut confirms) = self.0.lock() {
            confirms.retain(|id, (_, since)| since.elapsed() <= SETTLED_BY_THEN || !sagas.contains(&id.saga));
        }
    }
}
