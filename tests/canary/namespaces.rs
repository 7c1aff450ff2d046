//! Each namespace has data keys of its own, wrapped by the key that its entry names.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::processes::{Process, free_port};
use crate::{CARD, DEFINITION, Site, found, nothing_in};

/// Everything in the file of a store.
fn file(folder: &Path, name: &str) -> String {
    let read = |end: &str| std::fs::read(folder.join(format!("{name}{end}"))).unwrap_or_default();
    ["", "-wal"].map(|end| String::from_utf8_lossy(&read(end)).into_owned()).concat()
}

fn settings(folder: &Path) -> std::path::PathBuf {
    let config = Site::settings(folder, Some("one"), &["one", "two"]);
    let mut text = std::fs::read_to_string(&config).expect("settings");
    text.push_str("[[namespaces]]\nname = \"acme\"\nencryption_key = \"two\"\n");
    for (token, namespace) in [("t-default", "default"), ("t-acme", "acme")] {
        let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(token));
        let entry =
            format!("name = \"{token}\"\nrole = \"admin\"\nsha256 = \"{sha256}\"\nnamespace = \"{namespace}\"\n");
        text.push_str(&format!("[[tokens]]\n{entry}"));
    }
    std::fs::write(&config, text).expect("settings");
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn each_namespace_encrypts_with_keys_of_its_own() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (config, path) = (settings(folder.path()), folder.path());
    let (store, http) = (format!("sqlite://{}", path.join("a.db").display()), format!("127.0.0.1:{}", free_port()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.args(["serve", "--store", &store, "--http", &http, "--config"]).arg(&config);
    let _process = Process::start("amends serve", &mut command, path.join("serve.log"));
    let client = reqwest::Client::new();
    let url = format!("http://{http}");
    let mut ids = Vec::new();
    for token in ["t-default", "t-acme"] {
        let send = async |path: &str, kind: &str, body: String| {
            let request = client.post(format!("{url}{path}")).bearer_auth(token).header("content-type", kind);
            let answer = request.body(body).send().await.ok()?;
            (answer.status().as_u16() == 201).then_some(answer.text().await.ok()?)
        };
        eventually("the definition is registered", async || {
            send("/v1/definitions", "application/yaml", DEFINITION.to_owned()).await
        })
        .await;
        let start = json!({ "saga": "canary", "input": { "order": "o-1", "card": CARD } });
        let started = send("/v1/sagas", "application/json", start.to_string()).await.expect("it is started");
        nothing_in("an answer", &started);
        let id = serde_json::from_str::<Value>(&started).expect("JSON")["id"].as_str().expect("an id").to_owned();
        let shown = client.get(format!("{url}/v1/sagas/{id}?reveal=true")).bearer_auth(token).send().await;
        let shown = shown.expect("an answer").text().await.expect("text");
        assert_eq!(found(&shown), [CARD], "{shown}");
        ids.push(id);
    }
    let other = client.get(format!("{url}/v1/sagas/{}?reveal=true", ids[0])).bearer_auth("t-acme").send().await;
    assert_eq!(other.expect("an answer").status().as_u16(), 404, "it is another namespace's");
    for name in ["a.db", "a.acme.db"] {
        let text = file(path, name);
        assert!(text.contains("$sealed"), "{name} is encrypted");
        nothing_in(name, &text);
    }
    for (namespace, active, other) in [("default", "one", "two"), ("acme", "two", "one")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(["encryption", "status", "--output", "json", "--store", &store, "--namespace", namespace]);
        let output = command.arg("--config").arg(&config).output().expect("it runs");
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let items = told["items"].as_array().expect("a list");
        let of = |name: &str| items.iter().find(|item| item["name"] == name).expect("a key").clone();
        assert_eq!(
            (&of(active)["isActive"], &of(active)["dataKeys"]),
            (&json!(true), &json!(2)),
            "{namespace}: {told}"
        );
        assert_eq!((&of(other)["isActive"], &of(other)["dataKeys"]), (&json!(false), &json!(0)), "{namespace}: {told}");
    }
}
