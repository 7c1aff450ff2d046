//! `amends definitions check`: for people, as JSON, and in the forms that build servers show beside the code.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::definitions::{Source, count, files_word, plural, read, render};
use super::error::{CliError, Exit};
use super::{Context, output};
use crate::definition::{self, Checked, Definition, Diagnostic, RetryBudget, Severity, Work};

/// What to check, and what to make of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files in YAML or JSON; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Fail on warnings too
    #[arg(long)]
    deny_warnings: bool,
    /// Say for each step how long it may be tried
    #[arg(long)]
    budgets: bool,
    /// Print the findings in a form for build servers
    #[arg(long, value_enum, value_name = "FORM", conflicts_with = "budgets")]
    report: Option<Report>,
}

/// A form for build servers.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Report {
    /// Workflow commands of GitHub Actions: annotations at the lines
    Github,
    /// SARIF 2.1.0
    Sarif,
}

/// Reads all sources, each also together with the others, which it may start as sub-sagas.
pub fn together(sources: &[Source]) -> Vec<Checked> {
    let mut all: Vec<Checked> = sources.iter().map(|source| definition::read(&source.text)).collect();
    let definitions: Vec<Arc<Definition>> = all.iter().filter_map(|checked| checked.definition.clone()).collect();
    for (source, checked) in sources.iter().zip(&mut all) {
        let Some(definition) = checked.definition.clone() else { continue };
        for found in definition::relations(&source.text, &definition, &definitions) {
            if !checked.diagnostics.contains(&found) {
                checked.diagnostics.push(found);
            }
        }
        if count(&checked.diagnostics, Severity::Error) > 0 {
            checked.definition = None;
        }
    }
    all
}

/// Checks them; fails when there are errors.
pub fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let sources = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let all = together(&sources);
    let both = || sources.iter().zip(&all);
    match args.report {
        Some(Report::Github) => {
            for (source, checked) in both() {
                checked.diagnostics.iter().try_for_each(|found| output::line(&annotation(&source.name, found)))?;
            }
        }
        Some(Report::Sarif) => {
            let text = serde_json::to_string_pretty(&sarif(&sources, &all));
            output::line(&text.map_err(|error| CliError::failed(format!("no JSON: {error}")))?)?;
        }
        None if context.output.is_for_people() => {
            for (source, checked) in both() {
                tell(source, checked, args.budgets)?;
            }
        }
        None => {
            let documents: Vec<Value> = both().map(|(source, checked)| document(source, checked)).collect();
            context.output.list(&json!({ "items": documents }), &documents, String::new)?;
        }
    }
    let total = |severity| all.iter().map(|checked| count(&checked.diagnostics, severity)).sum::<usize>();
    let (errors, warnings) = (total(Severity::Error), total(Severity::Warning));
    let checked = files_word(args.files.len());
    if errors > 0 {
        output::note(format!("{errors} {} in {checked} checked", plural(errors, "error")));
        explain(&all);
        return Ok(Exit::Failed);
    }
    if warnings > 0 && args.deny_warnings {
        output::note(format!(
            "{warnings} {} in {checked} checked, and warnings are denied",
            plural(warnings, "warning")
        ));
        explain(&all);
        return Ok(Exit::Failed);
    }
    output::next(&[format!("amends definitions register {}", args.files.join(" "))]);
    Ok(Exit::Done)
}

fn explain(all: &[Checked]) {
    if let Some(first) = all.iter().flat_map(|checked| &checked.diagnostics).next() {
        output::next(&[format!("amends explain {}", first.code)]);
    }
}

fn tell(source: &Source, checked: &Checked, with_budgets: bool) -> Result<(), CliError> {
    if !checked.diagnostics.is_empty() {
        output::note(render(source, &checked.diagnostics));
    }
    let Some(definition) = &checked.definition else { return Ok(()) };
    let warnings = match count(&checked.diagnostics, Severity::Warning) {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        many => format!(", {many} warnings"),
    };
    let steps = definition.steps.len();
    let steps = format!("{steps} {}", plural(steps, "step"));
    output::line(&format!("{}: {}, {steps}{warnings}", source.name, definition.reference))?;
    if with_budgets {
        for (name, budget) in budgets(definition) {
            output::line(&format!("  {name}: {budget}"))?;
        }
    }
    Ok(())
}

/// Each command's name with what it may take at worst.
fn budgets(definition: &Definition) -> Vec<(String, RetryBudget)> {
    let mut all = Vec::new();
    for step in definition.steps.iter().filter(|step| step.work == Work::Command) {
        all.push((step.name.clone(), step.retry.budget(step.timeout)));
        if let Some(undo) = step.compensation.action() {
            all.push((format!("{} (compensation)", step.name), undo.retry.budget(undo.timeout)));
        }
    }
    all
}

fn document(source: &Source, checked: &Checked) -> Value {
    let reference = checked.definition.as_ref().map(|definition| &definition.reference);
    let budgets = checked.definition.as_deref().map(budgets).unwrap_or_default();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let findings = checked.diagnostics.iter().map(|found| {
        json!({
            "code": found.code,
            "severity": found.severity,
            "file": source.name,
            "line": found.line,
            "column": found.column,
            "endLine": found.line,
            "endColumn": end_column(found),
            "message": found.message,
            "help": found.suggestion,
            "pointer": found.pointer,
            "text": found.text,
            "fingerprint": fingerprint(source, found),
        })
    });
    json!({
        "file": source.name,
        "valid": checked.definition.is_some(),
        "saga": reference.map(|reference| &reference.name),
        "version": reference.map(|reference| reference.version),
        "diagnostics": findings.collect::<Vec<_>>(),
        "budgets": budgets.iter().map(|(step, budget)| json!({
            "step": step,
            "sentence": budget.to_string(),
            "attempts": budget.attempts,
            "backoffMs": millis(budget.backoff),
            "totalMs": budget.total().map(millis),
        })).collect::<Vec<_>>(),
    })
}

fn end_column(found: &Diagnostic) -> u32 {
    found.column.saturating_add(u32::try_from(found.text.chars().count()).unwrap_or(u32::MAX))
}

/// Stays the same when lines move or steps are put in between, so that a build server knows a finding again.
fn fingerprint(source: &Source, found: &Diagnostic) -> String {
    let content = definition::to_json(&source.text).unwrap_or_default();
    let mut place = String::new();
    let mut at = &content;
    for segment in found.pointer.split('/').skip(1) {
        let next = match at {
            Value::Array(items) => segment.parse().ok().and_then(|index: usize| items.get(index)),
            _ => at.get(segment.replace("~1", "/").replace("~0", "~")),
        };
        at = next.unwrap_or(&Value::Null);
        let name = at.get("name").and_then(Value::as_str);
        place.push('/');
        place.push_str(name.unwrap_or(segment));
    }
    let saga = content.get("saga").and_then(Value::as_str).unwrap_or_default();
    let hash = Sha256::digest([found.code, saga, &place, &found.text].join("\0"));
    hex::encode(hash.get(..8).unwrap_or_default())
}

/// A workflow command of GitHub Actions.
fn annotation(file: &str, found: &Diagnostic) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
    let level = match found.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let message = match &found.suggestion {
        Some(help) => format!("{} ({help})", found.message),
        None => found.message.clone(),
    };
    let (line, column, end) = (found.line, found.column, end_column(found));
    let place = format!("file={},line={line},endLine={line},col={column},endColumn={end}", property(file));
    format!("::{level} {place},title={}::{}", found.code, escape(&message))
}

fn sarif(sources: &[Source], all: &[Checked]) -> Value {
    let mut codes: Vec<&str> =
        all.iter().flat_map(|checked| checked.diagnostics.iter().map(|found| found.code)).collect();
    codes.sort_unstable();
    codes.dedup();
    let rules = codes.iter().map(|code| {
        let title = definition::explain(code).map_or(*code, |page| page.title);
        json!({ "id": code, "shortDescription": { "text": title } })
    });
    let results = sources.iter().zip(all).flat_map(|(source, checked)| {
        checked.diagnostics.iter().map(|found| {
            let help = found.suggestion.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            json!({
                "ruleId": found.code,
                "level": found.severity,
                "message": { "text": format!("{}{help}", found.message) },
                "partialFingerprints": { "amends/v1": fingerprint(source, found) },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": source.name },
                    "region": {
                        "startLine": found.line,
                        "startColumn": found.column,
                        "endLine": found.line,
                        "endColumn": end_column(found),
                    },
                }}],
            })
        })
    });
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "amends",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}
