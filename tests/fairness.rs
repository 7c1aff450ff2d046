//! One participant that has stopped, or only fails, costs the others nothing; and nothing is lost that was held back.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::coordinator::{Coordinator, CoordinatorOptions, Start};
use amends::payload::Payload;
use amends::store::{Page, SagaFilter, Store};
use support::scripted::{Scripted, done, retry};
use support::{eventually, eventually_within};

const WINDOW: u32 = 5;

fn definition(name: &str) -> String {
    format!(
        "saga: {name}
version: 1
defaults: {{ timeout: 5m, retry: {{ maxAttempts: 0, initialInterval: 50ms, maxInterval: 200ms, jitter: none }} }}
steps:
  - {{ name: work, participant: {name}, action: work, pivot: true, compensation: none }}
"
    )
}

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
        let windows = BTreeMap::from([("slow".to_owned(), WINDOW)]);
        let options = CoordinatorOptions { windows, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches");
        for name in ["slow", "quick"] {
            coordinator.register(&definition(name), "test").await.expect("registered");
        }
        Self { store, broker, coordinator, _folder: folder }
    }

    async fn start(&self, name: &str, count: usize) {
        let one = || Start { saga: name.to_owned(), version: None, input: Payload::trusted("{}"), key: None };
        for outcome in self.coordinator.start_many((0..count).map(|_| one()).collect()).await {
            outcome.expect("the saga starts");
        }
    }

    async fn completed(&self, name: &str) -> usize {
        let filter = SagaFilter {
            definition: Some(name.to_owned()),
            states: vec!["COMPLETED".to_owned()],
            ..SagaFilter::default()
        };
        self.store.sagas(&filter, &Page { after: None, limit: 1_000 }).await.expect("a list").len()
    }

    async fn depth(&self) -> u32 {
        self.broker.queue("slow.commands").await.expect("an answer").expect("a queue").messages
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_has_stopped_is_sent_its_window_and_its_neighbour_goes_on() {
    let house = House::new().await;
    house.start("slow", 60).await;
    let quick = Scripted::start(&house.broker, "quick", |_| vec![done()]).await;
    for _ in 0..5 {
        house.start("quick", 4).await;
        assert!(house.depth().await <= WINDOW);
    }
    eventually("the neighbour's sagas end", async || (house.completed("quick").await == 20).then_some(())).await;
    assert_eq!(quick.log(), ["work/action#1"; 20]);
    // Those that were held back have had their turn by now, and were held back again.
    eventually("a second turn", async || (house.coordinator.standing("slow").held > 60).then_some(())).await;
    assert_eq!((house.depth().await, house.completed("slow").await), (WINDOW, 0));

    let told = house.coordinator.participants().await.expect("the participants");
    let of_slow = told.iter().find(|participant| participant.name == "slow").expect("it is among them");
    assert!(of_slow.standing.is_full && of_slow.oldest_unanswered.is_some());
    let status = of_slow.status.expect("the broker tells");
    assert_eq!((status.messages, status.consumers, of_slow.standing.window), (WINDOW, 0, WINDOW));
    assert!(house.coordinator.metrics().render().contains("amends_commands_held_back_total{participant=\"slow\"}"));

    let slow = Scripted::start(&house.broker, "slow", |_| vec![done()]).await;
    eventually_within(Duration::from_secs(90), "all that was held back is done", async || {
        (house.completed("slow").await == 60).then_some(())
    })
    .await;
    assert_eq!(slow.log(), ["work/action#1"; 60], "each was sent once, and no attempt was spent on waiting");
    house.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_only_fails_is_sent_probes_until_it_answers() {
    let house = House::new().await;
    let is_well = Arc::new(AtomicBool::new(false));
    let heard = is_well.clone();
    let quick = Scripted::start(&house.broker, "quick", move |_| {
        vec![if heard.load(Ordering::SeqCst) { done() } else { retry("database-away") }]
    })
    .await;
    house.start("quick", 10).await;
    eventually_within(Duration::from_secs(60), "its circuit opens", async || {
        house.coordinator.standing("quick").open_since
    })
    .await;
    assert!(house.coordinator.standing("quick").failure_rate > 0.5);
    let before = quick.seen().len();
    assert!(house.coordinator.metrics().render().contains("amends_participant_circuit_open{participant=\"quick\"} 1"));
    // By then each of the ten would have been tried several times.
    eventually("they are held back", async || (house.coordinator.standing("quick").held >= 10).then_some(())).await;
    assert!(quick.seen().len() <= before + 10, "{} commands, then {}", before, quick.seen().len());

    is_well.store(true, Ordering::SeqCst);
    eventually_within(Duration::from_secs(90), "all are done", async || {
        (house.completed("quick").await == 10).then_some(())
    })
    .await;
    assert_eq!(house.coordinator.standing("quick").open_since, None);
    house.coordinator.stop().await;
}
