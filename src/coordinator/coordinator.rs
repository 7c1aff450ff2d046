//! The coordinator as the rest of the process sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::broker::topology::REPLIES_QUEUE;
use crate::broker::{Broker, Topology};
use crate::coordinator::acknowledgements::Acknowledgements;
use crate::coordinator::backlog::Backlog;
use crate::coordinator::committer::Committer;
use crate::coordinator::confirms::Confirms;
use crate::coordinator::gates::{Gates, Keeper, Limits};
use crate::coordinator::hooks::Hook;
use crate::coordinator::latencies::Latencies;
use crate::coordinator::listeners::Listeners;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::outbound::ReturnAddress;
use crate::coordinator::pauses::Watch;
use crate::coordinator::plan::Sources;
use crate::coordinator::publisher::{Publisher, Sinks};
use crate::coordinator::registry::Registry;
use crate::coordinator::replies::{DeadLetters, Replies};
use crate::coordinator::starting::not_taken;
use crate::coordinator::timer::Timer;
use crate::coordinator::traces::Traces;
use crate::coordinator::work::{Heard, Item, StartItem, TellItem, Waiting, Work};
use crate::coordinator::{
    CoordinatorError, Operate, OperatorAction, Registered, Start, StartOutcome, bulk, children, declare, recovery,
    requests, set_back,
};
use crate::definition::sensitive::Secrets;
use crate::definition::{self, Checked, Definition, Diagnostic, Severity};
use crate::id::{DefinitionRef, Ids, SagaId};
use crate::message::TokenKeys;
use crate::payload::Payload;
use crate::saga::{EventKind, Parent, Saga};
use crate::store::{AuditRecord, Changes, DefinitionRecord, Deprecation, Registration, Store, StoreError, Wants};
use crate::telemetry::Recorder;
use crate::trace::TraceContext;

/// What waits for a commit at once; beyond it callers are told to come back.
const MAX_WAITING: usize = 8_192;
/// How many sagas that start one another are looked at together.
const MAX_RELATED: usize = 64;
/// When to come back.
pub(super) const BUSY: CoordinatorError = CoordinatorError::Busy { retry_after: Duration::from_secs(1) };

/// How a coordinator runs.
#[derive(Clone, Debug)]
pub struct CoordinatorOptions {
    /// Whether lifecycle events are published to `amends.events`.
    pub events: bool,
    /// The queue of its replies, which the coordinators of one deployment share. Two deployments on one broker need
    /// one each.
    pub replies: String,
    /// Whether it serves start requests over AMQP and sub-sagas, whose queues all coordinators on a broker share.
    pub requests: bool,
    /// Is told of every saga that ends, once that is durable.
    pub ended: Option<mpsc::UnboundedSender<Ended>>,
    /// Where the ids of its sagas come from.
    pub ids: Ids,
    /// Definitions that are at hand: one that is registered with equal content need not be compiled once more.
    pub compiled: Vec<Arc<Definition>>,
    /// How much each participant is sent at once.
    pub limits: Limits,
    /// Whether operators may edit the input of a failed command.
    pub allow_edit: bool,
    /// How many seconds after the last item of a bulk job it is looked how its sagas stand.
    pub bulk_check_after: u32,
    /// Takes the spans of sagas and their commands; without it nothing of traces is done but passing them on.
    pub traces: Option<Recorder>,
    /// Who is told of sagas that get stuck: written down with the change; whoever has the addresses delivers it.
    pub hooks: Vec<Hook>,
}

/// A saga has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The saga.
    pub id: SagaId,
    /// How, as a lifecycle event is called: `completed`, `compensated` or `abandoned`; `stuck` when it waits for a person.
    pub how: &'static str,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            events: true,
            replies: REPLIES_QUEUE.to_owned(),
            requests: true,
            ended: None,
            ids: Ids::default(),
            compiled: Vec::new(),
            limits: Limits::default(),
            allow_edit: false,
            bulk_check_after: bulk::CHECK_AFTER,
            traces: None,
            hooks: Vec::new(),
        }
    }
}

/// A running coordinator. Clones are handles to the same one, which runs until [`Coordinator::stop`].
#[derive(Clone)]
pub struct Coordinator(pub(super) Arc<Inner>);

pub(super) struct Inner {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    metrics: Metrics,
    pub(super) registry: Arc<Registry>,
    pub(super) gates: Gates,
    pub(super) watch: Watch,
    allow_edit: bool,
    /// The queue of its replies.
    pub(super) replies: String,
    declared: declare::Declared,
    /// Told when there is a bulk job to see to.
    pub(super) bulk: Arc<Notify>,
    pub(super) bulk_check_after: u32,
    ids: Ids,
    /// Emptied by `stop`, so that the committer sees the end of its work.
    work: std::sync::Mutex<Option<mpsc::Sender<Work>>>,
    /// Stops taking in.
    stop: CancellationToken,
    tasks: TaskTracker,
    aborts: Vec<tokio::task::AbortHandle>,
}

impl Coordinator {
    /// Starts a coordinator on a migrated store. The broker need not be there yet.
    ///
    /// # Errors
    /// When the store cannot be read, or its schema is not this program's.
    pub async fn launch(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        options: CoordinatorOptions,
    ) -> Result<Self, CoordinatorError> {
        store.check_schema().await?;
        let secret = options.ids.secret().map_err(|error| StoreError::Refused(format!("no random source: {error}")))?;
        let keys = TokenKeys::new(store.token_keys(secret).await?)
            .ok_or_else(|| StoreError::Corrupt("there is no token key".to_owned()))?;
        let registry = Arc::new(Registry::new(store.clone(), options.compiled));
        let definitions = registry.load_all().await?;

        let (metrics, confirms, stop, tasks) =
            (Metrics::default(), Confirms::default(), CancellationToken::new(), TaskTracker::new());
        let declared = declare::Declared::new(broker.clone(), stop.clone());
        declared.want(match options.requests {
            true => Topology::coordinator(),
            false => Topology::default(),
        });
        declared.want(Topology::replies(&options.replies));
        for definition in &definitions {
            declared.want_participants(definition);
        }
        let listeners = Listeners::default();
        let gates = Gates::new(options.limits, metrics.clone());
        let sinks = Sinks { confirms: confirms.clone(), listeners: listeners.clone(), gates: gates.clone() };
        let publisher = Publisher::launch(broker.clone(), sinks, metrics.clone(), &tasks);
        let dead = DeadLetters { broker: broker.clone(), metrics: metrics.clone(), queue: options.replies.clone() };
        let (work, receiver) = mpsc::channel(MAX_WAITING);
        let (settler, settlers) = watch::channel(None);
        let noticed = Arc::new(Notify::new());
        let replies = Replies {
            broker: broker.clone(),
            keys: keys.clone(),
            work: work.clone(),
            dead: dead.clone(),
            stop: stop.clone(),
        };
        let to = ReturnAddress { keys: keys.clone(), queue: options.replies.clone() };
        let traces = options.traces.map(|recorder| Traces::new(recorder, &*broker));
        metrics.traces(traces.as_ref().map(|traces| traces.recorder().clone()));
        let (gates_of_plan, hooks) = (gates.clone(), options.hooks);
        let sources =
            Arc::new(Sources { registry: registry.clone(), to, confirms, gates: gates_of_plan, traces, hooks });
        let committer = Committer {
            store: store.clone(),
            sources: sources.clone(),
            publisher: publisher.clone(),
            dead,
            metrics: metrics.clone(),
            latencies: Latencies::default(),
            acknowledgements: Acknowledgements::new(settlers),
            work: receiver,
            received: Vec::new(),
            backlog: Backlog::new(store.writes_at_once()),
            beside: None,
            ahead: None,
            again: work.downgrade(),
            stop: stop.clone(),
            listeners: options.events.then_some(listeners),
            ended: options.ended,
            timer: Timer::default(),
            set_back: noticed.clone(),
            contended: 0,
            wary: 0,
            wariness: 0,
        };
        let watch = Watch { store: store.clone(), gates: gates.clone(), metrics: metrics.clone() };
        watch.look().await?;
        if broker.is_volatile() {
            // What was in its queues went with the last process.
            declared.now().await;
            recovery::send_pending(&*store, &sources, &publisher).await?;
        }
        drop(publisher);
        gates.expect(definitions.iter().flat_map(|definition| definition.participants()));
        let (again, looks) = (work.downgrade(), broker.clone());
        let keeper = Keeper { gates: gates.clone(), broker: looks, store: store.clone(), work: again };
        let aborts = vec![
            tasks.spawn(declared.clone().run(store.clone(), registry.clone())).abort_handle(),
            tasks.spawn(replies.run(settler)).abort_handle(),
            tasks.spawn(committer.run()).abort_handle(),
            tasks.spawn(keeper.run(stop.clone())).abort_handle(),
            tasks.spawn(watch.clone().run(stop.clone())).abort_handle(),
        ];
        let work = std::sync::Mutex::new(Some(work));
        let coordinator = Self(Arc::new(Inner {
            store,
            broker,
            metrics,
            registry,
            gates,
            watch,
            allow_edit: options.allow_edit,
            replies: options.replies,
            declared,
            bulk: Arc::default(),
            bulk_check_after: options.bulk_check_after,
            ids: options.ids,
            work,
            stop: stop.clone(),
            tasks,
            aborts,
        }));
        coordinator.0.tasks.spawn(set_back::run(coordinator.clone(), noticed, stop.clone()));
        if coordinator.0.store.bulk().is_some() {
            let wake = coordinator.0.bulk.clone();
            coordinator.0.tasks.spawn(bulk::run(coordinator.clone(), wake, stop.clone()));
        }
        if options.requests {
            coordinator.0.tasks.spawn(requests::run(coordinator.clone(), stop.clone()));
            coordinator.0.tasks.spawn(children::run(coordinator.clone(), keys, stop));
        }
        coordinator.0.tasks.close();
        Ok(coordinator)
    }

    /// Starts one saga; returns once it is durable.
    ///
    /// # Errors
    /// See [`CoordinatorError`]. After [`StoreError::Unknown`] start again with the same key: it gives the same saga.
    pub async fn start(&self, start: Start) -> Result<StartOutcome, CoordinatorError> {
        self.start_many(vec![start]).await.pop().unwrap_or(Err(CoordinatorError::Stopping))
    }

    /// Starts many sagas, at most 8,192, in one transaction. One result per start, in order; one that is refused does not stop the others.
    /// If one cannot be taken in for now ([`CoordinatorError::is_transient`]), none is: all can be asked for again. After
    /// [`StoreError::Unknown`] they may have been started, and keys give the same sagas again.
    pub async fn start_many(&self, starts: Vec<Start>) -> Vec<Result<StartOutcome, CoordinatorError>> {
        self.start_within(starts.into_iter().map(|start| (start, None)).collect()).await
    }

    /// The same for callers that are traced: each saga is a part of the span given with it.
    pub async fn start_within(
        &self,
        starts: Vec<(Start, Option<TraceContext>)>,
    ) -> Vec<Result<StartOutcome, CoordinatorError>> {
        self.start_all(starts, true).await
    }

    pub(super) async fn prepare(&self, start: Start, is_child: bool) -> Result<StartItem, CoordinatorError> {
        if self.0.stop.is_cancelled() {
            return Err(CoordinatorError::Stopping);
        }
        let Start { saga, version, input, key } = start;
        let (definition, deprecated) = self.0.registry.resolve_open(&saga, version).await?;
        let errors = definition.check_input(&input);
        if !errors.is_empty() {
            return Err(CoordinatorError::InvalidInput { definition: definition.reference.clone(), errors });
        }
        let key = match key {
            Some(key) => definition::check_key(&key).map(|()| Some(key)).map_err(CoordinatorError::InvalidKey)?,
            None => definition.key_of(&input).map_err(|error| {
                let secrets = Secrets::of(&definition.sensitive, [&input]);
                CoordinatorError::InvalidKey(secrets.text(&error.to_string()))
            })?,
        };
        if let Some(Deprecation { reason, .. }) = deprecated.filter(|_| !is_child) {
            // A key that has a saga still gives that saga, and the commit will find so: keys of archived ones are kept.
            let has_saga = match &key {
                Some(key) => self.0.store.saga_by_key(&definition.reference.name, key).await?.is_some(),
                None => false,
            };
            if !has_saga {
                return Err(CoordinatorError::VersionDeprecated { definition: definition.reference.clone(), reason });
            }
        }
        let definition = definition.expanded(&input).map_err(|error| CoordinatorError::InvalidInput {
            definition: definition.reference.clone(),
            errors: vec![(String::new(), Secrets::of(&definition.sensitive, [&input]).text(&error.to_string()))],
        })?;
        let input_hash = input.canonical_hash();
        let id = self.0.ids.saga();
        let (turn, parent, trace, together, tombstone) = (None, None, None, None, None);
        Ok(StartItem { id, definition, key, input_hash, input, turn, parent, trace, together, tombstone })
    }

    /// Starts a sub-saga, whose key is that of the command that asks for it.
    pub(super) async fn start_child(
        &self,
        start: Start,
        parent: Parent,
        trace: Option<TraceContext>,
    ) -> Result<StartOutcome, CoordinatorError> {
        // A running saga goes on, although nothing else is started with a version that is deprecated.
        let mut item = self.prepare(start, true).await?;
        (item.parent, item.trace) = (Some(parent), trace.map(Box::new));
        self.submit_start(item).await
    }

    /// Records that a sub-saga that was never started must never start.
    pub(super) async fn entomb(&self, start: Start, parent: Parent) -> Result<StartOutcome, CoordinatorError> {
        let Start { saga, version, input, key } = start;
        let (definition, _) = self.0.registry.resolve_open(&saga, version).await?;
        // Without an input there is no list to expand it for; and nothing of it is ever sent.
        let tombstone = Some(parent.start.clone());
        let (id, input_hash) = (self.0.ids.saga(), input.canonical_hash());
        let parent = Some(parent);
        let (turn, trace, together) = (None, None, None);
        let item = StartItem { id, definition, key, input_hash, input, turn, parent, trace, together, tombstone };
        self.submit_start(item).await
    }

    async fn submit_start(&self, item: StartItem) -> Result<StartOutcome, CoordinatorError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Item::Start(item), Waiting::Starter(sender))?;
        receiver.await.unwrap_or(Err(CoordinatorError::Stopping))
    }

    /// Tells a saga of a signal from outside. To say it again is harmless: the first one counts.
    ///
    /// # Errors
    /// [`CoordinatorError::UnknownSignal`], [`CoordinatorError::UnknownSaga`], [`CoordinatorError::NotAllowed`] when it
    /// comes too late, or what the store says.
    pub async fn signal(&self, id: SagaId, signal: String, payload: Payload) -> Result<Heard, CoordinatorError> {
        self.tell(id, EventKind::Signalled { signal, payload }).await
    }

    pub(super) async fn tell(&self, id: SagaId, event: EventKind) -> Result<Heard, CoordinatorError> {
        let (sender, receiver) = oneshot::channel();
        self.submit(Item::Tell(TellItem { id, event }), Waiting::Teller(sender))?;
        receiver.await.unwrap_or(Err(CoordinatorError::Stopping))
    }

    /// Does what an operator asks, with its audit row in the same transaction; returns the saga as it is then.
    ///
    /// # Errors
    /// See [`CoordinatorError`]; nothing was done.
    pub async fn operate(&self, operate: Operate) -> Result<Saga, CoordinatorError> {
        self.may_do(&operate.action)?;
        let (sender, receiver) = oneshot::channel();
        self.submit(Item::Operate(operate, None), Waiting::Operator(sender))?;
        receiver.await.unwrap_or(Err(CoordinatorError::Stopping))
    }

    /// Whether the settings allow this action.
    ///
    /// # Errors
    /// [`CoordinatorError::EditForbidden`].
    pub fn may_do(&self, action: &OperatorAction) -> Result<(), CoordinatorError> {
        match action {
            OperatorAction::Edit { .. } if !self.0.allow_edit => Err(CoordinatorError::EditForbidden),
            _ => Ok(()),
        }
    }

    /// Whether operators may edit the input of a failed command.
    pub fn allows_edit(&self) -> bool {
        self.0.allow_edit
    }

    /// Where work goes, until this one stops.
    pub(super) fn work(&self) -> Option<mpsc::Sender<Work>> {
        self.0.work.lock().ok().and_then(|work| work.clone())
    }

    pub(super) fn submit(&self, item: Item, waiting: Waiting) -> Result<(), CoordinatorError> {
        let work = self.work().ok_or(CoordinatorError::Stopping)?;
        work.try_send(Work { item, waiting }).map_err(|error| not_taken(&error))
    }

    /// Registers a definition from its text, declares the queues of its participants.
    ///
    /// # Errors
    /// [`CoordinatorError::InvalidDefinition`], [`CoordinatorError::VersionImmutable`], or what the store says.
    pub async fn register(&self, source: &str, actor: &str) -> Result<Registered, CoordinatorError> {
        let inner = &self.0;
        let Checked { definition, diagnostics } = self.check(source).await?;
        let (errors, warnings): (Vec<Diagnostic>, Vec<Diagnostic>) =
            diagnostics.into_iter().partition(|found| found.severity == Severity::Error);
        let definition = match definition {
            Some(definition) => definition,
            None => match self.registered_before(source).await? {
                Some(definition) => return Ok(Registered { definition, is_new: false, warnings: errors }),
                None => return Err(CoordinatorError::InvalidDefinition(errors)),
            },
        };
        let reference = definition.reference.clone();
        let record = DefinitionRecord {
            reference: reference.clone(),
            hash: definition.hash,
            source: source.to_owned(),
            registered_at: inner.store.health().await?.now,
            registered_by: actor.to_owned(),
            deprecated: None,
        };
        let is_new = match inner.store.register(&record).await? {
            Registration::New => true,
            Registration::Same(_) => false,
            Registration::Different(_) => return Err(CoordinatorError::VersionImmutable { definition: reference }),
        };
        inner.registry.remember(definition.clone());
        inner.declared.want_participants(&definition);
        inner.declared.now().await;
        if is_new {
            self.audit(actor, "register", &reference, record.registered_at).await?;
        }
        Ok(Registered { definition, is_new, warnings })
    }

    /// Everything that is wrong with a definition's text, also together with the registered sagas that it starts.
    ///
    /// # Errors
    /// What the store says.
    pub async fn check(&self, source: &str) -> Result<Checked, StoreError> {
        let mut checked = definition::read(source);
        let Some(definition) = checked.definition.clone() else { return Ok(checked) };
        let mut others: Vec<Arc<Definition>> = Vec::new();
        let mut asked: Vec<(String, Option<u32>)> = Vec::new();
        let mut todo = definition.children();
        while let Some(child) = todo.pop() {
            if asked.contains(&child) || asked.len() == MAX_RELATED {
                continue;
            }
            // One that is not there yet may be registered later.
            if let Ok(found) = self.0.registry.resolve(&child.0, child.1).await {
                todo.extend(found.children());
                others.push(found);
            }
            asked.push(child);
        }
        for found in definition::relations(source, &definition, &others) {
            if !checked.diagnostics.contains(&found) {
                checked.diagnostics.push(found);
            }
        }
        if checked.diagnostics.iter().any(|found| found.severity == Severity::Error) {
            checked.definition = None;
        }
        Ok(checked)
    }

    /// The definition, if exactly this was registered: a check that is newer than that does not take it back.
    async fn registered_before(&self, source: &str) -> Result<Option<Arc<Definition>>, StoreError> {
        let Some(definition) = definition::compile(source) else { return Ok(None) };
        let record = self.0.store.definition(&definition.reference).await?;
        Ok(record.filter(|record| record.hash == definition.hash).map(|_| definition))
    }

    async fn audit(
        &self,
        actor: &str,
        action: &str,
        about: &DefinitionRef,
        at: crate::clock::Timestamp,
    ) -> Result<(), StoreError> {
        let record = AuditRecord {
            id: 0,
            at,
            actor: actor.to_owned(),
            saga: None,
            action: action.to_owned(),
            reason: String::new(),
            detail: serde_json::json!({ "definition": about }).into(),
        };
        let decide = Box::new(move |_| Changes { audits: vec![record], ..Changes::default() });
        self.0.store.commit(Wants::default(), decide).await.map(|_| ())
    }

    /// A registered definition version, from memory where it is known.
    ///
    /// # Errors
    /// When there is no such definition, or the store cannot be read.
    pub async fn definition(&self, reference: &DefinitionRef) -> Result<Arc<Definition>, CoordinatorError> {
        self.0.registry.resolve(&reference.name, Some(reference.version)).await
    }

    /// Whether store and broker answer and the loops run; otherwise why not, in one line.
    ///
    /// # Errors
    /// The reason.
    pub async fn ready(&self) -> Result<(), String> {
        if self.0.stop.is_cancelled() {
            return Err("the coordinator is stopping".to_owned());
        }
        self.0.store.check_schema().await.map_err(|error| error.to_string())?;
        self.0.declared.state()?;
        self.0.broker.describe().await.map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Where state lives, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// The broker.
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.0.broker
    }

    /// Counters.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Takes in nothing new, commits and publishes what has been taken in, and ends. Store and broker stay open. A store that
    /// does not answer is waited for: whoever has waited long enough calls [`kill`](Self::kill), and nothing is lost.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        if let Ok(mut work) = self.0.work.lock() {
            // The reply loop's clone goes as that loop ends; then the committer runs dry and ends too.
            work.take();
        }
        self.0.tasks.wait().await;
    }

    /// Ends at once, as a killed process would: nothing is finished, nothing is acknowledged; whoever starts next goes on with it.
    pub fn kill(&self) {
        self.0.stop.cancel();
        for task in &self.0.aborts {
            task.abort();
        }
    }
}
