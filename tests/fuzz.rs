//! Everything that reads bytes from outside, on the corpus and on what becomes of it by chance. What is claimed is in
//! `fuzz/src`; `fuzz/run` drives the same claims by coverage, for as long as one likes.
//!
//! Each target gets a fixed number of inputs from a fixed seed, so that a run can be repeated.
//! `AMENDS_FUZZ_SECONDS=60` runs each for so long instead, and `AMENDS_FUZZ_SEED=7` with other inputs.

#[path = "../fuzz/src/lib.rs"]
mod claims;
#[path = "support/mutate.rs"]
mod mutate;

use std::path::{Path, PathBuf};
use std::time::Duration;

use amends::clock::Stopwatch;
use claims::TARGETS;
use mutate::Mutator;

/// How long a thread's stack is on which a claim must do: that of a worker of tokio's.
const STACK: usize = 2 << 20;
/// How long one input may take, unoptimised and on a busy machine. What is not bounded takes longer than that.
const MOMENT: Duration = Duration::from_secs(10);

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: `{text}` is no number")))
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let own = format!("fuzz/corpus/{name}");
    let mut folders = vec![own.as_str()];
    if ["definition", "made-up"].contains(&name) {
        folders.extend(["sagas", "tests/definitions/good", "tests/definitions/bad"]);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = folders.into_iter().flat_map(|folder| std::fs::read_dir(root.join(folder)).expect(folder));
    let mut corpus: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("readable")))
        .collect();
    corpus.sort();
    corpus
}

/// Runs the claim on every entry of the corpus, then on `inputs` that are made from them.
#[track_caller]
fn fuzz(name: &'static str, inputs: u64) {
    let worker = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
    let running = worker.spawn(move || run(name, inputs)).expect("a thread");
    if let Err(panicked) = running.join() {
        std::panic::resume_unwind(panicked);
    }
}

fn run(name: &str, inputs: u64) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    let corpus = corpus(name);
    assert!(corpus.len() >= 3, "there is hardly a corpus for {name}");
    for (path, bytes) in &corpus {
        tell_on_panic(path, || (target.holds)(bytes));
    }
    let words = std::fs::read_to_string(folder("words").join(name).with_extension("dict")).unwrap_or_default();
    let seed = number("AMENDS_FUZZ_SEED").unwrap_or(1);
    let mut mutator = Mutator::new(seed, corpus.into_iter().map(|(_, bytes)| bytes).collect(), &words);
    let limit = number("AMENDS_FUZZ_SECONDS").map(Duration::from_secs);
    // A stack overflow or a hang leaves nothing but this file behind.
    let last = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{name}"));
    let (begun, mut done) = (Stopwatch::start(), 0);
    while limit.map_or(done < inputs, |limit| begun.elapsed() < limit) {
        let bytes = mutator.next();
        std::fs::write(&last, &bytes).expect("written");
        let one = Stopwatch::start();
        let told = format!("{}, input {done} of seed {seed}", last.display());
        tell_on_panic(&told, || (target.holds)(&bytes));
        let took = one.elapsed();
        assert!(took < MOMENT, "{told} took {took:?}");
        done += 1;
    }
    println!("{name}: {done} inputs in {:?}", begun.elapsed());
}

/// Says which input it was; with its name, it can go into the corpus.
fn tell_on_panic(input: &str, claim: impl FnOnce()) {
    if let Err(panicked) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(claim)) {
        eprintln!("the claim does not hold for {input}");
        std::panic::resume_unwind(panicked);
    }
}

#[test]
fn definitions_are_refused_or_usable() {
    fuzz("definition", 800);
}

#[test]
fn accepted_definitions_run_with_what_is_made_up() {
    fuzz("made-up", 150);
}

#[test]
fn expressions_give_a_value_or_say_why() {
    fuzz("expression", 5_000);
}

#[test]
fn commands_are_refused_or_come_back() {
    fuzz("command", 4_000);
}

#[test]
fn replies_are_refused_or_come_back() {
    fuzz("reply", 4_000);
}

#[test]
fn no_message_harms_a_coordinator() {
    fuzz("inbound", 300);
}

#[test]
fn messages_of_the_client_library_become_ours_and_back() {
    fuzz("amqp", 4_000);
}

#[test]
fn no_token_verifies_that_was_not_signed() {
    fuzz("token", 2_000);
}

#[test]
fn every_request_is_answered_and_none_is_a_fault_of_the_servers() {
    fuzz("http", 700);
}

#[test]
fn cursors_are_honoured_or_refused() {
    fuzz("cursor", 1_500);
}

#[test]
fn plans_are_refused_or_run() {
    fuzz("plan", 300);
}

#[test]
fn faults_read_as_they_are_written() {
    fuzz("fault", 4_000);
}

#[test]
fn settings_are_refused_with_their_place_and_a_way_out() {
    fuzz("settings", 4_000);
}

#[test]
fn every_target_has_its_test_and_its_corpus() {
    let here = include_str!("fuzz.rs");
    for target in TARGETS {
        assert!(here.contains(&format!("    fuzz({:?}, ", target.name)), "add a test for {}", target.name);
    }
    for entry in std::fs::read_dir(folder("corpus")).expect("the folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(TARGETS.iter().any(|target| target.name == name), "a corpus without a target: {name}");
    }
}
