//! What tests of pages need: a house full of sagas, a form filled in, a walk over all links.

use std::collections::{BTreeSet, VecDeque};

use amends::api::AuthConfig;
use amends::id::SagaId;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;

use crate::made::{self, ORDER};
use crate::support::http::{Answer, House};

/// A house with some hundred sagas, and one stuck saga per way.
pub async fn furnished(auth: AuthConfig) -> (House, Vec<(&'static str, SagaId)>) {
    let house = House::with(auth).await;
    house.coordinator.register(ORDER, "test").await.expect("the definition is registered");
    let samples = made::fill(&*house.store, &made::definition(ORDER), 400).await.samples();
    (house, samples)
}

pub fn get(path: &str, cookie: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path).header("host", "127.0.0.1:7070");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    request.body(Body::empty()).expect("a request")
}

pub fn form(path: &str, cookie: Option<&str>, pairs: &[(&str, &str)]) -> Request<Body> {
    let body: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let mut request = Request::post(path)
        .header("host", "127.0.0.1:7070")
        .header("origin", "http://127.0.0.1:7070")
        .header("sec-fetch-site", "same-origin")
        .header("content-type", "application/x-www-form-urlencoded");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    request.body(Body::from(body.join("&"))).expect("a request")
}

pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The value of a hidden field.
pub fn field(page: &str, name: &str) -> String {
    let from = page.find(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name} in {page}"));
    let rest = &page[from + name.len() + 15..];
    rest[..rest.find('"').expect("an end")].to_owned()
}

/// Everything that `page` links to or loads.
pub fn links(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["href=\"", "src=\"", "action=\""] {
        for (at, _) in page.match_indices(name) {
            let rest = &page[at + name.len()..];
            found.push(rest[..rest.find('"').expect("an end")].replace("&amp;", "&"));
        }
    }
    found
}

/// Where a link leads from the page at `base`.
pub fn resolve(base: &str, link: &str) -> Option<String> {
    if link.starts_with("http") || link.starts_with('#') {
        return None;
    }
    let url = reqwest::Url::parse(&format!("http://x{base}")).expect("a URL").join(link).expect("a link");
    Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

pub async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
    let text = String::from_utf8(bytes.to_vec()).expect("text");
    Answer { status: parts.status, headers: parts.headers, text }
}

/// Follows every link from `start`, up to `most` pages; `look` sees each.
pub async fn walk(router: &Router, start: &str, most: usize, mut look: impl FnMut(&str, &Answer)) -> BTreeSet<String> {
    let (mut seen, mut todo) = (BTreeSet::new(), VecDeque::from([start.to_owned()]));
    while let Some(path) = todo.pop_front() {
        if seen.len() == most || path.contains("/events") || !seen.insert(path.clone()) {
            continue;
        }
        let answer = ask(router, get(&path, None)).await;
        if answer.status == 405 {
            continue;
        }
        look(&path, &answer);
        if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
            todo.extend(links(&answer.text).iter().filter_map(|link| resolve(&path, link)));
        }
    }
    seen
}
