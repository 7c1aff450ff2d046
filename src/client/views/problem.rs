//! Errors as they go over HTTP.

use serde::{Deserialize, Serialize};

/// An RFC 9457 problem document with the members of the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ProblemDocument {
    /// A URI that names the kind of problem; says the same as `code`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One line for people, the same for every problem of this code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time, and how to mend it.
    pub detail: String,
    /// A stable, machine-readable word, for example `KEY_CONFLICT`.
    pub code: String,
    /// What is wrong where, when it is about places in the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldProblem>,
    /// What there is, when something was asked for that is not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The saga's state, when that is what forbids the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The saga that is in the way, when the key belongs to another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<String>,
    /// How many sagas there are, when an operator has to confirm their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Names this request in the server's log.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// What is wrong at one place of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct FieldProblem {
    /// A stable code, for example `DEF_STEP_DUPLICATE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// JSON pointer into the body; empty for the body as a whole.
    pub pointer: String,
    /// What is wrong there.
    pub detail: String,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// From 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// The offending text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl FieldProblem {
    /// What is wrong at `pointer`.
    pub fn at(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), ..Self::default() }
    }
}
