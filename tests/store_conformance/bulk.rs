//! Bulk jobs: made whole, seen to by one at a time, each item closed once.

use amends::clock::Clock;
use amends::id::{BulkId, SagaId};
use amends::payload::Payload;
use amends::saga::Saga;
use amends::store::bulk::{Applied, BulkStore, Counts, ItemFilter, ItemOutcome, JobState, NewBulk, NotApplied};
use amends::store::{Changes, Page, StoreError};
use rstest::rstest;

use crate::make::{audited, bare, before, later, saga, starts, stuck};
use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::{Rig, on, side_by_side};

fn job() -> NewBulk {
    NewBulk {
        id: BulkId::fresh(),
        action: "retry".to_owned(),
        step: None,
        filter: Payload::trusted(r#"{"state":["STUCK"]}"#),
        reason: "the carrier is back".to_owned(),
        actor: "anna".to_owned(),
        rate: 50,
        is_bounded: false,
    }
}

fn store(rig: &Rig) -> &dyn BulkStore {
    rig.store.bulk().expect("it keeps jobs")
}

fn first(limit: u32) -> Page<SagaId> {
    Page { after: None, limit }
}

/// A job with so many sagas.
async fn made(rig: &Rig, count: usize) -> (BulkId, Vec<SagaId>) {
    let (job, sagas) = (job(), (0..count).map(|_| SagaId::fresh()).collect::<Vec<_>>());
    store(rig).create(&job, &sagas, &audited(None, "bulk")).await.expect("it is made");
    (job.id, sagas)
}

fn applied(job: BulkId, saga: SagaId) -> Changes {
    let at = Clock::System.now();
    Changes {
        audits: vec![audited(Some(saga), "done")],
        bulk: vec![Applied { job, saga, revision: 7, at }],
        ..Changes::default()
    }
}

fn refused(saga: SagaId) -> NotApplied {
    NotApplied {
        saga,
        outcome: ItemOutcome::Refused,
        code: "ACTION_NOT_ALLOWED".to_owned(),
        detail: "it has ended".to_owned(),
    }
}

#[tokio::test]
async fn memory_keeps_no_jobs() {
    on(Memory, async |rig| assert!(rig.store.bulk().is_none())).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_with_its_sagas_and_its_audit_row(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let (made, mut sagas) = (job(), (0..25).map(|_| SagaId::fresh()).collect::<Vec<_>>());
        store(&rig).create(&made, &sagas, &audited(None, "bulk")).await.expect("it is made");
        sagas.sort();
        let found = store(&rig).job(made.id).await.expect("a read").expect("it is there");
        assert_eq!((&found.of, found.state, found.total), (&made, JobState::Running, 25));
        assert_eq!((found.counts, found.ended_at, found.check), (Counts::default(), None, None));
        let audit = rig.store.audit(None, &Page { after: None, limit: 10 }).await.expect("a read");
        assert_eq!(audit.len(), 1);

        // In pages, in the order of their ids.
        let mut page = first(10);
        let mut seen = Vec::new();
        loop {
            let items = store(&rig).items(made.id, ItemFilter::Open, &page).await.expect("a read");
            let Some(last) = items.last() else { break };
            page.after = Some(last.saga);
            seen.extend(items.iter().map(|item| item.saga));
        }
        assert_eq!(seen, sagas);
        assert_eq!(store(&rig).job(BulkId::fresh()).await.expect("a read"), None);
        // The same once more is refused whole.
        store(&rig).create(&made, &sagas, &audited(None, "bulk")).await.expect_err("the id is taken");
        assert_eq!(rig.store.audit(None, &Page { after: None, limit: 10 }).await.expect("a read").len(), 1);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_newest_first_and_in_pages(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(made(&rig, 1).await.0);
        }
        ids.reverse();
        let list = async |after| {
            let found = store(&rig).jobs(&Page { after, limit: 3 }).await.expect("a read");
            found.iter().map(|job| job.of.id).collect::<Vec<_>>()
        };
        assert_eq!(list(None).await, ids[..3]);
        assert_eq!(list(Some(ids[2])).await, ids[3..]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_closed_once_and_with_what_was_done(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let (id, sagas) = made(&rig, 3).await;
        rig.write(applied(id, sagas[0])).await.expect("a commit");
        let again = rig.write(applied(id, sagas[0])).await;
        // Not as a conflict, which would be tried for ever.
        assert!(matches!(again, Err(StoreError::Refused(_))), "{again:?}");
        let audit = rig.store.audit(Some(sagas[0]), &Page { after: None, limit: 10 }).await.expect("a read");
        assert_eq!(audit.len(), 1, "what came second left nothing behind");

        // What is closed stays as it is, whoever comes later.
        store(&rig).close_items(id, &[refused(sagas[0]), refused(sagas[1])]).await.expect("closed");
        let late = rig.write(applied(id, sagas[1])).await;
        assert!(matches!(late, Err(StoreError::Refused(_))), "{late:?}");
        let items = store(&rig).items(id, ItemFilter::All, &first(10)).await.expect("a read");
        let outcomes: Vec<_> = items.iter().map(|item| item.outcome).collect();
        assert_eq!(outcomes, [Some(ItemOutcome::Applied), Some(ItemOutcome::Refused), None]);
        assert_eq!((items[0].revision, items[1].code.as_deref()), (Some(7), Some("ACTION_NOT_ALLOWED")));
        assert!(items[0].at.is_some() && items[2].at.is_none());
        for (filter, at) in [
            (ItemFilter::Only(ItemOutcome::Applied), 0),
            (ItemFilter::Only(ItemOutcome::Refused), 1),
            (ItemFilter::Open, 2),
        ] {
            let found = store(&rig).items(id, filter, &first(10)).await.expect("a read");
            assert_eq!(found.iter().map(|item| item.saga).collect::<Vec<_>>(), [sagas[at]], "{filter:?}");
        }
        assert!(
            store(&rig).items(id, ItemFilter::Only(ItemOutcome::Failed), &first(1)).await.expect("a read").is_empty()
        );
        store(&rig).count(id).await.expect("counted");
        let counts = store(&rig).job(id).await.expect("a read").expect("there").counts;
        assert_eq!(counts, Counts { applied: 1, refused: 1, failed: 0 });
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_close_one_item_at_once_one_does(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let (id, sagas) = made(&rig, 1).await;
        let closing = (0..6).map(|_| {
            let (rig, saga) = (rig.clone(), sagas[0]);
            async move { rig.write(applied(id, saga)).await.is_ok() }
        });
        let done = side_by_side(closing).await;
        assert_eq!(done.iter().filter(|is_done| **is_done).count(), 1);
        let audit = rig.store.audit(Some(sagas[0]), &Page { after: None, limit: 10 }).await.expect("a read");
        assert_eq!(audit.len(), 1);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_seen_to_by_one_at_a_time(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let (id, _) = made(&rig, 1).await;
        let (one, two) = (amends::id::fresh_request_id(), amends::id::fresh_request_id());
        let waiting = async |holder| store(&rig).waiting(holder, 10).await.expect("a read");
        assert_eq!(waiting(two).await, [id]);
        let lease = async |holder, seconds| store(&rig).lease(id, holder, seconds).await.expect("a lease");
        assert!(lease(one, 60).await.is_some_and(|job| job.state == JobState::Running));
        assert!(lease(one, 60).await.is_some(), "it is renewed");
        assert!(lease(two, 60).await.is_none());
        assert_eq!((waiting(one).await, waiting(two).await), (vec![id], vec![]), "whose it is may go on with it");
        assert!(lease(one, 0).await.is_some(), "it is given back");
        assert_eq!(waiting(two).await, [id]);
        assert!(lease(two, 60).await.is_some());
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_steered_as_its_state_allows(#[values(Sqlite, Postgres)] kind: Kind) {
    use JobState::{Done, Paused, Running, Stopped};
    on(kind, async |rig| {
        let holder = amends::id::fresh_request_id();
        let (id, _) = made(&rig, 2).await;
        let steer = async |to| {
            let audit = audited(None, "steered");
            let is_done = store(&rig).steer(id, to, 0, &audit).await.expect("an answer");
            (is_done, store(&rig).job(id).await.expect("a read").expect("there").state)
        };
        assert_eq!(steer(Running).await, (false, Running));
        assert_eq!(steer(Done).await, (false, Running));
        assert_eq!(steer(Paused).await, (true, Paused));
        assert_eq!(steer(Paused).await, (false, Paused));
        assert!(store(&rig).lease(id, holder, 60).await.expect("an answer").is_none(), "what is paused is left alone");
        assert!(!store(&rig).finish(id, 0).await.expect("an answer"));
        assert_eq!(steer(Running).await, (true, Running));
        assert_eq!(steer(Stopped).await, (true, Stopped));
        for to in [Running, Paused, Stopped] {
            assert_eq!(steer(to).await, (false, Stopped));
        }
        let audit = rig.store.audit(None, &Page { after: None, limit: 20 }).await.expect("a read");
        assert_eq!(audit.len(), 1 + 3, "one of its making, and one of each step that was taken");
        // Its sagas are still to be looked at.
        let leased = store(&rig).lease(id, holder, 60).await.expect("an answer").expect("there is something to see to");
        assert!(leased.state == Stopped && leased.ended_at.is_some());
        let check = store(&rig).check(id).await.expect("a check");
        store(&rig).keep_check(id, &check, None).await.expect("kept");
        assert!(store(&rig).waiting(holder, 10).await.expect("a read").is_empty());
        assert_eq!(store(&rig).job(id).await.expect("a read").expect("there").check, Some(check));

        let (running, _) = made(&rig, 1).await;
        let (archive, now) = (rig.store.archive().expect("it archives"), rig.now().await);
        let an_hour_ago = before(now, std::time::Duration::from_secs(3_600));
        assert_eq!(archive.forget_jobs(an_hour_ago, 9).await.expect("done"), 0, "it ended only now");
        assert_eq!(archive.forget_jobs(later(now), 9).await.expect("done"), 1);
        assert_eq!(store(&rig).job(id).await.expect("a read"), None);
        assert!(store(&rig).job(running).await.expect("a read").is_some(), "what has not ended stays");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_done_when_nothing_is_open_and_tells_then_how_its_sagas_stand(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let now = rig.now().await;
        let (works, still) = (saga(Some("works")), Saga { state: stuck(now), ..saga(Some("stuck")) });
        rig.write(starts(vec![bare(works.clone()), bare(still.clone())])).await.expect("a commit");
        let gone = SagaId::fresh();
        let job = job();
        let sagas = [works.id, still.id, gone];
        store(&rig).create(&job, &sagas, &audited(None, "bulk")).await.expect("it is made");
        rig.write(applied(job.id, works.id)).await.expect("a commit");
        rig.write(applied(job.id, still.id)).await.expect("a commit");
        assert!(!store(&rig).finish(job.id, 0).await.expect("an answer"), "one is open");
        store(&rig).close_items(job.id, &[refused(gone)]).await.expect("closed");
        assert!(store(&rig).finish(job.id, 0).await.expect("an answer"));
        assert!(!store(&rig).finish(job.id, 0).await.expect("an answer"), "once");

        let found = store(&rig).job(job.id).await.expect("a read").expect("there");
        assert_eq!((found.state, found.counts), (JobState::Done, Counts { applied: 2, refused: 1, failed: 0 }));
        assert!(found.ended_at.is_some() && found.check_due.is_some());
        let check = store(&rig).check(job.id).await.expect("a check");
        assert_eq!((check.stuck, check.working), (1, 1));
        assert_eq!(check.reasons, [("refused".to_owned(), 1)]);
        store(&rig).keep_check(job.id, &check, Some(3_600)).await.expect("kept");
        let found = store(&rig).job(job.id).await.expect("a read").expect("there");
        assert_eq!(found.check.as_ref().map(|check| (check.stuck, check.working)), Some((1, 1)));
        assert!(found.check_due.is_some_and(|due| due > found.updated_at));
    })
    .await;
}
