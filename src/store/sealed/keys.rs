//! Master keys from the settings, and the data keys that they wrap.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::clock::Clock;
use crate::id::fresh_request_id;
use crate::store::StoreError;
use crate::store::data_keys::{DataKeyStore, Purpose, WrappedKey};
use crate::store::sealed::cipher::{Key, NoRandom, Pen};

/// For so long a data key is written with; then a new one is made.
const PERIOD: chrono::TimeDelta = chrono::TimeDelta::days(7);
/// How often it is looked whether there is a newer one.
const LOOK: Duration = Duration::from_secs(3_600);

/// The master keys, by name. Without an active one what is encrypted is read, and nothing more is encrypted.
#[derive(Clone, Debug, Default)]
pub struct MasterKeys {
    active: Option<String>,
    keys: BTreeMap<String, Key>,
}

impl MasterKeys {
    /// These keys, of which `active` wraps new data keys.
    ///
    /// # Errors
    /// When `active` is none of them.
    pub fn new(active: Option<String>, keys: impl IntoIterator<Item = (String, [u8; 32])>) -> Result<Self, String> {
        let keys: BTreeMap<String, Key> = keys.into_iter().map(|(name, key)| (name, Key::new(key))).collect();
        match active.as_ref().filter(|active| !keys.contains_key(*active)) {
            Some(active) => Err(not_there(active)),
            None => Ok(Self { active, keys }),
        }
    }

    /// The same keys, of which `active` wraps new data keys.
    ///
    /// # Errors
    /// When it is none of them.
    pub fn with_active(self, active: &str) -> Result<Self, String> {
        if !self.keys.contains_key(active) {
            return Err(not_there(active));
        }
        Ok(Self { active: Some(active.to_owned()), keys: self.keys })
    }

    /// 32 bytes as base64 or as 64 hexadecimal digits; white space around them does not count.
    ///
    /// # Errors
    /// When it is neither. The text is not told.
    pub fn parse(text: &str) -> Result<[u8; 32], String> {
        use base64::Engine;
        let text = text.trim();
        let bytes = match text.len() {
            64 => hex::decode(text).ok(),
            _ => base64::engine::general_purpose::STANDARD.decode(text).ok(),
        };
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or_else(|| {
            "a key is 32 bytes as base64 or as 64 hexadecimal digits: openssl rand -base64 32".to_owned()
        })
    }

    /// The name of the key that wraps new data keys.
    pub fn active(&self) -> Option<&str> {
        self.active.as_deref()
    }

    /// The names of all keys.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    fn unwrap_key(&self, wrapped: &WrappedKey) -> Result<Key, StoreError> {
        let missing = || StoreError::KeyMissing { key: wrapped.master.clone() };
        let master = self.keys.get(&wrapped.master).ok_or_else(missing)?;
        master.unwrap_key(&wrapped.wrapped, &place(wrapped.purpose, wrapped.id)).map_err(|_| {
            let (id, name) = (wrapped.id, &wrapped.master);
            StoreError::Corrupt(format!("data key {id} does not open with the master key `{name}`: is it another one?"))
        })
    }

    fn wrap(&self, master: &str, key: &Key, purpose: Purpose, id: Uuid) -> Result<Vec<u8>, StoreError> {
        let missing = || StoreError::KeyMissing { key: master.to_owned() };
        self.keys.get(master).ok_or_else(missing)?.wrap(key, &place(purpose, id)).map_err(no_random)
    }

    /// The data key, wrapped by the active key instead.
    ///
    /// # Errors
    /// [`StoreError::KeyMissing`] when one of the two keys is not here.
    pub fn rewrapped(&self, from: &WrappedKey) -> Result<WrappedKey, StoreError> {
        let key = self.unwrap_key(from)?;
        let master = self.active.clone().ok_or_else(|| StoreError::KeyMissing { key: "(active)".to_owned() })?;
        let wrapped = self.wrap(&master, &key, from.purpose, from.id)?;
        Ok(WrappedKey { master, wrapped, ..from.clone() })
    }

    /// Whether a data key opens with the keys that are here.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, wrapped: &WrappedKey) -> Result<(), StoreError> {
        self.unwrap_key(wrapped).map(drop)
    }
}

fn not_there(active: &str) -> String {
    format!("the active key `{active}` is not among the keys")
}

fn place(purpose: Purpose, id: Uuid) -> String {
    format!("data-key/{}/{id}", purpose.as_str())
}

pub(super) fn no_random(_: NoRandom) -> StoreError {
    StoreError::Refused("there is no random source, so that nothing can be encrypted".to_owned())
}

/// The data keys that were opened so far.
pub(super) type Known = Arc<HashMap<Uuid, Key>>;

/// The keys of one store.
pub(super) struct Keys {
    masters: MasterKeys,
    known: RwLock<Known>,
    /// What is written with, and when that was last looked at. Held while a new one is made, so that one is.
    pen: tokio::sync::Mutex<Option<(Pen, Instant)>>,
    hash: tokio::sync::Mutex<Option<Key>>,
}

impl Keys {
    pub(super) fn new(masters: MasterKeys) -> Self {
        Self {
            masters,
            known: RwLock::default(),
            pen: tokio::sync::Mutex::default(),
            hash: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.masters.active.is_some()
    }

    pub(super) fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, id: Uuid, key: Key) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut more: HashMap<Uuid, Key> = (**known).clone();
        more.insert(id, key);
        *known = Arc::new(more);
    }

    /// Opens the data keys of these ids; those that cannot be opened come back with the reason.
    pub(super) async fn load(
        &self,
        store: &dyn DataKeyStore,
        ids: &BTreeSet<Uuid>,
    ) -> Result<HashMap<Uuid, StoreError>, StoreError> {
        let known = self.known();
        let mut closed = HashMap::new();
        for id in ids.iter().filter(|id| !known.contains_key(*id)) {
            match store.data_key(*id).await? {
                None => drop(closed.insert(*id, StoreError::KeyMissing { key: format!("(data key {id})") })),
                Some(wrapped) => match self.masters.unwrap_key(&wrapped) {
                    Ok(key) => self.remember(*id, key),
                    Err(error) => drop(closed.insert(*id, error)),
                },
            }
        }
        Ok(closed)
    }

    /// The data key to write with; `None` when nothing is to be encrypted.
    pub(super) async fn pen(&self, store: &dyn DataKeyStore) -> Result<Option<Pen>, StoreError> {
        let Some(active) = &self.masters.active else { return Ok(None) };
        let mut held = self.pen.lock().await;
        if let Some((pen, since)) = held.as_ref()
            && since.elapsed() < LOOK
        {
            return Ok(Some(pen.clone()));
        }
        let now = Clock::System.now();
        let newest = store.newest_data_key(Purpose::Payload).await?;
        let pen = match newest.filter(|newest| newest.master == *active && now - newest.created_at < PERIOD) {
            Some(newest) => Pen { id: newest.id, key: self.masters.unwrap_key(&newest)? },
            None => {
                let (id, key) = (fresh_request_id(), Key::fresh().map_err(no_random)?);
                let wrapped = self.masters.wrap(active, &key, Purpose::Payload, id)?;
                let (purpose, master) = (Purpose::Payload, active.clone());
                store.add_data_key(&WrappedKey { id, purpose, master, wrapped, created_at: now }).await?;
                Pen { id, key }
            }
        };
        self.remember(pen.id, pen.key.clone());
        *held = Some((pen.clone(), Instant::now()));
        Ok(Some(pen))
    }

    /// What keys the hashes of inputs; `None` where nothing was ever encrypted.
    pub(super) async fn hash(&self, store: &dyn DataKeyStore) -> Result<Option<Key>, StoreError> {
        let mut held = self.hash.lock().await;
        if held.is_some() {
            return Ok(held.clone());
        }
        let mut stored = store.newest_data_key(Purpose::Hash).await?;
        if let (None, Some(active)) = (&stored, &self.masters.active) {
            let (id, key) = (fresh_request_id(), Key::fresh().map_err(no_random)?);
            let wrapped = self.masters.wrap(active, &key, Purpose::Hash, id)?;
            let (purpose, master) = (Purpose::Hash, active.clone());
            // Another coordinator may be at it; the one that is there counts.
            store.add_data_key(&WrappedKey { id, purpose, master, wrapped, created_at: Clock::System.now() }).await?;
            stored = store.newest_data_key(Purpose::Hash).await?;
        }
        *held = stored.map(|stored| self.masters.unwrap_key(&stored)).transpose()?;
        Ok(held.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_base64_and_from_hexadecimal_digits() {
        let hex = "00".repeat(31) + "ff";
        let base64 = format!("{}/w==\n", "A".repeat(41));
        assert_eq!(MasterKeys::parse(&hex).map(|key| key[31]), Ok(255));
        assert!(MasterKeys::parse(&base64).is_err(), "not 32 bytes");
        assert_eq!(MasterKeys::parse(&format!("{}8=\n", "A".repeat(42))).map(|key| key[31]), Ok(15));
        for wrong in ["", "secret", &"0".repeat(63)] {
            let told = MasterKeys::parse(wrong).expect_err(wrong);
            assert!(wrong.is_empty() || !told.contains(wrong), "{told}");
        }
    }

    #[test]
    fn the_active_key_is_one_of_the_keys() {
        assert!(MasterKeys::new(Some("b".to_owned()), [("a".to_owned(), [0; 32])]).is_err());
        assert!(MasterKeys::new(Some("a".to_owned()), [("a".to_owned(), [0; 32])]).is_ok());
        assert!(MasterKeys::new(None, [("a".to_owned(), [0; 32])]).is_ok());
    }
}
