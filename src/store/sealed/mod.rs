//! Payloads encrypted at rest, in any store: what goes in is encrypted, what comes out decrypted.
//!
//! ```text
//!   master key (settings) --wraps--> data keys (table data_key) --encrypt--> input, output, bodies, signals, problems
//! ```
//!
//! A data key encrypts what one week writes. To exchange the master key its data keys are wrapped anew, which are few;
//! nothing else is written again. What the store itself must read (definition, key, state, names, error types) stays as
//! it is: `docs/secrets.md` says what.

mod cipher;
mod keys;
mod payloads;
mod unit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use self::keys::Keys;
pub use self::keys::MasterKeys;
use self::payloads::{Find, Mask, Open, Payloads, Trouble};
use self::unit::{Shared, Unit, Wrong};
use crate::clock::Timestamp;
use crate::id::{CommandId, DefinitionRef, SagaId};
use crate::message::TokenKey;
use crate::saga::Figures;
use crate::store::archive::ArchiveStore;
use crate::store::bulk::BulkStore;
use crate::store::data_keys::DataKeyStore;
use crate::store::overview::{Lifetime, Service, StateCount, StuckGroup};
use crate::store::pauses::PauseStore;
use crate::store::tokens::TokenStore;
use crate::store::webhooks::{Delivery, DeliveryCounts, WebhookStore};
use crate::store::{
    AuditFilter, AuditRecord, Committed, Decide, DefinitionRecord, HistoryRecord, Migration, OutboxEntry, OutboxFilter,
    Page, Registration, SagaCount, SagaFilter, SagaRecord, SagaSummary, Store, StoreError, StoreHealth, Wants,
};

/// How often a unit of work is begun anew because sagas need data keys that are not open yet.
const TRIES: usize = 4;

/// A store whose payloads are encrypted.
pub struct EncryptedStore {
    inner: Arc<dyn Store>,
    keys: Arc<Keys>,
}

impl EncryptedStore {
    /// Encrypts what goes into `inner`, and decrypts what comes out of it.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `inner` keeps no data keys.
    pub fn new(inner: Arc<dyn Store>, masters: MasterKeys) -> Result<Self, StoreError> {
        if inner.data_keys().is_none() {
            return Err(StoreError::Refused("this store cannot be encrypted: it keeps no data keys".to_owned()));
        }
        Ok(Self { inner, keys: Arc::new(Keys::new(masters)) })
    }

    /// Whether it could write now: that the active key opens what it has to. To be asked once the schema is there.
    ///
    /// # Errors
    /// [`StoreError::KeyMissing`], or what the store says.
    pub async fn check_keys(&self) -> Result<(), StoreError> {
        self.keys.pen(self.data_keys_of()?).await?;
        self.keys.hash(self.data_keys_of()?).await.map(drop)
    }

    fn data_keys_of(&self) -> Result<&dyn DataKeyStore, StoreError> {
        self.inner.data_keys().ok_or_else(|| StoreError::Refused("this store keeps no data keys".to_owned()))
    }

    fn webhooks_of(&self) -> Result<&dyn WebhookStore, StoreError> {
        self.inner.webhooks().ok_or_else(|| StoreError::Refused("this store keeps nothing for webhooks".to_owned()))
    }

    /// Opens what each item holds; of those that cannot be opened, why not.
    async fn opened<T: Payloads>(&self, mut items: Vec<T>) -> Result<Vec<(T, Option<StoreError>)>, StoreError> {
        let mut find = Find::default();
        // It finds, and never fails.
        let _ = items.iter_mut().try_for_each(|item| item.visit(&mut find));
        if find.0.is_empty() {
            return Ok(items.into_iter().map(|item| (item, None)).collect());
        }
        let closed = self.keys.load(self.data_keys_of()?, &find.0).await?;
        let known = self.keys.known();
        let open = |mut item: T| {
            let trouble = item.visit(&mut Open(&known)).err().map(|trouble| why(trouble, &closed));
            (item, trouble)
        };
        Ok(items.into_iter().map(open).collect())
    }

    /// Opens what each item holds, or puts a remark in its place.
    async fn shown<T: Payloads>(&self, items: Vec<T>) -> Result<Vec<T>, StoreError> {
        let shown = self.opened(items).await?.into_iter().map(|(mut item, trouble)| {
            if let Some(trouble) = trouble {
                let remark = format!("(encrypted; {trouble})");
                let _ = item.visit(&mut Mask(&remark));
            }
            item
        });
        Ok(shown.collect())
    }

    /// Opens what each item holds, and leaves out those that cannot be opened: they are not to be sent.
    async fn readable<T: Payloads>(&self, items: Vec<T>) -> Result<Vec<T>, StoreError> {
        let readable = self.opened(items).await?.into_iter().filter_map(|(item, trouble)| match trouble {
            None => Some(item),
            Some(error) => {
                tracing::error!(code = error.code(), %error, "what is stored cannot be decrypted, and is left out");
                None
            }
        });
        Ok(readable.collect())
    }

    async fn one<T: Payloads>(&self, item: T) -> Result<T, StoreError> {
        match self.opened(vec![item]).await?.pop() {
            Some((item, None)) => Ok(item),
            Some((_, Some(error))) => Err(error),
            None => Err(StoreError::Corrupt("nothing came of what was opened".to_owned())),
        }
    }
}

/// Why something cannot be opened. `closed` are the data keys that could not be.
fn why(trouble: Trouble, closed: &HashMap<Uuid, StoreError>) -> StoreError {
    match trouble {
        Trouble::Unknown(id) => match closed.get(&id) {
            Some(error) => error.clone(),
            None => StoreError::KeyMissing { key: format!("(data key {id})") },
        },
        Trouble::Broken(place) => {
            StoreError::Corrupt(format!("{place} cannot be decrypted: it is not what was encrypted for this place"))
        }
        Trouble::NoRandom => keys::no_random(cipher::NoRandom),
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError> {
        let store = self.data_keys_of()?;
        let (pen, hash) = (self.keys.pen(store).await?, self.keys.hash(store).await?);
        let shared = Arc::new(Shared::new(decide));
        let mut closed: HashMap<Uuid, StoreError> = HashMap::new();
        for _ in 0..TRIES {
            let unit = Unit {
                shared: shared.clone(),
                known: self.keys.known(),
                closed: closed.clone(),
                wanted: wants.sagas.clone(),
                pen: pen.clone(),
                hash: hash.clone(),
            };
            let committed = self.inner.commit(wants.clone(), Box::new(move |loaded| unit.run(loaded))).await;
            match shared.wrong() {
                None => return committed.map(|committed| shared.compared(committed, hash.as_ref())),
                Some(Wrong::Error(error)) => return Err(error),
                Some(Wrong::Unknown(ids)) => {
                    committed?;
                    closed.extend(self.keys.load(store, &ids).await?);
                }
            }
        }
        Err(StoreError::Conflict("data keys come faster than they can be opened".to_owned()))
    }

    fn decides_ahead(&self) -> Option<usize> {
        self.inner.decides_ahead()
    }

    fn writes_at_once(&self) -> Option<usize> {
        self.inner.writes_at_once()
    }

    async fn saga(&self, id: SagaId) -> Result<Option<SagaRecord>, StoreError> {
        match self.inner.saga(id).await? {
            Some(record) => self.one(record).await.map(Some),
            None => Ok(None),
        }
    }

    async fn saga_by_key(&self, definition: &str, key: &str) -> Result<Option<SagaId>, StoreError> {
        self.inner.saga_by_key(definition, key).await
    }

    async fn sagas(&self, filter: &SagaFilter, page: &Page<SagaId>) -> Result<Vec<SagaSummary>, StoreError> {
        if filter.field.is_some() && self.keys.is_active() {
            return Err(StoreError::FieldEncrypted);
        }
        let found = self.inner.sagas(filter, page).await?.into_iter().map(|summary| summary.saga).collect();
        Ok(self.shown(found).await?.into_iter().map(|saga| SagaSummary { saga }).collect())
    }

    async fn outbox(&self, filter: &OutboxFilter, page: &Page<CommandId>) -> Result<Vec<OutboxEntry>, StoreError> {
        self.shown(self.inner.outbox(filter, page).await?).await
    }

    async fn commands(&self, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError> {
        self.readable(self.inner.commands(ids).await?).await
    }

    async fn settled(&self, ids: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        self.inner.settled(ids).await
    }

    async fn pending(&self, mut after: Option<CommandId>, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
        loop {
            let page = self.inner.pending(after, limit).await?;
            let Some(last) = page.last().map(|entry| entry.id) else { return Ok(page) };
            let readable = self.readable(page).await?;
            // An empty page would be taken for the end.
            if !readable.is_empty() {
                return Ok(readable);
            }
            after = Some(last);
        }
    }

    async fn history(&self, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError> {
        let found = self.opened(self.inner.history(id).await?).await?;
        found.into_iter().map(|(record, trouble)| trouble.map_or(Ok(record), Err)).collect()
    }

    async fn audits(&self, filter: &AuditFilter, page: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        self.inner.audits(filter, page).await
    }

    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError> {
        self.inner.counts().await
    }

    async fn state_counts(&self, most: u32) -> Result<Vec<StateCount>, StoreError> {
        self.inner.state_counts(most).await
    }

    async fn stuck_groups(&self, most: u32) -> Result<Vec<StuckGroup>, StoreError> {
        self.inner.stuck_groups(most).await
    }

    async fn lifetimes(&self, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError> {
        self.inner.lifetimes(since, most).await
    }

    async fn services(&self, most: u32) -> Result<Vec<Service>, StoreError> {
        self.inner.services(most).await
    }

    async fn revisions(&self, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError> {
        self.inner.revisions(ids).await
    }

    async fn figures(&self, definition: &DefinitionRef, since: Option<Timestamp>) -> Result<Figures, StoreError> {
        self.inner.figures(definition, since).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.inner.next_due().await
    }

    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError> {
        self.inner.register(definition).await
    }

    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError> {
        self.inner.definition(reference).await
    }

    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError> {
        self.inner.definitions(name).await
    }

    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError> {
        self.inner.newest(names).await
    }

    async fn token_keys(&self, fresh: [u8; 32]) -> Result<Vec<TokenKey>, StoreError> {
        self.inner.token_keys(fresh).await
    }

    async fn health(&self) -> Result<StoreHealth, StoreError> {
        self.inner.health().await
    }

    async fn migrate(&self) -> Result<Vec<Migration>, StoreError> {
        self.inner.migrate().await
    }

    async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError> {
        self.inner.pending_migrations().await
    }

    async fn check_schema(&self) -> Result<(), StoreError> {
        self.inner.check_schema().await
    }

    /// What is archived stays encrypted.
    fn archive(&self) -> Option<&dyn ArchiveStore> {
        self.inner.archive()
    }

    fn tokens(&self) -> Option<&dyn TokenStore> {
        self.inner.tokens()
    }

    fn pauses(&self) -> Option<&dyn PauseStore> {
        self.inner.pauses()
    }

    fn bulk(&self) -> Option<&dyn BulkStore> {
        self.inner.bulk()
    }

    fn data_keys(&self) -> Option<&dyn DataKeyStore> {
        self.inner.data_keys()
    }

    fn webhooks(&self) -> Option<&dyn WebhookStore> {
        self.inner.webhooks().map(|_| self as &dyn WebhookStore)
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// What webhooks are told is encrypted while it waits.
#[async_trait]
impl WebhookStore for EncryptedStore {
    async fn claim(&self, webhooks: &[String], lease: Duration, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let claimed = self.webhooks_of()?.claim(webhooks, lease, limit).await?;
        let mut readable = Vec::with_capacity(claimed.len());
        for (delivery, trouble) in self.opened(claimed).await? {
            let Some(error) = trouble else {
                readable.push(delivery);
                continue;
            };
            tracing::error!(saga_id = %delivery.saga, code = error.code(), %error, "what a webhook is to be told cannot be decrypted, and is parked");
            self.webhooks_of()?.failed(delivery.id, delivery.attempts, &error.to_string(), None).await?;
        }
        Ok(readable)
    }

    async fn delivered(&self, id: Uuid, attempts: u32) -> Result<(), StoreError> {
        self.webhooks_of()?.delivered(id, attempts).await
    }

    async fn failed(&self, id: Uuid, attempts: u32, problem: &str, pause: Option<Duration>) -> Result<(), StoreError> {
        self.webhooks_of()?.failed(id, attempts, problem, pause).await
    }

    async fn deliveries(&self, parked: Option<bool>, page: &Page<Uuid>) -> Result<Vec<Delivery>, StoreError> {
        let found = self.webhooks_of()?.deliveries(parked, page).await?;
        self.shown(found).await
    }

    async fn retry_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError> {
        let found = self.webhooks_of()?.retry_delivery(id, audit).await?;
        Ok(self.shown(found.into_iter().collect()).await?.pop())
    }

    async fn drop_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError> {
        let found = self.webhooks_of()?.drop_delivery(id, audit).await?;
        Ok(self.shown(found.into_iter().collect()).await?.pop())
    }

    async fn delivery_counts(&self, most: u32) -> Result<DeliveryCounts, StoreError> {
        self.webhooks_of()?.delivery_counts(most).await
    }
}
