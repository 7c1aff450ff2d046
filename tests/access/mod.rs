//! Who may do what: tokens of the store, every route by every role, the audit log.

mod audit;
mod matrix;
mod oidc;
mod rights;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use amends::api::{AuthConfig, Role};
use amends::store::Store;
use amends::store::tokens::{NewToken, Revocation, TokenMade};
use axum::body::Body;
use axum::http::{Method, Request};
use sha2::{Digest, Sha256};

use crate::support::eventually;
use crate::support::http::House;

/// A store in a file of `folder`, its schema up to date.
async fn store(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    let url = format!("sqlite://{}", folder.path().join("amends.db").display());
    let store = amends::store::open(&url).await.expect("the store opens");
    store.migrate().await.expect("the schema is made");
    store
}

/// A coordinator that goes by the tokens of `store`.
async fn house(store: &Arc<dyn Store>) -> House {
    House::on(store.clone(), AuthConfig::default().with_store(store.clone())).await
}

/// Makes a token in the store, and gives its text.
async fn make(store: &Arc<dyn Store>, name: &str, role: Role, lifetime: Option<Duration>) -> String {
    let secret = amends::id::fresh_secret().expect("random numbers");
    let text = format!("amends_default_{}", hex::encode(secret));
    let new = NewToken {
        name: name.to_owned(),
        role: role.as_str().to_owned(),
        sha256: Sha256::digest(&text).into(),
        created_by: "cli:test".to_owned(),
        lifetime,
        reason: "for the test".to_owned(),
    };
    let made = store.tokens().expect("it keeps tokens").make_token(&new).await.expect("a commit");
    assert!(matches!(made, TokenMade::New(_)), "{made:?}");
    text
}

async fn revoke(store: &Arc<dyn Store>, name: &str) {
    let revoked = store.tokens().expect("it keeps tokens").revoke_token(name, "cli:test", "lost").await;
    assert!(matches!(revoked.expect("a commit"), Revocation::Done(_)));
}

/// Waits until a token's time is over.
async fn expires(store: &Arc<dyn Store>, name: &str) {
    eventually(&format!("{name} expires"), async || {
        let live = store.tokens().expect("it keeps tokens").live_tokens().await.expect("a read");
        (!live.tokens.iter().any(|token| token.name == name)).then_some(())
    })
    .await;
}

fn request(method: &Method, path: &str, token: Option<&str>) -> Request<Body> {
    let mut request = Request::builder().method(method.clone()).uri(path).header("host", "127.0.0.1:7070");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::empty()).expect("a request")
}
