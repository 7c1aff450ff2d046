//! A participant of the SDK with a database of its own, whose handlers the test can hold, and which counts its effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use amends::broker::Broker;
use amends::id::SagaId;
use amends::participant::{Participant, RunningParticipant, StepError, Work, refuse};
use serde_json::{Value, json};
use sqlx::{PgPool, Postgres};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::eventually;

/// What is held, by step, with `undo:` before it for compensations; and what has reached its handler.
#[derive(Clone)]
struct Gate {
    held: watch::Sender<BTreeSet<String>>,
    inside: Arc<Mutex<BTreeSet<String>>>,
    refused: &'static [&'static str],
}

/// Carries out any of the actions that it was given. Stops when dropped.
pub struct Workshop {
    gate: Gate,
    pool: PgPool,
    running: RunningParticipant<Postgres>,
    stop: CancellationToken,
}

impl Workshop {
    /// Opens a workshop with these actions, which refuses those in `refused`. Nothing is taken from its queue before
    /// [`Workshop::work`].
    pub async fn new(
        broker: &Arc<dyn Broker>,
        name: &str,
        actions: &[&'static str],
        refused: &'static [&'static str],
    ) -> Self {
        let pool = PgPool::connect(&super::fresh_database().await).await.expect("the workshop's database answers");
        amends::participant::migrate(&pool).await.expect("the inbox is made");
        let table = "create table effects (saga uuid not null, place text not null, seq bigserial primary key)";
        sqlx::query(table).execute(&pool).await.expect("the effects have a table");
        let gate = Gate { held: watch::Sender::new(BTreeSet::new()), inside: Arc::default(), refused };
        let mut participant = Participant::named(name);
        for action in actions {
            let gate = gate.clone();
            participant = participant.action(*action, move |input: Value, work: Work<Postgres>| {
                let gate = gate.clone();
                async move { gate.carry_out(input, work).await }
            });
        }
        let running = participant.build(pool.clone(), broker.clone()).expect("a participant");
        Self { gate, pool, running, stop: CancellationToken::new() }
    }

    /// Takes commands from now on.
    pub fn work(&self) {
        let (running, stop) = (self.running.clone(), self.stop.clone());
        tokio::spawn(async move { running.run(stop).await.expect("it has its queue") });
    }

    /// Handlers of these places wait, before they do anything, until they are let go.
    pub fn hold(&self, places: &[&str]) {
        self.gate.held.send_replace(places.iter().map(|place| (*place).to_owned()).collect());
    }

    /// Lets all go.
    pub fn let_go(&self) {
        self.hold(&[]);
    }

    /// Waits until these, and no others, are in the hands of their handlers.
    pub async fn holds(&self, places: &[&str]) {
        let expected: BTreeSet<String> = places.iter().map(|place| (*place).to_owned()).collect();
        eventually(&format!("handlers hold {places:?}"), async || {
            (*self.gate.inside.lock().expect("no panic while locked") == expected).then_some(())
        })
        .await;
    }

    /// Every effect in the database: how often each place of each saga.
    pub async fn effects(&self) -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for (_, place) in self.all().await {
            *counted.entry(place).or_default() += 1;
        }
        counted
    }

    /// The places of every effect, in order.
    pub async fn order(&self) -> Vec<String> {
        self.all().await.into_iter().map(|(_, place)| place).collect()
    }

    async fn all(&self) -> Vec<(SagaId, String)> {
        let rows: Vec<(uuid::Uuid, String)> = sqlx::query_as("select saga, place from effects order by seq")
            .fetch_all(&self.pool)
            .await
            .expect("the effects are read");
        rows.into_iter().map(|(saga, place)| (SagaId(saga), place)).collect()
    }

    /// What the SDK counts.
    pub fn stats(&self) -> amends::participant::Stats {
        self.running.stats()
    }

    /// Commands whose key the inbox keeps as a tombstone.
    pub async fn tombstones(&self) -> Vec<String> {
        sqlx::query_scalar("select key from amends_inbox where status = 'tombstone' order by key")
            .fetch_all(&self.pool)
            .await
            .expect("the inbox is read")
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gate {
    async fn carry_out(self, input: Value, mut work: Work<Postgres>) -> Result<Value, StepError> {
        let command = work.command();
        let (saga, action) = (command.saga_id, command.action.clone());
        let place = format!("{}{}", if command.is_compensation { "undo:" } else { "" }, command.step);
        self.inside.lock().expect("no panic while locked").insert(place.clone());
        let mut held = self.held.subscribe();
        // The workshop is closed when its sender is gone.
        let _ = held.wait_for(|held| !held.contains(&place)).await;
        self.inside.lock().expect("no panic while locked").remove(&place);
        let sku = input["sku"].as_str().map(|sku| format!(":{sku}")).unwrap_or_default();
        if !place.starts_with("undo:") && self.refused.contains(&format!("{action}{sku}").as_str()) {
            return Err(refuse("no", "the test says so"));
        }
        sqlx::query("insert into effects (saga, place) values ($1, $2)")
            .bind(saga.0)
            .bind(&place)
            .execute(work.tx())
            .await?;
        Ok(json!({ "done": place, "heard": input }))
    }
}
