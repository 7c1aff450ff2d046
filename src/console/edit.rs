//! Sends what a participant has refused once more with another input: the JSON in a form, then how it differs, then the
//! reason. Off unless the server allows it.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use crate::api::Right;
use crate::api::operate::MOST_CHANGES;
use crate::api::redact::secrets_with;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::{Signed, reason, reason_field};
use crate::console::layout::{Page, page};
use crate::console::query::Pairs;
use crate::console::saga::Dossier;
use crate::console::visit::Visit;
use crate::console::words::{command_line, shell, short};
use crate::coordinator::handle::{Original, original};
use crate::coordinator::preview::preview;
use crate::coordinator::{CoordinatorError, Operate, OperatorAction};
use crate::definition::sensitive::HIDDEN;
use crate::payload::{Payload, differences};
use crate::store::OutboxEntry;

/// Bytes of an input that a form takes; more goes by the command line.
const MOST: usize = 16 * 1024;

/// Why a step cannot be edited; `None` when it can.
pub(super) fn obstacle(house: &House, visit: &Visit, dossier: &Dossier, step: Option<&str>) -> Option<String> {
    if !visit.may(Right::Operate) {
        return Some("your role only reads".to_owned());
    }
    if !house.coordinator().allows_edit() {
        return Some("inputs are not edited on this server: it was not started with --allow-edit".to_owned());
    }
    let input = Payload::trusted("null");
    let action = OperatorAction::Edit { step: step.map(str::to_owned), input, original: None };
    match preview(&dossier.definition, &dossier.record.saga, &action, house.now()) {
        Ok(_) => None,
        Err(CoordinatorError::NotAllowed { why, .. }) => Some(why),
        Err(other) => Some(other.to_string()),
    }
}

/// What stands in the form: the body that was refused, with what is sensitive hidden.
fn draft(dossier: &Dossier, refused: Option<&OutboxEntry>) -> String {
    let value = refused.map_or(Value::Null, |entry| dossier.secrets.shown(entry.body.value()));
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

/// The value with what was left hidden put back as it was.
fn restored(edited: Value, refused: &Value, shown: &Value) -> Value {
    match (edited, refused, shown) {
        // Only where it was hidden, and is as it was shown.
        (edited, refused, shown)
            if edited == *shown && shown != refused && !edited.is_object() && !edited.is_array() =>
        {
            refused.clone()
        }
        (Value::Object(members), Value::Object(before), Value::Object(seen)) => {
            let member = |(name, value): (String, Value)| {
                let value = match (before.get(&name), seen.get(&name)) {
                    (Some(before), Some(seen)) => restored(value, before, seen),
                    _ => value,
                };
                (name, value)
            };
            Value::Object(members.into_iter().map(member).collect())
        }
        (Value::Array(items), Value::Array(before), Value::Array(seen)) => {
            let item = |(at, value): (usize, Value)| match (before.get(at), seen.get(at)) {
                (Some(before), Some(seen)) => restored(value, before, seen),
                _ => value,
            };
            Value::Array(items.into_iter().enumerate().map(item).collect())
        }
        (edited, ..) => edited,
    }
}

/// The input that a text stands for, or what is wrong with it.
fn read(dossier: &Dossier, refused: Option<&OutboxEntry>, text: &str) -> Result<Payload, String> {
    if text.len() > MOST {
        return Err(format!("The form takes {MOST} bytes. Use the command line for more."));
    }
    let edited: Value = serde_json::from_str(text).map_err(|error| format!("This is not JSON: {error}."))?;
    let before = refused.map_or(&Value::Null, |entry| entry.body.value());
    let input = restored(edited, before, &dossier.secrets.shown(before));
    if has_hidden(&input) {
        return Err(format!("\u{201c}{HIDDEN}\u{201d} stands where nothing was hidden: write the value itself."));
    }
    if input == *before {
        return Err("It is as it was: change something, or retry the step instead.".to_owned());
    }
    Ok(Payload::from(input))
}

fn has_hidden(value: &Value) -> bool {
    match value {
        Value::String(text) => text == HIDDEN,
        Value::Array(items) => items.iter().any(has_hidden),
        Value::Object(members) => members.values().any(has_hidden),
        _ => false,
    }
}

pub(super) async fn confirm(
    State(house): State<House>,
    visit: Visit,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Page, Failure> {
    let dossier = house.dossier(&id).await?;
    let step = pairs.get("step");
    let refused = original(&dossier.record, &dossier.definition, step);
    let text = draft(&dossier, refused);
    Ok(writing(&house, &visit, &dossier, step, &text, None))
}

fn head(visit: &Visit, dossier: &Dossier, step: Option<&str>) -> Markup {
    let id = dossier.record.saga.id.to_string();
    let name =
        dossier.record.saga.key.as_deref().map_or_else(|| format!("…{}", short(&id)), |key| dossier.secrets.text(key));
    html! {
        p.crumbs { a href=(visit.to("sagas")) { "Sagas" } " / " a href=(visit.to(&format!("sagas/{id}"))) { (name) } }
        h1 { "Edit the input" @if let Some(step) = step { " of " code { (step) } } }
        p.lead { "Sends what the participant has refused once more, with another input. The command that was refused stays as it was; the new one has a key of its own. Headers cannot be edited. A plain retry later sends what the definition says again." }
    }
}

fn same(dossier: &Dossier, step: Option<&str>) -> Markup {
    let flag = step.map(|step| format!(" --step {}", shell(step))).unwrap_or_default();
    html! {
        h2 { "The same from the command line" }
        (command_line(&format!("amends sagas retry {}{flag} --input FILE --reason '...'", dossier.record.saga.id)))
    }
}

/// The form with the JSON.
fn writing(
    house: &House,
    visit: &Visit,
    dossier: &Dossier,
    step: Option<&str>,
    text: &str,
    wrong: Option<&str>,
) -> Page {
    let id = dossier.record.saga.id.to_string();
    let obstacle = obstacle(house, visit, dossier, step);
    let is_off = obstacle.is_some();
    let body = html! {
        (head(visit, dossier, step))
        form.ask method="post" action=(visit.to(&format!("sagas/{id}/edit"))) {
            input type="hidden" name="csrf" value=(visit.csrf);
            input type="hidden" name="revision" value=(dossier.record.saga.revision);
            @if let Some(step) = step { input type="hidden" name="step" value=(step); }
            label for="input" { "Input, as JSON" }
            p.soft #input-hint { "Fields marked sensitive are shown as “" (HIDDEN) "”, and stay as they were where you leave that." }
            @if let Some(wrong) = wrong { p.error role="alert" { (wrong) } }
            textarea.json #input name="input" rows="16" spellcheck="false" required aria-describedby="input-hint" disabled[is_off] autofocus { (text) }
            div.buttons {
                button.primary disabled[is_off] { "Show the difference…" }
                a.button.quiet href=(visit.to(&format!("sagas/{id}"))) { "Do nothing" }
                @if let Some(why) = &obstacle { span { "Not possible: " (why) "." } }
            }
        }
        (same(dossier, step))
    };
    page(visit, "Edit the input", body)
}

/// The page that shows the difference and asks for the reason.
fn comparing(
    visit: &Visit,
    dossier: &Dossier,
    step: Option<&str>,
    (text, input): (&str, &Payload),
    wrong: Option<&str>,
) -> Page {
    let id = dossier.record.saga.id.to_string();
    let refused = original(&dossier.record, &dossier.definition, step);
    let before = refused.map_or(&Value::Null, |entry| entry.body.value());
    let secrets = secrets_with(&dossier.definition, &dossier.record, Some(input));
    let found = differences(&secrets.shown(before), &secrets.shown(input.value()), MOST_CHANGES);
    let hidden = differences(before, input.value(), MOST_CHANGES).len().saturating_sub(found.len());
    let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "–".to_owned(), Value::to_string);
    let body = html! {
        (head(visit, dossier, step))
        h2 { "What differs" }
        div.scroll tabindex="0" role="region" aria-label="What differs" {
            table {
                caption.unseen { "Where the new input differs from the one that was refused" }
                thead { tr { th scope="col" { "Place" } th scope="col" { "Was" } th scope="col" { "Will be" } } }
                tbody {
                    @for change in &found {
                        tr { th scope="row" { code { @if change.pointer.is_empty() { "(all)" } @else { (secrets.text(&change.pointer)) } } } td.wide { code { (shown(&change.before)) } } td.wide { code { (shown(&change.after)) } } }
                    }
                }
            }
        }
        @if hidden > 0 { p.soft { "And in fields that are marked sensitive, which are not shown." } }
        @if found.len() == MOST_CHANGES { p.soft { "The first " (MOST_CHANGES) " places." } }
        form.ask method="post" action=(visit.to(&format!("sagas/{id}/edit"))) {
            input type="hidden" name="csrf" value=(visit.csrf);
            input type="hidden" name="revision" value=(dossier.record.saga.revision);
            input type="hidden" name="confirmed" value="yes";
            @if let Some(step) = step { input type="hidden" name="step" value=(step); }
            input type="hidden" name="input" value=(text);
            (reason_field("Kept in the audit log with your name and which command it was; with hashes of both inputs where nothing is marked sensitive.", wrong, true))
            div.buttons {
                button.primary { "Send it with this input" }
                a.button.quiet href=(visit.to(&format!("sagas/{id}"))) { "Do nothing" }
            }
        }
        (same(dossier, step))
        p.soft { "Looked at revision " (dossier.record.saga.revision) ". If the saga moves before you confirm, nothing is done and you are told." }
    };
    page(visit, "Edit the input", body)
}

pub(super) async fn carry_out(
    State(house): State<House>,
    visit: Visit,
    Path(id): Path<String>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let dossier = house.dossier(&id).await?;
    let step = pairs.get("step");
    let Some(revision) = pairs.get("revision").and_then(|revision| revision.parse().ok()) else {
        return Err(Failure::wrong("The form cannot be read", "The saga's revision is missing. Nothing was done."));
    };
    let saga = &dossier.record.saga;
    if saga.revision != revision {
        return Err(CoordinatorError::Moved { id: saga.id, expected: revision, found: saga.revision }.into());
    }
    let text = pairs.get("input").unwrap_or_default();
    let refused = original(&dossier.record, &dossier.definition, step);
    let input = match read(&dossier, refused, text) {
        Ok(input) => input,
        Err(wrong) => {
            let form = writing(&house, &visit, &dossier, step, text, Some(&wrong));
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, form).into_response());
        }
    };
    let action = OperatorAction::Edit {
        step: step.map(str::to_owned),
        input: input.clone(),
        original: refused.map(Original::from),
    };
    house.coordinator().may_do(&action)?;
    preview(&dossier.definition, saga, &action, house.now())?;
    if pairs.get("confirmed").is_none() {
        return Ok(comparing(&visit, &dossier, step, (text, &input), None).into_response());
    }
    let reason = match reason(&pairs) {
        Ok(reason) => reason,
        Err(wrong) => {
            let form = comparing(&visit, &dossier, step, (text, &input), Some(&wrong));
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, form).into_response());
        }
    };
    let (actor, expected_revision) = (visit.name.clone(), Some(revision));
    let saga = house.coordinator().operate(Operate { id: saga.id, action, actor, reason, expected_revision }).await?;
    let target = format!("{}sagas/{}?asked=retry&revision={}", visit.root, saga.id, saga.revision);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_hidden_stays_as_it_was_and_what_is_written_over_it_counts() {
        let before = json!({ "card": "4242-4242", "lines": [{ "card": "1", "n": 1 }], "note": "x" });
        let shown = json!({ "card": HIDDEN, "lines": [{ "card": HIDDEN, "n": 1 }], "note": "x" });
        let edited = json!({ "card": HIDDEN, "lines": [{ "card": "2", "n": 3 }], "note": HIDDEN });
        let wanted = json!({ "card": "4242-4242", "lines": [{ "card": "2", "n": 3 }], "note": HIDDEN });
        let found = restored(edited, &before, &shown);
        assert_eq!(found, wanted);
        assert!(has_hidden(&found), "which is refused: nothing was hidden there");
        assert_eq!(restored(shown.clone(), &before, &shown), before);
    }
}
