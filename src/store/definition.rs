//! Definition versions as a store keeps them.

use crate::clock::Timestamp;
use crate::id::DefinitionRef;

/// A registered definition version.
#[derive(Clone, Debug, PartialEq)]
pub struct DefinitionRecord {
    /// Name and version.
    pub reference: DefinitionRef,
    /// SHA-256 of its content.
    pub hash: [u8; 32],
    /// The text as it was registered.
    pub source: String,
    /// When.
    pub registered_at: Timestamp,
    /// By whom.
    pub registered_by: String,
    /// Set while the version is deprecated: nothing new is started with it. Not written by [`Store::register`](crate::store::Store::register).
    pub deprecated: Option<Deprecation>,
}

/// Since when, by whom and why a definition version is deprecated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deprecation {
    /// Since when.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// What became of a registration.
#[derive(Clone, Debug, PartialEq)]
pub enum Registration {
    /// It is new.
    New,
    /// It was registered before with the same content; the stored record.
    Same(DefinitionRecord),
    /// It was registered before with other content, and versions are immutable; the stored record.
    Different(DefinitionRecord),
}
