//! `GET /v1/dead-letters`, and what can be done with them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::{Extension, MatchedPath, Path, State};
use serde_json::Value;

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::operate::reason;
use crate::api::problem::{FIELD_INVALID, Problem};
use crate::api::query::Query;
use crate::api::redact::{Redact, secrets_by};
use crate::api::sagas::reveals;
use crate::client::views::{
    DeadLetterOutcome, DeadLetterPage, DeadLetterResult, DeadLetterView, DeadQueueList, DeadQueueView, DeathView,
    FieldProblem,
};
use crate::coordinator::dead::{DeadChange, DeadLetter, DeadOutcome, DeadQueue, MOST, Which};
use crate::coordinator::{Coordinator, CoordinatorError};
use crate::definition::Definition;
use crate::definition::sensitive::{HIDDEN, Secrets, marks};
use crate::message::HeaderValue;
use crate::payload::Payload;

/// Bytes of a body that are shown.
pub(crate) const SHOWN: usize = 64 * 1024;

pub(super) async fn queues(State(app): State<App>) -> Result<Answer<DeadQueueList>, Problem> {
    let view = |queue: DeadQueue| DeadQueueView { queue: queue.name, origin: queue.origin, messages: queue.messages };
    Ok(Answer(DeadQueueList { items: app.coordinator.dead_queues().await?.into_iter().map(view).collect() }))
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    Path(path): Path<HashMap<String, String>>,
) -> Result<Answer<DeadLetterPage>, Problem> {
    let queue = queue(&path);
    let (letters, more) = app.coordinator.dead_letters(&queue, query.limit()?).await?;
    let items = match reveals(&app, caller, &query, None, &format!("dead letters of {queue}")).await? {
        true => letters.iter().map(view).collect(),
        false => shown(&app.coordinator, &letters).await?,
    };
    Ok(Answer(DeadLetterPage { items, more }))
}

fn queue(path: &HashMap<String, String>) -> String {
    path.get("queue").cloned().unwrap_or_default()
}

/// The messages without what is sensitive in them.
///
/// # Errors
/// When it cannot be found out what that is.
pub(crate) async fn shown(
    coordinator: &Coordinator,
    letters: &[DeadLetter],
) -> Result<Vec<DeadLetterView>, CoordinatorError> {
    let definitions = coordinator.every_definition().await?;
    let is_open = marks(&definitions, None).is_empty();
    let mut shown = Vec::with_capacity(letters.len());
    for letter in letters {
        let mut view = view(letter);
        if !is_open {
            hide(coordinator, &definitions, letter, &mut view).await;
        }
        shown.push(view);
    }
    Ok(shown)
}

/// Goes by the saga that the message is about. Where that is not known, and it is no start, which says by itself what is
/// sensitive in it, nothing of it is shown.
async fn hide(
    coordinator: &Coordinator,
    definitions: &[Arc<Definition>],
    letter: &DeadLetter,
    view: &mut DeadLetterView,
) {
    let body = Payload::parse(&letter.envelope.body).ok();
    let started = body.as_ref().and_then(|body| body.value().get("saga")?.as_str().map(str::to_owned));
    let started = started.filter(|name| definitions.iter().any(|definition| definition.reference.name == *name));
    let of_started = started.as_deref().map(|name| marks(definitions, Some(name)));
    let secrets = match (coordinator.saga_of(letter).await, of_started) {
        (Some(record), of_started) => {
            let own = marks(definitions, Some(&record.saga.definition.name));
            let marks = of_started.map_or(own.clone(), |of_started| own.and(&of_started));
            Some(secrets_by(&marks, &record, &body))
        }
        (None, Some(marks)) if body.as_ref().is_some_and(|body| body.value().get("input").is_some()) => {
            Some(Secrets::of(&marks, &body))
        }
        (None, _) => None,
    };
    let Some(secrets) = secrets else {
        view.body = HIDDEN.to_owned();
        let own = |name: &String| name.starts_with("amends-");
        view.headers.iter_mut().filter(|(name, _)| !own(name)).for_each(|(_, value)| *value = HIDDEN.into());
        return;
    };
    if secrets.is_empty() {
        return;
    }
    view.body = match &body {
        Some(body) => cut(&secrets.shown(body.value()).to_string()),
        // Nobody can tell what in it is the value of which member.
        None => HIDDEN.to_owned(),
    };
    view.reason.redact(&secrets);
    view.deaths.iter_mut().for_each(|death| death.reason.redact(&secrets));
    view.headers.values_mut().for_each(|value| *value = secrets.value(value));
}

/// As much of a text as is shown.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(SHOWN)).unwrap_or_default().to_owned()
}

pub(crate) fn view(letter: &DeadLetter) -> DeadLetterView {
    let properties = &letter.envelope.properties;
    let header = |(name, value): (&Cow<'static, str>, &HeaderValue)| {
        let value = match value {
            HeaderValue::Text(text) => Value::from(&**text),
            HeaderValue::Int(int) => Value::from(*int),
        };
        (name.to_string(), value)
    };
    let body = &letter.envelope.body;
    DeadLetterView {
        id: letter.id.clone(),
        reason: letter.reason.clone(),
        deaths: letter
            .deaths
            .iter()
            .map(|death| DeathView { queue: death.queue.clone(), reason: death.reason.clone(), count: death.count })
            .collect(),
        replay_to: letter.target.as_ref().map(|(exchange, key)| match exchange.as_str() {
            "" => format!("queue {key}"),
            exchange => format!("{exchange} {key}"),
        }),
        kind: properties.kind.clone(),
        content_type: properties.content_type.clone(),
        timestamp: properties.timestamp,
        saga_id: properties.text("amends-saga-id").map(str::to_owned),
        headers: properties.headers.iter().map(header).collect(),
        body: String::from_utf8_lossy(body.get(..SHOWN).unwrap_or(body)).into_owned(),
        body_bytes: body.len(),
    }
}

pub(super) async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(query): Extension<Query>,
    matched: MatchedPath,
    Path(path): Path<HashMap<String, String>>,
    Json(body): Json,
) -> Result<Answer<DeadLetterResult>, Problem> {
    let mut fields = Fields::new(body, "", &["reason", "messages", "count"])?;
    let (given, messages, count) = (fields.text("reason"), fields.optional("messages"), fields.ordinal("count"));
    fields.finish()?;
    let which = which(messages, count)?;
    let queue = queue(&path);
    if query.flag("dryRun")? {
        let letters = app.coordinator.find_dead_letters(&queue, &which).await?;
        let items: Vec<_> =
            letters.into_iter().map(|letter| DeadLetterOutcome { id: letter.id, problem: None }).collect();
        return Ok(Answer(DeadLetterResult { queue, done: items.len(), items }));
    }
    let is_replay = matched.as_str().ends_with("/replay");
    let change = DeadChange { queue, is_replay, which, actor: caller.name, reason: reason(given)? };
    let outcomes = app.coordinator.change_dead_letters(&change).await?;
    let view = |outcome: DeadOutcome| DeadLetterOutcome { id: outcome.id, problem: outcome.problem };
    let items: Vec<_> = outcomes.into_iter().map(view).collect();
    let done = items.iter().filter(|item| item.problem.is_none()).count();
    Ok(Answer(DeadLetterResult { queue: change.queue, done, items }))
}

fn which(messages: Value, count: Option<u32>) -> Result<Which, Problem> {
    let wrong = |pointer: &str, detail: String| {
        Problem::new(FIELD_INVALID, detail.clone()).errors(vec![FieldProblem::at(pointer, detail)])
    };
    match (messages, count) {
        (Value::Null, Some(count)) if count <= MOST => Ok(Which::First(count)),
        (Value::Null, Some(_)) => Err(wrong("/count", format!("`count` is at most {MOST}"))),
        (Value::Array(ids), None) if (1..=MOST as usize).contains(&ids.len()) => {
            let ids: Option<Vec<String>> = ids.into_iter().map(|id| id.as_str().map(str::to_owned)).collect();
            ids.map(Which::Ids).ok_or_else(|| wrong("/messages", "`messages` are ids, as texts".to_owned()))
        }
        _ => {
            let detail =
                format!("say which: either `messages`, a list of 1 to {MOST} ids, or `count`, the oldest so many");
            Err(wrong("/messages", detail))
        }
    }
}
