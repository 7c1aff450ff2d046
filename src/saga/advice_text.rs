//! Advice in plain sentences.

use std::fmt;
use std::time::Duration;

use crate::saga::Direction;
use crate::saga::advice::{Fit, Move, Retries, Timeout};
use crate::saga::figures::QUANTILES;

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, before, sagas, saved, added, of } = self;
        write!(f, "move `{step}` before `{before}`: ")?;
        if *saved == 0 {
            // It makes room: what reads it comes earlier.
            f.write_str("so that another step can come earlier")?;
            return match added {
                0 => Ok(()),
                more => write!(f, "; about {} sagas would have compensated one step more", grouped(*more)),
            };
        }
        write!(f, "{} of {} sagas would have compensated ", grouped(*sagas), grouped(*of))?;
        if saved == sagas {
            f.write_str("one step fewer")?;
        } else {
            write!(f, "fewer steps, {} in all", grouped(*saved))?;
        }
        match added {
            0 => Ok(()),
            1 => f.write_str(", and about one would have compensated one more"),
            more => write!(f, ", and about {} would have compensated one more", grouped(*more)),
        }
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, direction, fit, timeout, suggested, measured } = self;
        let fit = match fit {
            Fit::Tight => "tight: successes come after it",
            Fit::Loose => "loose: a lost message is noticed late",
        };
        write!(f, "the time-out of {} is too {fit}; it is {}, and of ", named(step, *direction), time(*timeout))?;
        write!(f, "{} successes at the first attempt ", grouped(measured.count))?;
        for (quantile, share) in [(500, "half"), (950, "95 %"), (990, "99 %")] {
            if let Some(at) = QUANTILES.iter().position(|known| *known == quantile) {
                write!(f, "{share} took at most {}, ", time(measured.quantiles[at]))?;
            }
        }
        write!(f, "the longest {}; try {}", time(measured.longest), time(*suggested))
    }
}

impl fmt::Display for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, direction, last_useful, commands, at_most } = self;
        let name = named(step, *direction);
        match last_useful {
            1 => write!(f, "retries of {name} never helped: ")?,
            last => write!(f, "attempts of {name} after number {last} never helped: ")?,
        }
        let share = at_most * 100.0;
        write!(f, "{} commands got that far and none succeeded (at most {share:.1} % would)", grouped(*commands))
    }
}

fn named(step: &str, direction: Direction) -> String {
    match direction {
        Direction::Action => format!("`{step}`"),
        Direction::Compensation => format!("the compensation of `{step}`"),
    }
}

/// 1340 as 1,340.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut told = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            told.push(',');
        }
        told.push(digit);
    }
    told
}

/// A duration to three figures or so.
fn time(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1_000.0;
    match millis {
        _ if millis < 10.0 => format!("{millis:.1} ms"),
        _ if millis < 1_000.0 => format!("{millis:.0} ms"),
        _ if millis < 60_000.0 => format!("{} s", short(millis / 1_000.0)),
        _ if millis < 3_600_000.0 => format!("{} min", short(millis / 60_000.0)),
        _ => format!("{} h", short(millis / 3_600_000.0)),
    }
}

fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_told_as_a_person_would() {
        let step = |name: &str| name.to_owned();
        let plain =
            Move { step: step("pick"), before: step("authorise-payment"), sagas: 212, saved: 212, added: 0, of: 1_340 };
        assert_eq!(
            plain.to_string(),
            "move `pick` before `authorise-payment`: 212 of 1,340 sagas would have compensated one step fewer"
        );
        let both = Move { saved: 424, added: 3, ..plain };
        assert_eq!(
            both.to_string(),
            "move `pick` before `authorise-payment`: 212 of 1,340 sagas would have compensated fewer steps, 424 in \
             all, and about 3 would have compensated one more"
        );
    }

    #[test]
    fn numbers_and_times_are_short() {
        assert_eq!([grouped(0), grouped(999), grouped(1_000), grouped(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let times = [3, 42, 1_500, 30_000, 150_000, 7_200_000].map(|millis| time(Duration::from_millis(millis)));
        assert_eq!(times, ["3.0 ms", "42 ms", "1.5 s", "30 s", "2.5 min", "2 h"]);
    }
}
