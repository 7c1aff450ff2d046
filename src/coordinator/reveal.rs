//! Who has seen what is sensitive.

use crate::coordinator::{Coordinator, CoordinatorError};
use crate::id::SagaId;
use crate::payload::Payload;
use crate::store::{AuditRecord, Changes, Wants};

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
}
