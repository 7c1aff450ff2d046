//! A tree of YAML values that remembers where each one stands. JSON is YAML, so this reads both.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::Value;

use crate::definition::diagnostic::{Diagnostic, Place, is_deceptive};

const MAX_BYTES: usize = 1024 * 1024;
const MAX_DEPTH: usize = 64;
const MAX_NODES: usize = 20_000;
/// The largest whole number that every JSON reader keeps exactly.
pub(super) const MAX_EXACT: i64 = 1 << 53;

/// One value and its place in the text.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Data,
    pub place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One key of a mapping, with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Node {
    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Int(_) => "a whole number",
            Data::Float(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// The value of the key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Data::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The item at `at`, if this is a list that has it.
    pub fn item(&self, at: usize) -> Option<&Node> {
        match &self.value {
            Data::List(items) => items.get(at),
            _ => None,
        }
    }

    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self.value {
            Data::Int(value) => i32::try_from(value).ok().map(f64::from),
            Data::Float(value) => Some(value),
            _ => None,
        }
    }

    /// The same value without places.
    pub fn to_json(&self) -> Value {
        match &self.value {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::from(*value),
            Data::Int(value) => Value::from(*value),
            Data::Float(value) => Value::from(*value),
            Data::Text(text) => Value::from(text.as_str()),
            Data::List(items) => items.iter().map(Self::to_json).collect(),
            Data::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.node.to_json())).collect())
            }
        }
    }
}

/// What was read.
#[derive(Debug)]
pub(super) struct Parsed {
    pub root: Node,
    /// Keys that come twice in one mapping; the first one counts.
    pub duplicates: Vec<Diagnostic>,
}

/// Parses one YAML document.
///
/// # Errors
/// The first thing that keeps the text from being one plain YAML document of bearable size.
pub(super) fn parse(source: &str) -> Result<Parsed, Box<Diagnostic>> {
    let refuse =
        |code, place, message: String| Box::new(Diagnostic::error(code, source, place, String::new(), message));
    if source.len() > MAX_BYTES {
        let message = format!("the definition has {} bytes; at most {MAX_BYTES} are read", source.len());
        return Err(refuse("DEF_TOO_LARGE", Place::START, message));
    }
    if let Some(at) = source.find(is_deceptive) {
        let before = source.get(..at).unwrap_or_default();
        let line = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line..).unwrap_or_default().chars().count() + 1;
        let place = Place::new(at, at, before.matches('\n').count() + 1, column);
        let character = source.get(at..).and_then(|rest| rest.chars().next()).map_or(0, u32::from);
        let message = format!("the invisible character U+{character:04X} makes text read other than it is");
        return Err(refuse("DEF_CHARACTER", place, message));
    }
    let mut builder = Builder { source, open: Vec::new(), root: None, nodes: 0, duplicates: Vec::new() };
    let mut documents = 0;
    for event in Parser::new_from_str(source) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let start = marker.byte_offset().unwrap_or(source.len());
            let place = Place::new(start, start, marker.line(), marker.col() + 1);
            refuse("DEF_SYNTAX", place, format!("not valid YAML: {}", lower_first(&error.info())))
        })?;
        if let Event::DocumentStart(..) = event {
            documents += 1;
            if documents > 1 {
                let message = "a second YAML document begins here; a definition is one document".to_owned();
                return Err(refuse("DEF_SYNTAX", place_of(&span), message));
            }
        }
        builder.take(event, &span)?;
    }
    let Builder { root, duplicates, .. } = builder;
    let root =
        root.ok_or_else(|| refuse("DEF_EMPTY", Place::START, "there is no definition in this text".to_owned()))?;
    Ok(Parsed { root, duplicates })
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

fn place_of(span: &Span) -> Place {
    let bytes = span.byte_range().unwrap_or(0..0);
    Place::new(bytes.start, bytes.end, span.start.line(), span.start.col() + 1)
}

enum Open {
    List(Place, Vec<Node>),
    Map { place: Place, entries: Vec<Entry>, key: Option<(String, Place)>, seen: HashMap<String, u32> },
}

/// Builds the tree without recursion, so that no text can exhaust the stack.
struct Builder<'a> {
    source: &'a str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
    duplicates: Vec<Diagnostic>,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Box<Diagnostic>> {
        let place = place_of(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), place)?;
                if text.contains('\0') {
                    let message = "a text cannot hold a zero character: databases do not keep it".to_owned();
                    return Err(self.refuse("DEF_CHARACTER", place, message));
                }
                let value = match style {
                    ScalarStyle::Plain => self.plain(&text, place)?,
                    _ => Data::Text(text.into_owned()),
                };
                self.close(Node { value, place })
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), place)?;
                self.begin(Open::List(place, Vec::new()), place)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(anchor, tag.is_some(), place)?;
                self.begin(Open::Map { place, entries: Vec::new(), key: None, seen: HashMap::new() }, place)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(start, items)) => {
                    self.close(Node { value: Data::List(items), place: start.until(place) })
                }
                Some(Open::Map { place: start, entries, .. }) => {
                    self.close(Node { value: Data::Map(entries), place: start.until(place) })
                }
                None => Ok(()),
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Anchor(..) => self.refuse_extras(1, false, place),
            _ => Ok(()),
        }
    }

    fn refuse(&self, code: &'static str, place: Place, message: String) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(code, self.source, place, String::new(), message))
    }

    fn refuse_extras(&mut self, anchor: usize, tagged: bool, place: Place) -> Result<(), Box<Diagnostic>> {
        if anchor != 0 {
            return Err(self.refuse(
                "DEF_ALIAS",
                place,
                "anchors and aliases are not allowed; write it out".to_owned(),
            ));
        }
        if tagged {
            return Err(self.refuse("DEF_TAG", place, "YAML tags are not allowed".to_owned()));
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.refuse("DEF_TOO_LARGE", place, format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn begin(&mut self, open: Open, place: Place) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.refuse("DEF_TOO_DEEP", place, format!("nested more than {MAX_DEPTH} deep")));
        }
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return Err(self.refuse("DEF_KEY", place, "a key must be text".to_owned()));
        }
        self.open.push(open);
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn close(&mut self, node: Node) -> Result<(), Box<Diagnostic>> {
        let mut refusal = None;
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map { entries, key, seen, .. }) => match key.take() {
                Some((key, key_place)) => entries.push(Entry { key, key_place, node }),
                None => match key_text(&node, self.source) {
                    None => refusal = Some(("DEF_KEY", node.place, "a key must be text".to_owned())),
                    Some(text) => {
                        if let Some(line) = seen.get(&text) {
                            let message = format!("the key `{text}` is already on line {line}");
                            let mut found =
                                Diagnostic::error("DEF_KEY_DUPLICATE", self.source, node.place, String::new(), message);
                            found.suggestion = Some("keep one of them".to_owned());
                            self.duplicates.push(found);
                        } else {
                            seen.insert(text.clone(), node.place.line);
                        }
                        *key = Some((text, node.place));
                    }
                },
            },
        }
        refusal.map_or(Ok(()), |(code, place, message)| Err(self.refuse(code, place, message)))
    }

    /// A plain scalar by the core schema of YAML 1.2.
    fn plain(&self, text: &str, place: Place) -> Result<Data, Box<Diagnostic>> {
        Ok(match text {
            "" | "~" | "null" | "Null" | "NULL" => Data::Null,
            "true" | "True" | "TRUE" => Data::Bool(true),
            "false" | "False" | "FALSE" => Data::Bool(false),
            _ if looks_like_number(text) => match number(text) {
                Some(number) => number,
                None => {
                    let message = format!("the number `{text}` is too large to be kept exactly; write it in quotes");
                    return Err(self.refuse("DEF_NUMBER", place, message));
                }
            },
            _ => Data::Text(text.to_owned()),
        })
    }
}

/// Scalars that YAML reads as numbers or `true` are fine as keys: JSON has them as text.
fn key_text(node: &Node, source: &str) -> Option<String> {
    match &node.value {
        Data::Text(text) => Some(text.clone()),
        Data::List(_) | Data::Map(_) | Data::Null => None,
        _ => source.get(node.place.start..node.place.end).map(str::to_owned),
    }
}

fn looks_like_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |prefix: &str, radix| {
        text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(radix)))
    };
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") || radix("0x", 16) || radix("0o", 8) {
        return true;
    }
    let digit = |c: char| c.is_ascii_digit();
    unsigned.starts_with(|c: char| digit(c) || c == '.')
        && unsigned.contains(digit)
        && unsigned.chars().all(|c| digit(c) || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && unsigned.parse::<f64>().is_ok()
}

/// `None` when the number cannot be kept exactly in JSON.
fn number(text: &str) -> Option<Data> {
    let whole = if let Some(hex) = text.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()
    } else if let Some(octal) = text.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()
    } else if text.contains(['.', 'e', 'E']) {
        return text.parse::<f64>().ok().filter(|value| value.is_finite()).map(Data::Float);
    } else {
        text.parse::<i64>().ok()
    };
    whole.filter(|value| (-MAX_EXACT..=MAX_EXACT).contains(value)).map(Data::Int)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
        let yaml = "[1, -2, 0x1F, 0o17, 1.5, 1e3, true, no, ~, null, 1_000, 1.2.3, 12e, x-, '1', \"true\", 2024-01-01]";
        let node = parse(yaml).expect("parses").root;
        let expected = json!([
            1,
            -2,
            31,
            15,
            1.5,
            1000.0,
            true,
            "no",
            null,
            null,
            "1_000",
            "1.2.3",
            "12e",
            "x-",
            "1",
            "true",
            "2024-01-01"
        ]);
        assert_eq!(node.to_json(), expected);
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"a": [1, {"b\n": "\u00e9\/"}], "c": null}"#;
        let value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(parse(text).expect("parses").root.to_json(), value);
    }

    #[test]
    fn places_count_characters_and_spans_bytes() {
        let source = "é: { ü: [ö, x] }";
        let node = parse(source).expect("parses").root;
        let list = node.get("é").and_then(|node| node.get("ü")).expect("there");
        let Data::List(items) = &list.value else { panic!("a list") };
        let place = items[1].place;
        assert_eq!((place.line, place.column), (1, 13));
        assert_eq!(source.get(place.start..place.end), Some("x"));
    }

    #[test]
    fn too_much_is_refused() {
        let code = |text: &str| parse(text).expect_err("refused").code;
        assert_eq!(code(&format!("a: '{}'", "x".repeat(MAX_BYTES))), "DEF_TOO_LARGE");
        assert_eq!(code(&format!("[{}]", "1,".repeat(MAX_NODES))), "DEF_TOO_LARGE");
        assert_eq!(code(&"- ".repeat(100)), "DEF_TOO_DEEP");
        assert_eq!(code("a: .nan"), "DEF_NUMBER");
        assert_eq!(code("? [a]\n: b"), "DEF_KEY");
    }

    #[test]
    fn every_key_that_comes_twice_is_found() {
        let parsed = parse("a: 1\na: 2\nb: { c: 1, c: 2, c: 3 }").expect("parses");
        let places: Vec<_> = parsed.duplicates.iter().map(|found| (found.line, found.column)).collect();
        assert_eq!(places, [(2, 1), (3, 12), (3, 18)]);
    }

    #[test]
    fn characters_that_deceive_the_reader_are_refused_at_their_place() {
        let refused = parse("a: b\nc: d # \u{202e}").expect_err("refused");
        assert_eq!((refused.code, refused.line, refused.column), ("DEF_CHARACTER", 2, 8));
        assert!(refused.message.contains("U+202E"));
        assert_eq!(parse("a: \"\\0\"").expect_err("refused").code, "DEF_CHARACTER");
    }
}
