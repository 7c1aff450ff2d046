//! Things that are said and have no effect, or another one than it seems.

use crate::definition::checks::Whole;
use crate::definition::fields::{Findings, child};
use crate::definition::node::{Data, Node};
use crate::definition::steps::DraftCompensation;
use crate::id::StepIndex;

pub(super) fn check(findings: &mut Findings<'_>, whole: &Whole<'_>) {
    for (at, draft) in whole.drafts.iter().enumerate() {
        let mut seen: Vec<&str> = Vec::new();
        for (name, place, pointer) in draft.after.iter().flatten() {
            if seen.contains(&name.as_str()) {
                let message = format!("`{name}` is already in this list");
                findings.warning("DEF_AFTER_DUPLICATE", *place, pointer, message).suggestion =
                    Some("keep one of them; if another step was meant, name it".to_owned());
            }
            seen.push(name);
        }
        let Some(node) = whole.step_node(at) else { continue };
        unused_retry(findings, node.get("retry"), &child(&draft.pointer, "retry"));
        let Some(undo) = node.get("compensation") else { continue };
        let pointer = child(&draft.pointer, "compensation");
        unused_retry(findings, undo.get("retry"), &child(&pointer, "retry"));
        if let (DraftCompensation::Action { action, .. }, Some(place)) = (&draft.compensation, undo.get("action"))
            && draft.action.as_ref() == Some(action)
            && undo.get("input").is_none()
        {
            let message = format!("`{}` is undone by doing the same again: action and input are equal", whole.name(at));
            findings.warning("DEF_COMPENSATION_SAME", place.place, &child(&pointer, "action"), message).suggestion =
                Some("name the action that undoes it, or give the compensation an `input` of its own".to_owned());
        }
    }
    if let Some(defaults) = whole.root.get("defaults") {
        unused_retry(findings, defaults.get("retry"), "/defaults/retry");
        let undo = defaults.get("compensation").and_then(|undo| undo.get("retry"));
        unused_retry(findings, undo, "/defaults/compensation/retry");
    }
    if let (Some(pivot), Some(timeout)) = (whole.pivot(), whole.root.get("timeout"))
        && whole.graph.dependencies(index(pivot)).is_empty()
    {
        let message =
            format!("`{}` is the pivot and comes first, so this time-out is over before it begins", whole.name(pivot));
        findings.warning("DEF_TIMEOUT_UNUSED", timeout.place, "/timeout", message).suggestion =
            Some("it counts until the pivot is sent: take it out, or put what may fail before the pivot".to_owned());
    }
}

/// With one attempt there is no wait.
fn unused_retry(findings: &mut Findings<'_>, retry: Option<&Node>, pointer: &str) {
    let Some(retry) = retry else { return };
    if !matches!(retry.get("maxAttempts"), Some(Node { value: Data::Int(1), .. })) {
        return;
    }
    for key in ["initialInterval", "backoffCoefficient", "maxInterval", "jitter"] {
        if let Some(unused) = retry.get(key) {
            let message = format!("with one attempt there is no wait, so `{key}` has no effect");
            findings.warning("DEF_RETRY_UNUSED", unused.place, &child(pointer, key), message).suggestion =
                Some(format!("raise `maxAttempts` (the first attempt counts), or take `{key}` out"));
        }
    }
}

pub(super) fn index(at: usize) -> StepIndex {
    StepIndex(u16::try_from(at).unwrap_or(u16::MAX))
}
