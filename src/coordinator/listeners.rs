//! Which lifecycle events anybody listens to. Most deployments bind a queue to few of them or none, and a message that
//! goes nowhere costs the broker nearly as much as one that arrives: so an event that no queue took is not published
//! again until a second has passed.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::time::Instant;

/// How long an event that nobody listens to is left out. Whoever binds a queue hears of everything after so long.
const UNHEARD: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<RwLock<Known>>);

/// By definition and event, since when nobody has listened.
type Known = HashMap<String, HashMap<String, Instant>>;

impl Listeners {
    /// Whether somebody may listen to this event of this definition's sagas.
    pub(super) fn may_hear(&self, definition: &str, event: &str) -> bool {
        let Ok(known) = self.0.read() else { return true };
        let since = known.get(definition).and_then(|events| events.get(event));
        since.is_none_or(|since| since.elapsed() >= UNHEARD)
    }

    /// A message with this routing key was taken by a queue, or by none.
    pub(super) fn learn(&self, routing_key: &str, is_heard: bool) {
        let Some((definition, event)) = routing_key.rsplit_once('.') else { return };
        if is_heard && self.0.read().is_ok_and(|known| !known.get(definition).is_some_and(|e| e.contains_key(event))) {
            return;
        }
        let Ok(mut known) = self.0.write() else { return };
        let events = known.entry(definition.to_owned()).or_default();
        if is_heard {
            events.remove(event);
        } else {
            events.insert(event.to_owned(), Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_left_out_once_nobody_took_it_until_somebody_does() {
        let listeners = Listeners::default();
        assert!(listeners.may_hear("order", "started"));
        listeners.learn("order.started", false);
        assert!(!listeners.may_hear("order", "started"));
        assert!(listeners.may_hear("order", "stuck") && listeners.may_hear("refund", "started"));
        listeners.learn("order.started", true);
        assert!(listeners.may_hear("order", "started"));
    }
}
