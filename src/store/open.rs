//! Which store an address means.

use std::sync::Arc;

use crate::id::Namespace;
use crate::store::{Store, StoreError};

/// The store at an address: `postgres://…`, `sqlite://FILE`, or `memory:` for tests.
///
/// # Errors
/// [`StoreError::Address`] when the address cannot be understood, [`StoreError::Unavailable`] when nothing answers there.
pub async fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    match url.split_once(':').map(|(scheme, _)| scheme) {
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => Ok(Arc::new(super::postgres::PostgresStore::connect(url).await?)),
        #[cfg(feature = "sqlite")]
        Some("sqlite") => Ok(Arc::new(super::sqlite::SqliteStore::connect(url).await?)),
        Some("memory") => Ok(Arc::new(super::memory::MemoryStore::new(crate::clock::Clock::System))),
        scheme => Err(StoreError::Address {
            // What cannot be understood may hold a password anywhere.
            address: scheme.unwrap_or("(not a URL)").to_owned(),
            problem: "expected postgres://…, sqlite://FILE or memory:".to_owned(),
        }),
    }
}

/// The store of a namespace: in PostgreSQL its own schema of the database at `url`, else all of what is at `url`, which
/// then must be nobody else's.
///
/// # Errors
/// As [`open`].
pub async fn open_within(url: &str, namespace: &Namespace) -> Result<Arc<dyn Store>, StoreError> {
    #[cfg(feature = "postgres")]
    if url.starts_with("postgres") {
        return Ok(Arc::new(super::postgres::PostgresStore::connect_within(url, namespace).await?));
    }
    // What the others hold they hold whole.
    let _ = namespace;
    open(url).await
}
