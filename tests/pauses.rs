//! A participant, or one action of it, is paused by an operator: its commands wait in the store, and nobody else's.

mod support;

use std::collections::BTreeSet;

use amends::coordinator::{Coordinator, Operate, OperatorAction};
use amends::id::SagaId;
use amends::saga::Phase;
use amends::store::Page;
use amends::store::pauses::PauseChange;
use serde_json::{Value, json};
use support::eventually;
use support::http::House;
use support::rig::{Rig, start};
use support::scripted::{Scripted, done, refusal, success};

const TWO: &str = "
saga: two
version: 1
defaults: { timeout: 5m }
steps:
  - { name: first, participant: quick, action: do, compensation: { action: undo } }
  - { name: second, participant: slow, action: do, pivot: true, compensation: none }
";

fn because(reason: &str) -> Value {
    json!({ "reason": reason })
}

async fn saga(house: &House, id: &str) -> Value {
    house.get(&format!("/v1/sagas/{id}")).await.json()
}

async fn started(house: &House, order: &str) -> String {
    let body = json!({ "saga": "place", "input": { "order": order, "total": 1 } });
    house.post("/v1/sagas", &body).await.json()["id"].as_str().expect("an id").to_owned()
}

async fn becomes(house: &House, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), async || (saga(house, id).await["state"] == state).then_some(())).await;
}

#[tokio::test]
async fn what_is_paused_waits_says_why_spends_no_attempt_and_goes_on_when_resumed() {
    let house = House::with_place().await;
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![success(json!({ "receipt": "r1" }))]).await;
    let warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;

    let dry = house.post("/v1/participants/warehouse/pause?dryRun=true", &json!({})).await;
    assert_eq!((dry.status.as_u16(), &dry.json()["paused"]), (200, &json!(true)), "{}", dry.text);
    assert_eq!(house.get("/v1/participants").await.json()["items"][2]["pauses"], json!([]), "nothing was done");
    let answer = house.post("/v1/participants/warehouse/pause", &because("stocktaking")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["pause"]["reason"]), (200, &json!("stocktaking")));

    let id = started(&house, "o1").await;
    let waits = eventually("`pick` is held back", async || {
        let waits = saga(&house, &id).await["waitingFor"].as_str()?.to_owned();
        waits.contains("`pick`, which is held back").then_some(waits)
    })
    .await;
    let wanted = "held back: participant `warehouse` is paused by anonymous since ";
    assert!(waits.contains(wanted) && waits.contains(": stocktaking"), "{waits}");
    assert!(house.get("/v1/sagas").await.json()["items"][0]["waitingFor"].as_str().expect("text").contains(wanted));
    let listed = house.get("/v1/participants").await.json()["items"][2].clone();
    assert_eq!((&listed["name"], &listed["pauses"][0]["by"]), (&json!("warehouse"), &json!("anonymous")));
    assert!(warehouse.seen().is_empty());

    let again = house.post("/v1/participants/warehouse/pause", &because("me too")).await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (409, "PAUSE_CONFLICT"), "{}", again.text);
    let since = listed["pauses"][0]["since"].clone();
    let other = json!({ "reason": "x", "since": "2020-01-01T00:00:00Z" });
    assert_eq!(house.post("/v1/participants/warehouse/resume", &other).await.code(), "PAUSE_CONFLICT");
    let resumed = house.post("/v1/participants/warehouse/resume", &json!({ "reason": "done", "since": since })).await;
    assert_eq!((resumed.status.as_u16(), &resumed.json()["paused"]), (200, &json!(false)), "{}", resumed.text);
    becomes(&house, &id, "COMPLETED").await;
    assert_eq!(warehouse.log(), ["pick/action#1"], "no attempt was spent");

    let rows = house.store.audit(None, &Page { after: None, limit: 10 }).await.expect("the audit log");
    let told: Vec<_> = rows.iter().take(2).map(|row| (row.action.as_str(), row.reason.as_str())).collect();
    assert_eq!(told, [("participant-resume", "done"), ("participant-pause", "stocktaking")]);
}

#[tokio::test]
async fn an_action_is_paused_alone() {
    let house = House::with_place().await;
    let orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![refusal("card-declined")]).await;
    let pause = json!({ "reason": "x", "action": "cancel" });
    assert_eq!(house.post("/v1/participants/orders/pause", &pause).await.status, 200);
    let id = started(&house, "o1").await;
    eventually("the compensation is held back", async || {
        let waits = saga(&house, &id).await["waitingFor"].as_str()?.to_owned();
        waits.contains("action `orders.cancel` is paused by anonymous").then_some(())
    })
    .await;
    assert_eq!(orders.log(), ["create/action#1"]);
    assert_eq!(house.post("/v1/participants/orders/resume", &pause).await.status, 200);
    becomes(&house, &id, "COMPENSATED").await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_what_there_is() {
    let house = House::with_place().await;
    let unknown = house.post("/v1/participants/warehuose/pause", &because("x")).await;
    assert_eq!((unknown.status.as_u16(), unknown.code().as_str()), (404, "PARTICIPANT_UNKNOWN"));
    assert_eq!(unknown.json()["suggestion"], "warehouse");
    let itself = house.post("/v1/participants/amends/pause", &because("x")).await;
    assert_eq!(itself.code(), "PARTICIPANT_UNKNOWN", "the coordinator itself is none");
    let action = house.post("/v1/participants/orders/pause", &json!({ "reason": "x", "action": "crate" })).await;
    assert_eq!((action.status.as_u16(), action.code().as_str()), (422, "ACTION_UNKNOWN"));
    assert_eq!(action.json()["known"], json!(["cancel", "confirm", "create"]));
    for (body, code) in [
        (json!({}), "REASON_REQUIRED"),
        (json!({ "reason": " " }), "REASON_REQUIRED"),
        (json!({ "reason": "x".repeat(1_001) }), "REASON_REQUIRED"),
        (json!({ "reason": "x", "actoin": "pick" }), "FIELD_UNKNOWN"),
        (json!({ "reason": "x", "action": 5 }), "FIELD_INVALID"),
    ] {
        assert_eq!(house.post("/v1/participants/orders/pause", &body).await.code(), code, "{body}");
    }
    let since = json!({ "reason": "x", "since": "yesterday" });
    assert_eq!(house.post("/v1/participants/orders/resume", &since).await.code(), "FIELD_INVALID");
    assert_eq!(house.post("/v1/participants/orders/resume", &because("x")).await.code(), "PAUSE_CONFLICT");
}

fn change(is_paused: bool) -> PauseChange {
    let (participant, actor, reason) = ("slow".to_owned(), "ann".to_owned(), "moving house".to_owned());
    PauseChange { participant, action: None, is_paused, seen: None, actor, reason }
}

/// How many sagas wait with a command for `slow` held back.
async fn held(rig: &Rig, ids: &[SagaId]) -> usize {
    let mut count = 0;
    for id in ids {
        let saga = rig.saga(*id).await;
        let is_held = |(_, command): (_, &amends::saga::CommandState)| matches!(command.phase, Phase::Held(_));
        count += usize::from(saga.steps[1].in_flight().is_some_and(is_held));
    }
    count
}

async fn knows(coordinator: &Coordinator, is_paused: bool) {
    eventually("another coordinator learns of it", async || {
        (coordinator.pauses().of("slow").is_empty() != is_paused).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_a_killed_coordinator_and_is_known_to_all_on_real_servers() {
    let rig = Rig::new(&["quick", "slow"]).await;
    let (first, other) = (rig.coordinator().await, rig.coordinator().await);
    first.register(TWO, "test").await.expect("registered");
    let _quick = Scripted::start(&rig.broker, "quick", |_| vec![done()]).await;
    first.change_pause(change(true)).await.expect("it is paused");
    knows(&other, true).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(start(&first, "two", json!({})).await);
    }
    eventually("all are held back", async || (held(&rig, &ids).await == ids.len()).then_some(())).await;
    first.kill();
    other.kill();
    let (next, other) = (rig.coordinator().await, rig.coordinator().await);
    assert_eq!(next.pauses().of("slow").len(), 1, "it is known from the first command on");
    for _ in 0..10 {
        ids.push(start(&next, "two", json!({})).await);
    }
    eventually("the new ones, too", async || (held(&rig, &ids).await == ids.len()).then_some(())).await;
    assert_eq!(rig.depth("slow.commands").await, 0, "nothing has gone out");

    let slow = Scripted::start(&rig.broker, "slow", |_| vec![done()]).await;
    other.change_pause(change(false)).await.expect("it is resumed");
    knows(&next, false).await;
    for id in &ids {
        rig.becomes(*id, "COMPLETED").await;
    }
    let seen = slow.seen();
    let keys: BTreeSet<&str> = seen.iter().map(|command| command.key.as_str()).collect();
    assert_eq!(keys.len(), ids.len());
    assert!(seen.iter().all(|command| command.attempt == 1), "no attempt was spent on waiting");
    next.stop().await;
    other.stop().await;
}

async fn tell(coordinator: &Coordinator, id: SagaId, action: OperatorAction) {
    let (actor, reason) = ("ann".to_owned(), "a look at it".to_owned());
    let operate = Operate { id, action, actor, reason, expected_revision: None };
    coordinator.operate(operate).await.expect("it is allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_coordinator_held_back_goes_out_when_the_saga_is_resumed_here_on_real_servers() {
    let rig = Rig::new(&["quick", "slow"]).await;
    let (first, other) = (rig.coordinator().await, rig.coordinator().await);
    first.register(TWO, "test").await.expect("registered");
    let _quick = Scripted::start(&rig.broker, "quick", |_| vec![done()]).await;
    let _slow = Scripted::start(&rig.broker, "slow", |_| vec![done()]).await;
    first.change_pause(change(true)).await.expect("it is paused");
    knows(&other, true).await;
    // Of those that are held back one is tried again soon; this is another.
    let scout = start(&first, "two", json!({})).await;
    eventually("it is held back", async || (held(&rig, &[scout]).await == 1).then_some(())).await;
    let id = start(&first, "two", json!({})).await;
    eventually("so is the other", async || (held(&rig, &[id]).await == 1).then_some(())).await;
    tell(&first, id, OperatorAction::Pause).await;
    // With the one, what it knew of commands that it holds back is gone.
    first.kill();
    other.change_pause(change(false)).await.expect("the participant goes on");
    // By then both have had their turn, of which the one that is paused could make nothing.
    rig.becomes(scout, "COMPLETED").await;
    tell(&other, id, OperatorAction::Resume).await;
    rig.becomes(id, "COMPLETED").await;
    other.stop().await;
}
