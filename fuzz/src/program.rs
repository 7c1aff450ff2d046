//! What people write for the program: fault plans, faults, the settings file.

use amends::cli::settings::Settings;
use amends::testkit::{Fault, Kit, Plan, Subject};

const SAGA: &str = include_str!("../../sagas/place-order.yaml");

/// A plan is refused, or comes back as it is written, and runs without a breach of a guarantee.
pub fn is_refused_or_runs(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let plan = match Plan::read(text) {
        Ok(plan) => plan,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = serde_json::to_string(&plan).expect("a plan can be written");
    assert_eq!(Plan::read(&written).ok().as_ref(), Some(&plan), "{written}");
    let subject = Subject::read(SAGA).expect("a shipped saga");
    match super::runtime().block_on(Kit::of(subject).plan(plan).try_run()) {
        Ok(run) => assert!(run.is_sound(), "{}", run.report("sagas/place-order.yaml")),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A fault comes back as it is written.
pub fn reads_as_it_is_written(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match text.parse::<Fault>() {
        Ok(fault) => assert_eq!(fault.to_string().parse(), Ok(fault)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A settings file is refused with line and column and a way out, or means the same when it is written anew.
pub fn is_refused_with_place_and_help(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Settings::from_file_text(text) {
        Ok(settings) => {
            let mut table = toml::Table::new();
            let Settings { store, broker, http, url, tokens, .. } = settings.clone();
            for (key, value) in [("store", store), ("broker", broker), ("http", http), ("url", url)] {
                table.extend(value.map(|value| (key.to_owned(), value.into())));
            }
            let entries = tokens.into_iter().map(|token| {
                let fields = [("name", token.name), ("role", token.role), ("sha256", token.sha256)];
                toml::Value::Table(fields.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
            });
            table.insert("tokens".to_owned(), entries.collect::<Vec<_>>().into());
            let written = table.to_string();
            assert_eq!(Settings::from_file_text(&written).ok().as_ref(), Some(&settings), "{written}");
        }
        Err((problem, help)) => {
            assert!(problem.starts_with("line ") && problem.contains(", column "), "no place: {problem}");
            assert!(!problem.chars().any(char::is_control), "{problem:?}");
            assert!(!help.is_empty(), "no way out of {problem}");
        }
    }
}
