//! Every kind of request that cannot be served, and what it is answered: statuses, codes, places, ways to mend it.

mod support;

use amends::api::{AuthConfig, Role, TokenEntry};
use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use support::http::{House, PLACE, get, post, with_kind};

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

type Case = (&'static str, Request<Body>);

/// Asks every case and writes down what is answered. No case may be answered as a fault of the server.
async fn table(house: &House, cases: Vec<Case>) -> String {
    let mut table = String::new();
    for (name, request) in cases {
        let line = format!("{} {}", request.method(), request.uri());
        let line: String = line.chars().take(100).collect();
        let answer = house.ask(request).await;
        let status = answer.status.as_u16();
        assert!((400..500).contains(&status), "{name}: {status} {}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{name}");
        let document = answer.json();
        assert_eq!(document["status"], status, "{name}");
        assert_eq!(document["requestId"].as_str(), answer.header("x-request-id"), "{name}");
        table.push_str(&format!("## {name}\n{line}\n{}\n", answer.status));
        for header in ["allow", "retry-after", "www-authenticate"] {
            if let Some(value) = answer.header(header) {
                table.push_str(&format!("{header}: {value}\n"));
            }
        }
        let mut document = document;
        let fields = document.as_object_mut().expect("an object");
        // Said by the code and the status already.
        for said in ["type", "status", "title", "requestId"] {
            assert!(fields.remove(said).is_some(), "{name} has no {said}");
        }
        table.push_str(&serde_json::to_string_pretty(&document).expect("JSON"));
        table.push_str("\n\n");
    }
    table
}

fn check(name: &str, table: &str) {
    let filters = [
        (NOBODY, "[nobody]"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[id]"),
        // The broker's confirm may have come, or not.
        (r"revision \d+,", "revision [n],"),
    ];
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        insta::assert_snapshot!(name, table);
    });
}

fn start(body: &str) -> Request<Body> {
    post("/v1/sagas", body.to_owned())
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let house = House::with_place().await;
    let nested = format!(r#"{{"saga":"place","input":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
    let large = format!(r#"{{"saga":"place","input":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let chunks = futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])));
    let broken = futures_util::stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("gone"))]);
    let gzip = {
        let mut request = start("x");
        request.headers_mut().insert("content-encoding", "gzip".parse().expect("a header"));
        request
    };
    let no_kind = Request::post("/v1/sagas").header("host", "localhost").body(Body::from("{}")).expect("a request");
    let cases = vec![
        ("malformed JSON", start("{\n  \"saga\": place\n}")),
        ("an empty body", start("")),
        ("something after the body", start(r#"{"saga":"place","input":{}} {}"#)),
        ("no number", start(r#"{"saga":"place","input":{"total":NaN}}"#)),
        ("no finite number", start(r#"{"saga":"place","input":{"total":-Infinity}}"#)),
        ("a number too large", start(r#"{"saga":"place","input":{"total":1e999}}"#)),
        ("an integer beyond 2^53", start(r#"{"saga":"place","input":{"lines":[{"n":9007199254740993}]}}"#)),
        ("a key twice", start("{\"saga\":\"place\",\n \"input\":{\"order\":\"a\",\"order\":\"b\"}}")),
        ("nesting over 64", start(&nested)),
        ("a NUL", start("{\"saga\":\"pl\0ace\",\"input\":{}}")),
        ("an escaped NUL", start(r#"{"saga":"place","input":{"order":"\u0000"}}"#)),
        ("half a surrogate pair", start(r#"{"saga":"place","input":{"order":"\ud800"}}"#)),
        ("bytes that are not UTF-8", post("/v1/sagas", b"{\"saga\":\"\xff\"}".to_vec())),
        ("another content type", with_kind("/v1/sagas", "text/plain", "{}")),
        ("a form", with_kind("/v1/sagas", "application/x-www-form-urlencoded", "saga=place")),
        ("no content type", no_kind),
        ("another character set", with_kind("/v1/sagas", "application/json; charset=latin1", "{}")),
        ("a compressed body", gzip),
        ("a body over the limit", start(&large)),
        ("chunks over the limit", post("/v1/sagas", Body::from_stream(chunks))),
        ("a body that breaks off", post("/v1/sagas", Body::from_stream(broken))),
    ];
    check("bodies", &table(&house, cases).await);
}

#[tokio::test]
async fn starts_that_cannot_be_done() {
    let house = House::with_place().await;
    let first = house.post("/v1/sagas", &json!({ "saga": "place", "input": { "order": "o1", "total": 1 } })).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let cases = vec![
        ("no object", start("[]")),
        ("an unknown field", start(r#"{"saga":"place","imput":{},"input":{}}"#)),
        ("missing fields", start("{}")),
        ("fields of the wrong type", start(r#"{"saga":1,"version":"1","input":{},"key":[]}"#)),
        ("version 0", start(r#"{"saga":"place","version":0,"input":{}}"#)),
        ("a fraction of a version", start(r#"{"saga":"place","version":1.5,"input":{}}"#)),
        ("an empty key", start(r#"{"saga":"place","key":"","input":{"order":"o2","total":1}}"#)),
        (
            "a key that is too long",
            start(&format!(r#"{{"saga":"place","key":"{}","input":{{"order":"o2","total":1}}}}"#, "k".repeat(257))),
        ),
        (
            "a key that is shown as another",
            start("{\"saga\":\"place\",\"key\":\"a\u{202e}b\",\"input\":{\"order\":\"o2\",\"total\":1}}"),
        ),
        ("a key with a line break", start(r#"{"saga":"place","key":"a\nb","input":{"order":"o2","total":1}}"#)),
        ("an unknown definition", start(r#"{"saga":"plaice","input":{}}"#)),
        ("an unknown version", start(r#"{"saga":"place","version":7,"input":{}}"#)),
        ("an input against the schema", start(r#"{"saga":"place","input":{"order":7,"total":0}}"#)),
        ("an input that is no object", start(r#"{"saga":"place","input":null}"#)),
        ("the same key, another input", start(r#"{"saga":"place","input":{"order":"o1","total":2}}"#)),
        ("a batch of none", post("/v1/sagas/batch", r#"{"sagas":[]}"#)),
        ("a batch that is no list", post("/v1/sagas/batch", r#"{"sagas":{}}"#)),
        ("a batch of too many", post("/v1/sagas/batch", json!({ "sagas": vec![0; 1_001] }).to_string())),
        ("a batch of something else", post("/v1/sagas/batch", r#"{"saga":[]}"#)),
    ];
    check("starts", &table(&house, cases).await);
}

#[tokio::test]
async fn queries_and_paths_that_name_nothing() {
    let house = House::with_place().await;
    let cases = vec![
        ("limit 0", get("/v1/sagas?limit=0")),
        ("limit 10^9", get("/v1/sagas?limit=1000000000")),
        ("a negative limit", get("/v1/outbox?limit=-1")),
        ("a limit in words", get("/v1/outbox?limit=all")),
        ("a limit twice", get("/v1/sagas?limit=1&limit=2")),
        ("a broken cursor", get("/v1/sagas?cursor=abc")),
        ("a forged cursor", get("/v1/outbox?cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("a cursor with forbidden letters", get("/v1/sagas?cursor=%22%27%3B--")),
        ("an unknown parameter", get("/v1/sagas?stat=STUCK")),
        ("a parameter where there is none", get("/v1/definitions?limit=1")),
        ("an unknown state", get("/v1/sagas?state=STUKC")),
        ("a saga's state for the outbox", get("/v1/outbox?state=RUNNING")),
        ("a time that is none", get("/v1/sagas?since=yesterday")),
        ("a negative duration", get("/v1/sagas?since=-1h")),
        ("an overflowing duration", get("/v1/sagas?since=99999999999999999999d")),
        ("a status that is none", get("/v1/sagas?status=faild")),
        ("a version that is none", get("/v1/sagas?version=0")),
        ("an end that is no time", get("/v1/sagas?until=tomorrow")),
        ("a pause that is neither", get("/v1/sagas?paused=maybe")),
        ("a field without a value", get("/v1/sagas?field=customer.id")),
        ("a place that is no number", get("/v1/sagas?at=first")),
        ("a NUL in a parameter", get("/v1/sagas?key=%00")),
        ("a parameter that is not UTF-8", get("/v1/sagas?key=%ff")),
        ("an unknown route", get("/v1/saga")),
        ("no route at all", get("/")),
        (
            "a wrong method",
            Request::delete("/v1/sagas").header("host", "localhost").body(Body::empty()).expect("a request"),
        ),
        ("a change where one can only read", post("/v1/outbox", "{}")),
        ("a bad UUID", get("/v1/sagas/123")),
        ("a path that is not UTF-8", get("/v1/sagas/%ff")),
        ("a NUL in a path", get("/v1/definitions/%00")),
        ("a definition's path that is not UTF-8", get("/v1/definitions/%ff/1")),
        ("an unknown saga", get("/v1/sagas/00000000-0000-7000-8000-000000000000")),
        ("an unknown saga's history", get("/v1/sagas/00000000-0000-7000-8000-000000000000/history")),
        ("an unknown definition's versions", get("/v1/definitions/plaice")),
        ("an unknown version", get("/v1/definitions/place/2")),
        ("an unknown version's drawing", get("/v1/definitions/place/2/graph.svg")),
        ("a version in words", get("/v1/definitions/place/newest")),
        ("version 0", get("/v1/definitions/place/0")),
    ];
    check("queries", &table(&house, cases).await);
}

#[tokio::test]
async fn definitions_that_cannot_be_registered() {
    let house = House::with_place().await;
    let yaml = |text: &str| with_kind("/v1/definitions", "application/yaml", text.to_owned());
    let other = PLACE.replace("total: { type: integer, minimum: 1 }", "total: { type: integer }");
    assert_ne!(other, PLACE);
    let wrong = "saga: order\nversion: 1\nsteps:\n  - { name: a, participant: p, action: x, after: [b] }\n  \
                 - { name: a, participant: p, action: y, compensation: none, retires: 3 }\n";
    let cases = vec![
        ("an empty definition", yaml("")),
        ("several errors at once", yaml(wrong)),
        ("the same version, other content", yaml(&other)),
        ("a NUL", yaml("saga: a\0b\n")),
        ("not UTF-8", with_kind("/v1/definitions", "application/yaml", b"saga: \xff\n".to_vec())),
        ("another content type", with_kind("/v1/definitions", "application/xml", "<saga/>")),
        ("over the limit", yaml(&"# x\n".repeat(600_000))),
    ];
    check("definitions", &table(&house, cases).await);
}

#[tokio::test]
async fn bulk_jobs_that_cannot_be_made_or_steered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let house = House::with_place_on_sqlite(folder.path()).await;
    let bulk = |body: serde_json::Value| post("/v1/bulk", body.to_string());
    let stuck = json!({ "state": "STUCK" });
    let with = |more: serde_json::Value| {
        let mut body = json!({ "action": "retry", "filter": stuck, "reason": "x" });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        bulk(body)
    };
    let cases = vec![
        ("nothing at all", bulk(json!({}))),
        ("an unknown action", with(json!({ "action": "retyr" }))),
        ("a step where none is taken", with(json!({ "action": "pause", "step": "pay" }))),
        ("an unknown field", with(json!({ "rate": 5 }))),
        ("no sagas", with(json!({ "filter": null }))),
        ("sagas in two ways", with(json!({ "sagas": [NOBODY] }))),
        ("a filter that is a list", with(json!({ "filter": [] }))),
        ("a filter of nothing", with(json!({ "filter": {} }))),
        ("an unknown filter", with(json!({ "filter": { "stat": "STUCK" } }))),
        ("a filter that makes no sense", with(json!({ "filter": { "state": "STUKC" } }))),
        ("a filter's value that is an object", with(json!({ "filter": { "key": {} } }))),
        ("an empty list of sagas", with(json!({ "filter": null, "sagas": [] }))),
        ("too long a list of sagas", with(json!({ "filter": null, "sagas": vec![NOBODY; 1_001] }))),
        ("an id that is none", with(json!({ "filter": null, "sagas": ["1"] }))),
        ("sagas that are no list", with(json!({ "filter": null, "sagas": "all" }))),
        ("no reason", with(json!({ "reason": " " }))),
        ("a rate of nothing", with(json!({ "ratePerSecond": 0 }))),
        ("too high a rate", with(json!({ "ratePerSecond": 1_001 }))),
        ("a number that is none", with(json!({ "expectedCount": "all" }))),
        ("a dry run that is neither", with(json!({ "dryRun": "yes" }))),
        ("nothing that matches", with(json!({}))),
        ("a job's id that is none", get("/v1/bulk/1")),
        ("a job that is not there", get(&format!("/v1/bulk/{NOBODY}"))),
        ("items of a job that is not there", get(&format!("/v1/bulk/{NOBODY}/items"))),
        ("an outcome that is none", get(&format!("/v1/bulk/{NOBODY}/items?outcome=lost"))),
        ("a check that is neither", get(&format!("/v1/bulk/{NOBODY}?check=now"))),
        ("a job to pause that is not there", post(&format!("/v1/bulk/{NOBODY}/pause"), "{}")),
        ("a forged cursor", get("/v1/bulk?cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")),
    ];
    check("bulk", &table(&house, cases).await);
}

#[tokio::test]
async fn actions_that_cannot_be_done() {
    let house = House::with_place().await;
    let started = house.post("/v1/sagas", &json!({ "saga": "place", "input": { "order": "o1", "total": 1 } })).await;
    let ended = house.post("/v1/sagas", &json!({ "saga": "place", "input": { "order": "o2", "total": 1 } })).await;
    let path = |answer: &support::http::Answer, action: &str| {
        format!("/v1/sagas/{}/{action}", answer.json()["id"].as_str().expect("an id"))
    };
    let over = house.post(&path(&ended, "abandon"), &json!({ "reason": "for the test" })).await;
    assert_eq!(over.json()["state"], "ABANDONED", "{}", over.text);
    let act = |action: &str, body: &str| post(&path(&started, action), body.to_owned());
    let reason = r#"{"reason":"for the test"}"#;
    let if_match = |revision: &'static str| {
        let mut request = act("pause", reason);
        request.headers_mut().insert("if-match", revision.parse().expect("a header"));
        request
    };
    let long = json!({ "reason": "x".repeat(1_001) }).to_string();
    let cases = vec![
        ("no reason", act("pause", "{}")),
        ("a blank reason", act("pause", r#"{"reason":" \n "}"#)),
        ("a reason too long", act("pause", &long)),
        ("a reason that is no text", act("pause", r#"{"reason":7}"#)),
        ("a step where there is none", act("pause", r#"{"reason":"x","step":"pick"}"#)),
        ("an unknown step", act("skip", r#"{"reason":"x","step":"pikc"}"#)),
        ("no step to skip", act("skip", reason)),
        ("nothing to retry", act("retry", reason)),
        ("resumed without a pause", act("resume", reason)),
        ("an action after the end", post(&path(&ended, "cancel"), reason)),
        ("a stale revision", if_match("\"99\"")),
        ("no revision", if_match("seven")),
        ("an unknown saga", post("/v1/sagas/00000000-0000-7000-8000-000000000000/pause", reason)),
        ("a bad UUID", post("/v1/sagas/x/pause", reason)),
        ("an unknown action", act("explode", reason)),
    ];
    check("actions", &table(&house, cases).await);
}

#[tokio::test]
async fn callers_that_are_not_let_in() {
    let tokens = vec![TokenEntry::plain("eye", Role::Viewer, "look"), TokenEntry::plain("door", Role::Starter, "open")];
    let house = House::with(AuthConfig::new(tokens)).await;
    let with_token = |request: Request<Body>, token: &str| {
        let mut request = request;
        request.headers_mut().insert("authorization", token.parse().expect("a header"));
        request
    };
    let cases = vec![
        ("no token", get("/v1/sagas")),
        ("no token for a route that is not there", get("/v1/nothing")),
        ("another scheme", with_token(get("/v1/sagas"), "Basic bG9vaw==")),
        ("a wrong token", with_token(get("/v1/sagas"), "Bearer lock")),
        ("a token that may only look", with_token(start("{}"), "Bearer look")),
        ("a token that may only start", with_token(post("/v1/sagas/x/pause", "{}"), "Bearer open")),
        (
            "a registration by one that may only start",
            with_token(with_kind("/v1/definitions", "text/yaml", ""), "Bearer open"),
        ),
    ];
    check("callers", &table(&house, cases).await);

    let open = House::new().await;
    let from = |host: &str, origin: Option<&str>| {
        let mut request = start("{}");
        request.headers_mut().insert("host", host.parse().expect("a header"));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        request
    };
    let cases = vec![
        ("a name that resolves to this machine", from("evil.example:7070", None)),
        ("a page of another site", from("127.0.0.1:7070", Some("https://evil.example"))),
        ("a page from nowhere", from("127.0.0.1:7070", Some("null"))),
    ];
    check("browsers", &table(&open, cases).await);
}

#[tokio::test]
async fn a_bad_start_in_a_batch_leaves_the_others_alone() {
    let house = House::with_place().await;
    let good = |order: &str| json!({ "saga": "place", "input": { "order": order, "total": 1 } });
    let bad_input = json!({ "saga": "place", "input": { "order": "o3", "total": 0 } });
    let sagas =
        json!([good("o1"), { "saga": 7 }, bad_input, { "saga": "plaice", "input": {} }, good("o1"), good("o2")]);
    let answer = house.post("/v1/sagas/batch", &json!({ "sagas": sagas })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let items = answer.json()["items"].as_array().expect("items").clone();
    let statuses: Vec<_> = items.iter().map(|item| item["status"].as_u64().unwrap_or_default()).collect();
    assert_eq!(statuses, [201, 400, 422, 404, 200, 201]);
    assert_eq!(items[0]["id"], items[4]["id"]);
    assert_eq!(items[1]["problem"]["errors"][0]["pointer"], "/sagas/1/saga");
    assert_eq!(items[2]["problem"]["errors"][0]["pointer"], "/input/total");
    assert_eq!(items[3]["problem"]["code"], "DEFINITION_UNKNOWN");
}

#[tokio::test]
async fn a_coordinator_that_stops_says_when_to_come_back() {
    let house = House::with_place().await;
    house.coordinator.stop().await;
    let answer = house.post("/v1/sagas", &json!({ "saga": "place", "input": { "order": "o1", "total": 1 } })).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "STOPPING"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let ready = house.get("/readyz").await;
    assert_eq!((ready.status.as_u16(), ready.code().as_str()), (503, "NOT_READY"));
    assert_eq!(house.get("/healthz").await.status, 200, "the process itself is well");
}

#[tokio::test]
async fn a_saga_that_is_not_there_looks_the_same_whoever_asks_and_however() {
    let house = House::with_place().await;
    let mut first = house.get(&format!("/v1/sagas/{NOBODY}")).await.json();
    let mut second = house.get(&format!("/v1/sagas/{NOBODY}/history")).await.json();
    for document in [&mut first, &mut second] {
        document["requestId"] = json!("");
    }
    assert_eq!(first, second);
}
