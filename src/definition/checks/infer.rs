//! Walks an expression for what it reads and what its operators are given, against the schemas and what is known.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr};
use serde_json::Value;

use crate::definition::Severity;
use crate::definition::checks::compare;
use crate::definition::checks::facts::{Facts, canonical, literal, path_text};
use crate::definition::checks::kind::{Kinds, Verdict, binary};
use crate::definition::checks::shape::{Presence, Range, Shape, length};
use crate::definition::expression::{Root, Segment, path_of};
use crate::definition::fields::nearest;

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
    surroundings: &'a dyn Surroundings<'s>,
    bound: Vec<(String, Shape<'s>)>,
    pub troubles: Vec<Trouble>,
    /// What was complained of already.
    told: Vec<String>,
}

/// A path that is being followed.
struct Way {
    /// In normal form.
    text: String,
    /// As it is written in definitions.
    shown: String,
    spellings: Vec<String>,
}

impl Way {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), shown: text.to_owned(), spellings: vec![text.to_owned()] }
    }

    fn step(name: &str) -> Self {
        let spellings = vec![
            format!("steps['{name}'].output"),
            format!("steps[\"{name}\"].output"),
            format!("steps.{name}.output"),
        ];
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let shown = if plain { format!("steps.{name}.output") } else { format!("steps['{name}'].output") };
        Self { text: format!("steps.{name}.output"), shown, spellings }
    }

    fn push(&mut self, segment: &Segment) {
        let text = segment.to_string();
        let more: Vec<String> = match segment {
            Segment::Key(key) => self.spellings.iter().map(|base| format!("{base}['{key}']")).collect(),
            Segment::Index(_) => Vec::new(),
        };
        self.text.push_str(&text);
        self.shown.push_str(&text);
        for spelling in &mut self.spellings {
            spelling.push_str(&text);
        }
        self.spellings.extend(more.into_iter().take(4));
    }
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
            Expr::Ident(name) => self.variable(name),
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

    fn follow(&mut self, root: Root, segments: &[Segment], facts: &Facts<'_>) -> Shape<'s> {
        let text = path_text(root.name(), segments);
        let (mut shape, mut way, rest) = match (root, segments) {
            (Root::Input, rest) => (self.surroundings.input(), Way::new("input"), rest),
            (Root::Item, rest) => (self.surroundings.item(), Way::new("item"), rest),
            (Root::Index, _) => return Shape::count(Range::COUNT),
            (Root::Steps, [Segment::Key(name), _, rest @ ..]) => (self.output(name, facts), Way::step(name), rest),
            (Root::Saga, [Segment::Key(field)]) => {
                if field == "key" && !self.surroundings.has_key() && facts.presence_of("saga.key") != Some(true) {
                    self.complain(
                        "DEF_READ_OPTIONAL",
                        Severity::Warning,
                        &Way::new("saga.key"),
                        "the definition has no `key`, so `saga.key` is only there when a start gives one".to_owned(),
                        Some("give the definition a `key`, or read `saga.id`, which is always there".to_owned()),
                    );
                }
                return Shape::of_kinds(Kinds::TEXT);
            }
            _ => return Shape::any(),
        };
        for segment in rest {
            shape = self.member(&shape, segment, &mut way, facts);
        }
        facts.narrow(&text, shape)
    }

    /// A member of a value, which is complained of when it may be missing.
    fn member(&mut self, base: &Shape<'s>, segment: &Segment, way: &mut Way, facts: &Facts<'_>) -> Shape<'s> {
        let parent = way.shown.clone();
        let holds = match segment {
            Segment::Key(_) => Kinds::MAP.or(Kinds::OTHER),
            Segment::Index(_) => Kinds::LIST.or(Kinds::OTHER),
        };
        if !base.kinds.meets(holds) && base.kinds != Kinds::NONE {
            let message = format!("`{parent}` is {}, so it has no `{segment}`", base.kinds.told());
            way.push(segment);
            self.complain("DEF_EXPRESSION_TYPE", Severity::Error, way, message, None);
            return Shape::any();
        }
        let (presence, member) = match segment {
            Segment::Key(key) => base.field(key),
            Segment::Index(at) => (index_presence(base, *at, &way.text, facts), base.item()),
        };
        way.push(segment);
        match facts.presence_of(&way.text) {
            Some(true) => return facts.narrow(&way.text, member),
            Some(false) => {
                let message = format!("`{}` is read where it is known to be missing", way.shown);
                let advice = "turn the condition round, or take the expression out".to_owned();
                self.complain("DEF_STEP_CONTRADICTION", Severity::Error, way, message, Some(advice));
                return Shape::any();
            }
            None => {}
        }
        match presence {
            Presence::Always | Presence::Unknown => {}
            Presence::Optional => {
                let (message, advice) = match segment {
                    Segment::Key(key) => (
                        format!("`{}` is not required by the schema, so it may be missing", way.shown),
                        format!(
                            "put `{key}` among the schema's `required`, or guard it: `has({}) ? ... : ...`",
                            way.shown
                        ),
                    ),
                    Segment::Index(at) => (
                        format!("`{parent}` may have too few items for `{}`", way.shown),
                        format!("say `minItems: {}` in the schema, or guard it: `size({parent}) > {at}`", at + 1),
                    ),
                };
                self.complain("DEF_READ_OPTIONAL", Severity::Warning, way, message, Some(advice));
            }
            Presence::Undeclared(known) => self.undeclared(way, segment, &known, false),
            Presence::Never(known) => self.undeclared(way, segment, &known, true),
        }
        facts.narrow(&way.text, member)
    }

    fn undeclared(&mut self, way: &Way, segment: &Segment, known: &[String], is_forbidden: bool) {
        let name = segment.to_string();
        let name = name.trim_start_matches('.');
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let advice = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `{name}` to the schema's `properties`"),
        };
        let (severity, message) = match is_forbidden {
            true => (Severity::Error, format!("the schema does not allow `{}`, so it is never there", way.shown)),
            false => (Severity::Warning, format!("the schema says nothing of `{}`", way.shown)),
        };
        self.complain("DEF_READ_UNDECLARED", severity, way, message, Some(advice));
    }

    fn output(&mut self, name: &str, facts: &Facts<'_>) -> Shape<'s> {
        let (output, shape) = self.surroundings.output(name, facts);
        let way = Way::step(name);
        match facts.presence_of(&way.text) {
            Some(true) => return shape,
            Some(false) => {
                let message = format!("`{}` is read where it is known to be missing", way.shown);
                let advice = "turn the condition round, or take the expression out".to_owned();
                self.complain("DEF_STEP_CONTRADICTION", Severity::Error, &way, message, Some(advice));
                return shape;
            }
            None => {}
        }
        let guard = format!("`has({}) ? ... : ...`", way.shown);
        let (code, severity, message, advice) = match output {
            Output::Present => return shape,
            Output::Skippable => (
                "DEF_OUTPUT_MISSING",
                Severity::Warning,
                format!("`{name}` may be skipped, and then it has no output"),
                format!("guard it: {guard}; or give this step the same `when`"),
            ),
            Output::Expirable => (
                "DEF_OUTPUT_MISSING",
                Severity::Warning,
                format!("the signal that `{name}` waits for may not come in time, and then there is no output"),
                format!("guard it: {guard}; or let the wait fail: `onTimeout: fail`"),
            ),
            Output::Never => (
                "DEF_OUTPUT_MISSING",
                Severity::Error,
                format!("`{name}` is never done, so it has no output"),
                format!("mend the `when` of `{name}`, or take the expression out"),
            ),
            Output::Skipped => (
                "DEF_STEP_CONTRADICTION",
                Severity::Error,
                format!("this is only evaluated when `{name}` is skipped, and then there is no output"),
                "make the two `when` agree, or take the expression out".to_owned(),
            ),
            Output::Own => (
                "DEF_OUTPUT_UNKNOWN",
                Severity::Warning,
                format!(
                    "when `{name}` times out, nobody knows whether it took effect: it is undone, but it has no output"
                ),
                format!(
                    "choose the id in the saga's input, so that it is known before, or guard it: {guard}; the \
                     participant gets the key of the action in the header `amends-compensates`"
                ),
            ),
        };
        self.complain(code, severity, &way, message, Some(advice));
        shape
    }

    /// `has(...)`.
    fn is_there(&mut self, root: Root, segments: &[Segment], field: &str, facts: &Facts<'_>) -> Shape<'s> {
        let (known, mut way, is_sure) = match (root, segments) {
            (Root::Steps, [Segment::Key(name)]) => {
                let (output, _) = self.surroundings.output(name, facts);
                let known = match output {
                    Output::Present => Some(true),
                    Output::Never | Output::Skipped => Some(false),
                    Output::Skippable | Output::Expirable | Output::Own => None,
                };
                // What only holds under these facts is no fault of the guard.
                let (bare, _) = self.surroundings.output(name, &Facts::default());
                (known, Way::step(name), matches!(bare, Output::Present | Output::Never))
            }
            (Root::Saga, _) => (self.surroundings.has_key().then_some(true), Way::new("saga.key"), true),
            _ => {
                let base = self.follow(root, segments, facts);
                if !base.kinds.meets(Kinds::MAP.or(Kinds::OTHER)) && base.kinds != Kinds::NONE {
                    let way = Way::new(&path_text(root.name(), segments));
                    let message = format!("`has` wants a mapping, and `{}` is {}", way.shown, base.kinds.told());
                    self.complain("DEF_EXPRESSION_TYPE", Severity::Error, &way, message, None);
                    return Shape::truth(None);
                }
                let mut way = Way::new(&path_text(root.name(), segments));
                let segment = Segment::Key(field.to_owned());
                let presence = base.field(field).0;
                way.push(&segment);
                let known = match presence {
                    Presence::Always => Some(true),
                    Presence::Never(known) => {
                        self.undeclared(&way, &segment, &known, true);
                        return Shape::truth(Some(false));
                    }
                    Presence::Undeclared(known) => {
                        self.undeclared(&way, &segment, &known, false);
                        None
                    }
                    Presence::Optional | Presence::Unknown => None,
                };
                (known, way, true)
            }
        };
        if let Some(known) = known.filter(|_| is_sure) {
            let message = match known {
                true => format!("`{}` is always there, so this guard is always true", way.shown),
                false => format!("`{}` is never there, so this guard is always false", way.shown),
            };
            way.spellings = way.spellings.iter().map(|path| format!("has({path})")).collect();
            let advice = "take the guard out, or make optional what it asks about".to_owned();
            self.complain("DEF_GUARD_CONSTANT", Severity::Warning, &way, message, Some(advice));
        }
        Shape::truth(known)
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
            Verdict::Works(Kinds::LIST) => match (&l.items, &r.items) {
                (Some(first), Some(second)) => Shape::list_of((**first).clone().join((**second).clone())),
                _ => Shape::list(None),
            },
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
        let item = match range.kinds {
            kinds if kinds.is_within(Kinds::LIST) => range.item(),
            // It goes over the keys.
            kinds if kinds.is_within(Kinds::MAP) => Shape::of_kinds(Kinds::TEXT),
            _ => Shape::any(),
        };
        self.bound.push((each.iter_var.clone(), item));
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

    fn complain(
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

fn index_presence(base: &Shape<'_>, at: usize, path: &str, facts: &Facts<'_>) -> Presence {
    let at = length(at);
    match () {
        () if base.size.low > at => Presence::Always,
        () if !base.kinds.is_known() || facts.knows_size_of(path) => Presence::Unknown,
        () => Presence::Optional,
    }
}

/// An operand in a message: as it is written when that is short.
fn quoted(node: &IdedExpr) -> String {
    match canonical(node) {
        text if text.starts_with("each(") || text.starts_with('_') || text.starts_with('@') => "one side".to_owned(),
        text => format!("`{}`", crate::definition::fields::shorten(&text)),
    }
}
