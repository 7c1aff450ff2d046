//! What became of a run, and the assertions that a test makes on it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::definition::Definition;
use crate::saga::{Direction, Problem, Saga, SagaState};
use crate::testkit::{Fault, Plan, Timeline};

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Every step is done.
    Completed,
    /// Everything that was done is undone.
    Compensated,
    /// It needs a person, and says why.
    Stuck {
        /// The step that holds it up.
        step: String,
        /// Its action or its compensation.
        direction: Direction,
        /// Why.
        problem: Problem,
    },
    /// An operator gave it up.
    Abandoned,
    /// None of these, and nothing will move it any more: never right.
    Unended {
        /// The state it was left in.
        state: String,
    },
}

impl End {
    pub(super) fn of(definition: &Definition, saga: &Saga) -> Self {
        match &saga.state {
            SagaState::Completed => Self::Completed,
            SagaState::Compensated => Self::Compensated,
            SagaState::Abandoned => Self::Abandoned,
            SagaState::Stuck(stuck) => Self::Stuck {
                step: definition.step(stuck.step).name.clone(),
                direction: stuck.direction,
                problem: stuck.problem.clone(),
            },
            state => Self::Unended { state: state.as_str().to_owned() },
        }
    }

    /// The state as a word of the contract.
    pub fn state(&self) -> &str {
        match self {
            Self::Completed => "COMPLETED",
            Self::Compensated => "COMPENSATED",
            Self::Stuck { .. } => "STUCK",
            Self::Abandoned => "ABANDONED",
            Self::Unended { state } => state,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck { step, direction, problem } => {
                let undo = if *direction == Direction::Compensation { "undo:" } else { "" };
                write!(f, "STUCK at {undo}{step}: {problem}")
            }
            end => f.write_str(end.state()),
        }
    }
}

/// One run from start to end.
#[derive(Clone, Debug)]
pub struct Run {
    /// How it ended.
    pub end: End,
    /// Every breach of a guarantee, and every invariant of the user's that does not hold.
    pub violations: Vec<String>,
    /// Planned faults that never struck.
    pub unfired: Vec<Fault>,
    /// The steps that were undone, in order.
    pub undone: Vec<String>,
    /// How often each step took effect: its action, its compensation.
    pub effects: BTreeMap<String, (u32, u32)>,
    /// The highest attempt of each command.
    pub attempts: BTreeMap<(String, Direction), u32>,
    /// From the start to the end; on servers, until the last change.
    pub took: Duration,
    /// What happened.
    pub timeline: Timeline,
    /// What it was run with.
    pub plan: Plan,
    /// On servers: which. On virtual time: `None`.
    pub place: Option<String>,
    /// The input.
    pub input: Value,
    /// The saga as it was in the end.
    pub saga: Saga,
}

impl Run {
    /// Whether no guarantee and no invariant was broken. Planned faults that never struck are another matter.
    pub fn is_sound(&self) -> bool {
        self.violations.is_empty()
    }

    /// Everything that is wrong with the run: breaches, faults that never struck, and what the plan expects.
    pub fn faults_found(&self) -> Vec<String> {
        let mut found = self.violations.clone();
        found.extend(self.unfired.iter().map(|fault| {
            format!("the planned fault `{fault}` never struck: no such attempt was made, or something else came first")
        }));
        if let Some(expected) = &self.plan.expect {
            if let Some(state) = &expected.state
                && state != self.end.state()
            {
                found.push(format!("expected the end {state}, found {}", self.end));
            }
            if let Some(undone) = &expected.undone
                && *undone != self.undone
            {
                found.push(format!(
                    "expected [{}] to be undone, found [{}]",
                    undone.join(", "),
                    self.undone.join(", ")
                ));
            }
            if let Some(reason) = &expected.stuck {
                let is_so = matches!(&self.end, End::Stuck { problem, .. } if problem.kind == *reason);
                if !is_so {
                    found.push(format!("expected to be stuck because of `{reason}`, found {}", self.end));
                }
            }
        }
        found
    }

    /// The run in JSON: plan, timeline, end and what is wrong.
    pub fn to_json(&self) -> Value {
        let problem = match &self.end {
            End::Stuck { step, direction, problem } => {
                json!({"step": step, "direction": direction, "problem": problem})
            }
            _ => Value::Null,
        };
        json!({
            "saga": self.saga.definition.name,
            "version": self.saga.definition.version,
            "input": self.input,
            "faults": self.plan.faults,
            "seed": self.plan.seed,
            "state": self.end.state(),
            "stuck": problem,
            "output": self.saga.output.as_ref().map(|output| output.value().clone()),
            "undone": self.undone,
            "tookSeconds": self.took.as_secs_f64(),
            "wrong": self.faults_found(),
            "timeline": self.timeline.lines,
        })
    }

    /// What to print when something is wrong: the plan, the seed, the timeline, and one line that runs it again.
    pub fn report(&self, file: &str) -> String {
        let mut text = format!(
            "{} with {} (seed {}) ended {}\n",
            self.saga.definition,
            self.plan.in_words(),
            self.plan.seed,
            self.end
        );
        for wrong in self.faults_found() {
            text.push_str(&format!("  wrong: {wrong}\n"));
        }
        text.push_str(&self.timeline.to_string());
        let again = match &self.place {
            None => "again".to_owned(),
            Some(place) => format!("it ran on {place}; on virtual time"),
        };
        text.push_str(&format!("  {again}: {}", self.plan.replay_line(file, &self.input)));
        text
    }

    #[track_caller]
    fn require(&self, holds: bool, what: &str) {
        let found = self.faults_found();
        assert!(holds && found.is_empty(), "{what}\n{}", self.report("FILE"));
    }

    /// Every step is done, no guarantee was broken, and every planned fault struck.
    ///
    /// # Panics
    /// When it is otherwise, with the plan, the timeline and the line that replays it. So do all assertions here.
    #[track_caller]
    pub fn assert_completed(&self) -> &Self {
        self.require(self.end == End::Completed, "the saga did not complete");
        self
    }

    /// Everything that was done is undone.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn assert_compensated(&self) -> &Self {
        self.require(self.end == End::Compensated, "the saga was not compensated");
        self
    }

    /// Just these steps were undone, in this order.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn assert_undone<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> &Self {
        let steps: Vec<&str> = steps.into_iter().collect();
        self.require(self.undone == steps, &format!("expected {steps:?} to be undone, found {:?}", self.undone));
        self
    }

    /// It needs a person, and gives this problem type as its reason.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn assert_stuck(&self, reason: &str) -> &Self {
        let is_so = matches!(&self.end, End::Stuck { problem, .. } if problem.kind == reason);
        self.require(is_so, &format!("the saga is not stuck because of `{reason}`"));
        self
    }

    /// It ended one way or other, and no guarantee was broken.
    ///
    /// # Panics
    /// When it is otherwise.
    #[track_caller]
    pub fn assert_sound(&self) -> &Self {
        self.require(true, "the run is not sound");
        self
    }
}
