//! What can only be told of several definitions together: sagas that start other sagas.

use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use crate::definition::diagnostic::{Diagnostic, Place};
use crate::definition::{Compensation, Definition, Severity, Stage, Template, Work, node};
use crate::id::StepIndex;

/// How many sagas may start one another before it is no longer followed.
const MAX_DEPTH: usize = 32;

/// What is wrong between `definition`, whose text is `source`, and those of `others` that it starts. Where a version is
/// not given, it is the newest there.
pub fn relations(source: &str, definition: &Definition, others: &[Arc<Definition>]) -> Vec<Diagnostic> {
    let Ok(parsed) = node::parse(source) else { return Vec::new() };
    let place = |at: StepIndex| {
        let step = parsed.root.get("steps").and_then(|steps| steps.item(at.at()));
        step.and_then(|step| step.get("saga")).map_or(Place::START, |saga| saga.place)
    };
    let mut found = Vec::new();
    for (index, step) in definition.indices().map(|index| (index, definition.step(index))) {
        let Work::Saga { name, version } = &step.work else { continue };
        let told = |code, severity, message: String, advice: &str| {
            let pointer = format!("/steps/{}/saga", index.at());
            let mut found = Diagnostic::error(code, source, place(index), pointer, message);
            found.severity = severity;
            found.suggestion = Some(advice.to_owned());
            found
        };
        let mut way = Way { names: vec![&definition.reference.name, name], is_conditional: step.when.is_some() };
        if circle(definition, others, &mut way, &mut Vec::new()) {
            let circle = way;
            // A condition may end it; without one it never does.
            let severity = if circle.is_conditional { Severity::Warning } else { Severity::Error };
            let message = format!("these sagas start one another: {}", circle.names.join(" -> "));
            let advice = "let one of them do its work itself, or see to it that a `when` ends the circle";
            found.push(told("DEF_SAGA_CIRCLE", severity, message, advice));
            continue;
        }
        let Some(child) = find(definition, others, name, *version) else { continue };
        if let Some(pivot) = child.pivot()
            && definition.stage(index) == Stage::BeforePivot
            && matches!(step.compensation, Compensation::Action(_))
        {
            let pivot = &child.step(pivot).name;
            let message = format!("`{name}` has a pivot, `{pivot}`: once that was sent, it cannot be sent back");
            let advice = "start it after the pivot or as the pivot, or write `compensation: none` if it may stand";
            found.push(told("DEF_SAGA_PIVOT", Severity::Error, message, advice));
        }
        if let Some(missing) = unfit(&step.input, child) {
            // Without a version it is the newest when the saga starts it, which may be another one by then.
            let severity = if version.is_some() { Severity::Error } else { Severity::Warning };
            let message = format!("`{}` does not take this input: {missing}", child.reference);
            let advice = "give what its input schema asks for, or start a version that takes this input";
            found.push(told("DEF_SAGA_INPUT", severity, message, advice));
        }
    }
    found
}

/// Why an input, whatever its expressions give, does not fit the schema of the saga that is started with it; `None` where
/// that depends on them.
fn unfit(input: &Template, child: &Definition) -> Option<String> {
    let schema = child.input_schema.as_ref()?;
    // The command says which saga, and its input in a field. A single expression may give anything.
    let command = input.to_json();
    let template = command.get("input")?;
    let fields = template.as_object()?;
    let certain = |error: &jsonschema::ValidationError<'_>| {
        // Beneath a condition or a choice an expression may decide.
        let keywords: Vec<&str> = error.schema_path().as_str().split('/').skip(1).collect();
        let is_direct = match keywords.as_slice() {
            [_] => true,
            ["properties", _, ..] => !keywords.iter().any(|keyword| CHOICES.contains(keyword)),
            _ => false,
        };
        let path = error.instance_path().as_str();
        let first = path.split('/').nth(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
        is_direct
            && match first {
                None => matches!(
                    error.kind(),
                    ValidationErrorKind::Required { .. } | ValidationErrorKind::AdditionalProperties { .. }
                ),
                Some(name) => fields.get(&name).is_some_and(is_literal),
            }
    };
    let found = schema.iter_errors(template).find(certain)?;
    let place = found.instance_path().as_str();
    Some(if place.is_empty() { found.to_string() } else { format!("{place}: {found}") })
}

/// Keywords beneath which what does not fit need not matter.
const CHOICES: [&str; 9] =
    ["anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies", "contains"];

/// Whether there is no expression in it. One that is written out, as `$${`, counts as one: nothing is said of it.
fn is_literal(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains("${"),
        Value::Array(items) => items.iter().all(is_literal),
        Value::Object(fields) => fields.values().all(is_literal),
        _ => true,
    }
}

struct Way<'d> {
    names: Vec<&'d str>,
    is_conditional: bool,
}

/// Whether the way leads back to where it began; it is that way then.
fn circle<'d>(own: &'d Definition, others: &'d [Arc<Definition>], way: &mut Way<'d>, seen: &mut Vec<&'d str>) -> bool {
    let (Some(&first), Some(&last)) = (way.names.first(), way.names.last()) else { return false };
    if first == last {
        return true;
    }
    if way.names.len() > MAX_DEPTH || seen.contains(&last) {
        return false;
    }
    seen.push(last);
    let Some(next) = find(own, others, last, None) else { return false };
    for step in &next.steps {
        let Work::Saga { name, .. } = &step.work else { continue };
        let was_conditional = way.is_conditional;
        way.is_conditional |= step.when.is_some();
        way.names.push(name);
        if circle(own, others, way, seen) {
            return true;
        }
        way.names.pop();
        way.is_conditional = was_conditional;
    }
    false
}

fn find<'d>(
    own: &'d Definition,
    others: &'d [Arc<Definition>],
    name: &str,
    version: Option<u32>,
) -> Option<&'d Definition> {
    let all = others.iter().map(|other| &**other).chain([own]).filter(|other| other.reference.name == name);
    let fitting = all.filter(|other| version.is_none_or(|version| other.reference.version == version));
    fitting.max_by_key(|other| other.reference.version)
}

#[cfg(test)]
mod tests {
    use crate::definition::read;

    use super::*;

    fn saga(name: &str, steps: &str) -> (String, Arc<Definition>) {
        let source = format!("saga: {name}\nversion: 1\nsteps:\n{steps}");
        let checked = read(&source);
        let definition = checked.definition.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
        (source, definition)
    }

    #[test]
    fn sagas_that_start_one_another_are_told_with_the_way() {
        let (source, a) = saga("a", "  - { name: b, saga: b }\n");
        let (_, b) = saga("b", "  - { name: c, saga: c }\n");
        let (_, c) = saga("c", "  - { name: a, saga: a, when: \"${ input.more }\" }\n");
        assert!(relations(&source, &a, std::slice::from_ref(&b)).is_empty());
        let found = relations(&source, &a, &[b, c]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].code, found[0].severity, found[0].text.as_str()),
            ("DEF_SAGA_CIRCLE", Severity::Warning, "b")
        );
        assert!(found[0].message.contains("a -> b -> c -> a"), "{}", found[0].message);
    }

    #[test]
    fn a_sub_saga_that_cannot_go_back_stands_at_or_after_the_pivot() {
        let (_, child) =
            saga("child", "  - { name: pay, participant: p, action: x, pivot: true, compensation: none }\n");
        let others = [child];
        let codes = |steps: &str| {
            let (source, parent) = saga("parent", steps);
            relations(&source, &parent, &others).into_iter().map(|found| found.code).collect::<Vec<_>>()
        };
        assert_eq!(codes("  - { name: c, saga: child }\n"), ["DEF_SAGA_PIVOT"]);
        assert!(codes("  - { name: c, saga: child, compensation: none }\n").is_empty());
        assert!(codes("  - { name: c, saga: child, pivot: true, compensation: none }\n").is_empty());
    }

    #[test]
    fn an_input_that_can_never_fit_the_sub_saga_is_told_and_one_that_may_is_not() {
        let schema = "{ type: object, required: [id, tier], additionalProperties: false, if: { properties: { tier: { const: gold } } }, then: {}, else: { required: [reason] }, \
            properties: { id: { type: string }, tier: { enum: [basic, gold] }, reason: { type: string }, at: { anyOf: [{ type: string }, { type: integer }] } } }";
        let source = format!(
            "saga: child\nversion: 1\ninput: {{ schema: {schema} }}\nsteps:\n  - {{ name: a, participant: p, action: x, compensation: none }}\n"
        );
        let child = read(&source).definition.expect("sound");
        let told = |input: &str, version: &str| {
            let (source, parent) = saga("parent", &format!("  - {{ name: c, saga: child{version}, {input} }}\n"));
            let found = relations(&source, &parent, std::slice::from_ref(&child));
            assert!(found.iter().all(|found| found.code == "DEF_SAGA_INPUT"), "{found:?}");
            found.into_iter().next()
        };
        for fits in [
            "input: \"${ input }\"",
            "input: { id: \"${ input.id }\", tier: \"${ input.tier }\" }",
            "input: { id: x, tier: \"${ input.tier }\", at: \"${ input.at }\" }",
            "input: { id: \"a $${ b\", tier: gold }",
        ] {
            assert_eq!(told(fits, ""), None, "{fits}");
        }
        for (unfit, words) in [
            ("input: { id: \"${ input.id }\" }", "tier"),
            ("input: {}", "id"),
            ("input: { id: 1, tier: gold }", "/id: 1"),
            ("input: { id: x, tier: silver }", "/tier: \"silver\""),
            ("input: { id: x, tier: gold, more: \"${ input.more }\" }", "more"),
        ] {
            let warning = told(unfit, "").unwrap_or_else(|| panic!("nothing is told of {unfit}"));
            assert!(warning.message.contains(words), "{unfit}: {}", warning.message);
            assert_eq!(warning.severity, Severity::Warning, "a newer version may take it");
            assert_eq!(told(unfit, ", version: 1").expect("told").severity, Severity::Error);
        }
    }
}
