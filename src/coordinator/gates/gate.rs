//! One participant's gate: what is on its way to its queue, what waits there, and what waits outside.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Asked;
use super::circuit::Circuit;
use super::lanes::{LaneName, Lanes};
use crate::clock::{Timestamp, after};
use crate::id::CommandId;
use crate::saga::{Direction, HELD_AT_MOST};

/// One of the commands that are held back is due again so soon, whoever looks then: should the coordinator that knows of
/// them be gone, another learns of them all by it.
pub(super) const SCOUT: Duration = Duration::from_secs(20);
/// A publish that nothing was heard of for two of these was given up: it no longer counts.
pub(super) const HEARD_OF_BY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Gate {
    pub(super) circuit: Circuit,
    pub(super) lanes: Lanes,
    /// The store has more than the lanes know of.
    pub(super) has_more: bool,
    /// How far the store was read for them, and whether some have come since that were not kept in mind.
    pub(super) read: Option<CommandId>,
    pub(super) has_spilled: bool,
    /// Messages in its queue when last looked at.
    seen: Option<u32>,
    /// Admitted, and not yet heard of from the broker: of late, and before that.
    sending: (u32, u32),
    turned: Option<Instant>,
    /// In the queue since it was looked at.
    sent: u32,
    /// Whose turn it was, and which were counted as admitted with that.
    granted: HashSet<CommandId>,
    /// Answers since it was looked at.
    answered: u32,
    scout: Option<(CommandId, Instant)>,
}

impl Gate {
    /// Messages in its queue, as far as is known, and on their way there.
    pub(super) fn waiting(&self) -> u32 {
        let (late, early) = self.sending;
        self.seen.unwrap_or_default().saturating_add(self.sent).saturating_add(late).saturating_add(early)
    }

    pub(super) fn is_unseen(&self) -> bool {
        self.seen.is_none()
    }

    /// How many more fit in; `window` 0 is none.
    pub(super) fn room(&self, window: u32) -> u32 {
        match window {
            0 => u32::MAX,
            // Until the queue was looked at it may be nearly full: of a predecessor's messages, or another coordinator's.
            window if self.is_unseen() => window.div_ceil(4).saturating_sub(self.waiting()),
            window => window.saturating_sub(self.waiting()),
        }
    }

    pub(super) fn is_holding(&self) -> bool {
        self.has_more || !self.lanes.is_empty()
    }

    /// Whether the command goes out now; else when it is tried again at the latest.
    pub(super) fn admit(&mut self, asked: &Asked<'_>, window: u32, now: Timestamp) -> Option<Timestamp> {
        if !self.granted.is_empty() && self.granted.remove(&asked.id) {
            self.scout = self.scout.filter(|(scout, _)| *scout != asked.id);
            return None;
        }
        let is_shut = self.circuit.open_since().is_some() || self.room(window) == 0;
        if !is_shut && (self.lanes.is_empty() || !self.lanes.has_lane(asked.definition, asked.direction)) {
            self.count(1);
            return None;
        }
        self.remember(asked.definition, asked.direction, asked.id);
        // The same one when it is asked for once more: the commit that it was named with may have come to nothing.
        if self.needs_scout() || self.scout.is_some_and(|(scout, _)| scout == asked.id) {
            self.scout = Some((asked.id, Instant::now()));
            return Some(after(now, SCOUT));
        }
        Some(after(now, HELD_AT_MOST))
    }

    /// This one waits.
    pub(super) fn remember(&mut self, definition: &str, direction: Direction, id: CommandId) {
        let is_known = self.granted.contains(&id) || self.lanes.has(id);
        if !is_known && !self.lanes.push(definition, direction, id) {
            (self.has_more, self.has_spilled) = (true, true);
        }
    }

    fn count(&mut self, more: u32) {
        if self.turned.is_none() {
            self.turned = Some(Instant::now());
        }
        self.sending.0 = self.sending.0.saturating_add(more);
    }

    fn uncount(&mut self, fewer: u32) {
        let of_before = fewer.min(self.sending.1);
        self.sending = (self.sending.0.saturating_sub(fewer - of_before), self.sending.1 - of_before);
    }

    pub(super) fn needs_scout(&self) -> bool {
        self.scout.is_none_or(|(_, since)| since.elapsed() >= SCOUT)
    }

    /// Whose turn it is, at most `most`: as many as there is room for, or one probe.
    pub(super) fn grant(&mut self, window: u32, most: u32, weight: impl Fn(&str) -> u32) -> Vec<(LaneName, CommandId)> {
        let is_open = self.circuit.open_since().is_some();
        let room = match is_open {
            true => u32::from(self.circuit.wants_probe()),
            false => self.room(window),
        };
        let mut granted = Vec::new();
        for _ in 0..room.min(most) {
            let Some((lane, id)) = self.lanes.take(&weight) else { break };
            self.granted.insert(id);
            self.scout = self.scout.filter(|(scout, _)| *scout != id);
            self.count(1);
            granted.push((lane, id));
        }
        if is_open && !granted.is_empty() {
            self.circuit.probed();
        }
        granted
    }

    /// A turn is over: it was used, was not needed, or could not be used and is to come again.
    pub(super) fn turn_over(&mut self, lane: &LaneName, id: CommandId, comes_again: bool) {
        if self.granted.remove(&id) {
            self.uncount(1);
        }
        if comes_again {
            self.lanes.put_back(lane, id);
        }
    }

    /// What the broker said of messages.
    pub(super) fn published(&mut self, all: u32, in_queue: u32) {
        self.uncount(all);
        self.sent = self.sent.saturating_add(in_queue);
    }

    /// Answers that it gave; whether so many came that it is worth looking at its queue.
    pub(super) fn answered(&mut self, window: u32) -> bool {
        self.answered = self.answered.saturating_add(1);
        self.is_holding() && self.answered >= (window / 4).max(1)
    }

    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Its queue holds `messages`; `sent` of those that were counted are among them, or are done.
    pub(super) fn seen(&mut self, messages: u32, sent: u32) {
        self.seen = Some(messages);
        self.sent = self.sent.saturating_sub(sent);
        self.answered = 0;
    }

    /// Forgets publishes that nothing was heard of for long: they were given up, and are tried again by their due times.
    pub(super) fn turn(&mut self) {
        if self.turned.is_some_and(|turned| turned.elapsed() >= HEARD_OF_BY) {
            self.sending = (0, self.sending.0);
            self.turned = (self.sending != (0, 0)).then(Instant::now);
        }
    }
}
