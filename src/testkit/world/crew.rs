//! The processes of a world: each lives until it crashes, and comes back after a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::broker::{Channel, Exchange};
use super::bug::Bug;
use super::evidence::Evidence;
use super::ledger::{Database, SimLedger, Work, heartbeat};
use super::sky::{Life, Place, Sky};
use super::store::{Connection, Server};
use crate::coordinator::{self, Coordinator, CoordinatorOptions};
use crate::definition::Definition;
use crate::id::{DrawnIds, Ids};
use crate::participant::{Limits, Runner};

/// Everything there is. Clones are the same world.
#[derive(Clone)]
pub(super) struct World {
    pub(super) sky: Sky,
    pub(super) evidence: Evidence,
    pub(super) server: Server,
    pub(super) exchange: Exchange,
    pub(super) bug: Option<Bug>,
    pub(super) ids: DrawnIds,
    /// What the coordinators have in mind.
    pub(super) compiled: Arc<Vec<Arc<Definition>>>,
    pub(super) has_events: bool,
    /// How many messages may wait in a participant's queue.
    pub(super) window: u32,
    pub(super) crew: Crew,
}

/// Who is there. Clones are the same crew.
#[derive(Clone, Default)]
pub(super) struct Crew(Arc<Mutex<Roll>>);

#[derive(Default)]
pub(super) struct Roll {
    lives: BTreeMap<Place, Life>,
    coordinators: BTreeMap<u8, Coordinator>,
    stops: BTreeMap<u8, Arc<Notify>>,
}

impl Crew {
    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every process that could crash.
    pub(super) fn places(&self) -> Vec<Place> {
        self.roll().lives.keys().copied().collect()
    }

    pub(super) fn crash(&self, place: Place) {
        if let Some(life) = self.roll().lives.get(&place) {
            life.die();
        }
    }

    pub(super) fn stop(&self, coordinator: u8) {
        if let Some(stop) = self.roll().stops.get(&coordinator) {
            stop.notify_waiters();
        }
    }

    /// A coordinator that serves, with the life that it has.
    pub(super) fn coordinator(&self, n: u8) -> Option<(Coordinator, Life)> {
        let roll = self.roll();
        let life = roll.lives.get(&Place::Coordinator(n)).filter(|life| !life.is_over())?;
        Some((roll.coordinators.get(&n)?.clone(), life.clone()))
    }
}

impl World {
    pub(super) fn channel(&self, life: &Life) -> Arc<Channel> {
        Arc::new(Channel { exchange: self.exchange.clone(), life: life.clone() })
    }

    fn begin(&self, place: Place, number: u32) -> Life {
        let life = Life::new(place, number);
        self.crew.roll().lives.insert(place, life.clone());
        self.sky.note(format_args!("{place} begins life {number}"));
        life
    }

    async fn end(&self, life: &Life) {
        life.die();
        self.sky.note(format_args!("{} is no more", life.place));
        self.exchange.disconnect(|other| other.is_over());
        self.sky.sleep(50, 3_000).await;
    }

    /// Coordinator `n`, one life after another.
    pub(super) async fn coordinate(self, n: u8) {
        let place = Place::Coordinator(n);
        let stop = Arc::new(Notify::new());
        self.crew.roll().stops.insert(n, stop.clone());
        for number in 1.. {
            let life = self.begin(place, number);
            let launched = tokio::select! {
                biased;
                () = life.over() => None,
                coordinator = self.launch(&life) => Some(coordinator),
            };
            if let Some(coordinator) = &launched {
                self.crew.roll().coordinators.insert(n, coordinator.clone());
                tokio::select! {
                    biased;
                    () = life.over() => {}
                    () = stop.notified() => {
                        self.sky.note(format_args!("{place} is stopped"));
                        drop(tokio::time::timeout(Duration::from_secs(5), coordinator.stop()).await);
                    }
                }
            }
            self.crew.roll().coordinators.remove(&n);
            life.die();
            if let Some(coordinator) = launched {
                coordinator.kill();
            }
            self.end(&life).await;
        }
    }

    async fn launch(&self, life: &Life) -> Coordinator {
        loop {
            let options = CoordinatorOptions {
                events: self.has_events,
                ids: Ids::Drawn(self.ids.clone().by(self.sky.dial(life.place))),
                compiled: self.compiled.to_vec(),
                limits: coordinator::Limits { window: self.window, ..Default::default() },
                ..CoordinatorOptions::default()
            };
            let store = Arc::new(Connection { server: self.server.clone(), life: life.clone() });
            match Coordinator::launch(store, self.channel(life), options).await {
                Ok(coordinator) => return coordinator,
                Err(_) => self.sky.sleep(100, 500).await,
            }
        }
    }

    /// One process of a participant, one life after another.
    pub(super) async fn take_part(self, n: u8, name: String, actions: Vec<String>, database: Database) {
        let place = Place::Participant(n);
        let beats = self.sky.dice(|dice| dice.below(3));
        for number in 1.. {
            let life = self.begin(place, number);
            let handlers: HashMap<String, Work> = actions.iter().map(|action| (action.clone(), Work)).collect();
            let limits = Limits { concurrency: 4, heartbeat: heartbeat(beats), grace: Duration::from_secs(5) };
            let ledger = SimLedger { database: database.clone(), life: life.clone() };
            let runner = Runner::new(name.clone(), handlers, limits, ledger, self.channel(&life), None);
            tokio::select! {
                biased;
                () = life.over() => {}
                _ = runner.run(CancellationToken::new()) => {}
            }
            database.disconnect(&life);
            self.end(&life).await;
        }
    }
}
