//! What changed from one definition to another, step by step. Compared is what they mean, with all defaults filled in:
//! a default that is written out, or a comment, is no change.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::definition::{Definition, OnTimeout, RetryPolicy, Step, Work, to_json};
use crate::id::{DefinitionRef, StepIndex};

/// One of the two definitions.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The definition.
    pub definition: &'a Definition,
    /// The text that it was read from: schemas are compared as they were written.
    pub source: &'a str,
}

/// What changed. Serialises as `definitions diff --output json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// The one.
    pub from: DefinitionRef,
    /// The other.
    pub to: DefinitionRef,
    /// Whether their content is the same, comments and spelling aside.
    pub same: bool,
    /// What changed outside the steps.
    pub saga: Vec<Change>,
    /// The steps that changed: those of the new definition in its order, then those that are gone.
    pub steps: Vec<StepDiff>,
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// What, for example `timeout` or `retry.maxAttempts`.
    pub what: &'static str,
    /// What it was; `null` where it was not there.
    pub from: Value,
    /// What it is; `null` where it is no longer there.
    pub to: Value,
}

/// A step that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepDiff {
    /// Its name.
    pub step: String,
    /// What happened to it.
    pub kind: StepChange,
    /// What changed within it; of a step that is new or gone, all that it says.
    pub changes: Vec<Change>,
}

/// What happened to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepChange {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It stands elsewhere among the steps that both have, and may have changed within.
    Moved,
    /// It changed within.
    Changed,
}

impl StepChange {
    /// The word, for example `added`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Moved => "moved",
            Self::Changed => "changed",
        }
    }
}

/// What changed from `from` to `to`. Steps are told apart by their names.
pub fn diff(from: Side<'_>, to: Side<'_>) -> Diff {
    let (old, new) = (from.definition, to.definition);
    let moved = moved(old, new);
    let mut steps = Vec::new();
    for index in new.indices() {
        let name = &new.step(index).name;
        let (kind, changes) = match old.find(name) {
            None => (StepChange::Added, changes(&[], &facets(new, index))),
            Some(before) => {
                let changes = changes(&facets(old, before), &facets(new, index));
                match moved.contains(name.as_str()) {
                    true => (StepChange::Moved, changes),
                    false if changes.is_empty() => continue,
                    false => (StepChange::Changed, changes),
                }
            }
        };
        steps.push(StepDiff { step: name.clone(), kind, changes });
    }
    for index in old.indices().filter(|&index| new.find(&old.step(index).name).is_none()) {
        let changes = changes(&facets(old, index), &[]);
        steps.push(StepDiff { step: old.step(index).name.clone(), kind: StepChange::Removed, changes });
    }
    let saga = changes(&whole(from), &whole(to));
    let same = saga.is_empty() && steps.is_empty();
    Diff { from: old.reference.clone(), to: new.reference.clone(), same, saga, steps }
}

/// What a definition says outside its steps. Name and version are not part of what is compared.
fn whole(side: Side<'_>) -> Vec<Facet> {
    let definition = side.definition;
    let schema = to_json(side.source).map(|mut content| content["input"]["schema"].take());
    vec![
        ("owner", json!(definition.owner)),
        ("runbook", json!(definition.runbook)),
        ("key", json!(definition.key.as_ref().map(|key| key.to_json()))),
        ("input.schema", schema.unwrap_or(Value::Null)),
        ("timeout", json!(definition.timeout.map(told))),
        ("output", json!(definition.output.as_ref().map(|output| output.to_json()))),
    ]
}

/// Something that a step or definition says, by name.
pub(crate) type Facet = (&'static str, Value);

/// Everything that a step says, with defaults, in the order in which it is told.
pub(crate) fn facets(definition: &Definition, index: StepIndex) -> Vec<Facet> {
    let step = definition.step(index);
    let mut after: Vec<&str> =
        definition.graph.dependencies(index).iter().map(|&before| definition.step(before).name.as_str()).collect();
    after.sort_unstable();
    let mut facets = vec![("work", json!(step.work.as_str()))];
    facets.extend(work(&step.work));
    facets.extend(each(definition, step));
    facets.extend([
        ("participant", json!(step.participant)),
        ("action", json!(step.action)),
        ("input", step.input.to_json()),
        ("when", json!(step.when.as_ref().map(|when| when.to_json()))),
        ("after", json!(after)),
        ("timeout", json!(told(step.timeout))),
        ("pivot", json!(step.pivot)),
    ]);
    facets.extend(RETRY.iter().copied().zip(retry(&step.retry)));
    match step.compensation.action() {
        None => facets.push(("compensation", json!("none"))),
        Some(compensation) => {
            facets.push(("compensation", json!(compensation.action)));
            facets.push(("compensation.input", compensation.input.to_json()));
            facets.push(("compensation.timeout", json!(told(compensation.timeout))));
            facets.extend(COMPENSATION_RETRY.iter().copied().zip(retry(&compensation.retry)));
        }
    }
    facets
}

/// What only some kinds of work say.
fn work(work: &Work) -> Vec<Facet> {
    match work {
        Work::Command | Work::Delay => Vec::new(),
        Work::Saga { name, version } => vec![("saga", json!(name)), ("saga.version", json!(version))],
        Work::Wait { signal, on_timeout } => {
            let on_timeout = match on_timeout {
                OnTimeout::Fail => "fail",
                OnTimeout::Continue => "continue",
            };
            vec![("signal", json!(signal)), ("onTimeout", json!(on_timeout))]
        }
    }
}

/// What a step says of the list that it is done for; also of one of its elements, whose item comes from that list.
fn each(definition: &Definition, step: &Step) -> Vec<Facet> {
    let list = step.element.and_then(|element| definition.loops.get(element.of)).map(|of| &of.items);
    match (&step.for_each, list) {
        (Some(each), _) => vec![
            ("forEach.items", each.items.to_json()),
            ("forEach.maxParallel", json!(each.max_parallel)),
            ("forEach.maxItems", json!(each.max_items)),
        ],
        (None, Some(items)) => vec![("forEach.items", items.to_json())],
        (None, None) => Vec::new(),
    }
}

const RETRY: [&str; 6] = [
    "retry.maxAttempts",
    "retry.initialInterval",
    "retry.backoffCoefficient",
    "retry.maxInterval",
    "retry.jitter",
    "retry.nonRetryable",
];
const COMPENSATION_RETRY: [&str; 6] = [
    "compensation.retry.maxAttempts",
    "compensation.retry.initialInterval",
    "compensation.retry.backoffCoefficient",
    "compensation.retry.maxInterval",
    "compensation.retry.jitter",
    "compensation.retry.nonRetryable",
];

fn retry(policy: &RetryPolicy) -> [Value; 6] {
    [
        // As it is written: 0 is no limit.
        json!(policy.max_attempts.unwrap_or(0)),
        json!(told(policy.initial_interval)),
        json!(policy.backoff_coefficient),
        json!(told(policy.max_interval)),
        json!(if policy.full_jitter { "full" } else { "none" }),
        json!(policy.non_retryable),
    ]
}

/// A duration as definitions write it.
fn told(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(length, _)| millis > 0 && millis.is_multiple_of(*length)) {
        Some((length, unit)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

/// What differs between two lists of facets, in the order of the first, then of the second.
pub(crate) fn changes(from: &[Facet], to: &[Facet]) -> Vec<Change> {
    let value =
        |facets: &[Facet], what: &str| facets.iter().find(|(name, _)| *name == what).map(|(_, value)| value.clone());
    let only_new = to.iter().filter(|(what, _)| value(from, what).is_none());
    from.iter()
        .chain(only_new)
        .map(|&(what, _)| Change {
            what,
            from: value(from, what).unwrap_or_default(),
            to: value(to, what).unwrap_or_default(),
        })
        .filter(|change| change.from != change.to)
        .collect()
}

/// The steps that stand elsewhere: of those that both have, all but a longest series that kept its order.
fn moved<'a>(old: &Definition, new: &'a Definition) -> HashSet<&'a str> {
    let common: Vec<(&str, StepIndex)> =
        new.steps.iter().filter_map(|step| Some((step.name.as_str(), old.find(&step.name)?))).collect();
    // The longest rising series that ends at each place, and the place before it in that series.
    let mut best: Vec<(usize, Option<usize>)> = Vec::with_capacity(common.len());
    for (at, (_, place)) in common.iter().enumerate() {
        let earlier = (0..at).filter(|&other| common[other].1 < *place).max_by_key(|&other| best[other].0);
        best.push((earlier.map_or(1, |other| best[other].0 + 1), earlier));
    }
    let mut moved: HashSet<&str> = common.iter().map(|(name, _)| *name).collect();
    let mut at = (0..common.len()).max_by_key(|&at| best[at].0);
    while let Some(kept) = at {
        moved.remove(common[kept].0);
        at = best[kept].1;
    }
    moved
}
