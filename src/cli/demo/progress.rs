//! The demo as it happens, on stderr: one moving line per saga on a terminal, one line per change elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::output;

/// Where the demo's progress goes.
pub struct Progress {
    lines: Option<MultiProgress>,
    bars: HashMap<String, ProgressBar>,
    told: HashMap<String, String>,
}

impl Progress {
    /// Lively on a terminal, plain elsewhere.
    pub fn new() -> Self {
        Self { lines: output::is_lively().then(MultiProgress::new), bars: HashMap::new(), told: HashMap::new() }
    }

    /// Tells what happens to all.
    pub fn say(&self, text: &str) {
        match &self.lines {
            // A bar that is drawn over would lose the line.
            Some(lines) => lines.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// Tells where `key` stands; the same again is not told twice.
    pub fn stands(&mut self, key: &str, text: String, is_over: bool) {
        if self.told.get(key) == Some(&text) {
            return;
        }
        match &self.lines {
            Some(lines) => {
                let bar = self.bars.entry(key.to_owned()).or_insert_with(|| {
                    let bar = lines.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix}  {wide_msg}") {
                        bar.set_style(style);
                    }
                    bar.set_prefix(format!("{key:<8}"));
                    bar.enable_steady_tick(Duration::from_millis(100));
                    bar
                });
                if is_over {
                    bar.finish_with_message(text.clone());
                } else {
                    bar.set_message(text.clone());
                }
            }
            None => output::note(format!("  {key:<8}  {text}")),
        }
        self.told.insert(key.to_owned(), text);
    }
}
