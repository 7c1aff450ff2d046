//! A saga's history, replayed: what the store tells of the past must give the state that it holds (guarantee 3).

use crate::definition::Definition;
use crate::saga::{Event, EventKind, IllegalTransition, Saga, transition};

/// One event of the past, with the revision that it led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The saga's revision after the event.
    pub revision: u32,
    /// The event.
    pub event: Event,
}

/// The past does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An event is missing, or there twice.
    #[error("the history jumps: after revision {after} comes an event that led to revision {found}")]
    Gap {
        /// The revision before.
        after: u32,
        /// The revision that the next event led to.
        found: u32,
    },
    /// An event could not have happened.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
}

/// Replays `events` on `saga`, which must be as it was before them (usually [`Saga::new`]).
///
/// # Errors
/// When the events do not lead from one revision to the next.
pub fn replay(definition: &Definition, mut saga: Saga, events: &[Told]) -> Result<Saga, ReplayError> {
    for told in events {
        let before = saga.revision;
        (saga, _) = transition(definition, &saga, &told.event)?;
        if saga.revision != told.revision || saga.revision == before {
            return Err(ReplayError::Gap { after: before, found: told.revision });
        }
    }
    Ok(saga)
}

/// The first event of every saga.
pub fn started(at: crate::clock::Timestamp) -> Told {
    Told { revision: 1, event: Event { now: at, kind: EventKind::Started } }
}
