//! `definitions diff|deprecate|undeprecate|advise` and `sagas migrate`.

use serde_json::{Value, json};

use super::canned::{Canned, json as answer};
use super::program::{Program, Said, amends};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn source(version: u32, timeout: &str) -> String {
    format!(
        "saga: place-order\nversion: {version}\nsteps:\n  - {{ name: pick, participant: warehouse, action: pick, \
         timeout: {timeout}, compensation: none }}\n"
    )
}

fn ask(server: &Canned, arguments: &[&str]) -> Said {
    Program::new(arguments).env("AMENDS_URL", &server.url).run()
}

fn parsed(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn item(id: &str, why: Option<&str>) -> Value {
    let reasons: Vec<Value> = why.iter().map(|why| json!({ "code": "STEP_CHANGED", "why": why })).collect();
    json!({ "id": id, "state": "RUNNING", "from": 1, "to": 2, "compatible": reasons.is_empty(), "reasons": reasons })
}

#[test]
fn two_files_are_compared_without_a_server() {
    let program = Program::new(&["definitions", "diff", "one.yaml", "two.yaml"]);
    let said = program.file("one.yaml", &source(1, "30s")).file("two.yaml", &source(2, "2m")).run();
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("pick  changed  timeout  30s   2m"), "{said}");
    assert!(said.stderr.contains("sagas in flight are not touched"), "{said}");
    let program = Program::new(&["definitions", "diff", "one.yaml", "one.yaml", "--output", "json"]);
    let said = program.file("one.yaml", &source(1, "30s")).run();
    assert_eq!((&parsed(&said)["same"], &parsed(&said)["inFlight"]), (&json!(true), &Value::Null));
}

#[test]
fn a_file_with_errors_is_not_compared() {
    let program = Program::new(&["definitions", "diff", "one.yaml", "two.yaml"]);
    let said = program.file("one.yaml", &source(1, "30s")).file("two.yaml", "saga: x").run();
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stderr.contains("`two.yaml` has errors"), "{said}");
}

#[test]
fn what_is_neither_a_file_nor_a_version_is_named() {
    let said = amends(&["definitions", "diff", "one.yaml", "two.yaml"]);
    assert_eq!(said.code, 2, "{said}");
    assert!(said.stderr.contains("one.yaml"), "{said}");
}

#[test]
fn versions_on_the_server_are_compared_with_what_is_in_flight() {
    let of = |version, timeout| answer(200, &json!({ "source": source(version, timeout) }));
    let page = |items: Value, next: Value| answer(200, &json!({ "items": items, "next": next }));
    let server = Canned::answering(vec![
        of(1, "30s"),
        of(2, "2m"),
        page(json!([item(ID, None), item(ID, Some("no"))]), json!("c1")),
        page(json!([item(ID, None)]), Value::Null),
    ]);
    let said = ask(&server, &["definitions", "diff", "place-order@1", "place-order@2", "--output", "json"]);
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(parsed(&said)["inFlight"], json!({ "count": 3, "movable": 2, "keepTheirVersion": true }));
    assert_eq!(
        server.asked(),
        [
            "GET /v1/definitions/place-order/1",
            "GET /v1/definitions/place-order/2",
            "GET /v1/definitions/place-order/1/migration?to=2",
            "GET /v1/definitions/place-order/1/migration?to=2&cursor=c1",
        ]
    );
}

#[test]
fn deprecating_sends_the_reason_and_says_what_it_means() {
    let deprecated = json!({ "deprecated": { "at": "2026-01-31T12:00:00Z", "by": "anna", "reason": "loses orders" } });
    let server = Canned::answering(vec![answer(200, &deprecated), answer(200, &json!({}))]);
    let said = ask(&server, &["definitions", "deprecate", "place-order@2", "--reason", "loses orders"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("nothing new is started with it"), "{said}");
    let said = ask(&server, &["definitions", "undeprecate", "place-order@2", "--reason", "mended"]);
    assert_eq!(said.stdout.trim(), "place-order v2 is not deprecated");
    assert_eq!(
        server.asked(),
        [
            r#"POST /v1/definitions/place-order/2/deprecate {"reason":"loses orders"}"#,
            r#"POST /v1/definitions/place-order/2/undeprecate {"reason":"mended"}"#,
        ]
    );
    for wrong in ["place-order", "place-order@0"] {
        assert_eq!(amends(&["definitions", "deprecate", wrong, "--reason", "x"]).code, 2, "{wrong}");
    }
}

#[test]
fn one_saga_is_moved_after_its_plan_says_yes() {
    let saga = json!({ "id": ID, "state": "RUNNING" });
    let server = Canned::answering(vec![answer(200, &item(ID, None)), answer(200, &saga)]);
    let said = ask(&server, &["sagas", "migrate", ID, "--to", "2", "--reason", "mend it"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stderr.contains("1 moved to version 2, 0 refused"), "{said}");
    let asked = server.asked();
    assert_eq!(asked[0], format!("GET /v1/sagas/{ID}/migration?to=2"));
    assert_eq!(asked[1], format!(r#"POST /v1/sagas/{ID}/migrate {{"reason":"mend it","to":2}}"#));
}

#[test]
fn a_refused_move_tells_why_and_is_a_conflict() {
    let server = Canned::answering(vec![answer(200, &item(ID, Some("`pick` was sent and is gone")))]);
    let said = ask(&server, &["sagas", "migrate", ID, "--to", "2", "--reason", "mend it"]);
    assert_eq!(said.code, 6, "{said}");
    assert!(said.stdout.contains("`pick` was sent and is gone"), "{said}");
    assert_eq!(server.asked().len(), 1, "nothing was tried");
}

#[test]
fn a_dry_run_moves_nothing_and_tells_by_its_exit_code() {
    let page = json!({ "items": [item(ID, None), item(ID, Some("no"))], "next": null });
    let server = Canned::answering(vec![answer(200, &page)]);
    let arguments = ["sagas", "migrate", "--saga", "place-order", "--from", "1", "--to", "2", "--dry-run"];
    let said = ask(&server, &arguments);
    assert_eq!(said.code, 3, "{said}");
    assert!(said.stderr.contains("1 could be moved to version 2, 1 refused"), "{said}");
    assert_eq!(server.asked(), ["GET /v1/definitions/place-order/1/migration?to=2"]);
}

#[test]
fn a_move_that_fails_meanwhile_is_told_among_the_others() {
    let page = json!({ "items": [item(ID, None)], "next": null });
    let problem = json!({ "title": "no", "code": "MIGRATION_REFUSED", "detail": "it has ended" });
    let server = Canned::answering(vec![answer(200, &page), answer(409, &problem)]);
    let arguments = ["sagas", "migrate", "--saga", "place-order", "--from", "1", "--to", "2", "--reason", "x"];
    let said = ask(&server, &arguments);
    assert_eq!(said.code, 6, "{said}");
    assert!(said.stdout.contains("it has ended"), "{said}");
}

#[test]
fn a_move_needs_a_saga_or_a_version_and_a_reason() {
    for wrong in [
        vec!["sagas", "migrate", "--to", "2", "--reason", "x"],
        vec!["sagas", "migrate", ID, "--to", "2"],
        vec!["sagas", "migrate", ID, "--reason", "x"],
        vec!["sagas", "migrate", "--saga", "place-order", "--to", "2", "--reason", "x"],
        vec!["sagas", "migrate", ID, "--saga", "place-order", "--from", "1", "--to", "2", "--reason", "x"],
    ] {
        assert_eq!(amends(&wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn advice_is_told_in_sentences_and_what_is_thin_apart_from_it() {
    let found = json!({
        "saga": "place-order", "version": 2, "sagas": 1340,
        "moves": [{ "text": "move `pick` before `authorise-payment`: 212 of 1,340 sagas ..." }],
        "order": ["pick", "authorise-payment"], "timeouts": [], "retries": [{ "text": "retries of `pick` never helped" }],
        "silent": ["time-outs: no step has 100 measured successes yet"], "criterion": "advice is given where ...",
    });
    let mut nothing = found.clone();
    for list in ["moves", "order", "retries", "silent"] {
        nothing[list] = json!([]);
    }
    let server = Canned::answering(vec![answer(200, &found), answer(200, &nothing)]);
    let said = ask(&server, &["definitions", "advise", "place-order", "--version", "2", "--since", "30d"]);
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(
        said.stdout.trim_end().lines().collect::<Vec<_>>(),
        [
            "move `pick` before `authorise-payment`: 212 of 1,340 sagas ...",
            "retries of `pick` never helped",
            "the order would be: pick, authorise-payment",
        ]
    );
    assert!(said.stderr.contains("nothing can be said about time-outs"), "{said}");
    let said = ask(&server, &["definitions", "advise", "place-order"]);
    assert_eq!(said.stdout.trim(), "no advice for place-order v2 from 1340 sagas that ended");
    assert_eq!(
        server.asked(),
        ["GET /v1/definitions/place-order/advice?version=2&since=30d", "GET /v1/definitions/place-order/advice"]
    );
}
