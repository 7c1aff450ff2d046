//! Drives sagas through the coordinators' processes: starts them over HTTP, as many at once as asked for, and hears of
//! their ends over a pipe, so that looking costs the coordinator nothing.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::measure::{Measured, cpu_time};
use super::parts::{Part, Told};
use super::workload::Load;
use crate::cli::error::CliError;
use crate::client::Client;
use crate::client::views::StartBody;
use crate::clock::Stopwatch;

/// Starts in one request at most.
const MOST_PER_REQUEST: usize = 256;
/// Requests with many starts under way at once: what ends in the meantime goes into the next.
const REQUESTS: usize = 4;
/// Nothing ends for so long only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// How sagas are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Starts {
    /// Whatever is to be started goes into one `POST /v1/sagas/batch`
    #[default]
    Batch,
    /// A `POST /v1/sagas` for each
    Single,
}

/// Drives sagas through coordinators in other processes.
pub(super) struct Driver<'a> {
    coordinators: &'a mut [Part],
    /// Of each coordinator; they are asked in turns.
    clients: Vec<Client>,
    turn: usize,
    told: mpsc::UnboundedReceiver<Told>,
    starts: Starts,
    name: String,
}

/// The sagas of one request.
struct Requested {
    ids: Vec<String>,
    since: Stopwatch,
    took: Duration,
}

/// What is under way.
#[derive(Default)]
struct Flight {
    /// Sagas whose id is known, with the time of their request.
    known: HashMap<String, Stopwatch>,
    /// Sagas that ended before the answer to their request was here.
    early: HashMap<String, (String, Stopwatch)>,
    measured: Measured,
}

impl Flight {
    fn started(&mut self, requested: Requested) {
        self.measured.starts.push(requested.took);
        for id in requested.ids {
            match self.early.remove(&id) {
                Some((how, at)) => {
                    let latency = requested.since.elapsed().saturating_sub(at.elapsed());
                    self.measured.latencies.push(latency);
                    self.measured.end(&how);
                }
                None => drop(self.known.insert(id, requested.since)),
            }
        }
    }

    fn ended(&mut self, how: String, id: String) {
        match self.known.remove(&id) {
            Some(since) => {
                self.measured.latencies.push(since.elapsed());
                self.measured.end(&how);
            }
            None => drop(self.early.insert(id, (how, Stopwatch::start()))),
        }
    }
}

impl<'a> Driver<'a> {
    pub(super) fn new(coordinators: &'a mut [Part], starts: Starts, name: &str) -> Result<Self, CliError> {
        let (sender, told) = mpsc::unbounded_channel();
        for coordinator in coordinators.iter_mut() {
            coordinator.listen(sender.clone())?;
        }
        let clients = coordinators.iter().map(|coordinator| Client::new(&coordinator.ready, None)).collect();
        Ok(Self { coordinators, clients, turn: 0, told, starts, name: name.to_owned() })
    }

    fn cpu(&self) -> Option<Duration> {
        self.coordinators.iter().map(|coordinator| cpu_time(coordinator.id())).sum()
    }

    fn client(&mut self) -> Result<Client, CliError> {
        self.turn += 1;
        let client = self.clients.get(self.turn % self.clients.len().max(1));
        client.cloned().ok_or_else(|| CliError::failed("there is no coordinator"))
    }

    /// Runs a load and waits for all its ends.
    pub(super) async fn run(&mut self, load: &Load) -> Result<Measured, CliError> {
        let (commits, cpu) = (self.commits().await?, self.cpu());
        let (most, requests) = match self.starts {
            Starts::Batch => (MOST_PER_REQUEST, REQUESTS),
            Starts::Single => (1, usize::MAX),
        };
        let (mut flight, mut posts, mut next) = (Flight::default(), JoinSet::new(), 0);
        let began = Stopwatch::start();
        while flight.measured.ended() < load.sagas {
            while next < load.sagas && next - flight.measured.ended() < load.in_flight && posts.len() < requests {
                let free = load.in_flight - (next - flight.measured.ended());
                let count = free.min(load.sagas - next).min(u32::try_from(most).unwrap_or(u32::MAX));
                let bodies = (next..next + count).map(|n| StartBody::new(&self.name, load.input(n))).collect();
                next += count;
                posts.spawn(post(self.client()?, bodies, self.starts));
            }
            tokio::select! {
                Some(requested) = posts.join_next() => {
                    flight.started(requested.map_err(|error| CliError::failed(error.to_string()))??);
                }
                told = tokio::time::timeout(PATIENCE, self.told.recv()) => match told {
                    Ok(Some(Told::Ended(ends))) => ends.into_iter().for_each(|(how, id)| flight.ended(how, id)),
                    Ok(Some(Told::Commits(_))) => {}
                    Ok(None) => return Err(CliError::failed("the coordinator ended before the bench did")),
                    Err(_) => return Err(stalled(&flight.measured, load)),
                },
            }
        }
        let mut measured = flight.measured;
        measured.took = began.elapsed();
        measured.cpu = self.cpu().zip(cpu).map(|(after, before)| after.saturating_sub(before));
        measured.commits = self.commits().await?.saturating_sub(commits);
        measured.sort();
        Ok(measured)
    }

    async fn commits(&mut self) -> Result<u64, CliError> {
        for coordinator in self.coordinators.iter_mut() {
            coordinator.ask().await?;
        }
        let (mut all, mut left) = (0, self.coordinators.len());
        while left > 0 {
            match self.told.recv().await {
                Some(Told::Commits(commits)) => {
                    all += commits;
                    left -= 1;
                }
                Some(Told::Ended(_)) => {}
                None => return Err(CliError::failed("the coordinators ended before the bench did")),
            }
        }
        Ok(all)
    }
}

pub(super) fn stalled(measured: &Measured, load: &Load) -> CliError {
    let (ended, all) = (measured.ended(), load.sagas);
    CliError::failed(format!("nothing has ended for {} s: {ended} of {all} sagas are done", PATIENCE.as_secs()))
        .help("`amends doctor` looks for the reason")
}

async fn post(client: Client, mut bodies: Vec<StartBody>, starts: Starts) -> Result<Requested, CliError> {
    let refused = |why: String| CliError::failed(format!("the coordinator does not start sagas: {why}"));
    let since = Stopwatch::start();
    let mut ids = Vec::with_capacity(bodies.len());
    match starts {
        Starts::Single => {
            while let Some(body) = bodies.pop() {
                ids.push(client.start(&body).await.map_err(|error| refused(error.to_string()))?.saga.id);
            }
        }
        Starts::Batch => {
            for item in client.start_batch(bodies).await.map_err(|error| refused(error.to_string()))?.items {
                let why = item.problem.map_or_else(String::new, |problem| problem.title);
                ids.push(item.id.ok_or_else(|| refused(why))?);
            }
        }
    }
    Ok(Requested { ids, since, took: since.elapsed() })
}
