//! The model: a definition as it is after parsing and checking, with its graph and compiled expressions.

use std::sync::Arc;
use std::time::Duration;

use crate::definition::{Condition, Graph, Template};
use crate::id::{DefinitionRef, StepIndex};

/// A saga definition that has passed every check. Immutable; shared by all sagas that are pinned to it.
#[derive(Debug)]
pub struct Definition {
    /// Name and version.
    pub reference: DefinitionRef,
    /// The team that answers for it.
    pub owner: Option<String>,
    /// Where operators read what to do.
    pub runbook: Option<String>,
    /// Gives the saga's key from its input; starting twice with one key gives one saga.
    pub key: Option<Template>,
    /// The JSON Schema that a saga's input must satisfy, compiled.
    pub input_schema: Option<Arc<jsonschema::Validator>>,
    /// How long the saga may take until its pivot is sent; then it compensates.
    pub timeout: Option<Duration>,
    /// The steps, in the order of the file. Never empty.
    pub steps: Vec<Step>,
    /// Which step depends on which.
    pub graph: Graph,
    /// What a completed saga puts out.
    pub output: Option<Template>,
    /// SHA-256 of the definition's content in canonical JSON: YAML and JSON of equal content have equal hashes.
    pub hash: [u8; 32],
    /// Whether any expression reads a step's output, so that outputs must be loaded with the saga.
    pub reads_outputs: bool,
}

/// A unit of work in one participant's database.
#[derive(Debug)]
pub struct Step {
    /// Its name, unique in the definition.
    pub name: String,
    /// The service that does it; its queue is `<participant>.commands`.
    pub participant: String,
    /// What the service is asked to do; the routing key is `<participant>.<action>`.
    pub action: String,
    /// The command's body. A step without `input` is sent the saga's input.
    pub input: Template,
    /// A step whose condition is false is skipped.
    pub when: Option<Condition>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Whether the saga only goes forward once this step was sent.
    pub pivot: bool,
    /// What undoes it.
    pub compensation: Compensation,
}

/// What undoes a step.
#[derive(Debug)]
pub enum Compensation {
    /// Nothing: the step leaves nothing behind, or cannot be compensated because the pivot lies before it.
    None,
    /// A command to the same participant.
    Action(CompensationAction),
}

impl Compensation {
    /// The command, unless there is none.
    pub fn action(&self) -> Option<&CompensationAction> {
        match self {
            Self::None => None,
            Self::Action(action) => Some(action),
        }
    }
}

/// The command that undoes a step.
#[derive(Debug)]
pub struct CompensationAction {
    /// What the participant is asked to do.
    pub action: String,
    /// The command's body. A compensation without `input` is sent the body of the action that it undoes.
    pub input: Template,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// When and how often to try again.
    pub retry: RetryPolicy,
}

/// When and how often a command is sent again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts, the first one included; `None` is without limit.
    pub max_attempts: Option<u32>,
    /// The wait before the second attempt.
    pub initial_interval: Duration,
    /// By what the wait grows with each further attempt; at least 1.
    pub backoff_coefficient: f64,
    /// The longest wait.
    pub max_interval: Duration,
    /// Whether each wait is drawn between zero and its full length, so that many sagas do not retry in step.
    pub full_jitter: bool,
    /// Error types that turn a `retry` into a failure.
    pub non_retryable: Vec<String>,
}

impl RetryPolicy {
    /// Whether attempt `attempt` (from 1, counted since the last operator's retry) was the last.
    pub fn is_spent(&self, attempt: u32) -> bool {
        self.max_attempts.is_some_and(|max| attempt >= max)
    }

    /// The wait after attempt `attempt` (from 1). `fraction` in `0.0..1.0` is where in the wait a full jitter falls.
    pub fn delay_after(&self, attempt: u32, fraction: f64) -> Duration {
        let grown = self.initial_interval.as_secs_f64()
            * self.backoff_coefficient.powi(attempt.saturating_sub(1).min(1_000) as i32);
        let capped = grown.min(self.max_interval.as_secs_f64());
        let drawn = if self.full_jitter { capped * fraction } else { capped };
        Duration::try_from_secs_f64(drawn).unwrap_or(self.max_interval)
    }
}

/// Where a step lies with respect to the pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before the pivot, or in a definition without one: compensated when the saga goes backward.
    BeforePivot,
    /// The pivot itself.
    Pivot,
    /// After the pivot: retried until done or stuck.
    AfterPivot,
}

impl Definition {
    /// The step at `index`.
    ///
    /// # Panics
    /// When `index` was not taken from this definition: a bug of the caller.
    pub fn step(&self, index: StepIndex) -> &Step {
        &self.steps[index.at()]
    }

    /// The index of the step called `name`.
    pub fn find(&self, name: &str) -> Option<StepIndex> {
        self.steps.iter().position(|step| step.name == name).and_then(|at| u16::try_from(at).ok()).map(StepIndex)
    }

    /// All step indices, in the order of the file.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = StepIndex> + use<> {
        (0..u16::try_from(self.steps.len()).unwrap_or(u16::MAX)).map(StepIndex)
    }

    /// The pivot, if there is one.
    pub fn pivot(&self) -> Option<StepIndex> {
        self.indices().find(|&index| self.step(index).pivot)
    }

    /// Where the step lies with respect to the pivot.
    pub fn stage(&self, index: StepIndex) -> Stage {
        match self.pivot() {
            Some(pivot) if pivot == index => Stage::Pivot,
            Some(pivot) if self.graph.is_before(pivot, index) => Stage::AfterPivot,
            _ => Stage::BeforePivot,
        }
    }

    /// The services that take part, each once, in the order of the file.
    pub fn participants(&self) -> Vec<&str> {
        let mut seen = Vec::new();
        for step in &self.steps {
            if !seen.contains(&step.participant.as_str()) {
                seen.push(step.participant.as_str());
            }
        }
        seen
    }
}
