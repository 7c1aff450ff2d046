//! On real PostgreSQL and RabbitMQ: forged replies, two coordinators, participants in other languages.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use amends::broker::topology::REPLIES_QUEUE;
use amends::clock::Stopwatch;
use amends::coordinator::{Coordinator, CoordinatorError, Start, StartOutcome};
use amends::id::{CommandId, SagaId, Seq};
use amends::message::{Envelope, Properties, Reply, ReplyBody, TokenKey, TokenKeys};
use amends::payload::Payload;
use amends::saga::Phase;
use futures_util::poll;
use serde_json::json;
use sqlx::Connection;
use support::processes::Process;
use support::proxy::Proxy;
use support::rig::{Rig, start};
use support::scripted::{Scripted, done, refusal};
use support::{eventually, eventually_within, in_time};

const TWO_STEPS: &str = r#"
saga: two-steps
version: 1
defaults: { timeout: 30s, retry: { maxAttempts: 5, initialInterval: 50ms, jitter: none } }
steps:
  - { name: first, participant: alpha, action: do, compensation: { action: undo } }
  - { name: second, participant: beta, action: do, compensation: { action: undo } }
"#;

fn forged(token: Option<&str>, outcome: Option<&str>, body: &[u8]) -> Envelope {
    let mut headers = BTreeMap::new();
    if let Some(outcome) = outcome {
        headers.insert("amends-outcome".into(), outcome.to_owned().into());
    }
    Envelope {
        exchange: "amends.replies".to_owned(),
        routing_key: REPLIES_QUEUE.to_owned(),
        mandatory: true,
        properties: Properties { correlation_id: token.map(str::to_owned), headers, ..Properties::default() },
        body: body.to_vec(),
    }
}

/// Publishes a forged reply and waits until it is seen among the dead letters and counted for `code`.
async fn is_buried(rig: &Rig, coordinator: &Coordinator, case: &str, envelope: Envelope, code: &str) {
    let (depth, counted) = (rig.depth("amends.replies.dead").await, coordinator.metrics().dead_replies(code));
    rig.broker.publish(vec![envelope]).await;
    eventually(&format!("{case}: dead and counted as {code}"), async || {
        let is_counted = coordinator.metrics().dead_replies(code) == counted + 1;
        (is_counted && rig.depth("amends.replies.dead").await == depth + 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_replies_change_nothing_and_are_buried_and_counted() {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(TWO_STEPS, "test").await.expect("registered");
    // Alpha answers nothing, so that its command stays open.
    let alpha = Scripted::start(&rig.broker, "alpha", |_| Vec::new()).await;
    let id = start(&coordinator, "two-steps", json!({})).await;
    let command = eventually("the command arrives", async || alpha.seen().pop()).await;
    let before = eventually("the confirm is written down", async || {
        let saga = rig.saga(id).await;
        let (_, command) = saga.steps[0].in_flight()?;
        matches!(command.phase, Phase::Awaiting(_)).then_some(saga)
    })
    .await;

    let strangers = TokenKeys::new(vec![TokenKey { id: 1, secret: [7; 32] }]).expect("a key");
    let forged_token = strangers.sign(CommandId { saga: id, seq: Seq(1) }, 1);
    let real_keys = TokenKeys::new(rig.store.token_keys([0; 32]).await.expect("keys")).expect("a key");
    let nobody = real_keys.sign(CommandId { saga: SagaId::fresh(), seq: Seq(1) }, 1);
    let other_command = real_keys.sign(CommandId { saga: id, seq: Seq(9) }, 1);
    let other_attempt = real_keys.sign(CommandId { saga: id, seq: Seq(1) }, 2);
    let success = Some("success");
    let token = Some(command.token.as_str());
    let cases: [(&str, Envelope, &str); 11] = [
        ("no token", forged(None, success, b"{}"), "REPLY_TOKEN_MISSING"),
        ("empty token", forged(Some(""), success, b"{}"), "REPLY_TOKEN_MISSING"),
        ("nonsense for a token", forged(Some("letmein"), success, b"{}"), "REPLY_TOKEN_FORGED"),
        ("a token signed with another key", forged(Some(&forged_token), success, b"{}"), "REPLY_TOKEN_FORGED"),
        ("unknown saga", forged(Some(&nobody), success, b"{}"), "REPLY_SAGA_UNKNOWN"),
        ("a command never decided", forged(Some(&other_command), success, b"{}"), "REPLY_NOT_EXPECTED"),
        ("an attempt never sent", forged(Some(&other_attempt), success, b"{}"), "REPLY_NOT_EXPECTED"),
        ("no outcome", forged(token, None, b"{}"), "REPLY_OUTCOME_MISSING"),
        ("unknown outcome", forged(token, Some("maybe"), b"{}"), "REPLY_OUTCOME_UNKNOWN"),
        ("broken body", forged(token, success, b"{\"a\":"), "REPLY_BODY_INVALID"),
        ("a failure without a type", forged(token, Some("failure"), b"{}"), "REPLY_BODY_INVALID"),
    ];
    for (case, envelope, code) in cases {
        is_buried(&rig, &coordinator, case, envelope, code).await;
    }
    assert_eq!(rig.saga(id).await, before, "nothing has changed");

    // The real reply still counts; and once it was used, its token is worth nothing.
    let reply = |body| Reply { token: command.token.clone(), routing_key: command.reply_to.clone(), body }.encode();
    let _beta = Scripted::start(&rig.broker, "beta", |_| vec![done()]).await;
    rig.broker.publish(vec![reply(ReplyBody::Success(Payload::from(json!({}))))]).await;
    let ended = rig.becomes(id, "COMPLETED").await;
    let replayed = reply(ReplyBody::Success(Payload::from(json!({}))));
    is_buried(&rig, &coordinator, "a replayed reply", replayed, "REPLY_AFTER_END").await;
    let other = reply(ReplyBody::Success(Payload::from(json!({ "forged": true }))));
    is_buried(&rig, &coordinator, "a replayed token with another body", other, "REPLY_AFTER_END").await;
    let Some(ReplyBody::Failure(problem)) = Some(refusal("no")) else { unreachable!() };
    is_buried(&rig, &coordinator, "a contradiction", reply(ReplyBody::Failure(problem)), "REPLY_CONTRADICTS").await;
    assert_eq!(rig.saga(id).await, ended);
    coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_share_the_work_and_killing_one_stops_nothing() {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let (one, two) = (rig.coordinator().await, rig.coordinator().await);
    one.register(TWO_STEPS, "test").await.expect("registered");
    let _alpha = Scripted::start(&rig.broker, "alpha", |_| vec![done()]).await;
    let _beta = Scripted::start(&rig.broker, "beta", |_| vec![done()]).await;

    let mut sagas = Vec::new();
    for n in 0..100 {
        let coordinator = if n % 2 == 0 { &one } else { &two };
        sagas.push(start(coordinator, "two-steps", json!({ "n": n })).await);
    }
    one.kill();
    for n in 100..150 {
        sagas.push(start(&two, "two-steps", json!({ "n": n })).await);
    }
    for id in sagas {
        eventually_within(Duration::from_secs(60), &format!("{id} completes"), async || {
            (rig.saga(id).await.state.as_str() == "COMPLETED").then_some(())
        })
        .await;
    }
    assert!(one.metrics().commits() > 0 && two.metrics().commits() > 0, "both took part");
    assert_eq!(rig.pending().await, 0);
    two.stop().await;
}

/// The sum of a counter over all its labels, or over those with these.
fn counted(coordinator: &Coordinator, name: &str, labels: &str) -> u64 {
    let text = coordinator.metrics().render();
    let is_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let of_it = text.lines().filter(is_it).filter(|line| line.contains(labels));
    of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coordinator_that_has_run_longest_hears_the_replies_and_after_it_the_next() {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let _alpha = Scripted::start(&rig.broker, "alpha", |_| vec![done()]).await;
    let _beta = Scripted::start(&rig.broker, "beta", |_| vec![done()]).await;
    let one = rig.coordinator().await;
    one.register(TWO_STEPS, "test").await.expect("registered");
    rig.becomes(start(&one, "two-steps", json!({ "n": 0 })).await, "COMPLETED").await;

    let two = rig.coordinator().await;
    let began = Stopwatch::start();
    let mut sagas = 1;
    // Until what the broker has confirmed to the second has waited long enough to be written down there.
    while began.elapsed() < Duration::from_millis(1_500) {
        let id = start(&two, "two-steps", json!({ "n": sagas })).await;
        rig.becomes(id, "COMPLETED").await;
        sagas += 1;
    }
    let heard = |coordinator| counted(coordinator, "amends_replies_total", "");
    // Counted a moment after it can be seen.
    eventually("the first has heard all", async || (heard(&one) >= 2 * sagas).then_some(())).await;
    assert_eq!((heard(&one), heard(&two)), (2 * sagas, 0));
    assert_eq!(counted(&two, "amends_commits_total", "stale"), 0, "it takes nothing up that the first has settled");

    one.stop().await;
    rig.becomes(start(&two, "two-steps", json!({ "n": sagas })).await, "COMPLETED").await;
    eventually("the second hears them", async || (heard(&two) >= 2).then_some(())).await;
    assert_eq!(heard(&two), 2, "and none that the first had not acknowledged");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_request_starts_is_started_in_one_transaction_whatever_else_is_started() {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(TWO_STEPS, "test").await.expect("registered");
    let many = |count: usize, of: &str| {
        let start = |n| Start {
            saga: "two-steps".to_owned(),
            version: None,
            input: Payload::from(json!({ "of": of, "n": n })),
            key: None,
        };
        coordinator.start_many((0..count).map(start).collect())
    };
    let (small, large, other) = tokio::join!(many(40, "small"), many(1_000, "large"), many(70, "other"));
    assert!([small, large, other].iter().flatten().all(|outcome| outcome.is_ok()));

    // Nobody has answered: each command is as it was written.
    let mut connection = sqlx::PgConnection::connect(&rig.store_url).await.expect("connected");
    let of_requests: Vec<(String, i64, i64)> =
        sqlx::query_as("select body ->> 'of', count(*), count(distinct xmin::text) from outbox group by 1 order by 2")
            .fetch_all(&mut connection)
            .await
            .expect("counts");
    let one = |of: &str, commands| (of.to_owned(), commands, 1);
    assert_eq!(of_requests, [one("small", 40), one("other", 70), one("large", 1_000)]);
    coordinator.stop().await;
}

fn keyed(n: u32) -> Start {
    let (saga, input, key) = ("two-steps".to_owned(), Payload::from(json!({ "n": n })), Some(format!("k{n}")));
    Start { saga, version: None, input, key }
}

/// Another transaction is about to take the key of `keyed(7)`: whoever starts that has to wait for what becomes of it.
async fn is_taken(rig: &Rig) -> sqlx::PgConnection {
    let mut connection = sqlx::PgConnection::connect(&rig.store_url).await.expect("connected");
    sqlx::raw_sql("begin; update saga set key = 'k7'").execute(&mut connection).await.expect("the key is taken");
    connection
}

/// The same, with a coordinator and participants that never answer.
async fn with_a_key_taken() -> (Rig, Coordinator, sqlx::PgConnection) {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(TWO_STEPS, "test").await.expect("registered");
    start(&coordinator, "two-steps", json!({ "n": 0 })).await;
    let connection = is_taken(&rig).await;
    (rig, coordinator, connection)
}

async fn is_free_again(mut connection: sqlx::PgConnection) {
    sqlx::raw_sql("rollback").execute(&mut connection).await.expect("the key is free");
}

/// Until so many starts wait for their commit, with those of `request`.
async fn wait(coordinator: &Coordinator, count: u64, request: &mut (impl Future + Unpin)) {
    eventually(&format!("{count} wait"), async || {
        assert!(poll!(&mut *request).is_pending(), "it cannot have an answer yet");
        (counted(coordinator, "amends_starts_waiting", "") == count).then_some(())
    })
    .await;
}

fn are_started(outcomes: &[Result<StartOutcome, CoordinatorError>]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Ok(StartOutcome::Started { .. })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_that_takes_long_holds_up_nobody() {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let _alpha = Scripted::start(&rig.broker, "alpha", |_| vec![done()]).await;
    let _beta = Scripted::start(&rig.broker, "beta", |_| vec![done()]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(TWO_STEPS, "test").await.expect("registered");
    rig.becomes(start(&coordinator, "two-steps", json!({ "n": 0 })).await, "COMPLETED").await;

    let connection = is_taken(&rig).await;
    let (large, starter) = ((0..1_000).map(keyed).collect(), coordinator.clone());
    let request = tokio::spawn(async move { starter.start_many(large).await });
    let small = async |n: u32| {
        let small = in_time("it is taken in", coordinator.start(keyed(n))).await.expect("it starts");
        let StartOutcome::Started { id, .. } = small else { panic!("{small:?}") };
        rig.becomes(id, "COMPLETED").await;
    };
    small(2_000).await;
    small(2_001).await;
    eventually("the store has had enough of its waiting", async || {
        (counted(&coordinator, "amends_commits_total", "conflict") > 0).then_some(())
    })
    .await;
    // Nor does it when it is tried again.
    small(2_002).await;
    small(2_003).await;
    assert!(!request.is_finished(), "it still waits");
    is_free_again(connection).await;
    assert!(are_started(&in_time("it is taken in", request).await.expect("no panic")));
    in_time("it stops", coordinator.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_large_request_is_started_before_the_coordinator_stops() {
    let (_rig, coordinator, connection) = with_a_key_taken().await;
    let mut held = Box::pin(coordinator.start_many((0..1_000).map(keyed).collect()));
    wait(&coordinator, 1_000, &mut held).await;
    let mut large = Box::pin(coordinator.start_many((1_000..1_500).map(keyed).collect()));
    wait(&coordinator, 1_500, &mut large).await;
    let mut small = Box::pin(coordinator.start(keyed(1_500)));
    wait(&coordinator, 1_501, &mut small).await;
    let mut stopping = Box::pin(coordinator.stop());
    assert!(poll!(&mut stopping).is_pending());
    is_free_again(connection).await;
    let all = async { tokio::join!(held, large, small, stopping) };
    let (held, large, small, ()) = in_time("all is started, and it stops", all).await;
    assert!(are_started(&held) && are_started(&large));
    assert!(are_started(std::slice::from_ref(&small)), "{small:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_which_a_part_would_have_to_come_again_is_not_begun() {
    let (_rig, coordinator, connection) = with_a_key_taken().await;
    // 2,048 starts of a definition may wait: there is room for eight more.
    let mut held = Box::pin(coordinator.start_many((0..2_040).map(keyed).collect()));
    wait(&coordinator, 2_040, &mut held).await;
    let request = || coordinator.start_many((3_000..3_020).map(keyed).collect());
    let outcomes = in_time("it is answered", request()).await;
    assert_eq!(outcomes.len(), 20);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(CoordinatorError::Busy { .. }))), "{outcomes:?}");
    is_free_again(connection).await;
    assert!(are_started(&in_time("all is started", held).await));
    assert!(are_started(&in_time("and so is this", request()).await), "nothing of it was started before");
    in_time("it stops", coordinator.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_has_lost_the_store_leaves_the_replies_to_those_that_have_it() {
    leaves_the_replies_when(|proxy| {
        proxy.refuse();
        proxy.cut();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_store_does_not_answer_leaves_the_replies_to_those_that_have_it() {
    leaves_the_replies_when(Proxy::stall).await;
}

async fn leaves_the_replies_when(store_goes: impl Fn(&Proxy)) {
    let rig = Rig::new(&["alpha", "beta"]).await;
    let _alpha = Scripted::start(&rig.broker, "alpha", |_| vec![done()]).await;
    let _beta = Scripted::start(&rig.broker, "beta", |_| vec![done()]).await;
    let proxy = Proxy::before(&rig.store_url).await;
    let one = rig.coordinator_at(&proxy.url(&rig.store_url)).await;
    one.register(TWO_STEPS, "test").await.expect("registered");
    rig.becomes(start(&one, "two-steps", json!({ "n": 0 })).await, "COMPLETED").await;
    let two = rig.coordinator().await;

    // All replies come to the first, which cannot record them.
    store_goes(&proxy);
    for n in 1..=5 {
        rig.becomes(start(&two, "two-steps", json!({ "n": n })).await, "COMPLETED").await;
    }
    let heard = |coordinator| counted(coordinator, "amends_replies_total", "");
    eventually("the second hears them", async || (heard(&two) >= 10).then_some(())).await;
    assert_eq!((heard(&one), heard(&two)), (2, 10));

    // Once it has the store again it takes them again. What it had held meanwhile is no dead letter.
    proxy.cut();
    proxy.pass();
    eventually("the first takes replies again", async || {
        rig.becomes(start(&two, "two-steps", json!({ "n": 6 })).await, "COMPLETED").await;
        (counted(&one, "amends_replies_total", "applied") > 2).then_some(())
    })
    .await;
    assert_eq!(rig.depth("amends.replies.dead").await, 0);
    assert_eq!(counted(&one, "amends_replies_total", "duplicate"), 0, "nor is it done again");
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_written_from_the_contract_in_python_takes_part() {
    const AWARD: &str = r#"
saga: award
version: 1
key: ${ input.customer }
defaults: { timeout: 500ms, retry: { maxAttempts: 3, initialInterval: 100ms, jitter: none } }
steps:
  - { name: award, participant: loyalty, action: award, compensation: { action: revoke } }
  - { name: check, participant: beta, action: check, when: "${ input.checked }", compensation: none }
"#;
    let rig = Rig::new(&["loyalty", "beta"]).await;
    let coordinator = rig.coordinator().await;
    coordinator.register(AWARD, "test").await.expect("registered");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = folder.path().join("loyalty.db");
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.arg("examples/python/participant.py");
    let python = Process::start_with(
        "loyalty",
        &mut python,
        &[("AMENDS_BROKER", rig.broker_url.clone()), ("AMENDS_DATABASE", database.display().to_string())],
        folder.path().join("loyalty.log"),
    );
    let _beta = Scripted::start(&rig.broker, "beta", |_| vec![refusal("checked-and-refused")]).await;

    let award = async |customer: &str, checked: bool| {
        start(&coordinator, "award", json!({ "customer": customer, "points": 10, "checked": checked })).await
    };
    let plain = award("plain-anna", false).await;
    let blocked = award("blocked-ben", false).await;
    let busy = award("busy-cleo", false).await;
    let slow = award("slow-dora", false).await;
    let undone = award("undone-eve", true).await;
    let limit = Duration::from_secs(60);
    let end = async |id, what: &str| {
        eventually_within(limit, what, async || Some(rig.saga(id).await).filter(|saga| saga.state.is_terminal())).await
    };
    assert_eq!(end(plain, "success").await.state.as_str(), "COMPLETED");
    let refused = end(blocked, "refusal").await;
    assert_eq!(refused.state.as_str(), "COMPENSATED");
    assert_eq!(refused.cause.map(|cause| cause.kind).as_deref(), Some("customer-blocked"));
    let retried = end(busy, "retry").await;
    assert_eq!((retried.state.as_str(), retried.steps[0].attempts()), ("COMPLETED", 2));
    let slow = end(slow, "in-progress").await;
    assert_eq!(slow.state.as_str(), "COMPLETED");
    assert_eq!(slow.steps[0].attempts(), 1, "heartbeats kept the first attempt alive past its time-out");
    assert_eq!(end(undone, "compensation").await.state.as_str(), "COMPENSATED");

    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", database.display())).await.expect("its database");
    let points: Vec<(String, i64)> =
        sqlx::query_as("select customer, points from points order by customer").fetch_all(&pool).await.expect("points");
    let expected = [("busy-cleo", 10), ("plain-anna", 10), ("slow-dora", 10), ("undone-eve", 0)];
    assert_eq!(points, expected.map(|(customer, points)| (customer.to_owned(), points)));
    assert_eq!(rig.depth("loyalty.commands.dead").await, 0);
    drop(python);
    coordinator.stop().await;
}
