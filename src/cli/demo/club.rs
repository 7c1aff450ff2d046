//! The loyalty programme of the demo, and the mail.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use sqlx::{Sqlite, SqlitePool, query, query_as};

use super::plan::{Fault, Faults, WRONG_ADDRESS};
use super::services::saga;
use crate::participant::{Participant, StepError, Work, refuse};

pub const LOYALTY_SCHEMA: &str = "create table members (saga text primary key, points integer not null)";
pub const MAIL_SCHEMA: &str = "create table sent (saga text primary key, address text not null)";

#[derive(Deserialize)]
struct Grant {
    points: i64,
}

#[derive(Deserialize)]
struct Letter {
    to: String,
}

/// The loyalty programme.
pub fn loyalty() -> Participant<Sqlite> {
    Participant::named("loyalty")
        .action("create", |_: Value, work| run("insert into members values ($1, 0)", work))
        .action("delete", |_: Value, work| run("delete from members where saga = $1", work))
        .action("grant", grant)
        .action("withdraw", |_: Value, work| run("update members set points = 0 where saga = $1", work))
}

/// The mail.
pub fn mail(faults: &Arc<Faults>) -> Participant<Sqlite> {
    let faults = faults.clone();
    Participant::named("mail").action("send", move |letter, work| send(letter, work, faults.clone()))
}

/// Runs one statement on the saga.
async fn run(statement: &'static str, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    query(statement).bind(saga).execute(work.tx()).await?;
    Ok(())
}

async fn grant(Grant { points }: Grant, mut work: Work<Sqlite>) -> Result<(), StepError> {
    let saga = saga(&work);
    query("update members set points = points + $2 where saga = $1").bind(saga).bind(points).execute(work.tx()).await?;
    Ok(())
}

async fn send(Letter { to }: Letter, mut work: Work<Sqlite>, faults: Arc<Faults>) -> Result<(), StepError> {
    if to == WRONG_ADDRESS {
        faults.fire(Fault::AddressUnknown);
        return Err(refuse("address-unknown", "the mail came back"));
    }
    let saga = saga(&work);
    query("insert into sent values ($1, $2)").bind(saga).bind(to).execute(work.tx()).await?;
    Ok(())
}

/// How many members there are, and their points.
pub async fn books(loyalty: &SqlitePool) -> Result<(i64, i64), sqlx::Error> {
    query_as("select count(*), coalesce(sum(points), 0) from members").fetch_one(loyalty).await
}
