//! `definitions check` and `explain`: what people, scripts and build servers are given.

use serde_json::Value;

use crate::program::{Program, Said, amends};

const FAULTY: &str = "saga: place-order\nversion: 1\ntimeout: 1m\nsteps:\n  - name: pick\n    participant: warehouse\n    \
                      action: pick\n    after: [pikc]\n    compensation: none\n";
const WARNED: &str = "saga: place-order\nversion: 1\nsteps:\n  - name: hold\n    participant: rooms\n    action: set\n    \
                      compensation: { action: set }\n";
const RIGHT: &str = "saga: place-order\nversion: 1\nsteps:\n  - name: hold\n    participant: rooms\n    action: hold\n    \
                     compensation: { action: release }\n";

fn check(arguments: &[&str], files: &[(&str, &str)]) -> Said {
    let all: Vec<&str> = ["definitions", "check"].iter().chain(arguments).copied().collect();
    let program = Program::new(&all);
    files.iter().fold(program, |program, (name, text)| program.file(name, text)).run()
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn warnings_are_told_and_do_not_fail_unless_they_are_denied() {
    let files = [("a.yaml", WARNED)];
    let said = check(&["a.yaml"], &files);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stderr.contains("DEF_COMPENSATION_SAME") && said.stdout.contains("1 warning"), "{said}");
    let said = check(&["a.yaml", "--deny-warnings"], &files);
    assert_eq!(said.code, 1, "{said}");
    assert!(said.stderr.contains("warnings are denied"), "{said}");
    assert_eq!(check(&["b.yaml", "--deny-warnings"], &[("b.yaml", RIGHT)]).code, 0);
}

#[test]
fn a_script_is_given_every_finding_with_its_place() {
    let said = check(&["a.yaml", "b.yaml", "--output", "json"], &[("a.yaml", FAULTY), ("b.yaml", RIGHT)]);
    assert_eq!(said.code, 1, "{said}");
    let document = json(&said);
    let found = &document["items"][0]["diagnostics"][0];
    let expected = serde_json::json!({
        "code": "DEF_AFTER_UNKNOWN", "severity": "error", "file": "a.yaml", "line": 8, "column": 13, "endLine": 8,
        "endColumn": 17, "message": "there is no step `pikc`", "help": "did you mean `pick`?",
        "pointer": "/steps/0/after/0", "text": "pikc", "fingerprint": found["fingerprint"],
    });
    assert_eq!(*found, expected);
    let right = &document["items"][1];
    assert_eq!((&right["valid"], &right["diagnostics"]), (&Value::from(true), &serde_json::json!([])));
    let sentence = "5 attempts = 1 + 4 retries, at most 15 s of backoff and 2 min 30 s of attempts";
    assert_eq!(right["budgets"][0]["sentence"], sentence);
}

#[test]
fn a_finding_is_known_again_when_it_moves() {
    let fingerprint = |text: &str| {
        let said = check(&["a.yaml", "--output", "json"], &[("a.yaml", text)]);
        json(&said)["items"][0]["diagnostics"][0]["fingerprint"].clone()
    };
    let first = fingerprint(WARNED);
    assert!(first.as_str().is_some_and(|text| text.len() == 16), "{first}");
    let step = "steps:\n  - { name: create, participant: orders, action: create, compensation: none }\n";
    assert_eq!(fingerprint(&WARNED.replace("steps:\n", step)), first);
    assert_ne!(fingerprint(&WARNED.replace("name: hold", "name: keep")), first);
}

#[test]
fn build_servers_are_given_their_own_forms() {
    let files = [("a.yaml", FAULTY), ("b.yaml", WARNED)];
    let said = check(&["a.yaml", "b.yaml", "--report", "github"], &files);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "::error file=a.yaml,line=8,endLine=8,col=13,endColumn=17,title=DEF_AFTER_UNKNOWN::there is no step `pikc` (did \
         you mean `pick`?)"
    );
    assert!(lines[1].starts_with("::warning file=b.yaml,line=7,"), "{said}");
    let sarif = json(&check(&["a.yaml", "b.yaml", "--report", "sarif"], &files));
    assert_eq!(sarif["version"], "2.1.0");
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!((&result["ruleId"], &result["level"]), (&"DEF_AFTER_UNKNOWN".into(), &"error".into()));
    assert_eq!(result["locations"][0]["physicalLocation"]["region"]["startLine"], 8);
    assert_eq!(sarif["runs"][0]["tool"]["driver"]["rules"].as_array().map(Vec::len), Some(2));
}

#[test]
fn each_steps_budget_is_a_sentence() {
    let said = check(&["b.yaml", "--budgets"], &[("b.yaml", RIGHT)]);
    let told = "  hold: 5 attempts = 1 + 4 retries, at most 15 s of backoff and 2 min 30 s of attempts";
    assert!(said.stdout.lines().any(|line| line == told), "{said}");
    assert!(said.stdout.contains("  hold (compensation): 20 attempts = 1 + 19 retries"), "{said}");
}

#[test]
fn files_are_checked_together() {
    let child = "saga: pay\nversion: 1\nsteps:\n  - { name: charge, participant: p, action: charge, pivot: true, compensation: none }\n";
    let parent = "saga: parent\nversion: 1\nsteps:\n  - { name: first, saga: pay }\n";
    assert_eq!(check(&["parent.yaml"], &[("parent.yaml", parent)]).code, 0);
    let said = check(&["parent.yaml", "child.yaml"], &[("parent.yaml", parent), ("child.yaml", child)]);
    assert!(said.code == 1 && said.stderr.contains("DEF_SAGA_PIVOT"), "{said}");
}

#[test]
fn a_code_is_explained_with_the_mistake_and_how_it_is_mended() {
    let said = amends(&["explain", "def_cycle"]);
    assert_eq!(said.code, 0, "{said}");
    assert!(said.stdout.starts_with("DEF_CYCLE: steps wait for each other\n"), "{said}");
    assert!(said.stdout.contains("```yaml faulty") && said.stdout.contains("```yaml mended"), "{said}");
    let said = amends(&["explain", "KEY_CONFLICT"]);
    assert!(said.code == 0 && said.stdout.contains("HTTP: 409"), "{said}");
    let said = amends(&["explain", "DEF_CYCEL"]);
    assert!(said.code == 2 && said.stderr.contains("did you mean DEF_CYCLE?"), "{said}");
}

#[test]
fn all_codes_are_listed() {
    let said = amends(&["explain", "--output", "json"]);
    let items = json(&said)["items"].as_array().map(Vec::len);
    assert!(items.is_some_and(|count| count > 80), "{items:?}");
    assert!(amends(&["explain"]).stdout.lines().any(|line| line.starts_with("DEF_CYCLE ")));
}
