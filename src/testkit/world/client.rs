//! Callers and operators: they start sagas, say so again when nobody answered, send signals, and interfere.

use std::time::Duration;

use serde_json::json;

use super::bug::Bug;
use super::catalogue::Recipe;
use super::crew::World;
use super::evidence::{Request, Start, Told};
use super::sky::{Dice, Life, Place};
use crate::broker::{Broker, Published};
use crate::coordinator::{
    Coordinator, CoordinatorError, Deprecate, Migrate, Operate, OperatorAction, Start as Wanted, StartOutcome,
};
use crate::id::SagaId;
use crate::message::request::START_KEY;
use crate::message::{Envelope, Properties};
use crate::payload::Payload;
use crate::store::StoreError;

/// How long a caller goes on asking, from the beginning of the world.
const STAMINA: Duration = Duration::from_secs(90);

/// What the audit calls the operator.
const ACTOR: &str = "ann";

/// What operators do in worlds, as reports call it.
pub const OPERATORS_DO: &[&str] =
    &["abandon", "cancel", "compensate", "deprecate", "migrate", "pause", "resume", "retry", "skip", "undeprecate"];

/// One caller with one saga in mind.
pub(super) struct Caller {
    pub(super) world: World,
    pub(super) recipe: &'static Recipe,
    /// Makes the key.
    pub(super) number: u64,
    pub(super) coordinators: u8,
    pub(super) dice: Dice,
}

/// Whether what was asked for may have been done.
enum Answer<T> {
    Given(T),
    /// Nobody answered, or nobody could.
    None,
}

/// What a caller knows of a start.
#[derive(PartialEq)]
enum Heard {
    Saga(SagaId),
    Refused,
    /// It is to be asked for again.
    Nothing,
}

/// When callers have begun, in milliseconds.
fn early(storm: Duration) -> u64 {
    u64::try_from(storm.as_millis()).unwrap_or_default() * 2 / 3
}

impl Caller {
    pub(super) async fn run(self, storm: Duration) {
        let evidence = self.world.evidence.clone();
        self.call(storm).await;
        evidence.seen().callers -= 1;
    }

    /// The same for several sagas that one request starts.
    pub(super) async fn run_together(mut self, storm: Duration, count: u64) {
        tokio::time::sleep(self.dice.between(0, early(storm))).await;
        self.start_together(count).await;
        self.world.evidence.seen().callers -= 1;
    }

    async fn call(mut self, storm: Duration) {
        let (at, input) = (self.dice.between(0, early(storm)), self.recipe.input(self.number, &mut self.dice));
        let is_by_message = self.dice.happens(200);
        tokio::time::sleep(at).await;
        let input = Payload::from(input);
        let id = if is_by_message { self.request(&input).await } else { self.start(&input).await };
        if self.dice.happens(250) {
            // Once more, as callers do that were told and forgot.
            let wait = self.dice.between(0, 3_000);
            tokio::time::sleep(wait).await;
            self.start(&input).await;
        }
        if self.dice.happens(120) {
            let mut other = input.value().clone();
            other["other"] = json!(true);
            self.start(&Payload::from(other)).await;
        }
        let Some(id) = id else { return };
        if !self.recipe.definition.signals().is_empty() && self.dice.happens(850) {
            self.signal(id).await;
        }
        if self.dice.happens(400) {
            self.interfere(id).await;
        }
        if self.recipe.next.is_some() && self.dice.happens(250) {
            for _ in 0..3 {
                let wait = self.dice.between(0, 1_500);
                tokio::time::sleep(wait).await;
                self.migrate(id).await;
            }
        }
        if self.dice.happens(80) {
            self.deprecate().await;
        }
    }

    fn pick(&mut self) -> u8 {
        u8::try_from(self.dice.below(u64::from(self.coordinators))).unwrap_or_default()
    }

    /// Asks a coordinator, over a connection that may not be there, or be lost before the answer.
    async fn ask<T>(
        &mut self,
        request: impl AsyncFnOnce(Coordinator) -> Result<T, CoordinatorError>,
    ) -> Answer<Result<T, CoordinatorError>> {
        let n = self.pick();
        let sky = self.world.sky.clone();
        sky.travel().await;
        let reached = self.world.crew.coordinator(n).filter(|_| !sky.is_cut(Place::Client, Place::Coordinator(n)));
        let Some((coordinator, life)) = reached else { return Answer::None };
        sky.look(life.place);
        let answer = tokio::select! {
            biased;
            () = life.over() => return Answer::None,
            answer = request(coordinator) => answer,
        };
        sky.travel().await;
        if life.is_over() || sky.is_cut(Place::Client, Place::Coordinator(n)) {
            return Answer::None;
        }
        Answer::Given(answer)
    }

    /// Starts the saga, as often as it takes to be told what became of it.
    async fn start(&mut self, input: &Payload) -> Option<SagaId> {
        let name = self.recipe.definition.reference.name.clone();
        while self.world.sky.elapsed() < STAMINA {
            let wanted = Wanted { saga: name.clone(), version: None, input: input.clone(), key: None };
            let heard = match self.ask(async |coordinator| coordinator.start(wanted).await).await {
                Answer::Given(outcome) => self.heard(input, outcome),
                Answer::None => Heard::Nothing,
            };
            match heard {
                Heard::Saga(id) => return Some(id),
                Heard::Refused => return None,
                Heard::Nothing => self.pause().await,
            }
        }
        None
    }

    /// Starts several sagas at once, as often as it takes to be told what became of each.
    async fn start_together(&mut self, count: u64) {
        let number = self.number * 1_000;
        let inputs = (number..number + count).map(|n| Payload::from(self.recipe.input(n, &mut self.dice)));
        let inputs: Vec<Payload> = inputs.collect();
        let name = self.recipe.definition.reference.name.clone();
        let keys = inputs.iter().map(|input| self.recipe.definition.key_of(input).ok().flatten()).collect();
        if let Some(keys) = keys {
            self.world.evidence.seen().requests.push(Request { definition: name.clone(), keys });
        }
        while self.world.sky.elapsed() < STAMINA {
            let wanted =
                |input: &Payload| Wanted { saga: name.clone(), version: None, input: input.clone(), key: None };
            let wanted = inputs.iter().map(wanted).collect();
            let mut is_over = false;
            if let Answer::Given(Ok(outcomes)) = self.ask(async |it| Ok(it.start_many(wanted).await)).await {
                let heard = inputs.iter().zip(outcomes).map(|(input, outcome)| self.heard(input, outcome));
                is_over = !heard.collect::<Vec<_>>().contains(&Heard::Nothing);
            }
            if is_over {
                break;
            }
            self.pause().await;
        }
    }

    /// What a caller makes of an answer.
    fn heard(&self, input: &Payload, outcome: Result<StartOutcome, CoordinatorError>) -> Heard {
        match outcome {
            Ok(StartOutcome::Started { id, .. } | StartOutcome::Exists { id }) => {
                self.told(input, Told::Saga(id));
                Heard::Saga(id)
            }
            Err(CoordinatorError::KeyConflict { .. }) => {
                self.told(input, Told::Conflict);
                Heard::Refused
            }
            // Until whoever deprecated it thinks better of it.
            Err(CoordinatorError::VersionDeprecated { .. }) => Heard::Nothing,
            Err(error) if error.is_transient() => Heard::Nothing,
            Err(error) => {
                let name = &self.recipe.definition.reference.name;
                self.world.evidence.broken(0, format!("a start of {name} was refused: {error}"));
                Heard::Refused
            }
        }
    }

    fn told(&self, input: &Payload, told: Told) {
        let definition = &self.recipe.definition;
        self.world.sky.note(format_args!("a start of {} is answered: {told:?}", definition.reference.name));
        let start = Start {
            definition: definition.reference.name.clone(),
            key: definition.key_of(input).unwrap_or_default(),
            input_hash: input.canonical_hash(),
            told,
        };
        self.world.evidence.seen().starts.push(start);
    }

    async fn pause(&mut self) {
        let wait = self.dice.between(20, 1_000);
        tokio::time::sleep(wait).await;
    }

    /// Starts the saga by a message; what the broker has confirmed counts as accepted.
    async fn request(&mut self, input: &Payload) -> Option<SagaId> {
        let body = json!({ "saga": self.recipe.definition.reference.name, "input": input });
        let envelope = Envelope {
            exchange: "amends.requests".to_owned(),
            routing_key: START_KEY.to_owned(),
            mandatory: true,
            properties: Properties::default(),
            body: body.to_string().into_bytes(),
        };
        let channel = self.world.channel(&Life::new(Place::Client, 1));
        while self.world.sky.elapsed() < STAMINA {
            let outcome = channel.publish(vec![envelope.clone()]).await.pop();
            if outcome == Some(Published::Confirmed) {
                self.told(input, Told::Requested);
                break;
            }
            self.pause().await;
        }
        None
    }

    async fn signal(&mut self, id: SagaId) {
        let signals: Vec<String> = self.recipe.definition.signals().into_iter().map(str::to_owned).collect();
        for signal in signals {
            let wait = self.dice.between(0, 6_000);
            tokio::time::sleep(wait).await;
            for _ in 0..=self.dice.below(2) {
                let payload = Payload::from(json!({ "by": self.number }));
                let signal = signal.clone();
                self.ask(async |coordinator| coordinator.signal(id, signal, payload).await).await;
            }
        }
    }

    /// What operators do.
    async fn interfere(&mut self, id: SagaId) {
        for _ in 0..=self.dice.below(2) {
            let wait = self.dice.between(0, 3_000);
            tokio::time::sleep(wait).await;
            let action = match self.dice.below(14) {
                0..=2 => OperatorAction::Cancel,
                3..=5 => OperatorAction::Pause,
                6 => OperatorAction::Compensate,
                7 => OperatorAction::Retry { step: None },
                8 => OperatorAction::Abandon,
                9 => OperatorAction::Skip { step: None },
                10 | 11 => OperatorAction::Skip { step: self.some_step() },
                _ => {
                    self.migrate(id).await;
                    continue;
                }
            };
            let is_pause = action == OperatorAction::Pause;
            self.operate(id, action).await;
            if is_pause {
                let wait = self.dice.between(0, 4_000);
                tokio::time::sleep(wait).await;
                self.operate(id, OperatorAction::Resume).await;
            }
        }
    }

    fn some_step(&mut self) -> Option<String> {
        let steps = &self.recipe.definition.steps;
        let at = self.dice.below(steps.len() as u64);
        steps.get(usize::try_from(at).ok()?).map(|step| step.name.clone())
    }

    /// Moves the saga to the next version, if there is one by then, and what was sent allows it.
    async fn migrate(&mut self, id: SagaId) {
        let Some((_, next)) = &self.recipe.next else { return };
        let to = next.reference.version;
        let (actor, reason) = (ACTOR.to_owned(), self.reason());
        let wish = Migrate { id, to, actor, reason, expected_revision: None };
        if let Answer::Given(Ok(_)) = self.ask(async |coordinator| coordinator.migrate(wish).await).await {
            self.was_done(id, "migrate");
        }
    }

    /// Forbids new starts of a version for a while.
    async fn deprecate(&mut self) {
        let mut reference = self.recipe.definition.reference.clone();
        if self.dice.happens(500)
            && let Some((_, next)) = &self.recipe.next
        {
            reference = next.reference.clone();
        }
        self.world.evidence.seen().deprecated.insert(reference.name.clone());
        for is_deprecated in [true, false] {
            while self.world.sky.elapsed() < STAMINA {
                let (actor, reason) = (ACTOR.to_owned(), self.reason());
                let wish = Deprecate { reference: reference.clone(), is_deprecated, actor, reason };
                match self.ask(async |coordinator| coordinator.deprecate(wish).await).await {
                    Answer::Given(Ok(has_changed)) => {
                        let word = if is_deprecated { "deprecate" } else { "undeprecate" };
                        self.world.sky.note(format_args!("operator: {word} {reference}: {has_changed}"));
                        if has_changed {
                            self.world.evidence.seen().stood.push((reference.clone(), word));
                        }
                        break;
                    }
                    // The next version is not registered yet.
                    Answer::Given(Err(CoordinatorError::UnknownVersion { .. })) => return,
                    Answer::Given(Err(_)) | Answer::None => self.pause().await,
                }
            }
            let wait = self.dice.between(0, 4_000);
            tokio::time::sleep(wait).await;
        }
    }

    fn reason(&self) -> String {
        let is_silent = self.world.bug == Some(Bug::NoReason);
        if is_silent { String::new() } else { "why not".to_owned() }
    }

    fn was_done(&self, id: SagaId, word: &'static str) {
        self.world.sky.note(format_args!("operator: {word} {id}"));
        self.world.evidence.seen().operated.push((id, word));
    }

    /// Whether it was done, as far as is known.
    pub(super) async fn operate(&mut self, id: SagaId, action: OperatorAction) -> bool {
        let word = action.as_str();
        let wish = Operate { id, action, actor: ACTOR.to_owned(), reason: self.reason(), expected_revision: None };
        match self.ask(async |coordinator| coordinator.operate(wish).await).await {
            Answer::Given(Ok(_)) => {
                self.was_done(id, word);
                true
            }
            // Told that nothing was done, which is final.
            Answer::Given(Err(CoordinatorError::Store(StoreError::Unknown(_)))) | Answer::None => false,
            Answer::Given(Err(_)) => false,
        }
    }
}
