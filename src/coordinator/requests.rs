//! Starts that arrive over AMQP instead of HTTP.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::broker::topology::REQUESTS_QUEUE;
use crate::broker::{Delivery, Settlement};
use crate::coordinator::replies::consume;
use crate::coordinator::{Coordinator, CoordinatorError, Start, StartOutcome};
use crate::message::Envelope;
use crate::message::request::{Answer, START_KEY, StartRequest};

/// What may be unacknowledged at once.
const PREFETCH: u16 = 256;
/// How long a request waits in line again after the store or the coordinator was too busy for it.
const PAUSE: Duration = Duration::from_millis(500);

/// Answers requests until stopped.
pub(super) async fn run(coordinator: Coordinator, stop: CancellationToken) {
    let broker = coordinator.broker().clone();
    let Some(mut consumer) = consume(&*broker, REQUESTS_QUEUE, PREFETCH, &stop).await else { return };
    let settler = consumer.settler();
    loop {
        let deliveries = tokio::select! {
            deliveries = consumer.next(usize::from(PREFETCH)) => deliveries,
            () = stop.cancelled() => return,
        };
        let Some(deliveries) = deliveries else { return };
        let mut starts = Vec::new();
        let mut of_starts = Vec::new();
        let mut answered: Vec<(Delivery, Answer)> = Vec::new();
        for delivery in deliveries {
            match read(&delivery.envelope) {
                Ok(start) => {
                    starts.push(start);
                    of_starts.push(delivery);
                }
                Err(answer) => answered.push((delivery, answer)),
            }
        }
        let mut settlements = Vec::new();
        for (delivery, outcome) in of_starts.into_iter().zip(coordinator.start_many(starts).await) {
            match outcome {
                Err(error) if error.is_transient() => settlements.push((delivery.tag, Settlement::Requeue)),
                outcome => answered.push((delivery, answer(outcome))),
            }
        }
        let must_wait = !settlements.is_empty();
        let mut answers = Vec::new();
        for (delivery, answer) in answered {
            let is_refused = answer.code.is_some();
            let message = answer.encode(&delivery.envelope);
            // A refusal that nobody asked to hear of is kept where people look for it.
            let settlement = if is_refused && message.is_none() { Settlement::Reject } else { Settlement::Ack };
            answers.extend(message);
            settlements.push((delivery.tag, settlement));
        }
        if !answers.is_empty() {
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

fn read(envelope: &Envelope) -> Result<Start, Answer> {
    if envelope.routing_key != START_KEY {
        let detail =
            format!("`{}` is no request that this version knows: expected `{START_KEY}`", envelope.routing_key);
        return Err(refused("REQUEST_UNKNOWN", detail));
    }
    let request: StartRequest =
        serde_json::from_slice(&envelope.body).map_err(|error| refused("REQUEST_INVALID", error.to_string()))?;
    let StartRequest { saga, version, input, key } = request;
    Ok(Start { saga, version, input, key })
}

fn answer(outcome: Result<StartOutcome, CoordinatorError>) -> Answer {
    let found = |id: crate::id::SagaId, is_new| Answer { id: Some(id.to_string()), is_new, code: None, detail: None };
    match outcome {
        Ok(StartOutcome::Started { id, .. }) => found(id, true),
        Ok(StartOutcome::Exists { id }) => found(id, false),
        Err(error) => refused(error.code(), error.to_string()),
    }
}

fn refused(code: &str, detail: String) -> Answer {
    Answer { id: None, is_new: false, code: Some(code.to_owned()), detail: Some(detail) }
}
