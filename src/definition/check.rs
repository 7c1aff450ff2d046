//! Checks that only make sense on the definition as a whole: names, order, the pivot, what expressions read.

use std::collections::HashMap;
use std::time::Duration;

use crate::definition::budget::told;
use crate::definition::fields::{Findings, Reader, nearest};
use crate::definition::steps::{Draft, DraftCompensation};
use crate::definition::{Graph, OnTimeout, Severity, Work};
use crate::id::StepIndex;

/// Everything about how the steps fit together. `None` when there is no order to speak of.
pub(super) fn whole(findings: &mut Findings<'_>, drafts: &[Draft], timeout: Option<Duration>) -> Option<Graph> {
    let names = names(findings, drafts);
    let (before, are_all_known) = dependencies(findings, drafts, &names);
    let graph = match Graph::new(before) {
        Ok(graph) => graph,
        Err(cycle) => {
            let path: Vec<&str> = cycle.0.iter().map(|step| name_at(drafts, step.at())).collect();
            let first = cycle.0.first().and_then(|step| drafts.get(step.at()))?;
            let message = format!("these steps wait for each other: {} -> {}", path.join(" -> "), path.first()?);
            findings.error("DEF_CYCLE", first.name_place, &format!("{}/after", first.pointer), message).suggestion =
                Some("take one of them out of an `after`".to_owned());
            return None;
        }
    };
    let pivot = pivot(findings, drafts);
    // With a dependency that is not there, the order is a guess, and what it shows might be wrong.
    if are_all_known {
        ordered(findings, drafts, &graph, pivot);
        compensations(findings, drafts, &graph, pivot);
        times(findings, drafts, &graph, pivot, timeout);
        waits(findings, drafts, &graph, pivot);
    }
    uses(findings, drafts, are_all_known.then_some(&graph), &names);
    are_all_known.then_some(graph)
}

fn name_at(drafts: &[Draft], at: usize) -> &str {
    drafts.get(at).and_then(|draft| draft.name.as_deref()).unwrap_or("?")
}

fn index(at: usize) -> StepIndex {
    StepIndex(u16::try_from(at).unwrap_or(u16::MAX))
}

fn names<'d>(findings: &mut Findings<'_>, drafts: &'d [Draft]) -> HashMap<&'d str, usize> {
    let mut names = HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        let Some(name) = draft.name.as_deref() else { continue };
        if let Some(first) = names.get(name).and_then(|&at: &usize| drafts.get(at)) {
            let message = format!("there is already a step `{name}`, on line {}", first.name_place.line);
            findings.error("DEF_STEP_DUPLICATE", draft.name_place, &format!("{}/name", draft.pointer), message);
            continue;
        }
        names.insert(name, at);
    }
    names
}

/// What each step waits for, and whether all of that is there.
fn dependencies(
    findings: &mut Findings<'_>,
    drafts: &[Draft],
    names: &HashMap<&str, usize>,
) -> (Vec<Vec<StepIndex>>, bool) {
    let mut are_all_known = true;
    let known: Vec<&str> = drafts.iter().filter_map(|draft| draft.name.as_deref()).collect();
    let mut all = Vec::with_capacity(drafts.len());
    for (at, draft) in drafts.iter().enumerate() {
        let mut before = Vec::new();
        match &draft.after {
            None => before.extend(at.checked_sub(1).map(index)),
            Some(after) => {
                for (name, place, pointer) in after {
                    match names.get(name.as_str()) {
                        Some(&found) => before.push(index(found)),
                        None => {
                            are_all_known = false;
                            let advice = advice(name, &known);
                            findings
                                .error("DEF_AFTER_UNKNOWN", *place, pointer, format!("there is no step `{name}`"))
                                .suggestion = Some(advice);
                        }
                    }
                }
            }
        }
        before.sort_unstable();
        before.dedup();
        all.push(before);
    }
    (all, are_all_known)
}

fn advice(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the steps are: {}", known.iter().take(20).copied().collect::<Vec<_>>().join(", ")),
    }
}

/// The first step that is called the pivot.
pub(super) fn pivot_of(drafts: &[Draft]) -> Option<StepIndex> {
    drafts.iter().position(|draft| draft.pivot).map(index)
}

fn pivot(findings: &mut Findings<'_>, drafts: &[Draft]) -> Option<StepIndex> {
    let mut pivots = drafts.iter().enumerate().filter(|(_, draft)| draft.pivot);
    let (at, _) = pivots.next()?;
    for (_, second) in pivots {
        let message = format!("`{}` is already the pivot; a saga has at most one", name_at(drafts, at));
        findings.error("DEF_PIVOT_TWICE", second.pivot_place, &format!("{}/pivot", second.pointer), message);
    }
    Some(index(at))
}

/// Every other step must be ordered with the pivot: else "after the pivot" would be a race.
fn ordered(findings: &mut Findings<'_>, drafts: &[Draft], graph: &Graph, pivot: Option<StepIndex>) {
    let Some(pivot) = pivot else { return };
    for (other, draft) in drafts.iter().enumerate() {
        if other != pivot.at() && !draft.pivot && !graph.are_ordered(index(other), pivot) {
            let (step, pivot) = (name_at(drafts, other), name_at(drafts, pivot.at()));
            let message = format!("`{step}` runs beside the pivot `{pivot}`; it must come before or after it");
            findings.error("DEF_PIVOT_UNORDERED", draft.name_place, &draft.pointer, message).suggestion =
                Some(format!("add `{step}` to the `after` of `{pivot}`, or `{pivot}` to the `after` of `{step}`"));
        }
    }
}

pub(super) fn is_after_pivot(graph: &Graph, pivot: Option<StepIndex>, at: usize) -> bool {
    pivot.is_some_and(|pivot| graph.is_before(pivot, index(at)))
}

fn compensations(findings: &mut Findings<'_>, drafts: &[Draft], graph: &Graph, pivot: Option<StepIndex>) {
    for (at, draft) in drafts.iter().enumerate() {
        let after = is_after_pivot(graph, pivot, at);
        let name = name_at(drafts, at);
        match draft.compensation {
            DraftCompensation::Absent if !after => {
                let message = format!("`{name}` does not say what undoes it");
                findings.error("DEF_COMPENSATION_MISSING", draft.name_place, &draft.pointer, message).suggestion = Some(
                    "add `compensation: { action: ... }`, or `compensation: none` if it leaves nothing behind"
                        .to_owned(),
                );
            }
            DraftCompensation::Action { .. } if after || draft.pivot => {
                let place = if after { "comes after the pivot" } else { "is the pivot" };
                let message = format!("`{name}` {place}, so its compensation would never run");
                let pointer = format!("{}/compensation", draft.pointer);
                let found = findings.error("DEF_COMPENSATION_UNUSED", draft.name_place, &pointer, message);
                found.severity = Severity::Warning;
                found.suggestion = Some(
                    if after {
                        "take the compensation out, or move the step before the pivot"
                    } else {
                        "write `compensation: none`"
                    }
                    .to_owned(),
                );
            }
            _ => {}
        }
    }
}

fn times(
    findings: &mut Findings<'_>,
    drafts: &[Draft],
    graph: &Graph,
    pivot: Option<StepIndex>,
    timeout: Option<Duration>,
) {
    for (at, draft) in drafts.iter().enumerate() {
        if is_after_pivot(graph, pivot, at) {
            continue;
        }
        let name = name_at(drafts, at);
        if matches!(draft.work, Some(Work::Saga { .. })) {
            continue;
        }
        let is_command = matches!(draft.work, Some(Work::Command) | None);
        if is_command && draft.retry.max_attempts.is_none() && !draft.pivot && timeout.is_none() {
            let message = format!("`{name}` retries without limit and the saga has no time-out, so it may never end");
            let place = draft.retry_place.unwrap_or(draft.name_place);
            findings.error("DEF_RETRY_UNBOUNDED", place, &format!("{}/retry", draft.pointer), message).suggestion =
                Some("give the saga a `timeout` or the step a `maxAttempts`".to_owned());
        }
        // The saga's time-out is over once the pivot is sent, so the pivot itself may take longer.
        if let Some(whole) = timeout.filter(|&whole| draft.timeout > whole && !draft.pivot) {
            let (own, whole) = (told(draft.timeout), told(whole));
            let (key, message) = match &draft.work {
                Some(Work::Wait { .. }) => ("wait/timeout", format!("`{name}` waits for up to {own}")),
                Some(Work::Delay) => ("delay", format!("`{name}` waits for {own}")),
                _ => ("timeout", format!("one attempt of `{name}` may take {own}")),
            };
            let place = draft.timeout_place.unwrap_or(draft.name_place);
            let pointer = format!("{}/{key}", draft.pointer);
            let message = format!("{message}, but the saga gives up after {whole}");
            findings.error("DEF_TIMEOUT_ORDER", place, &pointer, message).suggestion =
                Some("shorten the step's time or lengthen the saga's `timeout`".to_owned());
        }
    }
}

/// A signal is for one step, so that sending it twice is harmless; and after the pivot nothing may fail by waiting.
fn waits(findings: &mut Findings<'_>, drafts: &[Draft], graph: &Graph, pivot: Option<StepIndex>) {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (at, draft) in drafts.iter().enumerate() {
        let Some(Work::Wait { signal, on_timeout }) = &draft.work else { continue };
        let name = name_at(drafts, at);
        let pointer = format!("{}/wait", draft.pointer);
        match seen.get(signal.as_str()) {
            Some(&first) => {
                let message = format!("`{}` waits for the signal `{signal}` already", name_at(drafts, first));
                findings
                    .error("DEF_SIGNAL_TWICE", draft.work_place, &format!("{pointer}/signal"), message)
                    .suggestion = Some("give each signal a name of its own".to_owned());
            }
            None => {
                seen.insert(signal, at);
            }
        }
        if *on_timeout == OnTimeout::Fail && is_after_pivot(graph, pivot, at) {
            let message =
                format!("`{name}` comes after the pivot, where the saga only goes forward, but may fail by waiting");
            findings.error("DEF_WAIT", draft.work_place, &pointer, message).suggestion =
                Some("write `onTimeout: continue`, or move the step before the pivot".to_owned());
        }
    }
}

/// `graph` is there when the order is certain.
fn uses(findings: &mut Findings<'_>, drafts: &[Draft], graph: Option<&Graph>, names: &HashMap<&str, usize>) {
    let known: Vec<&str> = drafts.iter().filter_map(|draft| draft.name.as_deref()).collect();
    for usage in std::mem::take(&mut findings.uses) {
        let Some(&read) = names.get(usage.name.as_str()) else {
            let message = format!("there is no step `{}`", usage.name);
            findings.error("DEF_EXPRESSION_STEP", usage.place, &usage.pointer, message).suggestion =
                Some(advice(&usage.name, &known));
            continue;
        };
        let (reader, own_allowed) = match usage.reader {
            Reader::Step(reader) => (reader, false),
            Reader::Compensation(reader) => (reader, true),
            Reader::Key | Reader::Output | Reader::Items => continue,
        };
        let is_before = || graph.is_none_or(|graph| graph.is_before(index(read), index(reader)));
        if if read == reader { own_allowed } else { is_before() } {
            continue;
        }
        let (step, name) = (name_at(drafts, reader), &usage.name);
        let message = match read == reader {
            true => format!("`{name}` cannot read its own output"),
            false => format!("`{name}` is not before `{step}`, so its output may not be there yet"),
        };
        findings.error("DEF_EXPRESSION_ORDER", usage.place, &usage.pointer, message).suggestion =
            (read != reader).then(|| format!("add `{name}` to the `after` of `{step}`"));
    }
}
