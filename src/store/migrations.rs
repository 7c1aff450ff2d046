//! Which migrations there are, and which a schema still needs.

use crate::store::{Migration, StoreError};

/// A migration that this program carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

impl From<Known> for Migration {
    fn from(known: Known) -> Self {
        Self { version: known.version, name: known.name.to_owned(), sql: known.sql.to_owned() }
    }
}

/// The schema version that this program needs.
pub(super) fn newest(known: &[Known]) -> i64 {
    known.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// What is still to be applied to a schema at version `applied`.
pub(super) fn pending(known: &[Known], applied: Option<i64>) -> Result<Vec<Known>, StoreError> {
    let found = applied.unwrap_or_default();
    if found > newest(known) {
        return Err(StoreError::SchemaAhead { found, known: newest(known) });
    }
    Ok(known.iter().copied().filter(|migration| migration.version > found).collect())
}

/// Whether program and schema fit.
pub(super) fn check(known: &[Known], applied: Option<i64>, store: &str) -> Result<(), StoreError> {
    if pending(known, applied)?.is_empty() {
        return Ok(());
    }
    let found = applied.unwrap_or_default();
    Err(StoreError::SchemaBehind { found, needed: newest(known), store: store.to_owned() })
}
