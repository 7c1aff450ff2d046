//! That no definition keeps the checks busy for long.

use serde_json::{Value, json};

use crate::clock::Stopwatch;
use crate::definition::read;

fn step(at: usize, when: &str, input: Value) -> Value {
    json!({"name": format!("s{at}"), "participant": "p", "action": "x", "compensation": "none", "when": format!("${{ {when} }}"), "input": input})
}

/// `count` conditions on the steps before, joined in a balanced way as the parser joins them.
fn conditions(count: usize, steps: usize) -> String {
    let each = (0..count).map(|at| format!("steps.s{}.output.a{at}", at % steps));
    each.collect::<Vec<_>>().join("||")
}

#[test]
fn conditions_that_read_one_another_are_not_followed_for_ever() {
    let mut steps: Vec<Value> = (0..4).map(|at| step(at, "input.a", json!(1))).collect();
    for at in 4..50 {
        let when = conditions(150, at);
        steps.push(step(at, &when, json!([format!("${{ {when} }}"), format!("${{ {} }}", conditions(150, at))])));
    }
    let text = json!({"saga": "s", "version": 1, "steps": steps}).to_string();
    assert!(text.len() < 1024 * 1024);
    let clock = Stopwatch::start();
    let checked = read(&text);
    assert!(
        checked.diagnostics.iter().any(|found| found.code == "DEF_OUTPUT_MISSING"),
        "{:#?}",
        checked.diagnostics.first()
    );
    assert!(clock.elapsed().as_secs() < 60, "{:?}", clock.elapsed());
}
