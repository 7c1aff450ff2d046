//! `amends serve` is killed, with SIGKILL, while a timer runs, a wait is open, a sub-saga is under way, a list is half
//! done; on PostgreSQL and RabbitMQ. What had begun ends as it should, and every effect stands exactly once.

mod support;

use std::collections::BTreeMap;
use std::process::Command;

use amends::broker::topology::Queue;
use amends::broker::{Consumer, Published, Settlement, Topology};
use amends::client::Client;
use amends::client::views::{SignalBody, StartBody};
use amends::id::SagaId;
use amends::message::{Envelope, Properties};
use amends::saga::{Phase, Saga, StepState};
use amends::store::{Page, SagaFilter};
use serde_json::{Value, json};
use support::eventually;
use support::processes::{Process, free_port};
use support::rig::Rig;
use support::workshop::Workshop;

const SHOP: &str = "kinds-shop";
const ACTIONS: [&str; 7] = ["open", "close", "book", "reserve", "release", "card", "uncard"];

/// The coordinator as a process, and everything around it.
struct Site {
    process: Process,
    client: Client,
    shop: Workshop,
    rig: Rig,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new(definitions: &[&str], refused: &'static [&'static str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let rig = Rig::new(&[SHOP]).await;
        let shop = Workshop::new(&rig.broker, SHOP, &ACTIONS, refused).await;
        shop.work();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let http = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(["serve", "--store", &rig.store_url, "--broker", &rig.broker_url, "--http", &http]);
        let process = Process::start("amends serve", &mut command, folder.path().join("serve.log"));
        let site = Self { process, client: Client::new(&format!("http://{http}"), None), shop, rig, _folder: folder };
        site.is_ready().await;
        for definition in definitions {
            site.client.register(definition).await.expect("registered");
        }
        site
    }

    async fn is_ready(&self) {
        eventually("the process is ready", async || self.client.ready().await.ok()).await;
    }

    /// SIGKILL. What the store then says of the saga is what the process left behind.
    async fn kill(&mut self, id: SagaId) -> Saga {
        self.process.kill();
        self.rig.saga(id).await
    }

    async fn start_again(&mut self) {
        self.process.start_again();
        self.is_ready().await;
    }

    async fn start(&self, saga: &str, input: Value) -> SagaId {
        let started = self.client.start(&StartBody::new(saga, input)).await.expect("started");
        started.saga.id.parse().expect("an id")
    }

    async fn the(&self, definition: &str) -> SagaId {
        eventually(&format!("there is a {definition}"), async || {
            let filter = SagaFilter { definition: Some(definition.to_owned()), ..SagaFilter::default() };
            let found = self.rig.store.sagas(&filter, &Page { after: None, limit: 10 }).await.expect("a list");
            found.first().map(|found| found.saga.id)
        })
        .await
    }

    async fn steps_are(&self, id: SagaId, statuses: &[&str]) {
        eventually(&format!("the steps of {id} are {statuses:?}"), async || {
            (self::statuses(&self.rig.saga(id).await) == statuses).then_some(())
        })
        .await;
    }

    /// Exactly these effects, each exactly once, and nothing left to do.
    async fn stands(&self, places: &[&str]) {
        let expected: BTreeMap<String, usize> = places.iter().map(|place| ((*place).to_owned(), 1)).collect();
        assert_eq!(self.shop.effects().await, expected);
        eventually("nothing is pending", async || (self.rig.pending().await == 0).then_some(())).await;
    }
}

fn statuses(saga: &Saga) -> Vec<&'static str> {
    saga.steps.iter().map(|step| step.status().as_str()).collect()
}

/// Until when a step waits, if it does.
fn waits_until(saga: &Saga, step: usize) -> Option<amends::clock::Timestamp> {
    match &saga.steps[step] {
        StepState::Pending { command } => match command.phase {
            Phase::Waiting(until) => Some(until),
            _ => None,
        },
        _ => None,
    }
}

const COOL_OFF: &str = r#"
saga: cool-off
version: 1
defaults: { timeout: 20s }
steps:
  - { name: first, participant: kinds-shop, action: open, compensation: { action: close } }
  - { name: pause, delay: 3s }
  - { name: nobody, wait: { signal: never, timeout: 3s, onTimeout: continue } }
  - { name: last, participant: kinds-shop, action: book, compensation: none }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn timers_that_ran_out_while_the_process_was_dead_are_kept() {
    let mut site = Site::new(&[COOL_OFF], &[]).await;
    let id = site.start("cool-off", json!({})).await;
    for (step, status) in
        [(1, ["verified", "pending", "waiting", "waiting"]), (2, ["verified", "verified", "pending", "waiting"])]
    {
        site.steps_are(id, &status).await;
        let left = site.kill(id).await;
        let until = waits_until(&left, step).expect("the timer runs");
        let now = async || site.rig.store.health().await.expect("the store answers").now;
        assert!(now().await < until, "it was killed before the timer ran out");
        eventually("the timer runs out", async || (now().await > until).then_some(())).await;
        assert_eq!(statuses(&site.rig.saga(id).await), status, "nobody was there to see it");
        site.start_again().await;
    }
    let saga = site.rig.becomes(id, "COMPLETED").await;
    assert_eq!(statuses(&saga), ["verified", "verified", "skipped", "verified"]);
    assert_eq!(site.process.kills(), 2);
    site.stands(&["first", "last"]).await;
}

const APPROVAL: &str = r#"
saga: approval
version: 1
key: ${ input.id }
defaults: { timeout: 20s }
steps:
  - { name: first, participant: kinds-shop, action: open, compensation: { action: close } }
  - { name: before, wait: { signal: before, timeout: 1h } }
  - { name: meanwhile, wait: { signal: meanwhile, timeout: 1h } }
  - { name: after, wait: { signal: after, timeout: 1h } }
  - name: last
    participant: kinds-shop
    action: book
    input: { said: ["${ steps['before'].output }", "${ steps['meanwhile'].output }", "${ steps['after'].output }"] }
    compensation: none
output: ${ steps['last'].output.heard }
"#;

/// Asks over RabbitMQ and hears the answers.
struct Asker {
    queue: String,
    consumer: Box<dyn Consumer>,
}

impl Asker {
    async fn new(rig: &Rig) -> Self {
        let queue = format!("answers-{}", amends::id::fresh_request_id().simple());
        let mut topology = Topology::coordinator();
        topology.queues.push(Queue {
            name: queue.clone(),
            bindings: Vec::new(),
            dead_letters: false,
            namespace: Default::default(),
        });
        rig.broker.declare(&topology).await.expect("declared");
        let consumer = rig.broker.consume(&queue, 10).await.expect("consumed");
        Self { queue, consumer }
    }

    async fn ask(&self, rig: &Rig, body: &Value) {
        let properties = Properties { reply_to: Some(self.queue.clone()), ..Properties::default() };
        let (exchange, routing_key) = ("amends.requests".to_owned(), "signal".to_owned());
        let body = body.to_string().into_bytes();
        let request = Envelope { exchange, routing_key, mandatory: true, properties, body };
        assert_eq!(rig.broker.publish(vec![request]).await, [Published::Confirmed]);
    }

    async fn answer(&mut self) -> Value {
        let next = tokio::time::timeout(support::PATIENCE, self.consumer.next(1)).await;
        let delivery = next.expect("an answer comes").expect("the broker is open").remove(0);
        self.consumer.settler().settle(vec![(delivery.tag, Settlement::Ack)]).await;
        serde_json::from_slice(&delivery.envelope.body).expect("an answer is JSON")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_before_during_and_after_the_death_of_the_process_all_count_once() {
    let mut site = Site::new(&[APPROVAL], &[]).await;
    let mut asker = Asker::new(&site.rig).await;
    let id = site.start("approval", json!({ "id": "k" })).await;
    site.steps_are(id, &["verified", "pending", "waiting", "waiting", "waiting"]).await;

    // Killed while the wait is open, and again as soon as its signal is acknowledged.
    let left = site.kill(id).await;
    assert!(waits_until(&left, 1).is_some(), "the wait is open");
    site.start_again().await;
    let said = site.client.signal(&SignalBody::to_id(id.to_string(), "before", Some(json!(1)))).await.expect("heard");
    assert!(!said.is_duplicate);
    let left = site.kill(id).await;
    assert_eq!(statuses(&left)[1], "verified", "what was acknowledged is durable");

    // Nobody is there to hear this one. It is said twice.
    let meanwhile = json!({ "saga": "approval", "key": "k", "signal": "meanwhile", "payload": 2 });
    for _ in 0..2 {
        asker.ask(&site.rig, &meanwhile).await;
    }
    let waiting = async || (site.rig.depth("amends.requests").await == 2).then_some(());
    eventually("both wait in the queue", waiting).await;
    assert_ne!(statuses(&site.rig.saga(id).await)[2], "verified");
    site.start_again().await;
    let answers = [asker.answer().await, asker.answer().await];
    assert!(answers.iter().all(|answer| answer["id"] == json!(id.to_string())), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["isNew"] == true).count(), 1, "{answers:?}");

    site.steps_are(id, &["verified", "verified", "verified", "pending", "waiting"]).await;
    let last = SignalBody::to_key("approval", "k", "after", Some(json!(3)));
    assert!(!site.client.signal(&last).await.expect("heard").is_duplicate);
    let saga = site.rig.becomes(id, "COMPLETED").await;
    assert_eq!(saga.output.expect("an output").value(), &json!({ "said": [1, 2, 3] }));
    assert_eq!(site.process.kills(), 2);
    site.stands(&["first", "last"]).await;
    support::delete_queues(&site.rig.broker_url, &[asker.queue]).await;
}

const CHILD: &str = r#"
saga: inner
version: 1
defaults: { timeout: 20s }
steps:
  - { name: card, participant: kinds-shop, action: card, compensation: { action: uncard } }
"#;

const PARENT: &str = r#"
saga: outer
version: 1
defaults: { timeout: 20s }
steps:
  - { name: first, participant: kinds-shop, action: open, compensation: { action: close } }
  - { name: inner, saga: inner, input: {} }
  - { name: last, participant: kinds-shop, action: book, compensation: none }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_that_is_under_way_ends_with_its_parent() {
    let mut site = Site::new(&[CHILD, PARENT], &[]).await;
    site.shop.hold(&["card"]);
    let id = site.start("outer", json!({})).await;
    site.shop.holds(&["card"]).await;
    let left = site.kill(id).await;
    assert_eq!(statuses(&left), ["verified", "pending", "waiting"]);
    let child = site.the("inner").await;
    assert_eq!(statuses(&site.rig.saga(child).await), ["pending"], "the sub-saga is under way");
    // Its work is done while nobody coordinates.
    site.shop.let_go();
    site.shop.holds(&[]).await;
    site.start_again().await;
    site.rig.becomes(id, "COMPLETED").await;
    site.rig.becomes(child, "COMPLETED").await;
    assert_eq!(site.process.kills(), 1);
    site.stands(&["first", "card", "last"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_that_is_being_undone_is_undone_once() {
    let mut site = Site::new(&[CHILD, PARENT], &["book"]).await;
    site.shop.hold(&["undo:card"]);
    let id = site.start("outer", json!({})).await;
    site.shop.holds(&["undo:card"]).await;
    let left = site.kill(id).await;
    assert_eq!(statuses(&left), ["verified", "compensating", "failed"]);
    let child = site.the("inner").await;
    assert_eq!(statuses(&site.rig.saga(child).await), ["compensating"], "the sub-saga is being undone");
    site.shop.let_go();
    site.shop.holds(&[]).await;
    site.start_again().await;
    site.rig.becomes(id, "COMPENSATED").await;
    site.rig.becomes(child, "COMPENSATED").await;
    assert_eq!(site.process.kills(), 1);
    site.stands(&["first", "card", "undo:card", "undo:first"]).await;
}

const LIST: &str = r#"
saga: list
version: 1
defaults: { timeout: 20s }
steps:
  - { name: first, participant: kinds-shop, action: open, compensation: { action: close } }
  - name: reserve
    forEach: { items: "${ input.skus }", maxParallel: 2 }
    participant: kinds-shop
    action: reserve
    input: { sku: "${ item }" }
    compensation: { action: release }
  - { name: last, participant: kinds-shop, action: book, compensation: none }
"#;

const HALF: [&str; 7] = ["verified", "verified", "verified", "pending", "pending", "waiting", "waiting"];

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_half_done_is_done_to_its_end() {
    let mut site = Site::new(&[LIST], &[]).await;
    site.shop.hold(&["reserve[2]", "reserve[3]"]);
    let id = site.start("list", json!({ "skus": ["a", "b", "c", "d", "e"] })).await;
    site.shop.holds(&["reserve[2]", "reserve[3]"]).await;
    site.steps_are(id, &HALF).await;
    let left = site.kill(id).await;
    assert_eq!(statuses(&left), HALF);
    site.start_again().await;
    site.shop.let_go();
    site.rig.becomes(id, "COMPLETED").await;
    assert_eq!(site.process.kills(), 1);
    site.stands(&["first", "reserve[0]", "reserve[1]", "reserve[2]", "reserve[3]", "reserve[4]", "last"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_half_undone_is_undone_to_its_end_in_reverse_order() {
    let mut site = Site::new(&[LIST], &["reserve:e"]).await;
    site.shop.hold(&["undo:reserve[0]"]);
    let id = site.start("list", json!({ "skus": ["a", "b", "c", "d", "e"] })).await;
    site.shop.holds(&["undo:reserve[0]"]).await;
    let others_undone = ["verified", "compensating", "compensated", "compensated", "compensated", "failed", "waiting"];
    site.steps_are(id, &others_undone).await;
    let left = site.kill(id).await;
    assert_eq!(statuses(&left), others_undone);
    site.shop.let_go();
    site.shop.holds(&[]).await;
    site.start_again().await;
    site.rig.becomes(id, "COMPENSATED").await;
    assert_eq!(site.process.kills(), 1);
    let done = ["first", "reserve[0]", "reserve[1]", "reserve[2]", "reserve[3]"];
    let undone: Vec<String> = done.iter().map(|step| format!("undo:{step}")).collect();
    site.stands(&done.into_iter().chain(undone.iter().map(String::as_str)).collect::<Vec<_>>()).await;
    let order = site.shop.order().await;
    let place = |place: &str| order.iter().position(|one| one == place);
    assert!(place("undo:reserve[2]") < place("undo:reserve[0]"), "{order:?}");
    assert!(place("undo:reserve[3]") < place("undo:reserve[1]"), "{order:?}");
    assert_eq!(order.last().map(String::as_str), Some("undo:first"));
}
