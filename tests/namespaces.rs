//! Two namespaces of one server do not see each other: not over HTTP, not in the console, not on the broker, not in metrics.

mod support;

use std::sync::Arc;
use std::time::Duration;

use amends::api::{Access, Reach, Role, TokenEntry};
use amends::broker::in_process::InProcessBroker;
use amends::broker::{self, Broker, Consumer, Queue, Settlement, Topology};
use amends::console::Links;
use amends::coordinator::{Coordinator, CoordinatorOptions};
use amends::id::Namespace;
use amends::namespaces::Namespaces;
use amends::participant::{Participant, StepError, Work};
use amends::store::tokens::NewToken;
use amends::store::{self, Page, Store};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use support::eventually;
use support::http::{Answer, get, post};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// What the one knows, and what only the other has.
const OWN: &str = "xyzzy";
const HIDDEN: &str = "hidden-saga";
/// As long as the hidden one, and nowhere.
const ABSENT: &str = "absent-saga";
const SECRETS: [&str; 4] = [HIDDEN, "hidden-key", "hidden-vault", "hidden-payload"];

fn definition(name: &str, participant: &str) -> String {
    format!(
        "saga: {name}\nversion: 1\nkey: ${{ input.key }}\nsteps:\n  - {{ name: lock, participant: {participant}, \
         action: lock, input: {{ what: \"${{ input.what }}\" }}, compensation: none }}\n"
    )
}

/// A server with two namespaces, and an operator's token for both.
struct Server {
    router: Router,
    namespaces: Namespaces,
    one: House,
    two: House,
    /// Deleted from the broker at the end.
    leave: Option<String>,
    stop: CancellationToken,
}

struct House {
    namespace: Namespace,
    store: Arc<dyn Store>,
    /// The server's, with all names on it.
    plain: Arc<dyn Broker>,
    /// The same as the namespace sees it.
    broker: Arc<dyn Broker>,
    coordinator: Coordinator,
    token: String,
}

impl House {
    async fn open(name: &str, url: &str, plain: Arc<dyn Broker>) -> Self {
        let namespace: Namespace = name.parse().expect("a name");
        let store = store::open_within(url, &namespace).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let broker = broker::within(plain.clone(), &namespace);
        let options = CoordinatorOptions::default();
        let coordinator = Coordinator::launch(store.clone(), broker.clone(), options).await.expect("it launches");
        let token = format!("token-of-{name}");
        Self { namespace, store, plain, broker, coordinator, token }
    }

    fn queue(&self, name: &str) -> String {
        format!("{}.{name}", self.namespace)
    }

    /// Starts a saga over HTTP and gives its id.
    async fn start(&self, router: &Router, saga: &str, key: &str) -> (StatusCode, String) {
        let what = if saga == HIDDEN { "hidden-payload" } else { "own-payload" };
        let body = json!({ "saga": saga, "input": { "key": key, "what": what } });
        let answer = ask(router, as_of(post("/v1/sagas", body.to_string()), &self.token)).await;
        let id = answer.json()["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned();
        (answer.status, id)
    }

    /// How many messages are in a queue, by its name in the namespace.
    async fn depth(&self, queue: &str) -> Option<u32> {
        self.broker.queue(queue).await.expect("the broker answers").map(|status| status.messages)
    }
}

impl Server {
    /// On SQLite and the broker inside the process, which both share; the default namespace is there too.
    async fn embedded(folder: &std::path::Path) -> Self {
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
    async fn deployed() -> Self {
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

    async fn of(one: House, two: House, leave: Option<String>) -> Self {
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
    async fn furnish(&self) -> Furnished {
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

    async fn end(self) {
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
    async fn delete_exchanges(&self, url: &str) {
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

struct Furnished {
    /// The other's saga.
    hidden: String,
    /// The other's bulk job.
    job: String,
    /// A place in the other's list.
    cursor: String,
}

async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("the body is read");
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).expect("text") }
}

fn as_of(mut request: Request<Body>, token: &str) -> Request<Body> {
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    request.headers_mut().insert("x-request-id", "r-1".parse().expect("a header"));
    request
}

fn meaning(mut request: Request<Body>, namespace: &str) -> Request<Body> {
    request.headers_mut().insert("amends-namespace", namespace.parse().expect("a header"));
    request
}

/// The participant of a definition.
fn vault(name: &str) -> String {
    name.replace("-saga", "-vault")
}

/// A request to `path`, with what it names: a saga's id or a job's, a definition or its participant, a key.
fn to(method: &Method, path: &str, id: &str, name: &str, key: &str) -> Request<Body> {
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
fn told(answer: &Answer, asked: &[&str]) -> String {
    asked.iter().fold(answer.text.clone(), |text, word| text.replace(word, "WHAT"))
}

fn tells_nothing(text: &str, place: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{place} tells of {secret}: {text}");
    }
}

async fn no_route_lets_one_see_the_other(server: Server) {
    let Furnished { hidden, job, cursor } = server.furnish().await;
    let absent = amends::id::SagaId::fresh().to_string();
    let before = ask(&server.router, as_of(get(&format!("/v1/sagas/{hidden}")), &server.two.token)).await;
    assert_eq!(before.status, 200);
    let mut routes = amends::api::route_table();
    // What is registered is there afterwards.
    routes.sort_by_key(|route| (route.path == "/v1/definitions" && route.method == Method::POST, route.path));
    for route in &routes {
        let place = format!("{} {}", route.method, route.path);
        let id = if route.path.starts_with("/v1/bulk/") { &job } else { &hidden };
        let foreign = to(&route.method, route.path, id, HIDDEN, "hidden-key");
        let nothing = to(&route.method, route.path, &absent, ABSENT, "absent-key");
        let foreign = ask(&server.router, as_of(foreign, &server.one.token)).await;
        let nothing = ask(&server.router, as_of(nothing, &server.one.token)).await;
        assert_eq!(foreign.status, nothing.status, "{place}: {}", foreign.text);
        let foreign_told = told(&foreign, &[id, HIDDEN, "hidden-key", &vault(HIDDEN)]);
        if route.path.contains('{') || (route.method == Method::POST && route.path != "/v1/definitions") {
            let is_list = ["/v1/sagas/batch", "/v1/bulk"].contains(&route.path);
            assert!(is_list || foreign.status.is_client_error(), "{place}: {} {}", foreign.status, foreign.text);
            assert_eq!(foreign_told, told(&nothing, &[&absent, ABSENT, "absent-key", &vault(ABSENT)]), "{place}");
        }
        tells_nothing(&foreign_told, &place);
    }
    for path in [
        format!("/v1/sagas?cursor={cursor}"),
        format!("/v1/sagas?saga={HIDDEN}"),
        "/v1/sagas?key=hidden-key".to_owned(),
        format!("/v1/outbox?cursor={hidden}.1"),
    ] {
        let answer = ask(&server.router, as_of(get(&path), &server.one.token)).await;
        assert_eq!(answer.json()["items"].as_array().map_or(0, Vec::len), 0, "{path}: {}", answer.text);
        tells_nothing(&told(&answer, &[HIDDEN, "hidden-key"]), &path);
    }
    let after = ask(&server.router, as_of(get(&format!("/v1/sagas/{hidden}")), &server.two.token)).await;
    for part in ["state", "paused", "version"] {
        assert_eq!(before.json()[part], after.json()[part], "nothing was done to it");
    }
    let acts = server.two.store.audit(None, &Page { after: None, limit: 100 }).await.expect("read");
    assert!(acts.iter().all(|act| act.actor != "anna"), "{acts:?}");
    server.end().await;
}

async fn no_page_of_the_console_lets_one_see_the_other(server: Server) {
    let Furnished { hidden, job, cursor } = server.furnish().await;
    let absent = amends::id::SagaId::fresh().to_string();
    let (_, own) = server.one.start(&server.router, OWN, "own").await;
    let session = login(&server.router, &server.one.token).await;
    assert!(session.starts_with(&format!("amends_console={}.", server.one.namespace)), "{session}");
    let page = ask(&server.router, page(&format!("/console/sagas/{own}"), &session)).await;
    assert_eq!(page.status, 200);
    let csrf = field(&page.text, "csrf");
    for route in amends::console::route_table() {
        let place = format!("{} {}", route.method, route.path);
        let answer = async |id: &str, name: &str| {
            let path = route.path.replace("participants/{name}", &format!("participants/{}", vault(name)));
            let path = path.replace("{id}", id).replace("{name}", name).replace("{version}", "1");
            let path = path.replace("{queue}", &format!("{}.commands.dead", vault(name)));
            let action = match path.split('/').nth(2) {
                Some("dead") => "replay",
                Some("participants") => "pause",
                _ => "retry",
            };
            let path = path
                .replace("{word}", "stop")
                .replace("{action}", action)
                .replace("{file}", "x")
                .replace("{*rest}", id);
            let request = match route.method == Method::POST {
                true => {
                    form(&path, &session, &format!("csrf={csrf}&revision=1&reason=r&ids={id}&id={id}&namespace={name}"))
                }
                false => {
                    let mut request = self::page(&path, &session);
                    *request.method_mut() = route.method.clone();
                    request
                }
            };
            if route.path == "/console/events" {
                let request = self::page(&format!("{path}?ids={id}:0"), &session);
                return (StatusCode::OK, first_of_stream(&server.router, request).await);
            }
            let answer = ask(&server.router, request).await;
            (answer.status, told(&answer, &[id, name, &vault(name)]))
        };
        let foreign = match route.path {
            "/console/namespace" => answer(&hidden, server.two.namespace.as_str()).await,
            path if path.starts_with("/console/bulk/") => answer(&job, HIDDEN).await,
            _ => answer(&hidden, HIDDEN).await,
        };
        let nothing = answer(&absent, ABSENT).await;
        assert_eq!(foreign.0, nothing.0, "{place}");
        if route.path.contains('{') || route.path == "/console/namespace" {
            assert_eq!(foreign.1, nothing.1, "{place}");
        }
        tells_nothing(&foreign.1, &place);
    }
    for path in [
        format!("/console/revisions?ids={hidden}:0"),
        format!("/console/sagas?after={cursor}"),
        format!("/console/sagas?saga={HIDDEN}"),
        "/console/sagas?key=hidden-key".to_owned(),
    ] {
        let answer = ask(&server.router, self::page(&path, &session)).await;
        tells_nothing(&told(&answer, &[HIDDEN, "hidden-key"]).replace(&cursor, ""), &path);
        assert!(!path.contains("revisions") || !answer.text.contains(&hidden), "{}", answer.text);
    }
    let stream = self::page(&format!("/console/events?ids={own}:99"), &session);
    assert!(first_of_stream(&server.router, stream).await.contains(&own), "the stream is not blind");
    // A session is its namespace's alone, whatever is written before it.
    let (_, secret) = session.split_once('.').expect("the namespace stands first");
    let taken = format!("amends_console={}.{secret}", server.two.namespace);
    assert_eq!(ask(&server.router, self::page("/console/sagas", &taken)).await.status, 303, "to the login");
    server.end().await;
}

async fn an_operator_of_all_changes_between_them(server: Server) {
    let Furnished { hidden, .. } = server.furnish().await;
    let of =
        |namespace: &Namespace| meaning(as_of(get(&format!("/v1/sagas/{hidden}")), "token-of-all"), namespace.as_str());
    assert_eq!(ask(&server.router, of(&server.two.namespace)).await.status, 200);
    assert_eq!(ask(&server.router, of(&server.one.namespace)).await.code(), "SAGA_UNKNOWN");
    let nowhere = meaning(as_of(get("/v1/sagas"), "token-of-all"), "nowhere");
    assert_ne!(ask(&server.router, nowhere).await.status, 200);
    let session = login(&server.router, "token-of-all").await;
    let home = ask(&server.router, page("/console/sagas", &session)).await;
    assert!(home.text.contains("<option value=\"default\""), "{}", home.text);
    let csrf = field(&home.text, "csrf");
    let body = format!("csrf={csrf}&namespace={}", server.two.namespace);
    let changed = ask(&server.router, form("/console/namespace", &session, &body)).await;
    assert_eq!(changed.status, 303, "{}", changed.text);
    let session = cookie(&changed);
    let page = ask(&server.router, page("/console/sagas", &session)).await;
    assert!(page.text.contains(HIDDEN), "{}", page.text);
    server.end().await;
}

async fn one_key_is_two_sagas(server: Server) {
    let mut ids = Vec::new();
    for house in [&server.one, &server.two] {
        house.coordinator.register(&definition(OWN, "own-vault"), "test").await.expect("registered");
        let (status, id) = house.start(&server.router, OWN, "k-1").await;
        assert_eq!(status, 201);
        assert_eq!(house.start(&server.router, OWN, "k-1").await, (StatusCode::OK, id.clone()), "its own again");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
    server.end().await;
}

async fn the_header_says_no_more_than_the_token_allows(server: Server) {
    server.furnish().await;
    let ask = async |namespace: &str| {
        ask(&server.router, meaning(as_of(get("/v1/sagas"), &server.one.token), namespace)).await
    };
    assert_eq!(ask(server.one.namespace.as_str()).await.status, 200);
    let foreign = ask(server.two.namespace.as_str()).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, "NAMESPACE_UNKNOWN".to_owned()));
    for other in ["nowhere", "default", "Not A Name"] {
        let nothing = ask(other).await;
        let asked = [server.two.namespace.as_str()];
        assert_eq!(told(&foreign, &asked), told(&nothing, &[other]), "{other}");
    }
    for wrong in ["made-up", &*format!("amends_{}_made-up", server.two.namespace), "amends_nowhere_made-up"] {
        let answer = self::ask(&server.router, as_of(get("/v1/sagas"), wrong)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED".to_owned()));
        assert!(answer.text.contains("not accepted"), "{}", answer.text);
    }
    server.end().await;
}

async fn a_token_of_a_store_leads_into_its_namespace_alone(server: Server) {
    use sha2::{Digest, Sha256};
    server.furnish().await;
    let digits = "5a".repeat(32);
    let text = |house: &House| format!("amends_{}_{digits}", house.namespace);
    let new = NewToken {
        name: "stored".to_owned(),
        role: "viewer".to_owned(),
        sha256: Sha256::digest(text(&server.two)).into(),
        created_by: "test".to_owned(),
        lifetime: None,
        reason: "r".to_owned(),
    };
    server.two.store.tokens().expect("it keeps tokens").make_token(&new).await.expect("made");
    let list = async |token: &str| ask(&server.router, as_of(get("/v1/sagas"), token)).await;
    let seen = eventually("the token is known", async || {
        let answer = list(&text(&server.two)).await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert!(seen.text.contains(HIDDEN), "{}", seen.text);
    assert_eq!(list(&text(&server.one)).await.status, 401, "the same digits elsewhere");
    let own = server.one.namespace.as_str();
    let foreign = ask(&server.router, meaning(as_of(get("/v1/sagas"), &text(&server.two)), own)).await;
    assert_eq!((foreign.status, foreign.code()), (StatusCode::NOT_FOUND, "NAMESPACE_UNKNOWN".to_owned()));
    let session = login(&server.router, &text(&server.two)).await;
    assert!(session.starts_with(&format!("amends_console={}.", server.two.namespace)), "{session}");
    let page = ask(&server.router, page("/console/sagas", &session)).await;
    assert!(page.text.contains(HIDDEN) && !page.text.contains("<option value=\"default\""), "{}", page.text);
    // While its store is away nobody can say whether it is good.
    server.namespaces.fail(&server.two.namespace, "its store is away".to_owned());
    assert_eq!(list(&text(&server.two)).await.status, 503);
    server.namespaces.open(&server.two.namespace, server.two.coordinator.clone()).await;
    assert_eq!(list(&text(&server.two)).await.status, 200);
    server.end().await;
}

async fn metrics_tell_of_their_own_namespace_alone(server: Server) {
    server.furnish().await;
    server.one.start(&server.router, OWN, "own").await;
    let of = async |token: &str| ask(&server.router, as_of(get("/metrics"), token)).await.text;
    let (one, two) = (of(&server.one.token).await, of(&server.two.token).await);
    assert!(one.contains(OWN) && two.contains(HIDDEN), "each tells of its own:\n{one}\n{two}");
    tells_nothing(&one, "/metrics");
    assert!(!two.contains(OWN), "{two}");
    server.end().await;
}

async fn events_of_one_reach_no_queue_of_the_other(server: Server) {
    for house in [&server.one, &server.two] {
        house.coordinator.register(&definition(OWN, "own-vault"), "test").await.expect("registered");
        let bindings = vec![("amends.events".to_owned(), "#".to_owned())];
        let queue = Queue { name: "events".to_owned(), bindings, dead_letters: false, namespace: Namespace::default() };
        house.broker.declare(&Topology { queues: vec![queue], ..Topology::default() }).await.expect("declared");
    }
    server.one.start(&server.router, OWN, "k-1").await;
    eventually("the event of the one arrives", async || server.one.depth("events").await.filter(|depth| *depth > 0))
        .await;
    assert_eq!(server.two.depth("events").await, Some(0));
    server.end().await;
}

/// The next message of a queue, acknowledged.
async fn next(consumer: &mut Box<dyn Consumer>) -> amends::message::Envelope {
    let arrived = tokio::time::timeout(support::PATIENCE, consumer.next(1)).await.expect("in time");
    let delivery = arrived.expect("the broker is open").remove(0);
    consumer.settler().settle(vec![(delivery.tag, Settlement::Ack)]).await;
    delivery.envelope
}

async fn a_token_copied_from_the_other_changes_nothing(server: Server) {
    let mut commands = Vec::new();
    for house in [&server.one, &server.two] {
        house.coordinator.register(&definition(OWN, "own-vault"), "test").await.expect("registered");
        let (_, id) = house.start(&server.router, OWN, "k-1").await;
        let mut consumer = house.broker.consume("own-vault.commands", 1).await.expect("consumed");
        commands.push((id, amends::message::Command::decode(&next(&mut consumer).await).expect("a command")));
    }
    let (id, _) = &commands[1];
    let body = amends::message::ReplyBody::Success(json!({}).into());
    let copied = &commands[0].1;
    let reply = amends::message::Reply { token: copied.token.clone(), routing_key: copied.reply_to.clone(), body };
    let sent = server.two.broker.publish(vec![reply.encode()]).await;
    assert_eq!(sent, [broker::Published::Confirmed]);
    eventually("the other's token is a dead letter", async || {
        server.two.depth("amends.replies.dead").await.filter(|depth| *depth == 1)
    })
    .await;
    for (house, id) in [(&server.one, &commands[0].0), (&server.two, id)] {
        let saga = house.store.saga(id.parse().expect("an id")).await.expect("read").expect("there").saga;
        assert_eq!(saga.state.as_str(), "RUNNING");
    }
    assert_eq!(server.one.depth("amends.replies.dead").await, Some(0));
    for (house, count) in [(&server.one, 0), (&server.two, 1)] {
        let request = get("/v1/dead-letters/amends.replies.dead");
        let dead = ask(&server.router, as_of(request, &house.token)).await;
        assert_eq!(dead.json()["items"].as_array().map(Vec::len), Some(count), "{}", dead.text);
    }
    server.end().await;
}

async fn a_service_takes_part_in_one_namespace(server: Server) {
    async fn lock(_: Value, _: Work<sqlx::Sqlite>) -> Result<(), StepError> {
        Ok(())
    }
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("vault.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.expect("a database");
    amends::participant::migrate(&pool).await.expect("the inbox is made");
    let named = server.one.namespace.as_str();
    let vault = Participant::named("own-vault").namespace(named).action("lock", lock);
    let vault = vault.build(pool, server.one.plain.clone()).expect("a participant");
    let stop = CancellationToken::new();
    let mut ids = Vec::new();
    for house in [&server.two, &server.one] {
        house.coordinator.register(&definition(OWN, "own-vault"), "test").await.expect("registered");
        ids.push(house.start(&server.router, OWN, "k-1").await.1);
    }
    let working = tokio::spawn({
        let stop = stop.clone();
        async move { vault.run(stop).await }
    });
    let state = async |house: &House, id: &str| {
        let saga = house.store.saga(id.parse().expect("an id")).await.expect("read").expect("there").saga;
        saga.state.as_str().to_owned()
    };
    eventually("its own saga completes", async || (state(&server.one, &ids[1]).await == "COMPLETED").then_some(()))
        .await;
    assert_eq!(state(&server.two, &ids[0]).await, "RUNNING");
    eventually("the other's command waits for a service of its own", async || {
        server.two.depth("own-vault.commands").await.filter(|depth| *depth == 1)
    })
    .await;
    stop.cancel();
    working.await.expect("joined").expect("it worked");
    server.end().await;
}

async fn one_that_is_away_does_not_stop_the_others(server: Server) {
    server.furnish().await;
    server.namespaces.fail(&server.two.namespace, "its store is away".to_owned());
    let readyz = async |token: Option<&str>| {
        let request = get("/readyz");
        ask(&server.router, token.map_or_else(|| get("/readyz"), |token| as_of(request, token))).await
    };
    let own = readyz(Some(&server.one.token)).await;
    assert_eq!((own.status, own.json()["status"].as_str()), (StatusCode::OK, Some("ready")), "{}", own.text);
    let nobody = readyz(None).await;
    assert_eq!(
        (nobody.status, nobody.json()["status"].as_str()),
        (StatusCode::OK, Some("degraded")),
        "{}",
        nobody.text
    );
    assert!(!nobody.text.contains(server.two.namespace.as_str()), "{}", nobody.text);
    let all = readyz(Some("token-of-all")).await.json();
    let told = all["notReady"].as_array().expect("a list").iter();
    let named =
        |told: &Value| told["namespace"] == server.two.namespace.as_str() && told["reason"] == "its store is away";
    assert!(told.clone().any(named), "{all}");
    assert_eq!(readyz(Some(&server.two.token)).await.status, 503);
    assert_eq!(ask(&server.router, get("/healthz")).await.status, 200);
    assert_eq!(ask(&server.router, as_of(get("/v1/sagas"), &server.one.token)).await.status, 200);
    let away = ask(&server.router, as_of(get("/v1/sagas"), &server.two.token)).await;
    assert_eq!((away.status, away.code()), (StatusCode::SERVICE_UNAVAILABLE, "NOT_READY".to_owned()));
    server.namespaces.open(&server.two.namespace, server.two.coordinator.clone()).await;
    assert_eq!(ask(&server.router, as_of(get("/v1/sagas"), &server.two.token)).await.status, 200);
    server.end().await;
}

fn page(path: &str, session: &str) -> Request<Body> {
    let mut request = get(path);
    request.headers_mut().insert("cookie", session.parse().expect("a header"));
    request
}

fn form(path: &str, session: &str, body: &str) -> Request<Body> {
    let mut request = support::http::with_kind(path, "application/x-www-form-urlencoded", body.to_owned());
    request.headers_mut().insert("cookie", session.parse().expect("a header"));
    request
}

fn field(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().expect("an end").to_owned()
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {} {}", answer.status, answer.text));
    set.split(';').next().expect("a first part").to_owned()
}

/// Logs in as a browser does; the cookie.
async fn login(router: &Router, token: &str) -> String {
    let login = ask(router, get("/console/login")).await;
    let body = format!("csrf={}&token={token}&next=", field(&login.text, "csrf"));
    cookie(&ask(router, form("/console/login", "", &body)).await)
}

/// What a stream says within the time in which it looks twice.
async fn first_of_stream(router: &Router, request: Request<Body>) -> String {
    use futures_util::StreamExt;
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let mut stream = response.into_body().into_data_stream();
    match tokio::time::timeout(Duration::from_millis(1_500), stream.next()).await {
        Ok(Some(Ok(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}

/// The settings of a server with a namespace that works and one that does not.
fn settings(folder: &std::path::Path, port: u16) -> std::path::PathBuf {
    use sha2::{Digest, Sha256};
    let token = |name: &str, more: &str| {
        let hash = hex::encode(Sha256::digest(format!("token-of-{name}")));
        format!("[[tokens]]\nname = \"{name}\"\nrole = \"admin\"\nsha256 = \"{hash}\"\n{more}\n")
    };
    let text = [
        format!("store = \"sqlite://{}\"\nhttp = \"127.0.0.1:{port}\"", folder.join("amends.db").display()),
        "[[namespaces]]\nname = \"acme\"".to_owned(),
        "[[namespaces]]\nname = \"broken\"\nstore = \"sqlite:///nowhere/at/all.db\"".to_owned(),
        token("anna", "namespace = \"acme\""),
        token("olga", "namespaces = [\"*\"]"),
    ];
    let file = folder.join("amends.toml");
    std::fs::write(&file, text.join("\n")).expect("the settings are written");
    file
}

#[tokio::test]
async fn a_process_serves_those_that_can_be_opened() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    let port = support::processes::free_port();
    let settings = settings(folder.path(), port);
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        let output = command.arg("--config").arg(&settings).args(arguments).output().await.expect("amends runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["migrate", "--namespace", "acme"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.path().join("amends.acme.db").exists() && !folder.path().join("amends.db").exists());
    let (code, said) = run(&["migrate", "--all"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("broken") && folder.path().join("amends.db").exists(), "the others all the same: {said}");
    assert_eq!(run(&["migrate", "--namespace", "Not-A-Name"]).await.0, Some(2));

    let mut serve = std::process::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
    serve.arg("serve").arg("--config").arg(&settings);
    let mut serve = support::processes::Process::start("amends", &mut serve, folder.path().join("log"));
    let readyz = eventually("the server answers", async || {
        let answer = reqwest::get(format!("http://127.0.0.1:{port}/readyz")).await.ok()?;
        answer.json::<Value>().await.ok().filter(|answer| answer["status"] == "degraded")
    })
    .await;
    assert_eq!(readyz["notReady"], Value::Null, "who shows no token is told no names");
    for (token, namespace, expected) in [
        ("token-of-anna", None, 0),
        ("token-of-anna", Some("acme"), 0),
        ("token-of-anna", Some("default"), 1),
        ("token-of-anna", Some("broken"), 1),
        ("token-of-olga", Some("default"), 0),
        ("token-of-olga", Some("acme"), 0),
        ("token-of-olga", Some("broken"), 1),
        ("token-of-nobody", Some("acme"), 4),
    ] {
        let mut arguments = vec!["--token", token, "definitions", "list"];
        arguments.extend(namespace.iter().flat_map(|namespace| ["--namespace", *namespace]));
        let (code, said) = run(&arguments).await;
        assert_eq!(code, Some(expected), "{token} {namespace:?}: {said}");
    }
    let told = std::process::Command::new("kill").args(["-TERM", &serve.id().to_string()]).status();
    assert!(told.expect("it is told to stop").success());
    assert_eq!(serve.wait().code(), Some(0), "{}", serve.tail());
}

#[tokio::test]
async fn other_machines_are_not_let_in_before_a_store_has_a_token_and_nothing_is_begun() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("amends.toml");
    let store = format!("sqlite://{}", folder.path().join("amends.db").display());
    let text = format!("store = \"{store}\"\nhttp = \"0.0.0.0:0\"\n[[namespaces]]\nname = \"acme\"\n");
    std::fs::write(&file, text).expect("the settings are written");
    let amends = |arguments: &[&str]| {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("amends"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path());
        command.arg("--config").arg(&file).args(arguments);
        command
    };
    let run = |arguments: &[&str]| {
        let output = amends(arguments).output().expect("amends runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["serve", "--namespace", "acme"]);
    assert!(code == Some(2) && said.contains("all namespaces"), "{code:?}: {said}");
    let (code, said) = run(&["serve"]);
    assert!(code == Some(2) && said.contains("amends tokens create NAME"), "{code:?}: {said}");
    for name in ["amends.db", "amends.acme.db"] {
        let url = format!("sqlite://{}", folder.path().join(name).display());
        let schema = store::open(&url).await.expect("the store opens").check_schema().await;
        let is_empty = matches!(schema, Err(store::StoreError::SchemaBehind { found: 0, .. }));
        assert!(is_empty, "{name} was left as it was: {schema:?}");
    }
    let (code, said) = run(&["tokens", "create", "slip", "--role", "viewer", "--namespace", "amce"]);
    assert!(code == Some(2) && said.contains("no namespace `amce`"), "{code:?}: {said}");
    let (code, said) = run(&["tokens", "create", "ci", "--role", "viewer", "--namespace", "acme"]);
    assert_eq!(code, Some(0), "{said}");
    let mut serve = support::processes::Process::start("amends", &mut amends(&["serve"]), folder.path().join("log"));
    eventually("a token of one closes all, so that it serves", async || {
        assert!(!serve.has_ended(), "{}", serve.tail());
        serve.tail().contains("amends is ready").then_some(())
    })
    .await;
    serve.kill();
    let (code, said) = run(&["tokens", "revoke", "ci", "--reason", "over", "--namespace", "acme"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["serve"]);
    assert!(code == Some(2) && said.contains("amends tokens create NAME"), "{code:?}: {said}");
}

/// Every claim, on SQLite with the broker in the process and on PostgreSQL with RabbitMQ.
macro_rules! on_both {
    ($($claim:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $claim() {
                let folder = tempfile::tempdir().expect("a folder");
                super::$claim(super::Server::embedded(folder.path()).await).await;
            })*
        }
        mod deployed {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::Server::deployed().await).await;
            })*
        }
    };
}

on_both! {
    no_route_lets_one_see_the_other
    no_page_of_the_console_lets_one_see_the_other
    an_operator_of_all_changes_between_them
    one_key_is_two_sagas
    the_header_says_no_more_than_the_token_allows
    a_token_of_a_store_leads_into_its_namespace_alone
    metrics_tell_of_their_own_namespace_alone
    events_of_one_reach_no_queue_of_the_other
    a_token_copied_from_the_other_changes_nothing
    a_service_takes_part_in_one_namespace
    one_that_is_away_does_not_stop_the_others
}
