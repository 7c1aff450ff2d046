//! What is sensitive: who has seen it, and what it is where a saga's definition alone does not tell.

use std::sync::Arc;

use crate::coordinator::dead::DeadLetter;
use crate::coordinator::{Coordinator, CoordinatorError};
use crate::definition::Definition;
use crate::definition::sensitive::marks;
use crate::id::SagaId;
use crate::message::request::SignalRequest;
use crate::message::token::claimed_saga;
use crate::payload::Payload;
use crate::store::{AuditRecord, Changes, SagaFilter, SagaRecord, Wants};

impl Coordinator {
    /// Writes down that `actor` is shown what is sensitive of a saga, or of a list. To be called before it is shown.
    ///
    /// # Errors
    /// What the store says; then nothing may be shown.
    pub async fn revealed(
        &self,
        saga: Option<SagaId>,
        actor: String,
        reason: String,
        what: &str,
    ) -> Result<(), CoordinatorError> {
        let detail = Payload::from(serde_json::json!({ "shown": what }));
        let action = "reveal".to_owned();
        let write = move |loaded: crate::store::Loaded| {
            let row = AuditRecord { id: 0, at: loaded.now, actor, saga, action, reason, detail };
            Changes { audits: vec![row], ..Changes::default() }
        };
        self.store().commit(Wants::default(), Box::new(write)).await?;
        Ok(())
    }

    /// Every version of every definition.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn every_definition(&self) -> Result<Vec<Arc<Definition>>, CoordinatorError> {
        Ok(self.0.registry.load_all().await?)
    }

    /// Refuses a search by a field that is marked as sensitive: who may not see a value could try values.
    ///
    /// # Errors
    /// [`CoordinatorError::FieldSensitive`], or when definitions cannot be read.
    pub async fn may_search(&self, filter: &SagaFilter) -> Result<(), CoordinatorError> {
        let Some(field) = &filter.field else { return Ok(()) };
        let marks = marks(&self.every_definition().await?, filter.definition.as_deref());
        match marks.hides_path(&field.path) {
            true => Err(CoordinatorError::FieldSensitive { field: field.path.join(".") }),
            false => Ok(()),
        }
    }

    /// The saga that a dead letter is about, as far as it says so and the store has it.
    pub async fn saga_of(&self, letter: &DeadLetter) -> Option<SagaRecord> {
        let (envelope, store) = (&letter.envelope, self.store());
        let named = envelope.properties.text("amends-saga-id").and_then(|id| id.parse().ok());
        let claimed = || envelope.properties.correlation_id.as_deref().and_then(claimed_saga);
        let id = match named.or_else(claimed) {
            Some(id) => id,
            None => {
                let signal: SignalRequest = serde_json::from_slice(&envelope.body).ok()?;
                match (signal.saga_id, signal.saga, signal.key) {
                    (Some(id), ..) => id.parse().ok()?,
                    (None, Some(saga), Some(key)) => store.saga_by_key(&saga, &key).await.ok()??,
                    _ => return None,
                }
            }
        };
        store.saga(id).await.ok()?
    }
}
