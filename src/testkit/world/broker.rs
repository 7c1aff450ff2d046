//! The broker of a world: the in-process one, whose queues are as the contract asks, behind connections that fail.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::bug::Bug;
use super::evidence::Evidence;
use super::fault::Strike;
use super::sky::{Life, Place, Sky};
use crate::broker::in_process::InProcessBroker;
use crate::broker::topology::{COORDINATOR, REPLIES_QUEUE, REQUESTS_QUEUE, commands_queue};
use crate::broker::{
    Broker, BrokerError, Consumer, Consuming, Delivery, DeliveryTag, Published, QueueStatus, Settlement, Settler,
    Topology,
};
use crate::message::command::COMMANDS_EXCHANGE;
use crate::message::reply::ReplyProblem;
use crate::message::{Command, Envelope, Reply, ReplyBody, TokenKey, TokenKeys};
use crate::payload::Payload;

/// How long a publisher waits for a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// The server. Clones are the same one.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) queues: InProcessBroker,
    pub(super) sky: Sky,
    pub(super) evidence: Evidence,
    pub(super) bug: Option<Bug>,
    links: Arc<Mutex<Vec<Link>>>,
    /// Messages on a long way.
    late: Arc<AtomicU64>,
}

/// A consumer's connection. What it holds is redelivered once it is broken.
#[derive(Clone)]
struct Link {
    life: Life,
    consumer: Arc<Mutex<Option<Box<dyn Consumer>>>>,
    broken: Arc<Notify>,
    /// Counts the times that it was broken.
    generation: Arc<Mutex<u64>>,
}

impl Exchange {
    pub(super) fn new(sky: Sky, evidence: Evidence, bug: Option<Bug>) -> Self {
        Self { queues: InProcessBroker::new(), sky, evidence, bug, links: Arc::default(), late: Arc::default() }
    }

    /// Breaks the connections of those that are meant, and of the dead: what they hold goes back to its queue.
    pub(super) fn disconnect(&self, is_meant: impl Fn(&Life) -> bool) {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for link in links.iter().filter(|link| link.life.is_over() || is_meant(&link.life)) {
            link.break_off();
        }
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|link| !link.life.is_over());
    }

    /// Puts a message where it belongs, without anything going wrong.
    pub(super) async fn put(&self, envelope: Envelope) -> Published {
        let outcome = self.queues.publish(vec![envelope]).await.pop();
        outcome.unwrap_or_else(|| Published::Unknown("the broker said nothing".to_owned()))
    }

    /// The same, after a while.
    fn put_later(&self, envelope: Envelope, from: u64, to: u64) {
        let (exchange, wait) = (self.clone(), self.sky.dice(|dice| dice.between(from, to)));
        self.late.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            exchange.put(envelope).await;
            exchange.late.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Whether nothing is on its way or waits to be taken.
    pub(super) async fn is_idle(&self) -> bool {
        let queues = [REQUESTS_QUEUE, REPLIES_QUEUE, &commands_queue(COORDINATOR)].map(str::to_owned);
        let participants: Vec<String> =
            self.evidence.seen().databases.keys().map(|name| commands_queue(name)).collect();
        for queue in queues.iter().chain(&participants) {
            let status = self.queues.queue(queue).await.ok().flatten();
            if status.is_some_and(|status| status.messages > 0) {
                return false;
            }
        }
        self.late.load(Ordering::Relaxed) == 0
    }

    /// Writes down what is published.
    fn tap(&self, envelope: &Envelope) -> Option<Command> {
        if envelope.exchange != COMMANDS_EXCHANGE {
            return None;
        }
        let command = Command::decode(envelope).ok()?;
        let mut seen = self.evidence.seen();
        seen.commands += 1;
        let id = seen.keys.as_ref().and_then(|keys| keys.verify(&command.token).ok());
        if let Some((id, _)) = id {
            seen.published.insert(id, command.clone());
        }
        Some(command)
    }

    fn plant(&self, command: &Command) {
        let reply = |body| Reply { token: command.token.clone(), routing_key: command.reply_to.clone(), body }.encode();
        match self.bug {
            Some(Bug::VerifiedEarly) if self.sky.dice(|dice| dice.happens(150)) => {
                self.put_later(reply(ReplyBody::Success(Payload::trusted("{}"))), 0, 5);
            }
            Some(Bug::TimeoutIsFailure) if !command.is_compensation && command.attempt > 1 => {
                let problem = ReplyProblem { kind: "timeout".to_owned(), title: "no reply".to_owned(), detail: None };
                let left = (command.deadline - command.sent_at).num_milliseconds().max(20).unsigned_abs();
                self.put_later(reply(ReplyBody::Failure(problem)), left - 10, left - 10);
            }
            _ => {}
        }
    }

    /// A reply to some command, signed with a key of the forger's own.
    pub(super) async fn forge(&self) {
        let command = {
            let seen = self.evidence.seen();
            let known: Vec<&Command> = seen.published.values().collect();
            let at = self.sky.dice(|dice| dice.below(known.len().max(1) as u64));
            known.get(usize::try_from(at).unwrap_or_default()).map(|command| (*command).clone())
        };
        let Some(command) = command else { return };
        let claims = {
            let seen = self.evidence.seen();
            seen.keys.as_ref().and_then(|keys| keys.verify(&command.token).ok())
        };
        let (Some((id, attempt)), Some(forger)) = (claims, forger()) else { return };
        let problem = ReplyProblem { kind: "forged".to_owned(), title: String::new(), detail: None };
        let body = match self.sky.dice(|dice| dice.below(2)) {
            0 => ReplyBody::Success(Payload::trusted(r#"{"forged":true}"#)),
            _ => ReplyBody::Failure(problem),
        };
        let reply = Reply { token: forger.sign(id, attempt), routing_key: command.reply_to.clone(), body };
        self.sky.struck(Strike::ReplyForged);
        self.put(reply.encode()).await;
    }

    /// With a bug: some genuine reply gives what a forged one has said before.
    fn take_over(&self, delivery: &mut Delivery) {
        let is_success = matches!(Reply::decode(&delivery.envelope), Ok(Reply { body: ReplyBody::Success(_), .. }));
        if is_success && self.sky.dice(|dice| dice.happens(100)) {
            Arc::make_mut(&mut delivery.envelope).body = br#"{"forged":true}"#.to_vec();
        }
    }

    /// With a bug: a reply whose token says for itself what it is for is believed.
    fn believe(&self, delivery: &mut Delivery) {
        let token = delivery.envelope.properties.correlation_id.clone().unwrap_or_default();
        let claims = forger().and_then(|forger| forger.verify(&token).ok());
        let seen = self.evidence.seen();
        if let (Some((id, attempt)), Some(keys)) = (claims, &seen.keys) {
            Arc::make_mut(&mut delivery.envelope).properties.correlation_id = Some(keys.sign(id, attempt));
        }
    }
}

fn forger() -> Option<TokenKeys> {
    TokenKeys::new(vec![TokenKey { id: 1, secret: [77; 32] }])
}

impl Link {
    fn break_off(&self) {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        drop(self.consumer.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.broken.notify_waiters();
    }

    fn generation(&self) -> u64 {
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server as one process reaches it.
pub(super) struct Channel {
    pub(super) exchange: Exchange,
    pub(super) life: Life,
}

impl Channel {
    fn sky(&self) -> &Sky {
        &self.exchange.sky
    }

    fn is_cut(&self) -> bool {
        self.sky().is_cut(self.life.place, Place::Broker)
    }

    async fn may_crash(&self) {
        let strike = match self.life.place {
            Place::Coordinator(_) => Strike::Crash,
            Place::Participant(_) => Strike::ParticipantCrash,
            _ => return,
        };
        if self.sky().strikes(strike) {
            self.life.die();
        }
        self.life.go_on().await;
    }

    /// The way there. Whether it was found within the given time.
    async fn reach(&self, patience: Duration) -> bool {
        self.life.go_on().await;
        let waited = tokio::time::timeout(patience, async {
            while self.is_cut() {
                self.sky().change().await;
            }
        });
        let is_there = waited.await.is_ok();
        self.sky().travel().await;
        self.life.go_on().await;
        is_there && !self.is_cut()
    }

    /// One message on its way; `None` where the answer is lost.
    async fn send(&self, envelope: Envelope) -> Published {
        let (sky, exchange) = (self.sky(), &self.exchange);
        let lost = |what: &str| Published::Unknown(what.to_owned());
        let command = exchange.tap(&envelope);
        sky.note(format_args!(
            "{} sends {} {}",
            self.life.place,
            envelope.routing_key,
            envelope.properties.correlation_id.as_deref().unwrap_or_default()
        ));
        if sky.strikes(Strike::MessageLost) {
            return lost("the message was lost");
        }
        if sky.strikes(Strike::MessageRefused) {
            return Published::Refused;
        }
        if sky.strikes(Strike::MessageTwice) {
            exchange.put_later(envelope.clone(), 0, 10_000);
        }
        let is_late = sky.strikes(Strike::MessageLate);
        let is_very_late = !is_late && sky.strikes(Strike::MessageVeryLate);
        let outcome = if is_late || is_very_late {
            let (from, to) = if is_late { (1, 60) } else { (500, 12_000) };
            exchange.put_later(envelope, from, to);
            Published::Confirmed
        } else {
            exchange.put(envelope).await
        };
        if let Some(command) = command {
            exchange.plant(&command);
        }
        if sky.strikes(Strike::ConfirmLost) {
            return lost("the confirm was lost");
        }
        outcome
    }
}

#[async_trait]
impl Broker for Channel {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        if !self.reach(Duration::ZERO).await {
            return Err(unreachable());
        }
        self.exchange.queues.declare(topology).await
    }

    async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        self.may_crash().await;
        if !self.reach(PATIENCE).await {
            return vec![Published::Unknown("there is no connection".to_owned()); messages.len()];
        }
        let mut outcomes = Vec::with_capacity(messages.len());
        for envelope in messages {
            outcomes.push(self.send(envelope).await);
        }
        self.may_crash().await;
        self.sky().travel().await;
        self.life.go_on().await;
        if self.is_cut() {
            outcomes.fill(Published::Unknown("the connection was lost".to_owned()));
        }
        outcomes
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        if !self.reach(Duration::ZERO).await {
            return Err(unreachable());
        }
        let consumer = self.exchange.queues.consume_by(queue, how).await?;
        let link = Link {
            life: self.life.clone(),
            consumer: Arc::new(Mutex::new(Some(consumer))),
            broken: Arc::default(),
            generation: Arc::new(Mutex::new(1)),
        };
        self.exchange.links.lock().unwrap_or_else(PoisonError::into_inner).push(link.clone());
        let (queue, exchange) = (queue.to_owned(), self.exchange.clone());
        let settler =
            Arc::new(LinkSettler { link: link.clone(), sky: exchange.sky.clone(), current: Mutex::default() });
        Ok(Box::new(LinkConsumer { exchange, link, queue, how, settler }))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        if !self.reach(Duration::ZERO).await {
            return Err(unreachable());
        }
        self.exchange.queues.queue(queue).await
    }

    fn is_volatile(&self) -> bool {
        false
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        Ok("simulated".to_owned())
    }

    async fn close(&self) {}
}

fn unreachable() -> BrokerError {
    BrokerError::Unreachable { address: "simulated".to_owned(), problem: "it is cut off".to_owned() }
}

struct LinkConsumer {
    exchange: Exchange,
    link: Link,
    queue: String,
    how: Consuming,
    settler: Arc<LinkSettler>,
}

impl LinkConsumer {
    /// The consumer behind the connection, which is made anew if need be.
    async fn connected(&self) -> Box<dyn Consumer> {
        loop {
            self.link.life.go_on().await;
            let found = self.link.consumer.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(consumer) = found {
                return consumer;
            }
            while self.exchange.sky.is_cut(self.link.life.place, Place::Broker) {
                self.exchange.sky.change().await;
            }
            self.exchange.sky.travel().await;
            if let Ok(consumer) = self.exchange.queues.consume_by(&self.queue, self.how).await {
                return consumer;
            }
            self.exchange.sky.sleep(100, 500).await;
        }
    }
}

#[async_trait]
impl Consumer for LinkConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        loop {
            let broken = self.link.broken.clone();
            let generation = self.link.generation();
            let consumer = self.connected().await;
            if self.link.generation() != generation {
                continue;
            }
            // Put back when this future is dropped, too, so that what it holds stays held.
            let mut held = Held { consumer: Some(consumer), link: self.link.clone(), generation };
            let Some(consumer) = held.consumer.as_mut() else { continue };
            self.settler.use_now(consumer.settler(), generation);
            let deliveries = tokio::select! {
                biased;
                () = broken.notified() => continue,
                deliveries = consumer.next(max) => deliveries,
            };
            let mut deliveries = deliveries?;
            drop(held);
            self.exchange.sky.look(self.link.life.place);
            for delivery in &mut deliveries {
                delivery.tag.generation = generation;
                if self.exchange.bug == Some(Bug::TokenIgnored) && self.queue == REPLIES_QUEUE {
                    self.exchange.believe(delivery);
                }
                if self.exchange.bug == Some(Bug::OutputForged) && self.queue == REPLIES_QUEUE {
                    self.exchange.take_over(delivery);
                }
                self.exchange.sky.note(format_args!(
                    "{} gets {} {}",
                    self.link.life.place,
                    delivery.envelope.routing_key,
                    delivery.envelope.properties.correlation_id.as_deref().unwrap_or_default()
                ));
            }
            if self.exchange.bug == Some(Bug::AcknowledgeFirst) {
                let acks = deliveries.iter().map(|delivery| (delivery.tag, Settlement::Ack)).collect();
                self.settler.settle(acks).await;
            }
            if self.exchange.sky.strikes(Strike::Redelivered) {
                self.link.break_off();
            }
            return Some(deliveries);
        }
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }
}

impl Drop for LinkConsumer {
    fn drop(&mut self) {
        self.link.break_off();
    }
}

/// A consumer that is being asked.
struct Held {
    consumer: Option<Box<dyn Consumer>>,
    link: Link,
    generation: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.link.generation() == self.generation {
            *self.link.consumer.lock().unwrap_or_else(PoisonError::into_inner) = self.consumer.take();
        }
    }
}

struct LinkSettler {
    link: Link,
    sky: Sky,
    current: Mutex<Option<(Arc<dyn Settler>, u64)>>,
}

impl LinkSettler {
    fn use_now(&self, settler: Arc<dyn Settler>, generation: u64) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((settler, generation));
    }
}

#[async_trait]
impl Settler for LinkSettler {
    async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
        self.link.life.go_on().await;
        self.sky.travel().await;
        self.link.life.go_on().await;
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((settler, generation)) = current.filter(|(_, generation)| *generation == self.link.generation())
        else {
            return;
        };
        let here: Vec<_> = deliveries.into_iter().filter(|(tag, _)| tag.generation == generation).collect();
        for (_, settlement) in here.iter().filter(|(_, settlement)| *settlement != Settlement::Ack) {
            self.sky.note(format_args!("{} answers {settlement:?}", self.link.life.place));
        }
        settler.settle(here).await;
    }

    fn holds(&self, tag: DeliveryTag) -> bool {
        tag.generation == self.link.generation()
    }

    fn take_more(&self, more: bool) {
        if !more {
            self.sky.note(format_args!("{} gives back what it was delivered", self.link.life.place));
            self.link.break_off();
        }
    }
}
