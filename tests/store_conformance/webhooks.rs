//! What webhooks are still to be told: written with the change, taken by one at a time, gone once it is settled.

use std::time::Duration;

use amends::id::SagaId;
use amends::saga::Saga;
use amends::store::webhooks::{Delivery, DeliveryCounts, NewDelivery};
use amends::store::{AuditRecord, Changes, Page, Wants};
use amends::trace::TraceContext;
use rstest::rstest;
use uuid::Uuid;

use crate::make::{bare, completed, saga, starts, updates};
use crate::rig::Kind::{self, Postgres, Sqlite};
use crate::rig::{Rig, eventually, on};

const LONG: Duration = Duration::from_secs(600);

pub fn message(saga: &Saga, webhook: &str) -> NewDelivery {
    NewDelivery {
        id: NewDelivery::id_of(webhook, saga.id, saga.revision, "stuck"),
        webhook: webhook.to_owned(),
        event: "stuck".to_owned(),
        saga: saga.id,
        body: r#"{"type":"amends.saga.stuck"}"#.to_owned(),
        at: saga.updated_at,
    }
}

pub async fn claim(rig: &Rig, webhooks: &[&str], lease: Duration, limit: u32) -> Vec<Delivery> {
    let names: Vec<String> = webhooks.iter().map(|name| (*name).to_owned()).collect();
    rig.store.webhooks().expect("they are kept").claim(&names, lease, limit).await.expect("claimed")
}

pub async fn all(rig: &Rig, parked: Option<bool>) -> Vec<Delivery> {
    let page = Page { after: None, limit: 100 };
    rig.store.webhooks().expect("they are kept").deliveries(parked, &page).await.expect("a list")
}

fn audit(action: &str) -> AuditRecord {
    AuditRecord {
        id: 0,
        at: amends::clock::Clock::System.now(),
        actor: "anna".to_owned(),
        saga: None,
        action: action.to_owned(),
        reason: "mended".to_owned(),
        detail: serde_json::json!({}).into(),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn messages_are_written_with_the_change_once_and_not_for_starts_that_never_were(
    #[values(Sqlite, Postgres)] kind: Kind,
) {
    on(kind, async |rig| {
        let (first, second) = (saga(Some("k")), saga(Some("k")));
        let told = vec![message(&first, "pager"), message(&first, "chat")];
        rig.write(Changes { webhooks: told.clone(), ..starts(vec![bare(first.clone())]) }).await.expect("a commit");
        let told = vec![message(&second, "pager")];
        rig.write(Changes { webhooks: told, ..starts(vec![bare(second)]) }).await.expect("a commit");
        let refused = Changes { webhooks: vec![message(&first, "mail")], ..updates(vec![completed(&saga(None))]) };
        rig.write(refused).await.expect_err("no such saga");
        rig.write(Changes { webhooks: vec![message(&first, "pager")], ..Changes::default() }).await.expect("again");

        let mut kept: Vec<(SagaId, String)> =
            all(&rig, None).await.into_iter().map(|delivery| (delivery.saga, delivery.webhook)).collect();
        kept.sort();
        assert_eq!(kept, [(first.id, "chat".to_owned()), (first.id, "pager".to_owned())]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_in_one_hand_until_it_is_settled_or_counts_as_lost(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let saga = saga(None);
        let told = ["pager", "chat"].map(|webhook| message(&saga, webhook)).into();
        rig.write(Changes { webhooks: told, ..starts(vec![bare(saga.clone())]) }).await.expect("a commit");
        let store = rig.store.webhooks().expect("they are kept");

        let mine = claim(&rig, &["pager"], LONG, 10).await;
        assert_eq!(mine.len(), 1, "of the webhooks that were named");
        assert_eq!((mine[0].attempts, mine[0].body.as_str()), (1, r#"{"type":"amends.saga.stuck"}"#));
        assert!(claim(&rig, &["pager"], LONG, 10).await.is_empty(), "it is in somebody's hand");

        // Whoever has lost it has no say any more.
        let id = mine[0].id;
        store.failed(id, 1, "no answer", Some(Duration::ZERO)).await.expect("written");
        let again = claim(&rig, &["pager", "chat"], Duration::ZERO, 10).await;
        let again: Vec<(Uuid, u32)> = again.iter().map(|delivery| (delivery.id, delivery.attempts)).collect();
        assert!(again.contains(&(id, 2)) && again.len() == 2, "{again:?}");
        store.delivered(id, 1).await.expect("nothing happens");
        let third = eventually("what is lost comes back", async || {
            claim(&rig, &["pager"], LONG, 10).await.into_iter().find(|delivery| delivery.id == id)
        })
        .await;
        assert_eq!((third.attempts, third.problem.as_deref()), (3, Some("no answer")));
        store.delivered(id, 3).await.expect("gone");
        assert!(all(&rig, None).await.iter().all(|delivery| delivery.webhook == "chat"));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_waits_for_a_person_whose_word_is_kept(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let saga = saga(None);
        let told = ["a", "b"].map(|webhook| message(&saga, webhook)).into();
        rig.write(Changes { webhooks: told, ..starts(vec![bare(saga.clone())]) }).await.expect("a commit");
        let store = rig.store.webhooks().expect("they are kept");
        for delivery in claim(&rig, &["a", "b"], LONG, 10).await {
            store.failed(delivery.id, 1, "it answered 500", None).await.expect("parked");
        }
        assert!(claim(&rig, &["a", "b"], LONG, 10).await.is_empty());
        assert_eq!(store.delivery_counts(10).await.expect("counts"), DeliveryCounts { pending: 0, parked: 2 });
        assert_eq!(store.delivery_counts(0).await.expect("counts"), DeliveryCounts { pending: 0, parked: 1 });
        let parked = all(&rig, Some(true)).await;
        assert_eq!(parked.len(), 2);
        assert!(parked.iter().all(|delivery| delivery.due.is_none()) && parked[0].id < parked[1].id);
        let page = Page { after: Some(parked[0].id), limit: 1 };
        assert_eq!(store.deliveries(Some(true), &page).await.expect("a list"), parked[1..]);

        let retried = store.retry_delivery(parked[0].id, audit("webhook-retry")).await.expect("done").expect("there");
        assert_eq!((retried.attempts, retried.due.is_some()), (0, true));
        assert_eq!(claim(&rig, &["a", "b"], LONG, 10).await[0].attempts, 1);
        store.drop_delivery(parked[1].id, audit("webhook-drop")).await.expect("done").expect("there");
        assert_eq!(all(&rig, None).await.len(), 1);
        assert_eq!(store.drop_delivery(parked[1].id, audit("webhook-drop")).await.expect("done"), None);
        let log = rig.store.audit(Some(saga.id), &Page { after: None, limit: 10 }).await.expect("a list");
        let log: Vec<&str> = log.iter().map(|record| record.action.as_str()).collect();
        assert_eq!(log, ["webhook-drop", "webhook-retry"], "once each, and none for what was not there");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn many_hands_take_each_message_once(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let sagas: Vec<Saga> = (0..40).map(|_| saga(None)).collect();
        let webhooks = sagas.iter().map(|saga| message(saga, "pager")).collect();
        let begun = starts(sagas.into_iter().map(bare).collect());
        rig.write(Changes { webhooks, ..begun }).await.expect("a commit");
        let hand = async || {
            let mut taken = Vec::new();
            loop {
                let some = claim(&rig, &["pager"], LONG, 3).await;
                if some.is_empty() {
                    return taken;
                }
                taken.extend(some.into_iter().map(|delivery| delivery.id));
            }
        };
        let (a, b, c) = tokio::join!(hand(), hand(), hand());
        let mut taken = [a, b, c].concat();
        // A hand that found what others held at that moment has stopped early; nothing is left behind.
        taken.extend(hand().await);
        let count = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!((count, taken.len()), (40, 40));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_is_kept_with_the_saga_and_makes_no_child_of_it(
    #[values(Kind::Memory, Sqlite, Postgres)] kind: Kind,
) {
    on(kind, async |rig| {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::parse(given, Some("vendor=x")).map(Box::new);
        let traced = Saga { trace, ..saga(None) };
        rig.write(starts(vec![bare(traced.clone())])).await.expect("a commit");
        assert_eq!(rig.saga(traced.id).await.saga, traced);
        let loaded = rig.load(Wants { sagas: vec![traced.id], ..Wants::default() }).await;
        assert_eq!(loaded.sagas, std::slice::from_ref(&traced));
        rig.write(updates(vec![completed(&traced)])).await.expect("a commit");
        assert_eq!(rig.saga(traced.id).await.saga.trace, traced.trace);
        if let Some(archive) = rig.store.archive() {
            let roots = archive.archivable(rig.now().await + Duration::from_secs(60), None, 10).await.expect("a list");
            assert_eq!(roots, [traced.id]);
        }
    })
    .await;
}
