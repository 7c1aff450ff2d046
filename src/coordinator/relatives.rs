//! What a sub-saga must be told about its parent.

use std::time::Duration;

use crate::definition::{Definition, Work};
use crate::id::SagaId;
use crate::message::command::idempotency_key;
use crate::saga::{Direction, EventKind, Parent, Saga, Skip, StepState};
use crate::store::{SagaRecord, Store, StoreError};

/// How often the store is asked, should it be away. What is given up then is found at the child's next look.
const TRIES: u32 = 6;
/// The first wait between two tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(200);

/// What there is to tell: `looks` are sub-sagas that look for their parent's end, `orphans` (by definition and key) those
/// whose parent has ended.
pub(super) async fn news(
    store: &dyn Store,
    looks: Vec<(SagaId, Parent)>,
    orphans: Vec<(String, String)>,
) -> Vec<(SagaId, EventKind)> {
    let mut news = Vec::new();
    for (definition, key) in orphans {
        let found = patiently(|| store.saga_by_key(&definition, &key)).await;
        // Most have no sub-saga there: its start was never heard of, or refused.
        news.extend(found.flatten().map(|id| (id, EventKind::ParentEnded)));
    }
    for (child, parent) in looks {
        let Some(found) = patiently(|| store.saga(parent.saga)).await else { continue };
        news.extend(seen(found.as_ref(), &parent).map(|event| (child, event)));
    }
    news
}

/// What a child that is done makes of its parent as it is now.
fn seen(parent: Option<&SagaRecord>, of: &Parent) -> Option<EventKind> {
    // What has ended may be archived, and what is archived has ended.
    let Some(SagaRecord { saga, commands }) = parent else { return Some(EventKind::ParentEnded) };
    if saga.state.is_terminal() {
        return Some(EventKind::ParentEnded);
    }
    let start = commands.iter().rfind(|entry| entry.step == of.step && entry.direction == Direction::Action);
    // It still waits, so the answer was lost: it is given again.
    start
        .is_some_and(|entry| entry.verified.is_none())
        .then(|| EventKind::Asked { direction: Direction::Action, answer: of.start.clone() })
}

async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> Option<T> {
    let mut pause = PAUSE;
    for _ in 0..TRIES {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) if error.is_transient() => tracing::debug!(%error, "a saga's relatives cannot be read yet"),
            Err(error) => {
                tracing::warn!(%error, "a saga's relatives cannot be read");
                return None;
            }
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    None
}

/// The sub-sagas of a saga whose effects may stand, by definition and key: those that are done wait for its end.
pub(super) fn children(definition: &Definition, saga: &Saga) -> Vec<(String, String)> {
    let of = |index| {
        let step = definition.step(index);
        let Work::Saga { name, .. } = &step.work else { return None };
        let generation = match saga.steps.get(index.at())? {
            StepState::Verified { generation, .. } | StepState::Unknown { generation, .. } => *generation,
            StepState::Pending { command } => command.generation,
            StepState::Skipped { by: Skip::OperatorAfterSend { owed } | Skip::OperatorCompensation { owed } }
            | StepState::Compensating { owed, .. } => owed.generation,
            StepState::Waiting
            | StepState::Failed { .. }
            | StepState::Compensated { .. }
            | StepState::Skipped { by: Skip::Condition | Skip::TimedOut | Skip::Operator } => return None,
        };
        let key = idempotency_key(saga.id, &step.name, Direction::Action.as_str(), generation);
        Some((name.clone(), key))
    };
    definition.indices().filter_map(of).collect()
}
