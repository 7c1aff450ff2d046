//! What is known of a value from its JSON Schema: its kinds, its fields, what it can be.

use serde_json::Value;

use crate::definition::checks::kind::Kinds;

/// How long a list of possible values may be before it is no longer followed.
const MAX_VALUES: usize = 200;

/// How many places a value and its items may come from, in all, before they are no longer followed.
const MAX_EITHER: usize = 32;

/// Bounds, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub low: f64,
    pub high: f64,
}

impl Range {
    pub const ALL: Self = Self { low: f64::NEG_INFINITY, high: f64::INFINITY };
    pub const COUNT: Self = Self { low: 0.0, high: f64::INFINITY };

    pub fn just(value: f64) -> Self {
        Self { low: value, high: value }
    }

    pub fn and(self, other: Self) -> Self {
        Self { low: self.low.max(other.low), high: self.high.min(other.high) }
    }
}

/// What is known of a value.
#[derive(Clone, Debug)]
pub(super) struct Shape<'s> {
    pub kinds: Kinds,
    /// All that it can be, when that is known.
    pub values: Option<Vec<Value>>,
    /// Where it lies if it is a number.
    pub number: Range,
    /// How long it is if it is a text, list or mapping.
    pub size: Range,
    /// What every item is, of a list that is written in the expression.
    pub items: Option<Box<Shape<'s>>>,
    /// What it is one of, when it comes from more than one place.
    either: Vec<Shape<'s>>,
    /// The schemas that all apply to it, each with the document that its references are looked up in.
    schemas: Vec<(&'s Value, &'s Value)>,
    /// Whether there are schemas that are not followed (`anyOf`, `if`), so that a field that is not found may exist.
    is_open: bool,
    /// Whether less is left of it than its schema says, by what is known where it is read.
    pub is_narrowed: bool,
}

/// Whether a field is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    /// The schema has it and does not require it.
    Optional,
    /// The schema does not have it, but allows more than it has. Holds the fields that it has.
    Undeclared(Vec<String>),
    /// The schema forbids it. Holds the fields that it has.
    Never(Vec<String>),
    /// Nothing is known.
    Unknown,
}

impl Presence {
    /// Of a value that comes from one of two places.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Always, Self::Always) => Self::Always,
            (Self::Always | Self::Unknown, Self::Always | Self::Unknown) => Self::Unknown,
            (Self::Never(known), Self::Never(_)) => Self::Never(known),
            (Self::Undeclared(known), Self::Undeclared(_) | Self::Never(_))
            | (Self::Never(_), Self::Undeclared(known)) => Self::Undeclared(known),
            _ => Self::Optional,
        }
    }
}

impl<'s> Shape<'s> {
    pub fn of_kinds(kinds: Kinds) -> Self {
        Self {
            kinds,
            values: None,
            number: Range::ALL,
            size: Range::COUNT,
            items: None,
            either: Vec::new(),
            schemas: Vec::new(),
            is_open: true,
            is_narrowed: false,
        }
    }

    pub fn any() -> Self {
        Self::of_kinds(Kinds::ANY)
    }

    /// A list of such items.
    pub fn list_of(item: Self) -> Self {
        Self::list(Some(Box::new(item)))
    }

    /// A list of such items, if anything is known of them.
    pub fn list(items: Option<Box<Self>>) -> Self {
        Self { items, ..Self::of_kinds(Kinds::LIST) }
    }

    /// The same, or null.
    pub fn or_null(self) -> Self {
        Self { kinds: self.kinds.or(Kinds::NULL), values: None, ..self }
    }

    pub fn truth(truth: Option<bool>) -> Self {
        Self { values: truth.map(|truth| vec![Value::Bool(truth)]), ..Self::of_kinds(Kinds::BOOL) }
    }

    /// The same, known to be less than its schema says.
    pub fn narrowed(self, is_narrowed: bool) -> Self {
        Self { is_narrowed, ..self }
    }

    pub fn count(range: Range) -> Self {
        Self { number: range, ..Self::of_kinds(Kinds::INT) }
    }

    pub fn constant(value: Value) -> Self {
        let mut shape = Self::of_kinds(Kinds::of(&value));
        if let Some(number) = value.as_f64() {
            shape.number = Range::just(number);
        }
        if let Some(text) = value.as_str() {
            shape.size = Range::just(length(text.chars().count()));
        }
        shape.values = Some(vec![value]);
        shape
    }

    /// The truth that it always has, if it is one.
    pub fn as_truth(&self) -> Option<bool> {
        match self.values.as_deref() {
            Some([Value::Bool(truth)]) => Some(*truth),
            _ => None,
        }
    }

    /// The one value that it can be.
    pub fn as_constant(&self) -> Option<&Value> {
        match self.values.as_deref() {
            Some([value]) => Some(value),
            _ => None,
        }
    }

    /// What the schema `node`, a part of `root`, says. The reader has seen to it that references end.
    pub fn of_schema(root: &'s Value, node: &'s Value) -> Self {
        let mut shape = Self { is_open: false, ..Self::of_kinds(Kinds::JSON) };
        shape.take(root, node);
        if let Some(values) = &shape.values {
            shape.kinds = values.iter().map(Kinds::of).fold(Kinds::NONE, Kinds::or).and(shape.kinds.or(Kinds::INT));
        }
        shape
    }

    fn take(&mut self, root: &'s Value, node: &'s Value) {
        let Some(keywords) = node.as_object() else {
            self.is_open = true;
            return;
        };
        self.schemas.push((root, node));
        let number = |key: &str| keywords.get(key).and_then(Value::as_f64);
        match keywords.get("type") {
            Some(Value::String(name)) => self.kinds = self.kinds.and(Kinds::named(name)),
            Some(Value::Array(names)) => {
                let kinds = names.iter().filter_map(Value::as_str).map(Kinds::named).fold(Kinds::NONE, Kinds::or);
                self.kinds = self.kinds.and(kinds);
            }
            _ => {}
        }
        if let Some(Value::Array(values)) = keywords.get("enum")
            && values.len() <= MAX_VALUES
        {
            self.allow(values.clone());
        }
        if let Some(value) = keywords.get("const") {
            self.allow(vec![value.clone()]);
        }
        let is_whole = self.kinds.is_within(Kinds::INT);
        let above = |bound: f64| if is_whole { bound.floor() + 1.0 } else { bound };
        let below = |bound: f64| if is_whole { bound.ceil() - 1.0 } else { bound };
        let low = number("minimum").into_iter().chain(number("exclusiveMinimum").map(above));
        let high = number("maximum").into_iter().chain(number("exclusiveMaximum").map(below));
        self.number = self
            .number
            .and(Range { low: low.fold(f64::NEG_INFINITY, f64::max), high: high.fold(f64::INFINITY, f64::min) });
        for (kind, least, most) in [
            (Kinds::TEXT, "minLength", "maxLength"),
            (Kinds::LIST, "minItems", "maxItems"),
            (Kinds::MAP, "minProperties", "maxProperties"),
        ] {
            if self.kinds.is_within(kind) {
                let (low, high) = (number(least).unwrap_or(0.0), number(most).unwrap_or(f64::INFINITY));
                self.size = self.size.and(Range { low, high });
            }
        }
        if let Some(target) = keywords.get("$ref").and_then(Value::as_str)
            && let Some(target) = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
        {
            self.take(root, target);
        }
        if let Some(Value::Array(all)) = keywords.get("allOf") {
            for each in all {
                self.take(root, each);
            }
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(Value::Array(some)) = keywords.get(key) {
                self.is_open = true;
                let kinds = some.iter().map(|each| Self::of_schema(root, each).kinds).fold(Kinds::NONE, Kinds::or);
                self.kinds = self.kinds.and(kinds);
            }
        }
        for key in ["if", "then", "else", "dependentSchemas", "dependencies", "not"] {
            self.is_open |= keywords.contains_key(key);
        }
    }

    fn allow(&mut self, values: Vec<Value>) {
        self.values = Some(match self.values.take() {
            Some(known) => known.into_iter().filter(|value| values.contains(value)).collect(),
            None => values,
        });
    }

    /// The field `name` of a mapping.
    pub fn field(&self, name: &str) -> (Presence, Self) {
        let mappings = self.either.iter().filter(|one| one.kinds.meets(Kinds::MAP.or(Kinds::OTHER)));
        if let Some(found) = mappings
            .map(|one| one.field(name))
            .reduce(|(presence, field), (other, another)| (presence.or(other), field.join(another)))
        {
            return found;
        }
        let mut field = Self { is_open: false, ..Self::of_kinds(Kinds::JSON) };
        let (mut is_found, mut is_required, mut is_closed, mut is_free) = (false, false, false, self.is_open);
        let mut known: Vec<String> = Vec::new();
        for (root, schema) in &self.schemas {
            let properties = schema.get("properties").and_then(Value::as_object);
            known.extend(properties.into_iter().flat_map(|properties| properties.keys().cloned()));
            if let Some(property) = properties.and_then(|properties| properties.get(name)) {
                is_found = true;
                let found = Self::of_schema(root, property);
                field.meet(found);
            } else {
                match schema.get("additionalProperties") {
                    Some(Value::Bool(false)) => is_closed = true,
                    Some(Value::Object(_)) => is_free = true,
                    _ => {}
                }
                is_free |= schema.get("patternProperties").is_some();
            }
            is_required |= schema
                .get("required")
                .and_then(Value::as_array)
                .is_some_and(|names| names.iter().any(|required| required.as_str() == Some(name)));
        }
        let presence = match (is_required, is_found) {
            (true, _) => Presence::Always,
            (false, true) => Presence::Optional,
            (false, false) if is_free => Presence::Unknown,
            (false, false) if is_closed => Presence::Never(known),
            (false, false) if known.is_empty() => Presence::Unknown,
            (false, false) => Presence::Undeclared(known),
        };
        (presence, if is_found { field } else { Self::any() })
    }

    /// What a loop over it sees, and what adding it to a list adds: items, or the keys of a mapping.
    pub fn each(&self) -> Self {
        let many = self.either.iter().filter(|one| one.kinds.meets(Kinds::LIST.or(Kinds::MAP).or(Kinds::OTHER)));
        if let Some(each) = many.map(Self::each).reduce(Self::join) {
            return each;
        }
        match self.kinds {
            kinds if kinds.is_within(Kinds::LIST) => self.item(),
            kinds if kinds.is_within(Kinds::MAP) => Self::of_kinds(Kinds::TEXT),
            _ => Self::any(),
        }
    }

    /// Each item of a list.
    pub fn item(&self) -> Self {
        let lists = self.either.iter().filter(|one| one.kinds.meets(Kinds::LIST.or(Kinds::OTHER)));
        if let Some(item) = lists.map(Self::item).reduce(Self::join) {
            return item;
        }
        if let Some(items) = &self.items {
            return (**items).clone();
        }
        let mut item: Option<Self> = None;
        for (root, schema) in &self.schemas {
            if schema.get("prefixItems").is_some() {
                return Self::any();
            }
            if let Some(found) = schema.get("items").filter(|items| items.is_object()) {
                let found = Self::of_schema(root, found);
                match &mut item {
                    Some(item) => item.meet(found),
                    None => item = Some(found),
                }
            }
        }
        item.unwrap_or_else(Self::any)
    }

    /// Both hold.
    fn meet(&mut self, other: Self) {
        self.kinds = self.kinds.and(other.kinds);
        self.number = self.number.and(other.number);
        self.size = self.size.and(other.size);
        if let Some(values) = other.values {
            self.allow(values);
        }
        self.schemas.extend(other.schemas);
        self.is_open |= other.is_open;
    }

    /// Either holds.
    pub fn join(self, other: Self) -> Self {
        let values = match (&self.values, &other.values) {
            (Some(values), Some(more)) => {
                let mut values = values.clone();
                values.extend(more.iter().cloned());
                values.dedup();
                Some(values).filter(|values| values.len() <= MAX_VALUES)
            }
            _ => None,
        };
        let joined = Self::of_kinds(self.kinds.or(other.kinds));
        let mut either = self.alternatives();
        either.extend(other.alternatives());
        if either.iter().map(Self::places).sum::<usize>() > MAX_EITHER {
            either.clear();
        }
        Self { values, either, ..joined }
    }

    /// How many places it and its items come from.
    fn places(&self) -> usize {
        let items = self.items.as_deref().map_or(0, Self::places);
        1 + items + self.either.iter().map(Self::places).sum::<usize>()
    }

    /// What it is one of: itself, unless it comes from more than one place.
    fn alternatives(self) -> Vec<Self> {
        if self.either.is_empty() { vec![self] } else { self.either }
    }
}

/// As a number that ranges have.
pub(super) fn length(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_through_references_and_every_part_of_all_of() {
        let schema = json!({
            "allOf": [{"$ref": "#/$defs/a"}, {"required": ["b"]}],
            "$defs": {"a": {"type": "object", "properties": {"b": {"type": "integer", "exclusiveMinimum": 0}, "c": {"enum": ["x", "y"]}}}}
        });
        let shape = Shape::of_schema(&schema, &schema);
        let (presence, b) = shape.field("b");
        assert_eq!((presence, b.kinds, b.number.low), (Presence::Always, Kinds::INT, 1.0));
        let (presence, c) = shape.field("c");
        assert_eq!((presence, c.kinds), (Presence::Optional, Kinds::TEXT));
        assert_eq!(c.values, Some(vec![json!("x"), json!("y")]));
        assert_eq!(shape.field("d").0, Presence::Undeclared(vec!["b".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn what_is_not_followed_forbids_nothing() {
        let schema = json!({"properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}]});
        assert_eq!(Shape::of_schema(&schema, &schema).field("b").0, Presence::Unknown);
        let schema = json!({"properties": {"a": {}}, "patternProperties": {"^x": {}}, "additionalProperties": false});
        assert_eq!(Shape::of_schema(&schema, &schema).field("xa").0, Presence::Unknown);
        let schema = json!({"properties": {"a": {}}, "additionalProperties": false});
        assert_eq!(Shape::of_schema(&schema, &schema).field("b").0, Presence::Never(vec!["a".to_owned()]));
    }
}
