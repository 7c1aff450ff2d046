//! What there is to say of a storm.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use amends::saga::Outcome;

use crate::judge::{Answer, Evidence, Tapped};
use crate::weather::Fault;

/// Faults that were seen to happen, and those that this machine cannot have.
#[derive(Default)]
pub struct Suffered {
    pub seen: BTreeMap<Fault, u32>,
    pub skipped: BTreeMap<Fault, &'static str>,
    /// For how long a foreign transaction was open, and how often it was opened.
    pub foreign: (Duration, u32),
    /// How often queues had died inside the broker and were started again.
    pub raised: u32,
}

impl Suffered {
    pub fn count(&self) -> u32 {
        self.seen.values().sum()
    }
}

impl fmt::Display for Suffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} faults of {} kinds were seen:", self.count(), self.seen.len())?;
        for (fault, count) in &self.seen {
            writeln!(f, "{count:>6}  {fault:?}")?;
        }
        for (fault, why) in &self.skipped {
            writeln!(f, "  none  {fault:?}: {why}")?;
        }
        let (long, often) = self.foreign;
        writeln!(f, "a foreign transaction was open for {} s, opened {often} times", long.as_secs())?;
        match self.raised {
            0 => Ok(()),
            times => writeln!(f, "{times} times the broker's operator started queues that had died in RabbitMQ"),
        }
    }
}

/// How much evidence there is, by kind.
pub struct Figures<'a>(pub &'a Evidence);

impl fmt::Display for Figures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(evidence) = self;
        let mut states: BTreeMap<&str, u32> = BTreeMap::new();
        let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
        let (mut attempts, mut history, mut audits) = (0, 0, 0);
        for stored in evidence.sagas.values() {
            *states.entry(stored.saga.state.as_str()).or_default() += 1;
            history += stored.history.len();
            audits += stored.audits.len();
            for entry in &stored.commands {
                let Some(verified) = &entry.verified else { continue };
                let word = match verified.outcome {
                    Outcome::Success => "success",
                    Outcome::Failure => "failure",
                    Outcome::Unknown => "unknown",
                    _ => "skipped",
                };
                *outcomes.entry(word).or_default() += 1;
                attempts += verified.attempt;
            }
        }
        let (mut commands, mut replies, mut genuine, mut junk) = (0, 0, 0, 0);
        for tapped in &evidence.tap {
            match tapped {
                Tapped::Command(_) => commands += 1,
                Tapped::Reply(reply) => {
                    replies += 1;
                    genuine += u32::from(evidence.keys.verify(&reply.token).is_ok());
                }
                Tapped::Junk => junk += 1,
                Tapped::Mark(_) => {}
            }
        }
        let refused = evidence.starts.iter().filter(|start| start.answer == Answer::KeyConflict).count();
        let total: u32 = states.values().sum();
        writeln!(f, "{total} sagas: {states:?}")?;
        writeln!(f, "commands settled: {outcomes:?}, in {attempts} attempts")?;
        writeln!(f, "{} starts answered, {refused} of them refused for their key", evidence.starts.len())?;
        writeln!(
            f,
            "{commands} commands and {replies} replies heard, {genuine} with a genuine token; {junk} unreadable"
        )?;
        write!(
            f,
            "{history} rows of history, {audits} of audit, {} of inboxes; {} effects; {} sightings",
            evidence.inbox.len(),
            evidence.effects.len(),
            evidence.sightings.len()
        )
    }
}
