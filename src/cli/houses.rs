//! `amends serve` with several namespaces: each is opened and kept by a task of its own, so that one whose store is away
//! or not migrated does not keep the others waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::archive::Retention;
use super::error::CliError;
use super::namespaces::Place;
use super::serve::TRACES_DRAIN;
use super::settings::of_namespace;
use super::traces::Collector;
use super::{connect, output, serve};
use crate::api::Access;
use crate::broker::{self, Broker};
use crate::coordinator::{Coordinator, CoordinatorOptions, Limits};
use crate::id::Namespace;
use crate::namespaces::Namespaces;
use crate::store::sealed::MasterKeys;
use crate::store::{self, Store, StoreError};
use crate::telemetry::otlp::Exporting;
use crate::webhook::{self, Endpoint};

/// How long a start waits for namespaces that are slow to open before it serves the others.
const SLOW: Duration = Duration::from_secs(5);
/// How soon one that could not be opened is tried again at first, and at last.
const AGAIN: Duration = Duration::from_secs(1);
const AT_LAST: Duration = Duration::from_secs(15);

/// A namespace that is open.
pub struct Opened {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    /// What runs there.
    pub coordinator: Coordinator,
    webhooks: Option<JoinHandle<()>>,
    traces: Option<Exporting>,
}

impl Opened {
    /// Finishes what was taken in, then closes everything.
    pub async fn close(self) {
        self.coordinator.stop().await;
        if let Some(webhooks) = self.webhooks {
            drop(webhooks.await);
        }
        self.broker.close().await;
        self.store.close().await;
        if let Some(traces) = self.traces {
            traces.finish(TRACES_DRAIN).await;
        }
    }
}

/// What all namespaces are opened with.
#[derive(Clone)]
pub struct Manner {
    /// Whether PostgreSQL schemas are brought up to this program.
    pub migrate: bool,
    /// How much each participant is sent at once, where the namespace's entry says nothing else.
    pub limits: Limits,
    /// Whether operators may send what was refused with another input.
    pub allow_edit: bool,
    /// What payloads are encrypted with.
    pub masters: Option<MasterKeys>,
    /// What is archived by itself.
    pub retention: Retention,
    /// Where traces go, if they are to go anywhere: of each namespace in a queue of its own.
    pub collector: Option<Collector>,
    /// Each namespace's webhooks.
    pub endpoints: BTreeMap<Namespace, Vec<Endpoint>>,
}

/// Whether one of the stores has a token that is good, which closes all namespaces: asked before a server that others can
/// reach begins anything, so that nothing is made or changed when it is refused. Waits a while for stores that are away,
/// unless another has one.
pub async fn let_somebody_in(places: &[Place], access: &Access, stop: &CancellationToken) -> bool {
    let asked = places.iter().map(|place| async move {
        let asked = serve::patiently(stop, StoreError::is_transient, async || has_token(place, access).await).await;
        (place, asked)
    });
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut unknown = Vec::new();
    while let Some((place, has_token)) = asked.next().await {
        match has_token {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => {
                unknown.push(format!("whether namespace {} has tokens is not known: {error}", place.namespace))
            }
        }
    }
    unknown.into_iter().for_each(output::note);
    false
}

async fn has_token(place: &Place, access: &Access) -> Result<bool, StoreError> {
    let store = store::open_within(&place.store, &place.namespace).await?;
    let asked = async {
        if serve::is_new(&*store).await {
            return Ok(false);
        }
        access.auth(&place.namespace).with_store(store.clone()).lets_somebody_in().await
    };
    let has_token = asked.await;
    store.close().await;
    has_token
}

/// Opens every place and goes on trying those that cannot be, until `stop`. Returns once each is open or has failed once,
/// or after five seconds.
pub async fn open_all(
    places: Vec<Place>,
    manner: &Manner,
    namespaces: &Namespaces,
    stop: &CancellationToken,
) -> Vec<JoinHandle<Option<Opened>>> {
    let names: Arc<[Namespace]> = places.iter().map(|place| place.namespace.clone()).collect();
    let mut tasks = Vec::with_capacity(places.len());
    let mut tried = Vec::with_capacity(places.len());
    for place in places {
        let (first, told) = tokio::sync::oneshot::channel();
        let keep = keep(place, names.clone(), manner.clone(), namespaces.clone(), stop.clone(), first);
        tasks.push(tokio::spawn(keep));
        tried.push(told);
    }
    // Whoever has not been heard of goes on in its task.
    let _ = tokio::time::timeout(SLOW, join_all(tried)).await;
    tasks
}

async fn keep(
    place: Place,
    names: Arc<[Namespace]>,
    manner: Manner,
    namespaces: Namespaces,
    stop: CancellationToken,
    first: tokio::sync::oneshot::Sender<()>,
) -> Option<Opened> {
    let mut first = Some(first);
    let mut pause = AGAIN;
    let endpoints = manner.endpoints.get(&place.namespace).cloned().unwrap_or_default();
    let started = manner.collector.as_ref().map(|collector| collector.start(&place.namespace)).transpose();
    let (recorder, traces) = match started {
        Ok(traces) => traces.unzip(),
        Err(error) => {
            // Sagas are worth more than their traces.
            tracing::error!(namespace = %place.namespace, "no traces: {}", error.message);
            (None, None)
        }
    };
    let options = CoordinatorOptions {
        limits: limits(&place, &manner.limits),
        allow_edit: manner.allow_edit,
        traces: recorder,
        hooks: endpoints.iter().map(Endpoint::hook).collect(),
        ..CoordinatorOptions::default()
    };
    let mut opened = loop {
        match open(&place, &names, &manner, &options).await {
            Ok(opened) => break opened,
            Err(error) => {
                let help = error.help.unwrap_or_default();
                tracing::error!(namespace = %place.namespace, help, "not open yet: {}", error.message);
                namespaces.fail(&place.namespace, error.message);
            }
        }
        drop(first.take());
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(AT_LAST),
        }
    };
    namespaces.open(&place.namespace, opened.coordinator.clone()).await;
    opened.webhooks = webhook::launch(&opened.coordinator, endpoints, stop.clone());
    opened.traces = traces;
    let retention = manner.retention.clone().start(place.namespace.clone(), opened.store.clone(), stop.clone());
    tracing::info!(namespace = %place.namespace, "open");
    drop(first.take());
    stop.cancelled().await;
    if let Some(retention) = retention {
        // What it was at is done again by the next run.
        retention.abort();
    }
    Some(opened)
}

async fn open(
    place: &Place,
    names: &[Namespace],
    manner: &Manner,
    options: &CoordinatorOptions,
) -> Result<Opened, CliError> {
    // First, since it only looks at the address: a wrong one leaves the store as it is.
    let broker = broker::beside(connect::broker(&place.broker).await?, &place.namespace, names);
    let opened = async {
        let store = store::open_within(&place.store, &place.namespace).await?;
        let launched = async {
            serve::prepare_schema(&*store, &place.store, manner.migrate).await?;
            let sealed = connect::encrypted(store.clone(), of_namespace(manner.masters.clone(), &place.entry)?)?;
            sealed.check().await?;
            let store = sealed.store;
            let coordinator = Coordinator::launch(store.clone(), broker.clone(), options.clone()).await?;
            Ok::<_, CliError>((store, coordinator))
        };
        match launched.await {
            Ok(launched) => Ok(launched),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    };
    match opened.await {
        Ok((store, coordinator)) => Ok(Opened { store, broker, coordinator, webhooks: None, traces: None }),
        Err(error) => {
            broker.close().await;
            Err(error)
        }
    }
}

fn limits(place: &Place, all: &Limits) -> Limits {
    let entry = &place.entry;
    let mut limits = all.clone();
    limits.window = entry.window.unwrap_or(limits.window);
    limits.windows.extend(entry.windows.clone());
    limits.weights.extend(entry.weights.clone());
    limits
}

/// Says what is open, and what is not.
pub fn tell(address: &str, namespaces: &Namespaces) {
    let open = namespaces.coordinators().len();
    let all = namespaces.names().len();
    if namespaces.coordinators().iter().any(|coordinator| coordinator.broker().is_volatile()) {
        serve::tell_of_volatile_broker();
    }
    output::note(format!("amends is ready at http://{address} ({open} of {all} namespaces)"));
    if open < all {
        output::note("the others are tried again and again; the log says what they lack, and so does /readyz");
    }
}
