//! Walks an expression for what it reads and what its operators are given, against the schemas and what is known.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr};
use serde_json::Value;

use crate::definition::Severity;
use crate::definition::checks::compare;
use crate::definition::checks::facts::{Facts, canonical, literal};
use crate::definition::checks::kind::{Kinds, Verdict, binary};
use crate::definition::checks::paths::Way;
use crate::definition::checks::shape::{Presence, Range, Shape, length};
use crate::definition::expression::{Root, Segment, path_of};

/// What a step's output is to the one who reads it.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// It is there.
    Present,
    /// The step may be skipped.
    Skippable,
    /// The step waits for a signal that may not come.
    Expirable,
    /// Whenever this is evaluated, the step is skipped.
    Skipped,
    /// The step is never done at all.
    Never,
    /// It is the step's own, in its compensation: not there when nobody knows what became of it.
    Own,
}

/// Where an expression is evaluated.
pub(super) trait Surroundings<'s> {
    /// What is known of the saga's input.
    fn input(&self) -> Shape<'s>;
    /// What is known of a step's output.
    fn output(&self, step: &str, facts: &Facts<'_>) -> (Output, Shape<'s>);
    /// What is known of `item` in a step with `forEach`.
    fn item(&self) -> Shape<'s>;
    /// Whether the saga is sure to have a key.
    fn has_key(&self) -> bool;
}

/// Something that is wrong with an expression.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub code: &'static str,
    pub severity: Severity,
    pub message: String,
    pub suggestion: Option<String>,
    /// What it is about, in spellings that may stand in the text.
    pub focus: Vec<String>,
}

/// Infers what an expression gives; gathers what is wrong with it.
pub(super) struct Infer<'a, 's> {
    pub(super) surroundings: &'a dyn Surroundings<'s>,
    bound: Vec<(String, Shape<'s>)>,
    pub troubles: Vec<Trouble>,
    /// What was complained of already.
    told: Vec<String>,
}

impl<'a, 's> Infer<'a, 's> {
    pub fn new(surroundings: &'a dyn Surroundings<'s>) -> Self {
        Self { surroundings, bound: Vec::new(), troubles: Vec::new(), told: Vec::new() }
    }

    /// What the expression gives, under these facts.
    pub fn shape(&mut self, node: &IdedExpr, facts: &Facts<'_>) -> Shape<'s> {
        let shape = self.bare(node, facts);
        match facts.truth_of(node) {
            Some(truth) if shape.as_truth().is_none() && shape.kinds.meets(Kinds::BOOL) => {
                Shape::truth(Some(truth)).narrowed(true)
            }
            _ => shape,
        }
    }

    fn bare(&mut self, node: &IdedExpr, facts: &Facts<'_>) -> Shape<'s> {
        if let Some(value) = literal(node) {
            return Shape::constant(value);
        }
        if let Some((root, segments)) = self.path(&node.expr) {
            return self.follow(root, &segments, facts);
        }
        match &node.expr {
            Expr::Ident(name) => facts.narrow(name, self.variable(name)),
            Expr::Select(select) if select.test => match self.path(&select.operand.expr) {
                Some((root, segments)) => self.is_there(root, &segments, &select.field, facts),
                None => {
                    let base = self.shape(&select.operand, facts);
                    self.expect(&select.operand, base.kinds, Kinds::MAP, "`has`");
                    let known = (base.field(&select.field).0 == Presence::Always).then_some(true);
                    Shape::truth(known)
                }
            },
            Expr::Select(select) => {
                let base = self.shape(&select.operand, facts);
                let mut way = Way::new(&canonical(&select.operand));
                self.member(&base, &Segment::Key(select.field.clone()), &mut way, facts)
            }
            Expr::Call(call) => self.call(node, call, facts),
            Expr::List(list) => {
                let items: Vec<Shape<'s>> = list.elements.iter().map(|item| self.shape(item, facts)).collect();
                let mut shape = Shape::of_kinds(Kinds::LIST);
                shape.size = Range::just(length(items.len()));
                shape.items = items.into_iter().reduce(Shape::join).map(Box::new);
                shape
            }
            Expr::Map(entries) => {
                for entry in &entries.entries {
                    if let cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                        self.shape(&entry.key, facts);
                        self.shape(&entry.value, facts);
                    }
                }
                Shape::of_kinds(Kinds::MAP)
            }
            Expr::Comprehension(each) => self.each(each, facts),
            Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => Shape::any(),
        }
    }

    /// The path that this is, unless a loop's variable stands at its root; first segment first.
    fn path(&self, expr: &Expr) -> Option<(Root, Vec<Segment>)> {
        let (root, mut segments) = path_of(expr)?;
        if self.bound.iter().any(|(name, _)| name == root.name()) {
            return None;
        }
        segments.reverse();
        Some((root, segments))
    }

    fn variable(&self, name: &str) -> Shape<'s> {
        let found = self.bound.iter().rev().find(|(bound, _)| bound == name);
        found.map_or_else(Shape::any, |(_, shape)| shape.clone())
    }

    fn call(&mut self, node: &IdedExpr, call: &CallExpr, facts: &Facts<'_>) -> Shape<'s> {
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("_&&_", [left, right]) => {
                let l = self.boolean(left, facts);
                let mut under = facts.under();
                under.assume(left, true);
                let r = self.boolean(right, &under);
                Shape::truth(match (l, r) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                })
            }
            ("_||_", [left, right]) => {
                let l = self.boolean(left, facts);
                let mut under = facts.under();
                under.assume(left, false);
                let r = self.boolean(right, &under);
                Shape::truth(match (l, r) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                })
            }
            ("!_", [inner]) => Shape::truth(self.boolean(inner, facts).map(|truth| !truth)),
            ("_?_:_", [condition, yes, no]) => {
                let truth = self.boolean(condition, facts);
                let mut under = facts.under();
                under.assume(condition, true);
                let yes = self.shape(yes, &under);
                let mut under = facts.under();
                under.assume(condition, false);
                let no = self.shape(no, &under);
                match truth {
                    Some(true) => yes,
                    Some(false) => no,
                    None => yes.join(no),
                }
            }
            ("@not_strictly_false", [inner]) => self.shape(inner, facts),
            (operator, [left, right])
                if call.target.is_none() && binary(operator, Kinds::INT, Kinds::INT).is_some() =>
            {
                let (l, r) = (self.shape(left, facts), self.shape(right, facts));
                self.operate(operator, node, (left, &l), (right, &r))
            }
            ("-_", [inner]) => {
                let kinds = self.shape(inner, facts).kinds;
                self.expect(inner, kinds, Kinds::NUMBER, "`-`");
                Shape::of_kinds(kinds.and(Kinds::NUMBER))
            }
            ("_[_]", [list, index]) => {
                let (base, at) = (self.shape(list, facts), self.shape(index, facts));
                self.expect(list, base.kinds, Kinds::LIST.or(Kinds::MAP), "`[...]`");
                if base.kinds.is_within(Kinds::LIST) {
                    self.expect(index, at.kinds, Kinds::INT, "the index of a list");
                    return base.item();
                }
                Shape::any()
            }
            (name, args) => self.function(name, call.target.as_deref(), args, facts),
        }
    }

    fn function(&mut self, name: &str, target: Option<&IdedExpr>, args: &[IdedExpr], facts: &Facts<'_>) -> Shape<'s> {
        let all: Vec<(&IdedExpr, Shape<'s>)> =
            target.into_iter().chain(args).map(|part| (part, self.shape(part, facts))).collect();
        match (name, all.as_slice()) {
            ("size", [(node, shape)]) => {
                let holders = Kinds::TEXT.or(Kinds::LIST).or(Kinds::MAP);
                self.expect(node, shape.kinds, holders, "`size`");
                facts.narrow(&format!("size({})", canonical(node)), Shape::count(shape.size))
            }
            ("startsWith" | "endsWith", [(text, shape), (part, given)]) => {
                self.expect(text, shape.kinds, Kinds::TEXT, &format!("`{name}`"));
                self.expect(part, given.kinds, Kinds::TEXT, &format!("`{name}`"));
                Shape::truth(None)
            }
            ("contains" | "startsWith" | "endsWith" | "bool", _) => Shape::truth(None),
            ("int", _) => Shape::of_kinds(Kinds::INT),
            ("double", _) => Shape::of_kinds(Kinds::FLOAT),
            ("string", _) => Shape::of_kinds(Kinds::TEXT),
            ("uint" | "bytes" | "duration" | "timestamp" | "type", _) => Shape::of_kinds(Kinds::OTHER),
            (name, _) if name.starts_with("get") => Shape::of_kinds(Kinds::INT),
            _ => Shape::any(),
        }
    }

    /// A side of a logical operator.
    fn boolean(&mut self, node: &IdedExpr, facts: &Facts<'_>) -> Option<bool> {
        let shape = self.shape(node, facts);
        self.expect(node, shape.kinds, Kinds::BOOL, "a condition");
        shape.as_truth()
    }

    /// Complains when a value is not of the kinds that are wanted of it, or may be of another one.
    fn expect(&mut self, node: &IdedExpr, kinds: Kinds, wanted: Kinds, by: &str) {
        let way = Way::new(&canonical(node));
        let told = |word: &str| format!("{by} wants {}, and {} {word} {}", wanted.told(), quoted(node), kinds.told());
        if kinds == Kinds::NONE {
            // Nothing fits the schema; that is told elsewhere.
        } else if !kinds.meets(wanted.or(Kinds::OTHER)) {
            self.complain("DEF_EXPRESSION_TYPE", Severity::Error, &way, told("is"), None);
        } else if kinds.is_known() && !kinds.is_within(wanted.or(Kinds::OTHER)) {
            self.complain("DEF_EXPRESSION_MIXED", Severity::Warning, &way, told("may be"), None);
        }
    }

    fn operate(
        &mut self,
        operator: &str,
        node: &IdedExpr,
        (left, l): (&IdedExpr, &Shape<'s>),
        (right, r): (&IdedExpr, &Shape<'s>),
    ) -> Shape<'s> {
        let sign = operator.trim_matches(['_', '@']);
        let way = Way::new(&canonical(node));
        let verdict = binary(operator, l.kinds, r.kinds).unwrap_or(Verdict::Works(Kinds::ANY));
        let told = || format!("{} is {} and {} is {}", quoted(left), l.kinds.told(), quoted(right), r.kinds.told());
        let are_numbers = l.kinds.is_within(Kinds::NUMBER) && r.kinds.is_within(Kinds::NUMBER);
        let advice = || are_numbers.then(|| format!("convert what is not one already: `double({})`", canonical(left)));
        match verdict {
            Verdict::Fails if l.kinds == Kinds::NONE || r.kinds == Kinds::NONE => {}
            Verdict::Fails => {
                let message = format!("`{sign}` does not work here: {}", told());
                self.complain("DEF_EXPRESSION_TYPE", Severity::Error, &way, message, advice());
            }
            Verdict::Partly(_) if l.kinds.is_known() && r.kinds.is_known() => {
                let message = format!("`{sign}` fails for some inputs: {}", told());
                self.complain("DEF_EXPRESSION_MIXED", Severity::Warning, &way, message, advice());
            }
            _ => {}
        }
        let truth = compare::truth(operator, l, r);
        if let (Some(truth), false) = (truth, l.is_narrowed || r.is_narrowed)
            // Two constants are somebody's way to switch something on or off; that is told of the whole condition.
            && !(l.as_constant().is_some() && r.as_constant().is_some() && literal(left).is_some())
        {
            self.complain(
                "DEF_COMPARISON",
                Severity::Warning,
                &way,
                format!(
                    "this is always {truth}: {}",
                    compare::reason(operator, (&quoted(left), l), (&quoted(right), r))
                ),
                compare::advice(l, r),
            );
        }
        match verdict {
            Verdict::Works(Kinds::LIST) => Shape::list_of(l.each().join(r.each())),
            Verdict::Works(kinds) | Verdict::Partly(kinds) if kinds != Kinds::BOOL => Shape::of_kinds(kinds),
            Verdict::Fails => Shape::any(),
            _ => Shape::truth(truth).narrowed(l.is_narrowed || r.is_narrowed),
        }
    }

    fn each(&mut self, each: &ComprehensionExpr, facts: &Facts<'_>) -> Shape<'s> {
        let range = self.shape(&each.iter_range, facts);
        self.expect(&each.iter_range, range.kinds, Kinds::LIST.or(Kinds::MAP), "a loop");
        let gathered = self.shape(&each.accu_init, facts);
        let gathered = Shape::of_kinds(gathered.kinds);
        let depth = self.bound.len();
        self.bound.push((each.iter_var.clone(), range.each()));
        self.bound.extend(each.iter_var2.clone().map(|name| (name, Shape::any())));
        self.bound.push((each.accu_var.clone(), gathered));
        self.shape(&each.loop_cond, facts);
        self.shape(&each.loop_step, facts);
        // `exists_one` counts and compares; the others give what they gather.
        let result = match literal(&each.accu_init) {
            Some(Value::Bool(_) | Value::Number(_)) => Shape::of_kinds(Kinds::BOOL),
            _ => Shape::list(self.gathered(&each.loop_step, facts)),
        };
        self.bound.truncate(depth);
        result
    }

    /// What a loop adds to its result each time: `result + [item]`, perhaps under a condition.
    fn gathered(&mut self, step: &IdedExpr, facts: &Facts<'_>) -> Option<Box<Shape<'s>>> {
        let Expr::Call(call) = &step.expr else { return None };
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("_?_:_", [condition, yes, _]) => {
                let mut under = facts.under();
                under.assume(condition, true);
                self.gathered(yes, &under)
            }
            ("_+_", [_, added]) => self.shape(added, facts).items,
            _ => None,
        }
    }

    pub(super) fn complain(
        &mut self,
        code: &'static str,
        severity: Severity,
        way: &Way,
        message: String,
        suggestion: Option<String>,
    ) {
        let told = format!("{code} {}", way.text);
        if self.told.contains(&told) {
            return;
        }
        self.told.push(told);
        self.troubles.push(Trouble { code, severity, message, suggestion, focus: way.spellings.clone() });
    }
}

/// An operand in a message: as it is written when that is short.
fn quoted(node: &IdedExpr) -> String {
    match canonical(node) {
        text if text.starts_with("each(") || text.starts_with('_') || text.starts_with('@') => "one side".to_owned(),
        text => format!("`{}`", crate::definition::fields::shorten(&text)),
    }
}
