//! A broker as one namespace sees it: under the contract's names are the namespace's own exchanges and queues, and there
//! are no others.

use std::sync::Arc;

use async_trait::async_trait;

use crate::broker::browse::{Browsed, Browser};
use crate::broker::{Broker, BrokerError, Consumer, Consuming, Delivery, Published, QueueStatus, Settler, Topology};
use crate::id::Namespace;
use crate::message::Envelope;

/// `broker` as `namespace` sees it. The default namespace sees it as it is.
pub fn within(broker: Arc<dyn Broker>, namespace: &Namespace) -> Arc<dyn Broker> {
    beside(broker, namespace, &[])
}

/// The same in a server that has `others`, too: then the default namespace, whose names carry nothing that tells them
/// apart, sends nothing to names that are theirs.
pub fn beside(broker: Arc<dyn Broker>, namespace: &Namespace, others: &[Namespace]) -> Arc<dyn Broker> {
    let prefix: Arc<str> = namespace.prefix("").into();
    let of_another = |other: &&Namespace| !other.is_default() && *other != namespace;
    let others: Vec<String> = others.iter().filter(of_another).map(|other| other.prefix("")).collect();
    if namespace.is_default() && others.is_empty() {
        return broker;
    }
    Arc::new(NamespacedBroker { broker, namespace: namespace.clone(), prefix, others })
}

struct NamespacedBroker {
    broker: Arc<dyn Broker>,
    namespace: Namespace,
    /// What the names of its exchanges and queues begin with.
    prefix: Arc<str>,
    /// What those of the others begin with.
    others: Vec<String>,
}

/// The queues of the default namespace's participant that is called like the namespace with this prefix: the only names
/// there that begin like the namespace's, which has none of these.
const LIKE_A_PARTICIPANT: [&str; 2] = ["commands", "commands.dead"];

fn is_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| !LIKE_A_PARTICIPANT.contains(&rest))
}

impl NamespacedBroker {
    /// Whether an answer to this queue stays within the namespace: one of its own, or one that the broker has named for
    /// the connection that asked. Else a caller could have the coordinator write into another namespace's queues.
    fn is_own(&self, queue: &str) -> bool {
        match self.namespace.is_default() {
            true => !self.is_of_another(queue),
            false => is_of(queue, &self.prefix) || queue.starts_with("amq."),
        }
    }

    fn is_of_another(&self, name: &str) -> bool {
        self.others.iter().any(|prefix| is_of(name, prefix))
    }

    /// Why a message is not sent, if it would leave the namespace.
    fn foreign(&self, message: &Envelope) -> Option<String> {
        let (what, name, is_own) = match message.exchange.as_str() {
            "" => ("queue", &message.routing_key, self.is_own(&message.routing_key)),
            // Others' names come after their own prefix, and then are nobody's.
            exchange => ("exchange", &message.exchange, !self.namespace.is_default() || !self.is_of_another(exchange)),
        };
        (!is_own).then(|| match self.namespace.is_default() {
            true => format!("the {what} `{name}` is of another namespace"),
            false => {
                format!(
                    "the {what} is none of namespace `{}`: its name must begin with `{}`",
                    self.namespace, self.prefix
                )
            }
        })
    }
}

#[async_trait]
impl Broker for NamespacedBroker {
    async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.broker.declare(&topology.within(&self.namespace)).await
    }

    async fn publish(&self, mut messages: Vec<Envelope>) -> Vec<Published> {
        let foreign: Vec<Option<String>> = messages.iter().map(|message| self.foreign(message)).collect();
        let mut is_own = foreign.iter().map(Option::is_none);
        messages.retain(|_| is_own.next().unwrap_or(true));
        for message in messages.iter_mut().filter(|message| !message.exchange.is_empty()) {
            message.exchange.insert_str(0, &self.prefix);
        }
        let mut outcomes = self.broker.publish(messages).await.into_iter();
        let mut outcome =
            || outcomes.next().unwrap_or_else(|| Published::Unknown("the broker said nothing".to_owned()));
        foreign.into_iter().map(|why| why.map_or_else(&mut outcome, Published::Returned)).collect()
    }

    async fn consume_by(&self, queue: &str, how: Consuming) -> Result<Box<dyn Consumer>, BrokerError> {
        let consumer = self.broker.consume_by(&self.namespace.prefix(queue), how).await?;
        Ok(Box::new(NamespacedConsumer { consumer, prefix: self.prefix.clone() }))
    }

    async fn queue(&self, queue: &str) -> Result<Option<QueueStatus>, BrokerError> {
        self.broker.queue(&self.namespace.prefix(queue)).await
    }

    async fn browse(&self, queue: &str) -> Result<Box<dyn Browser>, BrokerError> {
        let browser = self.broker.browse(&self.namespace.prefix(queue)).await?;
        Ok(Box::new(NamespacedBrowser { browser, prefix: self.prefix.clone() }))
    }

    fn address_of(&self, queue: &str) -> String {
        self.broker.address_of(&self.namespace.prefix(queue))
    }

    fn is_volatile(&self) -> bool {
        self.broker.is_volatile()
    }

    async fn describe(&self) -> Result<String, BrokerError> {
        let plain = self.broker.describe().await?;
        Ok(if self.namespace.is_default() { plain } else { format!("{plain}, namespace {}", self.namespace) })
    }

    async fn close(&self) {
        self.broker.close().await;
    }
}

struct NamespacedConsumer {
    consumer: Box<dyn Consumer>,
    prefix: Arc<str>,
}

#[async_trait]
impl Consumer for NamespacedConsumer {
    async fn next(&mut self, max: usize) -> Option<Vec<Delivery>> {
        let mut deliveries = self.consumer.next(max).await?;
        for delivery in &mut deliveries {
            if !self.prefix.is_empty() && delivery.envelope.exchange.starts_with(&*self.prefix) {
                strip(&mut Arc::make_mut(&mut delivery.envelope).exchange, &self.prefix);
            }
        }
        Some(deliveries)
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.consumer.settler()
    }
}

struct NamespacedBrowser {
    browser: Box<dyn Browser>,
    prefix: Arc<str>,
}

#[async_trait]
impl Browser for NamespacedBrowser {
    async fn next(&mut self) -> Result<Option<Browsed>, BrokerError> {
        let Some(mut found) = self.browser.next().await? else { return Ok(None) };
        strip(&mut found.envelope.exchange, &self.prefix);
        for death in &mut found.deaths {
            strip(&mut death.queue, &self.prefix);
            strip(&mut death.exchange, &self.prefix);
        }
        Ok(Some(found))
    }

    async fn remove(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.browser.remove(tag).await
    }

    async fn end(self: Box<Self>) -> Result<(), BrokerError> {
        self.browser.end().await
    }
}

fn strip(name: &mut String, prefix: &str) {
    if name.starts_with(prefix) {
        name.drain(..prefix.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Settlement;
    use crate::broker::in_process::InProcessBroker;
    use crate::broker::topology::{REPLIES_QUEUE, REQUESTS_QUEUE};

    fn message(exchange: &str, routing_key: &str) -> Envelope {
        Envelope {
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
            mandatory: true,
            properties: Default::default(),
            body: b"{}".to_vec(),
        }
    }

    async fn messages(broker: &dyn Broker, queue: &str) -> Option<u32> {
        broker.queue(queue).await.expect("it answers").map(|status| status.messages)
    }

    #[tokio::test]
    async fn two_namespaces_on_one_broker_do_not_hear_each_other() {
        let plain: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let acme = within(plain.clone(), &"acme".parse().expect("a name"));
        let beta = within(plain.clone(), &"beta".parse().expect("a name"));
        for broker in [&plain, &acme, &beta] {
            broker.declare(&Topology::coordinator()).await.expect("declared");
        }
        let sent = acme.publish(vec![message("amends.replies", REPLIES_QUEUE)]).await;
        assert_eq!(sent, [Published::Confirmed]);
        for (broker, queue, expected) in [
            (&acme, REPLIES_QUEUE, Some(1)),
            (&plain, "acme.amends.replies", Some(1)),
            (&beta, REPLIES_QUEUE, Some(0)),
            (&plain, REPLIES_QUEUE, Some(0)),
            (&beta, "acme.amends.replies", None),
        ] {
            assert_eq!(messages(&**broker, queue).await, expected, "{queue}");
        }
        let mut consumer = acme.consume(REPLIES_QUEUE, 1).await.expect("consumed");
        let deliveries = consumer.next(1).await.expect("a message");
        assert_eq!(deliveries[0].envelope.exchange, "amends.replies");
        consumer.settler().settle(vec![(deliveries[0].tag, Settlement::Reject)]).await;
        assert_eq!(messages(&*plain, "acme.amends.replies.dead").await, Some(1));
        assert_eq!(messages(&*plain, "amends.replies.dead").await, Some(0));
        let mut browser = acme.browse("amends.replies.dead").await.expect("looked into");
        let dead = browser.next().await.expect("it answers").expect("the message");
        assert_eq!((dead.envelope.exchange.as_str(), dead.deaths[0].queue.as_str()), ("amends.dead", REPLIES_QUEUE));
        assert!(beta.browse("acme.amends.replies.dead").await.is_err(), "another namespace's dead letters");
    }

    #[tokio::test]
    async fn an_answer_goes_to_no_queue_outside_the_namespace() {
        let plain: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let acme = within(plain.clone(), &"acme".parse().expect("a name"));
        for broker in [&plain, &acme] {
            broker.declare(&Topology::coordinator()).await.expect("declared");
        }
        assert_eq!(acme.address_of(REQUESTS_QUEUE), "acme.amends.requests");
        let to = ["acme.amends.requests", REQUESTS_QUEUE, "acme.amends.requests", "beta.amends.replies"];
        let outcomes = acme.publish(to.map(|queue| message("", queue)).into()).await;
        let is_sent: Vec<bool> = outcomes.iter().map(|outcome| *outcome == Published::Confirmed).collect();
        assert_eq!(is_sent, [true, false, true, false], "{outcomes:?}");
        assert!(matches!(&outcomes[1], Published::Returned(why) if why.contains("`acme.`")), "{outcomes:?}");
        assert_eq!(messages(&*plain, REQUESTS_QUEUE).await, Some(0));
        assert_eq!(messages(&*acme, REQUESTS_QUEUE).await, Some(2));
    }

    #[tokio::test]
    async fn the_default_namespace_of_a_server_with_others_sends_nothing_into_theirs() {
        let plain: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let names: Vec<Namespace> = ["default", "acme", "beta"].map(|name| name.parse().expect("a name")).into();
        let [default, acme, _] = [0, 1, 2].map(|at| beside(plain.clone(), &names[at], &names));
        for broker in [&default, &acme] {
            broker.declare(&Topology::coordinator()).await.expect("declared");
        }
        // Participants of the default namespace may be called like another.
        default.declare(&Topology::participant("acme")).await.expect("declared");
        let sent = [
            ("", "acme.amends.requests", false),
            ("acme.amends.replies", REPLIES_QUEUE, false),
            ("", "acme.commands", true),
            ("", "acme.commands.dead", true),
            ("", REQUESTS_QUEUE, true),
            ("amends.replies", REPLIES_QUEUE, true),
        ];
        let outcomes = default.publish(sent.map(|(exchange, key, _)| message(exchange, key)).into()).await;
        for ((exchange, key, expected), outcome) in sent.into_iter().zip(&outcomes) {
            assert_eq!(*outcome == Published::Confirmed, expected, "{exchange} {key}: {outcome:?}");
        }
        assert_eq!(messages(&*acme, REQUESTS_QUEUE).await, Some(0));
        assert_eq!(messages(&*acme, REPLIES_QUEUE).await, Some(0));
        let outcomes = acme.publish(vec![message("", "acme.commands")]).await;
        assert!(matches!(&*outcomes, [Published::Returned(_)]), "a queue of the default namespace: {outcomes:?}");
        assert_eq!(messages(&*plain, "acme.commands").await, Some(1));
    }
}
