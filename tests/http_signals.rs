//! Signals over HTTP, and what views show of waits, elements, children and parents.

mod support;

use serde_json::json;
use support::eventually;
use support::http::{House, post};
use support::scripted::{Scripted, done};

const NOD: &str = r#"
saga: nod
version: 1
key: ${ input.key }
steps:
  - { name: nod, wait: { signal: nod, timeout: 1h } }
"#;

const OUTER: &str = r#"
saga: outer
version: 1
steps:
  - { name: look, forEach: "${ input.list }", participant: eyes, action: look, compensation: none }
  - { name: inner, saga: nod, input: { key: k } }
"#;

async fn house() -> House {
    let house = House::new().await;
    for definition in [NOD, OUTER] {
        house.coordinator.register(definition, "test").await.expect("registered");
    }
    house
}

#[tokio::test]
async fn a_signal_is_answered_with_the_saga_and_whether_it_was_there_already() {
    let house = house().await;
    let started = house.post("/v1/sagas", &json!({ "saga": "nod", "input": { "key": "k1" } })).await.json();
    assert_eq!(started["steps"][0]["kind"], "wait");
    let id = started["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/sagas/{id}/signal");
    let first = house.post(&path, &json!({ "signal": "nod", "payload": { "by": "ann" } })).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_eq!((&first.json()["isDuplicate"], &first.json()["saga"]["id"]), (&json!(false), &json!(id)));
    let by_key = json!({ "saga": "nod", "key": "k1", "signal": "nod", "payload": { "by": "bob" } });
    let again = house.post("/v1/signals", &by_key).await;
    assert_eq!((again.status.as_u16(), &again.json()["isDuplicate"]), (200, &json!(true)), "{}", again.text);
    let by_id = house.post("/v1/signals", &json!({ "sagaId": id, "signal": "nod" })).await;
    assert_eq!(by_id.json()["saga"]["steps"][0]["output"], json!({ "by": "ann" }), "{}", by_id.text);
}

#[tokio::test]
async fn signals_that_cannot_be_taken_say_why() {
    let house = house().await;
    let started = house.post("/v1/sagas", &json!({ "saga": "nod", "input": { "key": "k1" } })).await.json();
    let id = started["id"].as_str().expect("an id").to_owned();
    let nobody = "00000000-0000-7000-8000-000000000000";
    let one = format!("/v1/sagas/{id}/signal");
    let ended = house.post("/v1/sagas", &json!({ "saga": "nod", "input": { "key": "k2" } })).await.json();
    let ended = format!("/v1/sagas/{}", ended["id"].as_str().expect("an id"));
    let over = house.post(&format!("{ended}/abandon"), &json!({ "reason": "for the test" })).await;
    assert_eq!(over.json()["state"], "ABANDONED", "{}", over.text);
    let cases = [
        (one.as_str(), json!({ "signal": "nodd" }), 422, "SIGNAL_UNKNOWN"),
        (&one, json!({}), 400, "FIELD_MISSING"),
        (&one, json!({ "signal": 1 }), 400, "FIELD_INVALID"),
        (&one, json!({ "signal": "nod", "payloda": 1 }), 400, "FIELD_UNKNOWN"),
        (&format!("{ended}/signal"), json!({ "signal": "nod" }), 409, "ACTION_NOT_ALLOWED"),
        ("/v1/signals", json!({ "sagaId": nobody, "signal": "nod" }), 404, "SAGA_UNKNOWN"),
        ("/v1/signals", json!({ "sagaId": "x", "signal": "nod" }), 400, "SAGA_ID_INVALID"),
        ("/v1/signals", json!({ "saga": "nod", "key": "k9", "signal": "nod" }), 404, "SAGA_UNKNOWN"),
        ("/v1/signals", json!({ "saga": "nod", "signal": "nod" }), 400, "FIELD_MISSING"),
        ("/v1/signals", json!({ "sagaId": id, "saga": "nod", "key": "k1", "signal": "nod" }), 400, "FIELD_MISSING"),
    ];
    for (path, body, status, code) in cases {
        let answer = house.ask(post(path, body.to_string())).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (status, &json!(code)), "{path} {body}");
    }
}

#[tokio::test]
async fn views_show_elements_and_lead_from_parent_to_child_and_back() {
    let house = house().await;
    let _eyes = Scripted::start(&house.broker, "eyes", |_| vec![done()]).await;
    let outer = house.post("/v1/sagas", &json!({ "saga": "outer", "input": { "list": [1, 2] } })).await.json();
    let path = format!("/v1/sagas/{}", outer["id"].as_str().expect("an id"));
    let view = eventually("the child is there", async || {
        let view = house.get(&path).await.json();
        view["steps"][2]["child"].is_object().then_some(view)
    })
    .await;
    assert_eq!(view["steps"][1]["element"], json!({ "of": "look", "index": 1 }));
    assert_eq!(view["steps"][2]["kind"], "saga");
    let child = view["steps"][2]["child"]["id"].as_str().expect("an id").to_owned();
    let seen = house.get(&format!("/v1/sagas/{child}")).await.json();
    assert_eq!(seen["parent"], json!({ "id": outer["id"], "step": "inner" }));
    let told = house.post(&format!("/v1/sagas/{child}/signal"), &json!({ "signal": "nod" })).await;
    assert_eq!(told.status, 200, "{}", told.text);
    for path in [path, format!("/v1/sagas/{child}")] {
        eventually("both complete", async || (house.get(&path).await.json()["state"] == "COMPLETED").then_some(()))
            .await;
    }
}
