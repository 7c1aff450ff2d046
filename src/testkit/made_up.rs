//! Values made up where nobody gives any: an input that fits its schema, outputs that hold what expressions read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::definition::{Definition, Scope, Template};
use crate::id::StepIndex;

/// How deep a schema is followed.
const MAX_DEPTH: usize = 12;

/// How much of what a schema allows is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only what is required.
    Required,
    /// Every property that is named.
    Everything,
}

/// An input for the definition whose document this is.
pub fn input(definition: &Definition, document: &Value, extent: Extent) -> Value {
    match document.pointer("/input/schema") {
        Some(schema) => Maker { root: schema, extent }.value(schema, "", 0),
        None => {
            let reads = Reads::of(definition);
            reads.fill(definition, &json!({}), &BTreeMap::new()).0
        }
    }
}

/// Outputs for the steps that do not have one in `given`.
pub fn outputs(definition: &Definition, input: &Value, given: &Map<String, Value>) -> BTreeMap<StepIndex, Value> {
    let given = given
        .iter()
        .flat_map(|(name, output)| steps_called(definition, name).into_iter().map(|step| (step, output.clone())));
    let given: BTreeMap<StepIndex, Value> = given.collect();
    Reads::of(definition).fill(definition, input, &given).1
}

/// The step of this name; of a `forEach` step its elements.
fn steps_called(definition: &Definition, name: &str) -> Vec<StepIndex> {
    let elements = definition.loops.iter().filter(|each| each.name == name).flat_map(|each| each.elements.clone());
    definition.find(name).into_iter().chain(elements).collect()
}

struct Maker<'s> {
    root: &'s Value,
    extent: Extent,
}

impl Maker<'_> {
    fn value(&self, schema: &Value, name: &str, depth: usize) -> Value {
        if depth > MAX_DEPTH {
            return Value::Null;
        }
        if let Some(target) = schema["$ref"].as_str() {
            let target = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return target.map_or(Value::Null, |target| self.value(target, name, depth + 1));
        }
        for key in ["const", "default"] {
            if let Some(value) = schema.get(key) {
                return value.clone();
            }
        }
        for key in ["enum", "examples"] {
            if let Some(first) = schema[key].as_array().and_then(|values| values.first()) {
                return first.clone();
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let mut whole = schema.clone();
            if let Some(whole) = whole.as_object_mut() {
                whole.remove("allOf");
            }
            for part in parts {
                merge(&mut whole, part);
            }
            return self.value(&whole, name, depth + 1);
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(first) = schema[key].as_array().and_then(|choices| choices.first()) {
                let mut whole = schema.clone();
                if let Some(whole) = whole.as_object_mut() {
                    whole.remove(key);
                }
                merge(&mut whole, first);
                return self.value(&whole, name, depth + 1);
            }
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"].as_array()?.first()?.as_str());
        match kind {
            Some("string") => Value::from(text(schema, name)),
            Some("integer") => whole_number(schema),
            Some("number") => number(schema),
            Some("boolean") => Value::from(true),
            Some("null") => Value::Null,
            Some("array") => self.list(schema, name, depth),
            Some("object") => self.object(schema, depth),
            _ if schema.get("properties").is_some() || schema.get("required").is_some() => self.object(schema, depth),
            _ if schema.get("items").is_some() => self.list(schema, name, depth),
            _ if schema.get("minimum").is_some() || schema.get("maximum").is_some() => number(schema),
            _ => Value::from(text(schema, name)),
        }
    }

    fn object(&self, schema: &Value, depth: usize) -> Value {
        let required: BTreeSet<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object();
        let mut made = Map::new();
        for name in &required {
            let free = Value::Bool(true);
            let property = properties.and_then(|properties| properties.get(*name)).unwrap_or(&free);
            made.insert((*name).to_owned(), self.value(property, name, depth + 1));
        }
        if self.extent == Extent::Everything {
            for (name, property) in properties.into_iter().flatten() {
                if !made.contains_key(name) {
                    made.insert(name.clone(), self.value(property, name, depth + 1));
                }
            }
        }
        Value::Object(made)
    }

    fn list(&self, schema: &Value, name: &str, depth: usize) -> Value {
        let least = usize::try_from(schema["minItems"].as_u64().unwrap_or_default()).unwrap_or_default();
        let most = schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let wanted = if self.extent == Extent::Everything { least.max(2) } else { least.max(1) };
        let free = Value::Bool(true);
        let items = schema.get("items").unwrap_or(&free);
        let is_unique = schema["uniqueItems"] == true;
        let made = (0..wanted.min(most).min(100)).map(|at| {
            let item = self.value(items, name, depth + 1);
            match (is_unique, item) {
                (true, Value::String(text)) => Value::from(format!("{text}-{at}")),
                (true, Value::Number(number)) => {
                    json!(number.as_i64().unwrap_or_default() + i64::try_from(at).unwrap_or_default())
                }
                (_, item) => item,
            }
        });
        Value::Array(made.collect())
    }
}

fn merge(whole: &mut Value, part: &Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                merge(whole.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(part)) => whole.extend(part.iter().cloned()),
        (whole @ Value::Null, part) => *whole = part.clone(),
        _ => {}
    }
}

fn text(schema: &Value, name: &str) -> String {
    let made = match schema["format"].as_str() {
        Some("date-time") => "2026-01-01T00:00:00Z",
        Some("date") => "2026-01-01",
        Some("time") => "00:00:00Z",
        Some("duration") => "PT1H",
        Some("email" | "idn-email") => "made-up@example.org",
        Some("uuid") => "01890000-0000-7000-8000-000000000001",
        Some("uri" | "uri-reference" | "iri") => "https://example.org/made-up",
        Some("hostname") => "example.org",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        _ => "",
    };
    let mut made = match made {
        "" if name.is_empty() => "made-up".to_owned(),
        "" => format!("made-up-{name}"),
        made => made.to_owned(),
    };
    let length = |key: &str| schema[key].as_u64().and_then(|length| usize::try_from(length).ok());
    if let Some(least) = length("minLength").filter(|least| *least <= 10_000) {
        while made.chars().count() < least {
            made.push('x');
        }
    }
    if let Some(most) = length("maxLength") {
        made = made.chars().take(most).collect();
    }
    made
}

fn whole_number(schema: &Value) -> Value {
    let step = schema["multipleOf"].as_i64().unwrap_or(1).max(1);
    let above = |key: &str| schema[key].as_f64().map(|bound| bound as i64);
    let least = above("minimum").or_else(|| above("exclusiveMinimum").map(|bound| bound.saturating_add(1)));
    let most = above("maximum").or_else(|| above("exclusiveMaximum").map(|bound| bound.saturating_sub(1)));
    let wanted = least.unwrap_or_else(|| most.map_or(1, |most| most.min(1)));
    Value::from(wanted.div_euclid(step).saturating_mul(step) + if wanted.rem_euclid(step) == 0 { 0 } else { step })
}

fn number(schema: &Value) -> Value {
    let bound = |key: &str| schema[key].as_f64();
    let least = bound("minimum").or_else(|| bound("exclusiveMinimum").map(|bound| bound + 0.5));
    let most = bound("maximum").or_else(|| bound("exclusiveMaximum").map(|bound| bound - 0.5));
    json!(least.unwrap_or_else(|| most.map_or(1.0, |most| most.min(1.0))))
}

/// What expressions read: of the input, and of each step's output, as paths of member names.
#[derive(Debug, Default)]
struct Reads {
    input: BTreeSet<Vec<String>>,
    steps: BTreeMap<StepIndex, BTreeSet<Vec<String>>>,
}

/// What a value that is read may be. Which one is found out by evaluating.
const CANDIDATES: [fn(&str) -> Value; 5] =
    [|name| Value::from(format!("made-up-{name}")), |_| json!(1), |_| json!(true), |_| json!([]), |_| json!({})];

impl Reads {
    fn of(definition: &Definition) -> Self {
        let mut reads = Self::default();
        for text in templates(definition).into_iter().flat_map(Template::texts) {
            for (root, path) in paths(text) {
                match root {
                    Root::Input => drop(reads.input.insert(path)),
                    Root::Step(name) => {
                        for step in steps_called(definition, &name) {
                            reads.steps.entry(step).or_default().insert(path.clone());
                        }
                    }
                }
            }
        }
        reads
    }

    /// Fills an input that is an empty object, and the outputs that are not given, so that every expression can be
    /// evaluated as far as that is to be had by trying.
    fn fill(
        &self,
        definition: &Definition,
        given_input: &Value,
        given: &BTreeMap<StepIndex, Value>,
    ) -> (Value, BTreeMap<StepIndex, Value>) {
        let is_input_open = given_input.as_object().is_some_and(Map::is_empty);
        let mut places: Vec<(Option<StepIndex>, &[String])> = Vec::new();
        if is_input_open {
            places.extend(self.input.iter().map(|path| (None, path.as_slice())));
        }
        for (step, paths) in &self.steps {
            if !given.contains_key(step) {
                places.extend(paths.iter().map(|path| (Some(*step), path.as_slice())));
            }
        }
        let build = |choice: &[usize]| {
            let mut input = given_input.clone();
            let mut outputs: BTreeMap<StepIndex, Value> = definition
                .indices()
                .map(|step| (step, given.get(&step).cloned().unwrap_or_else(|| json!({}))))
                .collect();
            for ((step, path), &chosen) in places.iter().zip(choice) {
                let name = path.last().map_or("value", String::as_str);
                let value = CANDIDATES.get(chosen).map_or(Value::Null, |make| make(name));
                let root = match step {
                    None => &mut input,
                    Some(step) => outputs.entry(*step).or_default(),
                };
                put(root, path, value);
            }
            (input, outputs)
        };
        // One place after the other: keep what lets the most expressions be evaluated.
        let descend = |mut choice: Vec<usize>| {
            let mut best = failures(definition, &build(&choice));
            for _ in 0..3 {
                for at in 0..places.len() {
                    for chosen in 0..CANDIDATES.len() {
                        if best == 0 {
                            return (best, choice);
                        }
                        let mut other = choice.clone();
                        if let Some(place) = other.get_mut(at) {
                            *place = chosen;
                        }
                        let found = failures(definition, &build(&other));
                        if found < best {
                            (best, choice) = (found, other);
                        }
                    }
                }
            }
            (best, choice)
        };
        let (mut best, mut choice) = descend(vec![0; places.len()]);
        // Sums of several places only work once all of them are numbers.
        for chosen in 1..3 {
            if best == 0 {
                break;
            }
            let (found, other) = descend(vec![chosen; places.len()]);
            if found < best {
                (best, choice) = (found, other);
            }
        }
        // What became a number only because all did is a text again.
        for at in 0..places.len() {
            let mut other = choice.clone();
            if let Some(place) = other.get_mut(at) {
                *place = 0;
            }
            if failures(definition, &build(&other)) <= best {
                choice = other;
            }
        }
        build(&choice)
    }
}

/// How many expressions cannot be evaluated: with every output there, and without those of the steps that are skipped.
fn failures(definition: &Definition, (input, outputs): &(Value, BTreeMap<StepIndex, Value>)) -> usize {
    let all: Vec<(&str, &Value)> =
        outputs.iter().map(|(step, output)| (definition.step(*step).name.as_str(), output)).collect();
    let lists: Vec<(&str, Value)> = definition
        .loops
        .iter()
        .map(|each| {
            let of = |step: &StepIndex| outputs.get(step).cloned().unwrap_or_default();
            (each.name.as_str(), each.elements.iter().map(of).collect())
        })
        .collect();
    let all: Vec<(&str, &Value)> = all.into_iter().chain(lists.iter().map(|(name, list)| (*name, list))).collect();
    fn scope<'a>(input: &'a Value, outputs: &'a [(&'a str, &'a Value)]) -> Scope<'a> {
        Scope { input, saga_id: "made-up", saga_key: Some("made-up"), outputs, item: None }
    }
    let conditions = definition.steps.iter().filter_map(|step| Some((step, step.when.as_ref()?)));
    let decided: Vec<_> =
        conditions.map(|(step, condition)| (step.name.as_str(), condition.holds(&scope(input, &all)))).collect();
    let is_skipped = |name: &str| decided.iter().any(|(step, holds)| *step == name && *holds == Ok(false));
    let some: Vec<(&str, &Value)> = all.iter().filter(|(name, _)| !is_skipped(name)).copied().collect();
    let unclear = |outputs: &[(&str, &Value)]| {
        let fails = |template: &&Template| template.evaluate(&scope(input, outputs)).is_err();
        templates(definition).into_iter().filter(fails).count()
    };
    let without = if some.len() == all.len() { 0 } else { unclear(&some) };
    // What is no truth value decides nothing.
    let undecided = decided.iter().filter(|(_, holds)| holds.is_err()).count();
    unclear(&all) + without + undecided
}

/// Everything in a definition that may hold expressions.
fn templates(definition: &Definition) -> Vec<&Template> {
    let mut all: Vec<&Template> = definition.key.iter().chain(&definition.output).collect();
    for step in &definition.steps {
        all.push(&step.input);
        all.extend(step.when.as_ref().map(|condition| condition.template()));
        all.extend(step.compensation.action().map(|undo| &undo.input));
    }
    all
}

fn put(root: &mut Value, path: &[String], value: Value) {
    if !root.is_object() {
        *root = json!({});
    }
    let Some(object) = root.as_object_mut() else { return };
    match path {
        [] => {}
        [last] => {
            object.entry(last.clone()).or_insert(value);
        }
        [first, rest @ ..] => put(object.entry(first.clone()).or_insert_with(|| json!({})), rest, value),
    }
}

#[derive(Debug, PartialEq)]
enum Root {
    Input,
    Step(String),
}

/// The paths that an expression's text reads. Goes by the text: what a loop's variable reads is not found.
fn paths(text: &str) -> Vec<(Root, Vec<String>)> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    for word in ["input", "steps"] {
        for (at, _) in text.match_indices(word) {
            let starts = !text.get(..at).is_some_and(|before| before.ends_with(is_word));
            let rest = text.get(at + word.len()..).unwrap_or_default();
            let mut path = members(rest);
            if !starts || path.is_empty() {
                continue;
            }
            if word == "input" {
                found.push((Root::Input, path));
            } else if path.len() > 1 && path.get(1).is_some_and(|output| output == "output") {
                let name = path.remove(0);
                path.remove(0);
                if path.is_empty() {
                    found.extend(of_items(rest).into_iter().map(|path| (Root::Step(name.clone()), path)));
                } else {
                    found.push((Root::Step(name), path));
                }
            }
        }
    }
    found
}

/// What a loop over a list reads of its items: `.map(line, line.price)` reads `price`. `text` begins with the selection
/// of the list.
fn of_items(text: &str) -> Vec<Vec<String>> {
    let Some(call) = text.find('(') else { return Vec::new() };
    let (selection, inside) = text.split_at(call);
    let is_loop = [".map", ".filter", ".all", ".exists", ".exists_one"].iter().any(|name| selection.ends_with(name));
    let Some((variable, body)) = inside.get(1..).and_then(|inside| inside.split_once(',')) else { return Vec::new() };
    let variable = variable.trim();
    if !is_loop || variable.is_empty() || !variable.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Vec::new();
    }
    let after = body.match_indices(variable).filter_map(|(at, _)| body.get(at + variable.len()..));
    after.map(members).filter(|path| !path.is_empty()).collect()
}

/// The members selected at the beginning of `text`: `.a['b'].c` gives a, b, c. Stops at a call and at an index.
fn members(mut text: &str) -> Vec<String> {
    let mut path = Vec::new();
    loop {
        text = text.trim_start();
        if let Some(rest) = text.strip_prefix('.') {
            let rest = rest.trim_start();
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if name.is_empty() || after.trim_start().starts_with('(') {
                return path;
            }
            path.push(name.to_owned());
            text = after;
        } else if let Some(rest) = text.strip_prefix('[') {
            let rest = rest.trim_start();
            let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return path };
            let inner = rest.get(1..).unwrap_or_default();
            let Some((name, after)) = inner.split_once(quote) else { return path };
            let Some(after) = after.trim_start().strip_prefix(']') else { return path };
            path.push(name.to_owned());
            text = after;
        } else {
            return path;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{read, to_json};

    fn made(schema: Value, extent: Extent) -> Value {
        let steps = json!([{"name": "a", "participant": "p", "action": "x", "compensation": "none"}]);
        let source = json!({"saga": "s", "version": 1, "input": {"schema": schema}, "steps": steps}).to_string();
        let definition = read(&source).definition.expect("sound");
        let made = input(&definition, &to_json(&source).expect("JSON"), extent);
        assert_eq!(definition.check_input(&made.clone().into()), [], "{made}");
        made
    }

    #[test]
    fn an_input_fits_its_schema() {
        for extent in [Extent::Required, Extent::Everything] {
            made(
                json!({"type": "object", "required": ["a", "b", "c", "d", "e", "f", "g", "h"], "properties": {
                "a": {"type": "string", "minLength": 30, "maxLength": 40}, "b": {"type": "integer", "minimum": 7, "multipleOf": 5},
                "c": {"enum": ["x", "y"]}, "d": {"type": "array", "minItems": 3, "items": {"$ref": "#/$defs/line"}},
                "e": {"type": "string", "format": "date-time"}, "f": {"type": ["boolean", "null"]},
                "g": {"oneOf": [{"type": "number", "exclusiveMinimum": 2.5}, {"type": "string"}]}, "h": {"const": {"k": 1}},
                "i": {"type": "string", "maxLength": 3}},
                "$defs": {"line": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "maximum": -3}}}}}),
                extent,
            );
        }
        assert_eq!(
            made(json!({"type": "object", "properties": {"a": {"type": "string"}}}), Extent::Required),
            json!({})
        );
        let all = made(json!({"type": "object", "properties": {"a": {"type": "boolean"}}}), Extent::Everything);
        assert_eq!(all, json!({"a": true}));
    }

    #[test]
    fn outputs_hold_what_expressions_read() {
        let source = "saga: s\nversion: 1\nsteps:\n  - { name: a, participant: p, action: x, compensation: { action: u, input: { id: \"${ steps.a.output.ref.id }\" } } }\n  \
             - { name: b-c, participant: p, action: x, compensation: none }\n  \
             - { name: d, participant: p, action: x, compensation: none, when: \"${ steps['b-c'].output.ok }\", input: { sum: \"${ steps['b-c'].output.price + steps.a.output.price + 1 }\", deep: \"${ input.order.id }\" } }\n";
        let definition = read(source).definition.expect("sound");
        let given = input(&definition, &to_json(source).expect("YAML"), Extent::Required);
        assert_eq!(given, json!({"order": {"id": "made-up-id"}}));
        let made = outputs(&definition, &given, &Map::new());
        let at = |name: &str| &made[&definition.find(name).expect("there")];
        assert_eq!(at("a")["ref"]["id"], "made-up-id");
        assert!(at("a")["price"].is_number() && at("b-c")["price"].is_number());
        assert_eq!(at("b-c")["ok"], true);
        let named = outputs(&definition, &given, json!({"a": {"own": 1}}).as_object().expect("a map"));
        assert_eq!(named[&definition.find("a").expect("there")], json!({"own": 1}));
    }

    #[test]
    fn paths_are_found_in_text() {
        let step =
            |name: &str, path: &[&str]| (Root::Step(name.to_owned()), path.iter().map(|p| (*p).to_owned()).collect());
        assert_eq!(
            paths("steps['a-b'].output.x.y + steps.c.output['z']"),
            [step("a-b", &["x", "y"]), step("c", &["z"])]
        );
        assert_eq!(paths("size(input.lines) > myinput.x"), [(Root::Input, vec!["lines".to_owned()])]);
        assert_eq!(paths("steps.a.output"), []);
        assert_eq!(paths("steps.a.output.map(l, l.price + 1)"), [step("a", &["price"])]);
    }
}
