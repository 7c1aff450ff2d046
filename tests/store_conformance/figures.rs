//! Many sagas in numbers: every store counts the same.

use std::time::Duration;

use amends::clock::after;
use amends::id::DefinitionRef;
use amends::saga::figures::{CommandCount, Figures, Latency, QUANTILES, Undone};
use amends::saga::{Direction, Outcome, Saga, SagaState};
use amends::store::{Changes, NewCommand, NewSaga, SettledCommand};
use rstest::rstest;

use crate::make::{DEFINITION, bare, command, saga, settled};
use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::{Rig, on};

/// A saga that ended in `state`: each entry is a step, its direction, how and at which attempt it ended, and how many
/// milliseconds that took.
fn ended(state: SagaState, entries: &[(&str, Direction, Outcome, u32, u64)]) -> (NewSaga, Vec<SettledCommand>) {
    let running = saga(None);
    let saga = Saga { state, ended_at: Some(running.updated_at), ..running };
    let (mut commands, mut verified) = (Vec::new(), Vec::new());
    for (seq, &(step, direction, outcome, attempt, millis)) in (1..).zip(entries) {
        let compensates = (direction == Direction::Compensation).then_some(1);
        commands.push(NewCommand { step: step.to_owned(), direction, compensates, ..command(&saga, seq) });
        let mut settled = settled(&saga, seq, outcome, None);
        settled.settled.attempt = attempt;
        settled.at = after(saga.updated_at, Duration::from_millis(millis));
        verified.push(settled);
    }
    (NewSaga { commands, ..bare(saga) }, verified)
}

async fn write(rig: &Rig, all: Vec<(NewSaga, Vec<SettledCommand>)>) {
    let (starts, settled): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let settled = settled.into_iter().flatten().collect();
    rig.write(Changes { starts, settled, ..Changes::default() }).await.expect("a commit");
}

async fn figures(rig: &Rig, version: u32, since: Option<amends::clock::Timestamp>) -> Figures {
    let definition = DefinitionRef { name: DEFINITION.to_owned(), version };
    let mut figures = rig.store.figures(&definition, since).await.expect("figures");
    figures.commands.sort_by_key(|found| (found.step.clone(), found.direction, found.outcome.as_str(), found.attempt));
    figures
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn figures_count_what_has_ended(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    use Direction::{Action, Compensation};
    use Outcome::{Failure, Success, Unknown};
    on(kind, async |rig| {
        let refused =
            [("pay", Action, Success, 1, 10), ("pick", Action, Failure, 2, 500), ("pay", Compensation, Success, 1, 7)];
        let lost = [
            ("pay", Action, Success, 2, 900),
            ("pick", Action, Unknown, 5, 9_000),
            ("pick", Compensation, Success, 1, 7),
            ("pay", Compensation, Success, 1, 8),
        ];
        let fine = [("pay", Action, Success, 1, 20), ("pick", Action, Success, 1, 30)];
        let mut running = ended(SagaState::Running, &fine);
        running.0.saga.ended_at = None;
        let mut cancelled = ended(SagaState::Compensated, &refused);
        cancelled.0.saga.cause = Some(amends::saga::Problem::new("cancelled", "no longer wanted"));
        let mut other = ended(SagaState::Completed, &fine);
        other.0.saga.definition.version = 2;
        write(
            &rig,
            vec![
                ended(SagaState::Compensated, &refused),
                ended(SagaState::Compensated, &lost),
                ended(SagaState::Completed, &fine),
                // An operator gave it up: that says nothing about an order.
                ended(SagaState::Abandoned, &refused[..2]),
                running,
                cancelled,
                other,
            ],
        )
        .await;

        let found = figures(&rig, 1, None).await;
        let count = |state: &str, count| (state.to_owned(), count);
        assert_eq!(found.ended, [count("ABANDONED", 1), count("COMPENSATED", 3), count("COMPLETED", 1)]);
        let of = |step: &str, direction, outcome, attempt, count| CommandCount {
            step: step.to_owned(),
            direction,
            outcome,
            attempt,
            count,
        };
        let commands = [
            of("pay", Action, Success, 1, 4),
            of("pay", Action, Success, 2, 1),
            of("pay", Compensation, Success, 1, 3),
            of("pick", Action, Failure, 2, 3),
            of("pick", Action, Success, 1, 1),
            of("pick", Action, Unknown, 5, 1),
            of("pick", Compensation, Success, 1, 1),
        ];
        assert_eq!(found.commands, commands);
        assert_eq!(found.turned, [count("pick", 2)]);
        assert_eq!(found.undone, [Undone { because: "pick".to_owned(), step: "pay".to_owned(), sagas: 2 }]);
        let paid = found.latencies.iter().find(|of| of.step == "pay" && of.direction == Action).expect("measured");
        assert_eq!((paid.count, paid.quantiles[0], paid.longest), (4, millis(10), millis(20)));
        assert_eq!(figures(&rig, 2, None).await.sagas(), 1);
        assert_eq!(figures(&rig, 3, None).await, Figures::default());
        let later = after(rig.now().await, Duration::from_secs(60));
        assert_eq!(figures(&rig, 1, Some(later)).await, Figures::default(), "all were started before");
    })
    .await;
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn quantiles_are_the_same_in_every_store(#[values(Memory, Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        // 1 to 250 ms, not in order.
        let took = (1..=250).map(|n: u64| n * 7 % 251);
        let one = |millis| ended(SagaState::Completed, &[("pay", Direction::Action, Outcome::Success, 1, millis)]);
        write(&rig, took.map(one).collect()).await;
        let expected = Latency {
            step: "pay".to_owned(),
            direction: Direction::Action,
            count: 250,
            quantiles: QUANTILES.map(|quantile| millis((u64::from(quantile) * 250).div_ceil(1_000))),
            longest: millis(250),
        };
        assert_eq!(figures(&rig, 1, None).await.latencies, [expected]);
    })
    .await;
}
