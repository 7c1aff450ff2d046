//! Schemas that no value satisfies, and words in them that are no keywords.

use crate::definition::checks::Whole;
use crate::definition::fields::{Findings, child, nearest};
use crate::definition::input_schema::{DATA, NAMED};
use crate::definition::node::{Data, Node};
use crate::definition::sensitive::Sensitive;

/// What JSON Schema knows, as far as anybody writes it.
#[rustfmt::skip]
const KEYWORDS: [&str; 56] = [
    "type", "enum", "const", "properties", "required", "additionalProperties", "patternProperties", "propertyNames",
    "minProperties", "maxProperties", "items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems",
    "minContains", "maxContains", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "format", "allOf", "anyOf", "oneOf", "not", "if", "then", "else",
    "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems", "$ref",
    "$defs", "definitions", "$schema", "$id", "$anchor", "$comment", "title", "description", "default", "examples",
    "deprecated", "readOnly", "writeOnly", "contentEncoding", "contentMediaType", "sensitive",
];

const BOUNDS: [(&str, &str); 4] =
    [("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties")];

pub(super) fn check(findings: &mut Findings<'_>, whole: &Whole<'_>) {
    if let Some(schema) = whole.root.get("input").and_then(|input| input.get("schema")) {
        walk(findings, schema, "/input/schema");
    }
    if let Some(Node { value: Data::Text(text), place, .. }) = whole.root.get("key")
        && Sensitive::of(&whole.root.to_json()).is_read_by(text)
    {
        let message = "the key reads what is marked as sensitive, and a key is stored and told as it is";
        findings.warning("DEF_KEY_SENSITIVE", *place, "/key", message).suggestion =
            Some("make it of something that may be seen, for example an order's number".to_owned());
    }
    for (at, draft) in whole.drafts.iter().enumerate() {
        let output = whole.step_node(at).and_then(|node| node.get("output"));
        if let Some(schema) = output.and_then(|output| output.get("schema")) {
            walk(findings, schema, &format!("{}/output/schema", draft.pointer));
        }
    }
}

fn walk(findings: &mut Findings<'_>, schema: &Node, pointer: &str) {
    let entries = match &schema.value {
        Data::Map(entries) => entries,
        Data::List(items) => {
            for (at, item) in items.iter().enumerate() {
                walk(findings, item, &child(pointer, &at.to_string()));
            }
            return;
        }
        _ => return,
    };
    for (least, most) in BOUNDS {
        if let (Some(low), Some(high)) = (schema.get(least), schema.get(most))
            && let (Some(l), Some(h)) = (low.number(), high.number())
            && l > h
        {
            let message = format!("nothing satisfies this: `{least}` is {l} and `{most}` is {h}");
            findings.error("DEF_SCHEMA_CONTRADICTION", high.place, &child(pointer, most), message).suggestion =
                Some("exchange the two, or mend one of them".to_owned());
        }
    }
    required(findings, schema, pointer);
    for entry in entries {
        let here = child(pointer, &entry.key);
        match &entry.node.value {
            Data::Map(named) if NAMED.contains(&entry.key.as_str()) => {
                for named in named {
                    walk(findings, &named.node, &child(&here, &named.key));
                }
            }
            _ if DATA.contains(&entry.key.as_str()) => {}
            _ if KEYWORDS.contains(&entry.key.as_str()) => walk(findings, &entry.node, &here),
            _ => {
                // Only what was meant to be one of them: a schema may hold words of its own.
                if let Some(near) = nearest(&entry.key, &KEYWORDS) {
                    let message = format!("`{}` is no keyword of JSON Schema, so it checks nothing", entry.key);
                    findings.warning("DEF_SCHEMA_KEYWORD", entry.key_place, &here, message).suggestion =
                        Some(format!("did you mean `{near}`?"));
                }
            }
        }
    }
}

/// Names that are required and nowhere described: mostly one of the two is misspelt.
fn required(findings: &mut Findings<'_>, schema: &Node, pointer: &str) {
    let (Some(Data::List(names)), Some(Data::Map(properties))) =
        (schema.get("required").map(|node| &node.value), schema.get("properties").map(|node| &node.value))
    else {
        return;
    };
    let known: Vec<&str> = properties.iter().map(|entry| entry.key.as_str()).collect();
    let is_closed = matches!(schema.get("additionalProperties"), Some(Node { value: Data::Bool(false), .. }))
        && schema.get("patternProperties").is_none();
    for (at, node) in names.iter().enumerate() {
        let Data::Text(name) = &node.value else { continue };
        if known.contains(&name.as_str()) {
            continue;
        }
        let pointer = format!("{pointer}/required/{at}");
        let advice = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("describe `{name}` among the `properties`"),
        };
        let found = if is_closed {
            let message = format!("nothing satisfies this: `{name}` is required, and not allowed");
            findings.error("DEF_SCHEMA_CONTRADICTION", node.place, &pointer, message)
        } else {
            let message = format!("`{name}` is required, but the `properties` do not describe it");
            findings.warning("DEF_SCHEMA_REQUIRED", node.place, &pointer, message)
        };
        found.suggestion = Some(advice);
    }
}
