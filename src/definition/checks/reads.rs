//! Every expression in its place: whether what it reads is there, and whether what it gives can be used.

use std::cell::Cell;
use std::collections::HashMap;

use cel::common::ast::IdedExpr;
use serde_json::Value;

use crate::definition::checks::Whole;
use crate::definition::checks::facts::Facts;
use crate::definition::checks::infer::{Infer, Output, Surroundings, Trouble};
use crate::definition::checks::kind::Kinds;
use crate::definition::checks::order::index;
use crate::definition::checks::shape::Shape;
use crate::definition::fields::{Findings, Reader, Written, child};
use crate::definition::{OnTimeout, Scope, Severity, Work, expression};

/// How far conditions are followed that read outputs of steps with conditions.
const MAX_DEPTH: usize = 2;
/// How many bytes of conditions are followed in all, so that no definition keeps the check busy.
const MAX_FOLLOWED: usize = 400_000;

pub(super) fn check(findings: &mut Findings<'_>, whole: &Whole<'_>) {
    let written = std::mem::take(&mut findings.written);
    let parsed: Vec<(Written, IdedExpr)> =
        written.into_iter().filter_map(|each| expression::parse(&each.text).ok().map(|tree| (each, tree))).collect();
    let world = World::new(whole, &parsed);
    for (written, tree) in &parsed {
        for (trouble, is_about_all) in world.troubles(written, tree) {
            let place = match is_about_all {
                true => written.place,
                false => findings.focus(written.place, &trouble.focus),
            };
            let found = findings.error(trouble.code, place, &written.pointer, trouble.message);
            found.severity = trouble.severity;
            found.suggestion = trouble.suggestion;
        }
    }
    for (at, draft) in whole.drafts.iter().enumerate() {
        let Some(truth) = draft.when.as_ref().and_then(|when| when.literal()) else { continue };
        let Some(node) = whole.step_node(at).and_then(|node| node.get("when")) else { continue };
        let (code, message, advice) = constant(truth, whole.name(at));
        findings.warning(code, node.place, &child(&draft.pointer, "when"), message).suggestion = Some(advice);
    }
}

fn constant(truth: bool, step: &str) -> (&'static str, String, String) {
    match truth {
        true => (
            "DEF_WHEN_CONSTANT",
            format!("this is always true, so `{step}` is never skipped"),
            "take the `when` out, or mend it".to_owned(),
        ),
        false => (
            "DEF_STEP_UNREACHABLE",
            format!("this is never true, so `{step}` is never done"),
            "take the step out, or mend its `when`".to_owned(),
        ),
    }
}

/// What all expressions of a definition share.
struct World<'w> {
    whole: &'w Whole<'w>,
    names: HashMap<&'w str, usize>,
    conditions: HashMap<usize, (&'w IdedExpr, usize)>,
    /// How many bytes of conditions may still be followed.
    fuel: Cell<usize>,
    input: Option<Value>,
    outputs: HashMap<usize, &'w Value>,
    /// The lists of `forEach` steps.
    lists: HashMap<usize, &'w IdedExpr>,
}

impl<'w> World<'w> {
    fn new(whole: &'w Whole<'w>, parsed: &'w [(Written, IdedExpr)]) -> Self {
        let drafts = || whole.drafts.iter().enumerate();
        let names = drafts().filter_map(|(at, draft)| Some((draft.name.as_deref()?, at))).collect();
        let conditions = parsed.iter().filter_map(|(written, tree)| match written.reader {
            Reader::Step(at) if whole.is_condition(at, &written.pointer) => Some((at, (tree, written.text.len()))),
            _ => None,
        });
        let input = whole.root.get("input").and_then(|input| input.get("schema")).map(|schema| schema.to_json());
        let outputs = drafts().filter_map(|(at, draft)| Some((at, draft.output_schema.as_ref()?))).collect();
        let lists = parsed.iter().filter(|(written, _)| written.reader == Reader::Items);
        let lists = lists.filter_map(|(written, tree)| Some((whole.step_at(&written.pointer)?, tree)));
        let fuel = Cell::new(MAX_FOLLOWED);
        Self { whole, names, conditions: conditions.collect(), fuel, input, outputs, lists: lists.collect() }
    }

    /// What is wrong with the expression, and whether it is about the whole of it.
    fn troubles(&self, written: &Written, tree: &IdedExpr) -> Vec<(Trouble, bool)> {
        let place = Spot { world: self, reader: written.reader, depth: 0 };
        let step = match written.reader {
            Reader::Step(at) | Reader::Compensation(at) => Some(at),
            Reader::Key | Reader::Output | Reader::Items => None,
        };
        let is_condition = step.is_some_and(|at| self.whole.is_condition(at, &written.pointer));
        let facts = step.filter(|_| !is_condition).map(|at| self.facts(at)).unwrap_or_default();
        let mut infer = Infer::new(&place);
        let shape = infer.shape(tree, &facts);
        let mut troubles: Vec<(Trouble, bool)> = infer.troubles.into_iter().map(|trouble| (trouble, false)).collect();
        let found = match (written.reader, step) {
            _ if shape.kinds == Kinds::NONE => None,
            (_, Some(at)) if is_condition && !written.is_piece => {
                self.condition(at, &shape, written, troubles.is_empty())
            }
            (Reader::Key, _) if !written.is_piece => key(&shape),
            (Reader::Items, _) => self.items(&written.pointer, &shape),
            _ if written.is_piece => piece(&shape),
            _ => None,
        };
        troubles.extend(found.map(|trouble| (trouble, true)));
        troubles
    }

    fn condition(&self, at: usize, shape: &Shape<'_>, written: &Written, is_clean: bool) -> Option<Trouble> {
        if !shape.kinds.meets(Kinds::BOOL) {
            let message = format!("a condition gives true or false, and this gives {}", shape.kinds.told());
            let advice = "compare it with something, for example `input.count > 0`".to_owned();
            return Some(trouble("DEF_WHEN_TYPE", Severity::Error, message, advice));
        }
        if shape.kinds.is_known() && !shape.kinds.is_within(Kinds::BOOL) {
            let message = format!("a condition gives true or false, and this may give {}", shape.kinds.told());
            let advice = "compare it with `true`: `... == true`".to_owned();
            return Some(trouble("DEF_WHEN_TYPE", Severity::Warning, message, advice));
        }
        let truth = shape.as_truth().or_else(|| fixed(&written.text)).filter(|_| is_clean)?;
        let (code, message, advice) = constant(truth, self.whole.name(at));
        Some(trouble(code, Severity::Warning, message, advice))
    }

    /// What a `forEach` goes over.
    fn items(&self, pointer: &str, shape: &Shape<'_>) -> Option<Trouble> {
        if !shape.kinds.meets(Kinds::LIST) {
            let message = format!("`forEach` wants a list, and this is {}", shape.kinds.told());
            let advice = "read a list of the input, for example `input.lines`".to_owned();
            return Some(trouble("DEF_FOREACH_ITEMS", Severity::Error, message, advice));
        }
        let most = f64::from(self.whole.drafts.get(self.whole.step_at(pointer)?)?.for_each.as_ref()?.max_items);
        if shape.size.high.is_finite() && shape.size.high > most {
            let message = format!("the schema allows {} items, and this step takes at most {most}", shape.size.high);
            let advice = format!("say `maxItems: {most}` in the schema, or raise the step's `maxItems`");
            return Some(trouble("DEF_FOREACH_BOUND", Severity::Warning, message, advice));
        }
        None
    }

    /// What holds whenever the step at `at` is done.
    fn facts(&self, at: usize) -> Facts<'static> {
        let mut facts = Facts::default();
        let mut done: Vec<usize> = Vec::new();
        let mut todo = vec![at];
        while let Some(step) = todo.pop() {
            done.push(step);
            if let Some((condition, _)) = self.conditions.get(&step) {
                facts.assume(condition, true);
            }
            // Whoever has put something out was not skipped.
            let more = facts.steps_with_output().into_iter().filter_map(|name| self.names.get(name.as_str()).copied());
            // A list is there even if every item was skipped.
            let is_one = |step: &usize| self.whole.drafts.get(*step).is_some_and(|draft| draft.for_each.is_none());
            todo.extend(more.filter(|step| !done.contains(step) && is_one(step)));
            todo.dedup();
        }
        facts
    }
}

/// What an expression gives that reads nothing.
fn fixed(text: &str) -> Option<bool> {
    let expression = expression::Expression::compile(text).ok()?;
    let reads = expression.reads_input || expression.reads_saga || expression.reads_item;
    if reads || !expression.steps.is_empty() {
        return None;
    }
    let scope = Scope { input: &Value::Null, saga_id: "", saga_key: None, outputs: &[], item: None };
    expression.evaluate(&scope).ok()?.as_bool()
}

fn trouble(code: &'static str, severity: Severity, message: String, advice: String) -> Trouble {
    Trouble { code, severity, message, suggestion: Some(advice), focus: Vec::new() }
}

/// The saga's key is text or a whole number.
fn key(shape: &Shape<'_>) -> Option<Trouble> {
    let fitting = Kinds::TEXT.or(Kinds::INT);
    let severity = match () {
        () if !shape.kinds.meets(fitting) => Severity::Error,
        () if shape.kinds.is_known() && !shape.kinds.is_within(fitting) => Severity::Warning,
        () => return None,
    };
    let word = if severity == Severity::Error { "is" } else { "may be" };
    let message = format!("a key is text or a whole number, and this {word} {}", shape.kinds.told());
    let advice = "read another field, or convert it: `string(...)`".to_owned();
    Some(trouble("DEF_KEY_TYPE", severity, message, advice))
}

/// Within a text there is text, a number, or true or false.
fn piece(shape: &Shape<'_>) -> Option<Trouble> {
    let unfit = Kinds::LIST.or(Kinds::MAP).or(Kinds::NULL);
    let advice = "let the expression stand alone, or read a text out of it".to_owned();
    if shape.kinds.is_within(unfit) {
        let message = format!("this is {}, which cannot be part of a text", shape.kinds.told());
        return Some(trouble("DEF_EXPRESSION_TYPE", Severity::Error, message, advice));
    }
    if shape.kinds.is_known() && shape.kinds.meets(unfit) {
        let message = format!("this may be {}, and not all of it can be part of a text", shape.kinds.told());
        return Some(trouble("DEF_EXPRESSION_MIXED", Severity::Warning, message, advice));
    }
    None
}

impl Whole<'_> {
    /// The step that a pointer leads into.
    fn step_at(&self, pointer: &str) -> Option<usize> {
        pointer.strip_prefix("/steps/")?.split('/').next()?.parse().ok()
    }

    fn is_condition(&self, at: usize, pointer: &str) -> bool {
        self.drafts.get(at).is_some_and(|draft| pointer == child(&draft.pointer, "when"))
    }
}

/// The surroundings of one expression.
struct Spot<'w> {
    world: &'w World<'w>,
    reader: Reader,
    depth: usize,
}

impl<'w> Surroundings<'w> for Spot<'w> {
    fn input(&self) -> Shape<'w> {
        match &self.world.input {
            Some(schema) => Shape::of_schema(schema, schema),
            None => Shape::any(),
        }
    }

    fn output(&self, step: &str, facts: &Facts<'_>) -> (Output, Shape<'w>) {
        let world = self.world;
        let Some(&read) = world.names.get(step) else { return (Output::Present, Shape::any()) };
        let mut shape = world.outputs.get(&read).map_or_else(Shape::any, |schema| Shape::of_schema(schema, schema));
        let draft = world.whole.drafts.get(read);
        let is_own = self.reader == Reader::Compensation(read);
        if let Some(draft) = draft.filter(|draft| draft.for_each.is_some() && !is_own) {
            // A list, with null for each item that was skipped.
            shape = Shape::list_of(if draft.when.is_some() { shape.or_null() } else { shape });
        }
        let is_readable = match self.reader {
            Reader::Compensation(at) if at == read => return (Output::Own, shape),
            Reader::Step(at) | Reader::Compensation(at) => world.whole.graph.is_before(index(read), index(at)),
            Reader::Output => true,
            Reader::Key | Reader::Items => false,
        };
        if !is_readable {
            // That is told by the check of the order.
            return (Output::Present, shape);
        }
        if draft.is_some_and(|draft| draft.for_each.is_some()) {
            return (Output::Present, shape);
        }
        // A signal that does not come in time may leave the step without output.
        let may_expire =
            draft.is_some_and(|draft| matches!(draft.work, Some(Work::Wait { on_timeout: OnTimeout::Continue, .. })));
        let at_best = if may_expire { Output::Expirable } else { Output::Present };
        match draft.and_then(|draft| draft.when.as_ref()?.literal()) {
            Some(true) => return (at_best, shape),
            Some(false) => return (Output::Never, shape),
            None => {}
        }
        let Some(&(condition, length)) = world.conditions.get(&read) else { return (at_best, shape) };
        if self.depth == MAX_DEPTH {
            return (Output::Skippable, shape);
        }
        // Conditions that read many steps with conditions that do so too: what is left of them is not judged.
        match world.fuel.get().checked_sub(2 * length) {
            Some(left) => world.fuel.set(left),
            None => return (at_best, shape),
        }
        let there = Spot { world, reader: Reader::Step(read), depth: self.depth + 1 };
        let truth = |facts: &Facts<'_>| Infer::new(&there).shape(condition, facts).as_truth();
        let output = match truth(&Facts::default()) {
            Some(true) => at_best,
            Some(false) => Output::Never,
            None => match truth(facts) {
                Some(true) => at_best,
                Some(false) => Output::Skipped,
                None => Output::Skippable,
            },
        };
        (output, shape)
    }

    fn item(&self) -> Shape<'w> {
        let (Reader::Step(at) | Reader::Compensation(at)) = self.reader else { return Shape::any() };
        match self.world.lists.get(&at) {
            Some(list) => {
                let there = Spot { world: self.world, reader: Reader::Items, depth: self.depth };
                Infer::new(&there).shape(list, &Facts::default()).item()
            }
            None => Shape::any(),
        }
    }

    fn has_key(&self) -> bool {
        self.world.whole.root.get("key").is_some()
    }
}
