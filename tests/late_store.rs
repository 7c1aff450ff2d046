//! A coordinator that starts before its database takes connections, or whose first connection is cut.

mod support;

use std::process::Command;

use support::eventually;
use support::processes::{Process, free_port};
use support::proxy::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_a_store_that_does_not_answer_yet() {
    // As every program that speaks HTTP with amends does at its start.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = support::fresh_database().await;
    let proxy = Proxy::before(&store).await;
    proxy.refuse();
    let http = format!("127.0.0.1:{}", free_port());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.args(["serve", "--migrate", "--broker", "in-process", "--http", &http, "--store", &proxy.url(&store)]);
    let mut coordinator = Process::start("amends", &mut command, folder.path().join("log"));

    eventually("it says that it waits", async || {
        assert!(!coordinator.has_ended(), "it has given up: {}", coordinator.tail());
        coordinator.tail().contains("waiting for the store").then_some(())
    })
    .await;
    proxy.pass();
    eventually("it is ready", async || {
        assert!(!coordinator.has_ended(), "it has given up: {}", coordinator.tail());
        let answer = reqwest::get(format!("http://{http}/readyz")).await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}
