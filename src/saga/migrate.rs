//! Moving a running saga to another version of its definition. What was sent keeps its meaning: a version in which a
//! sent step is another one, or stands elsewhere among those that were sent, is refused with every reason.

use std::cell::OnceCell;
use std::sync::Arc;

use serde::Serialize;

use crate::clock::{Timestamp, after};
use crate::definition::Definition;
use crate::definition::diff::{changes, facets};
use crate::id::StepIndex;
use crate::saga::transition::Machine;
use crate::saga::{CompensationState, Effect, Note, Saga, SagaState, Skip, StepState};

/// Why a saga cannot be moved to a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// A stable word, for example `STEP_REMOVED`.
    pub code: &'static str,
    /// The step that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// In one clause.
    pub why: String,
}

/// What a step says that a saga may take from a new version although the step was sent: when and how often it is tried
/// again, and what was decided before it was sent. Everything else is what was sent, or what undoes it.
const FREE: [&str; 5] = ["after", "when", "timeout", "compensation.timeout", "forEach.maxParallel"];
const FREE_GROUPS: [&str; 2] = ["retry.", "compensation.retry."];

/// A version as it is for this saga's input, whose lists say how many steps there are.
///
/// # Errors
/// Every place where the input does not satisfy the version's schema, or has no such list.
pub fn expanded_for(definition: &Arc<Definition>, saga: &Saga) -> Result<Arc<Definition>, Vec<Reason>> {
    let refused = |what: String| {
        let why = format!("the saga's input does not fit {}: {what}", definition.reference);
        reason("INPUT_INVALID", None, why)
    };
    let errors = definition.check_input(&saga.input);
    if !errors.is_empty() {
        let at = |(pointer, message): (String, String)| refused(format!("{pointer} {message}").trim().to_owned());
        return Err(errors.into_iter().map(at).collect());
    }
    definition.expanded(&saga.input).map_err(|error| vec![refused(error.to_string())])
}

/// Moves `saga` from `from`, its definition, to `to`, both [expanded](expanded_for) for its input, and decides what the new version allows at once: the history's
/// event for it is [`EventKind::Migrated`](crate::saga::EventKind::Migrated). [`Saga::outputs`] must be there if `to`
/// reads any.
///
/// # Errors
/// As [`compatible`]; nothing changes.
pub fn migrate(
    from: &Definition,
    to: &Definition,
    saga: &Saga,
    now: Timestamp,
) -> Result<(Saga, Vec<Effect>), Vec<Reason>> {
    let saga = compatible(from, to, saga, now)?;
    let mut machine =
        Machine { definition: to, saga, now, effects: Vec::new(), has_changed: true, items: OnceCell::new() };
    machine.shorten_waits();
    machine.note(Note::Migrated { from: from.reference.version });
    Ok(machine.finish())
}

/// The saga as `to` sees it: the same state, its steps in the order of `to`. The revision is still the old one.
///
/// # Errors
/// Every reason why what was sent would mean something else in `to`.
pub fn compatible(from: &Definition, to: &Definition, saga: &Saga, now: Timestamp) -> Result<Saga, Vec<Reason>> {
    let mut reasons = Vec::new();
    if saga.state.is_terminal() {
        reasons.push(reason(
            "ENDED",
            None,
            format!("the saga is {}, and what has ended is final", saga.state.as_str()),
        ));
    }
    if saga.held().is_some() {
        let why = "every step is done, and the saga that started it has been told so".to_owned();
        reasons.push(reason("HELD", None, why));
    }
    if from.reference.name != to.reference.name {
        let why = format!("{} is another definition than {}", to.reference, from.reference);
        reasons.push(reason("OTHER_DEFINITION", None, why));
    } else if from.reference == to.reference {
        reasons.push(reason("SAME_VERSION", None, format!("the saga is at {} already", to.reference)));
    }
    if from.reference != saga.definition || from.steps.len() != saga.steps.len() {
        reasons.push(reason("OTHER_VERSION", None, format!("the saga is not at {}", from.reference)));
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let view = View { from, to, saga };
    for index in from.indices() {
        view.step(index, &mut reasons);
    }
    view.order(&mut reasons);
    let mut moved = view.moved();
    view.pivot(&moved, now, &mut reasons);
    if matches!(saga.state, SagaState::Running) && !is_pivot_passed(to, &moved, now) {
        moved.deadline = to.timeout.map(|timeout| after(saga.created_at, timeout));
        if let Some(deadline) = moved.deadline.filter(|deadline| *deadline <= now) {
            let why = format!("the saga would be beyond the new version's time-out, which ended at {deadline}");
            reasons.push(reason("TIMEOUT_PASSED", None, why));
        }
    }
    if reasons.is_empty() { Ok(moved) } else { Err(reasons) }
}

fn reason(code: &'static str, step: Option<&str>, why: String) -> Reason {
    Reason { code, step: step.map(str::to_owned), why }
}

fn is_pivot_passed(definition: &Definition, saga: &Saga, now: Timestamp) -> bool {
    let (saga, effects) = (saga.clone(), Vec::new());
    Machine { definition, saga, now, effects, has_changed: false, items: OnceCell::new() }.is_pivot_passed()
}

/// How far a step has come, as far as a migration is concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Nothing was decided yet: it may become anything.
    Open,
    /// Its condition was false. It left nothing; there is not even a command.
    PassedOver,
    /// It is decided, but no command was ever sent: its input can still be mended.
    Decided,
    /// A command was sent.
    Sent,
}

fn reach(state: &StepState) -> Reach {
    match state {
        StepState::Waiting => Reach::Open,
        StepState::Skipped { by: Skip::Condition } => Reach::PassedOver,
        StepState::Skipped { by: Skip::Operator } | StepState::Failed { seq: None, generation: 0, .. } => {
            Reach::Decided
        }
        _ => Reach::Sent,
    }
}

/// Whether a compensation is under way whose command could not even be made.
fn is_undoing_unsent(state: &StepState) -> bool {
    let StepState::Compensating { compensation, .. } = state else { return false };
    matches!(compensation, CompensationState::Failed { seq: None, generation: 0, .. })
}

struct View<'a> {
    from: &'a Definition,
    to: &'a Definition,
    saga: &'a Saga,
}

impl View<'_> {
    fn reach(&self, index: StepIndex) -> Reach {
        self.saga.steps.get(index.at()).map_or(Reach::Open, reach)
    }

    fn name(&self, index: StepIndex) -> &str {
        &self.from.step(index).name
    }

    /// Whether the step itself means the same.
    fn step(&self, index: StepIndex, reasons: &mut Vec<Reason>) {
        let (step, name, reach) = (self.from.step(index), self.name(index), self.reach(index));
        let is_free = reach == Reach::Open || reach == Reach::PassedOver && !step.pivot;
        if is_free {
            return;
        }
        let done = if reach == Reach::Sent { "was sent" } else { "was decided" };
        let Some(now_at) = self.to.find(name) else {
            reasons.push(reason("STEP_REMOVED", Some(name), format!("`{name}` {done} and is gone")));
            return;
        };
        let is_unsent = is_undoing_unsent(&self.saga.steps[index.at()]);
        for change in changes(&facets(self.from, index), &facets(self.to, now_at)) {
            let is_mended = is_unsent && change.what == "compensation.input";
            let is_free = FREE.contains(&change.what) || FREE_GROUPS.iter().any(|group| change.what.starts_with(group));
            if change.what == "pivot" {
                let why = match step.pivot {
                    true => format!("`{name}` {done} as the pivot and no longer is one"),
                    false => format!("`{name}` {done} and would become the pivot"),
                };
                reasons.push(reason("PIVOT_CHANGED", Some(name), why));
            } else if reach == Reach::Sent && !is_free && !is_mended {
                let why =
                    format!("`{name}` {done} and its {} changes from {} to {}", change.what, change.from, change.to);
                reasons.push(reason("STEP_CHANGED", Some(name), why));
            }
        }
    }

    /// Whether what was sent was sent in an order that the new version allows, and is undone in the same order.
    fn order(&self, reasons: &mut Vec<Reason>) {
        let sent: Vec<(StepIndex, StepIndex)> = self
            .from
            .indices()
            .filter(|&index| matches!(self.reach(index), Reach::Sent | Reach::Decided) || self.from.step(index).pivot)
            .filter(|&index| self.reach(index) != Reach::Open)
            .filter_map(|index| Some((index, self.to.find(self.name(index))?)))
            .collect();
        for &(old, new) in &sent {
            let name = self.name(old);
            for before in self.to.indices().filter(|&before| self.to.graph.is_before(before, new)) {
                let other = &self.to.step(before).name;
                let was_before = self.from.find(other).map(|other| self.from.graph.is_before(other, old));
                let why = match was_before {
                    Some(true) => continue,
                    Some(false) => format!("`{other}` would come before `{name}`, which was decided already"),
                    None => format!("`{other}` is new and comes before `{name}`, which was decided already"),
                };
                reasons.push(reason("ORDER_CHANGED", Some(name), why));
            }
            for &(other_old, other_new) in &sent {
                let was = self.from.graph.is_before(other_old, old);
                if was && !self.to.graph.is_before(other_new, new) {
                    let other = self.name(other_old);
                    let why = format!("`{other}` no longer comes before `{name}`, and both were decided already");
                    reasons.push(reason("ORDER_CHANGED", Some(name), why));
                }
            }
        }
    }

    /// The same state by the steps of the new version.
    fn moved(&self) -> Saga {
        let old = |index: StepIndex| self.from.find(&self.to.step(index).name);
        let new = |index: StepIndex| self.to.find(&self.from.step(index).name);
        let state_of = |index| old(index).and_then(|old| self.saga.steps.get(old.at())).cloned();
        let mut moved = self.saga.clone();
        moved.definition = self.to.reference.clone();
        moved.steps = self.to.indices().map(|index| state_of(index).unwrap_or(StepState::Waiting)).collect();
        moved.outputs = std::mem::take(&mut moved.outputs)
            .into_iter()
            .filter_map(|(index, output)| Some((new(index)?, output)))
            .collect();
        moved.reads_outputs |= self.to.reads_outputs;
        if let SagaState::Stuck(stuck) = &mut moved.state {
            // Where it is stuck was sent or decided, so it is still there.
            stuck.step = new(stuck.step).unwrap_or(stuck.step);
        }
        moved
    }

    /// Whether the point of no return stays where it is: ahead, or behind.
    fn pivot(&self, moved: &Saga, now: Timestamp, reasons: &mut Vec<Reason>) {
        let was = is_pivot_passed(self.from, self.saga, now);
        let is = is_pivot_passed(self.to, moved, now);
        if was != is && reasons.is_empty() {
            let why = match was {
                true => "the saga is past its pivot, and would be before it",
                false => "the saga is before its pivot, and would be past it",
            };
            reasons.push(reason("PIVOT_CHANGED", None, why.to_owned()));
        }
    }
}
