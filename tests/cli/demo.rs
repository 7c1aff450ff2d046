//! `amends demo`: it checks itself, and here it is checked that it shows what it promises.

use crate::program::{Program, amends};

#[test]
fn every_shipped_saga_is_played_and_every_planned_fault_happens() {
    let said = amends(&["demo", "--output", "json"]);
    // Otherwise something did not go as planned: a fault that did not fire, books that do not add up.
    assert_eq!(said.code, 0, "{said}");
    let document: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
    let ends = |saga: &str, state: &str| {
        let items = document["items"].as_array().expect("a list").iter();
        items.filter(|item| item["saga"] == format!("{saga} v1") && item["state"] == state).count()
    };
    for saga in ["place-order", "book-trip", "loyalty-signup"] {
        assert!(ends(saga, "COMPLETED") > 0 && ends(saga, "COMPENSATED") > 0, "{saga}: {said}");
    }
    assert!(said.stdout.contains("pick was tried 2 times"), "{said}");
    assert!(said.stdout.contains("an operator had it tried again"), "{said}");
}

#[test]
fn the_demo_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = Program::new(&["demo"]).env("TMPDIR", &folder.path().display().to_string()).run();
    assert_eq!(said.code, 0, "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0);
}
