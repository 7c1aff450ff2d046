//! Where state lives. One trait; PostgreSQL, SQLite and memory implement it, and one conformance suite runs on all.
//!
//! Everything that changes a saga goes through [`Store::commit`]: it reads the sagas concerned, locked in id order or to be
//! checked by their revisions, hands them to `decide` together with the database's time, and writes what `decide` returns,
//! whole or not at all.

pub mod archive;
mod audit;
pub mod bulk;
mod counter;
pub mod data_keys;
mod definition;
mod error;
mod health;
pub mod memory;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod migrations;
mod open;
pub mod overview;
pub mod pauses;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod recent;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod row;
pub mod sealed;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod task;
pub mod tokens;
pub mod webhooks;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::{CommandId, DefinitionRef, SagaId, Seq};
use crate::message::TokenKey;
use crate::payload::Payload;
use crate::saga::{CommandState, Direction, EventKind, Figures, Outcome, Phase, Problem, Saga, Settled};
pub use audit::{AuditFilter, AuditRecord};
pub use definition::{DefinitionRecord, Deprecation, Registration};
pub use error::StoreError;
pub use health::{Migration, StoreHealth};
pub use open::{open, open_within};
use overview::{FieldIs, Lifetime, Service, StateCount, StuckGroup};
pub use overview::{OutboxFilter, SagaCount};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use row::latest;

/// Decides, given the sagas, what to write. Quick. Mostly it runs inside the transaction; ahead of it where they are remembered,
/// and then perhaps for nothing.
pub type Decide = Box<dyn FnOnce(Loaded) -> Changes + Send>;

/// The one place that keeps sagas.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One unit of work: load, decide, write, commit. Not cancel-safe inside: implementations run it on a task
    /// of its own, so that dropping the future neither aborts it nor leaks an open transaction.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] when the connection was lost during COMMIT: read again before repeating.
    /// Any other error: nothing was written.
    async fn commit(&self, wants: Wants, decide: Decide) -> Result<Committed, StoreError>;

    /// How many items make it worth while to ask for a unit of work while another is under way, since it is decided
    /// meanwhile; many small ones cost more than a few large ones. `None` where each had better wait for its turn. They may be
    /// written in any order; in that in which they were asked for, fewer are refused.
    fn decides_ahead(&self) -> Option<usize> {
        None
    }

    /// Where units of work that have no saga in common are written at once: of a request for more sagas than so many it is
    /// better that it holds nobody up.
    fn writes_at_once(&self) -> Option<usize> {
        None
    }

    /// One saga with its outbox entries, in the order of their places.
    async fn saga(&self, id: SagaId) -> Result<Option<SagaRecord>, StoreError>;

    /// The saga that a key belongs to; one that was archived too.
    async fn saga_by_key(&self, definition: &str, key: &str) -> Result<Option<SagaId>, StoreError>;

    /// Sagas without inputs and outputs, newest first.
    async fn sagas(&self, filter: &SagaFilter, page: &Page<SagaId>) -> Result<Vec<SagaSummary>, StoreError>;

    /// Outbox entries, oldest saga first.
    async fn outbox(&self, filter: &OutboxFilter, page: &Page<CommandId>) -> Result<Vec<OutboxEntry>, StoreError>;

    /// The commands with these ids, with their bodies: to publish them again.
    async fn commands(&self, ids: &[CommandId]) -> Result<Vec<OutboxEntry>, StoreError>;

    /// Which of these commands are VERIFIED, as far as that is quickly told: those that it does not name may be too.
    async fn settled(&self, ids: &[CommandId]) -> Result<Vec<CommandId>, StoreError> {
        let entries = self.commands(ids).await?.into_iter();
        Ok(entries.filter(|entry| entry.verified.is_some()).map(|entry| entry.id).collect())
    }

    /// Every command that is PENDING, after `after`, in order of id: what a volatile broker has lost.
    async fn pending(&self, after: Option<CommandId>, limit: u32) -> Result<Vec<OutboxEntry>, StoreError>;

    /// What the outbox cannot tell of a saga's past, in order.
    async fn history(&self, id: SagaId) -> Result<Vec<HistoryRecord>, StoreError>;

    /// What people did, newest first.
    async fn audits(&self, filter: &AuditFilter, page: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError>;

    /// What operators did to a saga, or to everything (`None`), newest first.
    async fn audit(&self, id: Option<SagaId>, page: &Page<u64>) -> Result<Vec<AuditRecord>, StoreError> {
        self.audits(&AuditFilter { saga: id, ..AuditFilter::default() }, page).await
    }

    /// How many sagas there are per definition and state. Terminal ones may be left out where counting them is slow.
    async fn counts(&self) -> Result<Vec<SagaCount>, StoreError>;

    /// How many sagas are in each state, counted up to `most` and one more; how many have ended in which way is told of
    /// the newest `most` and one more, as no index leads to them.
    async fn state_counts(&self, most: u32) -> Result<Vec<StateCount>, StoreError>;

    /// The newest `most` stuck sagas by what holds them up, the largest group first.
    async fn stuck_groups(&self, most: u32) -> Result<Vec<StuckGroup>, StoreError>;

    /// When the newest `most` sagas started at or after `since` began and ended, newest first.
    async fn lifetimes(&self, since: Timestamp, most: u32) -> Result<Vec<Lifetime>, StoreError>;

    /// What each participant owes and how it has done, by name: from the `most` oldest sagas' commands that are PENDING,
    /// and the `most` newest sagas' commands that are VERIFIED.
    async fn services(&self, most: u32) -> Result<Vec<Service>, StoreError>;

    /// The revisions of those of `ids` that are there.
    async fn revisions(&self, ids: &[SagaId]) -> Result<Vec<(SagaId, u32)>, StoreError>;

    /// The sagas of one definition version that have ended, in numbers; only those started at or after `since`, if given.
    /// Reads every one of them and their commands.
    async fn figures(&self, definition: &DefinitionRef, since: Option<Timestamp>) -> Result<Figures, StoreError>;

    /// The earliest due time of any saga.
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Registers a definition version.
    async fn register(&self, definition: &DefinitionRecord) -> Result<Registration, StoreError>;

    /// One definition version.
    async fn definition(&self, reference: &DefinitionRef) -> Result<Option<DefinitionRecord>, StoreError>;

    /// All versions of `name`, or of all definitions, by name and version.
    async fn definitions(&self, name: Option<&str>) -> Result<Vec<DefinitionRecord>, StoreError>;

    /// The newest version of each of `names` that is registered and not deprecated.
    async fn newest(&self, names: &[String]) -> Result<Vec<DefinitionRef>, StoreError>;

    /// The keys that sign attempt tokens; makes the first one where there is none. `fresh` is random.
    async fn token_keys(&self, fresh: [u8; 32]) -> Result<Vec<TokenKey>, StoreError>;

    /// What `doctor` asks.
    async fn health(&self) -> Result<StoreHealth, StoreError>;

    /// Brings the schema up to this program's version. Returns what was applied.
    async fn migrate(&self) -> Result<Vec<Migration>, StoreError>;

    /// What [`Store::migrate`] would apply, with its SQL.
    async fn pending_migrations(&self) -> Result<Vec<Migration>, StoreError>;

    /// # Errors
    /// [`StoreError::SchemaBehind`] or [`StoreError::SchemaAhead`], with what to run.
    async fn check_schema(&self) -> Result<(), StoreError>;

    /// Where finished sagas are moved out, and back; `None` in memory.
    fn archive(&self) -> Option<&dyn archive::ArchiveStore> {
        None
    }

    /// Where API tokens are kept; `None` in memory.
    fn tokens(&self) -> Option<&dyn tokens::TokenStore> {
        None
    }

    /// Where it is kept which participants are paused; `None` where none can be.
    fn pauses(&self) -> Option<&dyn pauses::PauseStore> {
        None
    }

    /// Where bulk jobs are kept; `None` in memory.
    fn bulk(&self) -> Option<&dyn bulk::BulkStore> {
        None
    }

    /// Where the keys are kept that encrypt payloads; `None` in memory, which is not encrypted.
    fn data_keys(&self) -> Option<&dyn data_keys::DataKeyStore> {
        None
    }

    /// Where what webhooks are to be told is kept; `None` in memory.
    fn webhooks(&self) -> Option<&dyn webhooks::WebhookStore> {
        None
    }

    /// Ends all connections in good order.
    async fn close(&self);
}

/// What a unit of work needs loaded.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// These sagas.
    pub sagas: Vec<SagaId>,
    /// Besides them, up to this many whose due time has come and that no other transaction holds.
    pub due: u32,
    /// Whether others are kept from them.
    pub locking: Locking,
}

/// How two units of work that change one saga are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// The second one waits for the first one to end.
    #[default]
    Waits,
    /// Whichever writes last is refused, [`StoreError::Conflict`], and may try again. Saves round trips where a store has
    /// them and two at once are rare; others may wait all the same. Due sagas are locked in any case.
    Checks,
    /// As [`Locking::Checks`]; besides, sagas may be taken as this store has written them last, unread. All of them are checked
    /// with what is written, also those that stay as they are.
    Trusts,
}

/// The sagas, locked or to be checked by their revisions.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The database's time.
    pub now: Timestamp,
    /// The wanted sagas that exist, and the due ones; with outputs where the definition reads them.
    pub sagas: Vec<Saga>,
}

/// What to write.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// New sagas, each with its first commands. One whose key is taken is left out whole: see [`Committed::starts`].
    pub starts: Vec<NewSaga>,
    /// Changed sagas. Each revision must be one or more above the stored one, and the stored state not terminal.
    pub updates: Vec<SagaUpdate>,
    /// New commands of changed sagas.
    pub commands: Vec<NewCommand>,
    /// Commands whose outcome is known.
    pub settled: Vec<SettledCommand>,
    /// Events that the outbox cannot tell.
    pub history: Vec<HistoryRecord>,
    /// What operators did.
    pub audits: Vec<AuditRecord>,
    /// Those of [`Changes::updates`] that have moved to another version of their definition.
    pub migrations: Vec<SagaMigration>,
    /// Definition versions that are deprecated from now on, or no longer.
    pub deprecations: Vec<DeprecationChange>,
    /// Items of bulk jobs that are done with this. One that is closed already has the whole refused.
    pub bulk: Vec<bulk::Applied>,
    /// What webhooks are to be told.
    pub webhooks: Vec<webhooks::NewDelivery>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { starts, updates, commands, settled, history, audits, migrations, deprecations, bulk, webhooks } =
            self;
        starts.is_empty()
            && updates.is_empty()
            && commands.is_empty()
            && settled.is_empty()
            && history.is_empty()
            && audits.is_empty()
            && migrations.is_empty()
            && deprecations.is_empty()
            && bulk.is_empty()
            && webhooks.is_empty()
    }
}

/// A saga that moves to another version of its definition, besides its [`SagaUpdate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SagaMigration {
    /// The saga.
    pub saga: SagaId,
    /// The version that it has from now on.
    pub version: u32,
    /// Whether outputs are loaded with it from now on.
    pub reads_outputs: bool,
    /// The new version's steps with their indices: the saga's outbox entries follow by name.
    pub steps: Vec<(String, u16)>,
}

/// A definition version that is deprecated, or no longer. Kept for good; the last one of a version counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeprecationChange {
    /// The version.
    pub reference: DefinitionRef,
    /// Whether it is deprecated from now on.
    pub is_deprecated: bool,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A saga to start.
#[derive(Clone, Debug)]
pub struct NewSaga {
    /// The saga as its first transition left it.
    pub saga: Saga,
    /// [`Payload::canonical_hash`] of its input: the same key with another input is refused.
    pub input_hash: [u8; 32],
    /// Its first commands.
    pub commands: Vec<NewCommand>,
    /// Those of its first commands that are settled already: it may turn round before anything was sent.
    pub settled: Vec<SettledCommand>,
    /// What the row and the outbox cannot tell of its start: nothing in the ordinary case.
    pub history: Vec<HistoryRecord>,
}

/// A saga that has changed.
#[derive(Clone, Debug)]
pub struct SagaUpdate {
    /// The saga as it is now. Id, definition's name, key, input and creation time never change, and the definition's
    /// version only with a [`SagaMigration`]. Where it reads outputs it has those that it was loaded with and those that are
    /// settled along with it.
    pub saga: Saga,
    /// The stored revision that the change was made from.
    pub from_revision: u32,
}

/// A new outbox entry: PENDING.
#[derive(Clone, Debug)]
pub struct NewCommand {
    /// Its id.
    pub id: CommandId,
    /// The step's name.
    pub step: String,
    /// The step's index in the definition.
    pub step_index: u16,
    /// Forward or back.
    pub direction: Direction,
    /// The last part of the idempotency key.
    pub generation: u32,
    /// On a compensation: the generation of the action that it undoes.
    pub compensates: Option<u32>,
    /// The service.
    pub participant: String,
    /// What it is asked to do.
    pub action: String,
    /// The body.
    pub body: Payload,
    /// The saga's revision that decided it.
    pub revision: u32,
    /// When it was decided.
    pub at: Timestamp,
}

/// An outbox entry becomes VERIFIED (or, when an unknown outcome becomes known after all, is corrected).
#[derive(Clone, Debug)]
pub struct SettledCommand {
    /// The saga.
    pub saga: SagaId,
    /// What became of which command.
    pub settled: Settled,
    /// The saga's revision that settled it.
    pub revision: u32,
    /// When.
    pub at: Timestamp,
}

/// An event that the outbox cannot tell: everything but starts and successful replies.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRecord {
    /// The saga.
    pub saga: SagaId,
    /// The saga's revision after it.
    pub revision: u32,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: EventKind,
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// One per [`Changes::starts`], in order.
    pub starts: Vec<Started>,
}

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// It was written.
    New,
    /// The key belongs to another saga; nothing was written for this one.
    Taken {
        /// That saga.
        by: SagaId,
        /// Its input's hash.
        input_hash: [u8; 32],
    },
}

/// A saga with its outbox entries.
#[derive(Clone, Debug)]
pub struct SagaRecord {
    /// The saga, with outputs.
    pub saga: Saga,
    /// Its commands, by place.
    pub commands: Vec<OutboxEntry>,
}

/// A saga in a list.
#[derive(Clone, Debug, PartialEq)]
pub struct SagaSummary {
    /// The saga; `input` is `null` and `outputs` is empty.
    pub saga: Saga,
}

/// An outbox entry.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxEntry {
    /// Its id.
    pub id: CommandId,
    /// The saga's definition.
    pub definition: DefinitionRef,
    /// The step's name.
    pub step: String,
    /// The step's index in the definition.
    pub step_index: u16,
    /// Forward or back.
    pub direction: Direction,
    /// The last part of the idempotency key.
    pub generation: u32,
    /// On a compensation: the generation of the action that it undoes.
    pub compensates: Option<u32>,
    /// The service.
    pub participant: String,
    /// What it is asked to do.
    pub action: String,
    /// The body.
    pub body: Payload,
    /// `None` while PENDING.
    pub verified: Option<Verified>,
    /// While PENDING: the attempt and due time, from the saga's row; absent once attempts are spent.
    pub in_flight: Option<InFlight>,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// The saga's revision that decided it.
    pub decided_revision: u32,
}

impl OutboxEntry {
    /// Whether it is a `wait` or `delay`, which the coordinator sees to by itself and never publishes.
    pub fn is_wait(&self) -> bool {
        self.participant == crate::definition::COORDINATOR && matches!(self.action.as_str(), "wait" | "delay")
    }
}

/// The second half of an outbox entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// What became of it.
    pub outcome: Outcome,
    /// The attempt that settled it.
    pub attempt: u32,
    /// What the step put out.
    pub output: Option<Payload>,
    /// What went wrong.
    pub problem: Option<Problem>,
    /// When.
    pub at: Timestamp,
    /// The saga's revision that settled it.
    pub revision: u32,
}

/// How a PENDING entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The attempt that is under way or was the last.
    pub attempt: u32,
    /// When the coordinator will do something about it.
    pub due: Timestamp,
    /// Whether it is held back: its participant takes no more for now.
    pub is_held: bool,
}

impl InFlight {
    fn of(command: &CommandState) -> Self {
        let is_held = matches!(command.phase, Phase::Held(_));
        Self { attempt: command.attempt, due: command.phase.due(), is_held }
    }
}

/// Which sagas to list. Empty fields do not filter.
#[derive(Clone, Debug, Default)]
pub struct SagaFilter {
    /// Definition name.
    pub definition: Option<String>,
    /// States, as words of the contract.
    pub states: Vec<String>,
    /// Key.
    pub key: Option<String>,
    /// Started at or after.
    pub since: Option<Timestamp>,
    /// Paused, or not.
    pub paused: Option<bool>,
    /// Definition version.
    pub version: Option<u32>,
    /// Started before.
    pub until: Option<Timestamp>,
    /// A step has this status. This and what follows is looked for among the newest [`overview::SEARCHED`] sagas that
    /// match everything above.
    pub step_status: Option<String>,
    /// Stuck, or gone backward, because of an error of this type.
    pub error_type: Option<String>,
    /// Stuck at the step of this index.
    pub stuck_step: Option<u16>,
    /// A field of the input.
    pub field: Option<FieldIs>,
}

impl SagaFilter {
    /// Whether it asks for what no index knows.
    pub fn is_search(&self) -> bool {
        self.step_status.is_some() || self.error_type.is_some() || self.stuck_step.is_some() || self.field.is_some()
    }

    /// Whether it asks for no more than definition, states, key, pause and the earliest start.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn is_plain(&self) -> bool {
        !self.is_search() && self.version.is_none() && self.until.is_none()
    }

    /// Whether only sagas pass that have not ended.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    fn is_live(&self) -> bool {
        let is_live = |state: &String| matches!(state.as_str(), "RUNNING" | "COMPENSATING" | "STUCK");
        !self.states.is_empty() && self.states.iter().all(is_live)
    }
}

/// A part of a list.
#[derive(Clone, Debug)]
pub struct Page<Cursor> {
    /// Start after this one.
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: u32,
}

/// The seq of each of a saga's commands that is PENDING, with attempt and due time, as its steps tell.
pub fn in_flight(saga: &Saga) -> impl Iterator<Item = (Seq, InFlight)> + '_ {
    saga.steps.iter().filter_map(|step| step.in_flight().map(|(_, command)| (command.seq, InFlight::of(command))))
}

/// Puts what the steps put out, as their entries tell, into [`Saga::outputs`]; the latest entry of a step counts.
fn put_outputs(saga: &mut Saga, commands: &[OutboxEntry]) {
    for entry in commands.iter().filter(|entry| entry.direction == Direction::Action) {
        if let Some(output) = entry.verified.as_ref().and_then(|verified| verified.output.clone()) {
            saga.outputs.insert(crate::id::StepIndex(entry.step_index), output);
        }
    }
}
