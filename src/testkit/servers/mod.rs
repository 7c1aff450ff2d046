//! The same saga, participants and plan on a real store and broker: the real coordinator, in real time.
//!
//! What stays as it is: the definition's steps, expressions, order and policies, closures and real handlers, what a
//! planned fault means, what is checked in the end. What differs: times are shorter ([`scaled`]), queues and the
//! definition have names of this run's own, and the kit's participants stand where the services would, so that faults
//! strike between broker and handler ([`post`]).

mod past;
mod post;
mod scaled;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, BrokerError};
use crate::clock::Stopwatch;
use crate::coordinator::{Coordinator, CoordinatorError, CoordinatorOptions, Start, StartOutcome};
use crate::definition::{self, Definition};
use crate::id;
use crate::payload::Payload;
use crate::saga::Saga;
use crate::store::{SagaRecord, Store};
use crate::testkit::kit::InvalidPlan;
use crate::testkit::run::{End, Run};
use crate::testkit::simulation::{Setup, allowed};
use crate::testkit::{Fault, FaultKind};
use past::Past;
use post::Post;

/// By how much times are shortened unless said otherwise: a minute becomes a second.
const FASTER: u32 = 60;
/// How often the saga is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// For how many looks nothing may change before a run counts as over.
const QUIET_LOOKS: u32 = 5;

/// Where a run takes place.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    pub store: String,
    pub broker: String,
    pub faster: u32,
}

impl Servers {
    pub(super) fn new(store: String, broker: String) -> Self {
        Self { store, broker, faster: FASTER }
    }
}

impl InvalidPlan {
    fn server(what: impl std::fmt::Display) -> Self {
        Self::Servers(what.to_string())
    }
}

impl From<BrokerError> for InvalidPlan {
    fn from(error: BrokerError) -> Self {
        Self::server(error)
    }
}

impl From<crate::store::StoreError> for InvalidPlan {
    fn from(error: crate::store::StoreError) -> Self {
        Self::server(error)
    }
}

impl From<CoordinatorError> for InvalidPlan {
    fn from(error: CoordinatorError) -> Self {
        Self::server(error)
    }
}

/// Refuses faults that only a simulation can plan.
pub(super) fn check(fault: &Fault) -> Result<(), InvalidPlan> {
    let why = match fault.kind {
        FaultKind::Stale | FaultKind::StaleReply => "it would take days",
        FaultKind::Reorder => "which of two messages is taken first is the broker's to say",
        FaultKind::CrashBeforeCommit
        | FaultKind::CrashBeforePublish
        | FaultKind::CrashBeforeConfirm
        | FaultKind::CrashBeforeAck => "the coordinator runs inside this process and cannot die at one place of it",
        _ => return Ok(()),
    };
    let message = format!("fault `{fault}` cannot be planned on servers: {why}; run this plan on virtual time");
    Err(InvalidPlan::Servers(message))
}

/// The broker, with the way to clear up on it.
struct Connected {
    broker: Arc<dyn Broker>,
    #[cfg(feature = "amqp")]
    amqp: Option<Arc<crate::broker::amqp::AmqpBroker>>,
}

impl Connected {
    async fn to(url: &str) -> Result<Self, BrokerError> {
        #[cfg(feature = "amqp")]
        if url.starts_with("amqp") {
            let amqp = Arc::new(crate::broker::amqp::AmqpBroker::connect(url).await?);
            return Ok(Self { broker: amqp.clone(), amqp: Some(amqp) });
        }
        Ok(Self {
            broker: crate::broker::open(url).await?,
            #[cfg(feature = "amqp")]
            amqp: None,
        })
    }

    /// Leaves nothing of this run behind; what cannot be deleted stays, and harms nobody.
    async fn clear(&self, queues: &[String]) {
        #[cfg(feature = "amqp")]
        if let Some(amqp) = &self.amqp {
            let with_dead: Vec<String> =
                queues.iter().flat_map(|queue| [queue.clone(), format!("{queue}.dead")]).collect();
            if let Err(error) = amqp.delete(&with_dead).await {
                tracing::warn!(%error, "queues of a test run stay behind");
            }
        }
        let _ = queues;
        self.broker.close().await;
    }
}

/// Runs the plan.
pub(super) async fn run(setup: Setup, document: &Value, servers: Servers) -> Result<Run, InvalidPlan> {
    let word = id::SagaId::fresh().0.simple().to_string();
    let word = word.get(word.len().saturating_sub(10)..).unwrap_or_default();
    let served = scaled::served(document, &setup.definition, word, servers.faster)?;
    let text = served.document.to_string();
    let definition =
        definition::compile(&text).ok_or_else(|| InvalidPlan::server("the definition cannot be shortened"))?;
    let definition = definition
        .expanded(&Payload::from(setup.input.clone()))
        .map_err(|error| InvalidPlan::server(format!("the definition cannot be shortened: {error}")))?;

    let store = crate::store::open(&servers.store).await?;
    store.migrate().await?;
    let connected = Connected::to(&servers.broker).await?;
    let replies = format!("kit-{word}.replies");
    let options = CoordinatorOptions {
        events: false,
        requests: false,
        replies: replies.clone(),
        ..CoordinatorOptions::default()
    };
    let coordinator = Coordinator::launch(store.clone(), connected.broker.clone(), options).await?;
    coordinator.register(&text, "testkit").await?;
    let Setup { definition: original, machine, services, inbox, input, outputs, plan } = setup;
    let post = Arc::new(Post::new(
        post::House {
            served,
            definition: definition.clone(),
            reference: original.reference.clone(),
            outputs,
            plan: plan.clone(),
        },
        (store.clone(), connected.broker.clone()),
        services,
        inbox,
    ));
    let watch = Watch { store: store.clone(), broker: connected.broker.clone(), replies: replies.clone(), definition };
    // Whatever goes wrong, nothing is left running and no queue is left behind.
    let outcome = watch.play(input, &post, &coordinator).await;
    coordinator.stop().await;
    post.close();
    connected.clear(&post.queues().chain([replies]).collect::<Vec<_>>()).await;
    if let Some(panicked) = post.panicked() {
        std::panic::resume_unwind(panicked);
    }
    let (id, is_over) = outcome?;
    let (record, history) = (watch.record(id).await?, store.history(id).await?);
    let past = Past { definition: watch.definition, original, machine, record, history, plan };
    let place = format!("{} and {}", told(&servers.store), told(&servers.broker));
    Ok(past.run(post.book().await, is_over, place))
}

/// An address without what may be secret in it.
fn told(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme @ ("amqp" | "amqps" | "postgres" | "postgresql"), rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        _ => url.to_owned(),
    }
}

struct Watch {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    replies: String,
    definition: Arc<Definition>,
}

impl Watch {
    async fn record(&self, id: id::SagaId) -> Result<SagaRecord, InvalidPlan> {
        self.store.saga(id).await?.ok_or_else(|| InvalidPlan::server(format!("saga {id} is gone from the store")))
    }

    /// Starts the saga and sees to it until nothing moves it any more. Its id, and whether that came about in time.
    async fn play(
        &self,
        input: Value,
        post: &Arc<Post>,
        coordinator: &Coordinator,
    ) -> Result<(id::SagaId, bool), InvalidPlan> {
        post.open().await?;
        let saga = self.definition.reference.name.clone();
        let start = Start { saga, version: None, input: input.into(), key: None };
        let id = match coordinator.start(start).await? {
            StartOutcome::Started { id, .. } | StartOutcome::Exists { id } => id,
        };
        Ok((id, self.until_quiet(id, post, coordinator).await?))
    }

    /// Looks at the saga until nothing moves it any more and nothing is on its way; sees to its signals meanwhile.
    /// Whether that came about in time.
    async fn until_quiet(
        &self,
        id: id::SagaId,
        post: &Arc<Post>,
        coordinator: &Coordinator,
    ) -> Result<bool, InvalidPlan> {
        let (clock, allowed) = (Stopwatch::start(), allowed(&self.definition));
        let (mut quiet, mut last) = (0, None);
        post.early_signals(id, coordinator);
        while clock.elapsed() < allowed && !post.has_panicked() {
            let saga = self.record(id).await?.saga;
            post.signals(&saga, coordinator);
            let waiting = self.broker.queue(&self.replies).await?.map_or(0, |queue| queue.messages);
            let is_still = is_at_rest(&saga) && post.is_idle() && waiting == 0 && last == Some(saga.revision);
            quiet = if is_still { quiet + 1 } else { 0 };
            if quiet >= QUIET_LOOKS {
                return Ok(true);
            }
            last = Some(saga.revision);
            tokio::time::sleep(LOOK).await;
        }
        Ok(false)
    }
}

fn is_at_rest(saga: &Saga) -> bool {
    saga.state.is_terminal() || saga.state.stuck().is_some() && saga.due().is_none()
}

/// How the saga stands, in the words of the kit.
fn end(definition: &Definition, saga: &Saga, is_over: bool) -> End {
    if is_over { End::of(definition, saga) } else { End::Unended { state: saga.state.as_str().to_owned() } }
}
