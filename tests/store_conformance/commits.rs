//! Changing sagas: whole or not at all, nothing lost, terminal states final.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amends::id::{SagaId, Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{Direction, Outcome, Problem, Saga, SagaState};
use amends::store::{
    Changes, Loaded, Locking, NewCommand, NewSaga, Page, SagaUpdate, SettledCommand, Started, StoreError, Wants,
};
use rstest::rstest;

use crate::make::{
    audited, bare, command, completed, later, new, next, pending, saga, settled, starts, stuck, these, told, updates,
    verified,
};
use crate::rig::Kind::{self, Memory, Postgres, Sealed, Sqlite};
use crate::rig::{Rig, eventually, on, side_by_side};

const ALL: Page<u64> = Page { after: None, limit: 100 };

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_update_writes_all_that_changes(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (now, first) = (rig.now().await, saga(Some("k")));
        rig.write(starts(vec![new(first.clone())])).await.expect("a commit");

        let changed = Saga {
            state: stuck(now),
            paused: true,
            revision: 4,
            next_seq: Seq(9),
            steps: vec![pending(1, 3, now), verified(2)],
            deadline: Some(later(now)),
            cause: Some(Problem { detail: Some("d".to_owned()), ..Problem::new("card-declined", "no money") }),
            output: Some(Payload::trusted(r#"{"a": [1, null]}"#)),
            updated_at: later(now),
            ..first.clone()
        };
        rig.write(updates(vec![SagaUpdate { saga: changed.clone(), from_revision: 1 }])).await.expect("a commit");
        assert_eq!(rig.saga(first.id).await.saga, changed);
        assert_eq!(rig.load(these([first.id])).await.sagas, std::slice::from_ref(&changed));

        // And back again: what was set can be unset.
        let back = Saga { revision: 5, ..first.clone() };
        rig.write(updates(vec![SagaUpdate { saga: back.clone(), from_revision: 4 }])).await.expect("a commit");
        assert_eq!(rig.saga(first.id).await.saga, back);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_size_is_written_whole_or_not_at_all(
    #[values(Memory, Sqlite, Postgres)] kind: Kind,
    #[values(1, 5, 64, 600)] size: usize,
) {
    on(kind, async |rig| {
        rig.write(starts(vec![new(saga(Some("k")))])).await.expect("a commit");
        let sagas: Vec<Saga> = (0..size).map(|_| saga(None)).collect();
        // Among them one whose key is taken.
        let mut all: Vec<NewSaga> = sagas.iter().cloned().map(new).collect();
        all.insert(size / 2, new(saga(Some("k"))));
        let committed = rig.write(starts(all)).await.expect("a commit");
        let taken = committed.starts.iter().position(|started| *started != Started::New);
        assert_eq!((committed.starts.len(), taken), (size + 1, Some(size / 2)));

        // Every other one ends, and the others stay in their state.
        let turned = |loaded: &Loaded| {
            let of = |(n, saga): (usize, &Saga)| if n % 2 == 0 { completed(saga) } else { next(saga) };
            let settle = |saga: &Saga| settled(saga, 1, Outcome::Success, Some("{}"));
            Changes {
                settled: loaded.sagas.iter().map(settle).collect(),
                commands: loaded.sagas.iter().map(|saga| command(saga, 2)).collect(),
                ..updates(loaded.sagas.iter().enumerate().map(of).collect())
            }
        };
        rig.decide(these(sagas.iter().map(|saga| saga.id)), turned).await.expect("a commit");
        let of_ids: BTreeSet<SagaId> = sagas.iter().map(|saga| saga.id).collect();
        for (n, id) in of_ids.iter().enumerate() {
            let record = rig.saga(*id).await;
            let ended = record.saga.state == SagaState::Completed;
            assert_eq!((record.saga.revision, ended), (2, n % 2 == 0));
            let verified: Vec<bool> = record.commands.iter().map(|entry| entry.verified.is_some()).collect();
            assert_eq!(verified, [true, false]);
        }

        // One of those that go on is not as it was read.
        let live: Vec<SagaId> = of_ids.into_iter().skip(1).step_by(2).collect();
        let stale = |loaded: &Loaded| {
            let mut all: Vec<SagaUpdate> = loaded.sagas.iter().map(next).collect();
            all.iter_mut().last().expect("one").from_revision += 5;
            all.iter_mut().last().expect("one").saga.revision += 5;
            updates(all)
        };
        if !live.is_empty() {
            let outcome = rig.decide(these(live.clone()), stale).await;
            assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
        }
        for id in live {
            assert_eq!(rig.saga(id).await.saga.revision, 2);
        }
    })
    .await;
}

/// One thing of each sort that is right, around whatever a test adds that is wrong.
struct Batch {
    old: Saga,
    fresh: Saga,
    changes: Changes,
}

async fn batch(rig: &Rig) -> Batch {
    let (old, fresh) = (saga(Some("old")), saga(Some("fresh")));
    rig.write(starts(vec![new(old.clone())])).await.expect("a commit");
    let changes = Changes {
        starts: vec![NewSaga { history: vec![told(&fresh, 1)], ..new(fresh.clone()) }],
        updates: vec![next(&old)],
        commands: vec![command(&old, 2)],
        settled: vec![settled(&old, 1, Outcome::Success, Some("1"))],
        history: vec![told(&old, 2)],
        audits: vec![audited(Some(old.id), "because")],
        ..Changes::default()
    };
    Batch { old, fresh, changes }
}

async fn assert_nothing_written(rig: &Rig, old: &Saga, fresh: &Saga) {
    assert!(rig.store.saga(fresh.id).await.expect("a read").is_none(), "no start");
    assert_eq!(rig.store.saga_by_key(&fresh.definition.name, "fresh").await.expect("a read"), None);
    let record = rig.saga(old.id).await;
    assert_eq!(record.saga, *old, "no update");
    assert_eq!(record.commands.len(), 1, "no command");
    assert_eq!(record.commands[0].verified, None, "none settled");
    assert!(rig.store.history(old.id).await.expect("history").is_empty(), "no history");
    assert!(rig.store.audit(None, &ALL).await.expect("audit").is_empty(), "no audit");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_good_batch_is_written_whole(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let Batch { old, fresh, changes } = batch(&rig).await;
        rig.write(changes).await.expect("a commit");

        assert_eq!(rig.saga(fresh.id).await.commands.len(), 1);
        let record = rig.saga(old.id).await;
        assert_eq!((record.saga.revision, record.commands.len()), (2, 2));
        assert!(record.commands[0].verified.is_some());
        assert_eq!(rig.store.history(old.id).await.expect("history"), [told(&old, 2)]);
        assert_eq!(rig.store.history(fresh.id).await.expect("history"), [told(&fresh, 1)]);
        assert_eq!(rig.store.audit(None, &ALL).await.expect("audit").len(), 1);
    })
    .await;
}

/// One wrong thing, and whether trying again could help.
type Spoil = fn(&mut Changes, &Saga);

#[rstest]
#[case::a_stale_update(|changes: &mut Changes, old: &Saga| changes.updates[0].from_revision = old.revision + 1, true)]
#[case::a_revision_that_does_not_rise(|changes: &mut Changes, _: &Saga| changes.updates[0].saga.revision = 1, true)]
#[case::an_update_of_nothing(|changes: &mut Changes, _: &Saga| changes.updates.push(next(&saga(None))), true)]
#[case::two_updates_of_one_saga(|changes: &mut Changes, old: &Saga| changes.updates.push(next(old)), true)]
#[case::a_settled_command_that_is_not_there(
    |changes: &mut Changes, old: &Saga| changes.settled.push(settled(old, 7, Outcome::Success, None)), true
)]
#[case::a_command_twice(|changes: &mut Changes, old: &Saga| changes.commands.push(command(old, 2)), false)]
#[case::a_command_that_is_there(|changes: &mut Changes, old: &Saga| changes.commands.push(command(old, 1)), false)]
#[case::a_revision_told_twice(|changes: &mut Changes, old: &Saga| changes.history.push(told(old, 2)), false)]
#[case::an_end_without_terminal_state(
    |changes: &mut Changes, old: &Saga| changes.updates[0].saga.ended_at = Some(old.updated_at), false
)]
#[case::a_terminal_state_without_end(
    |changes: &mut Changes, _: &Saga| changes.updates[0].saga.state = SagaState::Completed, false
)]
#[case::a_compensation_of_nothing(
    |changes: &mut Changes, _: &Saga| changes.commands[0].direction = Direction::Compensation, false
)]
#[case::an_output_of_a_failure(
    |changes: &mut Changes, old: &Saga| changes.settled[0] = settled(old, 1, Outcome::Failure, Some("1")), false
)]
#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_change_and_nothing_is_written(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
    #[case] spoil: Spoil,
    #[case] is_conflict: bool,
) {
    on(kind, async |rig| {
        let Batch { old, fresh, mut changes } = batch(&rig).await;
        spoil(&mut changes, &old);

        let error = rig.write(changes).await.expect_err("it is refused");

        assert_eq!(matches!(error, StoreError::Conflict(_)), is_conflict, "{error:?}");
        assert_eq!(matches!(error, StoreError::Refused(_)), !is_conflict, "{error:?}");
        assert_nothing_written(&rig, &old, &fresh).await;
        rig.write(updates(vec![next(&old)])).await.expect("the store goes on");
    })
    .await;
}

#[rstest]
#[case(SagaState::Completed)]
#[case(SagaState::Compensated)]
#[case(SagaState::Abandoned)]
#[tokio::test(flavor = "multi_thread")]
async fn terminal_states_are_final(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind, #[case] state: SagaState) {
    on(kind, async |rig| {
        let first = saga(None);
        rig.write(starts(vec![bare(first.clone())])).await.expect("a commit");
        let mut end = completed(&first);
        end.saga.state = state;
        rig.write(updates(vec![end.clone()])).await.expect("a commit");

        let mut revived = next(&end.saga);
        revived.saga.state = SagaState::Running;
        revived.saga.ended_at = None;
        for update in [revived, next(&end.saga)] {
            let refused = rig.write(updates(vec![update])).await;
            assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
        }
        assert_eq!(rig.saga(first.id).await.saga, end.saga);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_concurrent_increments_lose_none(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let first = saga(None);
        let id = first.id;
        rig.write(starts(vec![bare(first)])).await.expect("a commit");

        side_by_side((0..50).map(|_| {
            let rig = rig.clone();
            async move {
                let increment = |loaded: &amends::store::Loaded| updates(loaded.sagas.iter().map(next).collect());
                rig.decide(these([id]), increment).await.expect("a locked saga has not moved")
            }
        }))
        .await;

        assert_eq!(rig.saga(id).await.saga.revision, 51);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_updates_made_without_the_lock_one_wins(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let first = saga(None);
        rig.write(starts(vec![bare(first.clone())])).await.expect("a commit");

        let outcomes = side_by_side((0..10).map(|_| {
            let (rig, update) = (rig.clone(), next(&first));
            async move { rig.write(updates(vec![update])).await }
        }))
        .await;

        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(
            outcomes.iter().all(|outcome| matches!(outcome, Ok(_) | Err(StoreError::Conflict(_)))),
            "the others lost: {outcomes:?}"
        );
        assert_eq!(rig.saga(first.id).await.saga.revision, 2);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_that_share_sagas_in_other_orders_do_not_lock_up(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let all: Vec<Saga> = (0..20).map(|_| saga(None)).collect();
        let ids: Vec<_> = all.iter().map(|saga| saga.id).collect();
        rig.write(starts(all.into_iter().map(bare).collect())).await.expect("a commit");

        side_by_side((0..24).map(|n| {
            let (rig, mut wanted) = (rig.clone(), ids.clone());
            wanted.rotate_left(n * 3 % 20);
            if n % 2 == 0 {
                wanted.reverse();
            }
            async move {
                // Written in the order wanted, too.
                let order = wanted.clone();
                rig.decide(these(wanted), move |loaded| {
                    let found = |id| loaded.sagas.iter().find(|saga| saga.id == id).map(next);
                    updates(order.into_iter().filter_map(found).collect())
                })
                .await
                .expect("a commit")
            }
        }))
        .await;

        let loaded = rig.load(these(ids)).await;
        assert!(loaded.sagas.iter().all(|saga| saga.revision == 25));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_settled_command_reads_back_and_can_be_corrected(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let first = saga(None);
        rig.write(starts(vec![new(first.clone())])).await.expect("a commit");
        let unknown = settled(&first, 1, Outcome::Unknown, None);
        rig.write(Changes { settled: vec![unknown.clone()], ..Changes::default() }).await.expect("a commit");

        let verified = rig.saga(first.id).await.commands[0].verified.clone().expect("it is settled");
        assert_eq!((verified.outcome, verified.attempt, verified.revision), (Outcome::Unknown, 1, 1));
        assert_eq!((&verified.problem, &verified.output), (&unknown.settled.problem, &None));
        assert_eq!(verified.at, unknown.at);

        let late = settled(&Saga { revision: 5, ..first.clone() }, 1, Outcome::Success, Some(r#"{"a" : 1}"#));
        rig.write(Changes { settled: vec![late], ..Changes::default() }).await.expect("a commit");

        let verified = rig.saga(first.id).await.commands[0].verified.clone().expect("it is settled");
        assert_eq!((verified.outcome, verified.revision, verified.problem), (Outcome::Success, 5, None));
        assert_eq!(verified.output.expect("an output").text(), r#"{"a" : 1}"#);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_command_decided_and_settled_twice_in_a_batch_is_as_it_was_last(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let first = saga(None);
        rig.write(starts(vec![bare(first.clone())])).await.expect("a commit");
        let changes = Changes {
            commands: vec![command(&first, 1), command(&first, 2)],
            settled: vec![
                settled(&first, 1, Outcome::Unknown, None),
                settled(&first, 2, Outcome::Failure, None),
                settled(&first, 1, Outcome::Success, Some("7")),
            ],
            ..Changes::default()
        };
        rig.write(changes).await.expect("a commit");

        let outcomes: Vec<_> =
            rig.saga(first.id).await.commands.iter().map(|entry| entry.verified.clone().map(|it| it.outcome)).collect();
        assert_eq!(outcomes, [Some(Outcome::Success), Some(Outcome::Failure)]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn outputs_come_with_the_sagas_that_read_them_the_latest_of_each_step(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let reader = Saga { reads_outputs: true, ..saga(None) };
        let other = saga(None);
        let of = |saga: &Saga| -> (Vec<NewCommand>, Vec<SettledCommand>) {
            let again = NewCommand { step_index: 0, ..command(saga, 3) };
            let undo = NewCommand {
                step_index: 1,
                direction: Direction::Compensation,
                compensates: Some(1),
                ..command(saga, 4)
            };
            let settled = vec![
                settled(saga, 1, Outcome::Success, Some(r#""old""#)),
                settled(saga, 2, Outcome::Failure, None),
                settled(saga, 3, Outcome::Success, Some(r#""new""#)),
                settled(saga, 4, Outcome::Success, Some(r#""undone""#)),
            ];
            (vec![command(saga, 1), command(saga, 2), again, undo], settled)
        };
        let ((mut commands, mut settled), (more, also)) = (of(&reader), of(&other));
        commands.extend(more);
        settled.extend(also);
        let starts = vec![bare(reader.clone()), bare(other.clone())];
        rig.write(Changes { starts, commands, settled, ..Changes::default() }).await.expect("a commit");

        let outputs = BTreeMap::from([(StepIndex(0), Payload::trusted(r#""new""#))]);
        let loaded = rig.load(these([reader.id, other.id])).await;
        assert_eq!(loaded.sagas[0].outputs, outputs);
        assert_eq!(loaded.sagas[1].outputs, BTreeMap::new(), "its definition reads none");
        assert_eq!(rig.saga(reader.id).await.saga.outputs, outputs);
        assert_eq!(rig.saga(other.id).await.saga.outputs, outputs, "a record has them all the same");

        // What was loaded is not stored with the saga.
        let mut update = next(&loaded.sagas[0]);
        update.saga.outputs = BTreeMap::from([(StepIndex(1), Payload::trusted("0"))]);
        rig.write(updates(vec![update])).await.expect("a commit");
        assert_eq!(rig.saga(reader.id).await.saga.outputs, outputs);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_is_loaded_as_it_is_stored_however_often_it_was_written_here(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
    #[values(Locking::Waits, Locking::Checks, Locking::Trusts)] locking: Locking,
) {
    on(kind, async |rig| {
        let now = rig.now().await;
        let first = Saga { reads_outputs: true, deadline: Some(later(now)), state: stuck(now), ..saga(Some("k")) };
        rig.write(starts(vec![new(first.clone())])).await.expect("a commit");
        for seq in 1..=4 {
            let stored = rig.saga(first.id).await.saga;
            let step = move |loaded: &Loaded| {
                let mut update = next(&loaded.sagas[0]);
                let (output, saga) = (seq.to_string(), &mut update.saga);
                saga.paused = !saga.paused;
                saga.updated_at = later(saga.updated_at);
                saga.steps = vec![pending(seq, 1, now), verified(2)];
                let index = StepIndex(u16::try_from(seq - 1).expect("few steps"));
                saga.outputs.insert(index, Payload::trusted(output.clone()));
                let settled = vec![settled(saga, seq, Outcome::Success, Some(&output))];
                Changes { commands: vec![command(saga, seq + 1)], settled, ..updates(vec![update]) }
            };
            let wants = Wants { locking, ..these([first.id]) };
            let (loaded, _) = rig.decide(wants, step).await.expect("a commit");
            assert_eq!(loaded.sagas, [stored], "after {seq}");
        }
        // What ends is not taken for what it was.
        rig.write(updates(vec![completed(&rig.saga(first.id).await.saga)])).await.expect("a commit");
        assert_eq!(rig.load(these([first.id])).await.sagas, [rig.saga(first.id).await.saga]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn wanted_sagas_come_once_each_by_id_without_the_unknown(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let all = [saga(None), saga(None), saga(None)];
        let ids = [all[0].id, all[1].id, all[2].id];
        rig.write(starts(all.into_iter().map(bare).collect())).await.expect("a commit");

        let unknown = amends::id::SagaId::fresh();
        let before = rig.now().await;
        let loaded = rig.load(these([ids[2], unknown, ids[0], ids[2], ids[1]])).await;
        assert_eq!(loaded.sagas.iter().map(|saga| saga.id).collect::<Vec<_>>(), ids);
        assert!(loaded.now >= before && loaded.now <= rig.now().await);
        assert!(rig.load(Wants::default()).await.sagas.is_empty());
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn history_is_told_in_order(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (first, other) = (saga(None), saga(None));
        rig.write(starts(vec![bare(first.clone()), bare(other.clone())])).await.expect("a commit");
        let history = vec![told(&first, 12), told(&other, 3), told(&first, 2)];
        rig.write(Changes { history, ..Changes::default() }).await.expect("a commit");
        rig.write(Changes { history: vec![told(&first, 7)], ..Changes::default() }).await.expect("a commit");

        let told = rig.store.history(first.id).await.expect("history");
        assert_eq!(told.iter().map(|record| record.revision).collect::<Vec<_>>(), [2, 7, 12]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn audit_rows_come_newest_first_in_pages(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (first, other) = (saga(None), saga(None));
        rig.write(starts(vec![bare(first.clone()), bare(other.clone())])).await.expect("a commit");
        let audits = vec![audited(Some(first.id), "r-1"), audited(None, "r-2"), audited(Some(other.id), "r-3")];
        rig.write(Changes { audits: audits.clone(), ..Changes::default() }).await.expect("a commit");
        rig.write(Changes { audits: vec![audited(Some(first.id), "r-4")], ..Changes::default() })
            .await
            .expect("a commit");

        let reasons = |records: &[amends::store::AuditRecord]| -> Vec<String> {
            records.iter().map(|record| record.reason.clone()).collect()
        };
        let page = rig.store.audit(None, &Page { after: None, limit: 3 }).await.expect("audit");
        assert_eq!(reasons(&page), ["r-4", "r-3", "r-2"]);
        let rest = Page { after: Some(page[2].id), limit: 3 };
        assert_eq!(reasons(&rig.store.audit(None, &rest).await.expect("audit")), ["r-1"]);
        let mine = rig.store.audit(Some(first.id), &ALL).await.expect("audit");
        assert_eq!(reasons(&mine), ["r-4", "r-1"]);
        assert_eq!(mine[1], amends::store::AuditRecord { id: mine[1].id, ..audits[0].clone() });
    })
    .await;
}

/// Gives up after none, one, two … steps of the work, so that it is dropped at each of its waits.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_nobody_waits_for_is_whole_or_nothing(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        for round in 0..40_u64 {
            let saga = saga(None);
            let start = NewSaga { history: vec![told(&saga, 1)], ..new(saga.clone()) };
            let commit = rig.write(starts(vec![start]));
            let dropped = tokio::time::timeout(Duration::from_micros(round * 100), commit).await.is_err();

            let id = saga.id;
            let found = if dropped {
                // What was begun ends before this, whose connection or lock comes after it.
                rig.load(these([id])).await.sagas.pop()
            } else {
                Some(rig.saga(id).await.saga)
            };
            if found.is_some() {
                assert_eq!(rig.saga(id).await.commands.len(), 1, "round {round}");
                assert_eq!(rig.store.history(id).await.expect("history").len(), 1, "round {round}");
            }
        }
        let old = saga(None);
        rig.write(starts(vec![bare(old.clone())])).await.expect("the store goes on");
        eventually("the saga is read", async || rig.store.saga(old.id).await.expect("a read")).await;
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_panics_writes_nothing(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let first = saga(None);
        rig.write(starts(vec![bare(first.clone())])).await.expect("a commit");
        let failed = rig.store.commit(these([first.id]), Box::new(|_| panic!("a planted fault"))).await;
        assert!(matches!(failed, Err(StoreError::Refused(_))), "{failed:?}");
        // Its lock is gone, and the store goes on.
        rig.decide(these([first.id]), |loaded| updates(loaded.sagas.iter().map(next).collect()))
            .await
            .expect("a commit");
        assert_eq!(rig.saga(first.id).await.saga.revision, 2);
    })
    .await;
}
