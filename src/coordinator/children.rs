//! The coordinator as a participant: it starts and compensates sub-sagas, by the same commands and replies as any other.
//!
//! A sub-saga's key is the key of the command that starts it, so that the command takes effect once however often it is
//! delivered. It answers when the sub-saga is done, not when it is started.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::broker::topology::{COORDINATOR, commands_queue};
use crate::broker::{Delivery, Settlement};
use crate::coordinator::outbound::answer;
use crate::coordinator::replies::consume;
use crate::coordinator::{Coordinator, CoordinatorError, Start, StartOutcome};
use crate::id::SagaId;
use crate::message::{Command, Envelope, TokenKeys};
use crate::payload::Payload;
use crate::saga::{Direction, EventKind, Parent, Problem, ReplyAddress, ReplyOutcome};

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
    let Some(mut consumer) = consume(&*broker, &commands_queue(COORDINATOR), PREFETCH, &stop).await else { return };
    let settler = consumer.settler();
    loop {
        let deliveries = tokio::select! {
            deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
            () = stop.cancelled() => return,
        };
        let Some(deliveries) = deliveries else { return };
        let done = join_all(deliveries.iter().map(|delivery| one(&coordinator, &keys, delivery))).await;
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
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

async fn one(coordinator: &Coordinator, keys: &TokenKeys, delivery: &Delivery) -> Done {
    let Ok(command) = Command::decode(&delivery.envelope) else { return Done::Refused };
    // Only a coordinator of this store signs tokens, and only for commands that it has decided.
    let is_ours = keys.verify(&command.token).is_ok_and(|(id, _)| id.saga == command.saga_id);
    let prefix = format!("{}/", command.saga_id);
    let keys_fit = std::iter::once(&command.key).chain(&command.compensates).all(|key| key.starts_with(&prefix));
    if !is_ours || !keys_fit {
        tracing::warn!(kind = delivery.envelope.routing_key, "a command for sub-sagas that no coordinator has sent");
        return Done::Refused;
    }
    let to = ReplyAddress { token: command.token.clone(), reply_to: command.reply_to.clone() };
    let Ok(body) = serde_json::from_str::<Body>(command.body.text()) else {
        return Done::Answered(refusal(to, "sub-saga-invalid", "the command does not say which saga"));
    };
    let outcome = match (command.action.as_str(), &command.compensates) {
        ("start", None) => start(coordinator, &command, body, to.clone()).await,
        ("compensate", Some(action)) => compensate(coordinator, &command, body, action, to.clone()).await,
        (action, _) => {
            return Done::Answered(refusal(to, "unknown-action", &format!("the coordinator does not know `{action}`")));
        }
    };
    match outcome {
        Ok(()) => Done::Taken,
        Err(error) if error.is_transient() => Done::Later,
        // It ended in between, or was told already.
        Err(error) => Done::Answered(refusal(to, &error.code().to_lowercase().replace('_', "-"), &explain(&error))),
    }
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

async fn start(
    coordinator: &Coordinator,
    command: &Command,
    body: Body,
    answer: ReplyAddress,
) -> Result<(), CoordinatorError> {
    let asked = EventKind::Asked { direction: Direction::Action, answer: answer.clone() };
    if let Some(id) = coordinator.store().saga_by_key(&body.saga, &command.key).await? {
        return coordinator.tell(id, asked).await.map(|_| ());
    }
    let parent = parent(coordinator, command, answer).await?;
    let input = body.input.unwrap_or_else(null);
    let start = Start { saga: body.saga, version: body.version, input, key: Some(command.key.clone()) };
    match coordinator.start_child(start, parent).await {
        Ok(StartOutcome::Started { .. }) => Ok(()),
        Ok(StartOutcome::Exists { id }) | Err(CoordinatorError::KeyConflict { existing: id, .. }) => {
            coordinator.tell(id, asked).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

async fn compensate(
    coordinator: &Coordinator,
    command: &Command,
    body: Body,
    action: &str,
    answer: ReplyAddress,
) -> Result<(), CoordinatorError> {
    let asked = EventKind::Asked { direction: Direction::Compensation, answer: answer.clone() };
    if let Some(id) = coordinator.store().saga_by_key(&body.saga, action).await? {
        return coordinator.tell(id, asked).await.map(|_| ());
    }
    let parent = parent(coordinator, command, answer).await?;
    let start = Start { saga: body.saga, version: None, input: null(), key: Some(action.to_owned()) };
    match coordinator.entomb(start, parent).await {
        Ok(StartOutcome::Started { .. }) => Ok(()),
        Ok(StartOutcome::Exists { id }) | Err(CoordinatorError::KeyConflict { existing: id, .. }) => {
            coordinator.tell(id, asked).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

async fn parent(coordinator: &Coordinator, command: &Command, start: ReplyAddress) -> Result<Parent, CoordinatorError> {
    let saga: SagaId = command.saga_id;
    let above = coordinator.store().saga(saga).await?.ok_or(CoordinatorError::UnknownSaga(saga))?;
    let depth = above.saga.parent.map_or(0, |parent| parent.depth).saturating_add(1);
    if depth > MAX_DEPTH {
        return Err(CoordinatorError::NotAllowed {
            id: saga,
            action: "start a sub-saga",
            state: above.saga.state.as_str(),
            why: format!("{MAX_DEPTH} sagas stand above it already"),
        });
    }
    Ok(Parent { saga, step: command.step.clone(), depth, start, undo: None, held: None })
}

fn null() -> Payload {
    Payload::from(serde_json::Value::Null)
}
