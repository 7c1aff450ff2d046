//! The coordinator as a participant: it starts and compensates sub-sagas, by the same commands and replies as any other.
//!
//! A sub-saga's key is the key of the command that starts it, so that the command takes effect once however often it is
//! delivered. It answers when the sub-saga is done, not when it is started.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::broker::topology::{COORDINATOR, commands_queue};
use crate::broker::{Consuming, Delivery, Settlement};
use crate::coordinator::outbound::answer;
use crate::coordinator::replies::consume;
use crate::coordinator::{Coordinator, CoordinatorError, Start, StartOutcome};
use crate::id::{CommandId, SagaId};
use crate::message::command::idempotency_key;
use crate::message::{Command, Envelope, TokenKeys};
use crate::payload::Payload;
use crate::saga::{Direction, EventKind, Parent, Problem, ReplyAddress, ReplyOutcome};
use crate::store::{OutboxEntry, Page, SagaFilter, SagaSummary, StoreError};
use crate::trace::TraceContext;

/// What may be unacknowledged at once.
const PREFETCH: u16 = 256;
/// How long a command waits in line again after the store or the coordinator was too busy for it.
const PAUSE: Duration = Duration::from_millis(500);
/// How many sagas may stand above one.
const MAX_DEPTH: u8 = 8;

/// The body of a command.
#[derive(Deserialize)]
struct Body {
    saga: String,
    version: Option<u32>,
    #[serde(default)]
    input: Option<Payload>,
}

/// What is to be done with a delivery.
enum Done {
    /// It took effect; the sub-saga answers when it is done.
    Taken,
    /// Answered at once.
    Answered(Box<Envelope>),
    /// Not now.
    Later,
    /// It comes from nobody who may ask, or cannot be read.
    Refused,
}

/// Serves sub-sagas until stopped.
pub(super) async fn run(coordinator: Coordinator, keys: TokenKeys, stop: CancellationToken) {
    let broker = coordinator.broker().clone();
    let how = Consuming::on_a_par(PREFETCH);
    let Some(mut consumer) = consume(&*broker, &commands_queue(COORDINATOR), how, &stop).await else { return };
    let settler = consumer.settler();
    loop {
        let deliveries = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
        };
        let Some(deliveries) = deliveries else { return };
        let done = together(&coordinator, &keys, &deliveries).await;
        let (mut answers, mut settlements, mut must_wait) = (Vec::new(), Vec::new(), false);
        for (delivery, done) in deliveries.iter().zip(done) {
            let settlement = match done {
                Done::Taken => Settlement::Ack,
                Done::Answered(envelope) => {
                    answers.push(*envelope);
                    Settlement::Ack
                }
                Done::Later => {
                    must_wait = true;
                    Settlement::Requeue
                }
                Done::Refused => Settlement::Reject,
            };
            settlements.push((delivery.tag, settlement));
        }
        if !answers.is_empty() {
            // What is lost here is asked for again when the parent's attempt times out.
            broker.publish(answers).await;
        }
        settler.settle(settlements).await;
        if must_wait {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// What becomes of each delivery.
async fn together(coordinator: &Coordinator, keys: &TokenKeys, deliveries: &[Delivery]) -> Vec<Done> {
    let named: Vec<Option<(CommandId, Asking)>> = deliveries.iter().map(|delivery| named(keys, delivery)).collect();
    let not_now = |error: &StoreError| {
        tracing::warn!(%error, "commands for sub-sagas cannot be looked up yet");
        named.iter().map(|named| if named.is_some() { Done::Later } else { Done::Refused }).collect()
    };
    let ids: Vec<CommandId> = named.iter().flatten().map(|(id, _)| *id).collect();
    let entries: BTreeMap<CommandId, OutboxEntry> = match coordinator.store().commands(&ids).await {
        Ok(entries) => entries.into_iter().map(|entry| (entry.id, entry)).collect(),
        Err(error) => return not_now(&error),
    };
    let depths = match depths(coordinator, &entries).await {
        Ok(depths) => depths,
        Err(error) => return not_now(&error),
    };
    let one = async |named: Option<(CommandId, Asking)>| {
        let known = named.and_then(|(id, asking)| Some((entries.get(&id)?, asking)));
        // What a message says is only a hint: the outbox knows what was decided, and for whom.
        match known.filter(|(entry, _)| entry.participant == COORDINATOR && !entry.is_wait()) {
            Some((entry, asking)) => {
                let depth = depths.get(&entry.id.saga).copied().unwrap_or_default();
                one(coordinator, entry, asking, depth).await
            }
            None => {
                tracing::warn!("a command for sub-sagas that no coordinator has sent");
                Done::Refused
            }
        }
    };
    join_all(named.iter().cloned().map(one)).await
}

/// The command that a message is an attempt of, and where the answer goes. Only a coordinator of this store signs tokens,
/// and only for commands that it has decided; but participants know those of their own.
fn named(keys: &TokenKeys, delivery: &Delivery) -> Option<(CommandId, Asking)> {
    let command = Command::decode(&delivery.envelope).ok()?;
    let (id, _) = keys.verify(&command.token).ok()?;
    let trace = command.traceparent.and_then(|parent| TraceContext::parse(&parent, command.tracestate.as_deref()));
    Some((id, Asking { to: ReplyAddress { token: command.token, reply_to: command.reply_to }, trace }))
}

/// What a message says besides which command it is.
#[derive(Clone)]
struct Asking {
    to: ReplyAddress,
    /// The parent's attempt, of which the sub-saga is a part.
    trace: Option<TraceContext>,
}

/// How many sagas would stand above a sub-saga of each of these. Once for each, since many commands may be of one.
async fn depths(
    coordinator: &Coordinator,
    entries: &BTreeMap<CommandId, OutboxEntry>,
) -> Result<BTreeMap<SagaId, u8>, StoreError> {
    let mut depths = BTreeMap::new();
    for entry in entries.values().filter(|entry| entry.direction == Direction::Action) {
        let id = entry.id.saga;
        if !depths.contains_key(&id)
            && let Some(above) = coordinator.store().saga(id).await?
        {
            depths.insert(id, above.saga.parent.map_or(0, |parent| parent.depth).saturating_add(1));
        }
    }
    Ok(depths)
}

async fn one(coordinator: &Coordinator, entry: &OutboxEntry, asking: Asking, depth: u8) -> Done {
    let Asking { to, trace } = asking;
    let Ok(body) = serde_json::from_str::<Body>(entry.body.text()) else {
        return Done::Answered(refusal(to, "sub-saga-invalid", "the command does not say which saga"));
    };
    let generation = entry.compensates.unwrap_or(entry.generation);
    let key = idempotency_key(entry.id.saga, &entry.step, Direction::Action.as_str(), generation);
    let asked = Ask { coordinator, entry, key, to: to.clone(), trace, depth };
    let outcome = match entry.direction {
        Direction::Action => asked.start(body).await,
        Direction::Compensation => asked.compensate(body).await,
    };
    match outcome {
        Ok(done) => done,
        Err(error) if error.is_transient() => Done::Later,
        // Not a refusal: that would say that there is no effect, and nobody knows.
        Err(error) => {
            tracing::error!(saga_id = %entry.id.saga, saga = entry.definition.name, step = entry.step, %error, "a command for a sub-saga cannot be carried out");
            let problem = Problem::new(code(&error), explain(&error));
            Done::Answered(Box::new(answer(to, ReplyOutcome::Retry { problem, after: None }).envelope))
        }
    }
}

fn code(error: &CoordinatorError) -> String {
    error.code().to_lowercase().replace('_', "-")
}

fn explain(error: &CoordinatorError) -> String {
    match error {
        CoordinatorError::InvalidInput { errors, .. } => {
            let told: Vec<String> = errors.iter().take(3).map(|(pointer, why)| format!("{pointer}: {why}")).collect();
            format!("{error}: {}", told.join("; "))
        }
        _ => error.to_string(),
    }
}

fn refusal(to: ReplyAddress, kind: &str, title: &str) -> Box<Envelope> {
    Box::new(answer(to, ReplyOutcome::Failure { problem: Problem::new(kind, title) }).envelope)
}

fn success(to: ReplyAddress) -> Done {
    Done::Answered(Box::new(answer(to, ReplyOutcome::Success { output: null() }).envelope))
}

/// A command that is being carried out.
struct Ask<'a> {
    coordinator: &'a Coordinator,
    entry: &'a OutboxEntry,
    /// The sub-saga's.
    key: String,
    to: ReplyAddress,
    trace: Option<TraceContext>,
    /// How many sagas would stand above the sub-saga.
    depth: u8,
}

/// What has the sub-saga's key.
enum Holder {
    /// The sub-saga, or its tombstone.
    Child(SagaId),
    /// Somebody else's saga. Keys are free for all, and whoever has the key keeps it.
    Stranger,
}

impl Ask<'_> {
    async fn start(&self, body: Body) -> Result<Done, CoordinatorError> {
        match self.holder(&body.saga).await? {
            Some(holder) => return self.tell(holder).await,
            // It was given up before it could start: what is to undo it leaves the tombstone.
            None if self.entry.verified.is_some() => return Ok(Done::Taken),
            None => {}
        }
        let depth = self.depth;
        if depth > MAX_DEPTH {
            let why = format!("{MAX_DEPTH} sagas stand above it already");
            return Ok(Done::Answered(refusal(self.to.clone(), "sub-saga-too-deep", &why)));
        }
        let input = body.input.clone().unwrap_or_else(null);
        let start = Start { saga: body.saga.clone(), version: body.version, input, key: Some(self.key.clone()) };
        match self.coordinator.start_child(start, self.parent(depth), self.trace.clone()).await {
            Ok(StartOutcome::Started { .. }) => Ok(Done::Taken),
            Ok(StartOutcome::Exists { .. }) | Err(CoordinatorError::KeyConflict { .. }) => {
                self.tell_holder(&body).await
            }
            // Certain to have had no effect.
            Err(
                error @ (CoordinatorError::InvalidInput { .. }
                | CoordinatorError::InvalidKey(_)
                | CoordinatorError::UnknownDefinition { .. }
                | CoordinatorError::UnknownVersion { .. }),
            ) => Ok(Done::Answered(refusal(self.to.clone(), &code(&error), &explain(&error)))),
            Err(error) => Err(error),
        }
    }

    async fn compensate(&self, body: Body) -> Result<Done, CoordinatorError> {
        if let Some(holder) = self.holder(&body.saga).await? {
            return self.tell(holder).await;
        }
        let start = Start { saga: body.saga.clone(), version: None, input: null(), key: Some(self.key.clone()) };
        match self.coordinator.entomb(start, self.parent(1)).await {
            Ok(StartOutcome::Started { .. }) => Ok(Done::Taken),
            Ok(StartOutcome::Exists { .. }) | Err(CoordinatorError::KeyConflict { .. }) => {
                self.tell_holder(&body).await
            }
            // Nothing can have been started of what there is not.
            Err(CoordinatorError::UnknownDefinition { .. } | CoordinatorError::UnknownVersion { .. }) => {
                Ok(success(self.to.clone()))
            }
            Err(error) => Err(error),
        }
    }

    async fn holder(&self, definition: &str) -> Result<Option<Holder>, CoordinatorError> {
        let filter = SagaFilter {
            definition: Some(definition.to_owned()),
            key: Some(self.key.clone()),
            ..SagaFilter::default()
        };
        let found = self.coordinator.store().sagas(&filter, &Page { after: None, limit: 1 }).await?.pop();
        Ok(found.map(|SagaSummary { saga }| match saga.parent {
            Some(parent) if parent.saga == self.entry.id.saga => Holder::Child(saga.id),
            _ => Holder::Stranger,
        }))
    }

    async fn tell_holder(&self, body: &Body) -> Result<Done, CoordinatorError> {
        match self.holder(&body.saga).await? {
            Some(holder) => self.tell(holder).await,
            // Sagas are never deleted; should it be gone all the same, the next attempt starts from here.
            None => Ok(Done::Later),
        }
    }

    async fn tell(&self, holder: Holder) -> Result<Done, CoordinatorError> {
        let direction = self.entry.direction;
        match (holder, direction) {
            (Holder::Child(id), _) => {
                let asked = EventKind::Asked { direction, answer: self.to.clone() };
                self.coordinator.tell(id, asked).await.map(|_| Done::Taken)
            }
            // With its key taken it never was started and never will be.
            (Holder::Stranger, Direction::Action) => {
                let why = format!("its key `{}` belongs to a saga that was started otherwise", self.key);
                Ok(Done::Answered(refusal(self.to.clone(), "key-conflict", &why)))
            }
            (Holder::Stranger, Direction::Compensation) => Ok(success(self.to.clone())),
        }
    }

    fn parent(&self, depth: u8) -> Parent {
        let (saga, step, start) = (self.entry.id.saga, self.entry.step.clone(), self.to.clone());
        Parent { saga, step, depth, start, undo: None, held: None }
    }
}

fn null() -> Payload {
    Payload::from(serde_json::Value::Null)
}
