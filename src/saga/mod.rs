//! The state machine: what a saga's state is, what can happen to it, and what follows. Pure: no clock, no
//! randomness, no IO; time arrives inside each event.

mod advance;
pub mod advice;
mod advice_text;
mod attempt;
pub mod effect;
pub mod event;
pub mod figures;
mod migrate;
mod operate;
mod order;
mod replay;
mod reply;
pub mod state;
mod transition;

pub use advice::{Advice, advise};
pub use effect::{Effect, Note, Outcome, Settled};
pub use event::{Event, EventKind, Operation, ReplyOutcome};
pub use figures::Figures;
pub use migrate::{Reason, compatible, migrate};
pub use operate::allowed;
pub use replay::{ReplayError, Told, replay, replay_across, started};
pub use state::{
    CommandState, CompensationState, Direction, Owed, Phase, Problem, Saga, SagaState, Skip, StepState, StepStatus,
    Stuck,
};
pub use transition::{IllegalTransition, PUBLISH_GRACE, transition};
