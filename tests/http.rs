//! The HTTP interface from end to end: real requests, a real coordinator, participants that the test scripts.

mod access;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::api::{AuthConfig, Role, TokenEntry, route_table};
use amends::client::views::{OperateRequest, SagaView, StartBody};
use amends::client::{Action, Client, ClientError, OutboxQuery, SagaQuery};
use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Value, json};
use support::eventually;
use support::http::{House, PLACE, get, with_kind};
use support::scripted::{Scripted, done, refusal, retry, success};

fn order(name: &str) -> StartBody {
    StartBody::new("place", json!({ "order": name, "total": 3 }))
}

/// Participants that do as they are asked.
async fn willing(house: &House) -> [Scripted; 3] {
    [
        Scripted::start(&house.broker, "orders", |_| vec![done()]).await,
        Scripted::start(&house.broker, "payments", |_| vec![success(json!({ "receipt": "r1" }))]).await,
        Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await,
    ]
}

fn because(reason: &str) -> OperateRequest {
    OperateRequest { reason: reason.to_owned(), step: None }
}

async fn becomes(client: &Client, id: &str, state: &str) -> SagaView {
    eventually(&format!("{id} becomes {state}"), async || client.saga(id).await.ok().filter(|saga| saga.state == state))
        .await
}

fn code(error: &ClientError) -> &str {
    error.code().unwrap_or("no code")
}

#[tokio::test]
async fn a_saga_is_started_watched_and_shown_with_every_field_of_the_contract() {
    let house = House::new().await;
    let (client, _served) = house.serve().await;
    let registered = client.register(PLACE).await.expect("it is registered");
    assert!(registered.is_new);
    assert!(!client.register(PLACE).await.expect("the same again").is_new);
    let _participants = willing(&house).await;

    let started = client.start(&order("o1")).await.expect("it starts");
    assert!(started.is_new);
    assert_eq!(
        (started.saga.saga.as_str(), started.saga.version, started.saga.key.as_deref()),
        ("place", 1, Some("o1"))
    );
    let mut states = Vec::new();
    let ended = client.watch(&started.saga.id, |saga| states.push(saga.state.clone())).await.expect("it ends");
    assert_eq!(states.last().map(String::as_str), Some("COMPLETED"));
    assert_eq!(ended.waiting_for, None);
    assert!(ended.ended_at.is_some());
    let pay = &ended.steps[1];
    assert_eq!(
        (pay.status.as_str(), pay.attempts, pay.output.clone()),
        ("verified", 1, Some(json!({ "receipt": "r1" })))
    );

    let again = client.start(&order("o1")).await.expect("the same key, the same input");
    assert!(!again.is_new);
    assert_eq!(again.saga, ended);

    let answer = house.get(&format!("/v1/sagas/{}", ended.id)).await;
    assert_eq!(answer.header("etag"), Some(format!("\"{}\"", ended.revision).as_str()));
    let fields: BTreeSet<_> = answer.json().as_object().expect("an object").keys().cloned().collect();
    let contract = [
        "id",
        "saga",
        "version",
        "key",
        "state",
        "paused",
        "input",
        "output",
        "waitingFor",
        "stuck",
        "steps",
        "createdAt",
        "updatedAt",
        "endedAt",
        "revision",
    ];
    assert_eq!(fields, contract.map(str::to_owned).into());
}

#[tokio::test]
async fn a_start_is_answered_with_the_place_of_the_saga() {
    let house = House::with_place().await;
    let answer = house.post("/v1/sagas", &json!({ "saga": "place", "input": { "order": "o1", "total": 1 } })).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let location = answer.header("location").expect("a location").to_owned();
    assert_eq!(house.get(&location).await.json()["id"], answer.json()["id"]);
    let again = house.post("/v1/sagas", &json!({ "saga": "place", "input": { "total": 1, "order": "o1" } })).await;
    assert_eq!((again.status.as_u16(), again.header("location")), (200, None));
    assert_eq!(again.json()["id"], answer.json()["id"]);
}

#[tokio::test]
async fn what_a_saga_waits_for_is_told_down_to_a_queue_that_nobody_reads() {
    let house = House::with_place().await;
    let (client, _served) = house.serve().await;
    let started = client.start(&order("o1")).await.expect("it starts");
    let waits = client.saga(&started.saga.id).await.expect("it is there").waiting_for.expect("it waits");
    assert!(waits.starts_with("attempt 1 of 3 of `create` is "), "{waits}");
    assert!(waits.ends_with("; queue `orders.commands` has no consumer"), "{waits}");
    let _participants = willing(&house).await;
    becomes(&client, &started.saga.id, "COMPLETED").await;
}

#[tokio::test]
async fn a_refusal_is_undone_and_the_history_tells_it_in_order() {
    a_refusal_is_undone_and_told(House::with_place().await).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    a_refusal_is_undone_and_told(House::with_place_on_sqlite(folder.path()).await).await;
}

async fn a_refusal_is_undone_and_told(house: House) {
    let (client, _served) = house.serve().await;
    let [_orders, _payments, warehouse] = willing(&house).await;
    drop(warehouse);
    let is_first = AtomicBool::new(true);
    let _warehouse = Scripted::start(&house.broker, "warehouse", move |_| {
        vec![if is_first.swap(false, Ordering::SeqCst) { retry("busy") } else { refusal("out-of-stock") }]
    })
    .await;
    let id = client.start(&order("o1")).await.expect("it starts").saga.id;
    let saga = becomes(&client, &id, "COMPENSATED").await;
    let statuses: Vec<_> = saga.steps.iter().map(|step| step.status.as_str()).collect();
    assert_eq!(statuses, ["compensated", "compensated", "failed", "waiting"]);
    assert_eq!(saga.cause.map(|cause| cause.kind).as_deref(), Some("out-of-stock"));
    assert_eq!(saga.steps[2].error.as_ref().map(|error| error.kind.as_str()), Some("out-of-stock"));
    assert_eq!(saga.steps[2].attempts, 2);
    let drawn = house.get(&format!("/v1/sagas/{id}/graph.svg")).await;
    assert_eq!((drawn.status.as_u16(), drawn.header("content-type")), (200, Some("image/svg+xml")));
    assert!(drawn.header("content-security-policy").is_some_and(|policy| policy.contains("style-src 'unsafe-inline'")));
    assert_eq!(drawn.header("cache-control"), Some("no-store"), "a saga's picture is old at once");
    assert!(drawn.text.contains(">failed, 2 attempts: out-of-stock<"), "{}", drawn.text);
    assert_eq!(drawn.text.matches(">compensated</text>").count(), 3, "two steps, and where the way back ends");
    let undone = saga.steps[0].compensation.as_ref().expect("a compensation");
    assert_eq!((undone.action.as_deref(), undone.status.as_str(), undone.attempts), (Some("cancel"), "verified", 1));

    let items = client.history(&id).await.expect("it has a history").items;
    assert!(items.is_sorted_by_key(|item| (item.revision, item.at)), "in order");
    // Confirms are written down only along with something else, so that they are there or not.
    let told: Vec<_> = items.iter().filter(|item| item.kind != "published").map(|item| item.text.clone()).collect();
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!("history", told.join("\n")) });
}

#[tokio::test]
async fn a_stuck_saga_says_what_can_be_done_and_an_operator_does_it() {
    let house = House::with_place().await;
    let (client, _served) = house.serve().await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let _orders = Scripted::start(&house.broker, "orders", move |command| {
        let works = !command.is_compensation || mended.load(Ordering::SeqCst);
        vec![if works { done() } else { refusal("cannot-cancel") }]
    })
    .await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![refusal("card-declined")]).await;
    let id = client.start(&order("o1")).await.expect("it starts").saga.id;
    let saga = becomes(&client, &id, "STUCK").await;
    let stuck = saga.stuck.expect("why");
    assert_eq!((stuck.step.as_str(), stuck.direction.as_str()), ("create", "compensation"));
    assert_eq!(stuck.error.kind, "cannot-cancel");
    assert_eq!(stuck.actions, ["retry", "skip", "pause", "abandon"]);
    let waits = saga.waiting_for.expect("it waits");
    assert!(waits.starts_with("a person: the compensation of `create` failed with cannot-cancel"), "{waits}");
    let query = SagaQuery { states: vec!["STUCK".to_owned()], ..SagaQuery::default() };
    let found = client.sagas(&query).await.expect("the list").items;
    assert_eq!(found.iter().map(|saga| saga.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);

    let overview = client.overview().await.expect("an overview");
    let cause = overview.stuck.iter().map(|group| (group.step.as_str(), group.error.as_str(), group.count));
    assert_eq!(cause.collect::<Vec<_>>(), [("create", "cannot-cancel", 1)]);
    let states =
        overview.states.iter().filter(|state| state.count > 0).map(|state| (state.state.as_str(), state.count));
    assert_eq!(states.collect::<Vec<_>>(), [("STUCK", 1)]);
    assert_eq!(overview.activity.started.iter().sum::<u64>(), 1);
    let refusing = overview.participants.iter().find(|service| service.participant == "payments").expect("it is told");
    assert_eq!((refusing.unanswered, refusing.settled, refusing.failed), (0, 1, 1));

    let refused = client.operate(&id, Action::Cancel, &because("try"), None).await.expect_err("it goes back already");
    assert_eq!(code(&refused), "ACTION_NOT_ALLOWED");
    assert_eq!(refused.refusal().and_then(|refusal| refusal.problem.state.as_deref()), Some("STUCK"));
    let stale = client.operate(&id, Action::Retry, &because("try"), Some(saga.revision - 1)).await.expect_err("stale");
    assert_eq!(code(&stale), "SAGA_MOVED");
    is_mended.store(true, Ordering::SeqCst);
    let retried = client.operate(&id, Action::Retry, &because("orders is mended"), Some(saga.revision)).await;
    assert_eq!(retried.expect("it is retried").state, "COMPENSATING");
    becomes(&client, &id, "COMPENSATED").await;

    let items = client.history(&id).await.expect("it has a history").items;
    let operated = items.iter().find(|item| item.kind == "operated").expect("the retry is told");
    assert_eq!((operated.actor.as_deref(), operated.reason.as_deref()), (Some("anonymous"), Some("orders is mended")));
    assert_eq!(operated.text, "anonymous asks for `retry`: orders is mended");
    assert_eq!(items.iter().filter(|item| item.kind == "stuck").count(), 1);
}

#[tokio::test]
async fn every_action_is_a_route_and_the_actor_is_the_tokens_name() {
    let tokens = vec![TokenEntry::plain("alice", Role::Operator, "s3cret")];
    let house = House::with(AuthConfig::new(tokens)).await;
    let (_, served) = house.serve().await;
    let client = Client::new(&served.url, Some("s3cret"));
    client.register(PLACE).await.expect("it is registered");
    for action in Action::ALL {
        let id = client.start(&order(action.as_str())).await.expect("it starts").saga.id;
        let outcome = client.operate(&id, action, &because("for the test"), None).await;
        match action {
            // Nothing is stuck, nothing is paused.
            Action::Retry | Action::Resume => assert_eq!(code(&outcome.expect_err("refused")), "ACTION_NOT_ALLOWED"),
            Action::Skip => assert_eq!(code(&outcome.expect_err("refused")), "STEP_UNKNOWN"),
            Action::Pause => assert!(outcome.expect("paused").paused),
            Action::Compensate | Action::Cancel => assert_eq!(outcome.expect("goes back").state, "COMPENSATING"),
            Action::Abandon => assert_eq!(outcome.expect("given up").state, "ABANDONED"),
        }
        let items = client.history(&id).await.expect("a history").items;
        let actors: Vec<_> = items.iter().filter_map(|item| item.actor.as_deref()).collect();
        let is_done = !matches!(action, Action::Retry | Action::Resume | Action::Skip);
        assert_eq!(actors, if is_done { vec!["alice"] } else { vec![] }, "{action:?}");
    }
}

#[tokio::test]
async fn pages_of_sagas_and_commands_cover_everything_once() {
    pages_cover_everything_once(House::with_place().await).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    pages_cover_everything_once(House::with_place_on_sqlite(folder.path()).await).await;
}

async fn pages_cover_everything_once(house: House) {
    let (client, _served) = house.serve().await;
    let batch = (0..25).map(|n| order(&format!("o{n}"))).collect();
    let started: BTreeSet<String> =
        client.start_batch(batch).await.expect("they start").items.into_iter().filter_map(|item| item.id).collect();
    assert_eq!(started.len(), 25);

    let mut query = SagaQuery { saga: Some("place".to_owned()), limit: Some(10), ..SagaQuery::default() };
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = client.sagas(&query).await.expect("a page");
        sizes.push(page.items.len());
        seen.extend(page.items.into_iter().map(|saga| saga.id));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), started);

    let mut query = OutboxQuery { state: Some("PENDING".to_owned()), limit: Some(5), cursor: None };
    let mut seen = Vec::new();
    loop {
        let page = client.outbox(&query).await.expect("a page");
        for item in page.items {
            assert_eq!(
                (item.state.as_str(), item.step.as_str(), item.direction.as_str()),
                ("PENDING", "create", "action")
            );
            assert!(item.age >= 0.0 && item.next_due.is_some() && item.verified_at.is_none());
            assert_eq!(item.attempt, Some(1));
            seen.push((item.saga_id, item.seq));
        }
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    assert_eq!(seen.len(), 25, "an exact multiple of the page ends without an empty one");
    assert_eq!(seen.into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), started);
}

#[tokio::test]
async fn lists_are_filtered_by_state_key_and_time() {
    let house = House::with_place().await;
    let (client, _served) = house.serve().await;
    let ids: Vec<_> = [client.start(&order("a")).await, client.start(&order("b")).await]
        .into_iter()
        .map(|started| started.expect("it starts").saga.id)
        .collect();
    client.operate(&ids[0], Action::Abandon, &because("for the test"), None).await.expect("given up");
    let found = async |query: SagaQuery| -> Vec<String> {
        client.sagas(&query).await.expect("a page").items.into_iter().map(|saga| saga.id).collect()
    };
    let by_state = |words: &[&str]| SagaQuery {
        states: words.iter().map(|&word| word.to_owned()).collect(),
        ..SagaQuery::default()
    };
    assert_eq!(found(by_state(&["ABANDONED"])).await, [ids[0].clone()]);
    assert_eq!(found(by_state(&["RUNNING", "ABANDONED"])).await.len(), 2);
    assert_eq!(found(by_state(&["STUCK"])).await.len(), 0);
    assert_eq!(found(SagaQuery { key: Some("b".to_owned()), ..SagaQuery::default() }).await, [ids[1].clone()]);
    assert_eq!(found(SagaQuery { since: Some("1h".to_owned()), ..SagaQuery::default() }).await.len(), 2);
    assert_eq!(
        found(SagaQuery { since: Some("2999-01-01T00:00:00Z".to_owned()), ..SagaQuery::default() }).await.len(),
        0
    );
}

#[tokio::test]
async fn definitions_are_listed_shown_and_drawn() {
    let house = House::new().await;
    let (client, _served) = house.serve().await;
    let first = client.register(PLACE).await.expect("it is registered").definition;
    client.register(&PLACE.replace("version: 1", "version: 2")).await.expect("the next version");
    assert_eq!(client.definitions().await.expect("a list").items.len(), 2);
    let versions = client.definition_versions("place").await.expect("the versions");
    assert_eq!((versions.newest, versions.items.len()), (2, 2));
    assert_eq!(versions.items[0].owner.as_deref(), Some("fulfilment"));
    assert_eq!(versions.items[0].registered_by, "anonymous");
    let shown = client.definition("place", 1).await.expect("a version");
    assert_eq!(shown, first);
    assert_eq!(shown.source, PLACE);
    assert_eq!(shown.hash.len(), 64);
    let pick = &shown.steps[2];
    assert_eq!((pick.after.as_slice(), pick.pivot), (["pay".to_owned()].as_slice(), false));
    assert_eq!((pick.timeout_ms, pick.retry.max_attempts), (20_000, Some(3)));
    assert!(shown.steps[3].pivot && shown.steps[3].compensation.is_none());

    let drawn = client.graph("place", 1).await.expect("a drawing");
    // A group of its own for each step.
    assert_eq!(drawn.matches("<g><title>").count(), 4);
    assert!(drawn.contains("pivot: once sent, only forward"));

    let as_json = json!({ "saga": "j", "version": 1, "steps": [
        { "name": "a", "participant": "p", "action": "x", "compensation": "none" },
    ] });
    let answer = house.ask(with_kind("/v1/definitions", "application/json", as_json.to_string())).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (201, Some("/v1/definitions/j/1")));
}

#[tokio::test]
async fn warnings_are_told_at_registration_and_refuse_it_when_they_are_denied() {
    let house = House::new().await;
    let warned = json!({ "saga": "w", "version": 1, "steps": [
        { "name": "a", "participant": "p", "action": "x", "compensation": { "action": "x" } },
    ] });
    let at = |path: &str| with_kind(path, "application/json", warned.to_string());
    let answer = house.ask(at("/v1/definitions?denyWarnings=true")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (422, &json!("DEFINITION_INVALID")));
    assert_eq!(answer.json()["errors"][0]["code"], "DEF_COMPENSATION_SAME");
    assert_eq!(house.get("/v1/definitions/w").await.status.as_u16(), 404, "nothing was registered");
    let answer = house.ask(at("/v1/definitions?denyWarnings=false")).await;
    assert_eq!(answer.status.as_u16(), 201);
    let warning = &answer.json()["warnings"][0];
    assert_eq!(
        (&warning["code"], &warning["pointer"]),
        (&"DEF_COMPENSATION_SAME".into(), &"/steps/0/compensation/action".into())
    );
    let answer = house.ask(at("/v1/definitions?denyWarnings=perhaps")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (400, &json!("QUERY_INVALID")));
}

#[tokio::test]
async fn a_definition_is_checked_with_the_registered_sagas_that_it_starts() {
    let house = House::new().await;
    let pay = "saga: pay\nversion: 1\nsteps:\n  - { name: charge, participant: p, action: charge, pivot: true, compensation: none }\n";
    let parent = "saga: parent\nversion: 1\nsteps:\n  - { name: first, saga: pay }\n";
    let yaml = |text: &str| with_kind("/v1/definitions", "application/yaml", text.to_owned());
    assert_eq!(house.ask(yaml(pay)).await.status.as_u16(), 201);
    let answer = house.ask(yaml(parent)).await;
    assert_eq!(answer.status.as_u16(), 422);
    assert_eq!(answer.json()["errors"][0]["code"], "DEF_SAGA_PIVOT");
}

#[tokio::test]
async fn machines_that_watch_are_answered() {
    let house = House::with_place().await;
    let (client, _served) = house.serve().await;
    assert_eq!(client.health().await.expect("alive").status, "alive");
    eventually("the coordinator is ready", async || client.ready().await.ok()).await;
    client.start(&order("o1")).await.expect("it starts");
    let metrics = house.get("/metrics").await;
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert!(metrics.text.contains(r#"amends_sagas_total{saga="place",kind="started"} 1"#), "{}", metrics.text);
    let document = house.get("/openapi.json").await.json();
    for route in route_table() {
        let method = route.method.as_str().to_lowercase();
        assert!(document["paths"][route.path][&method].is_object(), "{method} {} is not described", route.path);
    }
}

#[tokio::test]
async fn answers_carry_the_requests_id_and_are_not_kept_or_guessed_at() {
    let house = House::with_place().await;
    let with_id = |id: &str| {
        let mut request = get("/v1/sagas");
        request.headers_mut().insert("x-request-id", id.parse().expect("a header"));
        request
    };
    let answer = house.ask(with_id("order-7.retry_2")).await;
    assert_eq!(answer.header("x-request-id"), Some("order-7.retry_2"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    for hostile in ["<script>", "a b", "", &"x".repeat(65)] {
        let answer = house.ask(with_id(hostile)).await;
        let given = answer.header("x-request-id").expect("an id");
        assert!(uuid::Uuid::parse_str(given).is_ok(), "{hostile:?} became {given:?}");
    }
    let head = Request::builder().method(Method::HEAD).uri("/v1/sagas").header("host", "localhost");
    let answer = house.ask(head.body(Body::empty()).expect("a request")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
}

#[tokio::test]
async fn hostile_text_stays_text_in_a_drawing() {
    let house = House::new().await;
    let definition = json!({ "saga": "xss", "version": 1, "owner": "<script>", "steps": [{
        "name": "a", "participant": "p", "action": "x", "when": "${ '<script>' == '' }", "compensation": "none",
    }] });
    let answer = house.ask(with_kind("/v1/definitions", "application/json", definition.to_string())).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let drawn = house.get("/v1/definitions/xss/1/graph.svg").await;
    assert_eq!(drawn.header("content-type"), Some("image/svg+xml"));
    assert!(!drawn.text.contains("<script"), "{}", drawn.text);
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends() {
    let house = House::with_place().await;
    let (client, mut served) = house.serve().await;
    client.health().await.expect("it answers");
    served.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(9), &mut served.task).await;
    ended.expect("before the hard deadline, though a connection was kept open").expect("joined").expect("no error");
}

#[tokio::test]
async fn a_client_tells_what_was_not_reached_and_why() {
    let nobody = Client::new("http://user:hunter2@127.0.0.1:9/", Some("t0ken"));
    let error = nobody.health().await.expect_err("nobody is there");
    assert!(error.is_transient());
    let told = format!("{error} {error:?} {nobody:?}");
    assert!(told.contains("http://127.0.0.1:9/healthz cannot be reached"), "{told}");
    assert!(told.to_lowercase().contains("connection refused"), "{told}");
    assert!(!format!("{error} {nobody:?}").contains("hunter2") && !told.contains("t0ken"), "{told}");

    for (url, problem) in
        [("ftp://127.0.0.1", "http://"), ("no address", "relative URL"), ("https://127.0.0.1", "rustls")]
    {
        let error = Client::new(url, None).health().await.expect_err(url);
        assert!(matches!(error, ClientError::Setup { .. }), "{error:?}");
        assert!(error.to_string().contains(problem), "{error}");
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let other = axum::Router::new().fallback(async || "<html>");
    tokio::spawn(async move { axum::serve(listener, other).await });
    let error = Client::new(&url, None).definitions().await.expect_err("it is no amends server");
    assert!(matches!(error, ClientError::Unexpected { status: 200, .. }), "{error:?}");
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_whole() {
    let house = House::with_place().await;
    let (client, _served) = house.serve().await;
    let mut wrong = order("o1");
    wrong.input = json!({ "order": 1, "total": 0 });
    let error = client.start(&wrong).await.expect_err("the input is wrong");
    let problem = &error.refusal().expect("it was refused").problem;
    assert_eq!((problem.code.as_str(), problem.status, problem.errors.len()), ("INPUT_INVALID", 422, 2));
    assert!(!problem.request_id.is_empty() && !error.is_transient());
    assert!(error.to_string().contains("/input/total: 0 is less than the minimum of 1"), "{error}");
    let error = client.saga("../definitions").await.expect_err("no id");
    assert_eq!(code(&error), "SAGA_ID_INVALID", "a name in a path stays one part of it");
    let unknown: Value = json!(client.saga("").await.map_err(|error| error.to_string()).expect_err("no id"));
    assert!(unknown.as_str().is_some_and(|told| told.contains("empty")), "{unknown}");
}
