//! A participant's inbox as the contract's five rules ask for it, in memory: each command takes effect once, a
//! compensation without an action leaves a tombstone.

use std::collections::BTreeMap;

use crate::id::StepIndex;
use crate::saga::{Direction, Problem, ReplyOutcome};
use crate::testkit::Entry;

/// What a command's idempotency key tells apart within one saga.
type Key = (StepIndex, Direction, u32);

/// The inboxes of all participants of one saga.
#[derive(Clone, Debug)]
pub struct ModelInbox {
    answers: BTreeMap<Key, ReplyOutcome>,
    /// Whether duplicates are answered from memory. Off only to see that the lack is noticed.
    pub remembers: bool,
    /// Whether a compensation without an action leaves a tombstone. Off only to see that the lack is noticed.
    pub leaves_tombstones: bool,
}

impl Default for ModelInbox {
    fn default() -> Self {
        Self { answers: BTreeMap::new(), remembers: true, leaves_tombstones: true }
    }
}

impl ModelInbox {
    /// The recorded answer, if the command was carried out before.
    pub fn known(&self, entry: &Entry) -> Option<&ReplyOutcome> {
        self.answers.get(&(entry.step, entry.direction, entry.generation)).filter(|_| self.remembers)
    }

    /// Records an answer; what is no final answer is not recorded.
    pub fn record(&mut self, entry: &Entry, answer: &ReplyOutcome) {
        if matches!(answer, ReplyOutcome::Success { .. } | ReplyOutcome::Failure { .. }) {
            self.answers.insert((entry.step, entry.direction, entry.generation), answer.clone());
        }
    }

    /// What is known by a step's place goes by another, or is forgotten: the saga was moved to another version.
    pub fn renumber(&mut self, new: impl Fn(StepIndex) -> Option<StepIndex>) {
        let answers = std::mem::take(&mut self.answers).into_iter();
        self.answers = answers.filter_map(|((step, way, n), answer)| Some(((new(step)?, way, n), answer))).collect();
    }

    /// Whether a compensation has anything to undo. When its action never came, it never will from here on.
    pub fn has_something_to_undo(&mut self, entry: &Entry) -> bool {
        let action = (entry.step, Direction::Action, entry.compensates.unwrap_or_default());
        match self.answers.get(&action) {
            Some(ReplyOutcome::Success { .. }) => true,
            Some(_) => false,
            None => {
                if self.leaves_tombstones {
                    let problem = Problem::new("tombstoned", "this action was compensated before it came");
                    self.answers.insert(action, ReplyOutcome::Failure { problem });
                }
                false
            }
        }
    }
}
