//! The only module that reads a clock. The coordinator itself goes by the database's clock, which arrives with
//! each commit; this one serves the memory store, participants, and measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

/// A point in time, in microseconds, UTC: what PostgreSQL keeps.
pub type Timestamp = DateTime<Utc>;

/// Where the time comes from: the machine, or a test that moves it by hand.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// A clock that stands still until it is moved.
    Manual(ManualClock),
}

impl Clock {
    /// The time now, cut to microseconds so that what is stored compares equal with what was computed.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => system_now(),
            Self::Manual(clock) => clock.now(),
        }
    }
}

/// A clock that a test moves: microseconds since 1970, shared by its clones.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// A clock that shows `start` until it is moved.
    pub fn starting_at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(start.timestamp_micros())))
    }

    /// The time this clock shows.
    pub fn now(&self) -> Timestamp {
        DateTime::from_timestamp_micros(self.0.load(Ordering::SeqCst)).unwrap_or_default()
    }

    /// Sets the clock, forward or back.
    pub fn show(&self, at: Timestamp) {
        self.0.store(at.timestamp_micros(), Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
fn system_now() -> Timestamp {
    Utc::now().trunc_subsecs(6)
}

/// A stopwatch for measurements; never a source of decisions.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts counting.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// `at` moved forward by `by`; saturates at the end of time instead of failing.
pub fn after(at: Timestamp, by: Duration) -> Timestamp {
    chrono::TimeDelta::from_std(by)
        .ok()
        .and_then(|delta| at.checked_add_signed(delta))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// `at` moved back by `by`; saturates at the beginning of time instead of failing.
pub fn before(at: Timestamp, by: Duration) -> Timestamp {
    chrono::TimeDelta::from_std(by)
        .ok()
        .and_then(|delta| at.checked_sub_signed(delta))
        .unwrap_or(DateTime::<Utc>::MIN_UTC)
}
