//! What a server gives out at `/metrics` is what `docs/metrics.md` says.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use support::eventually;
use support::http::House;
use support::scripted::{Scripted, done, refusal};

use amends::coordinator::Limits;
use amends::message::{Envelope, Properties};

/// One step that is done, one that fails as its input says; the undoing of the first fails where that is asked for.
const MIXED: &str = r#"
saga: mixed
version: 1
defaults: { timeout: 150ms, retry: { maxAttempts: 2, initialInterval: 10ms, jitter: none } }
steps:
  - { name: first, participant: orders, action: create, input: "${ input }", compensation: { action: cancel, input: "${ input }" } }
  - { name: second, participant: payments, action: pay, input: "${ input }", compensation: none }
"#;

/// Type and names of labels per metric; `le` belongs to every histogram.
type Described = BTreeMap<String, (String, BTreeSet<String>)>;

fn documented() -> Described {
    let text = include_str!("../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `amends_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|name| name.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|name| !name.is_empty()).collect();
        (cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), labels))
    })
    .collect()
}

/// What has samples, by its TYPE line.
fn emitted(text: &str) -> Described {
    let mut all = Described::new();
    let mut types = BTreeMap::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("# TYPE ") {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            types.insert(name.to_owned(), kind.to_owned());
        }
        if line.starts_with('#') {
            continue;
        }
        let name = line.split(['{', ' ']).next().expect("a name");
        let ends = ["_total", "_bucket", "_sum", "_count"];
        let family = ends.iter().find_map(|end| name.strip_suffix(end)).filter(|name| types.contains_key(*name));
        let family = family.unwrap_or(name);
        let kind = types.get(family).unwrap_or_else(|| panic!("{line} has no TYPE"));
        assert!(text.contains(&format!("# HELP {family} ")), "{family} has no HELP");
        let labels = line.split_once('{').map(|(_, rest)| rest.rsplit_once('}').expect("it is closed").0);
        let labels = labels.unwrap_or_default().split("\",").filter_map(|pair| pair.split_once('='));
        let labels = labels.map(|(name, _)| name.to_owned()).filter(|name| name != "le");
        all.entry(family.to_owned()).or_insert_with(|| (kind.clone(), BTreeSet::new())).1.extend(labels);
    }
    all
}

#[tokio::test]
async fn every_metric_that_is_emitted_is_documented_and_the_other_way_round() {
    let house =
        House::within(Limits { windows: BTreeMap::from([("orders".to_owned(), 1)]), ..Limits::default() }).await;
    house.coordinator.register(MIXED, "test").await.expect("registered");
    for change in ["pause", "resume"] {
        let answer = house
            .post(&format!("/v1/participants/orders/{change}"), &json!({ "reason": "x", "action": "cancel" }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let _orders = Scripted::start(&house.broker, "orders", |command| {
        let is_refused = command.is_compensation && command.body.value()["stuck"] == true;
        vec![if is_refused { refusal("not-to-be-undone") } else { done() }]
    })
    .await;
    let _payments = Scripted::start(&house.broker, "payments", |command| {
        let input = command.body.value();
        match input["silent"] == true {
            true => vec![],
            false if input["fails"] == true => vec![refusal("card-declined")],
            false => vec![done()],
        }
    })
    .await;
    let mut ids = Vec::new();
    for input in
        [json!({}), json!({ "fails": true }), json!({ "fails": true, "stuck": true }), json!({ "silent": true })]
    {
        let started = house.post("/v1/sagas", &json!({ "saga": "mixed", "input": input })).await.json();
        ids.push(started["id"].as_str().expect("an id").to_owned());
    }
    let garbage = Envelope {
        exchange: "amends.replies".to_owned(),
        routing_key: "amends.replies".to_owned(),
        mandatory: true,
        properties: Properties::default(),
        body: b"?".to_vec(),
    };
    house.broker.publish(vec![garbage]).await;
    let wanted = documented();
    assert!(wanted.len() > 15, "the table is not read");
    let text = eventually("all sagas are where they go, and everything documented is emitted", async || {
        let text = house.get("/metrics").await.text;
        let is_over = text
            .contains(r#"amends_sagas_stuck{saga="mixed",direction="compensation",reason="compensation-refused"} 1"#)
            && text.contains(r#"amends_saga_seconds_count{saga="mixed",kind="compensated"} 2"#);
        let found = emitted(&text);
        (is_over && wanted.keys().all(|name| found.contains_key(name))).then_some(text)
    })
    .await;
    assert_eq!(emitted(&text), wanted);
    for sample in [
        "amends_store_up 1",
        "amends_broker_up 1",
        r#"amends_sagas_live{state="STUCK"} 1"#,
        r#"amends_participant_paused{participant="orders",action="cancel"} 0"#,
        r#"amends_queue_consumers{queue="orders.commands"} 1"#,
        r#"amends_step_seconds_count{saga="mixed",participant="payments",action="pay",outcome="failure"} 2"#,
        r#"amends_step_seconds_count{saga="mixed",participant="orders",action="create",outcome="success"} 4"#,
    ] {
        assert!(text.contains(sample), "{sample} is missing in\n{text}");
    }
    for id in ids {
        assert!(!text.contains(&id), "a saga's id is a label");
    }
}
