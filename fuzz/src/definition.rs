//! Definitions and the expressions in them.

use amends::definition::{self, Scope, Severity, Side, Template};
use amends::picture::Picture;
use amends::testkit::{Extent, Kit, Subject};
use serde_json::{Value, json};

/// A definition is refused with codes that are explained, each at a place; or it can be compiled again, has the same
/// content in JSON, equals itself, and can be drawn in every way.
pub fn is_refused_or_usable(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let checked = definition::read(text);
    for found in &checked.diagnostics {
        assert!(definition::explain(found.code).is_some(), "{} is explained nowhere", found.code);
        assert!(found.line >= 1 && found.column >= 1, "{found:?}");
        let (start, length) = found.span;
        assert!(text.get(start..start + length).is_some(), "{found:?} is outside the text, or within a character");
        assert!(!found.message.is_empty() && !found.message.chars().any(char::is_control), "{found:?}");
    }
    let said = definition::render("fuzz.yaml", text, &checked.diagnostics, true);
    assert_eq!(said.is_empty(), checked.diagnostics.is_empty());
    let has_errors = checked.diagnostics.iter().any(|found| found.severity == Severity::Error);
    let Some(accepted) = checked.definition else { return assert!(has_errors, "refused without a reason") };
    assert!(!has_errors, "accepted in spite of {:?}", checked.diagnostics);

    let compiled = definition::compile(text).expect("what was registered once can be compiled");
    assert_eq!(compiled.hash, accepted.hash);
    let json = definition::to_json(text).expect("it was read").to_string();
    let again = definition::read(&json);
    let same = again.definition.unwrap_or_else(|| panic!("not accepted as JSON: {json}: {:?}", again.diagnostics));
    assert_eq!(same.hash, accepted.hash, "the same content in JSON");
    let changes =
        definition::diff(Side { definition: &accepted, source: text }, Side { definition: &same, source: &json });
    assert!(changes.same && changes.saga.is_empty() && changes.steps.is_empty(), "{changes:?}");

    let picture = Picture::of(&accepted);
    let svg = picture.svg();
    if let Err(error) = roxmltree::Document::parse(&svg) {
        panic!("the picture is no XML: {error}\n{svg}");
    }
    assert!(!picture.mermaid().is_empty() && !picture.dot().is_empty());
}

/// What is accepted runs to its end without a breach of a guarantee, with an input that is made up from its schema.
pub fn runs_with_what_is_made_up(bytes: &[u8]) {
    let Some(subject) = std::str::from_utf8(bytes).ok().and_then(|text| Subject::read(text).ok()) else { return };
    for extent in [Extent::Required, Extent::Everything] {
        let running = Kit::of(subject.clone()).made_up(extent).try_run();
        // No input may be made up for some schemas; that is said.
        let Ok(run) = super::runtime().block_on(running) else { continue };
        assert!(run.is_sound(), "{}", run.report("FILE"));
    }
}

/// An expression is refused, or evaluated within its limits; and says the same when it is written out and read again.
pub fn gives_a_value_or_says_why(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (template, input) = text.split_once('\n').unwrap_or((text, ""));
    let template = serde_json::from_str(template).ok().filter(Value::is_object).unwrap_or_else(|| json!(template));
    let input: Value = serde_json::from_str(input)
        .unwrap_or_else(|_| json!({"n": 2, "lines": [{"sku": "a"}, {"sku": "b"}], "name": "Ada"}));
    let template = match Template::compile(&template) {
        Ok(template) => template,
        Err(error) => return assert!(!error.message.is_empty()),
    };
    let output = json!({"id": "p-1", "amount": 12.5});
    let scope = Scope {
        input: &input,
        saga_id: "0192",
        saga_key: Some("k"),
        outputs: &[("pay", &output), ("my-step", &output)],
        item: Some((&output, 1)),
    };
    let given = template.evaluate(&scope);
    if let Err(error) = &given {
        assert!(!error.message.is_empty());
    }
    let written = template.to_json();
    let again = Template::compile(&written).unwrap_or_else(|error| panic!("cannot be read again: {written}: {error}"));
    assert_eq!(again.to_json(), written);
    match (given, again.evaluate(&scope)) {
        (Ok(value), again) => assert_eq!(Ok(value), again, "{written}"),
        (Err(_), again) => assert!(again.is_err(), "{written}"),
    }
}
