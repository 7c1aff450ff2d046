//! `docs/guarantees.md` names tests and files that exist, and says the same of each guarantee.

use std::collections::BTreeSet;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/guarantees.md")).expect("the page")
}

/// What stands between backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split('`').skip(1).step_by(2)
}

/// The names of all functions in tests, and in the sources' own tests.
fn functions() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["tests", "src"] {
        for entry in walkdir::WalkDir::new(root().join(folder)) {
            let entry = entry.expect("readable");
            if entry.path().extension().is_none_or(|end| end != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(entry.path()).expect("text");
            let name = |rest: &str| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned);
            names.extend(text.split("fn ").skip(1).filter_map(name));
        }
    }
    assert!(names.len() > 1_000, "only {} functions were seen: this test has gone blind", names.len());
    names
}

/// Tests are named by claims: several words.
fn is_a_claim(word: &str) -> bool {
    let is_name = word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    is_name && word.matches('_').count() >= 3
}

#[test]
fn every_test_that_is_named_exists() {
    let (page, functions) = (page(), functions());
    let named: BTreeSet<&str> = quoted(&page).filter(|word| is_a_claim(word)).collect();
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "named in docs/guarantees.md, but there are no such tests: {missing:#?}");
}

#[test]
fn every_file_that_is_named_exists() {
    let page = page();
    let files = quoted(&page).filter(|word| {
        ["src/", "tests/", "migrations/", "sagas/"].iter().any(|folder| word.starts_with(folder)) && !word.contains(' ')
    });
    let missing: Vec<_> = files.filter(|file| !root().join(file).exists()).collect();
    assert!(missing.is_empty(), "named in docs/guarantees.md, but not there: {missing:#?}");
}

#[test]
fn every_guarantee_says_what_it_rests_on_how_it_is_tested_and_what_is_not_promised() {
    let page = page();
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    for number in 1..=16 {
        let of: Vec<_> = sections.iter().filter(|section| section.starts_with(&format!("{number}. "))).collect();
        let [section] = of.as_slice() else { panic!("{} sections for guarantee {number}", of.len()) };
        for part in ["**Rests on** ", "**Tested by** ", "**Not promised:** "] {
            assert_eq!(section.matches(part).count(), 1, "guarantee {number}: {part}");
        }
        let (_, tests) = section.split_once("**Tested by** ").expect("tests");
        let (tests, _) = tests.split_once("**Not promised:** ").expect("an end");
        assert!(quoted(tests).any(is_a_claim), "guarantee {number} names no test");
    }
}
