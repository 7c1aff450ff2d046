//! Webhooks are told of stuck sagas: whatever is killed, by one coordinator only, signed, and never at an address that is
//! not public unless that is allowed.

mod support;

#[expect(dead_code, reason = "the tests of the command line need more of it")]
#[path = "cli/program.rs"]
mod program;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use amends::api::AuthConfig;
use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::client::Client;
use amends::client::views::{SagaView, StartBody};
use amends::coordinator::{Coordinator, CoordinatorOptions, HookEvent};
use amends::store::webhooks::Delivery;
use amends::store::{Page, Store};
use amends::webhook::signature::{Secret, sign};
use amends::webhook::{Endpoint, launch};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use program::Program;
use serde_json::{Value, json};
use support::eventually;
use support::http::House;
use support::processes::{Process, free_port};
use support::receiver::{Received, Receiver};
use support::rig::Rig;
use support::scripted::{Scripted, done, refusal};
use tokio_util::sync::CancellationToken;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=";

const SVC: &str = "hooked";

/// After its pivot a step is refused.
const FORWARD: &str = "
saga: forward
version: 1
defaults: { timeout: 20s, retry: { maxAttempts: 1 } }
steps:
  - { name: go, participant: hooked, action: work, input: \"${ input }\", pivot: true, compensation: none }
  - { name: on, participant: hooked, action: refuse, compensation: none }
";

/// Its second step is refused, and its first cannot be undone.
const BACK: &str = "
saga: back
version: 1
defaults: { timeout: 20s, retry: { maxAttempts: 1 }, compensation: { retry: { maxAttempts: 1 } } }
steps:
  - { name: take, participant: hooked, action: work, compensation: { action: refuse } }
  - { name: fail, participant: hooked, action: refuse, compensation: none }
";

/// Does what it is asked to, but for what is called `refuse`.
async fn participant(broker: &Arc<dyn Broker>) -> Scripted {
    Scripted::start(broker, SVC, |command| match command.action.as_str() {
        "refuse" => vec![refusal("no")],
        _ => vec![done()],
    })
    .await
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        name: "pager".to_owned(),
        url: url.parse().expect("a URL"),
        events: HookEvent::ALL.to_vec(),
        definitions: Vec::new(),
        secrets: [OLD, NEW].map(|secret| Secret::parse(secret).expect("a secret")).into(),
        allow_private: true,
        timeout: Duration::from_secs(5),
        max_attempts: 5,
        first_wait: Duration::from_millis(20),
    }
}

/// Coordinators of one SQLite store, or of one database, and what they deliver.
struct Site {
    store: Arc<dyn Store>,
    coordinators: Vec<Coordinator>,
    house: House,
    stop: CancellationToken,
    _svc: Scripted,
    _folder: tempfile::TempDir,
}

impl Site {
    async fn new(endpoint: Endpoint) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("amends.db").display());
        Self::at(&url, 1, endpoint, folder).await
    }

    async fn at(url: &str, coordinators: usize, endpoint: Endpoint, folder: tempfile::TempDir) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = amends::store::open(url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let stop = CancellationToken::new();
        let mut running = Vec::new();
        for _ in 0..coordinators {
            let options = CoordinatorOptions { hooks: vec![endpoint.hook()], ..CoordinatorOptions::default() };
            let coordinator = Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches");
            launch(&coordinator, vec![endpoint.clone()], stop.clone()).expect("there is something to deliver");
            running.push(coordinator);
        }
        let svc = participant(&broker).await;
        let house = House::of(store.clone(), broker, running[0].clone(), AuthConfig::default());
        for definition in [FORWARD, BACK] {
            running[0].register(definition, "test").await.expect("registered");
        }
        Self { store, coordinators: running, house, stop, _svc: svc, _folder: folder }
    }

    async fn start(&self, saga: &str, input: Value) -> String {
        let started = self.house.post("/v1/sagas", &json!({ "saga": saga, "input": input })).await.json();
        started["id"].as_str().expect("an id").to_owned()
    }

    async fn deliveries(&self) -> Vec<Delivery> {
        let page = Page { after: None, limit: 100 };
        self.store.webhooks().expect("they are kept").deliveries(None, &page).await.expect("a list")
    }

    /// Waits until nothing is left to be told.
    async fn all_told(&self) {
        eventually("everything is told", async || self.deliveries().await.is_empty().then_some(())).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn comes(receiver: &Receiver, count: usize) -> Vec<Received> {
    eventually(&format!("{count} messages come"), async || {
        Some(receiver.received()).filter(|received| received.len() >= count)
    })
    .await
}

/// As a receiver that knows one of the secrets does it.
fn is_signed(received: &Received, secret: &str) -> bool {
    let timestamp: i64 = received.header("webhook-timestamp").parse().expect("seconds");
    let body = std::str::from_utf8(&received.body).expect("text");
    let secret = [Secret::parse(secret).expect("a secret")];
    let expected = sign(&secret, received.header("webhook-id"), timestamp, body);
    received.header("webhook-signature").split(' ').any(|signature| signature == expected)
}

#[tokio::test]
async fn a_stuck_saga_is_told_until_it_is_taken_and_then_that_it_is_resolved() {
    let receiver = Receiver::answering(|number, _| match number {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    })
    .await;
    let site = Site::new(endpoint(&receiver.url("/hook"))).await;
    let id = site.start("forward", json!({ "card": "4242-secret" })).await;

    let told = comes(&receiver, 3).await;
    for message in &told {
        assert!(is_signed(message, OLD) && is_signed(message, NEW), "{message:?}");
        assert_eq!(message.header("webhook-id"), told[0].header("webhook-id"), "the same id for every attempt");
        assert_eq!(message.header("content-type"), "application/cloudevents+json");
        assert_eq!(message.path, "/hook");
    }
    let event = told[2].json();
    assert_eq!(event["type"], "amends.saga.stuck");
    assert_eq!(event["subject"], id.as_str());
    assert_eq!(event["data"]["step"], "on");
    assert_eq!(event["data"]["direction"], "action");
    assert_eq!(event["data"]["error"]["type"], "no");
    assert!(!event.to_string().contains("4242-secret"), "inputs stay inside: {event}");
    site.all_told().await;

    let abandoned = site.house.post(&format!("/v1/sagas/{id}/abandon"), &json!({ "reason": "by hand" })).await;
    assert_eq!(abandoned.status, StatusCode::OK, "{}", abandoned.text);
    let told = comes(&receiver, 4).await;
    assert_eq!(told[3].json()["type"], "amends.saga.resolved");
    assert_eq!(told[3].json()["data"]["state"], "ABANDONED");
    assert_ne!(told[3].header("webhook-id"), told[0].header("webhook-id"));
    site.all_told().await;
    assert_eq!(receiver.received().len(), 4, "what was taken is not told again");
}

#[tokio::test]
async fn a_compensation_that_failed_is_told_in_its_own_word_to_who_asked_for_it_and_only_of_their_definitions() {
    let receiver = Receiver::new().await;
    let only = Endpoint {
        events: vec![HookEvent::Stuck, HookEvent::CompensationFailed],
        definitions: vec!["back".to_owned()],
        ..endpoint(&receiver.url("/"))
    };
    let site = Site::new(only).await;
    let other = site.start("forward", json!({})).await;
    let id = site.start("back", json!({})).await;
    let told = comes(&receiver, 1).await;
    assert_eq!(told[0].json()["type"], "amends.saga.compensation-failed");
    assert_eq!(told[0].json()["subject"], id.as_str());
    assert_eq!(told[0].json()["data"]["direction"], "compensation");
    eventually("the other one is stuck, too", async || {
        let saga = site.house.get(&format!("/v1/sagas/{other}")).await.json();
        (saga["state"] == "STUCK").then_some(())
    })
    .await;
    site.all_told().await;
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn of_several_coordinators_one_delivers_each_message() {
    let receiver = Receiver::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let site = Site::at(&support::fresh_database().await, 3, endpoint(&receiver.url("/")), folder).await;
    assert_eq!(site.coordinators.len(), 3);
    for _ in 0..30 {
        site.start("forward", json!({})).await;
    }
    comes(&receiver, 30).await;
    site.all_told().await;
    let mut ids: Vec<String> =
        receiver.received().iter().map(|message| message.header("webhook-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), receiver.received().len()), (30, 30));
}

#[tokio::test]
async fn what_nobody_takes_is_parked_and_a_person_has_it_tried_again_or_drops_it() {
    let receiver = Receiver::answering(|number, _| match number {
        0..=2 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let site = Site::new(Endpoint { max_attempts: 2, ..endpoint(&receiver.url("/")) }).await;
    site.start("forward", json!({})).await;
    let parked =
        eventually("it is parked", async || site.deliveries().await.pop().filter(|delivery| delivery.due.is_none()))
            .await;
    assert_eq!(parked.attempts, 2);
    assert!(parked.problem.as_ref().is_some_and(|problem| problem.contains("500")), "{parked:?}");
    let metrics = eventually("the gauge tells of it", async || {
        let text = site.house.get("/metrics").await.text;
        text.contains("amends_webhook_parked 1").then_some(text)
    })
    .await;
    for sample in
        [r#"amends_webhook_messages_total{kind="failed"} 1"#, r#"amends_webhook_messages_total{kind="parked"} 1"#]
    {
        assert!(metrics.contains(sample), "{sample} in\n{metrics}");
    }

    let (_, served) = site.house.serve().await;
    let run = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(|part| (*part).to_owned()).collect();
        let url = served.url.clone();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            Program::new(&arguments).env("AMENDS_URL", &url).run()
        })
    };
    let id = parked.id.to_string();
    let listed = run(&["webhooks", "list", "--state", "parked", "--output", "json"]).await.expect("joined");
    assert_eq!(listed.code, 0, "{listed}");
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed["items"][0]["id"], id.as_str());
    assert_eq!(listed["items"][0]["state"], "PARKED");

    // The third answer is a refusal again, the fourth is not.
    let retried = run(&["webhooks", "retry", &id, "--reason", "the receiver is mended"]).await.expect("joined");
    assert_eq!(retried.code, 0, "{retried}");
    site.all_told().await;
    assert_eq!(receiver.received().len(), 4);
    let gone = run(&["webhooks", "drop", &id, "--reason", "too late"]).await.expect("joined");
    assert_eq!(gone.code, 1, "{gone}");
    assert!(gone.stderr.contains("DELIVERY_UNKNOWN"), "{gone}");
    let audit = site.store.audit(None, &Page { after: None, limit: 10 }).await.expect("a list");
    assert!(audit.iter().any(|row| row.action == "webhook-retry" && row.reason == "the receiver is mended"));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inside = Receiver::new().await;
    let target = inside.url("/inside");
    let receiver =
        Receiver::answering(move |_, _| (StatusCode::FOUND, [("location", target.clone())]).into_response()).await;
    let site = Site::new(Endpoint { max_attempts: 1, ..endpoint(&receiver.url("/")) }).await;
    site.start("forward", json!({})).await;
    let parked =
        eventually("it is parked", async || site.deliveries().await.pop().filter(|delivery| delivery.due.is_none()))
            .await;
    assert!(parked.problem.as_ref().is_some_and(|problem| problem.contains("redirect")), "{parked:?}");
    assert_eq!(receiver.received().len(), 1);
    assert_eq!(inside.received().len(), 0);
}

/// The hosts that lead inside: as addresses in every form, and as names.
#[tokio::test]
async fn addresses_that_are_not_public_are_refused_also_when_a_name_leads_there() {
    let receiver = Receiver::new().await;
    let port = receiver.address.port();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::127.0.0.1]",
        "169.254.169.254",
        "[::ffff:169.254.169.254]",
        // Names: what they lead to is looked at, not what they are called.
        "localhost",
        "LOCALHOST",
    ] {
        let url = format!("http://{host}:{port}/");
        let site = Site::new(Endpoint { max_attempts: 1, allow_private: false, ..endpoint(&url) }).await;
        site.start("forward", json!({})).await;
        let parked = eventually(&format!("{url} is parked"), async || {
            site.deliveries().await.pop().filter(|delivery| delivery.due.is_none())
        })
        .await;
        let problem = parked.problem.unwrap_or_default();
        assert!(problem.contains("allow_private"), "{url}: {problem}");
    }
    assert_eq!(receiver.received().len(), 0, "nothing arrived");
}

fn settings(folder: &Path, url: &str) -> std::path::PathBuf {
    std::fs::write(folder.join("secrets"), format!("{OLD}\n{NEW}\n")).expect("written");
    let file = folder.join("amends.toml");
    let text = format!(
        "[[webhooks]]\nname = \"pager\"\nurl = \"{url}\"\nevents = [\"stuck\"]\nallow_private = true\n\
         secrets = [\"file:{}\"]\nfirst_wait_seconds = 1\n",
        folder.join("secrets").display()
    );
    std::fs::write(&file, text).expect("written");
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_told_although_the_process_is_killed_before_it_could() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let receiver = Receiver::new().await;
    let rig = Rig::new(&[SVC]).await;
    let _svc = participant(&rig.broker).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (settings, marker) = (settings(folder.path(), &receiver.url("/")), folder.path().join("marker"));
    let http = format!("127.0.0.1:{}", free_port());
    let serve = |armed: &[(&'static str, String)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(["serve", "--store", &rig.store_url, "--broker", &rig.broker_url, "--http", &http]);
        command.arg("--config").arg(&settings);
        Process::start_with("amends serve", &mut command, armed, folder.path().join("log"))
    };
    // The first commit starts the saga, the second has the first reply, the third the refusal.
    let mut process = serve(&[
        ("AMENDS_FAILPOINT", "coordinator.after-commit:3".to_owned()),
        ("AMENDS_FAILPOINT_MARKER", marker.display().to_string()),
    ]);
    let client = Client::new(&format!("http://{http}"), None);
    eventually("the process is ready", async || client.ready().await.ok()).await;
    client.register(FORWARD).await.expect("registered");
    let started: SagaView = client.start(&StartBody::new("forward", json!({}))).await.expect("started").saga;
    eventually("it is killed", async || process.has_ended().then_some(())).await;
    assert!(marker.exists(), "the fault has fired");
    assert_eq!(rig.saga(started.id.parse().expect("an id")).await.state.as_str(), "STUCK");
    assert_eq!(receiver.received().len(), 0, "nothing was told before");

    let _again = serve(&[]);
    let told = comes(&receiver, 1).await;
    assert_eq!(told[0].json()["subject"], started.id.as_str());
    assert_eq!(told[0].json()["type"], "amends.saga.stuck");
    assert!(is_signed(&told[0], OLD) && is_signed(&told[0], NEW));
}

#[test]
fn a_webhook_that_makes_no_sense_is_refused_at_the_start_with_the_way_out() {
    for (text, problem, help) in [
        ("name = \"a\"\nurl = \"http://127.0.0.1/\"\nsecrets = [\"env:S\"]", "loopback", "public address"),
        ("name = \"a\"\nurl = \"http://2130706433/\"\nsecrets = [\"env:S\"]", "loopback", "public address"),
        ("name = \"a\"\nurl = \"ftp://example.org/\"\nsecrets = [\"env:S\"]", "http://", "https://"),
        ("name = \"a\"\nurl = \"https://example.org/\"\nsecrets = [\"whsec_abc\"]", "secret's place", "env:"),
        ("name = \"a\"\nurl = \"https://example.org/\"\nsecrets = [\"env:NONE\"]", "NONE is not set", "secret"),
        ("name = \"a\"\nurl = \"https://example.org/\"\nsecrets = []", "no secret", "secrets ="),
        ("name = \"a b\"\nurl = \"https://example.org/\"\nsecrets = [\"env:S\"]", "a name is", "pager"),
        (
            "name = \"a\"\nurl = \"https://example.org/\"\nsecrets = [\"env:S\"]\nevents = [\"stukc\"]",
            "`stukc` is no event",
            "compensation-failed",
        ),
        ("name = \"a\"\nulr = \"https://example.org/\"\nsecrets = [\"env:S\"]", "unknown key `ulr`", "`url`"),
    ] {
        let program = Program::new(&["serve", "--http", "127.0.0.1:0", "--config", "amends.toml"])
            .env("S", OLD)
            .file("amends.toml", &format!("[[webhooks]]\n{text}\n"));
        let said = program.run();
        assert_eq!(said.code, 2, "{text}: {said}");
        assert!(said.stderr.contains(problem) && said.stderr.contains(help), "{text}: {said}");
        assert!(!said.stderr.contains("whsec_M"), "{said}");
    }
}
