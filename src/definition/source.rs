//! Reads a definition from its text: parse, check, compile. The front door of this module.

use std::sync::Arc;

use serde_json::Value;

use crate::definition::diagnostic::is_deceptive;
use crate::definition::fields::{Findings, Reader, child};
use crate::definition::node::{Node, Parsed};
use crate::definition::sensitive::{Secrets, Sensitive};
use crate::definition::steps::{Defaults, Draft, DraftCompensation};
use crate::definition::{
    Compensation, CompensationAction, Definition, Diagnostic, ExpressionError, Graph, RetryPolicy, Scope, Severity,
    Step, Template, Work, check, checks, expansion, expression, input_schema, node, relations, steps,
};
use crate::id::DefinitionRef;
use crate::payload::Payload;

const MAX_STEPS: usize = 500;
const MAX_KEY: usize = 256;
const KEYS: [&str; 10] =
    ["saga", "version", "owner", "runbook", "key", "input", "timeout", "defaults", "steps", "output"];

/// A definition's text, read.
#[derive(Debug)]
pub struct Checked {
    /// The definition; `None` when there are errors.
    pub definition: Option<Arc<Definition>>,
    /// Every error and warning, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads YAML or JSON (JSON is YAML), finds everything that is wrong with it at once, and compiles it.
pub fn read(source: &str) -> Checked {
    read_with(source, true)
}

/// Compiles a text that was registered before. Only what makes it impossible to run stands in the way: a check that is
/// newer than the registration does not.
pub fn compile(source: &str) -> Option<Arc<Definition>> {
    read_with(source, false).definition
}

fn read_with(source: &str, with_checks: bool) -> Checked {
    let Parsed { root, duplicates } = match node::parse(source) {
        Ok(parsed) => parsed,
        Err(diagnostic) => return Checked { definition: None, diagnostics: vec![*diagnostic] },
    };
    let mut findings = Findings::new(source);
    findings.list = duplicates;
    let definition = build(&mut findings, &root, with_checks);
    let mut diagnostics = findings.list;
    if let Some(definition) = definition.as_ref().filter(|_| with_checks) {
        diagnostics.extend(relations(source, definition, &[]));
    }
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.0);
    let definition =
        definition.filter(|_| diagnostics.iter().all(|found| found.severity != Severity::Error)).map(Arc::new);
    Checked { definition, diagnostics }
}

/// The content of a definition's text as JSON, unchecked; `None` when the text is no YAML.
pub fn to_json(source: &str) -> Option<Value> {
    node::parse(source).ok().map(|parsed| parsed.root.to_json())
}

fn build(findings: &mut Findings<'_>, root: &Node, with_checks: bool) -> Option<Definition> {
    if !findings.mapping(root, "", &KEYS) {
        return None;
    }
    let name = findings.required(root, "", "saga", "saga: place-order").and_then(|node| findings.name(node, "/saga"));
    let version = findings
        .required(root, "", "version", "version: 1")
        .and_then(|node| findings.whole(node, "/version", 1, i32::MAX.unsigned_abs()));
    let owner = findings.text_field(root, "", "owner");
    let runbook = findings.text_field(root, "", "runbook");
    let key = root.get("key").and_then(|node| {
        findings.text(node, "/key")?;
        let template = findings.template(node, "/key", Reader::Key)?;
        if template.expressions().is_empty() && !template.is_whole_input() {
            let message = "this key is the same for every saga, so there would only ever be one";
            findings.error("DEF_KEY_CONSTANT", node.place, "/key", message).suggestion =
                Some("read the input, for example `key: ${ input.orderId }`".to_owned());
        }
        Some(template)
    });
    let input_schema = root.get("input").and_then(|node| input_schema::read(findings, node, "/input"));
    let timeout = root.get("timeout").and_then(|node| findings.duration(node, "/timeout", false));
    let defaults = Defaults::read(findings, root);
    let drafts = drafts(findings, root, &defaults);
    let output = root.get("output").and_then(|node| findings.template(node, "/output", Reader::Output));
    let reads_outputs = !findings.uses.is_empty();
    let graph = drafts.as_deref().and_then(|drafts| check::whole(findings, drafts, timeout));
    let (drafts, graph): (Vec<Draft>, Graph) = drafts.zip(graph)?;
    if with_checks {
        checks::all(findings, &checks::Whole { root, drafts: &drafts, graph: &graph, timeout });
    }
    let pivot = check::pivot_of(&drafts);
    let steps = drafts.into_iter().enumerate().map(|(at, draft)| {
        let is_compensable = !draft.pivot && !check::is_after_pivot(&graph, pivot, at);
        step(draft, is_compensable, &defaults)
    });
    let steps = steps.collect::<Option<_>>()?;
    let content = root.to_json();
    let sensitive = Sensitive::of(&content);
    // What repeats a sensitive output is hidden too, for which it must be known.
    let reads_outputs = reads_outputs || sensitive.is_of_outputs();
    Some(Definition {
        reference: DefinitionRef { name: name?.to_owned(), version: version? },
        owner,
        runbook,
        key,
        input_schema,
        timeout,
        steps,
        graph,
        output,
        hash: Payload::from(content).canonical_hash(),
        reads_outputs,
        sensitive,
        loops: Vec::new(),
        expansions: expansion::Expansions::default(),
    })
}

fn drafts(findings: &mut Findings<'_>, root: &Node, defaults: &Defaults) -> Option<Vec<Draft>> {
    let node = findings.required(root, "", "steps", "steps: [...]")?;
    let items = findings.list(node, "/steps")?;
    if items.is_empty() {
        findings.error("DEF_STEPS_EMPTY", node.place, "/steps", "a saga has at least one step");
        return None;
    }
    if items.len() > MAX_STEPS {
        let message = format!("{} steps; at most {MAX_STEPS} are allowed", items.len());
        findings.error("DEF_STEPS_TOO_MANY", node.place, &child("", "steps"), message);
        return None;
    }
    // All are read before any is given up, so that every error is found.
    let read: Vec<_> = items.iter().enumerate().map(|(at, item)| steps::read(findings, item, at, defaults)).collect();
    read.into_iter().collect()
}

fn step(draft: Draft, is_compensable: bool, defaults: &Defaults) -> Option<Step> {
    let work = draft.work?;
    let compensation = match draft.compensation {
        DraftCompensation::Child if is_compensable => {
            let Work::Saga { name, .. } = &work else { return None };
            let input = Template::literal(serde_json::json!({ "saga": name }));
            let retry = RetryPolicy { max_attempts: None, ..defaults.compensation_retry.clone() };
            let action = steps::COMPENSATE_CHILD.to_owned();
            Compensation::Action(CompensationAction { action, input, timeout: steps::CHILD_TIMEOUT, retry })
        }
        DraftCompensation::Child => Compensation::None,
        DraftCompensation::Action { action, input, timeout, retry } => {
            Compensation::Action(CompensationAction { action, input: input?, timeout, retry })
        }
        DraftCompensation::None | DraftCompensation::Absent => Compensation::None,
        DraftCompensation::Broken => return None,
    };
    Some(Step {
        name: draft.name?,
        work,
        for_each: draft.for_each,
        element: None,
        participant: draft.participant?,
        action: draft.action?,
        input: draft.input?,
        when: draft.when,
        timeout: draft.timeout,
        retry: draft.retry,
        pivot: draft.pivot,
        compensation,
    })
}

impl Definition {
    /// What is wrong with a saga's input: `(JSON pointer, message)` pairs, none when it is fine.
    pub fn check_input(self: &Arc<Self>, input: &Payload) -> Vec<(String, String)> {
        let value = input.value();
        let mut errors: Vec<(String, String)> = match &self.input_schema {
            Some(schema) => schema
                .iter_errors(value)
                .take(50)
                .map(|error| {
                    // An error may quote the value, or one that holds it.
                    let is_open = self.sensitive.is_empty();
                    let message = if is_open { error.to_string() } else { error.masked().to_string() };
                    (error.instance_path().as_str().to_owned(), message)
                })
                .collect(),
            None => Vec::new(),
        };
        inexact_numbers(value, &mut String::new(), &mut errors);
        if errors.is_empty()
            && let Err(error) = self.expanded(input)
        {
            errors.push((String::new(), error.to_string()));
        }
        if !self.sensitive.is_empty() && !errors.is_empty() {
            let secrets = Secrets::of(&self.sensitive, [input]);
            errors.iter_mut().for_each(|(_, message)| secrets.redact(message));
        }
        errors
    }

    /// Whether its `key` reads what is marked as sensitive, as far as the words of the expression tell.
    pub fn has_sensitive_key(&self) -> bool {
        let reads = |key: &Template| key.expressions().iter().any(|of| self.sensitive.is_read_by(&of.text));
        !self.sensitive.is_empty() && (self.key.as_ref()).is_some_and(reads)
    }

    /// The saga's key, computed from its input; `None` when the definition has no `key`.
    ///
    /// # Errors
    /// When the expression fails, or gives something other than 1 to 256 characters of text or a whole number.
    pub fn key_of(&self, input: &Payload) -> Result<Option<String>, ExpressionError> {
        let Some(template) = &self.key else { return Ok(None) };
        let scope = Scope { input: input.value(), saga_id: "", saga_key: None, outputs: &[], item: None };
        let refuse = |message: String| {
            let expression = template.expressions().first().map(|first| first.text.clone()).unwrap_or_default();
            ExpressionError { expression, message }
        };
        let text = match template.evaluate(&scope)? {
            Value::String(text) => text,
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(refuse("a key is text or a whole number".to_owned())),
        };
        check_key(&text).map(|()| Some(text)).map_err(refuse)
    }
}

/// Whether a saga can have this key, wherever it comes from; otherwise why not.
///
/// # Errors
/// When it has not 1 to 256 characters, or has control characters or deceptive ones.
pub fn check_key(key: &str) -> Result<(), String> {
    // Databases refuse a zero character, and the others make one key look like another in a log.
    if key.chars().any(|character| character.is_control() || is_deceptive(character)) {
        return Err("a key has no control characters and none that change how others are shown".to_owned());
    }
    match key.chars().count() {
        1..=MAX_KEY => Ok(()),
        length => Err(format!("a key has 1 to {MAX_KEY} characters, not {length}")),
    }
}

fn inexact_numbers(value: &Value, pointer: &mut String, errors: &mut Vec<(String, String)>) {
    let length = pointer.len();
    match value {
        Value::Number(_) if expression::check_exact(value).is_err() => {
            let message = format!("{value} is beyond 2^53 and not kept exactly by every reader; send it as text");
            errors.push((pointer.clone(), message));
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                pointer.push_str(&format!("/{at}"));
                inexact_numbers(item, pointer, errors);
                pointer.truncate(length);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                pointer.push_str(&child("", key));
                inexact_numbers(item, pointer, errors);
                pointer.truncate(length);
            }
        }
        _ => {}
    }
}
