//! A compensation that overtakes its action, on PostgreSQL and RabbitMQ: what comes late is refused, and has no effect.

mod support;

use amends::broker::{Broker, Published};
use amends::coordinator::{Operate, OperatorAction};
use amends::id::SagaId;
use amends::message::{Envelope, Properties};
use amends::store::{Page, SagaFilter};
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use serde_json::json;
use support::eventually;
use support::rig::{Rig, start};
use support::workshop::Workshop;

const SHOP: &str = "late-shop";
const ACTIONS: [&str; 4] = ["open", "close", "card", "uncard"];

const ORDER: &str = r#"
saga: late-order
version: 1
defaults: { timeout: 500ms, retry: { maxAttempts: 1 } }
steps:
  - { name: first, participant: late-shop, action: open, compensation: { action: close } }
"#;

const CHILD: &str = r#"
saga: late-child
version: 1
steps:
  - { name: card, participant: late-shop, action: card, compensation: { action: uncard } }
"#;

const PARENT: &str = r#"
saga: late-parent
version: 1
steps:
  - { name: sub, saga: late-child, input: {} }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_comes_after_its_compensation_is_refused() {
    let rig = Rig::new(&[SHOP]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(ORDER, "test").await.expect("registered");
    let shop = Workshop::new(&rig.broker, SHOP, &ACTIONS, &[]).await;
    // Somebody takes the action from the queue, and keeps it.
    let keeper = amends::broker::open(&rig.broker_url).await.expect("the address is right");
    let mut kept = keeper.consume(&format!("{SHOP}.commands"), 1).await.expect("consumed");
    let id = start(&coordinator, "late-order", json!({})).await;
    let taken = tokio::time::timeout(support::PATIENCE, kept.next(1)).await.expect("in time").expect("a command");
    assert_eq!(taken[0].envelope.routing_key, format!("{SHOP}.open"));

    shop.work();
    let saga = rig.becomes(id, "COMPENSATED").await;
    assert_eq!(saga.cause.expect("a cause").kind, "timeout");
    assert_eq!(shop.stats().tombstones, 1);
    assert_eq!(shop.tombstones().await, [format!("{id}/first/action/1")]);

    // Now it goes back into the queue, and to the shop.
    keeper.close().await;
    eventually("the late action is refused", async || {
        (shop.stats().refused + shop.stats().replayed == 1).then_some(())
    })
    .await;
    assert_eq!(answered_after_the_end(&rig).await["type"], "tombstoned");
    assert!(shop.effects().await.is_empty(), "nothing was done, so nothing was undone");
    assert_eq!(rig.saga(id).await.state.as_str(), "COMPENSATED");
    assert_eq!(rig.pending().await, 0);
    coordinator.stop().await;
    coordinator.broker().close().await;
}

/// What was answered after the end: it changes nothing, and is kept where people look for it.
async fn answered_after_the_end(rig: &Rig) -> serde_json::Value {
    let mut dead = rig.broker.consume("amends.replies.dead", 1).await.expect("consumed");
    let late = tokio::time::timeout(support::PATIENCE, dead.next(1)).await.expect("in time").expect("its answer");
    let properties = &late[0].envelope.properties;
    let header = |name: &str| properties.headers.get(name).and_then(|value| value.as_text());
    assert_eq!((header("amends-outcome"), header("amends-rejected")), (Some("failure"), Some("REPLY_AFTER_END")));
    serde_json::from_slice(&late[0].envelope.body).expect("JSON")
}

/// The bindings of the queue of sub-sagas, which the test changes so that the start of one gets lost on its way.
struct Detour {
    channel: Channel,
    aside: String,
    _connection: Connection,
}

impl Detour {
    /// For the program that `publisher` publishes for. Its first message goes first: a connection to publish over
    /// begins with declaring everything again, bindings too.
    async fn new(url: &str, publisher: &dyn Broker) -> Self {
        let first = Envelope {
            exchange: "amends.events".to_owned(),
            routing_key: "late-parent.first".to_owned(),
            mandatory: false,
            properties: Properties::default(),
            body: b"{}".to_vec(),
        };
        assert_eq!(publisher.publish(vec![first]).await, [Published::Confirmed]);
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        let aside = format!("aside-{}", amends::id::fresh_request_id().simple());
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(aside.as_str().into(), exclusive, FieldTable::default()).await.expect("declared");
        let detour = Self { channel, aside, _connection: connection };
        detour.bind("amends.commands", "amends.compensate").await;
        let aside = detour.aside.clone();
        detour.bind(&aside, "amends.start").await;
        let (queue, exchange) = ("amends.commands".into(), "amends.commands".into());
        let unbound = detour.channel.queue_unbind(queue, exchange, "amends.#".into(), FieldTable::default()).await;
        unbound.expect("unbound");
        detour
    }

    async fn bind(&self, queue: &str, key: &str) {
        let (exchange, options) = ("amends.commands".into(), QueueBindOptions::default());
        let bound = self.channel.queue_bind(queue.into(), exchange, key.into(), options, FieldTable::default()).await;
        bound.expect("bound");
    }

    async fn has_taken_aside(&self) {
        let waits = async || {
            let passive = QueueDeclareOptions { passive: true, exclusive: true, ..QueueDeclareOptions::default() };
            let found = self.channel.queue_declare(self.aside.as_str().into(), passive, FieldTable::default()).await;
            (found.expect("it is there").message_count() == 1).then_some(())
        };
        eventually("the start went aside", waits).await;
    }

    /// The start that went aside arrives after all.
    async fn arrive(&self) {
        let late = eventually("the start went aside", async || {
            let options = BasicGetOptions { no_ack: true };
            self.channel.basic_get(self.aside.as_str().into(), options).await.expect("an answer")
        })
        .await;
        let (key, options) = ("amends.commands".into(), BasicPublishOptions::default());
        let properties = late.delivery.properties.clone();
        let sent = self.channel.basic_publish("".into(), key, options, &late.delivery.data, properties).await;
        sent.expect("published").await.expect("taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_whose_start_comes_after_its_compensation_is_never_started() {
    let rig = Rig::new(&[SHOP]).await;
    let coordinator = rig.coordinator().await;
    for definition in [CHILD, PARENT] {
        coordinator.register(definition, "test").await.expect("registered");
    }
    let shop = Workshop::new(&rig.broker, SHOP, &ACTIONS, &[]).await;
    shop.work();
    let detour = Detour::new(&rig.broker_url, coordinator.broker().as_ref()).await;
    let id = start(&coordinator, "late-parent", json!({})).await;
    detour.has_taken_aside().await;
    let (actor, reason) = ("operator".to_owned(), "for the test".to_owned());
    let cancel = Operate { id, action: OperatorAction::Cancel, actor, reason, expected_revision: None };
    coordinator.operate(cancel).await.expect("it is cancelled");
    rig.becomes(id, "COMPENSATED").await;
    let child = tombstone(&rig, id).await;

    detour.arrive().await;
    assert_eq!(answered_after_the_end(&rig).await["type"], "tombstoned");
    coordinator.stop().await;
    coordinator.broker().close().await;
    let left = async || {
        let status = rig.broker.queue("amends.commands").await.expect("an answer").expect("a queue");
        (status.consumers == 0).then_some(status.messages)
    };
    assert_eq!(eventually("the coordinator is gone", left).await, 0, "commands that were never settled");
    assert_eq!(tombstone(&rig, id).await, child);
    assert!(shop.effects().await.is_empty(), "no step of it was ever done");
    assert_eq!(rig.pending().await, 0);
    assert_eq!(rig.depth("amends.commands.dead").await, 0);
    support::delete_queues(&rig.broker_url, &["amends.commands".to_owned()]).await;
}

/// The only sub-saga there is: one that never did anything, and is over.
async fn tombstone(rig: &Rig, parent: SagaId) -> SagaId {
    let filter = SagaFilter { definition: Some("late-child".to_owned()), ..SagaFilter::default() };
    let found = rig.store.sagas(&filter, &Page { after: None, limit: 10 }).await.expect("a list");
    let [child] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(child.saga.state.as_str(), "COMPENSATED");
    assert_eq!(child.saga.parent.as_ref().map(|above| above.saga), Some(parent));
    assert!(child.saga.steps.iter().all(|step| step.status().as_str() == "waiting"), "{:?}", child.saga.steps);
    child.saga.id
}
