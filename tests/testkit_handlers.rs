//! The test kit with a service's real handlers, on a real database with the real inbox.

use amends::participant::{Participant, StepError, Work, migrate, refuse};
use amends::testkit::{Kit, explore};
use serde_json::{Value, json};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;

const SELL: &str = "saga: sell\nversion: 1\ndefaults: { timeout: 10s, retry: { maxAttempts: 2 }, compensation: { retry: { maxAttempts: 2 } } }\nsteps:\n\
    \x20 - { name: reserve, participant: stock, action: reserve, compensation: { action: release } }\n\
    \x20 - { name: confirm, participant: shop, action: confirm, pivot: true, compensation: none }\n";

async fn reserve(input: Value, mut work: Work<sqlx::Sqlite>) -> Result<Value, StepError> {
    let quantity = input["quantity"].as_i64().unwrap_or_default();
    let moved = sqlx::query("update stock set free = free - $1, reserved = reserved + $1 where free >= $1")
        .bind(quantity)
        .execute(work.tx())
        .await?;
    if moved.rows_affected() == 0 {
        return Err(refuse("out-of-stock", "not enough"));
    }
    Ok(json!({ "reserved": quantity }))
}

async fn release(input: Value, mut work: Work<sqlx::Sqlite>) -> Result<(), StepError> {
    sqlx::query("update stock set free = free + $1, reserved = reserved - $1")
        .bind(input["quantity"].as_i64().unwrap_or_default())
        .execute(work.tx())
        .await?;
    Ok(())
}

/// Forgets to give back what was reserved.
async fn forget(_input: Value, _work: Work<sqlx::Sqlite>) -> Result<(), StepError> {
    Ok(())
}

async fn database() -> SqlitePool {
    let options = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let pool = options.connect("sqlite::memory:").await.expect("a database");
    migrate(&pool).await.expect("the inbox is made");
    sqlx::query("create table stock (free integer not null, reserved integer not null)")
        .execute(&pool)
        .await
        .expect("made");
    sqlx::query("insert into stock values (100, 0)").execute(&pool).await.expect("filled");
    pool
}

async fn standing(pool: &SqlitePool) -> (i64, i64) {
    sqlx::query_as("select free, reserved from stock").fetch_one(pool).await.expect("read")
}

async fn with_stock(kit: Kit, is_forgetful: bool) -> Kit {
    let pool = database().await;
    let stock = Participant::named("stock").action("reserve", reserve);
    let stock = if is_forgetful { stock.action("release", forget) } else { stock.action("release", release) };
    kit.participant(stock, pool.clone()).invariant_async("stock is free, or reserved once", move || async move {
        matches!(standing(&pool).await, (100, 0) | (97, 3))
    })
}

#[tokio::test]
async fn real_handlers_are_sound_under_every_single_fault() {
    let sell = explore(SELL).input(json!({ "quantity": 3 }));
    let report = sell.run(async |kit| with_stock(kit, false).await).await;
    report.assert_sound();
    assert!(report.tried() > 150, "{report}");
}

#[tokio::test]
async fn what_a_real_handler_leaves_behind_is_found() {
    let pool = database().await;
    let stock = Participant::named("stock").action("reserve", reserve).action("release", forget);
    let run = Kit::new(SELL).input(json!({ "quantity": 3 })).participant(stock, pool.clone()).fault("confirm=fail");
    let seen = pool.clone();
    let run = run.invariant_async("nothing stays reserved", move || async move { standing(&seen).await == (100, 0) });
    let run = run.run().await;
    assert_eq!(run.violations, ["the invariant does not hold: nothing stays reserved"]);
    assert_eq!(standing(&pool).await, (97, 3));
}

#[tokio::test]
async fn a_real_inbox_refuses_the_action_after_its_tombstone() {
    let kit = with_stock(Kit::new(SELL).input(json!({ "quantity": 3 })), false).await;
    let run = kit.fault("reserve#*=stale").run().await;
    run.assert_compensated();
    assert_eq!(run.effects["reserve"], (0, 0));
}
