//! A seeded storm over the whole city: orders keep coming while one fault follows another; then it is quiet, everything
//! ends, and the judge decides.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amends::client::views::OperateRequest;
use amends::client::{Action, Client};
use amends::id::SagaId;
use amends::saga::Saga;
use tokio::time::Instant;

use crate::city::{End, Plan, Witness};
use crate::judge::{Answer, DECIDED, Sighting, evidence, judge};
use crate::summary::{Figures, Suffered};
use crate::support::servers::PrivateRabbit;
use crate::support::{eventually_within, within};
use crate::weather::{Dice, Fault, Land};

/// What all retries of one step may take in this city's definition, twice (there and back), and 60 seconds.
const PATIENCE: Duration = Duration::from_secs(240);
/// How many customers order at once.
const IN_FLIGHT: usize = 4;
/// When so many sagas are under way, as while there is no broker, customers wait.
const UNDER_WAY: usize = 150;

/// Seconds of faults, if not each of the quick ones once; and the seed.
fn settings() -> (Option<u64>, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("AMENDS_CHAOS_SECONDS"), number("AMENDS_CHAOS_SEED").unwrap_or(1))
}

/// Orders, started over both coordinators, each as often as it takes; some are then started again, with the same input
/// and with another, and some paused and resumed.
async fn orders(witness: &Witness, clients: &[Client], is_over: &AtomicBool, worker: usize, seed: u64) {
    let mut dice = Dice::new(seed.wrapping_mul(1_000) + u64::try_from(worker).expect("small"));
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        if witness.under_way.load(Ordering::SeqCst) > UNDER_WAY {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        number += 1;
        let plan = [Plan::Whole, Plan::Whole, Plan::SoldOut, Plan::Declined][dice.below(4)];
        let key = format!("{worker}-{number}");
        let order = plan.order(&key);
        let mut calm = None;
        let id = loop {
            if let Some(Answer::Saga(id)) = witness.order(&clients[dice.below(2)], &order).await {
                break id;
            }
            if is_over.load(Ordering::SeqCst) {
                let calm: &mut Instant = calm.get_or_insert_with(Instant::now);
                assert!(calm.elapsed() < PATIENCE, "{key} is not taken, though nothing is broken any more");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        match dice.below(8) {
            0 => {
                let _ = witness.order(&clients[dice.below(2)], &order).await;
            }
            1 => {
                let mut other = order.clone();
                other["total"] = 1.into();
                let _ = witness.order(&clients[dice.below(2)], &other).await;
            }
            2 => {
                let request = OperateRequest { reason: "to see".to_owned(), step: None };
                for action in [Action::Pause, Action::Resume] {
                    operate(&clients[dice.below(2)], id, action, &request).await;
                }
            }
            3 => {
                let request = OperateRequest { reason: "changed her mind".to_owned(), step: None };
                operate(&clients[dice.below(2)], id, Action::Cancel, &request).await;
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(u64::try_from(dice.below(400)).expect("small"))).await;
    }
}

/// Tries it: the saga may be past it, and the coordinator away.
async fn operate(client: &Client, id: SagaId, action: Action, request: &OperateRequest) {
    let saga = id.to_string();
    let _ = tokio::time::timeout(Duration::from_secs(5), client.operate(&saga, action, request, None)).await;
}

fn is_at_rest(state: &str) -> bool {
    matches!(state, "COMPLETED" | "COMPENSATED" | "STUCK")
}

/// Looks at the sagas again and again: what was once seen of an end must hold.
async fn watch(witness: &Witness, is_over: &AtomicBool) {
    let mut last: HashMap<SagaId, Sighting> = HashMap::new();
    let mut round = 0_u32;
    while !is_over.load(Ordering::SeqCst) {
        // The newest ones every time, and now and then all.
        let pages = (!round.is_multiple_of(30)).then_some(1);
        let looked = tokio::time::timeout(Duration::from_secs(20), evidence::look(&*witness.store, pages)).await;
        if let Ok(Some(mut seen)) = looked {
            let newest = seen.iter().take(500).filter(|sighting| !is_at_rest(sighting.state));
            witness.under_way.store(newest.count(), Ordering::SeqCst);
            seen.retain(|sighting| last.get(&sighting.saga) != Some(sighting));
            last.extend(seen.iter().map(|sighting| (sighting.saga, sighting.clone())));
            witness.sightings.lock().await.extend(seen);
            round += 1;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// What an operator does when it is over: resumes what is paused, whose resumption was lost, and has retried what is
/// stuck, because a step after the pivot, or a compensation, had spent its attempts.
async fn operate_all(land: &Land, action: Action, is_one: impl Fn(&Saga) -> bool) -> usize {
    let client = &land.coordinators[0].client;
    let request = OperateRequest { reason: "the storm is over".to_owned(), step: None };
    let mut count = 0;
    for (id, stored) in evidence::sagas(&*land.city.store).await {
        if !stored.saga.state.is_terminal() && is_one(&stored.saga) {
            count += 1;
            eventually_within(Duration::from_secs(60), &format!("{id} takes {action:?}"), async || {
                client.operate(&id.to_string(), action, &request, None).await.ok()
            })
            .await;
        }
    }
    count
}

/// Until every saga is in one of these states.
async fn come_to(land: &Land, what: &str, is_fine: impl Fn(&str) -> bool) {
    eventually_within(PATIENCE, what, async || {
        let seen = evidence::look(&*land.city.store, None).await?;
        seen.iter().all(|sighting| is_fine(sighting.state)).then_some(())
    })
    .await;
}

/// Faults, one after the other, each in its turn before any comes again.
async fn storm(land: &mut Land, seconds: Option<u64>, seed: u64) -> Suffered {
    let (mut dice, begun) = (Dice::new(seed), Instant::now());
    let mut suffered = Suffered::default();
    let only = std::env::var("AMENDS_CHAOS_ONLY").unwrap_or_default();
    let is_wanted = |fault: &Fault| only.is_empty() || only.split(',').any(|name| name == format!("{fault:?}"));
    loop {
        let mut line: Vec<Fault> = Fault::ALL.iter().copied().filter(is_wanted).collect();
        dice.shuffle(&mut line);
        for fault in line {
            let is_over = match seconds {
                Some(seconds) => begun.elapsed() >= Duration::from_secs(seconds),
                None => fault.is_slow(),
            };
            if is_over {
                continue;
            }
            if let Some(why) = land.cannot_have(fault) {
                suffered.skipped.insert(fault, why);
                continue;
            }
            let (at, start) = (begun.elapsed().as_secs_f32(), Instant::now());
            println!("{at:>8.1} s  {fault:?}");
            land.suffer(fault, &mut dice).await;
            println!("{:>19} for {:.1} s", "", start.elapsed().as_secs_f32());
            *suffered.seen.entry(fault).or_default() += 1;
        }
        if seconds.is_none_or(|seconds| begun.elapsed() >= Duration::from_secs(seconds)) {
            return suffered;
        }
    }
}

/// A foreign transaction that is open all the time, and opened again when the server was killed under it. For how long,
/// and how often.
async fn hold_the_horizon(url: String, is_over: Arc<AtomicBool>) -> (Duration, u32) {
    let pool = sqlx::PgPool::connect_lazy(&url).expect("the address is right");
    let (mut long, mut often) = (Duration::ZERO, 0);
    while !is_over.load(Ordering::SeqCst) {
        if let Ok(mut transaction) = pool.begin().await {
            let (look, begun) = ("select pg_current_xact_id()::text", Instant::now());
            often += 1;
            while !is_over.load(Ordering::SeqCst) && sqlx::query(look).execute(&mut *transaction).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            long += begun.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    (long, often)
}

/// What a queue says whose own process in RabbitMQ has died: to whoever consumes it, and to whoever publishes to it.
const DEAD: &str = "INTERNAL_ERROR";
/// Starts the processes of quorum queues that are not there, and says which. One whose data are gone is taken off the
/// books, so that it is declared anew.
const RAISE: &[&str] = &[
    "eval",
    "[begin Started = ra:restart_server(quorum_queues, amqqueue:get_pid(Q)), \
     Started =:= {error, enoent} andalso rabbit_amqqueue:internal_delete(amqqueue:get_name(Q), <<\"operator\">>), \
     {amqqueue:get_name(Q), Started} end || Q <- rabbit_amqqueue:list(), \
     amqqueue:get_type(Q) =:= rabbit_quorum_queue, whereis(element(1, amqqueue:get_pid(Q))) =:= undefined].",
];

/// The broker's own operator. RabbitMQ 3.10 now and then has a quorum queue on its books whose process, or whose data,
/// are no more: when it is killed just after a queue was deleted and declared again, or stopped in the middle of an
/// election. Only a person brings that back: no client can. Says how often.
async fn attend(broker: PathBuf, logs: PathBuf, is_over: Arc<AtomicBool>) -> u32 {
    let (mut known, mut raised) = (0, 0);
    let complaints = || {
        let logs = std::fs::read_dir(&logs).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs = logs.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap_or_default().matches(DEAD).count()).sum::<usize>()
    };
    while !is_over.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let found = complaints();
        if found > known {
            known = found;
            if let Some(said) = PrivateRabbit::ask(broker.clone(), RAISE).await.filter(|said| said != "[]") {
                println!("{:>19} the broker's operator starts dead queues: {}", "", said.replace('\n', " "));
                raised += 1;
            }
        }
    }
    raised
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_faults_every_guarantee_holds() {
    let (seconds, seed) = settings();
    let name = match seconds {
        Some(seconds) => format!("a storm of {seconds} s, AMENDS_CHAOS_SEED={seed}"),
        None => format!("a storm with each of the quick faults once, AMENDS_CHAOS_SEED={seed}"),
    };
    println!("{name}");
    let mut land = Land::found(seconds.is_some()).await;
    let witness = land.city.witness.clone();
    let clients: Arc<Vec<Client>> = Arc::new(land.coordinators.iter().map(|server| server.client.clone()).collect());
    let is_over = Arc::new(AtomicBool::new(false));
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..IN_FLIGHT {
        let (witness, clients, is_over) = (witness.clone(), clients.clone(), is_over.clone());
        workers.spawn(async move { orders(&witness, &clients, &is_over, worker, seed).await });
    }
    let foreign = tokio::spawn(hold_the_horizon(land.city.database("amends"), is_over.clone()));
    let operator = attend(land.city.rabbit.folder().to_owned(), land.city.folder.path().to_owned(), is_over.clone());
    let operator = tokio::spawn(operator);
    let (watched, watching) = (Arc::new(AtomicBool::new(false)), witness.clone());
    let watching = tokio::spawn({
        let watched = watched.clone();
        async move { watch(&watching, &watched).await }
    });

    let ended = async || witness.sightings.lock().await.iter().any(|seen| seen.state == "COMPLETED").then_some(());
    eventually_within(Duration::from_secs(60), "orders are placed", ended).await;
    let mut suffered = storm(&mut land, seconds, seed).await;
    let calm = Instant::now();
    is_over.store(true, Ordering::SeqCst);
    while let Some(ended) = within(2 * PATIENCE, "customers go home", workers.join_next()).await {
        ended.expect("nobody panics");
    }
    suffered.foreign = within(2 * PATIENCE, "the foreign transaction ends", foreign).await.expect("it does not panic");
    suffered.raised = within(2 * PATIENCE, "the operator goes home", operator).await.expect("it does not panic");

    let health = async || land.city.store.health().await.ok();
    let quiet = eventually_within(Duration::from_secs(60), "the store answers", health).await.now;
    println!("after the storm: no more orders after {:.1} s", calm.elapsed().as_secs_f32());
    let resumed = operate_all(&land, Action::Resume, |saga| saga.paused).await;
    come_to(&land, "every saga ends or is stuck", is_at_rest).await;
    println!("after the storm: every saga is at rest after {:.1} s, {resumed} resumed", calm.elapsed().as_secs_f32());
    let stuck = operate_all(&land, Action::Retry, |saga| saga.state.stuck().is_some()).await;
    come_to(&land, "what was stuck ends too", |state| state != "STUCK" && is_at_rest(state)).await;
    println!("after the storm: every saga has ended after {:.1} s, {stuck} retried", calm.elapsed().as_secs_f32());
    // Late echoes of the storm must not change anything either.
    land.suffer(Fault::RepliesRepeated, &mut Dice::new(seed)).await;
    land.suffer(Fault::CommandsRepeated, &mut Dice::new(seed)).await;
    eventually_within(Duration::from_secs(120), "every queue is empty", async || land.is_still().await.then_some(()))
        .await;
    watched.store(true, Ordering::SeqCst);
    within(2 * PATIENCE, "the watcher goes home", watching).await.expect("it does not panic");
    println!("after the storm: every queue is empty after {:.1} s", calm.elapsed().as_secs_f32());

    let deaf = |(fault, count): (&Fault, &u32)| if fault.may_keep_a_reply_from_the_tap() { *count } else { 0 };
    let end = End {
        quiet_since: quiet,
        patience: PATIENCE,
        set_back: Duration::from_secs(land.set_back),
        may_be_unheard: suffered.seen.iter().map(deaf).sum::<u32>() as usize,
    };
    let evidence = land.city.evidence(end).await;
    let verdict = judge(&evidence);
    println!("\n{name}\n{suffered}\n{}\n\n{verdict}", Figures(&evidence));
    verdict.is_innocent(&name);
    // In a short storm nothing may have come that compensations have an order for, and no operator's action through.
    for guarantee in DECIDED.into_iter().filter(|guarantee| seconds.is_some() || ![9, 15].contains(guarantee)) {
        assert!(verdict.weighed(guarantee) > 0, "nothing was weighed for {guarantee}");
    }
    // In ten minutes each has its turn.
    let is_whole = std::env::var_os("AMENDS_CHAOS_ONLY").is_none();
    let is_due = |fault: &Fault| is_whole && seconds.map_or(!fault.is_slow(), |seconds| seconds >= 600);
    let is_missing = |fault: &&Fault| !suffered.seen.contains_key(fault) && !suffered.skipped.contains_key(fault);
    let missing: Vec<&Fault> = Fault::ALL.iter().filter(|fault| is_due(fault)).filter(is_missing).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
