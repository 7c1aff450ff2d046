//! `amends definitions simulate` and `amends simulate`, as people and programs see them.

use serde_json::Value;

use amends::testkit::FaultKind;

use crate::program::{Program, Said};

const PLACE_ORDER: &str = include_str!("../../sagas/place-order.yaml");

fn simulate(arguments: &[&str]) -> Said {
    let all: Vec<&str> = ["definitions", "simulate", "place-order.yaml"].iter().chain(arguments).copied().collect();
    Program::new(&all).file("place-order.yaml", PLACE_ORDER).run()
}

#[test]
fn a_fault_is_seen_in_the_timeline_and_the_saga_gets_over_it() {
    let said = simulate(&["--fault", "authorise-payment#2=timeout"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let struck = said.stdout.lines().find(|line| line.contains("!! nobody answers")).expect("the fault is told");
    assert!(struck.contains("authorise-payment") && struck.contains("#2"), "{struck}");
    assert!(said.stdout.contains("input (made up from the schema): {"), "{}", said.stdout);
    assert!(said.stdout.contains("place-order v1 with authorise-payment#2=timeout: COMPLETED"), "{}", said.stdout);
}

#[test]
fn a_simulation_is_told_in_json() {
    let input = r#"{"orderId":"o-1","customer":"c","lines":[{"sku":"a","quantity":1}],"total":5,"card":"4"}"#;
    let said = simulate(&["--input", input, "--fault", "pick=fail", "--output", "json"]);
    let told: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((said.code, &told["state"], &told["inputMadeUp"]), (0, &"COMPENSATED".into(), &false.into()));
    assert_eq!(told["undone"], serde_json::json!(["authorise-payment", "create-order"]));
    assert_eq!(told["input"]["orderId"], "o-1");
    assert!(told["timeline"].as_array().is_some_and(|lines| lines.len() > 10));
}

#[test]
fn a_fault_that_never_strikes_fails_with_the_line_that_runs_it_again() {
    let said = simulate(&["--fault", "undo:pick=fail"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("`undo:pick#1=fail` never struck"), "{}", said.stderr);
    assert!(said.stderr.contains("again: amends definitions simulate place-order.yaml --input '{"), "{}", said.stderr);
}

#[test]
fn what_cannot_be_simulated_is_a_usage_error() {
    for (arguments, words) in [
        (&["--fault", "gone=fail"][..], "has no step `gone`; it has create-order"),
        (&["--fault", "pick=frobnicate"], "there is no fault `frobnicate`"),
        (&["--fault", "undo:dispatch=fail"], "has no compensation"),
        (&["--input", "{\"orderId\": 1}"], "does not fit the schema"),
        (&["--input", "{"], "no JSON"),
        (&["--input", "gone.json"], "cannot be read"),
    ] {
        let said = simulate(arguments);
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
    }
}

#[test]
fn every_fault_of_a_small_saga_is_placed_and_counted() {
    let small = "saga: small\nversion: 1\ndefaults: { retry: { maxAttempts: 2 } }\nsteps:\n\
        \x20 - { name: a, participant: p, action: x, compensation: { action: u, retry: { maxAttempts: 2 } } }\n\
        \x20 - { name: b, participant: q, action: x, pivot: true, compensation: none }\n";
    let run = |arguments: &[&str]| {
        let all: Vec<&str> =
            ["definitions", "simulate", "small.yaml", "--every-fault"].iter().chain(arguments).copied().collect();
        Program::new(&all).file("small.yaml", small).run()
    };
    let said = run(&["--output", "json"]);
    let told: Value = serde_json::from_str(&said.stdout).expect("JSON");
    assert_eq!((said.code, &told["bad"]), (0, &0.into()), "{}", said.stderr);
    let placements = told["placements"].as_u64().expect("a number");
    assert!(placements > 150, "{placements}");
    assert_eq!(told["items"].as_array().map(Vec::len), usize::try_from(placements).ok());
    let said = run(&[]);
    assert!(said.stdout.contains(&format!("small v1: {placements} placements tried, 0 bad")), "{}", said.stdout);
    assert!(said.stdout.lines().any(|line| line.starts_with("undo:a late-reply")), "{}", said.stdout);
}

#[test]
fn plans_in_yaml_are_run_and_held_to_what_they_expect() {
    let plan = "definition: place-order.yaml\nfaults: [pick#1=fail, undo:create-order#1=retry]\n\
        expect: { state: COMPENSATED, undone: [authorise-payment, create-order] }\n";
    let run = |plan: &str| {
        Program::new(&["simulate", "plan.yaml"]).file("place-order.yaml", PLACE_ORDER).file("plan.yaml", plan).run()
    };
    let said = run(plan);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("COMPENSATED, as expected"), "{}", said.stdout);
    let said = run(&plan.replace("COMPENSATED", "COMPLETED"));
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("expected the end COMPLETED, found COMPENSATED"), "{}", said.stderr);
    for (wrong, words) in [
        ("faults: []\n", "`definition`, the definition's file, is missing"),
        ("definition: place-order.yaml\nfautls: []\n", "unknown field `fautls`"),
        ("definition: gone.yaml\n", "cannot be read"),
    ] {
        let said = run(wrong);
        assert_eq!(said.code, 2, "{}", said.stderr);
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
}

#[test]
fn a_plan_in_yaml_takes_every_kind_of_fault_on_actions_and_compensations() {
    let guide = include_str!("../../docs/testing-sagas.md");
    let mut plans: Vec<(String, String)> = Vec::new();
    for kind in FaultKind::ALL {
        assert!(guide.contains(&format!("`{kind}`")), "docs/testing-sagas.md does not tell of {kind}");
        if kind == FaultKind::Early {
            // Only of waits, which place-order has none of.
            continue;
        }
        for (name, faults) in [
            ("first", format!("pick#1={kind}")),
            ("second", format!("pick#2={kind}")),
            ("undone", format!("pick#1=fail, undo:authorise-payment#1={kind}")),
        ] {
            let plan = format!("definition: place-order.yaml\nfaults: [\"{}\"]\n", faults.replace(", ", "\", \""));
            plans.push((format!("{kind}-{name}.yaml"), plan));
        }
    }
    let names = plans.iter().map(|(name, _)| name.as_str());
    let arguments: Vec<&str> = std::iter::once("simulate").chain(names).collect();
    let program = Program::new(&arguments).patient().file("place-order.yaml", PLACE_ORDER);
    let said = plans.iter().fold(program, |program, (name, plan)| program.file(name, plan)).run();
    assert_eq!(said.code, 0, "{}", said.stderr);
    let as_expected = said.stdout.lines().filter(|line| line.ends_with("as expected")).count();
    assert_eq!(as_expected, (FaultKind::ALL.len() - 1) * 3, "{}", said.stdout);
}

#[test]
fn a_plan_that_goes_wrong_is_told_with_its_seed_its_timeline_and_the_line_that_runs_it_again() {
    let plan = |reason: &str| {
        format!(
            "definition: place-order.yaml\nseed: 7\nfaults: [pick#1=fail, undo:create-order#1=fail]\n\
             expect: {{ state: STUCK, undone: [authorise-payment], stuck: {reason} }}\n"
        )
    };
    let run = |plan: &str| {
        Program::new(&["simulate", "plan.yaml"]).file("place-order.yaml", PLACE_ORDER).file("plan.yaml", plan).run()
    };
    let said = run(&plan("planned-failure"));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = run(&plan("timeout"));
    assert_eq!(said.code, 1, "{}", said.stdout);
    let told = &said.stderr;
    assert!(told.contains("place-order v1 with pick#1=fail undo:create-order#1=fail (seed 7) ended STUCK"), "{told}");
    assert!(told.contains("expected to be stuck because of `timeout`"), "{told}");
    let line = told.lines().find(|line| line.contains("turns back")).expect("a timeline");
    assert!(line.trim_start().starts_with("0.") && line.is_ascii(), "{line}");
    let again = told.lines().find_map(|line| line.trim().strip_prefix("again: ")).expect("one line");
    for part in ["amends definitions simulate ", "place-order.yaml", "--fault 'undo:create-order#1=fail'", "--seed 7"] {
        assert!(again.contains(part), "{again}");
    }
}

#[test]
fn every_fault_in_every_shipped_saga_is_counted_and_none_is_bad() {
    let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas");
    let mut told = Vec::new();
    for file in std::fs::read_dir(shipped).expect("the folder") {
        let path = file.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        // One input, with what its schema requires; both extents of it are tried by tests/testkit.rs.
        let source = std::fs::read_to_string(&path).expect("readable");
        let subject = amends::testkit::Subject::read(&source).expect("sound");
        let input = subject.made_up_input(amends::testkit::Extent::Required).expect("made up").to_string();
        let path = path.display().to_string();
        let said =
            Program::new(&["definitions", "simulate", &path, "--every-fault", "--input", &input]).patient().run();
        assert_eq!(said.code, 0, "{name}: {}", said.stderr);
        let line = said.stdout.lines().last().unwrap_or_default();
        let counts = line.strip_prefix(&format!("{name} v1: ")).unwrap_or_else(|| panic!("{name}: {line}"));
        let (placements, rest) = counts.split_once(" placements tried, ").unwrap_or_else(|| panic!("{line}"));
        assert!(rest.starts_with("0 bad"), "{line}");
        assert!(placements.replace(',', "").parse::<usize>().is_ok_and(|count| count > 300), "{line}");
        told.push(line.to_owned());
    }
    assert!(told.len() >= 6, "{told:?}");
}
