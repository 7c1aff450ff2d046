//! What each participant is sent at once, and what callers may start: so that one that has stopped, or a flood of one
//! definition, costs the others nothing.
//!
//! A gate holds commands back while too many wait in the participant's queue already (the window), or while the
//! participant has done nothing but fail for a while (the circuit). A command that is held back stays PENDING in the store
//! with a time at which it is its turn, in the order in which they came; nothing of it is kept here. Its attempts are not
//! spent. What is kept is a few numbers per participant.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::broker::topology::commands_queue;
use crate::clock::{Timestamp, after};
use crate::coordinator::metrics::Metrics;
use crate::coordinator::plan::Noted;
use crate::definition::COORDINATOR;
use crate::saga::Note;

/// Messages that may wait in a participant's queue, unless options say otherwise.
pub(super) const WINDOW: u32 = 10_000;
/// How often queues are looked at that were sent to.
const LOOK: Duration = Duration::from_millis(500);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The least that a command is held back.
const LEAST: Duration = Duration::from_secs(1);
/// The most: a part of what guarantee 16 allows beyond the retry budget.
const MOST: Duration = Duration::from_secs(30);
/// The time between the turns of two commands that are held back: what looking at them again may cost.
const TURN: Duration = Duration::from_millis(2);
/// So many technical failures without a single answer in between open a circuit,
const FAILURES: u32 = 20;
/// when the first of them is so long ago.
const FAILING: Duration = Duration::from_secs(10);
/// How often an open circuit lets a command through, to see whether it is answered.
const PROBE: Duration = Duration::from_secs(5);
/// What one outcome counts in the failure rate.
const WEIGHT: f64 = 0.02;
/// Starts of one definition that wait for a commit at once; the others are told to come back.
const STARTING: usize = 2_048;

/// The gates of all participants. Clones are the same.
#[derive(Clone)]
pub(super) struct Gates(Arc<Inner>);

struct Inner {
    window: u32,
    windows: BTreeMap<String, u32>,
    gates: Mutex<HashMap<String, Gate>>,
    starting: Mutex<HashMap<String, Arc<AtomicUsize>>>,
    /// The broker does not take what was decided already.
    is_backlogged: AtomicBool,
    metrics: Metrics,
}

#[derive(Default)]
struct Gate {
    /// Messages in its queue and consumers, when last looked at.
    seen: Option<(u32, u32)>,
    /// Sent since.
    sent: u32,
    is_full: bool,
    /// The turn of the last command that was held back.
    tail: Option<Timestamp>,
    held: u64,
    /// Technical failures since the last answer, and when the first of them was.
    failures: u32,
    failing_since: Option<Instant>,
    failure_rate: f64,
    open: Option<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    since: Timestamp,
    next_probe: Timestamp,
}

/// How a participant stands, as far as this coordinator can tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Since when its circuit is open: it has done nothing but fail, and is only sent probes.
    pub open_since: Option<Timestamp>,
    /// Whether its queue is so long that commands are held back.
    pub is_full: bool,
    /// How many commands were held back so far.
    pub held: u64,
    /// The part of its last outcomes that were technical failures: time-outs and pleas for another attempt.
    pub failure_rate: f64,
    /// How many messages may wait in its queue.
    pub window: u32,
}

/// A start that waits for its commit; gives its place back when dropped.
pub(super) struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gates {
    pub(super) fn new(window: u32, windows: BTreeMap<String, u32>, metrics: Metrics) -> Self {
        let (gates, starting, is_backlogged) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Self(Arc::new(Inner { window, windows, gates, starting, is_backlogged, metrics }))
    }

    fn window(&self, participant: &str) -> u32 {
        self.0.windows.get(participant).copied().unwrap_or(self.0.window).max(1)
    }

    /// Whether a command for `participant` goes out now; else when it is its turn.
    pub(super) fn admit(&self, participant: &str, now: Timestamp) -> Option<Timestamp> {
        if participant == COORDINATOR {
            return None;
        }
        let window = self.window(participant);
        let mut gates = self.0.gates.lock().ok()?;
        let gate = match gates.get_mut(participant) {
            Some(gate) => gate,
            None => gates.entry(participant.to_owned()).or_default(),
        };
        let is_probe = match &mut gate.open {
            Some(open) if open.next_probe <= now => {
                open.next_probe = after(now, PROBE);
                true
            }
            Some(_) => return Some(self.hold(participant, gate, now)),
            None => false,
        };
        if gate.is_full && !is_probe {
            return Some(self.hold(participant, gate, now));
        }
        gate.sent = gate.sent.saturating_add(1);
        gate.is_full |= gate.sent.saturating_add(gate.seen.map_or(0, |(ready, _)| ready)) >= window;
        None
    }

    fn hold(&self, participant: &str, gate: &mut Gate, now: Timestamp) -> Timestamp {
        gate.held += 1;
        self.0.metrics.held(participant);
        let first = after(now, LEAST);
        let turn = gate.tail.map_or(first, |tail| after(tail, TURN).max(first)).min(after(now, MOST));
        gate.tail = Some(turn);
        turn
    }

    /// What participants have made of their commands.
    pub(super) fn observe(&self, notes: &[Noted]) {
        for noted in notes {
            let (step, is_good) = match &noted.note {
                Note::StepVerified(step) | Note::StepFailed(step, _) | Note::StepCompensated(step) => (*step, true),
                Note::TimedOut(step, _) | Note::RetryAsked(step, _) => (*step, false),
                _ => continue,
            };
            self.outcome(&noted.definition.step(step).participant, is_good, noted.at);
        }
    }

    fn outcome(&self, participant: &str, is_good: bool, at: Timestamp) {
        if participant == COORDINATOR {
            return;
        }
        let Ok(mut gates) = self.0.gates.lock() else { return };
        let Some(gate) = gates.get_mut(participant) else { return };
        gate.failure_rate += WEIGHT * (if is_good { 0.0 } else { 1.0 } - gate.failure_rate);
        if is_good {
            (gate.failures, gate.failing_since) = (0, None);
            if gate.open.take().is_some() {
                gate.tail = None;
                self.0.metrics.circuit(participant, false);
                tracing::info!(participant, "it answers again: its circuit is closed");
            }
            return;
        }
        gate.failures = gate.failures.saturating_add(1);
        let since = *gate.failing_since.get_or_insert_with(Instant::now);
        if gate.open.is_none() && gate.failures >= FAILURES && since.elapsed() >= FAILING {
            gate.open = Some(Open { since: at, next_probe: after(at, PROBE) });
            self.0.metrics.circuit(participant, true);
            tracing::warn!(
                participant,
                failures = gate.failures,
                "it only fails: its circuit is open, and only probes are sent"
            );
        }
    }

    pub(super) fn standing(&self, participant: &str) -> Standing {
        let window = self.window(participant);
        let gates = self.0.gates.lock();
        let Some(gate) = gates.as_ref().ok().and_then(|gates| gates.get(participant)) else {
            return Standing { window, ..Standing::default() };
        };
        Standing {
            open_since: gate.open.map(|open| open.since),
            is_full: gate.is_full,
            held: gate.held,
            failure_rate: gate.failure_rate,
            window,
        }
    }

    /// A place for a start of this definition among those that wait for a commit; none when it has too many there.
    pub(super) fn enter(&self, definition: &str) -> Option<Arc<Turn>> {
        if self.0.is_backlogged.load(Ordering::Relaxed) {
            return None;
        }
        let mut starting = self.0.starting.lock().ok()?;
        let count = match starting.get(definition) {
            Some(count) => count.clone(),
            None => starting.entry(definition.to_owned()).or_default().clone(),
        };
        if count.load(Ordering::Relaxed) >= STARTING {
            return None;
        }
        count.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Turn(count)))
    }

    /// Whether what was decided already does not go out: nothing new is taken in meanwhile.
    pub(super) fn backlogged(&self, is_backlogged: bool) {
        self.0.is_backlogged.store(is_backlogged, Ordering::Relaxed);
    }

    /// Looks at the queues that were sent to, now and then.
    pub(super) async fn watch(self, broker: Arc<dyn Broker>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            for (participant, sent) in self.to_look_at() {
                let queue = commands_queue(&participant);
                let look = broker.queue(&queue);
                let status = match tokio::time::timeout(PATIENCE, look).await {
                    Ok(Ok(Some(status))) => status,
                    // What is not known holds nothing up for long: the broker is asked again.
                    _ => continue,
                };
                self.seen(&participant, sent, status.messages, status.consumers);
            }
        }
    }

    /// Those that nearly have a window's worth on its way, or are full.
    fn to_look_at(&self) -> Vec<(String, u32)> {
        let Ok(gates) = self.0.gates.lock() else { return Vec::new() };
        let is_of_interest = |name: &str, gate: &Gate| {
            let waiting = gate.seen.map_or(0, |(ready, _)| ready).saturating_add(gate.sent);
            gate.is_full || (gate.sent > 0 && waiting >= self.window(name) / 4)
        };
        let all = gates.iter().filter(|(name, gate)| is_of_interest(name, gate));
        all.map(|(name, gate)| (name.clone(), gate.sent)).collect()
    }

    fn seen(&self, participant: &str, sent: u32, messages: u32, consumers: u32) {
        let window = self.window(participant);
        let Ok(mut gates) = self.0.gates.lock() else { return };
        let Some(gate) = gates.get_mut(participant) else { return };
        gate.seen = Some((messages, consumers));
        gate.sent = gate.sent.saturating_sub(sent);
        // Once full it stays so until half of it is done: a gate that swings is looked through one by one.
        gate.is_full = messages.saturating_add(gate.sent) >= if gate.is_full { window.div_ceil(2) } else { window };
        if !gate.is_full && gate.open.is_none() {
            gate.tail = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(window: u32) -> Gates {
        Gates::new(window, BTreeMap::from([("small".to_owned(), 2)]), Metrics::default())
    }

    fn admitted(gates: &Gates, participant: &str, of: u32) -> u32 {
        (0..of).map(|_| u32::from(gates.admit(participant, Timestamp::default()).is_none())).sum()
    }

    #[test]
    fn a_window_closes_at_its_size_and_opens_once_half_of_it_is_done() {
        let gates = gates(10);
        assert_eq!(admitted(&gates, "slow", 50), 10);
        assert_eq!(admitted(&gates, "other", 5), 5, "a neighbour's window is its own");
        assert_eq!(admitted(&gates, "small", 5), 2, "windows can be given one by one");
        gates.seen("slow", 10, 6, 1);
        assert_eq!(admitted(&gates, "slow", 50), 0);
        gates.seen("slow", 0, 4, 1);
        assert_eq!(admitted(&gates, "slow", 50), 6);
    }

    #[test]
    fn what_is_held_back_has_its_turn_in_the_order_in_which_it_came() {
        let (gates, now) = (gates(1), Timestamp::default());
        assert_eq!(gates.admit("slow", now), None);
        let turns: Vec<Timestamp> = (0..20_000).filter_map(|_| gates.admit("slow", now)).collect();
        assert!(turns.is_sorted() && turns[0] >= after(now, LEAST) && turns[1] > turns[0]);
        assert!(turns.iter().all(|turn| *turn <= after(now, MOST)), "nothing is held back for longer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_opens_for_technical_failures_only_lets_probes_through_and_closes_on_an_answer() {
        let (gates, now) = (gates(1_000), Timestamp::default());
        assert_eq!(gates.admit("shop", now), None);
        for _ in 0..FAILURES {
            gates.outcome("shop", false, now);
        }
        assert_eq!(gates.admit("shop", now), None, "it has not failed for long");
        tokio::time::advance(FAILING).await;
        gates.outcome("shop", true, now);
        for _ in 0..FAILURES {
            gates.outcome("shop", false, now);
        }
        assert_eq!(gates.standing("shop").open_since, None, "an answer in between, a refusal too, begins anew");
        tokio::time::advance(FAILING).await;
        gates.outcome("shop", false, now);
        let standing = gates.standing("shop");
        assert_eq!(standing.open_since, Some(now));
        assert!(standing.failure_rate > 0.3, "{standing:?}");
        assert!(gates.admit("shop", now).is_some());

        let later = after(now, PROBE);
        assert_eq!(gates.admit("shop", later), None, "a probe");
        assert!(gates.admit("shop", later).is_some(), "and no more");
        gates.outcome("shop", true, later);
        assert_eq!(gates.standing("shop").open_since, None);
        assert_eq!(gates.admit("shop", later), None);
    }

    #[test]
    fn a_flood_of_one_definition_leaves_room_for_the_others() {
        let gates = gates(1);
        let turns: Vec<_> = (0..STARTING).map(|_| gates.enter("flood").expect("room")).collect();
        assert!(gates.enter("flood").is_none());
        let other = gates.enter("other").expect("room");
        drop((turns, other));
        assert!(gates.enter("flood").is_some());
        gates.backlogged(true);
        assert!(gates.enter("other").is_none(), "the broker does not take what there is");
    }
}
