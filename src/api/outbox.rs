//! `GET /v1/outbox`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use axum::Json as Answer;
use axum::extract::{Extension, State};

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::problem::{Problem, QUERY_INVALID};
use crate::api::query::Query;
use crate::api::redact::{Redact, secrets_of};
use crate::api::saga_view::outbox_item;
use crate::api::sagas::reveals;
use crate::client::views::{OutboxItem, OutboxPage};
use crate::definition::sensitive::{HIDDEN_IN_TEXT, Secrets};
use crate::id::{CommandId, SagaId, Seq};
use crate::store::{OutboxEntry, OutboxFilter, Page};

/// Bytes of a place in the list: a saga's id and a command's place in it.
const PLACE: usize = 20;

pub(super) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
) -> Result<Answer<OutboxPage>, Problem> {
    let states = query.words("state", &["PENDING", "VERIFIED"])?;
    let pending = match states.as_slice() {
        [state] => Some(state == "PENDING"),
        _ => None,
    };
    let limit = query.limit()?;
    let after = query.cursor::<PLACE>("outbox")?.map(from_place).transpose()?;
    let filter = OutboxFilter { pending, ..OutboxFilter::default() };
    let mut found = app.coordinator.store().outbox(&filter, &Page { after, limit: limit + 1 }).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| has_more).map(|last| query.next("outbox", &place(last.id)));
    let now = app.clock.now();
    let mut items: Vec<OutboxItem> = found.iter().map(|entry| outbox_item(entry, now)).collect();
    if !reveals(&app, caller, &query, None, "outbox").await? {
        redact(&app, &found, &mut items).await?;
    }
    Ok(Answer(OutboxPage { items, next }))
}

/// What is sensitive of an error is known from its saga, which entries come without.
async fn redact(app: &App, found: &[OutboxEntry], items: &mut [OutboxItem]) -> Result<(), Problem> {
    let mut known: HashMap<SagaId, Option<Secrets>> = HashMap::new();
    for (entry, item) in found.iter().zip(items).filter(|(_, item)| item.error.is_some()) {
        let definition = app.coordinator.definition(&entry.definition).await?;
        if definition.sensitive.is_empty() {
            continue;
        }
        let secrets = match known.entry(entry.id.saga) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let record = match app.coordinator.store().saga(entry.id.saga).await {
                    Ok(record) => record,
                    Err(error) if error.is_transient() => return Err(error.into()),
                    Err(_) => None,
                };
                unknown.insert(record.map(|record| secrets_of(&definition, &record)))
            }
        };
        match (secrets, &mut item.error) {
            (Some(secrets), _) => item.redact(secrets),
            // Gone meanwhile, or it cannot be read: nobody knows what of it is sensitive.
            (None, Some(error)) => (error.title, error.detail) = (HIDDEN_IN_TEXT.to_owned(), None),
            (None, None) => {}
        }
    }
    Ok(())
}

fn place(id: CommandId) -> Vec<u8> {
    [id.saga.0.as_bytes().as_slice(), &id.seq.0.to_be_bytes()].concat()
}

fn from_place(bytes: [u8; PLACE]) -> Result<CommandId, Problem> {
    let bad = || Problem::new(QUERY_INVALID, "the cursor names no command");
    let (saga, seq) = bytes.split_first_chunk::<16>().ok_or_else(bad)?;
    let seq = seq.try_into().map_err(|_| bad())?;
    Ok(CommandId { saga: SagaId(uuid::Uuid::from_bytes(*saga)), seq: Seq(u32::from_be_bytes(seq)) })
}
