//! Versions from end to end: over HTTP, through a real coordinator, with participants that the test scripts.

mod support;

use std::sync::Arc;

use amends::api::AuthConfig;
use amends::clock::Clock;
use amends::coordinator::{Coordinator, CoordinatorError, CoordinatorOptions, Deprecate, Migrate, Start, StartOutcome};
use amends::id::DefinitionRef;
use amends::payload::Payload;
use amends::saga::SagaState;
use amends::store::memory::MemoryStore;
use amends::store::{Page, Store};
use rstest::rstest;
use serde_json::{Value, json};
use support::http::{Answer, House};
use support::scripted::{Scripted, done, refusal, success};
use support::{eventually, fresh_database};

/// `place` with one more field for each of its parts.
fn place(version: u32, pay: &str, more: &str) -> String {
    format!(
        "saga: place
version: {version}
key: ${{ input.order }}
defaults:
  timeout: 20s
  retry: {{ maxAttempts: 3, initialInterval: 10ms, maxInterval: 20ms, jitter: none }}
steps:
  - {{ name: create, participant: orders, action: create, compensation: {{ action: cancel }} }}
  - {{ name: pay, participant: payments, action: {pay}, compensation: {{ action: refund }} }}
  - {{ name: pick, participant: warehouse, action: pick, compensation: {{ action: unpick }} }}
{more}
  - {{ name: confirm, participant: orders, action: confirm, pivot: true, compensation: none }}
"
    )
}

const GIFT: &str = "  - { name: gift, participant: warehouse, action: wrap, \
                    input: { receipt: \"${ steps['pay'].output.receipt }\" }, compensation: none }";

#[derive(Clone, Copy, Debug)]
enum On {
    Memory,
    Sqlite,
    Postgres,
}

/// A house on a store of its own, with the first version registered.
async fn house(on: On) -> (House, Option<tempfile::TempDir>) {
    let mut folder = None;
    let store: Arc<dyn Store> = match on {
        On::Memory => Arc::new(MemoryStore::new(Clock::System)),
        On::Sqlite => {
            let kept = folder.insert(tempfile::tempdir().expect("a temporary folder"));
            amends::store::open(&format!("sqlite://{}/amends.db", kept.path().display())).await.expect("it opens")
        }
        On::Postgres => amends::store::open(&fresh_database().await).await.expect("it opens"),
    };
    store.migrate().await.expect("the schema is made");
    let house = House::on(store, AuthConfig::default()).await;
    house.coordinator.register(&place(1, "pay", ""), "test").await.expect("it is registered");
    (house, folder)
}

async fn start(house: &House, order: &str, version: Option<u32>) -> Answer {
    let mut body = json!({ "saga": "place", "input": { "order": order } });
    if let Some(version) = version {
        body["version"] = version.into();
    }
    house.post("/v1/sagas", &body).await
}

async fn started(house: &House, order: &str) -> String {
    let answer = start(house, order, None).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn becomes(house: &House, id: &str, what: impl Fn(&Value) -> bool) -> Value {
    eventually("the saga comes that far", async || {
        let saga = house.get(&format!("/v1/sagas/{id}")).await.json();
        what(&saga).then_some(saga)
    })
    .await
}

fn why() -> Value {
    json!({ "reason": "because the test says so" })
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_deprecated_version_starts_nothing_and_what_runs_goes_on(
    #[values(On::Memory, On::Sqlite, On::Postgres)] on: On,
) {
    let (house, _folder) = house(on).await;
    let running = started(&house, "o1").await;
    house.coordinator.register(&place(2, "charge", ""), "test").await.expect("it is registered");
    let second = start(&house, "o2", None).await.json();
    assert_eq!(second["version"], 2, "the newest, unless told");

    let answer = house.post("/v1/definitions/place/2/deprecate", &json!({ "reason": "charges twice" })).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["deprecated"]["reason"]), (200, &json!("charges twice")));
    assert_eq!(start(&house, "o3", None).await.json()["version"], 1, "the newest that is not deprecated");
    let refused = start(&house, "o4", Some(2)).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "VERSION_DEPRECATED"));
    assert!(refused.text.contains("charges twice"), "{}", refused.text);
    let again = start(&house, "o2", Some(2)).await;
    assert_eq!((again.status.as_u16(), &again.json()["id"]), (200, &second["id"]), "its key has a saga");

    house.post("/v1/definitions/place/1/deprecate", &why()).await;
    let refused = start(&house, "o5", None).await;
    assert_eq!(refused.code(), "VERSION_DEPRECATED", "nothing is left to start");
    assert_eq!(start(&house, "o2", None).await.json()["id"], second["id"]);
    let one = json!({ "sagas": [{ "saga": "place", "input": { "order": "o6" } }] });
    let batch = house.post("/v1/sagas/batch", &one).await;
    assert_eq!(batch.json()["items"][0]["problem"]["code"], "VERSION_DEPRECATED");

    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![done()]).await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    for id in [running.as_str(), second["id"].as_str().expect("an id")] {
        becomes(&house, id, |saga| saga["state"] == "COMPLETED").await;
    }

    let answer = house.post("/v1/definitions/place/2/undeprecate", &why()).await;
    assert_eq!(answer.json().get("deprecated"), None, "{}", answer.text);
    assert_eq!(start(&house, "o7", None).await.json()["version"], 2);
    let audit = house.store.audit(None, &Page { after: None, limit: 9 }).await.expect("the audit is read");
    let told: Vec<(&str, &str)> = audit.iter().map(|row| (row.action.as_str(), row.reason.as_str())).collect();
    let because = "because the test says so";
    assert_eq!(told[..3], [("undeprecate", because), ("deprecate", because), ("deprecate", "charges twice")]);
    assert_eq!(audit[0].detail.value()["definition"], json!({ "name": "place", "version": 2 }));
}

#[tokio::test]
async fn deprecating_needs_a_reason_and_a_version_that_is_there() {
    let (house, _folder) = house(On::Memory).await;
    let refused = house.post("/v1/definitions/place/1/deprecate", &json!({ "reason": " " })).await;
    assert_eq!(refused.code(), "REASON_REQUIRED");
    assert_eq!(house.post("/v1/definitions/place/7/deprecate", &why()).await.code(), "VERSION_UNKNOWN");
    assert_eq!(house.post("/v1/definitions/plaice/1/deprecate", &why()).await.code(), "DEFINITION_UNKNOWN");
    house.post("/v1/definitions/place/1/deprecate", &why()).await;
    let again = house.post("/v1/definitions/place/1/deprecate", &json!({ "reason": "once more" })).await;
    assert_eq!(again.json()["deprecated"]["reason"], "because the test says so", "it was deprecated already");
    let versions = house.get("/v1/definitions/place").await.json();
    assert_eq!((&versions["newest"], &versions["items"][0]["deprecated"]["by"]), (&json!(1), &json!("anonymous")));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_running_saga_is_moved_and_ends_in_its_new_version(#[values(On::Memory, On::Sqlite, On::Postgres)] on: On) {
    let (house, _folder) = house(on).await;
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({ "receipt": "r1" }))]).await;
    let id = started(&house, "o1").await;
    // Nobody picks yet.
    becomes(&house, &id, |saga| saga["steps"][2]["status"] == "pending").await;
    house.coordinator.register(&place(2, "pay", GIFT), "test").await.expect("it is registered");
    let plan = house.get(&format!("/v1/sagas/{id}/migration?to=2")).await.json();
    assert_eq!((&plan["compatible"], &plan["from"]), (&json!(true), &json!(1)));
    let body = json!({ "to": 2, "reason": "wrap them" });
    let moved = house.post(&format!("/v1/sagas/{id}/migrate"), &body).await;
    assert_eq!((moved.status.as_u16(), &moved.json()["version"]), (200, &json!(2)), "{}", moved.text);
    assert_eq!(moved.json()["steps"].as_array().map(Vec::len), Some(5));

    let warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    let ended = becomes(&house, &id, |saga| saga["state"] == "COMPLETED").await;
    assert_eq!(ended["steps"][1]["output"], json!({ "receipt": "r1" }));
    assert_eq!(warehouse.log(), ["pick/action#1", "gift/action#1"]);
    assert_eq!(warehouse.seen()[1].body.value(), &json!({ "receipt": "r1" }), "read although version 1 did not");

    let history = house.get(&format!("/v1/sagas/{id}/history")).await.json();
    let items = history["items"].as_array().expect("items");
    let told = items.iter().find(|item| item["kind"] == "migrated").expect("the move is told");
    assert_eq!(told["text"], "anonymous moves the saga from version 1 to version 2: wrap them");
    assert_eq!(items.last().map(|item| item["kind"].clone()), Some(json!("completed")), "{history:#}");
    assert!(items.iter().any(|item| item["text"] == "`gift` is decided as command 4, for warehouse"), "{history:#}");
    let again = house.post(&format!("/v1/sagas/{id}/migrate"), &body).await;
    assert_eq!(again.code(), "MIGRATION_REFUSED", "what has ended is final");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_saga_is_undone_by_its_new_version_s_order(#[values(On::Sqlite, On::Postgres)] on: On) {
    let (house, _folder) = house(on).await;
    let orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({ "receipt": "r1" }))]).await;
    let id = started(&house, "o1").await;
    becomes(&house, &id, |saga| saga["steps"][2]["status"] == "pending").await;
    // A step ahead of all others that nothing waits for yet moves every place by one.
    let second = place(2, "pay", GIFT).replace(
        "steps:\n",
        "steps:\n  - { name: note, participant: notes, action: note, after: [pick], compensation: none }\n",
    );
    let second = second.replace("name: create,", "name: create, after: [],");
    let second = second.replace("name: confirm,", "name: confirm, after: [note, gift],");
    house.coordinator.register(&second, "test").await.expect("it is registered");
    let moved = house.post(&format!("/v1/sagas/{id}/migrate"), &json!({ "to": 2, "reason": "notes" })).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![refusal("out-of-stock")]).await;
    let ended = becomes(&house, &id, |saga| saga["state"] == "COMPENSATED").await;
    let statuses: Vec<&str> =
        ended["steps"].as_array().expect("steps").iter().filter_map(|step| step["status"].as_str()).collect();
    assert_eq!(statuses, ["waiting", "compensated", "compensated", "failed", "waiting", "waiting"]);
    assert_eq!(payments.log(), ["pay/action#1", "pay/compensation#1"]);
    assert_eq!(orders.log(), ["create/action#1", "create/compensation#1"]);
    assert_eq!(ended["steps"][2]["output"], json!({ "receipt": "r1" }), "under its new place");
}

#[tokio::test]
async fn a_refusal_tells_every_reason_and_changes_nothing() {
    let (house, _folder) = house(On::Memory).await;
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let id = started(&house, "o1").await;
    let before = becomes(&house, &id, |saga| saga["steps"][1]["status"] == "pending").await;
    let second = place(2, "charge", "").replace("action: cancel", "action: drop");
    house.coordinator.register(&second, "test").await.expect("it is registered");
    let refused = house.post(&format!("/v1/sagas/{id}/migrate"), &json!({ "to": 2, "reason": "try" })).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "MIGRATION_REFUSED"));
    let errors = refused.json()["errors"].clone();
    assert_eq!(errors.as_array().map(Vec::len), Some(2), "{errors:#}");
    assert_eq!(errors[0]["code"], "STEP_CHANGED");
    assert_eq!(errors[1]["detail"], "`pay` was sent and its action changes from \"pay\" to \"charge\"",);
    let after = house.get(&format!("/v1/sagas/{id}")).await.json();
    assert_eq!((&after["version"], &after["state"]), (&before["version"], &before["state"]));
    let audit = house.store.audit(Some(id.parse().expect("an id")), &Page { after: None, limit: 9 }).await;
    assert_eq!(audit.expect("the audit is read"), [], "what was refused leaves no row");

    let stale =
        support::http::post(&format!("/v1/sagas/{id}/migrate"), json!({ "to": 1, "reason": "try" }).to_string());
    let (mut parts, body) = stale.into_parts();
    parts.headers.insert("if-match", "\"999\"".parse().expect("a header"));
    let moved_on = house.ask(axum::http::Request::from_parts(parts, body)).await;
    assert_eq!(moved_on.code(), "SAGA_MOVED");
    for (path, code) in [
        (format!("/v1/sagas/{id}/migration?to=9"), "VERSION_UNKNOWN"),
        (format!("/v1/sagas/{id}/migration?to=two"), "VERSION_INVALID"),
        (format!("/v1/sagas/{id}/migration"), "VERSION_INVALID"),
        ("/v1/definitions/place/9/migration?to=2".to_owned(), "VERSION_UNKNOWN"),
    ] {
        assert_eq!(house.get(&path).await.code(), code, "{path}");
    }
    house.post("/v1/definitions/place/2/deprecate", &why()).await;
    assert_eq!(house.get(&format!("/v1/sagas/{id}/migration?to=2")).await.code(), "VERSION_DEPRECATED");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_tells_of_every_saga_in_flight_page_by_page(#[values(On::Memory, On::Postgres)] on: On) {
    let (house, _folder) = house(on).await;
    for order in 0..5 {
        started(&house, &format!("o{order}")).await;
    }
    house.coordinator.register(&place(2, "charge", ""), "test").await.expect("it is registered");
    started(&house, "another-version").await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for _ in 0..9 {
        let page = house.get(&format!("/v1/definitions/place/1/migration?to=2&limit=2{cursor}")).await.json();
        seen.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5, "{seen:#?}");
    assert!(seen.iter().all(|item| item["compatible"] == true && item["state"] == "RUNNING"), "{seen:#?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn advice_comes_from_what_was_recorded(#[values(On::Memory, On::Sqlite, On::Postgres)] on: On) {
    let (house, _folder) = house(on).await;
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![done()]).await;
    let is_out = |input: &Value| input["order"].as_str().is_some_and(|order| order.ends_with('0'));
    let _warehouse = Scripted::start(&house.broker, "warehouse", move |command| {
        let is_refused = command.action == "pick" && !command.is_compensation && is_out(command.body.value());
        vec![if is_refused { refusal("out-of-stock") } else { done() }]
    })
    .await;
    let thin = house.get("/v1/definitions/place/advice").await.json();
    assert_eq!((&thin["sagas"], &thin["moves"]), (&json!(0), &json!([])));
    assert_eq!(thin["silent"][0], "the order: 0 sagas have ended, and 50 are needed");

    // One in ten is out of stock.
    let starts: Vec<Value> =
        (0..300).map(|n| json!({ "saga": "place", "input": { "order": format!("o{n}") } })).collect();
    house.post("/v1/sagas/batch", &json!({ "sagas": starts })).await;
    let advice = eventually("all of them have ended", async || {
        let advice = house.get("/v1/definitions/place/advice?since=1h").await.json();
        (advice["sagas"] == 300).then_some(advice)
    })
    .await;
    let moves = advice["moves"].as_array().expect("moves");
    assert_eq!(moves.len(), 1, "{advice:#}");
    let text = "move `pick` before `create`: 30 of 300 sagas would have compensated fewer steps, 60 in all";
    assert_eq!(moves[0]["text"], text);
    assert_eq!(advice["order"], json!(["pick", "create", "pay"]));
    let timeouts = advice["timeouts"].as_array().expect("time-outs");
    assert!(timeouts.iter().all(|found| found["fit"] == "loose"), "{advice:#}");
    assert_eq!(house.get("/v1/definitions/place/advice?version=7").await.code(), "VERSION_UNKNOWN");
    assert_eq!(house.get("/v1/definitions/place/advice?version=x").await.code(), "VERSION_INVALID");
}

#[tokio::test]
async fn the_client_deprecates_plans_moves_and_takes_advice() {
    let (house, _folder) = house(On::Memory).await;
    let (client, _served) = house.serve().await;
    let id = started(&house, "o1").await;
    house.coordinator.register(&place(2, "pay", GIFT), "test").await.expect("it is registered");
    assert!(client.migration(&id, 2).await.expect("a plan").compatible);
    assert_eq!(client.migrate(&id, 2, "wrap them").await.expect("it is moved").version, 2);
    let refused = client.migrate(&id, 2, "again").await.expect_err("it is there already");
    assert_eq!(refused.code(), Some("MIGRATION_REFUSED"));
    let view = client.deprecate("place", 1, true, "old").await.expect("it is deprecated");
    assert_eq!(view.deprecated.map(|deprecated| deprecated.reason).as_deref(), Some("old"));
    let refused = client.migration(&id, 1).await.expect_err("nothing is moved there");
    assert_eq!(refused.code(), Some("VERSION_DEPRECATED"));
    assert_eq!(client.deprecate("place", 1, false, "not so old").await.expect("undone").deprecated, None);
    assert_eq!(client.advice("place", None).await.expect("advice").version, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_and_rabbitmq_a_moved_saga_survives_the_coordinator_that_moved_it() {
    let (postgres, rabbit) = support::servers::both().await;
    let store = amends::store::open(&postgres.url()).await.expect("it opens");
    store.migrate().await.expect("the schema is made");
    let broker = amends::broker::open(&rabbit.url()).await.expect("the broker is reached");
    let launch = async || {
        let store = amends::store::open(&postgres.url()).await.expect("it opens");
        let broker = amends::broker::open(&rabbit.url()).await.expect("the broker is reached");
        Coordinator::launch(store, broker, CoordinatorOptions::default()).await.expect("it launches")
    };
    let first = launch().await;
    first.register(&place(1, "pay", ""), "test").await.expect("it is registered");
    let _orders = Scripted::start(&broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&broker, "payments", |_| vec![success(json!({ "receipt": "r1" }))]).await;
    let start = |order: &str| Start {
        saga: "place".to_owned(),
        version: None,
        input: Payload::from(json!({ "order": order })),
        key: None,
    };
    let Ok(StartOutcome::Started { id, .. }) = first.start(start("o1")).await else { panic!("it starts") };
    let saga = async || store.saga(id).await.expect("a read").expect("it is there").saga;
    eventually("the warehouse is asked", async || (saga().await.steps[2].in_flight().is_some()).then_some(())).await;
    first.register(&place(2, "pay", GIFT), "test").await.expect("it is registered");
    let request =
        |to| Migrate { id, to, actor: "anna".to_owned(), reason: "wrap them".to_owned(), expected_revision: None };
    let moved = first.migrate(request(2)).await.expect("it is moved");
    assert_eq!((moved.definition.version, moved.reads_outputs), (2, true));
    first.kill();
    // Another one knows neither the saga nor, so far, its new version.
    let second = launch().await;
    let reference = DefinitionRef { name: "place".to_owned(), version: 1 };
    let (actor, reason) = ("anna".to_owned(), "old".to_owned());
    let deprecated = second.deprecate(Deprecate { reference, is_deprecated: true, actor, reason }).await;
    assert!(deprecated.expect("it is deprecated"));
    let warehouse = Scripted::start(&broker, "warehouse", |_| vec![done()]).await;
    let ended = eventually("it completes", async || {
        let saga = saga().await;
        saga.state.is_terminal().then_some(saga)
    })
    .await;
    assert_eq!(ended.state, SagaState::Completed);
    let gift = warehouse.seen().into_iter().find(|command| command.step == "gift").expect("it was wrapped");
    assert_eq!((gift.definition.version, gift.body.value()), (2, &json!({ "receipt": "r1" })));
    let refused = second.start(Start { version: Some(1), ..start("o2") }).await;
    assert!(matches!(refused, Err(CoordinatorError::VersionDeprecated { .. })), "{refused:?}");
    second.stop().await;
}
