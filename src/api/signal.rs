//! `POST /v1/signals` and `POST /v1/sagas/{id}/signal`: what sagas wait for from outside.

use axum::Json as Answer;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::api::body::{Fields, Json};
use crate::api::problem::{FIELD_MISSING, Problem, SAGA_ID_INVALID};
use crate::api::saga_view::saga_view;
use crate::api::sagas::{Id, etag, expanded};
use crate::api::{App, sagas};
use crate::client::views::{FieldProblem, SignalResult};
use crate::coordinator::{Heard, Signal, Target};
use crate::payload::Payload;
use crate::store::SagaRecord;

pub(super) async fn to_one(State(app): State<App>, Id(id): Id, Json(body): Json) -> Result<Response, Problem> {
    let mut fields = Fields::new(body, "", &["signal", "payload"])?;
    let signal = fields.required_text("signal");
    let payload = fields.optional("payload");
    fields.finish()?;
    told(&app, Signal { target: Target::Id(id), signal, payload: Payload::from(payload) }).await
}

pub(super) async fn to_any(State(app): State<App>, Json(body): Json) -> Result<Response, Problem> {
    let signal = read(body)?;
    told(&app, signal).await
}

fn read(body: Value) -> Result<Signal, Problem> {
    let mut fields = Fields::new(body, "", &["sagaId", "saga", "key", "signal", "payload"])?;
    let (id, saga, key) = (fields.text("sagaId"), fields.text("saga"), fields.text("key"));
    let signal = fields.required_text("signal");
    let payload = Payload::from(fields.optional("payload"));
    fields.finish()?;
    let target = match (id, saga, key) {
        (Some(id), None, None) => Target::Id(id.parse().map_err(|_| {
            let detail = "`sagaId` is no UUID; give the id as the start answered it, or `saga` and `key`";
            Problem::new(SAGA_ID_INVALID, detail).errors(vec![FieldProblem::at("/sagaId", detail)])
        })?),
        (None, Some(saga), Some(key)) => Target::Key { saga, key },
        _ => {
            let detail = "which saga is meant is said by `sagaId`, or by `saga` and `key`: one of both, and whole";
            return Err(Problem::new(FIELD_MISSING, detail).errors(vec![FieldProblem::at("", detail)]));
        }
    };
    Ok(Signal { target, signal, payload })
}

async fn told(app: &App, signal: Signal) -> Result<Response, Problem> {
    let Heard { saga, is_duplicate } = app.coordinator.signal_to(signal).await?;
    // The signal is durable. Should its outputs not be there to read, the answer does without them.
    let commands = app.coordinator.store().saga(saga.id).await.ok().flatten().map(|record| record.commands);
    let definition = expanded(&saga, &app.coordinator.definition(&saga.definition).await?)?;
    let record = SagaRecord { saga, commands: commands.unwrap_or_default() };
    let mut saga = saga_view(&definition, &record);
    sagas::children(&**app.coordinator.store(), &definition, &record, &mut saga).await;
    Ok((etag(&record.saga), Answer(SignalResult { is_duplicate, saga })).into_response())
}
