//! `amends definitions simulate` and `amends simulate`: a definition on virtual time, with planned faults.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::{Context, output};
use crate::definition;
use crate::testkit::{End, Explorer, Extent, Fault, InvalidPlan, Kit, Plan, Report, Run, Subject, Timeline};

/// What to simulate.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The definition, in YAML or JSON
    #[arg(value_name = "FILE")]
    file: String,
    /// The saga's input: JSON, or a file that holds it; made up from the input's schema when left out
    #[arg(long, value_name = "JSON|FILE")]
    input: Option<String>,
    /// What goes wrong, STEP#ATTEMPT=KIND: `authorise-payment#2=timeout`, `pick#*=drop`, `undo:pick#1=fail`; may be
    /// given several times
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// Place every single fault at every step and attempt, and report each end
    #[arg(long, conflicts_with = "faults")]
    every_fault: bool,
    /// With --every-fault: also this many pairs of faults
    #[arg(long, value_name = "N", default_value_t = 0, requires = "every_fault")]
    pairs: usize,
    /// Draws how long messages take, and with it the order of what happens side by side
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Which plans to run.
#[derive(Debug, clap::Args)]
pub struct Plans {
    /// Plans in YAML or JSON: `definition`, `input`, `outputs`, `faults`, `seed`, `expect`
    #[arg(required_unless_present = "worlds", conflicts_with = "worlds", value_name = "PLAN")]
    plans: Vec<String>,
    #[command(flatten)]
    worlds: super::worlds::Args,
}

/// Runs `amends definitions simulate`.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let subject = subject(&args.file)?;
    let input = args.input.as_deref().map(given).transpose()?;
    if args.every_fault {
        return every_fault(&args, &subject, input, context).await;
    }
    let is_made_up = input.is_none();
    let plan = Plan { input, faults: args.faults, seed: args.seed, ..Plan::quiet() };
    let run = Kit::of(subject).plan(plan).try_run().await.map_err(invalid)?;
    let found = run.faults_found();
    let mut document = run.to_json();
    document["inputMadeUp"] = is_made_up.into();
    context.output.one(&document, || timeline(&run, is_made_up))?;
    if found.is_empty() {
        return Ok(Exit::Done);
    }
    for wrong in &found {
        output::note(format!("wrong: {}", output::escape(wrong)));
    }
    output::note(format!("again: {}", output::escape(&run.plan.replay_line(&args.file, &run.input))));
    Ok(Exit::Failed)
}

fn subject(file: &str) -> Result<Subject, CliError> {
    let (name, text) = super::definitions::text_of(file)?;
    Subject::read(&text).map_err(|found| {
        output::note(definition::render(&name, &text, &found, output::is_lively()));
        CliError::failed("the definition is wrong; nothing was simulated")
    })
}

/// JSON, or the name of a file that holds JSON or YAML.
fn given(text: &str) -> Result<Value, CliError> {
    let looks_like_json = text.trim_start().starts_with(['{', '[', '"']) || serde_json::from_str::<Value>(text).is_ok();
    if looks_like_json {
        return serde_json::from_str(text).map_err(|error| CliError::usage(format!("--input is no JSON: {error}")));
    }
    let (name, text) = super::definitions::text_of(text)?;
    definition::to_json(&text).ok_or_else(|| CliError::usage(format!("`{name}` holds neither JSON nor YAML")))
}

fn invalid(error: InvalidPlan) -> CliError {
    CliError::usage(error.to_string())
}

fn timeline(run: &Run, is_made_up: bool) -> String {
    let mut text = output::table(&Timeline::HEADER, run.timeline.rows().map(Vec::from));
    let made_up = if is_made_up { " (made up from the schema)" } else { "" };
    text.push_str(&format!("\n\ninput{made_up}: {}", output::escape(&run.input.to_string())));
    let took = Timeline::in_words(run.took);
    text.push_str(&format!("\n{} with {}: {} after {took}", run.saga.definition, run.plan.in_words(), run.end));
    if !run.undone.is_empty() {
        text.push_str(&format!("; undone: {}", run.undone.join(", ")));
    }
    text
}

async fn every_fault(
    args: &Args,
    subject: &Subject,
    input: Option<Value>,
    context: &Context,
) -> Result<Exit, CliError> {
    let mut explorations: Vec<(Option<Extent>, Explorer)> = Vec::new();
    match input {
        Some(input) => explorations.push((None, Explorer::of(subject.clone()).input(input))),
        None => {
            // Optional fields decide over conditions, so both are tried: none of them, and all of them.
            let (least, most) = (Extent::Required, Extent::Everything);
            explorations.push((Some(least), Explorer::of(subject.clone()).made_up(least)));
            let all = subject.made_up_input(most).map_err(invalid)?;
            if all != subject.made_up_input(least).map_err(invalid)? {
                explorations.push((Some(most), Explorer::of(subject.clone()).made_up(most)));
            }
        }
    }
    let mut report = Report::default();
    let mut inputs = Vec::new();
    for (extent, explorer) in explorations {
        if let Some(extent) = extent {
            inputs.push(subject.made_up_input(extent).map_err(invalid)?);
        }
        let found = explorer.pairs(args.pairs).try_run(async |kit| kit).await.map_err(invalid)?;
        report.saga.clone_from(&found.saga);
        report.join(found);
    }
    let document = json!({
        "saga": subject.definition().reference.name,
        "version": subject.definition().reference.version,
        "inputsMadeUp": inputs,
        "placements": report.tried(),
        "bad": report.broken(),
        "completed": report.ended("COMPLETED"),
        "compensated": report.ended("COMPENSATED"),
        "stuck": report.ended("STUCK"),
        "neverStruck": report.unreached(),
        "items": report.sound.iter().map(|placed| json!({
            "faults": placed.faults, "seed": placed.seed, "end": placed.end.to_string(), "state": placed.end.state(),
        })).collect::<Vec<_>>(),
        "broken": report.bad.iter().map(Run::to_json).collect::<Vec<_>>(),
    });
    context.output.one(&document, || {
        let mut text = output::table(&["fault", "attempts", "ends"], rows(&report));
        for input in &inputs {
            text.push_str(&format!("\n\ninput (made up from the schema): {}", output::escape(&input.to_string())));
        }
        text.push_str(&format!("\n\n{report}"));
        text
    })?;
    if report.broken() == 0 {
        return Ok(Exit::Done);
    }
    for worst in &report.bad {
        output::note(worst.report(&args.file));
    }
    Err(CliError::failed(format!("{} of {} placements are bad", report.broken(), report.tried())))
}

/// One command and kind of fault.
#[derive(Default)]
struct Group {
    name: String,
    attempts: Vec<String>,
    ends: BTreeMap<String, usize>,
}

/// One row per command and kind of fault: which attempts were struck, and how the sagas ended.
fn rows(report: &Report) -> Vec<Vec<String>> {
    let mut groups: Vec<Group> = Vec::new();
    for placed in &report.sound {
        let Some(last) = placed.faults.last() else { continue };
        let text = last.to_string();
        let (place, kind) = text.split_once('=').unwrap_or((&text, ""));
        let (command, attempt) = place.split_once('#').unwrap_or((place, ""));
        let several = if placed.faults.len() > 2 { "several: " } else { "" };
        let name = format!("{several}{command} {kind}");
        let at = groups.iter().position(|group| group.name == name).unwrap_or(groups.len());
        if at == groups.len() {
            groups.push(Group { name, ..Group::default() });
        }
        let Some(group) = groups.get_mut(at) else { continue };
        if !group.attempts.iter().any(|known| known == attempt) {
            group.attempts.push(attempt.to_owned());
        }
        let end = match &placed.end {
            End::Stuck { step, problem, .. } => format!("STUCK at {step} ({})", problem.kind),
            end => end.state().to_owned(),
        };
        *group.ends.entry(end).or_default() += 1;
    }
    let row = |Group { name, attempts, ends }: Group| {
        let ends: Vec<String> = ends.into_iter().map(|(end, count)| format!("{count} {end}")).collect();
        vec![name, attempts.join(" "), ends.join(", ")]
    };
    groups.into_iter().map(row).collect()
}

/// Runs `amends simulate`.
pub async fn run_plans(args: Plans, context: &Context) -> Result<Exit, CliError> {
    if args.worlds.is_wanted() {
        return super::worlds::run(args.worlds, context).await;
    }
    let mut documents = Vec::new();
    let mut failed = 0;
    for file in &args.plans {
        let (name, text) = super::definitions::text_of(file)?;
        let wrong = |problem: String| CliError::usage(format!("{name}: {problem}"));
        let mut plan = Plan::read(&text).map_err(|error| wrong(error.to_string()))?;
        let Some(of) = plan.definition.take() else {
            return Err(wrong("`definition`, the definition's file, is missing".to_owned()));
        };
        let path = Path::new(file).parent().unwrap_or(Path::new("")).join(of).to_string_lossy().into_owned();
        let is_made_up = plan.input.is_none();
        let run = Kit::of(subject(&path)?).plan(plan).try_run().await.map_err(|error| wrong(error.to_string()))?;
        let found = run.faults_found();
        if context.output.is_for_people() {
            let verdict = if found.is_empty() { "as expected" } else { "NOT as expected" };
            output::line(&format!(
                "{name}: {} with {}: {}, {verdict}",
                run.saga.definition,
                run.plan.in_words(),
                run.end
            ))?;
        }
        if !found.is_empty() {
            failed += 1;
            output::note(run.report(&path));
        }
        let mut document = run.to_json();
        document["plan"] = name.into();
        document["inputMadeUp"] = is_made_up.into();
        documents.push(document);
    }
    if !context.output.is_for_people() {
        context.output.list(&json!({ "items": documents }), &documents, String::new)?;
    }
    if failed == 0 {
        return Ok(Exit::Done);
    }
    Err(CliError::failed(format!("{failed} of {} plans did not go as expected", args.plans.len())))
}
