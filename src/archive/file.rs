//! Archive files and their manifests.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::archive::ArchiveError;
use crate::clock::Timestamp;
use crate::id::{Namespace, SagaId};
use crate::store::StoreError;
use crate::store::archive::{Family, Head};

const FORMAT: &str = "amends-archive/1";
const DATA: &str = ".jsonl.gz";
const MANIFEST: &str = ".manifest.json";
const PARTIAL: &str = ".partial";
/// What an archive file holds. Its presence makes the file count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// `amends-archive/1`.
    pub format: String,
    /// The data file's name.
    pub file: String,
    /// The namespace whose sagas they are; files from before there were any do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// SHA-256 of the data file, in hexadecimal.
    pub sha256: String,
    /// The data file's length.
    pub bytes: u64,
    /// Before compression.
    pub uncompressed_bytes: u64,
    /// What is in it.
    #[serde(flatten)]
    pub contents: Contents,
    /// Everything in it ended before this.
    pub ended_before: Timestamp,
    /// When it was written.
    pub created_at: Timestamp,
    /// When everything in it had been removed from the store; until then a run goes on with that.
    pub removed_at: Option<Timestamp>,
}

/// What is in a file, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Sagas.
    pub sagas: u64,
    /// Families of sagas: lines.
    pub families: u64,
    /// The least id.
    pub first: Option<SagaId>,
    /// The greatest.
    pub last: Option<SagaId>,
}

impl Contents {
    fn add(&mut self, family: &Family) -> Result<(), StoreError> {
        for saga in &family.sagas {
            let Head { id, .. } = saga.head()?;
            self.sagas += 1;
            self.first = Some(self.first.map_or(id, |first| first.min(id)));
            self.last = Some(self.last.map_or(id, |last| last.max(id)));
        }
        self.families += 1;
        Ok(())
    }
}

pub(super) fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> ArchiveError + '_ {
    |error| ArchiveError::File { path: path.display().to_string(), error }
}

fn damaged(path: &Path, problem: impl ToString) -> ArchiveError {
    ArchiveError::Damaged { path: path.display().to_string(), problem: problem.to_string() }
}

fn named(folder: &Path, name: &str, ends: &[&str]) -> PathBuf {
    folder.join(format!("{name}{}", ends.concat()))
}

fn sync_folder(folder: &Path) -> Result<(), ArchiveError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

/// Counts and hashes what goes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Writes one file, which does not count until [`Writer::keep`].
pub(super) struct Writer {
    folder: PathBuf,
    name: String,
    encoder: GzEncoder<Hashing<BufWriter<File>>>,
    uncompressed: u64,
    pub(super) contents: Contents,
}

impl Writer {
    pub(super) fn create(folder: &Path, name: String) -> Result<Self, ArchiveError> {
        let path = named(folder, &name, &[DATA, PARTIAL]);
        let file = File::create_new(&path).map_err(failed(&path))?;
        let inner = Hashing { inner: BufWriter::new(file), hash: Sha256::new(), bytes: 0 };
        let encoder = GzEncoder::new(inner, Compression::default());
        Ok(Self { folder: folder.to_owned(), name, encoder, uncompressed: 0, contents: Contents::default() })
    }

    pub(super) fn add(&mut self, family: &Family) -> Result<(), ArchiveError> {
        let path = named(&self.folder, &self.name, &[DATA, PARTIAL]);
        let mut line = one_line(&serde_json::to_string(family).map_err(|error| damaged(&path, error))?);
        line.push('\n');
        self.encoder.write_all(line.as_bytes()).map_err(failed(&path))?;
        self.uncompressed += line.len() as u64;
        Ok(self.contents.add(family)?)
    }

    /// Syncs the file and its manifest, and puts them in place.
    pub(super) fn keep(
        self,
        namespace: &Namespace,
        ended_before: Timestamp,
        now: Timestamp,
        before: impl FnOnce(),
    ) -> Result<Manifest, ArchiveError> {
        let partial = named(&self.folder, &self.name, &[DATA, PARTIAL]);
        let mut hashing = self.encoder.finish().map_err(failed(&partial))?;
        hashing.flush().map_err(failed(&partial))?;
        hashing.inner.get_ref().sync_all().map_err(failed(&partial))?;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            file: format!("{}{DATA}", self.name),
            namespace: Some(namespace.to_string()),
            sha256: hex::encode(hashing.hash.finalize()),
            bytes: hashing.bytes,
            uncompressed_bytes: self.uncompressed,
            contents: self.contents,
            ended_before,
            created_at: now,
            removed_at: None,
        };
        before();
        manifest.write(&self.folder)?;
        settle(&self.folder, &manifest)?;
        Ok(manifest)
    }
}

impl Manifest {
    /// Where it stands.
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}{MANIFEST}", self.file.trim_end_matches(DATA)))
    }

    /// Puts it in place whole, or leaves what was there.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ArchiveError> {
        let path = self.path(folder);
        let mut partial = path.clone().into_os_string();
        partial.push(PARTIAL);
        let partial = PathBuf::from(partial);
        let text = serde_json::to_string_pretty(self).map_err(|error| damaged(&path, error))?;
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().map_err(failed(&path))?;
        sync_folder(folder)
    }

    /// Whether its sagas may be of this namespace.
    pub fn may_be_of(&self, namespace: &Namespace) -> bool {
        self.namespace.as_deref().is_none_or(|name| name == namespace.as_str())
    }

    /// Whether a saga with this id may be in the file.
    pub fn may_hold(&self, id: SagaId) -> bool {
        self.contents.first.is_some_and(|first| first <= id) && self.contents.last.is_some_and(|last| id <= last)
    }
}

/// A file that counts gets its own name, if it has not got it yet.
fn settle(folder: &Path, manifest: &Manifest) -> Result<(), ArchiveError> {
    let path = folder.join(&manifest.file);
    let partial = folder.join(format!("{}{PARTIAL}", manifest.file));
    if !path.exists() && partial.exists() {
        fs::rename(&partial, &path).map_err(failed(&path))?;
        sync_folder(folder)?;
    }
    Ok(())
}

/// The manifests in a folder, oldest first.
///
/// # Errors
/// When the folder or a manifest cannot be read.
pub fn list(folder: &Path) -> Result<Vec<Manifest>, ArchiveError> {
    let mut manifests = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        if path.to_str().is_some_and(|path| path.ends_with(MANIFEST)) {
            manifests.push(read_manifest(&path)?);
        }
    }
    manifests.sort_by(|a, b| (a.created_at, &a.file).cmp(&(b.created_at, &b.file)));
    Ok(manifests)
}

fn read_manifest(path: &Path) -> Result<Manifest, ArchiveError> {
    let text = fs::read_to_string(path).map_err(failed(path))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| damaged(path, error))?;
    if manifest.format != FORMAT {
        return Err(damaged(path, format!("its format is {}, and this program knows {FORMAT}", manifest.format)));
    }
    // A name is no path.
    if Path::new(&manifest.file).file_name().is_none_or(|name| name != manifest.file.as_str()) {
        return Err(damaged(path, "it names a file elsewhere"));
    }
    Ok(manifest)
}

/// Drops what a run that was interrupted has left and does not count, and finishes what does.
pub(super) fn clear(folder: &Path) -> Result<Vec<Manifest>, ArchiveError> {
    let manifests = list(folder)?;
    for manifest in &manifests {
        settle(folder, manifest)?;
    }
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let path = entry.map_err(failed(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("amends-") && name.ends_with(PARTIAL) {
            fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    Ok(manifests)
}

/// Reads a file's families.
pub struct Reader {
    path: PathBuf,
    pub(super) manifest: Option<Manifest>,
    lines: BufReader<GzDecoder<BufReader<File>>>,
}

impl Reader {
    /// Opens a data file; checked against its manifest, where there is one.
    ///
    /// # Errors
    /// When it cannot be read, or is not as it was written.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let name = path.to_str().unwrap_or_default();
        let manifest = PathBuf::from(format!("{}{MANIFEST}", name.trim_end_matches(DATA)));
        let manifest = if manifest.exists() { Some(read_manifest(&manifest)?) } else { None };
        if let Some(manifest) = &manifest {
            let found = hash(path)?;
            if found != manifest.sha256 {
                return Err(damaged(path, format!("its SHA-256 is {found}, not {}", manifest.sha256)));
            }
        }
        let file = File::open(path).map_err(failed(path))?;
        let decoder = GzDecoder::new(BufReader::new(file));
        Ok(Self { path: path.to_owned(), manifest, lines: BufReader::new(decoder) })
    }

    /// Up to `sagas` sagas, at least one family; none at the end.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn next(&mut self, sagas: usize) -> Result<Vec<Family>, ArchiveError> {
        let (mut families, mut count) = (Vec::new(), 0);
        let mut line = String::new();
        while count < sagas {
            line.clear();
            if self.lines.read_line(&mut line).map_err(|error| damaged(&self.path, error))? == 0 {
                break;
            }
            let family: Family = serde_json::from_str(&line).map_err(|error| damaged(&self.path, error))?;
            count += family.sagas.len();
            families.push(family);
        }
        Ok(families)
    }
}

fn hash(path: &Path) -> Result<String, ArchiveError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer).map_err(failed(path))? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// JSON without white space between its tokens: payloads may hold line ends, and a line is a family.
fn one_line(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 1);
    let (mut in_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        match (in_string, c) {
            (true, _) if is_escaped => is_escaped = false,
            (true, '\\') => is_escaped = true,
            (_, '"') => in_string = !in_string,
            (false, ' ' | '\n' | '\r' | '\t') => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_and_strings_stay() {
        assert_eq!(one_line("{ \"a b\\\" \\\\\" :\n [1.50, \"\\n \"]\r\n}"), "{\"a b\\\" \\\\\":[1.50,\"\\n \"]}");
    }
}
