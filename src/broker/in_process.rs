//! A broker inside the process: for the embedded mode and tests. Routes, returns, redelivers and dead-letters as the
//! contract asks of any broker, and forgets everything when the process ends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::broker::topology::{DEAD_EXCHANGE, DELIVERY_LIMIT};
use crate::broker::{
    Broker, BrokerError, Consumer, Delivery, DeliveryTag, Published, QueueStatus, Settlement, Settler, Topology,
};
use crate::message::Envelope;

/// The broker. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct InProcessBroker(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    queues: HashMap<String, Queue>,
    /// `(exchange, pattern, queue)`.
    bindings: Vec<(String, Vec<String>, String)>,
    last_tag: u64,
    is_closed: bool,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Message>,
    has_dead_letters: bool,
    consumers: u32,
    arrived: Arc<Notify>,
}

struct Message {
    envelope: Envelope,
    deliveries: i64,
}

impl InProcessBroker {
    /// A broker without queues.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it so all the same, the queues would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn route(&self, envelope: &Envelope) -> Vec<String> {
        if envelope.exchange.is_empty() {
            let is_there = self.queues.contains_key(&envelope.routing_key);
            return is_there.then(|| envelope.routing_key.clone()).into_iter().collect();
        }
        let words: Vec<&str> = envelope.routing_key.split('.').collect();
        let mut queues: Vec<String> = self
            .bindings
            .iter()
            .filter(|(exchange, pattern, _)| *exchange == envelope.exchange && matches(pattern, &words))
            .map(|(_, _, queue)| queue.clone())
            .collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    fn publish(&mut self, envelope: Envelope) -> Published {
        if self.is_closed {
            return Published::Unknown("the broker is closed".to_owned());
        }
        let queues = self.route(&envelope);
        if queues.is_empty() && envelope.mandatory {
            return Published::Returned("NO_ROUTE".to_owned());
        }
        for name in queues {
            if let Some(queue) = self.queues.get_mut(&name) {
                queue.ready.push_back(Message { envelope: envelope.clone(), deliveries: 0 });
                queue.arrived.notify_one();
            }
        }
        Published::Confirmed
    }

    fn bury(&mut self, queue: &str, mut envelope: Envelope) {
        if self.queues.get(queue).is_some_and(|queue| queue.has_dead_letters) {
            envelope.exchange = DEAD_EXCHANGE.to_owned();
            envelope.routing_key = queue.to_owned();
            envelope.mandatory = false;
            self.publish(envelope);
        }
    }

    fn settle(&mut self, queue: &str, message: Message, settlement: Settlement) {
        match settlement {
            Settlement::Ack => {}
            Settlement::Requeue if message.deliveries < DELIVERY_LIMIT => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.ready.push_front(message);
                    queue.arrived.notify_one();
                }
            }
            Settlement::Reject | Settlement::Requeue => self.bury(queue, message.envelope),
        }
    }
}

/// Whether a routing key matches a binding: `*` is one word, `#` any number of them.
fn matches(pattern: &[String], words: &[&str]) -> bool {
    match (pattern.split_first(), words.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "#" => {
            matches(rest, words) || words.split_first().is_some_and(|(_, later)| matches(pattern, later))
        }
        (Some((first, rest)), Some((word, later))) => (first == "*" || first == word) && matches(rest, later),
        _ => false,
    }
}

#[async_trait]
impl Broker for InProcessBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        let mut state = self.state();
        for queue in &topology.queues {
            state.queues.entry(queue.name.clone()).or_default().has_dead_letters = queue.dead_letters;
            for (exchange, key) in &queue.bindings {
                let pattern = key.split('.').map(str::to_owned).collect();
                let binding = (exchange.clone(), pattern, queue.name.clone());
                if !state.bindings.contains(&binding) {
                    state.bindings.push(binding);
                }
            }
        }
        Ok(())
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let mut state = self.state();
        messages.into_iter().map(|envelope| state.publish(envelope)).collect()
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>, BrokerError> {
        let mut state = self.state();
        let Some(found) = state.queues.get_mut(queue) else {
            return Err(BrokerError::Refused(format!("there is no queue `{queue}`")));
        };
        found.consumers += 1;
        let arrived = found.arrived.clone();
        let held =
            Held { broker: self.clone(), queue: queue.to_owned(), unsettled: Mutex::default(), freed: Notify::new() };
        Ok(Box::new(InProcessConsumer { held: Arc::new(held), arrived, prefetch: usize::from(prefetch.max(1)) }))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        Ok(self.state().queues.get(queue).map(|queue| QueueStatus {
            messages: u32::try_from(queue.ready.len()).unwrap_or(u32::MAX),
            consumers: queue.consumers,
        }))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        Ok("in-process".to_owned())
    }

    async fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        for queue in state.queues.values() {
            queue.arrived.notify_waiters();
            queue.arrived.notify_one();
        }
    }
}

struct InProcessConsumer {
    held: Arc<Held>,
    arrived: Arc<Notify>,
    prefetch: usize,
}

/// What a consumer was given and has not settled.
struct Held {
    broker: InProcessBroker,
    queue: String,
    unsettled: Mutex<HashMap<u64, Message>>,
    freed: Notify,
}

impl Held {
    fn unsettled(&self) -> MutexGuard<'_, HashMap<u64, Message>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As many messages as there are and the prefetch allows; `None` once the broker is closed.
    fn take(&self, max: usize) -> Option<Vec<Delivery>> {
        let mut state = self.broker.state();
        if state.is_closed {
            return None;
        }
        let mut unsettled = self.unsettled();
        let mut tag = state.last_tag;
        let Some(queue) = state.queues.get_mut(&self.queue) else { return Some(Vec::new()) };
        let count = queue.ready.len().min(max);
        let deliveries = queue
            .ready
            .drain(..count)
            .map(|mut message| {
                tag += 1;
                let redelivered = message.deliveries > 0;
                message.deliveries += 1;
                let envelope = message.envelope.clone();
                unsettled.insert(tag, message);
                Delivery { tag: DeliveryTag { generation: 0, tag }, redelivered, envelope }
            })
            .collect();
        if !queue.ready.is_empty() {
            // For the next consumer in line.
            queue.arrived.notify_one();
        }
        state.last_tag = tag;
        Some(deliveries)
    }
}

#[async_trait]
impl Consumer for InProcessConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        loop {
            let free = self.prefetch.saturating_sub(self.held.unsettled().len());
            if free == 0 {
                self.held.freed.notified().await;
                continue;
            }
            let deliveries = self.held.take(free.min(max))?;
            if !deliveries.is_empty() {
                return Some(deliveries);
            }
            self.arrived.notified().await;
        }
    }

    fn settler(&self) -> Arc<dyn Settler> {
        Arc::new(InProcessSettler(self.held.clone()))
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        let mut state = self.held.broker.state();
        let mut unsettled: Vec<(u64, Message)> = self.held.unsettled().drain().collect();
        // Back in front, in their old order.
        unsettled.sort_unstable_by_key(|(tag, _)| std::cmp::Reverse(*tag));
        for (_, message) in unsettled {
            state.settle(&self.held.queue, message, Settlement::Requeue);
        }
        if let Some(queue) = state.queues.get_mut(&self.held.queue) {
            queue.consumers = queue.consumers.saturating_sub(1);
            queue.arrived.notify_one();
        }
    }
}

struct InProcessSettler(Arc<Held>);

#[async_trait]
impl Settler for InProcessSettler {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        let mut state = self.0.broker.state();
        let mut unsettled = self.0.unsettled();
        for (tag, settlement) in deliveries {
            if let Some(message) = unsettled.remove(&tag.tag) {
                state.settle(&self.0.queue, message, settlement);
            }
        }
        self.0.freed.notify_one();
    }
}
