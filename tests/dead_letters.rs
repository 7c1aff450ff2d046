//! Dead letters: looked at without losing any, brought back, dropped; in the process and on a real broker.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use amends::broker::{Broker, BrokerError, Consumer, Consuming, Published, QueueStatus, Settlement, Topology, browse};
use amends::coordinator::dead::{DeadChange, Which};
use amends::coordinator::{Coordinator, CoordinatorError, CoordinatorOptions};
use amends::id::SagaId;
use amends::message::{Envelope, Properties};
use amends::store::Page;
use async_trait::async_trait;
use serde_json::{Value, json};
use support::http::House;
use support::rig::{Rig, start};
use support::scripted::{Scripted, done};
use support::{eventually, in_time};
use tokio::sync::Notify;

const ONE: &str = "
saga: one
version: 1
defaults: { timeout: 5m }
steps:
  - { name: work, participant: slow, action: do, pivot: true, compensation: none }
";
const DEAD: &str = "slow.commands.dead";

/// Takes what comes and rejects it, as a participant that cannot read its commands does.
async fn reject(broker: &Arc<dyn Broker>, queue: &str, count: usize) {
    let mut consumer = broker.consume(queue, 16).await.expect("the queue is consumed");
    let settler = consumer.settler();
    let mut rejected = 0;
    while rejected < count {
        let deliveries = in_time("it is delivered", consumer.next(16)).await.expect("deliveries");
        rejected += deliveries.len();
        settler.settle(deliveries.into_iter().map(|delivery| (delivery.tag, Settlement::Reject)).collect()).await;
    }
}

fn message(exchange: &str, key: &str, id: Option<&str>, body: &[u8]) -> Envelope {
    let properties = Properties { message_id: id.map(str::to_owned), ..Properties::default() };
    let (exchange, routing_key) = (exchange.to_owned(), key.to_owned());
    Envelope { exchange, routing_key, mandatory: true, properties, body: body.to_vec() }
}

async fn count(house: &House, queue: &str) -> u64 {
    let listed = house.get("/v1/dead-letters").await.json();
    let items = listed["items"].as_array().expect("queues").clone();
    let found = items.iter().find(|item| item["queue"] == queue).unwrap_or_else(|| panic!("no {queue} in {listed}"));
    found["messages"].as_u64().expect("a number")
}

async fn has(house: &House, queue: &str, messages: u64) {
    let what = format!("{queue} has {messages} messages");
    eventually(&what, async || (count(house, queue).await == messages).then_some(())).await;
}

#[tokio::test]
async fn a_reply_that_nobody_can_read_is_shown_with_its_reason_and_dropped_with_an_audit_row() {
    let house = House::with_place().await;
    let hostile = b"\x1b[31m<script>alert(1)</script>\xff".as_slice();
    house.broker.publish(vec![message("amends.replies", "amends.replies", None, hostile)]).await;
    has(&house, "amends.replies.dead", 1).await;
    let shown = house.get("/v1/dead-letters/amends.replies.dead").await.json();
    let item = &shown["items"][0];
    assert!(item["reason"].as_str().expect("a code").starts_with("REPLY_"), "{item}");
    assert_eq!((&item["bodyBytes"], &shown["more"]), (&json!(hostile.len()), &json!(false)));
    let id = item["id"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("sha256-"), "it has no id of its own: {id}");
    let page = house.get("/console/dead/amends.replies.dead").await.text;
    assert!(page.contains("\\u{1b}[31m&lt;script&gt;") && !page.contains("<script>alert"), "{page}");

    let path = "/v1/dead-letters/amends.replies.dead/drop";
    let dry = house.post(&format!("{path}?dryRun=true"), &json!({ "messages": [id] })).await.json();
    assert_eq!(dry["done"], 1);
    has(&house, "amends.replies.dead", 1).await;
    let gone = house.post(path, &json!({ "reason": "x", "messages": [id, "another"] })).await;
    assert_eq!((gone.status.as_u16(), gone.code().as_str()), (409, "DEAD_LETTER_GONE"), "{}", gone.text);
    has(&house, "amends.replies.dead", 1).await;
    let dropped = house.post(path, &json!({ "reason": "garbage", "messages": [id] })).await;
    assert_eq!((dropped.status.as_u16(), &dropped.json()["done"]), (200, &json!(1)), "{}", dropped.text);
    has(&house, "amends.replies.dead", 0).await;
    let rows = house.store.audit(None, &Page { after: None, limit: 5 }).await.expect("the audit log");
    assert_eq!((rows[0].action.as_str(), rows[0].reason.as_str()), ("dead-letter-drop", "garbage"));
    assert_eq!(rows[0].detail.value()["message"], id);
    assert!(!rows[0].detail.text().contains("script"), "what it says is not written down");
}

#[tokio::test]
async fn a_request_goes_back_by_the_key_that_it_came_with() {
    let house = House::with_place().await;
    house.broker.publish(vec![message("amends.requests", "start", Some("r1"), b"{}")]).await;
    has(&house, "amends.requests.dead", 1).await;
    let shown = house.get("/v1/dead-letters/amends.requests.dead").await.json();
    assert_eq!(shown["items"][0]["replayTo"], "amends.requests start");
    let unheard = message("amends.dead", "amends.requests", Some("r2"), b"{}");
    house.broker.publish(vec![unheard]).await;
    let path = "/v1/dead-letters/amends.requests.dead/replay";
    let refused = house.post(path, &json!({ "reason": "x", "count": 2 })).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (422, "DEAD_LETTER_NOT_REPLAYABLE"));
    has(&house, "amends.requests.dead", 2).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let house = House::with_place().await;
    let unknown = house.get("/v1/dead-letters/warehuose.commands.dead").await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "DEAD_LETTERS_UNKNOWN"));
    assert_eq!(unknown.json()["suggestion"], "warehouse.commands.dead");
    assert_eq!(house.get("/v1/dead-letters/warehouse.commands").await.code(), "DEAD_LETTERS_UNKNOWN", "it is alive");
    assert_eq!(house.get("/v1/dead-letters/amends.replies.dead?limit=0").await.code(), "LIMIT_INVALID");
    for (body, code) in [
        (json!({ "reason": "x" }), "FIELD_INVALID"),
        (json!({ "reason": "x", "messages": [] }), "FIELD_INVALID"),
        (json!({ "reason": "x", "messages": [1] }), "FIELD_INVALID"),
        (json!({ "reason": "x", "messages": ["a"], "count": 1 }), "FIELD_INVALID"),
        (json!({ "reason": "x", "count": 0 }), "FIELD_INVALID"),
        (json!({ "reason": "x", "count": 1_001 }), "FIELD_INVALID"),
        (json!({ "reason": "x", "cuont": 1 }), "FIELD_UNKNOWN"),
        (json!({ "count": 1 }), "REASON_REQUIRED"),
    ] {
        assert_eq!(house.post("/v1/dead-letters/amends.replies.dead/drop", &body).await.code(), code, "{body}");
    }
}

fn change(is_replay: bool, which: Which) -> DeadChange {
    DeadChange { queue: DEAD.to_owned(), is_replay, which, actor: "ann".to_owned(), reason: "mended".to_owned() }
}

async fn ids(coordinator: &Coordinator) -> Vec<String> {
    let (letters, _) = coordinator.dead_letters(DEAD, 50).await.expect("they are read");
    letters.into_iter().map(|letter| letter.id).collect()
}

async fn dead_have(rig: &Rig, messages: u32) {
    let what = format!("{messages} dead letters");
    eventually(&what, async || (rig.depth(DEAD).await == messages).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_loses_nothing_and_keeps_the_order_on_a_real_broker() {
    let rig = Rig::new(&["slow"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(ONE, "test").await.expect("registered");
    let names = ["m0", "m1", "m2", "m3"];
    let all = names.map(|name| message("amends.commands", "slow.do", Some(name), name.as_bytes()));
    assert_eq!(rig.broker.publish(all.to_vec()).await, vec![Published::Confirmed; 4]);
    reject(&rig.broker, "slow.commands", 4).await;
    dead_have(&rig, 4).await;
    assert_eq!(ids(&coordinator).await, names);
    assert_eq!(ids(&coordinator).await, names, "as often as one likes");
    let (first, has_more) = coordinator.dead_letters(DEAD, 1).await.expect("they are read");
    assert!(has_more);
    assert_eq!((first[0].reason.as_str(), first[0].deaths[0].queue.as_str()), ("rejected", "slow.commands"));
    assert_eq!(first[0].target, Some(("amends.commands".to_owned(), "slow.do".to_owned())));
    // RabbitMQ 4 removes what was put back twenty times.
    for _ in 0..22 {
        coordinator.dead_letters(DEAD, 50).await.expect("they are read");
    }
    let mut worn = ids(&coordinator).await;
    worn.sort_unstable();
    assert_eq!(worn, names);
    let (letters, _) = coordinator.dead_letters(DEAD, 50).await.expect("they are read");
    assert!(letters.iter().all(|letter| letter.reason == "rejected"), "what is known of them is kept: {letters:?}");

    coordinator.change_dead_letters(&change(false, Which::Ids(vec!["m2".to_owned()]))).await.expect("it is dropped");
    let mut left = ids(&coordinator).await;
    left.sort_unstable();
    assert_eq!(left, ["m0", "m1", "m3"]);
    let gone =
        coordinator.change_dead_letters(&change(false, Which::Ids(vec!["m0".to_owned(), "m2".to_owned()]))).await;
    assert!(matches!(gone, Err(CoordinatorError::DeadLetterGone { ids, .. }) if ids == ["m2"]));
    assert_eq!(ids(&coordinator).await.len(), 3, "and m0 is still there");
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_command_is_done_and_its_saga_goes_on_on_a_real_broker() {
    let rig = Rig::new(&["slow"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(ONE, "test").await.expect("registered");
    let mut sagas: Vec<SagaId> = Vec::new();
    for _ in 0..3 {
        sagas.push(start(&coordinator, "one", json!({})).await);
    }
    reject(&rig.broker, "slow.commands", 3).await;
    dead_have(&rig, 3).await;
    let slow = Scripted::start(&rig.broker, "slow", |_| vec![done()]).await;
    let outcomes = coordinator.change_dead_letters(&change(true, Which::First(10))).await.expect("they are replayed");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.problem.is_none()).count(), 3, "{outcomes:?}");
    for id in &sagas {
        rig.becomes(*id, "COMPLETED").await;
        let rows = rig.store.audit(Some(*id), &Page { after: None, limit: 5 }).await.expect("the audit log");
        assert_eq!((rows[0].action.as_str(), rows[0].actor.as_str()), ("dead-letter-replay", "ann"));
    }
    assert_eq!(slow.log(), ["work/action#1"; 3]);
    dead_have(&rig, 0).await;
    coordinator.stop().await;
}

/// Publishes, and then never comes back: as a process that is killed before it has removed the dead letter.
struct Cut {
    inner: Arc<dyn Broker>,
    is_armed: AtomicBool,
    has_published: Notify,
}

#[async_trait]
impl Broker for Cut {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let is_cut =
            self.is_armed.load(Ordering::SeqCst) && messages.iter().any(|one| one.exchange == "amends.commands");
        let outcomes = self.inner.publish(messages).await;
        if is_cut {
            self.has_published.notify_one();
            std::future::pending::<()>().await;
        }
        outcomes
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume_by(queue, how).await
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        self.inner.queue(queue).await
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn browse::Browser>, BrokerError> {
        self.inner.browse(queue).await
    }

    fn is_volatile(&self) -> bool {
        self.inner.is_volatile()
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        self.inner.describe().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_cut_off_before_the_removal_leaves_the_message_twice_and_never_not_at_all() {
    let rig = Rig::new(&["slow"]).await;
    let inner = amends::broker::open(&rig.broker_url).await.expect("the broker is reached");
    let cut = Arc::new(Cut { inner, is_armed: AtomicBool::new(false), has_published: Notify::new() });
    let broker: Arc<dyn Broker> = cut.clone();
    let launched = Coordinator::launch(rig.store.clone(), broker, CoordinatorOptions::default()).await;
    let coordinator = launched.expect("it launches");
    coordinator.register(ONE, "test").await.expect("registered");
    let published = rig.broker.publish(vec![message("amends.commands", "slow.do", Some("m0"), b"{}")]).await;
    assert!(matches!(published[..], [Published::Confirmed]), "{published:?}");
    reject(&rig.broker, "slow.commands", 1).await;
    dead_have(&rig, 1).await;

    cut.is_armed.store(true, Ordering::SeqCst);
    let mut replaying = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { coordinator.change_dead_letters(&change(true, Which::First(1))).await }
    });
    tokio::select! {
        () = in_time("it is published", cut.has_published.notified()) => {}
        outcome = &mut replaying => panic!("it was not cut off: {outcome:?}"),
    }
    replaying.abort();
    assert!(replaying.await.is_err_and(|error| error.is_cancelled()), "it was cut off");
    dead_have(&rig, 1).await;
    eventually("the copy is in its queue", async || (rig.depth("slow.commands").await == 1).then_some(())).await;
    cut.is_armed.store(false, Ordering::SeqCst);
    assert_eq!(ids(&coordinator).await, ["m0"], "it can be replayed once more");
    let rows = rig.store.audit(None, &Page { after: None, limit: 5 }).await.expect("the audit log");
    let told: Value = rows[0].detail.value().clone();
    assert_eq!((rows[0].action.as_str(), &told["to"]), ("dead-letter-replay", &json!("amends.commands slow.do")));
    coordinator.kill();
}
