//! The heart of the protocol, exhaustively: one saga, its coordinators, its participants with their inboxes, and a
//! network that duplicates, reorders and loses, explored in every order up to a stated bound by a model checker.
//!
//! The coordinator's part is the real [`transition`]. The rest is as small as it can be:
//!
//! * The network is a set that nothing is ever taken out of, so that whatever was sent may arrive never, late, or
//!   again, in any order.
//! * A coordinator commits, and sends later what it has decided; a crash in between forgets what was to be sent.
//! * A second coordinator reads the saga, is held up for as long as you like, and then tries to commit what it has made
//!   of it.
//! * A participant writes inbox row, effect and reply at once; a reply that is lost is one that never arrives.
//! * Every timer may fire at any time, and may take as long as it likes.
//!
//! The bound: attempts per command as the definition says (2), one crash, one coordinator held up once.

#[path = "support/planted_bugs.rs"]
mod planted_bugs;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use amends::clock::{Timestamp, after};
use amends::definition::{Definition, read};
use amends::id::{SagaId, Seq, StepIndex};
use amends::payload::Payload;
use amends::saga::{
    CommandState, CompensationState, Direction, Effect, Event, EventKind, Outcome, Phase, Problem, ReplyOutcome, Saga,
    SagaState, StepState, transition,
};
use stateright::{Checker, Model, Property};

/// A bug that can be planted, to show that the properties bite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Participants do not remember what they have done.
    NoInbox,
    /// A compensation whose action never ran leaves nothing behind.
    NoTombstone,
    /// A coordinator commits without looking whether the saga has changed since it was read.
    NoVersionCheck,
    /// What was decided and never sent does not come back after a crash.
    NoRecovery,
    /// The outbox entry is VERIFIED before the outcome is known.
    EarlyVerified,
    /// A compensation is sent without regard to what came after its step.
    ForwardOrder,
    /// Attempts that time out count as refusals.
    UnknownIsFailed,
    /// After the pivot the saga may still be sent back.
    BackAfterPivot,
}

/// A saga as it is stored, with times reduced to due and not due.
#[derive(Clone, Debug)]
struct Stored {
    saga: Arc<Saga>,
    text: Arc<str>,
}

impl Stored {
    fn new(mut saga: Saga) -> Self {
        saga.created_at = epoch();
        saga.updated_at = epoch();
        saga.ended_at = saga.ended_at.map(|_| epoch());
        if let SagaState::Stuck(stuck) = &mut saga.state {
            stuck.since = epoch();
        }
        for step in &mut saga.steps {
            if let StepState::Pending { command }
            | StepState::Compensating { compensation: CompensationState::Pending { command }, .. } = step
            {
                command.last = None;
                command.phase = match command.phase {
                    Phase::Sending(_) => Phase::Sending(soon()),
                    Phase::Awaiting(_) => Phase::Awaiting(soon()),
                    Phase::BackingOff(_) => Phase::BackingOff(soon()),
                    Phase::Waiting(_) => Phase::Waiting(soon()),
                    Phase::Held(_) => Phase::Held(soon()),
                };
            }
        }
        let text = format!("{:?} {:?} {:?} {}", saga.state, saga.steps, saga.cause, saga.revision).into();
        Self { saga: Arc::new(saga), text }
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Stored {}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.text.hash(hasher);
    }
}

/// A command on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Command {
    seq: u32,
    attempt: u32,
    step: u16,
    is_compensation: bool,
}

/// A reply on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Reply {
    seq: u32,
    attempt: u32,
    is_success: bool,
}

/// An outbox entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    step: u16,
    is_compensation: bool,
    outcome: Option<Outcome>,
}

/// What one participant has in its own database about one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Participant {
    /// The recorded reply to the action.
    action: Option<bool>,
    /// Whether the compensation is recorded.
    compensation: bool,
    /// How often the action took effect.
    done: u8,
    /// How often it was undone.
    undone: u8,
}

impl Participant {
    fn stands(&self) -> bool {
        self.done > self.undone
    }
}

/// What the second coordinator has read and means to commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct HeldUp {
    read: Stored,
    input: Input,
}

/// What moves the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Input {
    Reply(Reply),
    Timer,
    Cancel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    saga: Stored,
    outbox: BTreeMap<u32, Entry>,
    /// Decided and committed, not yet sent.
    unsent: BTreeSet<Command>,
    commands: BTreeSet<Command>,
    replies: BTreeSet<Reply>,
    participants: Vec<Participant>,
    held_up: Option<HeldUp>,
    crashes_left: u8,
    hold_ups_left: u8,
    /// Guarantees that a step has broken, which a state alone does not show.
    broken: BTreeSet<&'static str>,
    stale_commits_refused: bool,
    tombstone_used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The coordinator sends a command, and the broker confirms.
    Send(Command),
    /// The coordinator dies, and another takes over.
    Crash,
    /// A command arrives. An action that runs for the first time may be refused.
    Arrive(Command, bool),
    /// A coordinator takes in something and commits.
    Commit(Input),
    /// The second coordinator reads the saga, to take in something.
    Read(Input),
    /// The second coordinator commits what it has made of it.
    CommitLate,
}

struct Protocol {
    definition: Arc<Definition>,
    /// The same steps without their order, for [`Bug::ForwardOrder`].
    unordered: Arc<Definition>,
    /// Steps that their participants may refuse.
    refusable: Vec<u16>,
    cancel: bool,
    bug: Option<Bug>,
}

fn epoch() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn soon() -> Timestamp {
    after(epoch(), Duration::from_secs(1))
}

fn later() -> Timestamp {
    after(epoch(), Duration::from_secs(3_600))
}

impl Protocol {
    fn new(yaml: &str, refusable: &[u16]) -> Self {
        let definition = |yaml: &str| {
            let checked = read(yaml);
            checked.definition.unwrap_or_else(|| panic!("{:?}", checked.diagnostics))
        };
        let free: Vec<String> = yaml
            .lines()
            .filter(|line| !line.contains("pivot: true"))
            .map(|line| match line.split_once(", after: [") {
                Some((before, rest)) => {
                    format!("{before}, after: []{}", rest.split_once(']').map_or("", |(_, rest)| rest))
                }
                None => line.to_owned(),
            })
            .collect();
        let unordered = definition(&free.join("\n"));
        Self { definition: definition(yaml), unordered, refusable: refusable.to_vec(), cancel: false, bug: None }
    }

    fn with(mut self, bug: Bug) -> Self {
        self.bug = Some(bug);
        self
    }

    fn cancellable(mut self) -> Self {
        self.cancel = true;
        self
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn kind(&self, input: Input) -> (Timestamp, EventKind) {
        match input {
            Input::Reply(Reply { seq, attempt, is_success }) => {
                let outcome = if is_success {
                    ReplyOutcome::Success { output: Payload::trusted("null") }
                } else {
                    ReplyOutcome::Failure { problem: Problem::new("refused", "") }
                };
                (epoch(), EventKind::Replied { seq: Seq(seq), attempt, outcome })
            }
            Input::Timer => (later(), EventKind::Due),
            Input::Cancel => (epoch(), EventKind::Operated { operation: amends::saga::Operation::Cancel }),
        }
    }

    /// What becomes of `stored`; `None` when the state does not allow it, or nothing changes.
    fn moved(&self, stored: &Stored, input: Input) -> Option<(Saga, Vec<Effect>)> {
        let (now, kind) = self.kind(input);
        let mut event = Event { now, kind };
        if self.has(Bug::UnknownIsFailed)
            && input == Input::Timer
            && let Some((Direction::Action, command)) = stored.saga.steps.iter().find_map(StepState::in_flight)
        {
            event = Event {
                now: epoch(),
                kind: EventKind::Replied {
                    seq: command.seq,
                    attempt: command.attempt,
                    outcome: ReplyOutcome::Failure { problem: Problem::new("timeout", "") },
                },
            };
        }
        let (saga, effects) = match self.bug {
            Some(Bug::BackAfterPivot) if input == Input::Cancel => self.sent_back_after_pivot(&stored.saga, &event)?,
            Some(Bug::ForwardOrder) if matches!(stored.saga.state, SagaState::Compensating) => {
                let mut saga = Saga::clone(&stored.saga);
                let all = saga.steps.clone();
                saga.steps.truncate(self.unordered.steps.len());
                let (mut saga, effects) = transition(&self.unordered, &saga, &event).ok()?;
                saga.steps.extend_from_slice(&all[saga.steps.len()..]);
                (saga, effects)
            }
            _ => transition(&self.definition, &stored.saga, &event).ok()?,
        };
        if saga.revision == stored.saga.revision {
            return None;
        }
        Some((saga, effects))
    }

    /// Goes back as if the pivot had never been sent.
    fn sent_back_after_pivot(&self, saga: &Saga, event: &Event) -> Option<(Saga, Vec<Effect>)> {
        let pivot = self.definition.pivot()?;
        let kept = saga.steps[pivot.at()].clone();
        let mut saga = saga.clone();
        saga.steps[pivot.at()] = StepState::Waiting;
        let (mut saga, effects) = transition(&self.definition, &saga, event).ok()?;
        saga.steps[pivot.at()] = kept;
        Some((saga, effects))
    }

    /// Whether the saga ends, or is stuck, by its timers alone.
    fn has_an_end_without_news(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..64 {
            if has_ended(&world) {
                return true;
            }
            let next = match world.unsent.first() {
                Some(&command) => self.next_state(&world, Action::Send(command)),
                None if self.actions_of(&world).contains(&Action::Commit(Input::Timer)) => {
                    self.next_state(&world, Action::Commit(Input::Timer))
                }
                None => None,
            };
            match next {
                Some(next) => world = next,
                None => return false,
            }
        }
        false
    }

    fn actions_of(&self, world: &World) -> Vec<Action> {
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        actions
    }

    /// Commits: saga, outbox, and what is to be sent then.
    fn commit(&self, world: &mut World, saga: Saga, effects: Vec<Effect>) {
        let was_terminal = world.saga.saga.state.is_terminal();
        if was_terminal {
            world.broken.insert("4 terminal states are final");
        }
        for effect in effects {
            match effect {
                Effect::Decide { seq, step, direction, .. } => {
                    let is_compensation = direction == Direction::Compensation;
                    let outcome = self.has(Bug::EarlyVerified).then_some(Outcome::Success);
                    world.outbox.insert(seq.0, Entry { step: step.0, is_compensation, outcome });
                    world.unsent.insert(Command { seq: seq.0, attempt: 1, step: step.0, is_compensation });
                    if is_compensation {
                        self.check_order(world, &saga, step);
                    }
                }
                Effect::Publish { seq, attempt } => {
                    if let Some(Entry { step, is_compensation, .. }) = world.outbox.get(&seq.0).copied() {
                        world.unsent.insert(Command { seq: seq.0, attempt, step, is_compensation });
                    }
                }
                Effect::Settle(settled) => match world.outbox.get_mut(&settled.seq.0) {
                    Some(entry) => entry.outcome = Some(settled.outcome),
                    None => {
                        world.broken.insert("12 VERIFIED means that the outcome is durable");
                    }
                },
                Effect::Answer { .. } | Effect::LookAtParent | Effect::Note(_) => {}
            }
        }
        if saga.revision <= world.saga.saga.revision {
            world.broken.insert("3 replaying the history gives the state");
        }
        world.saga = Stored::new(saga);
    }

    /// Nothing that came after a step may still stand, or be on its way, when the step's compensation is decided.
    fn check_order(&self, world: &mut World, saga: &Saga, step: StepIndex) {
        for &dependent in self.definition.graph.descendants(step) {
            let settled = !matches!(
                saga.steps[dependent.at()],
                StepState::Pending { .. } | StepState::Verified { .. } | StepState::Compensating { .. }
            );
            if !settled && self.definition.step(dependent).pivot {
                world.broken.insert("10 after the pivot only forward");
            } else if !settled {
                world.broken.insert("9 compensations run in reverse dependency order");
            }
        }
    }

    /// A participant takes a command: inbox row, effect and reply in one transaction.
    fn arrive(&self, world: &mut World, command: Command, accepts: bool) {
        let Command { seq, attempt, step, is_compensation } = command;
        let at = usize::from(step);
        let pivot = self.definition.pivot();
        let dependents_stand =
            self.definition.graph.descendants(StepIndex(step)).iter().any(|&d| world.participants[d.at()].stands());
        let pivot_stands = pivot.is_some_and(|pivot| world.participants[pivot.at()].stands());
        let own = &mut world.participants[at];
        let mut broken = Vec::new();
        let is_success = if is_compensation {
            if !own.compensation || self.has(Bug::NoInbox) {
                if own.stands() {
                    own.undone += 1;
                    if pivot_stands {
                        broken.push("10 after the pivot only forward");
                    } else if dependents_stand {
                        broken.push("9 compensations run in reverse dependency order");
                    }
                }
                own.compensation = true;
                if own.action.is_none() && !self.has(Bug::NoTombstone) {
                    own.action = Some(false);
                    world.tombstone_used = true;
                }
            }
            true
        } else {
            match own.action.filter(|_| !self.has(Bug::NoInbox)) {
                Some(recorded) => recorded,
                None => {
                    if accepts {
                        if own.compensation {
                            broken.push("7 no action takes effect after its compensation");
                        }
                        own.done += 1;
                    }
                    own.action = Some(accepts);
                    accepts
                }
            }
        };
        if own.done > 1 || own.undone > 1 {
            broken.push("6 at most one effect per saga, step and direction");
        }
        world.broken.extend(broken);
        world.replies.insert(Reply { seq, attempt, is_success });
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let id: SagaId = "019aa0c0-0000-7000-8000-000000000001".parse().expect("an id");
        let saga = Saga::new(id, &self.definition, None, Payload::trusted("{}"), epoch());
        let mut world = World {
            saga: Stored::new(saga.clone()),
            outbox: BTreeMap::new(),
            unsent: BTreeSet::new(),
            commands: BTreeSet::new(),
            replies: BTreeSet::new(),
            participants: vec![Participant::default(); self.definition.steps.len()],
            held_up: None,
            crashes_left: 1,
            hold_ups_left: 1,
            broken: BTreeSet::new(),
            stale_commits_refused: false,
            tombstone_used: false,
        };
        let event = Event { now: epoch(), kind: EventKind::Started };
        let (saga, effects) = transition(&self.definition, &saga, &event).expect("a fresh saga starts");
        self.commit(&mut world, saga, effects);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend(world.unsent.iter().copied().map(Action::Send));
        if world.crashes_left > 0 && !world.unsent.is_empty() {
            actions.push(Action::Crash);
        }
        for &command in &world.commands {
            actions.push(Action::Arrive(command, true));
            if !command.is_compensation && self.refusable.contains(&command.step) {
                actions.push(Action::Arrive(command, false));
            }
        }
        let mut inputs: Vec<Input> = world.replies.iter().copied().map(Input::Reply).collect();
        // The publish grace is long enough for a publisher that lives.
        if world.unsent.is_empty() && world.saga.saga.due().is_some() {
            let is_sending = world
                .saga
                .saga
                .steps
                .iter()
                .any(|step| matches!(step.in_flight(), Some((_, CommandState { phase: Phase::Sending(_), .. }))));
            if !(self.has(Bug::NoRecovery) && is_sending) {
                inputs.push(Input::Timer);
            }
        }
        if self.cancel && matches!(world.saga.saga.state, SagaState::Running) {
            inputs.push(Input::Cancel);
        }
        actions.extend(inputs.iter().copied().map(Action::Commit));
        if world.held_up.is_none() && world.hold_ups_left > 0 {
            actions.extend(inputs.into_iter().map(Action::Read));
        }
        if world.held_up.is_some() {
            actions.push(Action::CommitLate);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        match action {
            Action::Send(command) => {
                world.unsent.remove(&command);
                world.commands.insert(command);
                // The confirm is written down with a commit, unless the saga has moved on.
                let kind = EventKind::Published { seq: Seq(command.seq), attempt: command.attempt };
                let event = Event { now: epoch(), kind };
                if let Ok((saga, effects)) = transition(&self.definition, &world.saga.saga, &event)
                    && saga.revision > world.saga.saga.revision
                {
                    self.commit(&mut world, saga, effects);
                }
            }
            Action::Crash => {
                world.crashes_left -= 1;
                world.unsent.clear();
            }
            Action::Arrive(command, accepts) => self.arrive(&mut world, command, accepts),
            Action::Commit(input) => {
                let (saga, effects) = self.moved(&world.saga, input)?;
                self.commit(&mut world, saga, effects);
            }
            Action::Read(input) => {
                self.moved(&world.saga, input)?;
                world.hold_ups_left -= 1;
                world.held_up = Some(HeldUp { read: world.saga.clone(), input });
            }
            Action::CommitLate => {
                let HeldUp { read, input } = world.held_up.take()?;
                let has_moved = read.saga.revision != world.saga.saga.revision;
                if has_moved && !self.has(Bug::NoVersionCheck) {
                    // Refused; whoever asked asks again, since the reply was not acknowledged and the timer is due still.
                    world.stale_commits_refused = true;
                } else if let Some((saga, effects)) = self.moved(&read, input) {
                    self.commit(&mut world, saga, effects);
                }
            }
        }
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("3 every commit raises the revision", |_, world: &World| {
                !world.broken.contains("3 replaying the history gives the state")
            }),
            Property::always("4 terminal states are final", |_, world: &World| {
                !world.broken.contains("4 terminal states are final")
            }),
            Property::always("5 complete means done, compensated means undone", |_, world: &World| {
                match world.saga.saga.state {
                    SagaState::Completed => world.participants.iter().all(|own| own.done == 1 && own.undone == 0),
                    SagaState::Compensated => world.participants.iter().all(|own| !own.stands()),
                    _ => true,
                }
            }),
            Property::always("6 at most one effect per saga, step and direction", |_, world: &World| {
                !world.broken.contains("6 at most one effect per saga, step and direction")
            }),
            Property::always("7 no action takes effect after its compensation", |_, world: &World| {
                !world.broken.contains("7 no action takes effect after its compensation")
            }),
            Property::always("9 compensations run in reverse dependency order", |_, world: &World| {
                !world.broken.contains("9 compensations run in reverse dependency order")
            }),
            Property::always("10 after the pivot only forward", |_, world: &World| {
                !world.broken.contains("10 after the pivot only forward")
            }),
            Property::always("11 a terminal saga has no PENDING entry", |_, world: &World| {
                !world.saga.saga.state.is_terminal() || world.outbox.values().all(|entry| entry.outcome.is_some())
            }),
            Property::always("12 VERIFIED means that the outcome is durable", |_, world: &World| {
                !world.broken.contains("12 VERIFIED means that the outcome is durable")
                    && world.outbox.values().filter(|entry| entry.outcome == Some(Outcome::Success)).all(|entry| {
                        let own = &world.participants[usize::from(entry.step)];
                        if entry.is_compensation { own.compensation } else { own.action == Some(true) }
                    })
            }),
            // No action undoes another, so that every way through is finite: where it ends, the saga has ended.
            Property::always("16 every saga ends or is stuck with a reason", |model: &Self, world: &World| {
                has_ended(world) || !model.next_states(world).is_empty()
            }),
            Property::always("16 even if nothing arrives any more", |model: &Self, world: &World| {
                model.has_an_end_without_news(world)
            }),
            Property::sometimes("it completes", |_, world: &World| world.saga.saga.state == SagaState::Completed),
            Property::sometimes("it is compensated", |_, world: &World| {
                world.saga.saga.state == SagaState::Compensated && world.participants.iter().any(|own| own.undone > 0)
            }),
            Property::sometimes("a tombstone refuses an action", |_, world: &World| world.tombstone_used),
            Property::sometimes("a stale commit is refused", |_, world: &World| world.stale_commits_refused),
        ]
    }
}

fn has_ended(world: &World) -> bool {
    world.saga.saga.state.is_terminal() || world.saga.saga.state.stuck().is_some()
}

/// A step that can be undone, and a pivot that may be refused.
const LINE: &str = "
saga: line
version: 1
defaults: { retry: { maxAttempts: 1, jitter: none }, compensation: { retry: { maxAttempts: 1, jitter: none } } }
steps:
  - { name: a, participant: p, action: do, after: [], retry: { maxAttempts: 2 }, compensation: { action: undo } }
  - { name: b, participant: q, action: do, after: [a], compensation: { action: undo } }
";

/// Two steps side by side, and a pivot after both.
const FORK: &str = "
saga: fork
version: 1
defaults: { retry: { maxAttempts: 1, jitter: none }, compensation: { retry: { maxAttempts: 1, jitter: none } } }
steps:
  - { name: a, participant: p, action: do, after: [], compensation: { action: undo } }
  - { name: b, participant: q, action: do, after: [], compensation: { action: undo } }
  - { name: c, participant: r, action: do, after: [a, b], pivot: true, compensation: none }
";

/// A step that can be undone and a pivot.
const PIVOT: &str = "
saga: pivot
version: 1
defaults: { retry: { maxAttempts: 2, jitter: none }, compensation: { retry: { maxAttempts: 1, jitter: none } } }
steps:
  - { name: a, participant: p, action: do, after: [], compensation: { action: undo } }
  - { name: b, participant: q, action: do, after: [a], pivot: true, compensation: none }
";

fn check(protocol: Protocol) -> usize {
    let checker = protocol.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.unique_state_count()
}

#[test]
fn no_order_of_events_breaks_a_guarantee_in_a_line_of_steps() {
    assert!(check(Protocol::new(LINE, &[1])) > 10_000);
}

#[test]
fn no_order_of_events_breaks_a_guarantee_around_a_pivot() {
    assert!(check(Protocol::new(PIVOT, &[1]).cancellable()) > 10_000);
}

#[test]
fn no_order_of_events_breaks_a_guarantee_in_parallel_branches() {
    assert!(check(Protocol::new(FORK, &[1, 2])) > 10_000);
}

/// Which property finds which bug.
#[test]
fn planted_bugs_are_found() {
    let cases = [
        (Bug::NoInbox, LINE, "6 at most one effect per saga, step and direction"),
        (Bug::NoTombstone, LINE, "7 no action takes effect after its compensation"),
        (Bug::NoVersionCheck, LINE, "3 every commit raises the revision"),
        (Bug::NoRecovery, LINE, "16 even if nothing arrives any more"),
        (Bug::EarlyVerified, LINE, "12 VERIFIED means that the outcome is durable"),
        (Bug::ForwardOrder, LINE, "9 compensations run in reverse dependency order"),
        (Bug::UnknownIsFailed, LINE, "5 complete means done, compensated means undone"),
        (Bug::BackAfterPivot, PIVOT, "10 after the pivot only forward"),
    ];
    let number = |property: &str| property.split(' ').next().unwrap_or_default().to_owned();
    let planted: BTreeSet<String> =
        cases.iter().map(|(bug, _, property)| format!("{bug:?}: {}", number(property))).collect();
    let told: BTreeSet<String> =
        planted_bugs::told("model check").into_iter().map(|(_, cell)| cell.to_owned()).collect();
    assert_eq!(told, planted, "docs/planted-bugs.md has what is planted here");
    for (bug, yaml, property) in cases {
        let protocol = Protocol::new(yaml, &[1]).cancellable().with(bug);
        let checker =
            protocol.checker().threads(2).finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
        let found: BTreeSet<&str> = checker.discoveries().into_keys().collect();
        println!("{bug:?}: {found:?}");
        assert!(found.contains(property), "{bug:?} is found by {found:?}, not by `{property}`");
    }
}
