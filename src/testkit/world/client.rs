//! Callers and operators: they start sagas, say so again when nobody answered, send signals, and interfere.

use std::time::Duration;

use serde_json::json;

use super::catalogue::Recipe;
use super::crew::World;
use super::evidence::{Start, Told};
use super::sky::{Dice, Life, Place};
use crate::broker::{Broker, Published};
use crate::coordinator::{Coordinator, CoordinatorError, Operate, OperatorAction, Start as Wanted, StartOutcome};
use crate::id::SagaId;
use crate::message::request::START_KEY;
use crate::message::{Envelope, Properties};
use crate::payload::Payload;
use crate::store::StoreError;

/// How long a caller goes on asking, from the beginning of the world.
const STAMINA: Duration = Duration::from_secs(90);

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

impl Caller {
    pub(super) async fn run(self, storm: Duration) {
        let evidence = self.world.evidence.clone();
        self.call(storm).await;
        evidence.seen().callers -= 1;
    }

    async fn call(mut self, storm: Duration) {
        let (from, to) = (0, u64::try_from(storm.as_millis()).unwrap_or_default() * 2 / 3);
        let (at, input) = (self.dice.between(from, to), self.recipe.input(self.number, &mut self.dice));
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
        if self.dice.happens(300) {
            self.interfere(id).await;
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
            let told = match self.ask(async |coordinator| coordinator.start(wanted).await).await {
                Answer::Given(Ok(StartOutcome::Started { id, .. } | StartOutcome::Exists { id })) => Told::Saga(id),
                Answer::Given(Err(CoordinatorError::KeyConflict { .. })) => Told::Conflict,
                Answer::Given(Err(error)) if !error.is_transient() => {
                    self.world.evidence.broken(0, format!("a start of {name} was refused: {error}"));
                    return None;
                }
                Answer::Given(Err(_)) | Answer::None => {
                    self.pause().await;
                    continue;
                }
            };
            self.told(input, told);
            return match told {
                Told::Saga(id) => Some(id),
                _ => None,
            };
        }
        None
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
            let action = match self.dice.below(10) {
                0..=2 => OperatorAction::Cancel,
                3..=6 => OperatorAction::Pause,
                7 => OperatorAction::Compensate,
                8 => OperatorAction::Retry { step: None },
                _ => OperatorAction::Abandon,
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

    /// Whether it was done, as far as is known.
    pub(super) async fn operate(&mut self, id: SagaId, action: OperatorAction) -> bool {
        let (word, sky) = (action.as_str(), self.world.sky.clone());
        let wish =
            Operate { id, action, actor: "ann".to_owned(), reason: "why not".to_owned(), expected_revision: None };
        match self.ask(async |coordinator| coordinator.operate(wish).await).await {
            Answer::Given(Ok(_)) => {
                sky.note(format_args!("operator: {word} {id}"));
                self.world.evidence.seen().operated.push((id, word));
                true
            }
            // Told that nothing was done, which is final.
            Answer::Given(Err(CoordinatorError::Store(StoreError::Unknown(_)))) | Answer::None => false,
            Answer::Given(Err(_)) => false,
        }
    }
}
