//! How long commands take, from the first attempt to the reply that settles them. Kept in memory, so that only those are
//! measured whose reply comes to the process that sent them: of several coordinators' commands a sample, without the first commands
//! of most sagas that another one has started than the one that hears the replies.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use crate::coordinator::metrics::Metrics;
use crate::coordinator::outbound::Outbound;
use crate::id::CommandId;
use crate::saga::ReplyOutcome;

/// Commands that are waited for at once; older ones are no longer measured.
const MOST: usize = 65_536;

#[derive(Default)]
pub(super) struct Latencies {
    sent: HashMap<CommandId, (Instant, usize)>,
    /// In the order in which they were sent, those among them that were heard of since.
    order: VecDeque<CommandId>,
    /// Actions of all definitions: few, and known by number from then on.
    series: Vec<Series>,
    /// Per routing key, the series of the definitions that use it.
    by_key: HashMap<String, Vec<usize>>,
}

struct Series {
    saga: String,
    success: Histogram,
    failure: Histogram,
}

impl Latencies {
    /// These were decided and are being published now.
    pub(super) fn sent(&mut self, outbound: &[Outbound], metrics: &Metrics) {
        let now = Instant::now();
        for Outbound { of, envelope } in outbound {
            let &Some((command, 1)) = of else { continue };
            let saga = envelope.properties.text("amends-saga").unwrap_or_default();
            let series = self.series(&envelope.routing_key, saga, metrics);
            // One that is published once more, since nobody knows whether it was, counts from before.
            if let Entry::Vacant(place) = self.sent.entry(command) {
                place.insert((now, series));
                self.order.push_back(command);
            }
        }
        while self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
        }
    }

    /// A reply was applied.
    pub(super) fn heard(&mut self, command: CommandId, outcome: &ReplyOutcome) {
        let is_success = match outcome {
            ReplyOutcome::Success { .. } => true,
            ReplyOutcome::Failure { .. } => false,
            ReplyOutcome::Retry { .. } | ReplyOutcome::InProgress => return,
        };
        let Some((since, series)) = self.sent.remove(&command) else { return };
        if let Some(series) = self.series.get(series) {
            let histogram = if is_success { &series.success } else { &series.failure };
            histogram.observe(since.elapsed().as_secs_f64());
        }
    }

    fn series(&mut self, routing_key: &str, saga: &str, metrics: &Metrics) -> usize {
        let mut known = self.by_key.get(routing_key).into_iter().flatten().copied();
        let is_it = |at: &usize| self.series.get(*at).is_some_and(|series| series.saga == saga);
        if let Some(at) = known.find(is_it) {
            return at;
        }
        let (participant, action) = routing_key.split_once('.').unwrap_or((routing_key, ""));
        let histogram = |outcome| metrics.step_seconds(saga, participant, action, outcome);
        let series = Series { saga: saga.to_owned(), success: histogram("success"), failure: histogram("failure") };
        self.series.push(series);
        let at = self.series.len() - 1;
        self.by_key.entry(routing_key.to_owned()).or_default().push(at);
        at
    }
}
