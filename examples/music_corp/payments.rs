//! Accounts: money is held when an order is placed, and captured once it is certain.

use amends::participant::{Participant, StepError, Work, refuse};
use serde::{Deserialize, Serialize};
use sqlx::{Postgres, query, query_as};

pub const SCHEMA: &str = "
create table if not exists accounts (
    card     text   primary key,
    opening  bigint not null,
    balance  bigint not null check (balance >= 0),
    held     bigint not null default 0 check (held >= 0),
    captured bigint not null default 0 check (captured >= 0)
);

-- What was done, in the order in which it was done. Nothing but the inbox keeps an entry from being made twice.
create table if not exists movements (
    id       bigint generated always as identity primary key,
    order_id text   not null,
    kind     text   not null check (kind in ('authorise', 'void', 'capture')),
    card     text   not null references accounts,
    amount   bigint not null
);
create index if not exists movements_order on movements (order_id);

insert into accounts (card, opening, balance)
select 'card-' || n, 100000000, 100000000 from generate_series(0, 99) as n
on conflict do nothing;
";

pub fn participant() -> Participant<Postgres> {
    Participant::named("payments").action("authorise", authorise).action("void", void).action("capture", capture)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payment {
    order_id: String,
    card: String,
    #[serde(alias = "total")]
    amount: i64,
}

/// An authorisation is known by its order: a compensation has to find it even if the action's reply was lost.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorisation {
    #[serde(alias = "orderId")]
    auth_id: String,
}

async fn authorise(payment: Payment, mut work: Work<Postgres>) -> Result<Authorisation, StepError> {
    if payment.card.starts_with("declined") {
        return Err(refuse("card-declined", "the bank says no"));
    }
    let held = query("update accounts set balance = balance - $2, held = held + $2 where card = $1 and balance >= $2")
        .bind(&payment.card)
        .bind(payment.amount)
        .execute(work.tx())
        .await?;
    if held.rows_affected() == 0 {
        return Err(refuse("card-declined", format!("{} does not cover {}", payment.card, payment.amount)));
    }
    note(&payment.order_id, "authorise", &payment.card, payment.amount, &mut work).await?;
    Ok(Authorisation { auth_id: payment.order_id })
}

async fn void(authorisation: Authorisation, mut work: Work<Postgres>) -> Result<(), StepError> {
    let (card, amount) = authorised(&authorisation, &mut work).await?;
    query("update accounts set balance = balance + $2, held = held - $2 where card = $1")
        .bind(&card)
        .bind(amount)
        .execute(work.tx())
        .await?;
    note(&authorisation.auth_id, "void", &card, amount, &mut work).await
}

async fn capture(authorisation: Authorisation, mut work: Work<Postgres>) -> Result<(), StepError> {
    let (card, amount) = authorised(&authorisation, &mut work).await?;
    query("update accounts set captured = captured + $2, held = held - $2 where card = $1")
        .bind(&card)
        .bind(amount)
        .execute(work.tx())
        .await?;
    note(&authorisation.auth_id, "capture", &card, amount, &mut work).await
}

/// The card and amount of an authorisation.
async fn authorised(authorisation: &Authorisation, work: &mut Work<Postgres>) -> Result<(String, i64), sqlx::Error> {
    query_as("select card, amount from movements where order_id = $1 and kind = 'authorise'")
        .bind(&authorisation.auth_id)
        .fetch_one(work.tx())
        .await
}

async fn note(order_id: &str, kind: &str, card: &str, amount: i64, work: &mut Work<Postgres>) -> Result<(), StepError> {
    query("insert into movements (order_id, kind, card, amount) values ($1, $2, $3, $4)")
        .bind(order_id)
        .bind(kind)
        .bind(card)
        .bind(amount)
        .execute(work.tx())
        .await?;
    Ok(())
}
