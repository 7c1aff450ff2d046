//! When to look for due sagas. The rows' own due times are the truth; what is kept here only saves looking too early,
//! too often, or too late.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Timestamp;

/// How often to look in any case: for sagas of coordinators that are no longer there.
const POLL: Duration = Duration::from_secs(1);
/// Due times are looked at together that lie this close, in milliseconds.
const GRAIN: i64 = 20;
/// What the database's clock may seem to go back, in milliseconds, because of a commit that took long.
const SEEMING: i64 = 5_000;

/// Keeps the due times that this coordinator has written, on the database's clock.
#[derive(Default)]
struct Timer {
    /// The database's time when it was last heard, and how long ago that is.
    heard: Option<(Timestamp, Instant)>,
    /// Due times within the next [`POLL`], in grains, rounded up.
    hints: BTreeSet<i64>,
    /// When it was last looked; never, at first, so that what a predecessor left is looked for at once.
    looked: Option<Instant>,
    /// Whether the clock went back.
    was_set_back: bool,
}

/// The timer of all committers: what one of them has written, another looks for.
#[derive(Clone, Default)]
pub(super) struct SharedTimer(Arc<(Mutex<Timer>, Notify)>);

impl SharedTimer {
    fn with<T>(&self, act: impl FnOnce(&mut Timer) -> T) -> T {
        act(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self) -> bool {
        self.with(|timer| timer.wait().is_zero())
    }

    /// Waits until it is time to look.
    pub(super) async fn due(&self) {
        loop {
            let sooner = self.0.1.notified();
            let wait = self.with(|timer| timer.wait());
            if tokio::time::timeout(wait, sooner).await.is_err() {
                return;
            }
        }
    }

    /// It is being looked now.
    pub(super) fn looked(&self) {
        self.with(Timer::looked);
    }

    /// Looks again at once.
    pub(super) fn wake(&self) {
        self.with(Timer::wake);
        self.0.1.notify_one();
    }

    /// The database's time, and due times that were just written. Says whether the database's clock went back.
    pub(super) fn hear(&self, now: Timestamp, dues: &[Timestamp]) -> bool {
        let (is_sooner, was_set_back) = self.with(|timer| {
            let before = timer.hints.first().copied();
            timer.hear(now, dues);
            (timer.hints.first().copied() != before, timer.was_set_back())
        });
        if is_sooner {
            self.0.1.notify_one();
        }
        was_set_back
    }
}

impl Timer {
    /// How long to wait before looking.
    fn wait(&self) -> Duration {
        let Some(looked) = self.looked else { return Duration::ZERO };
        let poll = POLL.saturating_sub(looked.elapsed());
        let hint = self
            .now()
            .zip(self.hints.first())
            .map(|(now, hint)| Duration::from_millis(u64::try_from(hint * GRAIN - now).unwrap_or_default()));
        hint.map_or(poll, |hint| hint.min(poll))
    }

    /// It is being looked now.
    fn looked(&mut self) {
        self.looked = Some(Instant::now());
        if let Some(now) = self.now() {
            self.hints = self.hints.split_off(&(now / GRAIN + 1));
        }
    }

    /// Looks again at once.
    fn wake(&mut self) {
        self.looked = None;
    }

    /// The database's time, and due times that were just written.
    fn hear(&mut self, now: Timestamp, dues: &[Timestamp]) {
        self.was_set_back |= self.now().is_some_and(|expected| now.timestamp_millis() < expected - SEEMING);
        self.heard = Some((now, Instant::now()));
        let horizon = now + POLL;
        // What lies beyond the next poll is found by a poll.
        let near = dues.iter().filter(|due| **due <= horizon);
        self.hints.extend(near.map(|due| due.timestamp_millis() / GRAIN + 1));
    }

    /// Whether the database's clock went back since this was asked last.
    fn was_set_back(&mut self) -> bool {
        std::mem::take(&mut self.was_set_back)
    }

    /// The database's time now, in milliseconds, as far as it can be told without asking.
    fn now(&self) -> Option<i64> {
        let (heard, since) = self.heard?;
        Some(heard.timestamp_millis() + i64::try_from(since.elapsed().as_millis()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_timer_looks_at_once_and_then_polls() {
        let mut timer = Timer::default();
        assert_eq!(timer.wait(), Duration::ZERO);
        timer.looked();
        assert!(timer.wait() > POLL / 2);
    }

    #[test]
    fn a_near_due_time_is_waited_for_and_a_far_one_left_to_the_poll() {
        let mut timer = Timer::default();
        timer.looked();
        let now = Timestamp::default();
        timer.hear(now, &[now + Duration::from_secs(3_600)]);
        assert!(timer.wait() > POLL / 2);
        timer.hear(now, &[now + Duration::from_millis(200)]);
        assert!(timer.wait() <= Duration::from_millis(220));
    }

    #[test]
    fn a_clock_that_goes_back_is_noticed_once_and_a_slow_commit_is_none() {
        let mut timer = Timer::default();
        let now = Timestamp::default() + Duration::from_secs(86_400);
        timer.hear(now, &[]);
        timer.hear(now - Duration::from_secs(3), &[]);
        assert!(!timer.was_set_back());
        timer.hear(now - Duration::from_secs(60), &[]);
        assert!(timer.was_set_back() && !timer.was_set_back());
        timer.hear(now + Duration::from_secs(3_600), &[]);
        assert!(!timer.was_set_back());
    }

    #[test]
    fn looking_forgets_what_is_past_and_keeps_what_is_to_come() {
        let mut timer = Timer::default();
        let now = Timestamp::default();
        timer.hear(now, &[now, now + Duration::from_millis(900)]);
        timer.looked();
        timer.looked();
        assert_eq!(timer.hints.len(), 2, "the first grain lies at most 20 ms ahead");
        timer.hear(now + Duration::from_millis(100), &[]);
        timer.looked();
        assert_eq!(timer.hints.len(), 1);
    }
}
