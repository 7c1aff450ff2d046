//! What commands ask a server, and what they make of its answers.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use amends::clock::Stopwatch;

use serde_json::json;

use super::canned::{Answer, Canned, json as answer};
use super::program::{Program, Said, amends};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn ask(server: &Canned, arguments: &[&str]) -> Said {
    Program::new(arguments).env("AMENDS_URL", &server.url).run()
}

fn saga(state: &str) -> serde_json::Value {
    json!({
        "id": ID, "saga": "place-order", "version": 1, "key": "o-1", "state": state, "paused": false,
        "waitingFor": null, "stuck": null, "revision": 4, "createdAt": "2026-01-31T12:00:00Z",
        "steps": [{"name": "pick", "participant": "warehouse", "status": "verified", "attempts": 1}],
    })
}

#[test]
fn help_goes_to_stdout_and_ends_well() {
    let said = amends(&["--help"]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    for command in
        ["serve", "demo", "migrate", "definitions", "sagas", "stuck", "outbox", "bench", "doctor", "completions"]
    {
        assert!(said.stdout.contains(&format!("\n  {command} ")), "{command} is not in {said}");
    }
}

#[test]
fn no_arguments_are_answered_with_help() {
    let said = amends(&[]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("amends demo"), "{said}");
}

#[test]
fn the_version_is_the_package_s() {
    assert_eq!(amends(&["--version"]).stdout.trim(), concat!("amends ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn settings_in_the_environment_are_not_shown_by_help() {
    let said = Program::new(&["--help"]).env("AMENDS_STORE", "postgres://me:secret@db/x").run();
    assert!(!said.stdout.contains("secret"), "{said}");
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = amends(&["completions", shell]);
        assert_eq!(said.code, 0, "{said}");
        assert!(said.stdout.contains("definitions"), "{shell}");
    }
}

#[test]
fn stuck_sagas_give_exit_code_three() {
    let mut stuck = saga("STUCK");
    stuck["stuck"] = json!({"step": "pick", "since": "2026-01-31T12:00:00Z"});
    let server = Canned::answering(vec![answer(200, &json!({"items": [stuck], "next": null}))]);
    let said = ask(&server, &["stuck"]);
    assert_eq!(said.code, 3, "{said}");
    assert!(said.stdout.contains(ID), "{said}");
    assert_eq!(server.asked(), ["GET /v1/sagas?state=STUCK"]);
}

#[test]
fn nothing_stuck_gives_exit_code_zero() {
    let server = Canned::answering(vec![answer(200, &json!({"items": [], "next": null}))]);
    let said = ask(&server, &["stuck", "--output", "json"]);
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said.stdout).expect("JSON")["items"], json!([]));
}

#[test]
fn a_watched_saga_that_completes_gives_exit_code_zero_and_any_other_end_three() {
    for (state, code) in [("COMPLETED", 0), ("COMPENSATED", 3), ("ABANDONED", 3), ("STUCK", 3)] {
        let server = Canned::answering(vec![answer(200, &saga("RUNNING")), answer(200, &saga(state))]);
        let said = ask(&server, &["sagas", "watch", ID]);
        assert_eq!(said.code, code, "{said}");
        assert!(said.stderr.contains(&format!("{ID} is RUNNING")), "{said}");
        assert!(said.stderr.contains(&format!("{ID} is {state}")), "{said}");
    }
}

#[test]
fn refusals_have_the_exit_codes_of_the_contract() {
    for (status, code) in [(401, 4), (403, 4), (409, 6), (412, 6), (404, 1), (422, 1), (500, 1), (503, 1)] {
        let problem = json!({"title": "no", "code": "SOME_CODE", "detail": "not that way", "requestId": "r-1"});
        let server = Canned::answering(vec![answer(status, &problem)]);
        let said = ask(&server, &["sagas", "show", ID]);
        assert_eq!(said.code, code, "{status}: {said}");
        assert_eq!(said.stdout, "");
        for part in ["not that way", "SOME_CODE", "r-1"] {
            assert!(said.stderr.contains(part), "{said}");
        }
    }
}

#[test]
fn every_error_of_a_refusal_is_told_with_its_place() {
    let problem = json!({"title": "the input does not fit", "code": "INPUT_INVALID",
        "errors": [{"pointer": "/total", "detail": "is not a number"}, {"pointer": "/lines", "detail": "is missing"}]});
    let server = Canned::answering(vec![answer(422, &problem)]);
    let said = ask(&server, &["sagas", "start", "place-order", "--input", "{}"]);
    assert!(said.stderr.contains("/total: is not a number"), "{said}");
    assert!(said.stderr.contains("/lines: is missing"), "{said}");
}

#[test]
fn an_answer_that_is_no_json_is_told_as_such() {
    let server = Canned::answering(vec![Answer { status: 200, body: "<html>".to_owned() }]);
    let said = ask(&server, &["sagas", "show", ID]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("without JSON"), "{said}");
}

#[test]
fn a_start_sends_saga_input_key_and_version() {
    let server = Canned::answering(vec![answer(201, &saga("RUNNING"))]);
    let program = Program::new(&["sagas", "start", "place-order", "--input", "-", "--key", "o-1", "--version", "2"]);
    let said = program.env("AMENDS_URL", &server.url).env("AMENDS_TOKEN", "t0ken").stdin("{\"a\": 1}").run();
    assert_eq!((said.code, said.stdout.trim()), (0, ID), "{said}");
    let asked = &server.asked()[0];
    assert!(asked.starts_with("POST /v1/sagas | authorization: bearer t0ken "), "{asked}");
    let body: serde_json::Value = serde_json::from_str(&asked[asked.find('{').expect("a body")..]).expect("JSON");
    assert_eq!(body, json!({"saga": "place-order", "input": {"a": 1}, "key": "o-1", "version": 2}));
}

#[test]
fn an_operator_s_action_sends_reason_step_and_revision() {
    let server = Canned::answering(vec![answer(200, &saga("RUNNING"))]);
    let arguments = ["sagas", "retry", ID, "--reason", "called them", "--step", "pick", "--if-revision", "4"];
    let said = ask(&server, &arguments);
    assert_eq!(said.code, 0, "{said}");
    let asked = &server.asked()[0];
    assert!(asked.starts_with(&format!("POST /v1/sagas/{ID}/retry | if-match: \"4\" ")), "{asked}");
    assert!(asked.contains(r#""reason":"called them""#) && asked.contains(r#""step":"pick""#), "{asked}");
}

#[test]
fn all_pages_are_read_when_asked_for() {
    let page = |next: serde_json::Value| answer(200, &json!({"items": [saga("COMPLETED")], "next": next}));
    let server = Canned::answering(vec![page(json!("c1")), page(json!("c2")), page(json!(null))]);
    let said = ask(&server, &["sagas", "list", "--all", "--limit", "1", "--output", "jsonl"]);
    assert_eq!(said.stdout.lines().count(), 3, "{said}");
    assert_eq!(
        server.asked(),
        ["GET /v1/sagas?limit=1", "GET /v1/sagas?limit=1&cursor=c1", "GET /v1/sagas?limit=1&cursor=c2"]
    );
}

#[test]
fn one_page_says_that_there_is_more() {
    let server = Canned::answering(vec![answer(200, &json!({"items": [saga("COMPLETED")], "next": "c1"}))]);
    let said = ask(&server, &["sagas", "list", "--saga", "place-order", "--state", "completed"]);
    assert!(said.stderr.contains("--cursor c1"), "{said}");
    assert_eq!(server.asked(), ["GET /v1/sagas?saga=place-order&state=COMPLETED"]);
}

#[test]
fn data_comes_in_every_form() {
    let server = Canned::answering(vec![answer(200, &saga("COMPLETED"))]);
    let show = |form: &str| ask(&server, &["sagas", "show", ID, "--output", form]).stdout;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&show("json")).expect("JSON"), saga("COMPLETED"));
    assert_eq!(show("jsonl").lines().count(), 1);
    assert!(show("yaml").contains("state: COMPLETED"), "{}", show("yaml"));
    assert!(show("table").contains("pick  warehouse    verified"), "{}", show("table"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let mut evil = saga("COMPLETED");
    evil["key"] = json!("\u{1b}[31mred\u{7}");
    let server = Canned::answering(vec![answer(200, &evil)]);
    let said = ask(&server, &["sagas", "show", ID]);
    assert!(!said.stdout.contains('\u{1b}') && said.stdout.contains("\\u{1b}[31mred"), "{said}");
}

#[test]
fn off_a_terminal_there_is_no_colour() {
    let server = Canned::answering(vec![answer(200, &saga("STUCK"))]);
    let said = ask(&server, &["sagas", "show", ID]);
    assert!(!said.stdout.contains('\u{1b}') && !said.stderr.contains('\u{1b}'), "{said}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("amends"))
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("amends runs");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut stderr).expect("stderr is text");
    let status = child.wait().expect("amends ends");
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn columns_are_chosen_by_name_or_by_path() {
    let server = Canned::answering(vec![answer(200, &json!({ "items": [saga("RUNNING")], "next": null }))]);
    let said = ask(&server, &["sagas", "list", "--columns", "STATE,steps.0.status,waiting-for"]);
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(said.stdout, "STATE    STEPS.0.STATUS  WAITING-FOR\nRUNNING  verified        -\n");
    let said = ask(&server, &["sagas", "list", "--columns", "sate"]);
    assert_eq!(said.code, 2, "{said}");
    assert!(said.stderr.contains("no column `sate`") && said.stderr.contains("waiting-for"), "{said}");
}

#[test]
fn a_dry_run_shows_what_would_be_sent_and_asks_for_no_reason() {
    let command = |step: &str, unknown: bool| json!({ "step": step, "direction": "compensation", "participant": "warehouse", "action": "put-back", "attempt": 1, "unknown": unknown });
    let preview = json!({
        "id": ID, "action": "compensate", "revision": 4, "state": "COMPENSATING", "ends": "COMPENSATED",
        "sends": [command("pick", true)], "follows": [command("reserve", false)], "closes": [],
    });
    let server = Canned::answering(vec![answer(200, &preview)]);
    let said = ask(&server, &["sagas", "compensate", ID, "--dry-run"]);
    assert_eq!(said.code, 0, "{said}");
    insta::assert_snapshot!(said.stdout);
    assert!(said.stderr.contains("nothing was done"), "{said}");
    assert!(server.asked()[0].contains("dryRun=true"), "{:?}", server.asked());
    assert_eq!(ask(&server, &["sagas", "compensate", ID]).code, 2, "without a reason nothing is asked of the server");
    assert_eq!(server.asked().len(), 1);
}

/// Sagas that are listed again and again.
struct Watching(Child);

impl Watching {
    fn start(server: &Canned) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_amends"))
            .args(["sagas", "list", "--watch", "0.1", "--columns", "state"])
            .env("AMENDS_URL", &server.url)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("it runs"))
    }

    /// Ctrl-C, and what it ends with.
    fn interrupt(&mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        eventually("it ends", || self.0.try_wait().expect("it can be asked")).code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls until `condition` gives something.
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Stopwatch::start();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn page(state: &str) -> Answer {
    answer(200, &json!({ "items": [saga(state)], "next": null }))
}

#[test]
fn a_list_is_asked_for_again_and_again_until_interrupted() {
    let server = Canned::answering(vec![page("RUNNING"), page("STUCK")]);
    let mut watching = Watching::start(&server);
    let mut lines = BufReader::new(watching.0.stdout.take().expect("its output")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    assert_eq!([next(), next(), next(), next()], ["STATE", "RUNNING", "STATE", "STUCK"]);
    assert_eq!(watching.interrupt(), Some(0));
}

#[test]
fn who_watches_a_list_is_heard_also_while_the_server_is_asked() {
    let server = Canned::answering(vec![page("RUNNING"), Answer::never()]);
    let mut watching = Watching::start(&server);
    eventually("it is asked again", || (server.asked().len() == 2).then_some(()));
    assert_eq!(watching.interrupt(), Some(0));
}

#[test]
fn top_is_printed_once_off_a_terminal_and_says_whether_anything_is_stuck() {
    let overview = |stuck: serde_json::Value| {
        answer(
            200,
            &json!({
                "at": "2026-01-31T12:00:00Z", "states": [{ "state": "STUCK", "count": 2, "more": false }], "stuck": stuck,
                "activity": { "started": [1, 2], "ended": [1, 1], "p50Ms": [4, 4], "p95Ms": [9, 9] }, "participants": [],
            }),
        )
    };
    let group = json!([{
        "saga": "place-order", "version": 1, "step": "pick", "participant": "warehouse", "action": "pick",
        "direction": "action", "error": "timeout", "count": 2, "since": "2026-01-31T11:00:00Z",
    }]);
    let server = Canned::answering(vec![overview(group), overview(json!([]))]);
    let said = ask(&server, &["top"]);
    assert_eq!(said.code, 3, "{said}");
    assert!(said.stdout.contains("warehouse.pick"), "{said}");
    assert_eq!(ask(&server, &["top", "--once"]).code, 0);
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = amends(&["manual", "--out", &folder.path().display().to_string()]);
    assert_eq!(said.code, 0, "{said}");
    for page in ["amends", "amends-serve", "amends-sagas-retry", "amends-definitions-check"] {
        let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".TH") && text.contains("\\-\\-store"), "{page}: {text}");
    }
    assert!(amends(&["manual"]).stdout.contains(".TH amends"));
}
