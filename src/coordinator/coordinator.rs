//! The coordinator as the rest of the process sees it.

use std::sync::Arc;

use crate::broker::Broker;
use crate::coordinator::{CoordinatorError, Metrics, Operate, Registered, Start, StartOutcome};
use crate::definition::Definition;
use crate::id::DefinitionRef;
use crate::saga::Saga;
use crate::store::Store;

/// A running coordinator. Cheap to clone; the last clone to go does not stop it: [`Coordinator::stop`] does.
#[derive(Clone)]
pub struct Coordinator {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    metrics: Metrics,
}

impl Coordinator {
    /// Starts one saga; returns once it is durable.
    pub async fn start(&self, start: Start) -> Result<StartOutcome, CoordinatorError> {
        self.start_many(vec![start]).await.pop().unwrap_or(Err(CoordinatorError::Stopping))
    }

    /// Starts many sagas in one transaction. One result per start, in order; one that fails does not stop the others.
    pub async fn start_many(&self, starts: Vec<Start>) -> Vec<Result<StartOutcome, CoordinatorError>> {
        starts.into_iter().map(|_| Err(CoordinatorError::Stopping)).collect()
    }

    /// Does what an operator asks, with its audit row in the same transaction; returns the saga as it is then.
    pub async fn operate(&self, operate: Operate) -> Result<Saga, CoordinatorError> {
        let _ = operate;
        Err(CoordinatorError::Stopping)
    }

    /// Registers a definition from its text, declares the queues of its participants.
    pub async fn register(&self, source: &str, actor: &str) -> Result<Registered, CoordinatorError> {
        let _ = (source, actor);
        Err(CoordinatorError::Stopping)
    }

    /// A registered definition version, from memory where it is known.
    pub async fn definition(&self, reference: &DefinitionRef) -> Result<Arc<Definition>, CoordinatorError> {
        let _ = reference;
        Err(CoordinatorError::Stopping)
    }

    /// Whether store and broker answer and the loops run; otherwise why not, in one line.
    pub async fn ready(&self) -> Result<(), String> {
        Err("not started".to_owned())
    }

    /// Where state lives, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.broker
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes in nothing new, finishes what is under way, and ends.
    pub async fn stop(&self) {}
}
