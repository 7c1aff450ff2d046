//! What definitions mean, and what is said about those that mean nothing.

use std::path::Path;
use std::time::Duration;

use amends::definition::{Definition, Scope, Severity, Stage, compile, json_schema, read, render};
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
        let definition = checked.definition.expect("without findings there is a definition");
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned());
        assert_eq!(name.as_deref(), Some(definition.reference.name.as_str()));
    }
}

#[test]
fn a_trip_holds_side_by_side_and_books_after_paying() {
    let definition = good(include_str!("../sagas/book-trip.yaml"));
    let at = |name: &str| definition.find(name).expect("there");
    for hold in ["hold-flight", "hold-room", "hold-car"] {
        assert!(definition.graph.dependencies(at(hold)).is_empty());
        assert_eq!(definition.stage(at(hold)), Stage::BeforePivot);
    }
    for book in ["book-flight", "book-room", "book-car"] {
        assert_eq!(definition.stage(at(book)), Stage::AfterPivot);
    }
    assert!(definition.reads_outputs);
    let input =
        json!({"tripId": "t", "traveller": "Ada", "flight": "AM1", "hotel": {"name": "h", "nights": 2}, "card": "4"});
    assert!(definition.check_input(&input.clone().into()).is_empty());
    let (flight, room) = (json!({"price": 200}), json!({"price": 150}));
    let outputs = [("hold-flight", &flight), ("hold-room", &room)];
    let scope = Scope { input: &input, saga_id: "s", saga_key: Some("t"), outputs: &outputs, item: None };
    let pay = definition.step(at("pay")).input.evaluate(&scope).expect("evaluates");
    assert_eq!(pay, json!({"tripId": "t", "card": "4", "amount": 350}));
    let car = definition.step(at("hold-car")).when.as_ref().expect("a condition");
    assert_eq!(car.holds(&scope), Ok(false));
}

#[test]
fn a_gift_is_sent_only_to_those_who_want_one() {
    let definition = good(include_str!("../sagas/loyalty-signup.yaml"));
    assert_eq!(definition.pivot(), None);
    let gift = definition.step(definition.find("send-gift").expect("there")).when.as_ref().expect("a condition");
    for (wanted, sent) in
        [(json!({"giftWanted": true}), true), (json!({"giftWanted": false}), false), (json!({}), false)]
    {
        let scope = Scope { input: &wanted, saga_id: "s", saga_key: None, outputs: &[], item: None };
        assert_eq!(gift.holds(&scope), Ok(sent), "{wanted}");
    }
}

#[test]
fn a_dependency_that_is_not_there_raises_no_false_alarms() {
    let checked = read(include_str!("definitions/bad/after-unknown-before-pivot.yaml"));
    let codes: Vec<&str> = checked.diagnostics.iter().map(|found| found.code).collect();
    assert_eq!(codes, ["DEF_AFTER_UNKNOWN"]);
}

#[test]
fn place_order_means_what_it_says() {
    let definition = good(include_str!("../sagas/place-order.yaml"));
    assert_eq!(definition.reference.to_string(), "place-order v1");
    assert_eq!(definition.timeout, Some(Duration::from_secs(900)));
    let stages: Vec<Stage> = definition.indices().map(|index| definition.stage(index)).collect();
    use Stage::{AfterPivot, BeforePivot, Pivot};
    assert_eq!(stages, [BeforePivot, BeforePivot, BeforePivot, Pivot, AfterPivot, AfterPivot]);
    assert!(definition.reads_outputs, "capturing reads what authorising put out");
    let input =
        json!({"orderId": "o-1", "customer": "c", "lines": [{"sku": "a", "quantity": 1}], "total": 5, "card": "4"});
    let scope = Scope { input: &input, saga_id: "s", saga_key: Some("o-1"), outputs: &[], item: None };
    let pay = definition.step(definition.find("authorise-payment").expect("there"));
    assert_eq!(pay.input.evaluate(&scope).expect("evaluates"), json!({"orderId": "o-1", "card": "4", "amount": 5}));
    let void = pay.compensation.action().expect("has one");
    assert_eq!(void.retry.max_attempts, Some(20));
    assert_eq!(void.retry.max_interval, Duration::from_secs(60));
    assert_eq!(definition.key_of(&input.clone().into()).expect("a key").as_deref(), Some("o-1"));
    assert!(definition.check_input(&input.into()).is_empty());
    let wrong: Value =
        json!({"orderId": "", "customer": "c", "lines": [], "total": 9_007_199_254_740_993_u64, "card": "4"});
    let pointers: Vec<String> = definition.check_input(&wrong.into()).into_iter().map(|(pointer, _)| pointer).collect();
    assert!(pointers.contains(&"/orderId".to_owned()) && pointers.contains(&"/total".to_owned()), "{pointers:?}");
}

#[test]
fn every_fault_is_explained() {
    let files = folder("tests/definitions/bad");
    assert!(files.len() >= 60, "only {} files", files.len());
    for file in files {
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
fn a_check_that_is_newer_than_a_registration_does_not_take_it_back() {
    let source = include_str!("definitions/bad/contradiction.yaml");
    assert!(read(source).definition.is_none());
    assert!(compile(source).is_some());
    assert!(compile(include_str!("definitions/bad/cycle.yaml")).is_none(), "what cannot run is refused all the same");
}

#[test]
fn nothing_is_said_of_what_is_right() {
    let files = folder("tests/definitions/good");
    assert!(files.len() >= 20, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let source = std::fs::read_to_string(&file).expect("readable");
        let checked = read(&source);
        if checked.definition.is_none() || !checked.diagnostics.is_empty() {
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            wrong.push(render(&name, &source, &checked.diagnostics, false));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
    for file in folder("sagas") {
        let source = std::fs::read_to_string(&file).expect("readable");
        // Through the reader's own eyes: as YAML it is not JSON, and only the reader knows YAML here.
        let json = amends::definition::to_json(&source).expect("YAML");
        let errors: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", file.display());
    }
}

#[test]
fn the_published_schema_knows_every_key_that_the_reader_knows() {
    /// The keys that a finding about an unknown key lists.
    fn known(definition: &Value) -> Vec<String> {
        let checked = read(&definition.to_string());
        let found = checked.diagnostics.iter().find(|found| found.code == "DEF_KEY_UNKNOWN").expect("an unknown key");
        let list = found.suggestion.as_deref().and_then(|advice| advice.strip_prefix("known here: ")).expect("a list");
        let mut keys: Vec<String> = list.split(", ").map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    }
    let schema = json_schema();
    let published = |pointer: &str| -> Vec<String> {
        let properties = schema.pointer(pointer).and_then(Value::as_object).expect("properties");
        let mut keys: Vec<String> = properties.keys().cloned().collect();
        keys.sort_unstable();
        keys
    };
    let odd = json!({"qqqqqqqqqqqqqqqq": 1});
    assert_eq!(known(&odd), published("/properties"));
    assert_eq!(known(&json!({"input": odd})), published("/properties/input/properties"));
    assert_eq!(known(&json!({"defaults": odd})), published("/properties/defaults/properties"));
    let compensation = "/properties/defaults/properties/compensation/properties";
    assert_eq!(known(&json!({"defaults": {"compensation": odd}})), published(compensation));
    assert_eq!(known(&json!({"defaults": {"retry": odd}})), published("/$defs/retry/properties"));
    assert_eq!(known(&json!({"steps": [odd]})), published("/$defs/step/properties"));
    let compensation = "/$defs/step/properties/compensation/oneOf/1/properties";
    assert_eq!(known(&json!({"steps": [{"compensation": odd}]})), published(compensation));
}

#[test]
fn yaml_and_json_of_equal_content_have_equal_hashes() {
    let yaml = good(
        "saga: s\nversion: 1\nsteps:\n  - name: a # first\n    participant: p\n    action: x\n    compensation: none\n",
    );
    let json = json!({"steps": [{"compensation": "none", "action": "x", "participant": "p", "name": "a"}], "version": 1, "saga": "s"});
    assert_eq!(yaml.hash, good(&json.to_string()).hash);
    let other = good("saga: s\nversion: 1\nsteps:\n  - { name: a, participant: p, action: y, compensation: none }\n");
    assert_ne!(yaml.hash, other.hash);
}

#[test]
fn retries_are_filled_in_field_by_field() {
    let definition = good(
        "saga: s\nversion: 1\ntimeout: 1h\ndefaults: { timeout: 5s, retry: { maxAttempts: 7, nonRetryable: [no] }, compensation: { timeout: 9s } }\n\
         steps:\n  - { name: a, participant: p, action: x, retry: { initialInterval: 250ms }, compensation: { action: u, retry: { maxAttempts: 0 } } }\n\
         \x20 - { name: b, participant: p, action: x, after: [], timeout: 2m, compensation: none, retry: { jitter: none } }\n",
    );
    let first = &definition.steps[0];
    assert_eq!((first.timeout, first.retry.max_attempts), (Duration::from_secs(5), Some(7)));
    assert_eq!(first.retry.initial_interval, Duration::from_millis(250));
    assert_eq!((first.retry.max_interval, first.retry.full_jitter), (Duration::from_secs(30), true));
    assert_eq!(first.retry.non_retryable, ["no"]);
    let undo = first.compensation.action().expect("an action");
    assert_eq!((undo.timeout, undo.retry.max_attempts), (Duration::from_secs(9), None));
    assert!(undo.retry.non_retryable.is_empty() && undo.input.is_whole_input());
    let second = &definition.steps[1];
    assert_eq!((second.timeout, second.retry.full_jitter), (Duration::from_secs(120), false));
    assert!(definition.graph.dependencies(definition.find("b").expect("there")).is_empty());
}

#[test]
fn a_key_is_text_or_a_whole_number_of_bearable_length() {
    let definition = good(
        "saga: s\nversion: 1\nkey: ${ input.id }\nsteps:\n  - { name: a, participant: p, action: x, compensation: none }\n",
    );
    let key = |id: Value| definition.key_of(&json!({ "id": id }).into());
    assert_eq!(key(json!(7)).expect("a key").as_deref(), Some("7"));
    for wrong in [
        json!(""),
        json!("x".repeat(257)),
        json!(null),
        json!(1.5),
        json!([1]),
        json!("a\u{0}"),
        json!("a\nb"),
        json!("\u{202e}a"),
    ] {
        assert!(key(wrong.clone()).is_err(), "{wrong}");
    }
    assert!(definition.key_of(&json!({}).into()).is_err());
}

#[test]
fn a_compensation_may_read_the_output_of_its_own_step() {
    let definition = good(
        "saga: s\nversion: 1\nsteps:\n  - name: a\n    participant: p\n    action: x\n    compensation: { action: u, input: { id: \"${ steps.a.output.id }\" } }\n",
    );
    assert!(definition.reads_outputs);
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\PC|\n|  |- |: |\\$\\{ |\\}|\"|'|\\[|\\{|steps|saga|input){0,120}") {
        let checked = read(&text);
        let _ = render("fuzz.yaml", &text, &checked.diagnostics, false);
    }

    #[test]
    fn no_mutation_of_a_good_definition_makes_the_reader_panic(
        at in 0_usize..4_000, length in 0_usize..40, put in "(\\PC|\n|  |\\$\\{|\\}|\"|: |- ){0,8}"
    ) {
        let source = include_str!("../sagas/place-order.yaml");
        let boundary = |at: usize| (at.min(source.len())..=source.len()).find(|&at| source.is_char_boundary(at)).unwrap_or(0);
        let (start, end) = (boundary(at), boundary(at.saturating_add(length)));
        let text = format!("{}{put}{}", &source[..start], &source[end..]);
        let checked = read(&text);
        proptest::prop_assert!(checked.definition.is_some() || !checked.diagnostics.is_empty());
        let _ = render("fuzz.yaml", &text, &checked.diagnostics, true);
    }
}
