//! What people ask of everything at once: how much there is, what is stuck and why, how it went in the last hour.

use std::collections::BTreeMap;

use chrono::TimeDelta;

use crate::clock::Timestamp;
use crate::coordinator::Coordinator;
use crate::saga::Direction;
use crate::store::StoreError;
use crate::store::overview::{Lifetime, Service, StateCount, StuckGroup};

/// Up to here things are counted; beyond it, only that there are more is told.
pub const MOST: u32 = 10_000;

/// Minutes that [`Activity`] covers.
pub const MINUTES: usize = 60;

/// Everything at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// How many sagas are in each state.
    pub states: Vec<StateCount>,
    /// Stuck sagas by cause, the most frequent first.
    pub causes: Vec<Cause>,
    /// The last hour.
    pub activity: Activity,
    /// What the participants owe, and how they have done lately.
    pub services: Vec<Service>,
}

/// A group of stuck sagas with the words of its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The group.
    pub group: StuckGroup,
    /// The step's name, or its number where a list has made more steps of the definition's.
    pub step: String,
    /// Who does it; empty where that is not known.
    pub participant: String,
    /// What it does.
    pub action: String,
}

/// What happened in the last hour, by the minute, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Sagas that were started.
    pub started: Vec<u64>,
    /// Those of them that ended in that minute.
    pub ended: Vec<u64>,
    /// The median time from start to end, in milliseconds.
    pub middle: Vec<u64>,
    /// That of the slowest of twenty.
    pub slow: Vec<u64>,
}

impl Activity {
    /// Counts what is known of the sagas that started lately.
    pub fn of(lifetimes: &[Lifetime], now: Timestamp) -> Self {
        let column = |at: Timestamp| {
            let minutes = usize::try_from(now.signed_duration_since(at).num_minutes()).ok()?;
            MINUTES.checked_sub(minutes + 1)
        };
        let (mut started, mut ended) = (vec![0_u64; MINUTES], vec![0_u64; MINUTES]);
        let mut took: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for lifetime in lifetimes {
            if let Some(count) = column(lifetime.created_at).and_then(|at| started.get_mut(at)) {
                *count += 1;
            }
            let Some(end) = lifetime.ended_at else { continue };
            let Some(at) = column(end) else { continue };
            if let Some(count) = ended.get_mut(at) {
                *count += 1;
            }
            let millis = end.signed_duration_since(lifetime.created_at).num_milliseconds();
            took.entry(at).or_default().push(u64::try_from(millis).unwrap_or_default());
        }
        let mut quantile = |hundredths: usize| {
            (0..MINUTES)
                .map(|at| {
                    let Some(times) = took.get_mut(&at) else { return 0 };
                    times.sort_unstable();
                    times.get(times.len() * hundredths / 100).or(times.last()).copied().unwrap_or_default()
                })
                .collect::<Vec<u64>>()
        };
        let (middle, slow) = (quantile(50), quantile(95));
        Self { started, ended, middle, slow }
    }
}

/// Looks at everything at once.
///
/// # Errors
/// When the store cannot be read.
pub async fn overview(coordinator: &Coordinator, now: Timestamp) -> Result<Overview, StoreError> {
    let store = coordinator.store();
    let (states, groups, lifetimes, services) = tokio::join!(
        store.state_counts(MOST),
        store.stuck_groups(MOST),
        store.lifetimes(now - TimeDelta::hours(1), MOST),
        store.services(MOST),
    );
    let (lifetimes, groups) = (lifetimes?, groups?);
    let causes = causes(coordinator, groups).await;
    Ok(Overview { states: states?, causes, activity: Activity::of(&lifetimes, now), services: services? })
}

/// Puts the words of the definitions to groups.
pub async fn causes(coordinator: &Coordinator, groups: Vec<StuckGroup>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for group in groups {
        // A list may have made more steps of it than the definition has.
        let definition = coordinator.definition(&group.definition).await.ok();
        let step = definition.as_ref().filter(|definition| !definition.has_loops());
        let step = step.and_then(|definition| definition.steps.get(usize::from(group.step_index)));
        let action = step.map(|step| match (group.direction, step.compensation.action()) {
            (Direction::Compensation, Some(compensation)) => compensation.action.clone(),
            _ => step.action.clone(),
        });
        causes.push(Cause {
            step: step.map_or_else(|| format!("step {}", group.step_index + 1), |step| step.name.clone()),
            participant: step.map(|step| step.participant.clone()).unwrap_or_default(),
            action: action.unwrap_or_default(),
            group,
        });
    }
    causes
}
