//! A saga's past: compact, full, and as JSON.

use maud::{Markup, html};
use serde_json::Value;

use crate::client::views::{HistoryItem, HistoryView};
use crate::console::json_tree::tree;
use crate::console::words::{sentence, time_of_day};
use crate::definition::sensitive::Secrets;

/// Items that are shown, at most; the download has all.
const MOST: usize = 500;
/// What the compact form leaves out: how a message travels.
const DETAILS: [&str; 4] = ["published", "in-progress", "sent", "decided"];

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Compact,
    Full,
    Json,
}

impl Form {
    pub(super) fn of(word: Option<&str>) -> Self {
        match word {
            Some("full") => Self::Full,
            Some("json") => Self::Json,
            _ => Self::Compact,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Full => "full",
            Self::Json => "json",
        }
    }
}

/// The history, with its switch.
pub(super) fn show(items: &[HistoryItem], form: Form, secrets: &Secrets) -> Markup {
    let shown: Vec<&HistoryItem> =
        items.iter().filter(|item| form != Form::Compact || !DETAILS.contains(&item.kind.as_str())).collect();
    html! {
        div.headline {
            h2 #history { "History" }
            nav.views aria-label="Form of the history" {
                @for other in [Form::Compact, Form::Full, Form::Json] {
                    a href={ "?history=" (other.word()) "#history" } aria-current=[(other == form).then_some("true")] { (other.word()) }
                }
            }
        }
        @if form == Form::Json {
            @for item in shown.iter().take(MOST) { (tree(&redacted(item, secrets).to_string(), &Secrets::default())) }
        } @else {
            ol.history {
                @for item in shown.iter().take(MOST) { (line(item, form, secrets)) }
            }
        }
        @if shown.len() > MOST { p.soft { "The first " (MOST) " of " (shown.len()) "; the download has all." } }
    }
}

fn line(item: &HistoryItem, form: Form, secrets: &Secrets) -> Markup {
    let class = match item.kind.as_str() {
        "stuck" | "failed" | "contradicted" => "bad",
        "compensating" | "timed-out" | "retry-asked" => "back",
        "completed" | "compensated" => "good",
        "verified" => match item.outcome.as_deref() {
            Some("success") => "good",
            _ => "bad",
        },
        "operated" | "paused" | "resumed" | "migrated" | "abandoned" => "person",
        _ => "plain",
    };
    html! {
        li class=(class) {
            span.when { (time_of_day(item.at)) }
            span.what {
                (sentence(&secrets.text(&item.text)))
                @if form == Form::Full {
                    span.soft { " · " (item.kind) ", revision " (item.revision) @if let Some(attempt) = item.attempt { ", attempt " (attempt) } }
                    @if let Some(output) = &item.output { (tree(&output.to_string(), secrets)) }
                }
            }
        }
    }
}

fn redacted(item: &HistoryItem, secrets: &Secrets) -> Value {
    secrets.value(&serde_json::to_value(item).unwrap_or_default())
}

/// The whole history as JSON, with what is sensitive hidden.
pub(super) fn download(items: Vec<HistoryItem>, secrets: &Secrets) -> String {
    let value = serde_json::to_value(HistoryView { items }).unwrap_or_default();
    serde_json::to_string_pretty(&secrets.value(&value)).unwrap_or_default()
}
