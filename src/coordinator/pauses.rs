//! Participants, or single actions of theirs, that operators have paused: kept in the store, so that every coordinator
//! knows of them within [`LOOK`] and a restart forgets none. What is paused is held back by the gates.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::coordinator::gates::Gates;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::view::command_name;
use crate::coordinator::{Coordinator, CoordinatorError};
use crate::definition::{COORDINATOR, Definition, Step};
use crate::saga::{Phase, Saga};
use crate::store::pauses::{ParticipantPause, PauseChange};
use crate::store::{Store, StoreError};

/// How often it is looked what is paused.
pub const LOOK: Duration = Duration::from_secs(2);
/// For so many looks after a resume the store is read for what is held back: a commit that was under way may have held
/// something back after the first.
const LOOKS_AFTER: u8 = 3;
/// Commands that are counted for a preview, at most.
pub const MOST: u32 = 10_000;

/// What is paused, as this coordinator knows it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether there are any: nearly always there are none, and then nothing else is looked at.
    is_any: AtomicBool,
    known: RwLock<Vec<ParticipantPause>>,
}

impl Pauses {
    /// What holds the commands for an action back, the pause of the whole participant first.
    pub fn find(&self, participant: &str, action: &str) -> Option<ParticipantPause> {
        let is_meant = |pause: &&ParticipantPause| {
            pause.participant == participant && pause.action.as_deref().is_none_or(|of| of == action)
        };
        self.with(|known| known.iter().filter(is_meant).min_by_key(|pause| pause.action.is_some()).cloned())?
    }

    /// Those of one participant.
    pub fn of(&self, participant: &str) -> Vec<ParticipantPause> {
        let of = |known: &[ParticipantPause]| {
            known.iter().filter(|pause| pause.participant == participant).cloned().collect()
        };
        self.with(of).unwrap_or_default()
    }

    pub(super) fn is_paused(&self, participant: &str, action: &str) -> bool {
        let is_meant = |pause: &ParticipantPause| {
            pause.participant == participant && pause.action.as_deref().is_none_or(|of| of == action)
        };
        self.with(|known| known.iter().any(is_meant)).unwrap_or_default()
    }

    pub(super) fn is_paused_whole(&self, participant: &str) -> bool {
        let is_meant = |pause: &ParticipantPause| pause.participant == participant && pause.action.is_none();
        self.with(|known| known.iter().any(is_meant)).unwrap_or_default()
    }

    fn with<T>(&self, work: impl FnOnce(&[ParticipantPause]) -> T) -> Option<T> {
        if !self.0.is_any.load(Ordering::Relaxed) {
            return None;
        }
        self.0.known.read().ok().map(|known| work(&known))
    }

    /// What is paused from now on; gives those that no longer are.
    pub(super) fn replace(&self, now: Vec<ParticipantPause>) -> Vec<ParticipantPause> {
        let Ok(mut known) = self.0.known.write() else { return Vec::new() };
        self.0.is_any.store(!now.is_empty(), Ordering::Relaxed);
        let same =
            |a: &ParticipantPause, b: &ParticipantPause| (&a.participant, &a.action) == (&b.participant, &b.action);
        let mut before = std::mem::replace(&mut *known, now);
        before.retain(|pause| !known.iter().any(|other| same(pause, other)));
        before
    }
}

/// Keeps [`Pauses`] as the store has them.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) store: Arc<dyn Store>,
    pub(super) gates: Gates,
    pub(super) metrics: Metrics,
}

impl Watch {
    /// Reads what is paused; gives the participants of which something was resumed.
    pub(super) async fn look(&self) -> Result<BTreeSet<String>, StoreError> {
        let Some(store) = self.store.pauses() else { return Ok(BTreeSet::new()) };
        let found = store.pauses().await?;
        for pause in &found {
            self.metrics.paused(&pause.participant, pause.action.as_deref(), true);
        }
        let mut resumed = BTreeSet::new();
        for pause in self.gates.pauses().replace(found) {
            self.metrics.paused(&pause.participant, pause.action.as_deref(), false);
            tracing::info!(participant = pause.participant, action = pause.action, "resumed");
            resumed.insert(pause.participant);
        }
        self.gates.expect(resumed.iter().map(String::as_str));
        Ok(resumed)
    }

    pub(super) async fn run(self, stop: CancellationToken) {
        let mut again: Vec<(String, u8)> = Vec::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.gates.expect(again.iter().map(|(name, _)| name.as_str()));
            again.iter_mut().for_each(|(_, looks)| *looks -= 1);
            again.retain(|(_, looks)| *looks > 0);
            match self.look().await {
                Ok(resumed) => again.extend(resumed.into_iter().map(|name| (name, LOOKS_AFTER))),
                Err(error) => tracing::warn!(%error, "what is paused cannot be read; as far as is known it stays so"),
            }
        }
    }
}

/// What would be paused or resumed, and what hangs on it.
#[derive(Clone, Debug)]
pub struct PausePreview {
    /// The pause that is in force for just this participant or action.
    pub now: Option<ParticipantPause>,
    /// Commands for the participant that nobody has answered yet, up to [`MOST`] and one more.
    pub unanswered: u64,
    /// The participant's actions.
    pub actions: Vec<String>,
}

impl Coordinator {
    /// What is paused.
    pub fn pauses(&self) -> &Pauses {
        self.0.gates.pauses()
    }

    /// What a saga waits for, in one sentence; `None` when it has ended.
    pub fn waiting_for(&self, definition: &Definition, saga: &Saga) -> Option<String> {
        let mut told = super::view::waiting_for(definition, saga)?;
        for (step, state) in definition.steps.iter().zip(&saga.steps) {
            let Some((direction, command)) = state.in_flight() else { continue };
            if saga.paused || !matches!(command.phase, Phase::Held(_)) {
                continue;
            }
            let Some(pause) = self.pauses().find(&step.participant, direction.action_of(step)) else { continue };
            let held = |why: &str| format!("{}, which is held back: {why}", command_name(&step.name, direction));
            let plain = held(&format!("{} takes no more for now", step.participant));
            told = told.replace(&plain, &held(&in_words(&pause)));
        }
        Some(told)
    }

    /// What a pause of this participant, or of one of its actions, or its end, would be about.
    ///
    /// # Errors
    /// [`CoordinatorError::UnknownParticipant`], [`CoordinatorError::UnknownAction`], or what the store says.
    pub async fn look_at_pause(&self, name: &str, action: Option<&str>) -> Result<PausePreview, CoordinatorError> {
        let definitions = self.0.registry.load_all().await?;
        let steps = || definitions.iter().flat_map(|definition| &definition.steps);
        let mut actions: BTreeSet<&str> = BTreeSet::new();
        for step in steps().filter(|step| step.participant == name && name != COORDINATOR) {
            actions.extend(actions_of(step));
        }
        if actions.is_empty() {
            let known: BTreeSet<&str> = steps().map(|step| step.participant.as_str()).collect();
            let known = known.into_iter().filter(|known| *known != COORDINATOR).map(str::to_owned).collect();
            return Err(CoordinatorError::UnknownParticipant { name: name.to_owned(), known });
        }
        let actions: Vec<String> = actions.into_iter().map(str::to_owned).collect();
        if let Some(action) = action.filter(|action| !actions.iter().any(|known| known == action)) {
            let (participant, action) = (name.to_owned(), action.to_owned());
            return Err(CoordinatorError::UnknownAction { participant, action, known: actions });
        }
        let now = self.pauses().of(name).into_iter().find(|pause| pause.action.as_deref() == action);
        let services = self.store().services(MOST).await?;
        let unanswered = services.iter().find(|service| service.participant == name).map_or(0, |found| found.waiting);
        Ok(PausePreview { now, unanswered, actions })
    }

    /// Pauses a participant or one of its actions, or resumes it; counts at once here, and within [`LOOK`] everywhere.
    ///
    /// # Errors
    /// As [`Coordinator::look_at_pause`], and [`CoordinatorError::PauseConflict`] when it is so already.
    pub async fn change_pause(&self, change: PauseChange) -> Result<Timestamp, CoordinatorError> {
        self.look_at_pause(&change.participant, change.action.as_deref()).await?;
        let Some(store) = self.store().pauses() else {
            return Err(StoreError::Refused("this store keeps no pauses".to_owned()).into());
        };
        let changed = store.change_pause(&change).await?;
        // Also when nothing was changed: somebody else was faster.
        self.0.watch.look().await?;
        let what = match &change.action {
            Some(action) => format!("`{}.{action}`", change.participant),
            None => format!("`{}`", change.participant),
        };
        changed.ok_or_else(|| {
            let found = self.pauses().of(&change.participant).into_iter().find(|pause| pause.action == change.action);
            let why = match found {
                Some(pause) => format!("{what} is paused by {} since {}", pause.by, time(pause.since)),
                None => format!("{what} is not paused"),
            };
            CoordinatorError::PauseConflict { why }
        })
    }
}

/// The actions of a step, forward and back.
fn actions_of(step: &Step) -> impl Iterator<Item = &str> {
    let back = step.compensation.action().map(|compensation| compensation.action.as_str());
    [step.action.as_str()].into_iter().chain(back)
}

/// For example ``participant `warehouse` is paused by ann since 2026-11-29 14:02:10 UTC: stocktaking``.
pub fn in_words(pause: &ParticipantPause) -> String {
    let ParticipantPause { participant, action, since, by, reason } = pause;
    let what = match action {
        Some(action) => format!("action `{participant}.{action}`"),
        None => format!("participant `{participant}`"),
    };
    format!("{what} is paused by {by} since {}: {reason}", time(*since))
}

fn time(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}
