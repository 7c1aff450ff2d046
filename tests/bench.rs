//! `amends bench`, small: that it says what it should and leaves nothing behind. How fast anything is, no test asks.

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs `amends bench` with these arguments; gives what it printed, and its exit code.
fn bench(arguments: &[&str]) -> (Value, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_amends"))
        .env_remove("AMENDS_CONFIG")
        .args(["bench", "--output", "json"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("amends runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{told}"));
    (report, output.status.code().expect("it ends by itself"))
}

fn positive(report: &Value, fields: &[&str]) {
    for field in fields {
        assert!(report[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {report}");
    }
}

/// What a run has left on the servers: schemas and queues.
async fn left(report: &Value) -> Vec<String> {
    let run = report["run"].as_str().expect("the run's name");
    let pool = sqlx::PgPool::connect(&store()).await.expect("PostgreSQL answers");
    let mut left: Vec<String> = sqlx::query_scalar("select nspname::text from pg_namespace where nspname like $1")
        .bind(format!("amends_{}%", run.replace('-', "_")))
        .fetch_all(&pool)
        .await
        .expect("schemas are listed");
    let broker = amends::broker::open(&support::broker_url()).await.expect("the broker is reached");
    for queue in [format!("{run}.replies"), format!("{run}-charge.commands"), format!("{run}.floor.replies.dead")] {
        left.extend(broker.queue(&queue).await.expect("the broker answers").map(|_| queue));
    }
    left
}

fn store() -> String {
    std::env::var("AMENDS_TEST_STORE").expect("./test sets it")
}

#[tokio::test]
async fn floor_and_coordinator_are_compared_and_nothing_is_left() {
    let (store, broker) = (store(), support::broker_url());
    let arguments =
        ["--store", &store, "--broker", &broker, "--sagas", "60", "--in-flight", "8", "--refuse-percent", "20"];
    let (report, code) = bench(&[&arguments[..], &["--rounds", "2"]].concat());
    assert_eq!(code, 0, "{report}");
    let both = ["floorSagasPerSecond", "sagasPerSecond", "ratio", "floorP50Ms", "floorP99Ms", "p50Ms", "p99Ms"];
    positive(&report, &both);
    positive(&report, &["commitsPerSaga", "commitMs"]);
    assert_eq!((&report["completed"], &report["compensated"], &report["stuck"]), (&96.into(), &24.into(), &0.into()));
    assert_eq!(report["durability"]["fsync"], "on");
    assert_eq!(report["durability"]["queues"], "quorum");
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(2));
    assert_eq!(left(&report).await, Vec::<String>::new());
}

#[tokio::test]
async fn participants_with_an_inbox_take_the_same_load() {
    let (store, broker) = (store(), support::broker_url());
    let arguments = ["--store", &store, "--broker", &broker, "--sagas", "30", "--in-flight", "8"];
    let (report, code) = bench(&[&arguments[..], &["--participants", "sdk", "--refuse-percent", "50"]].concat());
    assert_eq!(code, 0, "{report}");
    assert_eq!(left(&report).await, Vec::<String>::new());
    assert_eq!((&report["completed"], &report["compensated"], &report["stuck"]), (&15.into(), &15.into(), &0.into()));
}

#[test]
fn embedded_there_is_no_floor_and_the_folder_is_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = format!("sqlite://{}", folder.path().join("amends.db").display());
    let arguments = ["--store", &store, "--broker", "in-process", "--sagas", "200", "--refuse-percent", "10"];
    let (report, code) = bench(&arguments);
    assert_eq!(code, 0, "{report}");
    positive(&report, &["sagasPerSecond", "p50Ms", "p99Ms", "commitsPerSaga"]);
    assert!(report["floorSagasPerSecond"].is_null() && report["ratio"].is_null(), "{report}");
    assert_eq!((&report["completed"], &report["compensated"], &report["stuck"]), (&180.into(), &20.into(), &0.into()));
    assert_eq!(report["durability"]["synchronous"], "full");
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder is read").count(), 0, "a file was left");
}

#[test]
fn a_bench_without_a_store_says_what_to_set() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    let output = command.env_clear().args(["bench", "--broker", "in-process"]).output().expect("amends runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("AMENDS_STORE"), "{output:?}");
}
