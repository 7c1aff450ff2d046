//! Starting sagas: one per key.

use std::collections::BTreeSet;

use amends::payload::Payload;
use amends::saga::Saga;
use amends::store::{Changes, NewSaga, Started, StoreError};
use rstest::rstest;

use crate::make::{DEFINITION, bare, command, new, saga, starts, told};
use crate::rig::Kind::{self, Memory, Postgres, Sealed, Sqlite};
use crate::rig::{on, side_by_side};

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_started_saga_reads_back_as_it_was_written(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (now, mut saga) = (rig.now().await, saga(Some("k-1")));
        saga.deadline = Some(crate::make::later(now));
        saga.steps[0] = crate::make::pending(1, 2, now);
        saga.next_seq = amends::id::Seq(2);
        let start = NewSaga { history: vec![told(&saga, 1)], ..new(saga.clone()) };
        let command = start.commands[0].clone();

        assert_eq!(rig.write(starts(vec![start])).await.expect("a commit").starts, [Started::New]);

        let record = rig.saga(saga.id).await;
        assert_eq!(record.saga, saga);
        let [entry] = &record.commands[..] else { panic!("one command: {:?}", record.commands) };
        assert_eq!(entry.id, command.id);
        assert_eq!(entry.definition, saga.definition);
        assert_eq!((&entry.step, entry.step_index), (&command.step, command.step_index));
        assert_eq!((entry.direction, entry.generation, entry.compensates), (command.direction, 1, None));
        assert_eq!((&entry.participant, &entry.action), (&command.participant, &command.action));
        assert_eq!(entry.body.text(), command.body.text());
        assert_eq!((entry.decided_at, entry.decided_revision), (command.at, 1));
        assert_eq!(entry.verified, None);
        let flight = entry.in_flight.expect("it is under way");
        assert_eq!((flight.attempt, flight.due), (2, now));
        assert_eq!(rig.store.history(saga.id).await.expect("history"), [told(&saga, 1)]);
        assert_eq!(rig.store.saga_by_key(DEFINITION, "k-1").await.expect("a read"), Some(saga.id));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_with_a_key_is_told_whose_it_is_and_leaves_nothing(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let first = new(saga(Some("k")));
        let (by, input_hash) = (first.saga.id, first.input_hash);
        rig.write(starts(vec![first])).await.expect("a commit");

        let second = Saga { input: Payload::trusted(r#"{"other":true}"#), ..saga(Some("k")) };
        let start = NewSaga { history: vec![told(&second, 1)], ..new(second.clone()) };
        let committed = rig.write(starts(vec![start])).await.expect("a commit");

        match committed.starts[..] {
            // What is stored is keyed there: it differs from that of this input, and nobody learns more.
            [Started::Taken { by: found, input_hash: other }] if kind == Sealed => {
                assert!(found == by && other != second.input.canonical_hash());
            }
            ref starts => assert_eq!(starts, [Started::Taken { by, input_hash }]),
        }
        assert!(rig.store.saga(second.id).await.expect("a read").is_none());
        assert!(rig.store.history(second.id).await.expect("history").is_empty());
        let ids = [command(&second, 1).id];
        assert!(rig.store.commands(&ids).await.expect("commands").is_empty());
        assert_eq!(rig.store.saga_by_key(DEFINITION, "k").await.expect("a read"), Some(by));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_with_one_key_in_a_batch_the_first_wins(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        // Ids fall, so that an order by id would let the second win.
        let (mut first, mut second) = (new(saga(Some("k"))), saga(Some("k")));
        std::mem::swap(&mut first.saga.id, &mut second.id);
        first.commands = vec![command(&first.saga, 1)];
        let (by, input_hash) = (first.saga.id, first.input_hash);

        let committed = rig.write(starts(vec![first, new(second.clone())])).await.expect("a commit");

        assert_eq!(committed.starts, [Started::New, Started::Taken { by, input_hash }]);
        assert!(rig.store.saga(second.id).await.expect("a read").is_none());
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn outcomes_come_in_the_order_of_the_starts(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let old: Vec<NewSaga> = ["c", "a"].into_iter().map(|key| new(saga(Some(key)))).collect();
        let taken: Vec<Started> =
            old.iter().map(|start| Started::Taken { by: start.saga.id, input_hash: start.input_hash }).collect();
        rig.write(starts(old)).await.expect("a commit");

        let keys = [Some("d"), Some("c"), None, Some("a"), Some("b"), None];
        let batch = keys.into_iter().map(|key| new(saga(key))).collect();
        let committed = rig.write(starts(batch)).await.expect("a commit");

        let [c, a] = &taken[..] else { panic!("two") };
        let new = Started::New;
        assert_eq!(committed.starts, [new.clone(), c.clone(), new.clone(), a.clone(), new.clone(), new]);
        assert_eq!(rig.store.counts().await.expect("counts")[0].count, 6);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_concurrent_starts_of_one_key_make_one_saga(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let outcomes = side_by_side((0..20).map(|_| {
            let (rig, start) = (rig.clone(), new(saga(Some("k"))));
            async move { (start.saga.id, rig.write(starts(vec![start])).await.expect("a commit").starts) }
        }))
        .await;

        let new: Vec<_> = outcomes.iter().filter(|(_, outcome)| outcome[..] == [Started::New]).collect();
        let [(winner, _)] = &new[..] else { panic!("{} are new", new.len()) };
        for (id, outcome) in outcomes.iter().filter(|(id, _)| id != winner) {
            assert!(matches!(outcome[..], [Started::Taken { by, .. }] if by == *winner), "{id}: {outcome:?}");
        }
        assert_eq!(rig.store.counts().await.expect("counts")[0].count, 1);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_with_the_same_keys_in_other_orders_do_not_lock_up(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let outcomes = side_by_side((0..12).map(|n| {
            let mut keys: Vec<String> = (0..30).map(|key| format!("k-{key}")).collect();
            keys.rotate_left(n * 7 % 30);
            if n % 2 == 0 {
                keys.reverse();
            }
            let (rig, batch) = (rig.clone(), keys.iter().map(|key| new(saga(Some(key)))).collect());
            async move { rig.write(starts(batch)).await.expect("a commit").starts }
        }))
        .await;

        let new = outcomes.iter().flatten().filter(|outcome| **outcome == Started::New).count();
        assert_eq!(new, 30);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_taken_only_within_its_definition_and_no_key_is_never_taken(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let (mut other, mut newer) = (saga(Some("k")), saga(Some("k")));
        other.definition.name = "ship-order".to_owned();
        newer.definition.version = 2;
        let batch = [saga(Some("k")), other.clone(), saga(None), saga(None), newer];
        let first = batch[0].id;
        let committed = rig.write(starts(batch.into_iter().map(new).collect())).await.expect("a commit");

        let outcomes: Vec<bool> = committed.starts.iter().map(|outcome| *outcome == Started::New).collect();
        assert_eq!(outcomes, [true, true, true, true, false], "another version is the same definition");
        assert_eq!(rig.store.saga_by_key(DEFINITION, "k").await.expect("a read"), Some(first));
        assert_eq!(rig.store.saga_by_key("ship-order", "k").await.expect("a read"), Some(other.id));
        assert_eq!(rig.store.saga_by_key("ship-order", "K").await.expect("a read"), None);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_there_is_refused_with_the_whole_batch(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (first, beside) = (saga(Some("k")), saga(Some("beside")));
        rig.write(starts(vec![new(first.clone())])).await.expect("a commit");

        let again = Saga { key: Some("another".to_owned()), ..first.clone() };
        let refused = rig.write(starts(vec![new(beside.clone()), bare(again)])).await;

        assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
        assert!(rig.store.saga(beside.id).await.expect("a read").is_none());
        assert_eq!(rig.saga(first.id).await.saga.key.as_deref(), Some("k"));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_hundreds_is_written_whole(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let batch: Vec<NewSaga> = (0..500).map(|n| new(saga(Some(&format!("k-{n}"))))).collect();
        let ids: BTreeSet<_> = batch.iter().map(|start| start.saga.id).collect();
        rig.write(starts(batch)).await.expect("a commit");

        let loaded = rig.load(crate::make::these(ids.iter().copied())).await;
        assert_eq!(loaded.sagas.iter().map(|saga| saga.id).collect::<Vec<_>>(), ids.into_iter().collect::<Vec<_>>());
        assert_eq!(rig.store.pending(None, 1_000).await.expect("pending").len(), 500);
        assert_eq!(rig.write(Changes::default()).await.expect("a commit of nothing").starts, []);
    })
    .await;
}
