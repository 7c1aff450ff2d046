//! The JSON Schemas of a saga's input and of steps' outputs: bounded, then compiled.

use std::collections::HashMap;
use std::sync::Arc;

use crate::definition::diagnostic::Place;
use crate::definition::fields::Findings;
use crate::definition::node::{Data, Node};

/// How many parts a schema may have with every reference written out. Without a bound, thirty definitions that refer
/// to the next one twice keep a validator busy for minutes.
const MAX_PARTS: usize = 20_000;
/// How many references may lead to one another.
const MAX_CHAIN: usize = 16;

/// Keywords whose value maps names to schemas, so that the names are no keywords.
pub(super) const NAMED: [&str; 6] =
    ["properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"];
/// Keywords whose value is data, not a schema.
pub(super) const DATA: [&str; 4] = ["const", "enum", "default", "examples"];

/// Compiles the schema under `node`, the definition's `input` or a step's `output`.
pub(super) fn read(findings: &mut Findings<'_>, node: &Node, pointer: &str) -> Option<Arc<jsonschema::Validator>> {
    if !findings.mapping(node, pointer, &["schema"]) {
        return None;
    }
    let schema = findings.required(node, pointer, "schema", "schema: { type: object }")?;
    let pointer = format!("{pointer}/schema");
    if !matches!(schema.value, Data::Map(_) | Data::Bool(_)) {
        findings.error("DEF_SCHEMA", schema.place, &pointer, "a JSON Schema is a mapping");
        return None;
    }
    let mut written_out = WrittenOut { schema, sizes: HashMap::new(), chain: 0 };
    if let Err((place, message)) = written_out.size(schema) {
        findings.error("DEF_SCHEMA", place, &pointer, message);
        return None;
    }
    // Patterns run in linear time, so that no input can hold a thread for long.
    let options = jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex());
    match options.build(&schema.to_json()) {
        Ok(validator) => Some(Arc::new(validator)),
        Err(error) => {
            let path = error.instance_path().as_str().to_owned();
            let place = at_pointer(schema, &path).unwrap_or(schema).place;
            let message = format!("not a valid JSON Schema: {error}");
            findings.error("DEF_SCHEMA", place, &format!("{pointer}{path}"), message);
            None
        }
    }
}

fn at_pointer<'n>(schema: &'n Node, pointer: &str) -> Option<&'n Node> {
    pointer.split('/').skip(1).try_fold(schema, |at, segment| match &at.value {
        Data::List(items) => segment.parse().ok().and_then(|index: usize| items.get(index)),
        _ => at.get(&segment.replace("~1", "/").replace("~0", "~")),
    })
}

/// Measures a schema as if every reference were replaced by what it refers to.
struct WrittenOut<'n> {
    schema: &'n Node,
    /// By reference; `None` while it is being measured.
    sizes: HashMap<&'n str, Option<usize>>,
    chain: usize,
}

type Refusal = (Place, String);

impl<'n> WrittenOut<'n> {
    fn size(&mut self, node: &'n Node) -> Result<usize, Refusal> {
        let mut size = 1_usize;
        match &node.value {
            Data::List(items) => {
                for item in items {
                    size = size.saturating_add(self.size(item)?);
                }
            }
            Data::Map(entries) => {
                for entry in entries {
                    let part = match (entry.key.as_str(), &entry.node.value) {
                        ("$ref", Data::Text(target)) => self.referred(target, entry.node.place)?,
                        ("$dynamicRef" | "$recursiveRef", Data::Text(_)) => {
                            return Err((entry.key_place, format!("`{}` is not supported; use `$ref`", entry.key)));
                        }
                        ("$id", Data::Text(_)) if !std::ptr::eq(node, self.schema) => {
                            return Err((entry.key_place, "`$id` may only stand at the top of a schema".to_owned()));
                        }
                        (key, Data::Map(named)) if NAMED.contains(&key) => {
                            let mut all = 0_usize;
                            for named in named {
                                all = all.saturating_add(self.size(&named.node)?);
                            }
                            // What is only defined costs nothing until it is referred to.
                            if key == "$defs" || key == "definitions" { 1 } else { all }
                        }
                        (key, _) if DATA.contains(&key) => 1,
                        _ => self.size(&entry.node)?,
                    };
                    size = size.saturating_add(part);
                }
            }
            _ => {}
        }
        if size > MAX_PARTS {
            let message = format!("with its references written out, the schema has more than {MAX_PARTS} parts");
            return Err((node.place, message));
        }
        Ok(size)
    }

    fn referred(&mut self, target: &'n str, place: Place) -> Result<usize, Refusal> {
        match self.sizes.get(target) {
            Some(Some(size)) => return Ok(*size),
            Some(None) => {
                return Err((place, format!("`{target}` refers to itself; write the levels out that are needed")));
            }
            None => {}
        }
        let pointer = target.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(pointer) = pointer else {
            let message = "a `$ref` refers to a part of this schema, such as `#/$defs/address`; nothing is fetched";
            return Err((place, message.to_owned()));
        };
        let Some(node) = at_pointer(self.schema, pointer) else {
            return Err((place, format!("there is no `{target}` in this schema")));
        };
        if self.chain == MAX_CHAIN {
            return Err((place, format!("more than {MAX_CHAIN} references lead to one another")));
        }
        self.sizes.insert(target, None);
        self.chain += 1;
        let size = self.size(node)?;
        self.chain -= 1;
        self.sizes.insert(target, Some(size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::definition::{Checked, read};

    fn with_schema(schema: &Value) -> Checked {
        let steps = json!([{"name": "a", "participant": "p", "action": "x", "compensation": "none"}]);
        read(&json!({"saga": "s", "version": 1, "input": {"schema": schema}, "steps": steps}).to_string())
    }

    fn refusal(schema: &Value) -> String {
        let checked = with_schema(schema);
        assert!(checked.definition.is_none(), "{schema}");
        checked.diagnostics.into_iter().map(|found| found.message).collect()
    }

    #[test]
    fn references_that_multiply_are_refused() {
        let mut defs: serde_json::Map<String, Value> = (0..15)
            .map(|at| {
                let next = json!({"$ref": format!("#/$defs/a{}", at + 1)});
                (format!("a{at}"), json!({"allOf": [next, next]}))
            })
            .collect();
        defs.insert("a15".to_owned(), json!({"type": "object"}));
        assert!(refusal(&json!({"$ref": "#/$defs/a0", "$defs": defs})).contains("more than 20000 parts"));
    }

    #[test]
    fn references_in_a_circle_are_refused() {
        assert!(refusal(&json!({"$ref": "#"})).contains("refers to itself"));
        assert!(refusal(&json!({"properties": {"child": {"$ref": "#"}}})).contains("refers to itself"));
        let defs = json!({"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}});
        assert!(refusal(&json!({"$defs": defs})).contains("refers to itself"));
    }

    #[test]
    fn long_chains_of_references_are_refused() {
        let defs: serde_json::Map<String, Value> = (0..3_000)
            .map(|at| (format!("a{at}"), json!({"$ref": format!("#/$defs/a{}", (at + 1).min(2_999))})))
            .collect();
        assert!(refusal(&json!({"$ref": "#/$defs/a0", "$defs": defs})).contains("lead to one another"));
    }

    #[test]
    fn nothing_is_fetched() {
        for remote in ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "other.json", "#anchor"] {
            assert!(refusal(&json!({"$ref": remote})).contains("nothing is fetched"), "{remote}");
        }
    }

    #[test]
    fn parts_may_be_shared_and_named_like_keywords() {
        let schema = json!({
            "properties": {"home": {"$ref": "#/$defs/address"}, "work": {"$ref": "#/$defs/address"}, "enum": {"type": "string"}, "$ref": {"type": "string"}},
            "default": {"$ref": "text"},
            "$defs": {"address": {"type": "object", "required": ["street"]}}
        });
        let definition = with_schema(&schema).definition.expect("sound");
        assert!(definition.check_input(&json!({"home": {"street": "x"}}).into()).is_empty());
        let errors = definition.check_input(&json!({"home": {}, "enum": 1}).into());
        let mut pointers: Vec<&str> = errors.iter().map(|(pointer, _)| pointer.as_str()).collect();
        pointers.sort_unstable();
        assert_eq!(pointers, ["/enum", "/home"]);
    }
}
