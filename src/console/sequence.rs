//! The saga across services, as a sequence diagram in SVG: a lane per participant, an arrow per message, the earliest on top.

use maud::{Markup, html};

use crate::client::views::HistoryItem;
use crate::clock::Timestamp;
use crate::console::attempts::attempts;
use crate::console::layout::empty;
use crate::console::words::{cut, span};
use crate::store::OutboxEntry;

/// From the left edge to the coordinator's lane: times stand there.
const LEFT: usize = 120;
const LANE: usize = 190;
const HEAD: usize = 44;
const ROW: usize = 26;
/// Participants that have a lane, at most.
const MOST_LANES: usize = 12;
/// Messages that are drawn, at most.
const MOST: usize = 200;
/// Characters of an arrow's words and of a lane's name.
const LONGEST: usize = 26;

/// One message, or the silence where one should have been.
struct Arrow {
    at: Timestamp,
    lane: usize,
    kind: Kind,
    words: String,
    /// Of the command's outcome; for the style.
    class: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Command,
    Reply,
    Silence,
}

/// The diagram of a saga's messages.
pub(super) fn draw(commands: &[OutboxEntry], items: &[HistoryItem]) -> Markup {
    let Some(start) = commands.iter().map(|entry| entry.decided_at).min() else {
        return empty("No message yet", "The saga has not sent anything so far.");
    };
    let mut lanes: Vec<&str> = Vec::new();
    for entry in commands {
        if !lanes.contains(&entry.participant.as_str()) {
            lanes.push(&entry.participant);
        }
    }
    let more_lanes = lanes.len().saturating_sub(MOST_LANES);
    lanes.truncate(MOST_LANES);
    let mut arrows = Vec::new();
    for entry in commands {
        if let Some(lane) = lanes.iter().position(|lane| *lane == entry.participant) {
            arrows_of(entry, items, lane + 1, &mut arrows);
        }
    }
    arrows.sort_by_key(|arrow| arrow.at);
    let more = arrows.len().saturating_sub(MOST);
    arrows.truncate(MOST);
    let width = LEFT + lanes.len() * LANE + 100;
    let height = HEAD + arrows.len() * ROW + 14;
    let x = |lane: usize| LEFT + lane * LANE;
    html! {
        div.scroll tabindex="0" role="region" aria-label="Messages between services" {
            svg.sequence viewBox={ "0 0 " (width) " " (height) } width=(width) height=(height) role="img"
                aria-label={ (arrows.len()) " messages between the coordinator and " (lanes.len()) " participants; the history tells each" } {
                @for (lane, name) in std::iter::once("amends").chain(lanes.iter().copied()).enumerate() {
                    text.lane-name x=(x(lane)) y="18" text-anchor="middle" { (cut(name, LONGEST)) }
                    line.lane x1=(x(lane)) x2=(x(lane)) y1="28" y2=(height) {}
                }
                @for (row, arrow) in arrows.iter().enumerate() {
                    (one(arrow, HEAD + row * ROW, x(0), x(arrow.lane), &span(arrow.at.signed_duration_since(start))))
                }
            }
        }
        @if more > 0 { p.soft { "The first " (MOST) " messages of " (MOST + more) "." } }
        @if more_lanes > 0 { p.soft { "Without " (more_lanes) " more participants." } }
    }
}

fn arrows_of(entry: &OutboxEntry, items: &[HistoryItem], lane: usize, arrows: &mut Vec<Arrow>) {
    let is_back = entry.direction.as_str() == "compensation";
    let outcome = entry.verified.as_ref().map_or("pending", |verified| verified.outcome.as_str());
    let command = |at: Timestamp, attempt: u32| {
        let (back, again) =
            (if is_back { "↩ " } else { "" }, if attempt > 1 { format!(" #{attempt}") } else { String::new() });
        let words = format!("{back}{}{again}", cut(&entry.action, LONGEST - 6));
        Arrow { at, lane, kind: Kind::Command, words, class: if is_back { "back" } else { "forth" } }
    };
    let mut sent: Vec<Arrow> =
        attempts(items, entry).iter().map(|attempt| command(attempt.sent, attempt.number)).collect();
    if sent.is_empty() {
        sent.push(command(entry.decided_at, 1));
    }
    arrows.append(&mut sent);
    let Some(verified) = &entry.verified else { return };
    let (kind, class, words) = match outcome {
        "success" => (Kind::Reply, "success", "success".to_owned()),
        "failure" => {
            let what = verified.problem.as_ref().map_or("failure", |problem| &problem.kind);
            (Kind::Reply, "failure", cut(what, LONGEST))
        }
        "unknown" => (Kind::Silence, "unknown", "no answer".to_owned()),
        other => (Kind::Silence, "skipped", other.to_owned()),
    };
    arrows.push(Arrow { at: verified.at, lane, kind, words, class });
}

fn one(arrow: &Arrow, y: usize, home: usize, away: usize, when: &str) -> Markup {
    let base = y + 8;
    // Towards the participant with a command, away from it with its reply.
    let (from, to) = if arrow.kind == Kind::Reply { (away - 4, home + 4) } else { (home + 4, away - 4) };
    let (near, tip) = if to > from { (to - 7, to) } else { (to + 7, to) };
    html! {
        g class={ "message " (arrow.class) } {
            title { (arrow.words) " after " (when) }
            text.when x="0" y=(base + 1) { "+" (when) }
            text.words x=((away - LANE / 2).max(home + LANE / 2)) y=(base - 5) text-anchor="middle" { (arrow.words) }
            @if arrow.kind == Kind::Silence {
                line.silence x1=(away - 40) x2=(away - 8) y1=(base) y2=(base) {}
                path.cross d={ "M" (away - 5) " " (base - 5) "l10 10m0 -10l-10 10" } {}
            } @else {
                line x1=(from) x2=(to) y1=(base) y2=(base) {}
                path d={ "M" (near) " " (base - 4) "L" (tip) " " (base) "L" (near) " " (base + 4) } {}
            }
        }
    }
}
