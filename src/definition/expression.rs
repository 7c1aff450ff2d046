//! One expression in the Common Expression Language. Plain member selections, which most are, never reach its
//! interpreter: they are looked up in the JSON as it is.

use std::collections::{BTreeMap, HashMap};
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

const FUNCTIONS: [&str; 28] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "dyn",
    "type",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDayOfYear",
    "getDayOfMonth",
    "getDate",
    "getDayOfWeek",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "min",
    "max",
    "abs",
];

/// What an expression may give, in bytes of text and 16 for each value: a loop can multiply its input.
const MAX_RESULT: usize = 16 * 1024 * 1024;
/// How many values a loop within a loop may have in reach.
const MAX_NESTED_VALUES: usize = 2_000;

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
    has_nested_loops: bool,
}

#[derive(Clone, Debug)]
enum Program {
    Path(Root, Vec<Segment>),
    Cel(IdedExpr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Input,
    Steps,
    Saga,
}

#[derive(Clone, Debug)]
enum Segment {
    Key(String),
    Index(usize),
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
        let parser = PrattParser::new()
            .max_recursion_depth(MAX_RECURSION)
            .max_expression_node_count(MAX_NODES)
            .error_reporting_limit(1)
            .error_recovery_limit(1);
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse(text)))
            .map_err(|_| refuse("it cannot be parsed".to_owned()))?
            .map_err(|errors| {
                let first = errors.errors.first().map_or("", |error| error.msg.lines().next().unwrap_or_default());
                refuse(format!("it cannot be parsed: {first}"))
            })?;
        let mut reader = Reader {
            bound: Vec::new(),
            depth: 0,
            loops: 0,
            most_loops: 0,
            steps: Vec::new(),
            input: false,
            saga: false,
        };
        reader.visit(&parsed).map_err(refuse)?;
        let program = match path_of(&parsed.expr) {
            Some((root, mut segments)) => {
                segments.reverse();
                Program::Path(root, segments)
            }
            None => Program::Cel(parsed),
        };
        let Reader { steps, input, saga, most_loops, .. } = reader;
        let has_nested_loops = most_loops > 1;
        Ok(Self { text: text.to_owned(), program, steps, reads_input: input, reads_saga: saga, has_nested_loops })
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
        if self.has_nested_loops {
            let outputs = self.steps.iter().filter_map(|name| output_of(scope, name));
            let values: usize = outputs.chain([scope.input]).map(count).sum();
            if values > MAX_NESTED_VALUES {
                return Err(format!("a loop within a loop over {values} values costs too much"));
            }
        }
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
        let value = cel::Value::resolve(program, &context).map_err(|error| match error {
            cel::ExecutionError::NoSuchKey(name) => format!("there is no `{name}`"),
            other => {
                let mut text = other.to_string();
                if text.len() > 300 {
                    text = text.chars().take(300).collect();
                }
                text
            }
        })?;
        let mut left = MAX_RESULT;
        from_cel(&value, &mut left)
    }
}

/// The segments of a plain selection, last first.
fn path_of(expr: &Expr) -> Option<(Root, Vec<Segment>)> {
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
    steps: Vec<String>,
    input: bool,
    saga: bool,
}

impl Reader {
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
        if let Some((root, segments)) = path_of(&node.expr)
            && self.bound.is_empty()
        {
            return self.read(root, segments.last(), segments.len().checked_sub(2).and_then(|at| segments.get(at)));
        }
        match &node.expr {
            Expr::Ident(name) if self.bound.contains(name) => Ok(()),
            Expr::Ident(name) => match name.as_str() {
                "input" => self.read(Root::Input, None, None),
                "steps" => self.read(Root::Steps, None, None),
                "saga" => self.read(Root::Saga, None, None),
                _ => Err(format!("there is no `{name}`; an expression reads `input`, `steps` and `saga`")),
            },
            Expr::Select(select) => {
                let own = Segment::Key(select.field.clone());
                match path_of(&select.operand.expr) {
                    Some((root, segments)) if select.test || !self.bound.is_empty() => {
                        let mut all = vec![own];
                        all.extend(segments);
                        self.read(root, all.last(), all.len().checked_sub(2).and_then(|at| all.get(at)))
                    }
                    _ => self.visit(&select.operand),
                }
            }
            Expr::Call(call) => {
                if call.func_name == "_[_]"
                    && let Some((root, segments)) = path_of(&node.expr)
                {
                    return self.read(
                        root,
                        segments.last(),
                        segments.len().checked_sub(2).and_then(|at| segments.get(at)),
                    );
                }
                let name = call.func_name.as_str();
                if name.starts_with(|first: char| first.is_ascii_alphabetic()) && !FUNCTIONS.contains(&name) {
                    return Err(format!("there is no function `{name}`"));
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

fn look_up(root: Root, segments: &[Segment], scope: &Scope<'_>) -> Result<Value, String> {
    let (start, mut path, rest) = match (root, segments) {
        (Root::Input, rest) => (scope.input, "input".to_owned(), rest),
        (Root::Steps, [Segment::Key(name), _, rest @ ..]) => {
            let output = output_of(scope, name).ok_or_else(|| format!("the step `{name}` has no output"))?;
            (output, format!("steps['{name}'].output"), rest)
        }
        (Root::Saga, [Segment::Key(field)]) if field == "id" => return Ok(Value::from(scope.saga_id)),
        (Root::Saga, [Segment::Key(field)]) if field == "key" => {
            return scope.saga_key.map(Value::from).ok_or_else(|| "the saga has no key".to_owned());
        }
        _ => return Err("there is no such value".to_owned()),
    };
    let mut at = start;
    for segment in rest {
        let next = match segment {
            Segment::Key(key) => at.as_object().and_then(|object| object.get(key)),
            Segment::Index(index) => at.as_array().and_then(|items| items.get(*index)),
        };
        match segment {
            Segment::Key(key) => path.push_str(&format!(".{key}")),
            Segment::Index(index) => path.push_str(&format!("[{index}]")),
        }
        at = next.ok_or_else(|| format!("there is no `{path}`"))?;
    }
    Ok(at.clone())
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
