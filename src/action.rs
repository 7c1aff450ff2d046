//! Actions as types: one name for what a definition asks for and what a handler does.
//!
//! A service declares each of its actions once; its handler (`Participant::handles`) and every definition that is
//! written in Rust (`definition::build`) name the type, so that a name cannot be misspelt, and a handler whose input
//! or output differs does not compile.
//!

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something that a participant can be asked to do.
pub trait Action: 'static {
    /// The service that does it.
    const PARTICIPANT: &'static str;
    /// What it is called there; the routing key is `<participant>.<name>`.
    const NAME: &'static str;
    /// The command's body.
    type Input: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// The reply's body; `()` for an action that has nothing to say.
    type Output: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}
