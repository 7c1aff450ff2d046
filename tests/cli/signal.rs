//! `amends sagas signal`: what is sent, what is said of the answer, and the exit codes.

use serde_json::{Value, json};

use super::canned::{Answer, Canned, json as answer};
use super::program::{Program, Said};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn heard(is_duplicate: bool) -> Answer {
    let saga = json!({
        "id": ID, "saga": "business-trip", "version": 1, "key": "t-1", "state": "RUNNING", "paused": false,
        "waitingFor": null, "stuck": null, "revision": 4, "createdAt": "2026-01-31T12:00:00Z", "steps": [],
    });
    answer(200, &json!({ "isDuplicate": is_duplicate, "saga": saga }))
}

fn signal(server: &Canned, arguments: &[&str]) -> Program {
    let all: Vec<&str> = ["sagas", "signal"].iter().chain(arguments).copied().collect();
    Program::new(&all).env("AMENDS_URL", &server.url)
}

/// What was sent to `POST /v1/signals`, if anything was.
fn sent(server: &Canned) -> Option<Value> {
    let asked = server.asked().pop()?;
    let body = asked.strip_prefix("POST /v1/signals ").unwrap_or_else(|| panic!("{asked}"));
    Some(serde_json::from_str(body).expect("JSON"))
}

#[test]
fn a_signal_goes_to_an_id_or_to_a_key_with_its_payload() {
    let by = json!({ "by": "ada" });
    let key = ["approval", "--saga", "business-trip", "--key", "t-1"];
    let to_key = json!({ "saga": "business-trip", "key": "t-1", "signal": "approval" });
    let with = |mut body: Value| {
        body["payload"] = by.clone();
        body
    };
    let to_id = json!({ "sagaId": ID, "signal": "approval" });
    let cases: [(&[&str], Value); 4] = [
        (&[ID, "approval"], to_id.clone()),
        (&key, to_key.clone()),
        (&[ID, "approval", "--payload", r#"{"by":"ada"}"#], with(to_id)),
        (&[&key[..], &["--payload", "@approval.json"]].concat(), with(to_key.clone())),
    ];
    for (arguments, body) in cases {
        let server = Canned::answering(vec![heard(false)]);
        let said = signal(&server, arguments).file("approval.json", &by.to_string()).run();
        assert_eq!((said.code, sent(&server)), (0, Some(body)), "{arguments:?}: {said}");
        assert!(said.stderr.contains(&format!("saga {ID} has `approval`; it is RUNNING")), "{said}");
        assert!(said.stdout.contains(ID), "{said}");
    }
    let server = Canned::answering(vec![heard(false)]);
    let said = signal(&server, &[&key[..], &["--payload", "-"]].concat()).stdin(&by.to_string()).run();
    assert_eq!((said.code, sent(&server)), (0, Some(with(to_key))), "{said}");
}

#[test]
fn a_signal_that_the_saga_had_is_no_failure_and_is_told() {
    let server = Canned::answering(vec![heard(true)]);
    let said = signal(&server, &[ID, "approval"]).run();
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stderr.contains("had `approval` already, and the first one counts"), "{said}");
}

#[test]
fn a_signal_that_is_refused_has_the_exit_code_of_its_refusal() {
    for (status, code, exit) in [
        (404, "SAGA_UNKNOWN", 1),
        (409, "ACTION_NOT_ALLOWED", 6),
        (422, "SIGNAL_UNKNOWN", 1),
        (403, "FORBIDDEN", 4),
        (401, "UNAUTHENTICATED", 4),
    ] {
        let problem = json!({ "title": "no", "code": code, "detail": "not that way", "requestId": "r-1" });
        let server = Canned::answering(vec![answer(status, &problem)]);
        let said: Said = signal(&server, &[ID, "approval"]).run();
        assert_eq!((said.code, said.stdout.as_str()), (exit, ""), "{said}");
        assert!(said.stderr.contains(code) && said.stderr.contains("not that way"), "{said}");
    }
}

#[test]
fn a_signal_that_cannot_be_meant_is_a_usage_error_and_nothing_is_sent() {
    let cases: [&[&str]; 8] = [
        &[],
        &["approval"],
        &["no-id", "approval"],
        &[ID, "approval", "--saga", "business-trip", "--key", "t-1"],
        &["approval", "--saga", "business-trip"],
        &["approval", "--key", "t-1"],
        &[ID, "approval", "--payload", "{by: ada}"],
        &[ID, "approval", "more"],
    ];
    for arguments in cases {
        let server = Canned::answering(vec![heard(false)]);
        let said = signal(&server, arguments).run();
        assert_eq!((said.code, said.stdout.as_str()), (2, ""), "{arguments:?}: {said}");
        assert_eq!(server.asked(), Vec::<String>::new(), "{arguments:?}");
    }
}
