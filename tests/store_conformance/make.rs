//! Sagas and commands, made up.

use std::collections::BTreeMap;
use std::time::Duration;

use amends::clock::{Clock, Timestamp, after};
use amends::id::{CommandId, DefinitionRef, SagaId, Seq};
use amends::payload::Payload;
use amends::saga::{Direction, EventKind, Operation, Outcome, Problem, Saga, SagaState, Settled, StepState, Stuck};
use amends::store::{
    AuditRecord, Changes, HistoryRecord, Loaded, NewCommand, NewSaga, SagaUpdate, SettledCommand, Wants,
};
use serde_json::json;

/// The definition that most sagas here belong to.
pub const DEFINITION: &str = "place-order";

/// A running saga of two steps that waits for nothing.
pub fn saga(key: Option<&str>) -> Saga {
    let now = Clock::System.now();
    Saga {
        signals: Default::default(),
        parent: None,
        trace: None,
        id: SagaId::fresh(),
        definition: DefinitionRef { name: DEFINITION.to_owned(), version: 1 },
        key: key.map(str::to_owned),
        input: Payload::trusted(r#"{"orderId":"o-1"}"#),
        state: SagaState::Running,
        paused: false,
        revision: 1,
        next_seq: Seq(1),
        steps: vec![StepState::Waiting, StepState::Waiting],
        deadline: None,
        cause: None,
        output: None,
        outputs: BTreeMap::new(),
        reads_outputs: false,
        created_at: now,
        updated_at: now,
        ended_at: None,
    }
}

/// The same, its first step's action sent and due at `due`.
pub fn due_at(due: Timestamp) -> Saga {
    Saga { next_seq: Seq(2), steps: vec![pending(1, 1, due), StepState::Waiting], ..saga(None) }
}

/// A step whose action was sent. From JSON, as a row of an older program would be.
pub fn pending(seq: u32, attempt: u32, due: Timestamp) -> StepState {
    serde_json::from_value(json!({ "s": "pending", "seq": seq, "g": 1, "a": attempt, "p": "awaiting", "due": due }))
        .expect("a step")
}

/// A step whose action succeeded.
pub fn verified(seq: u32) -> StepState {
    serde_json::from_value(json!({ "s": "verified", "seq": seq, "attempts": 1, "generation": 1 })).expect("a step")
}

/// A start without commands.
pub fn bare(saga: Saga) -> NewSaga {
    NewSaga {
        input_hash: saga.input.canonical_hash(),
        saga,
        commands: Vec::new(),
        settled: Vec::new(),
        history: Vec::new(),
    }
}

/// A start with its first step's command.
pub fn new(saga: Saga) -> NewSaga {
    let commands = vec![command(&saga, 1)];
    NewSaga { commands, ..bare(saga) }
}

/// Changes that only start.
pub fn starts(starts: Vec<NewSaga>) -> Changes {
    Changes { starts, ..Changes::default() }
}

/// The action of the step at index `seq - 1`.
pub fn command(saga: &Saga, seq: u32) -> NewCommand {
    NewCommand {
        id: CommandId { saga: saga.id, seq: Seq(seq) },
        step: format!("step-{seq}"),
        step_index: u16::try_from(seq - 1).expect("few steps"),
        direction: Direction::Action,
        generation: 1,
        compensates: None,
        participant: "orders".to_owned(),
        action: "create".to_owned(),
        body: Payload::trusted(format!(r#"{{"seq":{seq}}}"#)),
        revision: saga.revision,
        at: saga.updated_at,
    }
}

/// What becomes of the command at `seq`.
pub fn settled(saga: &Saga, seq: u32, outcome: Outcome, output: Option<&str>) -> SettledCommand {
    SettledCommand {
        saga: saga.id,
        settled: Settled {
            seq: Seq(seq),
            attempt: 1,
            outcome,
            output: output.map(Payload::trusted),
            problem: (outcome != Outcome::Success).then(|| Problem::new("card-declined", "not enough")),
        },
        revision: saga.revision,
        at: saga.updated_at,
    }
}

/// The saga one revision on, as [`Changes::updates`] wants it.
pub fn next(saga: &Saga) -> SagaUpdate {
    let from_revision = saga.revision;
    SagaUpdate { saga: Saga { revision: from_revision + 1, ..saga.clone() }, from_revision }
}

/// Every saga that was loaded, one revision on.
pub fn increment(loaded: &Loaded) -> Changes {
    updates(loaded.sagas.iter().map(next).collect())
}

/// Changes that only update.
pub fn updates(updates: Vec<SagaUpdate>) -> Changes {
    Changes { updates, ..Changes::default() }
}

/// The saga one revision on and completed.
pub fn completed(saga: &Saga) -> SagaUpdate {
    let SagaUpdate { saga: next, from_revision } = next(saga);
    let ended_at = Some(next.updated_at);
    let steps = vec![verified(1), verified(2)];
    SagaUpdate { saga: Saga { state: SagaState::Completed, ended_at, steps, ..next }, from_revision }
}

/// Why a saga is stuck.
pub fn stuck(since: Timestamp) -> SagaState {
    let problem = Problem { detail: Some("it said no".to_owned()), ..Problem::new("refused", "no") };
    SagaState::Stuck(Stuck { direction: Direction::Compensation, step: amends::id::StepIndex(1), problem, since })
}

/// An event of the history at `revision`.
pub fn told(saga: &Saga, revision: u32) -> HistoryRecord {
    let event = EventKind::Operated { operation: Operation::Pause };
    HistoryRecord { saga: saga.id, revision, at: saga.updated_at, event }
}

/// What an operator did.
pub fn audited(saga: Option<SagaId>, reason: &str) -> AuditRecord {
    AuditRecord {
        id: 0,
        at: Clock::System.now(),
        actor: "anna".to_owned(),
        saga,
        action: "pause".to_owned(),
        reason: reason.to_owned(),
        detail: Payload::trusted(r#"{"step": 1}"#),
    }
}

/// Wants these sagas and no due ones.
pub fn these(sagas: impl IntoIterator<Item = SagaId>) -> Wants {
    Wants { sagas: sagas.into_iter().collect(), ..Wants::default() }
}

/// `at` moved back.
pub fn before(at: Timestamp, by: Duration) -> Timestamp {
    at - chrono::TimeDelta::from_std(by).expect("a short time")
}

/// An hour after `at`.
pub fn later(at: Timestamp) -> Timestamp {
    after(at, Duration::from_secs(3_600))
}
