//! Dead letters, for operators: what lies there, back to where it came from, or away. Nothing is ever lost on the way: a
//! message is removed only once the broker has its copy safe in the queue that it goes to.

use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};

use crate::broker::browse::{Browsed, Browser, Death, is_note};
use crate::broker::topology::{COORDINATOR, REQUESTS_QUEUE, commands_queue};
use crate::broker::{BrokerError, Published};
use crate::coordinator::{Coordinator, CoordinatorError};
use crate::definition::sensitive::marks;
use crate::id::SagaId;
use crate::message::Envelope;
use crate::message::command::COMMANDS_EXCHANGE;
use crate::message::request::{SIGNAL_KEY, START_KEY};
use crate::payload::Payload;
use crate::store::{AuditRecord, Changes, Wants};

/// Messages that are looked at, at most, to find those that are named, or for one list.
pub const MOST: u32 = 1_000;
/// The same in bytes of bodies.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// How long the broker may take to tell of a queue.
const LOOK: Duration = Duration::from_secs(2);
/// The header in which a coordinator says why it could not use a reply.
const REJECTED: &str = "amends-rejected";

/// A queue of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadQueue {
    /// Its name.
    pub name: String,
    /// The queue whose messages come here.
    pub origin: String,
    kind: Kind,
    /// How many there are, as far as the broker tells.
    pub messages: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Replies,
    Requests,
    /// Of this participant.
    Commands(String),
}

/// A message that nobody could take.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its message id, or a hash of what it says.
    pub id: String,
    /// The message, without the broker's notes of what became of it.
    pub envelope: Envelope,
    /// Why it is here, in words or as a code.
    pub reason: String,
    /// What the broker says of its way here, the last time first.
    pub deaths: Vec<Death>,
    /// Exchange and routing key that it is published to when it is replayed; `None` when nobody knows.
    pub target: Option<(String, String)>,
}

/// What is to be done to dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadChange {
    /// The queue of dead letters.
    pub queue: String,
    /// Back to where they came from; else away.
    pub is_replay: bool,
    /// Which.
    pub which: Which,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those with these ids; all of them must be there. Of two with one id, the first.
    Ids(Vec<String>),
    /// The first so many.
    First(u32),
}

/// What became of one dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadOutcome {
    /// Its id.
    pub id: String,
    /// Why it is still there; `None` when it was done.
    pub problem: Option<String>,
}

impl DeadChange {
    /// The word in the audit log.
    fn word(&self) -> &'static str {
        if self.is_replay { "dead-letter-replay" } else { "dead-letter-drop" }
    }
}

impl DeadQueue {
    fn of(origin: String, kind: Kind) -> Self {
        Self { name: format!("{origin}.dead"), origin, kind, messages: None }
    }

    /// Where a message goes when it is replayed. Never anywhere but into the queue that it came from, whatever its headers
    /// claim: they may be somebody else's.
    fn target(&self, letter: &Browsed) -> Option<(String, String)> {
        let died =
            letter.deaths.iter().filter(|death| death.queue == self.origin).map(|death| death.routing_key.as_str());
        match &self.kind {
            Kind::Replies => Some(("amends.replies".to_owned(), self.origin.clone())),
            Kind::Requests => {
                let mut known = died.filter(|key| [START_KEY, SIGNAL_KEY].contains(key));
                known.next().map(|key| ("amends.requests".to_owned(), key.to_owned()))
            }
            Kind::Commands(participant) => {
                let is_its =
                    |key: &&str| key.strip_prefix(participant.as_str()).is_some_and(|rest| rest.starts_with('.'));
                let key = died.chain(letter.envelope.properties.kind.as_deref()).find(is_its);
                Some(match key {
                    Some(key) => (COMMANDS_EXCHANGE.to_owned(), key.to_owned()),
                    // Straight into the queue.
                    None => (String::new(), self.origin.clone()),
                })
            }
        }
    }

    fn letter(&self, found: &Browsed) -> DeadLetter {
        let mut envelope = found.envelope.clone();
        envelope.properties.headers.retain(|name, _| !is_note(name));
        let reason = match (envelope.properties.text(REJECTED), found.deaths.first()) {
            (Some(code), _) => code.to_owned(),
            (None, Some(death)) => death.reason.clone(),
            (None, None) => "unknown".to_owned(),
        };
        let (id, deaths, target) = (id(&envelope), found.deaths.clone(), self.target(found));
        DeadLetter { id, envelope, reason, deaths, target }
    }
}

/// The message's own id; else a hash of it, the same as long as it lies there.
fn id(envelope: &Envelope) -> String {
    if let Some(id) = envelope.properties.message_id.as_ref().filter(|id| !id.is_empty()) {
        return id.clone();
    }
    let mut hash = Sha256::new();
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (token, kind) = (of(&envelope.properties.correlation_id), of(&envelope.properties.kind));
    for part in [envelope.routing_key.as_bytes(), token.as_bytes(), kind.as_bytes(), envelope.body.as_slice()] {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).fold("sha256-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

impl From<BrokerError> for CoordinatorError {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error.to_string())
    }
}

impl Coordinator {
    /// The queues of dead letters, with how many messages each has.
    ///
    /// # Errors
    /// When the definitions cannot be read.
    pub async fn dead_queues(&self) -> Result<Vec<DeadQueue>, CoordinatorError> {
        let mut queues = self.known_dead_queues().await?;
        let asked = queues.iter().map(|queue| tokio::time::timeout(LOOK, self.broker().queue(&queue.name)));
        let told = join_all(asked).await;
        for (queue, told) in queues.iter_mut().zip(told) {
            queue.messages = told.ok().and_then(Result::ok).flatten().map(|status| status.messages);
        }
        Ok(queues)
    }

    async fn known_dead_queues(&self) -> Result<Vec<DeadQueue>, CoordinatorError> {
        self.0.registry.load_all().await?;
        let mut queues = vec![
            DeadQueue::of(self.0.replies.clone(), Kind::Replies),
            DeadQueue::of(REQUESTS_QUEUE.to_owned(), Kind::Requests),
        ];
        let participants = self.0.registry.participants().into_iter().filter(|name| name != COORDINATOR);
        for name in participants.chain([COORDINATOR.to_owned()]) {
            queues.push(DeadQueue::of(commands_queue(&name), Kind::Commands(name)));
        }
        Ok(queues)
    }

    async fn dead_queue(&self, name: &str) -> Result<DeadQueue, CoordinatorError> {
        let queues = self.known_dead_queues().await?;
        let known = || queues.iter().map(|queue| queue.name.clone()).collect();
        let unknown = || CoordinatorError::UnknownDeadLetters { queue: name.to_owned(), known: known() };
        queues.iter().find(|queue| queue.name == name).cloned().ok_or_else(unknown)
    }

    /// The first `limit` messages of a queue of dead letters, and whether there are more. They stay where they are; while
    /// they are looked at, nobody else sees them.
    ///
    /// # Errors
    /// [`CoordinatorError::UnknownDeadLetters`], or what the broker says.
    pub async fn dead_letters(&self, name: &str, limit: u32) -> Result<(Vec<DeadLetter>, bool), CoordinatorError> {
        let queue = self.dead_queue(name).await?;
        let mut browser = self.broker().browse(name).await?;
        let found = read(&mut *browser, limit.min(MOST).saturating_add(1), |_| false).await;
        browser.end().await?;
        let mut letters: Vec<DeadLetter> = found?.iter().map(|found| queue.letter(found)).collect();
        let has_more = letters.len() > limit.min(MOST) as usize;
        letters.truncate(limit.min(MOST) as usize);
        Ok((letters, has_more))
    }

    /// Looks for what is named, and changes nothing.
    ///
    /// # Errors
    /// As [`Coordinator::change_dead_letters`].
    pub async fn find_dead_letters(&self, name: &str, which: &Which) -> Result<Vec<DeadLetter>, CoordinatorError> {
        let queue = self.dead_queue(name).await?;
        let mut browser = self.broker().browse(name).await?;
        let found = select(&mut *browser, &queue, which).await;
        browser.end().await?;
        Ok(found?.into_iter().map(|(_, letter)| letter).collect())
    }

    /// Replays dead letters or drops them, each with a row in the audit log, which is written first: a row without its deed
    /// is possible, a deed without its row is not. If this is cut off between the two halves of a replay, the message is
    /// there twice; participants and the coordinator know both as one.
    ///
    /// # Errors
    /// [`CoordinatorError::UnknownDeadLetters`], [`CoordinatorError::DeadLetterGone`] and
    /// [`CoordinatorError::NotReplayable`], after which nothing was done; or what the broker and the store say.
    pub async fn change_dead_letters(&self, change: &DeadChange) -> Result<Vec<DeadOutcome>, CoordinatorError> {
        let queue = self.dead_queue(&change.queue).await?;
        let mut browser = self.broker().browse(&change.queue).await?;
        let outcome = self.change(&mut *browser, &queue, change).await;
        browser.end().await?;
        outcome
    }

    async fn change(
        &self,
        browser: &mut dyn Browser,
        queue: &DeadQueue,
        change: &DeadChange,
    ) -> Result<Vec<DeadOutcome>, CoordinatorError> {
        let chosen = select(browser, queue, &change.which).await?;
        let lost: Vec<String> =
            chosen.iter().filter(|(_, letter)| letter.target.is_none()).map(|(_, letter)| letter.id.clone()).collect();
        if change.is_replay && !lost.is_empty() {
            return Err(CoordinatorError::NotReplayable { queue: queue.name.clone(), ids: lost });
        }
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        self.audit_dead(queue, change, &chosen).await?;
        let outcomes = match change.is_replay {
            false => vec![Published::Confirmed; chosen.len()],
            true => self.broker().publish(chosen.iter().map(|(_, letter)| self.replayed(letter)).collect()).await,
        };
        let mut done = Vec::with_capacity(chosen.len());
        for ((tag, letter), outcome) in chosen.into_iter().zip(outcomes) {
            let problem = match outcome {
                Published::Confirmed => browser.remove(tag).await.err().map(|error| error.to_string()),
                Published::Returned(why) => Some(format!("no queue took it ({why})")),
                Published::Refused => Some("the broker refused it".to_owned()),
                Published::Unknown(why) => Some(format!("nobody knows whether the broker has it now: {why}")),
            };
            done.push(DeadOutcome { id: letter.id, problem });
        }
        Ok(done)
    }

    async fn audit_dead(
        &self,
        queue: &DeadQueue,
        change: &DeadChange,
        letters: &[(u64, DeadLetter)],
    ) -> Result<(), CoordinatorError> {
        // Guesses can be tried against a hash.
        let is_open = marks(&self.every_definition().await?, None).is_empty();
        let rows: Vec<(Option<SagaId>, serde_json::Value)> = letters
            .iter()
            .map(|(_, letter)| {
                let envelope = &letter.envelope;
                let saga = envelope.properties.text("amends-saga-id").and_then(|id| id.parse().ok());
                let hash = is_open.then(|| {
                    let hash = Sha256::digest(&envelope.body);
                    hash.iter().fold(String::new(), |hash, byte| format!("{hash}{byte:02x}"))
                });
                let to = letter.target.as_ref().filter(|_| change.is_replay);
                // An id that we made is a hash of the body, too.
                let message = Some(&letter.id).filter(|id| is_open || !id.starts_with("sha256-"));
                let detail = serde_json::json!({
                    "queue": queue.name, "message": message, "reason": letter.reason, "sha256": hash,
                    "bytes": envelope.body.len(), "to": to.map(|(exchange, key)| format!("{exchange} {key}")),
                });
                (saga, detail)
            })
            .collect();
        let (actor, action, reason) = (change.actor.clone(), change.word(), change.reason.clone());
        let decide = move |loaded: crate::store::Loaded| {
            let row = |(saga, detail): (Option<SagaId>, serde_json::Value)| AuditRecord {
                id: 0,
                at: loaded.now,
                actor: actor.clone(),
                saga,
                action: action.to_owned(),
                reason: reason.clone(),
                detail: Payload::from(detail),
            };
            Changes { audits: rows.into_iter().map(row).collect(), ..Changes::default() }
        };
        self.store().commit(Wants::default(), Box::new(decide)).await?;
        Ok(())
    }
}

/// Reads up to `most` messages, or until `is_enough` says so of those that were read.
async fn read(
    browser: &mut dyn Browser,
    most: u32,
    mut is_enough: impl FnMut(&[Browsed]) -> bool,
) -> Result<Vec<Browsed>, CoordinatorError> {
    let (mut found, mut bytes): (Vec<Browsed>, usize) = (Vec::new(), 0);
    while !is_enough(&found) && found.len() < most as usize && bytes < MOST_BYTES {
        let Some(next) = browser.next().await? else { break };
        bytes += next.envelope.body.len();
        found.push(next);
    }
    Ok(found)
}

/// Finds what is named; nothing is removed.
async fn select(
    browser: &mut dyn Browser,
    queue: &DeadQueue,
    which: &Which,
) -> Result<Vec<(u64, DeadLetter)>, CoordinatorError> {
    let with_tag = |found: &Browsed| (found.tag, queue.letter(found));
    match which {
        Which::First(count) => Ok(read(browser, (*count).min(MOST), |_| false).await?.iter().map(with_tag).collect()),
        Which::Ids(ids) => {
            let mut open: Vec<&String> = ids.iter().collect();
            let mut chosen = Vec::new();
            read(browser, MOST, |found| {
                if let Some(last) = found.last() {
                    let (tag, letter) = with_tag(last);
                    if let Some(at) = open.iter().position(|id| **id == letter.id) {
                        open.swap_remove(at);
                        chosen.push((tag, letter));
                    }
                }
                open.is_empty()
            })
            .await?;
            if open.is_empty() {
                return Ok(chosen);
            }
            let ids = open.into_iter().cloned().collect();
            Err(CoordinatorError::DeadLetterGone { queue: queue.name.clone(), ids })
        }
    }
}

impl Coordinator {
    /// The message as it was before it died.
    fn replayed(&self, letter: &DeadLetter) -> Envelope {
        let mut envelope = letter.envelope.clone();
        if let Some((exchange, routing_key)) = letter.target.clone() {
            let is_queue = exchange.is_empty();
            envelope.exchange = exchange;
            envelope.routing_key = if is_queue { self.broker().address_of(&routing_key) } else { routing_key };
        }
        envelope.mandatory = true;
        envelope.properties.headers.remove(REJECTED);
        envelope
    }
}
