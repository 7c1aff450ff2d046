//! Steps and attempts over time, as SVG: a row per command, a tick per attempt.

use maud::{Markup, html};

use crate::client::views::HistoryItem;
use crate::clock::Timestamp;
use crate::console::attempts::{Attempt, attempts};
use crate::console::words::{cut, span};
use crate::store::OutboxEntry;

const LABEL: i64 = 210;
const BAR: i64 = 620;
const TAIL: i64 = 90;
const ROW: i64 = 28;
/// Rows that are drawn, at most.
const MOST: usize = 200;

/// The waterfall of a saga's commands.
pub(super) fn draw(commands: &[OutboxEntry], items: &[HistoryItem], end: Timestamp) -> Markup {
    let Some(start) = commands.iter().map(|entry| entry.decided_at).min() else {
        return crate::console::layout::empty("No command yet", "The saga has not sent anything so far.");
    };
    let shown: Vec<&OutboxEntry> = commands.iter().take(MOST).collect();
    let until = |entry: &OutboxEntry| entry.verified.as_ref().map_or(end, |verified| verified.at);
    let last = shown.iter().map(|entry| until(entry)).max().unwrap_or(end);
    let whole = last.signed_duration_since(start).num_microseconds().unwrap_or(i64::MAX).max(1);
    let place = |at: Timestamp| {
        let micros = at.signed_duration_since(start).num_microseconds().unwrap_or_default().clamp(0, whole);
        let along = i128::from(micros) * i128::from(BAR) / i128::from(whole);
        LABEL + i64::try_from(along).unwrap_or(BAR)
    };
    let rows = i64::try_from(shown.len()).unwrap_or_default();
    let height = rows * ROW + 26;
    let total = last.signed_duration_since(start);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Steps and attempts over time" {
            svg.waterfall viewBox={ "0 0 " (LABEL + BAR + TAIL) " " (height) } width=(LABEL + BAR + TAIL) height=(height) role="img"
                aria-label={ (shown.len()) " commands in " (span(total)) "; the table of commands tells each" } {
                @for quarter in 0..=4 {
                    @let x = LABEL + BAR * quarter / 4;
                    line.grid x1=(x) x2=(x) y1="18" y2=(height) {}
                    text.tick x=(x) y="12" text-anchor=(if quarter == 0 { "start" } else { "middle" }) { (span(total * i32::try_from(quarter).unwrap_or(0) / 4)) }
                }
                @for (at, entry) in (0_i64..).zip(&shown) {
                    @let y = 22 + at * ROW;
                    @let (from, to) = (place(entry.decided_at), place(until(entry)));
                    @let outcome = entry.verified.as_ref().map_or("pending", |verified| verified.outcome.as_str());
                    @let took = until(entry).signed_duration_since(entry.decided_at);
                    g {
                        title { (entry.step) " " (entry.direction) ": " (outcome) " after " (span(took)) }
                        text.row-name x="0" y=(y + 17) {
                            (if entry.direction.as_str() == "compensation" { "↩ " } else { "" }) (cut(&entry.step, 28))
                        }
                        rect class={ "span " (outcome) " " (entry.direction) } x=(from) y=(y + 5) width=((to - from).max(3)) height="16" rx="3" {}
                        @for Attempt { number, sent, .. } in attempts(items, entry) {
                            line.attempt x1=(place(sent)) x2=(place(sent)) y1=(y + 2) y2=(y + 24) {}
                            @if number > 1 { text.attempt-number x=(place(sent) + 3) y=(y + 17) { (number) } }
                        }
                        text.took x=(LABEL + BAR + 8) y=(y + 17) { (span(took)) }
                    }
                }
            }
        }
        @if commands.len() > MOST { p.soft { "The first " (MOST) " of " (commands.len()) " commands." } }
    }
}
