//! HTTP: through the real router, on a store in memory and without a network.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use amends::api::{AuthConfig, router};
use amends::broker::in_process::InProcessBroker;
use amends::clock::Clock;
use amends::coordinator::{Coordinator, CoordinatorOptions, Start};
use amends::payload::Payload;
use amends::store::memory::MemoryStore;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use serde_json::{Value, json};
use tower::ServiceExt;

const SAGA: &str = "saga: note\nversion: 1\nkey: ${ input.n }\ninput: { schema: { type: object, properties: { n: { type: string } } } }\n\
                    steps:\n  - { name: a, participant: p, action: x, compensation: { action: y } }\n  \
                    - name: b\n    wait: { signal: go, timeout: 1d }\n  - { name: c, participant: p, action: z, pivot: true, compensation: none }\n";

/// A code that is not in `docs/errors.md` or explained by `definitions explain` is not stable.
pub fn is_known(code: &str) {
    static CODES: OnceLock<BTreeSet<&str>> = OnceLock::new();
    let codes = CODES.get_or_init(|| {
        let rows = include_str!("../../docs/errors.md").lines().filter_map(|line| line.strip_prefix("| `"));
        rows.filter_map(|row| row.split_once('`')).map(|(code, _)| code).collect()
    });
    assert!(codes.contains(code), "`{code}` is not in docs/errors.md");
}

async fn house(sagas: usize) -> (Coordinator, Router) {
    let store = Arc::new(MemoryStore::new(Clock::System));
    let options = CoordinatorOptions { events: false, ..CoordinatorOptions::default() };
    let coordinator = Coordinator::launch(store, Arc::new(InProcessBroker::new()), options).await.expect("it launches");
    coordinator.register(SAGA, "fuzz").await.expect("a sound definition");
    let input = |at: usize| Payload::from(json!({ "n": format!("n-{at}") }));
    let starts = (0..sagas).map(|at| Start { saga: "note".to_owned(), version: None, input: input(at), key: None });
    for started in coordinator.start_many(starts.collect()).await {
        started.expect("it starts");
    }
    let router = router(coordinator.clone(), AuthConfig::default());
    (coordinator, router)
}

/// What every answer has: no fault of the server's, and if it is a problem, a known code, a pointer and an id.
async fn checked(response: Response<Body>) -> (u16, Option<Value>) {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let bytes = axum::body::to_bytes(body, 64 << 20).await.expect("the body is read");
    let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let document = kind.contains("json").then(|| serde_json::from_slice::<Value>(&bytes).ok()).flatten();
    assert!(status < 500, "{status}: {}", String::from_utf8_lossy(&bytes));
    if status >= 400 && !bytes.is_empty() {
        assert_eq!(kind, "application/problem+json");
        let document = document.as_ref().expect("a problem is JSON");
        is_known(document["code"].as_str().expect("a problem has a code"));
        assert!(document["requestId"].is_string() && document["status"] == status, "{document}");
        for field in document["errors"].as_array().into_iter().flatten() {
            let pointer = field["pointer"].as_str().expect("a field's problem has its place");
            assert!(pointer.is_empty() || pointer.starts_with('/'), "{document}");
        }
    }
    (status, document)
}

/// `METHOD TARGET`, lines of headers, an empty line, the body; `None` where HTTP itself would not have it.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let end = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 2..).unwrap_or_default());
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut request = Request::builder().method(first.get(..space)?).uri(first.get(space + 1..)?);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(line.get(..colon)?, line.get(colon + 1..)?.trim_ascii());
    }
    request.body(Body::from(body.to_vec())).ok()
}

/// Every request gets an answer that is none of the server's faults.
pub fn is_answered(bytes: &[u8]) {
    let Some(request) = request(bytes) else { return };
    super::runtime().block_on(async {
        let (coordinator, router) = house(1).await;
        let is_head = request.method() == axum::http::Method::HEAD;
        let response = router.oneshot(request).await.expect("the router answers");
        let (status, document) = checked(response).await;
        let has_body = document.is_some() || is_head || status == 200;
        assert!(has_body, "{status} without a body");
        coordinator.stop().await;
    });
}

thread_local! {
    /// Nothing here changes anything, so that one house serves all.
    static LISTED: RefCell<Option<(tokio::runtime::Runtime, Coordinator, Router)>> = const { RefCell::new(None) };
}

/// `LIST?FILTERS`, a line break, a cursor: it is refused, or gives the page that it names, which leads on to the end.
pub fn is_honoured_or_refused(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (list, cursor) = text.split_once('\n').unwrap_or(("sagas", text));
    let (list, filters) = list.split_once('?').unwrap_or((list, ""));
    let list = if list == "outbox" { "outbox" } else { "sagas" };
    let escaped = |text: &str, kept: &[u8]| -> String {
        let escape = |byte: u8| match byte {
            byte if byte.is_ascii_alphanumeric() || kept.contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(escape).collect()
    };
    let filters = escaped(filters, b"&=-_");
    LISTED.with_borrow_mut(|listed| {
        let (runtime, _coordinator, router) = listed.get_or_insert_with(|| {
            let runtime = super::runtime();
            let (coordinator, router) = runtime.block_on(house(7));
            (runtime, coordinator, router)
        });
        let mut cursor = escaped(cursor, b"-_");
        // The first may be anything; those that the pages give are honoured.
        for page in 0..20 {
            let uri = format!("/v1/{list}?{filters}&limit=2&cursor={cursor}");
            let Ok(request) = Request::get(&uri).header("host", "localhost").body(Body::empty()) else { return };
            let (status, document) = runtime
                .block_on(async { checked(router.clone().oneshot(request).await.expect("the router answers")).await });
            let document = document.expect("JSON");
            if status != 200 {
                assert_eq!(page, 0, "the cursor of a page was refused: {uri}: {document}");
                return;
            }
            assert!(document["items"].as_array().is_some_and(|items| items.len() <= 2), "{document}");
            match document["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return,
            }
        }
        panic!("the pages never end: {filters} {cursor}");
    });
}
