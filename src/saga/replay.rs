//! A saga's history, replayed: what the store tells of the past must give the state that it holds (guarantee 3).

use crate::definition::Definition;
use crate::saga::{Event, EventKind, IllegalTransition, Reason, Saga, migrate, transition};

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
    /// A migration could not have happened.
    #[error("the saga cannot have been moved to version {to}")]
    Incompatible {
        /// The version.
        to: u32,
        /// Why not.
        reasons: Vec<Reason>,
    },
    /// The saga was moved to a version that is not at hand.
    #[error("version {0}, to which the saga was moved, is not at hand")]
    UnknownVersion(u32),
}

/// Replays `events` on `saga`, which must be as it was before them (usually [`Saga::new`]).
///
/// # Errors
/// When the events do not lead from one revision to the next, or one of them is a migration.
pub fn replay(definition: &Definition, saga: Saga, events: &[Told]) -> Result<Saga, ReplayError> {
    replay_across(definition, &|_| None, saga, events)
}

/// The same for a saga that may have been moved to other versions: `versions` gives them.
///
/// # Errors
/// When the events do not lead from one revision to the next, or a version is not at hand.
pub fn replay_across<'d>(
    definition: &'d Definition,
    versions: &dyn Fn(u32) -> Option<&'d Definition>,
    mut saga: Saga,
    events: &[Told],
) -> Result<Saga, ReplayError> {
    let mut current = definition;
    // What a later version reads was put out under an earlier one, which may have had no use for it.
    saga.reads_outputs |= events.iter().any(|told| match told.event.kind {
        EventKind::Migrated { to, .. } => versions(to).is_some_and(|version| version.reads_outputs),
        _ => false,
    });
    for told in events {
        let before = saga.revision;
        saga = match told.event.kind {
            EventKind::Migrated { to, .. } => {
                let next = versions(to).ok_or(ReplayError::UnknownVersion(to))?;
                let moved = migrate(current, next, &saga, told.event.now);
                current = next;
                moved.map_err(|reasons| ReplayError::Incompatible { to, reasons })?.0
            }
            _ => transition(current, &saga, &told.event)?.0,
        };
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
