//! `amends manual`: man pages.

use std::path::PathBuf;

use clap::CommandFactory;

use super::error::{CliError, Exit};
use super::{Cli, output};

/// Arguments of `amends manual`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: amends manual --out ~/.local/share/man/man1 && man amends-sagas-retry")]
pub struct Args {
    /// Write a page for each command into this folder, which is made if need be; without it, the first page is printed
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Prints or writes them.
pub fn run(args: &Args) -> Result<Exit, CliError> {
    let command = Cli::command().disable_help_subcommand(true);
    let Some(folder) = &args.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::line(String::from_utf8_lossy(&page).trim_end())?;
        return Ok(Exit::Done);
    };
    let failed = |error: std::io::Error| CliError::failed(format!("no pages in {}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command, folder).map_err(failed)?;
    output::note(format!("the pages are in {}", folder.display()));
    Ok(Exit::Done)
}
