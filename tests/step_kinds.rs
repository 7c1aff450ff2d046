//! Steps that wait, loop and start other sagas, embedded: SQLite and the in-process broker.

mod support;

use std::sync::Arc;

use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::coordinator::{
    Coordinator, CoordinatorError, CoordinatorOptions, Operate, OperatorAction, Start, StartOutcome,
};
use amends::id::SagaId;
use amends::payload::Payload;
use amends::saga::{Saga, StepStatus};
use amends::store::{OutboxFilter, Page, SagaFilter, Store};
use serde_json::{Value, json};
use support::eventually;
use support::queueing::Queueing;
use support::scripted::{Scripted, refusal, success};

const BASKET: &str = r#"
saga: basket
version: 1
defaults: { timeout: 5s, retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: open, participant: work, action: open, compensation: { action: close } }
  - name: reserve
    forEach: { items: "${ input.lines }", maxParallel: 2 }
    participant: work
    action: reserve
    input: { sku: "${ item.sku }", place: "${ index }" }
    when: ${ item.quantity > 0 }
    compensation: { action: release, input: { reservation: "${ steps['reserve'].output.reservation }" } }
  - name: pay
    participant: work
    action: pay
    input: { reservations: "${ steps['reserve'].output }" }
    pivot: true
    compensation: none
"#;

const CHILD: &str = r#"
saga: child
version: 1
defaults: { timeout: 5s, retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: card, participant: work, action: card, compensation: { action: uncard } }
  - name: nod
    wait: { signal: nod, timeout: 1h }
    when: ${ input.wait }
  - { name: letter, participant: work, action: letter, compensation: { action: unletter } }
output: { card: "${ steps['card'].output.key }" }
"#;

const PARENT: &str = r#"
saga: parent
version: 1
defaults: { timeout: 5s, retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: member, participant: work, action: member, compensation: { action: unmember } }
  - { name: enrol, saga: child, input: { wait: "${ input.wait }" } }
  - { name: greet, participant: work, action: greet, input: { card: "${ steps['enrol'].output.card }" }, compensation: none }
  - { name: done, participant: work, action: done, pivot: true, compensation: none }
"#;

const APPROVAL: &str = r#"
saga: approval
version: 1
defaults: { timeout: 5s, retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: hold, participant: work, action: hold, compensation: { action: unhold } }
  - { name: pause, delay: 50ms }
  - { name: approval, wait: { signal: approval, timeout: 1h } }
  - { name: second, wait: { signal: second, timeout: 50ms, onTimeout: continue } }
  - { name: third, wait: { signal: third, timeout: 50ms }, when: "${ input.strict }" }
  - name: book
    participant: work
    action: book
    input: { by: "${ steps['approval'].output.by }", second: "${ has(steps['second'].output) }" }
    pivot: true
    compensation: none
"#;

struct House {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    coordinator: Coordinator,
    work: Scripted,
    _folder: tempfile::TempDir,
}

impl House {
    /// The participant refuses what `refused` names, as `<action>` or `<action>:<sku>`.
    async fn new(definitions: &[&str], refused: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let coordinator = launch(&store, &broker).await;
        for definition in definitions {
            coordinator.register(definition, "test").await.expect("the definition is registered");
        }
        let work = Scripted::start(&broker, "work", move |command| {
            let sku = command.body.value()["sku"].as_str().map(|sku| format!(":{sku}")).unwrap_or_default();
            match format!("{}{sku}", command.action) == refused {
                true => vec![refusal("no")],
                false => vec![success(json!({ "key": command.key, "reservation": format!("r{sku}") }))],
            }
        })
        .await;
        Self { store, broker, coordinator, work, _folder: folder }
    }

    async fn start(&self, saga: &str, input: Value) -> SagaId {
        let start = Start { saga: saga.to_owned(), version: None, input: Payload::from(input), key: None };
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

    /// The saga of this definition, once there is one.
    async fn the(&self, definition: &str) -> SagaId {
        eventually(&format!("there is a {definition}"), async || {
            let filter = SagaFilter { definition: Some(definition.to_owned()), ..SagaFilter::default() };
            let found = self.store.sagas(&filter, &Page { after: None, limit: 10 }).await.expect("a list");
            found.first().map(|found| found.saga.id)
        })
        .await
    }

    async fn cancel(&self, id: SagaId) -> Result<Saga, CoordinatorError> {
        let (actor, reason) = ("operator".to_owned(), "because the test says so".to_owned());
        let action = OperatorAction::Cancel;
        self.coordinator.operate(Operate { id, action, actor, reason, expected_revision: None }).await
    }

    async fn nothing_is_pending(&self) {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        let pending = self.store.outbox(&filter, &Page { after: None, limit: 100 }).await.expect("the outbox is read");
        assert!(pending.is_empty(), "{pending:?}");
    }
}

async fn launch(store: &Arc<dyn Store>, broker: &Arc<dyn Broker>) -> Coordinator {
    Coordinator::launch(store.clone(), broker.clone(), CoordinatorOptions::default()).await.expect("it launches")
}

fn line(sku: &str, quantity: u32) -> Value {
    json!({ "sku": sku, "quantity": quantity })
}

fn statuses(saga: &Saga) -> Vec<&'static str> {
    saga.steps.iter().map(|step| step.status().as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_of_a_list_is_done_and_its_outputs_are_a_list() {
    let house = House::new(&[BASKET], "").await;
    let id = house.start("basket", json!({ "lines": [line("a", 1), line("b", 0), line("c", 2)] })).await;
    let saga = house.becomes(id, "COMPLETED").await;
    assert_eq!(statuses(&saga), ["verified", "verified", "skipped", "verified", "verified"]);
    let pay = house.work.seen().into_iter().find(|command| command.action == "pay").expect("it was paid");
    let reservations = &pay.body.value()["reservations"];
    assert_eq!(reservations[0]["reservation"], "r:a");
    assert_eq!(reservations[1], Value::Null, "it was skipped");
    assert_eq!(reservations[2]["reservation"], "r:c");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_leaves_an_empty_list_of_outputs() {
    let house = House::new(&[BASKET], "").await;
    let id = house.start("basket", json!({ "lines": [] })).await;
    house.becomes(id, "COMPLETED").await;
    let pay = house.work.seen().into_iter().find(|command| command.action == "pay").expect("it was paid");
    assert_eq!(pay.body.value()["reservations"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_of_a_list_is_undone_item_by_item() {
    let house = House::new(&[BASKET], "reserve:c").await;
    let lines = json!({ "lines": [line("a", 1), line("b", 1), line("c", 1), line("d", 1)] });
    let id = house.start("basket", lines).await;
    let saga = house.becomes(id, "COMPENSATED").await;
    assert_eq!(saga.steps[1].status(), StepStatus::Compensated);
    let undone: Vec<(String, Value)> = house
        .work
        .seen()
        .into_iter()
        .filter(|command| command.action == "release")
        .map(|command| (command.step.clone(), command.body.value()["reservation"].clone()))
        .collect();
    assert!(undone.contains(&("reserve[0]".to_owned(), json!("r:a"))), "{undone:?}");
    assert!(undone.contains(&("reserve[1]".to_owned(), json!("r:b"))), "{undone:?}");
    assert!(undone.iter().all(|(step, _)| step != "reserve[2]"), "it was refused: {undone:?}");
    house.nothing_is_pending().await;
}

const LANES: &str = r#"
saga: lanes
version: 1
defaults: { timeout: 20s }
steps:
  - { name: each, forEach: { items: "${ input.items }", maxParallel: 3 }, participant: lanes, action: do, compensation: { action: undo } }
  - { name: last, participant: lanes, action: last, compensation: none }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn so_many_elements_as_allowed_are_under_way_at_once_and_never_more() {
    let house = House::new(&[LANES], "").await;
    let lanes = Queueing::start(&house.broker, "lanes").await;
    let id = house.start("lanes", json!({ "items": [0, 1, 2, 3, 4, 5, 6] })).await;
    house.becomes(id, "COMPLETED").await;
    let waiting = lanes.waiting();
    assert_eq!(waiting.len(), 8, "each element, and the step after");
    // How soon the next one comes is up to a busy machine, how many there are at most is not.
    assert_eq!(waiting.iter().max(), Some(&3), "{waiting:?}");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_element_sends_the_others_back_in_reverse_order() {
    let one_by_one = BASKET.replace("maxParallel: 2", "maxParallel: 1");
    let house = House::new(&[&one_by_one], "reserve:d").await;
    let lines = json!({ "lines": [line("a", 1), line("b", 1), line("c", 1), line("d", 1), line("e", 1)] });
    let id = house.start("basket", lines).await;
    house.becomes(id, "COMPENSATED").await;
    let log = house.work.log();
    let forward = ["open", "reserve[0]", "reserve[1]", "reserve[2]", "reserve[3]"].map(|at| format!("{at}/action#1"));
    let back = ["reserve[2]", "reserve[1]", "reserve[0]", "open"].map(|at| format!("{at}/compensation#1"));
    assert_eq!(log, forward.into_iter().chain(back).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_none_or_too_long_is_refused_at_the_start() {
    let house = House::new(&[BASKET], "").await;
    for lines in [json!({}), json!(["x"; 101].to_vec())] {
        let input = Payload::from(json!({ "lines": lines }));
        let start = Start { saga: "basket".to_owned(), version: None, input, key: None };
        let refused = house.coordinator.start(start).await;
        assert!(matches!(refused, Err(CoordinatorError::InvalidInput { .. })), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_ends_with_its_parent_and_gives_it_its_output() {
    let house = House::new(&[CHILD, PARENT], "").await;
    let parent = house.start("parent", json!({ "wait": false })).await;
    house.becomes(parent, "COMPLETED").await;
    let child = house.the("child").await;
    house.becomes(child, "COMPLETED").await;
    let greet = house.work.seen().into_iter().find(|command| command.action == "greet").expect("it was greeted");
    assert_eq!(greet.body.value()["card"], format!("{child}/card/action/1"));
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_that_is_refused_sends_its_parent_back() {
    let house = House::new(&[CHILD, PARENT], "letter").await;
    let parent = house.start("parent", json!({ "wait": false })).await;
    let saga = house.becomes(parent, "COMPENSATED").await;
    assert_eq!(statuses(&saga), ["compensated", "failed", "waiting", "waiting"]);
    assert_eq!(saga.cause.expect("a cause").kind, "sub-saga-compensated");
    let child = house.the("child").await;
    assert_eq!(statuses(&house.becomes(child, "COMPENSATED").await)[0], "compensated");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_that_is_done_is_undone_with_its_parent() {
    let house = House::new(&[CHILD, PARENT], "greet").await;
    let parent = house.start("parent", json!({ "wait": false })).await;
    let saga = house.becomes(parent, "COMPENSATED").await;
    assert_eq!(statuses(&saga), ["compensated", "compensated", "failed", "waiting"]);
    let child = house.saga(house.the("child").await).await;
    assert_eq!(child.state.as_str(), "COMPENSATED");
    assert_eq!(statuses(&child), ["compensated", "skipped", "compensated"]);
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_parent_reaches_the_sub_saga_that_it_waits_for() {
    let house = House::new(&[CHILD, PARENT], "").await;
    let parent = house.start("parent", json!({ "wait": true })).await;
    let child = house.the("child").await;
    eventually("the child waits for its signal", async || {
        (statuses(&house.saga(child).await)[1] == "pending").then_some(())
    })
    .await;
    house.cancel(parent).await.expect("it is cancelled");
    house.becomes(parent, "COMPENSATED").await;
    let saga = house.becomes(child, "COMPENSATED").await;
    assert_eq!(statuses(&saga), ["compensated", "failed", "waiting"]);
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_counts_once_whether_early_or_late() {
    let house = House::new(&[APPROVAL], "").await;
    let id = house.start("approval", json!({ "strict": false })).await;
    let by = |name: &str| Payload::from(json!({ "by": name }));
    let first = house.coordinator.signal(id, "approval".to_owned(), by("ann")).await.expect("it is heard");
    assert!(!first.is_duplicate);
    let again = house.coordinator.signal(id, "approval".to_owned(), by("bob")).await.expect("it is heard");
    assert!(again.is_duplicate);
    house.becomes(id, "COMPLETED").await;
    let book = house.work.seen().into_iter().find(|command| command.action == "book").expect("it was booked");
    assert_eq!(*book.body.value(), json!({ "by": "ann", "second": false }));
    let late = house.coordinator.signal(id, "second".to_owned(), by("eve")).await;
    assert!(matches!(late, Err(CoordinatorError::NotAllowed { .. })), "{late:?}");
    let unknown = house.coordinator.signal(id, "fourth".to_owned(), by("eve")).await;
    assert!(matches!(unknown, Err(CoordinatorError::UnknownSignal { .. })), "{unknown:?}");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_does_not_come_sends_the_saga_back() {
    let house = House::new(&[APPROVAL], "").await;
    let id = house.start("approval", json!({ "strict": true })).await;
    house.coordinator.signal(id, "approval".to_owned(), Payload::from(json!({}))).await.expect("it is heard");
    let saga = house.becomes(id, "COMPENSATED").await;
    assert_eq!(saga.cause.expect("a cause").kind, "signal-timeout");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_on_waiting_after_a_restart() {
    let house = House::new(&[APPROVAL, CHILD, PARENT], "").await;
    let approval = house.start("approval", json!({ "strict": false })).await;
    let parent = house.start("parent", json!({ "wait": true })).await;
    let child = house.the("child").await;
    house
        .coordinator
        .signal(approval, "approval".to_owned(), Payload::from(json!({ "by": "ann" })))
        .await
        .expect("heard");
    house.coordinator.kill();
    let second = launch(&house.store, &house.broker).await;
    house.becomes(approval, "COMPLETED").await;
    second.signal(child, "nod".to_owned(), Payload::from(json!(null))).await.expect("it is heard");
    house.becomes(parent, "COMPLETED").await;
    house.becomes(child, "COMPLETED").await;
    house.nothing_is_pending().await;
}
