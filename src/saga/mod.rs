//! The state machine: what a saga's state is, what can happen to it, and what follows. Pure: no clock, no
//! randomness, no IO; time arrives inside each event.

mod advance;
pub mod advice;
mod advice_text;
mod attempt;
mod child;
pub mod effect;
pub mod event;
pub mod figures;
mod migrate;
mod operate;
mod order;
mod replay;
mod reply;
mod secrets;
pub mod set_back;
mod signal;
pub mod state;
mod transition;
mod written;

pub use advice::{Advice, advise};
pub use effect::{Effect, Note, Outcome, Settled};
pub use event::{Event, EventKind, Operation, ReplyOutcome};
pub use figures::Figures;
pub use migrate::{Reason, compatible, expanded_for, migrate};
pub use operate::allowed;
pub use replay::{ReplayError, Told, replay, replay_across, started};
pub use state::{
    CommandState, CompensationState, Direction, Held, Owed, Parent, Phase, Problem, ReplyAddress, Saga, SagaState,
    Skip, StepState, StepStatus, Stuck,
};
pub use transition::{HELD_AT_MOST, IllegalTransition, PUBLISH_GRACE, transition};
