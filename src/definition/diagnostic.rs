//! What is wrong with a definition, and where.

use serde::Serialize;

/// One finding about a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// A stable code, for example `DEF_STEP_DUPLICATE`.
    pub code: &'static str,
    /// Whether it forbids registration.
    pub severity: Severity,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// How to mend it.
    pub suggestion: Option<String>,
    /// JSON pointer into the definition, for example `/steps/2/after/0`.
    pub pointer: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Byte offset into the source and length in bytes.
    pub span: (usize, usize),
    /// The offending text.
    pub text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The definition cannot be registered.
    Error,
    /// It can, but probably should not.
    Warning,
}
