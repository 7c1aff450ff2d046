//! How long a command may be tried: attempts, waits between them, and all of it in a sentence.

use std::fmt;
use std::time::Duration;

use crate::definition::RetryPolicy;

/// What a retry policy and a time-out come to at worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Attempts, the first one included; `None` is without limit.
    pub attempts: Option<u32>,
    /// All waits between them; of attempts without limit, the longest wait.
    pub backoff: Duration,
    /// How long one attempt may take.
    pub attempt: Duration,
}

impl RetryPolicy {
    /// What this policy comes to at worst, when one attempt may take `timeout`.
    pub fn budget(&self, timeout: Duration) -> RetryBudget {
        let backoff = match self.max_attempts {
            None => self.max_interval,
            Some(attempts) => {
                let mut total = Duration::ZERO;
                for attempt in 1..attempts {
                    let delay = self.delay_after(attempt, 1.0);
                    // From here on every wait is the same.
                    if delay >= self.max_interval || self.backoff_coefficient <= 1.0 {
                        total = total.saturating_add(delay.saturating_mul(attempts - attempt));
                        break;
                    }
                    total = total.saturating_add(delay);
                }
                total
            }
        };
        RetryBudget { attempts: self.max_attempts, backoff, attempt: timeout }
    }
}

impl RetryBudget {
    /// Attempts and waits together; `None` is without limit.
    pub fn total(&self) -> Option<Duration> {
        self.attempts.map(|attempts| self.attempt.saturating_mul(attempts).saturating_add(self.backoff))
    }
}

impl fmt::Display for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = told(self.attempt);
        match self.attempts {
            None => write!(f, "attempts without limit, {each} each, at most {} between two", told(self.backoff)),
            Some(1) => write!(f, "1 attempt of at most {each}, no retries"),
            Some(attempts) => {
                let retries = attempts - 1;
                let word = if retries == 1 { "retry" } else { "retries" };
                let (backoff, tried) = (told(self.backoff), told(self.attempt.saturating_mul(attempts)));
                write!(
                    f,
                    "{attempts} attempts = 1 + {retries} {word}, at most {backoff} of backoff and {tried} of attempts"
                )
            }
        }
    }
}

/// A duration for people: `15 s`, `2 min 30 s`, `1 h 5 min`, `250 ms`.
pub(super) fn told(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
    if seconds == 0 {
        return if rest == 0 { "0 s".to_owned() } else { format!("{rest} ms") };
    }
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let mut parts: Vec<String> = Vec::new();
    for (count, unit) in [(days, "d"), (hours, "h"), (minutes, "min")] {
        if count > 0 {
            parts.push(format!("{count} {unit}"));
        }
    }
    let tenths = rest / 100;
    match (seconds % 60, tenths) {
        (0, 0) => {}
        (whole, 0) => parts.push(format!("{whole} s")),
        (whole, tenths) => parts.push(format!("{whole}.{tenths} s")),
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(max_attempts: Option<u32>) -> RetryPolicy {
        RetryPolicy {
            max_attempts,
            initial_interval: Duration::from_secs(1),
            backoff_coefficient: 2.0,
            max_interval: Duration::from_secs(30),
            full_jitter: true,
            non_retryable: Vec::new(),
        }
    }

    #[test]
    fn a_budget_is_a_sentence() {
        let told = |attempts| policy(attempts).budget(Duration::from_secs(30)).to_string();
        assert_eq!(told(Some(5)), "5 attempts = 1 + 4 retries, at most 15 s of backoff and 2 min 30 s of attempts");
        assert_eq!(told(Some(2)), "2 attempts = 1 + 1 retry, at most 1 s of backoff and 1 min of attempts");
        assert_eq!(told(Some(1)), "1 attempt of at most 30 s, no retries");
        assert_eq!(told(None), "attempts without limit, 30 s each, at most 30 s between two");
    }

    #[test]
    fn a_million_attempts_are_summed_up_at_once() {
        let budget = policy(Some(1_000_000)).budget(Duration::from_secs(1));
        // 1 + 2 + 4 + 8 + 16, then 30 each.
        assert_eq!(budget.backoff.as_secs(), 31 + 30 * (999_999 - 5));
    }

    #[test]
    fn durations_read_well() {
        let cases =
            [(0, "0 s"), (250, "250 ms"), (1_500, "1.5 s"), (150_000, "2 min 30 s"), (90_061_000, "1 d 1 h 1 min 1 s")];
        for (milliseconds, expected) in cases {
            assert_eq!(told(Duration::from_millis(milliseconds)), expected);
        }
    }
}
