//! Reading typed fields out of the node tree, gathering everything that is wrong on the way.

use std::time::Duration;

use crate::definition::Severity;
use crate::definition::diagnostic::{Diagnostic, Place};
use crate::definition::node::{Data, Node};
use crate::definition::template::{ExpressionError, Template};

const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Who reads an expression, which decides what it may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// The saga's key: before the saga exists.
    Key,
    /// The saga's output: after all steps.
    Output,
    /// A step's input or condition.
    Step(usize),
    /// A step's compensation.
    Compensation(usize),
    /// The list of a `forEach`: known from the start.
    Items,
}

/// One place where an expression reads a step's output.
#[derive(Debug)]
pub(super) struct Use {
    pub reader: Reader,
    pub name: String,
    pub place: Place,
    pub pointer: String,
}

/// One expression as it stands in the text.
#[derive(Debug)]
pub(super) struct Written {
    pub reader: Reader,
    pub text: String,
    /// Whether there is text around it, so that what it gives becomes text.
    pub is_piece: bool,
    pub place: Place,
    pub pointer: String,
}

/// The source and what was found in it.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    pub source: &'a str,
    pub list: Vec<Diagnostic>,
    pub uses: Vec<Use>,
    pub written: Vec<Written>,
    /// Whether the step being read has `forEach`, so that its expressions may read `item` and `index`.
    pub has_item: bool,
}

impl<'a> Findings<'a> {
    pub fn new(source: &'a str) -> Self {
        Self { source, list: Vec::new(), uses: Vec::new(), written: Vec::new(), has_item: false }
    }

    pub fn error(
        &mut self,
        code: &'static str,
        place: Place,
        pointer: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.list.push(Diagnostic::error(code, self.source, place, pointer.to_owned(), message.into()));
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// What does not forbid registration.
    pub fn warning(
        &mut self,
        code: &'static str,
        place: Place,
        pointer: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let found = self.error(code, place, pointer, message);
        found.severity = Severity::Warning;
        found
    }

    fn wrong_type(&mut self, node: &Node, pointer: &str, wanted: &str) {
        self.error("DEF_TYPE", node.place, pointer, format!("{wanted} is wanted here, not {}", node.kind()));
    }

    /// Checks that `node` is a mapping and has no other keys than `known`.
    pub fn mapping(&mut self, node: &Node, pointer: &str, known: &[&str]) -> bool {
        let Data::Map(entries) = &node.value else {
            self.wrong_type(node, pointer, "a mapping");
            return false;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            let pointer = child(pointer, &entry.key);
            let advice = nearest(&entry.key, known)
                .map_or_else(|| format!("known here: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            let message = format!("unknown key `{}`", entry.key);
            self.error("DEF_KEY_UNKNOWN", entry.key_place, &pointer, message).suggestion = Some(advice);
        }
        true
    }

    /// The node of a field that must be there.
    pub fn required<'n>(&mut self, node: &'n Node, pointer: &str, key: &str, example: &str) -> Option<&'n Node> {
        let found = node.get(key);
        if found.is_none() {
            let message = format!("`{key}` is missing");
            self.error("DEF_FIELD_MISSING", node.place, pointer, message).suggestion = Some(format!("add `{example}`"));
        }
        found
    }

    pub fn text<'n>(&mut self, node: &'n Node, pointer: &str) -> Option<&'n str> {
        match &node.value {
            Data::Text(text) => Some(text),
            _ => {
                self.wrong_type(node, pointer, "text");
                None
            }
        }
    }

    /// An optional text field of a mapping.
    pub fn text_field(&mut self, node: &Node, pointer: &str, key: &str) -> Option<String> {
        let field = node.get(key)?;
        self.text(field, &child(pointer, key)).map(str::to_owned)
    }

    /// A name: part of routing keys, queue names and URLs.
    pub fn name<'n>(&mut self, node: &'n Node, pointer: &str) -> Option<&'n str> {
        let text = self.text(node, pointer)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=64).contains(&text.len())
            && text.chars().all(plain)
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Some(text);
        }
        self.error("DEF_NAME", node.place, pointer, format!("`{}` is not a name", shorten(text))).suggestion =
            Some("use 1 to 64 letters, digits, `-` and `_`, and begin with a letter or digit".to_owned());
        None
    }

    pub fn flag(&mut self, node: &Node, pointer: &str) -> Option<bool> {
        match node.value {
            Data::Bool(value) => Some(value),
            _ => {
                self.wrong_type(node, pointer, "true or false");
                None
            }
        }
    }

    pub fn whole(&mut self, node: &Node, pointer: &str, least: u32, most: u32) -> Option<u32> {
        match node.value {
            Data::Int(value) => {
                let fitting = u32::try_from(value).ok().filter(|value| (least..=most).contains(value));
                if fitting.is_none() {
                    let message = format!("{value} is not between {least} and {most}");
                    self.error("DEF_RANGE", node.place, pointer, message);
                }
                fitting
            }
            _ => {
                self.wrong_type(node, pointer, "a whole number");
                None
            }
        }
    }

    /// A number from 1 to `most`.
    pub fn factor(&mut self, node: &Node, pointer: &str, most: f64) -> Option<f64> {
        let value = match node.value {
            Data::Int(value) => i32::try_from(value).map_or(f64::INFINITY, f64::from),
            Data::Float(value) => value,
            _ => {
                self.wrong_type(node, pointer, "a number");
                return None;
            }
        };
        if (1.0..=most).contains(&value) {
            return Some(value);
        }
        self.error("DEF_RANGE", node.place, pointer, format!("{value} is not between 1 and {most}"));
        None
    }

    /// A duration such as `250ms`, `30s`, `15m`, `2h` or `1d`.
    pub fn duration(&mut self, node: &Node, pointer: &str, zero_allowed: bool) -> Option<Duration> {
        let read = match &node.value {
            Data::Text(text) => parse_duration(text),
            Data::Int(value) => Err(format!("`{value}` has no unit")),
            _ => Err(format!("a duration is wanted here, not {}", node.kind())),
        };
        let checked = read.and_then(|duration| {
            if duration.is_zero() && !zero_allowed {
                Err("it must be longer than zero".to_owned())
            } else if duration > LONGEST {
                Err("it must be at most 366 days".to_owned())
            } else {
                Ok(duration)
            }
        });
        match checked {
            Ok(duration) => Some(duration),
            Err(message) => {
                self.error("DEF_DURATION", node.place, pointer, message).suggestion =
                    Some("write a whole number with a unit: 250ms, 30s, 15m, 2h, 1d".to_owned());
                None
            }
        }
    }

    pub fn list<'n>(&mut self, node: &'n Node, pointer: &str) -> Option<&'n [Node]> {
        match &node.value {
            Data::List(items) => Some(items),
            _ => {
                self.wrong_type(node, pointer, "a list");
                None
            }
        }
    }

    /// Compiles a value with expressions in it and notes which steps they read.
    pub fn template(&mut self, node: &Node, pointer: &str, reader: Reader) -> Option<Template> {
        match &node.value {
            Data::Text(text) => match Template::compile(&serde_json::Value::from(text.as_str())) {
                Ok(template) => {
                    self.note_uses(&template, node, pointer, reader);
                    Some(template)
                }
                Err(error) => {
                    let place = self.place_within(node, &error);
                    let advice = dashed_step(&error.expression);
                    self.error("DEF_EXPRESSION", place, pointer, error.message).suggestion = advice;
                    None
                }
            },
            Data::List(items) => {
                let compiled: Vec<_> = items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| self.template(item, &child(pointer, &at.to_string()), reader))
                    .collect();
                compiled.into_iter().collect::<Option<Vec<_>>>().map(Template::list)
            }
            Data::Map(entries) => {
                let compiled: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        let item = self.template(&entry.node, &child(pointer, &entry.key), reader)?;
                        Some((entry.key.clone(), item))
                    })
                    .collect();
                compiled.into_iter().collect::<Option<Vec<_>>>().map(Template::map)
            }
            _ => Some(Template::literal(node.to_json())),
        }
    }

    fn note_uses(&mut self, template: &Template, node: &Node, pointer: &str, reader: Reader) {
        for expression in template.expressions() {
            let error = ExpressionError { expression: expression.text.clone(), message: String::new() };
            if reader == Reader::Key && (expression.reads_saga || !expression.steps.is_empty()) {
                let place = self.place_within(node, &error);
                let message = "the key is computed before the saga starts, so it can read `input` only";
                self.error("DEF_KEY_SCOPE", place, pointer, message);
                continue;
            }
            if reader == Reader::Items && (expression.reads_saga || !expression.steps.is_empty()) {
                let place = self.place_within(node, &error);
                let message = "the list is known from the saga's start, so it can be read from `input` only";
                self.error("DEF_FOREACH_ITEMS", place, pointer, message);
                continue;
            }
            if expression.reads_item && !self.has_item {
                let place = self.place_within(node, &error);
                let message = "there is no `item` or `index` here: only a step with `forEach` has them";
                self.error("DEF_EXPRESSION", place, pointer, message);
            }
            self.written.push(Written {
                reader,
                text: expression.text.clone(),
                is_piece: template.is_text(),
                place: self.place_within(node, &error),
                pointer: pointer.to_owned(),
            });
            for name in &expression.steps {
                let place = self.place_within(node, &error);
                self.uses.push(Use { reader, name: name.clone(), place, pointer: pointer.to_owned() });
            }
        }
    }

    /// Where in the node's text the expression stands; the whole node when escapes hide it.
    fn place_within(&self, node: &Node, error: &ExpressionError) -> Place {
        self.find(node.place, &error.expression).unwrap_or(node.place)
    }

    /// The first of these spellings that stands at this place; the whole place when there is none.
    pub fn focus(&self, place: Place, spellings: &[String]) -> Place {
        spellings.iter().find_map(|spelling| self.find(place, spelling)).unwrap_or(place)
    }

    fn find(&self, place: Place, text: &str) -> Option<Place> {
        let written = self.source.get(place.start..place.end)?;
        let at = written.find(text).filter(|_| !text.is_empty())?;
        let before = written.get(..at)?;
        let lines = before.matches('\n').count();
        let column = match before.rfind('\n') {
            Some(newline) => before.get(newline + 1..)?.chars().count() + 1,
            None => place.column as usize + before.chars().count(),
        };
        let start = place.start + at;
        Some(Place::new(start, start + text.len(), place.line as usize + lines, column))
    }
}

/// A step whose name has a dash is no plain member: `steps.pick-up` is a subtraction.
fn dashed_step(expression: &str) -> Option<String> {
    let (_, rest) = expression.split_once("steps.")?;
    let name = rest.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))).next()?;
    name.contains('-').then(|| format!("write `steps['{name}']`: a dash is a subtraction"))
}

/// The JSON pointer of a member.
pub(super) fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 100 {
        return None;
    }
    let near = known.iter().map(|known| (strsim::osa_distance(&word.to_lowercase(), &known.to_lowercase()), *known));
    near.filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

pub(super) fn shorten(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(77).chain("...".chars()).collect() }
}

/// A duration such as `250ms`, `30s`, `15m`, `2h` or `1d`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{}` is not a duration", shorten(text));
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| format!("`{}` has no unit", shorten(text)))?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refused()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(refused)
}
