//! RabbitMQ in adversity: connections that are cut or hang, brokers that restart, wrong passwords and certificates.

mod broker_rights;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use amends::broker::amqp::{AmqpBroker, LapinBroker};
use amends::broker::topology::commands_queue;
use amends::broker::{Broker, BrokerError, Consumer, Published, Settlement, Topology};
use amends::message::{Envelope, HeaderValue, Properties};
use support::proxy::Proxy;
use support::servers::PrivateRabbit;
use support::{eventually, eventually_within};

/// Longer than heartbeats take to find a connection dead, reconnecting included.
const PATIENCE: Duration = Duration::from_secs(60);

fn participant() -> String {
    format!("adversity-{}", amends::id::fresh_request_id().simple())
}

fn message(participant: &str, n: u64) -> Envelope {
    Envelope {
        exchange: "amends.commands".to_owned(),
        routing_key: format!("{participant}.do"),
        mandatory: true,
        properties: Properties { message_id: Some(n.to_string()), ..Properties::default() },
        body: b"{}".to_vec(),
    }
}

fn lazily(url: &str) -> Arc<AmqpBroker> {
    Arc::new(AmqpBroker::connect_lazily(url).expect("an address"))
}

/// A broker behind a proxy, with the queues of a participant of its own.
async fn behind_proxy() -> (Proxy, Arc<AmqpBroker>, String) {
    let url = support::broker_url();
    let proxy = Proxy::before(&url).await;
    let broker = lazily(&proxy.url(&url));
    let participant = participant();
    broker.declare(&Topology::participant(&participant)).await.expect("declared");
    (proxy, broker, participant)
}

async fn clean_up(participant: &str) {
    let queue = commands_queue(participant);
    let dead = format!("{queue}.dead");
    support::delete_queues(&support::broker_url(), &[queue, dead]).await;
}

/// Publishes single messages and batches until told to stop; gives the numbers that were confirmed.
fn publish_on(
    broker: Arc<AmqpBroker>,
    participant: String,
) -> (tokio::sync::watch::Receiver<u64>, impl AsyncFnOnce() -> BTreeSet<u64>) {
    let (count, counted) = tokio::sync::watch::channel(0);
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let (mut confirmed, mut next) = (BTreeSet::new(), 0_u64);
        while !stopped.is_cancelled() {
            let numbers = next..next + 1 + next % 20;
            next = numbers.end;
            let batch = numbers.clone().map(|n| message(&participant, n)).collect();
            for (n, outcome) in numbers.zip(broker.publish(batch).await) {
                match outcome {
                    Published::Confirmed => drop(confirmed.insert(n)),
                    Published::Unknown(_) => {}
                    outcome => panic!("{n}: {outcome:?}"),
                }
            }
            count.send_replace(u64::try_from(confirmed.len()).expect("few"));
        }
        confirmed
    });
    (counted, async move || {
        stop.cancel();
        task.await.expect("publishing goes well")
    })
}

/// Consumes and acknowledges all the time; how often each number came, and the connections they came over.
#[derive(Default)]
struct Seen {
    times: BTreeMap<u64, u32>,
    generations: BTreeSet<u64>,
}

fn consume_on(mut consumer: Box<dyn Consumer>) -> Arc<std::sync::Mutex<Seen>> {
    let seen: Arc<std::sync::Mutex<Seen>> = Arc::default();
    let shared = seen.clone();
    tokio::spawn(async move {
        let settler = consumer.settler();
        while let Some(deliveries) = consumer.next(10).await {
            let tags = deliveries.iter().map(|delivery| (delivery.tag, Settlement::Ack)).collect();
            {
                let mut seen = shared.lock().expect("whole");
                for delivery in &deliveries {
                    let id = delivery.envelope.properties.message_id.as_deref().unwrap_or_default();
                    *seen.times.entry(id.parse().expect("a number")).or_default() += 1;
                    seen.generations.insert(delivery.tag.generation);
                }
            }
            settler.settle(tags).await;
        }
    });
    seen
}

/// Waits until `more` further messages were confirmed.
async fn confirmed_further(counted: &mut tokio::sync::watch::Receiver<u64>, more: u64) {
    let goal = *counted.borrow() + more;
    let reached = tokio::time::timeout(PATIENCE, counted.wait_for(|count| *count >= goal)).await;
    reached.expect("messages are confirmed again").expect("the publisher goes on");
}

async fn all_arrive(confirmed: &BTreeSet<u64>, seen: &std::sync::Mutex<Seen>) {
    eventually_within(PATIENCE, "every confirmed message arrives", async || {
        let seen = seen.lock().expect("whole");
        confirmed.iter().all(|n| seen.times.contains_key(n)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_when_connections_are_cut() {
    let (proxy, broker, participant) = behind_proxy().await;
    let queue = commands_queue(&participant);
    let seen = consume_on(broker.consume(&queue, 50).await.expect("consumed"));
    let (mut counted, stop) = publish_on(broker.clone(), participant.clone());
    for _ in 0..5 {
        confirmed_further(&mut counted, 200).await;
        let before = proxy.accepted();
        proxy.cut();
        eventually("both connections come back", async || (proxy.accepted() >= before + 2).then_some(())).await;
    }
    confirmed_further(&mut counted, 200).await;
    let confirmed = stop().await;
    all_arrive(&confirmed, &seen).await;
    let generations = seen.lock().expect("whole").generations.clone();
    assert!(generations.len() > 2, "the cuts were felt: {generations:?}");
    eventually("nothing is left", async || {
        (broker.queue(&queue).await.expect("an answer").expect("a queue").messages == 0).then_some(())
    })
    .await;
    broker.close().await;
    clean_up(&participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_confirmed_is_lost_when_the_broker_restarts() {
    let mut rabbit = PrivateRabbit::start().await;
    let broker = lazily(&rabbit.url());
    let participant = participant();
    broker.declare(&Topology::participant(&participant)).await.expect("declared");
    let seen = consume_on(broker.consume(&commands_queue(&participant), 50).await.expect("consumed"));
    let (mut counted, stop) = publish_on(broker.clone(), participant.clone());
    confirmed_further(&mut counted, 500).await;
    rabbit.kill_and_restart().await;
    confirmed_further(&mut counted, 500).await;
    rabbit.restart().await;
    confirmed_further(&mut counted, 500).await;
    let confirmed = stop().await;
    all_arrive(&confirmed, &seen).await;
    broker.close().await;
}

/// Waits until a second passes in which no message was confirmed.
async fn confirming_pauses(counted: &mut tokio::sync::watch::Receiver<u64>) {
    let pauses = async { while tokio::time::timeout(Duration::from_secs(1), counted.changed()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, pauses).await.expect("the broker takes no messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_short_of_memory_delays_messages_and_loses_none() {
    let rabbit = PrivateRabbit::start().await;
    let broker = lazily(&rabbit.url());
    // One participant's messages go through; another's are there already, and are consumed while nothing goes through.
    let (flowing, waiting) = (participant(), participant());
    for name in [&flowing, &waiting] {
        broker.declare(&Topology::participant(name)).await.expect("declared");
    }
    let there: BTreeSet<u64> = (0..500).collect();
    let before = broker.publish(there.iter().map(|n| message(&waiting, *n)).collect()).await;
    assert!(before.iter().all(|outcome| *outcome == Published::Confirmed), "{before:?}");
    let through = consume_on(broker.consume(&commands_queue(&flowing), 50).await.expect("consumed"));
    let (mut counted, stop) = publish_on(broker.clone(), flowing.clone());
    confirmed_further(&mut counted, 200).await;
    let publishing = async || {
        let connections = rabbit.ctl(&["list_connections", "pid", "client_properties"]).await;
        let publishing: Vec<String> =
            connections.lines().filter(|line| line.contains("amends publish")).map(str::to_owned).collect();
        assert!(!publishing.is_empty(), "nobody publishes: {connections}");
        publishing
    };
    let at_first = publishing().await;

    rabbit.ctl(&["set_vm_memory_high_watermark", "0.0000001"]).await;
    confirming_pauses(&mut counted).await;
    let paused_at = *counted.borrow();
    let seen = consume_on(broker.consume(&commands_queue(&waiting), 50).await.expect("consumed while blocked"));
    all_arrive(&there, &seen).await;
    let queue = commands_queue(&waiting);
    eventually("the acknowledgements arrive too", async || {
        let queues = rabbit.ctl(&["list_queues", "name", "messages"]).await;
        queues.lines().any(|line| line.split_whitespace().eq([queue.as_str(), "0"])).then_some(())
    })
    .await;
    assert_eq!(*counted.borrow(), paused_at, "all the while nothing was published");

    rabbit.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    confirmed_further(&mut counted, 200).await;
    let confirmed = stop().await;
    all_arrive(&confirmed, &through).await;
    // A consumer is made anew when nothing has come for long.
    assert_eq!(publishing().await, at_first, "the connection was not given up");
    for seen in [seen, through] {
        let seen = seen.lock().expect("whole");
        assert!(seen.times.values().all(|times| *times == 1), "nothing came twice");
    }
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let (proxy, broker, participant) = behind_proxy().await;
    let queue = commands_queue(&participant);
    let mut consumer = broker.consume(&queue, 50).await.expect("consumed");
    assert_eq!(broker.publish(vec![message(&participant, 1)]).await, [Published::Confirmed]);
    let first = consumer.next(1).await.expect("an open broker");
    proxy.stall();
    let outcomes = tokio::time::timeout(PATIENCE, broker.publish(vec![message(&participant, 2)])).await;
    let outcomes = outcomes.expect("the batch is given back");
    assert!(matches!(outcomes[..], [Published::Unknown(_)]), "{outcomes:?}");
    // Requests end as well, and say why.
    let asked = tokio::time::timeout(PATIENCE, broker.queue(&queue)).await.expect("the request is given up");
    assert!(matches!(asked, Err(BrokerError::Unreachable { .. })), "{asked:?}");
    // The dead connections' bytes never go through: only new connections help.
    proxy.cut();
    proxy.pass();
    eventually_within(PATIENCE, "messages are confirmed again", async || {
        (broker.publish(vec![message(&participant, 3)]).await == [Published::Confirmed]).then_some(())
    })
    .await;
    // A tag from before is ignored: the message comes again.
    consumer.settler().settle(vec![(first[0].tag, Settlement::Ack)]).await;
    let mut ids = BTreeSet::new();
    while !ids.is_superset(&BTreeSet::from(["1".to_owned(), "3".to_owned()])) {
        let arrived = tokio::time::timeout(PATIENCE, consumer.next(10)).await.expect("in time").expect("open");
        for delivery in arrived {
            assert!(delivery.tag.generation > first[0].tag.generation, "over a new connection");
            ids.extend(delivery.envelope.properties.message_id.clone());
        }
    }
    broker.close().await;
    clean_up(&participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_declared_again_before_anything_is_published() {
    let (proxy, broker, participant) = behind_proxy().await;
    let queue = commands_queue(&participant);
    let mut consumer = broker.consume(&queue, 50).await.expect("consumed");
    assert_eq!(broker.publish(vec![message(&participant, 1)]).await, [Published::Confirmed]);
    proxy.refuse();
    // As if the broker had lost its disk.
    clean_up(&participant).await;
    // Waits for the connection, within its limit.
    let publishing = tokio::spawn({
        let (broker, message) = (broker.clone(), message(&participant, 2));
        async move { broker.publish(vec![message]).await }
    });
    proxy.pass();
    assert_eq!(publishing.await.expect("joined"), [Published::Confirmed], "neither returned nor given up");
    let arrives = async {
        loop {
            let arrived = consumer.next(10).await.expect("open");
            if arrived.iter().any(|delivery| delivery.envelope.properties.message_id.as_deref() == Some("2")) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, arrives).await.expect("the consumer has come back");
    broker.close().await;
    clean_up(&participant).await;
}

/// Declares a participant's queue again, and sees that what is published to it arrives at a consumer of the one before.
async fn hears_of_the_next_queue(broker: &AmqpBroker, participant: &str, mut consumer: Box<dyn Consumer>) {
    broker.declare(&Topology::participant(participant)).await.expect("declared");
    assert_eq!(broker.publish(vec![message(participant, 1)]).await, [Published::Confirmed]);
    let arrived = tokio::time::timeout(PATIENCE, consumer.next(10)).await.expect("in time").expect("open");
    assert_eq!(arrived.len(), 1);
    broker.close().await;
    clean_up(participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_outlives_its_queue() {
    let (_proxy, broker, participant) = behind_proxy().await;
    let queue = commands_queue(&participant);
    let consumer = broker.consume(&queue, 50).await.expect("consumed");
    clean_up(&participant).await;
    assert_eq!(broker.queue(&queue).await.expect("an answer"), None);
    hears_of_the_next_queue(&broker, &participant, consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_queue_is_made_anew_at_once_goes_on() {
    let (_proxy, broker, participant) = behind_proxy().await;
    let queue = commands_queue(&participant);
    let url = support::broker_url();
    let connection = lapin::Connection::connect(&url, Default::default()).await.expect("connected");
    let channel = connection.create_channel().await.expect("a channel");
    let consumer = broker.consume(&queue, 50).await.expect("consumed");
    // So soon that RabbitMQ mostly takes our consumer over to the next queue, and then delivers into the void.
    channel.queue_delete(queue.as_str().into(), Default::default()).await.expect("deleted");
    hears_of_the_next_queue(&broker, &participant, consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_the_broker_forgets_without_a_word_consumes_again() {
    let (proxy, broker, participant) = behind_proxy().await;
    let queue = commands_queue(&participant);
    let consumer = broker.consume(&queue, 50).await.expect("consumed");
    proxy.hide_cancels();
    clean_up(&participant).await;
    eventually("the broker ends the consumer", async || (proxy.harmed() == 1).then_some(())).await;
    hears_of_the_next_queue(&broker, &participant, consumer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_waited_for_within_limits() {
    let url = support::broker_url();
    let proxy = Proxy::before(&url).await;
    proxy.refuse();
    let through = proxy.url(&url);
    let Err(error) = AmqpBroker::connect(&through).await else { panic!("it connects") };
    assert!(matches!(error, BrokerError::Unreachable { .. }), "{error}");
    let broker = lazily(&through);
    let participant = participant();
    let outcomes = tokio::time::timeout(PATIENCE, broker.publish(vec![message(&participant, 1)])).await;
    let outcomes = outcomes.expect("the batch is given back");
    assert!(matches!(&outcomes[..], [Published::Unknown(why)] if why.contains("no connection")), "{outcomes:?}");
    proxy.pass();
    eventually_within(PATIENCE, "the broker is found", async || {
        broker.declare(&Topology::participant(&participant)).await.ok()
    })
    .await;
    assert_eq!(broker.publish(vec![message(&participant, 1)]).await, [Published::Confirmed]);
    broker.close().await;
    clean_up(&participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_being_shown() {
    let mut url = reqwest::Url::parse(&support::broker_url()).expect("a URL");
    url.set_password(Some("open-sesame")).expect("a password");
    let Err(error) = AmqpBroker::connect(url.as_str()).await else { panic!("it connects") };
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("ACCESS_REFUSED") && shown.contains("guest:***@"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");

    // Whoever waits for a connection is told the same in the end.
    let broker = lazily(url.as_str());
    let refused = eventually("the first try has failed", async || {
        let error = broker.describe().await.expect_err("no connection").to_string();
        error.contains("ACCESS_REFUSED").then_some(error)
    })
    .await;
    assert!(!refused.contains("sesame"), "{refused}");
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_amqp_cannot_carry_is_given_back_alone() {
    let (_proxy, broker, participant) = behind_proxy().await;
    let mut batch: Vec<Envelope> = (0..3).map(|n| message(&participant, n)).collect();
    batch[1].properties.correlation_id = Some("x".repeat(256));
    let outcomes = broker.publish(batch).await;
    assert!(
        matches!(&outcomes[..], [Published::Confirmed, Published::Returned(why), Published::Confirmed] if why.contains("256 bytes")),
        "{outcomes:?}"
    );
    broker.close().await;
    clean_up(&participant).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_broker_ends_its_connections() {
    let (proxy, broker, participant) = behind_proxy().await;
    let mut consumer = broker.consume(&commands_queue(&participant), 50).await.expect("consumed");
    drop(broker);
    assert!(tokio::time::timeout(PATIENCE, consumer.next(1)).await.expect("in time").is_none());
    let accepted = proxy.accepted();
    eventually("both connections end", async || (proxy.open() == 0).then_some(())).await;
    assert_eq!(proxy.accepted(), accepted, "nobody connects again");
    clean_up(&participant).await;
}

/// Everything that a message can hold.
fn rich(participant: &str, id: &str) -> Envelope {
    let text = |text: &str| Some(text.to_owned());
    let headers = [
        ("text".into(), HeaderValue::from("höhe\0\u{1F680}".repeat(40))),
        ("empty".into(), HeaderValue::from("")),
        ("least".into(), HeaderValue::Int(i64::MIN)),
    ];
    Envelope {
        properties: Properties {
            message_id: text(id),
            correlation_id: text(&"c".repeat(255)),
            reply_to: text("answers"),
            kind: text("shop.sell"),
            content_type: text("application/json"),
            timestamp: chrono::DateTime::from_timestamp(1_790_000_000, 0),
            app_id: text("amends"),
            headers: BTreeMap::from(headers),
        },
        // More than one frame.
        body: (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect(),
        ..message(participant, 0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_frames_say_what_lapin_says() {
    let url = support::broker_url();
    let ours: Arc<dyn Broker> = lazily(&url);
    let reference: Arc<dyn Broker> = Arc::new(LapinBroker::connect_lazily(&url).expect("an address"));
    let participant = participant();
    ours.declare(&Topology::participant(&participant)).await.expect("declared");
    for (writer, reader) in [(&ours, &reference), (&reference, &ours), (&ours, &ours), (&reference, &reference)] {
        let sent = vec![rich(&participant, "a"), message(&participant, 7)];
        assert_eq!(writer.publish(sent.clone()).await, [Published::Confirmed, Published::Confirmed]);
        let mut consumer = reader.consume(&commands_queue(&participant), 10).await.expect("a consumer");
        for sent in sent {
            let got = consumer.next(1).await.expect("a message").remove(0);
            assert_eq!(*got.envelope, Envelope { mandatory: false, ..sent });
            consumer.settler().settle(vec![(got.tag, Settlement::Ack)]).await;
        }
        drop(consumer);
        let is_empty = async || {
            let status = ours.queue(&commands_queue(&participant)).await.expect("asked").expect("there");
            (status.messages == 0 && status.consumers == 0).then_some(())
        };
        eventually("everything was settled", is_empty).await;
    }
    clean_up(&participant).await;
}
