//! Which order of steps would have saved compensations. What must come before what: a step whose output is read before
//! its reader, and nothing across the pivot. An `after` that carries no data binds nothing.
//!
//! Each pair of steps counts by itself: turned round, the later step's refusals no longer undo the earlier one, and the
//! earlier one's refusals undo the later one. The best order turns round the pairs that gain most together.

use crate::definition::{Definition, Stage};
use crate::id::StepIndex;
use crate::saga::advice::{Advice, Move};
use crate::saga::figures::Figures;
use crate::saga::{Direction, Outcome};

/// Sagas that ended, at least.
const LEAST_SAGAS: u64 = 50;
/// Sagas whose compensations a pair would change, at least.
const LEAST_CHANGED: f64 = 20.0;
/// The probability that any pair is advised that chance has made.
const ERROR: f64 = 0.05;
/// All orders of so many steps are compared, no more: their number doubles with each.
const MOST_STEPS: usize = 14;
/// What a pair must gain to be worth turning round, in compensations: of equal orders the one that is there.
const TIE: f64 = 1e-6;

/// What a pair would change when it is turned round, in compensations.
#[derive(Clone, Copy, Default)]
struct Gain {
    saved: u64,
    added: f64,
}

impl Gain {
    fn net(self) -> f64 {
        self.saved as f64 - self.added
    }

    /// Whether it is more than chance. Sagas that gain and sagas that lose are counted events, so their variance is
    /// their number: McNemar's test. The best of many pairs looks good by chance, so the bound holds for all
    /// `looked_at` at once (a normal deviate is beyond `z` with a probability below `exp(-z² / 2)`).
    fn is_sure(self, looked_at: usize) -> bool {
        let z = (2.0 * (looked_at.max(1) as f64 / ERROR).ln()).sqrt();
        let changed = self.saved as f64 + self.added;
        changed >= LEAST_CHANGED && self.net() > z * changed.sqrt()
    }
}

/// The steps before the pivot. The squares tell of each pair `[a][b]`.
struct Steps<'a> {
    definition: &'a Definition,
    steps: Vec<StepIndex>,
    /// Whether `b` reads what `a` put out, by itself or through others.
    needs: Vec<Vec<bool>>,
    /// Where `a` comes before `b`: what `b` before `a` would change.
    gains: Vec<Vec<Option<Gain>>>,
}

/// Adds the moves that would have saved compensations, and the order that they lead to.
pub(super) fn advise(definition: &Definition, figures: &Figures, advice: &mut Advice) {
    let sagas = figures.sagas();
    if sagas < LEAST_SAGAS {
        advice.silent.push(format!("the order: {sagas} sagas have ended, and {LEAST_SAGAS} are needed"));
        return;
    }
    if definition.has_loops() {
        let told = "the order: steps that are done for each item of a list are not compared";
        advice.silent.push(told.to_owned());
        return;
    }
    let steps = Steps::of(definition, figures);
    if steps.steps.len() > MOST_STEPS {
        let found = steps.steps.len();
        let told = format!("the order: {found} steps come before the pivot, and orders of {MOST_STEPS} are compared");
        advice.silent.push(told);
        return;
    }
    let pairs = || steps.gains.iter().enumerate().flat_map(|(a, row)| row.iter().enumerate().map(move |(b, _)| (a, b)));
    let free: Vec<Gain> = pairs().filter(|&(a, b)| !steps.needs[a][b]).filter_map(|(a, b)| steps.gains[a][b]).collect();
    let order = steps.best(|gain| match gain.net() {
        net if net > 0.0 && !gain.is_sure(free.len()) => 0.0,
        net => net,
    });
    advice.moves = steps.moves(&order, sagas);
    if !advice.moves.is_empty() {
        advice.order = order.into_iter().map(|at| steps.name(at).to_owned()).collect();
    } else if free.iter().any(|gain| gain.net() > 0.0) {
        advice.silent.push("the order: another one may save compensations, but it could be chance".to_owned());
    }
}

impl<'a> Steps<'a> {
    fn of(definition: &'a Definition, figures: &Figures) -> Self {
        let steps: Vec<StepIndex> =
            definition.indices().filter(|&index| definition.stage(index) == Stage::BeforePivot).collect();
        let reads = |reader: StepIndex, read: StepIndex| {
            let (step, read) = (definition.step(reader), &definition.step(read).name);
            let own = step.input.steps_read().into_iter().chain(step.when.iter().flat_map(|when| when.steps_read()));
            let undo = step.compensation.action().map(|compensation| compensation.input.steps_read());
            reader_of(own.chain(undo.into_iter().flatten()), read)
        };
        let mut needs: Vec<Vec<bool>> =
            steps.iter().map(|&a| steps.iter().map(|&b| a != b && reads(b, a)).collect()).collect();
        close(&mut needs);
        let gain = |a: StepIndex, b: StepIndex| {
            definition.graph.is_before(a, b).then(|| turned_round(definition, a, b, figures))
        };
        let gains = steps.iter().map(|&a| steps.iter().map(|&b| gain(a, b)).collect()).collect();
        Self { definition, steps, needs, gains }
    }

    fn name(&self, at: usize) -> &str {
        &self.definition.step(self.steps[at]).name
    }

    /// The order of most worth that the data allows. Found step by step for every set of steps that can come first:
    /// what the others are worth does not depend on the order within it.
    fn best(&self, worth: impl Fn(Gain) -> f64) -> Vec<usize> {
        let count = self.steps.len();
        // What it is worth that `at` comes before all of `others` that it comes after now.
        let ahead_of = |at: usize, others: usize| -> f64 {
            let turned = (0..count).filter(|other| others >> other & 1 == 1).filter_map(|other| self.gains[other][at]);
            turned.map(|gain| worth(gain) - TIE).sum()
        };
        let all = (1_usize << count) - 1;
        let mut best: Vec<Option<(f64, usize)>> = vec![None; all + 1];
        best[0] = Some((0.0, 0));
        for first in 0..=all {
            let Some((value, _)) = best[first] else { continue };
            let left = all & !first;
            for at in (0..count).filter(|at| left >> at & 1 == 1) {
                let others = left & !(1 << at);
                let is_allowed = (0..count).all(|other| others >> other & 1 == 0 || !self.needs[other][at]);
                let found = value + ahead_of(at, others);
                let next = &mut best[first | 1 << at];
                if is_allowed && next.is_none_or(|(known, _)| found > known) {
                    *next = Some((found, at));
                }
            }
        }
        let (mut order, mut first) = (Vec::with_capacity(count), all);
        while let Some((_, last)) = best[first].filter(|_| first > 0) {
            order.push(last);
            first &= !(1 << last);
        }
        order.reverse();
        order
    }

    /// For each step that comes before others that it came after: how much that alone gains, the most useful first.
    fn moves(&self, order: &[usize], of: u64) -> Vec<Move> {
        let mut moves = Vec::new();
        for (place, &step) in order.iter().enumerate() {
            let passed: Vec<(usize, Gain)> =
                order[place + 1..].iter().filter_map(|&other| Some((other, self.gains[other][step]?))).collect();
            let Some(&(before, _)) = passed.first() else { continue };
            let saved: u64 = passed.iter().map(|(_, gain)| gain.saved).sum();
            let added: f64 = passed.iter().map(|(_, gain)| gain.added).sum();
            // One that only makes room for what reads it gains nothing itself, and is part of the order all the same.
            moves.push(Move {
                step: self.name(step).to_owned(),
                before: self.name(before).to_owned(),
                // In a chain the steps that are passed were all done in the same sagas.
                sagas: passed.iter().map(|(_, gain)| gain.saved).max().unwrap_or_default(),
                saved,
                added: added.round() as u64,
                of,
            });
        }
        moves.sort_by_key(|found| std::cmp::Reverse(i128::from(found.saved) - i128::from(found.added)));
        moves
    }
}

fn reader_of<'a>(mut names: impl Iterator<Item = &'a str>, read: &str) -> bool {
    names.any(|name| name == read)
}

/// What `late` before `early` would change.
fn turned_round(definition: &Definition, early: StepIndex, late: StepIndex, figures: &Figures) -> Gain {
    let (early, step) = (&definition.step(early).name, definition.step(late));
    let late = &step.name;
    let count = |is: fn(Outcome) -> bool| figures.commands_of(late, Direction::Action, |of| is(of.outcome));
    let good = count(|outcome| outcome == Outcome::Success);
    let bad = count(|outcome| matches!(outcome, Outcome::Failure | Outcome::Unknown));
    // How often the step would have been done, had it come first: as often as it was when its turn came.
    let is_done = if good + bad == 0 { 1.0 } else { good as f64 / (good + bad) as f64 };
    let is_undone = step.compensation.action().is_some();
    Gain {
        saved: figures.undone_because(late, early),
        added: if is_undone { figures.turned_by(early) as f64 * is_done } else { 0.0 },
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
