//! What is wrong with a definition, and where.

use serde::Serialize;

/// One finding about a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// A stable code, for example `DEF_STEP_DUPLICATE`.
    pub code: &'static str,
    /// Whether it forbids registration.
    pub severity: Severity,
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// How to mend it.
    pub suggestion: Option<String>,
    /// JSON pointer into the definition, for example `/steps/2/after/0`.
    pub pointer: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Byte offset into the source and length in bytes.
    pub span: (usize, usize),
    /// The offending text.
    pub text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The definition cannot be registered.
    Error,
    /// It can, but probably should not.
    Warning,
}

/// A stretch of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// First byte.
    pub start: usize,
    /// After the last byte.
    pub end: usize,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// The beginning of the text.
    pub const START: Self = Self { start: 0, end: 0, line: 1, column: 1 };

    pub fn new(start: usize, end: usize, line: usize, column: usize) -> Self {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).max(1);
        Self { start, end: end.max(start), line: number(line), column: number(column) }
    }

    /// From here to the end of `last`.
    pub fn until(self, last: Self) -> Self {
        Self { end: last.end.max(self.start), ..self }
    }
}

impl Diagnostic {
    /// An error at a place of the source. Only its first line is shown, so only that is kept as text and span.
    pub(super) fn error(code: &'static str, source: &str, place: Place, pointer: String, message: String) -> Self {
        let start = floor(source, place.start);
        let shown = source.get(start..floor(source, place.end)).unwrap_or_default();
        let line = shown.lines().next().unwrap_or_default().trim_end();
        let text: String = line.chars().take(120).collect();
        Self {
            code,
            severity: Severity::Error,
            message: visible(&message),
            suggestion: None,
            pointer,
            line: place.line,
            column: place.column,
            span: (start, text.len()),
            text,
        }
    }
}

/// Whether a character turns the direction of what stands around it, so that a text reads other than it is.
pub(super) fn is_deceptive(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes out what would otherwise command the terminal that it is printed to.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_deceptive(character) {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// The nearest boundary between characters at or before `at`.
fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}
