//! A definition for one run on servers: shorter times, and names that no other run has.
//!
//! - All times are divided by the same number, 60 unless said otherwise.
//! - An attempt has at least 400 ms, so that a busy machine does not time out what was not meant to.
//! - An attempt that nobody answers is given up a second or so after that: only then is the broker's confirm, from which
//!   the time-out counts, written down.
//! - Waits for signals and delays have at most 3 s, since nobody learns anything from waiting.
//! - The saga's own time-out is at least a minute: it is there to end what takes days.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::definition::{Definition, RetryPolicy, Step, Work};
use crate::testkit::kit::InvalidPlan;

const SHORTEST_ATTEMPT: Duration = Duration::from_millis(400);
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const SHORTEST_SAGA: Duration = Duration::from_secs(60);
/// How much of a name is kept before this run's word.
const KEPT: usize = 40;

/// The definition as it is registered for one run.
pub(super) struct Served {
    pub document: Value,
    /// The participants' true names, by the names that they have in this run.
    pub participants: HashMap<String, String>,
}

/// Writes the document anew. `definition` is what it was read as, perhaps expanded.
///
/// # Errors
/// When a step starts another saga, whose definition the kit does not have.
pub(super) fn served(
    document: &Value,
    definition: &Definition,
    word: &str,
    faster: u32,
) -> Result<Served, InvalidPlan> {
    let scale = Scale(faster.max(1));
    let name = |name: &str, at: usize| {
        let kept: String = name.chars().take(KEPT).collect();
        format!("{kept}-{word}-{at}")
    };
    let mut document = document.clone();
    let mut participants: HashMap<String, String> = HashMap::new();
    let Some(root) = document.as_object_mut() else { return Err(InvalidPlan::Servers("no definition".to_owned())) };
    root.remove("defaults");
    root.insert("saga".to_owned(), name(&definition.reference.name, 0).into());
    if let Some(timeout) = definition.timeout {
        root.insert("timeout".to_owned(), text(scale.of(timeout).max(SHORTEST_SAGA)));
    }
    let steps = root.get_mut("steps").and_then(Value::as_array_mut);
    for entry in steps.into_iter().flatten().filter_map(Value::as_object_mut) {
        let of = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        // An element of a loop has the policies of its step.
        let step = definition.named(of).or_else(|| definition.steps.iter().find(|step| is_element(step, of)));
        let Some(step) = step.cloned() else {
            // A loop over nothing: it has no elements, and sends nothing.
            continue;
        };
        if let Work::Saga { name, .. } = &step.work {
            let message = format!(
                "step `{of}` starts the saga `{name}`, whose definition the kit does not have: run this plan on virtual time"
            );
            return Err(InvalidPlan::Servers(message));
        }
        let known = participants.len();
        if step.work == Work::Command {
            let given = participants.iter().find(|(_, own)| **own == step.participant);
            let served = given.map(|(served, _)| served.clone()).unwrap_or_else(|| name(&step.participant, known));
            entry.insert("participant".to_owned(), served.clone().into());
            participants.insert(served, step.participant.clone());
        }
        shorten(entry, &step, scale);
    }
    Ok(Served { document, participants })
}

fn is_element(step: &Step, of: &str) -> bool {
    step.name.strip_prefix(of).is_some_and(|rest| rest.starts_with('['))
}

fn shorten(entry: &mut Map<String, Value>, step: &Step, scale: Scale) {
    match &step.work {
        Work::Delay => {
            entry.insert("delay".to_owned(), text(scale.wait(step.timeout)));
        }
        Work::Wait { .. } => {
            if let Some(wait) = entry.get_mut("wait").and_then(Value::as_object_mut) {
                wait.insert("timeout".to_owned(), text(scale.wait(step.timeout)));
            }
        }
        Work::Command | Work::Saga { .. } => {
            entry.insert("timeout".to_owned(), text(scale.attempt(step.timeout)));
            entry.insert("retry".to_owned(), policy(&step.retry, scale));
        }
    }
    let undo = entry.get_mut("compensation").and_then(Value::as_object_mut);
    if let (Some(undo), Some(action)) = (undo, step.compensation.action()) {
        undo.insert("timeout".to_owned(), text(scale.attempt(action.timeout)));
        undo.insert("retry".to_owned(), policy(&action.retry, scale));
    }
}

fn policy(retry: &RetryPolicy, scale: Scale) -> Value {
    json!({
        "maxAttempts": retry.max_attempts.unwrap_or(0),
        "initialInterval": text(scale.of(retry.initial_interval)),
        "backoffCoefficient": retry.backoff_coefficient,
        "maxInterval": text(scale.of(retry.max_interval)),
        "jitter": if retry.full_jitter { "full" } else { "none" },
        "nonRetryable": retry.non_retryable,
    })
}

#[derive(Clone, Copy)]
struct Scale(u32);

impl Scale {
    fn of(self, time: Duration) -> Duration {
        (time / self.0).max(Duration::from_millis(1))
    }

    fn attempt(self, time: Duration) -> Duration {
        self.of(time).max(SHORTEST_ATTEMPT)
    }

    fn wait(self, time: Duration) -> Duration {
        self.of(time).clamp(SHORTEST_ATTEMPT, LONGEST_WAIT)
    }
}

fn text(time: Duration) -> Value {
    format!("{}ms", time.as_millis()).into()
}
