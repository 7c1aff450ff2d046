//! A server with two namespaces, each furnished, and what is asked of it.

use std::sync::Arc;

use amends::api::{Access, Reach, Role, TokenEntry};
use amends::broker::in_process::InProcessBroker;
use amends::broker::{self, Broker};
use amends::console::Links;
use amends::coordinator::{Coordinator, CoordinatorOptions};
use amends::id::Namespace;
use amends::namespaces::Namespaces;
use amends::store::{self, Store};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::support;
use crate::support::http::{Answer, get, post};

/// What the one knows, and what only the other has.
pub const OWN: &str = "xyzzy";
pub const HIDDEN: &str = "hidden-saga";
/// As long as the hidden one, and nowhere.
pub const ABSENT: &str = "absent-saga";
pub const SECRETS: [&str; 4] = [HIDDEN, "hidden-key", "hidden-vault", "hidden-payload"];

pub fn definition(name: &str, participant: &str) -> String {
    format!(
        "saga: {name}\nversion: 1\nkey: ${{ input.key }}\nsteps:\n  - {{ name: lock, participant: {participant}, \
         action: lock, input: {{ what: \"${{ input.what }}\" }}, compensation: none }}\n"
    )
}

/// A server with two namespaces, and an operator's token for both.
pub struct Server {
    pub router: Router,
    pub namespaces: Namespaces,
    pub one: House,
    pub two: House,
    /// Deleted from the broker at the end.
    pub leave: Option<String>,
    pub stop: CancellationToken,
}

pub struct House {
    pub namespace: Namespace,
    pub store: Arc<dyn Store>,
    /// The server's, with all names on it.
    pub plain: Arc<dyn Broker>,
    /// The same as the namespace sees it.
    pub broker: Arc<dyn Broker>,
    pub coordinator: Coordinator,
    pub token: String,
}

impl House {
    pub async fn open(name: &str, url: &str, plain: Arc<dyn Broker>) -> Self {
        let namespace: Namespace = name.parse().expect("a name");
        let store = store::open_within(url, &namespace).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker = broker::within(plain.clone(), &namespace);
        let options = CoordinatorOptions::default();
        let coordinator = Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches");
        let token = format!("token-of-{name}");
        Self { namespace, store, plain, broker, coordinator, token }
    }

    pub fn queue(&self, name: &str) -> String {
        format!("{}.{name}", self.namespace)
    }

    /// Starts a saga over HTTP and gives its id.
    pub async fn start(&self, router: &Router, saga: &str, key: &str) -> (StatusCode, String) {
        let what = if saga == HIDDEN { "hidden-payload" } else { "own-payload" };
        let body = json!({ "saga": saga, "input": { "key": key, "what": what } });
        let answer = ask(router, as_of(post("/v1/sagas", body.to_string()), &self.token)).await;
        let id = answer.json()["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned();
        (answer.status, id)
    }

    /// How many messages are in a queue, by its name in the namespace.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        self.broker.queue(queue).await.expect("the broker answers").map(|status| status.messages)
    }
}

impl Server {
    /// On SQLite and the broker inside the process, which both share; the default namespace is there too.
    pub async fn embedded(folder: &std::path::Path) -> Self {
        let plain: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let url = |name: &str| format!("sqlite://{}", folder.join(format!("{name}.db")).display());
        let one = House::open("ns-one", &url("one"), plain.clone()).await;
        let two = House::open("ns-two", &url("two"), plain.clone()).await;
        let default = House::open("default", &url("default"), plain).await;
        let server = Self::of(one, two, None).await;
        server.namespaces.open(&Namespace::default(), default.coordinator).await;
        server
    }

    /// On one PostgreSQL database and one virtual host of RabbitMQ. The default namespace cannot be opened.
    pub async fn deployed() -> Self {
        let (url, broker_url) = (support::fresh_database().await, support::broker_url());
        let unique = amends::id::fresh_request_id().simple().to_string();
        let name = |side: &str| format!("t{}-{side}", &unique[20..]);
        let plain = broker::open(&broker_url).await.expect("an address");
        let one = House::open(&name("one"), &url, plain.clone()).await;
        let two = House::open(&name("two"), &url, plain).await;
        let server = Self::of(one, two, Some(broker_url)).await;
        server.namespaces.fail(&Namespace::default(), "it has no store".to_owned());
        server
    }

    pub async fn of(one: House, two: House, leave: Option<String>) -> Self {
        let names = vec![one.namespace.clone(), two.namespace.clone()];
        let token = |name: &str, token: &str, reach| (TokenEntry::plain(name, Role::Admin, token), reach);
        let only = |house: &House| Reach::Only(vec![house.namespace.clone()]);
        let tokens = vec![
            token("anna", &one.token, only(&one)),
            token("hidden-person", &two.token, only(&two)),
            token("olga", "token-of-all", Reach::Every),
        ];
        let stop = CancellationToken::new();
        let namespaces = Namespaces::new(Access::new(names, tokens), Links::default(), stop.clone());
        namespaces.open(&one.namespace, one.coordinator.clone()).await;
        namespaces.open(&two.namespace, two.coordinator.clone()).await;
        Self { router: namespaces.router(), namespaces, one, two, leave, stop }
    }

    /// What each has of its own: a definition, a saga with a key.
    pub async fn furnish(&self) -> Furnished {
        for (house, name, participant) in [(&self.one, OWN, "own-vault"), (&self.two, HIDDEN, "hidden-vault")] {
            house.coordinator.register(&definition(name, participant), "test").await.expect("registered");
        }
        let (_, hidden) = self.two.start(&self.router, HIDDEN, "hidden-key").await;
        let (_, another) = self.two.start(&self.router, HIDDEN, "another").await;
        let job = json!({ "action": "pause", "sagas": [another], "reason": "r" });
        let job = ask(&self.router, as_of(post("/v1/bulk", job.to_string()), &self.two.token)).await;
        let job = job.json()["id"].as_str().unwrap_or_else(|| panic!("{}", job.text)).to_owned();
        let list = ask(&self.router, as_of(get("/v1/sagas?limit=1"), &self.two.token)).await.json();
        let cursor = list["next"].as_str().expect("there is more").to_owned();
        Furnished { hidden, job, cursor }
    }

    pub async fn end(self) {
        self.stop.cancel();
        for coordinator in self.namespaces.coordinators() {
            coordinator.stop().await;
        }
        if let Some(url) = &self.leave {
            let queues = [
                "amends.replies",
                "amends.requests",
                "amends.commands",
                "own-vault.commands",
                "hidden-vault.commands",
                "events",
            ];
            let of = |house: &House| {
                queues.map(|queue| [house.queue(queue), house.queue(&format!("{queue}.dead"))]).concat()
            };
            support::delete_queues(url, &[of(&self.one), of(&self.two)].concat()).await;
            self.delete_exchanges(url).await;
        }
        self.one.plain.close().await;
    }
}

impl Server {
    pub async fn delete_exchanges(&self, url: &str) {
        let connection = lapin::Connection::connect(url, Default::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        for house in [&self.one, &self.two] {
            for (name, _) in broker::topology::EXCHANGES {
                let deleted = channel.exchange_delete(house.queue(name).as_str().into(), Default::default());
                deleted.await.expect("the exchange is deleted");
            }
        }
        let _ = connection.close(200, "done".into()).await;
    }
}

pub struct Furnished {
    /// The other's saga.
    pub hidden: String,
    /// The other's bulk job.
    pub job: String,
    /// A place in the other's list.
    pub cursor: String,
}

pub async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("the body is read");
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).expect("text") }
}

pub fn as_of(mut request: Request<Body>, token: &str) -> Request<Body> {
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    request.headers_mut().insert("x-request-id", "r-1".parse().expect("a header"));
    request
}

pub fn meaning(mut request: Request<Body>, namespace: &str) -> Request<Body> {
    request.headers_mut().insert("amends-namespace", namespace.parse().expect("a header"));
    request
}

/// The participant of a definition.
pub fn vault(name: &str) -> String {
    name.replace("-saga", "-vault")
}

/// A request to `path`, with what it names: a saga's id or a job's, a definition or its participant, a key.
pub fn to(method: &Method, path: &str, id: &str, name: &str, key: &str) -> Request<Body> {
    let path = path.replace("participants/{name}", &format!("participants/{}", vault(name)));
    let path = path.replace("{queue}", &format!("{}.commands.dead", vault(name)));
    let path = path.replace("{id}", id).replace("{name}", name).replace("{version}", "1");
    let path = if path.ends_with("/migration") { format!("{path}?to=1") } else { path };
    if method != Method::POST {
        let mut request = get(&path);
        *request.method_mut() = method.clone();
        return request;
    }
    let start = json!({ "saga": name, "key": key, "input": { "key": key, "what": "x" } });
    let body = match &*path {
        "/v1/definitions" => {
            let text = definition(name, "own-vault");
            return support::http::with_kind(&path, "application/yaml", text);
        }
        "/v1/sagas" => start,
        "/v1/sagas/batch" => json!({ "sagas": [start] }),
        "/v1/signals" => json!({ "saga": name, "key": key, "signal": "go" }),
        "/v1/bulk" => json!({ "action": "pause", "filter": { "saga": name }, "reason": "r", "dryRun": true }),
        path if path.starts_with("/v1/dead-letters") => json!({ "reason": "r", "count": 1 }),
        path if path.ends_with("/edit") => json!({ "reason": "r", "input": {} }),
        path if path.ends_with("/signal") => json!({ "signal": "go" }),
        path if path.ends_with("/migrate") => json!({ "to": 1, "reason": "r" }),
        _ => json!({ "reason": "r" }),
    };
    post(&path, body.to_string())
}

/// What is said, without what was asked for.
pub fn told(answer: &Answer, asked: &[&str]) -> String {
    asked.iter().fold(answer.text.clone(), |text, word| text.replace(word, "WHAT"))
}

pub fn tells_nothing(text: &str, place: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{place} tells of {secret}: {text}");
    }
}
