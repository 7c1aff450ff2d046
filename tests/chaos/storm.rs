//! A seeded storm over the whole city: orders keep coming while one fault follows another; then it is quiet, everything
//! ends, and the judge decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::client::views::OperateRequest;
use amends::client::{Action, Client};
use tokio::time::Instant;

use crate::city::{Plan, Witness};
use crate::judge::{Answer, DECIDED, evidence, judge};
use crate::support::eventually_within;
use crate::weather::{Dice, Fault, Land};

/// What all retries of one step may take in this city's definition, twice (there and back), and 60 seconds.
const PATIENCE: Duration = Duration::from_secs(240);
/// How many orders are under way at once.
const IN_FLIGHT: usize = 4;

/// Seconds of faults, if not each of the quick ones once; and the seed.
fn settings() -> (Option<u64>, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("AMENDS_CHAOS_SECONDS"), number("AMENDS_CHAOS_SEED").unwrap_or(1))
}

/// Orders, started over both coordinators, each as often as it takes; some are then started again, with the same input
/// and with another, and some paused and resumed.
async fn orders(witness: &Witness, clients: &[Client], is_over: &AtomicBool, worker: usize) {
    let mut dice = Dice::new(1_000 + u64::try_from(worker).expect("small"));
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        number += 1;
        let plan = [Plan::Whole, Plan::Whole, Plan::SoldOut, Plan::Declined][dice.below(4)];
        let key = format!("{worker}-{number}");
        let order = plan.order(&key);
        let id = loop {
            if let Some(Answer::Saga(id)) = witness.order(&clients[dice.below(2)], &order).await {
                break id;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        match dice.below(8) {
            0 => drop(witness.order(&clients[dice.below(2)], &order).await),
            1 => {
                let mut other = order.clone();
                other["total"] = 1.into();
                let _ = witness.order(&clients[dice.below(2)], &other).await;
            }
            2 => {
                let request = OperateRequest { reason: "to see".to_owned(), step: None };
                for action in [Action::Pause, Action::Resume] {
                    let client = &clients[dice.below(2)];
                    let saga = id.to_string();
                    let said = client.operate(&saga, action, &request, None);
                    let _ = tokio::time::timeout(Duration::from_secs(5), said).await;
                }
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(u64::try_from(dice.below(400)).expect("small"))).await;
    }
}

/// Looks at the sagas again and again: what was once seen of an end must hold.
async fn watch(witness: &Witness, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        let looked = tokio::time::timeout(Duration::from_secs(5), evidence::look(&*witness.store)).await;
        if let Ok(Some(mut seen)) = looked {
            let mut sightings = witness.sightings.lock().await;
            seen.retain(|sighting| sightings.iter().rev().find(|old| old.saga == sighting.saga) != Some(sighting));
            sightings.extend(seen);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Sagas whose resumption was lost in the storm.
async fn resume_all(land: &Land) {
    let city = &land.city;
    let client = &land.coordinators[0].client;
    let request = OperateRequest { reason: "the storm is over".to_owned(), step: None };
    for (id, stored) in evidence::sagas(&*city.store).await {
        if stored.saga.paused && !stored.saga.state.is_terminal() {
            eventually_within(Duration::from_secs(60), &format!("{id} is resumed"), async || {
                client.operate(&id.to_string(), Action::Resume, &request, None).await.ok()
            })
            .await;
        }
    }
}

/// Faults, one after the other, each in its turn before any comes again.
async fn storm(land: &mut Land, seconds: Option<u64>, seed: u64) -> BTreeMap<Fault, u32> {
    let (mut dice, begun) = (Dice::new(seed), Instant::now());
    let mut suffered = BTreeMap::new();
    loop {
        let mut line = Fault::ALL.to_vec();
        dice.shuffle(&mut line);
        for fault in line {
            let is_over = match seconds {
                Some(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
                None => fault.is_slow(),
            };
            if !is_over {
                println!("{:>6.1} s  {fault:?}", begun.elapsed().as_secs_f32());
                land.suffer(fault, &mut dice).await;
                *suffered.entry(fault).or_default() += 1;
            }
        }
        if seconds.is_none_or(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
            return suffered;
        }
    }
}

/// A foreign transaction that is open all the time, and opened again when the server was killed under it.
async fn hold_the_horizon(url: String, is_over: Arc<AtomicBool>) {
    let pool = sqlx::PgPool::connect_lazy(&url).expect("the address is right");
    while !is_over.load(Ordering::SeqCst) {
        if let Ok(mut transaction) = pool.begin().await {
            let look = "select pg_current_xact_id()::text";
            while !is_over.load(Ordering::SeqCst) && sqlx::query(look).execute(&mut *transaction).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_faults_every_guarantee_holds() {
    let (seconds, seed) = settings();
    let name = format!("a storm of {seconds:?} s with AMENDS_CHAOS_SEED={seed}");
    println!("{name}");
    let mut land = Land::found().await;
    let witness = land.city.witness.clone();
    let clients: Arc<Vec<Client>> = Arc::new(land.coordinators.iter().map(|server| server.client.clone()).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let mut others = tokio::task::JoinSet::new();
    for worker in 0..IN_FLIGHT {
        let (witness, clients, is_over) = (witness.clone(), clients.clone(), is_over.clone());
        others.spawn(async move { orders(&witness, &clients, &is_over, worker).await });
    }
    others.spawn(hold_the_horizon(land.city.database("amends"), is_over.clone()));
    let (watched, watching) = (Arc::new(AtomicBool::new(false)), witness.clone());
    let watching = tokio::spawn({
        let watched = watched.clone();
        async move { watch(&watching, &watched).await }
    });

    let ended = async || witness.sightings.lock().await.iter().any(|seen| seen.state == "COMPLETED").then_some(());
    eventually_within(Duration::from_secs(60), "orders are placed", ended).await;
    let suffered = storm(&mut land, seconds, seed).await;
    let calm = Instant::now();
    is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = others.join_next().await {
        ended.expect("nobody panics");
    }

    let health = async || land.city.store.health().await.ok();
    let quiet = eventually_within(Duration::from_secs(60), "the store answers", health).await.now;
    println!("{:>6.1} s  after the storm: no more orders", calm.elapsed().as_secs_f32());
    resume_all(&land).await;
    eventually_within(PATIENCE, "every saga ends or is stuck", async || {
        let seen = evidence::look(&*land.city.store).await?;
        let rests = |state| matches!(state, "COMPLETED" | "COMPENSATED" | "STUCK");
        seen.iter().all(|sighting| rests(sighting.state)).then_some(())
    })
    .await;
    println!("{:>6.1} s  after the storm: every saga has ended", calm.elapsed().as_secs_f32());
    // Late echoes of the storm must not change anything either.
    land.suffer(Fault::RepliesRepeated, &mut Dice::new(seed)).await;
    land.suffer(Fault::CommandsRepeated, &mut Dice::new(seed)).await;
    eventually_within(Duration::from_secs(60), "every queue is empty", async || land.is_still().await.then_some(()))
        .await;
    watched.store(true, Ordering::SeqCst);
    watching.await.expect("the watcher does not panic");

    println!("{:>6.1} s  after the storm: every queue is empty", calm.elapsed().as_secs_f32());
    // A service works on so many commands at once, of which one fault can catch all.
    let may_be_unheard = suffered.values().sum::<u32>() as usize * 16;
    let evidence = land.city.evidence(quiet, PATIENCE, may_be_unheard).await;
    let verdict = judge(&evidence);
    let mut states: BTreeMap<&str, u32> = BTreeMap::new();
    for stored in evidence.sagas.values() {
        *states.entry(stored.saga.state.as_str()).or_default() += 1;
    }
    println!("faults: {suffered:?}\nsagas: {states:?}\nmessages heard: {}\n{verdict}", evidence.tap.len());
    verdict.is_innocent(&name);
    for guarantee in DECIDED.into_iter().filter(|guarantee| ![9, 15].contains(guarantee)) {
        assert!(verdict.weighed(guarantee) > 0, "nothing was weighed for {guarantee}");
    }
}
