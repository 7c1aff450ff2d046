//! Lists: filtered, in order, in pages that stay stable.

use amends::id::{CommandId, Seq};
use amends::saga::{Outcome, Saga, SagaState};
use amends::store::{Changes, NewCommand, OutboxFilter, Page, SagaCount, SagaFilter, SagaSummary};
use rstest::rstest;

use crate::make::{
    DEFINITION, bare, command, completed, due_at, later, new, next, pending, saga, settled, starts, stuck, updates,
};
use crate::rig::Kind::{self, Memory, Postgres, Sealed, Sqlite};
use crate::rig::{Rig, on};

fn first(limit: u32) -> Page<amends::id::SagaId> {
    Page { after: None, limit }
}

fn ids(found: &[SagaSummary]) -> Vec<amends::id::SagaId> {
    found.iter().map(|summary| summary.saga.id).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn sagas_come_newest_first_and_pages_stay_when_more_start(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let all: Vec<Saga> = (0..25).map(|_| saga(None)).collect();
        let mut expected: Vec<_> = all.iter().map(|saga| saga.id).collect();
        expected.reverse();
        rig.write(starts(all.into_iter().map(bare).collect())).await.expect("a commit");

        let (mut seen, mut page) = (Vec::new(), first(10));
        loop {
            let found = rig.store.sagas(&SagaFilter::default(), &page).await.expect("a list");
            assert!(found.len() <= 10);
            let Some(last) = found.last() else { break };
            page.after = Some(last.saga.id);
            seen.extend(ids(&found));
            // One more is started while somebody turns pages.
            rig.write(starts(vec![bare(saga(None))])).await.expect("a commit");
        }
        assert_eq!(seen, expected);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_in_a_list_is_complete_but_for_input_and_outputs(
    #[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind,
) {
    on(kind, async |rig| {
        let now = rig.now().await;
        let one = Saga { reads_outputs: true, deadline: Some(later(now)), state: stuck(now), ..saga(Some("k")) };
        let changes = Changes {
            starts: vec![new(one.clone())],
            settled: vec![settled(&one, 1, Outcome::Success, Some("1"))],
            ..Changes::default()
        };
        rig.write(changes).await.expect("a commit");
        let found = rig.store.sagas(&SagaFilter::default(), &first(5)).await.expect("a list");
        let input = amends::payload::Payload::trusted("null");
        assert_eq!(found, [SagaSummary { saga: Saga { input, ..one } }]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn sagas_are_filtered_by_each_field_and_by_all(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let now = rig.now().await;
        let (running, mut other, ended) = (saga(Some("a")), saga(Some("a")), saga(Some("c")));
        other.definition.name = "ship-order".to_owned();
        let young = Saga { created_at: later(now), ..saga(None) };
        let paused = Saga { paused: true, ..saga(Some("p")) };
        let all = [&running, &other, &ended, &young, &paused].map(|saga| bare(saga.clone()));
        rig.write(starts(all.into())).await.expect("a commit");
        rig.write(updates(vec![completed(&ended)])).await.expect("a commit");

        let text = |text: &str| Some(text.to_owned());
        let cases: [(SagaFilter, Vec<&Saga>); 9] = [
            (SagaFilter { definition: text("ship-order"), ..SagaFilter::default() }, vec![&other]),
            (SagaFilter { states: vec!["COMPLETED".to_owned()], ..SagaFilter::default() }, vec![&ended]),
            (
                SagaFilter { states: vec!["COMPLETED".to_owned(), "RUNNING".to_owned()], ..SagaFilter::default() },
                vec![&paused, &young, &ended, &other, &running],
            ),
            (SagaFilter { states: vec!["NONSENSE".to_owned()], ..SagaFilter::default() }, vec![]),
            (SagaFilter { key: text("a"), ..SagaFilter::default() }, vec![&other, &running]),
            (SagaFilter { since: Some(later(now)), ..SagaFilter::default() }, vec![&young]),
            (SagaFilter { paused: Some(true), ..SagaFilter::default() }, vec![&paused]),
            (SagaFilter { paused: Some(false), key: text("p"), ..SagaFilter::default() }, vec![]),
            (
                SagaFilter {
                    definition: text(DEFINITION),
                    states: vec!["RUNNING".to_owned()],
                    key: text("a"),
                    since: Some(running.created_at),
                    paused: Some(false),
                    ..SagaFilter::default()
                },
                vec![&running],
            ),
        ];
        for (filter, expected) in cases {
            let found = rig.store.sagas(&filter, &first(50)).await.expect("a list");
            let expected: Vec<_> = expected.into_iter().map(|saga| saga.id).collect();
            assert_eq!(ids(&found), expected, "{filter:?}");
        }
    })
    .await;
}

/// Two sagas with two commands each; of the first saga one is VERIFIED, and a third saga that is over.
async fn entries(rig: &Rig) -> (Saga, Saga, Saga) {
    let now = rig.now().await;
    let (mut one, mut two, mut over) = (due_at(later(now)), due_at(later(now)), saga(None));
    one.steps = vec![crate::make::verified(1), pending(2, 3, later(now))];
    two.steps = vec![pending(1, 1, now), pending(2, 2, later(now))];
    for saga in [&mut one, &mut two, &mut over] {
        saga.next_seq = Seq(3);
    }
    let elsewhere = NewCommand { participant: "payments".to_owned(), ..command(&two, 2) };
    let changes = Changes {
        starts: [&one, &two, &over].map(|saga| new(saga.clone())).into(),
        commands: vec![command(&one, 2), elsewhere, command(&over, 2)],
        settled: vec![
            settled(&one, 1, Outcome::Success, Some("1")),
            settled(&over, 1, Outcome::Success, None),
            settled(&over, 2, Outcome::Abandoned, None),
        ],
        ..Changes::default()
    };
    rig.write(changes).await.expect("a commit");
    rig.write(updates(vec![completed(&over)])).await.expect("a commit");
    (one, two, over)
}

fn id(saga: &Saga, seq: u32) -> CommandId {
    CommandId { saga: saga.id, seq: Seq(seq) }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn outbox_entries_come_oldest_first_filtered(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (one, two, over) = entries(&rig).await;
        let (pending, verified) = (Some(true), Some(false));
        let none = OutboxFilter::default;
        let cases = [
            (none(), vec![id(&one, 1), id(&one, 2), id(&two, 1), id(&two, 2), id(&over, 1), id(&over, 2)]),
            (OutboxFilter { pending, ..none() }, vec![id(&one, 2), id(&two, 1), id(&two, 2)]),
            (OutboxFilter { pending: verified, ..none() }, vec![id(&one, 1), id(&over, 1), id(&over, 2)]),
            (OutboxFilter { saga: Some(two.id), ..none() }, vec![id(&two, 1), id(&two, 2)]),
            (OutboxFilter { participant: Some("payments".to_owned()), ..none() }, vec![id(&two, 2)]),
            (OutboxFilter { pending, saga: Some(one.id), participant: Some("orders".to_owned()) }, vec![id(&one, 2)]),
            (OutboxFilter { pending, saga: Some(over.id), ..none() }, vec![]),
        ];
        for (filter, expected) in cases {
            let whole = rig.store.outbox(&filter, &Page { after: None, limit: 50 }).await.expect("a list");
            assert_eq!(whole.iter().map(|entry| entry.id).collect::<Vec<_>>(), expected, "{filter:?}");

            let (mut seen, mut page) = (Vec::new(), Page { after: None, limit: 1 });
            while let Some(entry) = rig.store.outbox(&filter, &page).await.expect("a list").pop() {
                page.after = Some(entry.id);
                seen.push(entry);
            }
            assert_eq!(seen, whole, "one by one: {filter:?}");
        }
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn pending_entries_tell_attempt_and_due_time(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (one, two, _) = entries(&rig).await;
        let pending = rig.store.pending(None, 50).await.expect("pending");
        let attempts: Vec<_> =
            pending.iter().map(|entry| (entry.id, entry.in_flight.map(|flight| flight.attempt))).collect();
        assert_eq!(attempts, [(id(&one, 2), Some(3)), (id(&two, 1), Some(1)), (id(&two, 2), Some(2))]);

        let after = rig.store.pending(Some(id(&one, 2)), 1).await.expect("pending");
        assert_eq!(after.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(&two, 1)]);
        assert!(rig.store.pending(Some(id(&two, 2)), 50).await.expect("pending").is_empty());

        // Once its attempts are spent, nothing is in flight.
        let mut spent = next(&two);
        spent.saga.steps = vec![crate::make::verified(1), amends::saga::StepState::Waiting];
        rig.write(updates(vec![spent])).await.expect("a commit");
        let pending = rig.store.pending(Some(id(&one, 2)), 1).await.expect("pending");
        assert_eq!(pending[0].in_flight, None);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_found_by_id_with_their_bodies(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        let (one, two, _) = entries(&rig).await;
        let wanted =
            [id(&two, 2), id(&one, 1), id(&one, 99), CommandId { saga: amends::id::SagaId::fresh(), seq: Seq(1) }];
        let mut found = rig.store.commands(&wanted).await.expect("commands");
        found.sort_by_key(|entry| entry.id);
        assert_eq!(found.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(&one, 1), id(&two, 2)]);
        assert_eq!(found[0].body.text(), r#"{"seq":1}"#);
        let record = rig.saga(two.id).await;
        assert_eq!(found[1], record.commands[1], "the same in every place");
        assert!(rig.store.commands(&[]).await.expect("commands").is_empty());
    })
    .await;
}

/// SQLite names none, as a store may.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn of_some_commands_it_is_told_which_are_settled(#[values(Memory, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let (one, two, _) = entries(&rig).await;
        let wanted = [id(&one, 1), id(&one, 2), id(&two, 1), id(&one, 99)];
        assert_eq!(rig.store.settled(&wanted).await.expect("an answer"), [id(&one, 1)]);
        assert_eq!(rig.store.settled(&[]).await.expect("an answer"), []);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn sagas_are_counted_by_definition_and_state(#[values(Memory, Sqlite, Postgres, Sealed)] kind: Kind) {
    on(kind, async |rig| {
        assert!(rig.store.counts().await.expect("counts").is_empty());
        let mut all: Vec<Saga> = (0..4).map(|_| saga(None)).collect();
        all[3].definition.name = "ship-order".to_owned();
        all[2].state = SagaState::Compensating;
        rig.write(starts(all.into_iter().map(bare).collect())).await.expect("a commit");
        let count = |definition: &str, state: &str, count| SagaCount {
            definition: definition.to_owned(),
            state: state.to_owned(),
            count,
        };
        assert_eq!(
            rig.store.counts().await.expect("counts"),
            [count(DEFINITION, "COMPENSATING", 1), count(DEFINITION, "RUNNING", 2), count("ship-order", "RUNNING", 1)]
        );
    })
    .await;
}
