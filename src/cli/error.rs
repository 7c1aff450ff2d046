//! What a command ends with: an exit code, and for errors one message with the way out.

use std::fmt;
use std::process::ExitCode;

use crate::broker::BrokerError;
use crate::coordinator::CoordinatorError;
use crate::store::StoreError;

/// How a command ended (section 7 of the contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Failed.
    Failed,
    /// The command or a setting is wrong; nothing was tried.
    Usage,
    /// The condition asked about holds: something is stuck, a watched saga did not complete.
    Holds,
    /// The server does not allow it.
    NotAllowed,
    /// It conflicts with what is there.
    Conflict,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Holds => 3,
            Exit::NotAllowed => 4,
            Exit::Conflict => 6,
        })
    }
}

/// Why a command could not do as asked.
#[derive(Debug)]
pub struct CliError {
    /// What went wrong, with what; a lower-case fragment.
    pub message: String,
    /// The way out.
    pub help: Option<String>,
    /// The process's exit code.
    pub exit: Exit,
    /// Whether nothing is to be printed: whoever read our output has gone.
    pub is_quiet: bool,
}

impl CliError {
    /// Something failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, exit: Exit::Failed, is_quiet: false }
    }

    /// An argument or a setting is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::failed(message) }
    }

    /// With the way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// A file, or standard input, could not be read.
    pub fn unreadable(what: &str, error: &std::io::Error) -> Self {
        Self::usage(format!("`{what}` cannot be read: {error}"))
            .help("check the path and its permissions; `-` reads standard input")
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {}", help.replace('\n', "\n        ")),
            None => Ok(()),
        }
    }
}

impl From<std::io::Error> for CliError {
    /// For writing the command's own output. A reader that went away (`amends ... | head`) is no error.
    fn from(error: std::io::Error) -> Self {
        let is_quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        let exit = if is_quiet { Exit::Done } else { Exit::Failed };
        Self { is_quiet, exit, ..Self::failed(format!("output cannot be written: {error}")) }
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        let cli = Self::failed(error.to_string());
        match error {
            StoreError::Address { .. } => cli
                .exit(Exit::Usage)
                .help("set --store or AMENDS_STORE to `postgres://USER:PASSWORD@HOST/DATABASE` or `sqlite://FILE`"),
            StoreError::Unavailable(_) => cli.help(
                "check that the database runs and that --store or AMENDS_STORE names it; `amends doctor` tells more",
            ),
            StoreError::KeyMissing { .. } => cli.help("`amends encryption status` lists what each key is needed for"),
            StoreError::Corrupt(_) => {
                cli.help("restore from a backup, or ask for help with `amends doctor --output json`")
            }
            _ => cli,
        }
    }
}

impl From<BrokerError> for CliError {
    fn from(error: BrokerError) -> Self {
        let cli = Self::failed(error.to_string());
        match error {
            BrokerError::Address { .. } => cli
                .exit(Exit::Usage)
                .help("set --broker or AMENDS_BROKER to `amqp://USER:PASSWORD@HOST:5672/VHOST` or `in-process`"),
            BrokerError::Unreachable { .. } => {
                cli.help("check that the broker runs and that --broker or AMENDS_BROKER names it")
            }
            _ => cli,
        }
    }
}

impl From<CoordinatorError> for CliError {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::Store(error) => error.into(),
            other => Self::failed(other.to_string()),
        }
    }
}
