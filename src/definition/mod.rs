//! What a saga is: the model, how it is read from YAML or JSON, and how it is checked. Pure: no tokio, sqlx or lapin.

mod budget;
#[cfg(feature = "typed")]
pub mod build;
mod check;
mod checks;
mod codes;
mod diagnostic;
pub mod diff;
pub mod expansion;
mod expression;
mod fields;
mod graph;
mod input_schema;
pub mod model;
mod node;
mod relations;
mod render;
mod schema;
pub mod sensitive;
pub mod source;
mod steps;
pub mod template;

pub use budget::RetryBudget;
pub use codes::{CodePage, codes, explain};
pub use diagnostic::{Diagnostic, Severity};
pub use diff::{Change, Diff, Side, StepChange, StepDiff, diff};
pub use fields::parse_duration;
pub use graph::{Cycle, Graph};
pub use model::{
    COORDINATOR, Compensation, CompensationAction, Definition, Element, ForEach, Loop, OnTimeout, RetryPolicy, Stage,
    Step, Work,
};
pub use relations::relations;
pub use render::render;
pub use schema::json_schema;
pub use source::{Checked, check_key, compile, read, to_json};
pub use template::{Condition, ExpressionError, Scope, Template};
