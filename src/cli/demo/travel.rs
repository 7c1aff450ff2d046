//! The airline, the hotel and the car hire of the demo: each holds something, then books it or lets it go.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Sqlite, SqlitePool, query, query_as, query_scalar};
use std::sync::Arc;

use super::plan::{CAR, FLIGHT, FULL_HOTEL, Fault, Faults, ROOM, SLEEPY_HOTEL};
use super::services::saga;
use crate::participant::{Participant, StepError, Work, refuse, retry_after};

/// How long a sleepy hotel asks the coordinator to wait.
const UNTIL_THE_DESK_IS_AWAKE: std::time::Duration = std::time::Duration::from_millis(150);

pub const SCHEMA: &str = "create table holds (saga text not null, what text not null, state text not null)";

#[derive(Deserialize)]
struct Hold {
    #[serde(alias = "flight", alias = "hotel", alias = "car")]
    what: String,
}

#[derive(Serialize)]
struct Held {
    price: i64,
}

/// The three services.
pub fn services(faults: &Arc<Faults>) -> [Participant<Sqlite>; 3] {
    let service = |name, price| {
        let (holding, booking) = (faults.clone(), faults.clone());
        Participant::named(name)
            .action("hold", move |input, work| hold(input, work, price, holding.clone()))
            .action("release", |_: Value, work| becomes("released", work))
            .action("book", move |_: Value, work| book(work, booking.clone()))
    };
    [service("airline", FLIGHT), service("hotel", ROOM), service("cars", CAR)]
}

async fn hold(Hold { what }: Hold, mut work: Work<Sqlite>, price: i64, faults: Arc<Faults>) -> Result<Held, StepError> {
    if what == FULL_HOTEL {
        faults.fire(Fault::HotelFull);
        return Err(refuse("sold-out", "the hotel is full"));
    }
    let saga = saga(&work);
    query("insert into holds values ($1, $2, 'held')").bind(saga).bind(what).execute(work.tx()).await?;
    Ok(Held { price })
}

async fn book(mut work: Work<Sqlite>, faults: Arc<Faults>) -> Result<(), StepError> {
    let (saga, is_first) = (saga(&work), work.command().attempt == 1);
    let what: String = query_scalar("select what from holds where saga = $1").bind(saga).fetch_one(work.tx()).await?;
    if what == SLEEPY_HOTEL && is_first {
        faults.fire(Fault::DeskAsleep);
        return Err(retry_after(UNTIL_THE_DESK_IS_AWAKE, "desk-asleep", "nobody is at the desk"));
    }
    becomes("booked", work).await
}

async fn becomes(state: &'static str, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    query("update holds set state = $2 where saga = $1").bind(saga).bind(state).execute(work.tx()).await?;
    Ok(())
}

/// How many things are booked, and how many still held.
pub async fn books(pool: &SqlitePool) -> Result<(i64, i64), sqlx::Error> {
    query_as("select count(*) filter (where state = 'booked'), count(*) filter (where state = 'held') from holds")
        .fetch_one(pool)
        .await
}
