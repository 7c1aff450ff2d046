//! What a store tells of itself.

use crate::clock::Timestamp;

/// One migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Its SQL.
    pub sql: String,
}

/// What `doctor` shows of a store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreHealth {
    /// Kind and server version, for example `PostgreSQL 15.18`.
    pub server: String,
    /// The newest migration that was applied.
    pub schema_version: Option<i64>,
    /// The newest migration that this program knows.
    pub program_version: i64,
    /// Whether a commit survives a power cut, as far as settings tell.
    pub is_durable: bool,
    /// The settings that decide it, for example `("fsync", "on")`.
    pub durability: Vec<(String, String)>,
    /// The database's time.
    pub now: Timestamp,
}
