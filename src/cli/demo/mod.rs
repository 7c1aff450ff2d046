//! `amends demo`.
use super::Context;
use super::error::{CliError, Exit};

/// Arguments of `amends demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs it.
pub async fn run(_args: Args, _context: &Context) -> Result<Exit, CliError> {
    Ok(Exit::Done)
}
