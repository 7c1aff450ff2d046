//! Commands on their way out.

use crate::clock::{Timestamp, after};
use crate::definition::Definition;
use crate::id::CommandId;
use crate::message::command::idempotency_key;
use crate::message::reply::ReplyProblem;
use crate::message::{Command, Envelope, Reply, ReplyBody, TokenKeys};
use crate::saga::{Direction, Problem, ReplyAddress, ReplyOutcome, Saga};
use crate::store::{NewCommand, OutboxEntry, in_flight};

/// A message to publish, and the command that it is an attempt of; lifecycle events are of none.
pub(super) struct Outbound {
    pub(super) of: Option<(CommandId, u32)>,
    pub(super) envelope: Envelope,
}

/// Where replies are to go, and the keys that sign their tokens.
pub(super) struct ReturnAddress {
    pub(super) keys: TokenKeys,
    /// The queue, and routing key.
    pub(super) queue: String,
}

/// The first attempt of a command that was just decided.
pub(super) fn first_attempt(
    definition: &Definition,
    command: &NewCommand,
    to: &ReturnAddress,
    now: Timestamp,
) -> Outbound {
    attempt(definition, &pending(definition, command), 1, to, now)
}

/// The entry that a command of a saga that has just been decided has in the outbox.
pub(super) fn entry(definition: &Definition, saga: &Saga, command: &NewCommand) -> OutboxEntry {
    let in_flight = in_flight(saga).find(|(seq, _)| *seq == command.id.seq).map(|(_, in_flight)| in_flight);
    OutboxEntry { in_flight, ..pending(definition, command) }
}

fn pending(definition: &Definition, command: &NewCommand) -> OutboxEntry {
    OutboxEntry {
        id: command.id,
        definition: definition.reference.clone(),
        step: command.step.clone(),
        step_index: command.step_index,
        direction: command.direction,
        generation: command.generation,
        compensates: command.compensates,
        participant: command.participant.clone(),
        action: command.action.clone(),
        body: command.body.clone(),
        verified: None,
        in_flight: None,
        decided_at: command.at,
        decided_revision: command.revision,
    }
}

/// What a sub-saga says to its parent.
pub(super) fn answer(to: ReplyAddress, outcome: ReplyOutcome) -> Outbound {
    let problem = |problem: Problem| ReplyProblem { kind: problem.kind, title: problem.title, detail: problem.detail };
    let body = match outcome {
        ReplyOutcome::Success { output } => ReplyBody::Success(output),
        ReplyOutcome::Failure { problem: reason } => ReplyBody::Failure(problem(reason)),
        ReplyOutcome::Retry { problem: reason, after } => ReplyBody::Retry(problem(reason), after),
        ReplyOutcome::InProgress => ReplyBody::InProgress,
    };
    let reply = Reply { token: to.token, routing_key: to.reply_to, body };
    Outbound { of: None, envelope: reply.encode() }
}

/// Attempt `attempt` of a command that the outbox holds.
pub(super) fn attempt(
    definition: &Definition,
    entry: &OutboxEntry,
    attempt: u32,
    to: &ReturnAddress,
    now: Timestamp,
) -> Outbound {
    let id = entry.id;
    let key = |direction: Direction, generation| idempotency_key(id.saga, &entry.step, direction.as_str(), generation);
    let timeout = definition.named(&entry.step).map(|step| match entry.direction {
        Direction::Action => step.timeout,
        Direction::Compensation => step.compensation.action().map_or(step.timeout, |action| action.timeout),
    });
    let command = Command {
        message_id: id.message_id(attempt).to_string(),
        token: to.keys.sign(id, attempt),
        reply_to: to.queue.clone(),
        participant: entry.participant.clone(),
        action: entry.action.clone(),
        saga_id: id.saga,
        definition: entry.definition.clone(),
        step: entry.step.clone(),
        is_compensation: entry.direction == Direction::Compensation,
        attempt,
        key: key(entry.direction, entry.generation),
        compensates: entry.compensates.map(|generation| key(Direction::Action, generation)),
        deadline: after(now, timeout.unwrap_or_default()),
        traceparent: None,
        tracestate: None,
        body: entry.body.clone(),
        sent_at: now,
    };
    Outbound { of: Some((id, attempt)), envelope: command.encode() }
}
