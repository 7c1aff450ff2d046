//! Every route of the HTTP interface and of the console by every role, and by whoever has no good token.

use std::sync::Arc;
use std::time::Duration;

use amends::api::{Right, Role, route_table};
use amends::store::Store;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::Response;
use tower::ServiceExt;

use super::{expires, house, make, request, revoke, store};
use crate::support::http::House;

/// A token per role, and two that were good once.
struct Tokens {
    roles: Vec<(Role, String)>,
    revoked: String,
    expired: String,
}

async fn tokens(store: &Arc<dyn Store>) -> Tokens {
    let mut roles = Vec::new();
    for role in Role::ALL {
        roles.push((role, make(store, role.as_str(), role, None).await));
    }
    let revoked = make(store, "lost", Role::Admin, None).await;
    let expired = make(store, "old", Role::Admin, Some(Duration::from_millis(1))).await;
    expires(store, "old").await;
    Tokens { roles, revoked, expired }
}

#[tokio::test]
async fn every_route_asks_every_role_for_its_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let tokens = tokens(&store).await;
    revoke(&store, "lost").await;
    let house = house(&store).await;
    let mut asked = 0;
    for route in route_table() {
        let expected = match (route.method.as_str(), route.path) {
            ("GET", "/healthz" | "/readyz") => Right::Open,
            // What a message says may be what only few may see.
            ("GET", "/v1/dead-letters/{queue}") => Right::Operate,
            ("GET", _) => Right::Read,
            (_, path) if path.starts_with("/v1/definitions") => Right::Register,
            (_, "/v1/sagas" | "/v1/sagas/batch" | "/v1/signals" | "/v1/sagas/{id}/signal") => Right::Start,
            _ => Right::Operate,
        };
        assert_eq!(route.right, expected, "{} {}", route.method, route.path);
        let path = route.path.replace("{id}", "0").replace("{name}", "a").replace("{version}", "0");
        let path = path.replace("{queue}", "a.dead");
        let line = format!("{} {path}", route.method);
        let status = async |token: Option<&str>| house.ask(request(&route.method, &path, token)).await.status.as_u16();
        let is_open = route.right == Right::Open;
        let (made_up, other) =
            (format!("amends_default_{}", "0".repeat(64)), tokens.roles[4].1.replace("default", "other"));
        for (who, token) in [
            ("without a token", None),
            ("with a made-up token", Some(made_up.as_str())),
            ("with a revoked token", Some(tokens.revoked.as_str())),
            ("with an expired token", Some(tokens.expired.as_str())),
            ("with a token of another namespace", Some(other.as_str())),
        ] {
            assert_eq!(status(token).await == 401, !is_open, "{line} {who}");
        }
        for (role, token) in &tokens.roles {
            let status = status(Some(token)).await;
            assert_eq!(status == 403, !role.may(route.right), "{line} as {role:?}: {status}");
            assert!(status != 401 && status < 500, "{line} as {role:?}: {status}");
            asked += 1;
        }
    }
    assert_eq!(asked, route_table().len() * Role::ALL.len());
    assert!(asked >= 100);
    // What is in no table asks for as much as reading.
    assert_eq!(house.ask(request(&Method::GET, "/v1/nothing", None)).await.status, 401);
    assert_eq!(house.ask(request(&Method::DELETE, "/v1/sagas", None)).await.status, 401);
}

#[tokio::test]
async fn what_is_sensitive_is_shown_to_who_may_see_it_and_by_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let tokens = tokens(&store).await;
    let house = house(&store).await;
    let mut revealing = Vec::new();
    for route in route_table().into_iter().filter(|route| route.method == Method::GET) {
        let path = route.path.replace("{id}", "0").replace("{name}", "a").replace("{version}", "0");
        let path = format!("{}?reveal=true", path.replace("{queue}", "a.dead"));
        let mut refused = 0;
        for (role, token) in &tokens.roles {
            let status = house.ask(request(&route.method, &path, Some(token))).await.status.as_u16();
            refused += usize::from(status == 403 && role.may(route.right));
            assert!(status != 403 || !role.may(Right::Reveal), "{path} as {role:?}");
        }
        if refused > 0 {
            let may_read = Role::ALL.into_iter().filter(|role| role.may(route.right) && !role.may(Right::Reveal));
            assert_eq!(refused, may_read.count(), "{path}");
            revealing.push(route.path);
        }
    }
    revealing.sort_unstable();
    assert_eq!(revealing, ["/v1/dead-letters/{queue}", "/v1/outbox", "/v1/sagas/{id}", "/v1/sagas/{id}/history"]);
}

/// Whether a page of the console is refused, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Let,
    /// To the login, or told that one is not in.
    Away,
    /// The role is too low.
    Refused,
}

/// Streams do not end, so that only what is refused is read.
async fn seen(response: Response) -> Seen {
    let status = response.status().as_u16();
    let place = response.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
    match (status, place) {
        (401, _) => Seen::Away,
        (303, Some(place)) if place.contains("login?next=") => Seen::Away,
        (403, _) => {
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
            let is_the_role = String::from_utf8_lossy(&body).contains("Your token does not allow this");
            if is_the_role { Seen::Refused } else { Seen::Let }
        }
        _ => Seen::Let,
    }
}

async fn look(router: &Router, method: &Method, path: &str, session: Option<&str>) -> Seen {
    let mut request = Request::builder().method(method.clone()).uri(path).header("host", "127.0.0.1:7070");
    if *method == Method::POST {
        request = request
            .header("origin", "http://127.0.0.1:7070")
            .header("content-type", "application/x-www-form-urlencoded");
    }
    if let Some(session) = session {
        request = request.header("cookie", session);
    }
    let request = request.body(Body::empty()).expect("a request");
    seen(router.clone().oneshot(request).await.expect("an answer")).await
}

/// Logs in with a token; the session's cookie.
pub(super) async fn session(house: &House, token: &str) -> Option<String> {
    let login = house.get("/console/login").await.text;
    let from = login.find("name=\"csrf\" value=\"").expect("the form's token") + 19;
    let csrf = &login[from..from + login[from..].find('"').expect("an end")];
    let request = Request::post("/console/login")
        .header("host", "127.0.0.1:7070")
        .header("origin", "http://127.0.0.1:7070")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(format!("csrf={csrf}&token={token}")))
        .expect("a request");
    let entered = house.ask(request).await;
    let cookie = entered.header("set-cookie")?;
    Some(cookie.split(';').next().expect("a pair").to_owned())
}

#[tokio::test]
async fn every_page_of_the_console_asks_every_role_for_its_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let tokens = tokens(&store).await;
    let first = house(&store).await;
    let lost = session(&first, &tokens.revoked).await.expect("it is good still");
    assert_eq!(session(&first, &tokens.expired).await, None, "it is not any more");
    revoke(&store, "lost").await;
    // Another coordinator of the same store: it knows the session, and has not heard of the token before.
    let house = house(&store).await;
    assert_eq!(session(&house, &tokens.revoked).await, None);
    let mut sessions = Vec::new();
    for (role, token) in &tokens.roles {
        sessions.push((*role, session(&house, token).await.expect("it is good")));
    }
    let mut asked = 0;
    for route in amends::console::route_table() {
        let expected = match (route.method.as_str(), route.path) {
            ("GET", "/console" | "/console/login" | "/console/assets/{file}") | ("POST", "/console/login") => {
                Right::Open
            }
            // What a message says may be what only few may see.
            ("GET", path) if path.starts_with("/console/dead/") => Right::Operate,
            ("GET", _)
            | ("POST", "/console/logout" | "/console/theme" | "/console/namespace" | "/console/selection") => {
                Right::Read
            }
            _ => Right::Operate,
        };
        assert_eq!(route.right, expected, "{} {}", route.method, route.path);
        let path = route.path.replace("{id}", "0198c0de-0000-7000-8000-000000000001").replace("{action}", "pause");
        let path = path.replace("{name}", "a").replace("{version}", "1").replace("{*rest}", "nothing");
        let path = path.replace("{queue}", "a.dead").replace("{word}", "pause");
        let line = format!("{} {path}", route.method);
        let outside = if route.right == Right::Open { Seen::Let } else { Seen::Away };
        for (who, session) in
            [("nobody", None), ("a made-up session", Some("amends_console=AAAA")), ("a lost one", Some(&*lost))]
        {
            assert_eq!(look(&house.router, &route.method, &path, session).await, outside, "{line} by {who}");
        }
        for (role, session) in &sessions {
            let expected = if role.may(route.right) { Seen::Let } else { Seen::Refused };
            assert_eq!(look(&house.router, &route.method, &path, Some(session)).await, expected, "{line} as {role:?}");
            asked += 1;
        }
    }
    assert_eq!(asked, amends::console::route_table().len() * Role::ALL.len());
    assert!(asked >= 100);
}
