//! `GET /v1/dead-letters`, and what can be done with them.

use std::collections::HashMap;

use axum::Json as Answer;
use axum::extract::{Extension, MatchedPath, Path, State};
use serde_json::Value;

use crate::api::App;
use crate::api::auth::Caller;
use crate::api::body::{Fields, Json};
use crate::api::operate::reason;
use crate::api::problem::{FIELD_INVALID, Problem};
use crate::api::query::Query;
use crate::client::views::{
    DeadLetterOutcome, DeadLetterPage, DeadLetterResult, DeadLetterView, DeadQueueList, DeadQueueView, DeathView,
    FieldProblem,
};
use crate::coordinator::dead::{DeadChange, DeadLetter, DeadOutcome, DeadQueue, MOST, Which};
use crate::message::HeaderValue;

/// Bytes of a body that are shown.
pub(crate) const SHOWN: usize = 64 * 1024;

pub(super) async fn queues(State(app): State<App>) -> Result<Answer<DeadQueueList>, Problem> {
    let view = |queue: DeadQueue| DeadQueueView { queue: queue.name, origin: queue.origin, messages: queue.messages };
    Ok(Answer(DeadQueueList { items: app.coordinator.dead_queues().await?.into_iter().map(view).collect() }))
}

pub(super) async fn list(
    State(app): State<App>,
    Extension(query): Extension<Query>,
    Path(path): Path<HashMap<String, String>>,
) -> Result<Answer<DeadLetterPage>, Problem> {
    let (letters, more) = app.coordinator.dead_letters(&queue(&path), query.limit()?).await?;
    Ok(Answer(DeadLetterPage { items: letters.iter().map(view).collect(), more }))
}

fn queue(path: &HashMap<String, String>) -> String {
    path.get("queue").cloned().unwrap_or_default()
}

pub(crate) fn view(letter: &DeadLetter) -> DeadLetterView {
    let properties = &letter.envelope.properties;
    let header = |(name, value): (&String, &HeaderValue)| {
        let value = match value {
            HeaderValue::Text(text) => Value::from(text.as_str()),
            HeaderValue::Int(int) => Value::from(*int),
        };
        (name.clone(), value)
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
