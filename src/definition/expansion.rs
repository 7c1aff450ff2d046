//! Definitions with `forEach`, as they are for a given input: one step for each element of the list.
//!
//! The list is one of the saga's input, which never changes, so that a saga's steps are known from its start, and the
//! state machine needs to know nothing of loops: an element is a step like any other, named `reserve[0]`, with an
//! outbox entry, attempts and a compensation of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::definition::{Definition, Element, ExpressionError, ForEach, Graph, Loop, Scope, Step, Template};
use crate::id::StepIndex;
use crate::payload::Payload;

/// How many steps an expanded definition may have: the order of all of them is kept ready.
pub const MAX_EXPANDED_STEPS: usize = 1_000;
/// Expansions that are kept. One is as large as its number of steps, and is made again when it is needed again.
const MAX_KEPT: usize = 64;

/// Expansions that were made, by the lengths of their lists.
#[derive(Debug, Default)]
pub struct Expansions(Mutex<HashMap<Vec<usize>, Arc<Definition>>>);

impl Definition {
    /// Whether it has steps that must be expanded for a saga.
    pub fn has_loops(&self) -> bool {
        self.steps.iter().any(|step| step.for_each.is_some())
    }

    /// The definition for a saga with this input: itself, unless it has `forEach` steps. Everything about a saga's
    /// steps is about this one.
    ///
    /// # Errors
    /// When a list cannot be found in the input, is none, or is too long. Never again after the saga has started.
    pub fn expanded(self: &Arc<Self>, input: &Payload) -> Result<Arc<Self>, ExpressionError> {
        if !self.has_loops() {
            return Ok(self.clone());
        }
        let lengths = self.lengths(input)?;
        let kept = |map: &HashMap<Vec<usize>, Arc<Self>>| map.get(&lengths).cloned();
        if let Some(known) = kept(&self.expansions.0.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(known);
        }
        let made = Arc::new(self.expand(&lengths)?);
        let mut map = self.expansions.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_KEPT {
            map.clear();
        }
        map.insert(lengths, made.clone());
        Ok(made)
    }

    fn lengths(&self, input: &Payload) -> Result<Vec<usize>, ExpressionError> {
        let each = self.steps.iter().filter_map(|step| Some((step, step.for_each.as_ref()?)));
        let mut lengths = Vec::new();
        let mut whole = self.steps.len();
        for (step, for_each) in each {
            let length = items(&for_each.items, input.value())?.len();
            let most = usize::from(for_each.max_items);
            if length > most {
                let message = format!("gives {length} items, and step `{}` takes at most {most}", step.name);
                return Err(refusal(&for_each.items, message));
            }
            whole += length;
            if whole > MAX_EXPANDED_STEPS {
                let message = format!("the saga would have more than {MAX_EXPANDED_STEPS} steps");
                return Err(refusal(&for_each.items, message));
            }
            lengths.push(length);
        }
        Ok(lengths)
    }

    fn expand(&self, lengths: &[usize]) -> Result<Self, ExpressionError> {
        let mut lengths = lengths.iter();
        let mut steps: Vec<Step> = Vec::new();
        let mut loops = Vec::new();
        // Per step of this definition: what it became.
        let mut became: Vec<Vec<StepIndex>> = Vec::new();
        for step in &self.steps {
            let first = steps.len();
            match &step.for_each {
                None => steps.push(step.clone()),
                Some(for_each) => {
                    let of = loops.len();
                    let length = lengths.next().copied().unwrap_or_default();
                    steps.extend((0..length).map(|index| Step {
                        name: format!("{}[{index}]", step.name),
                        for_each: None,
                        element: Some(Element { of, index }),
                        ..step.clone()
                    }));
                    let elements = (first..steps.len()).map(index_of).collect();
                    loops.push(Loop { name: step.name.clone(), items: for_each.items.clone(), elements });
                }
            }
            became.push((first..steps.len()).map(index_of).collect());
        }
        let mut before: Vec<Vec<StepIndex>> = vec![Vec::new(); steps.len()];
        for index in self.indices() {
            let waits_for = self.settled_before(index, &became);
            let lanes = self.step(index).for_each.as_ref().and_then(|ForEach { max_parallel, .. }| *max_parallel);
            for (at, own) in became[index.at()].iter().enumerate() {
                // The n-th item waits for the one that many places before it.
                let lane = lanes.and_then(|lanes| became[index.at()].get(at.checked_sub(usize::from(lanes))?).copied());
                before[own.at()] = match lane {
                    Some(previous) => vec![previous],
                    None => waits_for.clone(),
                };
            }
        }
        let graph = Graph::new(before).map_err(|_| ExpressionError {
            expression: String::new(),
            message: "the steps wait for each other".to_owned(),
        })?;
        Ok(Self {
            reference: self.reference.clone(),
            owner: self.owner.clone(),
            runbook: self.runbook.clone(),
            key: self.key.clone(),
            input_schema: self.input_schema.clone(),
            timeout: self.timeout,
            steps,
            graph,
            output: self.output.clone(),
            hash: self.hash,
            reads_outputs: self.reads_outputs,
            sensitive: self.sensitive.clone(),
            loops,
            expansions: Expansions::default(),
        })
    }

    /// What a step waits for in the expansion. A list without items leaves nothing to wait for but what it waited for.
    fn settled_before(&self, index: StepIndex, became: &[Vec<StepIndex>]) -> Vec<StepIndex> {
        let mut all = Vec::new();
        let mut open: Vec<StepIndex> = self.graph.dependencies(index).to_vec();
        let mut seen = vec![false; self.steps.len()];
        while let Some(dependency) = open.pop() {
            if std::mem::replace(&mut seen[dependency.at()], true) {
                continue;
            }
            match became[dependency.at()].as_slice() {
                [] => open.extend_from_slice(self.graph.dependencies(dependency)),
                steps => all.extend_from_slice(steps),
            }
        }
        all.sort_unstable();
        all
    }
}

/// The items of a list in the input.
pub(crate) fn items(template: &Template, input: &Value) -> Result<Vec<Value>, ExpressionError> {
    let scope = Scope { input, saga_id: "", saga_key: None, outputs: &[], item: None };
    match template.evaluate(&scope)? {
        Value::Array(items) => Ok(items),
        _ => Err(refusal(template, "gives no list".to_owned())),
    }
}

fn refusal(template: &Template, message: String) -> ExpressionError {
    let expression = template.expressions().first().map(|first| first.text.clone()).unwrap_or_default();
    ExpressionError { expression, message }
}

fn index_of(at: usize) -> StepIndex {
    StepIndex(u16::try_from(at).unwrap_or(u16::MAX))
}
