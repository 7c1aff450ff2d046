//! `amends simulate --seeds`: whole deployments on virtual time, one for each seed.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::{Context, output};
use crate::clock::Stopwatch;
use crate::testkit::world::{self, Bug, Many, Outcome, Seeds, Tally, Violation};

/// How many seeds with violations are told in full.
const TOLD: usize = 20;

/// Which worlds to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run this many whole deployments, each with faults drawn from its seed
    #[arg(long, value_name = "N", group = "worlds")]
    seeds: Option<u64>,
    /// With --seeds: the first seed
    #[arg(long, value_name = "SEED", default_value_t = 0, requires = "seeds")]
    from: u64,
    /// Run the deployment of this seed, and say the hash of everything that happened in it
    #[arg(long, value_name = "SEED", group = "worlds", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// With --seed: tell everything that happened
    #[arg(long, requires = "seed")]
    trace: bool,
    /// On so many threads; on all cores unless said
    #[arg(long, value_name = "N", default_value_t = 0, requires = "seeds")]
    threads: usize,
    /// Plants a bug, to see that it is noticed
    #[arg(long, value_name = "BUG", hide = true, requires = "worlds")]
    bug: Option<Bug>,
}

impl Args {
    /// Whether worlds are wanted rather than plans.
    pub fn is_wanted(&self) -> bool {
        self.seeds.is_some() || self.seed.is_some()
    }
}

/// Runs them.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let bug = args.bug;
    let failed = |error: &dyn std::fmt::Display| CliError::failed(format!("the simulation failed: {error}"));
    if let Some(seed) = args.seed {
        let (trace, running) = (args.trace, move || world::run(seed, bug, args.trace));
        let outcome = tokio::task::spawn_blocking(running).await.map_err(|error| failed(&error))?;
        return one(outcome.map_err(|error| failed(&error))?, trace, bug, context);
    }
    let seeds = Seeds { from: args.from, count: args.seeds.unwrap_or_default() };
    let many = Many { bug, threads: args.threads, until_broken: Vec::new() };
    let watch = Stopwatch::start();
    let running = tokio::task::spawn_blocking(move || {
        let is_lively = std::io::stderr().is_terminal();
        many.run(seeds, &|done| tell_progress(done, seeds.count, is_lively))
    });
    let tally = running.await.map_err(|error| failed(&error))?;
    several(&tally, seeds, watch.elapsed(), bug, context)
}

fn tell_progress(done: u64, of: u64, is_lively: bool) {
    let often = if is_lively { 500 } else { 20_000 };
    if done.is_multiple_of(often) {
        output::note(format!("{done} of {of} seeds"));
    }
}

fn again(seed: u64, bug: Option<Bug>) -> String {
    let bug = bug.map(|bug| format!(" --bug {}", bug.as_str())).unwrap_or_default();
    format!("amends simulate --seed {seed} --trace{bug}")
}

fn said(violation: &Violation) -> String {
    match violation.guarantee {
        0 => violation.what.clone(),
        number => format!("guarantee {number}: {}", violation.what),
    }
}

fn document(outcome: &Outcome, bug: Option<Bug>) -> Value {
    let violations: Vec<Value> = outcome
        .violations
        .iter()
        .map(|violation| json!({ "guarantee": violation.guarantee, "what": violation.what }))
        .collect();
    json!({
        "seed": outcome.seed,
        "hash": format!("{:016x}", outcome.hash),
        "sagas": outcome.ends,
        "commands": outcome.commands,
        "commits": outcome.commits,
        "faults": outcome.fired,
        "operators": outcome.operated,
        "virtualMs": u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
        "violations": violations,
        "again": again(outcome.seed, bug),
    })
}

fn one(outcome: Outcome, trace: bool, bug: Option<Bug>, context: &Context) -> Result<Exit, CliError> {
    let mut told = document(&outcome, bug);
    if trace {
        told["trace"] = outcome.trace.clone().into();
    }
    context.output.one(&told, || {
        let mut text = outcome.trace.join("\n");
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        let ends: Vec<String> = outcome.ends.iter().map(|(state, count)| format!("{count} {state}")).collect();
        text.push_str(&format!("seed {}: {}; hash {:016x}", outcome.seed, ends.join(", "), outcome.hash));
        text
    })?;
    for violation in &outcome.violations {
        output::note(said(violation));
    }
    Ok(if outcome.violations.is_empty() { Exit::Done } else { Exit::Failed })
}

fn several(tally: &Tally, seeds: Seeds, took: Duration, bug: Option<Bug>, context: &Context) -> Result<Exit, CliError> {
    let wrong: Vec<Value> = tally.wrong.iter().map(|outcome| document(outcome, bug)).collect();
    let rate = tally.runs as f64 / took.as_secs_f64().max(0.001);
    let told = json!({
        "from": seeds.from,
        "runs": tally.runs,
        "sagas": tally.ends,
        "commands": tally.commands,
        "commits": tally.commits,
        "faults": tally.fired,
        "operators": tally.operated,
        "seedsPerSecond": rate.round(),
        "wrong": wrong,
    });
    context.output.one(&told, || {
        let ends: Vec<String> = tally.ends.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let faults = tally.fired.iter().map(|(fault, count)| vec![(*fault).to_owned(), count.to_string()]);
        let operators =
            tally.operated.iter().map(|(word, count)| vec![format!("operators: {word}"), count.to_string()]);
        let rows = faults.chain(operators);
        format!(
            "{}\n\n{} runs ({rate:.0} a second), {} sagas ({}), {} commands, {} commits: {} runs with violations",
            output::table(&["fault", "struck"], rows),
            tally.runs,
            tally.sagas(),
            ends.join(", "),
            tally.commands,
            tally.commits,
            tally.wrong.len()
        )
    })?;
    for outcome in tally.wrong.iter().take(TOLD) {
        for violation in &outcome.violations {
            output::note(format!("seed {}: {}", outcome.seed, said(violation)));
        }
        output::note(format!("again: {}", again(outcome.seed, bug)));
    }
    Ok(if tally.wrong.is_empty() { Exit::Done } else { Exit::Failed })
}
