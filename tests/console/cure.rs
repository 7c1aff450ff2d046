//! Pausing participants, editing what was refused, and dead letters: each asks first, takes a reason, and is written down.

use amends::api::{AuthConfig, Role, TokenEntry};
use amends::message::{Envelope, Properties};
use axum::http::StatusCode;
use serde_json::json;

use crate::made::ORDER;
use crate::stage::Stage;
use crate::support::eventually;
use crate::support::http::{Answer, House};
use crate::support::scripted::{Scripted, done, refusal};
use crate::walk::{ask, field, form, furnished, get};

async fn submit(house: &House, path: &str, pairs: &[(&str, &str)]) -> Answer {
    ask(&house.router, form(path, None, pairs)).await
}

#[tokio::test]
async fn a_participant_is_paused_and_resumed_from_its_page() {
    let (house, _) = furnished(AuthConfig::default()).await;
    let home = house.get("/console/").await.text;
    assert!(home.contains("href=\"./participants/warehouse\""), "{home}");
    let page = house.get("/console/participants/warehouse").await.text;
    assert!(page.contains("warehouse.unpick") && page.contains("participants/warehouse/pause?action=unpick"), "{page}");
    let path = "/console/participants/warehouse/pause";
    let page = house.get(path).await.text;
    assert!(page.contains("amends participants pause warehouse --reason"), "{page}");
    let csrf = field(&page, "csrf");
    let none = submit(&house, path, &[("csrf", &csrf), ("reason", " ")]).await;
    assert_eq!(none.status, 422, "{}", none.text);
    let paused = submit(&house, path, &[("csrf", &csrf), ("reason", "stocktaking")]).await;
    assert_eq!(paused.status, 303, "{}", paused.text);
    let again = submit(&house, path, &[("csrf", &csrf), ("reason", "me too")]).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    let page = house.get("/console/participants/warehouse").await.text;
    assert!(page.contains("is paused by anonymous since") && page.contains("stocktaking"), "{page}");
    assert!(house.get("/console/").await.text.contains("paused"));
    let path = "/console/participants/warehouse/resume";
    let page = house.get(path).await.text;
    let (csrf, since) = (field(&page, "csrf"), field(&page, "since"));
    let other = submit(&house, path, &[("csrf", &csrf), ("reason", "x"), ("since", "2020-01-01T00:00:00Z")]).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "another pause than the one looked at");
    let resumed = submit(&house, path, &[("csrf", &csrf), ("reason", "counted"), ("since", &since)]).await;
    assert_eq!(resumed.status, 303, "{}", resumed.text);
    let audit = house.get("/console/audit").await.text;
    assert!(
        audit.contains("participant-resume") && audit.contains("counted") && audit.contains("warehouse"),
        "{audit}"
    );
    for path in ["/console/participants/warehuose", "/console/participants/warehouse/stop"] {
        assert_eq!(house.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn what_was_refused_is_edited_with_secrets_left_as_they_are() {
    let house = House::allowing_edits().await;
    house.coordinator.register(ORDER, "test").await.expect("registered");
    let _orders = Scripted::start(&house.broker, "orders", |_| vec![done()]).await;
    let _payments = Scripted::start(&house.broker, "payments", |_| vec![done()]).await;
    let _warehouse = Scripted::start(&house.broker, "warehouse", |_| vec![done()]).await;
    let _mail = Scripted::start(&house.broker, "mail", |_| vec![done()]).await;
    let carrier = Scripted::start(&house.broker, "carrier", |command| {
        let is_good = command.body.value()["total"] == 7;
        vec![if is_good { done() } else { refusal("address-unknown") }]
    })
    .await;
    let input = json!({ "order": "o-1", "total": 5, "card": "4242-4242" });
    let started = house.post("/v1/sagas", &json!({ "saga": "order", "input": input })).await.json();
    let id = started["id"].as_str().expect("an id").to_owned();
    let becomes = async |state: &str| {
        let path = format!("/v1/sagas/{id}");
        eventually(state, async || (house.get(&path).await.json()["state"] == state).then_some(())).await;
    };
    becomes("STUCK").await;
    let shown = house.get(&format!("/console/sagas/{id}")).await.text;
    assert!(shown.contains(&format!("sagas/{id}/edit")), "the button is there");
    let path = format!("/console/sagas/{id}/edit");
    let page = house.get(&path).await.text;
    assert!(page.contains("hidden: marked sensitive") && !page.contains("4242"), "{page}");
    let (csrf, revision) = (field(&page, "csrf"), field(&page, "revision"));
    let with = |input: &str, more: &[(&'static str, &str)]| {
        let pairs = [("csrf", csrf.as_str()), ("revision", revision.as_str()), ("input", input)];
        let pairs: Vec<(String, String)> =
            pairs.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (house, path) = (&house, &path);
        async move {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            submit(house, path, &pairs).await
        }
    };
    let broken = with("{ total: 7", &[]).await;
    assert!(broken.status == 422 && broken.text.contains("This is not JSON"), "{}", broken.text);
    let same = r#"{"order":"o-1","total":5,"card":"hidden: marked sensitive"}"#;
    assert!(with(same, &[]).await.text.contains("It is as it was"));
    let mended = r#"{"order":"o-1","total":7,"card":"hidden: marked sensitive"}"#;
    let compared = with(mended, &[]).await;
    assert!(compared.status == 200 && compared.text.contains("<code>/total</code>"), "{}", compared.text);
    assert!(!compared.text.contains("/card"), "it stays as it was: {}", compared.text);
    assert_eq!(house.get(&format!("/v1/sagas/{id}")).await.json()["state"], "STUCK", "nothing was done yet");
    let sent = with(mended, &[("confirmed", "yes"), ("reason", "the new flat")]).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    becomes("COMPLETED").await;
    let bodies: Vec<_> = carrier.seen().iter().map(|command| command.body.value().clone()).collect();
    assert_eq!(bodies, [input.clone(), json!({ "order": "o-1", "total": 7, "card": "4242-4242" })]);
    let record = house.store.saga(id.parse().expect("an id")).await.expect("read").expect("there");
    let ships: Vec<_> = record.commands.iter().filter(|entry| entry.step == "ship").collect();
    assert_eq!((ships[0].body.value(), ships[0].generation, ships[1].generation), (&input, 1, 2), "it is kept");
    let history = house.get(&format!("/v1/sagas/{id}/history")).await.json();
    let items = history["items"].as_array().expect("items");
    let edited = items.iter().find(|item| item["kind"] == "edited").expect("it is told");
    assert_eq!(
        (&edited["changes"], &edited["reason"]),
        (&json!([{ "pointer": "/total", "change": "changed" }]), &json!("the new flat"))
    );
    let audit = house.get(&format!("/console/audit?saga={id}")).await.text;
    assert!(audit.contains("the new flat"));
    let rows = house.store.audit(None, &amends::store::Page { after: None, limit: 1 }).await.expect("the audit log");
    let detail = rows[0].detail.value();
    assert!(detail["original"]["seq"].is_number(), "{detail}");
    assert!(!rows[0].detail.text().contains("sha256"), "a card could be guessed at by its hash: {detail}");
    assert!(!rows[0].detail.text().contains("4242"), "payloads are not written there");
}

#[tokio::test]
async fn where_edits_are_off_the_button_says_so_and_every_way_is_refused() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let id = samples[0].1;
    let page = house.get(&format!("/console/sagas/{id}")).await.text;
    assert!(page.contains("inputs are not edited on this server"), "{page}");
    let page = house.get(&format!("/console/sagas/{id}/edit")).await.text;
    let pairs = [("csrf", field(&page, "csrf")), ("revision", field(&page, "revision"))];
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let more = [("input", "{\"x\":1}"), ("confirmed", "yes"), ("reason", "x")];
    let forced = submit(&house, &format!("/console/sagas/{id}/edit"), &[pairs.as_slice(), &more].concat()).await;
    assert_eq!(forced.status, 403, "{}", forced.text);
    let over = house.post(&format!("/v1/sagas/{id}/edit"), &json!({ "reason": "x", "input": {} })).await;
    assert_eq!((over.status.as_u16(), over.code().as_str()), (403, "EDIT_FORBIDDEN"));
}

#[tokio::test]
async fn dead_letters_are_selected_looked_at_and_dropped() {
    let house = House::with(AuthConfig::default()).await;
    for (at, body) in ["<script>alert(1)</script>", "two", "three"].into_iter().enumerate() {
        let properties = Properties { message_id: Some(format!("m{at}")), ..Properties::default() };
        let (exchange, routing_key) = ("amends.replies".to_owned(), "amends.replies".to_owned());
        let body = body.as_bytes().to_vec();
        house.broker.publish(vec![Envelope { exchange, routing_key, mandatory: true, properties, body }]).await;
    }
    let path = "/console/dead/amends.replies.dead";
    let page = eventually("they are there", async || {
        let page = house.get(path).await.text;
        page.contains("value=\"m2\"").then_some(page)
    })
    .await;
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>alert"), "{page}");
    // It marks a card: of what nobody can tell whose it is, nothing is shown from now on.
    house.coordinator.register(ORDER, "test").await.expect("registered");
    let page = house.get(path).await.text;
    assert!(page.contains("hidden: marked sensitive") && !page.contains("&lt;script&gt;"), "{page}");
    assert_eq!(house.get(&format!("{path}/drop")).await.status, 422, "nothing is selected");
    let page = house.get(&format!("{path}/drop?id=m0&id=m2")).await.text;
    assert!(page.contains("Drop 2 messages") && page.contains("--message m0 --message m2"), "{page}");
    let csrf = field(&page, "csrf");
    let pairs = [("csrf", csrf.as_str()), ("id", "m0"), ("id", "m2"), ("reason", "garbage")];
    let done = submit(&house, &format!("{path}/drop"), &pairs).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let page = house.get(path).await.text;
    assert!(
        page.contains("value=\"m1\"") && !page.contains("value=\"m0\"") && !page.contains("value=\"m2\""),
        "{page}"
    );
    let late = submit(&house, &format!("{path}/replay"), &[("csrf", &csrf), ("id", "m0"), ("reason", "late")]).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{}", late.text);
    assert!(house.get("/console/audit").await.text.contains("dead-letter-drop"));
}

#[tokio::test]
async fn what_a_webhook_has_not_taken_is_tried_again_or_dropped_for_a_reason_and_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let Stage { house, filled, .. } = Stage::editable(10, folder.path().to_owned()).await;
    let page = house.get("/console/webhooks").await.text;
    assert!(page.contains("pager") && page.contains("&lt;img") && !page.contains("<img"), "{page}");
    assert_eq!(house.get("/console/webhooks?state=PARKED").await.text.matches("/retry\"").count(), 1);
    assert!(house.get("/console/").await.text.contains("A message to a webhook is parked"), "the start says so");
    let path = format!("/console/webhooks/{}/drop", filled.untold[0]);
    let page = house.get(&path).await.text;
    assert!(page.contains(&format!("amends webhooks drop {} --reason", filled.untold[0])), "{page}");
    let csrf = field(&page, "csrf");
    let none = submit(&house, &path, &[("csrf", &csrf), ("reason", " ")]).await;
    assert!(none.status == 422 && house.get(&path).await.status == 200, "nothing was done: {}", none.text);
    let dropped = submit(&house, &path, &[("csrf", &csrf), ("reason", "nobody reads it")]).await;
    assert_eq!(dropped.status, 303, "{}", dropped.text);
    let again = submit(&house, &path, &[("csrf", &csrf), ("reason", "me too")]).await;
    assert_eq!(again.status, 404, "{}", again.text);
    for path in ["/console/webhooks/nobody/drop", &format!("/console/webhooks/{}/stop", filled.untold[1])] {
        assert_eq!(house.get(path).await.status, 404, "{path}");
    }
    assert!(!house.get("/console/").await.text.contains("is parked"));
}

#[tokio::test]
async fn who_only_reads_sees_pauses_and_not_what_dead_letters_say() {
    let tokens = vec![TokenEntry::plain("vera", Role::Viewer, "a viewer's token")];
    let (house, _) = furnished(AuthConfig::new(tokens)).await;
    let page = ask(&house.router, get("/console/login", None)).await;
    let cookie = page.header("set-cookie").map(|cookie| cookie.split(';').next().expect("a pair").to_owned());
    let csrf = field(&page.text, "csrf");
    let request = form("/console/login", cookie.as_deref(), &[("csrf", &csrf), ("token", "a viewer's token")]);
    let entered = ask(&house.router, request).await;
    assert_eq!(entered.status, 303, "{}", entered.text);
    let session = entered.header("set-cookie").expect("a session").split(';').next().expect("a pair").to_owned();
    let read = async |path: &str| ask(&house.router, get(path, Some(&session))).await;
    let page = read("/console/participants/warehouse").await;
    assert!(page.status == 200 && page.text.contains("your role only reads"), "{}", page.text);
    assert_eq!(read("/console/dead").await.status, 200);
    assert_eq!(read("/console/dead/amends.replies.dead").await.status, 403);
    assert_eq!(read("/console/dead/amends.replies.dead/drop?count=1").await.status, 403);
}
