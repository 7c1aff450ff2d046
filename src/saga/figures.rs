//! What was recorded of many sagas of one definition version, in numbers: what advice is drawn from.

use std::time::Duration;

use crate::saga::{Direction, Outcome};

/// The quantiles of [`Latency::quantiles`], in thousandths.
pub const QUANTILES: [u32; 6] = [500, 900, 950, 980, 990, 999];

/// The numbers of the sagas of one version that have ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Sagas that have ended, by state, as words of the contract.
    pub ended: Vec<(String, u64)>,
    /// Commands by how they ended.
    pub commands: Vec<CommandCount>,
    /// How long participants took.
    pub latencies: Vec<Latency>,
    /// In how many compensated sagas each step was refused, or its outcome unknown. Sagas that turned round for another
    /// reason than a step are left out: cancelled, sent back by an operator, or out of time.
    pub turned: Vec<(String, u64)>,
    /// Of those, in how many another step was compensated.
    pub undone: Vec<Undone>,
}

/// How many commands of a step ended in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandCount {
    /// The step.
    pub step: String,
    /// Forward or back.
    pub direction: Direction,
    /// How they ended.
    pub outcome: Outcome,
    /// The attempt that settled them, or the last one.
    pub attempt: u32,
    /// How many.
    pub count: u64,
}

/// How long a step's first attempts took that succeeded: from the decision to the reply's commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// The step.
    pub step: String,
    /// Forward or back.
    pub direction: Direction,
    /// How many were measured.
    pub count: u64,
    /// One for each of [`QUANTILES`]: the least time within which at least that share of them was done.
    pub quantiles: [Duration; QUANTILES.len()],
    /// The longest.
    pub longest: Duration,
}

/// A pair of steps in compensated sagas.
#[derive(Clone, Debug, PartialEq)]
pub struct Undone {
    /// The step that was refused, or whose outcome is unknown.
    pub because: String,
    /// The step that was compensated.
    pub step: String,
    /// In how many sagas.
    pub sagas: u64,
}

impl Figures {
    /// Sagas that have ended.
    pub fn sagas(&self) -> u64 {
        self.ended.iter().map(|(_, count)| count).sum()
    }

    /// Commands of a step that satisfy `is`.
    pub fn commands_of(&self, step: &str, direction: Direction, is: impl Fn(&CommandCount) -> bool) -> u64 {
        let of_step = self.commands.iter().filter(|found| found.step == step && found.direction == direction);
        of_step.filter(|found| is(found)).map(|found| found.count).sum()
    }

    /// Sagas that turned round because of `step`.
    pub fn turned_by(&self, step: &str) -> u64 {
        self.turned.iter().filter(|(name, _)| name == step).map(|(_, count)| count).sum()
    }

    /// Sagas that turned round because of `because` and compensated `step`.
    pub fn undone_because(&self, because: &str, step: &str) -> u64 {
        let is_pair = |pair: &&Undone| pair.because == because && pair.step == step;
        self.undone.iter().filter(is_pair).map(|pair| pair.sagas).sum()
    }
}
