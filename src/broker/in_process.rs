//! A broker inside the process: for the embedded mode and tests. Routes, returns, redelivers and dead-letters as the
//! contract asks of any broker, and forgets everything when the process ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::str::Split;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::broker::browse::{Browsed, Browser, Death};
use crate::broker::topology::{DELIVERY_LIMIT, ExchangeKind, exchange_kind};
use crate::broker::{
    Broker, BrokerError, Consumer, Consuming, Delivery, DeliveryTag, Published, QueueStatus, Settlement, Settler,
    Topology,
};
use crate::message::{Envelope, HeaderValue};

/// The broker. Clones are handles to the same one.
#[derive(Clone, Default)]
pub struct InProcessBroker {
    state: Arc<Mutex<State>>,
    closed: CancellationToken,
}

#[derive(Default)]
struct State {
    queues: HashMap<Arc<str>, Queue>,
    bindings: Vec<Binding>,
    last_tag: u64,
}

#[derive(PartialEq, Eq)]
struct Binding {
    exchange: String,
    /// The key or pattern.
    key: String,
    queue: Arc<str>,
}

#[derive(Default)]
struct Queue {
    /// By place.
    ready: VecDeque<Message>,
    last_place: u64,
    /// Exchange and routing key of what is rejected.
    dead_letter: Option<(String, String)>,
    consumers: u32,
    /// Wakes one consumer, which wakes the next if it leaves something: one wake-up per batch, not per message.
    arrived: Arc<Notify>,
}

struct Message {
    /// Its place in the queue, which it keeps when it goes back.
    place: u64,
    envelope: Arc<Envelope>,
    deliveries: i64,
}

impl InProcessBroker {
    /// A broker without queues.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; were it so all the same, the queues would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn route(&self, envelope: &Envelope) -> Vec<Arc<str>> {
        if envelope.exchange.is_empty() {
            let found = self.queues.get_key_value(&*envelope.routing_key);
            return found.map(|(name, _)| name.clone()).into_iter().collect();
        }
        let is_topic = exchange_kind(&envelope.exchange) == Some(ExchangeKind::Topic);
        let is_bound = |binding: &&Binding| {
            binding.exchange == envelope.exchange
                && if is_topic {
                    matches(binding.key.split('.'), envelope.routing_key.split('.'))
                } else {
                    binding.key == envelope.routing_key
                }
        };
        let mut queues: Vec<Arc<str>> =
            self.bindings.iter().filter(is_bound).map(|binding| binding.queue.clone()).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }

    fn publish(&mut self, envelope: Envelope) -> Published {
        if exchange_kind(&envelope.exchange).is_none() && !envelope.exchange.is_empty() {
            // As RabbitMQ's channel error, which leaves open what became of the batch.
            return Published::Unknown(format!("there is no exchange `{}`", envelope.exchange));
        }
        let mut queues = self.route(&envelope);
        let Some(last) = queues.pop() else {
            return if envelope.mandatory {
                Published::Returned("312 NO_ROUTE".to_owned())
            } else {
                Published::Confirmed
            };
        };
        let envelope = Arc::new(envelope);
        for name in queues {
            self.enqueue(&name, envelope.clone());
        }
        self.enqueue(&last, envelope);
        Published::Confirmed
    }

    fn enqueue(&mut self, name: &str, envelope: Arc<Envelope>) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.last_place += 1;
            queue.ready.push_back(Message { place: queue.last_place, envelope, deliveries: 0 });
            queue.arrived.notify_one();
        }
    }

    fn bury(&mut self, queue: &str, reason: &'static str, envelope: Arc<Envelope>) {
        if let Some((exchange, key)) = self.queues.get(queue).and_then(|queue| queue.dead_letter.clone()) {
            let mut envelope = Arc::unwrap_or_clone(envelope);
            let came_by = std::mem::replace(&mut envelope.exchange, exchange);
            let came_with = std::mem::replace(&mut envelope.routing_key, key);
            let note = [
                (DIED_IN, queue.to_owned().into()),
                (DIED_OF, reason.into()),
                (CAME_BY, came_by.into()),
                (CAME_WITH, came_with.into()),
            ];
            envelope.properties.headers.extend(note.map(|(name, text): (_, HeaderValue)| (name.into(), text)));
            envelope.mandatory = false;
            self.publish(envelope);
        }
    }

    /// Puts messages back where they were, before all that came later.
    fn requeue(&mut self, name: &str, messages: Vec<Message>) {
        let (again, worn): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.deliveries <= DELIVERY_LIMIT);
        for message in worn {
            self.bury(name, "delivery_limit", message.envelope);
        }
        if let Some(queue) = self.queues.get_mut(name) {
            for message in again {
                let at = queue.ready.partition_point(|other| other.place < message.place);
                queue.ready.insert(at, message);
            }
            queue.arrived.notify_one();
        }
    }
}

/// Whether the words of a routing key match those of a binding: `*` is one word, `#` any number of them.
fn matches<'a>(pattern: Split<'a, char>, mut words: Split<'a, char>) -> bool {
    let mut rest = pattern.clone();
    match rest.next() {
        None => words.next().is_none(),
        Some("#") => matches(rest, words.clone()) || (words.next().is_some() && matches(pattern, words)),
        Some(first) => words.next().is_some_and(|word| first == "*" || first == word) && matches(rest, words),
    }
}

#[async_trait]
impl Broker for InProcessBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        let mut state = self.state();
        for queue in &topology.queues {
            let known = state.queues.entry(queue.name.as_str().into());
            let dead_letter = queue.dead_letter().map(|(exchange, key)| (exchange, key.to_owned()));
            let known = known.or_insert_with(|| Queue { dead_letter: dead_letter.clone(), ..Queue::default() });
            if known.dead_letter != dead_letter {
                return Err(BrokerError::Mismatch {
                    what: format!("queue `{}`", queue.name),
                    problem: format!("dead letters: asked for {dead_letter:?}, found {:?}", known.dead_letter),
                });
            }
            for (exchange, key) in &queue.bindings {
                let binding =
                    Binding { exchange: exchange.clone(), key: key.clone(), queue: queue.name.as_str().into() };
                if !state.bindings.contains(&binding) {
                    state.bindings.push(binding);
                }
            }
        }
        Ok(())
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        if self.closed.is_cancelled() {
            return vec![Published::Unknown("the broker is closed".to_owned()); messages.len()];
        }
        let mut state = self.state();
        messages.into_iter().map(|envelope| state.publish(envelope)).collect()
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        let mut state = self.state();
        let Some(found) = state.queues.get_mut(queue) else {
            return Err(BrokerError::Refused(format!("there is no queue `{queue}`")));
        };
        found.consumers += 1;
        let arrived = found.arrived.clone();
        let held =
            Held { broker: self.clone(), queue: queue.to_owned(), unsettled: Mutex::default(), freed: Notify::new() };
        Ok(Box::new(InProcessConsumer { held: Arc::new(held), arrived, prefetch: usize::from(how.prefetch.max(1)) }))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        Ok(self.state().queues.get(queue).map(|queue| QueueStatus {
            messages: u32::try_from(queue.ready.len()).unwrap_or(u32::MAX),
            consumers: queue.consumers,
        }))
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        if !self.state().queues.contains_key(queue) {
            return Err(BrokerError::Refused(format!("there is no queue `{queue}`")));
        }
        let (broker, queue) = (self.clone(), queue.to_owned());
        Ok(Box::new(InProcessBrowser { broker, queue, seen: Vec::new() }))
    }

    fn is_volatile(&self) -> bool {
        true
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        Ok("in-process".to_owned())
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

/// Where, of what and as what a message died: what RabbitMQ writes, and the routing key, which it has elsewhere.
const DIED_IN: &str = "x-first-death-queue";
const DIED_OF: &str = "x-first-death-reason";
const CAME_BY: &str = "x-first-death-exchange";
const CAME_WITH: &str = "x-first-death-routing-key";

/// A look into a queue.
struct InProcessBrowser {
    broker: InProcessBroker,
    queue: String,
    seen: Vec<Message>,
}

#[async_trait]
impl Browser for InProcessBrowser {
    async fn next(&mut self) -> Result<Option<Browsed>, BrokerError> {
        let found = self.broker.state().queues.get_mut(&*self.queue).and_then(|queue| queue.ready.pop_front());
        let Some(message) = found else { return Ok(None) };
        let envelope = (*message.envelope).clone();
        let text = |name: &str| envelope.properties.text(name).unwrap_or_default().to_owned();
        let death = Death {
            queue: text(DIED_IN),
            reason: text(DIED_OF),
            count: 1,
            exchange: text(CAME_BY),
            routing_key: text(CAME_WITH),
        };
        let tag = message.place;
        self.seen.push(message);
        let deaths = if death.queue.is_empty() { Vec::new() } else { vec![death] };
        Ok(Some(Browsed { tag, envelope, deaths }))
    }

    async fn remove(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.seen.retain(|message| message.place != tag);
        Ok(())
    }

    async fn end(self: Box<Self>) -> Result<(), BrokerError> {
        Ok(())
    }
}

impl Drop for InProcessBrowser {
    fn drop(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        if !seen.is_empty() {
            self.broker.state().requeue(&self.queue, seen);
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
    unsettled: Mutex<BTreeMap<u64, Message>>,
    freed: Notify,
}

impl Held {
    fn unsettled(&self) -> MutexGuard<'_, BTreeMap<u64, Message>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As many messages as there are and this consumer may have, but no more than its share among all consumers.
    fn take(&self, max: usize) -> Vec<Delivery> {
        let mut state = self.broker.state();
        let mut tag = state.last_tag;
        let Some(queue) = state.queues.get_mut(&*self.queue) else { return Vec::new() };
        let share = queue.ready.len().div_ceil(usize::try_from(queue.consumers).unwrap_or(usize::MAX).max(1));
        let mut unsettled = self.unsettled();
        let deliveries = queue
            .ready
            .drain(..share.min(max))
            .map(|mut message| {
                tag += 1;
                let redelivered = message.deliveries > 0;
                message.deliveries += 1;
                let envelope = message.envelope.clone();
                unsettled.insert(tag, message);
                Delivery { tag: DeliveryTag { generation: 1, tag }, redelivered, envelope }
            })
            .collect();
        if !queue.ready.is_empty() {
            queue.arrived.notify_one();
        }
        state.last_tag = tag;
        deliveries
    }
}

#[async_trait]
impl Consumer for InProcessConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let Self { held, arrived, prefetch } = self;
        while !held.broker.closed.is_cancelled() {
            let free = prefetch.saturating_sub(held.unsettled().len());
            if free > 0 {
                let deliveries = held.take(free.min(max.max(1)));
                if !deliveries.is_empty() {
                    return Some(deliveries);
                }
            }
            let more = if free > 0 { &*arrived } else { &held.freed };
            tokio::select! {
                biased;
                () = more.notified() => {}
                () = held.broker.closed.cancelled() => {}
            }
        }
        None
    }

    fn settler(&self) -> Arc<dyn Settler> {
        Arc::new(InProcessSettler(self.held.clone()))
    }
}

impl Drop for InProcessConsumer {
    fn drop(&mut self) {
        let mut state = self.held.broker.state();
        let unsettled: Vec<Message> = std::mem::take(&mut *self.held.unsettled()).into_values().collect();
        if let Some(queue) = state.queues.get_mut(&*self.held.queue) {
            queue.consumers = queue.consumers.saturating_sub(1);
        }
        state.requeue(&self.held.queue, unsettled);
    }
}

struct InProcessSettler(Arc<Held>);

#[async_trait]
impl Settler for InProcessSettler {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        let mut state = self.0.broker.state();
        let mut unsettled = self.0.unsettled();
        let mut again = Vec::new();
        for (tag, settlement) in deliveries {
            let Some(message) = unsettled.remove(&tag.tag) else { continue };
            match settlement {
                Settlement::Ack => {}
                Settlement::Reject => state.bury(&self.0.queue, "rejected", message.envelope),
                Settlement::Requeue => again.push(message),
            }
        }
        if !again.is_empty() {
            state.requeue(&self.0.queue, again);
        }
        self.0.freed.notify_one();
    }
}
