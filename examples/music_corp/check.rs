//! Proves from the three databases, none of which knows of the others, that every order was placed whole or not at all,
//! and that the coordinator says the same.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use amends::clock::Stopwatch;
use serde::Deserialize;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{query_as, query_scalar};

use crate::Error;

#[derive(clap::Args)]
pub struct Settings {
    /// The database of the orders service.
    #[arg(long, env = "ORDERS_DATABASE")]
    orders: String,
    /// The database of the payments service.
    #[arg(long, env = "PAYMENTS_DATABASE")]
    payments: String,
    /// The database of the warehouse service.
    #[arg(long, env = "WAREHOUSE_DATABASE")]
    warehouse: String,
    /// The coordinator, whose word on every saga is then compared too.
    #[arg(long, env = "AMENDS_URL")]
    url: Option<String>,
    /// Sent as bearer token, if the coordinator asks for one.
    #[arg(long, env = "AMENDS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// How many sagas the coordinator must know.
    #[arg(long, requires = "url")]
    expect: Option<usize>,
    /// Waits so many seconds for orders to end before it looks.
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

/// What the three services say of one order.
#[derive(Debug, Default)]
struct Order {
    status: Option<String>,
    payments: BTreeMap<String, i64>,
    warehouse: BTreeMap<String, i64>,
}

pub async fn run(settings: Settings) -> Result<ExitCode, Error> {
    let databases = Databases {
        orders: connect(&settings.orders).await?,
        payments: connect(&settings.payments).await?,
        warehouse: connect(&settings.warehouse).await?,
    };
    let watch = Stopwatch::start();
    let checks = loop {
        let checks = look(&databases, &settings).await?;
        if checks.iter().all(Check::holds) || watch.elapsed() >= Duration::from_secs(settings.wait) {
            break checks;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let mut table = comfy_table::Table::new();
    table.set_header(["what must hold", "expected", "found", ""]);
    for check in &checks {
        let verdict = if check.holds() { "ok" } else { "WRONG" };
        table.add_row([check.claim, &check.expected, &check.found, verdict]);
    }
    println!("{table}");
    Ok(if checks.iter().all(Check::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Databases {
    orders: PgPool,
    payments: PgPool,
    warehouse: PgPool,
}

/// One line of the table.
struct Check {
    claim: &'static str,
    expected: String,
    found: String,
}

impl Check {
    fn new(claim: &'static str, expected: impl ToString, found: impl ToString) -> Self {
        Self { claim, expected: expected.to_string(), found: found.to_string() }
    }

    fn holds(&self) -> bool {
        self.expected == self.found
    }
}

async fn look(databases: &Databases, settings: &Settings) -> Result<Vec<Check>, Error> {
    let Databases { orders, payments, warehouse } = databases;
    let mut checks = Vec::new();
    let all = read(databases).await?;
    let with = |status: &str| all.values().filter(|order| order.status.as_deref() == Some(status)).count();
    if let Some(url) = &settings.url {
        let sagas = sagas(url, settings.token.as_deref()).await?;
        checks.push(Check::new("sagas known", settings.expect.unwrap_or(sagas.len()), sagas.len()));
        let agreed = sagas.iter().filter(|(key, state)| {
            let status = all.get(*key).and_then(|order| order.status.as_deref());
            // An order whose first command never arrived was never written down.
            matches!((&***state, status), ("COMPLETED", Some("CONFIRMED")) | ("COMPENSATED", Some("CANCELLED") | None))
        });
        checks.push(Check::new("sagas ended as their orders did", sagas.len(), agreed.count()));
    }
    checks.push(Check::new("orders still PENDING", 0, with("PENDING")));
    checks.push(Check::new("payments or picks of no order", 0, all.values().filter(|o| o.status.is_none()).count()));
    for (claim, status, whole) in [
        ("CONFIRMED orders that are paid and dispatched, once", "CONFIRMED", Order::is_placed as fn(&Order) -> bool),
        ("CANCELLED orders that left nothing behind", "CANCELLED", Order::is_undone),
    ] {
        let right = all.values().filter(|order| order.status.as_deref() == Some(status) && whole(order)).count();
        checks.push(Check::new(claim, with(status), right));
    }

    let (opening, now): (i64, i64) =
        query_as("select sum(opening)::bigint, sum(balance + held + captured)::bigint from accounts")
            .fetch_one(payments)
            .await?;
    checks.push(Check::new("money: balances, held and captured", opening, now));
    let taken: i64 =
        sum(orders, "select coalesce(sum(total), 0)::bigint from orders where status = 'CONFIRMED'").await?;
    let captured = sum(payments, "select sum(captured)::bigint from accounts").await?;
    checks.push(Check::new("money captured for CONFIRMED orders", taken, captured));
    checks.push(Check::new("money still held", 0, sum(payments, "select sum(held)::bigint from accounts").await?));

    let (opening, now): (i64, i64) =
        query_as("select sum(opening)::bigint, sum(free + picked + dispatched)::bigint from stock")
            .fetch_one(warehouse)
            .await?;
    checks.push(Check::new("records: free, picked and dispatched", opening, now));
    let sold = sum(
        orders,
        "select coalesce(sum((line ->> 'quantity')::bigint), 0)::bigint
         from orders, jsonb_array_elements(lines) as line where status = 'CONFIRMED'",
    )
    .await?;
    let dispatched = sum(warehouse, "select sum(dispatched)::bigint from stock").await?;
    checks.push(Check::new("records dispatched for CONFIRMED orders", sold, dispatched));
    checks.push(Check::new("records still picked", 0, sum(warehouse, "select sum(picked)::bigint from stock").await?));
    Ok(checks)
}

impl Order {
    /// Authorised once, captured once, each record picked once and dispatched once; nothing undone.
    fn is_placed(&self) -> bool {
        let paid = self.payments == BTreeMap::from([("authorise".to_owned(), 1), ("capture".to_owned(), 1)]);
        let count = |kind: &str| self.warehouse.get(kind).copied().unwrap_or(0);
        paid && count("pick") > 0 && count("pick") == count("dispatch") && count("unpick") == 0 && !self.twice()
    }

    /// Whatever was done was undone once.
    fn is_undone(&self) -> bool {
        let payments = |kind: &str| self.payments.get(kind).copied().unwrap_or(0);
        let warehouse = |kind: &str| self.warehouse.get(kind).copied().unwrap_or(0);
        payments("authorise") <= 1
            && payments("authorise") == payments("void")
            && payments("capture") == 0
            && warehouse("pick") == warehouse("unpick")
            && warehouse("dispatch") == 0
            && !self.twice()
    }

    /// Whether one record of the order was moved in the same way twice.
    fn twice(&self) -> bool {
        self.warehouse.contains_key("twice")
    }
}

async fn read(databases: &Databases) -> Result<BTreeMap<String, Order>, sqlx::Error> {
    let Databases { orders, payments, warehouse } = databases;
    let mut all: BTreeMap<String, Order> = BTreeMap::new();
    let rows: Vec<(String, String)> = query_as("select id, status from orders").fetch_all(orders).await?;
    for (id, status) in rows {
        all.entry(id).or_default().status = Some(status);
    }
    const MOVEMENTS: &str = "select order_id, kind, count(*) from movements group by order_id, kind";
    let rows: Vec<(String, String, i64)> = query_as(MOVEMENTS).fetch_all(payments).await?;
    for (id, kind, count) in rows {
        all.entry(id).or_default().payments.insert(kind, count);
    }
    let rows: Vec<(String, String, i64)> = query_as(MOVEMENTS).fetch_all(warehouse).await?;
    for (id, kind, count) in rows {
        all.entry(id).or_default().warehouse.insert(kind, count);
    }
    let twice: Vec<String> =
        query_scalar("select order_id from movements group by order_id, kind, sku having count(*) > 1")
            .fetch_all(warehouse)
            .await?;
    for id in twice {
        all.entry(id).or_default().warehouse.insert("twice".to_owned(), 1);
    }
    Ok(all)
}

/// The coordinator's word on every saga: its state by its key, which is the order's name.
async fn sagas(url: &str, token: Option<&str>) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Page {
        items: Vec<Saga>,
        next: Option<String>,
    }
    #[derive(Deserialize)]
    struct Saga {
        key: Option<String>,
        state: String,
    }
    let client = reqwest::Client::new();
    let (mut states, mut cursor) = (BTreeMap::new(), None::<String>);
    loop {
        let mut address = reqwest::Url::parse(&format!("{url}/v1/sagas?saga=place-order&limit=100"))?;
        if let Some(cursor) = &cursor {
            address.query_pairs_mut().append_pair("cursor", cursor);
        }
        let mut request = client.get(address);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let page: Page = request.send().await?.error_for_status()?.json().await?;
        states.extend(page.items.into_iter().map(|saga| (saga.key.unwrap_or_default(), saga.state)));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(states),
        }
    }
}

async fn sum(pool: &PgPool, statement: &'static str) -> Result<i64, sqlx::Error> {
    query_scalar(statement).fetch_one(pool).await
}

async fn connect(url: &str) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new().max_connections(1).connect(url).await
}
