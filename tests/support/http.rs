//! The HTTP interface on a coordinator of its own: state in memory, the broker inside the process.

use std::sync::Arc;

use amends::api::{AuthConfig, router, serve};
use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::client::Client;
use amends::clock::Clock;
use amends::coordinator::{Coordinator, CoordinatorOptions, Limits};
use amends::store::Store;
use amends::store::memory::MemoryStore;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Four steps with a pivot and a schema. `order` is the key.
pub const PLACE: &str = r#"
saga: place
version: 1
owner: fulfilment
key: ${ input.order }
input:
  schema:
    type: object
    required: [order, total]
    properties: { order: { type: string }, total: { type: integer, minimum: 1 } }
defaults:
  timeout: 20s
  retry: { maxAttempts: 3, initialInterval: 10ms, maxInterval: 20ms, jitter: none }
  compensation: { retry: { maxAttempts: 2, initialInterval: 10ms, maxInterval: 20ms, jitter: none } }
steps:
  - { name: create, participant: orders, action: create, compensation: { action: cancel } }
  - { name: pay, participant: payments, action: pay, compensation: { action: refund } }
  - { name: pick, participant: warehouse, action: pick, compensation: { action: unpick } }
  - { name: confirm, participant: orders, action: confirm, pivot: true, compensation: none }
"#;

/// A coordinator and its router.
pub struct House {
    pub store: Arc<dyn Store>,
    pub broker: Arc<dyn Broker>,
    pub coordinator: Coordinator,
    pub router: Router,
}

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl House {
    /// Open to everybody on this machine.
    pub async fn new() -> Self {
        Self::with(AuthConfig::default()).await
    }

    /// With tokens.
    pub async fn with(auth: AuthConfig) -> Self {
        Self::on(Arc::new(MemoryStore::new(Clock::System)), auth).await
    }

    /// On a store of the test's own.
    pub async fn on(store: Arc<dyn Store>, auth: AuthConfig) -> Self {
        Self::launch(store, auth, CoordinatorOptions::default()).await
    }

    /// With windows and weights of the test's own.
    pub async fn within(limits: Limits) -> Self {
        let options = CoordinatorOptions { limits, ..CoordinatorOptions::default() };
        Self::launch(Arc::new(MemoryStore::new(Clock::System)), AuthConfig::default(), options).await
    }

    /// Where operators may edit the inputs of commands that were refused.
    pub async fn allowing_edits() -> Self {
        let options = CoordinatorOptions { allow_edit: true, ..CoordinatorOptions::default() };
        Self::launch(Arc::new(MemoryStore::new(Clock::System)), AuthConfig::default(), options).await
    }

    /// On a store of the test's own, with options of its own.
    pub async fn launched(store: Arc<dyn Store>, options: CoordinatorOptions) -> Self {
        Self::launch(store, AuthConfig::default(), options).await
    }

    async fn launch(store: Arc<dyn Store>, auth: AuthConfig, options: CoordinatorOptions) -> Self {
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let coordinator = Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches");
        Self::of(store, broker, coordinator, auth)
    }

    /// Of a coordinator that runs already.
    pub fn of(store: Arc<dyn Store>, broker: Arc<dyn Broker>, coordinator: Coordinator, auth: AuthConfig) -> Self {
        let console = amends::console::router(coordinator.clone(), auth.clone(), CancellationToken::new());
        let router = router(coordinator.clone(), auth).merge(console);
        Self { store, broker, coordinator, router }
    }

    /// With the definition `place` registered.
    pub async fn with_place() -> Self {
        Self::new().await.and_place().await
    }

    /// The same on SQLite, in a file of `folder`.
    pub async fn with_place_on_sqlite(folder: &std::path::Path) -> Self {
        let url = format!("sqlite://{}", folder.join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        Self::on(store, AuthConfig::default()).await.and_place().await
    }

    async fn and_place(self) -> Self {
        let house = self;
        house.coordinator.register(PLACE, "test").await.expect("the definition is registered");
        house
    }

    /// Sends a request straight into the router.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("the router answers");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("the body is read");
        let text = String::from_utf8(bytes.to_vec()).expect("the body is text");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(get(path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(post(path, body.to_string())).await
    }

    /// Serves on a free port, as long as what is returned lives.
    pub async fn serve(&self) -> (Client, Served) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, self.router.clone(), stop.clone()));
        (Client::new(&url, None), Served { url, stop, task })
    }
}

/// A server that stops when dropped.
pub struct Served {
    pub url: String,
    pub stop: CancellationToken,
    pub task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The stable code of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header in ASCII"))
    }
}

/// A GET as a program on this machine sends it.
pub fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "127.0.0.1:7070").body(Body::empty()).expect("a request")
}

/// A POST of JSON.
pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    with_kind(path, "application/json", body)
}

/// A POST of something else.
pub fn with_kind(path: &str, kind: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("host", "127.0.0.1:7070").header("content-type", kind);
    request.body(body.into()).expect("a request")
}
