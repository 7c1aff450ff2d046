//! A whole deployment in one thread, on virtual time: real coordinators with the real state machine, participants that
//! run the SDK's own rules and runner, clients and operators; around them a store, a broker and databases that fail as
//! the real ones do. A seed decides everything: one seed is one run, bit for bit.
//!
//! For a while there is a storm, drawn from the seed: crashes, partitions, lost, doubled and overtaken messages, lost
//! COMMITs, jumping clocks. Then it is quiet, everything must come to an end, and the `judge` decides from what was
//! seen whether every guarantee held.

mod broker;
mod bug;
mod catalogue;
mod client;
mod crew;
mod evidence;
mod fault;
mod judge;
mod ledger;
mod many;
mod sky;
mod store;
mod weather;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use bug::Bug;
pub use client::OPERATORS_DO;
pub use evidence::Violation;
pub use fault::FAULTS;
pub use many::{Many, Seeds, Tally};

use crate::broker::{Broker, Topology};
use crate::coordinator::{Limits, OperatorAction};
use crate::definition::Definition;
use crate::id::{DefinitionRef, DrawnIds, SagaId};
use crate::message::command::idempotency_key;
use crate::message::{Command, TokenKey, TokenKeys};
use crate::saga::{Saga, SagaState};
use crate::store::{DefinitionRecord, Page, SagaFilter, SagaSummary, Store, StoreError};
use crate::testkit::simulation::retry_budget;

use catalogue::Recipe;
use client::Caller;
use crew::{Crew, World};
use evidence::Evidence;
use fault::Strikes;
use ledger::Database;
use sky::{Dice, Sky};

/// What guarantee 16 allows beyond the retry budget, and what may be on its way for so long when the storm is over.
const SLACK: Duration = Duration::from_secs(60 + 12);
/// How often it is looked whether everything has come to rest.
const LOOK: Duration = Duration::from_millis(500);

/// What became of one world.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The hash of everything that happened, in order.
    pub hash: u64,
    /// How many sagas ended in which state.
    pub ends: BTreeMap<&'static str, u64>,
    /// Commands that were published, repetitions included.
    pub commands: u64,
    /// Transactions of the coordinators that changed something.
    pub commits: u64,
    /// How often each kind of fault struck.
    pub fired: BTreeMap<&'static str, u64>,
    /// How often operators did what, as far as they were told.
    pub operated: BTreeMap<&'static str, u64>,
    /// What was found wrong.
    pub violations: Vec<Violation>,
    /// How long it took, on its own clock.
    pub took: Duration,
    /// Everything that happened, where it was asked for.
    pub trace: Vec<String>,
}

/// Runs the world of a seed, on a runtime of its own. `bug` is planted into it; with `keeps_trace` the outcome says
/// everything that happened.
///
/// # Errors
/// When the operating system does not allow a runtime, or the simulated store contradicts itself.
pub fn run(seed: u64, bug: Option<Bug>, keeps_trace: bool) -> Result<Outcome, StoreError> {
    let failed = |error: std::io::Error| StoreError::Refused(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_time().start_paused(true).build().map_err(failed)?;
    runtime.block_on(live(seed, bug, keeps_trace))
}

/// What the dice give a world before it begins.
struct Cast {
    recipes: Vec<&'static Recipe>,
    coordinators: u8,
    callers: u64,
    storm: Duration,
    /// When the next version of a definition is registered.
    next_version: Option<Duration>,
    has_events: bool,
    /// Whether the store has a clock; otherwise each coordinator goes by its own.
    has_clock: bool,
    /// How many messages may wait in a participant's queue.
    window: u32,
    /// How many sagas one more caller starts with one request, if there is one.
    together: Option<u64>,
}

impl Cast {
    fn drawn(dice: &mut Dice, window: u32, together: Option<u64>) -> Self {
        let mut recipes = Vec::new();
        for _ in 0..=dice.below(2) {
            let at = if dice.below(3) == 0 { dice.below(5) } else { dice.below(catalogue::count() as u64) };
            recipes.extend(catalogue::recipe(usize::try_from(at).unwrap_or_default()));
        }
        recipes.dedup_by_key(|recipe| &recipe.definition.reference);
        let next = dice.between(0, 3_000);
        Self {
            recipes,
            coordinators: 1 + u8::try_from(dice.below(3)).unwrap_or_default(),
            callers: 2 + dice.below(4),
            storm: dice.between(1_000, 10_000),
            next_version: (dice.below(2) == 0).then_some(next),
            has_events: dice.below(4) == 0,
            has_clock: dice.below(3) > 0,
            window,
            together,
        }
    }

    /// What takes part, sub-sagas included.
    fn all(&self) -> Vec<&'static Recipe> {
        let children = self.recipes.iter().flat_map(|recipe| recipe.children.iter().copied());
        let mut all: Vec<&'static Recipe> = self.recipes.iter().copied().chain(children).collect();
        all.sort_by_key(|recipe| &recipe.definition.reference);
        all.dedup_by_key(|recipe| &recipe.definition.reference);
        all
    }
}

/// So small in half of all worlds that it binds all the time.
fn window(seed: u64) -> u32 {
    // By dice of its own, so that the rest of a world does not depend on it.
    let mut dice = Dice::of(seed, 9);
    match dice.below(2) {
        0 => 1 + u32::try_from(dice.below(4)).unwrap_or_default(),
        _ => Limits::default().window,
    }
}

/// In a third of all worlds.
fn together(seed: u64) -> Option<u64> {
    let mut dice = Dice::of(seed, 10);
    (dice.below(3) == 0).then(|| 2 + dice.below(4))
}

async fn live(seed: u64, bug: Option<Bug>, keeps_trace: bool) -> Result<Outcome, StoreError> {
    let mut dice = Dice::of(seed, 0);
    let cast = Cast::drawn(&mut dice, window(seed), together(seed));
    let all = cast.all();
    let sky = Sky::new(seed, Strikes::drawn(&mut dice), keeps_trace);
    let evidence = Evidence::default();
    let world = World {
        server: store::Server::new(sky.clone(), evidence.clone(), bug, cast.has_clock),
        exchange: broker::Exchange::new(sky.clone(), evidence.clone(), bug),
        compiled: Arc::new(all.iter().flat_map(|recipe| recipe.in_mind(bug)).collect()),
        ids: DrawnIds::of(seed),
        has_events: cast.has_events,
        window: cast.window,
        crew: Crew::default(),
        sky,
        evidence,
        bug,
    };
    let mut definitions: BTreeMap<DefinitionRef, Arc<Definition>> = BTreeMap::new();
    for recipe in &all {
        let versions = std::iter::once(&recipe.definition).chain(recipe.next.iter().map(|(_, next)| next));
        definitions.extend(versions.map(|definition| (definition.reference.clone(), definition.clone())));
        world.register(&recipe.source, &recipe.definition).await?;
    }
    world.token_keys().await?;
    world.skew(cast.coordinators);
    world.populate(&cast, &definitions).await;
    let caller = |recipe, number| {
        let (world, coordinators, dice) = (world.clone(), cast.coordinators, Dice::of(seed, 100 + number));
        world.evidence.seen().callers += 1;
        Caller { world, recipe, number, coordinators, dice }
    };
    for number in 0..cast.callers {
        let recipe = cast.recipes[usize::try_from(dice.below(cast.recipes.len() as u64)).unwrap_or_default()];
        tokio::spawn(caller(recipe, number).run(cast.storm));
    }
    if let Some(count) = cast.together {
        tokio::spawn(caller(cast.recipes[0], cast.callers).run_together(cast.storm, count));
    }
    if let (Some(at), Some(recipe)) = (cast.next_version, cast.recipes.first())
        && let Some((source, next)) = &recipe.next
    {
        let world = world.clone();
        tokio::spawn(async move {
            tokio::time::sleep(at).await;
            world.sky.note(format_args!("{} is registered", next.reference));
            drop(world.register(source, next).await);
        });
    }
    tokio::spawn(world.clone().storm(cast.storm));
    if bug == Some(Bug::CompletedUndone) {
        tokio::spawn(world.clone().undo_what_is_complete(definitions.clone()));
    }
    world.rest(&cast, &definitions).await?;
    world.outcome(seed, &definitions).await
}

/// Whether nothing but a person moves it.
fn is_still(saga: &Saga) -> bool {
    saga.state.is_terminal() || saga.state.stuck().is_some() && saga.due().is_none()
}

/// Whether it waits for a relative that waits for a person: for a sub-saga of its own, or, being done, for the end of the
/// saga that started it.
fn waits_for_stuck(saga: &Saga, all: &[SagaSummary]) -> bool {
    let is_parent_of = |parent: &Saga, child: &Saga| child.parent.as_ref().is_some_and(|of| of.saga == parent.id);
    all.iter().map(|summary| &summary.saga).any(|other| {
        let is_relative = is_parent_of(saga, other) || saga.held().is_some() && is_parent_of(other, saga);
        is_relative && other.state.stuck().is_some() && is_still(other)
    })
}

impl World {
    async fn register(&self, source: &str, definition: &Definition) -> Result<(), StoreError> {
        let record = DefinitionRecord {
            reference: definition.reference.clone(),
            hash: definition.hash,
            source: source.to_owned(),
            registered_at: self.sky.now(),
            registered_by: "ann".to_owned(),
            deprecated: None,
        };
        self.server.memory().register(&record).await?;
        self.evidence.seen().registered.insert(definition.reference.clone());
        Ok(())
    }

    /// With a bug: a coordinator that has missed the end of what it undoes.
    async fn undo_what_is_complete(self, definitions: BTreeMap<DefinitionRef, Arc<Definition>>) {
        let mut undone = BTreeSet::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let undo = |sent: &Command| {
                let definition = definitions.get(&sent.definition)?;
                let undo = definition.step(definition.find(&sent.step)?).compensation.action()?;
                let key = idempotency_key(sent.saga_id, &sent.step, "compensation", 1);
                let (action, compensates) = (undo.action.clone(), Some(sent.key.clone()));
                Some(Command { action, is_compensation: true, key, compensates, ..sent.clone() })
            };
            let undos: Vec<Command> = {
                let seen = self.evidence.seen();
                let complete = seen.sightings.iter().filter(|saga| saga.state == SagaState::Completed);
                let complete: BTreeSet<SagaId> = complete.map(|saga| saga.id).collect();
                seen.published.values().filter(|sent| complete.contains(&sent.saga_id)).filter_map(undo).collect()
            };
            for undo in undos {
                if undone.insert(undo.key.clone()) {
                    self.exchange.put(undo.encode()).await;
                }
            }
        }
    }

    async fn token_keys(&self) -> Result<(), StoreError> {
        let keys: Vec<TokenKey> = self.server.memory().token_keys([42; 32]).await?;
        self.evidence.seen().keys = TokenKeys::new(keys);
        Ok(())
    }

    /// Starts every process.
    async fn populate(&self, cast: &Cast, definitions: &BTreeMap<DefinitionRef, Arc<Definition>>) {
        let mut actions: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for definition in definitions.values() {
            for step in definition.steps.iter().filter(|step| step.work == crate::definition::Work::Command) {
                let known = actions.entry(step.participant.clone()).or_default();
                known.push(step.action.clone());
                known.extend(step.compensation.action().map(|undo| undo.action.clone()));
            }
        }
        // The broker has its exchanges and queues from before.
        let mut topology = Topology::coordinator();
        for name in actions.keys() {
            topology.merge(Topology::participant(name));
        }
        drop(self.exchange.queues.declare(&topology).await);
        let mut place = 0;
        for (name, mut actions) in actions {
            actions.sort_unstable();
            actions.dedup();
            let database = Database::new(self.sky.clone(), self.evidence.clone(), self.bug);
            self.evidence.seen().databases.insert(name.clone(), database.clone());
            for _ in 0..=self.sky.dice(|dice| dice.below(2)) {
                place += 1;
                let (world, name, actions) = (self.clone(), name.clone(), actions.clone());
                tokio::spawn(world.take_part(place, name, actions, database.clone()));
            }
        }
        for n in 0..cast.coordinators {
            tokio::spawn(self.clone().coordinate(n));
        }
    }

    /// Waits until the storm is over and everything has come to rest, or has had time enough for it.
    async fn rest(
        &self,
        cast: &Cast,
        definitions: &BTreeMap<DefinitionRef, Arc<Definition>>,
    ) -> Result<(), StoreError> {
        tokio::time::sleep(cast.storm + LOOK).await;
        let budget: Duration = definitions.values().map(|definition| retry_budget(definition)).sum();
        let limit = self.sky.quiet_since().unwrap_or(cast.storm) + budget + SLACK;
        let mut operator = Caller {
            world: self.clone(),
            recipe: cast.recipes[0],
            number: 0,
            coordinators: cast.coordinators,
            dice: Dice::of(0, 99),
        };
        let mut retried = BTreeSet::new();
        let mut calm = 0;
        while calm < 4 {
            tokio::time::sleep(LOOK).await;
            let page = Page { after: None, limit: u32::MAX };
            let sagas = self.server.memory().sagas(&SagaFilter::default(), &page).await?;
            let mut is_at_rest = self.exchange.is_idle().await && self.evidence.seen().callers == 0;
            for summary in &sagas {
                let saga = &summary.saga;
                if saga.paused {
                    is_at_rest = false;
                    operator.operate(saga.id, OperatorAction::Resume).await;
                } else if saga.state.stuck().is_some() && saga.id.0.as_u128() % 2 == 0 && !retried.contains(&saga.id) {
                    is_at_rest = false;
                    if operator.operate(saga.id, OperatorAction::Retry { step: None }).await {
                        retried.insert(saga.id);
                    }
                }
                is_at_rest &= is_still(saga) || waits_for_stuck(saga, &sagas);
            }
            calm = if is_at_rest { calm + 1 } else { 0 };
            if self.sky.elapsed() > limit {
                for summary in sagas.iter().filter(|summary| !summary.saga.state.is_terminal()) {
                    let saga = &summary.saga;
                    if !is_still(saga) && !waits_for_stuck(saga, &sagas) {
                        self.evidence.broken(16, format!("saga {}: still {}", saga.id, saga.state.as_str()));
                    }
                }
                break;
            }
        }
        Ok(())
    }

    async fn outcome(
        &self,
        seed: u64,
        definitions: &BTreeMap<DefinitionRef, Arc<Definition>>,
    ) -> Result<Outcome, StoreError> {
        let seen = std::mem::take(&mut *self.evidence.seen());
        let verdict = judge::judge(self.server.memory(), &seen, definitions).await?;
        for (state, count) in &verdict.ends {
            self.sky.note(format_args!("{count} {state}"));
        }
        for violation in &verdict.violations {
            self.sky.note(format_args!("VIOLATION {}: {}", violation.guarantee, violation.what));
        }
        let mut operated = BTreeMap::new();
        let words = seen.operated.iter().map(|(_, word)| word).chain(seen.stood.iter().map(|(_, word)| word));
        words.for_each(|word| *operated.entry(*word).or_default() += 1);
        let (hash, trace) = self.sky.trace();
        Ok(Outcome {
            seed,
            hash,
            ends: verdict.ends,
            commands: seen.commands,
            commits: seen.commits,
            fired: self.sky.fired(),
            operated,
            violations: verdict.violations.into_iter().collect(),
            took: self.sky.elapsed(),
            trace,
        })
    }
}
