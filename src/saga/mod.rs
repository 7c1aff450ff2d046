//! The state machine: what a saga's state is, what can happen to it, and what follows. Pure: no clock, no
//! randomness, no IO; time arrives inside each event.

pub mod effect;
pub mod event;
pub mod state;

pub use effect::{Effect, Note, Outcome, Settled};
pub use event::{Event, EventKind, Operation, ReplyOutcome};
pub use state::{
    CommandState, CompensationState, Direction, Owed, Phase, Problem, Saga, SagaState, Skip, StepState, StepStatus,
    Stuck,
};
