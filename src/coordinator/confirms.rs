//! Which attempts the broker has confirmed, until that is written down. Kept in memory only: when it is lost, a command
//! is published once more, which the participant's inbox answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::id::CommandId;

/// A confirm this old is written down with the next commit; most commands are settled before.
const SETTLED_BY_THEN: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub(super) struct Confirms(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    attempts: HashMap<CommandId, u32>,
    /// In the order in which they came, those among them that were taken since: nothing is looked for.
    ages: VecDeque<(Instant, CommandId, u32)>,
}

impl Confirms {
    /// These attempts were confirmed just now.
    pub(super) fn add(&self, confirmed: impl IntoIterator<Item = (CommandId, u32)>) {
        let now = Instant::now();
        if let Ok(mut state) = self.0.lock() {
            for (command, attempt) in confirmed {
                state.attempts.insert(command, attempt);
                state.ages.push_back((now, command, attempt));
            }
        }
    }

    /// The attempt that was confirmed, which is then forgotten.
    pub(super) fn take(&self, command: CommandId) -> Option<u32> {
        self.0.lock().ok()?.attempts.remove(&command)
    }

    /// Confirms that have waited long enough to be written, at most `limit`; those that were taken are dropped here.
    /// They stay until they are taken, or given back to [`Confirms::forget`].
    pub(super) fn ripe(&self, limit: usize) -> Vec<(CommandId, u32)> {
        let Ok(mut state) = self.0.lock() else { return Vec::new() };
        let mut ripe = Vec::new();
        while ripe.len() < limit
            && let Some((since, command, attempt)) = state.ages.front().copied()
            && (since.elapsed() > SETTLED_BY_THEN || !state.holds(command, attempt))
        {
            state.ages.pop_front();
            if state.holds(command, attempt) {
                ripe.push((command, attempt));
            }
        }
        ripe
    }

    /// After a commit with the sagas of these: what the plan did not take has gone on in the meantime.
    pub(super) fn forget(&self, ripe: &[(CommandId, u32)]) {
        if let Ok(mut state) = self.0.lock() {
            for &(command, attempt) in ripe {
                if state.holds(command, attempt) {
                    state.attempts.remove(&command);
                }
            }
        }
    }

    /// The commit failed: they are ripe again.
    pub(super) fn keep(&self, ripe: Vec<(CommandId, u32)>) {
        if let Ok(mut state) = self.0.lock() {
            for (command, attempt) in ripe.into_iter().rev() {
                // The plan that came to nothing has taken it.
                state.attempts.entry(command).or_insert(attempt);
                if let Some((since, ..)) = state.ages.front().copied() {
                    state.ages.push_front((since, command, attempt));
                } else {
                    state.ages.push_front((Instant::now(), command, attempt));
                }
            }
        }
    }
}

impl State {
    fn holds(&self, command: CommandId, attempt: u32) -> bool {
        self.attempts.get(&command) == Some(&attempt)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::{SagaId, Seq};

    fn command(seq: u32) -> CommandId {
        CommandId { saga: SagaId(Uuid::from_u128(1)), seq: Seq(seq) }
    }

    #[test]
    fn a_confirm_is_taken_once() {
        let confirms = Confirms::default();
        confirms.add([(command(1), 1)]);
        assert_eq!((confirms.take(command(1)), confirms.take(command(1))), (Some(1), None));
    }

    #[test]
    fn what_was_taken_leaves_nothing_behind() {
        let confirms = Confirms::default();
        confirms.add((1..=100).map(|seq| (command(seq), 1)));
        for seq in 1..=100 {
            confirms.take(command(seq));
        }
        assert_eq!(confirms.ripe(10), []);
        let state = confirms.0.lock().expect("unlocked");
        assert!(state.ages.is_empty() && state.attempts.is_empty());
    }

    #[test]
    fn what_is_fresh_is_not_ripe() {
        let confirms = Confirms::default();
        confirms.add([(command(1), 1)]);
        assert_eq!(confirms.ripe(10), []);
        assert_eq!(confirms.take(command(1)), Some(1));
    }

    #[test]
    fn what_a_failed_commit_did_not_write_is_kept() {
        let confirms = Confirms::default();
        confirms.add([(command(1), 1)]);
        let ripe = vec![(command(1), 1)];
        assert_eq!(confirms.take(command(1)), Some(1), "by the plan");
        confirms.keep(ripe.clone());
        assert_eq!(confirms.take(command(1)), Some(1), "and by that of the next try");
        confirms.add([(command(1), 2)]);
        confirms.forget(&ripe);
        assert_eq!(confirms.take(command(1)), Some(2), "a later attempt is another confirm");
    }
}
