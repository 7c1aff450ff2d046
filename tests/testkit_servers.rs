//! The test kit on real stores and brokers: the same saga, participants and plans as on virtual time, the same ends.

mod support;

use std::sync::{Arc, Mutex};

use amends::participant::{Participant, StepError, Work, migrate, refuse};
use amends::testkit::{Answer, FaultKind, Kit, Run};
use serde_json::{Value, json};
use sqlx::sqlite::SqlitePoolOptions;

const PLACE_ORDER: &str = include_str!("../sagas/place-order.yaml");
/// Two steps before the pivot, few attempts.
const SELL: &str = "saga: sell\nversion: 1\ndefaults: { timeout: 10s, retry: { maxAttempts: 2 }, compensation: { retry: { maxAttempts: 2 } } }\nsteps:\n\
    \x20 - { name: reserve, participant: stock, action: reserve, compensation: { action: release } }\n\
    \x20 - { name: charge, participant: bank, action: charge, compensation: { action: refund } }\n\
    \x20 - { name: confirm, participant: shop, action: confirm, pivot: true, compensation: none }\n";
const BACK: [&str; 2] = ["authorise-payment", "create-order"];

/// Where a test runs; what has to live as long as it does.
struct Place {
    store: String,
    broker: String,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    /// SQLite in a file, the broker inside the process.
    fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = format!("sqlite://{}", folder.path().join("amends.db").display());
        Self { store, broker: "in-process".to_owned(), _folder: Some(folder) }
    }

    /// PostgreSQL and RabbitMQ.
    async fn servers() -> Self {
        Self { store: support::fresh_database().await, broker: support::broker_url(), _folder: None }
    }

    fn kit(&self, source: &str) -> Kit {
        Kit::new(source).on_servers(&self.store, &self.broker)
    }
}

/// The ends of one saga in every way that there is.
async fn every_end_is_reached(place: &Place) {
    let kit = || place.kit(PLACE_ORDER);
    kit().run().await.assert_completed().assert_undone([]);
    kit().fault("pick#1=fail").run().await.assert_compensated().assert_undone(BACK);
    kit().fault("authorise-payment#2=late-reply").run().await.assert_completed();
    kit().on("payments.authorise", |_, _| Answer::refused("card-declined")).run().await.assert_undone(["create-order"]);
    let run = kit().fault("pick#1=fail").fault("undo:create-order#1=fail").run().await;
    run.assert_stuck("planned-failure");
    assert_eq!(run.saga.definition.name, "place-order");
    assert_eq!(run.effects["create-order"], (1, 0));
}

#[tokio::test]
async fn every_end_is_reached_in_one_process() {
    every_end_is_reached(&Place::embedded()).await;
}

#[tokio::test]
async fn every_end_is_reached_on_postgres_and_rabbitmq() {
    every_end_is_reached(&Place::servers().await).await;
}

#[tokio::test]
async fn every_end_is_reached_in_memory() {
    let place = Place { store: "memory:".to_owned(), broker: "in-process".to_owned(), _folder: None };
    every_end_is_reached(&place).await;
}

/// Kinds that are refused on servers.
const REFUSED: [FaultKind; 7] = [
    FaultKind::Stale,
    FaultKind::StaleReply,
    FaultKind::Reorder,
    FaultKind::CrashBeforeCommit,
    FaultKind::CrashBeforePublish,
    FaultKind::CrashBeforeConfirm,
    FaultKind::CrashBeforeAck,
];

/// Every fault that can strike there, and the same end as on virtual time. Side by side, each in a place of its own:
/// an attempt that nobody answers takes seconds.
async fn faults_end_as_on_virtual_time(place: impl AsyncFn() -> Place) {
    let kinds = FaultKind::ALL.into_iter().filter(|kind| *kind != FaultKind::Early && !REFUSED.contains(kind));
    let mut faults: Vec<String> = kinds.map(|kind| format!("charge#1={kind}")).collect();
    faults.extend(["timeout", "lost-reply", "late-reply", "delay"].map(|kind| format!("charge#*={kind}")));
    assert_eq!(faults.len(), 16, "a kind of fault has come or gone");
    let runs = faults.iter().map(async |fault| {
        let virtually = Kit::new(SELL).fault(fault).run().await;
        let run = place().await.kit(SELL).fault(fault).run().await;
        run.assert_sound();
        assert_eq!(run.end, virtually.end, "{fault}: {}", run.timeline);
        assert_eq!(run.undone, virtually.undone, "{fault}: {}", run.timeline);
        assert_eq!(run.effects, virtually.effects, "{fault}: {}", run.timeline);
    });
    futures_util::future::join_all(runs).await;
    // Back again, too.
    let run = place().await.kit(SELL).fault("confirm#1=fail").fault("undo:charge#1=lost-reply").run().await;
    run.assert_compensated().assert_undone(["charge", "reserve"]);
    assert_eq!(run.effects["charge"], (1, 1));
}

#[tokio::test]
async fn faults_end_as_on_virtual_time_in_one_process() {
    faults_end_as_on_virtual_time(async || Place::embedded()).await;
}

#[tokio::test]
async fn faults_end_as_on_virtual_time_on_postgres_and_rabbitmq() {
    faults_end_as_on_virtual_time(Place::servers).await;
}

#[tokio::test]
async fn what_cannot_be_planned_on_servers_is_refused_by_name() {
    for kind in REFUSED {
        let fault = format!("charge#1={kind}");
        let refused = Kit::new(SELL).fault(&fault).on_servers("memory:", "in-process").try_run().await;
        let said = refused.expect_err("it cannot be planned").to_string();
        assert!(said.contains(&format!("fault `{fault}` cannot be planned on servers: ")), "{said}");
    }
    let parent = SELL.replace("  - { name: charge", "  - { name: invoice, saga: send-invoice }\n  - { name: charge");
    let refused = Kit::new(&parent).on_servers("memory:", "in-process").try_run().await;
    let said = refused.expect_err("it starts a saga").to_string();
    assert!(said.contains("step `invoice` starts the saga `send-invoice`"), "{said}");
    let refused = Kit::new(SELL).on_servers("mysql://nowhere", "in-process").try_run().await;
    let said = refused.expect_err("no such store").to_string();
    assert!(said.contains("expected postgres://"), "{said}");
}

/// A loop, a signal, a delay.
const KINDS: &str = "saga: kinds\nversion: 1\ndefaults: { timeout: 30s, retry: { maxAttempts: 2 } }\n\
    input: { schema: { type: object, required: [lines], properties: { lines: { type: array, minItems: 2, items: { type: string } } } } }\nsteps:\n\
    \x20 - { name: reserve, participant: stock, action: reserve, forEach: { items: \"${ input.lines }\" }, input: \"${ item }\", compensation: { action: release } }\n\
    \x20 - { name: approval, wait: { signal: approved, timeout: 30d } }\n\
    \x20 - { name: cool-off, delay: 14d }\n\
    \x20 - { name: ship, participant: shipping, action: ship, pivot: true, compensation: none }\n";

#[tokio::test]
async fn signals_and_loops_and_delays_are_seen_to() {
    let place = Place::embedded();
    let kit = || place.kit(KINDS).input(json!({ "lines": ["a", "b"] }));
    kit().run().await.assert_completed();
    kit().fault("approval=early").run().await.assert_completed();
    kit().fault("approval=duplicate").run().await.assert_completed();
    let run = kit().fault("approval=timeout").run().await;
    run.assert_compensated();
    assert_eq!(run.effects["reserve[1]"], (1, 1));
    kit().fault("reserve[1]#1=late-reply").run().await.assert_completed();
}

#[tokio::test]
async fn an_invariant_is_checked_and_a_fault_that_never_strikes_is_told() {
    let place = Place::embedded();
    let run = place.kit(SELL).fault("undo:charge#1=fail").invariant("never", || false).run().await;
    let found = run.faults_found().join("\n");
    assert!(found.contains("the invariant does not hold: never"), "{found}");
    assert!(found.contains("`undo:charge#1=fail` never struck"), "{found}");
    let said = run.report("sell.yaml");
    assert!(
        said.contains("it ran on sqlite://") && said.contains("on virtual time: amends definitions simulate sell.yaml"),
        "{said}"
    );
}

#[tokio::test]
#[should_panic(expected = "an assertion of the user's")]
async fn a_closure_that_panics_fails_the_test() {
    Place::embedded()
        .kit(SELL)
        .on("bank.charge", |_, _| -> Answer { panic!("an assertion of the user's") })
        .run()
        .await;
}

/// A forgetful participant is found out here as in the simulation.
#[tokio::test]
async fn a_participant_without_an_inbox_is_found_out() {
    let run = Place::embedded().kit(SELL).careless(false, true).fault("charge#1=duplicate").run().await;
    assert!(run.violations.iter().any(|wrong| wrong.starts_with("6 ")), "{:?}", run.violations);
}

async fn reserve(input: Value, mut work: Work<sqlx::Sqlite>) -> Result<Value, StepError> {
    let quantity = input["quantity"].as_i64().unwrap_or_default();
    assert_eq!(work.command().participant, "stock");
    assert_eq!(work.command().definition.name, "sell");
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

async fn with_real_handlers(place: &Place, fault: &str) -> (Run, (i64, i64)) {
    let options = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
    let pool = options.connect("sqlite::memory:").await.expect("a database");
    migrate(&pool).await.expect("the inbox is made");
    for statement in
        ["create table stock (free integer not null, reserved integer not null)", "insert into stock values (100, 0)"]
    {
        sqlx::query(statement).execute(&pool).await.expect("made");
    }
    let stock = Participant::named("stock").action("reserve", reserve).action("release", release);
    let kit = place.kit(SELL).input(json!({ "quantity": 3 })).participant(stock, pool.clone()).fault(fault);
    let run = kit.run().await;
    let standing = sqlx::query_as("select free, reserved from stock").fetch_one(&pool).await.expect("read");
    (run, standing)
}

#[tokio::test]
async fn real_handlers_are_run_on_servers_too() {
    let place = Place::servers().await;
    let (run, standing) = with_real_handlers(&place, "reserve#1=duplicate").await;
    run.assert_completed();
    assert_eq!(standing, (97, 3));
    let (run, standing) = with_real_handlers(&place, "confirm#1=fail").await;
    run.assert_compensated();
    assert_eq!(standing, (100, 0));
    let (run, standing) = with_real_handlers(&place, "reserve#*=lost-reply").await;
    run.assert_compensated();
    assert_eq!(standing, (100, 0), "what nobody heard of is undone: {}", run.timeline);
}

#[tokio::test]
async fn several_runs_side_by_side_do_not_meet() {
    let place = Place::servers().await;
    let seen = Arc::new(Mutex::new(0));
    let other = Place { store: support::fresh_database().await, broker: place.broker.clone(), _folder: None };
    let counted = |kit: Kit| {
        let seen = seen.clone();
        kit.on("bank.charge", move |_, _| *seen.lock().expect("nobody panics") += 1)
    };
    let (one, two) = tokio::join!(counted(place.kit(SELL)).run(), counted(other.kit(SELL)).run());
    one.assert_completed();
    two.assert_completed();
    assert_eq!(*seen.lock().expect("nobody panics"), 2);
}
