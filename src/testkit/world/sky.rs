//! What everything in a world shares: the time, the dice, what is cut off from what, and the trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fault::{Strike, Strikes};
use crate::clock::Timestamp;
use crate::testkit::draw;

/// The day on which every world begins.
const BEGINNING: i64 = 1_700_000_000;

/// Numbers that a seed gives, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    /// The dice of a seed; `salt` tells apart those of several.
    pub(super) fn of(seed: u64, salt: u64) -> Self {
        Self { seed: draw(seed, salt), thrown: 0 }
    }

    /// Any number.
    pub(super) fn throw(&mut self) -> u64 {
        self.thrown += 1;
        draw(self.seed, self.thrown)
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.throw() % n.max(1)
    }

    /// Whether something of this chance, in thousandths, happens.
    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1_000) < per_mille
    }

    /// A time between two, in milliseconds.
    pub(super) fn between(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to.saturating_sub(from) + 1))
    }
}

/// Something that can crash, or be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    Store,
    Broker,
    Client,
    /// A participant's database.
    Database,
    Coordinator(u8),
    Participant(u8),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store => f.write_str("store"),
            Self::Broker => f.write_str("broker"),
            Self::Client => f.write_str("client"),
            Self::Database => f.write_str("database"),
            Self::Coordinator(n) => write!(f, "coordinator {n}"),
            Self::Participant(n) => write!(f, "participant {n}"),
        }
    }
}

/// One incarnation of a process, from its start to its crash. What is dead never comes back to do anything more: whatever
/// it asks of the world, it waits for in vain.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) place: Place,
    /// Counts the incarnations of the place, from 1.
    pub(super) number: u32,
    end: CancellationToken,
}

impl Life {
    pub(super) fn new(place: Place, number: u32) -> Self {
        Self { place, number, end: CancellationToken::new() }
    }

    pub(super) fn die(&self) {
        self.end.cancel();
    }

    pub(super) fn is_over(&self) -> bool {
        self.end.is_cancelled()
    }

    pub(super) async fn over(&self) {
        self.end.cancelled().await;
    }

    /// Returns only to the living.
    pub(super) async fn go_on(&self) {
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }
}

/// The world around everything. Clones are the same one.
#[derive(Clone)]
pub(super) struct Sky(Arc<Inner>);

struct Inner {
    began: Instant,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    dice: Dice,
    strikes: Strikes,
    cuts: BTreeSet<(Place, Place)>,
    down: BTreeSet<Place>,
    is_quiet: bool,
    /// When the last fault was over.
    quiet_since: Option<Duration>,
    /// How far the clocks are off that are, in milliseconds.
    clocks: BTreeMap<Place, i64>,
    /// The clocks as those have them in hand who make ids by them.
    dials: BTreeMap<Place, Arc<AtomicI64>>,
    trace: Trace,
}

impl Sky {
    pub(super) fn new(seed: u64, strikes: Strikes, keeps_lines: bool) -> Self {
        let trace = Trace { hash: 0xcbf2_9ce4_8422_2325, lines: keeps_lines.then(Vec::new), line: String::new() };
        let state = State {
            dice: Dice::of(seed, 1),
            strikes,
            cuts: BTreeSet::new(),
            down: BTreeSet::new(),
            is_quiet: false,
            quiet_since: None,
            clocks: BTreeMap::new(),
            dials: BTreeMap::new(),
            trace,
        };
        Self(Arc::new(Inner { began: Instant::now(), state: Mutex::new(state), changed: Notify::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the world began.
    pub(super) fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// The true time.
    pub(super) fn now(&self) -> Timestamp {
        self.off(0)
    }

    /// What the clock shows that this place goes by.
    pub(super) fn now_at(&self, place: Place) -> Timestamp {
        let off = self.state().clocks.get(&place).copied().unwrap_or_default();
        self.off(off)
    }

    /// The clock of a place, which shows the time of when it was last looked at by [`Sky::look`].
    pub(super) fn dial(&self, place: Place) -> Arc<AtomicI64> {
        let dial = self.state().dials.entry(place).or_default().clone();
        self.look(place);
        dial
    }

    /// Somebody there looks at the clock.
    pub(super) fn look(&self, place: Place) {
        let now = self.now_at(place);
        if let Some(dial) = self.state().dials.get(&place) {
            dial.store(now.timestamp_millis(), Ordering::Relaxed);
        }
    }

    fn off(&self, millis: i64) -> Timestamp {
        let micros = i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_timestamp_micros(BEGINNING * 1_000_000 + micros + millis * 1_000).unwrap_or_default()
    }

    /// Sets a clock apart from the true time, in milliseconds.
    pub(super) fn set_clock(&self, place: Place, millis: i64) {
        self.state().clocks.insert(place, millis);
        self.note(format_args!("the clock of the {place} is {millis} ms off"));
    }

    /// Sets every clock right.
    pub(super) fn set_clocks_right(&self) {
        self.state().clocks.clear();
        self.note(format_args!("every clock is right"));
    }

    pub(super) fn dice<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.state().dice)
    }

    /// Whether this fault strikes here and now.
    pub(super) fn strikes(&self, strike: Strike) -> bool {
        let mut state = self.state();
        let rate = state.strikes.rate(strike);
        if state.is_quiet || rate == 0 || !state.dice.happens(rate) {
            return false;
        }
        drop(state);
        self.struck(strike);
        true
    }

    /// Whether this fault is one of this world's.
    pub(super) fn is_possible(&self, strike: Strike) -> bool {
        self.state().strikes.rate(strike) > 0
    }

    /// This fault has struck.
    pub(super) fn struck(&self, strike: Strike) {
        self.state().strikes.count(strike);
        self.note(format_args!("! {}", strike.as_str()));
    }

    /// How long something takes on its way: nothing, or a few milliseconds.
    pub(super) async fn travel(&self) {
        let millis = self.dice(|dice| dice.below(5));
        match millis {
            0 => tokio::task::yield_now().await,
            _ => tokio::time::sleep(Duration::from_millis(millis)).await,
        }
    }

    /// Sleeps for a drawn time.
    pub(super) async fn sleep(&self, from: u64, to: u64) {
        let time = self.dice(|dice| dice.between(from, to));
        tokio::time::sleep(time).await;
    }

    pub(super) fn is_cut(&self, a: Place, b: Place) -> bool {
        let state = self.state();
        state.down.contains(&a) || state.down.contains(&b) || state.cuts.contains(&pair(a, b))
    }

    pub(super) fn cut(&self, a: Place, b: Place) {
        self.state().cuts.insert(pair(a, b));
        self.note(format_args!("{a} and {b} are cut off from each other"));
        self.0.changed.notify_waiters();
    }

    pub(super) fn mend(&self, a: Place, b: Place) {
        self.state().cuts.remove(&pair(a, b));
        self.note(format_args!("{a} and {b} hear each other"));
        self.0.changed.notify_waiters();
    }

    pub(super) fn set_down(&self, place: Place, is_down: bool) {
        let mut state = self.state();
        if is_down {
            state.down.insert(place)
        } else {
            state.down.remove(&place)
        };
        drop(state);
        self.note(format_args!("the {place} is {}", if is_down { "away" } else { "back" }));
        self.0.changed.notify_waiters();
    }

    /// Waits until something is cut off or mended.
    pub(super) async fn change(&self) {
        self.0.changed.notified().await;
    }

    /// Mends everything; from here on nothing goes wrong.
    pub(super) fn clear(&self) {
        let elapsed = self.elapsed();
        let mut state = self.state();
        state.cuts.clear();
        state.down.clear();
        state.is_quiet = true;
        state.quiet_since = Some(elapsed);
        drop(state);
        self.note(format_args!("the sky is clear"));
        self.0.changed.notify_waiters();
    }

    pub(super) fn quiet_since(&self) -> Option<Duration> {
        self.state().quiet_since
    }

    /// Writes a line into the trace.
    pub(super) fn note(&self, line: fmt::Arguments<'_>) {
        let elapsed = self.elapsed().as_micros();
        self.state().trace.note(elapsed, line);
    }

    /// The hash of the trace so far, and its lines if they were kept.
    pub(super) fn trace(&self) -> (u64, Vec<String>) {
        let state = self.state();
        (state.trace.hash, state.trace.lines.clone().unwrap_or_default())
    }

    /// How often each fault has struck.
    pub(super) fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.state().strikes.fired()
    }
}

fn pair(a: Place, b: Place) -> (Place, Place) {
    if a <= b { (a, b) } else { (b, a) }
}

/// Everything that happened, as a hash; as text too where somebody wants to read it.
struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
    line: String,
}

impl Trace {
    fn note(&mut self, micros: u128, line: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing into a string does not fail.
        let _ = write!(self.line, "{:>10}.{:03} ms  {line}", micros / 1_000, micros % 1_000);
        // FNV-1a: enough to tell two runs apart, and quick.
        for byte in self.line.as_bytes() {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }
}
