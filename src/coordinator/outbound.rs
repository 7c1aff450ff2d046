//! Commands on their way out.

use crate::clock::{Timestamp, after};
use crate::definition::Definition;
use crate::id::{CommandId, DefinitionRef};
use crate::message::command::idempotency_key;
use crate::message::reply::ReplyProblem;
use crate::message::{Command, Envelope, Reply, ReplyBody, TokenKeys};
use crate::payload::Payload;
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

/// What an attempt of a command is made of, wherever it is kept.
struct Sent<'a> {
    id: CommandId,
    definition: &'a DefinitionRef,
    step: &'a str,
    direction: Direction,
    generation: u32,
    compensates: Option<u32>,
    participant: &'a str,
    action: &'a str,
    body: &'a Payload,
}

/// The first attempt of a command that was just decided.
pub(super) fn first_attempt(
    definition: &Definition,
    command: &NewCommand,
    to: &ReturnAddress,
    now: Timestamp,
) -> Outbound {
    let sent = Sent {
        id: command.id,
        definition: &definition.reference,
        step: &command.step,
        direction: command.direction,
        generation: command.generation,
        compensates: command.compensates,
        participant: &command.participant,
        action: &command.action,
        body: &command.body,
    };
    send(definition, &sent, 1, to, now)
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
    let sent = Sent {
        id: entry.id,
        definition: &entry.definition,
        step: &entry.step,
        direction: entry.direction,
        generation: entry.generation,
        compensates: entry.compensates,
        participant: &entry.participant,
        action: &entry.action,
        body: &entry.body,
    };
    send(definition, &sent, attempt, to, now)
}

fn send(definition: &Definition, sent: &Sent<'_>, attempt: u32, to: &ReturnAddress, now: Timestamp) -> Outbound {
    let id = sent.id;
    let key = |direction: Direction, generation| idempotency_key(id.saga, sent.step, direction.as_str(), generation);
    let timeout = definition.named(sent.step).map(|step| match sent.direction {
        Direction::Action => step.timeout,
        Direction::Compensation => step.compensation.action().map_or(step.timeout, |action| action.timeout),
    });
    let command = Command {
        message_id: id.message_id(attempt).to_string(),
        token: to.keys.sign(id, attempt),
        reply_to: to.queue.clone(),
        participant: sent.participant.to_owned(),
        action: sent.action.to_owned(),
        saga_id: id.saga,
        definition: sent.definition.clone(),
        step: sent.step.to_owned(),
        is_compensation: sent.direction == Direction::Compensation,
        attempt,
        key: key(sent.direction, sent.generation),
        compensates: sent.compensates.map(|generation| key(Direction::Action, generation)),
        deadline: after(now, timeout.unwrap_or_default()),
        traceparent: None,
        tracestate: None,
        body: sent.body.clone(),
        sent_at: now,
    };
    Outbound { of: Some((id, attempt)), envelope: command.into_envelope() }
}
