//! The definitions that this process knows, compiled. Versions are immutable, so what is known never goes stale.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::coordinator::CoordinatorError;
use crate::definition::{self, Definition};
use crate::id::DefinitionRef;
use crate::store::{DefinitionRecord, Deprecation, Store, StoreError};

/// For so long starts go by what was last seen: which version is the newest, and which are deprecated. What this
/// coordinator registers and deprecates itself counts at once.
const NEWEST_IS_FRESH: Duration = Duration::from_millis(500);

/// Compiled definitions, loaded from the store as they are needed.
pub(super) struct Registry {
    store: Arc<dyn Store>,
    /// What need not be compiled, once it is registered.
    compiled: Vec<Arc<Definition>>,
    known: RwLock<HashMap<DefinitionRef, Arc<Definition>>>,
    newest: RwLock<HashMap<String, (DefinitionRef, Instant)>>,
    /// Whether versions that starts name are deprecated, as it was last seen.
    deprecated: RwLock<HashMap<DefinitionRef, (Option<Deprecation>, Instant)>>,
}

impl Registry {
    pub(super) fn new(store: Arc<dyn Store>, compiled: Vec<Arc<Definition>>) -> Self {
        Self { store, compiled, known: RwLock::default(), newest: RwLock::default(), deprecated: RwLock::default() }
    }

    /// The definition, if it is in memory.
    pub(super) fn known(&self, reference: &DefinitionRef) -> Option<Arc<Definition>> {
        self.known.read().ok()?.get(reference).cloned()
    }

    pub(super) fn remember(&self, definition: Arc<Definition>) {
        if let Ok(mut newest) = self.newest.write() {
            newest.remove(&definition.reference.name);
        }
        if let Ok(mut known) = self.known.write() {
            known.insert(definition.reference.clone(), definition);
        }
    }

    /// The services of every definition in memory, each once.
    pub(super) fn participants(&self) -> BTreeSet<String> {
        let known = self.known.read();
        let known = known.iter().flat_map(|known| known.values());
        known.flat_map(|definition| definition.participants().into_iter().map(str::to_owned)).collect()
    }

    /// The definition, from the store if need be; `None` when it is not registered.
    pub(super) async fn get(&self, reference: &DefinitionRef) -> Result<Option<Arc<Definition>>, StoreError> {
        if let Some(definition) = self.known(reference) {
            return Ok(Some(definition));
        }
        let Some(record) = self.store.definition(reference).await? else { return Ok(None) };
        let definition = self.compile(&record)?;
        self.remember(definition.clone());
        Ok(Some(definition))
    }

    /// Loads every definition that is not known yet and returns all of them.
    pub(super) async fn load_all(&self) -> Result<Vec<Arc<Definition>>, StoreError> {
        let mut all = Vec::new();
        for record in self.store.definitions(None).await? {
            let definition = match self.known(&record.reference) {
                Some(definition) => definition,
                None => self.compile(&record)?,
            };
            self.remember(definition.clone());
            all.push(definition);
        }
        Ok(all)
    }

    async fn newest(&self, name: &str) -> Result<Option<DefinitionRef>, StoreError> {
        let seen = self.newest.read().ok().and_then(|newest| newest.get(name).cloned());
        if let Some((reference, since)) = seen
            && since.elapsed() < NEWEST_IS_FRESH
        {
            return Ok(Some(reference));
        }
        let reference = self.store.newest(&[name.to_owned()]).await?.pop();
        if let (Some(reference), Ok(mut newest)) = (&reference, self.newest.write()) {
            newest.insert(name.to_owned(), (reference.clone(), Instant::now()));
        }
        Ok(reference)
    }

    /// A version was deprecated, or no longer is.
    pub(super) fn forget_standing(&self, reference: &DefinitionRef) {
        if let Ok(mut newest) = self.newest.write() {
            newest.remove(&reference.name);
        }
        if let Ok(mut deprecated) = self.deprecated.write() {
            deprecated.remove(reference);
        }
    }

    async fn deprecation(&self, reference: &DefinitionRef) -> Result<Option<Deprecation>, StoreError> {
        let seen = self.deprecated.read().ok().and_then(|deprecated| deprecated.get(reference).cloned());
        if let Some((deprecation, since)) = seen
            && since.elapsed() < NEWEST_IS_FRESH
        {
            return Ok(deprecation);
        }
        let deprecation = self.store.definition(reference).await?.and_then(|record| record.deprecated);
        if let Ok(mut deprecated) = self.deprecated.write() {
            deprecated.insert(reference.clone(), (deprecation.clone(), Instant::now()));
        }
        Ok(deprecation)
    }

    /// The definition that a start names, and why nothing new may be started with it, if so: this version, or the newest
    /// that is not deprecated. When all are, the newest of them.
    pub(super) async fn resolve_open(
        &self,
        name: &str,
        version: Option<u32>,
    ) -> Result<(Arc<Definition>, Option<Deprecation>), CoordinatorError> {
        if version.is_none() && self.newest(name).await?.is_none() {
            let all = self.store.definitions(Some(name)).await?;
            if let Some(last) = all.into_iter().max_by_key(|record| record.reference.version) {
                let definition = self.resolve(name, Some(last.reference.version)).await?;
                return Ok((definition, last.deprecated));
            }
        }
        let definition = self.resolve(name, version).await?;
        let deprecation = match version {
            Some(_) => self.deprecation(&definition.reference).await?,
            None => None,
        };
        Ok((definition, deprecation))
    }

    /// The definition of this version, or the newest that is not deprecated.
    pub(super) async fn resolve(&self, name: &str, version: Option<u32>) -> Result<Arc<Definition>, CoordinatorError> {
        let reference = match version {
            Some(version) => Some(DefinitionRef { name: name.to_owned(), version }),
            None => self.newest(name).await?,
        };
        if let Some(reference) = reference
            && let Some(definition) = self.get(&reference).await?
        {
            return Ok(definition);
        }
        let mut known: Vec<DefinitionRef> =
            self.store.definitions(None).await?.into_iter().map(|record| record.reference).collect();
        let versions: Vec<u32> = known.iter().filter(|known| known.name == name).map(|known| known.version).collect();
        Err(match version {
            Some(version) if !versions.is_empty() => {
                CoordinatorError::UnknownVersion { name: name.to_owned(), version, known: versions }
            }
            _ => {
                known.dedup_by(|a, b| a.name == b.name);
                let known = known.into_iter().map(|reference| reference.name).collect();
                CoordinatorError::UnknownDefinition { name: name.to_owned(), known }
            }
        })
    }

    fn compile(&self, record: &DefinitionRecord) -> Result<Arc<Definition>, StoreError> {
        let DefinitionRecord { reference, hash, source, .. } = record;
        let at_hand = self.compiled.iter().find(|known| known.reference == *reference && known.hash == *hash);
        at_hand
            .cloned()
            .or_else(|| definition::compile(source))
            .ok_or_else(|| StoreError::Corrupt(format!("definition {reference} was registered but no longer compiles")))
    }
}
