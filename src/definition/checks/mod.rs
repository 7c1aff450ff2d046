//! What can be known of a definition before it runs: beyond its form, whether its expressions, conditions and times
//! can work out. These checks see a definition that can be compiled; one that was registered before a check was added
//! stays usable, because [`compile`](super::compile) does not ask them.

mod budgets;
mod compare;
mod facts;
mod infer;
mod kind;
mod names;
mod order;
mod paths;
mod reads;
mod schemas;
mod shape;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::definition::Graph;
use crate::definition::fields::Findings;
use crate::definition::node::Node;
use crate::definition::steps::Draft;

/// A definition that can be compiled, as the checks see it.
pub(super) struct Whole<'d> {
    /// The text's tree.
    pub root: &'d Node,
    /// The steps, in the order of the file.
    pub drafts: &'d [Draft],
    /// Their order.
    pub graph: &'d Graph,
    /// The saga's time-out.
    pub timeout: Option<Duration>,
}

/// Runs all checks.
pub(super) fn all(findings: &mut Findings<'_>, whole: &Whole<'_>) {
    names::check(findings, whole);
    order::check(findings, whole);
    budgets::check(findings, whole);
    schemas::check(findings, whole);
    reads::check(findings, whole);
}

impl Whole<'_> {
    /// The node of the step at `at`.
    fn step_node(&self, at: usize) -> Option<&Node> {
        self.root.get("steps").and_then(|steps| steps.item(at))
    }

    fn name(&self, at: usize) -> &str {
        self.drafts.get(at).and_then(|draft| draft.name.as_deref()).unwrap_or("?")
    }

    fn pivot(&self) -> Option<usize> {
        self.drafts.iter().position(|draft| draft.pivot)
    }
}
