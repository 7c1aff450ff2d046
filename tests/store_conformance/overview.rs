//! What people ask of all sagas at once: counted up to a bound, grouped, and looked for.

use amends::id::{DefinitionRef, SagaId, StepIndex};
use amends::payload::Payload;
use amends::saga::{Direction, Outcome, Problem, Saga, SagaState, Stuck};
use amends::store::overview::{FieldIs, StuckGroup};
use amends::store::{Changes, Page, SagaFilter};
use rstest::rstest;

use crate::make::{DEFINITION, bare, completed, later, new, pending, saga, settled, starts, updates};
use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::on;

fn stuck_at(step: u16, error: &str) -> Saga {
    let saga = saga(None);
    let problem = Problem::new(error, "no");
    let since = saga.created_at;
    let state = SagaState::Stuck(Stuck { direction: Direction::Action, step: StepIndex(step), problem, since });
    Saga { state, ..saga }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn states_are_counted_up_to_a_bound_and_one_more(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let running: Vec<Saga> = (0..7).map(|_| saga(None)).collect();
        let ended = running[0].clone();
        let all = running.into_iter().chain([stuck_at(0, "refused")]).map(bare).collect();
        rig.write(starts(all)).await.expect("a commit");
        rig.write(updates(vec![completed(&ended)])).await.expect("a commit");
        let counts = async |most| -> Vec<(String, u64)> {
            let counts = rig.store.state_counts(most).await.expect("counts");
            counts.into_iter().map(|count| (count.state, count.count)).collect()
        };
        let expected =
            [("STUCK", 1), ("RUNNING", 6), ("COMPENSATING", 0), ("COMPLETED", 1), ("COMPENSATED", 0), ("ABANDONED", 0)];
        assert_eq!(counts(100).await, expected.map(|(state, count)| (state.to_owned(), count)));
        assert_eq!(counts(3).await[1], ("RUNNING".to_owned(), 4), "one more than asked for says that there are more");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn stuck_sagas_are_grouped_by_cause_the_largest_first(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let sagas = [
            stuck_at(0, "refused"),
            stuck_at(1, "refused"),
            stuck_at(1, "timeout"),
            stuck_at(1, "timeout"),
            saga(None),
        ];
        let first = sagas[2].created_at;
        rig.write(starts(sagas.map(bare).into())).await.expect("a commit");
        let groups = rig.store.stuck_groups(100).await.expect("groups");
        assert_eq!(groups.iter().map(|group| group.count).collect::<Vec<_>>(), [2, 1, 1]);
        let definition = DefinitionRef { name: DEFINITION.to_owned(), version: 1 };
        let (step_index, direction, error) = (1, Direction::Action, "timeout".to_owned());
        assert_eq!(groups[0], StuckGroup { definition, step_index, direction, error, count: 2, since: first });
        assert_eq!(rig.store.stuck_groups(1).await.expect("groups").len(), 1, "the newest alone");
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn lifetimes_come_newest_first_and_not_from_before(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let (one, other) = (saga(None), saga(None));
        rig.write(starts([&one, &other].map(|saga| bare(saga.clone())).into())).await.expect("a commit");
        rig.write(updates(vec![completed(&one)])).await.expect("a commit");
        let found = rig.store.lifetimes(one.created_at, 10).await.expect("lifetimes");
        let told: Vec<_> =
            found.iter().map(|found| (found.state.as_str(), found.created_at, found.ended_at.is_some())).collect();
        assert_eq!(told, [("RUNNING", other.created_at, false), ("COMPLETED", one.created_at, true)]);
        assert_eq!(rig.store.lifetimes(one.created_at, 1).await.expect("lifetimes").len(), 1);
        assert_eq!(rig.store.lifetimes(later(other.created_at), 10).await.expect("lifetimes"), []);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn services_tell_what_they_owe_and_how_they_did(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let sagas: Vec<Saga> = (0..3).map(|_| saga(None)).collect();
        let changes = Changes {
            starts: sagas.iter().cloned().map(new).collect(),
            settled: vec![
                settled(&sagas[1], 1, Outcome::Success, Some("1")),
                settled(&sagas[2], 1, Outcome::Failure, None),
            ],
            ..Changes::default()
        };
        rig.write(changes).await.expect("a commit");
        let found = rig.store.services(100).await.expect("services");
        assert_eq!(found.len(), 1);
        let orders = &found[0];
        assert_eq!((orders.participant.as_str(), orders.waiting, orders.settled, orders.failed), ("orders", 1, 2, 1));
        assert_eq!(orders.oldest, Some(sagas[0].updated_at));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_told_of_those_that_are_there(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let one = saga(None);
        rig.write(starts(vec![bare(one.clone())])).await.expect("a commit");
        assert_eq!(rig.store.revisions(&[one.id, SagaId::fresh()]).await.expect("revisions"), [(one.id, 1)]);
        rig.write(updates(vec![completed(&one)])).await.expect("a commit");
        assert_eq!(rig.store.revisions(&[one.id]).await.expect("revisions"), [(one.id, 2)]);
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_what_no_index_knows(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let input = r#"{"customer":{"id":"c-7","a b":1.5},"gift":true,"total":1200,"none":null,"quote\"d":"x"}"#;
        let with_input = Saga { input: Payload::trusted(input), ..saga(None) };
        let at_work = Saga {
            steps: vec![pending(1, 1, later(with_input.created_at)), pending(2, 1, later(with_input.created_at))],
            ..saga(None)
        };
        let back = Saga { cause: Some(Problem::new("cancelled", "by its caller")), ..saga(None) };
        let stuck = stuck_at(1, "refused");
        let second = Saga { definition: DefinitionRef { name: DEFINITION.to_owned(), version: 2 }, ..saga(None) };
        let all = [&with_input, &at_work, &back, &stuck, &second];
        rig.write(starts(all.map(|saga| bare(saga.clone())).into())).await.expect("a commit");
        let text = |text: &str| Some(text.to_owned());
        let none = SagaFilter::default;
        let field = |path: &[&str], value: &str| SagaFilter {
            field: Some(FieldIs {
                path: path.iter().map(|name| (*name).to_owned()).collect(),
                value: value.to_owned(),
            }),
            ..none()
        };
        let cases: Vec<(SagaFilter, Vec<&Saga>)> = vec![
            (SagaFilter { step_status: text("pending"), ..none() }, vec![&at_work]),
            (SagaFilter { error_type: text("refused"), ..none() }, vec![&stuck]),
            (SagaFilter { error_type: text("cancelled"), ..none() }, vec![&back]),
            (SagaFilter { stuck_step: Some(1), ..none() }, vec![&stuck]),
            (SagaFilter { stuck_step: Some(0), ..none() }, vec![]),
            (SagaFilter { version: Some(2), ..none() }, vec![&second]),
            (SagaFilter { until: Some(with_input.created_at), ..none() }, vec![]),
            (field(&["customer", "id"], "c-7"), vec![&with_input]),
            (field(&["customer", "a b"], "1.5"), vec![&with_input]),
            (field(&["gift"], "true"), vec![&with_input]),
            (field(&["total"], "1200"), vec![&with_input]),
            (field(&["none"], "null"), vec![]),
            (field(&["customer", "id"], "'; drop table saga; --"), vec![]),
            (field(&["' or 1=1 --"], "c-7"), vec![]),
            (field(&["orderId"], "o-1"), vec![&second, &stuck, &back, &at_work]),
        ];
        for (filter, expected) in cases {
            let found = rig.store.sagas(&filter, &Page { after: None, limit: 10 }).await.expect("a list");
            let found: Vec<_> = found.iter().map(|found| found.saga.id).collect();
            let mut expected: Vec<_> = expected.iter().map(|saga| saga.id).collect();
            expected.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(found, expected, "{filter:?}");
        }
    })
    .await;
}
