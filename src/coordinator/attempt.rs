//! One try to commit a batch.

use std::collections::HashSet;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::future::{MaybeDone, maybe_done};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::coordinator::milestones::Milestones;
use crate::coordinator::plan::{Plan, Sources, plan};
use crate::coordinator::work::{Item, Waiting};
use crate::failpoint::{self, Point};
use crate::id::{CommandId, SagaId};
use crate::store::{Committed, Locking, Store, StoreError, Wants};

/// What is to be committed, and how.
pub(super) struct Try {
    pub(super) items: Arc<Vec<Item>>,
    /// Confirms to write down with it.
    pub(super) ripe: Vec<(CommandId, u32)>,
    /// How many due sagas it claims at most.
    pub(super) due: u32,
    pub(super) locking: Locking,
}

type Outcome = Pin<Box<dyn Future<Output = Result<(Committed, Plan), StoreError>> + Send>>;

/// A try that is under way.
pub(super) struct Begun {
    pub(super) of: Try,
    /// Who waits for each item.
    pub(super) waiting: Vec<Waiting>,
    pub(super) began: Instant,
    /// Begins when it is first polled. What the store was asked for then comes to its end in any case.
    pub(super) outcome: Outcome,
}

impl Begun {
    pub(super) fn new(store: Arc<dyn Store>, sources: Arc<Sources>, of: Try, waiting: Vec<Waiting>) -> Self {
        let (items, ripe) = (of.items.clone(), of.ripe.clone());
        let outcome = Box::pin(attempt(store, sources, items, ripe, of.due, of.locking));
        Self { of, waiting, began: Instant::now(), outcome }
    }

    /// The same, going on also while nobody waits for it.
    pub(super) fn on_its_own(self) -> OnItsOwn {
        OnItsOwn { of: self.of, waiting: self.waiting, task: maybe_done(tokio::spawn(self.outcome)) }
    }
}

/// A try that goes on by itself, ahead of its turn or beside others.
pub(super) struct OnItsOwn {
    of: Try,
    waiting: Vec<Waiting>,
    task: MaybeDone<JoinHandle<Result<(Committed, Plan), StoreError>>>,
}

impl OnItsOwn {
    /// Waits until it has come to something; may be dropped and asked again.
    pub(super) async fn has_ended(&mut self) {
        (&mut self.task).await;
    }

    /// Now it is waited for.
    pub(super) fn turn(self) -> Begun {
        // What it waited for its turn is no time of its own.
        let Self { of, waiting, mut task } = self;
        let began = Instant::now();
        let outcome = Box::pin(async move {
            (&mut task).await;
            match Pin::new(&mut task).take_output() {
                Some(Ok(outcome)) => outcome,
                Some(Err(error)) => Err(StoreError::Unknown(error.to_string())),
                None => Err(StoreError::Unknown("it was waited for before".to_owned())),
            }
        });
        Begun { of, waiting, began, outcome }
    }
}

/// Waits until it has come to something; for ever, if there is none.
pub(super) async fn has_ended(begun: &mut Option<OnItsOwn>) {
    match begun {
        Some(begun) => begun.has_ended().await,
        None => pending().await,
    }
}

async fn attempt(
    store: Arc<dyn Store>,
    sources: Arc<Sources>,
    items: Arc<Vec<Item>>,
    ripe: Vec<(CommandId, u32)>,
    due: u32,
    locking: Locking,
) -> Result<(Committed, Plan), StoreError> {
    let mut sagas: Vec<SagaId> = items.iter().filter_map(Item::saga).collect();
    if !ripe.is_empty() {
        let ids: Vec<CommandId> = ripe.iter().map(|(command, _)| *command).collect();
        // Another coordinator may have heard the replies: then there is nothing to write down, and what is remembered of the
        // sagas here no longer holds.
        let settled: HashSet<CommandId> = store.settled(&ids).await?.into_iter().collect();
        if !settled.is_empty() {
            sources.gates.overheard();
        }
        sagas.extend(ids.iter().filter(|id| !settled.contains(id)).map(|id| id.saga));
    }
    sagas.sort_unstable();
    sagas.dedup();
    let planned = Arc::new(Mutex::new(None));
    let (of_plan, slot) = (sources.clone(), planned.clone());
    let passed = Arc::new(Mutex::new(Milestones::default()));
    let milestones = passed.clone();
    let decide = Box::new(move |loaded| {
        let (changes, plan) = plan(&items, loaded, &of_plan);
        failpoint::reached_if(plan.claimed > 0, Point::TimerFired);
        if let Ok(mut slot) = milestones.lock() {
            *slot = Milestones::of(&changes);
        }
        if let Ok(mut slot) = slot.lock() {
            *slot = Some(plan);
        }
        changes
    });
    let committed = store.commit(Wants { sagas, due, locking }, decide).await?;
    if let Ok(passed) = passed.lock() {
        passed.reached();
    }
    sources.confirms.forget(&ripe);
    let plan = planned.lock().ok().and_then(|mut slot| slot.take());
    plan.map(|plan| (committed, plan)).ok_or_else(|| StoreError::Conflict("the store did not decide".to_owned()))
}
