//! What a store need not be asked for again, and what becomes of it when another has written meanwhile.

use std::collections::BTreeMap;

use amends::id::{SagaId, StepIndex};
use amends::payload::Payload;
use amends::saga::{Outcome, Saga};
use amends::store::{Changes, Loaded, Locking, NewSaga, Page, StoreError, Wants, open};

use rstest::rstest;

use crate::make::{audited, bare, command, increment, pending, saga, settled, starts, stuck, these, verified};
use crate::postgres::{connect, end_sessions, run};
use crate::rig::Kind::{Postgres, Sqlite};
use crate::rig::{Kind, Rig, eventually, on};

/// Wants a saga as it was written here last.
fn unread(id: SagaId) -> Wants {
    Wants { locking: Locking::Trusts, ..these([id]) }
}

/// A saga that was written here a moment ago, and another process on the same database.
async fn written(rig: &Rig) -> (SagaId, Rig) {
    let one = saga(None);
    rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
    (one.id, Rig { store: open(&rig.url).await.expect("the store opens"), ..rig.clone() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_was_written_here_is_not_read_again() {
    on(Postgres, async |rig| {
        // One that has a bit of everything.
        let since = "2026-11-30T12:00:00.123456Z".parse().expect("a time");
        let outputs = BTreeMap::from([(StepIndex(0), Payload::trusted(r#"{"a":1}"#))]);
        let steps = vec![verified(1), pending(2, 1, since)];
        let state = stuck(since);
        let one = Saga { state, deadline: Some(since), steps, outputs, reads_outputs: true, ..saga(Some("k")) };
        let commands = vec![command(&one, 1), command(&one, 2)];
        let settled = vec![settled(&one, 1, Outcome::Success, Some(r#"{"a":1}"#))];
        rig.write(starts(vec![NewSaga { commands, settled, ..bare(one.clone()) }])).await.expect("a commit");
        // What has outputs from the start on is read once.
        rig.decide(unread(one.id), increment).await.expect("a commit");

        let stored = rig.saga(one.id).await.saga;
        let behind_its_back = "update saga set next_seq = next_seq + 1";
        run(&mut connect(&rig).await, behind_its_back).await.expect("changed");
        let (seen, _) = rig.decide(unread(one.id), increment).await.expect("a commit");
        assert_eq!(seen.sagas, [stored], "it is kept as it was stored");
    })
    .await;
}

#[rstest]
#[case(Postgres)]
#[case(Sqlite)]
#[tokio::test(flavor = "multi_thread")]
async fn what_another_has_changed_meanwhile_is_refused_and_then_read(#[case] kind: Kind) {
    on(kind, async |rig| {
        let (id, second) = written(&rig).await;
        second.decide(these([id]), increment).await.expect("a commit");
        let outcome = rig.decide(unread(id), increment).await;
        assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
        let (seen, _) = rig.decide(unread(id), increment).await.expect("it is read now");
        assert_eq!(seen.sagas[0].revision, 2, "nothing of theirs is lost");
        second.store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saga_that_was_not_read_and_stays_as_it_is_is_checked_too() {
    on(Postgres, async |rig| {
        let (id, second) = written(&rig).await;
        let advise = |_: &Loaded| Changes { audits: vec![audited(None, "by hearsay")], ..Changes::default() };
        let count = async || rig.store.audit(None, &Page { after: None, limit: 100 }).await.expect("the log").len();
        let (seen, _) = rig.decide(unread(id), advise).await.expect("it is as it was");
        assert_eq!((seen.sagas[0].revision, count().await), (1, 1));

        rig.decide(unread(id), increment).await.expect("a commit");
        second.decide(these([id]), increment).await.expect("a commit");
        let outcome = rig.decide(unread(id), advise).await;
        assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
        assert_eq!(count().await, 1, "the whole is refused");
        second.store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_remembered_over_a_new_connection() {
    on(Postgres, async |rig| {
        let (id, second) = written(&rig).await;
        second.store.close().await;
        rig.decide(unread(id), increment).await.expect("a commit");
        let mut other = connect(&rig).await;
        end_sessions(&mut other).await;
        // A server that has lost a commit, and another one under the same revision.
        run(&mut other, "update saga set next_seq = 77").await.expect("changed");
        let seen = eventually("a connection is there again", async || {
            rig.decide(unread(id), increment).await.ok().map(|(seen, _)| seen)
        })
        .await;
        assert_eq!(seen.sagas[0].next_seq.0, 77);
    })
    .await;
}
