//! Comparisons whose result the schemas already tell.

use serde_json::Value;

use crate::definition::checks::kind::Kinds;
use crate::definition::checks::shape::Shape;
use crate::definition::fields::nearest;

/// What a comparison always gives, if it always gives the same.
pub(super) fn truth(operator: &str, l: &Shape<'_>, r: &Shape<'_>) -> Option<bool> {
    match operator {
        "_==_" => equal(l, r),
        "_!=_" => equal(l, r).map(|equal| !equal),
        "_<_" => less(l, r),
        "_>_" => less(r, l),
        "_<=_" => less(r, l).map(|less| !less),
        "_>=_" => less(l, r).map(|less| !less),
        "@in" => {
            let items = r.items.as_deref()?.values.as_ref()?;
            let values = l.values.as_ref()?;
            match values.iter().filter(|value| items.contains(value)).count() {
                0 => Some(false),
                all if all == values.len() => Some(true),
                _ => None,
            }
        }
        _ => None,
    }
}

fn equal(l: &Shape<'_>, r: &Shape<'_>) -> Option<bool> {
    // Whole numbers and fractions may be equal.
    let widened = |kinds: Kinds| if kinds.meets(Kinds::NUMBER) { kinds.or(Kinds::NUMBER) } else { kinds };
    if !widened(l.kinds).meets(widened(r.kinds)) {
        return Some(false);
    }
    if are_numbers(l, r) && (l.number.high < r.number.low || r.number.high < l.number.low) {
        return Some(false);
    }
    let (left, right) = (l.values.as_ref()?, r.values.as_ref()?);
    let same = |a: &Value, b: &Value| a == b || a.as_f64().is_some_and(|number| b.as_f64() == Some(number));
    match (left.as_slice(), right.as_slice()) {
        ([a], [b]) => Some(same(a, b)),
        _ if left.iter().any(|a| right.iter().any(|b| same(a, b))) => None,
        _ => Some(false),
    }
}

fn less(l: &Shape<'_>, r: &Shape<'_>) -> Option<bool> {
    if !are_numbers(l, r) {
        return None;
    }
    if l.number.high < r.number.low {
        return Some(true);
    }
    (l.number.low >= r.number.high).then_some(false)
}

fn are_numbers(l: &Shape<'_>, r: &Shape<'_>) -> bool {
    let is_number = |shape: &Shape<'_>| shape.kinds != Kinds::NONE && shape.kinds.is_within(Kinds::NUMBER);
    is_number(l) && is_number(r)
}

/// Why it always gives the same. The sides' names come quoted.
pub(super) fn reason(operator: &str, (left, l): (&str, &Shape<'_>), (right, r): (&str, &Shape<'_>)) -> String {
    if are_numbers(l, r) {
        let bounds = |shape: &Shape<'_>| match (shape.number.low.is_finite(), shape.number.high.is_finite()) {
            (true, true) if shape.number.low == shape.number.high => format!("is {}", shape.number.low),
            (true, true) => format!("lies between {} and {}", shape.number.low, shape.number.high),
            (true, false) => format!("is at least {}", shape.number.low),
            (false, true) => format!("is at most {}", shape.number.high),
            (false, false) => "is any number".to_owned(),
        };
        let (name, shape) = if l.as_constant().is_some() { (right, r) } else { (left, l) };
        return format!("{name} {}", bounds(shape));
    }
    let (name, shape) = if l.as_constant().is_some() { (right, r) } else { (left, l) };
    match &shape.values {
        Some(values) if operator == "@in" || l.kinds.meets(r.kinds) => {
            let values: Vec<String> = values.iter().take(12).map(Value::to_string).collect();
            format!("{name} is one of {}", values.join(", "))
        }
        _ => format!("{left} is {} and {right} is {}", l.kinds.told(), r.kinds.told()),
    }
}

/// The value that was probably meant.
pub(super) fn advice(l: &Shape<'_>, r: &Shape<'_>) -> Option<String> {
    let (constant, other) = match (l.as_constant(), r.as_constant()) {
        (Some(constant), _) => (constant, r),
        (_, Some(constant)) => (constant, l),
        _ => return None,
    };
    let known: Vec<&str> = other.values.as_ref()?.iter().filter_map(Value::as_str).collect();
    nearest(constant.as_str()?, &known).map(|near| format!("did you mean `'{near}'`?"))
}
