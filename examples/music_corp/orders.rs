//! Orders: written down as PENDING, and CONFIRMED or CANCELLED by the saga's end.

use amends::participant::{Participant, StepError, Work, refuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Postgres, query, query_scalar};

pub const SCHEMA: &str = "
create table if not exists orders (
    id       text   primary key,
    customer text   not null,
    total    bigint not null check (total >= 0),
    lines    jsonb  not null,
    status   text   not null check (status in ('PENDING', 'CONFIRMED', 'CANCELLED'))
);
";

pub fn participant() -> Participant<Postgres> {
    Participant::named("orders").action("create", create).action("cancel", cancel).action("confirm", confirm)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrder {
    order_id: String,
    #[serde(default)]
    customer: String,
    #[serde(default)]
    total: i64,
    lines: Value,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderRef {
    order_id: String,
}

async fn create(order: NewOrder, mut work: Work<Postgres>) -> Result<OrderRef, StepError> {
    let written = query(
        "insert into orders (id, customer, total, lines, status) values ($1, $2, $3, $4, 'PENDING')
         on conflict (id) do nothing",
    )
    .bind(&order.order_id)
    .bind(order.customer)
    .bind(order.total)
    .bind(order.lines)
    .execute(work.tx())
    .await?;
    // Never this command again, which the inbox answers: another saga took the order's name.
    if written.rows_affected() == 0 {
        return Err(refuse("order-exists", format!("there is an order {}", order.order_id)));
    }
    Ok(OrderRef { order_id: order.order_id })
}

async fn cancel(order: OrderRef, work: Work<Postgres>) -> Result<OrderRef, StepError> {
    end(order, "CANCELLED", work).await
}

async fn confirm(order: OrderRef, work: Work<Postgres>) -> Result<OrderRef, StepError> {
    end(order, "CONFIRMED", work).await
}

async fn end(order: OrderRef, status: &str, mut work: Work<Postgres>) -> Result<OrderRef, StepError> {
    let ended: Option<String> =
        query_scalar("update orders set status = $2 where id = $1 and status = 'PENDING' returning id")
            .bind(&order.order_id)
            .bind(status)
            .fetch_optional(work.tx())
            .await?;
    match ended {
        Some(_) => Ok(order),
        None => Err(refuse("order-not-pending", format!("order {} is not PENDING", order.order_id))),
    }
}
