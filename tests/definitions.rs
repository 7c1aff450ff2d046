//! What definitions mean, and what is said about those that mean nothing.

use std::path::Path;
use std::time::Duration;

use amends::definition::{Definition, Scope, Stage, read};
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
