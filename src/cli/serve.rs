//! `amends serve`: the coordinator with its HTTP interface, until it is told to stop.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{CliError, Exit};
use super::houses::{self, Manner, Opened};
use super::namespaces::Place;
use super::settings::{masked, of_namespace};
use super::{Context, connect, output, webhook_settings};
use crate::api::{self, Access};
use crate::coordinator::{Coordinator, CoordinatorError, CoordinatorOptions, Limits};
use crate::id::Namespace;
use crate::namespaces::Namespaces;
use crate::store::{self, Store, StoreError};
use crate::webhook::{self, Endpoint};

/// How long a stop waits for what is under way.
const DRAIN: Duration = Duration::from_secs(30);
/// How long it waits for the collector after that.
pub(super) const TRACES_DRAIN: Duration = Duration::from_secs(5);
/// How long a start waits for its store before it gives up, and how often it looks.
const STORE_PATIENCE: Duration = Duration::from_secs(60);
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// What is logged unless AMENDS_LOG says otherwise. Of messages that come back the coordinator itself says what matters:
/// an event that nobody listens to is as it should be.
const DEFAULT_LOG: &str = "info,sqlx=warn,lapin=warn,lapin::returned_messages=error";

/// Arguments of `amends serve`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "With nothing set: state in SQLite under the user's data folder, the broker inside the process.\n\
    What is logged: AMENDS_LOG, for example `info` or `amends=debug`."
)]
pub struct Args {
    /// Bring a PostgreSQL schema up to this program first; SQLite always is
    #[arg(long)]
    migrate: bool,
    /// The form of the log on stderr
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(flatten)]
    limits: LimitArgs,
    /// Let operators send a command that was refused with another input; also `[operators] allow_edit` of the settings
    #[arg(long, env = "AMENDS_ALLOW_EDIT", value_parser = clap::builder::FalseyValueParser::new())]
    allow_edit: bool,
    #[command(flatten)]
    traces: super::traces::TraceArgs,
    #[command(flatten)]
    retention: super::archive::Retention,
    /// Register these definition files, or every file of these folders, at the start
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1.., hide = true)]
    definitions: Vec<PathBuf>,
}

/// How much each participant is sent at once.
#[derive(Debug, clap::Args)]
struct LimitArgs {
    /// How many messages may wait in a participant's queue; further commands wait in the store. 0: no bound
    #[arg(long, value_name = "N", env = "AMENDS_WINDOW", default_value_t = 10_000)]
    window: u32,
    /// The window of one participant; may be given several times
    #[arg(long, value_name = "PARTICIPANT=N", value_parser = named)]
    window_of: Vec<(String, u32)>,
    /// How many turns a definition has, where others have one, at a participant whose window is full; may be given
    /// several times
    #[arg(long, value_name = "DEFINITION=N", value_parser = weighed)]
    weight: Vec<(String, u32)>,
}

impl LimitArgs {
    fn limits(self) -> Limits {
        let (windows, weights) = (self.window_of.into_iter().collect(), self.weight.into_iter().collect());
        Limits { window: self.window, windows, weights }
    }
}

fn named(text: &str) -> Result<(String, u32), String> {
    let (name, number) = text.split_once('=').ok_or("expected NAME=N, for example `warehouse=500`")?;
    let number = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Ok((name.to_owned(), number))
}

fn weighed(text: &str) -> Result<(String, u32), String> {
    named(text).and_then(|(name, weight)| match weight {
        1..=1_000 => Ok((name, weight)),
        _ => Err("a weight is a number from 1 to 1000".to_owned()),
    })
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One object per line
    Json,
}

/// Serves until SIGTERM or SIGINT; a second one ends the process at once.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    if context.settings.namespace()?.is_some_and(|namespace| !namespace.is_default()) {
        return Err(CliError::usage("a server is for all namespaces of its settings file, and --namespace names one")
            .help("leave it out (and AMENDS_NAMESPACE); for one alone give the server a settings file of its own"));
    }
    let (access, places) = (context.settings.access()?, context.settings.places()?);
    let masters = context.settings.encryption.read()?;
    let mut endpoints = webhook_settings::endpoints(&context.settings.webhooks, access.namespaces())?;
    let collector = args.traces.collector(&context.settings.traces)?;
    // Opened before anything that takes time. Nobody is answered before it is known that it is safe to.
    let (listener, is_reachable) = listen(context).await?;
    log(args.log_format)?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signals(stop.clone()));

    if places.len() > 1 {
        let allow_edit = args.allow_edit || context.settings.operators.allow_edit;
        let (limits, retention) = (args.limits.limits(), args.retention);
        if !args.definitions.is_empty() {
            return Err(CliError::usage("--definitions does not say which namespace is meant")
                .help("register them when the server is up: amends definitions register FILE --namespace NAME"));
        }
        for place in &places {
            // A wrong name is told at once, and not tried again and again.
            of_namespace(masters.clone(), &place.entry)?;
        }
        let manner = Manner { migrate: args.migrate, limits, allow_edit, retention, masters, collector, endpoints };
        // Before anything is made, changed or begun in one of the stores.
        if is_reachable && access.is_open() && !houses::let_somebody_in(&places, &access, &stop).await {
            return Err(open_to_all(context.settings.http_or_default()));
        }
        let served = several(context, places, access, &manner, listener, &stop).await;
        signals.abort();
        return served;
    }
    // First, since it only looks at the address: a wrong one leaves the store as it is.
    let broker = connect::broker(context.settings.broker_or_default()).await?;
    let url = context.settings.store_or_default()?;
    let store = patiently(&stop, StoreError::is_transient, async || store::open(&url).await).await?;
    let auth = access.auth(&Namespace::default()).with_store(store.clone());
    if is_reachable && auth.is_open_but_for_the_store() && is_new(&*store).await {
        store.close().await;
        return Err(open_to_all(context.settings.http_or_default()));
    }
    patiently(&stop, StoreError::is_transient, async || prepare_schema(&*store, &url, args.migrate).await).await?;
    if is_reachable && !patiently(&stop, StoreError::is_transient, async || auth.lets_somebody_in().await).await? {
        store.close().await;
        return Err(open_to_all(context.settings.http_or_default()));
    }
    let sealed = connect::encrypted(store, masters)?;
    patiently(&stop, StoreError::is_transient, async || sealed.check().await).await?;
    let store = sealed.store;
    if broker.is_volatile() {
        tell_of_volatile_broker();
    }
    let traces = collector.map(|collector| collector.start(&Namespace::default())).transpose()?;
    let endpoints = endpoints.remove(&Namespace::default()).unwrap_or_default();
    let options = CoordinatorOptions {
        limits: args.limits.limits(),
        allow_edit: args.allow_edit || context.settings.operators.allow_edit,
        traces: traces.as_ref().map(|(recorder, _)| recorder.clone()),
        hooks: endpoints.iter().map(Endpoint::hook).collect(),
        ..CoordinatorOptions::default()
    };
    let launch = async || Coordinator::launch(store.clone(), broker.clone(), options.clone()).await;
    let coordinator = patiently(&stop, CoordinatorError::is_transient, launch).await?;
    for file in definition_files(&args.definitions)? {
        register(&coordinator, &file, &stop).await?;
    }

    let links = context.settings.console.links(args.retention.kept());
    let retention = args.retention.start(Namespace::default(), store.clone(), stop.clone());

    let webhooks = webhook::launch(&coordinator, endpoints, stop.clone());

    let address = listener.local_addr().map_err(|error| CliError::failed(format!("no address: {error}")))?;
    tell_if_open(patiently(&stop, StoreError::is_transient, async || auth.is_open().await).await?);
    output::note(format!("amends is ready at http://{address} (state in {})", masked(&url)));
    let served = connect::serve(listener, coordinator.clone(), auth, links, stop.clone()).await;

    let drained = tokio::time::timeout(DRAIN, async {
        coordinator.stop().await;
        if let Some(webhooks) = webhooks {
            drop(webhooks.await);
        }
        broker.close().await;
        store.close().await;
    });
    if let Some(retention) = retention {
        // What it was at is done again by the next run.
        retention.abort();
    }
    let is_drained = drained.await.is_ok();
    if let Some((_, exporting)) = traces {
        exporting.finish(TRACES_DRAIN).await;
    }
    signals.abort();
    served?;
    ended(is_drained)
}

/// The same with several namespaces.
async fn several(
    context: &Context,
    places: Vec<Place>,
    access: Access,
    manner: &Manner,
    listener: TcpListener,
    stop: &CancellationToken,
) -> Result<Exit, CliError> {
    let address = listener.local_addr().map_err(|error| CliError::failed(format!("no address: {error}")))?;
    let namespaces =
        Namespaces::new(access.clone(), context.settings.console.links(manner.retention.kept()), stop.clone());
    let tasks = houses::open_all(places, manner, &namespaces, stop).await;
    // Each that is open has asked its store for tokens.
    tell_if_open(access.is_open());
    houses::tell(&address.to_string(), &namespaces);
    let served = api::serve(listener, namespaces.router(), stop.clone()).await;
    // Also when it was no signal that ended it.
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN, async {
        let opened = join_all(tasks).await.into_iter().filter_map(|task| task.ok().flatten());
        join_all(opened.map(Opened::close)).await;
    });
    let is_drained = drained.await.is_ok();
    served.map_err(|error| CliError::failed(format!("the HTTP interface has failed: {error}")))?;
    ended(is_drained)
}

pub(super) fn tell_of_volatile_broker() {
    output::note(
        "the broker is inside this process: only participants in the same process are reached; \
         for services of their own set AMENDS_BROKER to amqp://...",
    );
}

fn tell_if_open(is_open: bool) {
    if is_open {
        output::note(
            "no tokens are set: everybody on this machine may do everything; `amends tokens create` makes the first one",
        );
    }
}

fn ended(is_drained: bool) -> Result<Exit, CliError> {
    if !is_drained {
        return Err(CliError::failed(format!("not everything was done within {} s of the stop", DRAIN.as_secs()))
            .help("nothing is lost: the next start goes on with it"));
    }
    output::note("stopped; what was taken in is stored");
    Ok(Exit::Done)
}

/// Opens the port; also says whether other machines can reach it.
async fn listen(context: &Context) -> Result<(TcpListener, bool), CliError> {
    let http = context.settings.http_or_default();
    let elsewhere = "set --http or AMENDS_HTTP to another address, for example 127.0.0.1:7071";
    let addresses: Vec<_> = tokio::net::lookup_host(http)
        .await
        .map_err(|error| {
            CliError::usage(format!("address to listen on `{}`: {error}", output::escape(http))).help(elsewhere)
        })?
        .collect();
    let is_reachable = !addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
    let bound = TcpListener::bind(addresses.as_slice()).await.map_err(|error| {
        let problem = match error.kind() {
            ErrorKind::AddrInUse => format!("{http} is in use by another process"),
            ErrorKind::PermissionDenied => format!("{http} may not be used by this user"),
            _ => format!("{http} cannot be listened on: {error}"),
        };
        CliError::failed(problem).help(elsewhere)
    })?;
    Ok((bound, is_reachable))
}

/// Other machines can reach the server, and it has nothing to tell by who may use it.
fn open_to_all(http: &str) -> CliError {
    CliError::usage(format!(
        "{http} can be reached from other machines, and no tokens are set: anybody could start and undo sagas"
    ))
    .help(
        "listen on 127.0.0.1, or make a token in the store: amends tokens create NAME --role admin\n\
         or put tokens into a settings file and name it with --config or AMENDS_CONFIG:\n\
         [[tokens]]\nname = \"me\"\nrole = \"admin\"\nsha256 = \"...\"   # printf %s \"$TOKEN\" | sha256sum",
    )
}

fn log(format: LogFormat) -> Result<(), CliError> {
    use tracing_subscriber::EnvFilter;
    let wanted = std::env::var("AMENDS_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(DEFAULT_LOG)).map_err(|error| {
        CliError::usage(format!("AMENDS_LOG: {error}")).help("write for example `info` or `amends=debug,sqlx=warn`")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(output::is_lively()).try_init(),
        // Fields at the top, and of the spans around a line the innermost: a line is read by programs one by one.
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    // Only a program that embeds this one can have set up a log of its own, which then serves.
    drop(started);
    Ok(())
}

/// Does what needs the store, again and again for a while if it is away: after a power cut a coordinator and its database
/// start at the same time, and a connection may be cut at any moment.
pub(super) async fn patiently<T, E: Display>(
    stop: &CancellationToken,
    is_transient: impl Fn(&E) -> bool,
    attempt: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let end = Instant::now() + STORE_PATIENCE;
    loop {
        match attempt().await {
            Err(error) if is_transient(&error) && Instant::now() < end && !stop.is_cancelled() => {
                tracing::warn!(%error, "waiting for the store");
            }
            outcome => return outcome,
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(STORE_PAUSE) => {}
        }
    }
}

/// Whether nothing was ever put into the store: then there are no tokens in it either, and it is left as it is.
pub(super) async fn is_new(store: &dyn Store) -> bool {
    matches!(store.check_schema().await, Err(StoreError::SchemaBehind { found: 0, .. }))
}

/// SQLite belongs to this process alone and is brought up to date; a PostgreSQL server is shared, so that somebody
/// has to say so.
pub(super) async fn prepare_schema(store: &dyn Store, url: &str, migrate: bool) -> Result<(), StoreError> {
    if migrate || url.starts_with("sqlite:") {
        for migration in store.migrate().await? {
            tracing::info!(version = migration.version, name = migration.name, "migrated");
        }
    }
    store.check_schema().await
}

/// The files named, and those of the folders named, in the order of their names.
fn definition_files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |error| CliError::unreadable(&path.display().to_string(), &error);
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let file = entry.map_err(unreadable)?.path();
            let is_definition = |end: &std::ffi::OsStr| ["yaml", "yml", "json"].iter().any(|known| end == *known);
            if file.extension().is_some_and(is_definition) {
                inside.push(file);
            }
        }
        inside.sort_unstable();
        files.extend(inside);
    }
    Ok(files)
}

async fn register(coordinator: &Coordinator, file: &Path, stop: &CancellationToken) -> Result<(), CliError> {
    let name = file.display().to_string();
    let source = std::fs::read_to_string(file).map_err(|error| CliError::unreadable(&name, &error))?;
    let register = async || coordinator.register(&source, "serve --definitions").await;
    match patiently(stop, CoordinatorError::is_transient, register).await {
        Ok(registered) => {
            tracing::info!(definition = %registered.definition.reference, new = registered.is_new, "registered");
            for found in registered.warnings {
                tracing::warn!(file = name, line = found.line, code = found.code, "{}", found.message);
            }
            Ok(())
        }
        Err(CoordinatorError::InvalidDefinition(diagnostics)) => {
            output::note(crate::definition::render(&name, &source, &diagnostics, output::is_lively()));
            Err(CliError::failed(format!("`{name}` cannot be registered")).help("`amends definitions check` checks it"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The first signal asks for a stop in good order, the second does not wait.
async fn stop_on_signals(stop: CancellationToken) {
    let (terminate, interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else { return };
    for is_first in [true, false] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if is_first {
            output::note("stopping: what was taken in is finished first; once more to stop at once");
            stop.cancel();
        }
    }
    std::process::exit(130);
}
