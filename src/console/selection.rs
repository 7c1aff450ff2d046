//! What a selection of sagas is, and what an action would do to it: looked at before anything is done to many at once.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

use crate::api::Right;
use crate::api::bulk::{MOST_NAMED, matching, needs_count, preview, selected};
use crate::api::filter::FILTERS;
use crate::api::operate::MAX_REASON;
use crate::client::views::{BulkPreviewView, PreviewView};
use crate::console::House;
use crate::console::actions::WORDS;
use crate::console::failure::Failure;
use crate::console::form::{self, Signed};
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::Pairs;
use crate::console::visit::Visit;
use crate::console::words::{badge, command_line, number, sentence, shell, short};
use crate::coordinator::OperatorAction;
use crate::coordinator::bulk::{BulkRequest, Chosen, MAX_RATE, RATE};
use crate::id::SagaId;
use crate::payload::Payload;
use crate::store::overview::SEARCHED;

/// What was selected, as a form carries it on.
struct Selection {
    chosen: Chosen,
    /// For people, as JSON.
    told: Value,
    /// The filter, as it stands in the address of the list; of those that are selected one by one the way back.
    address: String,
    is_all: bool,
    ids: Vec<SagaId>,
    /// The same as flags of a command.
    flags: String,
}

async fn selection(house: &House, pairs: &Pairs) -> Result<Selection, Failure> {
    let address = pairs.get("filter").unwrap_or_default().to_owned();
    let is_all = pairs.get("scope") == Some("all");
    if !is_all {
        let ids: Vec<SagaId> = pairs.all("id").filter_map(|id| id.parse().ok()).take(MOST_NAMED).collect();
        let flags = ids.iter().map(|id| format!(" --id {id}")).collect();
        let (chosen, told) = (Chosen::These(ids.clone()), selected(ids.len()));
        return Ok(Selection { chosen, told, address, is_all, ids, flags });
    }
    let unreadable = |detail: String| Failure::wrong("The filter cannot be read", detail);
    let uri = format!("/?{address}").parse().map_err(|_| unreadable(String::new()))?;
    let given = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|error| unreadable(error.to_string()))?;
    let given: Vec<(String, String)> = given
        .0
        .into_iter()
        .map(|(name, value)| (name, value.trim().to_owned()))
        .filter(|(name, value)| FILTERS.contains(&name.as_str()) && !value.is_empty())
        .collect();
    let flags = given.iter().map(|(name, value)| format!(" --{name}={}", shell(value))).collect();
    let (filter, told) = matching(given, house.now()).map_err(|problem| {
        Failure::wrong("These sagas cannot be acted on together", problem.detail()).back("sagas", "Choose a filter")
    })?;
    house.coordinator().may_search(&filter).await?;
    Ok(Selection { chosen: Chosen::Matching(filter), told, address, is_all, ids: Vec::new(), flags })
}

/// The action that was asked about: a retry, until another is chosen.
fn asked(pairs: &Pairs) -> Result<((&'static str, &'static str, &'static str), OperatorAction), Failure> {
    let word = pairs.get("action").unwrap_or("retry");
    let known = WORDS.into_iter().find(|(known, ..)| *known == word);
    known
        .zip(OperatorAction::of(word, None))
        .ok_or_else(|| Failure::missing("There is no such page", "It is no action of a saga."))
}

pub(super) async fn show(State(house): State<House>, visit: Visit, Signed(pairs): Signed) -> Result<Html, Failure> {
    looked_at(&house, &visit, &pairs, None).await
}

async fn looked_at(house: &House, visit: &Visit, pairs: &Pairs, wrong: Option<&str>) -> Result<Html, Failure> {
    let selection = selection(house, pairs).await?;
    let (words, action) = asked(pairs)?;
    let found = house.coordinator().bulk_preview(&selection.chosen, &action, house.now()).await?;
    let found = preview(house.coordinator(), &action, &selection.chosen, found).await;
    let body = html! {
        p.crumbs { a href=(visit.to(&format!("sagas?{}", selection.address))) { "Sagas" } " / Selection" }
        h1 { "Selection" }
        @if found.count == 0 {
            (empty("Nothing is selected", "Select rows of the list, or take all that match its filter. Sagas that have ended are left out unless the filter names their state."))
        } @else {
            p.lead {
                strong { (number(u64::from(found.count))) }
                @if selection.is_all { " sagas match the filter." } @else { " sagas are selected." }
                @if found.bounded { " More match than one job takes: it has the newest, do it again for the rest." }
            }
            @if found.searched {
                p.soft.note { "They were looked for among the newest " (number(u64::from(SEARCHED))) " sagas that match the rest of the filter." }
            }
            (actions(visit, &selection, words.0))
            (ask(visit, &selection, &found, words, pairs, wrong))
            (table(visit, &found))
        }
        p.buttons { a.button href=(visit.to(&format!("sagas?{}", selection.address))) { "Back to the list" } }
    };
    Ok(page(visit, "Selection", body))
}

fn carried(visit: &Visit, selection: &Selection) -> Markup {
    html! {
        input type="hidden" name="csrf" value=(visit.csrf);
        input type="hidden" name="scope" value=(if selection.is_all { "all" } else { "selected" });
        input type="hidden" name="filter" value=(selection.address);
        @for id in &selection.ids { input type="hidden" name="id" value=(id); }
    }
}

fn actions(visit: &Visit, selection: &Selection, chosen: &str) -> Markup {
    html! {
        h2 { "What to do to all of them" }
        form method="post" action=(visit.to("selection")) aria-label="Action" {
            (carried(visit, selection))
            div.buttons {
                @for (word, ..) in WORDS {
                    button class=(if word == chosen { "primary" } else { "quiet" }) name="action" value=(word) aria-pressed=(if word == chosen { "true" } else { "false" }) { (word) }
                }
            }
        }
    }
}

/// What would happen, and the form that has it done.
fn ask(
    visit: &Visit,
    selection: &Selection,
    found: &BulkPreviewView,
    (word, label, what): (&'static str, &'static str, &'static str),
    pairs: &Pairs,
    wrong: Option<&str>,
) -> Markup {
    let may = visit.may(Right::Operate);
    let count = found.count;
    let refused = found.samples.iter().filter(|sample| sample.refused.is_some()).count();
    let confirm = if needs_count(count) { format!(" --confirm {count}") } else { String::new() };
    let class = if matches!(word, "abandon" | "cancel") { "danger" } else { "primary" };
    html! {
        p { (what) }
        @if let Some(preview) = &found.preview { (example(visit, preview)) }
        @if refused > 0 {
            div.note.open { strong { (refused) } " of the " (found.samples.len()) " samples below do not allow it. They are left as they are, and the job says why." }
        }
        form.ask method="post" action=(visit.to("bulk")) {
            (carried(visit, selection))
            input type="hidden" name="action" value=(word);
            @if let Some(wrong) = wrong { p.error role="alert" { (wrong) } }
            label for="reason" { "Reason" }
            p.soft #reason-hint { "Kept in the audit log with your name, for the job and for each saga." }
            textarea #reason name="reason" rows="3" maxlength=(MAX_REASON) required aria-describedby="reason-hint" disabled[!may] { (pairs.get("reason").unwrap_or_default()) }
            label for="rate" { "Sagas per second, at most" }
            p { input #rate type="number" name="rate" min="1" max=(MAX_RATE) value=(pairs.get("rate").unwrap_or(&RATE.to_string())) required disabled[!may]; }
            @if needs_count(count) {
                label for="expected" { "To confirm, type how many sagas: " (count) }
                p { input #expected type="text" inputmode="numeric" name="expected" required autocomplete="off" disabled[!may]; }
            } @else {
                input type="hidden" name="expected" value=(count);
            }
            div.buttons {
                button class=(class) disabled[!may] { (label) ": " (number(u64::from(count))) " sagas" }
                @if !may { span { "Not possible: your role only reads." } }
            }
        }
        h3 { "The same from the command line" }
        (command_line(&format!("amends bulk {word}{} --reason '...'{confirm}", selection.flags)))
    }
}

fn example(visit: &Visit, preview: &PreviewView) -> Markup {
    html! {
        p {
            "For example saga " a href=(visit.to(&format!("sagas/{}", preview.id))) { "…" (short(&preview.id)) } " would be " (badge(&preview.state)) " at once"
            @if let Some(ends) = preview.ends.as_ref().filter(|ends| **ends != preview.state) { "; if every answer is a success it ends " (badge(ends)) }
            @if preview.sends.is_empty() { ". Nothing is sent." } @else { ". Sent at once: "
                @for (at, command) in preview.sends.iter().take(5).enumerate() {
                    @if at > 0 { ", " } code { (command.participant) "." (command.action) } @if command.unknown { " " (badge("unknown")) }
                }
                "."
            }
        }
    }
}

fn table(visit: &Visit, found: &BulkPreviewView) -> Markup {
    html! {
        h2 { "Some of them" }
        div.scroll tabindex="0" role="region" aria-label="Samples" {
            table.rows {
                caption.unseen { "Samples of the selection, the oldest first" }
                thead { tr { th scope="col" { "State" } th scope="col" { "Definition" } th scope="col" { "Saga" } th scope="col" { "Waiting for" } th scope="col" { "Allows it" } } }
                tbody {
                    @for sample in &found.samples {
                        @let saga = &sample.saga;
                        tr data-row {
                            td { (badge(&saga.state)) @if saga.paused { " " (badge("paused")) } }
                            td { (saga.saga) " " span.soft { "v" (saga.version) } }
                            th scope="row" { a href=(visit.to(&format!("sagas/{}", saga.id))) { (saga.key.as_deref().unwrap_or_else(|| short(&saga.id))) } }
                            td.wide { @if let Some(waiting) = &saga.waiting_for { (sentence(waiting)) } @else { span.soft { "nothing: it has ended" } } }
                            td.wide { @if let Some(refused) = &sample.refused { "no: " (sentence(refused)) } @else { "yes" } }
                        }
                    }
                }
            }
        }
        @if u64::from(found.count) > found.samples.len() as u64 { p.soft { "The oldest " (found.samples.len()) " of them." } }
    }
}

/// Makes the job.
pub(super) async fn start(
    State(house): State<House>,
    visit: Visit,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let selection = selection(&house, &pairs).await?;
    let (_, action) = asked(&pairs)?;
    let reason = pairs.get("reason").unwrap_or_default().to_owned();
    let rate = pairs.get("rate").map_or(Some(RATE), |rate| rate.parse().ok());
    let rate = rate.filter(|rate| (1..=MAX_RATE).contains(rate));
    let expected: Option<u64> = pairs.get("expected").and_then(|expected| expected.parse().ok());
    let wrong = if let Err(wrong) = form::reason(&pairs) {
        Some(wrong)
    } else if rate.is_none() {
        Some(format!("Sagas per second are a whole number from 1 to {MAX_RATE}. Nothing was done."))
    } else if expected.is_none() {
        Some("The number of sagas is needed to confirm that you mean them all. Nothing was done.".to_owned())
    } else {
        None
    };
    let (None, Some(rate)) = (&wrong, rate) else {
        let again = looked_at(&house, &visit, &pairs, wrong.as_deref()).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, again).into_response());
    };
    let (chosen, told) = (selection.chosen, Payload::from(selection.told));
    let request = BulkRequest { action, chosen, told, reason, actor: visit.name.clone(), rate, expected };
    let job = house.coordinator().bulk_start(request).await?;
    let target = format!("{}bulk/{}", visit.root, job.of.id);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}
