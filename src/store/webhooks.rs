//! What webhooks are still to be told. Written with the change that it tells of, so that nothing is lost; taken by one
//! coordinator at a time; gone once the webhook has taken it.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::SagaId;
use crate::store::{AuditRecord, Page, StoreError};

/// Something that a webhook is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// The same for every attempt, and whenever it is made again from the same change.
    pub id: Uuid,
    /// The webhook's name in the settings.
    pub webhook: String,
    /// For example `stuck`.
    pub event: String,
    /// The saga.
    pub saga: SagaId,
    /// What is sent.
    pub body: String,
    /// When it happened.
    pub at: Timestamp,
}

impl NewDelivery {
    /// The id of what a webhook is told of an event; ids are in the order of the sagas' starts.
    pub fn id_of(webhook: &str, saga: SagaId, revision: u32, event: &str) -> Uuid {
        let name = format!("{revision}/{event}/{webhook}");
        let (when, _) = saga.0.as_u64_pair();
        Uuid::from_u64_pair(when, Uuid::new_v5(&saga.0, name.as_bytes()).as_u64_pair().1)
    }
}

/// The same once it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// As in [`NewDelivery`].
    pub id: Uuid,
    /// As in [`NewDelivery`].
    pub webhook: String,
    /// As in [`NewDelivery`].
    pub event: String,
    /// As in [`NewDelivery`].
    pub saga: SagaId,
    /// As in [`NewDelivery`].
    pub body: String,
    /// Attempts so far, that under way included.
    pub attempts: u32,
    /// When it is tried next; `None` once it is parked: then nothing happens until a person has it tried again.
    pub due: Option<Timestamp>,
    /// What went wrong the last time.
    pub problem: Option<String>,
    /// When it happened.
    pub at: Timestamp,
}

/// How many deliveries there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Still being tried.
    pub pending: u64,
    /// Parked.
    pub parked: u64,
}

/// A store that keeps what webhooks are to be told.
#[async_trait]
pub trait WebhookStore: Send + Sync {
    /// Takes up to `limit` due deliveries of these webhooks that nobody else has in hand; each counts one attempt more, and
    /// is due again after `lease` unless it was settled before.
    async fn claim(&self, webhooks: &[String], lease: Duration, limit: u32) -> Result<Vec<Delivery>, StoreError>;

    /// The webhook has taken it. `attempts` as claimed: one that somebody else has in hand by now is left alone.
    async fn delivered(&self, id: Uuid, attempts: u32) -> Result<(), StoreError>;

    /// The webhook has not taken it: it is tried again after `pause`, or parked.
    async fn failed(&self, id: Uuid, attempts: u32, problem: &str, pause: Option<Duration>) -> Result<(), StoreError>;

    /// Deliveries in the order of their ids; only those that are parked, or are not, if that is said.
    async fn deliveries(&self, parked: Option<bool>, page: &Page<Uuid>) -> Result<Vec<Delivery>, StoreError>;

    /// A delivery by its id.
    async fn delivery(&self, id: Uuid) -> Result<Option<Delivery>, StoreError> {
        // In the order of ids it is the first after the id before its own.
        let after = id.as_u128().checked_sub(1).map(Uuid::from_u128);
        let found = self.deliveries(None, &Page { after, limit: 1 }).await?;
        Ok(found.into_iter().find(|delivery| delivery.id == id))
    }

    /// Has a delivery tried again from the first attempt, with its audit row in the same transaction. `None` when there is
    /// no such delivery.
    async fn retry_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError>;

    /// Drops a delivery for good, with its audit row in the same transaction. `None` when there is no such delivery.
    async fn drop_delivery(&self, id: Uuid, audit: AuditRecord) -> Result<Option<Delivery>, StoreError>;

    /// How many there are, counted up to `most` and one more each.
    async fn delivery_counts(&self, most: u32) -> Result<DeliveryCounts, StoreError>;
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl crate::store::Changes {
    /// What is to be told of these changes, without the starts of which nothing came; `new` are the others.
    pub(super) fn told<'c>(
        &'c self,
        new: &'c std::collections::HashSet<SagaId>,
    ) -> impl Iterator<Item = &'c NewDelivery> + 'c {
        let never_was = move |id: SagaId| self.starts.iter().any(|start| start.saga.id == id) && !new.contains(&id);
        self.webhooks.iter().filter(move |delivery| !never_was(delivery.saga))
    }
}
