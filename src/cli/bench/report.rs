//! What a bench found, as data and as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::LoadArgs;
use super::measure::{Measured, Round, percentile};
use super::participants::Kind;
use super::site::{Messages, Site};
use super::workload::Load;
use crate::cli::output;

/// What a bench found. Rates and times are medians of the rounds, numbers of sagas are sums.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The run's name, which everything that it made had.
    run: String,
    /// Sagas per round.
    sagas: u32,
    pub(super) in_flight: u32,
    coordinators: u32,
    refuse_percent: u32,
    participants: &'static str,
    store: String,
    broker: &'static str,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// Median of a commit of one small row when nothing else goes on.
    commit_ms: f64,
    /// What decides whether the figures count.
    durability: BTreeMap<String, String>,
    rounds: Vec<Figures>,
    #[serde(skip)]
    expected: u32,
}

/// The figures of one round, or of all.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    /// Absent when everything runs in one process.
    pub(super) floor_sagas_per_second: Option<f64>,
    pub(super) sagas_per_second: f64,
    /// Of the two.
    ratio: Option<f64>,
    /// The floor with lapin instead of the coordinator's own AMQP client, on both sides.
    pub(super) lapin_floor_sagas_per_second: Option<f64>,
    ratio_to_lapin_floor: Option<f64>,
    pub(super) floor_p50_ms: Option<f64>,
    floor_p99_ms: Option<f64>,
    /// From the request that starts a saga to its end, durable.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// From the request that starts sagas to its answer.
    start_p50_ms: f64,
    completed: u32,
    compensated: u32,
    stuck: u32,
    commits_per_saga: f64,
    /// CPU time of the floor's driver.
    floor_cpu_ms_per_saga: Option<f64>,
    /// CPU time of the coordinator's process; of everything when it is embedded.
    cpu_ms_per_saga: Option<f64>,
}

impl Figures {
    fn of(Round { floors, measured }: &Round) -> Self {
        let (floor, lapin) = (floors.as_ref().map(|floors| &floors.own), floors.as_ref().map(|floors| &floors.lapin));
        let ratio = |floor: Option<&Measured>| floor.map(|floor| round(measured.per_second() / floor.per_second(), 3));
        let per_saga = |measured: &Measured| Some(millis(measured.cpu?) / f64::from(measured.ended().max(1)));
        Self {
            floor_sagas_per_second: floor.map(|floor| round(floor.per_second(), 1)),
            sagas_per_second: round(measured.per_second(), 1),
            ratio: ratio(floor),
            lapin_floor_sagas_per_second: lapin.map(|floor| round(floor.per_second(), 1)),
            ratio_to_lapin_floor: ratio(lapin),
            floor_p50_ms: floor.map(|floor| millis(floor.latency(50))),
            floor_p99_ms: floor.map(|floor| millis(floor.latency(99))),
            p50_ms: millis(measured.latency(50)),
            p99_ms: millis(measured.latency(99)),
            start_p50_ms: millis(percentile(&measured.starts, 50)),
            completed: measured.completed,
            compensated: measured.compensated,
            stuck: measured.stuck,
            commits_per_saga: round(measured.commits_per_saga(), 4),
            floor_cpu_ms_per_saga: floor.and_then(per_saga).map(|ms| round(ms, 4)),
            cpu_ms_per_saga: per_saga(measured).map(|ms| round(ms, 4)),
        }
    }

    fn of_all(rounds: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> f64| median(rounds.iter().map(of).collect()).unwrap_or_default();
        let maybe = |of: fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(of).collect());
        let sum = |of: fn(&Self) -> u32| rounds.iter().map(of).sum();
        Self {
            floor_sagas_per_second: maybe(|round| round.floor_sagas_per_second),
            sagas_per_second: middle(|round| round.sagas_per_second),
            ratio: maybe(|round| round.ratio),
            lapin_floor_sagas_per_second: maybe(|round| round.lapin_floor_sagas_per_second),
            ratio_to_lapin_floor: maybe(|round| round.ratio_to_lapin_floor),
            floor_p50_ms: maybe(|round| round.floor_p50_ms),
            floor_p99_ms: maybe(|round| round.floor_p99_ms),
            p50_ms: middle(|round| round.p50_ms),
            p99_ms: middle(|round| round.p99_ms),
            start_p50_ms: middle(|round| round.start_p50_ms),
            completed: sum(|round| round.completed),
            compensated: sum(|round| round.compensated),
            stuck: sum(|round| round.stuck),
            commits_per_saga: middle(|round| round.commits_per_saga),
            floor_cpu_ms_per_saga: maybe(|round| round.floor_cpu_ms_per_saga),
            cpu_ms_per_saga: maybe(|round| round.cpu_ms_per_saga),
        }
    }
}

impl Report {
    pub(super) fn new(site: &Site, load: &Load, args: &LoadArgs, commit: Duration, rounds: &[Round]) -> Self {
        let rounds: Vec<Figures> = rounds.iter().map(Figures::of).collect();
        let mut durability: BTreeMap<String, String> = site.health.durability.iter().cloned().collect();
        let broker = match site.broker {
            Messages::Amqp { .. } => {
                durability.insert("queues".to_owned(), "quorum".to_owned());
                durability.insert("messages".to_owned(), "persistent, mandatory, confirmed".to_owned());
                "RabbitMQ"
            }
            Messages::InProcess(_) => {
                durability.insert("messages".to_owned(), "in memory, sent again from the store".to_owned());
                "in-process"
            }
        };
        Self {
            run: site.names.run.clone(),
            sagas: load.sagas,
            in_flight: load.in_flight,
            coordinators: args.coordinators,
            refuse_percent: load.refuse_percent,
            participants: match args.participants {
                Kind::Bare => "bare",
                Kind::Sdk => "sdk",
            },
            store: site.health.server.clone(),
            broker,
            figures: Figures::of_all(&rounds),
            commit_ms: millis(commit),
            durability,
            expected: load.refused() * u32::try_from(rounds.len()).unwrap_or(u32::MAX),
            rounds,
        }
    }

    /// Whether every saga ended as it should.
    pub(super) fn is_whole(&self) -> bool {
        self.figures.stuck == 0 && self.figures.compensated == self.expected
    }

    pub(super) fn table(&self) -> String {
        let Figures { completed, compensated, stuck, .. } = self.figures;
        let range = |of: fn(&Figures) -> Option<f64>, digits| -> Option<Vec<String>> {
            let mut values: Vec<f64> = self.rounds.iter().filter_map(of).collect();
            values.sort_unstable_by(f64::total_cmp);
            let (least, most) = (values.first()?, values.last()?);
            Some(vec![
                format!("{:.digits$}", median(values.clone())?),
                format!("{least:.digits$}"),
                format!("{most:.digits$}"),
            ])
        };
        let row = |name: &str, of: fn(&Figures) -> Option<f64>, digits| {
            range(of, digits).map(|cells| std::iter::once(name.to_owned()).chain(cells).collect::<Vec<_>>())
        };
        let rows = [
            row("floor, sagas/s", |round| round.floor_sagas_per_second, 0),
            row("sagas/s", |round| Some(round.sagas_per_second), 0),
            row("ratio", |round| round.ratio, 3),
            row("floor with lapin, sagas/s", |round| round.lapin_floor_sagas_per_second, 0),
            row("ratio to that", |round| round.ratio_to_lapin_floor, 3),
            row("floor p50, ms", |round| round.floor_p50_ms, 2),
            row("floor p99, ms", |round| round.floor_p99_ms, 2),
            row("p50, ms", |round| Some(round.p50_ms), 2),
            row("p99, ms", |round| Some(round.p99_ms), 2),
            row("start p50, ms", |round| Some(round.start_p50_ms), 2),
            row("commits per saga", |round| Some(round.commits_per_saga), 3),
            row("floor's CPU, ms per saga", |round| round.floor_cpu_ms_per_saga, 3),
            row("coordinator's CPU, ms per saga", |round| round.cpu_ms_per_saga, 3),
        ];
        let table = output::table(&["", "median", "least", "most"], rows.into_iter().flatten());
        let durability: Vec<String> = self.durability.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!(
            "{table}\n\n{} sagas in {} rounds, {} in flight, {} % refused, {} coordinators, {} participants: {completed} completed, \
             {compensated} compensated, {stuck} stuck\n{} with {}; a commit alone takes {:.2} ms\n{}",
            self.sagas.saturating_mul(u32::try_from(self.rounds.len()).unwrap_or(u32::MAX)),
            self.rounds.len(),
            self.in_flight,
            self.refuse_percent,
            self.coordinators,
            self.participants,
            self.store,
            self.broker,
            self.commit_ms,
            durability.join(", "),
        )
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn millis(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1_000.0, 3)
}

fn round(value: f64, digits: i32) -> f64 {
    let unit = 10_f64.powi(digits);
    (value * unit).round() / unit
}
