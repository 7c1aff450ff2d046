//! What definitions mean, and what is said about those that mean nothing.

use std::path::Path;
use std::time::Duration;

use amends::definition::{Definition, Scope, Severity, Stage, json_schema, read, render};
use serde_json::{Value, json};

fn good(source: &str) -> std::sync::Arc<Definition> {
    let checked = read(source);
    checked.definition.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics))
}

fn folder(name: &str) -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_shipped_saga_is_sound() {
    for file in folder("sagas") {
        let checked = read(&std::fs::read_to_string(&file).expect("readable"));
        assert!(checked.diagnostics.is_empty(), "{}: {:#?}", file.display(), checked.diagnostics);
    }
}

#[test]
fn place_order_means_what_it_says() {
    let definition = good(include_str!("../sagas/place-order.yaml"));
    assert_eq!(definition.reference.to_string(), "place-order v1");
    assert_eq!(definition.timeout, Some(Duration::from_secs(900)));
    let stages: Vec<Stage> = definition.indices().map(|index| definition.stage(index)).collect();
    use Stage::{AfterPivot, BeforePivot, Pivot};
    assert_eq!(stages, [BeforePivot, BeforePivot, BeforePivot, Pivot, AfterPivot, AfterPivot]);
    assert!(!definition.reads_outputs);
    let input = json!({"orderId": "o-1", "customer": "c", "lines": [{"sku": "a", "quantity": 1}], "total": 5, "card": "4"});
    let scope = Scope { input: &input, saga_id: "s", saga_key: Some("o-1"), outputs: &[] };
    let pay = definition.step(definition.find("authorise-payment").expect("there"));
    assert_eq!(
        pay.input.evaluate(&scope).expect("evaluates"),
        json!({"orderId": "o-1", "card": "4", "amount": 5})
    );
    assert!(definition.step(definition.find("create-order").expect("there")).input.is_whole_input());
    let void = pay.compensation.action().expect("has one");
    assert_eq!(void.retry.max_attempts, Some(20));
    assert_eq!(void.retry.max_interval, Duration::from_secs(300));
    assert_eq!(definition.key_of(&input.clone().into()).expect("a key").as_deref(), Some("o-1"));
    assert!(definition.check_input(&input.into()).is_empty());
    let wrong: Value = json!({"orderId": "", "customer": "c", "lines": [], "total": 9_007_199_254_740_993_u64, "card": "4"});
    let pointers: Vec<String> = definition.check_input(&wrong.into()).into_iter().map(|(pointer, _)| pointer).collect();
    assert!(pointers.contains(&"/orderId".to_owned()) && pointers.contains(&"/total".to_owned()), "{pointers:?}");
}

#[test]
fn every_fault_is_explained() {
    for file in folder("tests/definitions/bad") {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&file).expect("readable");
        let checked = read(&source);
        assert!(!checked.diagnostics.is_empty(), "{name} has no fault");
        let errors = checked.diagnostics.iter().any(|found| found.severity == Severity::Error);
        assert_eq!(checked.definition.is_none(), errors, "{name}");
        for found in &checked.diagnostics {
            assert!(found.code.starts_with("DEF_"), "{name}: {found:?}");
            assert_eq!(source.get(found.span.0..found.span.0 + found.span.1), Some(found.text.as_str()), "{name}");
        }
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), render(&name, &source, &checked.diagnostics, false));
    }
}

#[test]
fn the_published_schema_agrees_with_the_reader() {
    let validator = jsonschema::validator_for(&json_schema()).expect("a valid schema");
    let minimal = json!({"saga": "s", "version": 1, "steps": [{"name": "a", "participant": "p", "action": "x", "compensation": "none"}]});
    assert!(validator.is_valid(&minimal));
    assert!(read(&minimal.to_string()).definition.is_some());
    let mut unknown = minimal;
    unknown["stpes"] = json!([]);
    assert!(!validator.is_valid(&unknown));
}
