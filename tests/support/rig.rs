//! Coordinators on the PostgreSQL and RabbitMQ that `./test` provides, one test at a time.

use std::sync::Arc;

use amends::broker::Broker;
use amends::coordinator::{Coordinator, CoordinatorOptions, Start, StartOutcome};
use amends::id::SagaId;
use amends::payload::Payload;
use amends::saga::Saga;
use amends::store::{OutboxFilter, Page, Store};
use tokio::sync::{Mutex, MutexGuard};

use super::eventually;

/// The contract's queues have fixed names, so that tests on one broker take turns.
static TURN: Mutex<()> = Mutex::const_new(());

/// A fresh database and an emptied broker.
pub struct Rig {
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub store_url: String,
    pub broker_url: String,
    _turn: MutexGuard<'static, ()>,
}

impl Rig {
    /// Waits for its turn, then clears away what the test before left in `queues` and in the coordinator's own.
    pub async fn new(participants: &[&str]) -> Self {
        let turn = TURN.lock().await;
        let store_url = super::fresh_database().await;
        let broker_url = super::broker_url();
        let mut queues = vec!["amends.replies".to_owned(), "amends.requests".to_owned(), "amends.commands".to_owned()];
        queues.extend(participants.iter().map(|name| format!("{name}.commands")));
        queues.extend(queues.clone().iter().map(|name| format!("{name}.dead")));
        super::delete_queues(&broker_url, &queues).await;
        let store = amends::store::open(&store_url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker = amends::broker::open(&broker_url).await.expect("the broker is reached");
        Self { store, broker, store_url, broker_url, _turn: turn }
    }

    /// A coordinator with connections of its own.
    pub async fn coordinator(&self) -> Coordinator {
        self.coordinator_at(&self.store_url).await
    }

    /// The same by another way to the store.
    pub async fn coordinator_at(&self, store_url: &str) -> Coordinator {
        let store = amends::store::open(store_url).await.expect("the store opens");
        let broker = amends::broker::open(&self.broker_url).await.expect("the broker is reached");
        Coordinator::launch(store, broker, CoordinatorOptions::default()).await.expect("it launches")
    }

    pub async fn saga(&self, id: SagaId) -> Saga {
        self.store.saga(id).await.expect("the store reads").expect("the saga is there").saga
    }

    pub async fn becomes(&self, id: SagaId, state: &str) -> Saga {
        eventually(&format!("saga {id} becomes {state}"), async || {
            let saga = self.saga(id).await;
            (saga.state.as_str() == state).then_some(saga)
        })
        .await
    }

    /// How many messages wait in a queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        self.broker.queue(queue).await.expect("the broker answers").map_or(0, |status| status.messages)
    }

    pub async fn pending(&self) -> usize {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        self.store.outbox(&filter, &Page { after: None, limit: 1_000 }).await.expect("the outbox is read").len()
    }
}

pub async fn start(coordinator: &Coordinator, saga: &str, input: serde_json::Value) -> SagaId {
    let start = Start { saga: saga.to_owned(), version: None, input: Payload::from(input), key: None };
    match coordinator.start(start).await.expect("the saga starts") {
        StartOutcome::Started { id, .. } | StartOutcome::Exists { id } => id,
    }
}
