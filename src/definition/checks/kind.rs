//! Which kinds of value the operators of expressions work on. A test holds this table against the interpreter.

use serde_json::Value;

/// A set of kinds of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    pub const NONE: Self = Self(0);
    pub const NULL: Self = Self(1);
    pub const BOOL: Self = Self(2);
    pub const INT: Self = Self(4);
    pub const FLOAT: Self = Self(8);
    pub const TEXT: Self = Self(16);
    pub const LIST: Self = Self(32);
    pub const MAP: Self = Self(64);
    /// What JSON does not have: bytes, times, types.
    pub const OTHER: Self = Self(128);
    pub const NUMBER: Self = Self(4 | 8);
    /// What JSON has.
    pub const JSON: Self = Self(127);
    pub const ANY: Self = Self(255);

    const EACH: [Self; 8] =
        [Self::NULL, Self::BOOL, Self::INT, Self::FLOAT, Self::TEXT, Self::LIST, Self::MAP, Self::OTHER];

    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub const fn without_null(self) -> Self {
        Self(self.0 & !1)
    }

    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether anything is known: a value of which nothing is known may always be the right one.
    pub fn is_known(self) -> bool {
        self != Self::ANY && self != Self::JSON
    }

    pub fn each(self) -> impl Iterator<Item = Self> {
        Self::EACH.into_iter().filter(move |kind| self.meets(*kind))
    }

    pub fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOL,
            Value::Number(number) if number.is_f64() => Self::FLOAT,
            Value::Number(_) => Self::INT,
            Value::String(_) => Self::TEXT,
            Value::Array(_) => Self::LIST,
            Value::Object(_) => Self::MAP,
        }
    }

    /// By the name that JSON Schema has for it.
    pub fn named(name: &str) -> Self {
        match name {
            "null" => Self::NULL,
            "boolean" => Self::BOOL,
            "integer" => Self::INT,
            "number" => Self::NUMBER,
            "string" => Self::TEXT,
            "array" => Self::LIST,
            "object" => Self::MAP,
            _ => Self::JSON,
        }
    }

    /// For messages: "text", "text or a list".
    pub fn told(self) -> String {
        let names = self.each().map(|kind| match kind {
            Self::NULL => "null",
            Self::BOOL => "true or false",
            Self::INT => "a whole number",
            Self::FLOAT => "a fraction",
            Self::TEXT => "text",
            Self::LIST => "a list",
            Self::MAP => "a mapping",
            _ => "bytes or a time",
        });
        names.collect::<Vec<_>>().join(" or ")
    }
}

/// What an operator or function makes of the kinds it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It works on all of them, and gives one of these.
    Works(Kinds),
    /// It works on some of them.
    Partly(Kinds),
    /// It works on none.
    Fails,
}

/// What a binary operator, in the parser's spelling, makes of its sides. `None` when it is not in the table.
pub(super) fn binary(operator: &str, left: Kinds, right: Kinds) -> Option<Verdict> {
    let mut given = Kinds::NONE;
    let (mut works, mut fails) = (false, false);
    for l in left.each() {
        for r in right.each() {
            match pair(operator, l, r)? {
                Kinds::NONE => fails = true,
                kinds => {
                    works = true;
                    given = given.or(kinds);
                }
            }
        }
    }
    Some(match (works, fails) {
        (true, false) => Verdict::Works(given),
        (true, true) => Verdict::Partly(given),
        (false, _) => Verdict::Fails,
    })
}

/// What one kind on each side gives; `NONE` when the interpreter refuses.
fn pair(operator: &str, l: Kinds, r: Kinds) -> Option<Kinds> {
    use Kinds as K;
    let when = |holds: bool, kinds: Kinds| if holds { kinds } else { K::NONE };
    // Of what JSON does not have, nothing is claimed.
    let is_other = l == K::OTHER || r == K::OTHER;
    let is_number = l == r && l.is_within(K::NUMBER);
    Some(match operator {
        "_+_" if is_other => K::ANY,
        // The interpreter adds a mapping's keys to a list.
        "_+_" if l == K::LIST && r == K::MAP => K::LIST,
        "_+_" => when(is_number || (l == r && (l == K::TEXT || l == K::LIST)), l),
        "_-_" | "_*_" | "_/_" if is_other => K::ANY,
        "_-_" | "_*_" | "_/_" => when(is_number, l),
        "_%_" if is_other => K::ANY,
        "_%_" => when(l == K::INT && r == K::INT, K::INT),
        "_<_" | "_<=_" | "_>_" | "_>=_" if is_other => K::BOOL,
        "_<_" | "_<=_" | "_>_" | "_>=_" => {
            let are_numbers = l.is_within(K::NUMBER) && r.is_within(K::NUMBER);
            when(are_numbers || (l == r && (l == K::TEXT || l == K::BOOL)), K::BOOL)
        }
        "_==_" | "_!=_" => K::BOOL,
        "@in" => {
            let may_be_key = l.is_within(K::BOOL.or(K::NUMBER).or(K::TEXT));
            when(is_other || r == K::LIST || (r == K::MAP && may_be_key), K::BOOL)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definition::{Scope, Template};

    /// Every operator on every pair of kinds, in the interpreter and in the table.
    #[test]
    fn the_table_says_what_the_interpreter_does() {
        let samples = json!({
            "nil": null, "truth": true, "whole": 3, "float": 2.5, "text": "x", "list": [1], "map": {"x": 1}
        });
        let samples = samples.as_object().expect("an object");
        let input = json!(samples);
        let scope = Scope { input: &input, saga_id: "", saga_key: None, outputs: &[], item: None };
        let operators = ["+", "-", "*", "/", "%", "<", "<=", ">", ">=", "==", "!=", "in"];
        let mut wrong = Vec::new();
        let mut seen = 0;
        for operator in operators {
            let spelled = if operator == "in" { "@in".to_owned() } else { format!("_{operator}_") };
            for (left, l) in samples {
                for (right, r) in samples {
                    let text = format!("${{ input.{left} {operator} input.{right} }}");
                    let given = Template::compile(&json!(text)).expect("compiles").evaluate(&scope);
                    let said = binary(&spelled, Kinds::of(l), Kinds::of(r)).expect("in the table");
                    let agrees = match (&given, said) {
                        (Ok(value), Verdict::Works(kinds)) => Kinds::of(value).is_within(kinds),
                        (Err(_), Verdict::Fails) => true,
                        _ => false,
                    };
                    seen += 1;
                    if !agrees {
                        wrong.push(format!("{text}: {given:?}, the table says {said:?}"));
                    }
                }
            }
        }
        assert!(seen > 500 && wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
