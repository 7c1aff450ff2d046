//! `--dry-run`: what would be done is told, and nothing that changes anything is asked of the server.

use serde_json::json;

use super::canned::{Canned, json as answer};
use super::program::{Program, Said};

const SOURCE: &str = "
saga: place-order
version: 2
key: ${ input.orderId }
input: { schema: { type: object, required: [orderId], properties: { orderId: { type: string } } } }
steps:
  - { name: pick, participant: warehouse, action: pick, compensation: none }
";

fn ask(server: &Canned, arguments: &[&str]) -> Said {
    Program::new(arguments).file("order.yaml", SOURCE).env("AMENDS_URL", &server.url).run()
}

fn only_read(server: &Canned) {
    assert!(server.asked().iter().all(|asked| asked.starts_with("GET ")), "{:?}", server.asked());
}

#[test]
fn a_start_is_told_with_version_and_key_or_what_is_wrong_with_its_input() {
    let versions =
        json!({ "items": [{ "version": 1 }, { "version": 2 }, { "version": 3, "deprecated": { "reason": "no" } }] });
    let server = Canned::answering(vec![answer(200, &versions), answer(200, &json!({ "source": SOURCE }))]);
    let said = ask(&server, &["sagas", "start", "place-order", "--dry-run", "--input", "{\"orderId\": \"o-1\"}"]);
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(said.stdout.trim(), "place-order v2 would be started with the key o-1");
    assert!(said.stderr.contains("nothing was started"), "{said}");
    let said =
        ask(&server, &["sagas", "start", "place-order", "--version", "2", "--dry-run", "--input", "{\"orderId\": 7}"]);
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stderr.contains("/orderId"), "{said}");
    only_read(&server);
}

#[test]
fn a_registration_is_told_as_new_and_one_of_other_content_is_a_conflict() {
    let unknown = json!({ "title": "the definition has no such version", "code": "VERSION_UNKNOWN" });
    let server = Canned::answering(vec![answer(404, &unknown), answer(200, &json!({ "hash": "00ff" }))]);
    let said = ask(&server, &["definitions", "register", "order.yaml", "--dry-run"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("would be registered"), "{said}");
    let said = ask(&server, &["definitions", "register", "order.yaml", "--dry-run"]);
    assert_eq!(said.code, 6, "{said}");
    assert!(said.stdout.contains("would be refused"), "{said}");
    only_read(&server);
}

#[test]
fn a_deprecation_and_a_signal_are_told_without_a_reason_or_a_payload() {
    let server = Canned::answering(vec![answer(200, &json!({ "deprecated": null }))]);
    let said = ask(&server, &["definitions", "deprecate", "place-order@2", "--dry-run"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("would take no new starts"), "{said}");
    let said = ask(&server, &["definitions", "deprecate", "place-order@2"]);
    assert_eq!(said.code, 2, "a reason is needed: {said}");
    let found = json!({ "items": [{ "id": "7" }] });
    let saga = json!({ "id": "7", "saga": "place-order", "version": 2, "state": "RUNNING", "steps": [] });
    let waiting = Canned::answering(vec![answer(200, &found), answer(200, &saga)]);
    let said = ask(&waiting, &["sagas", "signal", "approval", "--saga", "place-order", "--key", "o-1", "--dry-run"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stderr.contains("saga 7 would be told of `approval`"), "{said}");
    only_read(&server);
    only_read(&waiting);
}

#[test]
fn columns_are_chosen_for_every_list() {
    let items =
        |item: serde_json::Value| Canned::answering(vec![answer(200, &json!({ "items": [item], "next": null }))]);
    for (arguments, item) in [
        (&["participants", "--columns", "name"][..], json!({ "name": "warehouse", "consumers": 0 })),
        (&["definitions", "list", "--columns", "name"], json!({ "name": "warehouse", "version": 1 })),
        (&["outbox", "--columns", "name"], json!({ "name": "warehouse" })),
        (
            &["sagas", "history", "0198c0de-0000-7000-8000-000000000001", "--columns", "name"],
            json!({ "name": "warehouse" }),
        ),
    ] {
        let said = ask(&items(item), arguments);
        assert_eq!((said.code, said.stdout.as_str()), (0, "NAME\nwarehouse\n"), "{arguments:?}: {said}");
    }
}
