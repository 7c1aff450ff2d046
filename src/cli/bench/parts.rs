//! The other processes: this same program, asked to play a part.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::participants::{AtWork, Kind};
use super::site::Site;
use super::workload::Names;
use super::{coordinator, steady};
use crate::broker::amqp::LapinBroker;
use crate::cli::error::{CliError, Exit};
use crate::cli::{Context, connect};

/// The first word of a part's first line: it is at work.
pub(super) const READY: &str = "ready";
/// The first word of a line of sagas that have ended.
pub(super) const ENDED: &str = "ended";
/// The first word of a question and its answer: how many commits there were.
pub(super) const COMMITS: &str = "commits";

/// The parts, as hidden commands.
#[derive(Debug, clap::Subcommand)]
pub enum Role {
    #[command(flatten)]
    Steady(steady::Command),
    /// Part of a bench: the coordinator
    #[command(hide = true)]
    Coordinator {
        /// The run's name
        run: String,
    },
    /// Part of a bench: the participants
    #[command(hide = true)]
    Participants {
        /// The run's name
        run: String,
        /// What they do
        kind: Kind,
        /// How they reach the broker
        #[arg(long, value_enum, default_value_t)]
        client: Client,
        /// Their database's address
        #[arg(env = "AMENDS_BENCH_SERVICES", default_value = "")]
        services: String,
    },
}

/// How a part reaches the broker.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Client {
    /// As the coordinator does
    #[default]
    Own,
    /// Through lapin alone
    Lapin,
}

/// Plays one.
pub(super) async fn play(role: Role, context: &Context) -> Result<Exit, CliError> {
    match role {
        Role::Steady(command) => steady::run(command, context).await,
        Role::Coordinator { run } => coordinator::play(&Names::new(&run), context).await,
        Role::Participants { run, kind, client, services } => {
            let url = context.settings.broker_or_default();
            let broker = match client {
                Client::Own => connect::broker(url).await?,
                Client::Lapin => Arc::new(LapinBroker::connect(url).await?),
            };
            let at_work = AtWork::begin(kind, &Names::new(&run), &broker, &services).await?;
            crate::cli::output::line(READY)?;
            // Until whoever started this process closes the pipe, or is gone.
            let mut asked = BufReader::new(tokio::io::stdin()).lines();
            while let Ok(Some(_)) = asked.next_line().await {}
            at_work.stop().await;
            broker.close().await;
            Ok(Exit::Done)
        }
    }
}

/// A process that plays a part; killed when dropped.
pub(super) struct Part {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<BufReader<ChildStdout>>>,
    /// The rest of the line that said that it is ready.
    pub(super) ready: String,
}

/// What the coordinator's process tells.
pub(super) enum Told {
    /// Sagas that have ended: how, and their ids.
    Ended(Vec<(String, String)>),
    /// How many commits there were.
    Commits(u64),
}

impl Part {
    pub(super) async fn coordinator(site: &Site) -> Result<Self, CliError> {
        Self::start("coordinator", site, &["coordinator", &site.names.run]).await
    }

    pub(super) async fn participants(site: &Site, kind: Kind) -> Result<Self, CliError> {
        let kind = match kind {
            Kind::Bare => "bare",
            Kind::Sdk => "sdk",
        };
        Self::start("participants", site, &["participants", &site.names.run, kind]).await
    }

    /// Bare ones, for the floor with lapin.
    pub(super) async fn lapin_participants(site: &Site) -> Result<Self, CliError> {
        let run = site.names.with_lapin().run;
        Self::start("participants", site, &["participants", "--client", "lapin", &run, "bare"]).await
    }

    async fn start(name: &'static str, site: &Site, arguments: &[&str]) -> Result<Self, CliError> {
        let broken = |error: std::io::Error| CliError::failed(format!("the {name} cannot be started: {error}"));
        let program = std::env::current_exe().map_err(broken)?;
        let mut child = Command::new(program)
            .arg("bench")
            .args(arguments)
            // Not as arguments, which everybody on the machine can see.
            .env("AMENDS_STORE", &site.store_url)
            .env("AMENDS_BROKER", &site.broker_url)
            .env("AMENDS_BENCH_SERVICES", site.services_url())
            .env_remove("AMENDS_CONFIG")
            .env_remove("AMENDS_OUTPUT")
            // Ctrl-C is for the bench, which then ends its parts.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(broken)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut part = Self { name, child, stdin, stdout: None, ready: String::new() };
        let mut lines = BufReader::new(stdout.ok_or_else(|| part.gone())?).lines();
        let first = lines.next_line().await.map_err(broken)?.ok_or_else(|| part.gone())?;
        part.ready = first.strip_prefix(READY).ok_or_else(|| part.gone())?.trim().to_owned();
        part.stdout = Some(lines);
        Ok(part)
    }

    fn gone(&self) -> CliError {
        CliError::failed(format!("the {} ended before the bench did", self.name)).help("what it said is above")
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Reads what it tells from now on.
    pub(super) fn listen(&mut self, sender: mpsc::UnboundedSender<Told>) -> Result<(), CliError> {
        let mut lines = self.stdout.take().ok_or_else(|| self.gone())?;
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let mut words = line.split(' ');
                let told = match words.next() {
                    Some(ENDED) => {
                        let pairs = words.filter_map(|word| word.split_once(':'));
                        Told::Ended(pairs.map(|(how, id)| (how.to_owned(), id.to_owned())).collect())
                    }
                    Some(COMMITS) => Told::Commits(words.next().and_then(|n| n.parse().ok()).unwrap_or_default()),
                    _ => continue,
                };
                if sender.send(told).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Asks how many commits there were.
    pub(super) async fn ask(&mut self) -> Result<(), CliError> {
        let gone = self.gone();
        let Some(stdin) = &mut self.stdin else { return Err(gone) };
        stdin.write_all(b"commits\n").await.map_err(|_| gone)
    }

    /// Lets it end in good order.
    pub(super) async fn stop(mut self) -> Result<(), CliError> {
        drop(self.stdin.take());
        match self.child.wait().await {
            Ok(status) if status.success() => Ok(()),
            _ => Err(CliError::failed(format!("the {} did not end in good order", self.name))),
        }
    }
}
