//! What is not shown: members that a definition's schemas mark `sensitive: true`, and whatever repeats their values.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::definition::Definition;
use crate::definition::input_schema::{DATA, NAMED};
use crate::payload::Payload;

/// What stands in the place of a value that is hidden.
pub const HIDDEN: &str = "hidden: marked sensitive";
/// What stands in a text in the place of what is hidden.
pub const HIDDEN_IN_TEXT: &str = "[hidden]";
/// A value shorter than this is not looked for inside of texts: it would be found everywhere.
const SHORTEST: usize = 4;
/// A value shorter than this is hidden where its member is, and nowhere else.
const SHORTEST_WHOLE: usize = 3;
/// Values that are looked for in texts; where there are more, texts are hidden whole.
const MOST_VALUES: usize = 1_000;
/// References that may lead to one another; schemas with more are refused.
const DEEPEST: usize = 64;

/// What the schemas of a definition mark. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sensitive {
    names: Arc<BTreeSet<String>>,
    /// A whole payload is marked: then nothing of the saga's payloads is shown.
    everything: bool,
    of_outputs: bool,
}

impl Sensitive {
    /// What a definition, as JSON, marks in the schemas of its input and of its steps' outputs.
    pub fn of(definition: &Value) -> Self {
        let (mut names, mut everything) = (BTreeSet::new(), false);
        mark(&definition["input"]["schema"], &mut names, &mut everything);
        let of_input = names.len() + usize::from(everything);
        for step in definition["steps"].as_array().into_iter().flatten() {
            mark(&step["output"]["schema"], &mut names, &mut everything);
        }
        let of_outputs = names.len() + usize::from(everything) > of_input;
        Self { names: Arc::new(names), everything, of_outputs }
    }

    /// Whether nothing is marked, which is so of most definitions and costs nothing.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.everything
    }

    /// Whether what steps put out must be known to know what is hidden.
    pub fn is_of_outputs(&self) -> bool {
        self.of_outputs
    }

    /// Whether an expression of this text reads what is marked, as far as its words tell.
    pub fn is_read_by(&self, expression: &str) -> bool {
        let mut words = expression.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-' && c != '$');
        self.everything || words.any(|word| self.names.contains(word))
    }

    /// Whether a path into an input leads to something marked.
    pub fn hides_path(&self, path: &[String]) -> bool {
        self.everything || path.iter().any(|name| self.names.contains(name))
    }

    /// What either of the two marks.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            names: match self.names == other.names {
                true => self.names.clone(),
                false => Arc::new(self.names.union(&other.names).cloned().collect()),
            },
            everything: self.everything || other.everything,
            of_outputs: self.of_outputs || other.of_outputs,
        }
    }
}

/// What these definitions mark together; only those of this name, if one is given.
pub fn marks(definitions: &[Arc<Definition>], name: Option<&str>) -> Sensitive {
    let of = definitions.iter().filter(|definition| name.is_none_or(|name| definition.reference.name == name));
    of.fold(Sensitive::default(), |marks, definition| marks.and(&definition.sensitive))
}

fn mark(schema: &Value, names: &mut BTreeSet<String>, everything: &mut bool) {
    let mut marker = Marker { root: schema, names, everything };
    marker.walk(schema, None, 0);
}

struct Marker<'a> {
    root: &'a Value,
    names: &'a mut BTreeSet<String>,
    everything: &'a mut bool,
}

impl<'a> Marker<'a> {
    /// Goes through a schema of the member called `name`; a part of it that is marked hides that member.
    fn walk(&mut self, schema: &'a Value, name: Option<&'a str>, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        match schema {
            Value::Object(entries) => {
                // Anything but `false`: who writes `yes` means it.
                if entries.get("sensitive").is_some_and(|mark| *mark != Value::Bool(false)) {
                    match name {
                        Some(name) => {
                            self.names.insert(name.to_owned());
                        }
                        None => *self.everything = true,
                    }
                }
                for (key, part) in entries {
                    match (key.as_str(), part) {
                        ("$ref", Value::String(target)) => {
                            let target = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
                            target.into_iter().for_each(|target| self.walk(target, name, depth + 1));
                        }
                        ("properties", Value::Object(members)) => {
                            members.iter().for_each(|(name, part)| self.walk(part, Some(name), depth + 1));
                        }
                        // What is only defined counts where it is referred to.
                        ("$defs" | "definitions", _) => {}
                        (key, Value::Object(parts)) if NAMED.contains(&key) => {
                            parts.values().for_each(|part| self.walk(part, name, depth + 1));
                        }
                        (key, _) if DATA.contains(&key) => {}
                        _ => self.walk(part, name, depth + 1),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item, name, depth + 1)),
            _ => {}
        }
    }
}

/// What is hidden of one saga. Without anything marked, every method gives back what it was given.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    marks: Sensitive,
    /// The longest first, so that none is cut by a shorter one inside it.
    values: Vec<String>,
    /// Hidden where they are the whole of a value.
    whole: BTreeSet<String>,
}

impl Secrets {
    /// What is marked, with the values that `payloads` have there.
    pub fn of<'p>(marks: &Sensitive, payloads: impl IntoIterator<Item = &'p Payload>) -> Self {
        let mut secrets = Self { marks: marks.clone(), ..Self::default() };
        if !marks.is_empty() {
            for payload in payloads {
                secrets.collect(payload.value(), marks.everything);
            }
            let mut values: BTreeSet<String> =
                secrets.whole.iter().filter(|value| value.chars().count() >= SHORTEST).cloned().collect();
            // As they stand inside of JSON that a text quotes.
            let escaped = |value: &String| {
                let text = Value::from(value.as_str()).to_string();
                Some(text.get(1..text.len() - 1)?.to_owned())
            };
            let escaped: Vec<String> = values.iter().filter_map(escaped).collect();
            values.extend(escaped);
            secrets.values = values.into_iter().collect();
            secrets.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        }
        secrets
    }

    fn collect(&mut self, value: &Value, is_marked: bool) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let is_marked = is_marked || self.marks.names.contains(name);
                    self.collect(value, is_marked);
                }
            }
            Value::Array(items) => items.iter().for_each(|value| self.collect(value, is_marked)),
            Value::String(text) if is_marked && text.chars().count() >= SHORTEST_WHOLE => {
                self.whole.insert(text.clone());
            }
            Value::Number(number) if is_marked && number.to_string().len() >= SHORTEST_WHOLE => {
                self.whole.insert(number.to_string());
            }
            _ => {}
        }
    }

    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether a whole payload is.
    pub fn hides_everything(&self) -> bool {
        self.marks.everything
    }

    /// Whether a member of this name is hidden.
    pub fn hides_member(&self, name: &str) -> bool {
        self.marks.names.contains(name)
    }

    /// The text with everything that is hidden taken out.
    pub fn text(&self, text: &str) -> String {
        if self.values.len() > MOST_VALUES {
            return HIDDEN_IN_TEXT.to_owned();
        }
        if self.whole.contains(text) {
            return HIDDEN_IN_TEXT.to_owned();
        }
        let hide = |text: String, value: &String| {
            if text.contains(value.as_str()) { text.replace(value.as_str(), HIDDEN_IN_TEXT) } else { text }
        };
        self.values.iter().fold(text.to_owned(), hide)
    }

    /// The same in place.
    pub fn redact(&self, text: &mut String) {
        if !self.is_empty() {
            *text = self.text(text);
        }
    }

    /// The value with everything that is hidden taken out.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    let value = if self.hides_member(name) { HIDDEN.into() } else { self.value(value) };
                    (self.text(name), value)
                };
                Value::Object(members.iter().map(member).collect())
            }
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::String(text) => self.text(text).into(),
            Value::Number(number) if self.whole.contains(&number.to_string()) => HIDDEN.into(),
            other => other.clone(),
        }
    }

    /// A whole payload (an input, an output, a command's body) as it may be shown.
    pub fn shown(&self, value: &Value) -> Value {
        let mut shown = value.clone();
        self.payload(&mut shown);
        shown
    }

    /// A whole payload (an input, an output, a command's body) with everything that is hidden taken out.
    pub fn payload(&self, value: &mut Value) {
        if self.marks.everything {
            *value = HIDDEN.into();
        } else if !self.is_empty() {
            *value = self.value(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marks(input: Value, output: Value) -> Sensitive {
        Sensitive::of(&json!({ "input": { "schema": input }, "steps": [{ "output": { "schema": output } }] }))
    }

    fn card() -> Sensitive {
        marks(json!({ "properties": { "card": { "sensitive": true }, "order": { "type": "string" } } }), Value::Null)
    }

    #[test]
    fn what_is_marked_is_hidden_wherever_it_is_repeated() {
        let input = Payload::trusted(r#"{"card":"4242-4242","order":"o-1"}"#);
        let secrets = Secrets::of(&card(), [&input]);
        let shown = secrets.value(&json!({ "card": 1, "note": "paid with 4242-4242", "order": "o-1" }));
        assert_eq!(shown, json!({ "card": HIDDEN, "note": "paid with [hidden]", "order": "o-1" }));
        assert_eq!(secrets.text("declined: 4242-4242"), "declined: [hidden]");
    }

    #[test]
    fn a_value_inside_another_one_does_not_save_the_rest_of_it() {
        let input = Payload::trusted(r#"{"card":["4242","x4242y","a\"bcd"]}"#);
        let secrets = Secrets::of(&card(), [&input]);
        assert_eq!(secrets.text("x4242y and 4242"), "[hidden] and [hidden]");
        assert_eq!(secrets.text(r#"{"card":"a\"bcd"}"#), r#"{"card":"[hidden]"}"#);
    }

    #[test]
    fn short_values_are_hidden_where_they_are_whole() {
        let secrets = Secrets::of(&card(), [&Payload::trusted(r#"{"card":"123"}"#)]);
        let shown = secrets.value(&json!({ "code": "123", "number": 123, "note": "1234 and 123" }));
        assert_eq!(shown, json!({ "code": "[hidden]", "number": HIDDEN, "note": "1234 and 123" }));
    }

    #[test]
    fn marks_are_found_wherever_a_schema_can_have_them() {
        let names = |input: Value| {
            let marks = marks(input, Value::Null);
            (marks.names.iter().cloned().collect::<Vec<_>>().join(","), marks.everything)
        };
        let secret = json!({ "sensitive": true });
        for (schema, expected) in [
            (json!({ "properties": { "a": { "items": secret } } }), "a"),
            (json!({ "properties": { "a": { "properties": { "b": secret } } } }), "b"),
            (json!({ "properties": { "a": { "$ref": "#/$defs/s" } }, "$defs": { "s": secret } }), "a"),
            (json!({ "allOf": [{ "properties": { "a": { "anyOf": [{ "type": "null" }, secret] } } }] }), "a"),
            (json!({ "properties": { "a": { "additionalProperties": secret } } }), "a"),
            (json!({ "properties": { "a": { "sensitive": "yes" }, "b": { "sensitive": false } } }), "a"),
            (json!({ "properties": { "sensitive": { "type": "boolean" } } }), ""),
            (json!({ "properties": { "a": { "const": { "sensitive": true } } } }), ""),
            (json!({ "$defs": { "s": { "properties": { "a": secret } } } }), ""),
        ] {
            assert_eq!(names(schema.clone()), (expected.to_owned(), false), "{schema}");
        }
        assert_eq!(names(secret), (String::new(), true));
    }

    #[test]
    fn a_payload_that_is_marked_as_a_whole_is_hidden_as_one() {
        let marks = marks(Value::Null, json!({ "type": "string", "sensitive": true }));
        assert!(marks.is_of_outputs() && !card().is_of_outputs());
        let secrets = Secrets::of(&marks, [&Payload::trusted(r#""token-1""#)]);
        let mut output = json!("token-1");
        secrets.payload(&mut output);
        assert_eq!((output, secrets.text("got token-1")), (json!(HIDDEN), "got [hidden]".to_owned()));
    }

    #[test]
    fn an_expression_that_reads_what_is_marked_is_known() {
        assert!(card().is_read_by("input.card") && card().is_read_by("input['card'] + 'x'"));
        assert!(!card().is_read_by("input.order") && !card().is_read_by("input.cardinal"));
    }
}
