//! The model: a definition as it is after parsing and checking, with its graph and compiled expressions.

use std::sync::Arc;
use std::time::Duration;

use crate::definition::expansion::Expansions;
use crate::definition::sensitive::Sensitive;
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
    /// What its schemas mark as sensitive.
    pub sensitive: Sensitive,
    /// In an expanded definition: the `forEach` steps, each with the steps that its elements became.
    pub loops: Vec<Loop>,
    /// What it expands to for a given input; see [`Definition::expanded`].
    pub expansions: Expansions,
}

/// A `forEach` step in an expanded definition.
#[derive(Clone, Debug)]
pub struct Loop {
    /// The step's name, by which expressions read the list of its outputs.
    pub name: String,
    /// Gives the list from the saga's input.
    pub items: Template,
    /// The steps of its elements, in the order of the list.
    pub elements: Vec<StepIndex>,
}

/// The participant of steps that the coordinator itself does: sub-sagas, waits and delays.
pub const COORDINATOR: &str = "amends";

/// A unit of work in one participant's database, or something that the coordinator itself sees to.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name, unique in the definition. That of a `forEach` element ends with its place: `reserve[0]`.
    pub name: String,
    /// What kind of work it is.
    pub work: Work,
    /// The service that does it; its queue is `<participant>.commands`. [`COORDINATOR`] where no service is concerned.
    pub participant: String,
    /// What the service is asked to do; the routing key is `<participant>.<action>`.
    pub action: String,
    /// The command's body. A step without `input` is sent the saga's input.
    pub input: Template,
    /// A step whose condition is false is skipped.
    pub when: Option<Condition>,
    /// Done once for each item of a list. Never set in an expanded definition.
    pub for_each: Option<ForEach>,
    /// In an expanded definition: which element of which of [`Definition::loops`] it is.
    pub element: Option<Element>,
    /// How long one attempt may take; how long a wait waits at most, and a delay exactly.
    pub timeout: Duration,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// Whether the saga only goes forward once this step was sent.
    pub pivot: bool,
    /// What undoes it.
    pub compensation: Compensation,
}

/// What kind of work a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// A command to a participant.
    Command,
    /// Another saga. Its start is a command to the coordinator itself, and its end the reply.
    Saga {
        /// The definition's name.
        name: String,
        /// Its version; the newest there is when the step is sent, if not given.
        version: Option<u32>,
    },
    /// Waits for a signal from outside; its payload is the step's output.
    Wait {
        /// The signal's name.
        signal: String,
        /// What becomes of the step when its time-out passes without the signal.
        on_timeout: OnTimeout,
    },
    /// Waits for its time-out.
    Delay,
}

impl Work {
    /// The word in documents and views: `command`, `saga`, `wait` or `delay`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Saga { .. } => "saga",
            Self::Wait { .. } => "wait",
            Self::Delay => "delay",
        }
    }

    /// Whether it is a command that travels through the broker.
    pub fn is_sent(&self) -> bool {
        matches!(self, Self::Command | Self::Saga { .. })
    }
}

/// What becomes of a wait whose signal did not come in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// The step fails, as if a participant had refused it.
    Fail,
    /// The step is skipped.
    Continue,
}

/// A step that is done once for each item of a list.
#[derive(Clone, Debug)]
pub struct ForEach {
    /// Gives the list from the saga's input.
    pub items: Template,
    /// How many items are under way at once; all of them if not given.
    pub max_parallel: Option<u16>,
    /// How many items there may be.
    pub max_items: u16,
}

/// Which element of which `forEach` step a step of an expanded definition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its place in [`Definition::loops`].
    pub of: usize,
    /// Its place in the list.
    pub index: usize,
}

/// What undoes a step.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

    /// The step that an outbox entry names: in a definition that is not expanded, the `forEach` step of an element.
    pub fn named(&self, name: &str) -> Option<&Step> {
        let of = |name: &str| self.steps.iter().find(|step| step.name == name);
        of(name).or_else(|| of(name.split_once('[')?.0))
    }

    /// All step indices, in the order of the file.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = StepIndex> + use<> {
        (0..u16::try_from(self.steps.len()).unwrap_or(u16::MAX)).map(StepIndex)
    }

    /// The pivot, if there is one.
    pub fn pivot(&self) -> Option<StepIndex> {
        self.indices().find(|&index| self.step(index).pivot)
    }

    /// The `wait` step that a signal is for, if there is one.
    pub fn waits_for(&self, signal: &str) -> Option<StepIndex> {
        self.indices().find(|&index| matches!(&self.step(index).work, Work::Wait { signal: own, .. } if own == signal))
    }

    /// The names of the signals that its steps wait for, in the order of the file.
    pub fn signals(&self) -> Vec<&str> {
        self.steps
            .iter()
            .filter_map(|step| match &step.work {
                Work::Wait { signal, .. } => Some(signal.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Where the step lies with respect to the pivot.
    pub fn stage(&self, index: StepIndex) -> Stage {
        match self.pivot() {
            Some(pivot) if pivot == index => Stage::Pivot,
            Some(pivot) if self.graph.is_before(pivot, index) => Stage::AfterPivot,
            _ => Stage::BeforePivot,
        }
    }

    /// The sagas that it starts, with their versions where they are given.
    pub fn children(&self) -> Vec<(String, Option<u32>)> {
        let children = self.steps.iter().filter_map(|step| match &step.work {
            Work::Saga { name, version } => Some((name.clone(), *version)),
            _ => None,
        });
        children.collect()
    }

    /// The services that take part, each once, in the order of the file. The coordinator is none.
    pub fn participants(&self) -> Vec<&str> {
        let mut seen = Vec::new();
        for step in self.steps.iter().filter(|step| step.work == Work::Command) {
            if !seen.contains(&step.participant.as_str()) {
                seen.push(step.participant.as_str());
            }
        }
        seen
    }
}
