//! Mistakes planted in the state machine, to see that whatever runs it notices.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use amends::definition::{Definition, Graph};
use amends::id::Seq;
use amends::saga::{Direction, Effect, EventKind, Outcome, Problem, Saga, SagaState, StepState, transition};
use amends::saga::{Event, ReplyOutcome};
use amends::testkit::Machine;

/// A mistake planted in the machine or in the participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    DropsSettlements,
    CompensatesInAnyOrder,
    CompensatesForward,
    UnknownIsFailed,
    IgnoresThePivot,
    NoTombstone,
    NoInbox,
    RevisionJumps,
    SendsWhilePaused,
    ChangesTheDead,
    NeverEnds,
    ForgetsHistory,
    SkipsACompensation,
    CompensatesTheRefused,
    NoReason,
}

/// The machine with the bug. `wrong` is a copy of the definition for those bugs that misread it.
pub fn machine(bug: Bug, mut wrong: Definition) -> Machine {
    match bug {
        Bug::CompensatesInAnyOrder => {
            wrong.graph = Graph::new(vec![Vec::new(); wrong.steps.len()]).expect("no edges, no cycle");
        }
        Bug::CompensatesForward => {
            let graph = &wrong.graph;
            let turned = wrong.indices().map(|index| graph.dependents(index).to_vec()).collect();
            wrong.graph = Graph::new(turned).expect("turned round, it has no cycle either");
        }
        Bug::IgnoresThePivot => wrong.steps.iter_mut().for_each(|step| step.pivot = false),
        _ => {}
    }
    let wrong = Arc::new(wrong);
    Machine::new(move |definition, given, event| {
        let mut saga = given.clone();
        if bug == Bug::SendsWhilePaused && event.kind == EventKind::Due {
            saga.paused = false;
        }
        let definition = match bug {
            Bug::IgnoresThePivot => &wrong,
            Bug::CompensatesInAnyOrder | Bug::CompensatesForward if given.cause.is_some() => &wrong,
            _ => definition,
        };
        let (mut saga, mut effects) = transition(definition, &saga, event)?;
        let success = || ReplyOutcome::Success { output: serde_json::json!({ "done": true }).into() };
        match bug {
            Bug::DropsSettlements => {
                effects.retain(|effect| !matches!(effect, Effect::Settle(s) if s.outcome == Outcome::Unknown));
            }
            Bug::UnknownIsFailed => {
                while let Some((at, seq)) = unsure(&saga) {
                    effects.retain(|effect| !matches!(effect, Effect::Decide { seq: s, .. } if *s == seq));
                    let kind = EventKind::Replied { seq, attempt: 1, outcome: success() };
                    let revision = saga.revision;
                    let (next, more) = transition(definition, &saga, &Event { now: event.now, kind })?;
                    saga = Saga { revision, ..next };
                    effects.extend(more.into_iter().filter(|e| !matches!(e, Effect::Settle(s) if s.seq == seq)));
                    let problem = Problem::new("timeout", "taken for a refusal");
                    saga.steps[at] = StepState::Failed { seq: None, attempts: 0, generation: 1, problem };
                }
            }
            Bug::RevisionJumps if saga.revision > 3 && saga.revision != given.revision => saga.revision += 1,
            Bug::SendsWhilePaused => {
                saga.paused = saga.paused || (given.paused && event.kind == EventKind::Due);
            }
            Bug::ChangesTheDead if given.state.is_terminal() => saga.revision += 1,
            Bug::NeverEnds if saga.state == SagaState::Completed => saga.state = SagaState::Running,
            Bug::SkipsACompensation => {
                let is_undo = |e: &Effect| matches!(e, Effect::Decide { direction: Direction::Compensation, .. });
                if saga.steps.iter().filter(|step| matches!(step, StepState::Compensated { .. })).count() == 1
                    && effects.iter().any(is_undo)
                {
                    effects.retain(|effect| !is_undo(effect));
                    for step in &mut saga.steps {
                        if matches!(step, StepState::Compensating { .. }) {
                            let problem = Problem::new("forgotten", "forgotten");
                            *step = StepState::Failed { seq: None, attempts: 0, generation: 1, problem };
                        }
                    }
                    saga.state = SagaState::Compensated;
                    saga.ended_at = Some(event.now);
                }
            }
            Bug::CompensatesTheRefused => {
                for effect in &mut effects {
                    if let Effect::Settle(settled) = effect
                        && settled.outcome == Outcome::Success
                    {
                        settled.outcome = Outcome::Failure;
                    }
                }
            }
            Bug::NoReason => {
                if let SagaState::Stuck(stuck) = &mut saga.state {
                    stuck.problem.kind.clear();
                }
            }
            _ => {}
        }
        Ok((saga, effects))
    })
}

/// A step whose outcome nobody knows and whose compensation has been sent, with that command.
fn unsure(saga: &Saga) -> Option<(usize, Seq)> {
    saga.steps.iter().enumerate().find_map(|(at, step)| match (step, step.in_flight()) {
        (StepState::Compensating { owed, .. }, Some((_, command))) if !owed.known => Some((at, command.seq)),
        _ => None,
    })
}
