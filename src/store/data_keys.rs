//! Keys that payloads are encrypted with, as a store keeps them: each wrapped by a master key that the store never sees.

use async_trait::async_trait;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::{Page, StoreError};

/// What a data key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Encrypts payloads.
    Payload,
    /// Keys the hash of inputs. There is one, for good: hashes are compared.
    Hash,
}

impl Purpose {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Payload => "payload",
            Self::Hash => "hash",
        }
    }
}

/// A data key, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Its id, by which what it encrypted names it.
    pub id: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    /// The name of the master key that wraps it.
    pub master: String,
    /// The key as the master key encrypted it.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A store that keeps data keys. None is ever removed: what it encrypted may be in an archive.
#[async_trait]
pub trait DataKeyStore: Send + Sync {
    /// Data keys in the order of their ids.
    async fn data_keys(&self, page: &Page<Uuid>) -> Result<Vec<WrappedKey>, StoreError>;

    /// The data key of this id.
    async fn data_key(&self, id: Uuid) -> Result<Option<WrappedKey>, StoreError>;

    /// The data key that was made last for this purpose.
    async fn newest_data_key(&self, purpose: Purpose) -> Result<Option<WrappedKey>, StoreError>;

    /// Keeps a new one; false where there is one for [`Purpose::Hash`] already.
    async fn add_data_key(&self, key: &WrappedKey) -> Result<bool, StoreError>;

    /// Puts `to`'s master key and wrapping in the place of `from`'s; false when it is not as in `from` any more.
    async fn rewrap_data_key(&self, from: &WrappedKey, to: &WrappedKey) -> Result<bool, StoreError>;

    /// How many data keys each master key wraps, by name.
    async fn data_key_counts(&self) -> Result<Vec<(String, u64)>, StoreError>;
}

/// The columns of a row: id, purpose, master, wrapped, created.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn read(
    (id, purpose, master, wrapped, created_at): (Uuid, String, String, Vec<u8>, Timestamp),
) -> Result<WrappedKey, StoreError> {
    let purpose = match purpose.as_str() {
        "payload" => Purpose::Payload,
        "hash" => Purpose::Hash,
        other => return Err(StoreError::Corrupt(format!("data key {id} is for `{other}`"))),
    };
    Ok(WrappedKey { id, purpose, master, wrapped, created_at })
}
