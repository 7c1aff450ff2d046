//! What SQLite decides before it is its turn to write.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use amends::store::{Changes, Committed, Loaded, Locking, Started, StoreError, Wants};
use sqlx::{Connection, SqliteConnection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::make::{bare, command, increment, new, next, saga, starts, these, updates};
use crate::rig::Kind::Sqlite;
use crate::rig::{Rig, on, on_sqlite_by_a_clock};

/// Keeps everybody else from writing until it is dropped.
async fn hold(rig: &Rig) -> SqliteConnection {
    let mut other = SqliteConnection::connect(&rig.url).await.expect("a connection");
    sqlx::raw_sql("begin immediate").execute(&mut other).await.expect("it is free");
    other
}

type Unit = JoinHandle<Result<(Loaded, Committed), StoreError>>;

/// Asks for a unit of work on what was written here last, and waits until it is decided.
async fn decided(rig: &Rig, wants: Wants, decide: impl FnOnce(&Loaded) -> Changes + Send + 'static) -> Unit {
    unit(rig, Wants { locking: Locking::Trusts, ..wants }, decide).await
}

/// Asks for a unit of work that reads, and so is decided when it is its turn; it writes when it is told to go on.
async fn writing(
    rig: &Rig,
    wants: Wants,
    decide: impl FnOnce(&Loaded) -> Changes + Send + 'static,
) -> (Unit, mpsc::Sender<()>) {
    let (go_on, told) = mpsc::channel();
    let decide = move |loaded: &Loaded| {
        told.recv().expect("it is told");
        decide(loaded)
    };
    (unit(rig, Wants { locking: Locking::Checks, ..wants }, decide).await, go_on)
}

async fn unit(rig: &Rig, wants: Wants, decide: impl FnOnce(&Loaded) -> Changes + Send + 'static) -> Unit {
    let (rig, told) = (rig.clone(), Arc::new(Notify::new()));
    let tell = told.clone();
    let decide = move |loaded: &Loaded| {
        tell.notify_one();
        decide(loaded)
    };
    let task = tokio::spawn(async move { rig.decide(wants, decide).await });
    tokio::time::timeout(Duration::from_secs(30), told.notified()).await.expect("it is decided");
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_is_decided_while_the_one_before_it_waits_to_be_written() {
    on(Sqlite, async |rig| {
        let (one, other, third) = (saga(None), saga(None), saga(Some("k")));
        rig.write(starts(vec![bare(one.clone()), bare(other.clone())])).await.expect("a commit");
        let held = hold(&rig).await;
        let first = decided(&rig, these([one.id]), increment).await;
        // Also one that starts a saga, and one that has nothing in common with the others.
        let started = new(third.clone());
        let second =
            decided(&rig, these([other.id]), |loaded| Changes { starts: vec![started], ..increment(loaded) }).await;
        assert!(!first.is_finished() && !second.is_finished());
        held.close().await.expect("it lets go");
        first.await.expect("no panic").expect("a commit");
        second.await.expect("no panic").expect("a commit");
        assert_eq!(rig.saga(one.id).await.saga.revision, 2);
        assert_eq!(rig.saga(other.id).await.saga.revision, 2);
        assert_eq!(rig.saga(third.id).await.commands.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_writes_meanwhile_undoes_the_decision() {
    on(Sqlite, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
        let mut held = hold(&rig).await;
        let unit = decided(&rig, these([one.id]), increment).await;
        // Not the revision, which would be noticed anyway.
        sqlx::raw_sql("update saga set next_seq = 77; commit").execute(&mut held).await.expect("changed");
        let outcome = unit.await.expect("no panic");
        assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
        let again = Wants { locking: Locking::Trusts, ..these([one.id]) };
        let (seen, _) = rig.decide(again, increment).await.expect("it is read now");
        assert_eq!((seen.sagas[0].next_seq.0, seen.sagas[0].revision), (77, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_unit_before_it_fails_a_decision_on_what_was_remembered_does_not_hold() {
    on(Sqlite, async |rig| {
        let (one, other) = (saga(None), saga(None));
        rig.write(starts(vec![bare(one.clone()), bare(other.clone())])).await.expect("a commit");
        let wrong = |loaded: &Loaded| {
            let mut update = next(&loaded.sagas[0]);
            update.from_revision += 1;
            updates(vec![update])
        };
        let (first, go_on) = writing(&rig, these([one.id]), wrong).await;
        let second = decided(&rig, these([other.id]), increment).await;
        let third = decided(&rig, Wants::default(), |_| starts(vec![new(saga(None))])).await;
        go_on.send(()).expect("it waits");
        for (unit, is_refused) in [(first, true), (second, true), (third, false)] {
            let outcome = unit.await.expect("no panic");
            assert_eq!(matches!(outcome, Err(StoreError::Conflict(_))), is_refused, "{outcome:?}");
        }
        assert_eq!(rig.saga(other.id).await.saga.revision, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_starts_that_were_bound_ahead_one_whose_key_is_taken_leaves_nothing() {
    on(Sqlite, async |rig| {
        let (taker, late, free) = (saga(Some("k")), saga(Some("k")), saga(None));
        let start = starts(vec![new(taker.clone())]);
        let (first, go_on) = writing(&rig, Wants::default(), |_| start).await;
        let both = starts(vec![new(late.clone()), new(free.clone())]);
        let second = decided(&rig, Wants::default(), |_| both).await;
        go_on.send(()).expect("it waits");
        first.await.expect("no panic").expect("a commit");
        let (_, committed) = second.await.expect("no panic").expect("a commit");
        assert!(matches!(committed.starts[..], [Started::Taken { by, .. }, Started::New] if by == taker.id));
        assert_eq!(rig.saga(free.id).await.commands.len(), 1);
        assert!(rig.store.saga(late.id).await.expect("a read").is_none());
        assert_eq!(rig.store.commands(&[command(&late, 1).id]).await.expect("a read"), []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_long_before_its_turn_is_refused() {
    on_sqlite_by_a_clock(async |rig, clock| {
        let held = hold(&rig).await;
        let unit = decided(&rig, Wants::default(), |_| starts(vec![new(saga(None))])).await;
        clock.advance(Duration::from_secs(10));
        held.close().await.expect("it lets go");
        let outcome = unit.await.expect("no panic");
        assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
    })
    .await;
}
