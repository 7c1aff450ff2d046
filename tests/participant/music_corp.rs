//! MusicCorp's three services, each with the commands that a saga sends it.

#[path = "../../examples/music_corp/orders.rs"]
mod orders;
#[path = "../../examples/music_corp/payments.rs"]
mod payments;
#[path = "../../examples/music_corp/warehouse.rs"]
mod warehouse;

use std::sync::Arc;

use amends::message::{Command, ReplyBody};
use amends::participant::Participant;
use amends::payload::Payload;
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres, query_as, raw_sql};
use tokio_util::sync::CancellationToken;

use crate::databases::TestDatabase;
use crate::rig::{again, pick, unpick, word};
use crate::scripted::{Scripted, Shared};

struct Service {
    name: &'static str,
    pool: PgPool,
    broker: Arc<Scripted>,
    stop: CancellationToken,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Service {
    async fn start(name: &'static str, schema: &'static str, participant: Participant<Postgres>) -> Self {
        let (pool, _) = Postgres::fresh().await;
        raw_sql(schema).execute(&pool).await.expect("the schema");
        raw_sql(schema).execute(&pool).await.expect("the schema again");
        let (broker, stop) = (Scripted::new(), CancellationToken::new());
        let running =
            participant.build(pool.clone(), Arc::new(Shared(Arc::clone(&broker)))).expect("a valid participant");
        tokio::spawn({
            let stop = stop.clone();
            async move { running.run(stop).await }
        });
        Self { name, pool, broker, stop }
    }

    fn command(&self, action: &str, input: &Value) -> Command {
        Command {
            participant: self.name.to_owned(),
            action: action.to_owned(),
            body: Payload::from(input.clone()),
            ..pick("succeed")
        }
    }

    fn compensation(&self, of: &Command, action: &str) -> Command {
        Command { action: action.to_owned(), body: of.body.clone(), ..unpick(of, "") }
    }

    /// Delivers a command twice, as a broker may, and returns the word of both replies.
    async fn ask(&self, command: &Command) -> String {
        let second = again(command);
        self.broker.deliver(command.encode());
        self.broker.deliver(second.encode());
        let first: ReplyBody = self.broker.reply(&command.token).await;
        assert_eq!(self.broker.reply(&second.token).await, first);
        word(&first)
    }
}

fn order(id: &str, sku: &str, card: &str) -> Value {
    json!({
        "orderId": id, "customer": "ann", "total": 1_500, "card": card,
        "lines": [{ "sku": "blue-train", "quantity": 2 }, { "sku": sku, "quantity": 1 }],
    })
}

#[tokio::test]
async fn money_moves_from_balance_to_held_to_captured_or_back() {
    let service = Service::start("payments", payments::SCHEMA, payments::participant()).await;
    let account = async || -> (i64, i64, i64) {
        let row = query_as("select balance - opening, held, captured from accounts where card = 'card-1'");
        row.fetch_one(&service.pool).await.expect("the account")
    };
    let kept = service.command("authorise", &order("a", "giant-steps", "card-1"));
    assert_eq!(service.ask(&kept).await, "success");
    assert_eq!(account().await, (-1_500, 1_500, 0));
    let undone = service.command("authorise", &order("b", "giant-steps", "card-1"));
    assert_eq!(service.ask(&undone).await, "success");
    assert_eq!(service.ask(&service.compensation(&undone, "void")).await, "success");
    let by_output = json!({ "authId": "a" });
    assert_eq!(service.ask(&service.command("capture", &by_output)).await, "success");
    assert_eq!(account().await, (-1_500, 0, 1_500));
    for card in ["declined-card", "card-that-nobody-knows"] {
        let refused = service.command("authorise", &order("c", "giant-steps", card));
        assert_eq!(service.ask(&refused).await, "failure card-declined");
    }
}

#[tokio::test]
async fn records_move_from_free_to_picked_to_dispatched_or_back() {
    let service = Service::start("warehouse", warehouse::SCHEMA, warehouse::participant()).await;
    let stock = async || -> (i64, i64, i64) {
        let row = query_as("select free - opening, picked, dispatched from stock where sku = 'blue-train'");
        row.fetch_one(&service.pool).await.expect("the stock")
    };
    // The record is on two lines of the order.
    let input = order("a", "blue-train", "card-1");
    assert_eq!(service.ask(&service.command("pick", &input)).await, "success");
    assert_eq!(stock().await, (-3, 3, 0));
    assert_eq!(service.ask(&service.command("dispatch", &input)).await, "success");
    let undone = service.command("pick", &order("b", "giant-steps", "card-1"));
    assert_eq!(service.ask(&undone).await, "success");
    assert_eq!(service.ask(&service.compensation(&undone, "unpick")).await, "success");
    assert_eq!(stock().await, (-3, 0, 3));
    let refused = service.command("pick", &order("c", "out-of-print", "card-1"));
    assert_eq!(service.ask(&refused).await, "failure out-of-stock");
    assert_eq!(stock().await, (-3, 0, 3), "the line before the one that is out of stock is picked no more");
}

#[tokio::test]
async fn an_order_is_pending_until_it_is_confirmed_or_cancelled() {
    let service = Service::start("orders", orders::SCHEMA, orders::participant()).await;
    let (kept, undone) = (order("a", "giant-steps", "card-1"), order("b", "giant-steps", "card-1"));
    assert_eq!(service.ask(&service.command("create", &kept)).await, "success");
    assert_eq!(service.ask(&service.command("create", &kept)).await, "failure order-exists");
    let create = service.command("create", &undone);
    assert_eq!(service.ask(&create).await, "success");
    let statuses = async || -> Vec<(String, String)> {
        query_as("select id, status from orders order by id").fetch_all(&service.pool).await.expect("orders")
    };
    let are = |a: &str, b: &str| vec![("a".to_owned(), a.to_owned()), ("b".to_owned(), b.to_owned())];
    assert_eq!(statuses().await, are("PENDING", "PENDING"));
    assert_eq!(service.ask(&service.command("confirm", &kept)).await, "success");
    assert_eq!(service.ask(&service.compensation(&create, "cancel")).await, "success");
    assert_eq!(statuses().await, are("CONFIRMED", "CANCELLED"));
    assert_eq!(service.ask(&service.command("confirm", &undone)).await, "failure order-not-pending");
}
