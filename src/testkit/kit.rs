//! The kit: one saga, its participants, a plan, and what must hold in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::definition::{self, Definition, Diagnostic};
use crate::id::StepIndex;
use crate::message::Command;
use crate::testkit::inbox::ModelInbox;
use crate::testkit::made_up::{self, Extent};
use crate::testkit::servers::{self, Servers};
use crate::testkit::services::{Answer, Services};
use crate::testkit::simulation::{Setup, Simulation};
use crate::testkit::{Fault, InvalidFault, Machine, Plan, Run};

/// A definition under test, with its document.
#[derive(Clone, Debug)]
pub struct Subject {
    definition: Arc<Definition>,
    document: Arc<Value>,
    /// The outputs that were made up last: an explorer asks for the same thousands of times.
    made_up: Arc<Mutex<Option<MadeUp>>>,
}

#[derive(Debug)]
struct MadeUp {
    input: Value,
    given: serde_json::Map<String, Value>,
    outputs: BTreeMap<StepIndex, Value>,
}

impl Subject {
    /// Reads a definition from YAML or JSON.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(source: &str) -> Result<Self, Vec<Diagnostic>> {
        let checked = definition::read(source);
        match checked.definition {
            Some(definition) => {
                let document = definition::to_json(source).unwrap_or_default();
                Ok(Self { definition, document: Arc::new(document), made_up: Arc::default() })
            }
            None => Err(checked.diagnostics),
        }
    }

    /// The definition.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The definition as it is for this input.
    pub(super) fn expanded(&self, input: &Value) -> Result<Arc<Definition>, InvalidPlan> {
        let expanded = self.definition.expanded(&input.clone().into());
        expanded.map_err(|error| InvalidPlan::Input { pointer: String::new(), message: error.to_string() })
    }

    fn outputs(
        &self,
        definition: &Definition,
        input: &Value,
        given: &serde_json::Map<String, Value>,
    ) -> BTreeMap<StepIndex, Value> {
        let mut last = self.made_up.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = last.as_ref().filter(|made| made.input == *input && made.given == *given) {
            return made.outputs.clone();
        }
        let outputs = made_up::outputs(definition, input, given);
        *last = Some(MadeUp { input: input.clone(), given: given.clone(), outputs: outputs.clone() });
        outputs
    }

    /// An input made up from the input's schema.
    ///
    /// # Errors
    /// When what is made up does not fit the schema: then an input must be given.
    pub fn made_up_input(&self, extent: Extent) -> Result<Value, InvalidPlan> {
        let made = made_up::input(&self.definition, &self.document, extent);
        match self.definition.check_input(&made.clone().into()).into_iter().next() {
            None => Ok(made),
            Some((pointer, message)) => Err(InvalidPlan::NoInput { pointer, message }),
        }
    }
}

/// A plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// It cannot be read.
    #[error("{0}")]
    Text(String),
    /// A fault strikes where nothing is.
    #[error(transparent)]
    Fault(#[from] InvalidFault),
    /// No input could be made up.
    #[error("no input can be made up that fits the schema (at `{pointer}`: {message}); give one")]
    NoInput {
        /// Where the made-up input does not fit.
        pointer: String,
        /// Why.
        message: String,
    },
    /// The input does not fit.
    #[error("the input does not fit the schema, at `{pointer}`: {message}")]
    Input {
        /// Where.
        pointer: String,
        /// Why.
        message: String,
    },
    /// It cannot be run on servers, or they cannot be used.
    #[error("{0}")]
    Servers(String),
    /// An output is given for a step that is not there.
    #[error("an output is given for the step `{0}`, which is not there")]
    Output(String),
}

type Invariant = Box<dyn FnOnce() -> BoxFuture<'static, bool> + Send>;

/// One saga on virtual time, with the user's participants and a plan of what goes wrong.
///
/// ```
/// # use amends::testkit::{Answer, Fault, FaultKind, Kit};
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let run = Kit::new(include_str!("../../sagas/place-order.yaml"))
///     .on("warehouse.pick", |_input, _command| Answer::refused("out-of-stock"))
///     .run()
///     .await;
/// run.assert_compensated().assert_undone(["authorise-payment", "create-order"]);
/// # });
/// ```
pub struct Kit {
    subject: Subject,
    machine: Machine,
    services: Services,
    inbox: ModelInbox,
    extent: Extent,
    plan: Plan,
    servers: Option<Servers>,
    invariants: Vec<(String, Invariant)>,
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("saga", &self.subject.definition.reference).field("plan", &self.plan).finish()
    }
}

impl Kit {
    /// A kit for the definition with this text.
    ///
    /// # Panics
    /// When the definition is wrong, with everything that is wrong with it.
    #[track_caller]
    pub fn new(source: &str) -> Self {
        match Subject::read(source) {
            Ok(subject) => Self::of(subject),
            Err(found) => {
                panic!("the definition is wrong:\n{}", definition::render("definition", source, &found, false))
            }
        }
    }

    /// A kit for a definition that has been read.
    pub fn of(subject: Subject) -> Self {
        Self {
            subject,
            machine: Machine::default(),
            services: Services::default(),
            inbox: ModelInbox::default(),
            extent: Extent::Required,
            plan: Plan::quiet(),
            servers: None,
            invariants: Vec::new(),
        }
    }

    /// Starts the saga with this input. Without it one is made up from the input's schema.
    #[must_use]
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.plan.input = Some(input.into());
        self
    }

    /// Makes up this much of the input.
    #[must_use]
    pub fn made_up(self, extent: Extent) -> Self {
        Self { extent, ..self }
    }

    /// Carries out `participant.action` (an action or a compensation) with a closure over the command's body. It is
    /// called once per effect: the kit keeps the participant's inbox. Actions without one put out what expressions
    /// read of them, made up.
    #[must_use]
    pub fn on<A: Into<Answer>>(
        mut self,
        action: impl Into<String>,
        mut handler: impl FnMut(&Value, &Command) -> A + Send + 'static,
    ) -> Self {
        let handler = Box::new(move |input: &Value, command: &Command| handler(input, command).into());
        self.services.handlers.insert(action.into(), handler);
        self
    }

    /// Takes the user's own participant, handlers and inbox, on its database, in place of closures.
    #[cfg(feature = "participant")]
    #[must_use]
    pub fn participant<DB: crate::participant::Inbox>(
        mut self,
        participant: crate::participant::Participant<DB>,
        pool: sqlx::Pool<DB>,
    ) -> Self {
        let (name, handlers) = participant.into_handlers();
        self.services.real.insert(name, Box::new(super::services::real::Real::new(handlers, pool)));
        self
    }

    /// One thing goes wrong: `authorise-payment#2=timeout`.
    ///
    /// # Panics
    /// When it is no fault.
    #[must_use]
    #[track_caller]
    pub fn fault(self, fault: &str) -> Self {
        match fault.parse() {
            Ok(fault) => self.with(fault),
            Err(error) => panic!("{error}"),
        }
    }

    /// One thing goes wrong.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.plan.faults.push(fault);
        self
    }

    /// Runs this plan. An input that was given before stays where the plan has none.
    #[must_use]
    pub fn plan(mut self, plan: Plan) -> Self {
        let input = self.plan.input.take();
        self.plan = Plan { input: plan.input.or(input), ..plan };
        self
    }

    /// Draws how long messages take.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.plan.seed = seed;
        self
    }

    /// Runs on this store and broker instead of on virtual time: the real coordinator, in real time. Addresses as the
    /// program takes them: `postgres://…`, `sqlite://FILE` or `memory:`; `amqp://…` or `in-process`.
    ///
    /// Times are shortened: all are divided by 60 (see [`Kit::faster`]), an attempt has at least 400 ms, waits for signals
    /// and delays have at most 3 s, the saga's own time-out is at least a minute. An attempt that nobody answers takes about a
    /// second more, until the broker's confirm is written down. Queues and the definition get names of
    /// this run's own, and the queues are deleted in the end; the store is brought up to date and keeps the saga.
    ///
    /// Faults strike at the participants: all kinds but `stale`, `stale-reply`, `reorder` and the crashes of the
    /// coordinator, which are refused. A definition whose steps start sagas is refused.
    ///
    /// ```
    /// # use amends::testkit::Kit;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let run = Kit::new(include_str!("../../sagas/place-order.yaml"))
    ///     .fault("pick#1=fail")
    ///     .on_servers("memory:", "in-process")
    ///     .run()
    ///     .await;
    /// run.assert_compensated().assert_undone(["authorise-payment", "create-order"]);
    /// # });
    /// ```
    #[must_use]
    pub fn on_servers(mut self, store: impl Into<String>, broker: impl Into<String>) -> Self {
        self.servers = Some(Servers::new(store.into(), broker.into()));
        self
    }

    /// On servers, divides the definition's times by this much instead of 60.
    #[must_use]
    pub fn faster(mut self, by: u32) -> Self {
        if let Some(servers) = &mut self.servers {
            servers.faster = by;
        }
        self
    }

    /// Something of the user's own that must hold at the end of every run, however it ends.
    #[must_use]
    pub fn invariant(self, name: impl Into<String>, holds: impl FnOnce() -> bool + Send + 'static) -> Self {
        self.invariant_async(name, move || async move { holds() })
    }

    /// The same, where the answer has to be waited for: a query, for example.
    #[must_use]
    pub fn invariant_async<F, Fut>(mut self, name: impl Into<String>, holds: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        self.invariants.push((name.into(), Box::new(move || holds().boxed())));
        self
    }

    /// Runs the saga through another machine than the real one: to see that a planted bug is caught.
    #[must_use]
    pub fn machine(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    /// Has participants forget: without `remembers` duplicates take effect again, without `leaves_tombstones` an action
    /// may come after its compensation. To see that the lack is caught.
    #[must_use]
    pub fn careless(mut self, remembers: bool, leaves_tombstones: bool) -> Self {
        self.inbox.remembers = remembers;
        self.inbox.leaves_tombstones = leaves_tombstones;
        self
    }

    /// Runs the saga to its end.
    ///
    /// # Panics
    /// When the plan cannot be run: see [`InvalidPlan`].
    #[track_caller]
    pub fn run(self) -> impl Future<Output = Run> {
        let running = self.try_run();
        async {
            match running.await {
                Ok(run) => run,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Runs the saga to its end.
    ///
    /// # Errors
    /// When the plan cannot be run.
    pub async fn try_run(mut self) -> Result<Run, InvalidPlan> {
        let definition = self.subject.definition.clone();
        if let Some(unknown) = self.plan.outputs.keys().find(|name| definition.named(name).is_none()) {
            return Err(InvalidPlan::Output(unknown.clone()));
        }
        let input = match self.plan.input.take() {
            Some(input) => match definition.check_input(&input.clone().into()).into_iter().next() {
                None => input,
                Some((pointer, message)) => return Err(InvalidPlan::Input { pointer, message }),
            },
            None => self.subject.made_up_input(self.extent)?,
        };
        let definition = self.subject.expanded(&input)?;
        for fault in &self.plan.faults {
            fault.place(&definition)?;
            if self.servers.is_some() {
                servers::check(fault)?;
            }
        }
        let outputs = self.subject.outputs(&definition, &input, &self.plan.outputs);
        let Self { machine, services, inbox, plan, invariants, .. } = self;
        let setup = Setup { definition, machine, services, inbox, input, outputs, plan };
        let mut run = match self.servers {
            None => Simulation::new(setup).run().await,
            Some(servers) => servers::run(setup, &self.subject.document, servers).await?,
        };
        for (name, holds) in invariants {
            if !holds().await {
                run.violations.push(format!("the invariant does not hold: {name}"));
            }
        }
        Ok(run)
    }
}
