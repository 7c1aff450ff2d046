//! Sagas that start others, embedded: who may ask for it, whose key it is, and what becomes of what cannot be started.

mod support;

use std::sync::Arc;

use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::coordinator::{Coordinator, CoordinatorOptions, Operate, OperatorAction, Start, StartOutcome};
use amends::id::SagaId;
use amends::message::Command;
use amends::payload::Payload;
use amends::saga::Saga;
use amends::store::{OutboxFilter, Page, SagaFilter, Store};
use serde_json::{Value, json};
use support::eventually;
use support::scripted::{Scripted, refusal, success};

const DEFAULTS: &str =
    "version: 1\ndefaults: { timeout: 5s, retry: { maxAttempts: 2, initialInterval: 10ms, jitter: none } }\nsteps:\n";

const CHILD: &str = "  - { name: card, participant: work, action: card, compensation: { action: uncard } }\n";

/// A coordinator on SQLite and the in-process broker, and a participant that refuses the actions in `refused`.
struct House {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    coordinator: Coordinator,
    work: Scripted,
    _folder: tempfile::TempDir,
}

impl House {
    async fn new(definitions: &[(&str, &str)], refused: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let options = CoordinatorOptions::default();
        let coordinator = Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches");
        for (name, steps) in definitions {
            let text = format!("saga: {name}\n{DEFAULTS}{steps}");
            coordinator.register(&text, "test").await.expect("the definition is registered");
        }
        let work = Scripted::start(&broker, "work", move |command| match command.action == refused {
            true => vec![refusal("no")],
            false => vec![success(json!({ "key": command.key }))],
        })
        .await;
        Self { store, broker, coordinator, work, _folder: folder }
    }

    async fn try_start(&self, saga: &str, input: Value, key: Option<&str>) -> SagaId {
        let (saga, key) = (saga.to_owned(), key.map(str::to_owned));
        let start = Start { saga, version: None, input: Payload::from(input), key };
        match self.coordinator.start(start).await.expect("the saga starts") {
            StartOutcome::Started { id, .. } | StartOutcome::Exists { id } => id,
        }
    }

    async fn start(&self, saga: &str, input: Value) -> SagaId {
        self.try_start(saga, input, None).await
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

    async fn all(&self, definition: &str) -> Vec<Saga> {
        let filter = SagaFilter { definition: Some(definition.to_owned()), ..SagaFilter::default() };
        let found = self.store.sagas(&filter, &Page { after: None, limit: 100 }).await.expect("a list");
        found.into_iter().map(|found| found.saga).collect()
    }

    async fn all_become(&self, definition: &str, count: usize, state: &str) {
        eventually(&format!("{count} {definition} become {state}"), async || {
            let all = self.all(definition).await;
            (all.len() == count && all.iter().all(|saga| saga.state.as_str() == state)).then_some(())
        })
        .await;
    }

    async fn cancel(&self, id: SagaId) {
        let (actor, reason) = ("operator".to_owned(), "because the test says so".to_owned());
        let action = OperatorAction::Cancel;
        let operate = Operate { id, action, actor, reason, expected_revision: None };
        self.coordinator.operate(operate).await.expect("it is cancelled");
    }

    async fn nothing_is_pending(&self) {
        let filter = OutboxFilter { pending: Some(true), ..OutboxFilter::default() };
        let pending = self.store.outbox(&filter, &Page { after: None, limit: 100 }).await.expect("the outbox is read");
        assert!(pending.is_empty(), "{pending:?}");
    }

    async fn command(&self, step: &str) -> Command {
        eventually(&format!("step {step} is sent"), async || {
            self.work.seen().into_iter().find(|command| command.step == step)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_turns_round_at_its_start_leaves_nothing_pending() {
    let steps = r#"
  - { name: wait, after: [], wait: { signal: go, timeout: 1h } }
  - { name: sub, after: [], saga: child, input: {} }
  - { name: broken, after: [], participant: work, action: x, input: { n: "${ input.missing }" }, compensation: none }
"#;
    let house = House::new(&[("child", CHILD), ("parent", steps)], "").await;
    let parent = house.start("parent", json!({})).await;
    house.becomes(parent, "COMPENSATED").await;
    house.nothing_is_pending().await;
    house.all_become("child", 1, "COMPENSATED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_cannot_start_sagas_with_its_own_token() {
    let steps = "  - { name: first, participant: work, action: first, compensation: none }\n  - { name: hold, wait: { signal: go, timeout: 1h } }\n";
    let house = House::new(&[("child", CHILD), ("parent", steps)], "").await;
    let parent = house.start("parent", json!({})).await;
    let own = house.command("first").await;
    // Everything is true to the saga that it takes part in, only nobody has decided this command.
    let forged = Command {
        participant: "amends".to_owned(),
        action: "start".to_owned(),
        body: Payload::from(json!({ "saga": "child", "input": {} })),
        ..own
    };
    house.broker.publish(vec![forged.encode()]).await;
    let mut dead = house.broker.consume("amends.commands.dead", 1).await.expect("the dead letters are consumed");
    let rejected = tokio::time::timeout(support::PATIENCE, dead.next(1)).await.expect("it is rejected");
    assert_eq!(rejected.map(|deliveries| deliveries.len()), Some(1));
    assert!(house.all("child").await.is_empty(), "nothing was started");
    assert_eq!(house.saga(parent).await.state.as_str(), "RUNNING");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_somebody_else_has_taken_refuses_the_sub_saga_and_leaves_theirs_alone() {
    let steps = r#"
  - { name: first, participant: work, action: first, compensation: { action: unfirst } }
  - { name: pause, wait: { signal: go, timeout: 1h } }
  - { name: sub, saga: child, input: {} }
"#;
    let house = House::new(&[("child", CHILD), ("parent", steps)], "").await;
    let parent = house.start("parent", json!({})).await;
    let theirs = house.try_start("child", json!({ "mine": true }), Some(&format!("{parent}/sub/action/1"))).await;
    house.becomes(theirs, "COMPLETED").await;
    house.coordinator.signal(parent, "go".to_owned(), Payload::from(json!({}))).await.expect("it is heard");
    let saga = house.becomes(parent, "COMPENSATED").await;
    assert_eq!(saga.cause.expect("a cause").kind, "key-conflict");
    assert_eq!(house.saga(theirs).await.state.as_str(), "COMPLETED");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_is_refused_and_what_never_was_started_is_undone() {
    let steps = r#"
  - { name: first, participant: work, action: first, compensation: { action: unfirst } }
  - { name: sub, saga: nowhere, input: {} }
"#;
    let house = House::new(&[("parent", steps)], "").await;
    let saga = house.start("parent", json!({})).await;
    let saga = house.becomes(saga, "COMPENSATED").await;
    assert_eq!(saga.cause.expect("a cause").kind, "definition-unknown");
    house.nothing_is_pending().await;
    // Sent and given up in one: whether its start or its undoing arrives first, there is nothing to undo.
    let at_once = "  - { name: sub, after: [], saga: nowhere, input: {} }\n  - { name: broken, after: [], participant: work, action: x, input: { n: \"${ input.missing }\" }, compensation: none }\n";
    house.coordinator.register(&format!("saga: both\n{DEFAULTS}{at_once}"), "test").await.expect("it is registered");
    let both = house.start("both", json!({})).await;
    house.becomes(both, "COMPENSATED").await;
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_for_each_item_ends_with_the_parent_or_goes_back_with_it() {
    let steps = r#"
  - { name: enrol, forEach: { items: "${ input.lines }", maxParallel: 3 }, saga: child, input: { of: "${ item }" } }
  - { name: last, participant: work, action: last, compensation: none, when: "${ input.more }" }
"#;
    let house = House::new(&[("child", CHILD), ("parent", steps)], "last").await;
    let parent = house.start("parent", json!({ "lines": [1, 2, 3, 4, 5], "more": false })).await;
    house.becomes(parent, "COMPLETED").await;
    house.all_become("child", 5, "COMPLETED").await;
    let parent = house.start("parent", json!({ "lines": [1, 2], "more": true })).await;
    house.becomes(parent, "COMPENSATED").await;
    let all = house.all("child").await;
    assert_eq!(all.iter().filter(|saga| saga.state.as_str() == "COMPENSATED").count(), 2);
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sagas_do_not_start_one_another_without_end() {
    let steps = r#"
  - { name: first, participant: work, action: first, compensation: { action: unfirst } }
  - { name: sub, saga: deep, when: "${ input.n > 0 }", input: { n: "${ input.n - 1 }" } }
"#;
    let house = House::new(&[("deep", steps)], "").await;
    let deep = house.start("deep", json!({ "n": 8 })).await;
    house.becomes(deep, "COMPLETED").await;
    house.all_become("deep", 9, "COMPLETED").await;
    let too_deep = house.start("deep", json!({ "n": 9 })).await;
    let saga = house.becomes(too_deep, "COMPENSATED").await;
    assert_eq!(saga.cause.expect("a cause").kind, "sub-saga-compensated");
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_is_cancelled_however_soon_after_its_start() {
    let steps = r#"
  - { name: pause, wait: { signal: go, timeout: 1h } }
  - { name: sub, saga: child, input: {} }
  - { name: stay, wait: { signal: never, timeout: 1h } }
"#;
    let house = House::new(&[("child", CHILD), ("parent", steps)], "").await;
    for _ in 0..20 {
        let parent = house.start("parent", json!({})).await;
        let (told, ()) = tokio::join!(
            house.coordinator.signal(parent, "go".to_owned(), Payload::from(json!({}))),
            house.cancel(parent)
        );
        // Whichever comes first.
        drop(told);
        house.becomes(parent, "COMPENSATED").await;
    }
    eventually("every child is undone", async || {
        let all = house.all("child").await;
        all.iter().all(|saga| saga.state.as_str() == "COMPENSATED").then_some(())
    })
    .await;
    house.nothing_is_pending().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_whose_key_is_taken_is_not_told_as_a_start() {
    let house = House::new(&[("child", CHILD)], "").await;
    let first = house.try_start("child", json!({}), Some("k")).await;
    let second = house.try_start("child", json!({}), Some("k")).await;
    assert_eq!(first, second);
    house.becomes(first, "COMPLETED").await;
    let told = house.coordinator.metrics().render();
    let line = told.lines().find(|line| line.contains("\"child\"") && line.contains("started")).expect("it is counted");
    assert!(line.ends_with(" 1"), "{line}");
}
