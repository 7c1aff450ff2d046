//! A definition that is written in Rust, and what is wrong with it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{Retry, Step, time};
use crate::definition::{Definition, Severity, read};

/// A definition in the making.
#[derive(Clone, Debug)]
pub struct Saga {
    document: Map<String, Value>,
    steps: Vec<Step>,
}

/// A definition that passed every check.
#[derive(Clone, Debug)]
pub struct Built {
    /// What is registered: the document as JSON, which the YAML file of equal content equals in hash.
    pub source: String,
    /// The definition.
    pub definition: Arc<Definition>,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The step that it is about, by its name; `None` when it is about the saga.
    pub step: Option<String>,
    /// Where in the step or saga, as a JSON pointer, for example `/retry/maxAttempts`.
    pub pointer: String,
    /// The code, as it is with YAML files.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub suggestion: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.step {
            Some(step) => write!(f, "step `{step}`{}: ", self.pointer)?,
            None if self.pointer.is_empty() => {}
            None => write!(f, "{}: ", self.pointer)?,
        }
        write!(f, "{} ({})", self.message, self.code)?;
        self.suggestion.as_ref().map_or(Ok(()), |suggestion| write!(f, "; {suggestion}"))
    }
}

/// A definition with errors; all of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the definition has {} error(s): {}", .0.len(), .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidSaga(pub Vec<Finding>);

impl Saga {
    /// A saga called `name`, of version 1 unless said.
    pub fn named(name: impl Into<String>) -> Self {
        let document =
            Map::from_iter([("saga".to_owned(), Value::String(name.into())), ("version".to_owned(), json!(1))]);
        Self { document, steps: Vec::new() }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.document.insert(key.to_owned(), value.into());
        self
    }

    fn default_of(mut self, path: &[&str], value: impl Into<Value>) -> Self {
        let mut at = self.document.entry("defaults").or_insert_with(|| json!({}));
        for key in path {
            at = &mut at[*key];
        }
        *at = value.into();
        self
    }

    /// Its version, from 1.
    #[must_use]
    pub fn version(self, version: u32) -> Self {
        self.with("version", version)
    }

    /// The team that answers for it.
    #[must_use]
    pub fn owner(self, owner: impl Into<String>) -> Self {
        self.with("owner", owner.into())
    }

    /// Where operators read what to do.
    #[must_use]
    pub fn runbook(self, address: impl Into<String>) -> Self {
        self.with("runbook", address.into())
    }

    /// Starting twice with one key gives one saga: for example `${ input.orderId }`.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        self.with("key", key.into())
    }

    /// What it is started with, by type.
    #[must_use]
    pub fn takes<T: JsonSchema>(self) -> Self {
        self.input_schema(SchemaGenerator::default().into_root_schema_for::<T>().to_value())
    }

    /// What it is started with, by JSON Schema.
    #[must_use]
    pub fn input_schema(self, schema: impl Into<Value>) -> Self {
        self.with("input", json!({ "schema": schema.into() }))
    }

    /// How long it may take until its pivot is sent.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", time(timeout))
    }

    /// How long an attempt may take where a step does not say.
    #[must_use]
    pub fn default_timeout(self, timeout: Duration) -> Self {
        self.default_of(&["timeout"], time(timeout))
    }

    /// How steps are tried again that do not say.
    #[must_use]
    pub fn default_retry(self, retry: Retry) -> Self {
        self.default_of(&["retry"], retry)
    }

    /// How long an attempt of a compensation may take that does not say.
    #[must_use]
    pub fn default_undo_timeout(self, timeout: Duration) -> Self {
        self.default_of(&["compensation", "timeout"], time(timeout))
    }

    /// How compensations are tried again that do not say.
    #[must_use]
    pub fn default_undo_retry(self, retry: Retry) -> Self {
        self.default_of(&["compensation", "retry"], retry)
    }

    /// Its next step.
    #[must_use]
    pub fn step<A>(mut self, step: Step<A>) -> Self {
        self.steps.push(step.erased());
        self
    }

    /// What a completed saga puts out, with expressions in it.
    #[must_use]
    pub fn output(self, output: impl Into<Value>) -> Self {
        self.with("output", output)
    }

    /// The document as the YAML file would hold it; unchecked.
    pub fn document(&self) -> Value {
        let mut document = self.document.clone();
        let steps = self.steps.iter().map(|step| Value::Object(step.document.clone())).collect();
        document.insert("steps".to_owned(), Value::Array(steps));
        Value::Object(document)
    }

    /// Makes the document, and checks it as a file is checked; and that steps give their actions every field that
    /// those require.
    ///
    /// # Errors
    /// Everything that is wrong, each with the step that it is about.
    pub fn build(self) -> Result<Built, InvalidSaga> {
        let source = self.document().to_string();
        let checked = read(&source);
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        for found in checked.diagnostics {
            let (step, pointer) = self.place(&found.pointer);
            let finding =
                Finding { step, pointer, code: found.code, message: found.message, suggestion: found.suggestion };
            if found.severity == Severity::Error { errors.push(finding) } else { warnings.push(finding) }
        }
        errors.extend(self.steps.iter().flat_map(missing_fields));
        match checked.definition {
            Some(definition) if errors.is_empty() => Ok(Built { source, definition, warnings }),
            _ => Err(InvalidSaga(errors)),
        }
    }

    /// The step that a pointer leads to, and the rest of the pointer.
    fn place(&self, pointer: &str) -> (Option<String>, String) {
        let within = pointer.strip_prefix("/steps/").and_then(|rest| {
            let (at, rest) = rest.split_once('/').map_or((rest, String::new()), |(at, rest)| (at, format!("/{rest}")));
            Some((self.steps.get(at.parse::<usize>().ok()?)?.name()?, rest))
        });
        within.map_or_else(|| (None, pointer.to_owned()), |(step, rest)| (Some(step), rest))
    }
}

impl<A> Step<A> {
    fn name(&self) -> Option<String> {
        self.document.get("name").and_then(Value::as_str).map(str::to_owned)
    }
}

/// Fields that the action's type requires and the step's input, where it is written out, does not give.
fn missing_fields(step: &Step) -> Vec<Finding> {
    let inputs = [
        ("/input", step.document.get("input"), &step.takes),
        ("/compensation/input", step.document.get("compensation").and_then(|undo| undo.get("input")), &step.undo_takes),
    ];
    let mut findings = Vec::new();
    for (pointer, given, wanted) in inputs {
        let (Some(Value::Object(given)), Some(wanted)) = (given, wanted) else { continue };
        let required = wanted.get("required").and_then(Value::as_array).into_iter().flatten();
        for field in required.filter_map(Value::as_str).filter(|field| !given.contains_key(*field)) {
            findings.push(Finding {
                step: step.name(),
                pointer: pointer.to_owned(),
                code: "DEF_FIELD_MISSING",
                message: format!("the action's input has a field `{field}`, which is not given"),
                suggestion: Some(format!("add `{field}`, or make it an `Option` where it is declared")),
            });
        }
    }
    findings
}
