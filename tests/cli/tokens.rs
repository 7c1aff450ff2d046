//! `amends tokens`, on the store itself.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::program::{Program, Said};

/// Runs `amends` on the store in `folder`.
fn on(folder: &std::path::Path, arguments: &[&str]) -> Said {
    let store = format!("sqlite://{}", folder.join("amends.db").display());
    let arguments = [arguments, &["--store", &store]].concat();
    Program::new(&arguments).env("USER", "anna").run()
}

fn json(said: &Said) -> Value {
    assert_eq!(said.code, 0, "{said}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn the_first_token_is_made_shown_once_listed_and_revoked() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let made = on(folder, &["tokens", "create", "ci", "--role", "starter", "--expires", "90d"]);
    assert_eq!(made.code, 0, "{made}");
    let token = made.stdout.trim();
    let digits = token.strip_prefix("amends_default_").expect("a prefix that is recognised");
    assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    assert_eq!(made.stdout, format!("{token}\n"), "and nothing else");
    assert!(made.stderr.contains("`ci` is starter, until "), "{made}");

    let listed = on(folder, &["tokens", "list", "--output", "json"]);
    assert!(!listed.stdout.contains(digits), "{listed}");
    let item = &json(&listed)["items"][0];
    assert_eq!((&item["name"], &item["role"], &item["state"]), (&"ci".into(), &"starter".into(), &"good".into()));
    assert_eq!((&item["createdBy"], &item["lastUsedAt"]), (&"cli:anna".into(), &Value::Null));

    let again = on(folder, &["tokens", "create", "ci", "--role", "viewer"]);
    assert_eq!((again.code, again.stdout.as_str()), (6, ""), "{again}");
    assert!(again.stderr.contains("amends tokens revoke ci --reason"), "{again}");

    let unsaid = on(folder, &["tokens", "revoke", "ci"]);
    assert_eq!(unsaid.code, 2, "a reason is asked for: {unsaid}");
    let revoked = on(folder, &["tokens", "revoke", "ci", "--reason", "the laptop was stolen"]);
    assert_eq!((revoked.code, revoked.stdout.as_str()), (0, ""), "{revoked}");
    assert!(revoked.stderr.contains("`ci` is revoked; coordinators refuse it within 2 s"), "{revoked}");
    assert_eq!(on(folder, &["tokens", "revoke", "ci", "--reason", "again"]).code, 0);
    let unknown = on(folder, &["tokens", "revoke", "nobody", "--reason", "x"]);
    assert_eq!(unknown.code, 1, "{unknown}");
    assert_eq!(json(&on(folder, &["tokens", "list", "--output", "json"]))["items"], Value::Array(Vec::new()));
    let all = json(&on(folder, &["tokens", "list", "--all", "--output", "json"]));
    let item = &all["items"][0];
    assert_eq!((&item["state"], &item["revokeReason"]), (&"revoked".into(), &"the laptop was stolen".into()));
}

#[test]
fn what_cannot_be_a_token_is_refused_before_the_store_is_opened() {
    for (arguments, told) in [
        (&["tokens", "create", "a b", "--role", "viewer"][..], "letters, digits"),
        (&["tokens", "create", "oidc:eve", "--role", "admin"], "letters, digits"),
        (&["tokens", "create", "ci", "--role", "root"], "viewer"),
        (&["tokens", "create", "ci", "--role", "viewer", "--expires", "0s"], "ten years"),
        (&["tokens", "create", "ci", "--role", "viewer", "--expires", "9999d"], "ten years"),
    ] {
        let said = Program::new(arguments).env("AMENDS_STORE", "postgres://127.0.0.1:1/none").run();
        assert!(said.code == 2 && said.stderr.contains(told), "{arguments:?}: {said}");
    }
    let said = Program::new(&["tokens", "list"]).env("AMENDS_STORE", "memory:").run();
    assert!(said.code == 2 && said.stderr.contains("keeps no tokens"), "{said}");
}

#[test]
fn with_a_token_in_the_store_other_machines_may_ask() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite://{}", folder.path().join("amends.db").display());
    assert_eq!(on(folder.path(), &["tokens", "create", "ci", "--role", "viewer"]).code, 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.env_clear().env("HOME", folder.path()).args(["serve", "--http", "0.0.0.0:0", "--store", &store]);
    let mut server = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = Vec::new();
    for line in BufReader::new(server.stderr.take().expect("stderr")).lines() {
        said.push(line.expect("text"));
        if said.iter().any(|line| line.contains("amends is ready")) {
            break;
        }
    }
    let is_running = server.try_wait().expect("it can be asked").is_none();
    server.kill().expect("it is killed");
    server.wait().expect("it ends");
    assert!(is_running, "{said:?}");
    // Once it is revoked there is none that is good.
    assert_eq!(on(folder.path(), &["tokens", "revoke", "ci", "--reason", "over"]).code, 0);
    let refused = on(folder.path(), &["serve", "--http", "0.0.0.0:0"]);
    assert!(refused.code == 2 && refused.stderr.contains("amends tokens create NAME"), "{refused}");
}
