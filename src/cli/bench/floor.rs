//! The floor: the commands and replies of a load, persistent, mandatory and confirmed, between this process and the
//! participants. A reply is acknowledged once the command that follows from it is confirmed, so that the broker alone
//! carries the state; nothing is decided, and nothing stored.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::drive::stalled;
use super::measure::{Measured, cpu_time};
use super::workload::{ACTION, Load, Names, STEPS, UNDO};
use crate::broker::{Broker, Consumer, Delivery, DeliveryTag, Published, Settlement, Settler};
use crate::cli::error::CliError;
use crate::clock::{Clock, Stopwatch, Timestamp, after};
use crate::id::{DefinitionRef, SagaId};
use crate::message::command::idempotency_key;
use crate::message::{Command, Envelope};
use crate::payload::Payload;

/// Unacknowledged replies at once, as the coordinator has it.
const PREFETCH: u16 = 2_048;
/// Batches whose confirms are awaited at once, as the coordinator has it.
const BATCHES: usize = 8;
/// As in the definition of the bench.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(300);
/// Nothing ends for so long only when something is wrong.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A driver of the floor.
pub(super) struct Floor {
    names: Names,
    broker: Arc<dyn Broker>,
    consumer: Box<dyn Consumer>,
    participants: u32,
}

/// Where a saga stands: which step, and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    saga: u32,
    step: usize,
    is_compensation: bool,
}

/// What follows from a reply.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Send(Place),
    End(&'static str),
}

impl Place {
    fn first(saga: u32) -> Self {
        Self { saga, step: 0, is_compensation: false }
    }

    /// As long as a real attempt token, since it is carried twice per step.
    fn token(self, run: u32) -> String {
        let Self { saga, step, is_compensation } = self;
        format!("{run:08}.{saga:010}.{step}.{}.{:034}", u8::from(is_compensation), 0)
    }

    fn read(token: &str, run: u32) -> Option<Self> {
        let mut parts = token.split('.');
        let is_of_run = parts.next()?.parse() == Ok(run);
        let saga = parts.next()?.parse().ok()?;
        let step = parts.next()?.parse().ok()?;
        let is_compensation = parts.next()? == "1";
        is_of_run.then_some(Self { saga, step, is_compensation })
    }

    /// What the coordinator would do next.
    fn next(self, is_success: bool) -> Next {
        let back = |step: usize| match step.checked_sub(1) {
            Some(step) => Next::Send(Self { step, is_compensation: true, ..self }),
            None => Next::End("compensated"),
        };
        match (self.is_compensation, is_success) {
            (false, true) if self.step + 1 == STEPS.len() => Next::End("completed"),
            (false, true) => Next::Send(Self { step: self.step + 1, ..self }),
            (false, false) | (true, true) => back(self.step),
            (true, false) => Next::End("stuck"),
        }
    }
}

impl Floor {
    /// With the participants of the same name, in the process `participants`.
    pub(super) async fn open(broker: Arc<dyn Broker>, names: Names, participants: u32) -> Result<Self, CliError> {
        let consumer = broker.consume(&names.floor_replies(), PREFETCH).await?;
        Ok(Self { names, broker, consumer, participants })
    }

    /// Runs a load and waits for all its ends.
    pub(super) async fn run(&mut self, load: &Load) -> Result<Measured, CliError> {
        let pid = std::process::id();
        let (cpu, participants) = (cpu_time(pid), cpu_time(self.participants));
        // A reply of an earlier run that comes once more must not count.
        let run =
            u32::from_be_bytes(*crate::id::fresh_request_id().as_bytes().last_chunk().unwrap_or(&[0; 4])) % 100_000_000;
        let sender = Sender { names: self.names.clone(), run, now: Clock::System.now(), input: *load };
        let (settler, slots) = (self.consumer.settler(), Arc::new(Semaphore::new(BATCHES)));
        let (mut measured, mut started, mut tasks) = (Measured::default(), Vec::new(), JoinSet::new());
        let began = Stopwatch::start();
        let first: Vec<Envelope> = (0..load.in_flight).map(|n| sender.command(Place::first(n))).collect();
        started.resize(first.len(), Stopwatch::start());
        tasks.spawn(publish(self.broker.clone(), first, settler.clone(), Vec::new()));
        while measured.ended() < load.sagas {
            let deliveries = tokio::select! {
                Some(published) = tasks.join_next() => {
                    published.map_err(|error| CliError::failed(error.to_string()))??;
                    continue;
                }
                deliveries = tokio::time::timeout(PATIENCE, self.consumer.next(usize::from(PREFETCH))) => deliveries,
            };
            let Some(deliveries) = deliveries.map_err(|_| stalled(&measured, load))? else {
                return Err(CliError::failed("the broker was closed"));
            };
            let (mut commands, mut tags) = (Vec::with_capacity(deliveries.len()), Vec::with_capacity(deliveries.len()));
            for delivery in deliveries {
                tags.push(delivery.tag);
                let Some(place) = read(&delivery, run) else { continue };
                let is_success = delivery.envelope.properties.text("amends-outcome") == Some("success");
                match place.next(is_success) {
                    Next::Send(next) => commands.push(sender.command(next)),
                    Next::End(how) => {
                        measured.latencies.extend(started.get(place.saga as usize).map(|since| since.elapsed()));
                        measured.end(how);
                        let next = u32::try_from(started.len()).unwrap_or(u32::MAX);
                        if next < load.sagas {
                            commands.push(sender.command(Place::first(next)));
                            started.push(Stopwatch::start());
                        }
                    }
                }
            }
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            let publishing = publish(self.broker.clone(), commands, settler.clone(), tags);
            tasks.spawn(async move {
                let published = publishing.await;
                drop(slot);
                published
            });
        }
        measured.took = began.elapsed();
        while let Some(published) = tasks.join_next().await {
            published.map_err(|error| CliError::failed(error.to_string()))??;
        }
        let since = |now: Option<std::time::Duration>, before| now.zip(before).map(|(now, before)| now - before);
        measured.cpu = since(cpu_time(pid), cpu);
        measured.participants_cpu = since(cpu_time(self.participants), participants);
        measured.sort();
        Ok(measured)
    }
}

fn read(delivery: &Delivery, run: u32) -> Option<Place> {
    Place::read(delivery.envelope.properties.correlation_id.as_deref()?, run)
}

async fn publish(
    broker: Arc<dyn Broker>,
    commands: Vec<Envelope>,
    settler: Arc<dyn Settler>,
    tags: Vec<DeliveryTag>,
) -> Result<(), CliError> {
    if !commands.is_empty() {
        let outcomes = broker.publish(commands).await;
        if let Some(other) = outcomes.into_iter().find(|outcome| *outcome != Published::Confirmed) {
            return Err(CliError::failed(format!("the broker did not take a command of the floor: {other:?}")));
        }
    }
    settler.settle(tags.into_iter().map(|tag| (tag, Settlement::Ack)).collect()).await;
    Ok(())
}

/// Makes commands as the coordinator does.
struct Sender {
    names: Names,
    run: u32,
    now: Timestamp,
    input: Load,
}

impl Sender {
    fn command(&self, place: Place) -> Envelope {
        let saga = SagaId::fresh();
        let step = STEPS.get(place.step).copied().unwrap_or_default();
        let key = |direction: &str| idempotency_key(saga, step, direction, 1);
        let is_compensation = place.is_compensation;
        let attempt = place.token(self.run);
        Command {
            message_id: saga.to_string(),
            token: attempt,
            reply_to: self.names.floor_replies(),
            participant: self.names.participant(place.step),
            action: if is_compensation { UNDO } else { ACTION }.to_owned(),
            saga_id: saga,
            definition: DefinitionRef { name: self.names.run.clone(), version: 1 },
            step: step.to_owned(),
            is_compensation,
            attempt: 1,
            key: key(if is_compensation { "compensation" } else { "action" }),
            compensates: is_compensation.then(|| key("action")),
            deadline: after(self.now, TIMEOUT),
            traceparent: None,
            tracestate: None,
            body: Payload::from(self.input.input(place.saga)),
            sent_at: self.now,
        }
        .into_envelope()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(refused: bool) -> Vec<String> {
        let (mut place, mut way) = (Place::first(7), Vec::new());
        loop {
            way.push(format!("{}{}", if place.is_compensation { "-" } else { "+" }, place.step));
            let is_success = place.is_compensation || !refused || place.step + 1 < STEPS.len();
            match place.next(is_success) {
                Next::Send(next) => place = next,
                Next::End(how) => {
                    way.push(how.to_owned());
                    return way;
                }
            }
        }
    }

    #[test]
    fn the_floor_sends_what_the_coordinator_would() {
        assert_eq!(walk(false), ["+0", "+1", "+2", "completed"]);
        assert_eq!(walk(true), ["+0", "+1", "+2", "-1", "-0", "compensated"]);
    }

    #[test]
    fn a_token_tells_the_place_and_is_as_long_as_a_real_one() {
        let place = Place { saga: 12, step: 2, is_compensation: true };
        assert_eq!(Place::read(&place.token(3), 3), Some(place));
        assert_eq!(Place::read(&place.token(3), 4), None);
        let keys = crate::message::TokenKeys::new(vec![crate::message::TokenKey { id: 1, secret: [0; 32] }]);
        let id = crate::id::CommandId { saga: SagaId::fresh(), seq: crate::id::Seq(1) };
        assert_eq!(place.token(3).len(), keys.expect("a key").sign(id, 1).len());
    }
}
