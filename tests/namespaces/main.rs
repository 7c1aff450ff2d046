//! Two namespaces of one server do not see each other: not over HTTP, not in the console, not on the broker, not in metrics.

#[path = "../support/mod.rs"]
mod support;

mod console;
mod processes;
mod server;

use amends::broker::{self, Consumer, Queue, Settlement, Topology};
use amends::id::Namespace;
use amends::participant::{Participant, StepError, Work};
use amends::store::Page;
use amends::store::tokens::NewToken;
use axum::http::{Method, StatusCode};
use console::{an_operator_of_all_changes_between_them, login, no_page_of_the_console_lets_one_see_the_other, page};
use serde_json::{Value, json};
use server::{
    ABSENT, Furnished, HIDDEN, House, OWN, Server, as_of, ask, definition, meaning, tells_nothing, to, told, vault,
};
use support::eventually;
use support::http::get;
use tokio_util::sync::CancellationToken;

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
    std::sync::Arc::unwrap_or_clone(delivery.envelope)
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
