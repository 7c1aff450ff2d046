//! What every broker does, on each of them: RabbitMQ, over our own frames and through lapin, and the one inside the
//! process.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amends::broker::amqp::LapinBroker;
use amends::broker::in_process::InProcessBroker;
use amends::broker::topology::{DELIVERY_LIMIT, commands_queue};
use amends::broker::{
    Broker, BrokerError, Consumer, Consuming, Delivery, Published, Queue, QueueStatus, Settlement, Topology,
};
use amends::message::{Envelope, HeaderValue, Properties};
use support::eventually;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with the queues of a participant that nobody else has.
struct Subject {
    broker: Arc<dyn Broker>,
    participant: String,
}

impl Subject {
    async fn on(broker: Arc<dyn Broker>) -> Self {
        let participant = format!("conformance-{}", amends::id::fresh_request_id().simple());
        broker.declare(&Topology::participant(&participant)).await.expect("its queues are declared");
        Self { broker, participant }
    }

    fn queue(&self) -> String {
        commands_queue(&self.participant)
    }

    fn dead(&self) -> String {
        format!("{}.dead", self.queue())
    }

    /// A message for the participant's queue; `n` tells it from others.
    fn message(&self, n: usize) -> Envelope {
        envelope("amends.commands", &format!("{}.do", self.participant), n)
    }

    async fn publish(&self, messages: Vec<Envelope>) {
        let count = messages.len();
        let outcomes = in_time(self.broker.publish(messages)).await;
        assert_eq!(outcomes, vec![Published::Confirmed; count]);
    }

    async fn publish_numbers(&self, numbers: std::ops::Range<usize>) {
        self.publish(numbers.map(|n| self.message(n)).collect()).await;
    }

    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        self.broker.consume(&self.queue(), prefetch).await.expect("the queue is consumed")
    }

    async fn status(&self, queue: &str) -> QueueStatus {
        self.broker.queue(queue).await.expect("the broker answers").expect("the queue is there")
    }

    /// Waits until so many messages are ready in a queue.
    async fn has(&self, queue: &str, messages: u32) {
        eventually(&format!("{messages} ready in {queue}"), async || {
            (self.status(queue).await.messages == messages).then_some(())
        })
        .await;
    }
}

fn envelope(exchange: &str, key: &str, n: usize) -> Envelope {
    Envelope {
        exchange: exchange.to_owned(),
        routing_key: key.to_owned(),
        mandatory: true,
        properties: Properties { message_id: Some(format!("message-{n}")), ..Properties::default() },
        body: n.to_string().into_bytes(),
    }
}

fn number(delivery: &Delivery) -> usize {
    String::from_utf8_lossy(&delivery.envelope.body).parse().expect("a number")
}

fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    deliveries.iter().map(number).collect()
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// The next `count` messages.
async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(in_time(consumer.next(count - taken.len())).await.expect("an open broker"));
    }
    taken
}

async fn settle(consumer: &dyn Consumer, deliveries: &[Delivery], settlement: Settlement) {
    let deliveries = deliveries.iter().map(|delivery| (delivery.tag, settlement)).collect();
    in_time(consumer.settler().settle(deliveries)).await;
}

async fn a_message_arrives_as_it_was_sent(subject: Subject) {
    let mut sent = subject.message(0);
    sent.properties = Properties {
        message_id: Some("018f-message".to_owned()),
        correlation_id: Some("token".to_owned()),
        reply_to: Some("amends.replies".to_owned()),
        kind: Some("orders.create".to_owned()),
        content_type: Some("application/json".to_owned()),
        timestamp: chrono::DateTime::from_timestamp(1_700_000_000, 0),
        app_id: Some("amends".to_owned()),
        headers: BTreeMap::from([
            ("amends-step".into(), HeaderValue::from("bestätigen")),
            ("amends-attempt".into(), HeaderValue::Int(i64::MAX)),
            ("amends-retry-after-ms".into(), HeaderValue::Int(-1)),
            ("empty".into(), HeaderValue::from("")),
        ]),
    };
    // More than one frame, and not text.
    sent.body = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ 0xa5).collect();
    let mut empty = subject.message(1);
    empty.body = Vec::new();
    subject.publish(vec![sent.clone(), empty]).await;

    let arrived = take(&mut subject.consume(10).await, 2).await;
    let envelope = &arrived[0].envelope;
    assert_eq!(envelope.properties, sent.properties);
    assert!(envelope.body == sent.body, "the body is the same");
    assert_eq!((&envelope.exchange, &envelope.routing_key), (&sent.exchange, &sent.routing_key));
    assert!(!arrived[0].redelivered);
    assert!(arrived[1].envelope.body.is_empty());
}

async fn topics_match_by_words(subject: Subject) {
    let name = &subject.participant;
    let keys = [format!("{name}.do"), format!("{name}.do.more"), name.clone()];
    subject.publish(keys.iter().map(|key| envelope("amends.commands", key, 0)).collect()).await;
    let arrived = take(&mut subject.consume(10).await, 3).await;
    let arrived: Vec<&str> = arrived.iter().map(|delivery| delivery.envelope.routing_key.as_str()).collect();
    assert_eq!(arrived, keys);
    let near = envelope("amends.commands", &format!("{name}s.do"), 0);
    let outcomes = subject.broker.publish(vec![near]).await;
    assert!(matches!(outcomes[..], [Published::Returned(_)]), "{outcomes:?}");
}

async fn direct_exchanges_match_by_equality(subject: Subject) {
    let queue = format!("{}.direct", subject.participant);
    let bindings = vec![("amends.replies".to_owned(), format!("{queue}.*"))];
    let queue_alone = Queue { name: queue.clone(), bindings, dead_letters: false, namespace: Default::default() };
    let topology = Topology { queues: vec![queue_alone], ..Topology::default() };
    subject.broker.declare(&topology).await.expect("declared");
    subject.broker.declare(&topology).await.expect("declared once more");
    let matching = envelope("amends.replies", &format!("{queue}.*"), 1);
    let other = envelope("amends.replies", &format!("{queue}.one"), 2);
    let outcomes = subject.broker.publish(vec![matching, other]).await;
    assert!(matches!(outcomes[..], [Published::Confirmed, Published::Returned(_)]), "{outcomes:?}");
    // The default exchange routes to the queue that the key names.
    subject.publish(vec![envelope("", &queue, 3)]).await;
    subject.has(&queue, 2).await;
}

async fn only_what_no_queue_took_is_returned(subject: Subject) {
    let lost = |n: usize| n % 7 == 3;
    let mut messages: Vec<Envelope> = (0..100).map(|n| subject.message(n)).collect();
    for (n, message) in messages.iter_mut().enumerate().filter(|(n, _)| lost(*n)) {
        message.routing_key = format!("nobody-{}.do", subject.participant);
        // Without `mandatory` nobody is told.
        message.mandatory = n != 10;
    }
    let outcomes = in_time(subject.broker.publish(messages)).await;
    assert_eq!(outcomes.len(), 100);
    for (n, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Published::Returned(why) => assert!(lost(n) && n != 10 && why.contains("NO_ROUTE"), "{n}: {why}"),
            outcome => assert!(*outcome == Published::Confirmed && (!lost(n) || n == 10), "{n}: {outcome:?}"),
        }
    }
    subject.has(&subject.queue(), u32::try_from((0..100).filter(|n| !lost(*n)).count()).expect("few")).await;
}

async fn acknowledged_messages_are_gone(subject: Subject) {
    subject.publish_numbers(0..10).await;
    let mut consumer = subject.consume(10).await;
    let arrived = take(&mut consumer, 10).await;
    settle(&*consumer, &arrived, Settlement::Ack).await;
    // Settling twice, or what was never delivered, harms nothing.
    settle(&*consumer, &arrived, Settlement::Requeue).await;
    assert_eq!(subject.status(&subject.queue()).await.consumers, 1);
    drop(consumer);
    eventually("the consumer is gone", async || {
        (subject.status(&subject.queue()).await == QueueStatus { messages: 0, consumers: 0 }).then_some(())
    })
    .await;
}

async fn rejected_messages_are_kept_as_dead_letters(subject: Subject) {
    subject.publish_numbers(0..3).await;
    let mut consumer = subject.consume(10).await;
    let arrived = take(&mut consumer, 3).await;
    settle(&*consumer, &arrived[1..2], Settlement::Reject).await;
    settle(&*consumer, &arrived[2..], Settlement::Ack).await;
    settle(&*consumer, &arrived[..1], Settlement::Ack).await;
    let mut dead = subject.broker.consume(&subject.dead(), 10).await.expect("dead letters are consumed");
    let buried = take(&mut dead, 1).await;
    assert_eq!(buried[0].envelope.properties.message_id.as_deref(), Some("message-1"));
    assert_eq!(numbers(&buried), [1]);
    settle(&*dead, &buried, Settlement::Ack).await;
    drop((consumer, dead));
    subject.has(&subject.queue(), 0).await;
    subject.has(&subject.dead(), 0).await;
}

async fn requeued_messages_come_again_before_later_ones(subject: Subject) {
    subject.publish_numbers(0..6).await;
    let mut consumer = subject.consume(3).await;
    let arrived = take(&mut consumer, 3).await;
    assert_eq!(numbers(&arrived), [0, 1, 2]);
    settle(&*consumer, &arrived[..2], Settlement::Requeue).await;
    settle(&*consumer, &arrived[2..], Settlement::Requeue).await;
    let mut again = take(&mut consumer, 3).await;
    again.sort_by_key(number);
    assert_eq!(numbers(&again), [0, 1, 2]);
    assert!(again.iter().all(|delivery| delivery.redelivered));
    settle(&*consumer, &again, Settlement::Ack).await;
    let later = take(&mut consumer, 3).await;
    assert_eq!(numbers(&later), [3, 4, 5]);
    assert!(later.iter().all(|delivery| !delivery.redelivered));
}

async fn a_message_delivered_too_often_becomes_a_dead_letter(subject: Subject) {
    subject.publish_numbers(0..1).await;
    let mut consumer = subject.consume(1).await;
    for _ in 0..=DELIVERY_LIMIT {
        let arrived = take(&mut consumer, 1).await;
        assert_eq!(numbers(&arrived), [0]);
        settle(&*consumer, &arrived, Settlement::Requeue).await;
    }
    subject.has(&subject.dead(), 1).await;
    subject.publish_numbers(1..2).await;
    assert_eq!(numbers(&take(&mut consumer, 1).await), [1], "the queue goes on");
}

async fn no_more_than_the_prefetch_is_unsettled(subject: Subject) {
    subject.publish_numbers(0..25).await;
    let mut consumer = subject.consume(10).await;
    let arrived = take(&mut consumer, 10).await;
    subject.has(&subject.queue(), 15).await;
    settle(&*consumer, &arrived[..3], Settlement::Ack).await;
    let more = take(&mut consumer, 3).await;
    assert_eq!(numbers(&more), [10, 11, 12]);
    subject.has(&subject.queue(), 12).await;
}

async fn what_a_dropped_consumer_held_is_delivered_again(subject: Subject) {
    subject.publish_numbers(0..8).await;
    let mut first = subject.consume(5).await;
    let held = take(&mut first, 5).await;
    settle(&*first, &held[1..2], Settlement::Ack).await;
    let settler = first.settler();
    drop(first);
    subject.has(&subject.queue(), 7).await;
    // A settler that outlives its consumer has nothing to settle any more.
    in_time(settler.settle(vec![(held[0].tag, Settlement::Ack)])).await;
    let mut second = subject.consume(10).await;
    let mut again = take(&mut second, 7).await;
    let redelivered: BTreeSet<usize> = again.iter().filter(|one| one.redelivered).map(number).collect();
    assert!(redelivered.is_superset(&BTreeSet::from([0, 2, 3, 4])), "{redelivered:?}");
    again.sort_by_key(number);
    assert_eq!(numbers(&again), [0, 2, 3, 4, 5, 6, 7]);
}

async fn messages_keep_their_order(subject: Subject) {
    let mut consumer = subject.consume(100).await;
    let publishing = async {
        for batch in 0..20 {
            subject.publish_numbers(batch * 25..(batch + 1) * 25).await;
        }
    };
    let consuming = async {
        let mut seen = Vec::new();
        while seen.len() < 500 {
            let arrived = in_time(consumer.next(7)).await.expect("an open broker");
            assert!(arrived.len() <= 7, "no more than asked for");
            settle(&*consumer, &arrived, Settlement::Ack).await;
            seen.extend(numbers(&arrived));
        }
        seen
    };
    let ((), seen) = tokio::join!(publishing, consuming);
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
}

async fn consumers_of_one_queue_share_it(subject: Subject) {
    let (mut one, mut two) = (subject.consume(5).await, subject.consume(5).await);
    subject.publish_numbers(0..10).await;
    let (ours, theirs) = tokio::join!(take(&mut one, 5), take(&mut two, 5));
    let all: BTreeSet<usize> = ours.iter().chain(&theirs).map(number).collect();
    assert_eq!(all, (0..10).collect());
    settle(&*one, &ours, Settlement::Ack).await;
    drop(two);
    let mut rest = take(&mut one, 5).await;
    rest.sort_by_key(number);
    assert_eq!(numbers(&rest), {
        let mut theirs = numbers(&theirs);
        theirs.sort_unstable();
        theirs
    });
}

/// On RabbitMQ alone: elsewhere no two processes share a queue.
async fn what_the_consumer_of_the_highest_priority_does_not_take_goes_to_the_next(subject: Subject) {
    let consume = async |priority| {
        let how = Consuming { prefetch: 5, priority };
        subject.broker.consume_by(&subject.queue(), how).await.expect("the queue is consumed")
    };
    let (mut next, mut first) = (consume(-1_800_000_000_001).await, consume(-1_800_000_000_000).await);
    subject.publish_numbers(0..3).await;
    assert_eq!(numbers(&take(&mut first, 3).await), [0, 1, 2]);
    subject.publish_numbers(3..8).await;
    let (ours, theirs) = tokio::join!(take(&mut first, 2), take(&mut next, 3));
    assert_eq!((numbers(&ours), numbers(&theirs)), (vec![3, 4], vec![5, 6, 7]));
    drop(first);
    let mut rest = numbers(&take(&mut next, 2).await);
    settle(&*next, &theirs, Settlement::Ack).await;
    rest.extend(numbers(&take(&mut next, 3).await));
    rest.sort_unstable();
    assert_eq!(rest, [0, 1, 2, 3, 4]);
}

/// Over our own frames alone: coordinators need it, which have no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_takes_no_more_gives_back_what_it_holds_until_it_takes_more() {
    let broker = amends::broker::open(&support::broker_url()).await.expect("an address");
    on_rabbitmq(broker, async |subject| {
        let consume = async |priority| {
            let how = Consuming { prefetch: 10, priority };
            subject.broker.consume_by(&subject.queue(), how).await.expect("the queue is consumed")
        };
        let (mut first, mut next) = (consume(2).await, consume(1).await);
        subject.publish_numbers(0..4).await;
        let held = take(&mut first, 4).await;
        let settler = first.settler();
        assert!(held.iter().all(|delivery| settler.holds(delivery.tag)));

        settler.take_more(false);
        assert!(!held.iter().any(|delivery| settler.holds(delivery.tag)));
        settle(&*first, &held, Settlement::Ack).await;
        let given = take(&mut next, 4).await;
        assert!(given.iter().all(|delivery| delivery.redelivered), "nothing was acknowledged");
        subject.publish_numbers(4..6).await;
        take(&mut next, 2).await;

        settler.take_more(true);
        drop(next);
        let again = take(&mut first, 6).await;
        assert!(again.iter().all(|delivery| settler.holds(delivery.tag)));
    })
    .await;
}

async fn a_waiting_consumer_is_woken(subject: Subject) {
    let mut consumer = subject.consume(10).await;
    // A call that was given up must not take a message with it.
    {
        let mut given_up = std::pin::pin!(consumer.next(10));
        assert!(futures_util::poll!(&mut given_up).is_pending());
    }
    let (arrived, ()) = tokio::join!(take(&mut consumer, 1), subject.publish_numbers(0..1));
    assert_eq!(numbers(&arrived), [0]);
}

async fn large_batches_are_confirmed_and_arrive(subject: Subject) {
    const COUNT: usize = 5_000;
    subject.publish_numbers(0..COUNT).await;
    let mut consumer = subject.consume(1_000).await;
    let mut seen = 0;
    while seen < COUNT {
        let arrived = in_time(consumer.next(1_000)).await.expect("an open broker");
        for delivery in &arrived {
            assert_eq!(number(delivery), seen);
            seen += 1;
        }
        settle(&*consumer, &arrived, Settlement::Ack).await;
    }
    drop(consumer);
    subject.has(&subject.queue(), 0).await;
}

/// Every settlement counts for its own message, whatever others say about those around it.
async fn settling_from_many_tasks_mixes_nothing_up(subject: Subject) {
    const COUNT: usize = 2_000;
    subject.publish_numbers(0..COUNT).await;
    let mut consumer = subject.consume(500).await;
    let mut tasks = tokio::task::JoinSet::new();
    let mut seen = 0;
    while seen < COUNT {
        let arrived = in_time(consumer.next(50)).await.expect("an open broker");
        seen += arrived.len();
        for delivery in arrived {
            assert!(!delivery.redelivered, "the channel was closed by a wrong settlement");
            let settler = consumer.settler();
            tasks.spawn(async move {
                let settlement = if number(&delivery).is_multiple_of(5) { Settlement::Reject } else { Settlement::Ack };
                settler.settle(vec![(delivery.tag, settlement)]).await;
            });
        }
    }
    in_time(tasks.join_all()).await;
    subject.has(&subject.dead(), u32::try_from(COUNT / 5).expect("few")).await;
    drop(consumer);
    subject.has(&subject.queue(), 0).await;
    let dead = take(&mut subject.broker.consume(&subject.dead(), 1_000).await.expect("consumed"), COUNT / 5).await;
    let dead: BTreeSet<usize> = dead.iter().map(number).collect();
    assert_eq!(dead, (0..COUNT).step_by(5).collect());
}

async fn a_queue_that_is_not_there_is_told(subject: Subject) {
    let missing = format!("{}.missing", subject.participant);
    assert_eq!(subject.broker.queue(&missing).await.expect("an answer"), None);
    let Err(error) = subject.broker.consume(&missing, 10).await else { panic!("it is consumed") };
    assert!(matches!(&error, BrokerError::Refused(why) if why.contains(&missing)), "{error}");
    subject.publish_numbers(0..1).await;
}

async fn a_queue_with_other_arguments_is_a_mismatch(subject: Subject) {
    let mut topology = Topology::participant(&subject.participant);
    topology.queues[0].dead_letters = false;
    let Err(error) = subject.broker.declare(&topology).await else { panic!("it is declared") };
    let BrokerError::Mismatch { what, problem } = &error else { panic!("{error}") };
    assert!(what.contains(&subject.queue()), "{what}");
    assert!(problem.contains("dead"), "it says which: {problem}");
    subject.publish_numbers(0..1).await;
    subject.broker.declare(&Topology::participant(&subject.participant)).await.expect("as it was");
}

async fn an_exchange_that_is_not_there_spoils_no_later_batch(subject: Subject) {
    let outcomes = in_time(subject.broker.publish(vec![envelope("no-such-exchange", "key", 0)])).await;
    assert!(matches!(&outcomes[..], [Published::Unknown(why)] if why.contains("no-such-exchange")), "{outcomes:?}");
    subject.publish_numbers(0..3).await;
    subject.has(&subject.queue(), 3).await;
}

async fn closing_ends_consumers_and_publishing(subject: Subject) {
    subject.publish_numbers(0..2).await;
    let (mut idle, mut full) = (subject.consume(1).await, subject.consume(1).await);
    take(&mut idle, 1).await;
    take(&mut full, 1).await;
    let ends = async |consumer: &mut Box<dyn Consumer>| while in_time(consumer.next(10)).await.is_some() {};
    tokio::join!(ends(&mut idle), ends(&mut full), in_time(subject.broker.close()));
    let outcomes = in_time(subject.broker.publish(vec![subject.message(0), subject.message(1)])).await;
    assert!(matches!(outcomes[..], [Published::Unknown(_), Published::Unknown(_)]), "{outcomes:?}");
    in_time(subject.broker.close()).await;
}

async fn on_rabbitmq<F: Future<Output = ()>>(broker: Arc<dyn Broker>, claim: impl FnOnce(Subject) -> F) {
    let subject = Subject::on(broker).await;
    let queues = [subject.queue(), subject.dead(), format!("{}.direct", subject.participant)];
    claim(subject).await;
    support::delete_queues(&support::broker_url(), &queues).await;
}

/// A claim on the module's own `broker()`.
macro_rules! claim_on_rabbitmq {
    ($claim:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $claim() {
            super::on_rabbitmq(broker().await, super::$claim).await;
        }
    };
}

/// Runs every claim on every broker, and those of RabbitMQ on it alone.
macro_rules! on_every_broker {
    ($($claim:ident)*; $($of_rabbitmq:ident)*) => {
        mod in_process {
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$claim(Subject::on(Arc::new(InProcessBroker::new())).await).await;
            })*
        }

        mod rabbitmq {
            use super::*;

            $(claim_on_rabbitmq! { $claim })*
            $(claim_on_rabbitmq! { $of_rabbitmq })*

            async fn broker() -> Arc<dyn Broker> {
                amends::broker::open(&support::broker_url()).await.expect("an address")
            }
        }

        mod rabbitmq_through_lapin {
            use super::*;

            $(claim_on_rabbitmq! { $claim })*
            $(claim_on_rabbitmq! { $of_rabbitmq })*

            async fn broker() -> Arc<dyn Broker> {
                Arc::new(LapinBroker::connect_lazily(&support::broker_url()).expect("an address"))
            }
        }
    };
}

on_every_broker! {
    a_message_arrives_as_it_was_sent
    topics_match_by_words
    direct_exchanges_match_by_equality
    only_what_no_queue_took_is_returned
    acknowledged_messages_are_gone
    rejected_messages_are_kept_as_dead_letters
    requeued_messages_come_again_before_later_ones
    a_message_delivered_too_often_becomes_a_dead_letter
    no_more_than_the_prefetch_is_unsettled
    what_a_dropped_consumer_held_is_delivered_again
    messages_keep_their_order
    consumers_of_one_queue_share_it
    a_waiting_consumer_is_woken
    large_batches_are_confirmed_and_arrive
    settling_from_many_tasks_mixes_nothing_up
    a_queue_that_is_not_there_is_told
    a_queue_with_other_arguments_is_a_mismatch
    an_exchange_that_is_not_there_spoils_no_later_batch
    closing_ends_consumers_and_publishing;
    what_the_consumer_of_the_highest_priority_does_not_take_goes_to_the_next
}
