//! What one run of a load gave.

use std::time::Duration;

use crate::cli::error::CliError;
use crate::clock::Stopwatch;
use crate::payload::Payload;
use crate::store::{AuditRecord, Changes, Store, Wants};

/// Commits that are timed to know what one takes.
const COMMITS: usize = 200;

/// What was measured in turns.
#[derive(Debug)]
pub(super) struct Round {
    /// None when everything runs in one process.
    pub(super) floors: Option<Floors>,
    pub(super) measured: Measured,
}

/// The floors of a round.
#[derive(Debug)]
pub(super) struct Floors {
    /// With the coordinator's own AMQP client.
    pub(super) own: Measured,
    /// With lapin.
    pub(super) lapin: Measured,
}

/// What one run of a load gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    /// From the first start to the last end.
    pub(super) took: Duration,
    /// Per saga, from the request to start it to its durable end; sorted.
    pub(super) latencies: Vec<Duration>,
    /// Per request to start sagas; sorted. None for the floor.
    pub(super) starts: Vec<Duration>,
    pub(super) completed: u32,
    pub(super) compensated: u32,
    pub(super) stuck: u32,
    pub(super) commits: u64,
    /// CPU time of the process that drives the sagas, as far as the system tells.
    pub(super) cpu: Option<Duration>,
    /// CPU time of the participants.
    pub(super) participants_cpu: Option<Duration>,
}

impl Measured {
    pub(super) fn ended(&self) -> u32 {
        self.completed + self.compensated + self.stuck
    }

    pub(super) fn per_second(&self) -> f64 {
        f64::from(self.ended()) / self.took.as_secs_f64().max(f64::EPSILON)
    }

    pub(super) fn commits_per_saga(&self) -> f64 {
        self.commits as f64 / f64::from(self.ended().max(1))
    }

    /// The latency below which `percent` of the sagas stay.
    pub(super) fn latency(&self, percent: usize) -> Duration {
        percentile(&self.latencies, percent)
    }

    pub(super) fn end(&mut self, how: &str) {
        match how {
            "completed" => self.completed += 1,
            "compensated" => self.compensated += 1,
            _ => self.stuck += 1,
        }
    }

    pub(super) fn sort(&mut self) {
        self.latencies.sort_unstable();
        self.starts.sort_unstable();
    }
}

/// Of sorted values; zero when there are none.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// The CPU time that a process has used until now. Only Linux tells, to 10 ms.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold anything; what counts comes after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// The median time of a small commit by the store itself, when nothing else goes on.
pub(super) async fn commit_time(store: &dyn Store) -> Result<Duration, CliError> {
    let now = store.health().await?.now;
    let mut times = Vec::with_capacity(COMMITS);
    for _ in 0..COMMITS {
        let audit = AuditRecord {
            id: 0,
            at: now,
            actor: "bench".to_owned(),
            saga: None,
            action: "bench".to_owned(),
            reason: String::new(),
            detail: Payload::trusted("{}"),
        };
        let since = Stopwatch::start();
        let decide = Box::new(move |_| Changes { audits: vec![audit], ..Changes::default() });
        store.commit(Wants::default(), decide).await?;
        times.push(since.elapsed());
    }
    times.sort_unstable();
    Ok(percentile(&times, 50))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let values: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!([50, 99].map(|percent| percentile(&values, percent).as_millis()), [51, 100]);
        assert_eq!(percentile(&values[..1], 99).as_millis(), 1);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
