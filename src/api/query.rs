//! Query parameters and cursors.

use std::time::Duration;

use axum::http::Uri;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest, Sha256};

use crate::api::problem::{CURSOR_INVALID, DURATION_INVALID, LIMIT_INVALID, Problem, QUERY_INVALID, QUERY_UNKNOWN};
use crate::clock::Timestamp;

/// Items of a page, when the caller does not say.
const DEFAULT_LIMIT: u32 = 50;
/// Items of a page, at most.
const MAX_LIMIT: u32 = 500;

/// A request's query parameters, known to be ones that its route knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Pairs that came by another way than as the parameters of a route.
    pub(crate) fn of(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// Reads the parameters of `uri`, which may be those of `known`; only `state` may be there more than once.
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::new(QUERY_INVALID, error.to_string()))?
            .0;
        for (at, (name, value)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let help = if known.is_empty() {
                    "this route knows none".to_owned()
                } else {
                    format!("known are {}", known.join(", "))
                };
                let told: String = name.chars().take(60).collect();
                let detail = format!("`{told}` is no parameter of this route; {help}");
                return Err(Problem::new(QUERY_UNKNOWN, detail).suggest(name, known.iter().copied()));
            }
            // Undecodable bytes have become replacement characters.
            if value.contains(['\0', char::REPLACEMENT_CHARACTER]) {
                return Err(Problem::new(QUERY_INVALID, format!("`{name}` contains NUL or is not UTF-8")));
            }
            if name != "state" && pairs.iter().take(at).any(|(earlier, _)| earlier == name) {
                return Err(Problem::new(QUERY_INVALID, format!("`{name}` is there twice; leave one out")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of `name`, unless absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, value)| given == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// All values of `name`, each of which may hold several with commas between; each must be one of `known`.
    pub(super) fn words(&self, name: &str, known: &[&str]) -> Result<Vec<String>, Problem> {
        let given = self.0.iter().filter(|(given, _)| given == name).flat_map(|(_, value)| value.split(','));
        let mut words = Vec::new();
        for word in given.map(str::trim).filter(|word| !word.is_empty()) {
            let upper = word.to_uppercase();
            if !known.contains(&upper.as_str()) {
                let told: String = word.chars().take(60).collect();
                let detail = format!("`{told}` is no {name}; known are {}", known.join(", "));
                return Err(Problem::new(QUERY_INVALID, detail).suggest(word, known.iter().copied()));
            }
            if !words.contains(&upper) {
                words.push(upper);
            }
        }
        Ok(words)
    }

    /// `true` or `false`; absent is `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let told: String = other.chars().take(60).collect();
                Err(Problem::new(QUERY_INVALID, format!("`{name}` is `true` or `false`, not `{told}`")))
            }
        }
    }

    /// How many items the page shall have.
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        let Some(given) = self.get("limit") else { return Ok(DEFAULT_LIMIT) };
        given.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
            let told: String = given.chars().take(30).collect();
            Problem::new(LIMIT_INVALID, format!("`limit` must be a whole number from 1 to {MAX_LIMIT}, not `{told}`"))
        })
    }

    /// The earliest start.
    pub(super) fn since(&self, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        self.time("since", now)
    }

    /// A point in time, given as such or as how long ago.
    pub(super) fn time(&self, name: &str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(given) = self.get(name) else { return Ok(None) };
        // An unescaped plus sign has become a space.
        let at = match DateTime::parse_from_rfc3339(&given.replace(' ', "+")) {
            Ok(at) => at.with_timezone(&Utc),
            Err(_) => {
                let ago = TimeDelta::from_std(duration(given)?).map_err(|_| too_long(given))?;
                now.checked_sub_signed(ago).ok_or_else(|| too_long(given))?
            }
        };
        // No saga is older than the epoch of its id; and databases do not reach as far back as this type does.
        Ok(Some(at.max(DateTime::UNIX_EPOCH)))
    }

    /// Where the page begins, if `cursor` says so: what [`cursor`] was given.
    pub(super) fn cursor<const LENGTH: usize>(&self, list: &str) -> Result<Option<[u8; LENGTH]>, Problem> {
        let Some(given) = self.get("cursor") else { return Ok(None) };
        let bad = || Problem::new(CURSOR_INVALID, "take `next` of the page before as it is, with the same filters");
        let bytes = URL_SAFE_NO_PAD.decode(given).map_err(|_| bad())?;
        let (place, check) = bytes.split_at_checked(LENGTH).ok_or_else(bad)?;
        if check != self.check(list, place) {
            return Err(bad());
        }
        place.try_into().map(Some).map_err(|_| bad())
    }

    /// The cursor of the page that begins after `place`.
    pub(super) fn next(&self, list: &str, place: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode([place, &self.check(list, place)].concat())
    }

    /// Ties a cursor to its list and filters, so that one that was cut, mixed up or made up is told from a good one.
    fn check(&self, list: &str, place: &[u8]) -> [u8; 8] {
        let mut hash = Sha256::new();
        hash.update(list);
        hash.update(place);
        let mut filters: Vec<_> = self.0.iter().filter(|(name, _)| name != "cursor" && name != "limit").collect();
        filters.sort();
        for (name, value) in filters {
            hash.update(format!("\0{name}\0{value}"));
        }
        let mut check = [0; 8];
        check.copy_from_slice(&hash.finalize()[..8]);
        check
    }
}

fn too_long(given: &str) -> Problem {
    let told: String = given.chars().take(30).collect();
    Problem::new(DURATION_INVALID, format!("`{told}` reaches further back than time is counted"))
}

/// `250ms`, `30s`, `15m`, `2h`, `1d`.
fn duration(given: &str) -> Result<Duration, Problem> {
    let bad = || {
        let told: String = given.chars().take(30).collect();
        let detail =
            format!("`{told}` is no time: write 2026-11-23T08:00:00Z, or how long ago, for example 90s, 1h, 2d");
        Problem::new(QUERY_INVALID, detail)
    };
    let digits = given.trim_start_matches('-');
    let unit_at = digits.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = digits.split_at(unit_at);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    if number.is_empty() {
        return Err(bad());
    }
    if given.starts_with('-') {
        let detail = format!("`{given}` is negative; write how long ago without a sign");
        return Err(Problem::new(DURATION_INVALID, detail));
    }
    let number: u64 = number.parse().map_err(|_| too_long(given))?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| too_long(given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        let uri = format!("/v1/sagas?{text}").parse().expect("a URI");
        Query::parse(&uri, &["saga", "state", "since", "limit", "cursor"]).expect("known parameters")
    }

    #[test]
    fn a_cursor_is_good_only_as_it_was_given_and_with_its_filters() {
        let given = query("saga=a").next("sagas", &[7; 16]);
        let with = |filters: &str, cursor: &str| query(&format!("{filters}&cursor={cursor}")).cursor::<16>("sagas");
        assert_eq!(with("saga=a&limit=3", &given).expect("it is good"), Some([7; 16]));
        let cut = &given[..given.len() - 1];
        let mut forged = given.clone();
        forged.replace_range(0..1, "Z");
        for (filters, cursor) in [("saga=b", given.as_str()), ("saga=a", cut), ("saga=a", &forged), ("saga=a", "!")] {
            assert_eq!(with(filters, cursor).expect_err("it is bad").code(), "CURSOR_INVALID", "{filters} {cursor}");
        }
        let elsewhere = query(&format!("saga=a&cursor={given}")).cursor::<16>("outbox");
        assert_eq!(elsewhere.expect_err("it is another list's").code(), "CURSOR_INVALID");
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = DateTime::parse_from_rfc3339("2026-11-23T08:00:00Z").expect("a time").with_timezone(&Utc);
        let since = |text: &str| query(&format!("since={text}")).since(now);
        let hour_ago = Some(now - TimeDelta::hours(1));
        assert_eq!(since("1h").expect("a duration"), hour_ago);
        assert_eq!(since("2026-11-23T07:00:00Z").expect("a time"), hour_ago);
        assert_eq!(since("2026-11-23T09:00:00+02:00").expect("a time"), hour_ago);
        assert_eq!(since("40000000d").expect("a duration"), Some(DateTime::UNIX_EPOCH), "as far back as sagas go");
        let refused = |text: &str| since(text).expect_err("it is refused").code().to_owned();
        assert_eq!(
            [refused("-1h"), refused("99999999999999999999d"), refused("999999999999d")],
            ["DURATION_INVALID"; 3]
        );
        assert_eq!([refused("yesterday"), refused("5"), refused("h"), refused("1w")], ["QUERY_INVALID"; 4]);
    }

    #[test]
    fn states_may_be_repeated_or_stand_with_commas() {
        let known = ["RUNNING", "STUCK", "COMPLETED"];
        let states = query("state=stuck,RUNNING&state=STUCK").words("state", &known).expect("they are known");
        assert_eq!(states, ["STUCK", "RUNNING"]);
        assert_eq!(query("state=STUKC").words("state", &known).expect_err("unknown").code(), "QUERY_INVALID");
    }
}
