//! Which step depends on which, with its transitive closure.

use crate::id::StepIndex;

/// The dependency graph of a definition: acyclic, edges from a step to those that wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graph {
    before: Vec<Vec<StepIndex>>,
    after: Vec<Vec<StepIndex>>,
    /// `reach[a]` holds, sorted, every step that some path leads to from `a`.
    reach: Vec<Vec<StepIndex>>,
}

/// The graph has a cycle; the steps on it, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<StepIndex>);

impl Graph {
    /// Builds the graph from each step's direct dependencies.
    ///
    /// # Errors
    /// The steps of one cycle, if there is any.
    pub fn new(before: Vec<Vec<StepIndex>>) -> Result<Self, Cycle> {
        let mut after = vec![Vec::new(); before.len()];
        for (at, dependencies) in before.iter().enumerate() {
            for dependency in dependencies {
                after[dependency.at()].push(index(at));
            }
        }
        let order = topological_order(&before, &after)?;
        let mut reach: Vec<Vec<StepIndex>> = vec![Vec::new(); before.len()];
        for &step in order.iter().rev() {
            let mut reached: Vec<StepIndex> = after[step.at()].clone();
            for next in &after[step.at()] {
                reached.extend_from_slice(&reach[next.at()]);
            }
            reached.sort_unstable();
            reached.dedup();
            reach[step.at()] = reached;
        }
        Ok(Self { before, after, reach })
    }

    /// The steps that `step` waits for, directly.
    pub fn dependencies(&self, step: StepIndex) -> &[StepIndex] {
        &self.before[step.at()]
    }

    /// The steps that wait for `step`, directly.
    pub fn dependents(&self, step: StepIndex) -> &[StepIndex] {
        &self.after[step.at()]
    }

    /// Every step that some path leads to from `step`, sorted.
    pub fn descendants(&self, step: StepIndex) -> &[StepIndex] {
        &self.reach[step.at()]
    }

    /// Whether a path leads from `a` to `b`.
    pub fn is_before(&self, a: StepIndex, b: StepIndex) -> bool {
        self.reach[a.at()].binary_search(&b).is_ok()
    }

    /// Whether a path orders `a` and `b`, in either direction.
    pub fn are_ordered(&self, a: StepIndex, b: StepIndex) -> bool {
        self.is_before(a, b) || self.is_before(b, a)
    }
}

fn index(at: usize) -> StepIndex {
    StepIndex(u16::try_from(at).unwrap_or(u16::MAX))
}

fn topological_order(before: &[Vec<StepIndex>], after: &[Vec<StepIndex>]) -> Result<Vec<StepIndex>, Cycle> {
    let mut missing: Vec<usize> = before.iter().map(Vec::len).collect();
    let mut order: Vec<StepIndex> = (0..before.len()).filter(|&at| missing[at] == 0).map(index).collect();
    let mut done = 0;
    while done < order.len() {
        for &next in &after[order[done].at()] {
            missing[next.at()] -= 1;
            if missing[next.at()] == 0 {
                order.push(next);
            }
        }
        done += 1;
    }
    if order.len() == before.len() { Ok(order) } else { Err(find_cycle(before, &missing)) }
}

/// Walks backward along unfinished dependencies until a step comes up twice: each unfinished step has one.
fn find_cycle(before: &[Vec<StepIndex>], missing: &[usize]) -> Cycle {
    let mut path: Vec<StepIndex> = Vec::new();
    let mut at = missing.iter().position(|&count| count > 0).map(index);
    while let Some(step) = at {
        if let Some(start) = path.iter().position(|&seen| seen == step) {
            let mut cycle = path.split_off(start);
            cycle.reverse();
            return Cycle(cycle);
        }
        path.push(step);
        at = before[step.at()].iter().copied().find(|dependency| missing[dependency.at()] > 0);
    }
    Cycle(path)
}
