//! What moving finished sagas out of a store needs of it, and putting them back.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::store::StoreError;

/// A row as JSON: columns by name, times in RFC 3339, hashes as `\x…`, JSON columns as they are stored. The same from
/// every store, so that one can take what another has given.
pub type Row = BTreeMap<String, Box<RawValue>>;

/// Everything that is kept of one saga.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedSaga {
    /// Its row.
    pub saga: Row,
    /// Its commands.
    pub outbox: Vec<Row>,
    /// What the outbox cannot tell.
    pub history: Vec<Row>,
    /// What operators did to it.
    pub audit: Vec<Row>,
}

/// A saga with the sagas that its steps have started, the root first: archived and restored as one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// The sagas.
    pub sagas: Vec<ArchivedSaga>,
}

/// What a saga's row tells of it at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its id.
    pub id: SagaId,
    /// The definition's name.
    pub saga: String,
    /// Its key.
    pub key: Option<String>,
    /// Its state.
    pub state: String,
    /// Its revision.
    pub revision: u32,
    /// When it ended.
    pub ended_at: Timestamp,
}

impl ArchivedSaga {
    /// Who it is.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`], when the row lacks it.
    pub fn head(&self) -> Result<Head, StoreError> {
        fn column<'r, T: Deserialize<'r>>(row: &'r Row, name: &str) -> Result<T, StoreError> {
            let text = row.get(name).map_or("null", |raw| raw.get());
            serde_json::from_str(text)
                .map_err(|error| StoreError::Corrupt(format!("an archived saga's {name}: {error}")))
        }
        Ok(Head {
            id: column(&self.saga, "id")?,
            saga: column(&self.saga, "definition_name")?,
            key: column(&self.saga, "key")?,
            state: column(&self.saga, "state")?,
            revision: column(&self.saga, "revision")?,
            ended_at: column(&self.saga, "ended_at")?,
        })
    }

    /// Whether the store holds the saga as it is here: by revision and numbers of rows, which never fall.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn is_as(&self, stored: &Stored) -> bool {
        let count = |rows: &[Row]| i64::try_from(rows.len()).unwrap_or(i64::MAX);
        self.head().is_ok_and(|head| {
            crate::store::row::int(head.revision) == stored.revision
                && count(&self.outbox) == stored.outbox
                && count(&self.history) == stored.history
                && count(&self.audit) == stored.audit
        })
    }
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
crate::store::row::columns! {
    /// What a store says of a saga that is to be removed.
    #[derive(Debug)]
    pub(super) struct Stored {
        pub(super) id: Uuid,
        pub(super) revision: i32,
        pub(super) outbox: i64,
        pub(super) history: i64,
        pub(super) audit: i64,
    }
}

/// Those of `families` whose every saga is stored as it is in the archive, and what became of the others.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) fn removable(families: &[Family], stored: Vec<Stored>) -> Result<(Vec<Uuid>, Removed), StoreError> {
    let stored: std::collections::HashMap<Uuid, Stored> = stored.into_iter().map(|row| (row.id, row)).collect();
    let (mut ids, mut removed) = (Vec::new(), Removed::default());
    for family in families {
        let heads = family.sagas.iter().map(ArchivedSaga::head).collect::<Result<Vec<_>, _>>()?;
        let here = heads.iter().filter(|head| stored.contains_key(&head.id.0)).count();
        let is_same = family
            .sagas
            .iter()
            .zip(&heads)
            .all(|(saga, head)| stored.get(&head.id.0).is_some_and(|stored| saga.is_as(stored)));
        if here == 0 {
            removed.gone += heads.len() as u64;
        } else if is_same {
            removed.sagas += heads.len() as u64;
            ids.extend(heads.iter().map(|head| head.id.0));
        } else {
            removed.changed += heads.len() as u64;
        }
    }
    Ok((ids, removed))
}

/// What became of sagas that were to be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// They were removed.
    pub sagas: u64,
    /// They were not there any more.
    pub gone: u64,
    /// They are not as they were archived, and stay.
    pub changed: u64,
}

/// What became of sagas that were to be restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// They are back.
    pub restored: u64,
    /// They were there already.
    pub present: u64,
    /// Their keys belong to other sagas by now; nothing was done.
    pub key_taken: u64,
}

/// What is remembered of a key whose saga was archived.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedKey {
    /// The definition's name.
    pub definition: String,
    /// The key.
    pub key: String,
    /// The saga.
    pub id: SagaId,
    /// The version of its definition.
    pub version: u32,
    /// Its state.
    pub state: String,
    /// When it was started.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// When it was archived.
    pub archived_at: Timestamp,
}

/// A store that finished sagas can be moved out of.
#[async_trait]
pub trait ArchiveStore: Send + Sync {
    /// Takes or renews the right to archive, for so many seconds. False while another run has it.
    async fn lease(&self, holder: Uuid, seconds: u32) -> Result<bool, StoreError>;

    /// Sagas that no saga has started and that ended before `cutoff`, after `after`, in the order of their ids.
    async fn archivable(&self, cutoff: Timestamp, after: Option<SagaId>, limit: u32)
    -> Result<Vec<SagaId>, StoreError>;

    /// The families of these roots; those of which a member has not ended before `cutoff` are left out.
    async fn families(&self, roots: &[SagaId], cutoff: Timestamp) -> Result<Vec<Family>, StoreError>;

    /// Removes families that are in an archive, in one transaction, and leaves what is to be remembered of their keys. A
    /// family that is not as it was archived stays.
    async fn remove(&self, families: &[Family]) -> Result<Removed, StoreError>;

    /// Puts families back, in one transaction. A family of which a saga is there already is left as it is, and one whose
    /// key belongs to another saga by now is left out. `dry`: only says what would become of each.
    async fn restore(&self, families: &[Family], dry: bool) -> Result<Restored, StoreError>;

    /// What is remembered of a saga that had a key.
    async fn archived(&self, id: SagaId) -> Result<Option<ArchivedKey>, StoreError>;

    /// Forgets up to `limit` keys whose sagas ended before `before`: from then on the key can be used again.
    async fn forget_keys(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// Forgets up to `limit` bulk jobs, each with what became of its sagas, that ended before `before` and whose sagas are not
    /// to be looked at again. Their audit rows stay.
    async fn forget_jobs(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
}
