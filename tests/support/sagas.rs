//! Definitions made by hand, and a saga that a test drives event by event.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use amends::clock::{Timestamp, after};
use amends::definition::{Compensation, CompensationAction, Condition, Definition, Graph, RetryPolicy, Step, Template};
use amends::id::{DefinitionRef, SagaId, Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{
    CompensationState, Direction, Effect, Event, EventKind, IllegalTransition, Operation, Parent, Problem,
    ReplyAddress, ReplyOutcome, Saga, SagaState, Skip, StepState, Told, replay, transition,
};
use serde_json::json;

/// How long one attempt takes in these definitions.
pub const ATTEMPT: Duration = Duration::from_secs(30);

/// One step, to be changed by the methods below.
#[derive(Clone, Debug)]
pub struct Shape {
    pub name: String,
    pub after: Vec<usize>,
    pub pivot: bool,
    pub compensated: bool,
    pub when: Option<bool>,
    pub attempts: Option<u32>,
    pub compensation_attempts: Option<u32>,
    pub interval: Duration,
}

/// A step with a compensation and two attempts for each direction.
pub fn step(name: &str, after: &[usize]) -> Shape {
    Shape {
        name: name.to_owned(),
        after: after.to_vec(),
        pivot: false,
        compensated: true,
        when: None,
        attempts: Some(2),
        compensation_attempts: Some(2),
        interval: Duration::from_secs(1),
    }
}

impl Shape {
    pub fn pivot(self) -> Self {
        Self { pivot: true, compensated: false, ..self }
    }

    pub fn uncompensated(self) -> Self {
        Self { compensated: false, ..self }
    }

    pub fn when(self, holds: bool) -> Self {
        Self { when: Some(holds), ..self }
    }

    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts: Some(attempts), ..self }
    }
}

fn policy(shape: &Shape, max_attempts: Option<u32>) -> RetryPolicy {
    RetryPolicy {
        max_attempts,
        initial_interval: shape.interval,
        backoff_coefficient: 2.0,
        max_interval: Duration::from_secs(30),
        full_jitter: false,
        non_retryable: vec!["card-declined".to_owned()],
    }
}

/// A definition of these steps.
pub fn definition(shapes: &[Shape], timeout: Option<Duration>) -> Definition {
    let steps = shapes
        .iter()
        .map(|shape| Step {
            work: amends::definition::Work::Command,
            for_each: None,
            element: None,
            name: shape.name.clone(),
            participant: format!("{}-service", shape.name),
            action: "do".to_owned(),
            input: Template::literal(json!({ "step": shape.name })),
            when: shape.when.map(|holds| Condition::new(Template::literal(json!(holds)))),
            timeout: ATTEMPT,
            retry: policy(shape, shape.attempts),
            pivot: shape.pivot,
            compensation: if shape.compensated {
                Compensation::Action(CompensationAction {
                    action: "undo".to_owned(),
                    input: Template::whole_input(),
                    timeout: ATTEMPT,
                    retry: policy(shape, shape.compensation_attempts),
                })
            } else {
                Compensation::None
            },
        })
        .collect();
    let before = shapes
        .iter()
        .map(|shape| shape.after.iter().map(|&at| StepIndex(u16::try_from(at).expect("a small index"))).collect())
        .collect();
    Definition {
        reference: DefinitionRef { name: "order".to_owned(), version: 1 },
        owner: None,
        runbook: None,
        key: None,
        input_schema: None,
        timeout,
        steps,
        graph: Graph::new(before).expect("no cycle"),
        output: None,
        hash: [0; 32],
        reads_outputs: false,
        sensitive: Default::default(),
        loops: Vec::new(),
        expansions: Default::default(),
    }
}

/// a, b, then the pivot p, then c: one after the other.
pub fn line() -> Vec<Shape> {
    vec![step("a", &[]), step("b", &[0]), step("p", &[1]).pivot(), step("c", &[2]).uncompensated()]
}

/// When every saga here starts.
pub fn epoch() -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000, 0).expect("in range")
}

pub fn success() -> ReplyOutcome {
    ReplyOutcome::Success { output: Payload::from(json!({ "done": true })) }
}

pub fn failure() -> ReplyOutcome {
    ReplyOutcome::Failure { problem: Problem::new("refused", "no") }
}

pub fn retry_later() -> ReplyOutcome {
    ReplyOutcome::Retry { problem: Problem::new("busy", "not now"), after: None }
}

/// A saga with its whole history.
#[derive(Clone, Debug)]
pub struct Driven<'d> {
    pub definition: &'d Definition,
    pub saga: Saga,
    /// What it was at the start.
    pub parent: Option<Parent>,
    pub now: Timestamp,
    pub history: Vec<Told>,
    pub effects: Vec<Effect>,
}

impl<'d> Driven<'d> {
    /// A saga that has just been started.
    pub fn start(definition: &'d Definition) -> Self {
        Self::start_with(definition, json!({ "order": 1 }), None)
    }

    /// The same with this input, and as the sub-saga of another.
    pub fn start_with(definition: &'d Definition, input: serde_json::Value, parent: Option<Parent>) -> Self {
        let mut driven = Self::fresh(definition, input, parent);
        driven.apply(EventKind::Started);
        driven
    }

    /// One to which nothing has happened yet.
    pub fn fresh(definition: &'d Definition, input: serde_json::Value, parent: Option<Parent>) -> Self {
        let now = epoch();
        let id: SagaId = "01890000-0000-7000-8000-000000000001".parse().expect("an id");
        let mut saga = Saga::new(id, definition, None, Payload::from(input), now);
        saga.parent.clone_from(&parent);
        Self { definition, saga, parent, now, history: Vec::new(), effects: Vec::new() }
    }

    pub fn at(&self, name: &str) -> StepIndex {
        self.definition.find(name).expect("a step of the definition")
    }

    pub fn step(&self, name: &str) -> &StepState {
        &self.saga.steps[self.at(name).at()]
    }

    pub fn try_apply(&mut self, kind: EventKind) -> Result<Vec<Effect>, IllegalTransition> {
        let event = Event { now: self.now, kind };
        let (saga, effects) = transition(self.definition, &self.saga, &event)?;
        if saga.revision != self.saga.revision {
            self.history.push(Told { revision: saga.revision, event });
        }
        self.saga = saga;
        self.effects.extend(effects.clone());
        Ok(effects)
    }

    pub fn apply(&mut self, kind: EventKind) -> Vec<Effect> {
        self.try_apply(kind).expect("the event is allowed")
    }

    /// The last command decided for the step in this direction.
    pub fn seq(&self, name: &str, direction: Direction) -> Seq {
        let index = self.at(name);
        self.effects
            .iter()
            .rev()
            .find_map(|effect| match effect {
                Effect::Decide { seq, step, direction: d, .. } if *step == index && *d == direction => Some(*seq),
                _ => None,
            })
            .expect("the command was decided")
    }

    pub fn reply_to(&mut self, seq: Seq, attempt: u32, outcome: ReplyOutcome) -> Vec<Effect> {
        self.apply(EventKind::Replied { seq, attempt, outcome })
    }

    /// The step's action is answered, whichever attempt it is at.
    pub fn reply(&mut self, name: &str, outcome: ReplyOutcome) -> Vec<Effect> {
        let seq = self.seq(name, Direction::Action);
        let attempt = self.attempt(name, Direction::Action);
        self.reply_to(seq, attempt, outcome)
    }

    /// The step's compensation is answered.
    pub fn reply_undo(&mut self, name: &str, outcome: ReplyOutcome) -> Vec<Effect> {
        let seq = self.seq(name, Direction::Compensation);
        let attempt = self.attempt(name, Direction::Compensation);
        self.reply_to(seq, attempt, outcome)
    }

    fn attempt(&self, name: &str, direction: Direction) -> u32 {
        self.step(name).in_flight().filter(|(d, _)| *d == direction).map_or(1, |(_, command)| command.attempt)
    }

    pub fn succeed(&mut self, name: &str) -> Vec<Effect> {
        self.reply(name, success())
    }

    pub fn refuse(&mut self, name: &str) -> Vec<Effect> {
        self.reply(name, failure())
    }

    pub fn undone(&mut self, name: &str) -> Vec<Effect> {
        self.reply_undo(name, success())
    }

    /// The broker confirms whatever is being sent.
    pub fn confirm_all(&mut self) {
        let sent: Vec<(Seq, u32)> = self
            .saga
            .steps
            .iter()
            .filter_map(|step| step.in_flight().map(|(_, command)| (command.seq, command.attempt)))
            .collect();
        for (seq, attempt) in sent {
            self.apply(EventKind::Published { seq, attempt });
        }
    }

    pub fn wait(&mut self, by: Duration) {
        self.now = after(self.now, by);
    }

    /// Moves the time to what is due next, and does it.
    pub fn fire(&mut self) -> Vec<Effect> {
        self.now = self.saga.due().expect("something is due").max(self.now);
        self.apply(EventKind::Due)
    }

    /// Confirms and fires until the step's action (or compensation) is no longer in flight: nobody answers.
    pub fn exhaust(&mut self, name: &str, direction: Direction) {
        for _ in 0..100 {
            if self.step(name).in_flight().is_none_or(|(d, _)| d != direction) {
                return;
            }
            self.confirm_all();
            self.fire();
        }
        panic!("step {name} never runs out of attempts");
    }

    pub fn signal(&mut self, signal: &str) -> Vec<Effect> {
        self.apply(signalled(signal))
    }

    /// The parent asks, as attempt `attempt`.
    pub fn ask(&mut self, direction: Direction, attempt: u32) -> Vec<Effect> {
        self.apply(asked(direction, attempt))
    }

    pub fn operate(&mut self, operation: Operation) -> Vec<Effect> {
        self.apply(EventKind::Operated { operation })
    }

    pub fn refused(&mut self, operation: Operation) -> String {
        self.try_apply(EventKind::Operated { operation }).expect_err("the operation is refused").why
    }

    /// What the history gives when it is replayed from the start.
    pub fn replayed(&self) -> Saga {
        let now = epoch();
        let mut fresh = Saga::new(self.saga.id, self.definition, None, self.saga.input.clone(), now);
        fresh.parent.clone_from(&self.parent);
        replay(self.definition, fresh, &self.history).expect("the history fits together")
    }
}

pub fn signalled(signal: &str) -> EventKind {
    EventKind::Signalled { signal: signal.to_owned(), payload: Payload::from(json!({ "by": "ann" })) }
}

pub fn asked(direction: Direction, attempt: u32) -> EventKind {
    EventKind::Asked { direction, answer: address(direction, attempt) }
}

/// Where a parent's command wants its answer.
pub fn address(direction: Direction, attempt: u32) -> ReplyAddress {
    ReplyAddress { token: format!("{direction}#{attempt}"), reply_to: "replies".to_owned() }
}

/// What makes a saga the sub-saga of another.
pub fn parent() -> Parent {
    let saga: SagaId = "01890000-0000-7000-8000-000000000009".parse().expect("an id");
    let start = address(Direction::Action, 1);
    Parent { saga, step: "sub".to_owned(), depth: 1, start, undo: None, held: None }
}

/// What is told to the parent by these effects: `action#1 success`.
pub fn answers(effects: &[Effect]) -> Vec<String> {
    let told = |outcome: &ReplyOutcome| match outcome {
        ReplyOutcome::Success { .. } => "success".to_owned(),
        ReplyOutcome::Failure { problem } => format!("failure {}", problem.kind),
        ReplyOutcome::Retry { problem, .. } => format!("retry {}", problem.kind),
        ReplyOutcome::InProgress => "in-progress".to_owned(),
    };
    let answer = |effect: &Effect| match effect {
        Effect::Answer { to, outcome } => Some(format!("{} {}", to.token, told(outcome))),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

/// A definition as people write it, expanded for this input.
pub fn read(text: &str, input: &serde_json::Value) -> Arc<Definition> {
    let checked = amends::definition::read(text);
    let definition = checked.definition.unwrap_or_else(|| panic!("{text}\n{:#?}", checked.diagnostics));
    definition.expanded(&Payload::from(input.clone())).expect("its lists are in the input")
}

/// What is sent by these effects: `do a#1`, `undo b#2 (of 1)`, `again 3/2`.
pub fn sent(definition: &Definition, effects: &[Effect]) -> Vec<String> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Decide { step, direction, generation, .. } => {
                let word = if *direction == Direction::Action { "do" } else { "undo" };
                Some(format!("{word} {}#{generation}", definition.step(*step).name))
            }
            Effect::Publish { seq, attempt } => Some(format!("again {seq}/{attempt}")),
            _ => None,
        })
        .collect()
}

/// The saga on one line: `RUNNING | a verified | b pending:awaiting 1`.
pub fn line_of(definition: &Definition, saga: &Saga) -> String {
    let mut words = vec![match &saga.state {
        SagaState::Stuck(stuck) => format!("STUCK({} of {})", stuck.direction, definition.step(stuck.step).name),
        state => state.as_str().to_owned(),
    }];
    if saga.paused {
        words[0].push_str(" paused");
    }
    if saga.held().is_some() {
        words[0].push_str(" held");
    }
    let early: Vec<&str> = saga.signals.keys().map(String::as_str).collect();
    if !early.is_empty() {
        words[0].push_str(&format!(" (early: {})", early.join(" ")));
    }
    for (step, state) in definition.steps.iter().zip(&saga.steps) {
        words.push(format!("{} {}", step.name, word_of(state)));
    }
    words.join(" | ")
}

fn word_of(state: &StepState) -> String {
    let phase = |state: &StepState| {
        state.in_flight().map_or(String::new(), |(_, command)| {
            let phase = match command.phase {
                amends::saga::Phase::Sending(_) => "sending",
                amends::saga::Phase::Awaiting(_) => "awaiting",
                amends::saga::Phase::BackingOff(_) => "backing-off",
                amends::saga::Phase::Waiting(_) => "waiting",
                amends::saga::Phase::Held(_) => "held",
            };
            format!(":{phase} {}#{}", command.attempt, command.generation)
        })
    };
    match state {
        StepState::Compensating { compensation, owed } => {
            let what = match compensation {
                CompensationState::Pending { .. } => phase(state),
                CompensationState::Failed { seq, .. } => {
                    format!(":failed{}", if seq.is_none() { " unsent" } else { "" })
                }
                CompensationState::Unknown { .. } => ":unknown".to_owned(),
            };
            format!("compensating{what}{}", if owed.known { "" } else { " (outcome unknown)" })
        }
        StepState::Skipped { by } => match by {
            Skip::Condition => "skipped by condition".to_owned(),
            Skip::Operator => "skipped by operator".to_owned(),
            Skip::OperatorAfterSend { owed } => {
                format!("skipped after send{}", if owed.known { " (succeeded)" } else { "" })
            }
            Skip::OperatorCompensation { .. } => "compensation skipped".to_owned(),
            Skip::TimedOut => "no signal".to_owned(),
        },
        other => format!("{}{}", other.status().as_str(), phase(other)),
    }
}
