//! The span around what a participant does with a command.

use super::rules::How;
use crate::broker::Broker;
use crate::broker::topology::commands_queue;
use crate::clock::{Clock, Timestamp};
use crate::id::fresh_span;
use crate::message::Command;
use crate::message::command::COMMANDS_EXCHANGE;
use crate::telemetry::{Kind, Recorder, Span, Value};
use crate::trace::TraceContext;

/// A span that has begun.
pub(super) struct Begun {
    context: TraceContext,
    parent: u64,
    start: Timestamp,
}

/// Begins a span, where the command is traced and spans are recorded. The command's own context is then this span, so that
/// whatever its handler passes it on to hangs below it.
pub(super) fn begin(recorder: Option<&Recorder>, command: Command) -> (Command, Option<Begun>) {
    let context = recorder.and_then(|_| context(&command)).filter(|context| context.is_sampled);
    let Some((above, span_id)) = context.zip(fresh_span()) else { return (command, None) };
    let parent = above.span_id;
    let context = TraceContext { span_id, ..above };
    let command = Command { traceparent: Some(context.traceparent()), ..command };
    (command, Some(Begun { context, parent, start: Clock::System.now() }))
}

fn context(command: &Command) -> Option<TraceContext> {
    TraceContext::parse(command.traceparent.as_deref()?, command.tracestate.as_deref())
}

/// For the log.
pub(super) fn trace_id(command: &Command) -> Option<String> {
    context(command).map(|context| format!("{:032x}", context.trace_id))
}

impl Begun {
    /// The command was performed, in this way.
    pub(super) fn end(self, command: &Command, how: How, broker: &dyn Broker) -> Span {
        let key = format!("{}.{}", command.participant, command.action);
        let (exchange, queue) = (COMMANDS_EXCHANGE, commands_queue(&command.participant));
        let destination = format!("{}:{key}:{}", broker.address_of(exchange), broker.address_of(&queue));
        let (outcome, error) = match how {
            How::Done | How::Replayed | How::Tombstone => ("success", None),
            How::Refused => ("failure", Some("refused")),
            How::Retry => ("retry", Some("retry")),
            How::Panicked => ("retry", Some("panic")),
        };
        let mut attributes: Vec<(&'static str, Value)> = vec![
            ("messaging.system", if broker.is_volatile() { "amends" } else { "rabbitmq" }.into()),
            ("messaging.operation.type", "process".into()),
            ("messaging.operation.name", "process".into()),
            ("messaging.destination.name", destination.into()),
            ("messaging.rabbitmq.destination.routing_key", key.clone().into()),
            ("messaging.message.id", command.message_id.clone().into()),
            ("amends.saga.id", command.saga_id.to_string().into()),
            ("amends.saga", command.definition.name.clone().into()),
            ("amends.step", command.step.clone().into()),
            ("amends.direction", if command.is_compensation { "compensation" } else { "action" }.into()),
            ("amends.attempt", command.attempt.into()),
            ("amends.outcome", outcome.into()),
        ];
        attributes.extend(error.map(|error| ("error.type", error.into())));
        let (context, start, end) = (self.context, self.start, Clock::System.now());
        let (name, error) = (format!("process {key}"), error.map(str::to_owned));
        Span { context, parent: Some(self.parent), kind: Kind::Consumer, name, start, end, attributes, error }
    }
}
