//! One trace for a whole saga, as an OpenTelemetry collector sees it: the coordinator is the real program, as a process that
//! is killed, on PostgreSQL and RabbitMQ; the participant is the SDK's; the collector reads OTLP over HTTP.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use amends::client::views::{OperateRequest, StartBody};
use amends::client::{Action, Client};
use amends::coordinator::{Coordinator, CoordinatorOptions, Start};
use amends::participant::{Participant, StepError, Work, refuse, retry_after};
use amends::telemetry::Recorder;
use amends::telemetry::otlp::{self, Exporting, Options};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres};
use support::eventually;
use support::processes::{Process, free_port};
use support::receiver::Receiver;
use support::rig::Rig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SHOP: &str = "traced-shop";
const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// `flaky` works at its second attempt; `refuse` never does, so that the two before it are undone.
const UNDONE: &str = r#"
saga: traced-undone
version: 1
defaults: { timeout: 20s, retry: { maxAttempts: 3, initialInterval: 10ms, jitter: none } }
steps:
  - { name: first, participant: traced-shop, action: work, compensation: { action: undo } }
  - { name: second, participant: traced-shop, action: flaky, compensation: { action: undo } }
  - { name: third, participant: traced-shop, action: refuse, compensation: none }
"#;

/// `hold` waits until the test lets it go.
const HELD: &str = r#"
saga: traced-held
version: 1
defaults: { timeout: 20s }
steps:
  - { name: first, participant: traced-shop, action: work, compensation: { action: undo } }
  - { name: second, participant: traced-shop, action: hold, compensation: none }
"#;

/// A saga of which one step is a saga.
const FAMILY: &str = r#"
saga: traced-family
version: 1
defaults: { timeout: 20s }
steps:
  - { name: below, saga: traced-child, input: {} }
"#;

const CHILD: &str = r#"
saga: traced-child
version: 1
defaults: { timeout: 20s }
steps:
  - { name: only, participant: traced-shop, action: work, compensation: { action: undo } }
"#;

/// A span as the collector got it.
#[derive(Clone, Debug)]
struct Seen {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: SpanKind,
    is_error: bool,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
    /// Of the resource.
    service: String,
    namespace: String,
}

impl Seen {
    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(value: Option<Any>) -> String {
    match value {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{other:?} is neither text nor a number"),
    }
}

/// Everything that the collector has got.
fn seen(collector: &Receiver) -> Vec<Seen> {
    let mut all = Vec::new();
    for received in collector.received() {
        assert_eq!(received.path, "/v1/traces");
        assert_eq!(received.header("content-type"), "application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(received.body.clone()).expect("OTLP");
        for resource in request.resource_spans {
            let of = resource.resource.expect("a resource").attributes;
            let of = |name: &str| {
                let found = of.iter().find(|attribute| attribute.key == name)?;
                Some(text(found.value.clone().and_then(|value| value.value)))
            };
            let (service, namespace) =
                (of("service.name").expect("a name"), of("amends.namespace").unwrap_or_default());
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                all.push(Seen {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: span.kind(),
                    is_error: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
                    start: span.start_time_unix_nano,
                    end: span.end_time_unix_nano,
                    attributes: span
                        .attributes
                        .into_iter()
                        .map(|attribute| (attribute.key, text(attribute.value.and_then(|value| value.value))))
                        .collect(),
                    name: span.name,
                    service: service.clone(),
                    namespace: namespace.clone(),
                });
            }
        }
    }
    all
}

/// Waits for the span of the saga as a whole and those below it, so many in all.
async fn trace_of(collector: &Receiver, id: &str, count: usize) -> Vec<Seen> {
    eventually(&format!("{count} spans of saga {id} arrive"), async || {
        let all = seen(collector);
        let of: Vec<Seen> = all.into_iter().filter(|span| span.attribute("amends.saga.id") == id).collect();
        let is_whole = of.iter().any(|span| span.name.starts_with("saga ")) && of.len() >= count;
        is_whole.then_some(of)
    })
    .await
}

fn named<'s>(spans: &'s [Seen], name: &str, step: &str) -> Vec<&'s Seen> {
    let mut found: Vec<&Seen> =
        spans.iter().filter(|span| span.name == name && span.attribute("amends.step") == step).collect();
    found.sort_by_key(|span| span.attribute("amends.attempt").to_owned());
    found
}

/// The program, a participant, the collector, and what is around them.
struct Site {
    process: Process,
    http: String,
    client: Client,
    collector: Receiver,
    rig: Rig,
    is_let_go: watch::Sender<bool>,
    stop: CancellationToken,
    exporting: Option<Exporting>,
    log: std::path::PathBuf,
    folder: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let rig = Rig::new(&[SHOP, "amends"]).await;
        let collector = Receiver::new().await;
        let url = otlp::traces_url(&collector.url(""));
        let options = Options { url, ratio: 1.0, service: SHOP.to_owned(), namespace: None };
        let (recorder, exporting) = otlp::start(options).expect("it exports");
        let (stop, is_let_go) = (CancellationToken::new(), watch::Sender::new(false));
        shop(&rig, recorder, is_let_go.clone(), stop.clone()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let (http, log) = (format!("127.0.0.1:{}", free_port()), folder.path().join("log"));
        let process = serve(&rig, &http, &collector, log.clone());
        let client = Client::new(&format!("http://{http}"), None);
        let site =
            Self { process, http, client, collector, rig, is_let_go, stop, exporting: Some(exporting), log, folder };
        site.is_ready().await;
        for definition in [UNDONE, HELD, CHILD, FAMILY] {
            site.client.register(definition).await.expect("registered");
        }
        site
    }

    async fn is_ready(&self) {
        eventually("the process is ready", async || self.client.ready().await.ok()).await;
    }

    async fn start(&self, saga: &str, traceparent: Option<&str>) -> String {
        let mut request = reqwest::Client::new()
            .post(format!("http://{}/v1/sagas", self.http))
            .header("content-type", "application/json")
            .body(json!({ "saga": saga, "input": {} }).to_string());
        if let Some(given) = traceparent {
            request = request.header("traceparent", given).header("tracestate", "vendor=x");
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
        let body: Value = serde_json::from_str(&answer.text().await.expect("read")).expect("JSON");
        body["id"].as_str().expect("an id").to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn serve(rig: &Rig, http: &str, collector: &Receiver, log: std::path::PathBuf) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.args(["serve", "--store", &rig.store_url, "--broker", &rig.broker_url, "--http", http]);
    command.args(["--log-format", "json"]);
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url("")), ("AMENDS_LOG", "warn,amends=debug".to_owned())];
    Process::start_with("amends serve", &mut command, &environment, log)
}

/// A participant that is traced, too.
async fn shop(rig: &Rig, recorder: Recorder, is_let_go: watch::Sender<bool>, stop: CancellationToken) {
    let pool = PgPool::connect(&support::fresh_database().await).await.expect("the shop's database answers");
    amends::participant::migrate(&pool).await.expect("the inbox is made");
    let tries = Arc::new(AtomicUsize::new(0));
    let running = Participant::named(SHOP)
        .action("work", |_: Value, _: Work<Postgres>| async { Ok::<_, StepError>(json!({})) })
        .action("undo", |_: Value, _: Work<Postgres>| async { Ok::<_, StepError>(json!({})) })
        .action("refuse", |_: Value, _: Work<Postgres>| async { Err::<Value, _>(refuse("no", "it never works")) })
        .action("flaky", move |_: Value, work: Work<Postgres>| {
            let tries = tries.clone();
            async move {
                // What a handler finds is its own span, for whatever it calls.
                assert!(work.command().traceparent.is_some());
                match tries.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(retry_after(Duration::from_millis(1), "busy", "come back")),
                    _ => Ok::<_, StepError>(json!({})),
                }
            }
        })
        .action("hold", move |_: Value, _: Work<Postgres>| {
            let is_let_go = is_let_go.clone();
            async move {
                // Fails only when the test is over.
                let _ = is_let_go.subscribe().wait_for(|is_let_go| *is_let_go).await;
                Ok::<_, StepError>(json!({}))
            }
        })
        .traces(recorder)
        .build(pool, rig.broker.clone())
        .expect("a participant");
    tokio::spawn(async move { running.run(stop).await.expect("it has its queue") });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_one_trace_with_every_attempt_and_what_participants_did_and_the_log_says_which() {
    let site = Site::new().await;
    let id = site.start("traced-undone", None).await;
    // The saga; first, second twice, third, two undone; and the participant's side of each.
    let spans = trace_of(&site.collector, &id, 1 + 6 + 6).await;
    assert_eq!(spans.len(), 13, "{spans:#?}");

    let trace = id.replace('-', "");
    assert!(spans.iter().all(|span| span.trace == trace), "one trace, called as the saga");
    let whole = spans.iter().find(|span| span.name == "saga traced-undone").expect("the saga's span");
    assert_eq!((whole.parent.as_str(), whole.kind), ("", SpanKind::Internal));
    assert!(whole.is_error && whole.attribute("error.type") == "no");
    assert_eq!(whole.attribute("amends.outcome"), "compensated");
    assert_eq!((whole.service.as_str(), whole.namespace.as_str()), ("amends", "default"));

    let publish = |action: &str, step: &str| named(&spans, &format!("publish {SHOP}.{action}"), step);
    let second = publish("flaky", "second");
    assert_eq!(second.len(), 2, "a retry is an attempt of its own");
    let outcomes: Vec<(&str, &str, bool)> = second
        .iter()
        .map(|span| (span.attribute("amends.attempt"), span.attribute("amends.outcome"), span.is_error))
        .collect();
    assert_eq!(outcomes, [("1", "retry", true), ("2", "success", false)]);
    for step in ["first", "second"] {
        let undone = publish("undo", step);
        assert_eq!(undone.len(), 1);
        assert_eq!(undone[0].attribute("amends.direction"), "compensation");
        assert_eq!(undone[0].attribute("amends.outcome"), "success");
    }
    assert_eq!(publish("refuse", "third")[0].attribute("error.type"), "no");

    let published: Vec<&Seen> = spans.iter().filter(|span| span.kind == SpanKind::Producer).collect();
    for span in &published {
        assert_eq!(span.parent, whole.id, "every attempt is a part of the saga");
        assert!(span.start >= whole.start && span.end <= whole.end && span.start <= span.end);
        for (name, value) in [
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.type", "send"),
            ("messaging.operation.name", "publish"),
            ("amends.saga", "traced-undone"),
        ] {
            assert_eq!(span.attribute(name), value, "{span:?}");
        }
        let destination = span.attribute("messaging.destination.name");
        assert!(destination.starts_with("amends.commands:traced-shop."), "{destination}");
        assert!(!span.attribute("messaging.message.id").is_empty());
    }
    let processed: Vec<&Seen> = spans.iter().filter(|span| span.kind == SpanKind::Consumer).collect();
    assert_eq!((published.len(), processed.len()), (6, 6));
    let messages = |spans: &[&Seen]| -> BTreeSet<(String, String)> {
        let of = |span: &&Seen| {
            let message = span.attribute("messaging.message.id").to_owned();
            (message, if span.kind == SpanKind::Producer { span.id.clone() } else { span.parent.clone() })
        };
        spans.iter().map(of).collect()
    };
    assert_eq!(messages(&published), messages(&processed), "each is the child of the attempt whose message it took");
    for span in &processed {
        assert_eq!(span.service, SHOP);
        assert_eq!(span.attribute("messaging.operation.type"), "process");
        assert!(span.name.starts_with("process traced-shop."), "{}", span.name);
    }

    // What the program wrote meanwhile: one object a line, and those about a saga say so in the same fields.
    let lines: Vec<Value> = std::fs::read_to_string(&site.log)
        .expect("a log")
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let about: Vec<&Value> = lines.iter().filter(|line| line["saga_id"] == id.as_str()).collect();
    let says = |wanted: &[(&str, &str)]| {
        let is_it = |line: &&&Value| wanted.iter().all(|(name, value)| line[*name] == *value);
        assert!(about.iter().any(|line| is_it(&line)), "no line says {wanted:?}: {about:#?}");
    };
    says(&[("saga", "traced-undone"), ("trace_id", &trace), ("what", "started")]);
    says(&[("saga", "traced-undone"), ("trace_id", &trace), ("what", "failed"), ("step", "third")]);
    says(&[("saga", "traced-undone"), ("trace_id", &trace), ("what", "compensated")]);
    assert!(
        about.iter().all(|line| line["trace_id"] == trace.as_str() && line["saga"] == "traced-undone"),
        "{about:#?}"
    );
    let silent = lines.iter().filter(|line| line.to_string().contains(&id) && line["saga_id"] != id.as_str());
    let silent: Vec<&Value> = silent.filter(|line| line["path"].is_null()).collect();
    assert!(silent.is_empty(), "lines about the saga that do not say so: {silent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_span_is_the_parent_and_a_coordinator_that_takes_over_stays_in_the_trace() {
    let mut site = Site::new().await;
    let id = site.start("traced-held", Some(GIVEN)).await;
    let quiet = site.start("traced-held", Some(NOT_SAMPLED)).await;
    eventually("the first step of both is done, and told", async || {
        let done = seen(&site.collector).into_iter().filter(|span| span.attribute("amends.step") == "first");
        let is_done = async |id: &str| {
            let saga = site.client.saga(id).await.expect("read");
            saga.steps[0].status == "verified"
        };
        (done.count() == 2 && is_done(&id).await && is_done(&quiet).await).then_some(())
    })
    .await;

    site.process.kill();
    let second = serve(&site.rig, &site.http, &site.collector, site.folder.path().join("second"));
    site.is_ready().await;
    site.is_let_go.send_replace(true);
    let spans = trace_of(&site.collector, &id, 5).await;
    assert_eq!(site.process.kills(), 1);
    assert!(spans.iter().all(|span| span.trace == "4bf92f3577b34da6a3ce929d0e0e4736"), "{spans:#?}");
    let whole = spans.iter().find(|span| span.name == "saga traced-held").expect("the saga's span");
    assert_eq!(whole.parent, "00f067aa0ba902b7", "the caller's span");
    assert!(!whole.is_error);
    for step in ["first", "second"] {
        let action = if step == "first" { "work" } else { "hold" };
        let attempt = named(&spans, &format!("publish {SHOP}.{action}"), step);
        assert_eq!((attempt.len(), attempt[0].parent.as_str()), (1, whole.id.as_str()), "{step}");
        assert!(attempt[0].start >= whole.start && attempt[0].end <= whole.end, "{step}");
        let work = named(&spans, &format!("process {SHOP}.{action}"), step);
        assert!(work.iter().all(|span| span.parent == attempt[0].id), "{step}");
        assert!(!work.is_empty(), "{step}");
    }

    // Whoever is not recorded stays so: the caller has decided.
    let saga = eventually("the other one is complete", async || {
        let saga = site.client.saga(&quiet).await.expect("read");
        (saga.state == "COMPLETED").then_some(saga)
    })
    .await;
    assert_eq!(saga.id, quiet);
    if let Some(exporting) = site.exporting.take() {
        exporting.finish(Duration::from_secs(10)).await;
    }
    assert!(seen(&site.collector).iter().all(|span| span.attribute("amends.saga.id") != quiet));
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sub_saga_is_a_part_of_the_attempt_that_started_it() {
    let site = Site::new().await;
    let id = site.start("traced-family", None).await;
    let spans = trace_of(&site.collector, &id, 2).await;
    let trace = id.replace('-', "");
    let attempt = spans.iter().find(|span| span.kind == SpanKind::Producer).expect("an attempt");
    let child = eventually("the sub-saga's span arrives", async || {
        seen(&site.collector).into_iter().find(|span| span.name == "saga traced-child")
    })
    .await;
    assert_eq!((child.trace.as_str(), child.parent.as_str()), (trace.as_str(), attempt.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_nothing_up_and_a_context_is_passed_on_where_nobody_records() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let away = format!("http://127.0.0.1:{}/v1/traces", free_port());
    let (recorder, exporting) =
        otlp::start(Options { url: away, ratio: 1.0, service: "amends".to_owned(), namespace: None })
            .expect("it exports");
    for recorder in [Some(recorder.clone()), None] {
        let store = amends::store::open("memory:").await.expect("a store");
        let broker: Arc<dyn amends::broker::Broker> = Arc::new(amends::broker::in_process::InProcessBroker::new());
        let options = CoordinatorOptions { traces: recorder.clone(), ..CoordinatorOptions::default() };
        let coordinator = Coordinator::launch(store, broker.clone(), options).await.expect("it launches");
        coordinator.register(CHILD, "test").await.expect("registered");
        let shop = support::scripted::Scripted::start(&broker, SHOP, |_| vec![support::scripted::done()]).await;
        let start = Start { saga: "traced-child".to_owned(), version: None, input: json!({}).into(), key: None };
        let given = amends::trace::TraceContext::parse(GIVEN, Some("vendor=x"));
        let started = coordinator.start_within(vec![(start, given)]).await.pop().expect("an answer");
        started.expect("it starts");
        let command = eventually("the command comes", async || shop.seen().pop()).await;
        let carried = command.traceparent.expect("a context");
        assert!(carried.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{carried}");
        assert_eq!(command.tracestate.as_deref(), Some("vendor=x"));
        // Where spans are recorded the command hangs below its attempt; elsewhere below the caller.
        assert_eq!(carried == GIVEN, recorder.is_none(), "{carried}");
        let metrics = eventually("the saga ends, whoever is away", async || {
            let text = coordinator.metrics().render();
            text.contains(r#"amends_sagas_total{saga="traced-child",kind="completed"} 1"#).then_some(text)
        })
        .await;
        assert!(metrics.contains(r#"amends_trace_spans_total{kind="exported"} 0"#), "{metrics}");
        coordinator.stop().await;
    }
    exporting.finish(Duration::from_millis(200)).await;
    assert_eq!(recorder.told().exported, 0);
}

/// After its pivot a command that nobody takes: stuck at once.
const LOST: &str = r#"
saga: traced-lost
version: 1
defaults: { timeout: 100ms, retry: { maxAttempts: 1 } }
steps:
  - { name: only, participant: nobody, action: work, pivot: true, compensation: none }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_namespace_tells_its_own_webhooks_and_its_traces_and_pages_say_whose_they_are() {
    let (collector, of_default, of_acme) = (Receiver::new().await, Receiver::new().await, Receiver::new().await);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("written");
    let webhook = |more: &str, receiver: &Receiver| {
        let (url, secret) = (receiver.url("/"), path("secret"));
        let secret = secret.display();
        format!(
            "[[webhooks]]\nname = \"pager\"\n{more}url = \"{url}\"\nallow_private = true\nevents = [\"stuck\"]\nsecrets = [\"file:{secret}\"]\n"
        )
    };
    let settings = format!(
        "[[namespaces]]\nname = \"acme\"\n[traces]\nendpoint = \"{}\"\n\
         [console]\ntrace_url = \"https://traces.example.org/{{traceId}}\"\n{}{}",
        collector.url(""),
        webhook("", &of_default),
        webhook("namespace = \"acme\"\n", &of_acme),
    );
    std::fs::write(path("amends.toml"), settings).expect("written");
    let http = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    let store = format!("sqlite://{}", path("amends.db").display());
    command.args(["serve", "--store", &store, "--broker", "in-process", "--http", &http, "--config"]);
    command.arg(path("amends.toml"));
    let mut process = Process::start("amends serve", &mut command, path("log"));
    let client = |namespace: &str| Client::new(&format!("http://{http}"), None).within(namespace);
    eventually("it is ready", async || client("default").ready().await.ok()).await;

    let mut stuck = Vec::new();
    for (namespace, own, other) in [("acme", &of_acme, &of_default), ("default", &of_default, &of_acme)] {
        let client = client(namespace);
        let before = other.received().len();
        client.register(LOST).await.expect("registered");
        let id = client.start(&StartBody::new("traced-lost", json!({}))).await.expect("started").saga.id;
        let told = eventually("the webhook is told", async || own.received().pop()).await;
        assert_eq!((told.json()["type"].as_str(), &told.json()["subject"]), (Some("amends.saga.stuck"), &json!(id)));
        assert_eq!((own.received().len(), other.received().len()), (1, before), "{namespace} told another's webhook");
        let why = OperateRequest { reason: "seen".to_owned(), step: None };
        client.operate(&id, Action::Abandon, &why, None).await.expect("abandoned");
        stuck.push((namespace, id));
    }
    for (namespace, id) in &stuck {
        let spans = trace_of(&collector, id, 2).await;
        assert!(spans.iter().all(|span| span.namespace == *namespace && span.service == "amends"), "{spans:#?}");
        let attempt = spans.iter().find(|span| span.kind == SpanKind::Producer).expect("an attempt");
        let exchange = if *namespace == "acme" { "acme.amends.commands" } else { "amends.commands" };
        assert_eq!(attempt.attribute("messaging.destination.name"), format!("{exchange}:nobody.work"));
        // Without tokens the page chooses by the header, as every other request does.
        let page = reqwest::Client::new().get(format!("http://{http}/console/sagas/{id}"));
        let page = page.header("amends-namespace", *namespace).send().await.expect("an answer");
        let page = page.text().await.expect("read");
        let link = format!("https://traces.example.org/{}", id.replace('-', ""));
        assert!(page.contains(&link), "{namespace}: no {link} in {page}");
    }
    assert!(!process.has_ended());
}
