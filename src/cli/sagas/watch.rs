//! `amends sagas watch`: asks the server again and again, and prints what has changed.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::{show, state, text};
use crate::cli::error::{CliError, Exit};
use crate::cli::remote::Remote;
use crate::cli::{Context, output};
use crate::id::SagaId;

/// How often the server is asked.
const EVERY: Duration = Duration::from_millis(500);
/// So many questions in a row may go unanswered: a server that restarts does not end the watch.
const UNANSWERED: u32 = 60;

/// Which saga.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The saga's id
    #[arg(value_parser = super::saga_id)]
    id: SagaId,
}

/// Follows it; progress goes to stderr, the saga as it ended to stdout.
pub async fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    follow(&Remote::new(context)?, context, &args.id.to_string()).await
}

/// Follows the saga `id` until it has ended or is stuck.
pub async fn follow(remote: &Remote, context: &Context, id: &str) -> Result<Exit, CliError> {
    let mut seen = Seen::default();
    let mut unanswered = 0;
    loop {
        match remote.get(&["v1", "sagas", id], &[]).await {
            Ok(saga) => {
                unanswered = 0;
                for line in seen.changes(&saga) {
                    output::note(line);
                }
                if let Some(exit) = ended(&saga) {
                    show::print(context, &saga)?;
                    show::suggest(&saga);
                    return Ok(exit);
                }
            }
            // The first question must be answered: an address that is wrong stays wrong.
            Err(error) if error.exit == Exit::Failed && seen.is_any() && unanswered < UNANSWERED => {
                if unanswered == 0 {
                    output::note(format!("{}; trying again", error.message));
                }
                unanswered += 1;
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn ended(saga: &Value) -> Option<Exit> {
    match saga["state"].as_str() {
        Some("COMPLETED") => Some(Exit::Done),
        // Stuck is no end, but nothing moves until somebody acts: the one who watches had better know.
        Some("COMPENSATED" | "ABANDONED" | "STUCK") => Some(Exit::Holds),
        _ => None,
    }
}

/// What has been printed so far.
#[derive(Default)]
struct Seen {
    state: String,
    steps: HashMap<String, String>,
}

impl Seen {
    fn is_any(&self) -> bool {
        !self.state.is_empty()
    }

    /// One line for everything that is new.
    fn changes(&mut self, saga: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        for step in saga["steps"].as_array().into_iter().flatten() {
            let name = output::escape(&text(&step["name"]));
            let status = output::escape(&text(&step["status"]));
            let attempts = step["attempts"].as_u64().filter(|&attempts| attempts > 1);
            let mut line = format!("  {name}: {status}");
            if let Some(attempts) = attempts {
                line.push_str(&format!(", attempt {attempts}"));
            }
            let problem = show::problem(step);
            if !problem.is_empty() {
                line.push_str(&format!(" ({})", output::escape(&problem)));
            }
            let is_news =
                self.steps.get(&name) != Some(&line) && (status != "waiting" || self.steps.contains_key(&name));
            if is_news {
                self.steps.insert(name, line.clone());
                lines.push(line);
            }
        }
        let state = output::escape(&state(saga));
        if self.state != state {
            lines.push(format!("{} is {state}", output::escape(&text(&saga["id"]))));
            self.state = state;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_has_changed_is_told() {
        let mut seen = Seen::default();
        let saga = |status: &str, state: &str| json!({"id": "1", "state": state, "steps": [{"name": "pick", "status": status, "attempts": 2}]});
        assert_eq!(seen.changes(&saga("waiting", "RUNNING")), ["1 is RUNNING"]);
        assert_eq!(seen.changes(&saga("pending", "RUNNING")), ["  pick: pending, attempt 2"]);
        assert!(seen.changes(&saga("pending", "RUNNING")).is_empty());
        assert_eq!(seen.changes(&saga("verified", "COMPLETED")), ["  pick: verified, attempt 2", "1 is COMPLETED"]);
    }

    #[test]
    fn only_a_completed_saga_is_well() {
        let exit = |state: &str| ended(&json!({ "state": state }));
        assert_eq!(exit("COMPLETED"), Some(Exit::Done));
        assert_eq!(exit("COMPENSATED"), Some(Exit::Holds));
        assert_eq!(exit("STUCK"), Some(Exit::Holds));
        assert_eq!(exit("COMPENSATING"), None);
    }
}
