//! The participants of a simulated saga: closures, the user's real handlers, or nobody, in which case what they put
//! out is made up.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::message::Command;
#[cfg(feature = "participant")]
use crate::message::ReplyBody;
use crate::payload::Payload;
use crate::saga::{Direction, Problem, ReplyOutcome};

/// What a participant answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is done; what the step puts out.
    Done(Value),
    /// A business refusal: no effect. `(type, title)`.
    Refused(String, String),
    /// Not now, try again. `(type, title)`.
    Later(String, String),
}

impl Answer {
    /// Done, with nothing to say.
    pub fn done() -> Self {
        Self::Done(json!({}))
    }

    /// Refused with this problem type.
    pub fn refused(kind: impl Into<String>) -> Self {
        Self::Refused(kind.into(), "refused".to_owned())
    }

    pub(super) fn outcome(self) -> ReplyOutcome {
        match self {
            Self::Done(output) => ReplyOutcome::Success { output: Payload::from(output) },
            Self::Refused(kind, title) => ReplyOutcome::Failure { problem: Problem::new(kind, title) },
            Self::Later(kind, title) => ReplyOutcome::Retry { problem: Problem::new(kind, title), after: None },
        }
    }
}

impl From<Value> for Answer {
    fn from(output: Value) -> Self {
        Self::Done(output)
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::done()
    }
}

/// What a participant made of one delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Handled {
    pub outcome: ReplyOutcome,
    /// Whether its database shows an effect that it did not show before.
    pub took_effect: bool,
}

/// What a planned fault has a participant do instead of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forced {
    Refuse,
    Later,
}

impl Forced {
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Refuse => Answer::Refused("planned-failure".to_owned(), "a planned fault".to_owned()),
            Self::Later => Answer::Later("planned-retry".to_owned(), "a planned fault".to_owned()),
        }
    }
}

/// A participant with an inbox of its own.
#[async_trait]
pub(super) trait Service: Send + Sync {
    async fn handle(&self, command: &Arc<Command>, forced: Option<Forced>) -> Handled;
}

/// A closure behind an action. Called once per effect: the kit keeps the inbox.
pub(super) type Handler = Box<dyn FnMut(&Value, &Command) -> Answer + Send>;

/// The participants.
#[derive(Default)]
pub(super) struct Services {
    /// By `participant.action`.
    pub handlers: HashMap<String, Handler>,
    /// By participant.
    pub real: HashMap<String, Box<dyn Service>>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("handlers", &self.handlers.keys()).finish_non_exhaustive()
    }
}

impl Services {
    /// Carries out an action that the inbox does not know; `made_up` is what comes of it where nobody is asked.
    pub(super) fn perform(&mut self, command: &Command, direction: Direction, made_up: &Value) -> Answer {
        match self.handlers.get_mut(&format!("{}.{}", command.participant, command.action)) {
            Some(handler) => handler(command.body.value(), command),
            None if direction == Direction::Action => Answer::Done(made_up.clone()),
            None => Answer::done(),
        }
    }
}

/// A reply as the state machine takes it.
#[cfg(feature = "participant")]
pub(super) fn outcome_of(reply: ReplyBody) -> ReplyOutcome {
    let problem = |problem: crate::message::reply::ReplyProblem| Problem {
        kind: problem.kind,
        title: problem.title,
        detail: problem.detail,
    };
    match reply {
        ReplyBody::Success(output) => ReplyOutcome::Success { output },
        ReplyBody::Failure(found) => ReplyOutcome::Failure { problem: problem(found) },
        ReplyBody::Retry(found, after) => ReplyOutcome::Retry { problem: problem(found), after },
        ReplyBody::InProgress => ReplyOutcome::InProgress,
    }
}

#[cfg(feature = "participant")]
pub(super) mod real {
    //! The user's real handlers, on their real database, with the SDK's own inbox.

    use std::collections::HashMap;
    use std::sync::Arc;

    use async_trait::async_trait;
    use sqlx::Pool;

    use super::{Forced, Handled, Service, outcome_of};
    use crate::broker::in_process::InProcessBroker;
    use crate::message::Command;
    use crate::participant::{
        Handler, How, Inbox, Pulse, SqlLedger, StepError, perform, refuse, retry_after, unavailable,
    };

    /// A participant of the SDK.
    pub(in crate::testkit) struct Real<DB: Inbox> {
        handlers: HashMap<String, Handler<DB>>,
        ledger: SqlLedger<DB>,
        broker: Arc<InProcessBroker>,
    }

    impl<DB: Inbox> Real<DB> {
        pub(in crate::testkit) fn new(handlers: HashMap<String, Handler<DB>>, pool: Pool<DB>) -> Self {
            Self { handlers, ledger: SqlLedger::new(pool), broker: Arc::new(InProcessBroker::new()) }
        }
    }

    #[async_trait]
    impl<DB: Inbox> Service for Real<DB> {
        async fn handle(&self, command: &Arc<Command>, forced: Option<Forced>) -> Handled {
            let planned: Option<Handler<DB>> = forced.map(|forced| -> Handler<DB> {
                Arc::new(move |_, _| {
                    let error: StepError = match forced {
                        Forced::Refuse => refuse("planned-failure", "a planned fault"),
                        Forced::Later => retry_after(std::time::Duration::ZERO, "planned-retry", "a planned fault"),
                    };
                    Box::pin(async move { Err(error) })
                })
            });
            let handler = planned.as_ref().or_else(|| self.handlers.get(&command.action));
            let pulse = Pulse::new(self.broker.clone(), command);
            match perform(&self.ledger, command, handler, &pulse).await {
                Ok(performed) => {
                    Handled { took_effect: performed.how == How::Done, outcome: outcome_of(performed.reply) }
                }
                Err(error) => Handled { outcome: outcome_of(unavailable(&error).reply), took_effect: false },
            }
        }
    }
}
