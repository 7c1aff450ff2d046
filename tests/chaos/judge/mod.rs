//! An independent judge: decides, from what was seen from outside, whether each guarantee held. It shares no code with
//! the coordinator but the types, the definition's graph, and the transition that a replay needs.

mod effects;
pub mod evidence;
mod messages;
mod order;
mod planted;
mod starts;
mod states;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use amends::definition::Definition;
use amends::id::SagaId;
use amends::message::command::idempotency_key;
use amends::saga::Outcome;
use amends::store::OutboxEntry;

pub use evidence::{Answer, Answered, Effect, Evidence, InboxRow, Kept, Sighting, Stored, Tap, Tapped};

/// The guarantees that it decides, by their numbers, which are for good.
pub const DECIDED: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// The guarantee in a few words.
pub fn name(guarantee: u8) -> &'static str {
    match guarantee {
        1 => "an acknowledged start is never lost",
        2 => "one saga per definition and key",
        3 => "replaying the history gives the state",
        4 => "terminal states are final",
        5 => "not both completed and compensated",
        6 => "at most one effect per step and direction",
        7 => "no action takes effect after its compensation",
        8 => "what may have happened is compensated, and nothing else",
        9 => "compensations run in reverse order",
        10 => "after the pivot only forward",
        11 => "a terminal saga has no PENDING command",
        12 => "VERIFIED means durable",
        13 => "a reply counts only with the right token",
        14 => "the definition stays pinned",
        15 => "every operator action has its audit row",
        16 => "every saga ends or is STUCK with a reason",
        _ => "no guarantee",
    }
}

/// What the judge has found.
#[derive(Default)]
pub struct Verdict {
    findings: Vec<Finding>,
    /// How many facts were weighed, per guarantee: a judge that saw nothing has nothing to say.
    weighed: BTreeMap<u8, u32>,
    /// Commands whose reply the tap has not heard, although their participants vouch for it.
    unheard: Vec<(SagaId, String)>,
    /// How many such there were, and may have been.
    vouched: (usize, usize),
}

#[derive(Clone, Debug)]
pub struct Finding {
    pub guarantee: u8,
    pub saga: Option<SagaId>,
    pub what: String,
}

impl Verdict {
    fn weigh(&mut self, guarantee: u8, holds: bool, saga: Option<SagaId>, what: impl FnOnce() -> String) {
        *self.weighed.entry(guarantee).or_default() += 1;
        if !holds {
            self.findings.push(Finding { guarantee, saga, what: what() });
        }
    }

    /// The guarantees that were broken.
    pub fn broken(&self) -> BTreeSet<u8> {
        self.findings.iter().map(|finding| finding.guarantee).collect()
    }

    pub fn weighed(&self, guarantee: u8) -> u32 {
        self.weighed.get(&guarantee).copied().unwrap_or_default()
    }

    /// Fails the test unless everything held.
    pub fn is_innocent(&self, context: &str) {
        assert!(self.findings.is_empty(), "{context}\n{self}");
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for guarantee in DECIDED {
            let broken = self.findings.iter().filter(|finding| finding.guarantee == guarantee);
            let count = broken.clone().count();
            let word = if count == 0 { "holds " } else { "BROKEN" };
            writeln!(f, "{guarantee:>3} {word} {:>6} facts  {}", self.weighed(guarantee), name(guarantee))?;
            for finding in broken.take(5) {
                let saga = finding.saga.map(|saga| format!("{saga}: ")).unwrap_or_default();
                writeln!(f, "            {saga}{}", finding.what)?;
            }
        }
        let (count, limit) = self.vouched;
        write!(f, "replies that only their participant vouches for: {count}, of at most {limit}")
    }
}

/// Decides every guarantee.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    starts::judge(evidence, &mut verdict);
    let files = Files::of(evidence);
    for stored in evidence.sagas.values() {
        let case = Case::new(evidence, &files, stored);
        states::judge(&case, &mut verdict);
        effects::judge(&case, &mut verdict);
        order::judge(&case, &mut verdict);
        messages::judge(&case, &mut verdict);
    }
    let unheard = std::mem::take(&mut verdict.unheard);
    verdict.vouched = (unheard.len(), evidence.may_be_unheard);
    let are_few = unheard.len() <= evidence.may_be_unheard;
    for (id, key) in unheard {
        verdict.weigh(13, are_few, Some(id), || format!("{key} is VERIFIED by no reply with its token"));
    }
    verdict
}

/// The evidence by what it is about: a long run has too much of it to be read through for each saga.
struct Files<'a> {
    effects: HashMap<SagaId, Vec<&'a Effect>>,
    sightings: HashMap<SagaId, Vec<&'a Sighting>>,
    tap: HashMap<SagaId, Vec<Message<'a>>>,
    inbox: HashMap<&'a str, &'a InboxRow>,
}

impl<'a> Files<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut files =
            Self { effects: HashMap::new(), sightings: HashMap::new(), tap: HashMap::new(), inbox: HashMap::new() };
        for effect in &evidence.effects {
            files.effects.entry(effect.saga).or_default().push(effect);
        }
        for sighting in &evidence.sightings {
            files.sightings.entry(sighting.saga).or_default().push(sighting);
        }
        for tapped in &evidence.tap {
            let (saga, message) = match tapped {
                Tapped::Command(command) => (command.saga_id, Message::Command(command)),
                Tapped::Reply(reply) => {
                    let Ok((command, attempt)) = evidence.keys.verify(&reply.token) else { continue };
                    (command.saga, Message::Reply { reply, command, attempt })
                }
                Tapped::Mark(_) | Tapped::Junk => continue,
            };
            files.tap.entry(saga).or_default().push(message);
        }
        for row in &evidence.inbox {
            files.inbox.entry(&row.key).or_insert(row);
        }
        files
    }
}

/// One saga before the judge.
struct Case<'a> {
    evidence: &'a Evidence,
    stored: &'a Stored,
    /// Its definition with a step for each of the saga's, if the evidence has it.
    definition: Option<Arc<Definition>>,
    effects: &'a [&'a Effect],
    sightings: &'a [&'a Sighting],
    /// The commands and replies that name it, in order.
    tap: &'a [Message<'a>],
    inbox: &'a HashMap<&'a str, &'a InboxRow>,
}

/// A tapped message of one saga.
enum Message<'a> {
    Command(&'a amends::message::Command),
    /// A reply whose token is genuine, and what the token says.
    Reply {
        reply: &'a amends::message::Reply,
        command: amends::id::CommandId,
        attempt: u32,
    },
}

impl<'a> Case<'a> {
    fn new(evidence: &'a Evidence, files: &'a Files<'a>, stored: &'a Stored) -> Self {
        let id = stored.saga.id;
        let definition = evidence.definitions.get(&stored.saga.definition);
        Self {
            evidence,
            stored,
            definition: definition.and_then(|definition| stored.saga.expand(definition)),
            effects: files.effects.get(&id).map_or(&[], Vec::as_slice),
            sightings: files.sightings.get(&id).map_or(&[], Vec::as_slice),
            tap: files.tap.get(&id).map_or(&[], Vec::as_slice),
            inbox: &files.inbox,
        }
    }

    fn id(&self) -> SagaId {
        self.stored.saga.id
    }

    /// Every state that it was seen in, the last one included.
    fn states(&self) -> BTreeSet<&'static str> {
        let seen = self.sightings.iter().map(|sighting| sighting.state);
        seen.chain([self.stored.saga.state.as_str()]).collect()
    }

    fn key(&self, entry: &OutboxEntry) -> String {
        idempotency_key(self.id(), &entry.step, entry.direction.as_str(), entry.generation)
    }

    /// What the participant's inbox has of the command.
    fn row(&self, entry: &OutboxEntry) -> Option<&'a InboxRow> {
        self.inbox.get(&*self.key(entry)).copied()
    }

    /// Whether the participant's own row says what the outbox says. A publisher that dies before the confirm may have
    /// reached one queue and not the other: then the coordinator has heard what the tap has not.
    fn is_vouched_for(&self, entry: &OutboxEntry) -> bool {
        let is_success = entry.verified.as_ref().is_some_and(|verified| verified.outcome == Outcome::Success);
        self.row(entry).is_some_and(|row| (row.kept == Kept::Success) == is_success)
    }
}
