//! Every code that a finding about a definition may have is explained, and the examples tell the truth.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use amends::definition::{Definition, Diagnostic, codes, explain, read, relations};

/// The codes that stand in the source.
fn codes_in_source() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/definition");
    let mut found = BTreeSet::new();
    for entry in walkdir::WalkDir::new(root) {
        let entry = entry.expect("src can be read");
        if entry.path().extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).expect("a source can be read");
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for part in text.split("\"DEF_").skip(1) {
            let rest = part.split('"').next().unwrap_or_default();
            found.insert(format!("DEF_{rest}"));
        }
    }
    assert!(found.len() > 50, "only {} codes were found: this test has gone blind", found.len());
    found
}

/// An example with its repetitions written out: a line that ends with `# N = a to b` is there for each number.
fn written_out(example: &str) -> String {
    let mut text = String::new();
    for line in example.lines() {
        match line.split_once(" # N = ") {
            Some((line, range)) => {
                let (first, last) = range.split_once(" to ").expect("a range");
                let (first, last): (u32, u32) = (first.parse().expect("a number"), last.parse().expect("a number"));
                for number in first..=last {
                    text.push_str(&line.replace('N', &number.to_string()));
                    text.push('\n');
                }
            }
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

/// What is told of an example, of all its definitions together.
fn findings(example: &str) -> Vec<Diagnostic> {
    let sources: Vec<String> = example.split("\n---\n").map(written_out).collect();
    let checked: Vec<_> = sources.iter().map(|source| read(source)).collect();
    let definitions: Vec<Arc<Definition>> = checked.iter().filter_map(|checked| checked.definition.clone()).collect();
    let mut all = Vec::new();
    for (source, checked) in sources.iter().zip(checked) {
        all.extend(checked.diagnostics);
        if let Some(definition) = checked.definition {
            all.extend(relations(source, &definition, &definitions));
        }
    }
    all
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let pages: BTreeSet<String> = codes().iter().map(|page| page.code.to_owned()).collect();
    assert_eq!(pages, codes_in_source());
    assert_eq!(pages.len(), codes().len(), "a code has two pages");
    assert!(explain("DEF_CYCLE").is_some_and(|page| page.text.contains("None of them could ever begin")));
    assert_eq!(explain("DEF_NONE"), None);
}

#[test]
fn every_faulty_example_is_told_exactly_its_code() {
    let mut wrong = Vec::new();
    for page in codes() {
        let told: BTreeSet<&str> = findings(page.faulty).into_iter().map(|found| found.code).collect();
        if told != BTreeSet::from([page.code]) {
            wrong.push(format!("{}: {told:?}", page.code));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_mended_example_is_clean() {
    let mut wrong = Vec::new();
    for page in codes() {
        let told = findings(page.mended);
        if !told.is_empty() || page.mended.is_empty() {
            wrong.push(format!("{}: {told:#?}", page.code));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_page_says_why_and_shows_both_examples() {
    for page in codes() {
        let why = page.text.split("The mistake:").next().unwrap_or_default().trim();
        assert!(why.len() > 20, "{}: {why}", page.code);
        assert!(!page.faulty.is_empty() && page.faulty != page.mended, "{}", page.code);
    }
}

#[test]
fn the_table_of_all_codes_has_the_pages_titles() {
    let table = include_str!("../docs/errors.md");
    for page in codes() {
        let row = format!("| `{}` | {} |", page.code, page.title);
        assert!(table.lines().any(|line| line == row), "docs/errors.md lacks: {row}");
    }
}
