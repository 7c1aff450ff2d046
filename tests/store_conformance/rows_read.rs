//! How many rows PostgreSQL reads for what the coordinator asks of it while sagas pile up: its plans may be of a time when
//! there were none.

use amends::id::{CommandId, SagaId};
use amends::saga::Outcome;
use amends::store::{Changes, Loaded, Locking, OutboxFilter, Page, SagaFilter, Wants};
use rstest::rstest;

use crate::make::{command, new, next, saga, settled, starts, these, updates};
use crate::postgres::{connect, sessions};
use crate::rig::Kind::Postgres;
use crate::rig::{Rig, eventually, on};

/// Closes the store and gives how many rows of sagas and commands were read. Its sessions tell that when they end.
async fn rows_read(rig: &Rig) -> i64 {
    rig.store.close().await;
    let mut watcher = connect(rig).await;
    eventually("all sessions have ended", async || (sessions(&mut watcher, "true").await == 0).then_some(())).await;
    sqlx::query_scalar(
        "select (select sum(seq_tup_read) from pg_stat_user_tables where relname in ('saga', 'outbox'))::bigint
             + (select sum(idx_tup_read) from pg_stat_user_indexes where relname in ('saga', 'outbox'))::bigint",
    )
    .fetch_one(&mut watcher)
    .await
    .expect("a sum")
}

#[rstest]
#[case(Locking::Trusts)]
#[case(Locking::Checks)]
#[case(Locking::Waits)]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_commit_reads_does_not_grow_with_the_sagas_under_way(#[case] locking: Locking) {
    const UNDER_WAY: usize = 2_000;
    const COMMITS: u32 = 40;
    on(Postgres, async |rig| {
        let one = saga(None);
        let write = async |changes: Changes| {
            let wants = Wants { locking, ..Wants::default() };
            rig.store.commit(wants, Box::new(move |_| changes)).await.expect("a commit");
        };
        let advance = async || {
            let wants = Wants { locking, ..these([one.id]) };
            let step = |loaded: &Loaded| {
                let update = next(&loaded.sagas[0]);
                let (done, decided) = (update.from_revision, update.saga.revision);
                let settled = vec![settled(&update.saga, done, Outcome::Success, Some("1"))];
                let commands = vec![command(&update.saga, decided)];
                Changes { commands, settled, ..updates(vec![update]) }
            };
            rig.decide(wants, step).await.expect("a commit");
        };
        // The server plans now, of tables that are all but empty, and keeps to it.
        write(starts(vec![new(one.clone())])).await;
        for _ in 0..10 {
            advance().await;
        }
        write(starts((0..UNDER_WAY).map(|_| new(saga(None))).collect())).await;
        for _ in 0..COMMITS {
            advance().await;
        }
        let read = rows_read(&rig).await;
        let bound = UNDER_WAY as i64 + i64::from(COMMITS) * 60;
        // Where nothing is read, each update finds its row.
        assert!(read >= i64::from(COMMITS) && read < bound, "{read} rows were read, of at most {bound}");
    })
    .await;
}

/// The commands that wait are read as the keeper of a participant's gate reads them, the sagas as after a start.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_page_reads_does_not_grow_with_the_sagas_under_way() {
    const UNDER_WAY: usize = 2_000;
    const PAGE: u32 = 50;
    on(Postgres, async |rig| {
        let states = ["RUNNING", "COMPENSATING", "STUCK"].map(str::to_owned).to_vec();
        let live = SagaFilter { states, ..SagaFilter::default() };
        let pages = async || {
            let (mut commands, mut after): (Vec<CommandId>, _) = (Vec::new(), None);
            loop {
                let participant = Some("orders".to_owned());
                let filter = OutboxFilter { pending: Some(true), participant, saga: None };
                let page = rig.store.outbox(&filter, &Page { after, limit: PAGE }).await.expect("a page");
                commands.extend(page.iter().map(|entry| entry.id));
                after = page.last().map(|entry| entry.id);
                if after.is_none() {
                    break;
                }
            }
            let (mut sagas, mut after): (Vec<SagaId>, _) = (Vec::new(), None);
            loop {
                let page = rig.store.sagas(&live, &Page { after, limit: PAGE }).await.expect("a page");
                sagas.extend(page.iter().map(|summary| summary.saga.id));
                after = page.last().map(|summary| summary.saga.id);
                if after.is_none() {
                    break (commands.len(), sagas.len());
                }
            }
        };
        let write = async |changes: Changes| {
            rig.store.commit(Wants::default(), Box::new(move |_| changes)).await.expect("a commit");
        };
        // The server plans now, of tables that are all but empty, and keeps to it.
        write(starts(vec![new(saga(None))])).await;
        for _ in 0..10 {
            assert_eq!(pages().await, (1, 1));
        }
        write(starts((1..UNDER_WAY).map(|_| new(saga(None))).collect())).await;
        assert_eq!(pages().await, (UNDER_WAY, UNDER_WAY));
        let read = rows_read(&rig).await;
        // Of sagas and commands each one, for each row that is given.
        let bound = 6 * UNDER_WAY as i64;
        assert!(read >= 2 * UNDER_WAY as i64 && read < bound, "{read} rows were read, of at most {bound}");
    })
    .await;
}
