//! A clock that was set back. What was decided while it was ahead would be due when it shows that time again, which may
//! be hours away.

use std::time::Duration;

use crate::clock::{Timestamp, after};
use crate::definition::Definition;
use crate::id::StepIndex;
use crate::saga::child::LOOK;
use crate::saga::transition::{Machine, PUBLISH_GRACE};
use crate::saga::{CommandState, Direction, Phase, Saga};

/// Clocks of one deployment may differ by so much, and transactions overtake each other by less.
pub const TOLERANCE: Duration = Duration::from_secs(1);

/// Whether this saga was written by a clock that was ahead of the one that shows `now`.
pub fn is_of_the_future(saga: &Saga, now: Timestamp) -> bool {
    saga.updated_at > after(now, TOLERANCE)
}

impl Machine<'_> {
    /// Nothing is waited for longer than the definition says, counted from now.
    pub(super) fn shorten_waits(&mut self) {
        if self.saga.state.is_terminal() || !is_of_the_future(&self.saga, self.now) {
            return;
        }
        let now = self.now;
        let definition: &Definition = self.definition;
        for index in definition.indices() {
            let Some((direction, command)) = self.step(index).in_flight() else { continue };
            let latest = after(now, self.longest(index, direction, command));
            self.change_command(index, |command| {
                let is_later = command.phase.due() > latest;
                if let (true, Phase::Sending(due) | Phase::Awaiting(due) | Phase::BackingOff(due) | Phase::Waiting(due)) =
                    (is_later, &mut command.phase)
                {
                    *due = latest;
                }
                is_later
            });
        }
        let latest = definition.timeout.map(|timeout| after(now, timeout));
        if let (Some(deadline), Some(latest)) = (self.saga.deadline, latest)
            && deadline > latest
        {
            self.saga.deadline = Some(latest);
            self.has_changed = true;
        }
        let latest = after(now, LOOK.1);
        if let Some(held) = self.saga.parent.as_mut().and_then(|parent| parent.held.as_mut())
            && held.look_at > latest
        {
            held.look_at = latest;
            self.has_changed = true;
        }
    }

    fn longest(&self, index: StepIndex, direction: Direction, command: &CommandState) -> Duration {
        match command.phase {
            Phase::Sending(_) => PUBLISH_GRACE,
            Phase::Awaiting(_) => self.timeout(index, direction),
            // A participant that asked for more may ask again.
            Phase::BackingOff(_) => self.retry_policy(index, direction).max_interval,
            Phase::Waiting(_) => self.definition.step(index).timeout,
        }
    }
}
