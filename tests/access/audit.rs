//! The audit log over HTTP and as an export.

use std::collections::BTreeSet;

use amends::client::{AuditQuery, ClientError};
use amends::clock::Clock;
use amends::id::SagaId;
use amends::payload::Payload;
use amends::store::{AuditRecord, Changes, Wants};
use chrono::TimeDelta;

use crate::support::http::House;

/// A house in which `count` things were done by two people in turn, one a second until now.
async fn busy(count: u32, saga: SagaId) -> House {
    let house = House::new().await;
    let now = Clock::System.now();
    let record = |n: u32| AuditRecord {
        id: 0,
        at: now - TimeDelta::seconds(i64::from(count - n)),
        actor: if n.is_multiple_of(2) { "anna" } else { "oidc:ben" }.to_owned(),
        saga: n.is_multiple_of(10).then_some(saga),
        action: if n.is_multiple_of(3) { "retry" } else { "skip" }.to_owned(),
        reason: format!("number {n}"),
        detail: Payload::trusted(format!("{{\"n\":{n}}}")),
    };
    let changes = Changes { audits: (0..count).map(record).collect(), ..Changes::default() };
    house.store.commit(Wants::default(), Box::new(move |_| changes)).await.expect("a commit");
    house
}

#[tokio::test]
async fn the_audit_log_is_read_page_by_page_and_filtered() {
    let saga = SagaId::fresh();
    let house = busy(120, saga).await;
    let (client, _served) = house.serve().await;
    let mut query = AuditQuery { limit: Some(50), ..AuditQuery::default() };
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = client.audit(&query).await.expect("a page");
        sizes.push(page.items.len());
        seen.extend(page.items.into_iter().map(|row| row.id));
        let Some(next) = page.next else { break };
        query.cursor = Some(next);
    }
    assert_eq!(sizes, [50, 50, 20]);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first");

    let all = |query: AuditQuery| AuditQuery { limit: Some(500), ..query };
    let count = async |query: AuditQuery| client.audit(&all(query)).await.expect("a page").items.len();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(count(AuditQuery { actor: some("oidc:ben"), ..AuditQuery::default() }).await, 60);
    assert_eq!(count(AuditQuery { action: some("retry"), ..AuditQuery::default() }).await, 40);
    assert_eq!(count(AuditQuery { action: some("retry"), actor: some("anna"), ..AuditQuery::default() }).await, 20);
    assert_eq!(count(AuditQuery { since: some("1h"), ..AuditQuery::default() }).await, 120);
    assert_eq!(count(AuditQuery { since: some("2999-01-01T00:00:00Z"), ..AuditQuery::default() }).await, 0);
    let of_saga = client.audit(&all(AuditQuery { saga: Some(saga.to_string()), ..AuditQuery::default() })).await;
    let of_saga = of_saga.expect("a page").items;
    assert_eq!(of_saga.len(), 12);
    let newest = &of_saga[0];
    assert_eq!((newest.actor.as_str(), newest.action.as_str()), ("anna", "skip"));
    assert_eq!((newest.reason.as_str(), &newest.detail["n"]), ("number 110", &110.into()));
    assert_eq!(newest.saga_id.as_deref(), Some(saga.to_string().as_str()));

    let code = |refused: Result<_, ClientError>| {
        refused.map(|_: amends::client::views::AuditPage| ()).expect_err("no").code().map(str::to_owned)
    };
    let wrong = AuditQuery { saga: some("place"), ..AuditQuery::default() };
    assert_eq!(code(client.audit(&wrong).await).as_deref(), Some("SAGA_ID_INVALID"));
    let elsewhere = AuditQuery { cursor: query.cursor, actor: some("anna"), ..AuditQuery::default() };
    assert_eq!(code(client.audit(&elsewhere).await).as_deref(), Some("CURSOR_INVALID"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_export_has_every_row_once() {
    let house = busy(1_203, SagaId::fresh()).await;
    let (_, served) = house.serve().await;
    let url = served.url.clone();
    let export = move |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_amends"));
        let said = command.args(["audit", "--output", "jsonl", "--url", &url]).args(more).output().expect("it runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).expect("text")
    };
    let asked = tokio::task::spawn_blocking(move || {
        (export(&[]), export(&["--actor", "anna", "--since", "1d"]), export(&["--limit", "7"]))
    });
    let (all, of_anna, part) = asked.await.expect("no panic");
    let rows: Vec<serde_json::Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: BTreeSet<u64> = rows.iter().map(|row| row["id"].as_u64().expect("a number")).collect();
    assert_eq!((rows.len(), ids.len()), (1_203, 1_203));
    assert_eq!(of_anna.lines().count(), 602);
    assert_eq!(part.lines().count(), 7, "a part, when one is asked for");
}
