//! Values with expressions in them: `${ input.orderId }`, evaluated against a saga's input and outputs.

use serde_json::Value;

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
pub struct Template(Node);

#[derive(Clone, Debug)]
enum Node {
    Literal(Value),
    /// The saga's whole input.
    Input,
}

impl Template {
    /// The saga's input as it is: what a step without `input` is sent.
    pub fn whole_input() -> Self {
        Self(Node::Input)
    }

    /// A fixed value.
    pub fn literal(value: Value) -> Self {
        Self(Node::Literal(value))
    }

    /// Whether this is the saga's input as it is, which need not be parsed to be passed on.
    pub fn is_whole_input(&self) -> bool {
        matches!(self.0, Node::Input)
    }

    /// The value, with every expression replaced by what it gives.
    ///
    /// # Errors
    /// When an expression reads what is not there, mixes types, or costs too much.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        match &self.0 {
            Node::Literal(value) => Ok(value.clone()),
            Node::Input => Ok(scope.input.clone()),
        }
    }
}

/// A boolean expression: a step's `when`.
#[derive(Clone, Debug)]
pub struct Condition(Template);

impl Condition {
    /// A condition from a template that gives a boolean.
    pub fn new(template: Template) -> Self {
        Self(template)
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When it cannot be evaluated, or gives something other than a boolean.
    pub fn holds(&self, scope: &Scope<'_>) -> Result<bool, ExpressionError> {
        match self.0.evaluate(scope)? {
            Value::Bool(holds) => Ok(holds),
            other => {
                Err(ExpressionError { expression: String::new(), message: format!("gives {other}, not true or false") })
            }
        }
    }
}
