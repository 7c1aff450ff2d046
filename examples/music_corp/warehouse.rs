//! Stock: records are picked off the shelf when an order is placed, and dispatched once it is certain.

use std::collections::BTreeMap;

use amends::participant::{Participant, StepError, Work, refuse};
use serde::Deserialize;
use sqlx::{Postgres, query, query_as};

pub const SCHEMA: &str = "
create table if not exists stock (
    sku        text   primary key,
    opening    bigint not null,
    free       bigint not null check (free >= 0),
    picked     bigint not null default 0 check (picked >= 0),
    dispatched bigint not null default 0 check (dispatched >= 0)
);

-- What was done, in the order in which it was done. Nothing but the inbox keeps an entry from being made twice.
create table if not exists movements (
    id       bigint generated always as identity primary key,
    order_id text   not null,
    kind     text   not null check (kind in ('pick', 'unpick', 'dispatch')),
    sku      text   not null references stock,
    quantity bigint not null
);
create index if not exists movements_order on movements (order_id);

insert into stock (sku, opening, free) values
    ('kind-of-blue', 10000000, 10000000),
    ('blue-train', 10000000, 10000000),
    ('giant-steps', 10000000, 10000000),
    ('out-of-print', 0, 0)
on conflict do nothing;
";

pub fn participant() -> Participant<Postgres> {
    Participant::named("warehouse").action("pick", pick).action("unpick", unpick).action("dispatch", dispatch)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PickList {
    order_id: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderRef {
    order_id: String,
}

async fn pick(list: PickList, mut work: Work<Postgres>) -> Result<(), StepError> {
    // One row of stock after the other, always in the same order, so that two orders never wait for each other.
    let mut quantities: BTreeMap<String, i64> = BTreeMap::new();
    for line in list.lines {
        *quantities.entry(line.sku).or_default() += i64::from(line.quantity);
    }
    for (sku, quantity) in quantities {
        let picked = query("update stock set free = free - $2, picked = picked + $2 where sku = $1 and free >= $2")
            .bind(&sku)
            .bind(quantity)
            .execute(work.tx())
            .await?;
        if picked.rows_affected() == 0 {
            // What was picked for the lines before is rolled back with the refusal.
            return Err(refuse("out-of-stock", format!("there are no {quantity} of {sku}")));
        }
        note(&list.order_id, "pick", &sku, quantity, &mut work).await?;
    }
    Ok(())
}

async fn unpick(order: OrderRef, mut work: Work<Postgres>) -> Result<(), StepError> {
    for (sku, quantity) in picked(&order, &mut work).await? {
        query("update stock set free = free + $2, picked = picked - $2 where sku = $1")
            .bind(&sku)
            .bind(quantity)
            .execute(work.tx())
            .await?;
        note(&order.order_id, "unpick", &sku, quantity, &mut work).await?;
    }
    Ok(())
}

async fn dispatch(order: OrderRef, mut work: Work<Postgres>) -> Result<(), StepError> {
    for (sku, quantity) in picked(&order, &mut work).await? {
        query("update stock set dispatched = dispatched + $2, picked = picked - $2 where sku = $1")
            .bind(&sku)
            .bind(quantity)
            .execute(work.tx())
            .await?;
        note(&order.order_id, "dispatch", &sku, quantity, &mut work).await?;
    }
    Ok(())
}

/// What was picked for an order.
async fn picked(order: &OrderRef, work: &mut Work<Postgres>) -> Result<Vec<(String, i64)>, sqlx::Error> {
    query_as("select sku, quantity from movements where order_id = $1 and kind = 'pick' order by sku")
        .bind(&order.order_id)
        .fetch_all(work.tx())
        .await
}

async fn note(
    order_id: &str,
    kind: &str,
    sku: &str,
    quantity: i64,
    work: &mut Work<Postgres>,
) -> Result<(), sqlx::Error> {
    query("insert into movements (order_id, kind, sku, quantity) values ($1, $2, $3, $4)")
        .bind(order_id)
        .bind(kind)
        .bind(sku)
        .bind(quantity)
        .execute(work.tx())
        .await?;
    Ok(())
}
