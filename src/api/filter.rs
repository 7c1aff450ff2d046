//! Which sagas are meant: the one filter language of `GET /v1/sagas`, bulk jobs, the command line and the console.

use serde_json::{Map, Value};

use crate::api::problem::{FILTER_INVALID, Problem, QUERY_INVALID, nearest};
use crate::api::query::Query;
use crate::client::views::FieldProblem;
use crate::clock::Timestamp;
use crate::store::SagaFilter;
use crate::store::overview::{FieldIs, STATES};

/// The names of the filters.
pub(crate) const FILTERS: [&str; 11] =
    ["saga", "state", "key", "since", "until", "paused", "version", "status", "error", "at", "field"];
/// Statuses of steps, in the order in which people look for them.
pub(crate) const STATUSES: [&str; 8] =
    ["failed", "unknown", "pending", "compensating", "waiting", "verified", "compensated", "skipped"];
/// Names of a path into the input, at most.
const MAX_PATH: usize = 16;

/// The filter that these pairs ask for; pairs of other names are passed over.
///
/// # Errors
/// What in it makes no sense.
pub(crate) fn saga_filter(query: &Query, now: Timestamp) -> Result<SagaFilter, Problem> {
    let wrong = |detail: String| Problem::new(QUERY_INVALID, detail);
    let number = |name: &str, least: u32| match query.get(name) {
        None => Ok(None),
        Some(given) => match given.parse::<u32>().ok().filter(|number| *number >= least) {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(format!("`{name}` is a whole number from {least}, not `{}`", told(given)))),
        },
    };
    let status = query.get("status");
    if let Some(given) = status.filter(|status| !STATUSES.contains(status)) {
        let detail = format!("`{}` is no status of a step; known are {}", told(given), STATUSES.join(", "));
        return Err(wrong(detail).suggest(given, STATUSES));
    }
    let field = match query.get("field") {
        None => None,
        Some(given) => Some(field(given).ok_or_else(|| {
            wrong("`field` is a path into the input and its value, for example customer.id=c-7".to_owned())
        })?),
    };
    Ok(SagaFilter {
        definition: query.get("saga").map(str::to_owned),
        states: query.words("state", &STATES)?,
        key: query.get("key").map(str::to_owned),
        since: query.time("since", now)?,
        until: query.time("until", now)?,
        paused: query.get("paused").map(|_| query.flag("paused")).transpose()?,
        version: number("version", 1)?,
        step_status: status.map(str::to_owned),
        error_type: query.get("error").map(str::to_owned),
        stuck_step: number("at", 0)?.map(|step| u16::try_from(step).unwrap_or(u16::MAX)),
        field,
    })
}

fn told(given: &str) -> String {
    given.chars().take(60).collect()
}

fn field(text: &str) -> Option<FieldIs> {
    let (path, value) = text.split_once('=')?;
    let path: Vec<String> = path.trim().trim_start_matches("input.").split('.').map(str::to_owned).collect();
    let is_sane = path.len() <= MAX_PATH && path.iter().all(|name| !name.is_empty());
    is_sane.then(|| FieldIs { path, value: value.trim().to_owned() })
}

/// The pairs of a filter that was given as an object: a text, number or truth value each; of `state` a list too.
///
/// # Errors
/// What in it cannot be read, at its place below `/filter`.
pub(crate) fn pairs_of(filter: &Map<String, Value>) -> Result<Vec<(String, String)>, Problem> {
    let wrong = |name: &str, detail: String| {
        let place = FieldProblem {
            suggestion: nearest(name, FILTERS)
                .filter(|word| word != name)
                .map(|word| format!("did you mean `{word}`?")),
            ..FieldProblem::at(format!("/filter/{}", name.replace('~', "~0").replace('/', "~1")), detail.clone())
        };
        Problem::new(FILTER_INVALID, detail).errors(vec![place])
    };
    let mut pairs = Vec::new();
    for (name, value) in filter {
        if !FILTERS.contains(&name.as_str()) {
            return Err(wrong(name, format!("`{}` is no filter; known are {}", told(name), FILTERS.join(", "))));
        }
        let values = match value {
            Value::Array(values) if name == "state" => values.iter().collect(),
            value => vec![value],
        };
        for value in values {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.trim().to_owned(),
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => return Err(wrong(name, format!("`{name}` must be a string"))),
            };
            if !text.is_empty() {
                pairs.push((name.clone(), text));
            }
        }
    }
    Ok(pairs)
}

/// The filter as an object, its times as points in time: means the same whenever it is read.
pub(crate) fn fixed(pairs: &[(String, String)], filter: &SagaFilter) -> Value {
    let mut object = Map::new();
    for (name, value) in pairs.iter().filter(|(name, value)| FILTERS.contains(&name.as_str()) && !value.is_empty()) {
        object.insert(name.clone(), value.clone().into());
    }
    let time = |at: Timestamp| Value::from(at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    object.extend(filter.since.map(|at| ("since".to_owned(), time(at))));
    object.extend(filter.until.map(|at| ("until".to_owned(), time(at))));
    if !filter.states.is_empty() {
        object.insert("state".to_owned(), filter.states.clone().into());
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<SagaFilter, Problem> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        saga_filter(&Query::of(pairs), "2026-11-23T14:00:00Z".parse().expect("a time"))
    }

    #[test]
    fn a_field_is_a_path_and_a_value() {
        let found = field("input.customer.id = a=b").expect("a field");
        assert_eq!((found.path, found.value.as_str()), (vec!["customer".to_owned(), "id".to_owned()], "a=b"));
        for wrong in ["customer", "=x", "a..b=1"] {
            assert_eq!(field(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_filter_is_read() {
        let filter = of(&[
            ("saga", "a"),
            ("state", "stuck,RUNNING"),
            ("key", "k"),
            ("since", "90m"),
            ("until", "2026-11-23T13:00:00Z"),
            ("paused", "false"),
            ("version", "2"),
            ("status", "unknown"),
            ("error", "refused"),
            ("at", "0"),
            ("field", "a=1"),
        ])
        .expect("a filter");
        assert_eq!(filter.states, ["STUCK", "RUNNING"]);
        assert_eq!(filter.since, "2026-11-23T12:30:00Z".parse().ok());
        assert_eq!(filter.until, "2026-11-23T13:00:00Z".parse().ok());
        assert_eq!((filter.paused, filter.version, filter.stuck_step), (Some(false), Some(2), Some(0)));
        assert!(filter.is_search());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (name, value) in
            [("state", "STUKC"), ("status", "faild"), ("version", "0"), ("at", "-1"), ("paused", "1"), ("until", "h")]
        {
            assert!(of(&[(name, value)]).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn an_object_becomes_pairs_and_back() {
        let object = json!({ "state": ["STUCK"], "version": 2, "paused": true, "key": null, "since": "1h" });
        let pairs = pairs_of(object.as_object().expect("an object")).expect("pairs");
        assert_eq!(pairs.len(), 4);
        let now = "2026-11-23T14:00:00Z".parse().expect("a time");
        let filter = saga_filter(&Query::of(pairs.clone()), now).expect("a filter");
        let fixed = fixed(&pairs, &filter);
        assert_eq!(
            fixed,
            json!({ "state": ["STUCK"], "version": "2", "paused": "true", "since": "2026-11-23T13:00:00.000Z" })
        );
        for wrong in [json!({ "stat": "STUCK" }), json!({ "key": ["a"] }), json!({ "state": [{}] })] {
            assert!(pairs_of(wrong.as_object().expect("an object")).is_err(), "{wrong}");
        }
    }
}
