//! What several test programs share.
#![allow(dead_code, reason = "no test program uses all of it")]

pub mod http;
pub mod planted_bugs;
pub mod processes;
pub mod proxy;
pub mod queueing;
pub mod receiver;
pub mod rig;
pub mod scripted;
pub mod servers;
pub mod ways;
pub mod workshop;

use std::time::Duration;

/// How long a condition may take to come true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Polls until `condition` gives something; fails the test with `what` when it takes too long.
pub async fn eventually<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// The same with a deadline of its own.
pub async fn eventually_within<T>(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        // A look that was begun in time may end after it, but not never.
        let Ok(found) = tokio::time::timeout_at(deadline + PATIENCE, condition()).await else {
            panic!("in vain, for {limit:?}, and the last look has not ended: {what}");
        };
        if let Some(found) = found {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain, for {limit:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The address that `./test` gives in `variable`.
fn given(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run ./test, which starts the servers"))
}

/// The broker of `./test`.
pub fn broker_url() -> String {
    given("AMENDS_TEST_BROKER")
}

/// A database of its own on the PostgreSQL of `./test`.
pub async fn fresh_database() -> String {
    let admin = given("AMENDS_TEST_STORE");
    let name = format!("amends_{}", amends::id::fresh_request_id().simple());
    let pool = sqlx::PgPool::connect(&admin).await.expect("PostgreSQL answers");
    sqlx::query(sqlx::AssertSqlSafe(format!("create database {name}")))
        .execute(&pool)
        .await
        .expect("a database is made");
    let mut url = reqwest::Url::parse(&admin).expect("a URL");
    url.set_path(&name);
    url.to_string()
}

/// Deletes queues, whether they are there or not.
pub async fn delete_queues(url: &str, queues: &[String]) {
    in_time("queues are deleted", try_delete_queues(url, queues)).await;
}

/// What `work` gives; fails the test with `what` when it does not come to its end.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    within(PATIENCE, what, work).await
}

/// The same with a limit of its own.
pub async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| panic!("in vain, for {limit:?}: {what}"))
}

async fn try_delete_queues(url: &str, queues: &[String]) {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.expect("connected");
    // Deleting what is not there is no error.
    let channel = connection.create_channel().await.expect("a channel");
    for queue in queues {
        let _ = channel.queue_delete(queue.as_str().into(), lapin::options::QueueDeleteOptions::default()).await;
    }
    // A channel that is just being dropped can get in the way of a close in good order, which then never ends: this one is
    // still there.
    let _ = connection.close(200, "done".into()).await;
}
