//! A broker that does as the test says and remembers, in order, what was asked of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::broker::{
    Broker, BrokerError, Consumer, Consuming, Delivery, DeliveryTag, Published, QueueStatus, Settlement, Settler,
    Topology,
};
use amends::message::{Envelope, Reply, ReplyBody};
use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc, watch};

/// What was asked of the broker.
#[derive(Clone, Debug)]
pub enum Event {
    /// The participant took a delivery.
    Taken(u64),
    /// The participant published a reply, and this became of it.
    Published(Reply, Published),
    /// The participant settled a delivery.
    Settled(u64, Settlement),
}

pub struct Scripted {
    incoming: mpsc::UnboundedSender<Delivery>,
    outgoing: Mutex<Option<mpsc::UnboundedReceiver<Delivery>>>,
    events: watch::Sender<Vec<Event>>,
    next_tag: Mutex<u64>,
    /// What becomes of the next replies; `Confirmed` when empty.
    outcomes: Mutex<VecDeque<Published>>,
    /// One permit per publish that may be confirmed.
    confirms: Semaphore,
}

impl Scripted {
    pub fn new() -> Arc<Self> {
        let (incoming, outgoing) = mpsc::unbounded_channel();
        Arc::new(Self {
            incoming,
            outgoing: Mutex::new(Some(outgoing)),
            events: watch::Sender::new(Vec::new()),
            next_tag: Mutex::new(0),
            outcomes: Mutex::new(VecDeque::new()),
            confirms: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// Delivers a message; returns its tag.
    pub fn deliver(&self, envelope: Envelope) -> u64 {
        let mut next = self.next_tag.lock().expect("tags");
        *next += 1;
        let tag = DeliveryTag { generation: 1, tag: *next };
        self.incoming.send(Delivery { tag, redelivered: false, envelope: envelope.into() }).expect("a consumer");
        *next
    }

    /// Says what becomes of the next replies.
    pub fn next_outcomes(&self, outcomes: impl IntoIterator<Item = Published>) {
        self.outcomes.lock().expect("outcomes").extend(outcomes);
    }

    /// Holds all confirms back, until [`Scripted::give_confirms`].
    pub fn hold_confirms(&self) {
        self.confirms.forget_permits(self.confirms.available_permits());
    }

    pub fn give_confirms(&self, count: usize) {
        self.confirms.add_permits(count);
    }

    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Waits until the events satisfy `done`, and returns what it makes of them.
    pub async fn until<T>(&self, what: &str, mut done: impl FnMut(&[Event]) -> Option<T>) -> T {
        let mut events = self.events.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = done(&events.borrow_and_update()) {
                    return found;
                }
                events.changed().await.expect("the broker lives");
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), waiting).await {
            Ok(found) => found,
            Err(_) => panic!("in vain: {what}; events: {:#?}", self.events()),
        }
    }

    /// The first confirmed reply, heartbeats aside, to the attempt with this token.
    pub async fn reply(&self, token: &str) -> ReplyBody {
        self.until(&format!("waiting for the reply to {token}"), |events| {
            events.iter().find_map(|event| match event {
                Event::Published(reply, Published::Confirmed)
                    if reply.token == token && reply.body != ReplyBody::InProgress =>
                {
                    Some(reply.body.clone())
                }
                _ => None,
            })
        })
        .await
    }

    pub async fn settlement(&self, tag: u64) -> Settlement {
        self.until(&format!("waiting for the settlement of {tag}"), |events| {
            events.iter().find_map(|event| match event {
                Event::Settled(settled, settlement) if *settled == tag => Some(*settlement),
                _ => None,
            })
        })
        .await
    }

    pub async fn taken(&self, tag: u64) {
        self.until(&format!("waiting for {tag} to be taken"), |events| {
            events.iter().any(|event| matches!(event, Event::Taken(taken) if *taken == tag)).then_some(())
        })
        .await;
    }

    fn log(&self, event: Event) {
        self.events.send_modify(|events| events.push(event));
    }
}

/// A handle, since the trait is implemented on what the participant shares with the test.
#[derive(Clone)]
pub struct Shared(pub Arc<Scripted>);

#[async_trait]
impl Broker for Shared {
    async fn declare(&self, _: &Topology) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let mut published = Vec::new();
        for message in messages {
            self.0.confirms.acquire().await.expect("open").forget();
            let outcome = self.0.outcomes.lock().expect("outcomes").pop_front().unwrap_or(Published::Confirmed);
            self.0.log(Event::Published(Reply::decode(&message).expect("a reply"), outcome.clone()));
            published.push(outcome);
        }
        published
    }

    async fn consume_by(&self, _: &str, _: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        let deliveries = self.0.outgoing.lock().expect("outgoing").take().expect("one consumer");
        Ok(Box::new(ScriptedConsumer { broker: Arc::clone(&self.0), deliveries }))
    }

    async fn queue(&self, _: &str) -> Result<Option<QueueStatus>, BrokerError> {
        Ok(None)
    }

    fn is_volatile(&self) -> bool {
        true
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        Ok("scripted".to_owned())
    }

    async fn close(&self) {}
}

struct ScriptedConsumer {
    broker: Arc<Scripted>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
}

#[async_trait]
impl Consumer for ScriptedConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let mut taken = Vec::new();
        self.deliveries.recv_many(&mut taken, max).await;
        taken.iter().for_each(|delivery| self.broker.log(Event::Taken(delivery.tag.tag)));
        (!taken.is_empty()).then_some(taken)
    }

    fn settler(&self) -> Arc<dyn Settler> {
        Arc::new(Shared(Arc::clone(&self.broker)))
    }
}

#[async_trait]
impl Settler for Shared {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        for (tag, settlement) in deliveries {
            self.0.log(Event::Settled(tag.tag, settlement));
        }
    }
}
