//! What happened in a run, in order of time, as people read it.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::definition::Definition;
use crate::id::StepIndex;
use crate::saga::{Direction, Note};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// How long after the start, in seconds.
    #[serde(rename = "afterSeconds", serialize_with = "seconds")]
    pub after: Duration,
    /// The step, if it was about one.
    pub step: Option<String>,
    /// Whether it was about the step's compensation.
    pub compensation: bool,
    /// The attempt, if it was about one.
    pub attempt: Option<u32>,
    /// What happened.
    pub what: String,
    /// The saga's state then, as a word of the contract.
    pub state: String,
    /// Whether this is a planned fault that struck.
    pub fault: bool,
}

fn seconds<S: serde::Serializer>(after: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(after.as_secs_f64())
}

/// A run's lines.
#[derive(Clone, Debug)]
pub struct Timeline {
    start: Timestamp,
    /// In order of time.
    pub lines: Vec<Line>,
}

impl Timeline {
    pub(super) fn starting_at(start: Timestamp) -> Self {
        Self { start, lines: Vec::new() }
    }

    pub(super) fn since_start(&self, now: Timestamp) -> Duration {
        (now - self.start).to_std().unwrap_or_default()
    }

    pub(super) fn note(&mut self, definition: &Definition, now: Timestamp, note: &Note, state: &str) {
        let Some((step, direction, what)) = told(note) else { return };
        let step = step.and_then(|step| definition.steps.get(step.at())).map(|step| step.name.clone());
        self.lines.push(Line {
            after: self.since_start(now),
            step,
            compensation: direction == Direction::Compensation,
            attempt: None,
            what,
            state: state.to_owned(),
            fault: false,
        });
    }

    /// A span of virtual time as people read it: `0.010s`, `5m 02s`, `3h 00m`, `30d 00h`.
    pub fn in_words(span: Duration) -> String {
        in_words(span)
    }

    /// The columns' names.
    pub const HEADER: [&str; 5] = ["after", "step", "attempt", "what", "state"];

    /// The cells of each line, under [`Timeline::HEADER`].
    pub fn rows(&self) -> impl Iterator<Item = [String; 5]> + '_ {
        self.lines.iter().map(|line| {
            let undo = if line.compensation { "undo:" } else { "" };
            let step = line.step.as_ref().map_or(String::new(), |step| format!("{undo}{step}"));
            let attempt = line.attempt.map_or(String::new(), |attempt| format!("#{attempt}"));
            let mark = if line.fault { "!! " } else { "" };
            [in_words(line.after), step, attempt, format!("{mark}{}", line.what), line.state.clone()]
        })
    }
}

impl std::fmt::Display for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: Vec<[String; 5]> = self.rows().collect();
        let mut widths = [0; 5];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                write!(line, "{cell:<width$}  ")?;
            }
            writeln!(f, "  {}", line.trim_end())?;
        }
        Ok(())
    }
}

fn told(note: &Note) -> Option<(Option<StepIndex>, Direction, String)> {
    let (action, undo) = (Direction::Action, Direction::Compensation);
    Some(match note {
        Note::Started => (None, action, "started".to_owned()),
        Note::StepVerified(step) => (Some(*step), action, "verified".to_owned()),
        Note::StepFailed(step, problem) => (Some(*step), action, format!("failed: {problem}")),
        Note::StepUnknown(step, problem) => (Some(*step), action, format!("outcome unknown: {problem}")),
        Note::StepSkipped(step) => (Some(*step), action, "skipped".to_owned()),
        Note::StepCompensated(step) => (Some(*step), undo, "undone".to_owned()),
        Note::Compensating(problem) => (None, undo, format!("turns back: {problem}")),
        Note::Completed => (None, action, "completed".to_owned()),
        Note::Compensated => (None, action, "compensated: nothing stands".to_owned()),
        Note::Stuck(step, problem) => (Some(*step), action, format!("stuck: {problem}")),
        Note::Unstuck => (None, action, "no longer stuck".to_owned()),
        Note::Abandoned => (None, action, "abandoned".to_owned()),
        Note::Signalled(signal) => (None, action, format!("the signal {signal} came")),
        Note::Paused => (None, action, "paused".to_owned()),
        Note::Resumed => (None, action, "resumed".to_owned()),
        Note::TimedOut(step, direction) => (Some(*step), *direction, "timed out".to_owned()),
        Note::Contradiction(step, what) => (Some(*step), action, format!("contradiction: {what}")),
        Note::RetryAsked(..) | Note::Duplicate => return None,
        #[allow(unreachable_patterns, reason = "kinds of notes are added")]
        _ => return None,
    })
}

/// `0.010s`, `31.2s`, `5m 02s`, `3h 00m`, `30d`.
pub(super) fn in_words(wait: Duration) -> String {
    let seconds = wait.as_secs();
    match seconds {
        0..=59 => format!("{:.3}s", wait.as_secs_f64()),
        60..=3_599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
