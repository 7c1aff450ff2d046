//! Tokens of the store over HTTP: how soon they are known, and how soon no longer.

use amends::api::{AuthConfig, MOST_STALE, Role, TokenEntry};
use axum::http::Method;

use super::matrix::session;
use super::{house, make, request, revoke, store};
use crate::support::{eventually, eventually_within};

#[tokio::test]
async fn a_revocation_takes_effect_within_the_bound_and_ends_sessions() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let token = make(&store, "anna", Role::Operator, None).await;
    let house = house(&store).await;
    let status = async || house.ask(request(&Method::GET, "/v1/sagas", Some(&token))).await.status.as_u16();
    assert_eq!(status().await, 200);
    let cookie = session(&house, &token).await.expect("it is good");
    let page = async || {
        let mut page = request(&Method::GET, "/console/", None);
        page.headers_mut().insert("cookie", cookie.parse().expect("a header"));
        house.ask(page).await.status.as_u16()
    };
    assert_eq!(page().await, 200);
    revoke(&store, "anna").await;
    let bound = MOST_STALE + std::time::Duration::from_secs(3);
    eventually_within(bound, "the token is refused", async || (status().await == 401).then_some(())).await;
    assert_eq!(page().await, 303, "its session has ended with it");
}

#[tokio::test]
async fn the_first_token_closes_an_open_server_and_the_last_revocation_does_not_open_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let house = house(&store).await;
    let status = async |path: &str| house.ask(request(&Method::GET, path, None)).await.status.as_u16();
    assert_eq!(status("/v1/sagas").await, 200, "without tokens it is open to this machine");
    let token = make(&store, "first", Role::Viewer, None).await;
    eventually("a token is asked for", async || (status("/v1/sagas").await == 401).then_some(())).await;
    assert_eq!(house.ask(request(&Method::GET, "/v1/sagas", Some(&token))).await.status, 200);
    revoke(&store, "first").await;
    eventually("it is refused", async || {
        (house.ask(request(&Method::GET, "/v1/sagas", Some(&token))).await.status == 401).then_some(())
    })
    .await;
    assert_eq!((status("/v1/sagas").await, status("/healthz").await), (401, 200));
    // And another coordinator sees it likewise.
    let other = super::house(&store).await;
    assert_eq!(other.ask(request(&Method::GET, "/v1/sagas", None)).await.status, 401);
}

#[tokio::test]
async fn tokens_of_the_settings_go_on_while_the_store_is_away_and_others_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let stored = make(&store, "anna", Role::Admin, None).await;
    let set = TokenEntry::plain("ops", Role::Viewer, "s3cret");
    let auth = AuthConfig::new(vec![set]).with_store(store.clone());
    let house = crate::support::http::House::on(store.clone(), auth).await;
    store.close().await;
    let answer = async |token: &str| house.ask(request(&Method::GET, "/openapi.json", Some(token))).await;
    assert_eq!(answer("s3cret").await.status, 200);
    let refused = answer(&stored).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "STORE_UNAVAILABLE"), "not let in unseen");
    assert_eq!(house.ask(request(&Method::GET, "/healthz", None)).await.status, 200);
}

#[tokio::test]
async fn the_use_of_a_token_is_written_down_once_in_a_while() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder).await;
    let token = make(&store, "anna", Role::Viewer, None).await;
    let house = house(&store).await;
    let used = async || {
        let live = store.tokens().expect("it keeps tokens").live_tokens().await.expect("a read");
        live.tokens[0].last_used_at
    };
    assert_eq!(used().await, None);
    house.ask(request(&Method::GET, "/v1/sagas", Some(&token))).await;
    let first = eventually("it is written down", async || used().await).await;
    for _ in 0..20 {
        house.ask(request(&Method::GET, "/v1/sagas", Some(&token))).await;
    }
    assert_eq!(used().await, Some(first));
}
