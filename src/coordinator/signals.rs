//! Signals from outside, to a saga that is named by its id or by its key.

use crate::coordinator::{Coordinator, CoordinatorError, Heard};
use crate::id::SagaId;
use crate::payload::Payload;

/// Which saga is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one with this id.
    Id(SagaId),
    /// The one that this key of a definition belongs to.
    Key {
        /// The definition's name.
        saga: String,
        /// The key.
        key: String,
    },
}

/// A signal for one saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// The saga.
    pub target: Target,
    /// The signal's name.
    pub signal: String,
    /// What it says: the output of the step that waits for it.
    pub payload: Payload,
}

impl Coordinator {
    /// Tells a saga of a signal; returns once it is durable. To say it again is harmless: the first one counts.
    ///
    /// # Errors
    /// As [`Coordinator::signal`]; [`CoordinatorError::UnknownKey`] when no saga has the key.
    pub async fn signal_to(&self, signal: Signal) -> Result<Heard, CoordinatorError> {
        let Signal { target, signal, payload } = signal;
        let id = match target {
            Target::Id(id) => id,
            Target::Key { saga, key } => match self.store().saga_by_key(&saga, &key).await? {
                Some(id) => id,
                None => return Err(CoordinatorError::UnknownKey { definition: saga, key }),
            },
        };
        self.signal(id, signal, payload).await
    }
}
