//! What can only be told of several definitions together: sagas that start other sagas.

use std::sync::Arc;

use crate::definition::diagnostic::{Diagnostic, Place};
use crate::definition::{Compensation, Definition, Severity, Stage, Work, node};
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
    }
    found
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
}
