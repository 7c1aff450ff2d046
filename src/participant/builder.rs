//! Collects a participant's handlers and limits.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Pool;

use super::error::StepError;
use super::inbox::Inbox;
use super::rules::{Handler, erase};
use super::runner::RunningParticipant;
use super::work::Work;
use crate::broker::{self, Broker};
use crate::id::Namespace;
use crate::telemetry::Recorder;

/// A service that takes part in sagas, before it is connected: its name, handlers and limits.
pub struct Participant<DB: Inbox> {
    name: String,
    handlers: HashMap<String, Handler<DB>>,
    duplicate: Option<String>,
    /// The first action of another participant that it was given.
    foreign: Option<String>,
    namespace: String,
    pub(crate) limits: Limits,
    recorder: Option<Recorder>,
}

/// How much at once, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub concurrency: u16,
    pub heartbeat: Option<Duration>,
    pub grace: Duration,
}

impl<DB: Inbox> Participant<DB> {
    /// A participant called `name`, as definitions call it; its queue is `<name>.commands`.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            handlers: HashMap::new(),
            duplicate: None,
            foreign: None,
            namespace: Namespace::DEFAULT.to_owned(),
            limits: Limits { concurrency: 16, heartbeat: None, grace: Duration::from_secs(30) },
            recorder: None,
        }
    }

    /// Carries out `action`, which may be a step's action or its compensation. The input is read from the command's
    /// body (one that cannot be read is refused as `invalid-input`), the output is the reply's (`{}` for a handler that
    /// has none).
    #[must_use]
    pub fn action<I, O, F, Fut>(mut self, action: impl Into<String>, handler: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(I, Work<DB>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        let action = action.into();
        if self.handlers.insert(action.clone(), erase(handler)).is_some() {
            self.duplicate = Some(action);
        }
        self
    }

    /// Carries out a typed action, which definitions written in Rust name by the same type. Handler and definition
    /// cannot disagree on names and types: a handler of anything else does not compile.
    ///
    /// ```compile_fail,E0631
    /// # use amends::{action::Action, participant::{Participant, StepError, Work}};
    /// struct Pick;
    /// impl Action for Pick {
    ///     const PARTICIPANT: &'static str = "warehouse";
    ///     const NAME: &'static str = "pick";
    ///     type Input = String;
    ///     type Output = u64;
    /// }
    /// async fn pick(sku: bool, work: Work<sqlx::Sqlite>) -> Result<u64, StepError> { Ok(1) } // takes something else
    /// let warehouse = Participant::named("warehouse").handles::<Pick, _, _>(pick);
    /// ```
    ///
    /// ```compile_fail,E0271
    /// # use amends::{action::Action, participant::{Participant, StepError, Work}};
    /// # struct Pick;
    /// # impl Action for Pick {
    /// #     const PARTICIPANT: &'static str = "warehouse";
    /// #     const NAME: &'static str = "pick";
    /// #     type Input = String;
    /// #     type Output = u64;
    /// # }
    /// async fn pick(sku: String, work: Work<sqlx::Sqlite>) -> Result<bool, StepError> { Ok(true) } // gives something else
    /// let warehouse = Participant::named("warehouse").handles::<Pick, _, _>(pick);
    /// ```
    ///
    /// ```
    /// # use amends::{action::Action, participant::{Participant, StepError, Work}};
    /// # struct Pick;
    /// # impl Action for Pick {
    /// #     const PARTICIPANT: &'static str = "warehouse";
    /// #     const NAME: &'static str = "pick";
    /// #     type Input = String;
    /// #     type Output = u64;
    /// # }
    /// async fn pick(sku: String, work: Work<sqlx::Sqlite>) -> Result<u64, StepError> { Ok(1) }
    /// let warehouse = Participant::named("warehouse").handles::<Pick, _, _>(pick);
    /// ```
    #[cfg(feature = "typed")]
    #[must_use]
    pub fn handles<A, F, Fut>(mut self, handler: F) -> Self
    where
        A: crate::action::Action,
        F: Fn(A::Input, Work<DB>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<A::Output, StepError>> + Send + 'static,
    {
        if self.name != A::PARTICIPANT {
            self.foreign.get_or_insert(format!("{}.{}", A::PARTICIPANT, A::NAME));
        }
        self.action(A::NAME, handler)
    }

    /// Takes part in the sagas of this namespace, whose queues are its own (`<namespace>.<name>.commands`); in those of
    /// the default one unless said. A service for several is built once for each.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// At most this many commands at once; 16 unless said. The pool should have as many connections. SQLite has one
    /// writer, so that there commands follow each other whatever is said here.
    #[must_use]
    pub fn concurrency(mut self, commands: u16) -> Self {
        self.limits.concurrency = commands;
        self
    }

    /// Sends a heartbeat this often while a handler runs, for steps that may outlast their time-out. None unless said.
    #[must_use]
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.limits.heartbeat = Some(every);
        self
    }

    /// How long a stop waits for commands under way; 30 s unless said. What is not done then comes again.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.limits.grace = grace;
        self
    }

    /// Gives the spans of what it does to a recorder, such as [`telemetry::otlp`](crate::telemetry) makes. Each is a child
    /// of the coordinator's attempt, and what a handler finds as its command's trace context.
    #[must_use]
    pub fn traces(mut self, recorder: Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Its name and handlers, for whoever runs them without a broker.
    #[cfg(feature = "testkit")]
    pub(crate) fn into_handlers(self) -> (String, HashMap<String, Handler<DB>>) {
        (self.name, self.handlers)
    }

    /// Connects it to its database and the broker. Nothing happens before [`RunningParticipant::run`].
    ///
    /// # Errors
    /// What is wrong with the name, the actions or the limits.
    pub fn build(self, pool: Pool<DB>, broker: Arc<dyn Broker>) -> Result<RunningParticipant<DB>, InvalidParticipant> {
        let well_formed =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !well_formed(&self.name) {
            return Err(InvalidParticipant::Name(self.name));
        }
        if self.handlers.is_empty() {
            return Err(InvalidParticipant::NoActions);
        }
        if let Some(action) = self.duplicate {
            return Err(InvalidParticipant::DuplicateAction(action));
        }
        if let Some(action) = self.foreign {
            return Err(InvalidParticipant::ForeignAction { participant: self.name, action });
        }
        if self.limits.concurrency == 0 || self.limits.heartbeat.is_some_and(|every| every.is_zero()) {
            return Err(InvalidParticipant::Zero);
        }
        let namespace: Namespace =
            self.namespace.parse().map_err(|_| InvalidParticipant::Namespace(self.namespace.clone()))?;
        let broker = broker::within(broker, &namespace);
        Ok(RunningParticipant::new(self.name, self.handlers, self.limits, pool, broker, self.recorder))
    }
}

impl<DB: Inbox> fmt::Debug for Participant<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<_> = self.handlers.keys().collect();
        f.debug_struct("Participant").field("name", &self.name).field("actions", &actions).finish_non_exhaustive()
    }
}

/// A participant cannot be built so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParticipant {
    /// The name cannot be part of a routing key.
    #[error("participant name `{0}`: use letters, digits, `-` and `_`")]
    Name(String),
    /// The name is no namespace's.
    #[error("namespace `{0}`: use lower case letters, digits and `-`, as the coordinator's settings name it")]
    Namespace(String),
    /// There is no handler.
    #[error("a participant needs at least one action")]
    NoActions,
    /// Two handlers were given for one action.
    #[error("action `{0}` has two handlers")]
    DuplicateAction(String),
    /// A typed action belongs to another participant.
    #[error("participant `{participant}` cannot carry out `{action}`: name it as the action does")]
    ForeignAction {
        /// The participant's name.
        participant: String,
        /// The action, with the name of the participant that it belongs to.
        action: String,
    },
    /// Concurrency or heartbeat interval is zero.
    #[error("concurrency and heartbeat must be more than zero")]
    Zero,
}
