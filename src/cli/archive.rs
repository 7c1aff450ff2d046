//! `amends archive`: finished sagas out of the store into compressed files, and back. It works on the store itself, beside
//! running coordinators.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::{CliError, Exit};
use super::{Context, connect, output};
use crate::archive::{self, ArchiveError, Manifest, Options, Progress, Reader, Source};
use crate::definition::parse_duration;
use crate::id::{Namespace, SagaId};
use crate::store::Store;
use crate::store::archive::ArchivedSaga;

/// Arguments of `amends archive`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Runs beside coordinators. Interrupted, it loses nothing: the next run goes on.\n\
    Keys of archived sagas stay taken, unless --forget-keys-after says for how long.")]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Put archived sagas back; those that are there already are left as they are
    Restore {
        /// A data file: FOLDER/amends-....jsonl.gz
        file: PathBuf,
        /// Only this saga, with those that it started
        #[arg(long, value_name = "ID")]
        saga: Option<SagaId>,
        /// Say what would be restored, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List archive files
    List(Folder),
    /// Read an archived saga
    Show {
        /// Its id
        id: SagaId,
        #[command(flatten)]
        folder: Folder,
    },
}

#[derive(Debug, clap::Args)]
struct Folder {
    /// Where the files are
    #[arg(long = "from", value_name = "DIR", env = "AMENDS_ARCHIVE", default_value = "amends-archive")]
    folder: PathBuf,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Sagas that ended longer ago than this, for example `30d`
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_duration)]
    older_than: Duration,
    /// Where the files go
    #[arg(long = "to", value_name = "DIR", env = "AMENDS_ARCHIVE", default_value = "amends-archive")]
    folder: PathBuf,
    /// Count what would be archived, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Sagas in one transaction
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    batch: u32,
    /// How long to rest after each at least, so that coordinators come first; else four times as long as it took. `0ms`: not at all
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = parse_duration)]
    pause: Duration,
    /// Sagas in one file
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    per_file: u64,
    /// Forget the keys of archived sagas that ended longer ago than this: they can then be used again
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    forget_keys_after: Option<Duration>,
}

/// What `serve` archives by itself.
#[derive(Clone, Debug, clap::Args)]
pub struct Retention {
    /// Archive sagas that ended longer ago than this, for example `30d`; never unless set
    #[arg(long, value_name = "TIME", env = "AMENDS_RETENTION", value_parser = parse_duration)]
    retention: Option<Duration>,
    /// Where the files go
    #[arg(long, value_name = "DIR", env = "AMENDS_ARCHIVE", default_value = "amends-archive")]
    archive: PathBuf,
    /// How often
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration, hide = true)]
    archive_every: Duration,
}

impl Retention {
    /// How long sagas are kept after their end; `None` when it is off.
    pub fn kept(&self) -> Option<Duration> {
        self.retention
    }

    /// Archives now and then until `stop`; nothing when it is off.
    pub fn start(self, namespace: Namespace, store: Arc<dyn Store>, stop: CancellationToken) -> Option<JoinHandle<()>> {
        let folder = folder_of(&self.archive, &namespace);
        let options = Options { namespace, ..Options::new(self.retention?, folder) };
        Some(tokio::spawn(async move {
            loop {
                match archive::run(&store, &options, &|_| {}).await {
                    Ok(done) if done.archived + done.removed + done.jobs > 0 => {
                        tracing::info!(archived = done.archived, removed = done.removed, jobs = done.jobs, files = ?done.files, "archived");
                    }
                    Ok(_) => {}
                    // Another coordinator is at it.
                    Err(ArchiveError::Busy) => {}
                    Err(error) => tracing::error!(code = error.code(), %error, "finished sagas are not archived"),
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(self.archive_every) => {}
                }
            }
        }))
    }
}

/// Where a namespace's files are: in a folder of its own within that of the default one.
fn folder_of(folder: &Path, namespace: &Namespace) -> PathBuf {
    if namespace.is_default() { folder.to_owned() } else { folder.join(namespace.as_str()) }
}

/// Archives, restores, or reads what is archived.
pub async fn run(args: Args, context: &Context) -> Result<Exit, CliError> {
    let namespace = context.settings.namespace()?.unwrap_or_default();
    match args.command {
        None => on_the_store(context, async |store| archive(&args.run, namespace, context, store).await).await,
        Some(Command::Restore { file, saga, dry_run }) => {
            let source = Source { file, only: saga, namespace };
            on_the_store(context, async |store| restore(&source, dry_run, context, store).await).await
        }
        Some(Command::List(folder)) => list(&folder_of(&folder.folder, &namespace), context),
        Some(Command::Show { id, folder }) => show(id, &folder_of(&folder.folder, &namespace), context),
    }
}

async fn on_the_store(
    context: &Context,
    work: impl AsyncFnOnce(&Arc<dyn Store>) -> Result<Exit, CliError>,
) -> Result<Exit, CliError> {
    let place = context.settings.place()?;
    let store = connect::store_of(&place).await?;
    let outcome = match store.check_schema().await {
        Ok(()) => work(&store).await,
        Err(error) => Err(error.into()),
    };
    store.close().await;
    outcome
}

async fn archive(
    args: &RunArgs,
    namespace: Namespace,
    context: &Context,
    store: &Arc<dyn Store>,
) -> Result<Exit, CliError> {
    let folder = folder_of(&args.folder, &namespace);
    let options = Options {
        namespace,
        batch: args.batch,
        pause: args.pause,
        per_file: args.per_file,
        ..Options::new(args.older_than, folder)
    };
    if args.dry_run {
        let sagas = archive::count(store, &options).await?;
        let document = json!({ "dryRun": true, "sagas": sagas });
        context.output.one(&document, || format!("{sagas} sagas would be archived"))?;
        return Ok(Exit::Done);
    }
    let bar = bar("archived");
    let summary = archive::run(store, &options, &|progress| match progress {
        Progress::Written(sagas) => {
            bar.set_length(0);
            bar.set_position(sagas);
            bar.set_message("written");
        }
        Progress::Removed(sagas, of) => {
            bar.set_length(of);
            bar.set_position(sagas);
            bar.set_message("removed from the store");
        }
    })
    .await;
    bar.finish_and_clear();
    let summary = summary?;
    let forgotten = match args.forget_keys_after {
        Some(after) => archive::forget(store, after, args.batch).await?,
        None => 0,
    };
    let mut document = serde_json::to_value(&summary).unwrap_or_default();
    document["keysForgotten"] = forgotten.into();
    context.output.one(&document, || {
        format!(
            "{} sagas archived in {} files ({} bytes, {} before compression), {} removed from the store, {} bulk jobs forgotten",
            summary.archived,
            summary.files.len(),
            summary.bytes,
            summary.uncompressed_bytes,
            summary.removed,
            summary.jobs
        )
    })?;
    if summary.kept > 0 {
        output::note(format!("{} sagas have changed since they were written, and stay in the store", summary.kept));
    }
    Ok(Exit::Done)
}

async fn restore(source: &Source, dry_run: bool, context: &Context, store: &Arc<dyn Store>) -> Result<Exit, CliError> {
    let bar = bar(if dry_run { "looked at" } else { "restored" });
    let progress = |sagas| bar.set_position(sagas);
    let restored = match dry_run {
        true => archive::would_restore(store, source, &progress).await,
        false => archive::restore(store, source, &progress).await,
    };
    bar.finish_and_clear();
    let restored = restored?;
    context.output.one(&restored, || {
        let (back, present, taken) = (restored.restored, restored.present, restored.key_taken);
        match dry_run {
            true => format!("{back} sagas would be restored, {present} are there already, {taken} would be left out since their keys are taken"),
            false => {
                format!("{back} sagas restored, {present} were there already, {taken} left out since their keys are taken")
            }
        }
    })?;
    Ok(if restored.key_taken > 0 { Exit::Conflict } else { Exit::Done })
}

fn list(folder: &Path, context: &Context) -> Result<Exit, CliError> {
    let manifests = archive::list(folder)?;
    context.output.list(&json!({ "items": manifests }), &manifests, || {
        output::table(
            &["file", "sagas", "bytes", "ended before", "removed from the store"],
            manifests.iter().map(|manifest| {
                let time = |at: crate::clock::Timestamp| at.format("%Y-%m-%dT%H:%M:%SZ").to_string();
                vec![
                    manifest.file.clone(),
                    manifest.contents.sagas.to_string(),
                    manifest.bytes.to_string(),
                    time(manifest.ended_before),
                    manifest.removed_at.map_or_else(|| "not yet".to_owned(), time),
                ]
            }),
        )
    })?;
    Ok(Exit::Done)
}

fn show(id: SagaId, folder: &Path, context: &Context) -> Result<Exit, CliError> {
    for manifest in archive::list(folder)?.iter().rev().filter(|manifest| manifest.may_hold(id)) {
        if let Some(saga) = find(id, folder, manifest)? {
            context.output.one(&saga, || {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let row = |row: &crate::store::archive::Row, name: &str| {
                    let raw = row.get(name).map_or("null", |raw| raw.get());
                    text(&serde_json::from_str::<Value>(raw).unwrap_or_default())
                };
                let mut lines: Vec<String> = [
                    "id",
                    "definition_name",
                    "definition_version",
                    "key",
                    "state",
                    "input",
                    "output",
                    "created_at",
                    "ended_at",
                ]
                .iter()
                .map(|name| format!("{name:<20}{}", output::escape(&row(&saga.saga, name))))
                .collect();
                lines.push(format!("{:<20}{}", "file", manifest.file));
                lines.push(String::new());
                lines.push(output::table(
                    &["step", "direction", "outcome", "attempt", "decided", "verified"],
                    saga.outbox.iter().map(|entry| {
                        ["step", "direction", "outcome", "attempt", "decided_at", "verified_at"]
                            .map(|name| row(entry, name))
                            .into()
                    }),
                ));
                lines.join("\n")
            })?;
            return Ok(Exit::Done);
        }
    }
    Err(CliError::failed(format!("no file in `{}` holds saga {id}", folder.display()))
        .help("name the folder with --from; `amends archive list` shows what is in it"))
}

fn find(id: SagaId, folder: &Path, manifest: &Manifest) -> Result<Option<ArchivedSaga>, CliError> {
    let mut reader = Reader::open(&folder.join(&manifest.file))?;
    loop {
        let families = reader.next(500)?;
        if families.is_empty() {
            return Ok(None);
        }
        let mut sagas = families.into_iter().flat_map(|family| family.sagas);
        if let Some(found) = sagas.find(|saga| saga.head().is_ok_and(|head| head.id == id)) {
            return Ok(Some(found));
        }
    }
}

/// Moves on a terminal only.
fn bar(what: &'static str) -> ProgressBar {
    if !output::is_lively() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0).with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_bar} {human_pos} of {human_len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

impl From<ArchiveError> for CliError {
    fn from(error: ArchiveError) -> Self {
        let cli = Self::failed(format!("{error} [{}]", error.code()));
        match error {
            ArchiveError::Store(error) => error.into(),
            ArchiveError::Busy => {
                cli.exit(Exit::Conflict).help("wait for it; one that was killed is forgotten after a minute")
            }
            ArchiveError::NoArchive => cli.help("name a PostgreSQL or SQLite store with --store"),
            ArchiveError::File { .. } => {
                cli.help("check the path, its permissions and the space left; then run it again")
            }
            ArchiveError::OtherNamespace { ref found, .. } => {
                let help = format!("give `--namespace {found}`; sagas cannot be moved from one namespace to another");
                cli.exit(Exit::Conflict).help(help)
            }
            ArchiveError::Damaged { .. } => {
                cli.help("nothing was removed from the store on its account; fetch the file from a copy")
            }
        }
    }
}
