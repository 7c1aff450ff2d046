//! Keeps the broker's queues in place: those of the coordinator and those of every participant that a definition names.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Topology};
use crate::coordinator::registry::Registry;
use crate::definition::Definition;
use crate::store::Store;

/// How often to look for definitions that other coordinators have registered.
const LOOK: Duration = Duration::from_secs(5);
/// How soon to try again what the broker did not take.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Declared {
    broker: Arc<dyn Broker>,
    stop: CancellationToken,
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    wanted: Topology,
    declared: usize,
    problem: Option<String>,
}

impl Declared {
    pub(super) fn new(broker: Arc<dyn Broker>, stop: CancellationToken) -> Self {
        Self { broker, stop, state: Arc::default(), changed: Arc::default() }
    }

    pub(super) fn want(&self, topology: Topology) {
        if let Ok(mut state) = self.state.lock() {
            state.wanted.merge(topology);
        }
        self.changed.notify_one();
    }

    pub(super) fn want_participants(&self, definition: &Definition) {
        for participant in definition.participants() {
            self.want(Topology::participant(participant));
        }
    }

    /// Whether everything wanted is declared; otherwise why not.
    pub(super) fn state(&self) -> Result<(), String> {
        let Ok(state) = self.state.lock() else { return Ok(()) };
        match &state.problem {
            Some(problem) => Err(problem.clone()),
            None if state.declared < state.wanted.queues.len() => {
                Err("the broker's queues are not declared yet".to_owned())
            }
            None => Ok(()),
        }
    }

    /// Declares what is wanted and not declared yet.
    pub(super) async fn now(&self) {
        let wanted = match self.state.lock() {
            Ok(state) if state.declared < state.wanted.queues.len() || state.problem.is_some() => state.wanted.clone(),
            _ => return,
        };
        let outcome = self.broker.declare(&wanted).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "the broker's queues cannot be declared yet");
        }
        if let Ok(mut state) = self.state.lock() {
            match outcome {
                Ok(()) => {
                    state.declared = wanted.queues.len();
                    state.problem = None;
                }
                Err(error) => state.problem = Some(error.to_string()),
            }
        }
    }

    /// Declares whatever comes to be wanted, until stopped.
    pub(super) async fn run(self, store: Arc<dyn Store>, registry: Arc<Registry>) {
        loop {
            self.now().await;
            let pause = if self.state().is_ok() { LOOK } else { AGAIN };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.changed.notified() => continue,
                () = tokio::time::sleep(pause) => {}
            }
            match store.definitions(None).await {
                Ok(records) => {
                    for record in records.iter().filter(|record| registry.known(&record.reference).is_none()) {
                        if let Ok(Some(definition)) = registry.get(&record.reference).await {
                            self.want_participants(&definition);
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot look for new definitions"),
            }
        }
    }
}
