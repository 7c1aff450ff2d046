//! The services of the demo, each with a database of its own, written as any service would be: here the shop's, which
//! place orders.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Executor, Sqlite, SqlitePool, query, query_as, query_scalar};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::plan::{DECLINED_CARD, FUSSY_CARD, Fault, Faults, HEAVY, SLOW_CARD, Traces};
use super::{club, travel};
use crate::broker::Broker;
use crate::cli::error::CliError;
use crate::participant::{self, Participant, RunningParticipant, StepError, Work, refuse, retry_after};

/// How long the warehouse asks the coordinator to wait.
const UNTIL_SOMEBODY_IS_BACK: std::time::Duration = std::time::Duration::from_millis(400);

const ORDERS_SCHEMA: &str = "create table orders (saga text not null, state text not null)";
const PAYMENTS_SCHEMA: &str = "
    create table bank (opening integer not null, balance integer not null, held integer not null, captured integer not null);
    insert into bank values (1000000, 1000000, 0, 0);
    create table authorisations (saga text not null, card text not null, amount integer not null);";
const WAREHOUSE_SCHEMA: &str = "
    create table stock (sku text primary key, opening integer not null, free integer not null check (free >= 0),
        picked integer not null default 0, dispatched integer not null default 0);
    insert into stock (sku, opening, free) values
        ('blue-train', 100, 100), ('giant-steps', 100, 100), ('kind-of-blue', 100, 100), ('box-set', 100, 100),
        ('out-of-print', 0, 0);
    create table picks (saga text not null, sku text not null, quantity integer not null);
    create table gifts (saga text primary key);";

/// The services' databases, which outlive a stop of the services.
pub struct Company {
    orders: SqlitePool,
    payments: SqlitePool,
    warehouse: SqlitePool,
    /// Airline, hotel, cars.
    travel: [SqlitePool; 3],
    loyalty: SqlitePool,
    mail: SqlitePool,
    faults: Arc<Faults>,
}

/// The services, taking commands.
pub struct AtWork {
    services: Vec<RunningParticipant<Sqlite>>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), participant::RunError>>,
}

/// What the services' own databases say in the end.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Books {
    /// Orders that were neither confirmed nor cancelled.
    pub open: i64,
    /// Flights, rooms and cars that were neither booked nor let go.
    pub held: i64,
    /// Cents: what the bank had at the start.
    pub opening: i64,
    /// Cents: what it has left.
    pub balance: i64,
    /// Records that the shelves had at the start.
    pub stocked: i64,
    /// Records left.
    pub free: i64,
    /// What the sagas left.
    #[serde(flatten)]
    pub traces: Traces,
}

impl Company {
    /// Makes the databases in `folder`.
    pub async fn found(folder: &Path, faults: Arc<Faults>) -> Result<Self, CliError> {
        Ok(Self {
            orders: database(folder, "orders", ORDERS_SCHEMA).await?,
            payments: database(folder, "payments", PAYMENTS_SCHEMA).await?,
            warehouse: database(folder, "warehouse", WAREHOUSE_SCHEMA).await?,
            travel: [
                database(folder, "airline", travel::SCHEMA).await?,
                database(folder, "hotel", travel::SCHEMA).await?,
                database(folder, "cars", travel::SCHEMA).await?,
            ],
            loyalty: database(folder, "loyalty", club::LOYALTY_SCHEMA).await?,
            mail: database(folder, "mail", club::MAIL_SCHEMA).await?,
            faults,
        })
    }

    /// Lets the services take commands from `broker`.
    pub fn open(&self, broker: &Arc<dyn Broker>) -> Result<AtWork, CliError> {
        let faults = || self.faults.clone();
        let (bank, void_faults, pick_faults, line_faults) = (faults(), faults(), faults(), faults());
        let orders = Participant::named("orders")
            .action("create", create)
            .action("cancel", |_: Value, work| close_order("cancelled", work))
            .action("confirm", |_: Value, work| close_order("confirmed", work));
        let payments = Participant::named("payments")
            .action("authorise", move |input, work| authorise(input, work, bank.clone()))
            .action("void", move |_: Value, work| void(work, void_faults.clone()))
            .action("capture", capture)
            .action("charge", charge);
        let warehouse = Participant::named("warehouse")
            .action("pick", move |input, work| pick(input, work, pick_faults.clone()))
            .action("unpick", unpick)
            .action("reserve", move |input, work| reserve(input, work, line_faults.clone()))
            .action("release", release)
            .action("dispatch", dispatch)
            .action("gift", |_: Value, work| gift("insert into gifts values ($1)", work))
            .action("recall", |_: Value, work| gift("delete from gifts where saga = $1", work));
        let build = |service: Participant<Sqlite>, pool: &SqlitePool| {
            service.build(pool.clone(), broker.clone()).map_err(|error| CliError::failed(error.to_string()))
        };
        let mut services = vec![
            build(orders, &self.orders)?,
            build(payments, &self.payments)?,
            build(warehouse, &self.warehouse)?,
            build(club::loyalty(), &self.loyalty)?,
            build(club::mail(&self.faults), &self.mail)?,
        ];
        for (service, pool) in travel::services(&self.faults).into_iter().zip(&self.travel) {
            services.push(build(service, pool)?);
        }
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for service in &services {
            let (service, stop) = (service.clone(), stop.clone());
            tasks.spawn(async move { service.run(stop).await });
        }
        Ok(AtWork { services, stop, tasks })
    }

    /// Reads what became of money, stock, orders, trips and members.
    pub async fn books(&self) -> Result<Books, CliError> {
        self.read_books().await.map_err(broken)
    }

    async fn read_books(&self) -> Result<Books, sqlx::Error> {
        let (confirmed, open) = query_as(
            "select count(*) filter (where state = 'confirmed'), count(*) filter (where state = 'open') from orders",
        )
        .fetch_one(&self.orders)
        .await?;
        let (opening, balance, paid) =
            query_as("select opening, balance, held + captured from bank").fetch_one(&self.payments).await?;
        let (stocked, free, taken) = query_as("select sum(opening), sum(free), sum(picked + dispatched) from stock")
            .fetch_one(&self.warehouse)
            .await?;
        let gifts = query_scalar("select count(*) from gifts").fetch_one(&self.warehouse).await?;
        let (members, points) = club::books(&self.loyalty).await?;
        let (mut bookings, mut held) = (0, 0);
        for pool in &self.travel {
            let (booked, waiting) = travel::books(pool).await?;
            bookings += booked;
            held += waiting;
        }
        let traces = Traces { confirmed, paid, taken, bookings, members, points, gifts };
        Ok(Books { open, held, opening, balance, stocked, free, traces })
    }

    /// Closes the databases.
    pub async fn close(&self) {
        let shop = [&self.orders, &self.payments, &self.warehouse, &self.loyalty, &self.mail];
        for pool in shop.into_iter().chain(&self.travel) {
            pool.close().await;
        }
    }
}

impl AtWork {
    /// Finishes what is being done, and goes home. Returns how many commands came twice and took effect once.
    pub async fn stop(mut self) -> Result<u64, CliError> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended
                .map_err(|error| CliError::failed(format!("a service of the demo broke: {error}")))?
                .map_err(|error| CliError::failed(error.to_string()))?;
        }
        Ok(self.services.iter().map(|service| service.stats().replayed).sum())
    }
}

async fn database(folder: &Path, name: &str, schema: &'static str) -> Result<SqlitePool, CliError> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join(format!("{name}.db")))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(broken)?;
    pool.execute(schema).await.map_err(broken)?;
    participant::migrate(&pool).await.map_err(|error| CliError::failed(format!("the demo's inbox: {error}")))?;
    Ok(pool)
}

fn broken(error: sqlx::Error) -> CliError {
    CliError::failed(format!("a database of the demo: {error}"))
        .help("the demo writes to the folder for temporary files; set TMPDIR to one with room")
}

/// The saga, under whose id the services keep their books.
pub fn saga(work: &Work<Sqlite>) -> String {
    work.command().saga_id.to_string()
}

async fn create(_: Value, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    query("insert into orders values ($1, 'open')").bind(saga).execute(work.tx()).await?;
    Ok(())
}

async fn close_order(state: &'static str, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    query("update orders set state = $2 where saga = $1").bind(saga).bind(state).execute(work.tx()).await?;
    Ok(())
}

#[derive(Deserialize)]
struct Payment {
    card: String,
    #[serde(alias = "total")]
    amount: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authorisation {
    auth_id: String,
}

async fn authorise(payment: Payment, mut work: Work<Sqlite>, faults: Arc<Faults>) -> Result<Authorisation, StepError> {
    if payment.card == DECLINED_CARD {
        faults.fire(Fault::CardDeclined);
        return Err(refuse("card-declined", "the bank declined the card"));
    }
    let saga = saga(&work);
    query("update bank set balance = balance - $1, held = held + $1").bind(payment.amount).execute(work.tx()).await?;
    query("insert into authorisations values ($1, $2, $3)")
        .bind(&saga)
        .bind(&payment.card)
        .bind(payment.amount)
        .execute(work.tx())
        .await?;
    if payment.card == SLOW_CARD && faults.fire(Fault::CoordinatorKilled) {
        faults.wait_at_the_door().await;
    }
    Ok(Authorisation { auth_id: saga })
}

async fn void(mut work: Work<Sqlite>, faults: Arc<Faults>) -> Result<(), StepError> {
    let (card, amount) = authorised(&mut work).await?;
    if card == FUSSY_CARD && faults.fire(Fault::VoidRefused) {
        return Err(refuse("bank-closed", "the bank wants to be asked by a person"));
    }
    query("update bank set balance = balance + $1, held = held - $1").bind(amount).execute(work.tx()).await?;
    Ok(())
}

async fn capture(_: Value, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let (_, amount) = authorised(&mut work).await?;
    query("update bank set captured = captured + $1, held = held - $1").bind(amount).execute(work.tx()).await?;
    Ok(())
}

/// Takes the money at once: what is paid for is held already.
async fn charge(payment: Payment, mut work: Work<Sqlite>) -> Result<(), StepError> {
    query("update bank set balance = balance - $1, captured = captured + $1")
        .bind(payment.amount)
        .execute(work.tx())
        .await?;
    Ok(())
}

async fn authorised(work: &mut Work<Sqlite>) -> Result<(String, i64), sqlx::Error> {
    let saga = saga(work);
    query_as("select card, amount from authorisations where saga = $1").bind(saga).fetch_one(work.tx()).await
}

#[derive(Deserialize)]
struct PickList {
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    sku: String,
    quantity: i64,
}

async fn pick(list: PickList, mut work: Work<Sqlite>, faults: Arc<Faults>) -> Result<(), StepError> {
    let saga = saga(&work);
    for Line { sku, quantity } in list.lines {
        if sku == HEAVY && work.command().attempt == 1 {
            faults.fire(Fault::NobodyToLift);
            return Err(retry_after(UNTIL_SOMEBODY_IS_BACK, "nobody-to-lift", "nobody is there to lift it"));
        }
        let picked = query("update stock set free = free - $2, picked = picked + $2 where sku = $1 and free >= $2")
            .bind(&sku)
            .bind(quantity)
            .execute(work.tx())
            .await?;
        if picked.rows_affected() == 0 {
            faults.fire(Fault::OutOfStock);
            return Err(refuse("out-of-stock", "the record is out of stock"));
        }
        query("insert into picks values ($1, $2, $3)").bind(&saga).bind(&sku).bind(quantity).execute(work.tx()).await?;
    }
    Ok(())
}

async fn reserve(line: Line, mut work: Work<Sqlite>, faults: Arc<Faults>) -> Result<(), StepError> {
    let Line { sku, quantity } = line;
    let saga = saga(&work);
    let picked = query("update stock set free = free - $2, picked = picked + $2 where sku = $1 and free >= $2")
        .bind(&sku)
        .bind(quantity)
        .execute(work.tx())
        .await?;
    if picked.rows_affected() == 0 {
        faults.fire(Fault::LineOutOfStock);
        return Err(refuse("out-of-stock", "one of the records is out of stock"));
    }
    query("insert into picks values ($1, $2, $3)").bind(&saga).bind(&sku).bind(quantity).execute(work.tx()).await?;
    Ok(())
}

#[derive(Deserialize)]
struct Released {
    sku: String,
}

/// Puts back the one line that it is about.
async fn release(Released { sku }: Released, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    let quantity: i64 = query_scalar("delete from picks where saga = $1 and sku = $2 returning quantity")
        .bind(saga)
        .bind(&sku)
        .fetch_one(work.tx())
        .await?;
    query("update stock set free = free + $2, picked = picked - $2 where sku = $1")
        .bind(sku)
        .bind(quantity)
        .execute(work.tx())
        .await?;
    Ok(())
}

async fn unpick(_: Value, mut work: Work<Sqlite>) -> Result<(), StepError> {
    for (sku, quantity) in picked(&mut work).await? {
        query("update stock set free = free + $2, picked = picked - $2 where sku = $1")
            .bind(sku)
            .bind(quantity)
            .execute(work.tx())
            .await?;
    }
    Ok(())
}

async fn dispatch(_: Value, mut work: Work<Sqlite>) -> Result<(), StepError> {
    for (sku, quantity) in picked(&mut work).await? {
        query("update stock set dispatched = dispatched + $2, picked = picked - $2 where sku = $1")
            .bind(sku)
            .bind(quantity)
            .execute(work.tx())
            .await?;
    }
    Ok(())
}

async fn gift(statement: &'static str, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    query(statement).bind(saga).execute(work.tx()).await?;
    Ok(())
}

async fn picked(work: &mut Work<Sqlite>) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let saga = saga(work);
    query_as("select sku, quantity from picks where saga = $1").bind(saga).fetch_all(work.tx()).await
}
