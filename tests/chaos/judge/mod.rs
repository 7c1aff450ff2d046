//! An independent judge: decides, from what was seen from outside, whether each guarantee held. It shares no code with
//! the coordinator but the types, the definition's graph, and the transition that a replay needs.

mod effects;
pub mod evidence;
mod messages;
mod order;
mod planted;
mod starts;
mod states;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use amends::definition::Definition;
use amends::id::SagaId;
use amends::message::command::idempotency_key;
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
        Ok(())
    }
}

/// Decides every guarantee.
pub fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = Verdict::default();
    starts::judge(evidence, &mut verdict);
    for stored in evidence.sagas.values() {
        let case = Case::new(evidence, stored);
        states::judge(&case, &mut verdict);
        effects::judge(&case, &mut verdict);
        order::judge(&case, &mut verdict);
        messages::judge(&case, &mut verdict);
    }
    let unheard = std::mem::take(&mut verdict.unheard);
    let are_few = unheard.len() <= evidence.may_be_unheard;
    for (id, key) in unheard {
        verdict.weigh(13, are_few, Some(id), || format!("{key} is VERIFIED by no reply with its token"));
    }
    verdict
}

/// One saga before the judge.
struct Case<'a> {
    evidence: &'a Evidence,
    stored: &'a Stored,
    /// Its definition with a step for each of the saga's, if the evidence has it.
    definition: Option<Arc<Definition>>,
    effects: Vec<&'a Effect>,
    /// The commands and replies that name it, in order.
    tap: Vec<Message<'a>>,
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
    fn new(evidence: &'a Evidence, stored: &'a Stored) -> Self {
        let id = stored.saga.id;
        let definition = evidence.definitions.get(&stored.saga.definition);
        let tap = evidence.tap.iter().filter_map(|tapped| match tapped {
            Tapped::Command(command) if command.saga_id == id => Some(Message::Command(command)),
            Tapped::Reply(reply) => {
                let (command, attempt) = evidence.keys.verify(&reply.token).ok()?;
                (command.saga == id).then_some(Message::Reply { reply, command, attempt })
            }
            _ => None,
        });
        Self {
            evidence,
            stored,
            definition: definition.and_then(|definition| stored.saga.expand(definition)),
            effects: evidence.effects.iter().filter(|effect| effect.saga == id).collect(),
            tap: tap.collect(),
        }
    }

    fn id(&self) -> SagaId {
        self.stored.saga.id
    }

    /// Every state that it was seen in, the last one included.
    fn states(&self) -> BTreeSet<&'static str> {
        let seen = self.sightings().map(|sighting| sighting.state);
        seen.chain([self.stored.saga.state.as_str()]).collect()
    }

    fn sightings(&self) -> impl Iterator<Item = &'a Sighting> {
        let id = self.id();
        self.evidence.sightings.iter().filter(move |sighting| sighting.saga == id)
    }

    fn key(&self, entry: &OutboxEntry) -> String {
        idempotency_key(self.id(), &entry.step, entry.direction.as_str(), entry.generation)
    }
}
