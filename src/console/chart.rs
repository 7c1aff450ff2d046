//! Small charts as SVG: numbers over time without axes, and what they say in words.

use chrono::TimeDelta;
use maud::{Markup, html};

use crate::console::words::{number, span};
use crate::coordinator::overview::{Activity, MINUTES};

/// How many columns a chart has.
const COLUMNS: usize = MINUTES;
const WIDTH: usize = 360;
const HEIGHT: usize = 56;

/// Both charts.
pub(super) fn charts(activity: &Activity) -> Markup {
    let sum = |counts: &[u64]| counts.iter().sum::<u64>();
    let last = |values: &[u64]| values.iter().rev().copied().find(|value| *value > 0).unwrap_or_default();
    let millis = |value: u64| span(TimeDelta::milliseconds(i64::try_from(value).unwrap_or(i64::MAX)));
    let (started, ended) = (number(sum(&activity.started)), number(sum(&activity.ended)));
    let (middle, slow) = (millis(last(&activity.middle)), millis(last(&activity.slow)));
    html! {
        figure.chart {
            figcaption { span { "Throughput, per minute" } span { strong { (started) } " started · " strong { (ended) } " ended" } }
            (bars(&activity.started, &activity.ended, &format!("In the last hour {started} sagas started and {ended} ended")))
        }
        figure.chart {
            figcaption { span { "Time from start to end" } span { strong { (middle) } " median · " strong { (slow) } " p95" } }
            (lines(&activity.middle, &activity.slow, &format!("Sagas that ended last took {middle} at the median, {slow} at the 95th percentile")))
        }
    }
}

fn scaled(value: u64, most: u64) -> usize {
    let height = value.saturating_mul(HEIGHT as u64).checked_div(most).unwrap_or_default();
    usize::try_from(height).unwrap_or(HEIGHT).max(usize::from(value > 0) * 2)
}

fn bars(back: &[u64], front: &[u64], words: &str) -> Markup {
    let most = back.iter().chain(front).copied().max().unwrap_or_default().max(1);
    let width = WIDTH / COLUMNS;
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(words) {
            @for (at, (back, front)) in back.iter().zip(front).enumerate() {
                @let (high, low) = (scaled(*back, most), scaled(*front, most));
                rect.started x=(at * width) y=(HEIGHT - high) width=(width - 1) height=(high) {}
                rect.ended x=(at * width + 1) y=(HEIGHT - low) width=(width - 3) height=(low) {}
            }
            line.floor x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
        }
    }
}

fn lines(middle: &[u64], slow: &[u64], words: &str) -> Markup {
    let most = slow.iter().copied().max().unwrap_or_default().max(1);
    let width = WIDTH / COLUMNS;
    html! {
        svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(words) {
            @for (at, (middle, slow)) in middle.iter().zip(slow).enumerate() {
                @let (low, high) = (scaled(*middle, most), scaled(*slow, most));
                rect.slow x=(at * width) y=(HEIGHT - high) width=(width - 1) height=(high) {}
                rect.middle x=(at * width) y=(HEIGHT - low) width=(width - 1) height=(low) {}
            }
            line.floor x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
        }
    }
}
