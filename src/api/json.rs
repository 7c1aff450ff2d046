//! Bodies, read strictly: what two readers could understand differently is refused, and so is what cannot be kept.

use std::collections::HashSet;

use serde_json::Value;

use crate::api::problem::{
    BODY_DUPLICATE_KEY, BODY_HAS_NUL, BODY_MALFORMED, BODY_NOT_UTF8, BODY_TOO_DEEP, Kind, NUMBER_INVALID, Problem,
};
use crate::client::views::FieldProblem;

/// Objects and arrays inside each other, at most.
const MAX_DEPTH: usize = 64;
/// The largest integer that every JSON reader keeps exactly.
const MAX_INTEGER: u128 = 1 << 53;

/// A body as text.
pub(super) fn text(body: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Problem::new(BODY_NOT_UTF8, format!("the byte at offset {at} is not UTF-8; send the body in UTF-8"))
    })?;
    match text.find('\0') {
        Some(at) => Err(fault(BODY_HAS_NUL, text, at, "", "a NUL character, which no store keeps")),
        None => Ok(text),
    }
}

/// A body as a JSON value.
pub(super) fn parse(body: &[u8]) -> Result<Value, Problem> {
    let text = text(body)?;
    if let Some(at) = too_deep(text) {
        let detail = format!("objects and arrays may be nested {MAX_DEPTH} deep, no deeper");
        return Err(fault(BODY_TOO_DEEP, text, at, "", &detail));
    }
    let value = serde_json::from_str(text).map_err(|error| malformed(text, &error))?;
    let mut scan = Scan { text, at: 0, pointer: String::new() };
    scan.value()?;
    Ok(value)
}

fn malformed(text: &str, error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let near: String = text
        .lines()
        .nth(line.saturating_sub(1))
        .map(|line| line.chars().skip(column.saturating_sub(3)).take(12).collect())
        .unwrap_or_default();
    let is_number = message.contains("number out of range") || near.contains("NaN") || near.contains("Infinity");
    let (kind, detail) = if is_number {
        (NUMBER_INVALID, "this is no finite number; send it as a string".to_owned())
    } else {
        (BODY_MALFORMED, message.to_owned())
    };
    placed(kind, line, column, "", &detail)
}

fn placed(kind: Kind, line: usize, column: usize, pointer: &str, detail: &str) -> Problem {
    // An empty text has its end before its first column.
    let column = column.max(1);
    let place = FieldProblem {
        line: u32::try_from(line).ok(),
        column: u32::try_from(column).ok(),
        ..FieldProblem::at(pointer, detail)
    };
    Problem::new(kind, format!("line {line}, column {column}: {detail}")).errors(vec![place])
}

fn fault(kind: Kind, text: &str, at: usize, pointer: &str, detail: &str) -> Problem {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    placed(kind, line, column, pointer, detail)
}

/// Where nesting goes too deep, found before anything recursive looks at the text.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(at);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Goes through text that is known to be JSON of bounded depth, looking for what a parsed value no longer shows.
struct Scan<'a> {
    text: &'a str,
    at: usize,
    pointer: String,
}

impl Scan<'_> {
    fn value(&mut self) -> Result<(), Problem> {
        self.space();
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => {
                let at = self.at;
                let string = self.string();
                self.without_nul(&string, at)
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                self.skip(|byte| byte.is_ascii_alphabetic());
                Ok(())
            }
        }
    }

    fn object(&mut self) -> Result<(), Problem> {
        let mut seen = HashSet::new();
        let outer = self.pointer.len();
        self.at += 1;
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                break;
            }
            let at = self.at;
            let key = self.string();
            self.pointer.push('/');
            self.pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            self.without_nul(&key, at)?;
            if !seen.insert(key) {
                let detail = "this key is there twice; leave one out";
                return Err(fault(BODY_DUPLICATE_KEY, self.text, at, &self.pointer, detail));
            }
            self.space();
            self.at += 1;
            self.value()?;
            self.pointer.truncate(outer);
            self.space();
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self) -> Result<(), Problem> {
        let outer = self.pointer.len();
        self.at += 1;
        for index in 0_usize.. {
            self.space();
            if self.peek() == Some(b']') {
                break;
            }
            self.pointer.push_str(&format!("/{index}"));
            self.value()?;
            self.pointer.truncate(outer);
            self.space();
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += if byte == b'\\' { 2 } else { 1 };
            if byte == b'"' {
                break;
            }
        }
        self.text.get(start..self.at).and_then(|literal| serde_json::from_str(literal).ok()).unwrap_or_default()
    }

    fn without_nul(&self, string: &str, at: usize) -> Result<(), Problem> {
        if string.contains('\0') {
            let detail = "a NUL character, which no store keeps; leave it out";
            return Err(fault(BODY_HAS_NUL, self.text, at, &self.pointer, detail));
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Problem> {
        let start = self.at;
        self.skip(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'));
        let literal = self.text.get(start..self.at).unwrap_or_default();
        let is_integer = !literal.contains(['.', 'e', 'E']);
        let is_exact = literal.trim_start_matches('-').parse::<u128>().is_ok_and(|number| number <= MAX_INTEGER);
        if is_integer && !is_exact {
            let detail = "an integer beyond 2^53 is not kept exactly by every reader; send it as a string";
            return Err(fault(NUMBER_INVALID, self.text, start, &self.pointer, detail));
        }
        Ok(())
    }

    fn space(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&is_skipped) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> (String, String, u32, u32) {
        let problem = parse(body.as_bytes()).expect_err("it is refused");
        let document = problem.into_document("");
        let place = document.errors.first().expect("a place").clone();
        (document.code, place.pointer, place.line.unwrap_or_default(), place.column.unwrap_or_default())
    }

    fn is(code: &str, pointer: &str, line: u32, column: u32) -> (String, String, u32, u32) {
        (code.to_owned(), pointer.to_owned(), line, column)
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_its_place() {
        assert_eq!(refused("{\"a\": 1,\n \"a\": 2}"), is("BODY_DUPLICATE_KEY", "/a", 2, 2));
        assert_eq!(refused(r#"{"x":[{},{"a":1,"\u0061":2}]}"#), is("BODY_DUPLICATE_KEY", "/x/1/a", 1, 17));
        assert!(parse(br#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#).is_ok());
    }

    #[test]
    fn nesting_is_allowed_to_sixty_four_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(64).as_bytes()).is_ok());
        assert_eq!(refused(&nested(65)).0, "BODY_TOO_DEEP");
        assert_eq!(refused(&"[".repeat(1_000_000)).0, "BODY_TOO_DEEP");
        assert!(parse(format!(r#"["{}"]"#, "[".repeat(100)).as_bytes()).is_ok(), "brackets in strings do not count");
    }

    #[test]
    fn integers_are_kept_to_two_to_the_fifty_third() {
        assert!(parse(b"[9007199254740992, -9007199254740992, 1e300, 0.1]").is_ok());
        assert_eq!(refused(r#"{"n": 9007199254740993}"#), is("NUMBER_INVALID", "/n", 1, 7));
        assert_eq!(refused("[-9007199254740993]").0, "NUMBER_INVALID");
        assert_eq!(refused(&format!("[{}]", "9".repeat(60))).0, "NUMBER_INVALID");
    }

    #[test]
    fn what_is_no_finite_number_is_refused_as_such() {
        for body in [r#"{"n": NaN}"#, r#"{"n": Infinity}"#, r#"{"n": -Infinity}"#, r#"{"n": 1e999}"#] {
            assert_eq!(refused(body).0, "NUMBER_INVALID", "{body}");
        }
    }

    #[test]
    fn a_nul_is_refused_raw_and_escaped() {
        assert_eq!(refused("{\"a\": \"\0\"}").0, "BODY_HAS_NUL");
        assert_eq!(refused(r#"{"a": ["x\u0000"]}"#), is("BODY_HAS_NUL", "/a/0", 1, 8));
        assert_eq!(refused(r#"{"a\u0000": 1}"#).0, "BODY_HAS_NUL");
        assert!(parse(br#"["\\u0000"]"#).is_ok(), "an escaped backslash is no NUL");
    }

    #[test]
    fn malformed_json_is_refused_with_line_and_column() {
        assert_eq!(refused("{\n  \"a\": ]\n}"), is("BODY_MALFORMED", "", 2, 8));
        assert_eq!(refused("").0, "BODY_MALFORMED");
        assert_eq!(refused(r#"["\ud800"]"#).0, "BODY_MALFORMED");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        let problem = parse(b"{\"a\": \"\xff\"}").expect_err("it is refused");
        assert_eq!(problem.code(), "BODY_NOT_UTF8");
    }
}
