//! Reads the steps of a definition, with all defaults filled in.

use std::time::Duration;

use crate::definition::diagnostic::Place;
use crate::definition::fields::{Findings, Reader, child};
use crate::definition::node::{Data, Node};
use crate::definition::{COORDINATOR, Condition, ForEach, OnTimeout, RetryPolicy, Template, Work, input_schema};

const STEP_KEYS: [&str; 16] = [
    "name",
    "participant",
    "action",
    "saga",
    "version",
    "wait",
    "delay",
    "forEach",
    "input",
    "output",
    "when",
    "after",
    "timeout",
    "retry",
    "pivot",
    "compensation",
];
/// What a step may not say, by what it is.
const NOT_OF_SAGA: [&str; 4] = ["participant", "action", "timeout", "retry"];
const NOT_OF_WAIT: [&str; 9] =
    ["participant", "action", "version", "forEach", "input", "timeout", "retry", "pivot", "compensation"];
const RETRY_KEYS: [&str; 6] =
    ["maxAttempts", "initialInterval", "backoffCoefficient", "maxInterval", "jitter", "nonRetryable"];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the coordinator asks itself what became of a sub-saga whose end it has not heard of.
pub(super) const CHILD_TIMEOUT: Duration = Duration::from_secs(60);
/// What the coordinator is asked for when a sub-saga must be undone.
pub(super) const COMPENSATE_CHILD: &str = "compensate";
const MAX_ITEMS: u32 = 500;
const DEFAULT_ITEMS: u16 = 100;

/// What steps get that do not say otherwise.
pub(super) struct Defaults {
    timeout: Duration,
    retry: RetryPolicy,
    compensation_timeout: Option<Duration>,
    pub(super) compensation_retry: RetryPolicy,
}

/// A step as it was read, before it is known whether the definition as a whole holds together.
pub(super) struct Draft {
    pub name: Option<String>,
    pub name_place: Place,
    pub pointer: String,
    /// `None` when it cannot be told.
    pub work: Option<Work>,
    pub for_each: Option<ForEach>,
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
    /// Of what says which kind of work it is: the signal, the other saga.
    pub work_place: Place,
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
    /// Nothing is said, and the step is a sub-saga, which is compensated by going back itself.
    Child,
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

/// What a step is, as far as it can be told from the keys that it has.
struct Kind {
    work: Option<Work>,
    participant: Option<String>,
    action: Option<String>,
    /// For waits and delays.
    timeout: Option<Duration>,
}

fn kind(findings: &mut Findings<'_>, node: &Node, pointer: &str) -> Kind {
    let given: Vec<&str> =
        ["participant", "saga", "wait", "delay"].into_iter().filter(|key| node.get(key).is_some()).collect();
    if let [first, second, ..] = given.as_slice()
        && let Some(field) = node.get(second)
    {
        let message = format!("a step has `{first}` or `{second}`, not both");
        findings.error("DEF_STEP_KIND", field.place, &child(pointer, second), message).suggestion =
            Some("make two steps of it".to_owned());
        return Kind { work: None, participant: None, action: None, timeout: None };
    }
    let own = |action: &str| (Some(COORDINATOR.to_owned()), Some(action.to_owned()));
    match given.first().copied() {
        Some("saga") => {
            refuse_keys(findings, node, pointer, "saga", &NOT_OF_SAGA);
            let name = node.get("saga").and_then(|field| findings.name(field, &child(pointer, "saga")));
            let version = node
                .get("version")
                .and_then(|field| findings.whole(field, &child(pointer, "version"), 1, i32::MAX.unsigned_abs()));
            let (participant, action) = own("start");
            let work = name.map(|name| Work::Saga { name: name.to_owned(), version });
            Kind { work, participant, action, timeout: Some(CHILD_TIMEOUT) }
        }
        Some("wait") => {
            refuse_keys(findings, node, pointer, "wait", &NOT_OF_WAIT);
            let (work, timeout) = wait(findings, node, pointer);
            let (participant, action) = own("wait");
            Kind { work, participant, action, timeout }
        }
        Some("delay") => {
            refuse_keys(findings, node, pointer, "delay", &NOT_OF_WAIT);
            let (participant, action) = own("delay");
            Kind {
                work: Some(Work::Delay),
                participant,
                action,
                timeout: duration(findings, node, pointer, "delay", false),
            }
        }
        _ => {
            refuse_keys(findings, node, pointer, "participant", &["version"]);
            let mut name_of = |key: &str, example: &str| {
                let field = findings.required(node, pointer, key, example)?;
                findings.name(field, &child(pointer, key)).map(str::to_owned)
            };
            let participant = name_of("participant", "participant: warehouse");
            let action = name_of("action", "action: reserve");
            if let Some(field) = node.get("participant")
                && participant.as_deref() == Some(COORDINATOR)
            {
                let message = format!("`{COORDINATOR}` is the coordinator's own name");
                let pointer = child(pointer, "participant");
                findings.error("DEF_NAME_RESERVED", field.place, &pointer, message).suggestion =
                    Some("give the participant its service's name".to_owned());
            }
            Kind { work: Some(Work::Command), participant, action, timeout: None }
        }
    }
}

fn refuse_keys(findings: &mut Findings<'_>, node: &Node, pointer: &str, kind: &str, keys: &[&str]) {
    for key in keys {
        let Some(field) = node.get(key) else { continue };
        // It may be said of every step that nothing undoes it.
        if *key == "compensation" && matches!(&field.value, Data::Text(text) if text == "none") {
            continue;
        }
        let message = format!("a step with `{kind}` has no `{key}`");
        let why = match (kind, *key) {
            ("saga", "timeout" | "retry") => "the saga that it starts has a time-out and retries of its own",
            ("wait" | "delay", "compensation") => "waiting leaves nothing behind to undo",
            ("wait", "timeout") => "put it into `wait`",
            ("wait" | "delay", "pivot") => "the pivot is a step that has an effect",
            _ => "take it out",
        };
        findings.error("DEF_STEP_KIND", field.place, &child(pointer, key), message).suggestion = Some(why.to_owned());
    }
}

fn wait(findings: &mut Findings<'_>, step: &Node, pointer: &str) -> (Option<Work>, Option<Duration>) {
    let Some(node) = step.get("wait") else { return (None, None) };
    let pointer = child(pointer, "wait");
    if !findings.mapping(node, &pointer, &["signal", "timeout", "onTimeout"]) {
        return (None, None);
    }
    let signal = findings
        .required(node, &pointer, "signal", "signal: approval")
        .and_then(|field| findings.name(field, &child(&pointer, "signal")))
        .map(str::to_owned);
    let timeout = findings
        .required(node, &pointer, "timeout", "timeout: 2d")
        .and_then(|field| findings.duration(field, &child(&pointer, "timeout"), false));
    let on_timeout = match node.get("onTimeout") {
        None => OnTimeout::Fail,
        Some(field) => {
            let pointer = child(&pointer, "onTimeout");
            match findings.text(field, &pointer) {
                Some("fail") => OnTimeout::Fail,
                Some("continue") => OnTimeout::Continue,
                Some(_) => {
                    findings.error("DEF_WAIT", field.place, &pointer, "`onTimeout` is `fail` or `continue`");
                    OnTimeout::Fail
                }
                None => OnTimeout::Fail,
            }
        }
    };
    (signal.map(|signal| Work::Wait { signal, on_timeout }), timeout)
}

/// `forEach: ${ input.lines }`, or a mapping with `items`, `maxParallel` and `maxItems`.
fn for_each(findings: &mut Findings<'_>, step: &Node, pointer: &str) -> Option<ForEach> {
    let node = step.get("forEach")?;
    let pointer = child(pointer, "forEach");
    let (items, items_pointer) = match &node.value {
        Data::Text(_) => (node, pointer.clone()),
        _ => {
            if !findings.mapping(node, &pointer, &["items", "maxParallel", "maxItems"]) {
                return None;
            }
            let items = findings.required(node, &pointer, "items", "items: ${ input.lines }")?;
            (items, child(&pointer, "items"))
        }
    };
    let mut number = |key: &str| {
        let field = node.get(key)?;
        findings.whole(field, &child(&pointer, key), 1, MAX_ITEMS).and_then(|number| u16::try_from(number).ok())
    };
    let (max_parallel, max_items) = (number("maxParallel"), number("maxItems").unwrap_or(DEFAULT_ITEMS));
    let template = findings.template(items, &items_pointer, Reader::Items)?;
    if template.is_literal() || !(template.is_whole_input() || template.may_be_a_condition()) {
        let message = "the items are one expression that gives a list";
        findings.error("DEF_FOREACH_ITEMS", items.place, &items_pointer, message).suggestion =
            Some("write for example `forEach: ${ input.lines }`".to_owned());
        return None;
    }
    Some(ForEach { items: template, max_parallel, max_items })
}

/// Reads one step; whatever is wrong is found, and the rest is read all the same.
pub(super) fn read(findings: &mut Findings<'_>, node: &Node, at: usize, defaults: &Defaults) -> Option<Draft> {
    let pointer = format!("/steps/{at}");
    if !findings.mapping(node, &pointer, &STEP_KEYS) {
        return None;
    }
    let name = findings
        .required(node, &pointer, "name", "name: reserve-stock")
        .and_then(|field| findings.name(field, &child(&pointer, "name")))
        .map(str::to_owned);
    let Kind { work, participant, action, timeout } = kind(findings, node, &pointer);
    let for_each = for_each(findings, node, &pointer);
    findings.has_item = node.get("forEach").is_some();
    let input = match node.get("input") {
        None => Some(Template::whole_input()),
        Some(input) => findings.template(input, &child(&pointer, "input"), Reader::Step(at)),
    };
    let pivot = node.get("pivot").and_then(|node| findings.flag(node, &child(&pointer, "pivot"))).unwrap_or(false);
    if let Some(field) = node.get("forEach").filter(|_| pivot) {
        let message = "the pivot is one step, so it cannot be done for each item";
        findings.error("DEF_FOREACH_PIVOT", field.place, &child(&pointer, "forEach"), message).suggestion =
            Some("make a step after or before it the pivot".to_owned());
    }
    let when = condition(findings, node, &pointer, at);
    let mut compensation = compensation(findings, node, &pointer, at, input.as_ref(), defaults);
    let mut retry = retry_policy(findings, node, &pointer, &defaults.retry);
    match &work {
        Some(Work::Wait { .. } | Work::Delay) => compensation = DraftCompensation::None,
        Some(Work::Saga { .. }) => {
            // Asked again and again until the child has ended, which has time-outs of its own.
            retry = RetryPolicy { max_attempts: None, non_retryable: Vec::new(), ..defaults.retry.clone() };
            match compensation {
                DraftCompensation::Absent => compensation = DraftCompensation::Child,
                DraftCompensation::Action { .. } => {
                    let place = node.get("compensation").map_or(node.place, |field| field.place);
                    let message = "a sub-saga is compensated by going back itself";
                    findings.error("DEF_STEP_KIND", place, &child(&pointer, "compensation"), message).suggestion =
                        Some("take the compensation out, or write `compensation: none`".to_owned());
                }
                _ => {}
            }
        }
        // What it is is known, though not all about it.
        None if node.get("wait").is_some() || node.get("delay").is_some() || node.get("saga").is_some() => {
            compensation = DraftCompensation::None;
        }
        Some(Work::Command) | None => {}
    }
    let timeout = match timeout {
        Some(timeout) => timeout,
        None => duration(findings, node, &pointer, "timeout", false).unwrap_or(defaults.timeout),
    };
    findings.has_item = false;
    Some(Draft {
        name_place: node.get("name").map_or(node.place, |name| name.place),
        input: input.map(|input| match &work {
            Some(Work::Saga { name, version }) => start_of(name, *version, input),
            Some(Work::Wait { signal, .. }) => Template::literal(serde_json::json!({ "signal": signal })),
            Some(Work::Delay) => Template::literal(serde_json::Value::Null),
            Some(Work::Command) | None => input,
        }),
        work,
        for_each,
        participant,
        action,
        when,
        after: after(findings, node, &pointer),
        timeout,
        timeout_place: node
            .get("timeout")
            .or_else(|| node.get("delay"))
            .or_else(|| node.get("wait").and_then(|wait| wait.get("timeout")))
            .map(|node| node.place),
        retry,
        retry_place: node.get("retry").map(|node| node.get("maxAttempts").unwrap_or(node).place),
        pivot,
        work_place: work_place(node),
        pivot_place: node.get("pivot").map_or(node.place, |node| node.place),
        compensation,
        output_schema: output_schema(findings, node, &pointer),
        name,
        pointer,
    })
}

fn work_place(step: &Node) -> Place {
    let signal = step.get("wait").and_then(|wait| wait.get("signal"));
    let kinds = ["wait", "saga", "delay", "participant"].into_iter().filter_map(|key| step.get(key));
    signal.into_iter().chain(kinds).next().unwrap_or(step).place
}

fn output_schema(findings: &mut Findings<'_>, step: &Node, pointer: &str) -> Option<serde_json::Value> {
    let node = step.get("output")?;
    input_schema::read(findings, node, &child(pointer, "output"))?;
    node.get("schema").map(Node::to_json)
}

/// The body of the command that starts a sub-saga.
fn start_of(name: &str, version: Option<u32>, input: Template) -> Template {
    let mut entries = vec![("saga".to_owned(), Template::literal(name.into()))];
    entries.extend(version.map(|version| ("version".to_owned(), Template::literal(version.into()))));
    entries.push(("input".to_owned(), input));
    Template::map(entries)
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
