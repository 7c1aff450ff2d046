//! What is known to hold where an expression is evaluated: the step's own `when`, and the guards before it.

use std::collections::BTreeMap;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr};
use serde_json::Value;

use crate::definition::checks::shape::{Range, Shape};
use crate::definition::expression::{Segment, path_of};

/// Statements known to be true or false, by their normal form.
#[derive(Debug, Default)]
pub(super) struct Facts<'p> {
    /// What holds around: nothing is copied for each guard.
    around: Option<&'p Facts<'p>>,
    known: BTreeMap<String, bool>,
    narrowed: BTreeMap<String, Narrow>,
}

/// What comparisons have left of a value.
#[derive(Clone, Debug)]
struct Narrow {
    is: Option<Value>,
    is_not: Vec<Value>,
    range: Range,
}

impl<'p> Facts<'p> {
    /// These, to which more can be added.
    pub fn under(&'p self) -> Self {
        Self { around: Some(self), ..Self::default() }
    }

    fn all(&self) -> impl Iterator<Item = &Facts<'p>> {
        std::iter::successors(Some(self), |facts| facts.around)
    }

    fn is_known(&self, name: &str) -> Option<bool> {
        self.all().find_map(|facts| facts.known.get(name).copied())
    }

    /// Whether the boolean expression is known to be true or false.
    pub fn truth_of(&self, node: &IdedExpr) -> Option<bool> {
        let (name, flipped) = normal(node);
        self.is_known(&name).map(|truth| truth != flipped)
    }

    /// Whether the value at this path, in normal form, is known to be there, or not to be.
    pub fn presence_of(&self, path: &str) -> Option<bool> {
        self.is_known(&format!("has({path})"))
    }

    /// Whether anything is known of how long the value at this path is.
    pub fn knows_size_of(&self, path: &str) -> bool {
        let name = format!("size({path})");
        self.all().any(|facts| facts.narrowed.contains_key(&name))
    }

    /// The names of the steps that are known to have put something out.
    pub fn steps_with_output(&self) -> Vec<String> {
        let names = self.known.iter().filter(|(_, truth)| **truth).filter_map(|(name, _)| {
            name.strip_prefix("has(steps.").and_then(|rest| rest.strip_suffix(".output)")).map(str::to_owned)
        });
        names.filter(|name| !name.contains('.')).collect()
    }

    /// What is left of `shape`, the value that `name` stands for.
    pub fn narrow<'s>(&self, name: &str, mut shape: Shape<'s>) -> Shape<'s> {
        if let Some(truth) = self.is_known(name) {
            shape = Shape::truth(Some(truth)).narrowed(true);
        }
        for Narrow { is, is_not, range } in self.all().filter_map(|facts| facts.narrowed.get(name)) {
            if let Some(value) = is
                && shape.values.as_ref().is_none_or(|values| values.contains(value))
            {
                shape = Shape::constant(value.clone());
            }
            if let Some(values) = &mut shape.values {
                values.retain(|value| !is_not.contains(value));
            }
            if is_not.contains(&Value::Null) {
                shape.kinds = shape.kinds.without_null();
            }
            shape.number = shape.number.and(*range);
            shape.is_narrowed = true;
        }
        shape
    }

    /// Takes it as given that the expression is `truth`.
    pub fn assume(&mut self, node: &IdedExpr, truth: bool) {
        match &node.expr {
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                ("_&&_", [left, right]) if truth => {
                    self.assume(left, true);
                    self.assume(right, true);
                }
                ("_||_", [left, right]) if !truth => {
                    self.assume(left, false);
                    self.assume(right, false);
                }
                ("!_", [inner]) => return self.assume(inner, !truth),
                (operator, [left, right]) => {
                    self.compare(operator, left, right, truth);
                    self.note_reads(node);
                }
                _ => self.note_reads(node),
            },
            Expr::Select(select) if select.test => {
                if truth {
                    self.note_path(&selected(select));
                }
            }
            _ => self.note_reads(node),
        }
        let (name, flipped) = normal(node);
        self.known.insert(name, truth != flipped);
    }

    fn compare(&mut self, operator: &str, left: &IdedExpr, right: &IdedExpr, truth: bool) {
        let mirrored = match operator {
            "_<_" => "_>_",
            "_<=_" => "_>=_",
            "_>_" => "_<_",
            "_>=_" => "_<=_",
            same => same,
        };
        for (operator, value, bound) in [(operator, left, right), (mirrored, right, left)] {
            let Some(bound) = literal(bound) else { continue };
            let is_size = matches!(&value.expr, Expr::Call(call) if call.func_name == "size");
            if !is_size && !is_place(&value.expr) {
                continue;
            }
            let entry = self.narrowed.entry(canonical(value)).or_insert(Narrow {
                is: None,
                is_not: Vec::new(),
                range: Range::ALL,
            });
            let number = bound.as_f64();
            // Of a size, "more than 5" is "at least 6"; of a number it may be 5.1.
            let next = if is_size { 1.0 } else { 0.0 };
            let range = match (operator, truth, number) {
                ("_==_", true, _) | ("_!=_", false, _) => {
                    entry.range = number.map_or(entry.range, |number| entry.range.and(Range::just(number)));
                    entry.is = Some(bound);
                    continue;
                }
                ("_==_", false, _) | ("_!=_", true, _) => {
                    entry.is_not.push(bound);
                    continue;
                }
                ("_>_", true, Some(low)) | ("_<=_", false, Some(low)) => Range { low: low + next, ..Range::ALL },
                ("_>=_", true, Some(low)) | ("_<_", false, Some(low)) => Range { low, ..Range::ALL },
                ("_<_", true, Some(high)) | ("_>=_", false, Some(high)) => Range { high: high - next, ..Range::ALL },
                ("_<=_", true, Some(high)) | ("_>_", false, Some(high)) => Range { high, ..Range::ALL },
                _ => continue,
            };
            entry.range = entry.range.and(range);
        }
    }

    /// What was read to come to a result is there.
    fn note_reads(&mut self, node: &IdedExpr) {
        if path_of(&node.expr).is_some() {
            return self.note_path(&canonical(node));
        }
        match &node.expr {
            // These may come to a result without one of their sides.
            Expr::Call(call) if matches!(call.func_name.as_str(), "_&&_" | "_||_" | "_?_:_") => {}
            Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).for_each(|part| {
                self.note_reads(part);
            }),
            Expr::Comprehension(each) => self.note_reads(&each.iter_range),
            _ => {}
        }
    }

    /// A path is there, and so is everything on the way.
    fn note_path(&mut self, path: &str) {
        for (at, _) in path.match_indices(['.', '[']).skip(1) {
            self.known.insert(format!("has({})", path.get(..at).unwrap_or_default()), true);
        }
        self.known.insert(format!("has({path})"), true);
    }
}

/// Whether it is a path, from a loop's variable on perhaps.
fn is_place(expr: &Expr) -> bool {
    match expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => !select.test && is_place(&select.operand.expr),
        _ => path_of(expr).is_some(),
    }
}

/// The path that a presence test asks about.
fn selected(select: &SelectExpr) -> String {
    format!("{}.{}", canonical(&select.operand), select.field)
}

pub(super) fn literal(node: &IdedExpr) -> Option<Value> {
    match &node.expr {
        Expr::Literal(LiteralValue::Boolean(value)) => Some(Value::Bool(*value.inner())),
        Expr::Literal(LiteralValue::Int(value)) => Some(Value::from(*value.inner())),
        Expr::Literal(LiteralValue::Double(value)) => serde_json::Number::from_f64(*value.inner()).map(Value::Number),
        Expr::Literal(LiteralValue::String(value)) => Some(Value::from(value.inner())),
        Expr::Literal(LiteralValue::Null) => Some(Value::Null),
        Expr::Call(call) if call.func_name == "-_" => match literal(call.args.first()?)? {
            Value::Number(number) => match number.as_i64() {
                Some(whole) => whole.checked_neg().map(Value::from),
                None => serde_json::Number::from_f64(-number.as_f64()?).map(Value::Number),
            },
            _ => None,
        },
        _ => None,
    }
}

/// A spelling that equal statements share, and whether it says the opposite.
fn normal(node: &IdedExpr) -> (String, bool) {
    if let Expr::Call(call) = &node.expr
        && let [left, right] = call.args.as_slice()
        && call.target.is_none()
    {
        let (l, r) = (canonical(left), canonical(right));
        return match call.func_name.as_str() {
            "_==_" if r < l => (format!("{r} == {l}"), false),
            "_==_" => (format!("{l} == {r}"), false),
            "_!=_" if r < l => (format!("{r} == {l}"), true),
            "_!=_" => (format!("{l} == {r}"), true),
            "_<_" => (format!("{l} < {r}"), false),
            "_>=_" => (format!("{l} < {r}"), true),
            "_>_" => (format!("{r} < {l}"), false),
            "_<=_" => (format!("{r} < {l}"), true),
            _ => (canonical(node), false),
        };
    }
    if let Expr::Call(call) = &node.expr
        && call.func_name == "!_"
        && let [inner] = call.args.as_slice()
    {
        let (name, flipped) = normal(inner);
        return (name, !flipped);
    }
    (canonical(node), false)
}

/// A path in normal form: `steps['x'].output` is `steps.x.output`.
pub(super) fn path_text(root: &str, segments: &[Segment]) -> String {
    segments.iter().fold(root.to_owned(), |text, segment| format!("{text}{segment}"))
}

/// A spelling that does not depend on spaces, quotes and brackets.
pub(super) fn canonical(node: &IdedExpr) -> String {
    if let Some((root, mut segments)) = path_of(&node.expr) {
        segments.reverse();
        return path_text(root.name(), &segments);
    }
    let all = |nodes: &mut dyn Iterator<Item = &IdedExpr>| nodes.map(canonical).collect::<Vec<_>>().join(", ");
    match &node.expr {
        Expr::Ident(name) => name.clone(),
        Expr::Select(select) if select.test => format!("has({})", selected(select)),
        Expr::Select(select) => selected(select),
        Expr::Call(call) => {
            let mut parts = call.target.iter().map(|target| &**target).chain(&call.args);
            format!("{}({})", call.func_name, all(&mut parts))
        }
        Expr::List(list) => format!("[{}]", all(&mut list.elements.iter())),
        Expr::Map(entries) => {
            let entries = entries.entries.iter().map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => format!("{}: {}", canonical(&entry.key), canonical(&entry.value)),
                EntryExpr::StructField(_) => String::new(),
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Expr::Comprehension(each) => format!(
            "each({}, {}, {}, {}, {}, {})",
            each.iter_var,
            canonical(&each.iter_range),
            canonical(&each.accu_init),
            canonical(&each.loop_cond),
            canonical(&each.loop_step),
            canonical(&each.result)
        ),
        Expr::Literal(_) => literal(node).map_or_else(|| format!("{:?}", node.expr), |value| value.to_string()),
        Expr::Struct(_) | Expr::Unspecified => String::new(),
    }
}
