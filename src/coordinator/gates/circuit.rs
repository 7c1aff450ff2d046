//! Whether a participant does nothing but fail.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;

/// So many technical failures without a single answer in between open a circuit,
pub(super) const FAILURES: u32 = 20;
/// when the first of them is so long ago.
pub(super) const FAILING: Duration = Duration::from_secs(10);
/// How often an open circuit lets a command through, to see whether it is answered.
pub(super) const PROBE: Duration = Duration::from_secs(5);
/// What one outcome counts in the failure rate.
const WEIGHT: f64 = 0.02;

#[derive(Default)]
pub(super) struct Circuit {
    /// Technical failures since the last answer, and when the first of them was.
    failures: u32,
    failing_since: Option<Instant>,
    rate: f64,
    open: Option<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    since: Timestamp,
    next_probe: Instant,
}

/// What an outcome did to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    Opened,
    Closed,
}

impl Circuit {
    pub(super) fn open_since(&self) -> Option<Timestamp> {
        self.open.map(|open| open.since)
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether it is time for a probe.
    pub(super) fn wants_probe(&self) -> bool {
        self.open.is_some_and(|open| open.next_probe <= Instant::now())
    }

    /// A probe was sent.
    pub(super) fn probed(&mut self) {
        if let Some(open) = &mut self.open {
            open.next_probe = Instant::now() + PROBE;
        }
    }

    /// The participant has answered, or has not: a refusal is an answer, a time-out or a plea for another attempt is none.
    pub(super) fn outcome(&mut self, is_answer: bool, at: Timestamp) -> Option<Turned> {
        self.rate += WEIGHT * (if is_answer { 0.0 } else { 1.0 } - self.rate);
        if is_answer {
            (self.failures, self.failing_since) = (0, None);
            return self.open.take().map(|_| Turned::Closed);
        }
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let is_hopeless = self.failures >= FAILURES && since.elapsed() >= FAILING;
        if self.open.is_some() || !is_hopeless {
            return None;
        }
        self.open = Some(Open { since: at, next_probe: Instant::now() + PROBE });
        Some(Turned::Opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(circuit: &mut Circuit, times: u32) -> Vec<Turned> {
        (0..times).filter_map(|_| circuit.outcome(false, Timestamp::default())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_circuit_opens_for_technical_failures_alone_that_go_on_for_long() {
        let mut circuit = Circuit::default();
        assert_eq!(fail(&mut circuit, FAILURES), [], "not for long");
        tokio::time::advance(FAILING).await;
        assert_eq!(circuit.outcome(true, Timestamp::default()), None);
        assert_eq!(fail(&mut circuit, FAILURES), [], "an answer in between, a refusal too, begins anew");
        tokio::time::advance(FAILING).await;
        assert_eq!(fail(&mut circuit, 5), [Turned::Opened], "and opens once");
        assert!(circuit.rate() > 0.3, "{}", circuit.rate());

        let mut rare = Circuit::default();
        for _ in 1..FAILURES {
            assert_eq!(fail(&mut rare, 1), []);
            tokio::time::advance(FAILING).await;
        }
        assert_eq!(rare.open_since(), None, "too few");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_wants_one_probe_at_a_time_and_closes_with_an_answer() {
        let mut circuit = Circuit::default();
        fail(&mut circuit, FAILURES);
        tokio::time::advance(FAILING).await;
        fail(&mut circuit, 1);
        assert!(circuit.open_since().is_some() && !circuit.wants_probe());
        tokio::time::advance(PROBE).await;
        assert!(circuit.wants_probe());
        circuit.probed();
        assert!(!circuit.wants_probe());
        assert_eq!(fail(&mut circuit, 1), []);
        assert_eq!(circuit.outcome(true, Timestamp::default()), Some(Turned::Closed));
        assert_eq!((circuit.open_since(), circuit.wants_probe()), (None, false));
    }
}
