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
    found(items, entry).0
}

/// The same, and whether there are more.
fn found<'i>(items: &'i [HistoryItem], entry: &OutboxEntry) -> (Vec<Attempt<'i>>, bool) {
    let is_of = |item: &&HistoryItem| {
        item.step.as_ref() == Some(&entry.step)
            && item.direction.as_deref() == Some(entry.direction.as_str())
            && item.at >= entry.decided_at
            && entry.verified.as_ref().is_none_or(|verified| item.at <= verified.at)
    };
    let mut found: Vec<Attempt<'i>> = Vec::new();
    for item in items.iter().filter(is_of) {
        match (item.kind.as_str(), item.attempt) {
            ("sent", Some(number)) => {
                // It was held back, or the broker has not confirmed it: the same attempt once more.
                if let Some(again) = found.last_mut().filter(|last| last.number == number) {
                    again.sent = item.at;
                    continue;
                }
                if found.len() == MOST {
                    return (found, true);
                }
                found.push(Attempt { number, sent: item.at, end: None });
            }
            ("timed-out" | "retry-asked" | "replied" | "verified", number) => {
                // The answer to an earlier one may come after a later one was sent. What timed out is the last.
                let is_its = |attempt: &&mut Attempt<'_>| number.is_none_or(|number| number == attempt.number);
                if let Some(its) = found.iter_mut().rev().find(is_its) {
                    its.end = Some(item);
                }
            }
            _ => {}
        }
    }
    (found, false)
}

/// The same as a list.
pub(super) fn list(items: &[HistoryItem], entry: &OutboxEntry, secrets: &Secrets) -> Markup {
    let (found, has_more) = found(items, entry);
    if found.is_empty() {
        let is_told = entry.verified.is_none() || entry.is_wait();
        return html! { p.soft { (if is_told { "None was sent." } else { "The history does not tell." }) } };
    }
    html! {
        ol.attempts {
            @for attempt in &found {
                li value=(attempt.number) {
                    (time_of_day(attempt.sent)) " "
                    @match attempt.end {
                        None if entry.verified.is_some() => span.soft { "no answer" },
                        None => span.soft { "no answer yet" },
                        Some(end) => {
                            (words(end)) span.soft { " after " (span(end.at.signed_duration_since(attempt.sent))) }
                            @if let Some(error) = &end.error { " · " code.error-type { (error.kind) } " " (secrets.text(&error.title)) }
                        }
                    }
                }
            }
        }
        @if has_more { p.soft { "The first " (MOST) "; the history has all." } }
    }
}

fn words(end: &HistoryItem) -> &str {
    match (end.kind.as_str(), end.outcome.as_deref()) {
        ("timed-out", _) => "timed out",
        ("retry-asked", _) => "asked to be tried again",
        (_, Some("unknown")) => "not known whether it took effect",
        (_, Some(outcome)) => outcome,
        _ => "answered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CommandId, DefinitionRef, SagaId, Seq};
    use crate::payload::Payload;
    use crate::saga::Direction;

    fn at(second: u32) -> Timestamp {
        format!("2026-11-30T12:00:{second:02}Z").parse().expect("a time")
    }

    /// What happened in each second.
    fn past(told: &[(&str, Option<u32>)]) -> Vec<HistoryItem> {
        let item = |(second, (kind, attempt)): (u32, &(&str, Option<u32>))| HistoryItem {
            at: at(second),
            revision: second,
            kind: (*kind).to_owned(),
            step: Some("pick".to_owned()),
            direction: Some("action".to_owned()),
            attempt: *attempt,
            outcome: None,
            output: None,
            error: None,
            actor: None,
            reason: None,
            changes: Vec::new(),
            text: String::new(),
        };
        (1..).zip(told).map(item).collect()
    }

    fn told(items: &[HistoryItem]) -> Vec<(u32, Timestamp, Option<&str>)> {
        let entry = OutboxEntry {
            id: CommandId { saga: SagaId::fresh(), seq: Seq(1) },
            definition: DefinitionRef { name: "order".to_owned(), version: 1 },
            step: "pick".to_owned(),
            step_index: 0,
            direction: Direction::Action,
            generation: 1,
            compensates: None,
            participant: "warehouse".to_owned(),
            action: "pick".to_owned(),
            body: Payload::trusted("{}"),
            verified: None,
            in_flight: None,
            decided_at: at(0),
            decided_revision: 1,
        };
        let found = attempts(items, &entry);
        found.iter().map(|attempt| (attempt.number, attempt.sent, attempt.end.map(|end| end.kind.as_str()))).collect()
    }

    #[test]
    fn an_answer_belongs_to_the_attempt_that_it_answers() {
        let items = past(&[("sent", Some(1)), ("timed-out", None), ("sent", Some(2)), ("verified", Some(1))]);
        assert_eq!(told(&items), [(1, at(1), Some("verified")), (2, at(3), None)]);
    }

    #[test]
    fn an_attempt_that_is_sent_once_more_is_still_one() {
        let items = past(&[("sent", Some(1)), ("held-back", Some(1)), ("sent", Some(1)), ("retry-asked", Some(1))]);
        assert_eq!(told(&items), [(1, at(3), Some("retry-asked"))]);
    }
}
