//! Many worlds, on all cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Bug, Outcome, run};

/// Which seeds to run.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The first one.
    pub from: u64,
    /// How many.
    pub count: u64,
}

/// Runs of many seeds.
#[derive(Debug, Default)]
pub struct Many {
    /// What is planted into each of them.
    pub bug: Option<Bug>,
    /// On how many threads; on all cores if 0.
    pub threads: usize,
    /// Stop once one of these guarantees was broken.
    pub until_broken: Vec<u8>,
}

/// What came of them together.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many worlds were run.
    pub runs: u64,
    /// How many sagas ended in which state.
    pub ends: BTreeMap<&'static str, u64>,
    /// Commands that were published, repetitions included.
    pub commands: u64,
    /// Transactions that changed something.
    pub commits: u64,
    /// How often each kind of fault struck.
    pub fired: BTreeMap<&'static str, u64>,
    /// How often operators did what.
    pub operated: BTreeMap<&'static str, u64>,
    /// The worlds in which something was found wrong, in order of their seeds.
    pub wrong: Vec<Outcome>,
}

impl Tally {
    /// How many sagas there were.
    pub fn sagas(&self) -> u64 {
        self.ends.values().sum()
    }

    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.commands += outcome.commands;
        self.commits += outcome.commits;
        for (state, count) in &outcome.ends {
            *self.ends.entry(state).or_default() += count;
        }
        for (fault, count) in &outcome.fired {
            *self.fired.entry(fault).or_default() += count;
        }
        for (word, count) in &outcome.operated {
            *self.operated.entry(word).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            self.wrong.push(outcome);
        }
    }
}

impl Many {
    /// Runs the world of every seed; `progress` is told now and then how many are done.
    pub fn run(&self, seeds: Seeds, progress: &(dyn Fn(u64) + Sync)) -> Tally {
        let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let (tally, is_over) = (Mutex::new(Tally::default()), AtomicBool::new(false));
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= seeds.count {
                            break;
                        }
                        let seed = seeds.from.wrapping_add(at);
                        let outcome = run(seed, self.bug, false).unwrap_or_else(|error| Outcome {
                            seed,
                            violations: vec![super::Violation { guarantee: 0, what: error.to_string() }],
                            ..Outcome::default()
                        });
                        if outcome.violations.iter().any(|found| self.until_broken.contains(&found.guarantee)) {
                            is_over.store(true, Ordering::Relaxed);
                        }
                        tally.lock().unwrap_or_else(PoisonError::into_inner).add(outcome);
                        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    }
                });
            }
        });
        let mut tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        tally.wrong.sort_by_key(|outcome| outcome.seed);
        tally
    }
}
