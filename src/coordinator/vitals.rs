//! What metrics tell of store, broker and queues. Looked up when metrics are asked for, so that nothing is done while
//! nobody watches.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::topology;
use crate::clock::Timestamp;
use crate::coordinator::Coordinator;
use crate::coordinator::metrics::{Gauges, Labels};
use crate::coordinator::overview::MOST;
use crate::saga::Direction;
use crate::store::overview::is_live;
use crate::store::{Store, StoreError};

/// How long store and broker may take each, of the ten seconds that Prometheus waits by default.
const PATIENCE: Duration = Duration::from_secs(3);
/// For so long what was looked up counts as new: whoever asks more often costs the store nothing.
const FRESH: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Looks how store, broker and queues do, for [`Coordinator::metrics`]. What does not answer in time counts as down, and
    /// what only it could tell is left out.
    pub async fn look_at_vitals(&self) {
        let gauges = self.metrics().gauges();
        let mut looked = gauges.looked.lock().await;
        if looked.is_some_and(|looked| looked.elapsed() < FRESH) {
            return;
        }
        let store = tokio::time::timeout(PATIENCE, look_at_store(&**self.store(), gauges));
        let broker = tokio::time::timeout(PATIENCE, self.look_at_broker(gauges));
        let (store, broker) = tokio::join!(store, broker);
        let is_up = matches!(store, Ok(Ok(())));
        gauges.store_up.set(i64::from(is_up));
        if !is_up {
            gauges.forget_sagas();
        }
        let is_up = broker.unwrap_or_default();
        gauges.broker_up.set(i64::from(is_up));
        if !is_up {
            gauges.consumers.clear();
            gauges.messages.clear();
        }
        *looked = Some(Instant::now());
    }

    async fn look_at_broker(&self, gauges: &Gauges) -> bool {
        if self.broker().describe().await.is_err() {
            return false;
        }
        let participants = self.0.registry.participants();
        let queues = participants.iter().map(|participant| format!("{participant}.commands"));
        for queue in queues.chain([topology::REPLIES_QUEUE.to_owned()]) {
            for queue in [format!("{queue}.dead"), queue] {
                let labels = labels([("queue", &queue)]);
                match self.broker().queue(&queue).await {
                    Ok(Some(status)) => {
                        gauges.consumers.get_or_create(&labels).set(i64::from(status.consumers));
                        gauges.messages.get_or_create(&labels).set(i64::from(status.messages));
                    }
                    Ok(None) => {
                        gauges.consumers.remove(&labels);
                        gauges.messages.remove(&labels);
                    }
                    Err(_) => return false,
                }
            }
        }
        true
    }
}

async fn look_at_store(store: &dyn Store, gauges: &Gauges) -> Result<(), StoreError> {
    let now = store.health().await?.now;
    let (states, groups, services, due) =
        tokio::try_join!(store.state_counts(MOST), store.stuck_groups(MOST), store.services(MOST), store.next_due())?;
    // What is no longer there must not go on being told.
    gauges.forget_sagas();
    for state in states.iter().filter(|state| is_live(&state.state)) {
        gauges.live.get_or_create(&labels([("state", &state.state)])).set(number(state.count));
    }
    // Several errors may have one reason; set, not added to, since two may look at the same time.
    let mut stuck: BTreeMap<Labels, i64> = BTreeMap::new();
    for group in groups {
        let (direction, reason) = (group.direction.as_str(), reason(group.direction, &group.error));
        let labels = labels([("saga", &group.definition.name), ("direction", direction), ("reason", reason)]);
        *stuck.entry(labels).or_default() += number(group.count);
    }
    for (labels, count) in stuck {
        gauges.stuck.get_or_create(&labels).set(count);
    }
    for service in services {
        let labels = labels([("participant", &service.participant)]);
        gauges.owed.get_or_create(&labels).set(number(service.waiting));
        let oldest = service.oldest.map_or(0.0, |oldest| age(oldest, now));
        gauges.oldest.get_or_create(&labels).set(oldest);
    }
    gauges.overdue.set(due.map_or(0.0, |due| age(due, now)));
    if let Some(webhooks) = store.webhooks() {
        let counts = webhooks.delivery_counts(MOST).await?;
        gauges.deliveries_pending.set(number(counts.pending));
        gauges.deliveries_parked.set(number(counts.parked));
    }
    Ok(())
}

impl Gauges {
    fn forget_sagas(&self) {
        self.live.clear();
        self.stuck.clear();
        self.owed.clear();
        self.oldest.clear();
    }
}

/// Why a saga is stuck, in one of few words: what participants call their errors is theirs, and without bounds.
fn reason(direction: Direction, error: &str) -> &'static str {
    match (direction, error) {
        (_, "timeout") => "unanswered",
        (_, "expression-error") => "expression",
        (_, "unknown-action") => "unknown-action",
        (_, "tombstoned") => "tombstoned",
        // What became of it, or why it could not be started: see `children`.
        (_, error) if error.starts_with("sub-saga-") => "sub-saga",
        (_, "definition-unknown" | "version-unknown" | "version-deprecated" | "input-invalid") => "sub-saga",
        (Direction::Action, _) => "refused",
        (Direction::Compensation, _) => "compensation-refused",
    }
}

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn age(since: Timestamp, now: Timestamp) -> f64 {
    now.signed_duration_since(since).as_seconds_f64().max(0.0)
}
