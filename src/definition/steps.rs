//! Reads the steps of a definition, with all defaults filled in.

use std::time::Duration;

use crate::definition::diagnostic::Place;
use crate::definition::fields::{Findings, Reader, child};
use crate::definition::node::{Data, Node};
use crate::definition::{Condition, RetryPolicy, Template, input_schema};

const STEP_KEYS: [&str; 11] =
    ["name", "participant", "action", "input", "output", "when", "after", "timeout", "retry", "pivot", "compensation"];
const RETRY_KEYS: [&str; 6] =
    ["maxAttempts", "initialInterval", "backoffCoefficient", "maxInterval", "jitter", "nonRetryable"];
/// Its queue would be called like the exchange of all commands.
const RESERVED_PARTICIPANT: &str = "amends";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What steps get that do not say otherwise.
pub(super) struct Defaults {
    timeout: Duration,
    retry: RetryPolicy,
    compensation_timeout: Option<Duration>,
    compensation_retry: RetryPolicy,
}

/// A step as it was read, before it is known whether the definition as a whole holds together.
pub(super) struct Draft {
    pub name: Option<String>,
    pub name_place: Place,
    pub pointer: String,
    pub participant: Option<String>,
    pub action: Option<String>,
    pub input: Option<Template>,
    pub when: Option<Condition>,
    /// `None` when the step does not say: it waits for the step before it.
    pub after: Option<Vec<(String, Place, String)>>,
    pub timeout: Duration,
    pub timeout_place: Option<Place>,
    pub retry: RetryPolicy,
    pub retry_place: Option<Place>,
    pub pivot: bool,
    pub pivot_place: Place,
    pub compensation: DraftCompensation,
    /// What the step's output is said to be; the checks hold expressions against it.
    pub output_schema: Option<serde_json::Value>,
}

pub(super) enum DraftCompensation {
    /// Nothing is said.
    Absent,
    /// It is said that there is none.
    None,
    /// Said, but wrongly.
    Broken,
    Action {
        action: String,
        input: Option<Template>,
        timeout: Duration,
        retry: RetryPolicy,
    },
}

impl Defaults {
    pub fn read(findings: &mut Findings<'_>, root: &Node) -> Self {
        let retry = RetryPolicy {
            max_attempts: Some(5),
            initial_interval: Duration::from_secs(1),
            backoff_coefficient: 2.0,
            max_interval: Duration::from_secs(30),
            full_jitter: true,
            non_retryable: Vec::new(),
        };
        let compensation_retry =
            RetryPolicy { max_attempts: Some(20), max_interval: Duration::from_secs(300), ..retry.clone() };
        let mut defaults = Self { timeout: DEFAULT_TIMEOUT, retry, compensation_timeout: None, compensation_retry };
        let Some(node) = root.get("defaults") else { return defaults };
        if !findings.mapping(node, "/defaults", &["timeout", "retry", "compensation"]) {
            return defaults;
        }
        if let Some(timeout) = duration(findings, node, "/defaults", "timeout", false) {
            defaults.timeout = timeout;
        }
        defaults.retry = retry_policy(findings, node, "/defaults", &defaults.retry);
        if let Some(compensation) = node.get("compensation")
            && findings.mapping(compensation, "/defaults/compensation", &["timeout", "retry"])
        {
            defaults.compensation_timeout =
                duration(findings, compensation, "/defaults/compensation", "timeout", false);
            defaults.compensation_retry =
                retry_policy(findings, compensation, "/defaults/compensation", &defaults.compensation_retry);
        }
        defaults
    }
}

fn duration(findings: &mut Findings<'_>, node: &Node, pointer: &str, key: &str, zero: bool) -> Option<Duration> {
    node.get(key).and_then(|node| findings.duration(node, &child(pointer, key), zero))
}

/// The policy under `retry`, each field that is not said taken from `base`.
fn retry_policy(findings: &mut Findings<'_>, owner: &Node, pointer: &str, base: &RetryPolicy) -> RetryPolicy {
    let mut policy = base.clone();
    let Some(node) = owner.get("retry") else { return policy };
    let pointer = child(pointer, "retry");
    if !findings.mapping(node, &pointer, &RETRY_KEYS) {
        return policy;
    }
    if let Some(attempts) = node.get("maxAttempts")
        && let Some(attempts) = findings.whole(attempts, &child(&pointer, "maxAttempts"), 0, 1_000_000)
    {
        policy.max_attempts = (attempts > 0).then_some(attempts);
    }
    if let Some(interval) = duration(findings, node, &pointer, "initialInterval", true) {
        policy.initial_interval = interval;
    }
    if let Some(factor) = node.get("backoffCoefficient")
        && let Some(factor) = findings.factor(factor, &child(&pointer, "backoffCoefficient"), 100.0)
    {
        policy.backoff_coefficient = factor;
    }
    if let Some(interval) = duration(findings, node, &pointer, "maxInterval", false) {
        policy.max_interval = interval;
    }
    if let Some(jitter) = node.get("jitter")
        && let Some(text) = findings.text(jitter, &child(&pointer, "jitter"))
    {
        match text {
            "full" => policy.full_jitter = true,
            "none" => policy.full_jitter = false,
            _ => {
                let message = "`jitter` is `full` or `none`";
                findings.error("DEF_RETRY", jitter.place, &child(&pointer, "jitter"), message);
            }
        }
    }
    if let Some(list) = node.get("nonRetryable") {
        let pointer = child(&pointer, "nonRetryable");
        if let Some(items) = findings.list(list, &pointer) {
            let types = items.iter().enumerate();
            policy.non_retryable = types
                .filter_map(|(at, item)| findings.text(item, &child(&pointer, &at.to_string())).map(str::to_owned))
                .collect();
        }
    }
    // One of them alone may cross the other's default: the longest wait simply wins then.
    if let Some(wrong) = node.get("initialInterval").filter(|_| node.get("maxInterval").is_some())
        && policy.initial_interval > policy.max_interval
    {
        let message = format!(
            "the first wait ({:?}) is longer than the longest wait ({:?})",
            policy.initial_interval, policy.max_interval
        );
        findings.error("DEF_RETRY", wrong.place, &pointer, message).suggestion =
            Some("raise `maxInterval` or lower `initialInterval`".to_owned());
    }
    policy
}

/// Reads one step; whatever is wrong is found, and the rest is read all the same.
pub(super) fn read(findings: &mut Findings<'_>, node: &Node, at: usize, defaults: &Defaults) -> Option<Draft> {
    let pointer = format!("/steps/{at}");
    if !findings.mapping(node, &pointer, &STEP_KEYS) {
        return None;
    }
    let mut name_of = |key: &str, example: &str| {
        let field = findings.required(node, &pointer, key, example)?;
        findings.name(field, &child(&pointer, key)).map(str::to_owned)
    };
    let name = name_of("name", "name: reserve-stock");
    let participant = name_of("participant", "participant: warehouse");
    let action = name_of("action", "action: reserve");
    if let Some(field) = node.get("participant")
        && participant.as_deref() == Some(RESERVED_PARTICIPANT)
    {
        let message = format!("`{RESERVED_PARTICIPANT}` is the coordinator's own name");
        let pointer = child(&pointer, "participant");
        findings.error("DEF_NAME_RESERVED", field.place, &pointer, message).suggestion =
            Some("give the participant its service's name".to_owned());
    }
    let input = match node.get("input") {
        None => Some(Template::whole_input()),
        Some(input) => findings.template(input, &child(&pointer, "input"), Reader::Step(at)),
    };
    let pivot = node.get("pivot").map(|node| findings.flag(node, &child(&pointer, "pivot")));
    Some(Draft {
        name_place: node.get("name").map_or(node.place, |name| name.place),
        participant,
        action,
        when: condition(findings, node, &pointer, at),
        after: after(findings, node, &pointer),
        timeout: duration(findings, node, &pointer, "timeout", false).unwrap_or(defaults.timeout),
        timeout_place: node.get("timeout").map(|node| node.place),
        retry: retry_policy(findings, node, &pointer, &defaults.retry),
        retry_place: node.get("retry").map(|node| node.get("maxAttempts").unwrap_or(node).place),
        pivot: pivot.flatten().unwrap_or(false),
        pivot_place: node.get("pivot").map_or(node.place, |node| node.place),
        compensation: compensation(findings, node, &pointer, at, input.as_ref(), defaults),
        output_schema: output_schema(findings, node, &pointer),
        name,
        pointer,
        input,
    })
}

fn output_schema(findings: &mut Findings<'_>, step: &Node, pointer: &str) -> Option<serde_json::Value> {
    let node = step.get("output")?;
    input_schema::read(findings, node, &child(pointer, "output"))?;
    node.get("schema").map(Node::to_json)
}

fn condition(findings: &mut Findings<'_>, step: &Node, pointer: &str, at: usize) -> Option<Condition> {
    let node = step.get("when")?;
    let pointer = child(pointer, "when");
    let template = match &node.value {
        Data::Bool(_) | Data::Text(_) => findings.template(node, &pointer, Reader::Step(at))?,
        _ => Template::literal(serde_json::Value::Null),
    };
    if !template.may_be_a_condition() {
        findings
            .error("DEF_WHEN", node.place, &pointer, "a condition is one expression that gives true or false")
            .suggestion = Some("write for example `when: ${ size(input.lines) > 0 }`".to_owned());
        return None;
    }
    Some(Condition::new(template))
}

fn after(findings: &mut Findings<'_>, step: &Node, pointer: &str) -> Option<Vec<(String, Place, String)>> {
    let node = step.get("after")?;
    let pointer = child(pointer, "after");
    let items = findings.list(node, &pointer)?;
    let names = items.iter().enumerate().filter_map(|(at, item)| {
        let pointer = child(&pointer, &at.to_string());
        let name = findings.text(item, &pointer)?;
        Some((name.to_owned(), item.place, pointer))
    });
    Some(names.collect())
}

fn compensation(
    findings: &mut Findings<'_>,
    step: &Node,
    pointer: &str,
    at: usize,
    action_input: Option<&Template>,
    defaults: &Defaults,
) -> DraftCompensation {
    let Some(node) = step.get("compensation") else { return DraftCompensation::Absent };
    let pointer = child(pointer, "compensation");
    match &node.value {
        Data::Text(text) if text == "none" => return DraftCompensation::None,
        Data::Map(_) => {}
        _ => {
            let message = "a compensation is `none` or a mapping with an `action`";
            findings.error("DEF_COMPENSATION", node.place, &pointer, message).suggestion =
                Some("write `compensation: none` or `compensation: { action: undo }`".to_owned());
            return DraftCompensation::Broken;
        }
    }
    findings.mapping(node, &pointer, &["action", "input", "timeout", "retry"]);
    let action = findings
        .required(node, &pointer, "action", "action: undo")
        .and_then(|field| findings.name(field, &child(&pointer, "action")));
    let input = match node.get("input") {
        None => action_input.cloned(),
        Some(input) => findings.template(input, &child(&pointer, "input"), Reader::Compensation(at)),
    };
    let timeout = duration(findings, node, &pointer, "timeout", false)
        .unwrap_or(defaults.compensation_timeout.unwrap_or(defaults.timeout));
    let retry = retry_policy(findings, node, &pointer, &defaults.compensation_retry);
    match action {
        Some(action) => DraftCompensation::Action { action: action.to_owned(), input, timeout, retry },
        None => DraftCompensation::Broken,
    }
}
