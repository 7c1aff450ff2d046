//! What the judge looks at. Everything in it was taken from outside the coordinator: clients' answers, tables, traffic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use amends::broker::{Broker, Published, Queue, Settlement, Topology};
use amends::clock::Timestamp;
use amends::definition::{self, Definition};
use amends::id::{DefinitionRef, SagaId};
use amends::message::command::COMMANDS_EXCHANGE;
use amends::message::{Command, Envelope, Properties, Reply, TokenKeys};
use amends::payload::Payload;
use amends::saga::{Direction, Saga};
use amends::store::{AuditRecord, HistoryRecord, OutboxEntry, Page, SagaFilter, Store};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::support::eventually_within;

/// Everything that is known of a run.
#[derive(Clone)]
pub struct Evidence {
    pub definitions: BTreeMap<DefinitionRef, Arc<Definition>>,
    /// What clients were told, in order.
    pub starts: Vec<Answered>,
    /// The coordinator's own tables.
    pub sagas: BTreeMap<SagaId, Stored>,
    /// What was seen of sagas while the run went on, in order.
    pub sightings: Vec<Sighting>,
    /// The participants' inboxes.
    pub inbox: Vec<InboxRow>,
    /// What was done in the participants' tables; those of one participant in the order in which they were done.
    pub effects: Vec<Effect>,
    /// What went to the exchanges for commands and replies, in order.
    pub tap: Vec<Tapped>,
    /// How many replies the tap may have missed: those whose publisher, or whose broker, died before the confirm.
    pub may_be_unheard: usize,
    pub keys: TokenKeys,
    /// When the last fault was healed, on the store's clock.
    pub quiet_since: Timestamp,
    /// The longest that a saga may take from then on: retries and 60 seconds.
    pub patience: Duration,
    /// How far the store's clock was set back in all: two times may be the wrong way round by so much.
    pub set_back: Duration,
}

/// A start that a client has an answer to.
#[derive(Clone, Debug)]
pub struct Answered {
    pub definition: String,
    pub key: Option<String>,
    pub input: Payload,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It was acknowledged: this is the saga.
    Saga(SagaId),
    /// Refused, because the key has a saga with another input.
    KeyConflict,
}

/// A saga as the store has it in the end.
#[derive(Clone, Debug)]
pub struct Stored {
    pub saga: Saga,
    pub commands: Vec<OutboxEntry>,
    pub history: Vec<HistoryRecord>,
    pub audits: Vec<AuditRecord>,
}

/// A saga as somebody saw it at some time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sighting {
    pub saga: SagaId,
    pub state: &'static str,
    pub revision: u32,
    pub version: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InboxRow {
    pub key: String,
    pub kept: Kept,
    pub at: Timestamp,
}

/// What an inbox keeps of a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    Success,
    Failure,
    Tombstone,
}

/// Something in a participant's own tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    pub participant: String,
    pub saga: SagaId,
    pub step: String,
    pub direction: Direction,
    /// Which of several things that one command does.
    pub part: String,
}

#[derive(Clone, Debug)]
pub enum Tapped {
    Command(Box<Command>),
    Reply(Reply),
    /// Something that is neither.
    Junk,
    /// Published by [`Tap::catch_up`].
    Mark(String),
}

impl From<&Envelope> for Tapped {
    fn from(envelope: &Envelope) -> Self {
        if envelope.routing_key == MARK {
            return Self::Mark(envelope.properties.message_id.clone().unwrap_or_default());
        }
        match Command::decode(envelope) {
            Ok(command) => Self::Command(Box::new(command)),
            Err(_) => Reply::decode(envelope).map_or(Self::Junk, Self::Reply),
        }
    }
}

/// The routing key, among those of commands, of messages that only the tap's queue takes.
const MARK: &str = "judge.mark";

/// Listens in on commands and replies: a queue of its own, durable, bound to both exchanges.
pub struct Tap {
    broker: Arc<dyn Broker>,
    heard: Arc<Mutex<Vec<Tapped>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Tap {
    pub async fn on(broker: &Arc<dyn Broker>) -> Self {
        let topology = Topology {
            queues: vec![Queue {
                name: "judge.tap".to_owned(),
                bindings: vec![
                    ("amends.commands".to_owned(), "#".to_owned()),
                    ("amends.replies".to_owned(), "amends.replies".to_owned()),
                ],
                dead_letters: false,
                namespace: Default::default(),
            }],
            ..Topology::default()
        };
        broker.declare(&topology).await.expect("the tap's queue is declared");
        let mut consumer = broker.consume("judge.tap", 1_000).await.expect("the tap listens");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let keep = heard.clone();
        let listening = tokio::spawn(async move {
            let settler = consumer.settler();
            while let Some(deliveries) = consumer.next(1_000).await {
                let settled = deliveries.iter().map(|delivery| (delivery.tag, Settlement::Ack)).collect();
                keep.lock().await.extend(deliveries.iter().map(|delivery| Tapped::from(&*delivery.envelope)));
                settler.settle(settled).await;
            }
        });
        Self { broker: broker.clone(), heard, _listening: AbortOnDropHandle::new(listening) }
    }

    /// What was heard so far.
    pub async fn heard(&self) -> MutexGuard<'_, Vec<Tapped>> {
        self.heard.lock().await
    }

    /// Waits until it has heard everything that was published before.
    pub async fn catch_up(&self) {
        let id = amends::id::fresh_request_id().to_string();
        let mark = Envelope {
            exchange: COMMANDS_EXCHANGE.to_owned(),
            routing_key: MARK.to_owned(),
            mandatory: true,
            properties: Properties { message_id: Some(id.clone()), ..Properties::default() },
            body: Vec::new(),
        };
        let is_it = |tapped: &Tapped| matches!(tapped, Tapped::Mark(mark) if *mark == id);
        eventually_within(Duration::from_secs(120), "the mark is published", async || {
            let outcomes = self.broker.publish(vec![mark.clone()]).await;
            (outcomes == [Published::Confirmed]).then_some(())
        })
        .await;
        eventually_within(Duration::from_secs(120), "the tap hears everything", async || {
            self.heard.lock().await.iter().rev().any(is_it).then_some(())
        })
        .await;
    }
}

/// Every definition that the store knows.
pub async fn definitions(store: &dyn Store) -> BTreeMap<DefinitionRef, Arc<Definition>> {
    let records = store.definitions(None).await.expect("the definitions are read");
    let compiled = records.into_iter().map(|record| {
        let definition = definition::compile(&record.source).expect("what was registered compiles");
        (record.reference, definition)
    });
    compiled.collect()
}

/// Every saga that the store knows, with all that belongs to it.
pub async fn sagas(store: &dyn Store) -> BTreeMap<SagaId, Stored> {
    let mut found = BTreeMap::new();
    let mut page = Page { after: None, limit: 500 };
    loop {
        let summaries = store.sagas(&SagaFilter::default(), &page).await.expect("the sagas are read");
        let Some(last) = summaries.last() else { return found };
        page.after = Some(last.saga.id);
        for id in summaries.iter().map(|summary| summary.saga.id) {
            let record = store.saga(id).await.expect("a saga is read").expect("it is there");
            let history = store.history(id).await.expect("its history is read");
            let audits = Page { after: None, limit: 500 };
            let audits = store.audit(Some(id), &audits).await.expect("its audit rows are read");
            found.insert(id, Stored { saga: record.saga, commands: record.commands, history, audits });
        }
    }
}

/// A look at every saga, or at the newest pages of 500.
pub async fn look(store: &dyn Store, pages: Option<usize>) -> Option<Vec<Sighting>> {
    let mut found = Vec::new();
    let mut page = Page { after: None, limit: 500 };
    for _ in 0..pages.unwrap_or(usize::MAX) {
        let summaries = store.sagas(&SagaFilter::default(), &page).await.ok()?;
        let Some(last) = summaries.last() else { break };
        page.after = Some(last.saga.id);
        found.extend(summaries.iter().map(|summary| Sighting {
            saga: summary.saga.id,
            state: summary.saga.state.as_str(),
            revision: summary.saga.revision,
            version: summary.saga.definition.version,
        }));
    }
    Some(found)
}
