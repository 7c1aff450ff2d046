//! A saga's state in plain words. Pure.

use crate::clock::Timestamp;
use crate::definition::{Definition, OnTimeout, RetryPolicy, Work};
use crate::id::StepIndex;
use crate::saga::{CommandState, Direction, Phase, Saga, Stuck, allowed};

/// What the saga waits for, in one sentence; `None` when it has ended.
pub fn waiting_for(definition: &Definition, saga: &Saga) -> Option<String> {
    if saga.state.is_terminal() {
        return None;
    }
    let stuck = saga.state.stuck().map(|stuck| person(definition, saga, stuck));
    if saga.paused {
        let paused = "an operator to resume it: it is paused".to_owned();
        return Some(stuck.map_or(paused.clone(), |stuck| format!("{paused}; after that {stuck}")));
    }
    if let Some(stuck) = stuck {
        return Some(stuck);
    }
    let waits: Vec<String> = in_flight(definition, saga)
        .map(|(index, direction, command)| one(definition, saga, index, direction, command))
        .collect();
    if let (true, Some(parent)) = (saga.held().is_some(), &saga.parent) {
        let (step, id) = (&parent.step, parent.saga);
        return Some(format!(
            "saga {id} to end, which started it as `{step}`: every step is done, and may yet be undone"
        ));
    }
    Some(if waits.is_empty() { "the coordinator to decide what comes next".to_owned() } else { waits.join("; ") })
}

/// The services that have to answer before the saga goes on, each once: those that were sent something or will be at the
/// next try, and the one that it is stuck at.
pub fn awaited<'a>(definition: &'a Definition, saga: &Saga) -> Vec<&'a str> {
    let stuck = saga.state.stuck().map(|stuck| stuck.step);
    let mut participants: Vec<&str> = in_flight(definition, saga)
        .filter(|(_, _, command)| !matches!(command.phase, Phase::Waiting(_)))
        .map(|(index, ..)| index)
        .chain(stuck)
        .map(|index| definition.step(index))
        .filter(|step| matches!(step.work, Work::Command))
        .map(|step| step.participant.as_str())
        .collect();
    participants.sort_unstable();
    participants.dedup();
    participants
}

/// A command in words: `` `pick` `` or ``the compensation of `pick` ``.
pub fn command_name(step: &str, direction: Direction) -> String {
    match direction {
        Direction::Action => format!("`{step}`"),
        Direction::Compensation => format!("the compensation of `{step}`"),
    }
}

fn in_flight<'a>(
    definition: &Definition,
    saga: &'a Saga,
) -> impl Iterator<Item = (StepIndex, Direction, &'a CommandState)> {
    definition.indices().zip(&saga.steps).filter_map(|(index, state)| {
        let (direction, command) = state.in_flight()?;
        Some((index, direction, command))
    })
}

fn one(definition: &Definition, saga: &Saga, index: StepIndex, direction: Direction, command: &CommandState) -> String {
    let step = definition.step(index);
    let policy = match (direction, step.compensation.action()) {
        (Direction::Compensation, Some(compensation)) => &compensation.retry,
        _ => &step.retry,
    };
    let name = command_name(&step.name, direction);
    let due = clock_time(command.phase.due(), saga.updated_at);
    if let (Work::Saga { name: child, .. }, Phase::Awaiting(_)) = (&step.work, &command.phase) {
        return format!("{name}, which is a saga of its own: {child}");
    }
    match &command.phase {
        Phase::Sending(_) => {
            let attempt = attempt(command, command.attempt, policy);
            format!(
                "{attempt} of {name} is on its way to {}; if the broker does not confirm, it is sent again at {due}",
                step.participant
            )
        }
        Phase::Awaiting(_) => {
            let attempt = attempt(command, command.attempt, policy);
            format!("{attempt} of {name} is with {}; it times out at {due}", step.participant)
        }
        Phase::Held(_) => {
            let attempt = attempt(command, command.attempt, policy);
            format!("room for {attempt} of {name}, which is held back: {} takes no more for now", step.participant)
        }
        Phase::Waiting(_) => match &step.work {
            Work::Wait { signal, on_timeout } => {
                let then = match on_timeout {
                    OnTimeout::Fail => "the step fails",
                    OnTimeout::Continue => "the saga goes on without",
                };
                format!("the signal `{signal}`, for {name}; if it has not come by {due}, {then}")
            }
            Work::Delay | Work::Command | Work::Saga { .. } => format!("{due}, when {name} is over"),
        },
        Phase::BackingOff(_) => {
            let attempt = attempt(command, command.attempt, policy);
            let became = match &command.last {
                Some(last) if last.kind == "timeout" => "timed out".to_owned(),
                Some(last) => format!("failed with {last}"),
                None => "is over".to_owned(),
            };
            format!("{attempt} of {name} {became}; next try at {due}")
        }
    }
}

fn attempt(command: &CommandState, number: u32, policy: &RetryPolicy) -> String {
    match policy.max_attempts {
        Some(max) => format!("attempt {number} of {}", command.base.saturating_add(max)),
        None => format!("attempt {number}"),
    }
}

fn person(definition: &Definition, saga: &Saga, stuck: &Stuck) -> String {
    let name = command_name(&definition.step(stuck.step).name, stuck.direction);
    let ways = listed(&allowed(definition, saga), "or");
    format!("a person: {name} failed with {}; {ways}", stuck.problem)
}

/// `retry, skip or abandon`.
fn listed(words: &[&str], joint: &str) -> String {
    match words {
        [] => "nothing can be done".to_owned(),
        [word] => (*word).to_owned(),
        [first @ .., last] => format!("{} {joint} {last}", first.join(", ")),
    }
}

/// The time of day, with the date only where it is not that of `near`.
fn clock_time(at: Timestamp, near: Timestamp) -> String {
    let form = if at.date_naive() == near.date_naive() { "%H:%M:%S UTC" } else { "%Y-%m-%d %H:%M:%S UTC" };
    at.format(form).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::after;
    use crate::definition::{Compensation, CompensationAction, Graph, Step, Template};
    use crate::id::{DefinitionRef, SagaId, Seq};
    use crate::payload::Payload;
    use crate::saga::{CompensationState, Owed, Problem, SagaState, StepState};

    fn retry() -> RetryPolicy {
        RetryPolicy {
            max_attempts: Some(5),
            initial_interval: Duration::from_secs(1),
            backoff_coefficient: 2.0,
            max_interval: Duration::from_secs(30),
            full_jitter: false,
            non_retryable: Vec::new(),
        }
    }

    fn definition(steps: &[&str]) -> Definition {
        let undo = || CompensationAction {
            action: "undo".to_owned(),
            input: Template::whole_input(),
            timeout: Duration::from_secs(30),
            retry: RetryPolicy { max_attempts: None, ..retry() },
        };
        let step = |name: &&str| Step {
            work: Work::Command,
            for_each: None,
            element: None,
            name: (*name).to_owned(),
            participant: "warehouse".to_owned(),
            action: "do".to_owned(),
            input: Template::whole_input(),
            when: None,
            timeout: Duration::from_secs(30),
            retry: retry(),
            pivot: false,
            compensation: Compensation::Action(undo()),
        };
        Definition {
            reference: DefinitionRef { name: "order".to_owned(), version: 1 },
            owner: None,
            runbook: None,
            key: None,
            input_schema: None,
            timeout: None,
            graph: Graph::new(vec![Vec::new(); steps.len()]).expect("no cycle"),
            steps: steps.iter().map(step).collect(),
            output: None,
            hash: [0; 32],
            reads_outputs: false,
            sensitive: Default::default(),
            loops: Vec::new(),
            expansions: Default::default(),
        }
    }

    fn noon() -> Timestamp {
        "2026-11-23T14:00:00Z".parse().expect("a time")
    }

    fn command(attempt: u32, phase: Phase) -> CommandState {
        CommandState { seq: Seq(1), generation: 1, attempt, base: 0, last: None, phase }
    }

    fn in_seconds(seconds: u64) -> Timestamp {
        after(noon(), Duration::from_secs(seconds))
    }

    fn saga(definition: &Definition, steps: Vec<StepState>) -> Saga {
        let mut saga = Saga::new(SagaId::fresh(), definition, None, Payload::trusted("{}"), noon());
        saga.steps = steps;
        saga
    }

    fn said(steps: Vec<StepState>) -> String {
        let definition = definition(&["pick", "pack"][..steps.len()]);
        waiting_for(&definition, &saga(&definition, steps)).expect("it waits")
    }

    #[test]
    fn a_command_with_its_participant_is_named_with_attempt_and_time_out() {
        let pending = StepState::Pending { command: command(2, Phase::Awaiting(in_seconds(130))) };
        assert_eq!(said(vec![pending]), "attempt 2 of 5 of `pick` is with warehouse; it times out at 14:02:10 UTC");
    }

    #[test]
    fn a_wait_between_attempts_names_the_next_attempt_and_the_last_failure() {
        let mut command = command(2, Phase::BackingOff(in_seconds(5)));
        command.last = Some(Problem::new("busy", "come back later"));
        let said = said(vec![StepState::Pending { command }]);
        assert_eq!(said, "attempt 2 of 5 of `pick` failed with busy: come back later; next try at 14:00:05 UTC");
    }

    #[test]
    fn an_attempt_that_timed_out_is_told_with_the_next_try() {
        let mut command = command(4, Phase::BackingOff(in_seconds(130)));
        command.last = Some(Problem::new("timeout", "no reply within 2m"));
        let said = said(vec![StepState::Pending { command }]);
        assert_eq!(said, "attempt 4 of 5 of `pick` timed out; next try at 14:02:10 UTC");
    }

    #[test]
    fn attempts_after_an_operators_retry_are_counted_from_there() {
        let mut command = command(7, Phase::Awaiting(in_seconds(30)));
        command.base = 5;
        assert!(said(vec![StepState::Pending { command }]).starts_with("attempt 7 of 10 of `pick`"));
    }

    #[test]
    fn several_commands_in_flight_are_told_together() {
        let owed = Owed { seq: Seq(1), attempts: 1, generation: 1, known: true };
        let compensation = CompensationState::Pending { command: command(1, Phase::Awaiting(in_seconds(86_400))) };
        let first = StepState::Pending { command: command(1, Phase::Sending(in_seconds(5))) };
        let said = said(vec![first, StepState::Compensating { owed, compensation }]);
        assert_eq!(
            said,
            "attempt 1 of 5 of `pick` is on its way to warehouse; if the broker does not confirm, it is sent again at \
             14:00:05 UTC; attempt 1 of the compensation of `pack` is with warehouse; it times out at 2026-11-24 \
             14:00:00 UTC"
        );
    }

    #[test]
    fn a_stuck_saga_waits_for_a_person_and_says_what_can_be_done() {
        let definition = definition(&["pick"]);
        let owed = Owed { seq: Seq(1), attempts: 1, generation: 1, known: true };
        let problem = Problem::new("gone", "");
        let compensation =
            CompensationState::Failed { seq: Some(Seq(2)), attempts: 1, generation: 1, problem: problem.clone() };
        let mut saga = saga(&definition, vec![StepState::Compensating { owed, compensation }]);
        let direction = Direction::Compensation;
        saga.state = SagaState::Stuck(Stuck { direction, step: StepIndex(0), problem, since: noon() });
        let said = waiting_for(&definition, &saga).expect("it waits");
        assert_eq!(said, "a person: the compensation of `pick` failed with gone; retry, skip, pause or abandon");
        saga.paused = true;
        let said = waiting_for(&definition, &saga).expect("it waits");
        assert!(said.starts_with("an operator to resume it: it is paused; after that a person"), "{said}");
    }

    #[test]
    fn a_saga_that_has_ended_waits_for_nothing() {
        let definition = definition(&["pick"]);
        let mut saga = saga(&definition, vec![StepState::Waiting]);
        for state in [SagaState::Completed, SagaState::Compensated, SagaState::Abandoned] {
            saga.state = state;
            assert_eq!(waiting_for(&definition, &saga), None);
        }
    }

    #[test]
    fn who_was_sent_something_will_be_or_has_made_it_stuck_has_to_answer() {
        let definition = definition(&["pick", "pack"]);
        let backing_off = StepState::Pending { command: command(1, Phase::BackingOff(in_seconds(5))) };
        let waiting = StepState::Pending { command: command(1, Phase::Waiting(in_seconds(5))) };
        assert!(awaited(&definition, &saga(&definition, vec![waiting, StepState::Waiting])).is_empty());
        assert_eq!(awaited(&definition, &saga(&definition, vec![backing_off, StepState::Waiting])), ["warehouse"]);
        let mut stuck = saga(&definition, vec![StepState::Waiting, StepState::Waiting]);
        let (direction, problem) = (Direction::Action, Problem::new("timeout", ""));
        stuck.state = SagaState::Stuck(Stuck { direction, step: StepIndex(1), problem, since: noon() });
        assert_eq!(awaited(&definition, &stuck), ["warehouse"]);
    }
}
