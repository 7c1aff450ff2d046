//! `amends completions`: a completion script for a shell.

use clap::CommandFactory;

use super::Cli;
use super::error::{CliError, Exit};

/// Arguments of `amends completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: amends completions bash > ~/.local/share/bash-completion/completions/amends")]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn run(args: Args) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "amends", &mut script);
    super::output::line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}
