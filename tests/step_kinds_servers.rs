//! Steps that wait, loop and start other sagas, on PostgreSQL and RabbitMQ, with coordinators that are killed.

mod support;

use amends::broker::Published;
use amends::coordinator::{Coordinator, Operate, OperatorAction, Signal, Target};
use amends::id::SagaId;
use amends::message::{Envelope, Properties};
use amends::payload::Payload;
use amends::saga::Saga;
use amends::store::{Page, SagaFilter};
use serde_json::{Value, json};
use support::eventually;
use support::queueing::Queueing;
use support::rig::{Rig, start};
use support::scripted::{Scripted, refusal, success};

const WORK: &str = "step-kinds";

const ORDER: &str = r#"
saga: kinds-order
version: 1
defaults: { timeout: 5s, retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: open, participant: step-kinds, action: open, compensation: { action: close } }
  - name: reserve
    forEach: { items: "${ input.lines }", maxParallel: 2 }
    participant: step-kinds
    action: reserve
    after: [open]
    input: { sku: "${ item.sku }" }
    compensation: { action: release }
  - { name: authorise, participant: step-kinds, action: authorise, after: [open], compensation: { action: void } }
  - { name: gift, participant: step-kinds, action: gift, after: [open], when: "${ input.gift }", compensation: { action: ungift } }
  - { name: check, participant: step-kinds, action: check, after: [reserve, authorise, gift], compensation: none }
  - { name: ship, participant: step-kinds, action: ship, pivot: true, compensation: none }
"#;

const CHILD: &str = r#"
saga: kinds-child
version: 1
defaults: { timeout: 5s }
steps:
  - { name: card, participant: step-kinds, action: card, compensation: { action: uncard } }
  - { name: nod, wait: { signal: nod, timeout: 1h }, when: "${ input.wait }" }
"#;

const PARENT: &str = r#"
saga: kinds-parent
version: 1
defaults: { timeout: 5s }
steps:
  - { name: member, participant: step-kinds, action: member, compensation: { action: unmember } }
  - { name: enrol, saga: kinds-child, input: { wait: "${ input.wait }" } }
  - { name: greet, participant: step-kinds, action: greet, compensation: none }
"#;

const TRIP: &str = r#"
saga: kinds-trip
version: 1
key: ${ input.trip }
defaults: { timeout: 5s }
steps:
  - { name: hold, participant: step-kinds, action: hold, compensation: { action: let-go } }
  - { name: pause, delay: 300ms }
  - { name: approval, wait: { signal: approval, timeout: 1h } }
  - { name: hint, wait: { signal: hint, timeout: 300ms, onTimeout: continue } }
  - { name: strict, wait: { signal: strict, timeout: 300ms }, when: "${ input.strict }" }
  - { name: book, participant: step-kinds, action: book, input: { by: "${ steps['approval'].output.by }" }, compensation: none }
"#;

struct Site {
    rig: Rig,
    coordinator: Coordinator,
    work: Scripted,
}

impl Site {
    /// The participant refuses `<action>` or `<action>:<sku>`.
    async fn new(refused: &'static str) -> Self {
        let rig = Rig::new(&[WORK]).await;
        let coordinator = rig.coordinator().await;
        for definition in [ORDER, CHILD, PARENT, TRIP] {
            coordinator.register(definition, "test").await.expect("registered");
        }
        let work = Scripted::start(&rig.broker, WORK, move |command| {
            let sku = command.body.value()["sku"].as_str().map(|sku| format!(":{sku}")).unwrap_or_default();
            let is_refused = !command.is_compensation && format!("{}{sku}", command.action) == refused;
            vec![if is_refused { refusal("no") } else { success(json!({ "done": command.action })) }]
        })
        .await;
        Self { rig, coordinator, work }
    }

    /// Kills the coordinator and launches another one.
    async fn crash(&mut self) {
        self.coordinator.kill();
        self.coordinator.broker().close().await;
        self.coordinator = self.rig.coordinator().await;
    }

    async fn the(&self, definition: &str) -> SagaId {
        eventually(&format!("there is a {definition}"), async || {
            let filter = SagaFilter { definition: Some(definition.to_owned()), ..SagaFilter::default() };
            let found = self.rig.store.sagas(&filter, &Page { after: None, limit: 10 }).await.expect("a list");
            found.first().map(|found| found.saga.id)
        })
        .await
    }

    async fn step_is(&self, id: SagaId, at: usize, status: &str) {
        eventually(&format!("step {at} of {id} is {status}"), async || {
            (statuses(&self.rig.saga(id).await)[at] == status).then_some(())
        })
        .await;
    }

    async fn signal(&self, id: SagaId, signal: &str, payload: Value) -> bool {
        let payload = Payload::from(payload);
        let heard = self.coordinator.signal(id, signal.to_owned(), payload).await.expect("it is heard");
        !heard.is_duplicate
    }

    fn place(&self, line: &str) -> usize {
        let log = self.work.log();
        log.iter().position(|told| told.starts_with(line)).unwrap_or_else(|| panic!("no {line} in {log:?}"))
    }

    async fn ends_clean(&self) {
        eventually("nothing is pending", async || (self.rig.pending().await == 0).then_some(())).await;
        self.coordinator.stop().await;
        self.coordinator.broker().close().await;
    }
}

fn statuses(saga: &Saga) -> Vec<&'static str> {
    saga.steps.iter().map(|step| step.status().as_str()).collect()
}

fn lines(skus: &[&str], gift: bool) -> Value {
    json!({ "lines": skus.iter().map(|sku| json!({ "sku": sku })).collect::<Vec<_>>(), "gift": gift })
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_and_elements_are_joined_and_a_false_condition_is_skipped() {
    let site = Site::new("").await;
    let id = start(&site.coordinator, "kinds-order", lines(&["a", "b", "c"], false)).await;
    let saga = site.rig.becomes(id, "COMPLETED").await;
    let done = "verified";
    assert_eq!(statuses(&saga), [done, done, done, done, done, "skipped", done, done]);
    for branch in ["reserve[0]", "reserve[1]", "reserve[2]", "authorise"] {
        assert!(site.place(&format!("{branch}/action")) < site.place("check/action"), "{branch} is joined");
    }
    site.ends_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_are_undone_in_reverse_order_and_elements_each_on_its_own() {
    let site = Site::new("check").await;
    let id = start(&site.coordinator, "kinds-order", lines(&["a", "b", "c"], true)).await;
    let saga = site.rig.becomes(id, "COMPENSATED").await;
    assert_eq!(statuses(&saga)[..6], ["compensated"; 6]);
    let opened = site.place("open/compensation");
    for branch in ["reserve[0]", "reserve[1]", "reserve[2]", "authorise", "gift"] {
        assert!(site.place(&format!("{branch}/compensation")) < opened, "{branch} is undone before `open`");
    }
    site.ends_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_element_sends_the_others_back_across_a_crash() {
    let mut site = Site::new("reserve:d").await;
    let id = start(&site.coordinator, "kinds-order", lines(&["a", "b", "c", "d"], false)).await;
    eventually("the first is asked for", async || {
        site.work.log().iter().find(|l| l.starts_with("reserve[0]")).cloned()
    })
    .await;
    site.crash().await;
    let saga = site.rig.becomes(id, "COMPENSATED").await;
    assert_eq!(statuses(&saga)[4], "failed");
    for element in 0..3 {
        site.place(&format!("reserve[{element}]/compensation"));
    }
    assert!(!site.work.log().iter().any(|line| line.starts_with("reserve[3]/compensation")), "it was refused");
    site.ends_clean().await;
}

const LANES: &str = r#"
saga: kinds-lanes
version: 1
defaults: { timeout: 20s }
steps:
  - { name: each, forEach: { items: "${ input.items }", maxParallel: 3 }, participant: kinds-lanes, action: do, compensation: { action: undo } }
  - { name: last, participant: kinds-lanes, action: last, compensation: none }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn so_many_elements_as_allowed_are_under_way_at_once_and_never_more() {
    let rig = Rig::new(&["kinds-lanes"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(LANES, "test").await.expect("registered");
    let lanes = Queueing::start(&rig.broker, "kinds-lanes").await;
    let id = start(&coordinator, "kinds-lanes", json!({ "items": [0, 1, 2, 3, 4, 5, 6] })).await;
    rig.becomes(id, "COMPLETED").await;
    let waiting = lanes.waiting();
    assert_eq!(waiting.len(), 8);
    // How soon the next one comes is up to a busy machine, how many there are at most is not.
    assert_eq!(waiting.iter().max(), Some(&3), "{waiting:?}");
    let empty = start(&coordinator, "kinds-lanes", json!({ "items": [] })).await;
    rig.becomes(empty, "COMPLETED").await;
    assert_eq!(lanes.waiting().len(), 9, "only the step after the list");
    coordinator.stop().await;
    coordinator.broker().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_and_its_parent_both_complete_across_a_crash() {
    let mut site = Site::new("").await;
    let parent = start(&site.coordinator, "kinds-parent", json!({ "wait": true })).await;
    let child = site.the("kinds-child").await;
    site.step_is(child, 1, "pending").await;
    site.crash().await;
    assert!(site.signal(child, "nod", json!(null)).await);
    site.crash().await;
    site.rig.becomes(parent, "COMPLETED").await;
    site.rig.becomes(child, "COMPLETED").await;
    site.ends_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_child_fails_its_step_and_a_parent_that_goes_back_undoes_its_child() {
    for (refused, state) in [("card", "failed"), ("greet", "compensated")] {
        let site = Site::new(refused).await;
        let parent = start(&site.coordinator, "kinds-parent", json!({ "wait": false })).await;
        let saga = site.rig.becomes(parent, "COMPENSATED").await;
        assert_eq!(statuses(&saga)[..2], ["compensated", state], "{refused} is refused");
        site.rig.becomes(site.the("kinds-child").await, "COMPENSATED").await;
        site.ends_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_parent_takes_its_running_child_back_across_a_crash() {
    let mut site = Site::new("").await;
    let id = start(&site.coordinator, "kinds-parent", json!({ "wait": true })).await;
    let child = site.the("kinds-child").await;
    site.step_is(child, 1, "pending").await;
    let (actor, reason) = ("operator".to_owned(), "for the test".to_owned());
    let cancel = Operate { id, action: OperatorAction::Cancel, actor, reason, expected_revision: None };
    site.coordinator.operate(cancel).await.expect("it is cancelled");
    site.crash().await;
    site.rig.becomes(id, "COMPENSATED").await;
    site.rig.becomes(child, "COMPENSATED").await;
    site.place("card/compensation");
    site.ends_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_signal_and_the_timers_outlive_a_crash() {
    let mut site = Site::new("").await;
    let id = start(&site.coordinator, "kinds-trip", json!({ "trip": "t1", "strict": false })).await;
    assert!(site.signal(id, "approval", json!({ "by": "ann" })).await, "early, and kept");
    site.crash().await;
    assert!(!site.signal(id, "approval", json!({ "by": "bob" })).await, "the first one counts");
    let saga = site.rig.becomes(id, "COMPLETED").await;
    assert_eq!(statuses(&saga), ["verified", "verified", "verified", "skipped", "skipped", "verified"]);
    let book = site.work.seen().into_iter().find(|command| command.action == "book").expect("it is booked");
    assert_eq!(*book.body.value(), json!({ "by": "ann" }));
    let late = site.coordinator.signal(id, "hint".to_owned(), Payload::from(json!(1))).await;
    assert_eq!(late.expect_err("it is too late").code(), "ACTION_NOT_ALLOWED");
    site.ends_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_never_comes_fails_its_step_after_a_crash_too() {
    let mut site = Site::new("").await;
    let id = start(&site.coordinator, "kinds-trip", json!({ "trip": "t1", "strict": true })).await;
    let target = Target::Key { saga: "kinds-trip".to_owned(), key: "t1".to_owned() };
    let signal = Signal { target, signal: "approval".to_owned(), payload: Payload::from(json!({ "by": "ann" })) };
    assert_eq!(site.coordinator.signal_to(signal).await.expect("it is heard").saga.id, id);
    site.crash().await;
    let saga = site.rig.becomes(id, "COMPENSATED").await;
    assert_eq!(saga.cause.expect("a cause").kind, "signal-timeout");
    site.place("hold/compensation");
    site.ends_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_published_to_the_request_queue_reaches_the_saga_of_the_key() {
    let site = Site::new("").await;
    let id = start(&site.coordinator, "kinds-trip", json!({ "trip": "t1", "strict": false })).await;
    let body = json!({ "saga": "kinds-trip", "key": "t1", "signal": "approval", "payload": { "by": "ann" } });
    let request = Envelope {
        exchange: "amends.requests".to_owned(),
        routing_key: "signal".to_owned(),
        mandatory: true,
        properties: Properties::default(),
        body: body.to_string().into_bytes(),
    };
    assert_eq!(site.rig.broker.publish(vec![request]).await, [Published::Confirmed]);
    site.rig.becomes(id, "COMPLETED").await;
    site.ends_clean().await;
}
