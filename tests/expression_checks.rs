//! The checks of expressions against the interpreter: what they are silent about does not fail, and what they call
//! constant is.

use std::cell::Cell;

use amends::definition::{Scope, Template, read};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use serde_json::{Value, json};

/// Every kind of value, required and optional, bounded and not.
fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["text", "whole", "tier", "flag", "lines"],
        "additionalProperties": false,
        "properties": {
            "text": {"type": "string"},
            "whole": {"type": "integer", "minimum": 0, "maximum": 9},
            "number": {"type": "number"},
            "tier": {"enum": ["basic", "gold"]},
            "flag": {"type": "boolean"},
            "perhaps": {"type": ["string", "null"]},
            "lines": {"type": "array", "minItems": 1, "items": {
                "type": "object", "required": ["sku"], "additionalProperties": false,
                "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}
            }},
            "address": {"type": "object", "required": ["street"], "additionalProperties": false,
                "properties": {"street": {"type": "string"}, "zip": {"type": "string"}}}
        }
    })
}

/// Inputs of that schema that differ in everything it leaves open.
fn inputs() -> Vec<Value> {
    let mut inputs = Vec::new();
    for (whole, tier, flag) in [(0, "basic", true), (9, "gold", false), (4, "gold", true)] {
        let base = json!({"text": "x", "whole": whole, "tier": tier, "flag": flag, "lines": [{"sku": "x"}]});
        let more = [
            json!({}),
            json!({"number": 3, "perhaps": null, "address": {"street": "s"}}),
            json!({"number": 2.5, "perhaps": "x", "address": {"street": "x", "zip": "z"}}),
            json!({"lines": [{"sku": "a", "count": 2}, {"sku": "b"}], "number": 1.0}),
            json!({"text": "", "lines": [{"sku": "", "count": 0}, {"sku": "x", "count": 5}], "perhaps": ""}),
        ];
        for more in more {
            let mut input = base.clone();
            for (key, value) in more.as_object().expect("an object") {
                input[key] = value.clone();
            }
            inputs.push(input);
        }
    }
    inputs
}

fn definition(place: &str, expression: &str) -> Value {
    let mut step = json!({"name": "a", "participant": "p", "action": "x", "compensation": "none"});
    step[place] = json!(format!("${{ {expression} }}"));
    json!({"saga": "s", "version": 1, "input": {"schema": schema()}, "steps": [step]})
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "input.text",
        "input.whole",
        "input.number",
        "input.tier",
        "input.flag",
        "input.perhaps",
        "input.lines",
        "input.address",
        "input.address.street",
        "input.address.zip",
        "input.lines[0]",
        "input.lines[0].sku",
        "input.lines[0].count",
        "input.lines[1].sku",
        "input.nowhere",
        "has(input.number)",
        "has(input.perhaps)",
        "has(input.address)",
        "has(input.address.zip)",
        "has(input.lines[0].count)",
        "size(input.lines)",
        "input.text.size()",
        "1",
        "4",
        "-1",
        "2.5",
        "'x'",
        "'gold'",
        "'none'",
        "true",
        "false",
        "null",
        "[1, 2]",
        "['basic', 'gold']",
        "saga.id",
    ])
    .prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "<", "<=", ">", ">=", "==", "!=", "&&", "||", "in", "&&", "||", "==",
        ]);
        prop_oneof![
            4 => (inner.clone(), operator, inner.clone()).prop_map(|(l, o, r)| format!("({l} {o} {r})")),
            2 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(c, y, n)| format!("({c} ? {y} : {n})")),
            1 => inner.clone().prop_map(|inner| format!("!({inner})")),
            1 => inner.clone().prop_map(|inner| format!("-({inner})")),
            1 => inner.clone().prop_map(|inner| format!("size({inner})")),
            1 => inner.clone().prop_map(|inner| format!("double({inner})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.startsWith({b})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(list, each)| format!("{list}.map(e, [e, {each}])")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => inner.clone().prop_map(|inner| format!("({inner}).sku")),
            1 => inner.clone().prop_map(|inner| format!("({inner})[0]")),
            1 => inner.clone().prop_map(|list| format!("{list}.exists(e, e.sku == 'x')")),
            1 => inner.prop_map(|list| format!("{list}.filter(e, has(e.count)).map(e, e.count + 1)")),
        ]
    })
}

/// Conditions that often contradict themselves or say the same twice.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "input.whole < 5",
        "input.whole >= 5",
        "input.whole == 5",
        "5 > input.whole",
        "input.whole != 5",
        "input.whole > 3",
        "input.tier == 'gold'",
        "input.tier != 'gold'",
        "input.tier == 'basic'",
        "input.tier in ['gold', 'basic']",
        "input.flag",
        "input.flag == true",
        "has(input.number)",
        "has(input.perhaps)",
        "has(input.address)",
        "has(input.address) && has(input.address.zip)",
        "has(input.number) && input.number > 2",
        "has(input.perhaps) && input.perhaps != null",
        "has(input.perhaps) && input.perhaps == null",
        "size(input.lines) > 1",
        "input.lines.size() == 1",
        "size(input.lines) < 1",
        "input.text == 'x'",
        "size(input.text) == 0",
        "input.lines[0].sku == 'x'",
        "(has(input.number) ? double(input.number) : 1.0) > 2.0",
        "input.lines.exists(e, e.sku == 'x')",
    ])
    .prop_map(|leaf| format!("({leaf})"));
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l} && {r})")),
            (inner.clone(), inner.clone()).prop_map(|(l, r)| format!("({l} || {r})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(c, y, n)| format!("({c} ? {y} : {n})")),
            inner.prop_map(|inner| format!("!{inner}")),
        ]
    })
}

/// What an expression may fail with that no type tells.
fn is_about_the_value(message: &str) -> bool {
    ["too large", "convert", "kept exactly"].iter().any(|part| message.contains(part))
}

/// Runs `check` on many expressions. It says whether the expression was one of those that it is about; there must be
/// `least` of those.
fn on_many(
    least: u32,
    expressions: impl Strategy<Value = String>,
    check: impl Fn(&str) -> Result<bool, TestCaseError>,
) {
    let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    let concerned = Cell::new(0);
    let result = TestRunner::new(config).run(&expressions, |expression| {
        concerned.set(concerned.get() + u32::from(check(&expression)?));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    assert!(concerned.get() >= least, "only {} expressions were concerned: this test has gone blind", concerned.get());
}

fn evaluate(expression: &str, input: &Value) -> Result<Value, String> {
    let template = Template::compile(&json!(format!("${{ {expression} }}"))).expect("compiles");
    let scope = Scope { input, saga_id: "s", saga_key: None, outputs: &[], item: None };
    template.evaluate(&scope).map_err(|error| error.message)
}

/// What the checks say of an expression.
fn said_of(expression: &str) -> Vec<&'static str> {
    read(&definition("input", expression).to_string()).diagnostics.iter().map(|found| found.code).collect()
}

#[test]
fn a_value_that_comes_from_two_places_is_held_against_both() {
    for (expression, said) in [
        // The interpreter adds a mapping's keys.
        ("(input.lines + input.lines[0]).exists(e, e.sku == 'x')", vec!["DEF_EXPRESSION_MIXED"]),
        ("(input.lines + [1]).exists(e, e.sku == 'x')", vec!["DEF_EXPRESSION_MIXED"]),
        ("(input.flag ? input.lines : [1]).exists(e, e.sku == 'x')", vec!["DEF_EXPRESSION_MIXED"]),
        ("(input.flag ? input.lines[0] : 'x').sku", vec!["DEF_EXPRESSION_MIXED"]),
        ("(input.flag ? input.lines[0] : {'sku': 'x'}).sku", vec![]),
        ("(has(input.address) ? input.address : input.lines[0]).sku", vec!["DEF_READ_OPTIONAL"]),
        ("(has(input.address) ? input.address : input.lines[0]).skip", vec!["DEF_READ_UNDECLARED"]),
        ("(input.lines + input.lines).exists(e, e.sku == 'x')", vec![]),
        ("[input.lines[0], null].exists(e, e.sku == 'x')", vec!["DEF_EXPRESSION_MIXED"]),
        ("[input.lines[0], null].exists(e, e != null && e.sku == 'x')", vec![]),
        ("[input.lines[0], null].filter(e, e != null).map(e, e.sku)", vec![]),
        ("[input.lines[0], input.lines[0]].exists(e, e.sku == 'x')", vec![]),
    ] {
        assert_eq!(said_of(expression), said, "{expression}");
    }
}

#[test]
fn an_expression_that_nothing_is_said_of_does_not_fail() {
    on_many(100, expression(), |expression| {
        let checked = read(&definition("input", expression).to_string());
        if !checked.diagnostics.is_empty() {
            return Ok(false);
        }
        for input in inputs() {
            if let Err(message) = evaluate(expression, &input)
                // `double` of text depends on the text.
                && !(expression.contains("double") || is_about_the_value(&message))
            {
                return Err(TestCaseError::fail(format!("{expression} on {input}: {message}")));
            }
        }
        Ok(true)
    });
}

#[test]
fn a_condition_that_is_called_constant_is() {
    on_many(20, condition(), |expression| {
        let checked = read(&definition("when", expression).to_string());
        let claim = checked.diagnostics.iter().find_map(|found| match found.code {
            "DEF_WHEN_CONSTANT" => Some(true),
            "DEF_STEP_UNREACHABLE" => Some(false),
            _ => None,
        });
        let Some(claim) = claim else { return Ok(false) };
        for input in inputs() {
            if let Ok(value) = evaluate(expression, &input)
                && value != claim
            {
                return Err(TestCaseError::fail(format!("{expression} on {input}: {value}, not {claim}")));
            }
        }
        Ok(true)
    });
}
