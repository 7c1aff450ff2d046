//! What a commit did that failpoints have names for.

use crate::failpoint::{self, Point};
use crate::saga::Direction;
use crate::store::Changes;

/// What a commit did to sagas; nothing, where there are no failpoints.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Milestones {
    writes: bool,
    compensates: bool,
    ends: bool,
}

impl Milestones {
    /// Those of a commit that will write `changes`.
    pub(super) fn of(changes: &Changes) -> Self {
        if !failpoint::COMPILED {
            return Self::default();
        }
        Self {
            writes: !changes.updates.is_empty() || !changes.starts.is_empty(),
            compensates: changes.commands.iter().any(|command| command.direction == Direction::Compensation),
            ends: changes.updates.iter().any(|update| update.saga.state.is_terminal()),
        }
    }

    /// The commit is through.
    pub(super) fn reached(self) {
        failpoint::reached_if(self.writes, Point::AfterCommit);
        failpoint::reached_if(self.compensates, Point::Compensating);
        failpoint::reached_if(self.ends, Point::TerminalCommit);
    }
}
