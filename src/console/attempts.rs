//! The attempts of a command: when each was sent, and what came of it.

use maud::{Markup, html};

use crate::client::views::HistoryItem;
use crate::clock::Timestamp;
use crate::console::words::{span, time_of_day};
use crate::definition::sensitive::Secrets;
use crate::store::OutboxEntry;

/// Attempts that are told of, at most.
const MOST: usize = 40;

/// One attempt.
pub(super) struct Attempt<'i> {
    pub(super) number: u32,
    pub(super) sent: Timestamp,
    /// What came of it, as far as anything did.
    pub(super) end: Option<&'i HistoryItem>,
}

/// The attempts of a command, in order.
pub(super) fn attempts<'i>(items: &'i [HistoryItem], entry: &OutboxEntry) -> Vec<Attempt<'i>> {
    let is_of = |item: &&HistoryItem| {
        item.step.as_ref() == Some(&entry.step)
            && item.direction.as_deref() == Some(entry.direction.as_str())
            && item.at >= entry.decided_at
            && entry.verified.as_ref().is_none_or(|verified| item.at <= verified.at)
    };
    let mut found: Vec<Attempt<'i>> = Vec::new();
    for item in items.iter().filter(is_of) {
        match (item.kind.as_str(), item.attempt) {
            ("sent", Some(_)) if found.len() == MOST => break,
            ("sent", Some(number)) => found.push(Attempt { number, sent: item.at, end: None }),
            ("timed-out" | "retry-asked" | "replied" | "verified", _) => {
                if let Some(last) = found.last_mut() {
                    last.end = Some(item);
                }
            }
            _ => {}
        }
    }
    found
}

/// The same as a list.
pub(super) fn list(items: &[HistoryItem], entry: &OutboxEntry, secrets: &Secrets) -> Markup {
    let found = attempts(items, entry);
    if found.is_empty() {
        return html! { p.soft { "None was sent." } };
    }
    html! {
        ol.attempts {
            @for attempt in &found {
                li value=(attempt.number) {
                    (time_of_day(attempt.sent)) " "
                    @match attempt.end {
                        None => span.soft { "no answer yet" },
                        Some(end) => {
                            (words(end)) span.soft { " after " (span(end.at.signed_duration_since(attempt.sent))) }
                            @if let Some(error) = &end.error { " · " code.error-type { (error.kind) } " " (secrets.text(&error.title)) }
                        }
                    }
                }
            }
        }
        @if found.len() == MOST { p.soft { "The first " (MOST) "; the history has all." } }
    }
}

fn words(end: &HistoryItem) -> &str {
    match (end.kind.as_str(), end.outcome.as_deref()) {
        ("timed-out", _) => "timed out",
        ("retry-asked", _) => "to be tried again",
        (_, Some("unknown")) => "not known whether it took effect",
        (_, Some(outcome)) => outcome,
        _ => "answered",
    }
}
