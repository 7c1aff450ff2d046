//! Tokens that an issuer has signed, with keys that the test makes and publishes itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use amends::api::{AuthConfig, Oidc, OidcConfig, Role};
use amends::clock::Clock;
use axum::Json;
use axum::http::Method;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::matrix::session;
use super::request;
use crate::support::http::{Answer, House, PLACE, with_kind};

const ISSUER: &str = "https://issuer.example";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key of an issuer.
struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn fresh(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self { id, pair: pair.expect("a key") }
    }

    fn published(&self) -> Value {
        let (x, y) = self.point()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": encode(x), "y": encode(y) })
    }

    fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn sign(&self, claims: &Value) -> String {
        let message = message(&json!({ "alg": "ES256", "typ": "JWT", "kid": self.id }), claims);
        let signed = self.pair.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", encode(signed))
    }
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
}

/// What an operator's token says.
fn claims() -> Value {
    let now = Clock::System.now().timestamp();
    json!({
        "iss": ISSUER, "aud": ["other", "amends"], "sub": "anna", "iat": now, "nbf": now, "exp": now + 600,
        "groups": ["staff", "ops"],
    })
}

fn with(more: Value) -> Value {
    let mut all = claims();
    for (name, value) in more.as_object().expect("an object") {
        all[name] = value.clone();
    }
    all
}

fn without(name: &str) -> Value {
    let mut all = claims();
    all.as_object_mut().expect("an object").remove(name);
    all
}

/// A server that publishes keys, and how often it was asked.
struct Published {
    url: String,
    asked: Arc<AtomicU32>,
}

async fn publish(keys: Vec<Value>) -> Published {
    let asked: Arc<AtomicU32> = Arc::default();
    let (count, keys) = (asked.clone(), Arc::new(Mutex::new(keys)));
    let answer = move || {
        count.fetch_add(1, Ordering::SeqCst);
        let keys = keys.lock().expect("whole").clone();
        async move { Json(json!({ "keys": keys })) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
    let router = axum::Router::new().route("/keys", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Published { url, asked }
}

fn config(jwks: &str) -> OidcConfig {
    let roles = [("ops", Role::Operator), ("readers", Role::Viewer)];
    OidcConfig {
        issuer: ISSUER.to_owned(),
        audience: "amends".to_owned(),
        jwks: jwks.to_owned(),
        algorithms: ["ES256", "RS256", "PS256"].map(str::to_owned).into(),
        roles_claim: "groups".to_owned(),
        roles: roles.map(|(value, role)| (value.to_owned(), role)).into(),
    }
}

async fn house(jwks: &str) -> House {
    House::with(AuthConfig::default().with_issuer(Oidc::new(config(jwks)).expect("it makes sense"))).await
}

async fn read(house: &House, token: &str) -> Answer {
    house.ask(request(&Method::GET, "/v1/audit", Some(token))).await
}

#[tokio::test]
async fn a_good_token_gives_its_subject_and_the_highest_of_its_roles() {
    let key = Key::fresh("k1");
    let published = publish(vec![json!({ "kty": "unheard-of" }), key.published()]).await;
    let house = house(&published.url).await;
    let mut definition = with_kind("/v1/definitions", "application/yaml", PLACE);
    let header = |token: &str| format!("Bearer {token}").parse().expect("a header");
    definition.headers_mut().insert("authorization", header(&key.sign(&claims())));
    assert_eq!(house.ask(definition).await.status, 201);
    let audit = read(&house, &key.sign(&claims())).await.json();
    let row = &audit["items"][0];
    assert_eq!((&row["actor"], &row["action"]), (&"oidc:anna".into(), &"register".into()));

    let reader = key.sign(&with(json!({ "groups": "readers staff" })));
    assert_eq!(read(&house, &reader).await.status, 200, "a text has its words parted by spaces");
    let mut definition = with_kind("/v1/definitions", "application/yaml", PLACE);
    definition.headers_mut().insert("authorization", header(&reader));
    assert_eq!(house.ask(definition).await.code(), "FORBIDDEN");

    let now = Clock::System.now().timestamp();
    let hurried = key.sign(&with(json!({ "exp": now - 5, "nbf": now + 5, "aud": "amends" })));
    assert_eq!(read(&house, &hurried).await.status, 200, "clocks need not agree to the second");
    assert_eq!(published.asked.load(Ordering::SeqCst), 1, "keys are kept");
}

#[tokio::test]
async fn what_is_not_signed_for_us_by_the_issuer_and_valid_now_is_refused() {
    let (key, other) = (Key::fresh("k1"), Key::fresh("k1"));
    let published =
        publish(vec![key.published(), json!({ "kty": "oct", "kid": "secret", "k": encode("known") })]).await;
    let house = house(&published.url).await;
    let now = Clock::System.now().timestamp();
    let good = key.sign(&claims());
    assert_eq!(read(&house, &good).await.status, 200);
    let parts: Vec<&str> = good.split('.').collect();
    let hashed = |key: &[u8], id: &str| {
        let message = message(&json!({ "alg": "HS256", "kid": id }), &claims());
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("a key");
        mac.update(message.as_bytes());
        format!("{message}.{}", encode(mac.finalize().into_bytes()))
    };
    let unsigned = |alg: &str| message(&json!({ "alg": alg, "kid": "k1" }), &claims());
    let cases = [
        ("expired", key.sign(&with(json!({ "exp": now - 120 }))), "expired"),
        ("not valid yet", key.sign(&with(json!({ "nbf": now + 120 }))), "not valid yet"),
        ("for another audience", key.sign(&with(json!({ "aud": "billing" }))), "another audience"),
        ("of another issuer", key.sign(&with(json!({ "iss": "https://evil.example" }))), "another issuer"),
        ("of several issuers", key.sign(&with(json!({ "iss": [ISSUER, "https://evil.example"] }))), "another issuer"),
        ("without an end", key.sign(&without("exp")), "`exp`"),
        ("with an end in words", key.sign(&with(json!({ "exp": "never" }))), "`exp`"),
        ("without an audience", key.sign(&without("aud")), "`aud`"),
        ("without a subject", key.sign(&without("sub")), "`sub`"),
        ("with a subject that breaks lines", key.sign(&with(json!({ "sub": "anna\nroot" }))), "no name"),
        ("by a key that is not published", Key::fresh("k2").sign(&claims()), "none of the issuer's"),
        ("by another key of the same name", other.sign(&claims()), "signature"),
        (
            "with other claims under the signature",
            format!("{}.{}.{}", parts[0], encode(with(json!({ "sub": "root" })).to_string()), parts[2]),
            "signature",
        ),
        ("with algorithm none", format!("{}.", unsigned("none")), "header"),
        ("with algorithm None and a signature", format!("{}.{}", unsigned("None"), parts[2]), "header"),
        ("with its signature cut off", format!("{}.{}.", parts[0], parts[1]), "signature"),
        ("HS256 with the public key's point", hashed(key.point(), "k1"), "algorithm"),
        ("HS256 with the public key as published", hashed(key.published().to_string().as_bytes(), "k1"), "algorithm"),
        ("HS256 with a published secret", hashed(b"known", "secret"), "algorithm"),
        ("with another curve's algorithm", format!("{}.{}", unsigned("ES384"), parts[2]), "algorithm"),
        ("as RS256 with an EC key", format!("{}.{}", unsigned("RS256"), parts[2]), "none of the issuer's"),
        ("of two parts", format!("{}.{}", parts[0], parts[1]), "header"),
        ("too long", format!("{good}{}", "A".repeat(20_000)), "too long"),
    ];
    for (what, token, told) in cases {
        let answer = read(&house, &token).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (401, "UNAUTHENTICATED"),
            "{what}: {}",
            answer.text
        );
        assert!(answer.text.contains(told), "{what}: {}", answer.text);
    }
    // Nor is anybody made to ask the issuer by what is made up.
    assert_eq!(published.asked.load(Ordering::SeqCst), 1);
    assert_eq!(read(&house, &good).await.status, 200, "and none of it does harm");
}

#[tokio::test]
async fn a_token_without_a_role_is_known_and_may_nothing() {
    let key = Key::fresh("k1");
    let house = house(&publish(vec![key.published()]).await.url).await;
    for groups in [json!(["staff"]), json!([]), json!("operator"), json!({ "ops": true }), Value::Null] {
        let answer = read(&house, &key.sign(&with(json!({ "groups": groups })))).await;
        assert_eq!(answer.code(), "FORBIDDEN", "{groups}");
        assert!(answer.text.contains("`oidc:anna` has no role here"), "{}", answer.text);
    }
}

#[tokio::test]
async fn without_the_issuers_keys_nobody_is_let_in_and_told_so() {
    let key = Key::fresh("k1");
    let house = house("http://127.0.0.1:9/keys").await;
    let answer = read(&house, &key.sign(&claims())).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "ISSUER_UNAVAILABLE"), "{}", answer.text);
    assert_eq!(house.ask(request(&Method::GET, "/v1/audit", None)).await.status, 401, "and it is not open");
}

#[tokio::test]
async fn rsa_keys_serve_too() {
    let sample: Value = serde_json::from_str(include_str!("rsa.json")).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    std::fs::write(&file, json!({ "keys": [sample["jwk"]] }).to_string()).expect("written");
    let house = house(file.to_str().expect("text")).await;
    for algorithm in ["RS256", "PS256"] {
        let token = sample[algorithm].as_str().expect("a token");
        assert_eq!(read(&house, token).await.status, 200, "{algorithm}");
        // The last character may stand for no more than two bits.
        let at = token.len() - 10;
        let changed = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let forged = format!("{}{changed}{}", &token[..at], &token[at + 1..]);
        assert_eq!(read(&house, &forged).await.status, 401, "{algorithm}");
    }
}

#[tokio::test]
async fn a_person_logs_in_to_the_console_with_such_a_token() {
    let key = Key::fresh("k1");
    let house = house(&publish(vec![key.published()]).await.url).await;
    assert_eq!(session(&house, "eyJ.made.up").await, None);
    assert_eq!(session(&house, &key.sign(&with(json!({ "groups": [] })))).await, None);
    let cookie = session(&house, &key.sign(&claims())).await.expect("it is good");
    let mut page = request(&Method::GET, "/console/", None);
    page.headers_mut().insert("cookie", cookie.parse().expect("a header"));
    let page = house.ask(page).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("oidc:anna"), "{}", page.text);
}

#[tokio::test]
async fn settings_that_would_let_anybody_in_are_refused() {
    let refused = |change: &dyn Fn(&mut OidcConfig)| {
        let mut config = config("https://issuer.example/keys");
        change(&mut config);
        // The library has no TLS provider of its own; a file needs none.
        if config.jwks.starts_with("https://") {
            config.jwks = "keys.json".to_owned();
        }
        Oidc::new(config).err().unwrap_or_default()
    };
    for algorithm in ["HS256", "none", "es256"] {
        let told = refused(&|config| config.algorithms = vec![algorithm.to_owned()]);
        assert!(told.contains("no algorithm with a public key"), "{algorithm}: {told}");
    }
    assert!(refused(&|config| config.algorithms.clear()).contains("algorithms"));
    assert!(refused(&|config| config.audience.clear()).contains("audience"));
    assert!(refused(&|config| config.roles = BTreeMap::new()).contains("nobody could do anything"));
    assert!(refused(&|config| config.jwks = "http://10.0.0.1/keys".to_owned()).contains("use https://"));
    assert!(refused(&|config| config.jwks = "ftp://issuer.example/keys".to_owned()).contains("expected https://"));
    assert_eq!(refused(&|_| {}), "");
}
