//! What every broker must do, on RabbitMQ and in the process; then what only a broker elsewhere can get wrong.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use amends::broker::amqp::AmqpBroker;
use amends::broker::in_process::InProcessBroker;
use amends::broker::topology::DELIVERY_LIMIT;
use amends::broker::{Broker, BrokerError, Consumer, Delivery, Published, Settlement, Topology};
use amends::message::{Envelope, Properties};
use rstest::rstest;
use support::servers::PrivateRabbit;
use support::{eventually, eventually_within};

#[derive(Clone, Copy, Debug)]
enum Kind {
    InProcess,
    Amqp,
}
use Kind::{Amqp, InProcess};

/// A broker and a participant of its own on it, so that tests do not meet.
async fn rig(kind: Kind) -> (Arc<dyn Broker>, String) {
    let broker: Arc<dyn Broker> = match kind {
        InProcess => Arc::new(InProcessBroker::new()),
        Amqp => Arc::new(AmqpBroker::connect(&support::broker_url()).await.expect("RabbitMQ answers")),
    };
    let name = participant(&*broker).await;
    (broker, name)
}

async fn participant(broker: &dyn Broker) -> String {
    let name = format!("conformance-{}", amends::id::fresh_request_id().simple());
    broker.declare(&Topology::participant(&name)).await.expect("its queue is declared");
    name
}

fn message(participant: &str, n: usize) -> Envelope {
    Envelope {
        exchange: "amends.commands".to_owned(),
        routing_key: format!("{participant}.act"),
        mandatory: true,
        properties: Properties { message_id: Some(format!("m{n}")), ..Properties::default() },
        body: format!("{{\"n\":{n}}}").into_bytes(),
    }
}

async fn consume(broker: &dyn Broker, participant: &str, prefetch: u16) -> Box<dyn Consumer> {
    broker.consume(&format!("{participant}.commands"), prefetch).await.expect("the queue is consumed")
}

/// The next messages, `count` of them, unsettled.
async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), consumer.next(count - taken.len())).await;
        taken.extend(next.expect("messages arrive").expect("the broker is open"));
    }
    taken
}

async fn settle(consumer: &dyn Consumer, deliveries: &[Delivery], settlement: Settlement) {
    consumer.settler().settle(deliveries.iter().map(|delivery| (delivery.tag, settlement)).collect()).await;
}

async fn depth(broker: &dyn Broker, queue: &str) -> u32 {
    broker.queue(queue).await.expect("the broker answers").expect("the queue is there").messages
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().filter_map(|delivery| delivery.envelope.properties.message_id.clone()).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_message_arrives_as_it_was_sent_in_the_queue_bound_to_its_key(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    let other = participant(&*broker).await;
    let mut sent = message(&name, 1);
    sent.properties.headers = [("amends-attempt".to_owned(), 3_u32.into()), ("text".to_owned(), "ü".into())].into();
    sent.properties.correlation_id = Some("token".to_owned());
    assert_eq!(broker.publish(vec![sent.clone()]).await, [Published::Confirmed]);
    let mut consumer = consume(&*broker, &name, 10).await;
    let arrived = take(&mut consumer, 1).await;
    assert_eq!(arrived[0].envelope.body, sent.body);
    assert_eq!(arrived[0].envelope.properties, sent.properties);
    assert!(!arrived[0].redelivered);
    settle(&*consumer, &arrived, Settlement::Ack).await;
    assert_eq!(depth(&*broker, &format!("{other}.commands")).await, 0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_unroutable_message_is_returned_and_its_batch_confirmed(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    let batch = vec![message(&name, 1), message("nobody-at-all", 2), message(&name, 3)];
    let outcomes = broker.publish(batch).await;
    assert_eq!([&outcomes[0], &outcomes[2]], [&Published::Confirmed; 2]);
    assert!(matches!(outcomes[1], Published::Returned(_)), "{outcomes:?}");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_goes_to_the_dead_letters(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    broker.publish(vec![message(&name, 1)]).await;
    let mut consumer = consume(&*broker, &name, 10).await;
    let arrived = take(&mut consumer, 1).await;
    settle(&*consumer, &arrived, Settlement::Reject).await;
    let mut dead = broker.consume(&format!("{name}.commands.dead"), 10).await.expect("it is consumed");
    assert_eq!(ids(&take(&mut dead, 1).await), ["m1"]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_message_is_dead_after_its_deliveries(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    broker.publish(vec![message(&name, 1)]).await;
    let mut consumer = consume(&*broker, &name, 1).await;
    let mut deliveries = 0;
    let dead = format!("{name}.commands.dead");
    while depth(&*broker, &dead).await == 0 {
        let next = tokio::time::timeout(Duration::from_millis(500), consumer.next(1)).await;
        if let Ok(Some(arrived)) = next {
            assert_eq!(arrived[0].redelivered, deliveries > 0);
            deliveries += 1;
            settle(&*consumer, &arrived, Settlement::Requeue).await;
        }
        assert!(deliveries <= DELIVERY_LIMIT + 1, "it is delivered for ever");
    }
    assert!(deliveries >= DELIVERY_LIMIT, "it was given up after {deliveries} deliveries");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_prefetch_is_handed_out_unsettled(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    broker.publish((0..10).map(|n| message(&name, n)).collect()).await;
    let mut consumer = consume(&*broker, &name, 4).await;
    let first = take(&mut consumer, 4).await;
    let more = tokio::time::timeout(Duration::from_millis(200), consumer.next(10)).await;
    assert!(more.is_err(), "a fifth was handed out");
    settle(&*consumer, &first, Settlement::Ack).await;
    assert_eq!(ids(&take(&mut consumer, 4).await), ["m4", "m5", "m6", "m7"]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_settled_is_gone_when_a_consumer_is(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    broker.publish((0..6).map(|n| message(&name, n)).collect()).await;
    let mut first = consume(&*broker, &name, 10).await;
    let taken = take(&mut first, 6).await;
    // Out of order, with gaps: neither may take its neighbours along.
    settle(&*first, &[taken[1].clone(), taken[4].clone()], Settlement::Ack).await;
    settle(&*first, &taken[0..1], Settlement::Ack).await;
    drop(first);
    let mut second = consume(&*broker, &name, 10).await;
    let again = take(&mut second, 3).await;
    assert_eq!(ids(&again).into_iter().collect::<HashSet<_>>(), ["m2", "m3", "m5"].map(str::to_owned).into());
    assert!(again.iter().all(|delivery| delivery.redelivered));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_confirmed_whole_and_arrives_in_order(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    let outcomes = broker.publish((0..5_000).map(|n| message(&name, n)).collect()).await;
    assert_eq!(outcomes, vec![Published::Confirmed; 5_000]);
    let mut consumer = consume(&*broker, &name, 500).await;
    let mut arrived = Vec::new();
    while arrived.len() < 5_000 {
        let some = take(&mut consumer, 1).await;
        settle(&*consumer, &some, Settlement::Ack).await;
        arrived.extend(ids(&some));
    }
    assert_eq!(arrived, (0..5_000).map(|n| format!("m{n}")).collect::<Vec<_>>());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_tells_its_consumers_and_an_absent_one_is_absent(#[values(InProcess, Amqp)] kind: Kind) {
    let (broker, name) = rig(kind).await;
    assert_eq!(broker.queue("nobody-at-all.commands").await.expect("an answer"), None);
    let refused = broker.consume("nobody-at-all.commands", 1).await;
    assert!(matches!(refused, Err(BrokerError::Refused(_))));
    let _consumer = consume(&*broker, &name, 1).await;
    let queue = format!("{name}.commands");
    assert_eq!(broker.queue(&queue).await.expect("an answer").map(|status| status.consumers), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_other_arguments_is_a_mismatch_that_says_so() {
    let (broker, name) = rig(Amqp).await;
    let connection = lapin::Connection::connect(&support::broker_url(), Default::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    let other = format!("{name}-other");
    let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    channel
        .queue_declare(format!("{other}.commands").into(), options, Default::default())
        .await
        .expect("a classic queue of that name");
    let error = broker.declare(&Topology::participant(&other)).await.expect_err("it is a quorum queue to us");
    assert!(matches!(error, BrokerError::Mismatch { .. }), "{error}");
    let text = error.to_string();
    let (expected, actual) = ("received the value 'amends.dead'", "current is none");
    assert!(text.contains(&other) && text.contains(expected) && text.contains(actual), "{text}");
    // The broker goes on for everybody else.
    assert_eq!(broker.publish(vec![message(&name, 1)]).await, [Published::Confirmed]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_the_password() {
    let url = support::broker_url().replace("guest:guest@", "guest:hunter2@");
    let error = AmqpBroker::connect(&url).await.err().expect("it is refused").to_string();
    assert!(error.contains("ACCESS_REFUSED") && !error.contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_a_killed_broker_and_consumers_go_on() {
    let mut rabbit = PrivateRabbit::start().await;
    let broker: Arc<dyn Broker> = Arc::new(AmqpBroker::connect(&rabbit.url()).await.expect("RabbitMQ answers"));
    let name = participant(&*broker).await;
    let mut consumer = consume(&*broker, &name, 100).await;

    let (publisher, to) = (broker.clone(), name.clone());
    let publishing = tokio::spawn(async move {
        let (mut confirmed, mut unknown) = (HashSet::new(), 0);
        // Until well after the broker is back.
        for n in 0.. {
            match publisher.publish(vec![message(&to, n)]).await.pop() {
                Some(Published::Confirmed) => {
                    confirmed.insert(format!("m{n}"));
                }
                _ => unknown += 1,
            }
            if unknown > 0 && confirmed.contains(&format!("m{n}")) && n % 100 == 0 {
                return (confirmed, unknown);
            }
        }
        unreachable!("it counts for ever")
    });
    let mut arrived: HashSet<String> = HashSet::new();
    let collect = |some: Vec<Delivery>, arrived: &mut HashSet<String>| arrived.extend(ids(&some));
    while arrived.len() < 50 {
        let some = take(&mut consumer, 1).await;
        settle(&*consumer, &some, Settlement::Ack).await;
        collect(some, &mut arrived);
    }
    rabbit.kill_and_restart().await;
    eventually_within(Duration::from_secs(60), "publishing goes on", async || publishing.is_finished().then_some(()))
        .await;
    let (confirmed, unknown) = publishing.await.expect("it ends");
    assert!(unknown > 0, "the broker was away");
    while !confirmed.is_subset(&arrived) {
        let some = take(&mut consumer, 1).await;
        settle(&*consumer, &some, Settlement::Ack).await;
        collect(some, &mut arrived);
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_consumed_again_once_it_is_back() {
    let (broker, name) = rig(Amqp).await;
    let mut consumer = consume(&*broker, &name, 10).await;
    let connection = lapin::Connection::connect(&support::broker_url(), Default::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    channel.queue_delete(format!("{name}.commands").into(), Default::default()).await.expect("deleted");
    let outcome = broker.publish(vec![message(&name, 1)]).await;
    assert!(matches!(outcome[0], Published::Returned(_)), "the queue is gone: {outcome:?}");
    broker.declare(&Topology::participant(&name)).await.expect("it is declared again");
    eventually("it is consumed again", async || {
        let status = broker.queue(&format!("{name}.commands")).await.ok()??;
        (status.consumers == 1).then_some(())
    })
    .await;
    assert_eq!(broker.publish(vec![message(&name, 2)]).await, [Published::Confirmed]);
    assert_eq!(ids(&take(&mut consumer, 1).await), ["m2"]);
}
