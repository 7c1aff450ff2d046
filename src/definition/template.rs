//! Values with expressions in them: `${ input.orderId }`, evaluated against a saga's input and outputs.

use std::sync::Arc;

use serde_json::Value;

use crate::definition::expression::Expression;

/// What an expression may read.
pub struct Scope<'a> {
    /// The saga's input.
    pub input: &'a Value,
    /// The saga's id, as text.
    pub saga_id: &'a str,
    /// The saga's key, if it has one.
    pub saga_key: Option<&'a str>,
    /// `(name, output)` of each step that has an output; skipped, failed and unknown steps have none.
    pub outputs: &'a [(&'a str, &'a Value)],
    /// In an element of a `forEach` step: the item, and its place in the list.
    pub item: Option<(&'a Value, usize)>,
}

/// An expression could not be evaluated, for example because a field is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}`: {message}")]
pub struct ExpressionError {
    /// The expression's source text.
    pub expression: String,
    /// What went wrong.
    pub message: String,
}

/// A JSON value whose strings may hold expressions; compiled.
#[derive(Clone, Debug)]
pub struct Template(Part);

#[derive(Clone, Debug)]
enum Part {
    Literal(Value),
    /// The saga's whole input.
    Input,
    /// A string that is one expression: keeps the type of what it gives.
    Expression(Arc<Expression>),
    /// A string with expressions in it.
    Text(Vec<Piece>),
    List(Vec<Part>),
    Map(Vec<(String, Part)>),
}

#[derive(Clone, Debug)]
enum Piece {
    Literal(String),
    Expression(Arc<Expression>),
}

impl Template {
    /// The saga's input as it is: what a step without `input` is sent.
    pub fn whole_input() -> Self {
        Self(Part::Input)
    }

    /// A fixed value.
    pub fn literal(value: Value) -> Self {
        Self(Part::Literal(value))
    }

    /// Compiles a JSON value.
    ///
    /// # Errors
    /// The first of its expressions that cannot be compiled.
    pub fn compile(value: &Value) -> Result<Self, ExpressionError> {
        Ok(Self(match value {
            Value::String(text) => compile_text(text)?,
            Value::Array(items) => {
                Part::List(items.iter().map(|item| Ok(Self::compile(item)?.0)).collect::<Result<_, _>>()?)
            }
            Value::Object(entries) => Part::Map(
                entries
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), Self::compile(item)?.0)))
                    .collect::<Result<_, ExpressionError>>()?,
            ),
            scalar => Part::Literal(scalar.clone()),
        }))
    }

    /// A list of templates.
    pub(super) fn list(items: Vec<Self>) -> Self {
        Self(Part::List(items.into_iter().map(|item| item.0).collect()))
    }

    /// A mapping of templates.
    pub(super) fn map(entries: Vec<(String, Self)>) -> Self {
        Self(Part::Map(entries.into_iter().map(|(key, item)| (key, item.0)).collect()))
    }

    /// Whether this is the saga's input as it is, which need not be parsed to be passed on.
    pub fn is_whole_input(&self) -> bool {
        matches!(self.0, Part::Input)
    }

    /// Whether there is no expression in it.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self.0, Part::Literal(_))
    }

    /// Whether it can give true or false at all: text around an expression, or two of them, only ever give text.
    pub(super) fn may_be_a_condition(&self) -> bool {
        matches!(self.0, Part::Expression(_) | Part::Literal(Value::Bool(_)))
    }

    /// Whether it is text with expressions in it, each of which becomes text.
    pub(super) fn is_text(&self) -> bool {
        matches!(self.0, Part::Text(_))
    }

    /// The names of the steps whose output it reads.
    pub fn steps_read(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        self.0.visit(&mut |expression| names.extend(expression.steps.iter().map(String::as_str)));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The source text of its first expression, if it has any.
    pub fn text(&self) -> Option<String> {
        self.expressions().first().map(|first| first.text.clone())
    }

    /// The text of its expressions, in order.
    pub fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = Vec::new();
        self.0.visit(&mut |expression| texts.push(&expression.text));
        texts
    }

    /// Its expressions, in order.
    pub(super) fn expressions(&self) -> Vec<&Expression> {
        let mut all = Vec::new();
        self.0.visit(&mut |expression| all.push(expression));
        all
    }

    /// The value as it is written in a definition, with spaces around expressions evened out: templates that mean the
    /// same in the same words give the same.
    pub fn to_json(&self) -> Value {
        self.0.to_json()
    }

    /// The value, with every expression replaced by what it gives.
    ///
    /// # Errors
    /// When an expression reads what is not there, mixes types, or costs too much.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        self.0.evaluate(scope)
    }
}

impl Part {
    fn to_json(&self) -> Value {
        match self {
            Self::Literal(value) => escaped(value),
            Self::Input => Value::String("${ input }".to_owned()),
            Self::Expression(expression) => Value::String(format!("${{ {} }}", expression.text)),
            Self::Text(pieces) => Value::String(
                pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Literal(literal) => literal.replace("${", "$${"),
                        Piece::Expression(expression) => format!("${{ {} }}", expression.text),
                    })
                    .collect(),
            ),
            Self::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Self::Map(entries) => {
                Value::Object(entries.iter().map(|(key, item)| (key.clone(), item.to_json())).collect())
            }
        }
    }

    fn visit<'a>(&'a self, seen: &mut impl FnMut(&'a Expression)) {
        match self {
            Self::Literal(_) | Self::Input => {}
            Self::Expression(expression) => seen(expression),
            Self::Text(pieces) => {
                for piece in pieces {
                    if let Piece::Expression(expression) = piece {
                        seen(expression);
                    }
                }
            }
            Self::List(items) => {
                for item in items {
                    item.visit(seen);
                }
            }
            Self::Map(entries) => {
                for (_, item) in entries {
                    item.visit(seen);
                }
            }
        }
    }

    fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Input => scope.input.clone(),
            Self::Expression(expression) => expression.evaluate(scope)?,
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => text.push_str(literal),
                        Piece::Expression(expression) => match expression.evaluate(scope)? {
                            Value::String(value) => text.push_str(&value),
                            value @ (Value::Bool(_) | Value::Number(_)) => text.push_str(&value.to_string()),
                            _ => {
                                let message = "gives neither text nor a number, so it cannot be part of a text";
                                return Err(ExpressionError {
                                    expression: expression.text.clone(),
                                    message: message.to_owned(),
                                });
                            }
                        },
                    }
                }
                Value::String(text)
            }
            Self::List(items) => Value::Array(items.iter().map(|item| item.evaluate(scope)).collect::<Result<_, _>>()?),
            Self::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, item)| Ok((key.clone(), item.evaluate(scope)?)))
                    .collect::<Result<_, ExpressionError>>()?,
            ),
        })
    }
}

/// A literal, so that no text in it reads as an expression.
fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${")),
        Value::Array(items) => Value::Array(items.iter().map(escaped).collect()),
        Value::Object(entries) => {
            Value::Object(entries.iter().map(|(key, item)| (key.clone(), escaped(item))).collect())
        }
        scalar => scalar.clone(),
    }
}

fn compile_text(text: &str) -> Result<Part, ExpressionError> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, expression) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            literal.push_str(before);
            literal.push_str("${");
            rest = expression.get(2..).unwrap_or_default();
            continue;
        }
        literal.push_str(before);
        let inner = expression.get(2..).unwrap_or_default();
        let Some(end) = closing_brace(inner) else {
            let message = "the closing `}` is missing; write `$${` for a plain `${`".to_owned();
            return Err(ExpressionError { expression: expression.to_owned(), message });
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Expression(Arc::new(Expression::compile(inner.get(..end).unwrap_or_default())?)));
        rest = inner.get(end + 1..).unwrap_or_default();
    }
    literal.push_str(rest);
    if pieces.is_empty() {
        return Ok(Part::Literal(Value::String(literal)));
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(match pieces.as_slice() {
        [Piece::Expression(expression)] if expression.is_whole_input() => Part::Input,
        [Piece::Expression(expression)] => Part::Expression(Arc::clone(expression)),
        _ => Part::Text(pieces),
    })
}

/// Where the brace closes that opened just before `text`; braces in quotes do not count.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (Some(_), '\\') => {
                characters.next();
            }
            (Some(open), _) => quote = Some(open).filter(|open| *open != character),
            (None, '\'' | '"') => quote = Some(character),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(at),
            (None, '}') => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A boolean expression: a step's `when`.
#[derive(Clone, Debug)]
pub struct Condition(Template);

impl Condition {
    /// A condition from a template that gives a boolean.
    pub fn new(template: Template) -> Self {
        Self(template)
    }

    /// The names of the steps whose output it reads.
    pub fn steps_read(&self) -> Vec<&str> {
        self.0.steps_read()
    }

    /// The expression's source text; `None` for a plain `true` or `false`.
    pub fn text(&self) -> Option<String> {
        self.0.text()
    }

    /// The truth that it was written as, if it is no expression.
    pub(super) fn literal(&self) -> Option<bool> {
        match self.0.0 {
            Part::Literal(Value::Bool(truth)) => Some(truth),
            _ => None,
        }
    }

    /// The condition as it is written in a definition.
    pub fn to_json(&self) -> Value {
        self.0.to_json()
    }

    /// The expression.
    pub fn template(&self) -> &Template {
        &self.0
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When it cannot be evaluated, or gives something other than a boolean.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        match self.0.evaluate(scope)? {
            Value::Bool(holds) => Ok(holds),
            other => {
                let expression = self.0.expressions().first().map(|first| first.text.clone()).unwrap_or_default();
                // Its kind, not its value: that may be secret.
                let given = match other {
                    Value::Null => "null",
                    Value::Number(_) => "a number",
                    Value::String(_) => "text",
                    Value::Array(_) => "a list",
                    Value::Object(_) | Value::Bool(_) => "a mapping",
                };
                Err(ExpressionError { expression, message: format!("gives {given}, not true or false") })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn evaluate(template: Value) -> Result<Value, ExpressionError> {
        let input = json!({"n": 2, "half": 0.5, "name": "Ada", "lines": [{"sku": "a"}, {"sku": "b"}], "nothing": null});
        let output = json!({"id": "p-1", "large": 9_007_199_254_740_993_u64});
        let scope = Scope {
            input: &input,
            saga_id: "s-1",
            saga_key: None,
            outputs: &[("pay", &output), ("my-step", &output)],
            item: None,
        };
        Template::compile(&template)?.evaluate(&scope)
    }

    #[test]
    fn a_whole_string_keeps_its_type() {
        assert_eq!(evaluate(json!("${ input.n }")), Ok(json!(2)));
        assert_eq!(evaluate(json!("${input.lines[1].sku}")), Ok(json!("b")));
        assert_eq!(evaluate(json!("${ input.n + 1 }")), Ok(json!(3)));
        assert_eq!(evaluate(json!("${ input.lines.map(l, l.sku) }")), Ok(json!(["a", "b"])));
        assert_eq!(evaluate(json!({"a": ["${ input.half }"], "b": 1})), Ok(json!({"a": [0.5], "b": 1})));
        assert_eq!(evaluate(json!("${ {'a': '}'} }")), Ok(json!({"a": "}"})));
        assert_eq!(evaluate(json!("${ saga.id }")), Ok(json!("s-1")));
    }

    #[test]
    fn expressions_within_text_are_put_into_it() {
        assert_eq!(evaluate(json!("order ${ input.n } of ${ input.name }.")), Ok(json!("order 2 of Ada.")));
        assert_eq!(evaluate(json!("costs $${ input.n } $5 $")), Ok(json!("costs ${ input.n } $5 $")));
        assert!(evaluate(json!("x ${ input.lines }")).is_err());
        assert!(evaluate(json!("x ${ input.nothing }")).is_err());
    }

    #[test]
    fn outputs_are_read_by_step_name_and_may_be_missing() {
        assert_eq!(evaluate(json!("${ steps['my-step'].output.id }")), Ok(json!("p-1")));
        assert_eq!(evaluate(json!("${ steps.pay.output.id + '!' }")), Ok(json!("p-1!")));
        assert_eq!(evaluate(json!("${ has(steps['pay'].output) }")), Ok(json!(true)));
        assert_eq!(evaluate(json!("${ has(steps['gone'].output) }")), Ok(json!(false)));
        assert_eq!(evaluate(json!("${ has(steps.gone.output) ? 1 : 2 }")), Ok(json!(2)));
        let error = evaluate(json!("${ steps['gone'].output.id }")).expect_err("gone");
        assert_eq!(error.message, "the step `gone` has no output");
        let error = evaluate(json!("${ input.address.street }")).expect_err("missing");
        assert_eq!(error.message, "there is no `input.address`");
        assert!(evaluate(json!("${ saga.key }")).is_err());
        assert!(evaluate(json!("${ saga.key + '' }")).is_err());
    }

    #[test]
    fn what_an_expression_reads_is_known() {
        let template = json!({"a": "${ size(steps['x'].output.list.filter(i, i == steps.y.output.n)) }", "b": "${ has(steps.z.output) }"});
        let template = Template::compile(&template).expect("compiles");
        assert_eq!(template.steps_read(), ["x", "y", "z"]);
    }

    #[test]
    fn numbers_that_json_cannot_keep_are_refused() {
        for expression in
            ["steps.pay.output.large", "9007199254740992 + input.n", "0.0 / 0.0", "1.0 / 0.0", "input.n / 0"]
        {
            assert!(evaluate(json!(format!("${{ {expression} }}"))).is_err(), "{expression}");
        }
    }

    #[test]
    fn costly_expressions_are_refused() {
        let nested = "input.lines.map(a, input.lines.map(b, input.lines.map(c, c)))";
        assert!(Template::compile(&json!(format!("${{ {nested} }}"))).is_err());
    }

    #[test]
    fn a_loops_variable_hides_what_has_its_name() {
        assert_eq!(evaluate(json!("${ [{'id': 1}].map(steps, steps.id) }")), Ok(json!([1])));
        assert_eq!(evaluate(json!("${ [{'a': 1}].map(saga, has(saga.a)) }")), Ok(json!([true])));
        assert_eq!(evaluate(json!("${ input.lines.map(input, input.sku) }")), Ok(json!(["a", "b"])));
        assert!(evaluate(json!("${ [1].map(x, x) == [steps] }")).is_err());
    }

    #[test]
    fn no_value_gets_into_an_error() {
        for expression in [
            "input.name + 1",
            "input.name < 1",
            "input.name.map(x, x)",
            "input.name.size(1)",
            "input.name[0]",
            "input.lines[input.name]",
            "input.name in 1",
            "-input.name",
            "!input.name",
            "input.name.startsWith(1)",
            "{input.lines: 1}",
            "input.name && true",
            "input.name ? 1 : 2",
            "int(input.name)",
            "timestamp(input.name)",
        ] {
            let error = evaluate(json!(format!("${{ {expression} }}"))).expect_err(expression);
            assert!(!error.message.contains("Ada"), "{error}");
        }
        let error = evaluate(json!("${ input.n * 1.5 }")).expect_err("mixed");
        assert_eq!(error.message, "`mul` does not work on int and float; convert one with `double(...)`");
    }

    #[test]
    fn loops_over_large_inputs_are_refused() {
        let input = json!({"items": vec![0; 3_000], "text": "x".repeat(10_000)});
        let scope = Scope { input: &input, saga_id: "", saga_key: None, outputs: &[], item: None };
        let cost = |text: &str| {
            Template::compile(&json!(text)).expect("compiles").evaluate(&scope).err().map(|error| error.message)
        };
        assert_eq!(cost("${ size(input.items.filter(i, i == 0).map(i, i + 1)) }"), None);
        let nested = cost("${ input.items.map(a, input.items.exists(b, b == a + 1)) }");
        assert!(nested.is_some_and(|message| message.contains("costs too much")));
        assert!(cost("${ input.items.map(i, input.text) }").is_some_and(|message| message.contains("gives more than")));
        let built = cost("${ size(input.items.map(i, input.text + input.text + input.text)) }");
        assert!(built.is_some_and(|message| message.contains("adding up texts")));
    }

    #[test]
    fn no_nesting_exhausts_the_stack() {
        let pairs = [
            ("(", ")"),
            ("[", "]"),
            ("!", ""),
            ("-", ""),
            ("1 + ", ""),
            ("size(", ")"),
            ("{1:", "}"),
            ("true ? 1 : ", ""),
        ];
        let chains =
            [("", "[0]"), ("", ".a"), ("", " + 1"), ("", ".size()"), ("", " && true"), ("", " in []"), ("", "()")];
        for (before, after) in pairs.into_iter().chain(chains) {
            for times in [10, 40, 60, 100, 300, 4_000 / (before.len() + after.len())] {
                let expression = format!("${{ {}input{} }}", before.repeat(times), after.repeat(times));
                // Refused or not, it comes back.
                let _ = evaluate(json!(expression));
            }
        }
        assert!(evaluate(json!(format!("${{ {}1{} }}", "1 + (".repeat(500), ")".repeat(500)))).is_err());
        assert!(evaluate(json!(format!("${{ {} }}", "[".repeat(4_000)))).is_err());
    }

    #[test]
    fn a_condition_must_be_true_or_false() {
        let input = json!({"n": 1});
        let scope = Scope { input: &input, saga_id: "", saga_key: None, outputs: &[], item: None };
        let condition = |text: &str| Condition::new(Template::compile(&json!(text)).expect("compiles")).holds(&scope);
        assert_eq!(condition("${ input.n > 0 }"), Ok(true));
        assert_eq!(condition("${ input.n }").expect_err("a number").expression, "input.n");
    }
}
