//! Small charts as SVG: numbers over time without axes, and what they say in words.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use maud::{Markup, html};

use crate::clock::Timestamp;
use crate::console::words::{number, span};
use crate::store::overview::Lifetime;

/// How many columns a chart has.
const COLUMNS: usize = 60;
const WIDTH: usize = 360;
const HEIGHT: usize = 56;

/// What happened in the last hour, by the minute.
pub(super) struct Activity {
    started: Vec<u64>,
    ended: Vec<u64>,
    /// The medians and the slowest of twenty, in milliseconds.
    middle: Vec<u64>,
    slow: Vec<u64>,
}

impl Activity {
    /// Counts what is known of the sagas that started lately.
    pub(super) fn of(lifetimes: &[Lifetime], now: Timestamp) -> Self {
        let column = |at: Timestamp| {
            let minutes = usize::try_from(now.signed_duration_since(at).num_minutes()).ok()?;
            COLUMNS.checked_sub(minutes + 1)
        };
        let (mut started, mut ended) = (vec![0_u64; COLUMNS], vec![0_u64; COLUMNS]);
        let mut took: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for lifetime in lifetimes {
            if let Some(count) = column(lifetime.created_at).and_then(|at| started.get_mut(at)) {
                *count += 1;
            }
            let Some(end) = lifetime.ended_at else { continue };
            let Some(at) = column(end) else { continue };
            if let Some(count) = ended.get_mut(at) {
                *count += 1;
            }
            let millis = end.signed_duration_since(lifetime.created_at).num_milliseconds();
            took.entry(at).or_default().push(u64::try_from(millis).unwrap_or_default());
        }
        let mut quantile = |hundredths: usize| {
            (0..COLUMNS)
                .map(|at| {
                    let Some(times) = took.get_mut(&at) else { return 0 };
                    times.sort_unstable();
                    times.get(times.len() * hundredths / 100).or(times.last()).copied().unwrap_or_default()
                })
                .collect::<Vec<u64>>()
        };
        let (middle, slow) = (quantile(50), quantile(95));
        Self { started, ended, middle, slow }
    }

    /// Both charts.
    pub(super) fn charts(&self) -> Markup {
        let sum = |counts: &[u64]| counts.iter().sum::<u64>();
        let last = |values: &[u64]| values.iter().rev().copied().find(|value| *value > 0).unwrap_or_default();
        let millis = |value: u64| span(TimeDelta::milliseconds(i64::try_from(value).unwrap_or(i64::MAX)));
        let (started, ended) = (number(sum(&self.started)), number(sum(&self.ended)));
        let (middle, slow) = (millis(last(&self.middle)), millis(last(&self.slow)));
        html! {
            figure.chart {
                figcaption { span { "Throughput, per minute" } span { strong { (started) } " started · " strong { (ended) } " ended" } }
                (bars(&self.started, &self.ended, &format!("In the last hour {started} sagas started and {ended} ended")))
            }
            figure.chart {
                figcaption { span { "Time from start to end" } span { strong { (middle) } " median · " strong { (slow) } " p95" } }
                (lines(&self.middle, &self.slow, &format!("Sagas that ended last took {middle} at the median, {slow} at the 95th percentile")))
            }
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
