//! Which order of steps would have saved compensations. What must come before what: a step whose output is read before
//! its reader, and nothing across the pivot. An `after` that carries no data binds nothing.

use crate::definition::{Definition, Stage};
use crate::id::StepIndex;
use crate::saga::advice::{Advice, Move};
use crate::saga::figures::Figures;
use crate::saga::{Direction, Outcome};

/// Sagas that ended, at least.
const LEAST_SAGAS: u64 = 50;
/// Sagas whose compensations a move would have changed, at least.
const LEAST_CHANGED: f64 = 20.0;
/// The probability that any move is advised that chance has made.
const ERROR: f64 = 0.05;

/// The steps before the pivot, and which of them comes before which. Both are squares: `before[a][b]`.
struct Order<'a> {
    definition: &'a Definition,
    steps: Vec<StepIndex>,
    before: Vec<Vec<bool>>,
    /// Whether `b` reads what `a` put out, by itself or through others.
    needs: Vec<Vec<bool>>,
}

/// What a move would change, in compensations.
struct Gain {
    sagas: u64,
    saved: u64,
    added: f64,
}

impl Gain {
    fn net(&self) -> f64 {
        self.saved as f64 - self.added
    }

    /// Whether it is more than chance. Sagas that gain and sagas that lose are counted events, so their variance is
    /// their number; a saga that gains may gain several compensations at once. For one each it is McNemar's test.
    ///
    /// `looked_at` moves are compared, and the best of many looks good by chance: the bound holds for all of them at once
    /// (a normal deviate is beyond `z` with a probability below `exp(-z² / 2)`).
    fn is_sure(&self, looked_at: usize) -> bool {
        let z = (2.0 * (looked_at.max(1) as f64 / ERROR).ln()).sqrt();
        let each = if self.sagas == 0 { 0.0 } else { self.saved as f64 / self.sagas as f64 };
        let deviation = (each * self.saved as f64 + self.added).sqrt();
        self.sagas as f64 + self.added >= LEAST_CHANGED && self.net() > z * deviation
    }
}

/// Adds the moves that would have saved compensations, and the order that they lead to.
pub(super) fn advise(definition: &Definition, figures: &Figures, advice: &mut Advice) {
    let sagas = figures.sagas();
    if sagas < LEAST_SAGAS {
        advice.silent.push(format!("the order: {sagas} sagas have ended, and {LEAST_SAGAS} are needed"));
        return;
    }
    let mut order = Order::of(definition);
    let looked_at = order.candidates().len();
    let mut is_hopeful = false;
    // Each move turns pairs round that then stay so: there are never more moves than pairs.
    for _ in 0..order.steps.len() * order.steps.len() {
        let mut best: Option<(usize, usize, Gain)> = None;
        for (step, before) in order.candidates() {
            let gain = order.gain(step, before, figures);
            is_hopeful |= gain.net() > 0.0;
            let is_better = best.as_ref().is_none_or(|(.., known)| gain.net() > known.net());
            if gain.is_sure(looked_at) && is_better {
                best = Some((step, before, gain));
            }
        }
        let Some((step, before, Gain { sagas: fewer, saved, added })) = best else { break };
        let moved = Move {
            step: order.name(step).to_owned(),
            before: order.name(before).to_owned(),
            sagas: fewer,
            saved,
            added: added.round() as u64,
            of: sagas,
        };
        order.move_before(step, before);
        advice.moves.push(moved);
    }
    if !advice.moves.is_empty() {
        advice.order = order.sorted().into_iter().map(|at| order.name(at).to_owned()).collect();
    } else if is_hopeful {
        advice.silent.push("the order: another one may save compensations, but it could be chance".to_owned());
    }
}

impl<'a> Order<'a> {
    fn of(definition: &'a Definition) -> Self {
        let steps: Vec<StepIndex> =
            definition.indices().filter(|&index| definition.stage(index) == Stage::BeforePivot).collect();
        let square = |holds: &dyn Fn(StepIndex, StepIndex) -> bool| {
            steps.iter().map(|&a| steps.iter().map(|&b| holds(a, b)).collect()).collect::<Vec<Vec<bool>>>()
        };
        let before = square(&|a, b| definition.graph.is_before(a, b));
        let reads = |reader: StepIndex, read: &str| {
            let step = definition.step(reader);
            let own = step.input.steps_read().into_iter().chain(step.when.iter().flat_map(|when| when.steps_read()));
            let undo = step.compensation.action().map(|compensation| compensation.input.steps_read());
            own.chain(undo.into_iter().flatten()).any(|name| name == read)
        };
        let mut needs = square(&|a, b| a != b && reads(b, &definition.step(a).name));
        close(&mut needs);
        Self { definition, steps, before, needs }
    }

    fn name(&self, at: usize) -> &str {
        &self.definition.step(self.steps[at]).name
    }

    fn is_compensated(&self, at: usize) -> bool {
        self.definition.step(self.steps[at]).compensation.action().is_some()
    }

    /// `(step, before)`: the steps that could come before another one that they come after now.
    fn candidates(&self) -> Vec<(usize, usize)> {
        let all = 0..self.steps.len();
        let pairs = all.clone().flat_map(|step| all.clone().map(move |before| (step, before)));
        pairs
            .filter(|&(step, before)| self.before[before][step])
            .filter(|&(step, before)| self.passed(step, before).iter().all(|&other| !self.needs[other][step]))
            .collect()
    }

    /// The steps that `step` would pass on its way to before `before`.
    fn passed(&self, step: usize, before: usize) -> Vec<usize> {
        let is_passed =
            |other: &usize| *other == before || self.before[before][*other] && self.before[*other][step];
        (0..self.steps.len()).filter(is_passed).collect()
    }

    fn gain(&self, step: usize, before: usize, figures: &Figures) -> Gain {
        let name = self.name(step);
        let count = |is: fn(Outcome) -> bool| figures.commands_of(name, Direction::Action, |of| is(of.outcome));
        let good = count(|outcome| outcome == Outcome::Success);
        let bad = count(|outcome| matches!(outcome, Outcome::Failure | Outcome::Unknown));
        // How often the step would have been done, had it come first: as often as it was when its turn came.
        let is_done = if good + bad == 0 { 1.0 } else { good as f64 / (good + bad) as f64 };
        let mut gain = Gain { sagas: 0, saved: 0, added: 0.0 };
        for other in self.passed(step, before) {
            let undone = figures.undone_because(name, self.name(other));
            gain.saved += undone;
            // In a chain the steps that are passed were all done in the same sagas.
            gain.sagas = gain.sagas.max(undone);
            if self.is_compensated(step) {
                gain.added += figures.turned_by(self.name(other)) as f64 * is_done;
            }
        }
        gain
    }

    fn move_before(&mut self, step: usize, before: usize) {
        for other in self.passed(step, before) {
            self.before[other][step] = false;
        }
        // What came before the step only by way of those that it passed no longer does, unless it is needed.
        for other in 0..self.steps.len() {
            if self.before[other][step] && !self.before[other][before] && !self.needs[other][step] {
                self.before[other][step] = false;
            }
        }
        self.before[step][before] = true;
        close(&mut self.before);
    }

    /// In an order that fits, otherwise as in the file.
    fn sorted(&self) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.steps.len()).collect();
        let mut sorted = Vec::with_capacity(left.len());
        while let Some(place) = left.iter().position(|&at| left.iter().all(|&other| !self.before[other][at])) {
            sorted.push(left.remove(place));
        }
        sorted
    }
}

/// Adds what follows from a relation by way of others.
fn close(relation: &mut [Vec<bool>]) {
    for via in 0..relation.len() {
        let onward = relation[via].clone();
        for row in relation.iter_mut().filter(|row| row[via]) {
            row.iter_mut().zip(&onward).for_each(|(reaches, also)| *reaches |= also);
        }
    }
}
