//! A saga that is defined, coordinated and carried out in one program, with its actions as types.
//!
//! ```text
//! cargo run --example code_first
//! ```
//!
//! One order goes through; another is for more than there is, and what was done for it is undone. Handlers and
//! definition name the same types: rename a field, or give a handler another input, and this does not compile.

use std::sync::Arc;
use std::time::Duration;

use amends::action::Action;
use amends::broker::Broker;
use amends::broker::in_process::InProcessBroker;
use amends::coordinator::{Coordinator, CoordinatorOptions, Start, StartOutcome};
use amends::definition::build::{Built, InvalidSaga, Retry, Saga, Step};
use amends::id::SagaId;
use amends::participant::{self, Participant, StepError, Work, refuse};
use amends::payload::Payload;
use amends::store::Store;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Executor, Sqlite, SqlitePool, query};
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What an order is for; the saga's input too.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Order {
    order_id: String,
    quantity: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Reserved {
    left: u32,
}

struct CreateOrder;
impl Action for CreateOrder {
    const PARTICIPANT: &'static str = "shop";
    const NAME: &'static str = "create-order";
    type Input = Order;
    type Output = ();
}

struct CancelOrder;
impl Action for CancelOrder {
    const PARTICIPANT: &'static str = "shop";
    const NAME: &'static str = "cancel-order";
    type Input = Order;
    type Output = ();
}

struct Reserve;
impl Action for Reserve {
    const PARTICIPANT: &'static str = "shop";
    const NAME: &'static str = "reserve";
    type Input = Order;
    type Output = Reserved;
}

struct Release;
impl Action for Release {
    const PARTICIPANT: &'static str = "shop";
    const NAME: &'static str = "release";
    type Input = Order;
    type Output = ();
}

/// Both steps are sent the saga's input, which is what they take.
fn saga() -> Result<Built, InvalidSaga> {
    Saga::named("small-order")
        .version(1)
        .takes::<Order>()
        .key("${ input.orderId }")
        .default_retry(Retry::new().max_attempts(3).initial_interval(Duration::from_millis(50)))
        .step(Step::named("create-order").does::<CreateOrder>().undone_by::<CancelOrder>())
        .step(Step::named("reserve").does::<Reserve>().undone_by::<Release>())
        .output(json!({ "left": "${ steps['reserve'].output.left }" }))
        .build()
}

async fn create_order(order: Order, mut work: Work<Sqlite>) -> Result<(), StepError> {
    query("insert into orders (id) values ($1)").bind(order.order_id).execute(work.tx()).await?;
    Ok(())
}

async fn cancel_order(order: Order, mut work: Work<Sqlite>) -> Result<(), StepError> {
    query("delete from orders where id = $1").bind(order.order_id).execute(work.tx()).await?;
    Ok(())
}

async fn reserve(order: Order, mut work: Work<Sqlite>) -> Result<Reserved, StepError> {
    let left: Option<u32> = sqlx::query_scalar("update stock set free = free - $1 where free >= $1 returning free")
        .bind(order.quantity)
        .fetch_optional(work.tx())
        .await?;
    left.map(|left| Reserved { left }).ok_or_else(|| refuse("out-of-stock", "not enough on the shelf"))
}

async fn release(order: Order, mut work: Work<Sqlite>) -> Result<(), StepError> {
    query("update stock set free = free + $1").bind(order.quantity).execute(work.tx()).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}

/// Runs two orders, and tells what became of them.
pub async fn run() -> Result<Vec<String>, Error> {
    let mut told = Vec::new();
    let folder = tempfile::tempdir()?;
    let path = |name: &str| format!("sqlite://{}?mode=rwc", folder.path().join(name).display());
    let shop = SqlitePool::connect(&path("shop.db")).await?;
    shop.execute("create table orders (id text primary key); create table stock (free integer not null)").await?;
    shop.execute("insert into stock values (10)").await?;
    participant::migrate(&shop).await?;

    let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
    let store: Arc<dyn Store> =
        amends::store::open(&format!("sqlite://{}", folder.path().join("amends.db").display())).await?;
    store.migrate().await?;
    let coordinator = Coordinator::launch(store.clone(), broker.clone(), CoordinatorOptions::default()).await?;
    coordinator.register(&saga()?.source, "code_first").await?;

    let participant = Participant::named("shop")
        .handles::<CreateOrder, _, _>(create_order)
        .handles::<CancelOrder, _, _>(cancel_order)
        .handles::<Reserve, _, _>(reserve)
        .handles::<Release, _, _>(release)
        .build(shop.clone(), broker)?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { participant.run(stop).await }
    });

    for (order_id, quantity) in [("o-1", 3), ("o-2", 8)] {
        let order = Order { order_id: order_id.to_owned(), quantity };
        let input = Payload::from(serde_json::to_value(order)?);
        let start = Start { saga: "small-order".to_owned(), version: None, input, key: None };
        let (StartOutcome::Started { id, .. } | StartOutcome::Exists { id }) = coordinator.start(start).await?;
        told.push(format!("{order_id}: {}", end(&store, id).await?));
    }
    let orders: Vec<String> = sqlx::query_scalar("select id from orders").fetch_all(&shop).await?;
    let free: u32 = sqlx::query_scalar("select free from stock").fetch_one(&shop).await?;
    told.push(format!("orders: {}; on the shelf: {free}", orders.join(", ")));

    stop.cancel();
    serving.await??;
    coordinator.stop().await;
    Ok(told)
}

/// How the saga ended.
async fn end(store: &Arc<dyn Store>, id: SagaId) -> Result<String, Error> {
    for _ in 0..600 {
        let saga = store.saga(id).await?.ok_or("the saga is not there")?.saga;
        if saga.state.is_terminal() {
            return Ok(saga.state.as_str().to_owned());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("the saga did not end in 30 s".into())
}
