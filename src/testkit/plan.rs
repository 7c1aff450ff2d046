//! A plan: what a simulation is run with. As a value, as YAML, and as the command line that replays it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{self, Definition};
use crate::id::StepIndex;
use crate::saga::Direction;
use crate::testkit::{Attempts, Fault, FaultKind, InvalidPlan, UNLIMITED};

/// What a simulation is run with; everything else follows from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The definition's file, relative to the plan's. Only in files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// What the saga is started with; made up from the input's schema when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// What participants put out, by step; made up when it is not given.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub outputs: serde_json::Map<String, Value>,
    /// What goes wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// Draws how long messages take, and with it the order of what happens side by side.
    #[serde(default)]
    pub seed: u64,
    /// What should come of it; any end that is no breach when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expectation>,
}

/// What should come of a plan. What is not given is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expectation {
    /// The saga's state in the words of the contract, for example `COMPENSATED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The steps that were undone, in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone: Option<Vec<String>>,
    /// The problem type that a stuck saga gives as its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

impl Plan {
    /// Reads a plan from YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(source: &str) -> Result<Self, InvalidPlan> {
        let value = definition::to_json(source).ok_or_else(|| InvalidPlan::Text("neither YAML nor JSON".to_owned()))?;
        serde_json::from_value(value).map_err(|error| InvalidPlan::Text(error.to_string()))
    }

    /// Nothing goes wrong.
    pub fn quiet() -> Self {
        Self::default()
    }

    /// With one more fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// With this seed.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The fault of this attempt, by its place in the plan; or `Retry` without one, to lead up to a later one.
    pub(super) fn at(
        &self,
        definition: &Definition,
        step: StepIndex,
        direction: Direction,
        attempt: u32,
    ) -> Option<(Option<usize>, FaultKind)> {
        let step = definition.step(step);
        let policy = match (direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => &compensation.retry,
            _ => &step.retry,
        };
        let here =
            self.faults.iter().enumerate().filter(|(_, fault)| fault.step == step.name && fault.direction == direction);
        let is_struck = |attempts| match attempts {
            Attempts::Only(n) => n == attempt,
            Attempts::Every => policy.max_attempts.is_some() || attempt <= UNLIMITED,
        };
        if let Some((at, fault)) = here.clone().find(|(_, fault)| is_struck(fault.attempts)) {
            return Some((Some(at), fault.kind));
        }
        let leads_up = |fault: &Fault| matches!(fault.attempts, Attempts::Only(n) if attempt < n);
        here.clone().any(|(_, fault)| leads_up(fault)).then_some((None, FaultKind::Retry))
    }

    /// The faults in one line; `no faults` when there are none.
    pub fn in_words(&self) -> String {
        if self.faults.is_empty() {
            return "no faults".to_owned();
        }
        self.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    /// The command line that runs this plan on the definition in `file`.
    pub fn replay_line(&self, file: &str, input: &Value) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut line = format!("amends definitions simulate {file} --input {}", quoted(&input.to_string()));
        for fault in &self.faults {
            line.push_str(&format!(" --fault '{fault}'"));
        }
        if self.seed != 0 {
            line.push_str(&format!(" --seed {}", self.seed));
        }
        line
    }
}
