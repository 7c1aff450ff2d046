//! Values that are marked sensitive are looked for wherever something is told or kept. Where they must be, they are
//! found: so that the search is known to find them.

#[path = "../support/mod.rs"]
mod support;

mod namespaces;
mod operators;
mod unreadable;

use std::process::Command;

use amends::api::{AuthConfig, Role, TokenEntry};
use amends::broker::topology::{Queue, Topology};
use amends::broker::{Consumer, Settlement};
use amends::message::ReplyBody;
use amends::message::reply::ReplyProblem;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use support::eventually;
use support::http::{House, get};
use support::processes::{Process, free_port};
use support::receiver::Receiver;
use support::rig::Rig;
use support::scripted::{Scripted, success};

const CAGE: &str = "canary-cage";
/// With characters that are written otherwise in URLs and in JSON.
const CARD: &str = "canary-card~4929/1?7+x";
const TOKEN: &str = "canary-token~ff81/9";
const WORD: &str = "canary-word~quetzal";
/// What an operator sends instead of what was refused.
const EDITED: &str = "canary-edited~0x5d/2+y";
const ALL: [&str; 4] = [CARD, TOKEN, WORD, EDITED];
/// What there is before somebody edits.
const SENT: [&str; 3] = [CARD, TOKEN, WORD];

const DEFINITION: &str = r#"
saga: canary
version: 1
key: ${ input.order }
input:
  schema:
    type: object
    required: [order, card]
    properties:
      order: { type: string, maxLength: 40 }
      card: { type: string, maxLength: 60, sensitive: true }
defaults:
  timeout: 30s
  retry: { maxAttempts: 1 }
  compensation: { retry: { maxAttempts: 1 } }
steps:
  - name: take
    participant: canary-cage
    action: take
    input: { number: "${ input.card }" }
    output: { schema: { type: object, properties: { token: { type: string, sensitive: true } } } }
    compensation: { action: give, input: { given: "${ steps.take.output.token }" } }
  - name: hear
    wait: { signal: heard, timeout: 10m }
    output: { schema: { type: object, properties: { word: { type: string, sensitive: true } } } }
  - name: sing
    participant: canary-cage
    action: sing
    input: { text: "${ steps.hear.output.word } ${ steps.take.output.token }" }
    compensation: none
"#;

fn answer(command: &amends::message::Command) -> ReplyBody {
    let problem = |detail: String| {
        let title = format!("it croaked of {CARD}");
        ReplyBody::Failure(ReplyProblem { kind: "croaked".to_owned(), title, detail: Some(detail) })
    };
    match command.action.as_str() {
        "take" => success(json!({ "token": TOKEN, "cage": 7, "note": format!("for {CARD}") })),
        // What a service quotes: plain, and as JSON inside of a text.
        "sing" => problem(format!("{{\"card\":\"{CARD}\",\"token\":\"{TOKEN}\"}} and {WORD}")),
        _ => {
            let card = command.body.value()["card"].as_str().unwrap_or_default().to_owned();
            problem(format!("{TOKEN} of {card} is not taken back"))
        }
    }
}

/// A text as it may be written: as it is, in hexadecimal digits, for a URL, in base64 at any place of a longer text.
fn forms(canary: &str) -> Vec<String> {
    let percent = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let mut forms = vec![
        canary.to_owned(),
        hex::encode(canary),
        hex::encode_upper(canary),
        canary.bytes().map(percent).collect(),
        canary.bytes().map(percent).collect::<String>().replace('~', "%7E"),
        canary.replace('/', "\\/"),
    ];
    for (before, cut) in [(0, 0), (1, 2), (2, 3)] {
        let bytes = [vec![0; before], canary.as_bytes().to_vec()].concat();
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            // The first and the last character also tell of what stands beside.
            forms.push(text[cut..text.len() - 3].to_owned());
        }
    }
    forms
}

/// The canaries in a text, in whatever form.
fn found(text: &str) -> Vec<&'static str> {
    ALL.into_iter().filter(|canary| forms(canary).iter().any(|form| text.contains(form.as_str()))).collect()
}

fn nothing_in(what: &str, text: &str) {
    assert!(!text.is_empty(), "{what} is empty");
    let found = found(text);
    assert!(found.is_empty(), "{found:?} in {what}:\n{text}");
}

#[test]
fn the_search_finds_each_form() {
    for canary in ALL {
        for form in [
            canary.to_owned(),
            hex::encode(format!("xx{canary}yy")),
            STANDARD_NO_PAD.encode(format!("{{\"a\":\"{canary}\"}}")),
            STANDARD_NO_PAD.encode(format!("{{\"ab\":\"{canary}\"}}")),
            URL_SAFE_NO_PAD.encode(format!("{{\"abc\":\"{canary}\"}}")),
            reqwest::Url::parse_with_params("http://h/", [("a", canary)]).expect("a URL").to_string(),
        ] {
            assert_eq!(found(&format!("before {form} after")), [canary], "{form}");
        }
        assert!(found(&canary[..canary.len() - 1]).is_empty());
    }
}

/// A process that serves, and what it has told.
struct Site {
    _process: Process,
    url: String,
    rig: Rig,
    folder: tempfile::TempDir,
    cage: Scripted,
    events: Box<dyn Consumer>,
    http: reqwest::Client,
    /// The collector of traces, and a webhook that never takes what it is told.
    outside: Receiver,
}

const EVENTS: &str = "canary-events";
const HOOK: &str = "/hook";

impl Site {
    async fn new(is_encrypted: bool) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let rig = Rig::new(&[CAGE, EVENTS]).await;
        let bindings = vec![("amends.events".to_owned(), "canary.#".to_owned())];
        let queue = Queue { name: EVENTS.to_owned(), bindings, dead_letters: false, namespace: Default::default() };
        rig.broker.declare(&Topology { queues: vec![queue], ..Topology::default() }).await.expect("a queue for events");
        let events = rig.broker.consume(EVENTS, 256).await.expect("it is consumed");
        let cage = Scripted::start(&rig.broker, CAGE, |command| vec![answer(command)]).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let http = format!("127.0.0.1:{}", free_port());
        let outside = Receiver::answering(|_, received| match received.path.as_str() {
            HOOK => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            _ => StatusCode::OK.into_response(),
        })
        .await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.args(["serve", "--store", &rig.store_url, "--broker", &rig.broker_url, "--http", &http]);
        if is_encrypted {
            let settings = Self::settings(folder.path(), Some("one"), &["one"]);
            let mut text = std::fs::read_to_string(&settings).expect("settings");
            let url = outside.url(HOOK);
            let secrets = folder.path().join("hook-secrets");
            std::fs::write(&secrets, format!("whsec_{}", STANDARD.encode([7; 32]))).expect("a secret");
            let secrets = format!("file:{}", secrets.display());
            text.push_str(&format!(
                "[[webhooks]]\nname = \"pager\"\nurl = {url:?}\nallow_private = true\nsecrets = [{secrets:?}]\n"
            ));
            std::fs::write(&settings, text).expect("settings");
            command.arg("--config").arg(settings);
        }
        command.arg("--allow-edit");
        let environment = [
            ("AMENDS_LOG", "info,amends=trace,sqlx=debug".to_owned()),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", outside.url("")),
        ];
        let log = folder.path().join("serve.log");
        let process = Process::start_with("amends serve", &mut command, &environment, log);
        let url = format!("http://{http}");
        let site = Self { _process: process, url, rig, folder, cage, events, http: reqwest::Client::new(), outside };
        eventually("the process is ready", async || {
            let answer = site.http.get(format!("{}/readyz", site.url)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        let registered = site.http.post(format!("{}/v1/definitions", site.url)).body(DEFINITION);
        let registered = registered.header("content-type", "application/yaml").send().await.expect("an answer");
        assert!(registered.status().is_success(), "{}", registered.text().await.unwrap_or_default());
        site
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("text");
        assert!(status.is_success(), "{path}: {status} {text}");
        text
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let request = self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Until the saga is stuck. The id, and every answer on the way.
    async fn go(&self) -> (String, Vec<String>) {
        let start = json!({ "saga": "canary", "input": { "order": "o-1", "card": CARD } });
        let (status, first) = self.post("/v1/sagas", &start).await;
        assert_eq!(status, 201, "{first}");
        let (status, again) = self.post("/v1/sagas", &start).await;
        assert_eq!(status, 200, "{again}");
        let id: Value = serde_json::from_str(&first).expect("JSON");
        let id = id["id"].as_str().expect("an id").to_owned();
        let signal = json!({ "signal": "heard", "payload": { "word": WORD } });
        let (status, heard) = self.post(&format!("/v1/sagas/{id}/signal"), &signal).await;
        assert_eq!(status, 200, "{heard}");
        eventually("the saga is stuck", async || {
            let saga: Value = serde_json::from_str(&self.get(&format!("/v1/sagas/{id}")).await).ok()?;
            (saga["state"] == "STUCK").then_some(())
        })
        .await;
        (id, vec![first, again, heard])
    }

    /// Settings with these keys.
    fn settings(folder: &std::path::Path, active: Option<&str>, keys: &[&str]) -> std::path::PathBuf {
        let mut text = "[encryption]\n".to_owned();
        text.extend(active.map(|active| format!("active = {active:?}\n")));
        for name in keys {
            let file = folder.join(name);
            std::fs::write(&file, hex::encode(name.repeat(11).get(..32).expect("ASCII"))).expect("a key");
            text.push_str(&format!("[encryption.keys.{name}]\nfile = {file:?}\n"));
        }
        let config = folder.join("amends.toml");
        std::fs::write(&config, text).expect("settings");
        config
    }

    /// Runs `amends encryption`: its exit code, and what it says.
    fn encryption(&self, arguments: &[&str], active: Option<&str>, keys: &[&str]) -> (i32, Value) {
        let config = Self::settings(self.folder.path(), active, keys);
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        command.arg("encryption").args(arguments).args(["--store", &self.rig.store_url, "--output", "json"]);
        let output = command.arg("--config").arg(config).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        (output.status.code().expect("a code"), said)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("serve.log")).expect("a log")
    }

    fn dump(&self) -> String {
        let dump = Command::new("pg_dump").args(["--inserts", "--dbname", &self.rig.store_url]).output();
        let dump = dump.expect("pg_dump runs");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let text = String::from_utf8_lossy(&dump.stdout).into_owned();
        assert!(text.contains("INSERT INTO public.saga"), "{text}");
        text
    }

    /// Runs a command against the server: what it prints, on both ways.
    fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
        let output = command.args(arguments).args(["--url", &self.url]).output().expect("it runs");
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {told}");
        told
    }

    /// Every event until the saga was stuck so many times.
    async fn events(&mut self, times: usize) -> String {
        let mut all = String::new();
        let settler = self.events.settler();
        while all.lines().filter(|line| line.contains("amends.saga.stuck")).count() < times {
            let next = tokio::time::timeout(support::PATIENCE, self.events.next(64)).await.expect("an event in time");
            let deliveries = next.expect("the queue is there");
            let tags = deliveries.iter().map(|delivery| (delivery.tag, Settlement::Ack)).collect();
            for delivery in &deliveries {
                all.push_str(&String::from_utf8_lossy(&delivery.envelope.body));
                all.push('\n');
            }
            settler.settle(tags).await;
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_encryption_the_dump_has_them() {
    let site = Site::new(false).await;
    site.go().await;
    let dump = site.dump();
    assert_eq!(found(&dump), SENT, "{dump}");
    nothing_in("the log", &site.log());
}

#[tokio::test]
async fn only_an_admin_sees_what_is_sensitive_and_each_time_is_audited() {
    let tokens = Role::ALL.map(|role| TokenEntry::plain(role.as_str(), role, &format!("token of {}", role.as_str())));
    let house = House::with(AuthConfig::new(tokens.into())).await;
    let ask = async |role: Role, path: &str| {
        let mut request = get(path);
        let token = format!("Bearer token of {}", role.as_str());
        request.headers_mut().insert("authorization", token.parse().expect("a header"));
        house.ask(request).await
    };
    house.coordinator.register(DEFINITION, "test").await.expect("registered");
    let input = amends::payload::Payload::from(json!({ "order": "o-1", "card": CARD }));
    let start = amends::coordinator::Start { saga: "canary".to_owned(), version: None, input, key: None };
    let amends::coordinator::StartOutcome::Started { id, .. } = house.coordinator.start(start).await.expect("started")
    else {
        panic!("it is new")
    };
    for path in [format!("/v1/sagas/{id}"), format!("/v1/sagas/{id}/history"), "/v1/outbox".to_owned()] {
        for role in Role::ALL {
            let plain = ask(role, &path).await;
            assert_eq!(plain.status.as_u16(), 200, "{path} as {role:?}");
            nothing_in(&path, &plain.text);
            let is_admin = role == Role::Admin;
            let revealed = ask(role, &format!("{path}?reveal=true&reason=ticket%207")).await;
            assert_eq!(revealed.status.as_u16(), if is_admin { 200 } else { 403 }, "{path} as {role:?}");
            assert!(is_admin || revealed.code() == "FORBIDDEN");
            // A word that is no yes is none.
            let odd = ask(role, &format!("{path}?reveal=yes")).await;
            assert_eq!(odd.status.as_u16(), if is_admin { 400 } else { 403 }, "{path} as {role:?}");
        }
    }
    let revealed = ask(Role::Admin, &format!("/v1/sagas/{id}?reveal=true")).await;
    assert_eq!(found(&revealed.text), [CARD]);
    assert_eq!(ask(Role::Admin, "/v1/sagas?reveal=true").await.status.as_u16(), 400, "lists never tell");
    let page = amends::store::Page { after: None, limit: 50 };
    let audit = house.store.audit(None, &page).await.expect("a read");
    let reveals: Vec<_> = audit.iter().filter(|row| row.action == "reveal").collect();
    assert_eq!(reveals.len(), 4);
    assert!(reveals.iter().all(|row| row.actor == "admin"));
    assert_eq!(reveals[1].reason, "ticket 7");
    assert_eq!(reveals[0].saga, Some(id));
}
