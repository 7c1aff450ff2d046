//! The habits of the code base that a compiler does not check: imports point one way, pure modules stay pure, files
//! stay short, and some words stay out.

use std::path::{Path, PathBuf};

/// The top-level modules in the order of data flow: a module imports only from those before it.
const ORDER: &[&str] = &[
    "id",
    "clock",
    "failpoint",
    "payload",
    "trace",
    "action",
    "definition",
    "saga",
    "picture",
    "message",
    "telemetry",
    "store",
    "archive",
    "broker",
    "coordinator",
    "participant",
    "testkit",
    "client",
    "webhook",
    "api",
    "console",
    "namespaces",
    "cli",
];

/// Modules without IO.
const PURE: &[&str] = &["id", "clock", "payload", "trace", "action", "definition", "saga", "picture", "message"];

/// What pure modules do not know.
const IO: &[&str] = &["tokio", "sqlx", "lapin", "axum", "reqwest"];

/// The longest file, in lines.
const LONGEST: usize = 600;

/// Words that stay out of the code, tests aside. Spelled in halves, so that this file may be checked too.
const BANNED: &[&str] =
    &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!(".unwrap", "()")];

struct Source {
    path: PathBuf,
    module: String,
    text: String,
}

impl Source {
    /// Its lines with their numbers, without comments and without the unit tests at its end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let before_tests = self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        before_tests.enumerate().filter(move |(_, line)| is_code(line)).map(|(at, line)| (at + 1, line))
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let entry = entry.expect("src can be read");
        if entry.path().extension().is_none_or(|end| end != "rs") {
            continue;
        }
        let inside = entry.path().strip_prefix(&root).expect("inside src");
        let first = inside.components().next().expect("a first part").as_os_str().to_string_lossy();
        sources.push(Source {
            path: inside.to_owned(),
            module: first.trim_end_matches(".rs").to_owned(),
            text: std::fs::read_to_string(entry.path()).expect("a source can be read"),
        });
    }
    assert!(sources.len() > 30, "the walk found only {} sources", sources.len());
    sources
}

fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// The top-level modules that a line names as `crate::name`, also in `use crate::{a, b}` on one line.
fn imports(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split('}').next().unwrap_or_default();
            found.extend(group.split(',').map(|item| item.trim().split("::").next().unwrap_or_default()));
        } else {
            found.push(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default());
        }
    }
    found
}

#[test]
fn imports_point_only_upward() {
    let place = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut findings = Vec::new();
    let mut seen = 0;
    for source in sources() {
        let Some(own) = place(&source.module) else { continue };
        for (number, line) in source.code() {
            for imported in imports(line) {
                let Some(other) = place(imported) else { continue };
                seen += 1;
                if other > own {
                    findings.push(format!("{}:{number}: {} imports {imported}", source.path.display(), source.module));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were seen: this test has gone blind");
    none(findings);
}

#[test]
fn every_top_level_module_has_its_place() {
    let mut findings = Vec::new();
    for source in sources() {
        if !["lib", "main"].contains(&&*source.module) && !ORDER.contains(&&*source.module) {
            findings.push(format!("{}: give `{}` a place in ORDER", source.path.display(), source.module));
        }
    }
    none(findings);
}

#[test]
fn pure_modules_know_no_io() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|source| PURE.contains(&&*source.module)) {
        for (number, line) in source.code() {
            for name in IO.iter().filter(|name| line.contains(&format!("{name}::"))) {
                findings.push(format!("{}:{number}: {} uses {name}", source.path.display(), source.module));
            }
        }
    }
    none(findings);
}

#[test]
fn no_file_is_too_long() {
    let sources = sources();
    let long = sources.iter().map(|source| (source, source.text.lines().count())).filter(|(_, lines)| *lines > LONGEST);
    none(
        long.map(|(source, lines)| format!("{}: {lines} lines, {LONGEST} are allowed", source.path.display()))
            .collect(),
    );
}

#[test]
fn banned_words_stay_out() {
    let mut findings = Vec::new();
    for source in sources() {
        for (number, line) in source.code() {
            for word in BANNED.iter().filter(|word| line.contains(**word)) {
                findings.push(format!("{}:{number}: {word}", source.path.display()));
            }
        }
    }
    none(findings);
}

#[test]
fn imports_are_found_in_every_form() {
    assert_eq!(imports("use crate::store::{Store, StoreError};"), ["store"]);
    assert_eq!(imports("use crate::{broker, store::Store};"), ["broker", "store"]);
    assert_eq!(imports("fn f(x: crate::id::SagaId, y: crate::saga::Saga) {}"), ["id", "saga"]);
}
