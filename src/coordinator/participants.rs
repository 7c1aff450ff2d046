//! How participants stand.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::broker::QueueStatus;
use crate::broker::topology::commands_queue;
use crate::clock::Timestamp;
use crate::coordinator::{Coordinator, CoordinatorError, Standing};
use crate::definition::COORDINATOR;
use crate::store::{OutboxFilter, Page};

/// How long the broker and the store may take each; what they do not tell by then is left out.
const PATIENCE: Duration = Duration::from_secs(2);

/// A participant of a registered definition.
#[derive(Clone, Debug)]
pub struct ParticipantStatus {
    /// Its name.
    pub name: String,
    /// Its queue's name.
    pub queue: String,
    /// What the broker tells of its queue.
    pub status: Option<QueueStatus>,
    /// When the oldest command was decided that it has not answered.
    pub oldest_unanswered: Option<Timestamp>,
    /// How it stands with this coordinator.
    pub standing: Standing,
}

impl Coordinator {
    /// How a participant stands with this coordinator: window and circuit.
    pub fn standing(&self, participant: &str) -> Standing {
        self.0.gates.standing(participant)
    }

    /// All participants of registered definitions, by name.
    ///
    /// # Errors
    /// When the definitions cannot be read.
    pub async fn participants(&self) -> Result<Vec<ParticipantStatus>, CoordinatorError> {
        let definitions = self.0.registry.load_all().await?;
        let names: BTreeSet<String> =
            definitions.iter().flat_map(|definition| definition.participants()).map(str::to_owned).collect();
        let one = async |name: String| {
            let queue = commands_queue(&name);
            let status = tokio::time::timeout(PATIENCE, self.broker().queue(&queue)).await;
            let filter =
                OutboxFilter { pending: Some(true), participant: Some(name.clone()), ..OutboxFilter::default() };
            let page = Page { after: None, limit: 1 };
            let oldest = tokio::time::timeout(PATIENCE, self.store().outbox(&filter, &page)).await;
            ParticipantStatus {
                status: status.ok().and_then(Result::ok).flatten(),
                oldest_unanswered: oldest.ok().and_then(Result::ok).and_then(|found| Some(found.first()?.decided_at)),
                standing: self.standing(&name),
                queue,
                name,
            }
        };
        Ok(join_all(names.into_iter().filter(|name| name != COORDINATOR).map(one)).await)
    }
}
