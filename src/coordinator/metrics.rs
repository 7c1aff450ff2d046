//! What the coordinator counts.

use std::sync::{Arc, Mutex};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

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
    circuits: Family<OfParticipant, Gauge>,
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
            circuits: Family::default(),
        };
        if let Ok(mut registry) = inner.registry.lock() {
            registry.register("amends_sagas", "Sagas by what happened to them: started, compensating, completed, compensated, stuck, unstuck, abandoned, paused, resumed", inner.sagas.clone());
            registry.register("amends_steps", "Steps by what happened to them: verified, failed, unknown, skipped, compensated, timed-out, retry-asked, contradiction", inner.steps.clone());
            registry.register(
                "amends_commands_held_back",
                "Commands held back since their participant takes no more for now, each time it was their turn",
                inner.held.clone(),
            );
            registry.register(
                "amends_participant_circuit_open",
                "1 while a participant does nothing but fail, and is only sent probes",
                inner.circuits.clone(),
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
        }
        Self(Arc::new(inner))
    }
}

impl Metrics {
    /// All counters as OpenMetrics text: the body of `GET /metrics`.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Ok(registry) = self.0.registry.lock() {
            // Writing to a string cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        }
        text
    }

    /// How many replies went to the dead letters for the reason `code`.
    pub fn dead_replies(&self, code: &str) -> u64 {
        self.0.dead_replies.get_or_create(&labelled(code)).get()
    }

    /// How many commits there were.
    pub fn commits(&self) -> u64 {
        self.0.commits.get_or_create(&labelled("committed")).get()
    }

    pub(super) fn held(&self, participant: &str) {
        self.0.held.get_or_create(&OfParticipant { participant: participant.to_owned() }).inc();
    }

    pub(super) fn circuit(&self, participant: &str, is_open: bool) {
        self.0.circuits.get_or_create(&OfParticipant { participant: participant.to_owned() }).set(i64::from(is_open));
    }

    pub(super) fn saga(&self, definition: &str, kind: &str) {
        self.0.sagas.get_or_create(&of_definition(definition, kind)).inc();
    }

    pub(super) fn step(&self, definition: &str, kind: &str) {
        self.0.steps.get_or_create(&of_definition(definition, kind)).inc();
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

    pub(super) fn commit(&self, kind: &str, batch: usize) {
        self.0.commits.get_or_create(&labelled(kind)).inc();
        self.0.batch.observe(batch as f64);
    }
}

fn labelled(kind: &str) -> Labelled {
    Labelled { kind: kind.to_owned() }
}

fn of_definition(saga: &str, kind: &str) -> OfDefinition {
    OfDefinition { saga: saga.to_owned(), kind: kind.to_owned() }
}
