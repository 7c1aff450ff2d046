//! Which webhooks are told of what: decided in the plan, so that it is written with the change itself. Only sagas that get
//! stuck, or were, have something to tell; all others cost one comparison.

use serde_json::json;

use crate::clock::Timestamp;
use crate::coordinator::telling::of_step;
use crate::definition::Definition;
use crate::message::LifecycleEvent;
use crate::saga::{Direction, Saga};
use crate::store::webhooks::NewDelivery;

/// A webhook, as far as the coordinator must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name, which what is to be told is kept under.
    pub name: String,
    /// What it is told.
    pub events: Vec<HookEvent>,
    /// Of sagas of these definitions; of all, when there are none.
    pub definitions: Vec<String>,
}

/// What a webhook can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookEvent {
    /// A saga is stuck, whichever way it was going.
    Stuck,
    /// A saga is stuck since a compensation cannot be done.
    CompensationFailed,
    /// A saga that was stuck no longer is.
    Resolved,
}

impl HookEvent {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Stuck, Self::CompensationFailed, Self::Resolved];

    /// The word in settings and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::CompensationFailed => "compensation-failed",
            Self::Resolved => "resolved",
        }
    }
}

/// What is to be told of a saga that has just got stuck, or just is no longer.
pub(super) fn told(hooks: &[Hook], saga: &Saga, definition: &Definition, now: Timestamp) -> Vec<NewDelivery> {
    let stuck = saga.state.stuck();
    let wanted: &[HookEvent] = match stuck.map(|stuck| stuck.direction) {
        // A webhook for both is told once, in the narrower word.
        Some(Direction::Compensation) => &[HookEvent::CompensationFailed, HookEvent::Stuck],
        Some(Direction::Action) => &[HookEvent::Stuck],
        None => &[HookEvent::Resolved],
    };
    // It leaves the house: without what the definition marks as sensitive.
    let secrets = saga.secrets(definition);
    let key = saga.key.as_ref().map(|key| secrets.text(key));
    let data = match stuck {
        Some(stuck) => {
            let problem = stuck.problem.clone().redacted(&secrets);
            let mut data = of_step(definition, stuck.step, Some(&problem));
            data["direction"] = json!(stuck.direction);
            data
        }
        None => json!({ "state": saga.state.as_str() }),
    };
    let of = |hook: &Hook| {
        let name = &saga.definition.name;
        let is_meant = hook.definitions.is_empty() || hook.definitions.contains(name);
        let event = wanted.iter().find(|event| is_meant && hook.events.contains(event))?.as_str();
        let body = LifecycleEvent {
            saga: saga.id,
            definition: saga.definition.clone(),
            key: key.clone(),
            revision: saga.revision,
            name: event,
            at: now,
            data: data.clone(),
        };
        Some(NewDelivery {
            id: NewDelivery::id_of(&hook.name, saga.id, saga.revision, event),
            webhook: hook.name.clone(),
            event: event.to_owned(),
            saga: saga.id,
            body: String::from_utf8(body.encode().body).unwrap_or_default(),
            at: now,
        })
    };
    hooks.iter().filter_map(of).collect()
}
