//! One target, named by AMENDS_FUZZ_TARGET, under libFuzzer; `fuzz/run` starts it.
#![no_main]

use std::sync::LazyLock;

use amends_fuzz::{TARGETS, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("AMENDS_FUZZ_TARGET").unwrap_or_default();
    let known: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("AMENDS_FUZZ_TARGET is `{name}`; there are {}", known.join(", ")))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.holds)(bytes));
