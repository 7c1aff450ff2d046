//! Pictures, from files and from a server.

use serde_json::json;

use super::canned::{Canned, json as answer};
use super::program::Program;

const ORDER: &str = include_str!("../../sagas/place-order.yaml");
const ID: &str = "0198c0de-0000-7000-8000-000000000001";

#[test]
fn a_file_is_drawn_in_each_form_without_a_server() {
    for (form, start) in [("svg", "<svg "), ("mermaid", "flowchart TD"), ("dot", "digraph ")] {
        let said = Program::new(&["definitions", "graph", "order.yaml", "-o", form]).file("order.yaml", ORDER).run();
        assert_eq!(said.code, 0, "{said}");
        assert!(said.stdout.starts_with(start) && said.stdout.contains("confirm-order"), "{said}");
    }
    let said = Program::new(&["definitions", "graph", "-"]).stdin(ORDER).run();
    assert!(said.stdout.starts_with("<svg ") && said.stdout.ends_with("</svg>\n"), "{said}");
}

#[test]
fn a_file_with_errors_is_told_them_and_not_drawn() {
    let said = Program::new(&["definitions", "graph", "x.yaml"]).file("x.yaml", "saga: x\nversion: 1\n").run();
    assert_eq!((said.code, said.stdout.as_str()), (1, ""));
    assert!(said.stderr.contains("DEF_FIELD_MISSING") && said.stderr.contains("cannot be drawn"), "{said}");
}

#[test]
fn a_version_that_is_none_is_refused_before_a_server_is_asked() {
    let said = Program::new(&["definitions", "graph", "place-order@newest"]).run();
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("write for example place-order@1"), "{said}");
}

#[test]
fn a_registered_definition_is_drawn_in_its_newest_version_unless_told() {
    let server = Canned::answering(vec![
        answer(200, &json!({ "name": "place-order", "newest": 2, "items": [] })),
        answer(200, &json!({ "name": "place-order", "version": 2, "source": ORDER })),
    ]);
    let said = Program::new(&["definitions", "graph", "place-order", "-o", "dot"]).env("AMENDS_URL", &server.url).run();
    assert!(said.stdout.starts_with("digraph "), "{said}");
}

#[test]
fn a_saga_is_drawn_with_its_states() {
    let step = |name: &str, status: &str| json!({ "name": name, "participant": "p", "action": "a", "status": status, "attempts": 1 });
    let saga = json!({
        "id": ID, "saga": "place-order", "version": 1, "key": "o-1", "state": "RUNNING", "paused": false, "input": {},
        "output": null, "waitingFor": "a reply", "stuck": null, "revision": 4, "createdAt": "2026-01-31T12:00:00Z",
        "updatedAt": "2026-01-31T12:00:00Z", "endedAt": null,
        "steps": [step("create-order", "verified"), step("pick", "pending")],
    });
    let server = Canned::answering(vec![
        answer(200, &saga),
        answer(200, &json!({ "name": "place-order", "version": 1, "source": ORDER })),
    ]);
    let said = Program::new(&["sagas", "graph", ID, "-o", "mermaid"]).env("AMENDS_URL", &server.url).run();
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.contains("class s0 verified") && said.stdout.contains("class s2 pending"), "{said}");
}
