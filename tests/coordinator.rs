//! The coordinator on a real store and broker, with participants that the test scripts.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::coordinator::{
    Coordinator, CoordinatorError, CoordinatorOptions, Operate, OperatorAction, Start, StartOutcome,
};
use amends::id::SagaId;
use amends::payload::Payload;
use amends::saga::{Saga, StepStatus};
use amends::store::{OutboxFilter, Page, Store};
use serde_json::json;
use support::eventually;
use support::scripted::{Scripted, done, refusal, retry, success};

const THREE_STEPS: &str = r#"
saga: three-steps
version: 1
key: ${ input.order }
defaults:
  timeout: 5s
  retry: { maxAttempts: 3, initialInterval: 10ms, maxInterval: 20ms, jitter: none }
steps:
  - { name: create, participant: orders, action: create, compensation: { action: cancel } }
  - name: pay
    participant: payments
    action: pay
    input: { amount: "${ input.total }" }
    compensation: { action: refund, input: { receipt: "${ steps['pay'].output.receipt }" } }
  - { name: pick, participant: warehouse, action: pick, compensation: { action: unpick } }
  - { name: confirm, participant: orders, action: confirm, pivot: true, compensation: none }
"#;

/// A coordinator on SQLite and the in-process broker.
struct House {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    coordinator: Coordinator,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let coordinator = launch(&store, &broker).await;
        coordinator.register(THREE_STEPS, "test").await.expect("the definition is registered");
        Self { store, broker, coordinator, _folder: folder }
    }

    async fn start(&self, order: &str) -> SagaId {
        let input = Payload::from(json!({ "order": order, "total": 42 }));
        let start = Start { saga: "three-steps".to_owned(), version: None, input, key: None };
        match self.coordinator.start(start).await.expect("the saga starts") {
            StartOutcome::Started { id, .. } | StartOutcome::Exists { id } => id,
        }
    }

    async fn saga(&self, id: SagaId) -> Saga {
        self.store.saga(id).await.expect("the store reads").expect("the saga is there").saga
    }

    async fn becomes(&self, id: SagaId, state: &str) -> Saga {
        eventually(&format!("saga {id} becomes {state}"), async || {
            let saga = self.saga(id).await;
            (saga.state.as_str() == state).then_some(saga)
        })
        .await
    }

    async fn operate(&self, id: SagaId, action: OperatorAction) -> Result<Saga, CoordinatorError> {
        let (actor, reason) = ("operator".to_owned(), "because the test says so".to_owned());
        self.coordinator.operate(Operate { id, action, actor, reason, expected_revision: None }).await
    }

    async fn pending(&self) -> usize {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        self.store.outbox(&filter, &Page { after: None, limit: 100 }).await.expect("the outbox is read").len()
    }
}

async fn launch(store: &Arc<dyn Store>, broker: &Arc<dyn Broker>) -> Coordinator {
    Coordinator::launch(store.clone(), broker.clone(), CoordinatorOptions::default()).await.expect("it launches")
}

fn statuses(saga: &Saga) -> Vec<StepStatus> {
    saga.steps.iter().map(|step| step.status()).collect()
}

#[tokio::test]
async fn a_saga_whose_steps_succeed_is_completed_and_leaves_nothing_pending() {
    let house = House::new().await;
    let orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({"receipt": "r1"}))]).await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    let id = house.start("o1").await;
    let saga = house.becomes(id, "COMPLETED").await;
    assert_eq!(statuses(&saga), [StepStatus::Verified; 4]);
    assert_eq!(orders.log(), ["create/action#1", "confirm/action#1"]);
    assert_eq!(payments.seen()[0].body, Payload::from(json!({ "amount": 42 })));
    assert_eq!(house.pending().await, 0);
}

#[tokio::test]
async fn a_refusal_undoes_what_was_done_in_reverse_order() {
    let house = House::new().await;
    let orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({"receipt": "r1"}))]).await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![refusal("out-of-stock")]).await;
    let id = house.start("o1").await;
    let saga = house.becomes(id, "COMPENSATED").await;
    use StepStatus::{Compensated, Failed, Waiting};
    assert_eq!(statuses(&saga), [Compensated, Compensated, Failed, Waiting]);
    assert_eq!(saga.cause.map(|cause| cause.kind).as_deref(), Some("out-of-stock"));
    assert_eq!(payments.seen()[1].body, Payload::from(json!({ "receipt": "r1" })), "the output was read back");
    assert_eq!(payments.seen()[1].compensates.as_deref(), Some(payments.seen()[0].key.as_str()));
    assert_eq!(orders.log(), ["create/action#1", "create/compensation#1"]);
    assert_eq!(house.pending().await, 0);
}

#[tokio::test]
async fn a_transient_error_is_tried_again_with_the_same_key() {
    let house = House::new().await;
    let calls = Arc::new(AtomicU32::new(0));
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let payments = Scripted::start(&house.broker, "payments", move |_| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            vec![retry("busy")]
        } else {
            vec![success(json!({"receipt": 1}))]
        }
    })
    .await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    let id = house.start("o1").await;
    house.becomes(id, "COMPLETED").await;
    assert_eq!(payments.log(), ["pay/action#1", "pay/action#2"]);
    let seen = payments.seen();
    assert_eq!(seen[0].key, seen[1].key);
    assert_ne!(seen[0].message_id, seen[1].message_id);
    assert_ne!(seen[0].token, seen[1].token);
}

#[tokio::test]
async fn a_second_start_with_the_same_key_gives_the_first_saga_and_another_input_is_refused() {
    let house = House::new().await;
    let (first, second) = (house.start("o1").await, house.start("o1").await);
    assert_eq!(first, second);
    let input = Payload::from(json!({ "order": "o1", "total": 43 }));
    let start = Start { saga: "three-steps".to_owned(), version: None, input, key: None };
    let refused = house.coordinator.start(start).await;
    assert!(matches!(refused, Err(CoordinatorError::KeyConflict { existing, .. }) if existing == first), "{refused:?}");
}

#[tokio::test]
async fn a_killed_coordinator_is_taken_over_from_what_the_store_holds() {
    let house = House::new().await;
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    let id = house.start("o1").await;
    eventually("the order is created", async || {
        (house.saga(id).await.steps[1].status() == StepStatus::Pending).then_some(())
    })
    .await;
    house.coordinator.kill();
    // The broker's queues go with the process.
    let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
    let _second = launch(&house.store, &broker).await;
    let _orders = Scripted::start(&broker, "orders", |_| vec![done()]).await;
    let _warehouse = Scripted::start(&broker, "warehouse", |_| vec![done()]).await;
    let payments = Scripted::start(&broker, "payments", |_| vec![success(json!({"receipt": 1}))]).await;
    house.becomes(id, "COMPLETED").await;
    assert_eq!(payments.log(), ["pay/action#1"], "the same attempt, sent again");
}

#[tokio::test]
async fn a_paused_saga_applies_replies_but_sends_nothing_until_resumed() {
    let house = House::new().await;
    let id = house.start("o1").await;
    house.operate(id, OperatorAction::Pause).await.expect("it is paused");
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    eventually("the reply is applied", async || {
        (house.saga(id).await.steps[0].status() == StepStatus::Verified).then_some(())
    })
    .await;
    assert_eq!(house.saga(id).await.steps[1].status(), StepStatus::Waiting);
    let payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({"receipt": 1}))]).await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    assert!(payments.log().is_empty());
    house.operate(id, OperatorAction::Resume).await.expect("it is resumed");
    house.becomes(id, "COMPLETED").await;
}

#[tokio::test]
async fn a_compensation_that_fails_is_stuck_until_an_operator_retries_it() {
    let house = House::new().await;
    let fixed = Arc::new(AtomicU32::new(0));
    let is_fixed = fixed.clone();
    let _orders = Scripted::start(&house.broker, "orders", move |command| {
        let works = !command.is_compensation || is_fixed.load(Ordering::SeqCst) == 1;
        vec![if works { done() } else { refusal("cannot-cancel") }]
    })
    .await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![refusal("card-declined")]).await;
    let id = house.start("o1").await;
    let saga = house.becomes(id, "STUCK").await;
    assert_eq!(saga.state.stuck().map(|stuck| stuck.problem.kind.clone()).as_deref(), Some("cannot-cancel"));
    let refused = house.operate(id, OperatorAction::Cancel).await;
    assert!(matches!(refused, Err(CoordinatorError::NotAllowed { state: "STUCK", .. })), "{refused:?}");
    fixed.store(1, Ordering::SeqCst);
    house.operate(id, OperatorAction::Retry { step: None }).await.expect("it is retried");
    house.becomes(id, "COMPENSATED").await;
    let page = Page { after: None, limit: 10 };
    let audit = house.store.audit(Some(id), &page).await.expect("the audit is read");
    assert_eq!(audit.len(), 1, "the refused action leaves no row");
    assert_eq!((audit[0].action.as_str(), audit[0].actor.as_str()), ("retry", "operator"));
}

#[tokio::test]
async fn a_stopped_coordinator_has_finished_what_it_took_in() {
    let house = House::new().await;
    let id = house.start("o1").await;
    house.coordinator.stop().await;
    assert_eq!(house.saga(id).await.steps[0].status(), StepStatus::Pending);
    let start = Start { saga: "three-steps".to_owned(), version: None, input: Payload::from(json!({})), key: None };
    let refused = house.coordinator.start(start).await;
    assert!(matches!(refused, Err(CoordinatorError::Stopping)), "{refused:?}");
}
