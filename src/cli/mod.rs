//! The command line: one file per command (section 7 of the contract).
//!
//! Arguments become a `Command`, settings are resolved (`settings`), the command runs and ends with an
//! `Exit` or a `CliError`. Data goes to stdout, everything else to stderr
//! ([`output`]).

mod advise;
mod again;
mod archive;
mod audit;
mod bench;
mod bulk;
mod check;
mod completions;
mod connect;
mod dead_letters;
mod definitions;
pub mod demo;
mod doctor;
mod encryption;
pub mod error;
mod explain;
mod filters;
mod graph;
mod houses;
mod manual;
mod migrate;
pub mod namespaces;
mod outbox;
pub mod output;
mod participants;
mod remote;
mod sagas;
mod serve;
pub mod settings;
mod simulate;
mod stuck;
mod tokens;
mod top;
mod traces;
mod versions;
mod webhook_settings;
mod webhooks;
mod worlds;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use error::{CliError, Exit};
use output::{Format, Output};
use settings::{Settings, SettingsArgs};

/// A saga coordinator: a business operation across services either stands or is amended.
#[derive(Debug, Parser)]
#[command(name = "amends", version, arg_required_else_help = true)]
#[command(after_help = "Start with `amends demo`: it needs nothing but this program.\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 the condition asked about holds, 4 not allowed, 6 conflict.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: SettingsArgs,
    /// How data is printed on stdout
    #[arg(long, global = true, value_enum, default_value_t, env = "AMENDS_OUTPUT", hide_env_values = true)]
    output: Format,
    /// The columns of a list, parted by commas: names of its columns, or members of its items such as `steps.0.status`
    #[arg(long, global = true, value_name = "NAMES", value_delimiter = ',')]
    columns: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the coordinator with its HTTP interface
    Serve(serve::Args),
    /// Watch sagas succeed, fail and be undone: needs nothing but this program
    Demo(demo::Args),
    /// Bring the store's schema up to this program
    Migrate(migrate::Args),
    /// Check, register and read saga definitions
    #[command(subcommand)]
    Definitions(definitions::Command),
    /// Explain an error code, with an example of the mistake and how it is mended; list all without one
    Explain(explain::Args),
    /// Start sagas, see what they do, and step in
    #[command(subcommand)]
    Sagas(sagas::Command),
    /// Do one action to many sagas, as a job of the server that can be held, resumed and stopped
    #[command(subcommand)]
    Bulk(bulk::Command),
    /// Run plans (YAML): a definition, an input, faults, and what should come of it; needs no server
    Simulate(simulate::Plans),
    /// List the sagas that cannot go on without a person; exit code 3 when there are any
    Stuck(stuck::Args),
    /// List commands in the outbox; those whose outcome is not known yet unless told otherwise
    Outbox(outbox::Args),
    /// List participants: their queues, what waits there, and whether they only fail; pause and resume them
    Participants(participants::Args),
    /// Look at messages that nobody could take, bring them back, or drop them
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Make, list and revoke the tokens of the store; needs no server
    #[command(subcommand)]
    Tokens(tokens::Command),
    /// Tell who did what, and why; with --output jsonl an export of everything
    Audit(audit::Args),
    /// Move finished sagas from the store to compressed files, read them there, and put them back
    Archive(archive::Args),
    /// See what the encryption keys of payloads are needed for, and exchange one for another
    #[command(subcommand)]
    Encryption(encryption::Command),
    /// Measure how fast sagas go, beside what the broker alone can carry
    Bench(bench::Args),
    /// List what webhooks are still to be told, and see to what they did not take
    #[command(subcommand)]
    Webhooks(webhooks::Command),
    /// Check store, broker and server, with advice
    Doctor,
    /// Everything at a glance, live: what is stuck and why, who answers, how it goes
    Top(top::Args),
    /// Print or write the man pages
    Manual(manual::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
}

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// What applies to this run.
    pub settings: Settings,
    /// Where data goes.
    pub output: Output,
}

/// Runs the program: arguments in, exit code out.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version are no errors and go to stdout. There is nobody to tell when printing fails.
            let _ = told.print();
            return if told.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(CliError::failed(format!("no threads to run on: {error}")))),
    };
    let code = ended(runtime.block_on(cli.run()));
    // What still runs (a read from stdin, a connection that does not close) must not hold up the end.
    runtime.shutdown_background();
    code
}

fn ended(result: Result<Exit, CliError>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            if !error.is_quiet {
                output::note(error.to_string());
            }
            error.exit.into()
        }
    }
}

impl Cli {
    async fn run(self) -> Result<Exit, CliError> {
        let context = Context {
            settings: Settings::resolve(self.settings)?,
            output: Output { format: self.output, columns: self.columns },
        };
        match self.command {
            Command::Serve(args) => serve::run(args, &context).await,
            Command::Demo(args) => demo::run(args, &context).await,
            Command::Migrate(args) => migrate::run(args, &context).await,
            Command::Definitions(command) => definitions::run(command, &context).await,
            Command::Explain(args) => explain::run(&args, &context),
            Command::Sagas(command) => sagas::run(command, &context).await,
            Command::Bulk(command) => bulk::run(command, &context).await,
            Command::Simulate(args) => simulate::run_plans(args, &context).await,
            Command::Stuck(args) => stuck::run(args, &context).await,
            Command::Outbox(args) => outbox::run(args, &context).await,
            Command::Participants(args) => participants::run(args, &context).await,
            Command::DeadLetters(command) => dead_letters::run(command, &context).await,
            Command::Tokens(command) => tokens::run(command, &context).await,
            Command::Audit(args) => audit::run(args, &context).await,
            Command::Archive(args) => archive::run(args, &context).await,
            Command::Encryption(command) => encryption::run(command, &context).await,
            Command::Bench(args) => bench::run(args, &context).await,
            Command::Webhooks(command) => webhooks::run(command, &context).await,
            Command::Doctor => doctor::run(&context).await,
            Command::Top(args) => top::run(&args, &context).await,
            Command::Manual(args) => manual::run(&args),
            Command::Completions(args) => completions::run(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_tree_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
