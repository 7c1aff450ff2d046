//! A clock that was set back. What was decided while it was ahead would be due when it shows that time again, which may
//! be hours away.

use std::time::Duration;

use crate::clock::{Timestamp, after};
use crate::definition::Definition;
use crate::id::StepIndex;
use crate::saga::child::LOOK;
use crate::saga::transition::{HELD_AT_MOST, Machine, PUBLISH_GRACE};
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
                if let (
                    true,
                    Phase::Sending(due)
                    | Phase::Awaiting(due)
                    | Phase::BackingOff(due)
                    | Phase::Waiting(due)
                    | Phase::Held(due),
                ) = (is_later, &mut command.phase)
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
            Phase::Held(_) => HELD_AT_MOST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SagaId, Seq};
    use crate::payload::Payload;
    use crate::saga::{Event, EventKind, Problem, ReplyOutcome, transition};

    const TEXT: &str = "saga: s\nversion: 1\ntimeout: 3h\n\
        defaults: { timeout: 30s, retry: { maxAttempts: 3, maxInterval: 20s, initialInterval: 20s, jitter: none } }\nsteps:\n\
        \x20 - { name: a, participant: p, action: x, compensation: { action: u } }\n\
        \x20 - { name: b, after: [], wait: { signal: go, timeout: 2h } }\n";

    fn definition() -> std::sync::Arc<Definition> {
        crate::definition::compile(TEXT).expect("a definition")
    }

    fn then(saga: &Saga, now: Timestamp, kind: EventKind) -> Saga {
        transition(&definition(), saga, &Event { now, kind }).expect("allowed").0
    }

    fn dues(saga: &Saga) -> Vec<Timestamp> {
        saga.steps.iter().filter_map(|step| Some(step.in_flight()?.1.phase.due())).collect()
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_wait_longer_than_its_definition_says() {
        let now = Timestamp::default() + Duration::from_secs(86_400);
        let ahead = now + Duration::from_secs(3 * 3_600);
        let fresh = Saga::new(
            SagaId(uuid::Uuid::from_u128(7)),
            &definition(),
            None,
            Payload::from(serde_json::json!({})),
            ahead,
        );
        let sending = then(&fresh, ahead, EventKind::Started);
        let awaiting = then(&sending, ahead, EventKind::Published { seq: Seq(1), attempt: 1 });
        let outcome =
            ReplyOutcome::Retry { problem: Problem::new("busy", "later"), after: Some(Duration::from_secs(600)) };
        let backing_off = then(&awaiting, ahead, EventKind::Replied { seq: Seq(1), attempt: 1, outcome });
        for (saga, longest) in [(sending, 5), (awaiting, 30), (backing_off, 20)] {
            assert!(dues(&saga).iter().all(|due| *due > ahead));
            let seen = then(&saga, now, EventKind::Due);
            assert_eq!(dues(&seen), [longest, 7_200].map(|seconds| now + Duration::from_secs(seconds)));
            assert_eq!(seen.deadline, Some(now + Duration::from_secs(3 * 3_600)));
            assert_eq!((seen.revision, seen.updated_at), (saga.revision + 1, now));
            assert_eq!(then(&seen, now, EventKind::Due), seen, "once is enough");
        }
    }

    #[test]
    fn a_clock_that_differs_by_less_than_a_second_changes_nothing() {
        let now = Timestamp::default() + Duration::from_secs(86_400);
        let fresh =
            Saga::new(SagaId(uuid::Uuid::from_u128(7)), &definition(), None, Payload::from(serde_json::json!({})), now);
        let saga = then(&fresh, now, EventKind::Started);
        assert_eq!(then(&saga, now - Duration::from_millis(900), EventKind::Due), saga);
        assert_eq!(then(&saga, now + Duration::from_secs(1), EventKind::Due), saga);
    }
}
