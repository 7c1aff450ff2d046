//! Takes what is due and sends it.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::coordinator::{Coordinator, Metrics};
use crate::store::webhooks::Delivery;
use crate::store::{Store, StoreError};
use crate::webhook::address::{Public, check_literal};
use crate::webhook::{Endpoint, LONGEST_WAIT, signature};

/// Messages that are on their way at once, at most.
const AT_ONCE: usize = 16;
/// How often it is looked for what is due.
const LOOK: Duration = Duration::from_millis(500);
/// Beyond an attempt's own time, until it counts as lost with whoever made it.
const LEASE: Duration = Duration::from_secs(30);
/// How long a stop waits for messages that are on their way.
const GRACE: Duration = Duration::from_secs(10);
/// The longest wait between two looks while the store is away.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Characters of what went wrong that are kept, at most.
const MOST_PROBLEM: usize = 300;

/// A webhook with the connections to it.
struct Target {
    endpoint: Endpoint,
    http: reqwest::Client,
}

struct Deliverer {
    store: Arc<dyn Store>,
    metrics: Metrics,
    targets: HashMap<String, Arc<Target>>,
}

/// Delivers until stopped. `None` when there is nothing to deliver to.
pub fn launch(coordinator: &Coordinator, endpoints: Vec<Endpoint>, stop: CancellationToken) -> Option<JoinHandle<()>> {
    if endpoints.is_empty() || coordinator.store().webhooks().is_none() {
        return None;
    }
    let targets = endpoints.into_iter().filter_map(|endpoint| {
        let http =
            client(&endpoint).map_err(|error| tracing::error!(webhook = endpoint.name, %error, "no HTTP client"));
        let name = endpoint.name.clone();
        Some((name, Arc::new(Target { http: http.ok()?, endpoint })))
    });
    let (store, metrics) = (coordinator.store().clone(), coordinator.metrics().clone());
    let deliverer = Deliverer { store, metrics, targets: targets.collect() };
    Some(tokio::spawn(Arc::new(deliverer).run(stop)))
}

fn client(endpoint: &Endpoint) -> Result<reqwest::Client, reqwest::Error> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("amends/", env!("CARGO_PKG_VERSION")))
        .timeout(endpoint.timeout)
        // A proxy would look the name up by itself, and a redirect leads where nobody has looked.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    match endpoint.allow_private {
        true => builder.build(),
        false => builder.dns_resolver(Arc::new(Public)).build(),
    }
}

impl Deliverer {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut under_way: JoinSet<()> = JoinSet::new();
        let mut pause = LOOK;
        while !stop.is_cancelled() {
            while under_way.try_join_next().is_some() {}
            let room = AT_ONCE - under_way.len().min(AT_ONCE);
            match self.claim(room).await {
                Ok(claimed) => {
                    pause = LOOK;
                    for delivery in claimed {
                        let deliverer = self.clone();
                        under_way.spawn(async move { deliverer.deliver(delivery).await });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "what webhooks are to be told cannot be read");
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        // What is not done by then is tried again by whoever comes next.
        let _ = tokio::time::timeout(GRACE, async { while under_way.join_next().await.is_some() {} }).await;
    }

    async fn claim(&self, room: usize) -> Result<Vec<Delivery>, StoreError> {
        let Some(store) = self.store.webhooks().filter(|_| room > 0) else { return Ok(Vec::new()) };
        let names: Vec<String> = self.targets.keys().cloned().collect();
        let longest = self.targets.values().map(|target| target.endpoint.timeout).max().unwrap_or_default();
        store.claim(&names, longest + LEASE, u32::try_from(room).unwrap_or(1)).await
    }

    async fn deliver(&self, delivery: Delivery) {
        let (Some(target), Some(store)) = (self.targets.get(&delivery.webhook), self.store.webhooks()) else { return };
        let Delivery { id, attempts, ref webhook, saga, .. } = delivery;
        let settled = match target.send(&delivery).await {
            Ok(()) => {
                self.metrics.webhook("delivered");
                tracing::debug!(saga_id = %saga, webhook, event = delivery.event, attempts, "webhook told");
                store.delivered(id, attempts).await
            }
            Err(problem) => {
                let is_spent = attempts >= target.endpoint.max_attempts;
                let pause = (!is_spent).then(|| wait(target.endpoint.first_wait, attempts, id.as_u64_pair().1));
                self.metrics.webhook(if is_spent { "parked" } else { "failed" });
                if is_spent {
                    tracing::warn!(saga_id = %saga, webhook, event = delivery.event, attempts, problem, "a webhook did not take a message, which is parked: see `amends webhooks list`");
                } else {
                    tracing::info!(saga_id = %saga, webhook, event = delivery.event, attempts, problem, "a webhook did not take a message");
                }
                store.failed(id, attempts, &problem, pause).await
            }
        };
        if let Err(error) = settled {
            // It comes again when this attempt counts as lost.
            tracing::warn!(saga_id = %saga, webhook, %error, "what became of a message to a webhook cannot be written down");
        }
    }
}

impl Target {
    async fn send(&self, delivery: &Delivery) -> Result<(), String> {
        if !self.endpoint.allow_private {
            check_literal(&self.endpoint.url)?;
        }
        let (id, now) = (delivery.id.to_string(), Clock::System.now().timestamp());
        let request = self
            .http
            .post(self.endpoint.url.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", signature::sign(&self.endpoint.secrets, &id, now, &delivery.body))
            .body(delivery.body.clone());
        let answer = request.send().await.map_err(|error| cause(&error.without_url()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(format!("it answered {status}; redirects are not followed")),
            status => Err(format!("it answered {status}")),
        }
    }
}

/// The last cause is the one that says something.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
    cause.chars().take(MOST_PROBLEM).collect()
}

/// The wait after an attempt: twice the last one, and between half of that and all of it.
fn wait(first: Duration, attempts: u32, seed: u64) -> Duration {
    let whole = first.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(LONGEST_WAIT);
    let mixed = (seed ^ u64::from(attempts)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    whole.mul_f64(0.5 + 0.5 * mixed as f64 / (1 << 24) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_differ_from_message_to_message() {
        let first = Duration::from_secs(5);
        for attempts in 1..40 {
            let whole = first.saturating_mul(1 << (attempts - 1).min(20)).min(LONGEST_WAIT);
            let waits: Vec<Duration> = (0..50).map(|seed| wait(first, attempts, seed)).collect();
            assert!(waits.iter().all(|wait| (whole / 2..=whole).contains(wait)), "{attempts}: {waits:?}");
            assert!(waits.windows(2).any(|pair| pair[0] != pair[1]));
        }
    }
}
