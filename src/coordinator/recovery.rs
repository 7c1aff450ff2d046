//! After a start. On a durable broker there is nothing to recover: whatever a killed coordinator left comes back by the
//! rows' own due times. A broker inside the process has lost its queues, though.

use std::collections::HashSet;

use crate::coordinator::CoordinatorError;
use crate::coordinator::outbound::attempt;
use crate::coordinator::plan::Sources;
use crate::coordinator::publisher::Publisher;
use crate::coordinator::traces::{self, Given};
use crate::id::SagaId;
use crate::store::{OutboxEntry, Page, SagaFilter, Store};

/// How many to read at a time.
const PAGE: u32 = 500;

/// Sends every PENDING command again, same attempt, same message id. Those of paused sagas stay where they are,
/// and so does what is held back, or is for
/// a participant that is paused.
pub(super) async fn send_pending(
    store: &dyn Store,
    sources: &Sources,
    publisher: &Publisher,
) -> Result<(), CoordinatorError> {
    let (paused, given) = known(store).await?;
    let now = store.health().await?.now;
    let mut after = None;
    loop {
        let entries = store.pending(after, PAGE).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        after = Some(last.id);
        let is_held = |entry: &OutboxEntry| entry.in_flight.is_some_and(|flight| flight.is_held);
        entries.iter().filter(|entry| is_held(entry)).for_each(|entry| sources.gates.remember(entry));
        let batch = entries.iter().filter(|entry| !entry.is_wait() && !is_held(entry));
        let is_free = |entry: &&OutboxEntry| !sources.gates.pauses().is_paused(&entry.participant, &entry.action);
        let batch = batch.filter(|entry| !paused.contains(&entry.id.saga)).filter(is_free).filter_map(|entry| {
            let definition = sources.registry.known(&entry.definition)?;
            let (of, traces) = (entry.in_flight?.attempt, sources.traces.as_ref());
            let mut sent = attempt(&definition, entry, of, &sources.to, now);
            let given = given.get(&entry.id.saga);
            traces::stamp(&mut sent, traces::carried(traces, entry.id.saga, given, (entry.id, of)));
            Some(sent)
        });
        publisher.publish(batch.collect());
    }
}

/// Which sagas are paused, and which traces callers gave.
async fn known(store: &dyn Store) -> Result<(HashSet<SagaId>, Given), CoordinatorError> {
    let states = ["RUNNING", "COMPENSATING", "STUCK"].map(str::to_owned).into();
    let filter = SagaFilter { states, ..SagaFilter::default() };
    let mut page = Page { after: None, limit: PAGE };
    let (mut paused, mut given) = (HashSet::new(), Given::new());
    loop {
        let sagas = store.sagas(&filter, &page).await?;
        let Some(last) = sagas.last() else { return Ok((paused, given)) };
        page.after = Some(last.saga.id);
        paused.extend(sagas.iter().filter(|of| of.saga.paused).map(|of| of.saga.id));
        given.extend(sagas.into_iter().filter_map(|of| Some((of.saga.id, *of.saga.trace?))));
    }
}
