//! Moves finished sagas out of a store into compressed files, and back.
//!
//! A file holds one family of sagas per line (a saga and those that its steps started), compressed with gzip, so that `zcat` reads it. Beside it
//! stands a manifest with its checksum. The order is what makes an interruption harmless: a file is written and synced;
//! then its manifest is put in place, which makes it count; then it is read back, and what was read is removed from the
//! store in small transactions; then the manifest says so. The next run drops what does not count yet and goes on with
//! what counts and was not removed.

mod file;
mod run;

pub use file::{Contents, Manifest, Reader, list};
pub use run::{Options, Progress, Source, Summary, count, forget, restore, run, would_restore};

use crate::id::Namespace;
use crate::store::StoreError;

/// An archive could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store has no way to archive, as the one in memory.
    #[error("this store cannot be archived: it keeps nothing anyway")]
    NoArchive,
    /// Another run has the right to archive.
    #[error("another run archives this store at the moment")]
    Busy,
    /// Files cannot be written or read.
    #[error("`{path}`: {error}")]
    File {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not as it was written.
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// Which.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file is another namespace's.
    #[error("`{path}` holds sagas of namespace `{found}`, and this store is that of `{wanted}`")]
    OtherNamespace {
        /// Which.
        path: String,
        /// Whose it is.
        found: String,
        /// Whose it was to be.
        wanted: Namespace,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoArchive => "ARCHIVE_NONE",
            Self::Busy => "ARCHIVE_BUSY",
            Self::File { .. } => "ARCHIVE_FILE",
            Self::Damaged { .. } => "ARCHIVE_DAMAGED",
            Self::OtherNamespace { .. } => "ARCHIVE_OTHER_NAMESPACE",
            Self::Store(error) if error.is_transient() => "STORE_UNAVAILABLE",
            Self::Store(_) => "STORE_REFUSED",
        }
    }
}
