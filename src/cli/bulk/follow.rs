//! A job is followed: a bar on stderr, its outcome on stdout.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::{print, suggest};
use crate::cli::error::{CliError, Exit};
use crate::cli::output::cell_text as text;
use crate::cli::remote::Remote;
use crate::cli::{Context, output};

/// How often is asked.
const LOOK: Duration = Duration::from_millis(500);
/// Off a terminal, a line for so many parts of the whole.
const PARTS: u64 = 10;

/// Follows a job until it is over and its sagas were looked at once, or Ctrl-C: the job goes on without us.
pub async fn run(remote: &Remote, id: &str, context: &Context) -> Result<Exit, CliError> {
    tokio::select! {
        job = end(remote, id) => {
            let job = job?;
            print(&job, context)?;
            suggest(&job);
            let has_failed = job["failed"].as_u64() != Some(0) || job["check"]["stuck"].as_u64() != Some(0);
            Ok(if has_failed { Exit::Holds } else { Exit::Done })
        }
        _ = tokio::signal::ctrl_c() => {
            output::note(format!(
                "\ndetached; the job goes on. Come back with: amends bulk watch {id}\nhold it with: amends bulk pause {id}\n\
                 end it with: amends bulk stop {id}"
            ));
            Ok(Exit::Done)
        }
    }
}

async fn end(remote: &Remote, id: &str) -> Result<Value, CliError> {
    let mut teller = Teller::new();
    let mut is_known = false;
    loop {
        match remote.get(&["v1", "bulk", id], &[]).await {
            Ok(job) => {
                is_known = true;
                teller.tell(&job);
                let is_over = matches!(job["state"].as_str(), Some("DONE" | "STOPPED"));
                if is_over && !job["check"].is_null() {
                    return Ok(job);
                }
            }
            // A server that is away for a while is waited for.
            Err(error) if is_known && error.exit == Exit::Failed => {
                teller.say(&format!("{}; trying again", error.message))
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Teller {
    bar: Option<ProgressBar>,
    told: String,
}

impl Teller {
    fn new() -> Self {
        let bar = output::is_lively().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("  {bar:40} {pos}/{len}  {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, told: String::new() }
    }

    fn say(&mut self, line: &str) {
        if self.told == line {
            return;
        }
        match &self.bar {
            Some(bar) => bar.set_message(output::escape(line)),
            None => output::note(output::escape(line)),
        }
        line.clone_into(&mut self.told);
    }

    fn tell(&mut self, job: &Value) {
        let number = |name: &str| job[name].as_u64().unwrap_or_default();
        let (total, open) = (number("total"), number("open"));
        let state = text(&job["state"]);
        let told = match job["state"].as_str() {
            Some("PAUSED") => format!("paused: {}", text(&job["summary"])),
            Some("RUNNING") => text(&job["summary"]),
            _ => format!("{}; looked at again soon", text(&job["summary"])),
        };
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(total - open.min(total));
                bar.set_message(output::escape(&told));
            }
            None => {
                let part = (total - open.min(total)) * PARTS / total.max(1);
                let mark = format!("{state} {part}");
                if self.told != mark {
                    output::note(output::escape(&told));
                    self.told = mark;
                }
            }
        }
    }
}
