//! The real program, with a settings file.

use amends::store;
use serde_json::Value;

use crate::support;
use crate::support::eventually;

/// The settings of a server with a namespace that works and one that does not.
fn settings(folder: &std::path::Path, port: u16) -> std::path::PathBuf {
    use sha2::{Digest, Sha256};
    let token = |name: &str, more: &str| {
        let hash = hex::encode(Sha256::digest(format!("token-of-{name}")));
        format!("[[tokens]]\nname = \"{name}\"\nrole = \"admin\"\nsha256 = \"{hash}\"\n{more}\n")
    };
    let text = [
        format!("store = \"sqlite://{}\"\nhttp = \"127.0.0.1:{port}\"", folder.join("amends.db").display()),
        "[[namespaces]]\nname = \"acme\"".to_owned(),
        "[[namespaces]]\nname = \"broken\"\nstore = \"sqlite:///nowhere/at/all.db\"".to_owned(),
        token("anna", "namespace = \"acme\""),
        token("olga", "namespaces = [\"*\"]"),
    ];
    let file = folder.join("amends.toml");
    std::fs::write(&file, text.join("\n")).expect("the settings are written");
    file
}

#[tokio::test]
async fn a_process_serves_those_that_can_be_opened() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let port = support::processes::free_port();
    let settings = settings(folder.path(), port);
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        let output = command.arg("--config").arg(&settings).args(arguments).output().await.expect("amends runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["migrate", "--namespace", "acme"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.path().join("amends.acme.db").exists() && !folder.path().join("amends.db").exists());
    let (code, said) = run(&["migrate", "--all"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("broken") && folder.path().join("amends.db").exists(), "the others all the same: {said}");
    assert_eq!(run(&["migrate", "--namespace", "Not-A-Name"]).await.0, Some(2));

    let mut serve = std::process::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
    serve.arg("serve").arg("--config").arg(&settings);
    let mut serve = support::processes::Process::start("amends", &mut serve, folder.path().join("log"));
    let readyz = eventually("the server answers", async || {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.ok()?;
        answer.json::<Value>().await.ok().filter(|answer| answer["status"] == "degraded")
    })
    .await;
    assert_eq!(readyz["notReady"], Value::Null, "who shows no token is told no names");
    for (token, namespace, expected) in [
        ("token-of-anna", None, 0),
        ("token-of-anna", Some("acme"), 0),
        ("token-of-anna", Some("default"), 1),
        ("token-of-anna", Some("broken"), 1),
        ("token-of-olga", Some("default"), 0),
        ("token-of-olga", Some("acme"), 0),
        ("token-of-olga", Some("broken"), 1),
        ("token-of-nobody", Some("acme"), 4),
    ] {
        let mut arguments = vec!["--token", token, "definitions", "list"];
        arguments.extend(namespace.iter().flat_map(|namespace| ["--namespace", *namespace]));
        let (code, said) = run(&arguments).await;
        assert_eq!(code, Some(expected), "{token} {namespace:?}: {said}");
    }
    let told = std::process::Command::new("kill").args(["-TERM", &serve.id().to_string()]).status();
    assert!(told.expect("it is told to stop").success());
    assert_eq!(serve.wait().code(), Some(0), "{}", serve.tail());
}

#[tokio::test]
async fn other_machines_are_not_let_in_before_a_store_has_a_token_and_nothing_is_begun() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("amends.toml");
    let store = format!("sqlite://{}", folder.path().join("amends.db").display());
    let text = format!("store = \"{store}\"\nhttp = \"0.0.0.0:0\"\n[[namespaces]]\nname = \"acme\"\n");
    std::fs::write(&file, text).expect("the settings are written");
    let amends = |arguments: &[&str]| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        command.arg("--config").arg(&file).args(arguments);
        command
    };
    let run = |arguments: &[&str]| {
        let output = amends(arguments).output().expect("amends runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["serve", "--namespace", "acme"]);
    assert!(code == Some(2) && said.contains("all namespaces"), "{code:?}: {said}");
    let (code, said) = run(&["serve"]);
    assert!(code == Some(2) && said.contains("amends tokens create NAME"), "{code:?}: {said}");
    for name in ["amends.db", "amends.acme.db"] {
        let url = format!("sqlite://{}", folder.path().join(name).display());
        let schema = store::open(&url).await.expect("the store opens").check_schema().await;
        let is_empty = matches!(schema, Err(store::StoreError::SchemaBehind { found: 0, .. }));
        assert!(is_empty, "{name} was left as it was: {schema:?}");
    }
    let (code, said) = run(&["tokens", "create", "slip", "--role", "viewer", "--namespace", "amce"]);
    assert!(code == Some(2) && said.contains("no namespace `amce`"), "{code:?}: {said}");
    let (code, said) = run(&["tokens", "create", "ci", "--role", "viewer", "--namespace", "acme"]);
    assert_eq!(code, Some(0), "{said}");
    let mut serve = support::processes::Process::start("amends", &mut amends(&["serve"]), folder.path().join("log"));
    eventually("a token of one closes all, so that it serves", async || {
        assert!(!serve.has_ended(), "{}", serve.tail());
        serve.tail().contains("amends is ready").then_some(())
    })
    .await;
    serve.kill();
    let (code, said) = run(&["tokens", "revoke", "ci", "--reason", "over", "--namespace", "acme"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["serve"]);
    assert!(code == Some(2) && said.contains("amends tokens create NAME"), "{code:?}: {said}");
}
