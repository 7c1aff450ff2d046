//! What pages do not show: fields that a definition's schemas mark `sensitive: true`, and whatever repeats their values.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::definition::source::to_json;
use crate::payload::Payload;

/// A value shorter than this is hidden where its field is, but not looked for elsewhere: it would be found everywhere.
const SHORTEST: usize = 4;
/// What stands in the place of what is hidden.
pub(super) const HIDDEN: &str = "hidden: marked sensitive";

/// What is hidden in the pages of one saga.
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets {
    names: BTreeSet<String>,
    /// As they stand in JSON, without quotation marks.
    values: BTreeSet<String>,
}

impl Secrets {
    /// What the definition of this text marks, with the values that `payloads` have there.
    pub(super) fn of<'p>(source: &str, payloads: impl IntoIterator<Item = &'p Payload>) -> Self {
        let mut secrets = Self::default();
        if let Some(definition) = to_json(source) {
            secrets.mark(&definition);
        }
        if !secrets.names.is_empty() {
            for payload in payloads {
                secrets.collect(payload.value(), false);
            }
        }
        secrets
    }

    /// Finds schemas of members that are marked, wherever schemas are.
    fn mark(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::Object(properties)) = members.get("properties") {
                    for (name, schema) in properties {
                        if schema.get("sensitive") == Some(&Value::Bool(true)) {
                            self.names.insert(name.clone());
                        }
                    }
                }
                members.values().for_each(|value| self.mark(value));
            }
            Value::Array(items) => items.iter().for_each(|value| self.mark(value)),
            _ => {}
        }
    }

    fn collect(&mut self, value: &Value, is_marked: bool) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let is_marked = is_marked || self.names.contains(name);
                    self.collect(value, is_marked);
                }
            }
            Value::Array(items) => items.iter().for_each(|value| self.collect(value, is_marked)),
            Value::String(text) if is_marked && text.len() >= SHORTEST => {
                self.values.insert(text.clone());
            }
            Value::Number(number) if is_marked && number.to_string().len() >= SHORTEST => {
                self.values.insert(number.to_string());
            }
            _ => {}
        }
    }

    /// Whether nothing is hidden.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a member of this name is hidden.
    pub(super) fn hides_member(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The text with everything that is hidden taken out.
    pub(super) fn text(&self, text: &str) -> String {
        let hide = |text: String, value: &String| {
            if text.contains(value.as_str()) { text.replace(value.as_str(), "[hidden]") } else { text }
        };
        self.values.iter().rev().fold(text.to_owned(), hide)
    }

    /// The value with everything that is hidden taken out.
    pub(super) fn value(&self, value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| {
                    let value = if self.hides_member(name) { HIDDEN.into() } else { self.value(value) };
                    (name.clone(), value)
                };
                Value::Object(members.iter().map(member).collect())
            }
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::String(text) => self.text(text).into(),
            Value::Number(number) if self.values.contains(&number.to_string()) => HIDDEN.into(),
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "saga: x\nversion: 1\ninput:\n  schema:\n    type: object\n    properties:\n      card: { type: string, sensitive: true }\n      order: { type: string }\nsteps: []\n";

    #[test]
    fn what_is_marked_is_hidden_wherever_it_is_repeated() {
        let input = Payload::trusted(r#"{"card":"4242-4242","order":"o-1"}"#);
        let secrets = Secrets::of(SOURCE, [&input]);
        let shown = secrets.value(&serde_json::json!({ "card": 1, "note": "paid with 4242-4242", "order": "o-1" }));
        assert_eq!(shown, serde_json::json!({ "card": HIDDEN, "note": "paid with [hidden]", "order": "o-1" }));
        assert_eq!(secrets.text("declined: 4242-4242"), "declined: [hidden]");
    }
}
