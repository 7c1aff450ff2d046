//! One participant that has stopped, or only fails, costs the others nothing; and nothing is lost that was held back.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::broker::in_process::InProcessBroker;
use amends::broker::{Broker, BrokerError, Consumer, Consuming, Published, QueueStatus, Topology};
use amends::coordinator::{Coordinator, CoordinatorOptions, Limits, Operate, OperatorAction, Start, StartOutcome};
use amends::id::SagaId;
use amends::message::{Command, Envelope};
use amends::payload::Payload;
use amends::saga::Phase;
use amends::store::{Page, SagaFilter, Store};
use serde_json::json;
use support::rig::Rig;
use support::scripted::{Scripted, done, refusal, retry};
use support::{eventually, eventually_within};

const WINDOW: u32 = 5;
/// Longer than a command that nobody knows of is held back at first.
const LONG: Duration = Duration::from_secs(120);

/// One step at `participant`, whose attempts time out after `timeout`.
fn one_step(name: &str, participant: &str, timeout: &str) -> String {
    format!(
        "saga: {name}
version: 1
defaults: {{ timeout: {timeout}, retry: {{ maxAttempts: 0, initialInterval: 50ms, maxInterval: 200ms, jitter: none }} }}
steps:
  - {{ name: work, participant: {participant}, action: work, pivot: true, compensation: none }}
"
    )
}

/// A step at `first`, then one at `second`, which may refuse.
fn undoable(name: &str, first: &str, second: &str) -> String {
    format!(
        "saga: {name}
version: 1
timeout: 1h
defaults: {{ timeout: 5m, retry: {{ maxAttempts: 0, initialInterval: 50ms, maxInterval: 200ms, jitter: none }} }}
steps:
  - {{ name: reserve, participant: {first}, action: reserve, compensation: {{ action: release }} }}
  - {{ name: charge, participant: {second}, action: charge, pivot: true, compensation: none }}
"
    )
}

fn limits() -> Limits {
    Limits { windows: BTreeMap::from([("slow".to_owned(), WINDOW)]), ..Limits::default() }
}

async fn launch(store: &Arc<dyn Store>, broker: &Arc<dyn Broker>, limits: Limits) -> Coordinator {
    let options = CoordinatorOptions { limits, ..CoordinatorOptions::default() };
    Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches")
}

struct House {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    coordinator: Coordinator,
}

impl House {
    /// In one process.
    async fn new(limits: Limits) -> Self {
        let store = amends::store::open("memory:").await.expect("the store opens");
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        Self::at(store, broker, limits).await
    }

    async fn at(store: Arc<dyn Store>, broker: Arc<dyn Broker>, limits: Limits) -> Self {
        let coordinator = launch(&store, &broker, limits).await;
        let house = Self { store, broker, coordinator };
        for name in ["slow", "quick"] {
            house.register(&one_step(name, name, "5m")).await;
        }
        house
    }

    async fn register(&self, definition: &str) {
        self.coordinator.register(definition, "test").await.expect("registered");
    }

    async fn start(&self, name: &str, count: usize) -> Vec<SagaId> {
        let one = || Start { saga: name.to_owned(), version: None, input: Payload::trusted("{}"), key: None };
        let outcomes = self.coordinator.start_many((0..count).map(|_| one()).collect()).await;
        let id = |outcome| match outcome {
            StartOutcome::Started { id, .. } | StartOutcome::Exists { id } => id,
        };
        outcomes.into_iter().map(|outcome| id(outcome.expect("the saga starts"))).collect()
    }

    async fn count(&self, name: &str, state: &str) -> usize {
        let counts = self.store.counts().await.expect("counts");
        let of_it = counts.iter().find(|count| count.definition == name && count.state == state);
        of_it.map_or(0, |count| usize::try_from(count.count).expect("not that many"))
    }

    async fn completed(&self, name: &str) -> usize {
        self.count(name, "COMPLETED").await
    }

    async fn all_complete(&self, name: &str, count: usize) {
        eventually_within(LONG, &format!("{count} sagas of {name} are done"), async || {
            (self.completed(name).await == count).then_some(())
        })
        .await;
    }

    async fn depth(&self) -> u32 {
        self.broker.queue("slow.commands").await.expect("an answer").expect("a queue").messages
    }

    /// How many commands of running sagas are held back, as the store says; and that none of them is a second attempt.
    async fn held(&self, name: &str) -> usize {
        let filter = SagaFilter { definition: Some(name.to_owned()), ..SagaFilter::default() };
        let sagas = self.store.sagas(&filter, &Page { after: None, limit: 1_000 }).await.expect("a list");
        let commands = sagas.iter().flat_map(|summary| &summary.saga.steps).filter_map(|step| step.in_flight());
        commands.filter(|(_, command)| matches!(command.phase, Phase::Held(_))).count()
    }

    async fn becomes_full(&self, name: &str, held: usize) {
        eventually("the window is full and the others wait outside", async || {
            (self.depth().await == WINDOW && self.held(name).await == held).then_some(())
        })
        .await;
    }
}

fn keys(commands: &[Command]) -> BTreeSet<&str> {
    commands.iter().map(|command| command.key.as_str()).collect()
}

/// What holds on any store and broker.
async fn a_stopped_participant_has_its_window_and_no_more(house: &House) {
    house.start("slow", 60).await;
    let quick = Scripted::start(&house.broker, "quick", |_| vec![done()]).await;
    for _ in 0..5 {
        house.start("quick", 4).await;
        house.start("slow", 8).await;
        assert!(house.depth().await <= WINDOW);
    }
    house.all_complete("quick", 20).await;
    assert_eq!(quick.log(), ["work/action#1"; 20]);
    house.becomes_full("slow", 95).await;
    assert_eq!(house.completed("slow").await, 0);

    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    house.all_complete("slow", 100).await;
    let seen = slow.seen();
    assert_eq!((seen.len(), keys(&seen).len()), (100, 100), "each was sent once");
    assert!(seen.iter().all(|command| command.attempt == 1), "no attempt was spent on waiting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_for_a_stopped_participant_starves_no_neighbour() {
    let house = House::new(limits()).await;
    a_stopped_participant_has_its_window_and_no_more(&house).await;
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_for_a_stopped_participant_starves_no_neighbour_on_real_servers() {
    let rig = Rig::new(&["slow", "quick"]).await;
    let house = House::at(rig.store.clone(), rig.broker.clone(), limits()).await;
    a_stopped_participant_has_its_window_and_no_more(&house).await;
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_is_told_of() {
    let house = House::new(limits()).await;
    let ids = house.start("slow", 12).await;
    house.becomes_full("slow", 7).await;
    let told = house.coordinator.participants().await.expect("the participants");
    let of_slow = told.iter().find(|participant| participant.name == "slow").expect("it is among them");
    let standing = &of_slow.standing;
    assert!(standing.is_full && of_slow.oldest_unanswered.is_some(), "{standing:?}");
    assert_eq!((standing.held, standing.holds_more, standing.window), (7, false, WINDOW));
    let status = of_slow.status.expect("the broker tells");
    assert_eq!((status.messages, status.consumers), (WINDOW, 0));
    assert!(house.coordinator.metrics().render().contains("amends_commands_held_back_total{participant=\"slow\"}"));

    let definition = house.coordinator.definition(&house.saga(ids[0]).await.definition).await.expect("known");
    let mut waits = Vec::new();
    for id in ids {
        waits.extend(amends::coordinator::view::waiting_for(&definition, &house.saga(id).await));
    }
    let held = waits.iter().filter(|wait| wait.contains("held back: slow takes no more for now")).count();
    assert_eq!(held, 7, "{waits:#?}");
    house.coordinator.stop().await;
}

impl House {
    async fn saga(&self, id: SagaId) -> amends::saga::Saga {
        self.store.saga(id).await.expect("it reads").expect("it is there").saga
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_held_back_spends_no_attempt_and_no_time() {
    let house = House::new(limits()).await;
    // One attempt of half a second: whoever waited for room on that account would be stuck by the end.
    let definition = one_step("brief", "slow", "500ms").replace("maxAttempts: 0", "maxAttempts: 1");
    house.start("slow", WINDOW as usize).await;
    eventually("the window is full", async || (house.depth().await == WINDOW).then_some(())).await;
    house.register(&definition).await;
    let ids = house.start("brief", 4).await;
    house.becomes_full("brief", 4).await;
    // Another saga's attempt times out meanwhile, which shows that time goes by.
    house.register(&one_step("clock", "nobody", "500ms")).await;
    let clock = house.start("clock", 1).await;
    eventually("a time-out has passed three times", async || {
        let saga = house.saga(clock[0]).await;
        saga.steps[0].in_flight().is_some_and(|(_, command)| command.attempt > 3).then_some(())
    })
    .await;
    assert_eq!(house.held("brief").await, 4);
    for id in ids {
        let saga = house.saga(id).await;
        assert!(saga.steps[0].in_flight().is_some_and(|(_, command)| command.attempt == 1), "{:?}", saga.steps);
    }
    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    house.all_complete("brief", 4).await;
    assert!(slow.seen().iter().all(|command| command.attempt == 1));
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_coordinator_held_back_is_sent_by_the_next_one() {
    let rig = Rig::new(&["slow", "quick"]).await;
    let house = House::at(rig.store.clone(), rig.broker.clone(), limits()).await;
    house.start("slow", 40).await;
    house.becomes_full("slow", 35).await;
    house.coordinator.kill();

    let next = launch(&rig.store, &rig.broker, limits()).await;
    let house = House { store: rig.store.clone(), broker: rig.broker.clone(), coordinator: next };
    house.start("slow", 10).await;
    eventually("it has looked at the queue", async || house.coordinator.standing("slow").is_full.then_some(())).await;
    // What the dead one had not heard of from the broker comes again: its confirm was never written down.
    assert!(house.depth().await <= 2 * WINDOW, "{}", house.depth().await);
    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    house.all_complete("slow", 50).await;
    let seen = slow.seen();
    assert_eq!(keys(&seen).len(), 50);
    assert!(seen.iter().all(|command| command.attempt == 1), "no attempt was spent");
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_go_by_the_same_queue() {
    let rig = Rig::new(&["slow", "quick"]).await;
    let house = House::at(rig.store.clone(), rig.broker.clone(), limits()).await;
    let other = launch(&rig.store, &rig.broker, limits()).await;
    house.start("slow", 30).await;
    // What both let out before either has looked at the queue again may exceed the window, by no more than one.
    let settled = async || {
        let (waiting, held) = (house.depth().await, house.held("slow").await);
        (waiting >= WINDOW && waiting as usize + held == 30).then_some(waiting)
    };
    let waiting = eventually("the window is full and the others wait outside", settled).await;
    assert!(waiting <= 2 * WINDOW, "{waiting} in the queue");
    let both = House { store: rig.store.clone(), broker: rig.broker.clone(), coordinator: other };
    both.start("slow", 30).await;
    eventually("the other holds back, too", async || (both.coordinator.standing("slow").held > 0).then_some(())).await;
    assert!(both.depth().await <= 2 * WINDOW);
    house.coordinator.kill();
    let slow = Scripted::start(&both.broker, "slow", |_| vec![done()]).await;
    both.all_complete("slow", 60).await;
    assert_eq!(keys(&slow.seen()).len(), 60);
    both.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_share_a_participant_have_their_weights() {
    let weights = BTreeMap::from([("heavy".to_owned(), 3)]);
    let house = House::new(Limits { weights, ..limits() }).await;
    for name in ["flood", "heavy", "light"] {
        house.register(&one_step(name, "slow", "5m")).await;
    }
    house.start("flood", 200).await;
    house.becomes_full("flood", 195).await;
    house.start("light", 40).await;
    house.start("heavy", 40).await;
    eventually("they wait, too", async || (house.held("light").await + house.held("heavy").await == 80).then_some(()))
        .await;
    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    house.all_complete("heavy", 40).await;
    house.all_complete("light", 40).await;
    // In order of arrival at the queue: after the window that was full, 3 of one to 1 of each of the others.
    let seen = slow.seen();
    let fifty = &seen[WINDOW as usize..WINDOW as usize + 50];
    let of = |name: &str| fifty.iter().filter(|command| command.definition.name == name).count();
    let shares = (of("heavy"), of("light"), of("flood"));
    assert!(
        (28..=32).contains(&shares.0) && (8..=12).contains(&shares.1) && (8..=12).contains(&shares.2),
        "{shares:?}"
    );
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compensations_are_held_back_without_being_lost_and_do_not_wait_for_a_flood() {
    let house = House::new(limits()).await;
    house.register(&undoable("order", "slow", "quick")).await;
    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    let ids = house.start("order", 3).await;
    // Nobody consumes `quick` yet: all three have reserved.
    eventually("they have reserved", async || (slow.seen().len() == 3).then_some(())).await;
    drop(slow);
    house.start("slow", 300).await;
    house.becomes_full("slow", 295).await;
    let _quick = Scripted::start(&house.broker, "quick", |_| vec![refusal("declined")]).await;
    eventually("what undoes them is held back", async || (house.held("order").await == 3).then_some(())).await;
    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    eventually_within(LONG, "they are undone", async || {
        (house.count("order", "COMPENSATED").await == ids.len()).then_some(())
    })
    .await;
    let seen = slow.seen();
    let last = seen.iter().rposition(|command| command.is_compensation).expect("there are some");
    assert!(last < 50, "they came at place {last} of 300");
    house.all_complete("slow", 300).await;
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_is_cancelled_while_its_command_is_held_back_is_undone_all_the_same() {
    let house = House::new(limits()).await;
    house.register(&undoable("order", "slow", "quick")).await;
    house.start("slow", WINDOW as usize).await;
    eventually("the window is full", async || (house.depth().await == WINDOW).then_some(())).await;
    let id = house.start("order", 1).await[0];
    house.becomes_full("order", 1).await;
    let cancel = Operate {
        id,
        action: OperatorAction::Cancel,
        actor: "ann".to_owned(),
        reason: "not wanted".to_owned(),
        expected_revision: None,
    };
    house.coordinator.operate(cancel).await.expect("it is cancelled");
    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    eventually("it is undone", async || (house.count("order", "COMPENSATED").await == 1).then_some(())).await;
    let undone: Vec<String> = slow.seen().iter().filter(|of| of.saga_id == id).map(|of| of.action.clone()).collect();
    assert_eq!(undone, ["release"], "nobody can say that it was never sent, so it is undone; it is not sent any more");
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_opens_for_a_participant_that_only_fails_and_closes_by_itself() {
    let house = House::new(limits()).await;
    let is_well = Arc::new(AtomicBool::new(false));
    let heard = is_well.clone();
    let quick = Scripted::start(&house.broker, "quick", move |_| {
        vec![if heard.load(Ordering::SeqCst) { done() } else { retry("database-away") }]
    })
    .await;
    let ids = house.start("quick", 10).await;
    eventually_within(LONG, "its circuit opens", async || house.coordinator.standing("quick").open_since).await;
    let standing = house.coordinator.standing("quick");
    assert!(standing.failure_rate > 0.3, "{standing:?}");
    let told = house.coordinator.participants().await.expect("the participants");
    assert!(told.iter().any(|participant| participant.name == "quick" && participant.standing.open_since.is_some()));
    assert!(house.coordinator.metrics().render().contains("amends_participant_circuit_open{participant=\"quick\"} 1"));
    eventually("they are held back", async || (house.held("quick").await >= 9).then_some(())).await;

    let before = quick.seen().len();
    eventually_within(LONG, "two probes", async || (quick.seen().len() >= before + 2).then_some(())).await;
    assert!(house.held("quick").await >= 8, "the others wait");
    assert!(house.coordinator.standing("quick").open_since.is_some(), "a probe that fails closes nothing");
    is_well.store(true, Ordering::SeqCst);
    house.all_complete("quick", ids.len()).await;
    assert_eq!(house.coordinator.standing("quick").open_since, None);
    assert!(house.coordinator.metrics().render().contains("amends_participant_circuit_open{participant=\"quick\"} 0"));
    house.coordinator.stop().await;
}

/// A broker that takes no message until it is told to.
struct Full {
    inner: InProcessBroker,
    takes: tokio::sync::watch::Receiver<bool>,
}

#[async_trait::async_trait]
impl Broker for Full {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.inner.declare(topology).await
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let _ = self.takes.clone().wait_for(|takes| *takes).await;
        self.inner.publish(messages).await
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        self.inner.consume_by(queue, how).await
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        self.inner.queue(queue).await
    }

    fn is_volatile(&self) -> bool {
        false
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        self.inner.describe().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_broker_slows_intake_with_429_and_requests_over_amqp_wait_in_their_queue() {
    let (take, takes) = tokio::sync::watch::channel(false);
    let inner = InProcessBroker::new();
    let store = amends::store::open("memory:").await.expect("the store opens");
    let broker: Arc<dyn Broker> = Arc::new(Full { inner: inner.clone(), takes });
    let house = House::at(store.clone(), broker.clone(), Limits::default()).await;
    let router = amends::api::router(house.coordinator.clone(), amends::api::AuthConfig::default());
    let coordinator = house.coordinator.clone();
    let web = support::http::House { store, broker, coordinator, router };

    let body = json!({ "saga": "quick", "input": {} });
    let mut taken = 0;
    let refused = loop {
        let answer = web.post("/v1/sagas", &body).await;
        if answer.status != 201 {
            break answer;
        }
        taken += 1;
        assert!(taken < 8_192, "nothing bounds what waits for the broker");
    };
    assert_eq!((refused.status.as_u16(), &*refused.code()), (429, "BUSY"), "after {taken}");
    assert!(refused.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()), "{:?}", refused.headers);
    let batch = web.post("/v1/sagas/batch", &json!({ "sagas": [body, body] })).await;
    assert!(batch.text.contains("BUSY") && !batch.text.contains("201"), "{}: {}", batch.status, batch.text);

    // A request over AMQP is neither lost nor refused.
    let request = Envelope {
        exchange: "amends.requests".to_owned(),
        routing_key: "start".to_owned(),
        mandatory: true,
        properties: Default::default(),
        body: body.to_string().into_bytes(),
    };
    assert_eq!(inner.publish(vec![request]).await, [Published::Confirmed]);
    let quick = Scripted::start(&(Arc::new(inner) as Arc<dyn Broker>), "quick", |_| vec![done()]).await;
    take.send(true).expect("the broker lives");
    house.all_complete("quick", taken + 1).await;
    assert_eq!(keys(&quick.seen()).len(), taken + 1);
    let answer = web.post("/v1/sagas", &body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_an_open_circuit_over_http_and_on_the_command_line() {
    let house = House::new(limits()).await;
    let _quick = Scripted::start(&house.broker, "quick", |_| vec![retry("database-away")]).await;
    let id = house.start("quick", 10).await[0];
    let router = amends::api::router(house.coordinator.clone(), amends::api::AuthConfig::default());
    let console = amends::console::router(house.coordinator.clone(), Default::default(), Default::default());
    let (store, broker, coordinator) = (house.store.clone(), house.broker.clone(), house.coordinator.clone());
    let web = support::http::House { store, broker, coordinator, router: router.merge(console) };
    eventually_within(LONG, "its circuit opens", async || house.coordinator.standing("quick").open_since).await;

    let told = web.get("/v1/participants").await.json();
    let of = |name: &str| told["items"].as_array().and_then(|items| items.iter().find(|item| item["name"] == name));
    assert_eq!(
        (&of("quick").expect("listed")["circuit"], &of("slow").expect("listed")["circuit"]),
        (&json!("open"), &json!("closed"))
    );
    eventually("the saga says so", async || {
        let saga = web.get(&format!("/v1/sagas/{id}")).await.json();
        saga["waitingFor"]
            .as_str()
            .is_some_and(|text| text.contains("`quick` only fails, so that its circuit is open"))
            .then_some(())
    })
    .await;
    assert!(web.get("/console/").await.text.contains("only fails: circuit open"));
    let (_, served) = web.serve().await;
    let url = served.url.clone();
    let listed = tokio::task::spawn_blocking(move || {
        assert_cmd::Command::cargo_bin("amends").expect("the binary").args(["participants", "--url", &url]).output()
    });
    let listed = listed.await.expect("it runs").expect("it runs");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("quick")).expect("a line").to_owned();
    assert!(listed.status.success() && line.contains("open"), "{text}");
    house.coordinator.stop().await;
}
