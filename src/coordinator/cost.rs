//! What the hot path costs, in instructions: a guard that a noisy machine cannot fool. Each workload is run under
//! callgrind, which counts what it executes, and is compared with `cost.toml`, which is committed.
//!
//! The counts are of the unoptimised build that the other tests use, so that none is built for this; what makes the hot
//! path do more shows there too. They hold for one compiler, by whose version they are filed; under another one they are
//! printed and not judged. `AMENDS_COST=update cargo test --lib cost` writes the file anew.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::coordinator::confirms::Confirms;
use crate::coordinator::gates::{Gates, Limits};
use crate::coordinator::metrics::Metrics;
use crate::coordinator::outbound::ReturnAddress;
use crate::coordinator::plan::{Sources, plan};
use crate::coordinator::registry::Registry;
use crate::coordinator::work::{Item, ReplyItem, StartItem};
use crate::definition::{self, Definition};
use crate::id::{CommandId, SagaId};
use crate::message::{Envelope, Properties, Reply, ReplyBody, TokenKey, TokenKeys};
use crate::payload::Payload;
use crate::saga::{Event, EventKind, ReplyOutcome, Saga, StepState, transition};
use crate::store::Loaded;
use crate::store::memory::MemoryStore;

/// How far a count may be off. Hash maps are seeded by chance, which moves it by less than one in a thousand.
const TOLERANCE: f64 = 0.03;
/// Sagas in a batch.
const SAGAS: u128 = 100;
/// Names the workload to the process that is measured.
const WORKLOAD: &str = "AMENDS_COST_WORKLOAD";

fn now() -> Timestamp {
    chrono::DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
}

fn place_order() -> Arc<Definition> {
    definition::compile(include_str!("../../sagas/place-order.yaml")).expect("a sound definition")
}

fn input() -> Payload {
    let text = r#"{"orderId":"order-0000004308","customer":"4f8d2c1e-90ab-4c55-8f0e-2b6a1f3d7c90","lines":[{"sku":"blue-train","quantity":2}],"total":42}"#;
    Payload::parse(text.as_bytes()).expect("JSON")
}

fn sources(definition: &Arc<Definition>) -> Sources {
    let registry = Registry::new(Arc::new(MemoryStore::new(crate::clock::Clock::System)), Vec::new());
    registry.remember(definition.clone());
    let keys = TokenKeys::new(vec![TokenKey { id: 1, secret: [7; 32] }]).expect("a key");
    let gates = Gates::new(Limits { window: 1 << 20, ..Limits::default() }, Metrics::default());
    let to = ReturnAddress { keys, queue: "amends.replies".to_owned() };
    Sources { registry: Arc::new(registry), to, confirms: Confirms::default(), gates, traces: None, hooks: Vec::new() }
}

fn success(text: &str) -> ReplyOutcome {
    ReplyOutcome::Success { output: Payload::parse(text.as_bytes()).expect("JSON") }
}

const OUTPUT: &str = r#"{"authId":"auth-17","reference":"4f8d2c1e90ab"}"#;

/// The command that a saga waits for.
fn pending(saga: &Saga) -> Option<CommandId> {
    let command = saga.steps.iter().find_map(StepState::in_flight)?.1;
    Some(CommandId { saga: saga.id, seq: command.seq })
}

/// A saga from its start to its end.
#[inline(never)]
fn measured_transitions(definition: &Arc<Definition>, mut saga: Saga) -> Saga {
    let mut kind = EventKind::Started;
    loop {
        let (next, effects) = transition(definition, &saga, &Event { now: now(), kind }).expect("legal");
        black_box(effects);
        saga = next;
        match pending(&saga) {
            Some(id) => kind = EventKind::Replied { seq: id.seq, attempt: 1, outcome: success(OUTPUT) },
            None => return saga,
        }
    }
}

/// Replies from messages, and whose they are.
#[inline(never)]
fn measured_codec(replies: &[Envelope], keys: &TokenKeys) -> usize {
    read_all(replies, keys)
}

/// Apart from the function above: a closure in there would have a name that begins as the function's does, and entering
/// it would end the counting.
fn read_all(replies: &[Envelope], keys: &TokenKeys) -> usize {
    let read = |reply: &Envelope| keys.verify(&Reply::decode(reply).expect("a reply").token).is_ok();
    replies.iter().filter(|reply| read(reply)).count()
}

/// What one commit decides: replies to a hundred sagas, with the next commands made and encoded.
#[inline(never)]
fn measured_batch(items: &[Item], loaded: Loaded, sources: &Sources) -> usize {
    let (changes, plan) = plan(items, loaded, sources);
    black_box(plan);
    changes.updates.len() + changes.starts.len()
}

fn run(workload: &str) {
    let definition = place_order();
    let sources = sources(&definition);
    let id = |n| SagaId(Uuid::from_u128(n));
    let fresh = |n| Saga::new(id(n), &definition, Some(format!("order-{n}")), input(), now());
    match workload {
        "transitions" => {
            for n in 1..=SAGAS {
                let ended = measured_transitions(&definition, fresh(n));
                assert!(ended.state.is_terminal(), "{:?}", ended.state);
            }
        }
        "codec" => {
            let reply = |n| {
                let command = CommandId { saga: id(n), seq: crate::id::Seq(1) };
                let body = ReplyBody::Success(Payload::parse(OUTPUT.as_bytes()).expect("JSON"));
                let reply =
                    Reply { token: sources.to.keys.sign(command, 1), routing_key: sources.to.queue.clone(), body };
                Envelope {
                    properties: Properties { message_id: Some(n.to_string()), ..reply.encode().properties },
                    ..reply.encode()
                }
            };
            let replies: Vec<Envelope> = (1..=SAGAS).map(reply).collect();
            assert_eq!(measured_codec(&replies, &sources.to.keys), replies.len());
        }
        "starts" => {
            let start = |n| {
                Item::Start(StartItem {
                    id: id(n),
                    definition: definition.clone(),
                    key: Some(format!("order-{n}")),
                    input: input(),
                    input_hash: input().canonical_hash(),
                    turn: None,
                    parent: None,
                    trace: None,
                    together: None,
                    tombstone: None,
                })
            };
            let items: Vec<Item> = (1..=SAGAS).map(start).collect();
            let loaded = Loaded { now: now(), sagas: Vec::new() };
            assert_eq!(measured_batch(&items, loaded, &sources), items.len());
        }
        "replies" => {
            let begin = |n| {
                let started = Event { now: now(), kind: EventKind::Started };
                transition(&definition, &fresh(n), &started).expect("legal").0
            };
            let sagas: Vec<Saga> = (1..=SAGAS).map(begin).collect();
            let reply = |saga: &Saga| {
                let command = pending(saga).expect("a command under way");
                Item::Reply(ReplyItem { command, attempt: 1, outcome: success(OUTPUT) })
            };
            let items: Vec<Item> = sagas.iter().map(reply).collect();
            assert_eq!(measured_batch(&items, Loaded { now: now(), sagas }, &sources), items.len());
        }
        other => panic!("no workload is called {other}"),
    }
}

/// Not a test of its own: this is what the test below runs under callgrind.
#[test]
fn a_workload_that_was_asked_for_runs() {
    if let Ok(workload) = std::env::var(WORKLOAD) {
        run(&workload);
    }
}

/// What one workload executes.
fn count(workload: &str) -> u64 {
    let name = format!("{}::a_workload_that_was_asked_for_runs", module_path!().split_once("::").expect("a module").1);
    let run = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=amends::coordinator::cost::measured_*",
        ])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", &name, "--test-threads=1"])
        .env(WORKLOAD, workload)
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{workload}: {said}{}", String::from_utf8_lossy(&run.stdout));
    let count = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.filter(|count| *count > 0).unwrap_or_else(|| panic!("{workload}: nothing was counted: {said}"))
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/coordinator/cost.toml")
}

fn compiler() -> String {
    let asked = Command::new("rustc").arg("--version").output().expect("rustc runs");
    let said = String::from_utf8_lossy(&asked.stdout).trim().to_owned();
    format!("{said}, {}", std::env::consts::ARCH)
}

#[test]
fn the_hot_path_executes_no_more_than_it_did() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        // It is not to be had on every system; where it is, `./test` has installed it.
        assert!(!cfg!(target_os = "linux") || std::env::var_os("AMENDS_TEST_STORE").is_none(), "valgrind is missing");
        println!("SKIPPED: valgrind is not installed, so that nothing is counted");
        return;
    }
    let counts: BTreeMap<String, u64> =
        ["transitions", "codec", "starts", "replies"].map(|workload| (workload.to_owned(), count(workload))).into();
    let compiler = compiler();
    if std::env::var("AMENDS_COST").is_ok_and(|what| what == "update") {
        let mut text =
            format!("# See cost.rs. Instructions of each workload.\ncompiler = \"{compiler}\"\n\n[instructions]\n");
        counts.iter().for_each(|(name, count)| text.push_str(&format!("{name} = {count}\n")));
        std::fs::write(file(), text).expect("written");
        return;
    }
    let known: toml::Table = std::fs::read_to_string(file()).expect("it is committed").parse().expect("TOML");
    let is_comparable = known["compiler"].as_str() == Some(&compiler);
    let mut worse = Vec::new();
    for (name, count) in &counts {
        let before = known["instructions"][name].as_integer().expect("a count");
        let change = *count as f64 / before as f64 - 1.0;
        println!("{name}: {count} instructions, {:+.2} % of {before}", change * 100.0);
        if change.abs() > TOLERANCE {
            worse.push(format!("{name} executes {:+.1} %, from {before} to {count}", change * 100.0));
        }
    }
    if is_comparable {
        let help = "if that is as it should be, write the file anew: AMENDS_COST=update cargo test --lib cost";
        assert!(worse.is_empty(), "{}; {help}", worse.join("; "));
    } else {
        println!("not judged: the counts are of {}, this is {compiler}", known["compiler"]);
    }
}
