//! JSON that mostly passes through: kept as text between broker and database, parsed only when something looks inside.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value as text, parsed at most once. Cheap to clone.
#[derive(Clone)]
pub struct Payload(Arc<Inner>);

struct Inner {
    text: Box<str>,
    parsed: OnceLock<Value>,
}

impl Payload {
    /// Checks that `bytes` are one JSON value in UTF-8 and keeps their text.
    ///
    /// # Errors
    /// What `serde_json` says, with line and column.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: &RawValue = serde_json::from_slice(bytes)?;
        // Numbers out of range, half surrogates and deep nesting are only found by reading the value itself.
        let value: Value = serde_json::from_str(raw.get())?;
        Ok(Self(Arc::new(Inner { text: raw.get().into(), parsed: OnceLock::from(value) })))
    }

    /// Keeps text that is known to be JSON, for example because the database checked it.
    pub fn trusted(text: impl Into<Box<str>>) -> Self {
        Self(Arc::new(Inner { text: text.into(), parsed: OnceLock::new() }))
    }

    /// The text, as it came.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The value. Text that turns out not to be JSON reads as `null`; [`Payload::parse`] keeps such text out.
    pub fn value(&self) -> &Value {
        self.0.parsed.get_or_init(|| serde_json::from_str(&self.0.text).unwrap_or(Value::Null))
    }

    /// SHA-256 of the value in canonical form (object keys sorted, no white space): equal values, equal hashes.
    pub fn canonical_hash(&self) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let mut text = String::with_capacity(self.text().len());
        write_canonical(self.value(), &mut text);
        Sha256::digest(text).into()
    }
}

/// How a value differs at one place from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as a JSON pointer.
    pub pointer: String,
    /// What was there.
    pub before: Option<Value>,
    /// What is there now.
    pub after: Option<Value>,
}

impl Difference {
    /// `added`, `removed` or `changed`.
    pub fn kind(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        }
    }
}

/// Where `after` differs from `before`, the smallest parts that do, at most `most` of them.
pub fn differences(before: &Value, after: &Value, most: usize) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), most, &mut found);
    found
}

fn compare(pointer: String, before: Option<&Value>, after: Option<&Value>, most: usize, found: &mut Vec<Difference>) {
    if found.len() >= most || before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                compare(at, a.get(name), b.get(name), most, found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                compare(format!("{pointer}/{index}"), a.get(index), b.get(index), most, found);
            }
        }
        (before, after) => {
            found.push(Difference { pointer, before: before.cloned(), after: after.cloned() });
        }
    }
}

/// Prints with sorted keys, whatever order some crate in the tree makes serde_json's map keep.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (i, (key, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(item, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self(Arc::new(Inner { text: value.to_string().into(), parsed: OnceLock::from(value) }))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text() || self.value() == other.value()
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_only_looks_like_json_is_refused() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for text in [r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#, &deep, "", "{", "1 2"] {
            assert!(Payload::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn text_is_kept_as_it_came() {
        let payload = Payload::parse(b" {\"b\": 1.50, \"a\": [] } ").expect("JSON");
        assert_eq!(payload.text(), "{\"b\": 1.50, \"a\": [] }");
        assert_eq!(payload.value()["b"], 1.5);
    }

    #[test]
    fn differences_are_told_by_the_smallest_parts() {
        let before = serde_json::json!({ "a/b": 1, "same": [1, 2], "gone": true, "list": [{ "n": 1 }, 2] });
        let after = serde_json::json!({ "a/b": 2, "same": [1, 2], "list": [{ "n": 1.5 }], "new": null });
        let found = differences(&before, &after, 10);
        let told: Vec<_> = found.iter().map(|found| (found.pointer.as_str(), found.kind())).collect();
        let wanted = [
            ("/a~1b", "changed"),
            ("/gone", "removed"),
            ("/list/0/n", "changed"),
            ("/list/1", "removed"),
            ("/new", "added"),
        ];
        assert_eq!(told, wanted);
        assert_eq!(differences(&before, &before, 10), []);
        assert_eq!(differences(&before, &after, 2).len(), 2);
        assert_eq!(differences(&1.into(), &"1".into(), 10)[0].pointer, "");
    }
}
