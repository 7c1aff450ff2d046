//! Advice from what was recorded: a better order of steps, time-outs that do not fit, retries that do not help. Pure:
//! from a definition and [`Figures`].
//!
//! Nothing is said that chance could have made: each kind of advice has a least number of cases, and what it claims
//! holds at the 95 % bound, not only on average. What the data is too thin for is named in [`Advice::silent`].

use std::time::Duration;

use crate::definition::{Definition, Work};
use crate::saga::Direction;
use crate::saga::figures::{Figures, Latency, QUANTILES};
use crate::saga::order;

/// Two-sided 95 %.
const Z: f64 = 1.96;
/// Measured successes that a time-out is judged by, at least.
const LEAST_MEASURED: u64 = 100;
/// With so many, the longest is with 95 % confidence beyond the 99th percentile: 0.99^299 < 5 %.
const LEAST_FOR_LOOSE: u64 = 299;
/// A time-out is too tight when surely this share of the successes came after it.
const TIGHT_SHARE: f64 = 0.005;
/// A time-out is too loose at so many times the longest success.
const LOOSE_FACTOR: u32 = 10;
/// And not worth a word below this.
const LOOSE_LEAST: Duration = Duration::from_secs(10);
/// Commands that were tried again, at least: with none of 60 helped, fewer than 5 % are (rule of three).
const LEAST_RETRIED: u64 = 60;

/// The sentence that says by what measure advice is given.
pub const CRITERION: &str = "advice is given where it holds with 95 % confidence: an order, over all pairs of \
    steps that were compared, from 50 sagas that ended and 20 that it would have changed; a time-out from 100 measured successes (299 to call it too loose); retries from 60 \
    commands that were tried again";

/// What was learned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// Steps to move, the most useful first. What they gain adds up.
    pub moves: Vec<Move>,
    /// The steps before the pivot in the order that results; empty without moves.
    pub order: Vec<String>,
    /// Time-outs that do not fit.
    pub timeouts: Vec<Timeout>,
    /// Retries that never helped.
    pub retries: Vec<Retries>,
    /// What nothing can be said about yet, and why.
    pub silent: Vec<String>,
}

/// A step that would better come earlier.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The step.
    pub step: String,
    /// The step that it would come before.
    pub before: String,
    /// Sagas that would have compensated fewer steps.
    pub sagas: u64,
    /// Compensations that they would have saved.
    pub saved: u64,
    /// Compensations of the moved step that others would have needed instead, as far as can be told.
    pub added: u64,
    /// Sagas that ended.
    pub of: u64,
}

/// A time-out that does not fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeout {
    /// The step.
    pub step: String,
    /// Its action or its compensation.
    pub direction: Direction,
    /// Which way it does not fit.
    pub fit: Fit,
    /// The time-out as it is.
    pub timeout: Duration,
    /// One that would fit.
    pub suggested: Duration,
    /// What was measured.
    pub measured: Latency,
}

/// Which way a time-out does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Successes come after it.
    Tight,
    /// Nothing ever comes near it.
    Loose,
}

/// Attempts that never helped.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries {
    /// The step.
    pub step: String,
    /// Its action or its compensation.
    pub direction: Direction,
    /// The last attempt that ever succeeded.
    pub last_useful: u32,
    /// Commands that were tried again after it. None succeeded.
    pub commands: u64,
    /// The share that could still be helped, at most, at the 95 % bound.
    pub at_most: f64,
}

/// What `figures` say about `definition`.
pub fn advise(definition: &Definition, figures: &Figures) -> Advice {
    let mut advice = Advice::default();
    order::advise(definition, figures, &mut advice);
    for index in definition.indices() {
        let step = definition.step(index);
        if step.work != Work::Command {
            // How long people, other sagas and delays take is no participant's latency.
            continue;
        }
        let undo = step.compensation.action();
        timeout(&step.name, Direction::Action, step.timeout, figures, &mut advice);
        retries(&step.name, Direction::Action, figures, &mut advice);
        if let Some(compensation) = undo {
            timeout(&step.name, Direction::Compensation, compensation.timeout, figures, &mut advice);
            retries(&step.name, Direction::Compensation, figures, &mut advice);
        }
    }
    let is_measured = |least| figures.latencies.iter().any(|latency| latency.count >= least);
    if !is_measured(LEAST_MEASURED) {
        advice.silent.push(format!("time-outs: no step has {LEAST_MEASURED} measured successes yet"));
    }
    let tried_again = |step: &str, direction| figures.commands_of(step, direction, |found| found.attempt > 1);
    let is_retried = |step: &crate::definition::Step| {
        [Direction::Action, Direction::Compensation].iter().any(|&way| tried_again(&step.name, way) >= LEAST_RETRIED)
    };
    if !definition.steps.iter().any(is_retried) {
        advice.silent.push(format!("retries: no step has {LEAST_RETRIED} commands yet that were tried again"));
    }
    advice
}

fn timeout(step: &str, direction: Direction, timeout: Duration, figures: &Figures, advice: &mut Advice) {
    let found = figures.latencies.iter().find(|latency| latency.step == step && latency.direction == direction);
    let Some(measured) = found.filter(|measured| measured.count >= LEAST_MEASURED) else { return };
    let fit = if surely_late(measured, timeout) >= TIGHT_SHARE {
        Fit::Tight
    } else if measured.count >= LEAST_FOR_LOOSE
        && timeout > LOOSE_LEAST
        && timeout > measured.longest.saturating_mul(LOOSE_FACTOR)
    {
        Fit::Loose
    } else {
        return;
    };
    let suggested = match fit {
        Fit::Tight => measured.longest.saturating_mul(2),
        Fit::Loose => measured.longest.saturating_mul(3).max(Duration::from_secs(1)),
    };
    let (step, measured) = (step.to_owned(), measured.clone());
    advice.timeouts.push(Timeout { step, direction, fit, timeout, suggested: rounded_up(suggested), measured });
}

/// The share of successes that came after `timeout`, at the lower 95 % bound.
fn surely_late(measured: &Latency, timeout: Duration) -> f64 {
    // Where a quantile lies beyond the time-out, so does everything above it.
    let first = QUANTILES.iter().zip(measured.quantiles).find(|(_, at)| *at > timeout);
    let late = first.map_or(0, |(quantile, _)| measured.count * u64::from(1_000 - quantile) / 1_000);
    let late = late.max(u64::from(measured.longest > timeout));
    wilson_lower(late, measured.count)
}

/// The lower end of Wilson's score interval for `hits` of `of`.
fn wilson_lower(hits: u64, of: u64) -> f64 {
    if of == 0 {
        return 0.0;
    }
    let (hits, n) = (hits as f64, of as f64);
    let (share, z2) = (hits / n, Z * Z);
    let centre = share + z2 / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + z2 / n)).max(0.0)
}

/// Up to what a person would write: 5 steps per power of ten of seconds.
fn rounded_up(duration: Duration) -> Duration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1);
    let mut unit = 1_u64;
    loop {
        for step in [1, 2, 3, 5, 8] {
            if step * unit >= millis {
                return Duration::from_millis(step * unit);
            }
        }
        match unit.checked_mul(10).filter(|unit| unit.checked_mul(8).is_some()) {
            Some(next) => unit = next,
            None => return duration,
        }
    }
}

fn retries(step: &str, direction: Direction, figures: &Figures, advice: &mut Advice) {
    use crate::saga::Outcome::{Failure, Success, Unknown};
    let of_step = figures.commands.iter().filter(|found| found.step == step && found.direction == direction);
    let last_useful = of_step.filter(|found| found.outcome == Success).map(|found| found.attempt).max();
    // Without any success there is nothing that a retry could be compared with.
    let Some(last_useful) = last_useful else { return };
    let commands = figures.commands_of(step, direction, |found| {
        matches!(found.outcome, Failure | Unknown) && found.attempt > last_useful
    });
    if commands >= LEAST_RETRIED {
        let at_most = 1.0 - 0.05_f64.powf(1.0 / commands as f64);
        advice.retries.push(Retries { step: step.to_owned(), direction, last_useful, commands, at_most });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_bound_is_wilson_s() {
        // From Newcombe (1998), table I: 81 of 263 and 15 of 148.
        assert!((wilson_lower(81, 263) - 0.2553).abs() < 1e-4);
        assert!((wilson_lower(15, 148) - 0.0624).abs() < 1e-4);
        assert!((wilson_lower(0, 20)).abs() < 1e-12);
        assert!((wilson_lower(0, 0)).abs() < 1e-12);
    }

    #[test]
    fn a_suggested_time_out_is_a_round_one() {
        let round = |millis| rounded_up(Duration::from_millis(millis)).as_millis();
        assert_eq!([round(0), round(7), round(1_800), round(2_001), round(80_000)], [1, 8, 2_000, 3_000, 80_000]);
    }
}
