//! Due times: found, handed out, and never to two at once.

use std::collections::BTreeSet;
use std::time::Duration;

use amends::id::{SagaId, Seq};
use amends::saga::{Saga, StepState};
use amends::store::{SagaUpdate, Wants};
use rstest::rstest;

use crate::make::{bare, before, completed, due_at, later, new, next, pending, saga, starts, stuck, updates};
use crate::rig::Kind::{self, Memory, Postgres, Sealed, Sqlite};
use crate::rig::{on, side_by_side};

fn due(limit: u32) -> Wants {
    Wants { due: limit, ..Wants::default() }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_earliest_due_come_first_and_the_rest_stays(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let now = rig.now().await;
        let due_since = |seconds| due_at(before(now, Duration::from_secs(seconds)));
        let (recent, old, oldest) = (due_since(1), due_since(60), due_since(3_600));
        let (future, idle) = (due_at(later(now)), saga(None));
        let mut wanted = [oldest.id, old.id];
        wanted.sort_unstable();
        let all = [recent, old, oldest, future, idle];
        rig.write(starts(all.into_iter().map(bare).collect())).await.expect("a commit");

        let loaded = rig.load(due(2)).await;
        assert_eq!(loaded.sagas.iter().map(|saga| saga.id).collect::<Vec<_>>(), wanted);
        assert!(loaded.sagas.iter().all(|saga| saga.due().is_some_and(|due| due <= loaded.now)));
        assert_eq!(rig.load(due(10)).await.sagas.len(), 3, "the future is not due");
        assert_eq!(rig.load(due(0)).await.sagas.len(), 0);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn due_sagas_come_besides_the_wanted_ones(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let now = rig.now().await;
        let due_since = |seconds| due_at(before(now, Duration::from_secs(seconds)));
        let (wanted, other, idle) = (due_since(60), due_since(1), saga(None));
        let mut expected = [wanted.id, other.id, idle.id];
        expected.sort_unstable();
        let (wanted_id, idle_id) = (wanted.id, idle.id);
        rig.write(starts([wanted, other, idle].into_iter().map(bare).collect())).await.expect("a commit");

        // The wanted one is due too, and earlier: it must not use up the one place.
        let loaded = rig.load(Wants { sagas: vec![idle_id, wanted_id, idle_id], due: 1, ..Wants::default() }).await;
        assert_eq!(loaded.sagas.iter().map(|saga| saga.id).collect::<Vec<_>>(), expected);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn paused_and_terminal_sagas_are_never_due(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let past = before(rig.now().await, Duration::from_secs(5));
        let (paused, ended, stuck_one) = (due_at(past), due_at(past), due_at(past));
        let all = [&paused, &ended, &stuck_one].map(|saga| bare(saga.clone()));
        rig.write(starts(all.into())).await.expect("a commit");
        assert_eq!(rig.load(due(9)).await.sagas.len(), 3, "so far all are due");
        assert_eq!(rig.store.next_due().await.expect("a read"), Some(past));

        let mut pause = next(&paused);
        pause.saga.paused = true;
        let mut stick = next(&stuck_one);
        stick.saga.state = stuck(past);
        stick.saga.steps = vec![StepState::Waiting, StepState::Waiting];
        rig.write(updates(vec![pause.clone(), completed(&ended), stick])).await.expect("a commit");
        assert_eq!(rig.load(due(9)).await.sagas.len(), 0);
        assert_eq!(rig.store.next_due().await.expect("a read"), None);

        let mut resume = next(&pause.saga);
        resume.saga.paused = false;
        rig.write(updates(vec![resume])).await.expect("a commit");
        assert_eq!(rig.store.next_due().await.expect("a read"), Some(past));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_next_due_time_is_the_earliest_of_any_saga(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        assert_eq!(rig.store.next_due().await.expect("a read"), None);
        let now = rig.now().await;
        let deadline = Saga { deadline: Some(later(now)), ..saga(None) };
        rig.write(starts(vec![bare(deadline), bare(due_at(later(later(now))))])).await.expect("a commit");
        assert_eq!(rig.store.next_due().await.expect("a read"), Some(later(now)));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_claims_give_no_saga_to_two(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    const SAGAS: usize = 60;
    on(kind, async |rig| {
        let now = rig.now().await;
        let all: Vec<Saga> = (0..SAGAS).map(|_| due_at(before(now, Duration::from_secs(1)))).collect();
        let ids: BTreeSet<SagaId> = all.iter().map(|saga| saga.id).collect();
        rig.write(starts(all.into_iter().map(new).collect())).await.expect("a commit");

        let claimed = side_by_side((0..8).map(|_| {
            let rig = rig.clone();
            async move {
                let mut mine = Vec::new();
                loop {
                    let (loaded, _) = rig
                        .decide(due(5), |loaded| {
                            updates(loaded.sagas.iter().map(|saga| moved_on(saga, loaded.now)).collect())
                        })
                        .await
                        .expect("a claim");
                    mine.extend(loaded.sagas.iter().map(|saga| saga.id));
                    if loaded.sagas.is_empty() {
                        break mine;
                    }
                }
            }
        }))
        .await;

        let claimed: Vec<SagaId> = claimed.into_iter().flatten().collect();
        assert_eq!(claimed.len(), SAGAS, "none twice");
        assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), ids, "none left");
    })
    .await;
}

/// The next attempt, due in an hour.
fn moved_on(saga: &Saga, now: amends::clock::Timestamp) -> SagaUpdate {
    let mut update = next(saga);
    update.saga.steps[0] = pending(1, 2, later(now));
    update.saga.next_seq = Seq(2);
    update
}
