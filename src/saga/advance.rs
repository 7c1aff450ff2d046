//! What is next: forward along the graph, backward against it, the end, or a person.

use serde_json::Value;

use crate::clock::after;
use crate::definition::expansion::items;
use crate::definition::{Element, ExpressionError, Scope, Template, Work};
use crate::id::{Seq, StepIndex};
use crate::payload::Payload;
use crate::saga::transition::{Machine, PUBLISH_GRACE, TURNED_WHILE_HELD};
use crate::saga::{
    CommandState, CompensationState, Direction, Effect, Note, Owed, Phase, Problem, SagaState, Skip, StepState, Stuck,
};

/// A command to send.
struct Sending {
    direction: Direction,
    generation: u32,
    compensates: Option<u32>,
    body: Payload,
}

impl Machine<'_> {
    /// Decides whatever the state now allows. Nothing while paused: a resumed saga catches up.
    pub(super) fn advance(&mut self) {
        if self.saga.paused || self.saga.state.is_terminal() {
            return;
        }
        if !self.is_backward() {
            self.advance_forward();
        }
        if self.is_backward() {
            self.advance_backward();
        }
    }

    fn advance_forward(&mut self) {
        // A skipped step may free another one that stands before it in the file, so go round until nothing moves.
        // Not once the saga must turn round: what would be sent now would only have to be undone.
        while let Some(index) = self.next_ready().filter(|_| self.is_pivot_passed() || self.first_bad().is_none()) {
            match self.is_wanted(index) {
                Ok(true) => self.send_action(index, 1),
                Ok(false) => {
                    self.set(index, StepState::Skipped { by: Skip::Condition });
                    self.note(Note::StepSkipped(index));
                }
                Err(error) => self.cannot_send(index, 1, &error),
            }
        }
        // From the pivot on only forward: the saga's time-out no longer applies.
        self.saga.deadline = self.saga.deadline.filter(|_| !self.is_pivot_passed());
        match self.first_bad() {
            Some((index, problem)) if self.is_pivot_passed() => self.stick(Direction::Action, index, problem),
            Some((_, problem)) => self.go_backward(problem),
            None => {
                self.unstick(SagaState::Running);
                if self.definition.indices().all(|index| self.is_done(index)) {
                    self.complete();
                }
            }
        }
    }

    fn first_bad(&self) -> Option<(StepIndex, Problem)> {
        self.definition.indices().find_map(|index| match self.step(index) {
            StepState::Failed { problem, .. } | StepState::Unknown { problem, .. } => Some((index, problem.clone())),
            _ => None,
        })
    }

    fn next_ready(&self) -> Option<StepIndex> {
        self.definition
            .indices()
            .find(|&index| matches!(self.step(index), StepState::Waiting) && self.is_everything_before_done(index))
    }

    /// Not only the direct dependencies: an operator may have skipped one of them before its own turn came.
    pub(super) fn is_everything_before_done(&self, index: StepIndex) -> bool {
        let graph = &self.definition.graph;
        self.definition.indices().all(|before| !graph.is_before(before, index) || self.is_done(before))
    }

    fn is_done(&self, index: StepIndex) -> bool {
        matches!(self.step(index), StepState::Verified { .. } | StepState::Skipped { .. })
    }

    fn is_wanted(&self, index: StepIndex) -> Result<bool, ExpressionError> {
        match &self.definition.step(index).when {
            None => Ok(true),
            Some(condition) => self.with_scope(Some(index), |scope| condition.holds(scope)),
        }
    }

    /// Sends the step's action as generation `generation`.
    pub(super) fn send_action(&mut self, index: StepIndex, generation: u32) {
        match self.body(Some(index), &self.definition.step(index).input) {
            Ok(body) => {
                self.send_action_with(index, generation, body);
                self.take_early_signal(index);
            }
            Err(error) => self.cannot_send(index, generation, &error),
        }
    }

    /// Sends the step's action with this body.
    pub(super) fn send_action_with(&mut self, index: StepIndex, generation: u32, body: Payload) {
        let sending = Sending { direction: Direction::Action, generation, compensates: None, body };
        let command = self.decide(index, sending);
        self.set(index, StepState::Pending { command });
    }

    /// The command cannot even be made. Nothing was sent, so there is no effect: the same as a refusal, but its
    /// generation is still unused.
    fn cannot_send(&mut self, index: StepIndex, generation: u32, error: &ExpressionError) {
        let problem = Problem::new("expression-error", error.to_string());
        self.note(Note::StepFailed(index, problem.clone()));
        self.set(index, StepState::Failed { seq: None, attempts: 0, generation: generation - 1, problem });
    }

    fn decide(&mut self, index: StepIndex, sending: Sending) -> CommandState {
        let Sending { direction, generation, compensates, body } = sending;
        let seq = self.saga.next_seq;
        self.saga.next_seq = Seq(seq.0 + 1);
        self.effects.push(Effect::Decide { seq, step: index, direction, generation, compensates, body });
        let step = self.definition.step(index);
        let phase = match step.work.is_sent() {
            true => Phase::Sending(after(self.now, PUBLISH_GRACE)),
            false => Phase::Waiting(after(self.now, step.timeout)),
        };
        CommandState { seq, generation, attempt: 1, base: 0, last: None, phase }
    }

    /// Turns round. What is under way is left to settle; what only waits for its next attempt, or is held back, is given up.
    pub(super) fn go_backward(&mut self, cause: Problem) {
        self.saga.state = SagaState::Compensating;
        self.saga.cause = Some(cause.clone());
        self.has_changed = true;
        self.note(Note::Compensating(cause));
        for index in self.definition.indices() {
            let StepState::Pending { command: CommandState { phase, last, .. } } = self.step(index) else { continue };
            // A sub-saga is told to go back at once, instead of letting it run to its end first.
            let is_child = matches!(self.definition.step(index).work, Work::Saga { .. });
            if matches!(phase, Phase::Waiting(_)) {
                self.wait_fails(index, Problem::new("given-up", "the saga turned back while it waited"));
            } else if is_child || matches!(phase, Phase::BackingOff(_) | Phase::Held(_)) {
                let problem = last.clone().unwrap_or_else(|| match phase {
                    _ if is_child => Problem::new("given-up", "the saga turned back before the sub-saga had ended"),
                    Phase::Held(_) => Problem::new("given-up", TURNED_WHILE_HELD),
                    _ => self.no_reply(index, Direction::Action),
                });
                self.give_up(index, problem);
            }
        }
    }

    fn advance_backward(&mut self) {
        for index in self.definition.indices().rev() {
            let Some(owed) = self.owes(index) else { continue };
            let is_free = self.definition.graph.descendants(index).iter().all(|&later| self.is_undone(later));
            if is_free {
                self.send_compensation(index, owed, 1);
            }
        }
        let bad = self.definition.indices().find_map(|index| match self.step(index) {
            StepState::Compensating {
                compensation: CompensationState::Failed { problem, .. } | CompensationState::Unknown { problem, .. },
                ..
            } => Some((index, problem.clone())),
            _ => None,
        });
        match bad {
            Some((index, problem)) => self.stick(Direction::Compensation, index, problem),
            None => {
                self.unstick(SagaState::Compensating);
                if self.definition.indices().all(|index| self.is_undone(index)) {
                    self.end(SagaState::Compensated, Note::Compensated);
                }
            }
        }
    }

    /// The action whose compensation is owed and not yet under way.
    pub(super) fn owes(&self, index: StepIndex) -> Option<Owed> {
        let owed = match self.step(index) {
            StepState::Verified { seq, attempts, generation } => {
                Owed { seq: *seq, attempts: *attempts, generation: *generation, known: true }
            }
            StepState::Unknown { seq, attempts, generation, .. } => {
                Owed { seq: *seq, attempts: *attempts, generation: *generation, known: false }
            }
            StepState::Skipped { by: Skip::OperatorAfterSend { owed } } => owed.clone(),
            _ => return None,
        };
        let is_owed = self.definition.step(index).compensation.action().is_some() || self.definition.step(index).pivot;
        is_owed.then_some(owed)
    }

    /// Whether nothing remains to be undone at this step.
    fn is_undone(&self, index: StepIndex) -> bool {
        let is_moving = matches!(self.step(index), StepState::Pending { .. } | StepState::Compensating { .. });
        !is_moving && self.owes(index).is_none()
    }

    /// Sends the step's compensation as generation `generation`.
    pub(super) fn send_compensation(&mut self, index: StepIndex, owed: Owed, generation: u32) {
        let body = match self.definition.step(index).compensation.action() {
            Some(compensation) => self
                .body(Some(index), &compensation.input)
                .map_err(|error| Problem::new("expression-error", error.to_string())),
            // Only ever a pivot that reported failure first and success later.
            None => Err(Problem::new(
                "not-compensable",
                "the pivot took effect after it was refused, and nothing undoes it",
            )),
        };
        match body {
            Ok(body) => self.send_compensation_with(index, owed, generation, body),
            Err(problem) => {
                let generation = generation - 1;
                let compensation = CompensationState::Failed { seq: None, attempts: 0, generation, problem };
                self.set(index, StepState::Compensating { owed, compensation });
            }
        }
    }

    /// Sends the step's compensation with this body.
    pub(super) fn send_compensation_with(&mut self, index: StepIndex, owed: Owed, generation: u32, body: Payload) {
        let compensates = Some(owed.generation);
        let sending = Sending { direction: Direction::Compensation, generation, compensates, body };
        let compensation = CompensationState::Pending { command: self.decide(index, sending) };
        self.set(index, StepState::Compensating { owed, compensation });
    }

    /// What a template gives for a step, or (`None`) for the saga as a whole.
    fn body(&self, of: Option<StepIndex>, template: &Template) -> Result<Payload, ExpressionError> {
        if template.is_whole_input() {
            return Ok(self.saga.input.clone());
        }
        self.with_scope(of, |scope| template.evaluate(scope)).map(Payload::from)
    }

    fn with_scope<T>(&self, of: Option<StepIndex>, evaluate: impl FnOnce(&Scope<'_>) -> T) -> T {
        let output = |index: StepIndex| {
            self.saga.outputs.get(&index).filter(|_| self.has_output(index)).map(|output| output.value())
        };
        let element = of.and_then(|of| self.definition.step(of).element);
        // A loop's output is the list of its elements'; within an element it is the element's own.
        let lists: Vec<Option<Value>> = self
            .definition
            .loops
            .iter()
            .enumerate()
            .map(|(at, each)| {
                let own = element.is_some_and(|element| element.of == at);
                let all = || each.elements.iter().map(|&index| output(index).cloned().unwrap_or_default()).collect();
                (!own && self.saga.reads_outputs).then(|| Value::Array(all()))
            })
            .collect();
        let of_steps = self.definition.indices().filter_map(|index| {
            let name = match self.definition.step(index).element {
                None => self.definition.step(index).name.as_str(),
                Some(Element { of: at, .. }) if Some(index) == of => self.definition.loops.get(at)?.name.as_str(),
                Some(_) => return None,
            };
            Some((name, output(index)?))
        });
        let of_loops = self
            .definition
            .loops
            .iter()
            .zip(&lists)
            .filter_map(|(each, list)| Some((each.name.as_str(), list.as_ref()?)));
        let outputs: Vec<(&str, &Value)> = of_steps.chain(of_loops).collect();
        let item = element.and_then(|Element { of: at, index }| Some((self.items().get(at)?.get(index)?, index)));
        evaluate(&Scope {
            input: self.saga.input.value(),
            saga_id: &self.saga.id.to_string(),
            saga_key: self.saga.key.as_deref(),
            outputs: &outputs,
            item,
        })
    }

    fn items(&self) -> &[Vec<Value>] {
        self.items.get_or_init(|| {
            let input = self.saga.input.value();
            self.definition.loops.iter().map(|each| items(&each.items, input).unwrap_or_default()).collect()
        })
    }

    /// Skipped steps and those of unknown outcome have no output, whatever a late reply has brought.
    fn has_output(&self, index: StepIndex) -> bool {
        match self.step(index) {
            StepState::Verified { .. } => true,
            StepState::Skipped { by: Skip::OperatorAfterSend { owed } }
            | StepState::Compensating { owed, .. }
            | StepState::Compensated { owed, .. } => owed.known,
            _ => false,
        }
    }

    fn stick(&mut self, direction: Direction, step: StepIndex, problem: Problem) {
        let is_news = self.saga.state.stuck().is_none_or(|stuck| stuck.step != step || stuck.problem != problem);
        if is_news {
            self.note(Note::Stuck(step, problem.clone()));
            self.saga.state = SagaState::Stuck(Stuck { direction, step, problem, since: self.now });
        }
    }

    fn unstick(&mut self, state: SagaState) {
        if self.saga.state.stuck().is_some() {
            self.saga.state = state;
            self.note(Note::Unstuck);
        }
    }

    fn complete(&mut self) {
        if self.saga.held().is_some() {
            return;
        }
        if let Some(template) = &self.definition.output {
            match self.body(None, template) {
                Ok(output) => self.saga.output = Some(output),
                // Every effect stands, so the saga is complete all the same; the reader sees why it put nothing out.
                Err(error) => self.saga.cause = Some(Problem::new("output-expression-error", error.to_string())),
            }
        }
        match self.saga.parent {
            Some(_) => self.hold(),
            None => self.end(SagaState::Completed, Note::Completed),
        }
    }

    pub(super) fn end(&mut self, state: SagaState, note: Note) {
        self.saga.state = state;
        self.saga.ended_at = Some(self.now);
        self.has_changed = true;
        self.note(note);
        self.tell_parent();
    }
}
