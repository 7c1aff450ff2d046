//! One expression in the Common Expression Language. Plain member selections, which most are, never reach its
//! interpreter: they are looked up in the JSON as it is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::objects::{Key, Map};
use cel::parser::PrattParser;
use cel::{Context, Env};
use serde_json::Value;

use crate::definition::node::MAX_EXACT;
use crate::definition::template::{ExpressionError, Scope};

const MAX_LENGTH: usize = 4_096;
const MAX_NODES: usize = 2_000;
const MAX_RECURSION: u16 = 32;
/// How deep the parsed tree may be: the interpreter recurses along it with frames of some 30 kB in a debug build, and
/// threads have 2 MB. `1 + 1 + 1` is a level per sign.
const MAX_DEPTH: usize = 24;
/// `map` within `map` costs the square of the list's length; a third level is refused.
const MAX_LOOPS: usize = 2;

/// What the interpreter is built with; a test calls each of them.
#[rustfmt::skip]
const FUNCTIONS: [&str; 24] = [
    "size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string", "bool", "bytes", "dyn", "type",
    "duration", "timestamp", "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek",
    "getHours", "getMinutes", "getSeconds", "getMilliseconds",
];

/// What an expression may give, in bytes of text and 16 for each value: a loop can multiply its input.
const MAX_RESULT: usize = 16 * 1024 * 1024;
/// How many values a loop within a loop may have in reach.
const MAX_NESTED_VALUES: usize = 2_000;
/// How much text the additions within a loop may build, in bytes, before any of it is given back.
const MAX_BUILT: usize = 16 * 1024 * 1024;

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled expression.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub text: String,
    program: Program,
    /// Names of the steps that it reads, each once.
    pub steps: Vec<String>,
    pub reads_input: bool,
    pub reads_saga: bool,
    /// Whether it reads `item` or `index`, which are there in a step with `forEach`.
    pub reads_item: bool,
    /// How deep its loops are nested.
    loops: usize,
    /// How many additions it has: each can make a text or list longer.
    additions: usize,
}

#[derive(Clone, Debug)]
enum Program {
    Path(Root, Vec<Segment>),
    Cel(IdedExpr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Input,
    Steps,
    Saga,
    Item,
    Index,
}

#[derive(Clone, Debug)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, ".{key}"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Root {
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Steps => "steps",
            Self::Saga => "saga",
            Self::Item => "item",
            Self::Index => "index",
        }
    }
}

impl Expression {
    /// Compiles what stands between `${` and `}`.
    ///
    /// # Errors
    /// When it is not an expression, is too large, or reads what no expression may read.
    pub fn compile(text: &str) -> Result<Self, ExpressionError> {
        let text = text.trim();
        let refuse = |message: String| ExpressionError { expression: text.to_owned(), message };
        if text.is_empty() {
            return Err(refuse("there is no expression between the braces".to_owned()));
        }
        if text.len() > MAX_LENGTH {
            return Err(refuse(format!("it has {} bytes; at most {MAX_LENGTH} are read", text.len())));
        }
        let parsed = parse(text).map_err(refuse)?;
        let mut reader = Reader {
            bound: Vec::new(),
            depth: 0,
            loops: 0,
            most_loops: 0,
            additions: 0,
            steps: Vec::new(),
            input: false,
            saga: false,
            item: false,
        };
        reader.visit(&parsed).map_err(refuse)?;
        let program = match path_of(&parsed.expr) {
            Some((root, mut segments)) => {
                segments.reverse();
                Program::Path(root, segments)
            }
            None => Program::Cel(parsed),
        };
        let Reader { steps, input, saga, item, most_loops: loops, additions, .. } = reader;
        Ok(Self {
            text: text.to_owned(),
            program,
            steps,
            reads_input: input,
            reads_saga: saga,
            reads_item: item,
            loops,
            additions,
        })
    }

    /// Whether it is just `input`.
    pub fn is_whole_input(&self) -> bool {
        matches!(&self.program, Program::Path(Root::Input, segments) if segments.is_empty())
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// When it reads what is not there, mixes types, or gives what JSON cannot keep exactly.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        let refuse = |message: String| ExpressionError { expression: self.text.clone(), message };
        let value = match &self.program {
            Program::Path(root, segments) => look_up(*root, segments, scope).map_err(refuse)?,
            Program::Cel(program) => catch_unwind(AssertUnwindSafe(|| self.interpret(program, scope)))
                .unwrap_or_else(|_| Err("it cannot be evaluated".to_owned()))
                .map_err(refuse)?,
        };
        check_exact(&value).map_err(refuse)?;
        Ok(value)
    }

    fn interpret(&self, program: &IdedExpr, scope: &Scope<'_>) -> Result<Value, String> {
        self.refuse_costly_loops(scope)?;
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        if self.reads_input {
            context.add_variable_from_value("input", to_cel(scope.input));
        }
        if !self.steps.is_empty() {
            let steps = self.steps.iter().map(|name| {
                let output = output_of(scope, name).map(|output| (key("output"), to_cel(output)));
                (key(name), map(output.into_iter().collect()))
            });
            context.add_variable_from_value("steps", map(steps.collect()));
        }
        if self.reads_saga {
            let saga = [("id", Some(scope.saga_id)), ("key", scope.saga_key)];
            let saga = saga.into_iter().filter_map(|(name, text)| text.map(|text| (key(name), cel::Value::from(text))));
            context.add_variable_from_value("saga", map(saga.collect()));
        }
        if let (true, Some((item, index))) = (self.reads_item, scope.item) {
            context.add_variable_from_value("item", to_cel(item));
            context.add_variable_from_value("index", to_cel(&Value::from(index)));
        }
        let value = cel::Value::resolve(program, &context).map_err(explain)?;
        let mut left = MAX_RESULT;
        from_cel(&value, &mut left)
    }

    /// The interpreter cannot be stopped, so what it may cost is bounded by what lies in its reach.
    fn refuse_costly_loops(&self, scope: &Scope<'_>) -> Result<(), String> {
        if self.loops == 0 {
            return Ok(());
        }
        let in_reach = || self.steps.iter().filter_map(|name| output_of(scope, name)).chain([scope.input]);
        let values: usize = in_reach().map(count).sum();
        if self.loops > 1 && values.saturating_mul(1 + self.additions) > MAX_NESTED_VALUES {
            return Err(format!("a loop within a loop over {values} values costs too much"));
        }
        let longest = in_reach().map(longest_text).max().unwrap_or_default();
        if values.saturating_mul(longest).saturating_mul(self.additions) > MAX_BUILT {
            return Err(format!("adding up texts of {longest} bytes in a loop over {values} values costs too much"));
        }
        Ok(())
    }
}

/// The syntax tree of an expression.
///
/// # Errors
/// When it is none.
pub(super) fn parse(text: &str) -> Result<IdedExpr, String> {
    let parser = PrattParser::new()
        .max_recursion_depth(MAX_RECURSION)
        .max_expression_node_count(MAX_NODES)
        .error_reporting_limit(1)
        .error_recovery_limit(1);
    catch_unwind(AssertUnwindSafe(|| parser.parse(text))).map_err(|_| "it cannot be parsed".to_owned())?.map_err(
        |errors| {
            let first = errors.errors.first().map_or("", |error| error.msg.lines().next().unwrap_or_default());
            format!("it cannot be parsed: {first}")
        },
    )
}

/// The segments of a plain selection, last first.
pub(super) fn path_of(expr: &Expr) -> Option<(Root, Vec<Segment>)> {
    let mut segments = Vec::new();
    let mut at = expr;
    loop {
        if segments.len() > MAX_DEPTH {
            return None;
        }
        at = match at {
            Expr::Ident(name) => {
                let root = match name.as_str() {
                    "input" => Root::Input,
                    "steps" => Root::Steps,
                    "saga" => Root::Saga,
                    "item" => Root::Item,
                    "index" => Root::Index,
                    _ => return None,
                };
                return Some((root, segments));
            }
            Expr::Select(select) if !select.test => {
                segments.push(Segment::Key(select.field.clone()));
                &select.operand.expr
            }
            Expr::Call(call) if call.func_name == "_[_]" && call.target.is_none() => {
                let [operand, index] = call.args.as_slice() else { return None };
                segments.push(match &index.expr {
                    Expr::Literal(LiteralValue::String(text)) => Segment::Key(text.inner().to_owned()),
                    Expr::Literal(LiteralValue::Int(at)) => Segment::Index(usize::try_from(*at.inner()).ok()?),
                    _ => return None,
                });
                &operand.expr
            }
            _ => return None,
        };
    }
}

/// Walks an expression for what it reads.
struct Reader {
    bound: Vec<String>,
    depth: usize,
    loops: usize,
    most_loops: usize,
    additions: usize,
    steps: Vec<String>,
    input: bool,
    saga: bool,
    item: bool,
}

impl Reader {
    /// The selection that `expr` is, unless a loop's variable stands at its root.
    fn path(&self, expr: &Expr) -> Option<(Root, Vec<Segment>)> {
        path_of(expr).filter(|(root, _)| !self.bound.iter().any(|name| name == root.name()))
    }

    fn visit(&mut self, node: &IdedExpr) -> Result<(), String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let visited = self.visit_parts(node);
        self.depth -= 1;
        visited
    }

    fn visit_parts(&mut self, node: &IdedExpr) -> Result<(), String> {
        if let Some((root, segments)) = self.path(&node.expr) {
            return self.read(root, segments.last(), segments.len().checked_sub(2).and_then(|at| segments.get(at)));
        }
        match &node.expr {
            Expr::Ident(name) if self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => Err(format!("there is no `{name}`; an expression reads `input`, `steps` and `saga`")),
            Expr::Select(select) => match self.path(&select.operand.expr) {
                // Not a selection of its own: it asks whether there is such a field.
                Some((root, mut segments)) => {
                    segments.insert(0, Segment::Key(select.field.clone()));
                    self.read(root, segments.last(), segments.len().checked_sub(2).and_then(|at| segments.get(at)))
                }
                None => self.visit(&select.operand),
            },
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                if name.starts_with(|first: char| first.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
                    return Err(format!("there is no function `{name}`"));
                }
                // A loop gathers its results by adding each to the rest; that is counted as part of the loop.
                let gathers = matches!(call.args.first().map(|first| &first.expr), Some(Expr::Ident(name)) if self.bound.contains(name));
                if name == "_+_" && !gathers {
                    self.additions += 1;
                }
                call.target.iter().try_for_each(|target| self.visit(target))?;
                call.args.iter().try_for_each(|argument| self.visit(argument))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element)),
            Expr::Map(entries) => entries.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => self.visit(&entry.key).and_then(|()| self.visit(&entry.value)),
                EntryExpr::StructField(_) => Err("messages are not supported".to_owned()),
            }),
            Expr::Comprehension(each) => {
                self.visit(&each.iter_range)?;
                if self.loops == MAX_LOOPS {
                    return Err(format!("loops nested more than {MAX_LOOPS} deep cost too much"));
                }
                let depth = self.bound.len();
                self.bound.extend([each.iter_var.clone(), each.accu_var.clone()]);
                self.bound.extend(each.iter_var2.clone());
                self.loops += 1;
                self.most_loops = self.most_loops.max(self.loops);
                let visited = [&each.accu_init, &each.loop_cond, &each.loop_step, &each.result]
                    .into_iter()
                    .try_for_each(|part| self.visit(part));
                self.loops -= 1;
                self.bound.truncate(depth);
                visited
            }
            Expr::Literal(_) => Ok(()),
            Expr::Struct(_) | Expr::Unspecified => Err("messages are not supported".to_owned()),
        }
    }

    /// Notes what a selection reads: `first` is the segment next to the root, `second` the one after it.
    fn read(&mut self, root: Root, first: Option<&Segment>, second: Option<&Segment>) -> Result<(), String> {
        match (root, first) {
            (Root::Input, _) => self.input = true,
            (Root::Item, _) | (Root::Index, None) => self.item = true,
            (Root::Index, Some(_)) => return Err("`index` is a number".to_owned()),
            (Root::Saga, Some(Segment::Key(field))) if field == "id" || field == "key" => self.saga = true,
            (Root::Saga, _) => return Err("of `saga` there are `saga.id` and `saga.key`".to_owned()),
            (Root::Steps, Some(Segment::Key(name))) => {
                match second {
                    Some(Segment::Key(field)) if field == "output" => {}
                    _ => return Err(format!("of a step there is its output: `steps['{name}'].output`")),
                }
                if !self.steps.contains(name) {
                    self.steps.push(name.clone());
                }
            }
            (Root::Steps, _) => return Err("name the step: `steps['name'].output`".to_owned()),
        }
        Ok(())
    }
}

fn output_of<'a>(scope: &Scope<'a>, name: &str) -> Option<&'a Value> {
    scope.outputs.iter().find(|(step, _)| *step == name).map(|(_, output)| *output)
}

/// Where a selection begins; only written out when it leads nowhere.
enum Start<'a> {
    Input,
    Item,
    Output(&'a str),
}

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input => f.write_str("input"),
            Self::Item => f.write_str("item"),
            Self::Output(step) => write!(f, "steps['{step}'].output"),
        }
    }
}

fn look_up(root: Root, segments: &[Segment], scope: &Scope<'_>) -> Result<Value, String> {
    let (start, root, rest) = match (root, segments) {
        (Root::Input, rest) => (scope.input, Start::Input, rest),
        (Root::Item, rest) => match scope.item {
            Some((item, _)) => (item, Start::Item, rest),
            None => return Err("there is no `item` here".to_owned()),
        },
        (Root::Index, []) => {
            return scope
                .item
                .map(|(_, index)| Value::from(index))
                .ok_or_else(|| "there is no `index` here".to_owned());
        }
        (Root::Steps, [Segment::Key(name), _, rest @ ..]) => {
            let output = output_of(scope, name).ok_or_else(|| format!("the step `{name}` has no output"))?;
            (output, Start::Output(name), rest)
        }
        (Root::Saga, [Segment::Key(field)]) if field == "id" => return Ok(Value::from(scope.saga_id)),
        (Root::Saga, [Segment::Key(field)]) if field == "key" => {
            return scope.saga_key.map(Value::from).ok_or_else(|| "the saga has no key".to_owned());
        }
        _ => return Err("there is no such value".to_owned()),
    };
    let mut at = start;
    for (depth, segment) in rest.iter().enumerate() {
        let next = match segment {
            Segment::Key(key) => at.as_object().and_then(|object| object.get(key)),
            Segment::Index(index) => at.as_array().and_then(|items| items.get(*index)),
        };
        at = next.ok_or_else(|| {
            let path: String = rest.iter().take(depth + 1).map(ToString::to_string).collect();
            format!("there is no `{root}{path}`")
        })?;
    }
    Ok(at.clone())
}

/// What the interpreter says, in our words and without the values themselves, which may be secret.
fn explain(error: cel::ExecutionError) -> String {
    use cel::ExecutionError as Error;
    match error {
        Error::NoSuchKey(name) => format!("there is no `{name}`"),
        Error::UnsupportedBinaryOperator(operator, left, right) => {
            let (left, right) = (left.type_of(), right.type_of());
            let hint = match (&left, &right) {
                (cel::objects::ValueType::Int, cel::objects::ValueType::Float)
                | (cel::objects::ValueType::Float, cel::objects::ValueType::Int) => "; convert one with `double(...)`",
                _ => "",
            };
            format!("`{operator}` does not work on {left} and {right}{hint}")
        }
        Error::ValuesNotComparable(left, right) => {
            format!("{} cannot be compared with {}", left.type_of(), right.type_of())
        }
        Error::NotSupportedAsMethod { method, target } => {
            format!("`{method}` does not work on {}", target.type_of())
        }
        Error::UnsupportedIndex(index, target) => format!("{} has no index of {}", target.type_of(), index.type_of()),
        Error::DivisionByZero(_) | Error::RemainderByZero(_) => "divides by zero".to_owned(),
        Error::Overflow(..) => "gives a number that is too large".to_owned(),
        Error::IndexOutOfBounds(_) => "there is no such index in the list".to_owned(),
        Error::DuplicateKey(_) => "gives a mapping with one key twice".to_owned(),
        error @ (Error::InvalidArgumentCount { .. }
        | Error::UnexpectedType { .. }
        | Error::NoSuchOverload(_)
        | Error::UndeclaredReference(_)
        | Error::MissingArgumentOrTarget
        | Error::FunctionError { .. }) => error.to_string().chars().take(300).collect(),
        _ => "it cannot be evaluated".to_owned(),
    }
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

fn map(entries: HashMap<Key, cel::Value>) -> cel::Value {
    cel::Value::Map(Map { map: Arc::new(entries) })
}

/// Whole numbers become CEL's `int`, so that they compare and add up with those that are written in an expression.
fn to_cel(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(value) => cel::Value::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => cel::Value::Int(whole),
            (None, Some(whole)) => cel::Value::UInt(whole),
            (None, None) => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::from(text.as_str()),
        Value::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(entries) => map(entries.iter().map(|(name, item)| (key(name), to_cel(item))).collect()),
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn longest_text(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(longest_text).max().unwrap_or_default(),
        Value::Object(entries) => entries.values().map(longest_text).max().unwrap_or_default(),
        _ => 0,
    }
}

/// As JSON; `left` is how much more of it may come.
fn from_cel(value: &cel::Value, left: &mut usize) -> Result<Value, String> {
    let length = match value {
        cel::Value::String(text) => text.len(),
        _ => 0,
    };
    *left = left.checked_sub(length + 16).ok_or_else(|| format!("gives more than {MAX_RESULT} bytes"))?;
    Ok(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::Bool(*value),
        cel::Value::Int(whole) => Value::from(*whole),
        cel::Value::UInt(whole) => Value::from(*whole),
        cel::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| format!("gives {number}, which JSON does not have"))?,
        cel::Value::String(text) => Value::from(text.as_str()),
        cel::Value::List(items) => {
            Value::Array(items.iter().map(|item| from_cel(item, left)).collect::<Result<_, _>>()?)
        }
        cel::Value::Map(entries) => {
            let entries: BTreeMap<String, &cel::Value> =
                entries.map.iter().map(|(name, item)| (name.to_string(), item)).collect();
            let converted = entries.into_iter().map(|(name, item)| from_cel(item, left).map(|item| (name, item)));
            Value::Object(converted.collect::<Result<_, String>>()?)
        }
        _ => return Err("gives something that JSON does not have; convert it with `string(...)`".to_owned()),
    })
}

/// Refuses whole numbers that a participant in another language would round.
pub(super) fn check_exact(value: &Value) -> Result<(), String> {
    match value {
        Value::Number(number) if !number.is_f64() => match number.as_i64() {
            Some(whole) if (-MAX_EXACT..=MAX_EXACT).contains(&whole) => Ok(()),
            _ => Err(format!("gives {number}, which is beyond 2^53 and not kept exactly by every reader")),
        },
        Value::Array(items) => items.iter().try_for_each(check_exact),
        Value::Object(entries) => entries.values().try_for_each(check_exact),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_that_passes_the_check_is_there() {
        let scope = Scope { input: &Value::Null, saga_id: "", saga_key: None, outputs: &[], item: None };
        for name in FUNCTIONS {
            let calls = [
                format!("{name}('x')"),
                format!("'x'.{name}()"),
                format!("'x'.{name}('x')"),
                format!("timestamp('2026-11-23T00:00:00Z').{name}()"),
            ];
            let is_there = calls.iter().any(|call| {
                let given = Expression::compile(call).expect("compiles").evaluate(&scope);
                given.map_or_else(|error| !error.message.contains("Undeclared"), |_| true)
            });
            assert!(is_there, "{name}");
        }
    }
}
