//! The state machine: what a saga's state is, what can happen to it, and what follows. Pure: no clock, no
//! randomness, no IO; time arrives inside each event.

mod advance;
mod attempt;
mod child;
pub mod effect;
pub mod event;
mod operate;
mod replay;
mod reply;
mod signal;
pub mod state;
mod transition;

pub use effect::{Effect, Note, Outcome, Settled};
pub use event::{Event, EventKind, Operation, ReplyOutcome};
pub use operate::allowed;
pub use replay::{ReplayError, Told, replay, started};
pub use state::{
    CommandState, CompensationState, Direction, Held, Owed, Parent, Phase, Problem, ReplyAddress, Saga, SagaState,
    Skip, StepState, StepStatus, Stuck,
};
pub use transition::{IllegalTransition, PUBLISH_GRACE, transition};
