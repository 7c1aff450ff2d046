//! Starts and signals that arrive over AMQP instead of HTTP.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::broker::topology::REQUESTS_QUEUE;
use crate::broker::{Broker, Consuming, Delivery, DeliveryTag, Published, Settlement};
use crate::coordinator::replies::consume;
use crate::coordinator::{Coordinator, CoordinatorError, Signal, Start, StartOutcome, Target};
use crate::id::SagaId;
use crate::message::Envelope;
use crate::message::request::{Answer, SIGNAL_KEY, START_KEY, SignalRequest, StartRequest};
use crate::payload::Payload;
use crate::trace::TraceContext;

/// What may be unacknowledged at once.
const PREFETCH: u16 = 256;
/// How long a request waits in line again after the store or the coordinator was too busy for it.
const PAUSE: Duration = Duration::from_millis(500);

/// Answers requests until stopped.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let broker = coordinator.broker().clone();
    let how = Consuming::on_a_par(PREFETCH);
    let Some(mut consumer) = consume(&*broker, REQUESTS_QUEUE, how, &stop).await else { return };
    let settler = consumer.settler();
    loop {
        let deliveries = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
        };
        let Some(deliveries) = deliveries else { return };
        let mut starts = Vec::new();
        let mut of_starts = Vec::new();
        let mut answered: Vec<(Delivery, Answer)> = Vec::new();
        let mut signals = Vec::new();
        for delivery in deliveries {
            match read(&delivery.envelope) {
                Ok(Request::Start(start)) => {
                    starts.push((start, trace(&delivery.envelope)));
                    of_starts.push(delivery);
                }
                Ok(Request::Signal(signal)) => signals.push((delivery, signal)),
                Err(answer) => answered.push((delivery, answer)),
            }
        }
        let mut settlements = Vec::new();
        for (delivery, outcome) in of_starts.into_iter().zip(coordinator.start_each(starts).await) {
            match outcome {
                Err(error) if error.is_transient() => settlements.push((delivery.tag, Settlement::Requeue)),
                outcome => answered.push((delivery, answer(outcome))),
            }
        }
        // After the starts: a signal may be for a saga that was asked for in the same breath.
        let told = signals.into_iter().map(|(delivery, signal)| {
            let told = coordinator.signal_to(signal);
            async { (delivery, told.await) }
        });
        for (delivery, outcome) in join_all(told).await {
            match outcome {
                Err(error) if error.is_transient() => settlements.push((delivery.tag, Settlement::Requeue)),
                Ok(heard) => answered.push((delivery, found(heard.saga.id, !heard.is_duplicate))),
                Err(error) => answered.push((delivery, refused(error.code(), error.to_string()))),
            }
        }
        let must_wait = !settlements.is_empty();
        settlements.extend(tell(&*broker, answered).await);
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

/// Publishes the answers, and says what becomes of the requests.
async fn tell(broker: &dyn Broker, answered: Vec<(Delivery, Answer)>) -> Vec<(DeliveryTag, Settlement)> {
    let mut settlements = Vec::new();
    let (mut answers, mut waiting) = (Vec::new(), Vec::new());
    for (delivery, answer) in answered {
        let is_refused = answer.code.is_some();
        match answer.encode(&delivery.envelope) {
            Some(message) => {
                answers.push(message);
                waiting.push((delivery.tag, is_refused));
            }
            None => settlements.push((delivery.tag, heard_by_nobody(is_refused))),
        }
    }
    if answers.is_empty() {
        return settlements;
    }
    for ((tag, is_refused), outcome) in waiting.into_iter().zip(broker.publish(answers).await) {
        settlements.push(match outcome {
            Published::Confirmed => (tag, Settlement::Ack),
            Published::Returned(_) | Published::Refused => (tag, heard_by_nobody(is_refused)),
            // Refused anew, it is answered anew. What was done is not done twice: a start without a key would be.
            Published::Unknown(_) if is_refused => (tag, Settlement::Requeue),
            Published::Unknown(_) => (tag, Settlement::Ack),
        });
    }
    settlements
}

/// A refusal that nobody hears of is kept where people look for it.
fn heard_by_nobody(is_refused: bool) -> Settlement {
    if is_refused { Settlement::Reject } else { Settlement::Ack }
}

/// The caller's span.
fn trace(envelope: &Envelope) -> Option<TraceContext> {
    let properties = &envelope.properties;
    TraceContext::parse(properties.text("traceparent")?, properties.text("tracestate"))
}

/// What is asked for.
enum Request {
    Start(Start),
    Signal(Signal),
}

fn read(envelope: &Envelope) -> Result<Request, Answer> {
    let invalid = |error: serde_json::Error| refused("REQUEST_INVALID", error.to_string());
    match envelope.routing_key.as_str() {
        START_KEY => {
            let StartRequest { saga, version, input, key } = serde_json::from_slice(&envelope.body).map_err(invalid)?;
            Ok(Request::Start(Start { saga, version, input, key }))
        }
        SIGNAL_KEY => {
            let SignalRequest { saga_id, saga, key, signal, payload } =
                serde_json::from_slice(&envelope.body).map_err(invalid)?;
            let target = match (saga_id, saga, key) {
                (Some(id), None, None) => Target::Id(id.parse().map_err(|_| {
                    refused("REQUEST_INVALID", "`sagaId` is no UUID; give the id as the start answered it".to_owned())
                })?),
                (None, Some(saga), Some(key)) => Target::Key { saga, key },
                _ => {
                    let detail = "which saga is meant is said by `sagaId`, or by `saga` and `key`";
                    return Err(refused("REQUEST_INVALID", detail.to_owned()));
                }
            };
            let payload = payload.unwrap_or_else(|| Payload::from(serde_json::Value::Null));
            Ok(Request::Signal(Signal { target, signal, payload }))
        }
        key => {
            let detail =
                format!("`{key}` is no request that this version knows: expected `{START_KEY}` or `{SIGNAL_KEY}`");
            Err(refused("REQUEST_UNKNOWN", detail))
        }
    }
}

fn found(id: SagaId, is_new: bool) -> Answer {
    Answer { id: Some(id.to_string()), is_new, code: None, detail: None }
}

fn answer(outcome: Result<StartOutcome, CoordinatorError>) -> Answer {
    match outcome {
        Ok(StartOutcome::Started { id, .. }) => found(id, true),
        Ok(StartOutcome::Exists { id }) => found(id, false),
        Err(error) => refused(error.code(), error.to_string()),
    }
}

fn refused(code: &str, detail: String) -> Answer {
    Answer { id: None, is_new: false, code: Some(code.to_owned()), detail: Some(detail) }
}
