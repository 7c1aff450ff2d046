//! The sweep: a process is killed at a named point, at one step after the other of a whole order and of one that is
//! undone; another takes over; every saga ends; the judge decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use amends::failpoint::Point;
use amends::id::SagaId;
use amends::saga::Direction;

use crate::city::{Armed, City, End, Plan, SERVICES, Server, database, migrate};
use crate::judge::{Answer, judge};
use crate::support::eventually_within;
use crate::support::processes::Process;

/// Long enough for a publish grace and a few attempts on a busy machine.
const END: Duration = Duration::from_secs(90);

/// Points that a coordinator comes by with each step. The timer has a way of its own.
const AT_EVERY_STEP: [Point; 9] = [
    Point::ReplyReceived,
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::Compensating,
    Point::TerminalCommit,
    Point::BeforePublish,
    Point::PublishedNotConfirmed,
    Point::Confirmed,
    Point::CommittedNotAcknowledged,
];
const OF_PARTICIPANTS: [Point; 3] =
    [Point::ParticipantBeforeCommit, Point::ParticipantAfterCommit, Point::ParticipantBeforeReply];

struct Sweep {
    services: BTreeMap<&'static str, Process>,
    city: City,
    runs: u32,
    /// Where a process died: point, plan, and what its saga waited for.
    deaths: BTreeMap<(Point, Plan), Vec<String>>,
}

impl Sweep {
    async fn begin() -> Self {
        let city = City::found().await;
        let url = city.rabbit.url();
        let services = SERVICES.map(|name| (name, city.service(name, &city.database(name), &url, None))).into();
        Self { city, services, runs: 0, deaths: BTreeMap::new() }
    }

    /// One order with a coordinator that dies, and then one that does not. Whether it died.
    async fn coordinator_dies(&mut self, armed: Armed, plan: Plan) -> bool {
        let key = self.next(armed, plan);
        let mut doomed = self.city.plain("doomed", Some(armed)).await;
        let order = plan.order(&key);
        let told = self.city.witness.order(&doomed.client, &order).await;
        let id = match told {
            Some(Answer::Saga(id)) => Some(id),
            _ => None,
        };
        let marker = self.city.marker("doomed");
        let died = eventually_within(END, &format!("{key}: it dies or the saga ends"), async || {
            if doomed.process.has_ended() {
                return Some(true);
            }
            let state = self.city.state(id?).await?;
            // The last point comes right after the end.
            if !matches!(state, "COMPLETED" | "COMPENSATED") {
                return None;
            }
            let limit = Duration::from_millis(700);
            let died = tokio::time::timeout(limit, wait_for_end(&mut doomed)).await.is_ok();
            Some(died)
        })
        .await;
        if died {
            assert!(marker.exists(), "{key}: it died, and not at its point; {}", doomed.process.tail());
            let place = self.place(&key).await;
            self.deaths.entry((armed.point, plan)).or_default().push(place);
        } else {
            doomed.process.kill();
        }
        self.ends(&key, plan, None).await;
        died
    }

    /// One order with a service that dies; the coordinator lives.
    async fn service_dies(&mut self, name: &'static str, armed: Armed, plan: Plan) {
        let key = self.next(armed, plan);
        self.replace(name, Some(armed));
        let server = self.city.plain("living", None).await;
        self.city.witness.order(&server.client, &plan.order(&key)).await.expect("it is started");
        self.dies(name, &key).await;
        let place = self.place(&key).await;
        self.deaths.entry((armed.point, plan)).or_default().push(place);
        self.replace(name, None);
        self.ends(&key, plan, Some(server)).await;
    }

    /// A service dies before its n-th reply, so that an attempt times out, and the coordinator dies of that.
    async fn timer_dies(&mut self, name: &'static str, at: u32, plan: Plan) {
        let armed = Armed { point: Point::TimerFired, at: 1 };
        let key = self.next(armed, plan);
        self.replace(name, Some(Armed { point: Point::ParticipantBeforeReply, at }));
        let mut doomed = self.city.plain("doomed", Some(armed)).await;
        self.city.witness.order(&doomed.client, &plan.order(&key)).await.expect("it is started");
        self.dies(name, &key).await;
        tokio::time::timeout(END, wait_for_end(&mut doomed)).await.expect("the timer kills the coordinator");
        assert!(self.city.marker("doomed").exists(), "{key}: {}", doomed.process.tail());
        let place = self.place(&key).await;
        self.deaths.entry((armed.point, plan)).or_default().push(place);
        self.replace(name, None);
        self.ends(&key, plan, None).await;
    }

    fn next(&mut self, armed: Armed, plan: Plan) -> String {
        self.runs += 1;
        format!("{}-{}-{}-{plan:?}", self.runs, armed.point.name(), armed.at)
    }

    fn replace(&mut self, name: &'static str, armed: Option<Armed>) {
        self.services.remove(name);
        let url = self.city.rabbit.url();
        self.services.insert(name, self.city.service(name, &self.city.database(name), &url, armed));
    }

    async fn dies(&mut self, name: &'static str, key: &str) {
        let process = self.services.get_mut(name).expect("it runs");
        let what = format!("{key}: {name} dies");
        eventually_within(END, &what, async || process.has_ended().then_some(())).await;
        assert!(self.city.marker(name).exists(), "{name} died, and not at its point");
    }

    /// What the saga of `key` waited for when the process died.
    async fn place(&self, key: &str) -> String {
        let Some(id) = self.id(key).await else { return "no saga".to_owned() };
        let record = self.city.store.saga(id).await.expect("the store reads").expect("it is there");
        let open = record.commands.iter().filter(|entry| entry.verified.is_none());
        let open: Vec<String> = open
            .map(|entry| match entry.direction {
                Direction::Action => entry.step.clone(),
                Direction::Compensation => format!("undo {}", entry.step),
            })
            .collect();
        if open.is_empty() { record.saga.state.as_str().to_owned() } else { open.join(" + ") }
    }

    async fn id(&self, key: &str) -> Option<SagaId> {
        self.city.store.saga_by_key("place-order", key).await.expect("the store reads")
    }

    /// A coordinator that lives sees to it that the order ends as it should.
    async fn ends(&mut self, key: &str, plan: Plan, server: Option<Server>) {
        let mut server = match server {
            Some(server) => server,
            None => self.city.plain("successor", None).await,
        };
        let answer = self.city.witness.order(&server.client, &plan.order(key)).await;
        let Some(Answer::Saga(id)) = answer else { panic!("{key}: started again, it says {answer:?}") };
        let end = if plan == Plan::Whole { "COMPLETED" } else { "COMPENSATED" };
        eventually_within(END, &format!("{key} becomes {end}"), async || {
            (self.city.state(id).await? == end).then_some(())
        })
        .await;
        server.process.kill();
    }

    async fn verdict(self) {
        println!("\n{:<38} {:<8} kills at", "killed at", "order");
        for ((point, plan), places) in &self.deaths {
            let distinct: BTreeSet<_> = places.iter().collect();
            println!("{:<38} {:<8} {:>3}: {distinct:?}", point.name(), format!("{plan:?}"), places.len());
        }
        let kills: usize = self.deaths.values().map(Vec::len).sum();
        let places: BTreeSet<&String> = self.deaths.values().flatten().collect();
        let of_services = self.points().iter().filter(|point| OF_PARTICIPANTS.contains(point)).count();
        println!(
            "{kills} kills seen, at {} named points of the coordinator and {of_services} of the {} services, while {} \
             different things were waited for, in {} runs; and a migration that was killed",
            self.points().len() - of_services,
            SERVICES.len(),
            places.len(),
            self.runs
        );
        let quiet = self.city.store.health().await.expect("the store answers").now;
        let patience = Duration::from_secs(60);
        let end = End { quiet_since: quiet, patience, set_back: Duration::ZERO, may_be_unheard: kills };
        let verdict = judge(&self.city.evidence(end).await);
        println!("{verdict}");
        verdict.is_innocent("after the sweep");
    }

    fn points(&self) -> BTreeSet<Point> {
        self.deaths.keys().map(|(point, _)| *point).collect()
    }
}

async fn wait_for_end(server: &mut Server) {
    while !server.process.has_ended() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_whole_sweep() -> bool {
    std::env::var("AMENDS_SWEEP").is_ok_and(|sweep| sweep == "all")
}

/// A migration that dies leaves nothing, and the next one does it all.
async fn migration_dies(city: &City) {
    let admin = sqlx::PgPool::connect(&city.postgres.url()).await.expect("PostgreSQL answers");
    sqlx::query("create database fresh").execute(&admin).await.expect("the database is made");
    let (store, marker) = (database(&city.postgres.url(), "fresh"), city.marker("migrate"));
    assert!(!migrate(&store, Some((Armed { point: Point::Migration, at: 1 }, marker.clone()))), "it dies");
    assert!(marker.exists(), "it died at its point");
    let tables = "select count(*) from information_schema.tables where table_schema = 'public'";
    let fresh = sqlx::PgPool::connect(&store).await.expect("the database answers");
    let left: i64 = sqlx::query_scalar(tables).fetch_one(&fresh).await.expect("the tables are counted");
    assert_eq!(left, 0, "a migration that was cut off leaves nothing");
    assert!(migrate(&store, None), "the next one does it");
    amends::store::open(&store).await.expect("it opens").check_schema().await.expect("the schema is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_at_a_named_point_leaves_nothing_undone() {
    let mut sweep = Sweep::begin().await;
    migration_dies(&sweep.city).await;
    if is_whole_sweep() {
        for plan in [Plan::Whole, Plan::SoldOut] {
            for point in AT_EVERY_STEP {
                let mut at = 1;
                while sweep.coordinator_dies(Armed { point, at }, plan).await {
                    at += 1;
                }
                assert!(at > 1 || matches!((point, plan), (Point::Compensating, Plan::Whole)), "{point:?} never fired");
            }
            for name in SERVICES {
                // What the warehouse refuses it need not undo.
                for at in 1..=if (name, plan) == ("warehouse", Plan::SoldOut) { 1 } else { 2 } {
                    sweep.timer_dies(name, at, plan).await;
                    for point in OF_PARTICIPANTS {
                        sweep.service_dies(name, Armed { point, at }, plan).await;
                    }
                }
            }
        }
    } else {
        // Each point once, at steps all over the way forward and back.
        for (point, at, plan) in [
            (Point::ReplyReceived, 3, Plan::Whole),
            (Point::BeforeCommit, 1, Plan::SoldOut),
            (Point::AfterCommit, 4, Plan::Whole),
            (Point::Compensating, 2, Plan::SoldOut),
            (Point::TerminalCommit, 1, Plan::Whole),
            (Point::BeforePublish, 1, Plan::Whole),
            (Point::PublishedNotConfirmed, 2, Plan::Whole),
            (Point::Confirmed, 4, Plan::SoldOut),
            (Point::CommittedNotAcknowledged, 5, Plan::SoldOut),
        ] {
            assert!(sweep.coordinator_dies(Armed { point, at }, plan).await, "{point:?} never fired");
        }
        sweep.timer_dies("payments", 1, Plan::SoldOut).await;
        for (point, name) in OF_PARTICIPANTS.into_iter().zip(SERVICES) {
            sweep.service_dies(name, Armed { point, at: 1 }, Plan::Whole).await;
        }
    }
    // A migration and an archive have tests of their own.
    let is_elsewhere = |point: &Point| *point == Point::Migration || point.name().starts_with("archive.");
    let all: BTreeSet<Point> = Point::ALL.iter().copied().filter(|point| !is_elsewhere(point)).collect();
    assert_eq!(sweep.points(), all, "every point was one to die at");
    sweep.verdict().await;
}
