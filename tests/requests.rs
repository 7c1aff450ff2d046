//! Starts and signals that arrive over RabbitMQ instead of HTTP: what is answered, what is started, what is kept of the rest.

mod support;

use std::collections::BTreeMap;

use amends::broker::topology::Queue;
use amends::broker::{Consumer, Published, Settlement, Topology};
use amends::coordinator::{Coordinator, Operate, OperatorAction};
use amends::id::SagaId;
use amends::message::{Envelope, Properties};
use amends::store::{Page, SagaFilter};
use serde_json::{Value, json};
use support::eventually;
use support::rig::Rig;

const REQUESTS: &str = "amends.requests";
const DEAD: &str = "amends.requests.dead";
const PARTICIPANT: &str = "requests-test";

const ERRAND: &str = r#"
saga: errand
version: 1
key: ${ input.id }
input:
  schema: { type: object, required: [id], properties: { id: { type: string }, what: { type: string } } }
steps:
  - { name: run, participant: requests-test, action: run, compensation: none }
"#;

/// Waits for two signals, the second of which may come early.
const PERMIT: &str = r#"
saga: permit
version: 1
key: ${ input.id }
steps:
  - { name: first, wait: { signal: first, timeout: 1h } }
  - { name: second, wait: { signal: second, timeout: 1h } }
output: ["${ steps['first'].output }", "${ steps['second'].output }"]
"#;

/// A caller with a queue for answers.
struct Caller {
    rig: Rig,
    answers: String,
    consumer: Box<dyn Consumer>,
    asked: u32,
}

impl Caller {
    async fn new() -> Self {
        let rig = Rig::new(&[PARTICIPANT]).await;
        let answers = format!("answers-{}", amends::id::fresh_request_id().simple());
        let mut topology = Topology::coordinator();
        topology.queues.push(Queue {
            name: answers.clone(),
            bindings: Vec::new(),
            dead_letters: false,
            namespace: Default::default(),
        });
        rig.broker.declare(&topology).await.expect("declared");
        let consumer = rig.broker.consume(&answers, 100).await.expect("consumed");
        Self { rig, answers, consumer, asked: 0 }
    }

    async fn with_coordinator() -> (Self, Coordinator) {
        let caller = Self::new().await;
        let coordinator = caller.rig.coordinator().await;
        for definition in [ERRAND, PERMIT] {
            coordinator.register(definition, "test").await.expect("registered");
        }
        (caller, coordinator)
    }

    async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: Properties) {
        let request = Envelope {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
            mandatory: true,
            properties,
            body: body.to_vec(),
        };
        assert_eq!(self.rig.broker.publish(vec![request]).await, [Published::Confirmed]);
    }

    /// Asks, and gives the correlation id.
    async fn ask_at(&mut self, exchange: &str, key: &str, body: &[u8]) -> String {
        self.asked += 1;
        let id = format!("question {}", self.asked);
        let properties = Properties {
            reply_to: Some(self.answers.clone()),
            correlation_id: Some(id.clone()),
            ..Properties::default()
        };
        self.publish(exchange, key, body, properties).await;
        id
    }

    async fn ask(&mut self, body: &Value) -> String {
        self.ask_at(REQUESTS, "start", body.to_string().as_bytes()).await
    }

    /// The next `count` answers, by correlation id.
    async fn answers(&mut self, count: usize) -> BTreeMap<String, Value> {
        let mut answers = BTreeMap::new();
        while answers.len() < count {
            let next = tokio::time::timeout(std::time::Duration::from_secs(30), self.consumer.next(100)).await;
            let deliveries = next.expect("answers come").expect("the broker is open");
            self.consumer.settler().settle(deliveries.iter().map(|one| (one.tag, Settlement::Ack)).collect()).await;
            for delivery in deliveries {
                let properties = delivery.envelope.properties.clone();
                assert_eq!(properties.content_type.as_deref(), Some("application/json"));
                assert_eq!(properties.app_id.as_deref(), Some("amends"));
                let answer = serde_json::from_slice(&delivery.envelope.body).expect("an answer is JSON");
                let about = properties.correlation_id.expect("echoed");
                assert!(answers.insert(about.clone(), answer).is_none(), "{about} is answered twice");
            }
        }
        answers
    }

    async fn answer(&mut self, body: &Value) -> Value {
        let id = self.ask(body).await;
        self.answers(1).await.remove(&id).expect("the answer to this question")
    }

    /// Tells a signal, and gives what is answered.
    async fn told(&mut self, body: &Value) -> Value {
        let id = self.ask_at(REQUESTS, "signal", body.to_string().as_bytes()).await;
        self.answers(1).await.remove(&id).expect("the answer to this signal")
    }

    /// A saga that waits for its signals.
    async fn permit(&mut self, key: &str) -> SagaId {
        saga_id(&self.answer(&json!({ "saga": "permit", "input": { "id": key } })).await)
    }

    async fn sagas(&self) -> usize {
        let page = Page { after: None, limit: 100 };
        self.rig.store.sagas(&SagaFilter::default(), &page).await.expect("the store reads").len()
    }

    /// Everything that was asked is settled: nothing comes again once the coordinator is gone.
    async fn end(self, coordinator: Coordinator, dead: u32) {
        eventually("the dead letters arrive", async || (self.rig.depth(DEAD).await == dead).then_some(())).await;
        coordinator.stop().await;
        coordinator.broker().close().await;
        let consumers = async || {
            let status = self.rig.broker.queue(REQUESTS).await.expect("an answer").expect("a queue");
            (status.consumers == 0).then_some(status.messages)
        };
        assert_eq!(eventually("the coordinator is gone", consumers).await, 0, "requests that were never settled");
        assert_eq!(self.rig.depth(DEAD).await, dead);
        self.rig.broker.close().await;
        support::delete_queues(&self.rig.broker_url, &[self.answers]).await;
    }
}

fn saga_id(answer: &Value) -> SagaId {
    answer["id"].as_str().unwrap_or_else(|| panic!("no saga: {answer}")).parse().expect("a saga's id")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_answered_to_whom_it_says() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let answer = caller.answer(&json!({ "saga": "errand", "input": { "id": "a", "what": "milk" } })).await;
    assert_eq!(answer["isNew"], true, "{answer}");
    assert!(answer.get("code").is_none(), "{answer}");
    let saga = caller.rig.saga(saga_id(&answer)).await;
    assert_eq!(saga.key.as_deref(), Some("a"));
    assert_eq!(saga.input.value(), &json!({ "id": "a", "what": "milk" }));
    let queue = format!("{PARTICIPANT}.commands");
    eventually("its first command is sent", async || (caller.rig.depth(&queue).await == 1).then_some(())).await;
    caller.end(coordinator, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_twice_gives_the_same_saga() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let start = json!({ "saga": "errand", "input": { "id": "a" } });
    // All at once, so that they share batches.
    let mut questions = Vec::new();
    for _ in 0..20 {
        questions.push(caller.ask(&start).await);
    }
    let answers = caller.answers(20).await;
    assert!(questions.iter().all(|question| answers.contains_key(question)));
    let first = saga_id(&answers[&questions[0]]);
    assert!(answers.values().all(|answer| saga_id(answer) == first), "{answers:?}");
    assert_eq!(answers.values().filter(|answer| answer["isNew"] == true).count(), 1, "{answers:?}");

    // The caller's own key counts like the definition's.
    let given = caller.answer(&json!({ "saga": "errand", "key": "b", "input": { "id": "a" } })).await;
    assert_ne!(saga_id(&given), first);
    let again = caller.answer(&json!({ "saga": "errand", "key": "b", "input": { "id": "a" } })).await;
    assert_eq!((saga_id(&again), &again["isNew"]), (saga_id(&given), &json!(false)));

    let other = caller.answer(&json!({ "saga": "errand", "input": { "id": "a", "what": "bread" } })).await;
    assert_eq!(other["code"], "KEY_CONFLICT", "{other}");
    assert_eq!(caller.sagas().await, 2);
    caller.end(coordinator, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_is_answered_with_its_problem_and_done_with() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let input = json!({ "id": "a" });
    let long = "k".repeat(257);
    let bodies: [(&str, Vec<u8>); 12] = [
        ("REQUEST_INVALID", b"no JSON".to_vec()),
        ("REQUEST_INVALID", b"\xff\xfe".to_vec()),
        ("REQUEST_INVALID", Vec::new()),
        ("REQUEST_INVALID", json!([]).to_string().into()),
        ("REQUEST_INVALID", json!({ "input": input }).to_string().into()),
        ("REQUEST_INVALID", json!({ "saga": "errand", "input": input, "imput": 1 }).to_string().into()),
        ("REQUEST_INVALID", json!({ "saga": "errand", "input": input, "version": -1 }).to_string().into()),
        ("DEFINITION_UNKNOWN", json!({ "saga": "arrand", "input": input }).to_string().into()),
        ("VERSION_UNKNOWN", json!({ "saga": "errand", "version": 7, "input": input }).to_string().into()),
        ("INPUT_INVALID", json!({ "saga": "errand", "input": {} }).to_string().into()),
        ("KEY_INVALID", json!({ "saga": "errand", "key": "a\0b", "input": input }).to_string().into()),
        ("KEY_INVALID", json!({ "saga": "errand", "key": long, "input": input }).to_string().into()),
    ];
    let mut expected = BTreeMap::new();
    for (code, body) in &bodies {
        expected.insert(caller.ask_at(REQUESTS, "start", body).await, *code);
    }
    // Past the exchange, straight into the queue, under a key that is no request.
    expected.insert(caller.ask_at("", REQUESTS, b"{}").await, "REQUEST_UNKNOWN");
    // One that is well in the same batch.
    let good = caller.ask(&json!({ "saga": "errand", "input": input })).await;

    let mut answers = caller.answers(expected.len() + 1).await;
    assert_eq!(answers.remove(&good).expect("answered")["isNew"], true);
    for (question, answer) in &answers {
        assert_eq!(answer["code"], expected[question], "{question}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{answer}");
        assert!(answer.get("id").is_none(), "{answer}");
    }
    assert_eq!(caller.sagas().await, 1);
    caller.end(coordinator, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_that_nobody_asks_about_is_kept() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let lone = Properties { message_id: Some("lone".to_owned()), ..Properties::default() };
    caller.publish(REQUESTS, "start", b"no JSON", lone.clone()).await;
    let unknown = json!({ "saga": "arrand", "input": {} }).to_string();
    // As some clients say that there is none.
    let empty = Properties { reply_to: Some(String::new()), ..lone };
    caller.publish(REQUESTS, "start", unknown.as_bytes(), empty).await;
    // A start needs no answer to be started.
    let fine = json!({ "saga": "errand", "input": { "id": "quiet" } }).to_string();
    caller.publish(REQUESTS, "start", fine.as_bytes(), Properties::default()).await;
    eventually("the saga starts", async || (caller.sagas().await == 1).then_some(())).await;
    // Nobody else's answers are held up.
    assert_eq!(caller.answer(&json!({ "saga": "errand", "input": { "id": "next" } })).await["isNew"], true);

    let mut consumer = caller.rig.broker.consume(DEAD, 10).await.expect("consumed");
    let mut kept = Vec::new();
    while kept.len() < 2 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(30), consumer.next(10)).await;
        let deliveries = next.expect("they are kept").expect("the broker is open");
        consumer.settler().settle(deliveries.iter().map(|one| (one.tag, Settlement::Ack)).collect()).await;
        kept.extend(deliveries.into_iter().map(|one| one.envelope));
    }
    let bodies: Vec<&[u8]> = kept.iter().map(|message| message.body.as_slice()).collect();
    assert_eq!(bodies, [b"no JSON".as_slice(), unknown.as_bytes()], "as they came");
    assert_eq!(kept[0].properties.message_id.as_deref(), Some("lone"));
    caller.end(coordinator, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_takes_holds_nothing_up() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let start = json!({ "saga": "errand", "input": { "id": "a" } }).to_string();
    let gone = Properties { reply_to: Some("answers-of-nobody".to_owned()), ..Properties::default() };
    caller.publish(REQUESTS, "start", start.as_bytes(), gone.clone()).await;
    caller.publish(REQUESTS, "start", b"no JSON", gone).await;
    assert_eq!(caller.answer(&json!({ "saga": "errand", "input": { "id": "b" } })).await["isNew"], true);
    assert_eq!(caller.sagas().await, 2);
    // The refusal that did not reach anybody is kept where people look.
    caller.end(coordinator, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_a_coordinator() {
    let (mut caller, first) = Caller::with_coordinator().await;
    first.stop().await;
    first.broker().close().await;
    eventually("the first is gone", async || {
        let status = caller.rig.broker.queue(REQUESTS).await.expect("an answer").expect("a queue");
        (status.consumers == 0).then_some(())
    })
    .await;
    let question = caller.ask(&json!({ "saga": "errand", "input": { "id": "patient" } })).await;
    eventually("it waits", async || (caller.rig.depth(REQUESTS).await == 1).then_some(())).await;
    let second = caller.rig.coordinator().await;
    assert_eq!(caller.answers(1).await[&question]["isNew"], true);
    caller.end(second, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_counts_once_however_often_it_is_told_and_an_early_one_is_kept() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let id = caller.permit("a").await;
    let by_key = json!({ "saga": "permit", "key": "a", "signal": "second", "payload": { "by": "ann" } });
    let early = caller.told(&by_key).await;
    assert_eq!((saga_id(&early), &early["isNew"]), (id, &json!(true)), "{early}");
    let steps = caller.rig.saga(id).await.steps;
    assert_eq!(steps[1].status().as_str(), "waiting", "its step does not wait yet");
    let again = caller.told(&json!({ "sagaId": id.to_string(), "signal": "second", "payload": { "by": "bob" } })).await;
    assert_eq!((saga_id(&again), &again["isNew"]), (id, &json!(false)), "{again}");
    // All at once, so that they share batches. Without a payload it says nothing.
    let mut questions = Vec::new();
    for _ in 0..10 {
        let body = json!({ "saga": "permit", "key": "a", "signal": "first" }).to_string();
        questions.push(caller.ask_at(REQUESTS, "signal", body.as_bytes()).await);
    }
    let answers = caller.answers(10).await;
    assert!(questions.iter().all(|question| saga_id(&answers[question]) == id), "{answers:?}");
    assert_eq!(answers.values().filter(|answer| answer["isNew"] == true).count(), 1, "{answers:?}");
    let saga = caller.rig.becomes(id, "COMPLETED").await;
    assert_eq!(saga.output.expect("an output").value(), &json!([null, { "by": "ann" }]));
    let after = caller.told(&by_key).await;
    assert_eq!((saga_id(&after), &after["isNew"]), (id, &json!(false)), "it had it: {after}");
    caller.end(coordinator, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_cannot_be_taken_is_answered_with_its_problem() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let id = caller.permit("a").await.to_string();
    let nobody = "00000000-0000-7000-8000-000000000000";
    let bodies: [(&str, Vec<u8>); 14] = [
        ("REQUEST_INVALID", b"no JSON".to_vec()),
        ("REQUEST_INVALID", Vec::new()),
        ("REQUEST_INVALID", json!({}).to_string().into()),
        ("REQUEST_INVALID", json!({ "sagaId": id }).to_string().into()),
        ("REQUEST_INVALID", json!({ "signal": "first" }).to_string().into()),
        ("REQUEST_INVALID", json!({ "saga": "permit", "signal": "first" }).to_string().into()),
        ("REQUEST_INVALID", json!({ "sagaId": "x", "signal": "first" }).to_string().into()),
        ("REQUEST_INVALID", json!({ "sagaId": id, "signal": 1 }).to_string().into()),
        ("REQUEST_INVALID", json!({ "sagaId": id, "signal": "first", "payloda": 1 }).to_string().into()),
        (
            "REQUEST_INVALID",
            json!({ "sagaId": id, "saga": "permit", "key": "a", "signal": "first" }).to_string().into(),
        ),
        ("SAGA_UNKNOWN", json!({ "sagaId": nobody, "signal": "first" }).to_string().into()),
        ("SAGA_UNKNOWN", json!({ "saga": "permit", "key": "b", "signal": "first" }).to_string().into()),
        ("SAGA_UNKNOWN", json!({ "saga": "parmit", "key": "a", "signal": "first" }).to_string().into()),
        ("SIGNAL_UNKNOWN", json!({ "sagaId": id, "signal": "furst" }).to_string().into()),
    ];
    let mut expected = BTreeMap::new();
    for (code, body) in &bodies {
        expected.insert(caller.ask_at(REQUESTS, "signal", body).await, (*code, String::from_utf8_lossy(body)));
    }
    let answers = caller.answers(expected.len()).await;
    for (question, answer) in &answers {
        let (code, body) = &expected[question];
        assert_eq!(answer["code"], *code, "{body}: {answer}");
        assert!(answer["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{answer}");
        assert!(answer.get("id").is_none(), "{answer}");
    }
    // One whose saga has ended without it.
    coordinator
        .operate(Operate {
            id: id.parse().expect("an id"),
            action: OperatorAction::Abandon,
            actor: "test".to_owned(),
            reason: "for the test".to_owned(),
            expected_revision: None,
        })
        .await
        .expect("abandoned");
    let late = caller.told(&json!({ "sagaId": id, "signal": "first" })).await;
    assert_eq!(late["code"], "ACTION_NOT_ALLOWED", "{late}");
    caller.end(coordinator, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_and_its_signal_may_be_told_in_one_breath() {
    let (mut caller, coordinator) = Caller::with_coordinator().await;
    let start = caller.ask(&json!({ "saga": "permit", "input": { "id": "a" } })).await;
    let mut told = Vec::new();
    for name in ["first", "second"] {
        let body = json!({ "saga": "permit", "key": "a", "signal": name, "payload": name }).to_string();
        told.push(caller.ask_at(REQUESTS, "signal", body.as_bytes()).await);
    }
    let answers = caller.answers(3).await;
    let id = saga_id(&answers[&start]);
    for question in told {
        assert_eq!(saga_id(&answers[&question]), id, "{answers:?}");
    }
    let saga = caller.rig.becomes(id, "COMPLETED").await;
    assert_eq!(saga.output.expect("an output").value(), &json!(["first", "second"]));
    caller.end(coordinator, 0).await;
}
