//! Runs the binary as a child process, cut off from the settings of whoever runs the tests.

use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;

/// A run of `amends`: with a folder of its own as home and working folder.
pub struct Program {
    pub folder: tempfile::TempDir,
    command: Command,
}

/// What it said.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    pub fn new(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("amends"));
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path()).args(arguments);
        command.timeout(std::time::Duration::from_secs(60));
        Self { folder, command }
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// For what takes long on a busy machine.
    pub fn patient(mut self) -> Self {
        self.command.timeout(std::time::Duration::from_secs(300));
        self
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.path(name), text).expect("a file is written");
        self
    }

    pub fn stdin(mut self, text: &str) -> Self {
        self.command.write_stdin(text);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run(mut self) -> Said {
        let Output { status, stdout, stderr } = self.command.output().expect("amends runs");
        Said {
            code: status.code().expect("amends ends by itself"),
            stdout: String::from_utf8(stdout).expect("stdout is text"),
            stderr: String::from_utf8(stderr).expect("stderr is text"),
        }
    }
}

/// Runs `amends` with these arguments.
pub fn amends(arguments: &[&str]) -> Said {
    Program::new(arguments).run()
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.code)?;
        if !self.stdout.is_empty() {
            write!(f, "\n--- stdout\n{}", self.stdout.trim_end())?;
        }
        if !self.stderr.is_empty() {
            write!(f, "\n--- stderr\n{}", self.stderr.trim_end())?;
        }
        Ok(())
    }
}
