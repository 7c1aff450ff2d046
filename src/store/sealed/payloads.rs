//! Where payloads are in what a store takes and gives.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::definition::COORDINATOR;
use crate::id::SagaId;
use crate::payload::Payload;
use crate::saga::{CompensationState, EventKind, Operation, Problem, ReplyOutcome, Saga, SagaState, StepState};
use crate::store::sealed::cipher::{Key, NoRandom, Pen, Sealed};
use crate::store::webhooks::{Delivery, NewDelivery};
use crate::store::{AuditRecord, HistoryRecord, NewCommand, OutboxEntry, SagaRecord, SettledCommand};

/// Why a payload cannot be opened, or encrypted.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// Its data key is not known.
    Unknown(Uuid),
    /// It is not what was encrypted for this place.
    Broken(String),
    /// There is no random source.
    NoRandom,
}

impl From<NoRandom> for Trouble {
    fn from(_: NoRandom) -> Self {
        Self::NoRandom
    }
}

/// What is done with each payload and each problem.
pub(super) trait Hand {
    /// `place` is what it is bound to; `saga` stays readable in it.
    fn payload(&mut self, payload: &mut Payload, place: &str, saga: Option<&str>) -> Result<(), Trouble>;

    fn problem(&mut self, problem: &mut Problem, place: &str) -> Result<(), Trouble>;
}

/// Something with payloads in it.
pub(super) trait Payloads {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble>;
}

/// Encrypts.
pub(super) struct Seal<'a>(pub(super) &'a Pen);

/// Title and detail of a problem.
#[derive(Serialize, Deserialize)]
struct Told {
    t: String,
    d: Option<String>,
}

impl Hand for Seal<'_> {
    fn payload(&mut self, payload: &mut Payload, place: &str, saga: Option<&str>) -> Result<(), Trouble> {
        *payload = Payload::trusted(self.0.seal(payload.text(), place, saga)?);
        Ok(())
    }

    fn problem(&mut self, problem: &mut Problem, place: &str) -> Result<(), Trouble> {
        if problem.title.is_empty() && problem.detail.is_none() {
            return Ok(());
        }
        let told = Told { t: std::mem::take(&mut problem.title), d: problem.detail.take() };
        let told = serde_json::to_string(&told).map_err(|_| NoRandom)?;
        problem.detail = Some(self.0.seal(&told, place, None)?);
        Ok(())
    }
}

/// Finds the data keys that are needed.
#[derive(Default)]
pub(super) struct Find(pub(super) BTreeSet<Uuid>);

impl Hand for Find {
    fn payload(&mut self, payload: &mut Payload, _: &str, _: Option<&str>) -> Result<(), Trouble> {
        self.0.extend(Sealed::read(payload.text()).map(|sealed| sealed.key));
        Ok(())
    }

    fn problem(&mut self, problem: &mut Problem, _: &str) -> Result<(), Trouble> {
        self.0.extend(problem.detail.as_deref().and_then(Sealed::read).map(|sealed| sealed.key));
        Ok(())
    }
}

/// Decrypts. What is not encrypted, since it was written before, is left as it is.
pub(super) struct Open<'a>(pub(super) &'a HashMap<Uuid, Key>);

impl Open<'_> {
    fn text(&self, text: &str, place: &str) -> Result<Option<String>, Trouble> {
        let Some(sealed) = Sealed::read(text) else { return Ok(None) };
        let key = self.0.get(&sealed.key).ok_or(Trouble::Unknown(sealed.key))?;
        sealed.open(key, place).map(Some).map_err(|_| Trouble::Broken(place.to_owned()))
    }
}

impl Hand for Open<'_> {
    fn payload(&mut self, payload: &mut Payload, place: &str, _: Option<&str>) -> Result<(), Trouble> {
        if let Some(text) = self.text(payload.text(), place)? {
            *payload = Payload::trusted(text);
        }
        Ok(())
    }

    fn problem(&mut self, problem: &mut Problem, place: &str) -> Result<(), Trouble> {
        let Some(detail) = problem.detail.as_deref() else { return Ok(()) };
        if let Some(text) = self.text(detail, place)? {
            let told: Told = serde_json::from_str(&text).map_err(|_| Trouble::Broken(place.to_owned()))?;
            (problem.title, problem.detail) = (told.t, told.d);
        }
        Ok(())
    }
}

/// Puts a remark in the place of what cannot be opened.
pub(super) struct Mask<'a>(pub(super) &'a str);

impl Hand for Mask<'_> {
    fn payload(&mut self, payload: &mut Payload, _: &str, _: Option<&str>) -> Result<(), Trouble> {
        if Sealed::read(payload.text()).is_some() {
            *payload = Payload::from(Value::from(self.0));
        }
        Ok(())
    }

    fn problem(&mut self, problem: &mut Problem, _: &str) -> Result<(), Trouble> {
        if problem.detail.as_deref().and_then(Sealed::read).is_some() {
            problem.detail = Some(self.0.to_owned());
        }
        Ok(())
    }
}

/// All but its input, which is written once.
pub(super) fn but_input(saga: &mut Saga, hand: &mut dyn Hand) -> Result<(), Trouble> {
    let id = saga.id;
    // Each by its name: who adds something with a payload in it is asked about it here.
    let Saga {
        id: _,
        definition: _,
        key: _,
        input: _,
        state,
        paused: _,
        revision: _,
        next_seq: _,
        steps,
        deadline: _,
        cause,
        output,
        outputs,
        reads_outputs: _,
        signals,
        parent: _,
        trace: _,
        created_at: _,
        updated_at: _,
        ended_at: _,
    } = saga;
    if let Some(output) = output {
        hand.payload(output, &format!("{id}/output"), None)?;
    }
    for (name, payload) in signals {
        hand.payload(payload, &format!("{id}/signal/{name}"), None)?;
    }
    for output in outputs.values_mut() {
        hand.payload(output, &step_output(id), None)?;
    }
    if let SagaState::Stuck(stuck) = state {
        hand.problem(&mut stuck.problem, &format!("{id}/stuck"))?;
    }
    if let Some(cause) = cause {
        hand.problem(cause, &format!("{id}/cause"))?;
    }
    let place = format!("{id}/steps");
    for step in steps {
        let problem = match step {
            StepState::Pending { command }
            | StepState::Compensating { compensation: CompensationState::Pending { command }, .. } => {
                command.last.as_mut()
            }
            StepState::Failed { problem, .. }
            | StepState::Unknown { problem, .. }
            | StepState::Compensating {
                compensation: CompensationState::Failed { problem, .. } | CompensationState::Unknown { problem, .. },
                ..
            } => Some(problem),
            StepState::Waiting
            | StepState::Verified { .. }
            | StepState::Skipped { .. }
            | StepState::Compensated { .. } => None,
        };
        if let Some(problem) = problem {
            hand.problem(problem, &place)?;
        }
    }
    Ok(())
}

/// A saga is loaded with what its steps put out by step, not by command: all of them have one place.
fn step_output(id: SagaId) -> String {
    format!("{id}/out")
}

impl Payloads for Saga {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        hand.payload(&mut self.input, &format!("{}/input", self.id), None)?;
        but_input(self, hand)
    }
}

/// The definition that a command for a sub-saga names, by which the families of sagas are found.
fn child(participant: &str, body: &Payload) -> Option<String> {
    (participant == COORDINATOR).then(|| body.value().get("saga")?.as_str().map(str::to_owned)).flatten()
}

impl Payloads for NewCommand {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        let child = child(&self.participant, &self.body);
        let place = format!("{}/body/{}", self.id.saga, self.id.seq);
        hand.payload(&mut self.body, &place, child.as_deref())
    }
}

impl Payloads for SettledCommand {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        let (saga, seq) = (self.saga, self.settled.seq);
        if let Some(output) = &mut self.settled.output {
            hand.payload(output, &step_output(saga), None)?;
        }
        if let Some(problem) = &mut self.settled.problem {
            hand.problem(problem, &format!("{saga}/problem/{seq}"))?;
        }
        Ok(())
    }
}

impl Payloads for OutboxEntry {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        let (saga, seq) = (self.id.saga, self.id.seq);
        hand.payload(&mut self.body, &format!("{saga}/body/{seq}"), None)?;
        let Some(verified) = &mut self.verified else { return Ok(()) };
        if let Some(output) = &mut verified.output {
            hand.payload(output, &step_output(saga), None)?;
        }
        if let Some(problem) = &mut verified.problem {
            hand.problem(problem, &format!("{saga}/problem/{seq}"))?;
        }
        Ok(())
    }
}

impl Payloads for SagaRecord {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        self.saga.visit(hand)?;
        self.commands.iter_mut().try_for_each(|entry| entry.visit(hand))
    }
}

/// What a webhook is told has the words of participants in it.
fn told(body: &mut String, saga: SagaId, id: Uuid, hand: &mut dyn Hand) -> Result<(), Trouble> {
    let mut payload = Payload::trusted(std::mem::take(body));
    let done = hand.payload(&mut payload, &format!("{saga}/webhook/{id}"), None);
    *body = payload.text().to_owned();
    done
}

impl Payloads for NewDelivery {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        told(&mut self.body, self.saga, self.id, hand)
    }
}

impl Payloads for Delivery {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        told(&mut self.body, self.saga, self.id, hand)
    }
}

/// Hashes of payloads in an audit row, keyed: whoever has the database, but not the key, can try no guesses against them.
pub(super) fn key_hashes(audit: &mut AuditRecord, key: &Key) {
    let mut detail = audit.detail.value().clone();
    if keyed(&mut detail, key) {
        audit.detail = Payload::from(detail);
    }
}

fn keyed(value: &mut Value, key: &Key) -> bool {
    let Value::Object(members) = value else { return false };
    let mut is_changed = false;
    for (name, value) in members {
        let hash = value.as_str().filter(|_| name == "sha256").and_then(|hash| hex::decode(hash).ok()?.try_into().ok());
        is_changed |= match hash {
            Some(hash) => {
                *value = hex::encode(key.keyed(&hash)).into();
                true
            }
            None => keyed(value, key),
        };
    }
    is_changed
}

impl Payloads for HistoryRecord {
    fn visit(&mut self, hand: &mut dyn Hand) -> Result<(), Trouble> {
        let place = format!("{}/event/{}", self.saga, self.revision);
        match &mut self.event {
            EventKind::Signalled { payload, .. } => hand.payload(payload, &place, None),
            EventKind::Replied { outcome, .. } => match outcome {
                ReplyOutcome::Success { output } => hand.payload(output, &place, None),
                ReplyOutcome::Failure { problem } | ReplyOutcome::Retry { problem, .. } => {
                    hand.problem(problem, &place)
                }
                ReplyOutcome::InProgress => Ok(()),
            },
            EventKind::Operated { operation } => match operation {
                Operation::Edit { input, .. } => hand.payload(input, &place, None),
                Operation::Retry { .. }
                | Operation::Skip { .. }
                | Operation::Compensate
                | Operation::Pause
                | Operation::Resume
                | Operation::Cancel
                | Operation::Abandon => Ok(()),
            },
            EventKind::Started
            | EventKind::Published { .. }
            | EventKind::HeldBack { .. }
            | EventKind::Released { .. }
            | EventKind::Due
            | EventKind::Asked { .. }
            | EventKind::Entombed { .. }
            | EventKind::ParentEnded
            | EventKind::Migrated { .. } => Ok(()),
        }
    }
}
