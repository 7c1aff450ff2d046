//! What can go wrong in a store.

/// The store could not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// A key that payloads were encrypted with is not among those of the settings.
    #[error("the encryption key `{key}` is missing: add it to `[encryption.keys]` of the settings")]
    KeyMissing {
        /// Its name.
        key: String,
    },
    /// Payloads are encrypted, so that nothing can be looked for in them.
    #[error("payloads are encrypted, so that no saga can be found by a field of its input: look for its key")]
    FieldEncrypted,
    /// Anything else that the database says. Nothing was written.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl StoreError {
    /// A stable code, the same over HTTP and AMQP.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeyMissing { .. } => "ENCRYPTION_KEY_MISSING",
            Self::FieldEncrypted => "FIELD_ENCRYPTED",
            _ if self.is_transient() => "STORE_UNAVAILABLE",
            _ => "STORE_REFUSED",
        }
    }

    /// Whether trying again can help, without a person.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_) | Self::Conflict(_))
    }
}
