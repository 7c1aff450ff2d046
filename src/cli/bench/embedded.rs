//! Everything in this process: the coordinator, the broker inside it, the participants, and whoever starts sagas.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::coordinator::options;
use super::drive::stalled;
use super::measure::{Measured, cpu_time};
use super::participants::{AtWork, Kind};
use super::site::Site;
use super::workload::Load;
use crate::cli::error::CliError;
use crate::clock::Stopwatch;
use crate::coordinator::{Coordinator, CoordinatorError, Ended, Start, StartOutcome};
use crate::id::SagaId;
use crate::payload::Payload;

/// As many as one request over HTTP may ask for.
const AT_ONCE: u32 = 1_000;
/// Nothing ends for so long only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A coordinator in this process, at work.
pub(super) struct Embedded {
    coordinator: Coordinator,
    participants: AtWork,
    ended: tokio::sync::Mutex<mpsc::UnboundedReceiver<Ended>>,
    name: String,
}

impl Embedded {
    pub(super) async fn launch(site: &Site, kind: Kind) -> Result<Self, CliError> {
        let broker = site.broker.shared();
        let (sender, ended) = mpsc::unbounded_channel();
        let options = options(&site.names, sender);
        let coordinator = Coordinator::launch(site.store.clone(), broker.clone(), options).await?;
        coordinator.register(&site.names.definition(), "bench").await?;
        let participants = AtWork::begin(kind, &site.names, &broker, &site.services_url()).await?;
        Ok(Self { coordinator, participants, ended: tokio::sync::Mutex::new(ended), name: site.names.run.clone() })
    }

    /// Runs a load and waits for all its ends.
    pub(super) async fn run(&self, load: &Load) -> Result<Measured, CliError> {
        let mut ended = self.ended.lock().await;
        let commits = self.coordinator.metrics().commits();
        let cpu = cpu_time(std::process::id());
        let (starts, mut started) = mpsc::unbounded_channel();
        let mut under_way: HashMap<SagaId, Stopwatch> = HashMap::new();
        let mut early: HashMap<SagaId, &'static str> = HashMap::new();
        let (mut measured, mut next) = (Measured::default(), 0);
        let mut batch = Vec::new();
        let began = Stopwatch::start();
        while measured.ended() < load.sagas {
            let most = (measured.ended() + load.in_flight).min(load.sagas);
            while next < most {
                let until = most.min(next + AT_ONCE);
                let wanted = (next..until).map(|n| self.start(load, n)).collect();
                next = until;
                let (coordinator, starts) = (self.coordinator.clone(), starts.clone());
                tokio::spawn(async move {
                    let since = Stopwatch::start();
                    // Whoever waited has given up, should it not be received.
                    drop(starts.send((since, start_all(&coordinator, wanted).await)));
                });
            }
            tokio::select! {
                Some((since, outcomes)) = started.recv() => {
                    measured.starts.push(since.elapsed());
                    for outcome in outcomes {
                        let (StartOutcome::Started { id, .. } | StartOutcome::Exists { id }) = outcome?;
                        match early.remove(&id) {
                            Some(how) => end(&mut measured, how, since),
                            None => drop(under_way.insert(id, since)),
                        }
                    }
                }
                received = tokio::time::timeout(PATIENCE, ended.recv_many(&mut batch, 4_096)) => {
                    if received.map_err(|_| stalled(&measured, load))? == 0 {
                        return Err(CliError::failed("the coordinator ended before the bench did"));
                    }
                    for Ended { id, how } in batch.drain(..) {
                        match under_way.remove(&id) {
                            Some(since) => end(&mut measured, how, since),
                            None => drop(early.insert(id, how)),
                        }
                    }
                }
            }
        }
        measured.took = began.elapsed();
        measured.cpu = cpu_time(std::process::id()).zip(cpu).map(|(after, before)| after.saturating_sub(before));
        measured.commits = self.coordinator.metrics().commits() - commits;
        measured.sort();
        Ok(measured)
    }

    fn start(&self, load: &Load, n: u32) -> Start {
        Start { saga: self.name.clone(), version: None, input: Payload::from(load.input(n)), key: None }
    }

    pub(super) async fn stop(self) {
        self.participants.stop().await;
        self.coordinator.stop().await;
    }
}

/// Starts all of them, some later if it must be.
async fn start_all(coordinator: &Coordinator, wanted: Vec<Start>) -> Vec<Result<StartOutcome, CoordinatorError>> {
    let mut outcomes = coordinator.start_many(wanted.clone()).await;
    loop {
        let busy = |outcome: &Result<StartOutcome, CoordinatorError>| match outcome {
            Err(CoordinatorError::Busy { retry_after }) => Some(*retry_after),
            _ => None,
        };
        let Some(pause) = outcomes.iter().filter_map(busy).max() else { return outcomes };
        tokio::time::sleep(pause).await;
        let late: Vec<usize> = (0..outcomes.len()).filter(|&at| busy(&outcomes[at]).is_some()).collect();
        let again = coordinator.start_many(late.iter().map(|&at| wanted[at].clone()).collect()).await;
        late.into_iter().zip(again).for_each(|(at, outcome)| outcomes[at] = outcome);
    }
}

fn end(measured: &mut Measured, how: &str, since: Stopwatch) {
    measured.latencies.push(since.elapsed());
    measured.end(how);
}
