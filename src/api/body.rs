//! Bodies off the wire, and objects out of them.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use futures_util::StreamExt;
use serde_json::{Map, Value};

use crate::api::json;
use crate::api::problem::{
    BODY_INCOMPLETE, BODY_TOO_LARGE, CONTENT_TYPE_UNSUPPORTED, FIELD_INVALID, FIELD_MISSING, FIELD_UNKNOWN, Kind,
    Problem, nearest,
};
use crate::client::views::FieldProblem;

/// Bytes of a body, at most.
pub(super) const MAX_BODY: usize = 2 * 1024 * 1024;

/// A JSON body, read strictly.
pub(super) struct Json(pub(super) Value);

/// A definition's text.
pub(super) struct DefinitionText(pub(super) String);

impl<S: Send + Sync> FromRequest<S> for Json {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let is_json =
            |kind: &str| kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"));
        accept(request.headers(), is_json, "application/json")?;
        json::parse(&read(request).await?).map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for DefinitionText {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        const KINDS: [&str; 6] =
            ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/json", "text/plain"];
        accept(request.headers(), |kind| KINDS.contains(&kind), "application/yaml or application/json")?;
        Ok(Self(json::text(&read(request).await?)?.to_owned()))
    }
}

fn accept(headers: &HeaderMap, is_accepted: impl Fn(&str) -> bool, wanted: &str) -> Result<(), Problem> {
    let refused = |what: String| Problem::new(CONTENT_TYPE_UNSUPPORTED, format!("{what}; send {wanted} in UTF-8"));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(refused("compressed bodies are not read".to_owned()));
    }
    let Some(given) = headers.get(CONTENT_TYPE) else { return Err(refused("there is no Content-Type".to_owned())) };
    let given = given.to_str().unwrap_or_default();
    let mut parts = given.split(';').map(|part| part.trim().to_ascii_lowercase());
    let kind = parts.next().unwrap_or_default();
    let is_utf8 = parts.all(|part| {
        part.strip_prefix("charset=").is_none_or(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8"))
    });
    if !is_accepted(&kind) || !is_utf8 {
        return Err(refused(format!("`{given}` is not read here")));
    }
    Ok(())
}

async fn read(request: Request) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body may have {MAX_BODY} bytes, no more; use several requests");
        Problem::new(BODY_TOO_LARGE, detail)
    };
    let told = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|length| length > MAX_BODY) {
        return Err(too_large());
    }
    let mut body = Vec::with_capacity(told.unwrap_or_default());
    let mut chunks = request.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Problem::new(BODY_INCOMPLETE, format!("the body broke off: {error}")))?;
        if body.len() + chunk.len() > MAX_BODY {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// An object of the body whose fields are taken one by one; collects everything that is wrong with it.
pub(super) struct Fields {
    pointer: String,
    map: Map<String, Value>,
    errors: Vec<(Kind, FieldProblem)>,
}

impl Fields {
    /// The object at `pointer`, which may have the fields of `known` and no others.
    pub(super) fn new(value: Value, pointer: &str, known: &[&str]) -> Result<Self, Problem> {
        let Value::Object(map) = value else {
            let errors = vec![FieldProblem::at(pointer, "must be an object")];
            return Err(Problem::new(FIELD_INVALID, "an object is wanted here").errors(errors));
        };
        let mut fields = Self { pointer: pointer.to_owned(), map, errors: Vec::new() };
        let unknown: Vec<String> = fields.map.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            let suggestion = nearest(&key, known.iter().copied()).map(|word| format!("did you mean `{word}`?"));
            let told = format!("`{key}` is not known here; known are {}", known.join(", "));
            fields.push(FIELD_UNKNOWN, &key, told, suggestion);
        }
        Ok(fields)
    }

    fn push(&mut self, kind: Kind, name: &str, detail: impl Into<String>, suggestion: Option<String>) {
        let name = name.replace('~', "~0").replace('/', "~1");
        let place = FieldProblem {
            code: Some(kind.code.to_owned()),
            suggestion,
            ..FieldProblem::at(format!("{}/{name}", self.pointer), detail)
        };
        self.errors.push((kind, place));
    }

    /// Takes a field that must be there.
    pub(super) fn required(&mut self, name: &str) -> Value {
        self.map.remove(name).unwrap_or_else(|| {
            self.push(FIELD_MISSING, name, format!("`{name}` is missing"), None);
            Value::Null
        })
    }

    /// Takes whatever may be there; absent is as good as `null`.
    pub(super) fn optional(&mut self, name: &str) -> Value {
        self.map.remove(name).unwrap_or_default()
    }

    /// Takes a text that must be there.
    pub(super) fn required_text(&mut self, name: &str) -> String {
        if !self.map.contains_key(name) {
            self.push(FIELD_MISSING, name, format!("`{name}` is missing"), None);
        }
        self.text(name).unwrap_or_default()
    }

    /// Takes a text that may be there; `null` is as good as absent.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other) => {
                self.push(FIELD_INVALID, name, format!("must be a string, not {}", kind_of(&other)), None);
                None
            }
        }
    }

    /// Takes a number from 1 that may be there.
    pub(super) fn ordinal(&mut self, name: &str) -> Option<u32> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
                if number.is_none() {
                    self.push(FIELD_INVALID, name, format!("must be a whole number from 1 to {}", u32::MAX), None);
                }
                number
            }
        }
    }

    /// Refuses the object if anything was wrong with it.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some((kind, first)) = self.errors.first() else { return Ok(()) };
        let detail = match &first.suggestion {
            Some(suggestion) => format!("{}; {suggestion}", first.detail),
            None => first.detail.clone(),
        };
        let problem = Problem::new(*kind, detail);
        Err(problem.errors(self.errors.into_iter().map(|(_, place)| place).collect()))
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
