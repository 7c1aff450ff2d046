//! Wall clocks that a test can set, one per process, by a preloaded library.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, and a file per clock.
pub struct Clocks {
    library: Option<PathBuf>,
    folder: PathBuf,
}

impl Clocks {
    /// Compiles the library, if this is Linux and there is a C compiler: Rust's linker is one in most cases.
    pub fn new(folder: &Path) -> Self {
        let library = folder.join("clock.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg("tests/chaos/clock.c");
        let is_there = cfg!(target_os = "linux") && compiler.status().is_ok_and(|status| status.success());
        Self { library: is_there.then_some(library), folder: folder.to_owned() }
    }

    pub fn library(&self) -> Option<&Path> {
        self.library.as_deref()
    }

    /// What a process needs to go by the clock `name`.
    pub fn environment(&self, name: &str) -> Vec<(&'static str, String)> {
        let Some(library) = &self.library else { return Vec::new() };
        let file = self.file(name);
        std::fs::write(&file, [0; 8]).expect("the clock is made");
        vec![("LD_PRELOAD", library.display().to_string()), ("CHAOS_CLOCK", file.display().to_string())]
    }

    /// Sets the clock `name` to so many seconds off the machine's.
    pub fn set(&self, name: &str, seconds: i64) {
        set(&self.file(name), seconds);
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.clock"))
    }
}

/// In place: the file is mapped by whoever goes by it.
pub fn set(file: &Path, seconds: i64) {
    let mut file = std::fs::File::options().write(true).open(file).expect("the clock is there");
    file.write_all(&(seconds * 1_000_000).to_ne_bytes()).expect("it is set");
}
