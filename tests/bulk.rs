//! Bulk jobs: looked at, confirmed, carried out, held, stopped, and every saga accounted for once, also when the server is
//! killed in the middle. How many sagas the last of them takes: `AMENDS_TEST_BULK`, 1,000 unless set.

mod support;

#[expect(dead_code, reason = "the tests of the command line need more of it")]
#[path = "cli/program.rs"]
mod program;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::broker::Broker;
use amends::coordinator::CoordinatorOptions;
use program::{Program, Said};
use serde_json::{Value, json};
use sqlx::PgPool;
use support::http::House;
use support::processes::{Process, free_port};
use support::scripted::{Scripted, done, refusal};
use support::{eventually, eventually_within};

/// After its pivot `b` has to be done.
const PAIR: &str = "
saga: pair
version: 1
defaults:
  timeout: 60s
  retry: { maxAttempts: 1, initialInterval: 10ms, jitter: none }
steps:
  - { name: a, participant: svc, action: a, pivot: true, compensation: none }
  - { name: b, participant: svc, action: b, compensation: none }
";

/// What else goes on.
const OTHER: &str = "
saga: other
version: 1
steps:
  - { name: c, participant: svc, action: c, pivot: true, compensation: none }
";

/// Refuses `b` until it is mended.
async fn participant(broker: &Arc<dyn Broker>) -> (Scripted, Arc<AtomicBool>) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let svc = Scripted::start(broker, "svc", move |command| match command.action.as_str() {
        "b" if !mended.load(Ordering::SeqCst) => vec![refusal("out-of-order")],
        _ => vec![done()],
    })
    .await;
    (svc, is_mended)
}

fn batch(saga: &str, count: usize) -> Value {
    json!({ "sagas": (0..count).map(|_| json!({ "saga": saga, "input": {} })).collect::<Vec<_>>() })
}

/// A house on SQLite with so many stuck sagas, whose participant can be mended.
struct Ward {
    house: House,
    is_mended: Arc<AtomicBool>,
    _svc: Scripted,
    _folder: tempfile::TempDir,
}

impl Ward {
    async fn with(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite://{}", folder.path().join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let options = CoordinatorOptions { bulk_check_after: 1, ..CoordinatorOptions::default() };
        let house = House::launched(store, options).await;
        house.coordinator.register(PAIR, "test").await.expect("registered");
        let (svc, is_mended) = participant(&house.broker).await;
        assert_eq!(house.post("/v1/sagas/batch", &batch("pair", count)).await.status, 200);
        let ward = Self { house, is_mended, _svc: svc, _folder: folder };
        eventually("all are stuck", async || (ward.stuck().await == count).then_some(())).await;
        ward
    }

    async fn stuck(&self) -> usize {
        let page = self.house.get("/v1/sagas?state=STUCK&limit=500").await.json();
        page["items"].as_array().expect("a list").len()
    }

    async fn bulk(&self, more: Value) -> support::http::Answer {
        let mut body = json!({ "action": "retry", "filter": { "state": "STUCK" }, "reason": "it is back" });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.house.post("/v1/bulk", &body).await
    }

    async fn job(&self, id: &str) -> Value {
        self.house.get(&format!("/v1/bulk/{id}")).await.json()
    }

    async fn until(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || Some(self.job(id).await).filter(&holds)).await
    }
}

fn id(job: &Value) -> String {
    job["id"].as_str().unwrap_or_else(|| panic!("no id in {job}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sagas_are_looked_at_then_confirmed_then_done_to_and_looked_after() {
    let ward = Ward::with(120).await;
    let seen = ward.bulk(json!({ "dryRun": true, "reason": null })).await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    let seen = seen.json();
    assert_eq!((&seen["count"], seen["samples"].as_array().map(Vec::len)), (&json!(120), Some(10)));
    assert_eq!(seen["preview"]["sends"][0]["action"], "b", "{seen}");
    assert!(
        ward.house.get("/v1/bulk").await.json()["items"].as_array().expect("a list").is_empty(),
        "nothing was done"
    );

    let refused = ward.bulk(json!({})).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (409, "BULK_UNCONFIRMED"));
    assert_eq!(refused.json()["count"], 120);
    let refused = ward.bulk(json!({ "expectedCount": 300 })).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (409, "BULK_COUNT_DIFFERS"));
    let refused = ward.bulk(json!({ "filter": { "saga": "nobody" } })).await;
    assert_eq!((refused.status.as_u16(), &*refused.code()), (422, "BULK_NOTHING"));

    ward.is_mended.store(true, Ordering::SeqCst);
    let made = ward.bulk(json!({ "expectedCount": 118, "ratePerSecond": 1000 })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let job = id(&made.json());
    let over = ward.until(&job, "the job is done", |job| job["state"] == "DONE").await;
    assert_eq!((&over["applied"], &over["open"], &over["check"]), (&json!(120), &json!(0), &Value::Null), "{over}");
    assert!(over["summary"].as_str().is_some_and(|told| told.ends_with("asked, not yet seen to work")), "{over}");
    eventually("all have completed", async || (ward.stuck().await == 0).then_some(())).await;
    let looked = eventually("none is under way", async || {
        let now = ward.house.get(&format!("/v1/bulk/{job}?check=true")).await.json();
        (now["check"]["ended"] == 120).then_some(now)
    })
    .await;
    assert_eq!((&looked["check"]["stuck"], &looked["check"]["working"]), (&json!(0), &json!(0)));

    // Of each saga there is an audit row that names the job.
    let items = ward.house.get(&format!("/v1/bulk/{job}/items?outcome=applied&limit=500")).await.json();
    let items = items["items"].as_array().expect("a list").clone();
    assert_eq!(items.len(), 120);
    let saga = items[7]["saga"].as_str().expect("an id");
    let page = amends::store::Page { after: None, limit: 10 };
    let rows = ward.house.store.audit(Some(saga.parse().expect("an id")), &page).await.expect("a read");
    assert_eq!(rows.iter().filter(|row| row.detail.value()["bulk"] == job.as_str()).count(), 1);
    let metrics = ward.house.get("/metrics").await.text;
    assert!(metrics.contains(r#"amends_bulk_items_total{kind="applied"} 120"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_and_what_is_stuck_again_is_found() {
    let ward = Ward::with(6).await;
    let page = ward.house.get("/v1/sagas?state=STUCK").await.json();
    let mut sagas: Vec<Value> =
        page["items"].as_array().expect("a list").iter().map(|saga| saga["id"].clone()).collect();
    // One that is not there, as if it had been archived.
    sagas.push(json!("0198c0de-0000-7000-8000-000000000001"));
    let made = ward.bulk(json!({ "filter": null, "sagas": sagas })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let job = id(&made.json());
    let checked = ward.until(&job, "it is looked after", |job| !job["check"].is_null()).await;
    assert_eq!((&checked["applied"], &checked["refused"]), (&json!(6), &json!(1)), "{checked}");
    assert_eq!(checked["check"]["stuck"], 6);
    assert_eq!(checked["check"]["reasons"], json!([{ "error": "out-of-order", "count": 6 }]));
    let refused = ward.house.get(&format!("/v1/bulk/{job}/items?outcome=refused")).await.json();
    assert_eq!(refused["items"][0]["code"], "SAGA_UNKNOWN", "{refused}");
    // Those that cannot be cancelled any more say so, each.
    let made = ward.bulk(json!({ "action": "cancel" })).await;
    let cancel = ward.until(&id(&made.json()), "it is done", |job| job["state"] == "DONE").await;
    assert_eq!((&cancel["applied"], &cancel["refused"]), (&json!(0), &json!(6)), "{cancel}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_held_resumed_and_stopped_and_what_is_left_stays_as_it_is() {
    let ward = Ward::with(20).await;
    ward.is_mended.store(true, Ordering::SeqCst);
    let job = id(&ward.bulk(json!({ "ratePerSecond": 4 })).await.json());
    let steer = async |word: &str| ward.house.post(&format!("/v1/bulk/{job}/{word}"), &json!({})).await;
    assert_eq!(steer("resume").await.code(), "BULK_STATE", "it runs");
    ward.until(&job, "it has begun", |job| job["applied"].as_u64() > Some(0)).await;
    assert_eq!(steer("pause").await.json()["state"], "PAUSED");
    assert_eq!(steer("pause").await.code(), "BULK_STATE");
    assert_eq!(steer("resume").await.json()["state"], "RUNNING");
    assert_eq!(steer("stop").await.json()["state"], "STOPPED");
    assert_eq!(steer("resume").await.code(), "BULK_STATE", "for good");
    let over = ward.until(&job, "it is looked after", |job| !job["check"].is_null()).await;
    let number = |name: &str| over[name].as_u64().expect("a number");
    assert!(number("open") > 0, "{over}");
    assert_eq!(number("applied") + number("open"), 20);
    assert_eq!(ward.stuck().await as u64, number("open"));
    let rows = ward.house.store.audit(None, &amends::store::Page { after: None, limit: 100 }).await.expect("a read");
    let steered =
        rows.iter().filter(|row| row.action.starts_with("bulk-") && row.detail.value()["bulk"] == job.as_str());
    assert_eq!(steered.count(), 4, "started, paused, resumed, stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_for_the_number_and_tells_how_it_ended() {
    let ward = Ward::with(101).await;
    let (_, served) = ward.house.serve().await;
    let amends = async |arguments: &[&str]| -> Said {
        let program = Program::new(arguments).env("AMENDS_URL", &served.url).patient();
        tokio::task::spawn_blocking(|| program.run()).await.expect("it runs")
    };
    let all = ["bulk", "retry", "--state", "STUCK", "--error=out-of-order", "--rate", "1000"];
    let dry = amends(&[&all[..], &["--dry-run", "--output", "json"]].concat()).await;
    assert_eq!(dry.code, 0, "{dry}");
    assert_eq!(serde_json::from_str::<Value>(&dry.stdout).expect("JSON")["count"], 101);
    let unconfirmed = amends(&[&all[..], &["--reason", "it is back"]].concat()).await;
    assert_eq!(unconfirmed.code, 2, "{unconfirmed}");
    assert!(unconfirmed.stderr.contains("--confirm 101"), "{unconfirmed}");
    let no_reason = amends(&all).await;
    assert_eq!(no_reason.code, 2, "{no_reason}");
    let everything = amends(&["bulk", "abandon", "--reason", "x"]).await;
    assert_eq!(everything.code, 2, "{everything}");
    let wrong = amends(&[&all[..], &["--reason", "x", "--confirm", "500"]].concat()).await;
    assert_eq!(wrong.code, 6, "{wrong}");

    // Nothing is mended yet: it ends, and they are stuck still.
    let still = amends(&[&all[..], &["--reason", "try", "--confirm", "101", "--output", "json"]].concat()).await;
    assert_eq!(still.code, 3, "{still}");
    let job: Value = serde_json::from_str(&still.stdout).expect("JSON");
    assert_eq!((&job["applied"], &job["check"]["stuck"]), (&json!(101), &json!(101)), "{job}");
    ward.is_mended.store(true, Ordering::SeqCst);
    let first = ward.house.get("/v1/sagas?state=STUCK&limit=1").await.json();
    let one = first["items"][0]["id"].as_str().expect("an id");
    let detached = amends(&["bulk", "retry", "--id", one, "--reason", "one", "--detach"]).await;
    assert_eq!(detached.code, 0, "{detached}");
    let listed = amends(&["bulk", "list", "--output", "json"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let newest = id(&listed["items"][0]);
    let watched = amends(&["bulk", "watch", &newest]).await;
    assert_eq!(watched.code, 0, "{watched}");
    let items = amends(&["bulk", "items", &newest]).await;
    assert!(items.code == 0 && items.stdout.contains("applied") && items.stdout.contains(one), "{items}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_leads_from_a_filter_to_a_job() {
    let ward = Ward::with(3).await;
    ward.is_mended.store(true, Ordering::SeqCst);
    let list = ward.house.get("/console/sagas?state=STUCK").await.text;
    assert!(list.contains("Act on all that match"), "{list}");
    let csrf = {
        let from = list.find("name=\"csrf\" value=\"").expect("a token") + 19;
        list[from..from + list[from..].find('"').expect("an end")].to_owned()
    };
    let send = async |path: &str, pairs: &[(&str, &str)]| {
        let pairs = [&[("csrf", csrf.as_str())], pairs].concat();
        let body = reqwest::Url::parse_with_params("http://x", &pairs).expect("a URL");
        let request = axum::http::Request::post(path)
            .header("host", "127.0.0.1:7070")
            .header("origin", "http://127.0.0.1:7070")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(axum::body::Body::from(body.query().unwrap_or_default().to_owned()));
        ward.house.ask(request.expect("a request")).await
    };
    let all = [("scope", "all"), ("filter", "state=STUCK")];
    let looked = send("/console/selection", &all).await;
    assert_eq!(looked.status, 200, "{}", looked.text);
    assert!(
        looked.text.contains("svc.b") && looked.text.contains("amends bulk retry --state=STUCK"),
        "{}",
        looked.text
    );
    let nothing = send("/console/bulk", &[&all[..], &[("action", "retry"), ("expected", "3")]].concat()).await;
    assert_eq!(nothing.status, 422, "without a reason");
    let many = [("scope", "all"), ("filter", "")];
    assert_eq!(send("/console/selection", &many).await.status, 422, "not simply everything");
    let made =
        send("/console/bulk", &[&all[..], &[("action", "retry"), ("expected", "3"), ("reason", "back")]].concat())
            .await;
    assert_eq!(made.status, 303, "{}", made.text);
    let job = made.header("location").and_then(|to| to.rsplit('/').next()).expect("an address").to_owned();
    ward.until(&job, "it is done", |job| job["state"] == "DONE").await;
    let page = ward.house.get(&format!("/console/bulk/{job}?check=1")).await.text;
    assert!(page.contains("DONE") && page.contains("done to 3 of 3"), "{page}");
    assert!(ward.house.get("/console/bulk").await.text.contains(&job));
    assert_eq!(send(&format!("/console/bulk/{job}/stop"), &[]).await.status, 409, "it is over");
}

/// The servers, the coordinator as a process, the participant.
struct City {
    url: String,
    coordinator: Process,
    pool: PgPool,
    http: reqwest::Client,
}

impl City {
    async fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await.ok()?;
        Some((answer.status().as_u16(), answer.json().await.ok()?))
    }

    /// The sagas of `definition` in a state.
    async fn sagas(&self, definition: &str, state: &str) -> i64 {
        let sql = "select count(*) from saga where definition_name = $1 and state = $2";
        sqlx::query_scalar(sql).bind(definition).bind(state).fetch_one(&self.pool).await.expect("a count")
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("a number")
    }

    async fn applied(&self) -> i64 {
        self.number("select count(*) from bulk_item where outcome = 'applied'").await
    }

    async fn ready(&self) {
        eventually_within(Duration::from_secs(60), "the coordinator is ready", async || {
            let answer = self.http.get(format!("{}/readyz", self.url)).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bulk_retry_under_load_held_resumed_and_killed_accounts_for_every_saga_once() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let count: usize = std::env::var("AMENDS_TEST_BULK").map_or(1_000, |count| count.parse().expect("a number"));
    let (total, patience) = (i64::try_from(count).expect("a number"), Duration::from_secs(600));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (postgres, rabbit) = support::servers::both().await;
    let (store, amends) = (postgres.url(), PathBuf::from(assert_cmd::cargo::cargo_bin!("amends")));
    let migrate = Command::new(&amends).args(["migrate", "--store", &store]).stdout(Stdio::null()).status();
    assert!(migrate.expect("amends runs").success());
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(&amends);
    command.args(["serve", "--store", &store, "--broker", &rabbit.url(), "--http", &address]);
    let coordinator = Process::start("amends", &mut command, folder.path().join("amends.log"));
    let pool = PgPool::connect(&store).await.expect("PostgreSQL answers");
    let http = reqwest::Client::new();
    let mut city = City { url: format!("http://{address}"), coordinator, pool, http };
    city.ready().await;
    let broker = amends::broker::open(&rabbit.url()).await.expect("the broker is reached");
    let (_svc, is_mended) = participant(&broker).await;
    for definition in [PAIR, OTHER] {
        let request = city.http.post(format!("{}/v1/definitions", city.url)).header("content-type", "application/yaml");
        assert_eq!(request.body(definition).send().await.expect("an answer").status(), 201);
    }
    for left in (0..count).step_by(500) {
        let (status, _) =
            city.post("/v1/sagas/batch", &batch("pair", 500.min(count - left))).await.expect("they are started");
        assert_eq!(status, 200);
    }
    eventually_within(patience, "all are stuck", async || (city.sagas("pair", "STUCK").await == total).then_some(()))
        .await;
    is_mended.store(true, Ordering::SeqCst);

    // Others go on meanwhile.
    let goes_on = Arc::new(AtomicBool::new(true));
    let load = tokio::spawn({
        let (url, http, goes_on) = (city.url.clone(), city.http.clone(), goes_on.clone());
        async move {
            let mut started = 0;
            let mut beat = tokio::time::interval(Duration::from_millis(50));
            while goes_on.load(Ordering::SeqCst) {
                beat.tick().await;
                let request = http.post(format!("{url}/v1/sagas/batch")).json(&batch("other", 5)).send();
                if request.await.is_ok_and(|answer| answer.status().is_success()) {
                    started += 5;
                }
            }
            started
        }
    });

    let body = json!({
        "action": "retry", "filter": { "state": "STUCK", "saga": "pair" }, "reason": "it is back",
        // About four seconds, to have time for what happens in between.
        "ratePerSecond": (count / 4).clamp(1, 1_000), "expectedCount": count,
    });
    let (status, job) = city.post("/v1/bulk", &body).await.expect("an answer");
    assert_eq!((status, &job["total"]), (201, &json!(count)), "{job}");
    let job = id(&job);
    eventually_within(patience, "a tenth is done", async || (city.applied().await >= total / 10).then_some(())).await;
    let (status, paused) = city.post(&format!("/v1/bulk/{job}/pause"), &json!({})).await.expect("an answer");
    assert_eq!((status, &paused["state"]), (200, &json!("PAUSED")));
    // The batch that was under way ends; then nothing more is done.
    let held = eventually_within(patience, "nothing more is done while others go on", async || {
        let (held, others) = (city.applied().await, city.sagas("other", "COMPLETED").await);
        eventually("others go on", async || (city.sagas("other", "COMPLETED").await >= others + 100).then_some(()))
            .await;
        (city.applied().await == held).then_some(held)
    })
    .await;
    assert!(held < total, "it was held before all was done");
    let (status, _) = city.post(&format!("/v1/bulk/{job}/resume"), &json!({})).await.expect("an answer");
    assert_eq!(status, 200);
    eventually_within(patience, "half is done", async || (city.applied().await >= total / 2).then_some(())).await;
    city.coordinator.kill_and_restart();
    let at_the_kill = city.applied().await;
    assert!(at_the_kill < total, "it was killed before all was done");
    city.ready().await;
    eventually_within(patience, "the job is done", async || {
        let state: String = sqlx::query_scalar("select state from bulk_job").fetch_one(&city.pool).await.ok()?;
        (state == "DONE").then_some(())
    })
    .await;
    goes_on.store(false, Ordering::SeqCst);
    let others: i64 = load.await.expect("no panic");

    // Every saga has one item with an outcome, and each that was done to has one audit row that names the job.
    assert_eq!(city.number("select count(*) from bulk_item").await, total);
    assert_eq!(city.number("select count(*) from bulk_item where outcome is null").await, 0);
    assert_eq!(city.applied().await, total, "nobody else touches them, so that none can refuse");
    let named = "select count(*) from audit join bulk_item on bulk_item.saga_id = audit.saga_id
                 where audit.action = 'retry' and audit.detail->>'bulk' = bulk_item.job_id::text
                     and (audit.detail->>'toRevision')::int4 = bulk_item.revision";
    assert_eq!(city.number(named).await, total);
    assert_eq!(city.number("select count(*) from audit where action = 'retry'").await, total);
    eventually_within(patience, "all have completed", async || {
        (city.sagas("pair", "COMPLETED").await == total).then_some(())
    })
    .await;
    assert!(others > 0, "others went on");
    eventually_within(patience, "the others have completed", async || {
        (city.sagas("other", "COMPLETED").await >= others).then_some(())
    })
    .await;
    // As the job tells it.
    let (told, check) = eventually_within(patience, "it is looked after", async || {
        let job = city.http.get(format!("{}/v1/bulk/{job}?check=true", city.url)).send().await.ok()?;
        let job: Value = job.json().await.ok()?;
        Some((job["applied"].as_u64()?, job["check"].clone()))
    })
    .await;
    assert_eq!((told, &check["stuck"], &check["ended"]), (count as u64, &json!(0), &json!(count)));
}
