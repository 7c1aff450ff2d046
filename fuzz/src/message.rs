//! Messages from the broker: whoever can reach it can put anything into them.

use std::sync::Arc;
use std::time::Duration;

use amends::broker::in_process::InProcessBroker;
use amends::broker::topology::{Queue, Topology};
use amends::broker::{Broker, Published, Settlement};
use amends::clock::Clock;
use amends::coordinator::{Coordinator, CoordinatorOptions};
use amends::id::{CommandId, SagaId, Seq};
use amends::message::{Command, Envelope, HeaderValue, Properties, Reply, TokenKey, TokenKeys};
use amends::store::memory::MemoryStore;
use serde_json::Value;

/// A message as a text: lines of `name: value`, an empty line, the body. `#7` is an integer.
pub fn envelope(bytes: &[u8]) -> Envelope {
    let end = bytes.windows(2).position(|two| two == b"\n\n");
    let (head, body) = match end {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 2..).unwrap_or_default()),
        None => (&[][..], bytes),
    };
    let mut envelope = Envelope {
        exchange: String::new(),
        routing_key: String::new(),
        mandatory: false,
        properties: Properties::default(),
        body: body.to_vec(),
    };
    for line in String::from_utf8_lossy(head).lines() {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let (value, properties) = (value.to_owned(), &mut envelope.properties);
        match name {
            "exchange" => envelope.exchange = value,
            "routing-key" => envelope.routing_key = value,
            "message-id" => properties.message_id = Some(value),
            "correlation-id" => properties.correlation_id = Some(value),
            "reply-to" => properties.reply_to = Some(value),
            "type" => properties.kind = Some(value),
            "content-type" => properties.content_type = Some(value),
            "timestamp" => {
                properties.timestamp = value.parse().ok().and_then(|at| chrono::DateTime::from_timestamp(at, 0));
            }
            name => {
                let int = value.strip_prefix('#').and_then(|int| int.parse().ok());
                let value = int.map_or_else(|| value.into(), HeaderValue::Int);
                properties.headers.insert(name.to_owned().into(), value);
            }
        }
    }
    envelope
}

/// What a participant takes for a command comes back as the same command.
pub fn is_refused_or_comes_back_as_command(bytes: &[u8]) {
    match Command::decode(&envelope(bytes)) {
        Ok(command) => {
            // Deadlines are written in milliseconds.
            let once = Command::decode(&command.encode()).unwrap_or_else(|error| panic!("{error}: {command:?}"));
            assert!((once.deadline - command.deadline).num_milliseconds().abs() <= 1, "{command:?}");
            assert_eq!(Command { deadline: once.deadline, ..command }, once);
            assert_eq!(Command::decode(&once.encode()).as_ref(), Ok(&once));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What the coordinator takes for a reply comes back as the same reply; else there is a stable code.
pub fn is_refused_or_comes_back_as_reply(bytes: &[u8]) {
    match Reply::decode(&envelope(bytes)) {
        Ok(reply) => assert_eq!(Reply::decode(&reply.encode()).as_ref(), Ok(&reply)),
        Err(error) => super::http::is_known(error.code()),
    }
}

/// How long a coordinator may take with one message: long, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const NOTE: &str =
    "saga: note\nversion: 1\nkey: ${ input.n }\nsteps:\n  - name: a\n    wait: { signal: go, timeout: 1d }\n";

/// A request or reply, whatever is in it, is answered, put aside with a reason, or dropped; and the next one is served.
pub fn harms_no_coordinator(bytes: &[u8]) {
    let runtime = super::runtime();
    runtime.block_on(async {
        let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
        let store = Arc::new(MemoryStore::new(Clock::System));
        let options = CoordinatorOptions { events: false, ..CoordinatorOptions::default() };
        let coordinator = Coordinator::launch(store, broker.clone(), options).await.expect("it launches");
        coordinator.register(NOTE, "fuzz").await.expect("a sound definition");
        let (name, bindings) = ("answers".to_owned(), Vec::new());
        let answers = Queue { name, bindings, dead_letters: false, namespace: Default::default() };
        broker.declare(&Topology { queues: vec![answers], ..Topology::default() }).await.expect("declared");
        let mut consumer = broker.consume("answers", 10).await.expect("consumed");

        let mut message = envelope(bytes);
        if message.exchange != "amends.replies" {
            message.exchange = "amends.requests".to_owned();
        }
        message.properties.reply_to = Some("answers".to_owned());
        let is_request = message.exchange == "amends.requests" && ["start", "signal"].contains(&&*message.routing_key);
        let mut proof = message.clone();
        proof.exchange = "amends.requests".to_owned();
        proof.routing_key = "start".to_owned();
        proof.properties.correlation_id = Some("proof".to_owned());
        proof.body = br#"{"saga":"note","input":{"n":"proof of life"}}"#.to_vec();
        let outcomes = broker.publish(vec![message, proof]).await;
        assert_eq!(outcomes.last(), Some(&Published::Confirmed));

        let mut answered = Vec::new();
        let expected = if is_request { 2 } else { 1 };
        while answered.len() < expected {
            let next = tokio::time::timeout(PATIENCE, consumer.next(10)).await;
            let deliveries = next.unwrap_or_else(|_| panic!("no answer; {answered:?}")).expect("the broker is there");
            let tags = deliveries.iter().map(|delivery| (delivery.tag, Settlement::Ack)).collect();
            consumer.settler().settle(tags).await;
            answered.extend(deliveries.into_iter().map(|delivery| delivery.envelope));
        }
        for answer in &answered {
            let document: Value = serde_json::from_slice(&answer.body).expect("JSON");
            match document["code"].as_str() {
                Some(code) => super::http::is_known(code),
                None => assert!(document["id"].is_string(), "{document}"),
            }
            let is_proof = answer.properties.correlation_id.as_deref() == Some("proof");
            assert!(!is_proof || document["id"].is_string(), "{document}");
        }
        coordinator.stop().await;
    });
}

/// No token verifies that was not signed.
pub fn verifies_only_when_signed(bytes: &[u8]) {
    let keys = |ids: &[u16]| {
        TokenKeys::new(ids.iter().map(|&id| TokenKey { id, secret: [7 + id.to_be_bytes()[1]; 32] }).collect())
            .expect("keys")
    };
    let (old, both) = (keys(&[1]), keys(&[1, 2]));
    let given = String::from_utf8_lossy(bytes);
    if let Ok((command, attempt)) = both.verify(&given) {
        let is_signed = [&old, &both].iter().any(|keys| keys.sign(command, attempt) == given);
        assert!(is_signed, "{given} is taken for the token of {command:?}, attempt {attempt}");
    }
    // What is signed verifies as what it was signed for, under every key that is still known.
    let number = |at: usize| bytes.iter().skip(at).take(4).fold(0, |sum: u32, byte| sum << 8 | u32::from(*byte));
    let mut id = [0; 16];
    id.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let command = CommandId { saga: SagaId(uuid::Uuid::from_bytes(id)), seq: Seq(number(16)) };
    for signer in [&old, &both] {
        let token = signer.sign(command, number(20));
        assert_eq!(both.verify(&token).ok(), Some((command, number(20))));
        // Nor does anything that differs from it in one place.
        let at = usize::try_from(number(24)).unwrap_or_default() % token.len();
        let mut forged = token.clone().into_bytes();
        forged[at] = bytes.get(28).copied().filter(u8::is_ascii).unwrap_or(b'A');
        let forged = String::from_utf8(forged).expect("ASCII");
        assert_eq!(both.verify(&forged).is_ok(), forged == token, "{forged}");
    }
}
