//! What waits to be committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::broker::{Delivery, DeliveryTag};
use crate::coordinator::gates::Turn;
use crate::coordinator::{CoordinatorError, Operate, StartOutcome};
use crate::definition::Definition;
use crate::id::{BulkId, CommandId, SagaId, StepIndex};
use crate::payload::Payload;
use crate::saga::{EventKind, Parent, ReplyAddress, ReplyOutcome, Saga};
use crate::trace::TraceContext;

/// One thing to be done to one saga, and whom to tell.
pub(super) struct Work {
    pub(super) item: Item,
    pub(super) waiting: Waiting,
}

/// The thing to be done. Can be tried again, so it is only ever read.
#[derive(Clone)]
pub(super) enum Item {
    Reply(ReplyItem),
    Start(StartItem),
    /// With the bulk job that it is an item of, if it is one.
    Operate(Operate, Option<BulkId>),
    Migrate(MigrateItem),
    Tell(TellItem),
}

#[derive(Clone)]
pub(super) struct ReplyItem {
    pub(super) command: CommandId,
    pub(super) attempt: u32,
    pub(super) outcome: ReplyOutcome,
}

#[derive(Clone)]
pub(super) struct StartItem {
    pub(super) id: SagaId,
    pub(super) definition: Arc<Definition>,
    pub(super) key: Option<String>,
    pub(super) input: Payload,
    pub(super) input_hash: [u8; 32],
    /// Its place among the starts of its definition that wait; sub-sagas need none.
    pub(super) turn: Option<Arc<Turn>>,
    /// Of a sub-saga.
    pub(super) parent: Option<Parent>,
    /// The span that it is a part of, if its caller gave one.
    pub(super) trace: Option<Box<TraceContext>>,
    /// The others that the same request asks for, if there are any.
    pub(super) together: Option<Together>,
    /// Of a sub-saga whose compensation came first: it is recorded as undone instead of started, and told here.
    pub(super) tombstone: Option<ReplyAddress>,
}

/// What is to be committed, and who waits for it.
pub(super) fn parted(batch: Vec<Work>) -> (Vec<Item>, Vec<Waiting>) {
    batch.into_iter().map(|work| (work.item, work.waiting)).unzip()
}

/// Starts of one request, which one transaction is to have.
#[derive(Clone)]
pub(super) struct Together(Arc<usize>);

impl Together {
    /// A request with so many; none of one.
    pub(super) fn of(count: usize) -> Option<Self> {
        (count > 1).then(|| Self(Arc::new(count)))
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        *self.0
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Something that happened to a saga, other than a reply.
#[derive(Clone)]
pub(super) struct TellItem {
    pub(super) id: SagaId,
    pub(super) event: EventKind,
}

#[derive(Clone)]
pub(super) struct MigrateItem {
    pub(super) id: SagaId,
    pub(super) to: Arc<Definition>,
    /// What the steps had put out when the saga was at `seen_revision`: those of a saga whose own definition does not
    /// read them are not loaded with it.
    pub(super) outputs: BTreeMap<StepIndex, Payload>,
    pub(super) seen_revision: u32,
    pub(super) actor: String,
    pub(super) reason: String,
    pub(super) expected_revision: Option<u32>,
}

/// Who waits for it.
pub(super) enum Waiting {
    /// The broker, for an acknowledgement. The message is kept, in case it belongs in the dead letters.
    Broker(Delivery),
    /// A caller that starts a saga.
    Starter(oneshot::Sender<Result<StartOutcome, CoordinatorError>>),
    /// An operator.
    Operator(oneshot::Sender<Result<Saga, CoordinatorError>>),
    /// Whoever told of an event.
    Teller(oneshot::Sender<Result<Heard, CoordinatorError>>),
}

/// What became of an event.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The saga as it is then.
    pub saga: Saga,
    /// Whether it said nothing new.
    pub is_duplicate: bool,
}

impl Item {
    /// What it must not be parted from.
    pub(super) fn together(&self) -> Option<&Together> {
        match self {
            Self::Start(start) => start.together.as_ref(),
            _ => None,
        }
    }

    /// The saga that must be loaded for it; a start has none yet.
    pub(super) fn saga(&self) -> Option<SagaId> {
        match self {
            Self::Start(_) => None,
            Self::Reply(reply) => Some(reply.command.saga),
            Self::Operate(operate, _) => Some(operate.id),
            Self::Migrate(migrate) => Some(migrate.id),
            Self::Tell(tell) => Some(tell.id),
        }
    }
}

impl Waiting {
    /// Tells a caller that it did not work. The broker is told by not acknowledging.
    pub(super) fn fail(self, error: CoordinatorError) -> Option<DeliveryTag> {
        // A caller that no longer waits needs no answer.
        match self {
            Self::Starter(sender) => drop(sender.send(Err(error))),
            Self::Operator(sender) => drop(sender.send(Err(error))),
            Self::Teller(sender) => drop(sender.send(Err(error))),
            Self::Broker(delivery) => return Some(delivery.tag),
        }
        None
    }
}
