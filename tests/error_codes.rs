//! `docs/errors.md` has every code that the source can give, and none that it cannot.

use std::collections::BTreeSet;
use std::path::Path;

/// How a family of codes begins, and where the source says them: in these files as string literals.
const FAMILIES: &[(&str, &str)] = &[
    ("DEF_", "src/definition"),
    ("ARCHIVE_", "src/archive"),
    ("BULK_", "src/coordinator/bulk"),
    ("REPLY_", "src/message"),
    ("REPLY_", "src/coordinator"),
    ("REQUEST_", "src/coordinator/requests.rs"),
];

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_code(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') && word.len() > 3
}

/// The string literals in the source files under `path` that begin with `family`.
fn literals(family: &str, path: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut found = BTreeSet::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("the source can be read");
        if entry.path().extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(entry.path()).expect("it is text");
            let words = text.split('"').filter(|word| word.starts_with(family) && is_code(word));
            found.extend(words.map(str::to_owned));
        }
    }
    assert!(!found.is_empty(), "{path} has no {family} any more: mend this test");
    found
}

/// `CODE = 409 "title";` within `kinds! { }`, with the status.
fn kinds() -> BTreeSet<(String, String)> {
    let text = text("src/api/problem.rs");
    let (_, list) = text.split_once("\nkinds! {").expect("the list of kinds");
    let (list, _) = list.split_once("\n}").expect("its end");
    let kinds: BTreeSet<_> = list
        .lines()
        .filter_map(|line| line.trim().split_once(" = "))
        .filter_map(|(code, rest)| Some((code.to_owned(), rest.split(' ').next()?.to_owned())))
        .collect();
    assert!(kinds.len() > 40, "{kinds:?}");
    kinds
}

/// What stands in the first two columns of the page's tables, where the first is a code.
fn on_the_page() -> Vec<(String, String)> {
    let page = text("docs/errors.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.filter(|(code, _)| is_code(code))
        .map(|(code, rest)| (code.to_owned(), rest.split(" | ").next().unwrap_or_default().to_owned()))
        .collect()
}

#[test]
fn every_code_is_on_the_page_and_every_code_on_the_page_is_given() {
    let mut given: BTreeSet<String> = kinds().into_iter().map(|(code, _)| code).collect();
    given.extend(FAMILIES.iter().flat_map(|(family, path)| literals(family, path)));
    let told: BTreeSet<String> = on_the_page().into_iter().map(|(code, _)| code).collect();
    let missing: Vec<_> = given.difference(&told).collect();
    let stale: Vec<_> = told.difference(&given).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    assert!(stale.is_empty(), "in docs/errors.md, but nothing gives them: {stale:?}");
}

#[test]
fn no_code_is_on_the_page_twice() {
    let mut seen = BTreeSet::new();
    for (code, _) in on_the_page() {
        assert!(seen.insert(code.clone()), "{code} is in docs/errors.md twice");
    }
}

#[test]
fn the_page_has_the_statuses_that_are_answered() {
    let told: BTreeSet<_> = on_the_page().into_iter().collect();
    for kind in kinds() {
        assert!(told.contains(&kind), "docs/errors.md has another status for {}: {} is answered", kind.0, kind.1);
    }
}
