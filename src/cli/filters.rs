//! Which sagas a command is about: the filters of `GET /v1/sagas` as flags.

use serde_json::{Map, Value};

/// Which sagas. All that is given must hold.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which sagas")]
pub struct FilterArgs {
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Only sagas of this version of it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    /// Only sagas in this state; may be given more than once
    #[arg(long, ignore_case = true,
        value_parser = ["RUNNING", "COMPENSATING", "COMPLETED", "COMPENSATED", "STUCK", "ABANDONED"])]
    state: Vec<String>,
    /// Only the saga with this key
    #[arg(long)]
    key: Option<String>,
    /// Only sagas started at or after this time, for example 2026-01-31T12:00:00Z, or so long ago, for example 90m
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only sagas started before this time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Only sagas that are paused, or with `false` those that are not
    #[arg(long, value_name = "true|false", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    paused: Option<bool>,
    /// Only sagas of which a step has this status
    #[arg(long, value_name = "STATUS",
        value_parser = ["failed", "unknown", "pending", "compensating", "waiting", "verified", "compensated", "skipped"])]
    status: Option<String>,
    /// Only sagas that are stuck, or went back, because of an error of this type
    #[arg(long, value_name = "TYPE")]
    error: Option<String>,
    /// Only sagas that are stuck at the step of this number, from 0
    #[arg(long, value_name = "NUMBER")]
    at: Option<u16>,
    /// Only sagas whose input has this value at this path, for example customer.id=c-7
    #[arg(long, value_name = "PATH=VALUE")]
    field: Option<String>,
}

/// A time, or how long ago: `250ms`, `90s`, `15m`, `2h`, `7d`. What it means is decided by the server.
fn time(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let is_ago = matches!(&text[digits.len()..], "ms" | "s" | "m" | "h" | "d") && digits.parse::<u64>().is_ok();
    match chrono::DateTime::parse_from_rfc3339(text) {
        Err(error) if !is_ago => {
            Err(format!("{error}; write it like 2026-01-31T12:00:00Z, or how long ago, for example 90s, 1h, 2d"))
        }
        _ => Ok(text.to_owned()),
    }
}

impl FilterArgs {
    /// As the parameters of `GET /v1/sagas`.
    pub fn pairs(self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        pairs.extend(self.saga.map(|saga| ("saga", saga)));
        pairs.extend(self.version.map(|version| ("version", version.to_string())));
        if !self.state.is_empty() {
            pairs.push(("state", self.state.join(",").to_uppercase()));
        }
        pairs.extend(self.key.map(|key| ("key", key)));
        pairs.extend(self.since.map(|since| ("since", since)));
        pairs.extend(self.until.map(|until| ("until", until)));
        pairs.extend(self.paused.map(|paused| ("paused", paused.to_string())));
        pairs.extend(self.status.map(|status| ("status", status)));
        pairs.extend(self.error.map(|error| ("error", error)));
        pairs.extend(self.at.map(|at| ("at", at.to_string())));
        pairs.extend(self.field.map(|field| ("field", field)));
        pairs
    }

    /// As the `filter` of a bulk job.
    pub fn object(self) -> Value {
        Value::Object(
            self.pairs().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<Map<_, _>>(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn a_time_is_exact_or_how_long_ago() {
        for good in ["2026-01-31T12:00:00Z", "90m", "250ms", "7d"] {
            assert_eq!(time(good).as_deref(), Ok(good));
        }
        for wrong in ["yesterday", "m", "5", "1w", "-1h", "5ü"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
