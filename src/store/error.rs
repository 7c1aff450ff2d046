//! What can go wrong in a store.

/// The store could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address cannot be understood.
    #[error("store address `{address}`: {problem}")]
    Address {
        /// The address, without password.
        address: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no connection, or it broke before COMMIT. Nothing was written; try again.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The connection was lost during COMMIT: it may have been written or not.
    #[error("the connection was lost during commit: {0}")]
    Unknown(String),
    /// Another transaction got in the way (deadlock, serialisation, changed revision). Nothing was written; try again.
    #[error("another transaction got in the way: {0}")]
    Conflict(String),
    /// The schema is older than this program.
    #[error("the schema is at version {found}, this program needs {needed}: run `amends migrate --store {store}`")]
    SchemaBehind {
        /// The schema's version; 0 for none.
        found: i64,
        /// This program's.
        needed: i64,
        /// The address, without password.
        store: String,
    },
    /// The schema is newer than this program.
    #[error("the schema is at version {found}, this program knows up to {known}: run a newer amends")]
    SchemaAhead {
        /// The schema's version.
        found: i64,
        /// This program's.
        known: i64,
    },
    /// What is stored cannot be read.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
    /// Anything else that the database says. Nothing was written.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// Whether trying again can help, without a person.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_) | Self::Conflict(_))
    }
}
