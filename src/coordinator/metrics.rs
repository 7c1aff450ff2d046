//! What the coordinator counts.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::telemetry::{Recorder, Told};

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labelled {
    /// What the counter's documentation says.
    pub kind: String,
}

/// A label next to the definition's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfDefinition {
    /// The definition's name.
    pub saga: String,
    /// What the counter's documentation says.
    pub kind: String,
}

/// A participant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfParticipant {
    /// Its name.
    pub participant: String,
}
/// The labels of a series that is about more than a definition.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The coordinator's counters, in the form that Prometheus reads.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    sagas: Family<OfDefinition, Counter>,
    steps: Family<OfDefinition, Counter>,
    replies: Family<Labelled, Counter>,
    dead_replies: Family<Labelled, Counter>,
    published: Family<Labelled, Counter>,
    commits: Family<Labelled, Counter>,
    batch: Histogram,
    held: Family<OfParticipant, Counter>,
    bulk: Family<Labelled, Counter>,
    circuits: Family<OfParticipant, Gauge>,
    pauses: Family<Labels, Gauge>,
    commit_seconds: Histogram,
    publish_batch: Histogram,
    timer_lag: Histogram,
    saga_seconds: Family<OfDefinition, Histogram, fn() -> Histogram>,
    step_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    spans: Family<Labelled, Counter>,
    webhooks: Family<Labelled, Counter>,
    recorder: Mutex<Option<Recorder>>,
    starts_waiting: Gauge,
    gauges: Gauges,
}

/// What is looked up when somebody asks, by [`crate::coordinator::vitals`].
#[derive(Clone, Default)]
pub(super) struct Gauges {
    /// When that was last done.
    pub(super) looked: Arc<tokio::sync::Mutex<Option<tokio::time::Instant>>>,
    pub(super) store_up: Gauge,
    pub(super) broker_up: Gauge,
    pub(super) live: Family<Labels, Gauge>,
    pub(super) stuck: Family<Labels, Gauge>,
    pub(super) owed: Family<Labels, Gauge>,
    pub(super) oldest: Family<Labels, Gauge<f64, AtomicU64>>,
    pub(super) overdue: Gauge<f64, AtomicU64>,
    pub(super) deliveries_pending: Gauge,
    pub(super) deliveries_parked: Gauge,
    pub(super) consumers: Family<Labels, Gauge>,
    pub(super) messages: Family<Labels, Gauge>,
}

/// From a millisecond to two minutes.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

/// From ten milliseconds to a week.
fn long_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 4.0, 14))
}

impl Default for Metrics {
    fn default() -> Self {
        let inner = Inner {
            registry: Mutex::default(),
            sagas: Family::default(),
            steps: Family::default(),
            replies: Family::default(),
            dead_replies: Family::default(),
            published: Family::default(),
            commits: Family::default(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            held: Family::default(),
            bulk: Family::default(),
            circuits: Family::default(),
            pauses: Family::default(),
            commit_seconds: seconds(),
            publish_batch: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
            timer_lag: seconds(),
            saga_seconds: Family::new_with_constructor(long_seconds),
            step_seconds: Family::new_with_constructor(seconds),
            spans: Family::default(),
            webhooks: Family::default(),
            recorder: Mutex::default(),
            starts_waiting: Gauge::default(),
            gauges: Gauges::default(),
        };
        for outcome in ["applied", "refused", "failed"] {
            // There from the start, so that the first one is seen as a rise.
            drop(inner.bulk.get_or_create(&labelled(outcome)));
        }
        if let Ok(mut registry) = inner.registry.lock() {
            registry.register("amends_sagas", "Sagas by what happened to them: started, compensating, completed, compensated, stuck, unstuck, abandoned, paused, resumed", inner.sagas.clone());
            registry.register("amends_steps", "Steps by what happened to them: verified, failed, unknown, skipped, compensated, timed-out, retry-asked, contradiction", inner.steps.clone());
            registry.register(
                "amends_starts_waiting",
                "Starts that were taken in and wait for their commit",
                inner.starts_waiting.clone(),
            );
            registry.register(
                "amends_commands_held_back",
                "Commands held back since their participant takes no more for now, each time it was their turn",
                inner.held.clone(),
            );
            registry.register(
                "amends_bulk_items",
                "Sagas of bulk jobs by what became of them: applied, refused, failed",
                inner.bulk.clone(),
            );
            registry.register(
                "amends_participant_circuit_open",
                "1 while a participant does nothing but fail, and is only sent probes",
                inner.circuits.clone(),
            );
            registry.register(
                "amends_participant_paused",
                "1 while operators have paused a participant, or the action that is named",
                inner.pauses.clone(),
            );
            registry.register(
                "amends_replies",
                "Replies by what became of them: applied, duplicate, dead",
                inner.replies.clone(),
            );
            registry.register(
                "amends_dead_replies",
                "Replies that went to amends.replies.dead, by reason code",
                inner.dead_replies.clone(),
            );
            registry.register(
                "amends_published",
                "Messages published, by outcome: confirmed, returned, refused, unknown, postponed, waiting (on its way already), unheard (nobody listens to the event)",
                inner.published.clone(),
            );
            registry.register(
                "amends_commits",
                "Commits by outcome: committed, unavailable, unknown, conflict, refused",
                inner.commits.clone(),
            );
            registry.register(
                "amends_commit_batch_size",
                "Replies, starts and operator actions per commit",
                inner.batch.clone(),
            );
            registry.register(
                "amends_commit_seconds",
                "How long a commit took, also one that failed",
                inner.commit_seconds.clone(),
            );
            registry.register(
                "amends_publish_batch_size",
                "Messages per batch given to the broker",
                inner.publish_batch.clone(),
            );
            registry.register(
                "amends_timer_lag_seconds",
                "How late the latest timer of each commit that claimed some was",
                inner.timer_lag.clone(),
            );
            registry.register(
                "amends_saga_seconds",
                "From a saga's start to its end, by end: completed, compensated, abandoned",
                inner.saga_seconds.clone(),
            );
            registry.register("amends_step_seconds", "From a command's first attempt to the reply that settled it, where this process saw both, by outcome: success, failure", inner.step_seconds.clone());
            registry.register("amends_trace_spans", "Spans by what became of them: exported, dropped (the queue was full), failed (the collector did not take them)", inner.spans.clone());
            registry.register(
                "amends_webhook_messages",
                "Attempts to tell a webhook by what became of them: delivered, failed (tried again), parked",
                inner.webhooks.clone(),
            );
            for kind in ["delivered", "failed", "parked"] {
                inner.webhooks.get_or_create(&labelled(kind)).inc_by(0);
            }
            inner.gauges.register(&mut registry);
        }
        Self(Arc::new(inner))
    }
}

impl Metrics {
    /// All counters as OpenMetrics text: the body of `GET /metrics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.count_spans();
        if let Ok(registry) = self.0.registry.lock() {
            // Writing to a string cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        }
        text
    }

    /// What became of an attempt to tell a webhook: `delivered`, `failed` or `parked`.
    pub fn webhook(&self, kind: &'static str) {
        self.0.webhooks.get_or_create(&labelled(kind)).inc();
    }

    /// Whose spans are counted.
    pub(super) fn traces(&self, recorder: Option<Recorder>) {
        if let Ok(mut known) = self.0.recorder.lock() {
            *known = recorder;
        }
    }

    fn count_spans(&self) {
        let Ok(recorder) = self.0.recorder.lock() else { return };
        let Told { exported, dropped, failed } = recorder.as_ref().map(Recorder::told).unwrap_or_default();
        for (kind, count) in [("exported", exported), ("dropped", dropped), ("failed", failed)] {
            let counter = self.0.spans.get_or_create(&labelled(kind));
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }

    /// How many replies went to the dead letters for the reason `code`.
    pub fn dead_replies(&self, code: &str) -> u64 {
        self.0.dead_replies.get_or_create(&labelled(code)).get()
    }

    /// How many commits there were.
    pub fn commits(&self) -> u64 {
        self.0.commits.get_or_create(&labelled("committed")).get()
    }

    /// Kept by whoever counts them.
    pub(super) fn starts_waiting(&self) -> Gauge {
        self.0.starts_waiting.clone()
    }

    pub(super) fn held(&self, participant: &str) {
        self.0.held.get_or_create(&OfParticipant { participant: participant.to_owned() }).inc();
    }

    pub(super) fn bulk_item(&self, outcome: &str) {
        self.0.bulk.get_or_create(&labelled(outcome)).inc();
    }

    pub(super) fn circuit(&self, participant: &str, is_open: bool) {
        self.0.circuits.get_or_create(&OfParticipant { participant: participant.to_owned() }).set(i64::from(is_open));
    }

    pub(super) fn paused(&self, participant: &str, action: Option<&str>, is_paused: bool) {
        let labels = [("participant", participant), ("action", action.unwrap_or_default())];
        let labels: Labels = labels.map(|(name, value)| (name, value.to_owned())).into();
        self.0.pauses.get_or_create(&labels).set(i64::from(is_paused));
    }

    pub(super) fn saga(&self, definition: &str, kind: &str) {
        self.0.sagas.get_or_create(&of_definition(definition, kind)).inc();
    }

    pub(super) fn step(&self, definition: &str, kind: &str) {
        self.0.steps.get_or_create(&of_definition(definition, kind)).inc();
    }

    /// A saga has ended, so long after its start.
    pub(super) fn saga_took(&self, definition: &str, kind: &str, took: TimeDelta) {
        let seconds = took.as_seconds_f64().max(0.0);
        self.0.saga_seconds.get_or_create(&of_definition(definition, kind)).observe(seconds);
    }

    /// The latencies of an action, kept by whoever observes them: no look-up by name per command.
    pub(super) fn step_seconds(&self, saga: &str, participant: &str, action: &str, outcome: &str) -> Histogram {
        let labels = [("saga", saga), ("participant", participant), ("action", action), ("outcome", outcome)];
        let labels: Labels = labels.map(|(name, value)| (name, value.to_owned())).into();
        self.0.step_seconds.get_or_create_owned(&labels)
    }

    /// The latest timer of a commit was so late.
    pub(super) fn timer_lag(&self, lag: TimeDelta) {
        self.0.timer_lag.observe(lag.as_seconds_f64());
    }

    pub(super) fn publishing(&self, batch: usize) {
        self.0.publish_batch.observe(batch as f64);
    }

    pub(super) fn gauges(&self) -> &Gauges {
        &self.0.gauges
    }

    pub(super) fn reply(&self, kind: &str) {
        self.0.replies.get_or_create(&labelled(kind)).inc();
    }

    pub(super) fn dead_reply(&self, code: &str) {
        self.reply("dead");
        self.0.dead_replies.get_or_create(&labelled(code)).inc();
    }

    pub(super) fn published(&self, kind: &str) {
        self.0.published.get_or_create(&labelled(kind)).inc();
    }

    pub(super) fn published_many(&self, kind: &str, count: usize) {
        self.0.published.get_or_create(&labelled(kind)).inc_by(count as u64);
    }

    pub(super) fn commit(&self, kind: &str, batch: usize, took: Duration) {
        self.0.commit_seconds.observe(took.as_secs_f64());
        self.0.commits.get_or_create(&labelled(kind)).inc();
        self.0.batch.observe(batch as f64);
    }
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        registry.register("amends_store_up", "Whether the store answers: 1 or 0", self.store_up.clone());
        registry.register("amends_broker_up", "Whether the broker answers: 1 or 0", self.broker_up.clone());
        registry.register(
            "amends_sagas_live",
            "Sagas that may still change, by state; 10001 stands for more than 10000",
            self.live.clone(),
        );
        registry.register(
            "amends_sagas_stuck",
            "Stuck sagas by definition, direction and reason, among the newest 10000",
            self.stuck.clone(),
        );
        registry.register(
            "amends_outbox_pending",
            "Commands that nobody has answered yet, by participant, among those of the oldest 10000 sagas",
            self.owed.clone(),
        );
        registry.register(
            "amends_outbox_oldest_seconds",
            "Age of the oldest command that nobody has answered yet, by participant",
            self.oldest.clone(),
        );
        registry.register(
            "amends_timer_overdue_seconds",
            "For how long the earliest due time of any saga is past; 0 when none is",
            self.overdue.clone(),
        );
        let (pending, parked) = (self.deliveries_pending.clone(), self.deliveries_parked.clone());
        registry.register("amends_webhook_pending", "What webhooks are still to be told, up to 10001", pending);
        registry.register(
            "amends_webhook_parked",
            "What webhooks did not take and is no longer tried, up to 10001",
            parked,
        );
        registry.register("amends_queue_consumers", "Consumers of a queue", self.consumers.clone());
        registry.register("amends_queue_messages", "Messages ready in a queue", self.messages.clone());
    }
}

fn labelled(kind: &str) -> Labelled {
    Labelled { kind: kind.to_owned() }
}

fn of_definition(saga: &str, kind: &str) -> OfDefinition {
    OfDefinition { saga: saga.to_owned(), kind: kind.to_owned() }
}
