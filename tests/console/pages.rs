//! The pages as text: what they say, where they lead, what filters find.

use std::time::Duration;

use amends::api::{AuthConfig, Role, TokenEntry};
use amends::console::{Doors, Links, router_among};
use axum::Router;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::made::{self, ORDER};
use crate::support::http::House;
use crate::walk::{ask, field, form, furnished, get, walk};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[tokio::test]
async fn every_link_leads_somewhere_below_the_prefix_that_a_proxy_gives() {
    let (house, _) = furnished(AuthConfig::default()).await;
    let router = Router::new().nest("/ops/amends", house.router.clone());
    let mut pages = 0;
    let seen = walk(&router, "/ops/amends/console/", 150, |path, answer| {
        assert!(path.starts_with("/ops/amends/console/"), "{path} is outside");
        assert!(answer.status == 200 || answer.status == 409, "{path}: {} {}", answer.status, answer.text);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert_eq!(answer.header("content-security-policy"), Some(POLICY), "{path}");
        let is_asset = path.contains("/assets/");
        let cached = answer.header("cache-control").expect("it is said");
        assert_eq!(cached.contains("immutable"), is_asset, "{path}: {cached}");
        if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
            pages += 1;
            assert!(!answer.text.contains(" style=") && !answer.text.contains("<style"), "{path} has inline style");
            assert!(
                !answer.text.contains("<script>") && !answer.text.contains("javascript:"),
                "{path} has inline script"
            );
            assert!(answer.text.contains("<h1"), "{path} has no heading");
        }
    })
    .await;
    assert!(pages > 60, "{pages} of {seen:?}");
    for place in ["sagas", "bulk", "definitions", "dead", "audit"] {
        assert!(seen.contains(&format!("/ops/amends/console/{place}")), "{place} was not reached");
    }
}

#[tokio::test]
async fn home_tells_what_is_stuck_by_cause_and_leads_to_exactly_those() {
    let (house, _) = furnished(AuthConfig::default()).await;
    let home = house.get("/console/").await.text;
    for error in
        ["order-locked", "refund-window-closed", "already-loaded", "timeout", "address-unknown", "mailbox-full"]
    {
        assert!(home.contains(&format!(">{error}<")), "{error}");
    }
    assert!(home.contains("no consumer") || home.contains("no queue"), "nobody consumes here");
    let list = house.get("/console/sagas?state=STUCK&saga=order&version=1&error=mailbox-full&at=5").await.text;
    let rows = list.matches("<tr data-row").count();
    assert_eq!(rows, 1, "12 are stuck, in ten ways; the last way has one");
    assert!(list.contains("mailbox-full"));
}

#[tokio::test]
async fn each_filter_narrows_and_stays_in_the_address() {
    let (house, _) = furnished(AuthConfig::default()).await;
    let rows =
        async |query: &str| house.get(&format!("/console/sagas?{query}")).await.text.matches("<tr data-row").count();
    assert_eq!(rows("state=STUCK").await, 12);
    assert_eq!(rows("state=STUCK&state=RUNNING").await, 20);
    assert_eq!(rows("key=o-00017").await, 1);
    assert_eq!(rows("key=nobody").await, 0);
    assert_eq!(rows("saga=order&version=2").await, 0);
    assert_eq!(rows("since=1m").await, 8, "those that are under way");
    assert_eq!(rows("until=2h").await, 12, "those that are stuck");
    assert_eq!(rows("error=out-of-stock").await, 16);
    assert_eq!(rows("status=unknown").await, 2, "the pivot, and the carrier");
    assert_eq!(rows("field=order%3Do-00042").await, 1);
    assert_eq!(rows("field=total%3D1242").await, 1);
    assert_eq!(rows("field=note.gift%3Dtrue&state=STUCK").await, 4, "those of round numbers");
    assert_eq!(rows("paused=true").await, 0);
    let page = house.get("/console/sagas?state=STUCK&error=timeout").await.text;
    assert!(
        page.contains("value=\"timeout\"") && page.contains("value=\"STUCK\" checked"),
        "the form shows the filter"
    );
    for wrong in ["state=STICK", "since=yesterday", "version=x", "status=odd", "field=x", "after=x"] {
        let answer = house.get(&format!("/console/sagas?{wrong}")).await;
        assert_eq!(answer.status, 422, "{wrong}");
    }
}

#[tokio::test]
async fn pages_of_the_list_have_every_saga_once() {
    let (house, _) = furnished(AuthConfig::default()).await;
    let (mut path, mut seen) = ("/console/sagas".to_owned(), Vec::new());
    loop {
        let page = house.get(&path).await.text;
        for (at, _) in page.match_indices("data-id=\"") {
            seen.push(page[at + 9..at + 45].to_owned());
        }
        let Some(at) = page.find("rel=\"next\" href=\"./") else { break };
        let rest = &page[at + 19..];
        path = format!("/console/{}", rest[..rest.find('"').expect("an end")].replace("&amp;", "&"));
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!((count, seen.len()), (400, 400));
}

#[tokio::test]
async fn a_stuck_saga_says_why_on_top_and_what_can_be_done() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    for (way, id) in samples {
        let page = house.get(&format!("/console/sagas/{id}")).await;
        assert_eq!(page.status, 200, "{way}: {}", page.text);
        let (reason, graph) = (page.text.find("Waiting for"), page.text.find("class=\"graph"));
        assert!(reason.is_some() && reason < graph, "{way}: the reason comes first");
        assert!(page.text.contains("Retry now…"), "{way}");
        assert!(page.text.contains("Not possible now:") && page.text.contains("disabled"), "{way}");
    }
}

#[tokio::test]
async fn fields_marked_sensitive_are_on_no_page() {
    let house = House::new().await;
    house.coordinator.register(ORDER, "test").await.expect("registered");
    let input = json!({ "order": "o-1", "card": "CANARY-4242", "note": "paid with CANARY-4242" });
    let saga = made::play(&made::definition(ORDER), input, amends::clock::Clock::System.now(), &made::ways()[0].1);
    let id = saga.saga.id;
    made::write(&*house.store, vec![saga]).await;
    for page in ["", "/retry", "/history.json", "?history=full", "?history=json"] {
        let answer = house.get(&format!("/console/sagas/{id}{page}")).await;
        assert_eq!(answer.status, 200, "{page}");
        assert!(!answer.text.contains("CANARY"), "{page} shows it");
    }
    let page = house.get(&format!("/console/sagas/{id}")).await.text;
    assert!(page.contains("hidden: marked sensitive") && page.contains("paid with [hidden]"));
}

#[tokio::test]
async fn with_tokens_the_console_asks_for_one_and_gives_each_role_what_it_may() {
    let tokens = Role::ALL.map(|role| TokenEntry::plain(role.as_str(), role, &format!("{}-token", role.as_str())));
    let (house, samples) = furnished(AuthConfig::new(tokens.into())).await;
    let stuck = format!("/console/sagas/{}", samples[0].1);
    let away = house.get(&format!("{stuck}?history=full")).await;
    assert_eq!(away.status, 303);
    assert_eq!(away.header("location").map(|to| to.contains("../login?next=sagas")), Some(true));
    let login = house.get("/console/login").await.text;
    let csrf = field(&login, "csrf");
    let wrong = ask(&house.router, form("/console/login", None, &[("csrf", &csrf), ("token", "guess")])).await;
    assert_eq!((wrong.status.as_u16(), wrong.header("set-cookie")), (401, None));

    for role in Role::ALL {
        let token = format!("{}-token", role.as_str());
        let pairs = [("csrf", csrf.as_str()), ("token", &token), ("next", "sagas?state=STUCK")];
        let entered = ask(&house.router, form("/console/login", None, &pairs)).await;
        assert_eq!((entered.status.as_u16(), entered.header("location")), (303, Some("./sagas?state=STUCK")));
        let cookie = entered.header("set-cookie").expect("a session");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(&token));
        let session = cookie.split(';').next().expect("a pair").to_owned();
        for row in amends::console::route_table().iter().filter(|row| row.method == "GET" && !row.path.contains('{')) {
            let path = if row.path.ends_with("events") { "/console/revisions" } else { row.path };
            let answer = ask(&house.router, get(path, Some(&session))).await;
            assert!(answer.status.is_success() || answer.status.is_redirection(), "{role:?} {path}: {}", answer.status);
        }
        let page = ask(&house.router, get(&format!("{stuck}/pause"), Some(&session))).await;
        let pairs =
            [("csrf", &*field(&page.text, "csrf")), ("revision", &*field(&page.text, "revision")), ("reason", "")];
        let acted = ask(&house.router, form(&format!("{stuck}/pause"), Some(&session), &pairs)).await;
        // Without a reason nothing is done by anybody; who may not act is told that first.
        let expected = if matches!(role, Role::Operator | Role::Admin) { 422 } else { 403 };
        assert_eq!(acted.status.as_u16(), expected, "{role:?}");
        let forged = format!("{}x", session);
        assert_eq!(ask(&house.router, get("/console/", Some(&forged))).await.status, 303, "a changed session is none");
    }
}

#[tokio::test]
async fn where_sagas_are_archived_one_that_has_ended_says_when() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let page = async |router: &Router, id: &str| ask(router, get(&format!("/console/sagas/{id}"), None)).await.text;
    let ended = house.get("/v1/sagas?state=COMPLETED&limit=1").await.json()["items"][0]["id"].clone();
    let (ended, stuck) = (ended.as_str().expect("an id"), samples[0].1.to_string());
    let kept = |days: u64| {
        let links = Links { retention: Some(Duration::from_secs(days * 86_400)), ..Links::default() };
        let more = (links, Doors::default());
        router_among(house.coordinator.clone(), AuthConfig::default(), CancellationToken::new(), more)
    };
    let told = page(&kept(30), ended).await;
    assert!(told.contains("Archived") && told.contains("in 29 d") && told.contains("at the earliest"), "{told}");
    let told = page(&kept(0), ended).await;
    assert!(told.contains("Archived") && told.contains("with the next run"), "{told}");
    assert!(!page(&kept(30), &stuck).await.contains("Archived"), "it has not ended");
    assert!(!page(&house.router, ended).await.contains("Archived"), "none are");
}
