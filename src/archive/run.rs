//! One run: what is old enough goes into files, and then out of the store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::archive::ArchiveError;
use crate::archive::file::{self, Manifest, Reader, Writer};
use crate::clock::{Stopwatch, Timestamp, after};
use crate::failpoint::{self, Point};
use crate::id::{Namespace, SagaId};
use crate::store::archive::{ArchiveStore, Removed, Restored};
use crate::store::{Store, StoreError};

/// How long the right to archive outlives the process that has it.
const LEASE_SECONDS: u32 = 60;
/// Bulk jobs forgotten in one transaction: each has up to 100,000 items.
const JOBS: u32 = 1;
/// How many times as long as it works it rests, unless it is not to rest at all.
const RESTS: u32 = 4;
/// How often a removal that got in the way of something is tried.
const TRIES: u32 = 10;

/// What to archive, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sagas that ended longer ago than this.
    pub older_than: Duration,
    /// Where the files go.
    pub folder: PathBuf,
    /// Sagas in one read, and in one transaction that removes them.
    pub batch: u32,
    /// How long to rest after each of them.
    pub pause: Duration,
    /// Sagas in one file.
    pub per_file: u64,
    /// Whose store it is; of others' files in the folder none is touched.
    pub namespace: Namespace,
}

impl Options {
    /// In batches of 200 with 20 ms in between, 100,000 sagas in a file, of the default namespace.
    pub fn new(older_than: Duration, folder: impl Into<PathBuf>) -> Self {
        let (pause, namespace) = (Duration::from_millis(20), Namespace::default());
        Self { older_than, folder: folder.into(), batch: 200, pause, per_file: 100_000, namespace }
    }
}

/// What to restore.
#[derive(Clone, Debug)]
pub struct Source {
    /// The data file.
    pub file: PathBuf,
    /// Only this saga, with its family.
    pub only: Option<SagaId>,
    /// Whose store it goes back into: a file that says that it is another's is refused.
    pub namespace: Namespace,
}

impl Source {
    /// All of a file, into the store of the default namespace.
    pub fn all(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), only: None, namespace: Namespace::default() }
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many sagas are written to the file at hand.
    Written(u64),
    /// So many of the file at hand are removed from the store, of so many in it.
    Removed(u64, u64),
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The files written.
    pub files: Vec<String>,
    /// Sagas in them.
    pub archived: u64,
    /// Sagas removed from the store, also those that a run before this one had written.
    pub removed: u64,
    /// Sagas that were not as they were archived when they were to be removed, and stay.
    pub kept: u64,
    /// Bulk jobs forgotten that ended as long ago.
    pub jobs: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// The same before compression.
    pub uncompressed_bytes: u64,
}

struct Run<'a> {
    store: &'a dyn ArchiveStore,
    options: &'a Options,
    holder: Uuid,
    progress: &'a (dyn Fn(Progress) + Sync),
    summary: Summary,
}

/// Archives what is old enough. What an earlier run has left half done is done first.
///
/// # Errors
/// [`ArchiveError`]. What was archived until then stays archived, and the next run goes on.
pub async fn run(
    store: &Arc<dyn Store>,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary, ArchiveError> {
    let archive = store.archive().ok_or(ArchiveError::NoArchive)?;
    std::fs::create_dir_all(&options.folder).map_err(file::failed(&options.folder))?;
    let holder = crate::id::fresh_request_id();
    let mut run = Run { store: archive, options, holder, progress, summary: Summary::default() };
    run.hold().await?;
    let outcome = run.all(store).await;
    // At worst it ends by itself.
    let _ = archive.lease(holder, 0).await;
    outcome.map(|()| run.summary)
}

impl Run<'_> {
    async fn hold(&self) -> Result<(), ArchiveError> {
        if self.store.lease(self.holder, LEASE_SECONDS).await? { Ok(()) } else { Err(ArchiveError::Busy) }
    }

    async fn all(&mut self, store: &Arc<dyn Store>) -> Result<(), ArchiveError> {
        let folder = &self.options.folder;
        for manifest in file::clear(folder)? {
            if manifest.removed_at.is_none() && manifest.may_be_of(&self.options.namespace) {
                self.remove(store, manifest).await?;
            }
        }
        let now = store.health().await?.now;
        let cutoff = before(now, self.options.older_than);
        let mut last: Option<SagaId> = None;
        for part in 1.. {
            let id = self.holder.simple().to_string();
            let name =
                format!("amends-{}-{}-{part:04}", now.format("%Y%m%dT%H%M%SZ"), id.get(20..).unwrap_or_default());
            let mut writer: Option<Writer> = None;
            let mut is_done = false;
            while writer.as_ref().is_none_or(|writer| writer.contents.sagas < self.options.per_file) {
                let began = Stopwatch::start();
                let roots = self.store.archivable(cutoff, last, self.options.batch).await?;
                let Some(newest) = roots.last() else {
                    is_done = true;
                    break;
                };
                last = Some(*newest);
                let families = self.store.families(&roots, cutoff).await?;
                for family in &families {
                    if writer.is_none() {
                        writer = Some(Writer::create(folder, name.clone())?);
                    }
                    if let Some(writer) = &mut writer {
                        writer.add(family)?;
                    }
                }
                if let Some(writer) = &writer {
                    (self.progress)(Progress::Written(writer.contents.sagas));
                }
                self.rest(began).await?;
            }
            if let Some(writer) = writer {
                let manifest =
                    writer.keep(&self.options.namespace, cutoff, now, || failpoint::reached(Point::ArchiveWritten))?;
                failpoint::reached(Point::ArchiveKept);
                self.summary.files.push(manifest.file.clone());
                self.summary.archived += manifest.contents.sagas;
                self.summary.bytes += manifest.bytes;
                self.summary.uncompressed_bytes += manifest.uncompressed_bytes;
                self.remove(store, manifest).await?;
            }
            if is_done {
                break;
            }
        }
        loop {
            let began = Stopwatch::start();
            match patiently(|| self.store.forget_jobs(cutoff, JOBS)).await? {
                0 => return Ok(()),
                some => self.summary.jobs += some,
            }
            self.rest(began).await?;
        }
    }

    /// Reads a file back, and removes what is in it from the store.
    async fn remove(&mut self, store: &Arc<dyn Store>, mut manifest: Manifest) -> Result<(), ArchiveError> {
        let mut reader = Reader::open(&self.options.folder.join(&manifest.file))?;
        let mut done = 0;
        loop {
            let began = Stopwatch::start();
            let families = reader.next(self.options.batch as usize)?;
            if families.is_empty() {
                break;
            }
            let Removed { sagas, gone, changed } = patiently(|| self.store.remove(&families)).await?;
            failpoint::reached(Point::ArchiveRemoved);
            self.summary.removed += sagas;
            self.summary.kept += changed;
            done += sagas + gone + changed;
            (self.progress)(Progress::Removed(done, manifest.contents.sagas));
            self.rest(began).await?;
        }
        failpoint::reached(Point::ArchiveNotMarked);
        manifest.removed_at = Some(store.health().await?.now);
        manifest.write(&self.options.folder)
    }

    /// At least the pause, and several times as long as the work took: the slower the store, the longer it is left alone.
    async fn rest(&self, worked: Stopwatch) -> Result<(), ArchiveError> {
        let worked = if self.options.pause.is_zero() { Duration::ZERO } else { worked.elapsed() };
        tokio::time::sleep(self.options.pause.max(worked * RESTS)).await;
        self.hold().await
    }
}

/// A deadlock or a lost connection is no reason to stop; removing twice does nothing the second time.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(work: impl Fn() -> F) -> Result<T, StoreError> {
    let mut tries = 1;
    loop {
        match work().await {
            Err(error) if error.is_transient() && tries < TRIES => {
                tracing::warn!(%error, tries, "archiving waits for the store");
                tokio::time::sleep(Duration::from_millis(200) * tries).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// How many sagas a run would archive now.
///
/// # Errors
/// [`ArchiveError`].
pub async fn count(store: &Arc<dyn Store>, options: &Options) -> Result<u64, ArchiveError> {
    let archive = store.archive().ok_or(ArchiveError::NoArchive)?;
    let cutoff = before(store.health().await?.now, options.older_than);
    let (mut last, mut sagas) = (None, 0);
    loop {
        let roots = archive.archivable(cutoff, last, options.batch).await?;
        let Some(newest) = roots.last() else { return Ok(sagas) };
        last = Some(*newest);
        sagas += archive.families(&roots, cutoff).await?.iter().map(|family| family.sagas.len() as u64).sum::<u64>();
    }
}

/// Puts what is in a file back into the store.
///
/// # Errors
/// [`ArchiveError`]. What was restored until then stays; to do it again leaves it as it is.
pub async fn restore(
    store: &Arc<dyn Store>,
    source: &Source,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Restored, ArchiveError> {
    read_back(store, source, false, progress).await
}

/// Reads a file as [`restore`] does, and says what that would do; the store stays as it is.
///
/// # Errors
/// [`ArchiveError`].
pub async fn would_restore(
    store: &Arc<dyn Store>,
    source: &Source,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Restored, ArchiveError> {
    read_back(store, source, true, progress).await
}

async fn read_back(
    store: &Arc<dyn Store>,
    Source { file, only, namespace }: &Source,
    dry: bool,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Restored, ArchiveError> {
    let archive = store.archive().ok_or(ArchiveError::NoArchive)?;
    let mut reader = Reader::open(file)?;
    if let Some(manifest) = reader.manifest.as_ref().filter(|manifest| !manifest.may_be_of(namespace)) {
        let (path, found) = (file.display().to_string(), manifest.namespace.clone().unwrap_or_default());
        return Err(ArchiveError::OtherNamespace { path, found, wanted: namespace.clone() });
    }
    let mut all = Restored::default();
    loop {
        let mut families = reader.next(200)?;
        if families.is_empty() {
            return Ok(all);
        }
        if let Some(only) = only {
            families.retain(|family| family.sagas.iter().any(|saga| saga.head().is_ok_and(|head| head.id == *only)));
        }
        let Restored { restored, present, key_taken } = patiently(|| archive.restore(&families, dry)).await?;
        all.restored += restored;
        all.present += present;
        all.key_taken += key_taken;
        progress(all.restored + all.present + all.key_taken);
    }
}

/// Forgets the keys of archived sagas that ended longer ago than this, which can then be used again.
///
/// # Errors
/// [`ArchiveError`].
pub async fn forget(store: &Arc<dyn Store>, older_than: Duration, batch: u32) -> Result<u64, ArchiveError> {
    let archive = store.archive().ok_or(ArchiveError::NoArchive)?;
    let cutoff = before(store.health().await?.now, older_than);
    let mut forgotten = 0;
    loop {
        match archive.forget_keys(cutoff, batch).await? {
            0 => return Ok(forgotten),
            some => forgotten += some,
        }
    }
}

fn before(now: Timestamp, by: Duration) -> Timestamp {
    // The time between now and then, mirrored; saturates at the beginning of time.
    now.checked_sub_signed(after(now, by) - now).unwrap_or(Timestamp::MIN_UTC)
}
