//! What a commit has to tell of traces. The plan only notes what has ended, in few words; spans are made once the commit is
//! through. Where traces are not recorded nothing is noted, and a context that a caller gave is passed on as it came.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::broker::Broker;
use crate::clock::{Timestamp, before};
use crate::coordinator::outbound::Outbound;
use crate::definition::Definition;
use crate::id::{CommandId, SagaId, Seq, StepIndex};
use crate::message::command::COMMANDS_EXCHANGE;
use crate::saga::{Direction, EventKind, PUBLISH_GRACE, Phase, ReplyOutcome, Saga, SagaState};
use crate::telemetry::{Kind, Recorder, Span, Value};
use crate::trace::{self, TraceContext};

/// Attempts whose sending is remembered to the moment; of older ones the saga's row tells it nearly.
const MOST: usize = 65_536;
/// Characters of what a participant calls its error.
const MOST_ERROR: usize = 100;

/// Where spans go.
#[derive(Clone)]
pub(super) struct Traces {
    recorder: Recorder,
    /// What carries the messages, in the words of the semantic conventions.
    system: &'static str,
    /// What the broker itself calls the exchange of commands.
    exchange: Arc<str>,
    sent: Arc<Mutex<Sent>>,
}

/// When which attempt of a command was sent.
#[derive(Default)]
struct Sent {
    at: HashMap<CommandId, (u32, Timestamp)>,
    order: VecDeque<CommandId>,
}

/// What a commit has to tell.
#[derive(Default)]
pub(super) struct Traced {
    sent: Vec<(CommandId, u32, Timestamp)>,
    attempts: Vec<Attempt>,
    sagas: Vec<Whole>,
    /// Of sagas whose commands are sent again: what their callers gave.
    given: Given,
}

/// What callers gave, by saga.
pub(super) type Given = HashMap<SagaId, TraceContext>;

/// An attempt that has ended.
struct Attempt {
    id: CommandId,
    context: TraceContext,
    definition: Arc<Definition>,
    flight: Flight,
    end: Timestamp,
    outcome: &'static str,
    error: Option<String>,
}

/// A saga that has ended.
struct Whole {
    id: SagaId,
    context: TraceContext,
    parent: Option<u64>,
    definition: Arc<Definition>,
    start: Timestamp,
    end: Timestamp,
    outcome: &'static str,
    error: Option<String>,
}

/// A recorded saga before something happened to it.
pub(super) struct Before {
    was_terminal: bool,
    flights: Vec<Flight>,
}

/// An attempt under way.
struct Flight {
    step: StepIndex,
    direction: Direction,
    seq: Seq,
    attempt: u32,
    /// As the saga's row tells it.
    began: Timestamp,
}

/// The context that a command of this saga carries.
pub(super) fn carried(
    traces: Option<&Traces>,
    saga: SagaId,
    given: Option<&TraceContext>,
    (id, attempt): (CommandId, u32),
) -> Option<TraceContext> {
    match traces {
        None => given.cloned(),
        Some(traces) => Some(traces.context(saga, given, trace::attempt_span(id, attempt))),
    }
}

/// The trace of a saga, for the log: where nobody traces there is none.
pub(super) fn trace_id(traces: Option<&Traces>, saga: &Saga) -> Option<u128> {
    let given = saga.trace.as_ref().map(|given| given.trace_id);
    given.or_else(|| traces.map(|_| trace::trace_id(saga.id)))
}

/// Writes a context onto a command.
pub(super) fn stamp(outbound: &mut Outbound, context: Option<TraceContext>) {
    let Some(context) = context else { return };
    let headers = &mut outbound.envelope.properties.headers;
    headers.insert("traceparent".into(), context.traceparent().into());
    headers.extend(context.state.map(|state| ("tracestate".into(), state.into())));
}

impl Traces {
    pub(super) fn new(recorder: Recorder, broker: &dyn Broker) -> Self {
        let system = if broker.is_volatile() { "amends" } else { "rabbitmq" };
        Self { recorder, system, exchange: broker.address_of(COMMANDS_EXCHANGE).into(), sent: Arc::default() }
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    fn context(&self, saga: SagaId, given: Option<&TraceContext>, span_id: u64) -> TraceContext {
        let trace_id = given.map_or_else(|| trace::trace_id(saga), |given| given.trace_id);
        let is_sampled = given.map_or_else(|| self.recorder.samples(trace_id), |given| given.is_sampled);
        TraceContext { trace_id, span_id, is_sampled, state: given.and_then(|given| given.state.clone()) }
    }

    /// A saga before something happens to it; `None` when its trace is not recorded.
    pub(super) fn before(&self, definition: &Definition, saga: &Saga) -> Option<Before> {
        if !self.context(saga.id, saga.trace.as_deref(), 0).is_sampled {
            return None;
        }
        let flights = definition.indices().zip(&saga.steps).filter_map(|(step, state)| {
            let (direction, command) = state.in_flight()?;
            let of = definition.step(step);
            let since = match command.phase {
                Phase::Sending(due) => before(due, PUBLISH_GRACE),
                Phase::Awaiting(due) => {
                    let compensation = of.compensation.action().map(|action| action.timeout);
                    before(
                        due,
                        match direction {
                            Direction::Action => of.timeout,
                            Direction::Compensation => compensation.unwrap_or(of.timeout),
                        },
                    )
                }
                Phase::BackingOff(_) | Phase::Waiting(_) | Phase::Held(_) => return None,
            };
            let (seq, attempt) = (command.seq, command.attempt);
            of.work.is_sent().then_some(Flight { step, direction, seq, attempt, began: since.max(saga.created_at) })
        });
        Some(Before { was_terminal: saga.state.is_terminal(), flights: flights.collect() })
    }

    /// Makes spans of what has ended, now that it is durable. `never_were` are starts whose key had a saga already.
    pub(super) fn tell(&self, traced: Traced, never_were: &[SagaId]) {
        let Traced { sent, attempts, sagas, given: _ } = traced;
        let Ok(mut known) = self.sent.lock() else { return };
        for attempt in attempts {
            let began = known.at.get(&attempt.id).filter(|(of, _)| *of == attempt.flight.attempt).map(|(_, at)| *at);
            self.recorder.record(self.of_attempt(attempt, began));
        }
        for (id, attempt, at) in sent {
            let before = known.at.get(&id).map(|(of, _)| *of);
            if before.is_none() {
                known.order.push_back(id);
            }
            // One that is published once more, since nobody knows whether it was, counts from before.
            if before != Some(attempt) {
                known.at.insert(id, (attempt, at));
            }
        }
        while known.order.len() > MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.at.remove(&oldest);
        }
        drop(known);
        for whole in sagas.into_iter().filter(|whole| !never_were.contains(&whole.id)) {
            self.recorder.record(of_saga(whole));
        }
    }

    fn of_attempt(&self, attempt: Attempt, began: Option<Timestamp>) -> Span {
        let Attempt { id, context, definition, flight, end, outcome, error } = attempt;
        let step = definition.step(flight.step);
        let action = match (flight.direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => &compensation.action,
            _ => &step.action,
        };
        let key = format!("{}.{action}", step.participant);
        let mut attributes: Vec<(&'static str, Value)> = vec![
            ("messaging.system", self.system.into()),
            ("messaging.operation.type", "send".into()),
            ("messaging.operation.name", "publish".into()),
            ("messaging.destination.name", format!("{}:{key}", self.exchange).into()),
            ("messaging.rabbitmq.destination.routing_key", key.clone().into()),
            ("messaging.message.id", id.message_id(flight.attempt).to_string().into()),
            ("amends.step", step.name.clone().into()),
            ("amends.direction", flight.direction.as_str().into()),
            ("amends.attempt", flight.attempt.into()),
        ];
        about(&mut attributes, id.saga, &definition, outcome, error.as_deref());
        let parent = Some(trace::saga_span(id.saga));
        let start = began.unwrap_or(flight.began).min(end);
        Span { context, parent, kind: Kind::Producer, name: format!("publish {key}"), start, end, attributes, error }
    }
}

fn of_saga(whole: Whole) -> Span {
    let Whole { id, context, parent, definition, start, end, outcome, error } = whole;
    let mut attributes = vec![("amends.version", definition.reference.version.into())];
    about(&mut attributes, id, &definition, outcome, error.as_deref());
    let name = format!("saga {}", definition.reference.name);
    Span { context, parent, kind: Kind::Internal, name, start, end, attributes, error }
}

fn about(
    attributes: &mut Vec<(&'static str, Value)>,
    saga: SagaId,
    definition: &Definition,
    outcome: &'static str,
    error: Option<&str>,
) {
    attributes.push(("amends.saga.id", saga.to_string().into()));
    attributes.push(("amends.saga", definition.reference.name.clone().into()));
    attributes.push(("amends.outcome", outcome.into()));
    attributes.extend(error.map(|error| ("error.type", error.into())));
}

impl Traced {
    /// The first attempt of a command is put in line to be sent.
    pub(super) fn first(
        &mut self,
        traces: Option<&Traces>,
        saga: &Saga,
        (id, outbound): (CommandId, &mut Outbound),
        at: Timestamp,
    ) {
        stamp(outbound, carried(traces, saga.id, saga.trace.as_deref(), (id, 1)));
        if traces.is_some() {
            self.sent.push((id, 1, at));
        }
    }

    /// Whether the event says that a command was not sent after all.
    pub(super) fn held(&mut self, saga: SagaId, kind: &EventKind) -> bool {
        let EventKind::HeldBack { seq, .. } = kind else { return false };
        self.sent.retain(|(id, ..)| id.saga != saga || id.seq != *seq);
        true
    }

    /// An attempt is to be sent by whoever has no saga at hand.
    pub(super) fn again(
        &mut self,
        traces: Option<&Traces>,
        saga: &Saga,
        (id, attempt): (CommandId, u32),
        at: Timestamp,
    ) {
        if let Some(trace) = &saga.trace {
            self.given.entry(saga.id).or_insert_with(|| (**trace).clone());
        }
        if traces.is_some() {
            self.sent.push((id, attempt, at));
        }
    }

    /// What callers gave.
    pub(super) fn given(&mut self) -> Given {
        std::mem::take(&mut self.given)
    }

    /// Notes what has ended with an event.
    pub(super) fn after(
        &mut self,
        (traces, before): (&Traces, Before),
        definition: &Arc<Definition>,
        saga: &Saga,
        (now, kind): (Timestamp, &EventKind),
    ) {
        let given = saga.trace.as_deref();
        if self.held(saga.id, kind) {
            return;
        }
        for flight in before.flights {
            let is_under_way = saga.steps.get(flight.step.at()).and_then(|step| step.in_flight()).is_some_and(
                |(direction, command)| {
                    direction == flight.direction
                        && (command.seq, command.attempt) == (flight.seq, flight.attempt)
                        && matches!(command.phase, Phase::Sending(_) | Phase::Awaiting(_))
                },
            );
            if is_under_way {
                continue;
            }
            let id = CommandId { saga: saga.id, seq: flight.seq };
            let context = traces.context(saga.id, given, trace::attempt_span(id, flight.attempt));
            let (outcome, error) = outcome(kind, flight.seq);
            let definition = definition.clone();
            self.attempts.push(Attempt { id, context, definition, flight, end: now, outcome, error });
        }
        let outcome = match saga.state {
            SagaState::Completed => "completed",
            SagaState::Compensated => "compensated",
            SagaState::Abandoned => "abandoned",
            SagaState::Running | SagaState::Compensating | SagaState::Stuck(_) => return,
        };
        if !before.was_terminal {
            let cause = saga.cause.as_ref().map(|cause| short(&cause.kind));
            self.sagas.push(Whole {
                id: saga.id,
                context: traces.context(saga.id, given, trace::saga_span(saga.id)),
                parent: given.map(|given| given.span_id),
                definition: definition.clone(),
                start: saga.created_at,
                end: now,
                outcome,
                error: if outcome == "completed" { None } else { cause.or_else(|| Some(outcome.to_owned())) },
            });
        }
    }
}

/// What ended an attempt, and what went wrong with it, in words that hold no payload.
fn outcome(kind: &EventKind, seq: Seq) -> (&'static str, Option<String>) {
    match kind {
        EventKind::Replied { seq: of, outcome, .. } if *of == seq => match outcome {
            ReplyOutcome::Success { .. } | ReplyOutcome::InProgress => ("success", None),
            ReplyOutcome::Failure { problem } => ("failure", Some(short(&problem.kind))),
            ReplyOutcome::Retry { problem, .. } => ("retry", Some(short(&problem.kind))),
        },
        EventKind::Due => ("timeout", Some("timeout".to_owned())),
        EventKind::Operated { operation } => (operation.as_str(), None),
        _ => ("given-up", None),
    }
}

fn short(kind: &str) -> String {
    kind.chars().take(MOST_ERROR).collect()
}
