//! The least rights on RabbitMQ, as `docs/operations.md` gives them: enough for a saga, and for nothing else.

use std::sync::Arc;

use amends::broker::Broker;
use amends::clock::Clock;
use amends::coordinator::{Coordinator, CoordinatorOptions};
use amends::participant::{Participant, StepError, Work};
use amends::store::Store;
use amends::store::memory::MemoryStore;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::support::eventually;
use crate::support::rig::start;
use crate::support::servers::PrivateRabbit;

const ORDER: &str = "
saga: order
version: 1
defaults: { timeout: 20s }
steps:
  - { name: create, participant: orders, action: create, compensation: { action: cancel } }
  - { name: pay, participant: payments, action: pay, pivot: true, compensation: none }
";

/// The words after `set_permissions` in the page, with single quotes taken off: vhost, user and three patterns.
fn documented(user: &str) -> Vec<String> {
    let page = include_str!("../../docs/operations.md");
    let lines = page.lines().filter_map(|line| line.trim().strip_prefix("rabbitmqctl set_permissions "));
    let all: Vec<Vec<String>> =
        lines.map(|line| line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()).collect();
    let found = all.into_iter().find(|words| words.get(2).is_some_and(|word| word == user));
    let words = found.unwrap_or_else(|| panic!("docs/operations.md gives {user} no rights"));
    assert_eq!(words.len(), 6, "{words:?}");
    words
}

/// A user with the rights of `like` in the page; gives its address.
async fn user(rabbit: &PrivateRabbit, name: &str, like: &str) -> String {
    rabbit.ctl(&["add_user", name, "secret"]).await;
    let words: Vec<String> = documented(like).iter().map(|word| word.replace(like, name)).collect();
    let words: Vec<&str> = std::iter::once("set_permissions").chain(words.iter().map(String::as_str)).collect();
    rabbit.ctl(&words).await;
    rabbit.url().replace("guest:guest", &format!("{name}:secret"))
}

async fn act(_: Value, _: Work<sqlx::Sqlite>) -> Result<Value, StepError> {
    Ok(json!({}))
}

/// A service on the SDK, as the user at `url`.
async fn service(
    folder: &tempfile::TempDir,
    name: &'static str,
    action: &'static str,
    url: &str,
) -> AbortOnDropHandle<()> {
    let file = folder.path().join(format!("{name}.db"));
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("a database");
    amends::participant::migrate(&pool).await.expect("an inbox");
    let broker = amends::broker::open(url).await.expect("an address");
    let running = Participant::named(name).action(action, act).build(pool, broker).expect("a valid participant");
    let work = async move { running.run(CancellationToken::new()).await.expect("it is not turned away") };
    AbortOnDropHandle::new(tokio::spawn(work))
}

async fn completes(coordinator: &Coordinator, store: &Arc<dyn Store>, order: &str) {
    let id = start(coordinator, "order", json!({ "order": order })).await;
    eventually(&format!("{order} completes"), async || {
        let saga = store.saga(id).await.expect("a read").expect("the saga").saga;
        (saga.state.as_str() == "COMPLETED").then_some(())
    })
    .await;
}

async fn channel(connection: &Connection) -> Channel {
    connection.create_channel().await.expect("a channel")
}

/// Publishes to an exchange, and gives what the broker says.
async fn publish(channel: Channel, exchange: &'static str, key: &'static str) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default();
    let sent = channel.basic_publish(exchange.into(), key.into(), BasicPublishOptions::default(), b"{}", properties);
    sent.await?.await.map(drop)
}

/// Does everything that a service's user must not be able to, with what came of each.
async fn overstep(url: &str) -> Vec<(&'static str, lapin::Result<()>)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the user may connect");
    let none = FieldTable::default;
    let get = async |queue: &'static str| {
        channel(&connection).await.basic_get(queue.into(), BasicGetOptions::default()).await.map(drop)
    };
    let bind = async |queue: &'static str, exchange: &'static str| {
        let options = QueueBindOptions::default();
        channel(&connection).await.queue_bind(queue.into(), exchange.into(), "#".into(), options, none()).await
    };
    let consume = BasicConsumeOptions::default();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    vec![
        ("reads another's commands", get("payments.commands").await),
        (
            "consumes another's commands",
            channel(&connection)
                .await
                .basic_consume("payments.commands".into(), "me".into(), consume, none())
                .await
                .map(drop),
        ),
        ("reads dead letters", get("orders.commands.dead").await),
        ("reads replies", get("amends.replies").await),
        ("sends commands", publish(channel(&connection).await, "amends.commands", "payments.pay").await),
        ("starts sagas", publish(channel(&connection).await, "amends.requests", "start").await),
        ("tells of events", publish(channel(&connection).await, "amends.events", "order.completed").await),
        ("sends to a queue past the exchanges", publish(channel(&connection).await, "", "payments.commands").await),
        ("binds its queue to all commands", bind("orders.commands", "amends.commands").await),
        ("binds the reply queue to its own exchange", bind("amends.replies", "amq.topic").await),
        ("binds another's queue", bind("payments.commands", "amends.commands").await),
        ("makes a queue", channel(&connection).await.queue_declare("mine".into(), durable, none()).await.map(drop)),
        (
            "makes an exchange",
            channel(&connection)
                .await
                .exchange_declare("mine".into(), ExchangeKind::Topic, ExchangeDeclareOptions::default(), none())
                .await,
        ),
        (
            "deletes its queue",
            channel(&connection)
                .await
                .queue_delete("orders.commands".into(), QueueDeleteOptions::default())
                .await
                .map(drop),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_runs_with_the_least_rights_and_a_service_cannot_overstep_them() {
    let rabbit = PrivateRabbit::start().await;
    let orders = user(&rabbit, "orders", "orders").await;
    let payments = user(&rabbit, "payments", "orders").await;
    let caller = user(&rabbit, "caller", "caller").await;
    let amends = user(&rabbit, "amends", "amends").await;
    let folder = tempfile::tempdir().expect("a folder");

    // Before its queue is there: it waits for whoever may make it.
    let early = service(&folder, "orders", "create", &orders).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::System));
    let broker: Arc<dyn Broker> = amends::broker::open(&amends).await.expect("an address");
    let launched = Coordinator::launch(store.clone(), broker.clone(), CoordinatorOptions::default()).await;
    let coordinator = launched.expect("it launches");
    coordinator.register(ORDER, "test").await.expect("it is registered");
    eventually("everything is declared", async || coordinator.ready().await.ok()).await;
    let late = service(&folder, "payments", "pay", &payments).await;
    completes(&coordinator, &store, "first").await;

    // Connections that come back declare again what they need.
    rabbit.ctl(&["close_all_connections", "for the test"]).await;
    completes(&coordinator, &store, "second").await;
    assert!(!early.is_finished() && !late.is_finished(), "no service was turned away");

    for (what, outcome) in overstep(&orders).await {
        let error = outcome.expect_err(what).to_string();
        assert!(error.contains("ACCESS_REFUSED") || error.contains("ACCESS-REFUSED"), "{what}: {error}");
    }
    completes(&coordinator, &store, "third").await;

    let connection = Connection::connect(&caller, ConnectionProperties::default()).await.expect("it may connect");
    publish(channel(&connection).await, "amends.requests", "start").await.expect("it may ask for sagas");
    let refused = publish(channel(&connection).await, "amends.replies", "amends.replies").await;
    assert!(refused.is_err(), "but not answer for services");
    coordinator.stop().await;
    broker.close().await;
}
