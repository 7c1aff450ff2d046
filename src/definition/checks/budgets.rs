//! Whether the retries before the pivot fit into the saga's time-out.

use std::time::Duration;

use crate::definition::Work;
use crate::definition::budget::told;
use crate::definition::checks::Whole;
use crate::definition::checks::order::index;
use crate::definition::fields::{Findings, child};

pub(super) fn check(findings: &mut Findings<'_>, whole: &Whole<'_>) {
    let Some(limit) = whole.timeout else { return };
    let pivot = whole.pivot().map(index);
    // The time-out is over once the pivot is sent, so neither it nor what follows counts.
    let counts = |at: usize| pivot.is_none_or(|pivot| pivot != index(at) && !whole.graph.is_before(pivot, index(at)));
    let mut is_told = false;
    let mut order: Vec<usize> = (0..whole.drafts.len()).filter(|&at| counts(at)).collect();
    for &at in &order {
        let Some(draft) = whole.drafts.get(at) else { continue };
        if draft.timeout > limit && !matches!(draft.work, Some(Work::Saga { .. })) {
            // Even one attempt does not fit, which is an error of its own.
            is_told = true;
            continue;
        }
        if draft.work != Some(Work::Command) {
            continue;
        }
        let budget = draft.retry.budget(draft.timeout);
        let Some(total) = budget.total().filter(|&total| total > limit) else { continue };
        is_told = true;
        let message = format!(
            "`{}` may be tried for {}: {budget}; but the saga gives up after {}",
            whole.name(at),
            told(total),
            told(limit)
        );
        let place = draft.retry_place.unwrap_or(draft.name_place);
        findings.warning("DEF_RETRY_BUDGET", place, &child(&draft.pointer, "retry"), message).suggestion = Some(
            "lower `maxAttempts`, `maxInterval` or the step's `timeout`, or raise the saga's `timeout`".to_owned(),
        );
    }
    if is_told {
        return;
    }
    // What comes earlier reaches more steps, so this is an order along the graph.
    order.sort_by_key(|&at| std::cmp::Reverse(whole.graph.descendants(index(at)).len()));
    let mut longest: Vec<(Duration, Vec<usize>)> = vec![(Duration::ZERO, Vec::new()); whole.drafts.len()];
    for &at in &order {
        let Some(draft) = whole.drafts.get(at) else { continue };
        // Without limit: that the time-out cuts it off is then what it is for.
        let own = match &draft.work {
            Some(Work::Wait { .. } | Work::Delay) => draft.timeout,
            // How long the other saga takes is said there.
            Some(Work::Saga { .. }) => Duration::ZERO,
            Some(Work::Command) | None => match draft.retry.budget(draft.timeout).total() {
                Some(total) => total,
                None => return,
            },
        };
        let before = whole.graph.dependencies(index(at)).iter().filter_map(|before| longest.get(before.at()));
        let (time, mut path) = before.max_by_key(|(time, _)| *time).cloned().unwrap_or_default();
        path.push(at);
        if let Some(slot) = longest.get_mut(at) {
            *slot = (time.saturating_add(own), path);
        }
    }
    let Some((time, path)) = longest.iter().max_by_key(|(time, _)| *time).filter(|(time, _)| *time > limit) else {
        return;
    };
    let place = whole.root.get("timeout").map_or(whole.root.place, |node| node.place);
    let names: Vec<String> = path.iter().map(|&at| format!("`{}`", whole.name(at))).collect();
    let message = format!(
        "with all retries, {} may take {} one after the other; but the saga gives up after {}",
        names.join(", "),
        told(*time),
        told(limit)
    );
    findings.warning("DEF_PATH_BUDGET", place, "/timeout", message).suggestion =
        Some(format!("raise it to {} or more, or let these steps retry less", told(*time)));
}
