//! Actions: the preview is what then happens, and what has moved is refused.

use std::collections::BTreeSet;

use amends::api::AuthConfig;
use amends::client::views::PreviewView;
use serde_json::json;

use crate::support::eventually;
use crate::walk::{ask, field, form, furnished, get};

const ACTIONS: [&str; 7] = ["retry", "skip", "compensate", "pause", "resume", "cancel", "abandon"];

#[tokio::test]
async fn what_the_preview_says_is_what_then_happens() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let (mut possible, mut refused) = (BTreeSet::new(), 0);
    let running = house.get("/v1/sagas?state=RUNNING&limit=8").await.json();
    let running: Vec<String> = running["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|saga| saga["id"].as_str().expect("an id").to_owned())
        .collect();
    let subjects: Vec<String> = samples.iter().map(|(_, id)| id.to_string()).chain(running).collect();
    for (at, id) in subjects.iter().enumerate() {
        // Each saga is done to once: what comes after depends on what was done.
        let word = ACTIONS[at % ACTIONS.len()];
        let asked = house.post(&format!("/v1/sagas/{id}/{word}?dryRun=true"), &json!({})).await;
        let before = house.store.saga(id.parse().expect("an id")).await.expect("read").expect("there");
        let done = house.post(&format!("/v1/sagas/{id}/{word}"), &json!({ "reason": "the test says so" })).await;
        assert_eq!(asked.status, done.status, "{word}: {} {}", asked.text, done.text);
        if asked.status != 200 {
            assert_eq!(asked.code(), done.code());
            refused += 1;
            continue;
        }
        possible.insert(word);
        let preview: PreviewView = serde_json::from_value(asked.json()).expect("a preview");
        let after = house.store.saga(id.parse().expect("an id")).await.expect("read").expect("there");
        assert_eq!(preview.state, done.json()["state"], "{word}");
        let new: Vec<_> = after.commands.iter().skip(before.commands.len()).collect();
        let foretold: Vec<_> = preview.sends.iter().filter(|sent| sent.body.is_some()).collect();
        assert_eq!(new.len(), foretold.len(), "{word}: {preview:?}");
        for (entry, told) in new.iter().zip(foretold) {
            assert_eq!((&entry.step, &entry.participant, &entry.action), (&told.step, &told.participant, &told.action));
            let mut body = entry.body.value().clone();
            if let Some(card) = body.get_mut("card") {
                // What the definition marks is not told.
                *card = "hidden: marked sensitive".into();
            }
            assert_eq!(Some(&body), told.body.as_ref());
        }
        let closed = |record: &amends::store::SagaRecord| {
            record.commands.iter().filter(|entry| entry.verified.is_some()).count()
        };
        assert!(closed(&after) - closed(&before) <= preview.closes.len(), "{word}: more was closed than was told");
    }
    assert!(possible.len() >= 4 && refused >= 2, "{possible:?}, {refused} refused");
}

#[tokio::test]
async fn an_action_takes_a_reason_and_is_told_as_asked_until_it_has_worked() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let id = samples[1].1;
    let path = format!("/console/sagas/{id}/retry");
    let page = ask(&house.router, get(&path, None)).await.text;
    assert!(page.contains("payments.refund") && page.contains("--reason"), "{page}");
    let (csrf, revision) = (field(&page, "csrf"), field(&page, "revision"));
    let none =
        ask(&house.router, form(&path, None, &[("csrf", &csrf), ("revision", &revision), ("reason", "  ")])).await;
    assert_eq!(none.status, 422);
    assert!(none.text.contains("A reason of 1 to"));
    let done =
        ask(&house.router, form(&path, None, &[("csrf", &csrf), ("revision", &revision), ("reason", "bank is back")]))
            .await;
    assert_eq!(done.status, 303, "{}", done.text);
    let next = done.header("location").expect("a place").replace("../../", "/console/");
    let shown = ask(&house.router, get(&next, None)).await.text;
    assert!(shown.contains("Asked, not yet seen to work"), "{shown}");
    assert!(shown.contains("bank is back"), "the operator log has the reason");
    let audit = house.get("/console/audit").await.text;
    assert!(audit.contains("bank is back") && audit.contains("anonymous"));
}

#[tokio::test]
async fn a_saga_that_has_moved_since_is_left_alone_and_the_page_says_so() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let id = samples[0].1;
    let path = format!("/console/sagas/{id}/abandon");
    let page = ask(&house.router, get(&path, None)).await.text;
    let (csrf, revision) = (field(&page, "csrf"), field(&page, "revision"));
    let paused = house.post(&format!("/v1/sagas/{id}/pause"), &json!({ "reason": "somebody else" })).await;
    assert_eq!(paused.status, 200);
    let late =
        ask(&house.router, form(&path, None, &[("csrf", &csrf), ("revision", &revision), ("reason", "late")])).await;
    assert_eq!(late.status, 409);
    assert!(late.text.contains("This saga has changed since you looked") && late.text.contains("Look again"));
    let saga = house.store.saga(id).await.expect("read").expect("there").saga;
    assert_eq!(saga.state.as_str(), "STUCK");
}

#[tokio::test]
async fn changed_ids_are_told_by_asking_and_by_stream() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let (one, other) = (samples[0].1, samples[1].1);
    let revision = async |id| house.store.saga(id).await.expect("read").expect("there").saga.revision;
    let ids = format!("{one}:{},{other}:{}", revision(one).await, revision(other).await);
    assert_eq!(house.get(&format!("/console/revisions?ids={ids}")).await.json(), json!({ "changed": [] }));
    let (_client, served) = house.serve().await;
    let mut stream =
        tokio::net::TcpStream::connect(served.url.trim_start_matches("http://")).await.expect("a connection");
    let request = format!("GET /console/events?ids={ids} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it is sent");
    house.post(&format!("/v1/sagas/{other}/pause"), &json!({ "reason": "lunch" })).await;
    assert_eq!(
        house.get(&format!("/console/revisions?ids={ids}")).await.json(),
        json!({ "changed": [other.to_string()] })
    );
    let mut told = String::new();
    eventually("the stream tells of it", async || {
        let mut bytes = [0; 4_096];
        let read = tokio::time::timeout(
            std::time::Duration::from_millis(100),
            tokio::io::AsyncReadExt::read(&mut stream, &mut bytes),
        )
        .await;
        if let Ok(Ok(count)) = read {
            told.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        (told.contains("event: changed") && told.contains(&other.to_string())).then_some(())
    })
    .await;
    assert!(!told.contains(&one.to_string()), "only what has changed: {told}");
}
