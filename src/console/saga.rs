//! One saga: why it is where it is first, then what can be done, then everything that is known.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::graph::look;
use crate::api::redact::{Redact, secrets_of};
use crate::api::saga_view::saga_view;
use crate::api::sagas::{children, queue_hints};
use crate::client::views::{HistoryItem, SagaView, StepError, StepView};
use crate::clock::Timestamp;
use crate::console::failure::Failure;
use crate::console::history::Form;
use crate::console::json_tree::tree;
use crate::console::layout::{Page as Html, page};
use crate::console::query::{Pairs, encode};
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, clock, drawing, short, span, waits};
use crate::console::{House, actions, attempts, audit, history, migrate, sequence, waterfall};
use crate::definition::Definition;
use crate::definition::sensitive::Secrets;
use crate::id::{DefinitionRef, SagaId};
use crate::message::command::idempotency_key;
use crate::picture::Picture;
use crate::store::{AuditRecord, OutboxEntry, Page, SagaRecord};

/// Commands that are shown one by one, at most.
const MOST_COMMANDS: usize = 200;
/// Rows of the operator log, at most.
const MOST_AUDIT: u32 = 100;

/// A saga with all that its pages tell.
pub(super) struct Dossier {
    pub(super) record: SagaRecord,
    /// With a step for each of the saga's.
    pub(super) definition: Arc<Definition>,
    pub(super) secrets: Secrets,
}

impl House {
    /// Looks a saga up by what stands in an address.
    pub(super) async fn dossier(&self, id: &str) -> Result<Dossier, Failure> {
        let unknown = |detail: String| Failure::missing("There is no such saga", detail).back("sagas", "All sagas");
        let told: String = id.chars().take(60).collect();
        let id: SagaId = id.parse().map_err(|_| unknown(format!("`{told}` is no id of a saga.")))?;
        let Some(record) = self.store().saga(id).await? else {
            return Err(unknown(format!("No saga has the id {id}.")));
        };
        let definition = self.coordinator().definition(&record.saga.definition).await?;
        let Some(definition) = record.saga.expand(&definition) else {
            return Err(Failure::internal(format!("saga {id} does not fit its definition")));
        };
        let secrets = secrets_of(&definition, &record);
        Ok(Dossier { record, definition, secrets })
    }

    async fn past(&self, dossier: &Dossier) -> Result<(Vec<HistoryItem>, Vec<AuditRecord>), Failure> {
        let id = dossier.record.saga.id;
        let events = self.store().history(id).await?;
        let audit = self.store().audit(Some(id), &Page { after: None, limit: MOST_AUDIT }).await?;
        let mut versions = Vec::new();
        for version in crate::api::history::earlier_versions(&events) {
            let reference = DefinitionRef { version, ..dossier.record.saga.definition.clone() };
            let definition = self.coordinator().definition(&reference).await?;
            versions.extend(definition.expanded(&dossier.record.saga.input).ok());
        }
        versions.push(dossier.definition.clone());
        let items = crate::api::history::tell(&versions, &dossier.record, &events, &audit);
        let items = items.into_iter().map(|item| item.without(&dossier.secrets)).collect();
        let hide = |mut row: AuditRecord| {
            dossier.secrets.redact(&mut row.reason);
            row
        };
        Ok((items, audit.into_iter().map(hide).collect()))
    }
}

pub(super) async fn download(State(house): State<House>, Path(id): Path<String>) -> Result<Response, Failure> {
    let dossier = house.dossier(&id).await?;
    let (items, _) = house.past(&dossier).await?;
    let name = format!("attachment; filename=\"saga-{}-history.json\"", dossier.record.saga.id);
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (CONTENT_DISPOSITION, name)];
    Ok((headers, history::download(items, &dossier.secrets)).into_response())
}

pub(super) async fn show(
    State(house): State<House>,
    visit: Visit,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Html, Failure> {
    let dossier = house.dossier(&id).await?;
    let now = house.now();
    let saga = &dossier.record.saga;
    let mut view = saga_view(&dossier.definition, &dossier.record);
    view.waiting_for = house.coordinator().waiting_for(&dossier.definition, saga).without(&dossier.secrets);
    if !saga.paused
        && let Some(waiting) = &mut view.waiting_for
    {
        for hint in queue_hints(house.coordinator(), &dossier.definition, saga).await {
            waiting.push_str(&hint);
        }
    }
    children(house.store(), &dossier.definition, &dossier.record, &mut view).await;
    let (items, audit) = house.past(&dossier).await?;
    let whole = house.coordinator().definition(&saga.definition).await?;
    let graph = Picture::of(&whole).with_states(look(&view)).with_links().svg_in_page();
    let newest = match saga.state.is_terminal() {
        true => None,
        false => house.open_versions(&view.saga).await?.first().copied(),
    };
    // The view's, which is without what is sensitive.
    let title = view.key.clone().unwrap_or_else(|| format!("…{}", short(&view.id)));
    let body = html! {
        div data-live="saga" data-id=(view.id) data-rev=(view.revision) {
            (headline(&house, &visit, &dossier, (&view, &title), newest, now))
            (asked(&pairs, &view, &items))
            (reason(&dossier, &view))
            (actions::bar(&house, &visit, &dossier, now))
            div.columns {
                section aria-labelledby="graph-title" { h2 #graph-title { "Steps" }
                    div.graph.scroll tabindex="0" role="region" aria-label="The steps as a graph" { (drawing(graph)) }
                }
                section aria-labelledby="table-title" { h2 #table-title { "Where each step stands" } (steps(&visit, &dossier, &view, now)) }
            }
            section aria-labelledby="time-title" { h2 #time-title { "Over time" } (waterfall::draw(&dossier.record.commands, &items, saga.ended_at.unwrap_or(now))) }
            section aria-labelledby="sequence-title" { h2 #sequence-title { "Across services" }
                details #sequence open[pairs.get("sequence").is_some()] { summary { "Messages as a sequence diagram" } (sequence::draw(&dossier.record.commands, &items)) }
            }
            section aria-labelledby="history" {
                (history::show(&items, Form::of(pairs.get("history")), &dossier.secrets))
                p { a href=(visit.to(&format!("sagas/{}/history.json", view.id))) download { "Download the history" } }
            }
            section aria-labelledby="commands-title" { h2 #commands-title { "Commands and replies" } (commands(&dossier, &items)) }
            section aria-labelledby="data-title" { h2 #data-title { "Data" }
                div.columns {
                    div { h3 { "Input" } (tree(saga.input.text(), &dossier.secrets)) }
                    div { h3 { "Output" } @match &saga.output { Some(output) => (tree(output.text(), &dossier.secrets)), None => p.soft { "None yet: a saga puts something out when it is complete." } } }
                }
            }
            section aria-labelledby="log-title" { h2 #log-title { "What operators did" }
                @if audit.is_empty() { p.soft { "Nobody has done anything to this saga." } } @else { (audit::table(&visit, &audit, false)) }
            }
        }
    };
    Ok(page(&visit, &title, body))
}

fn headline(
    house: &House,
    visit: &Visit,
    dossier: &Dossier,
    (view, title): (&SagaView, &str),
    newest: Option<u32>,
    now: Timestamp,
) -> Markup {
    let saga = &dossier.record.saga;
    let definition = format!("definitions/{}/{}", encode(&view.saga), view.version);
    let (trace, leaves) = (house.trace_url(saga), house.leaves(saga));
    html! {
        p.crumbs { a href=(visit.to("sagas")) { "Sagas" } " / " a href=(visit.to(&format!("sagas?saga={}", encode(&view.saga)))) { (view.saga) } }
        div.headline {
            h1 { (dossier.secrets.text(title)) }
            div.states { (badge(&view.state)) @if view.paused { (badge("paused")) } }
        }
        dl.facts {
            div { dt { "Definition" } dd { a href=(visit.to(&definition)) { (view.saga) " v" (view.version) } " " (migrate::link(visit, &view.id, view.version, newest, "")) } }
            div { dt { "Id" } dd { code { (view.id) } " " button.quiet.copy type="button" data-copy=(view.id) hidden { "Copy" } } }
            div { dt { "Started" } dd { (ago(view.created_at, now)) " " span.soft { (clock(view.created_at)) } } }
            @match saga.ended_at {
                Some(end) => div { dt { "Took" } dd { (span(end.signed_duration_since(view.created_at))) } },
                None => div { dt { "Last change" } dd { (ago(view.updated_at, now)) } },
            }
            @match leaves {
                Some(at) if at > now => div { dt { "Archived" } dd { (ago(at, now)) " at the earliest" } },
                Some(_) => div { dt { "Archived" } dd { "with the next run, once all that it has started may be" } },
                None => {}
            }
            @if let Some(parent) = &view.parent {
                div { dt { "Started by" } dd { a href=(visit.to(&format!("sagas/{}", parent.id))) { "saga …" (short(&parent.id)) } " as " code { (parent.step) } } }
            }
            @if let Some(owner) = &dossier.definition.owner { div { dt { "Owner" } dd { (owner) } } }
            @if let Some(runbook) = &dossier.definition.runbook { div { dt { "Runbook" } dd { (link(runbook)) } } }
            @if let Some(trace) = &trace { div { dt { "Trace" } dd { (link(trace)) } } }
        }
    }
}

/// A link out, where it is one that a browser can follow harmlessly.
pub(super) fn link(address: &str) -> Markup {
    let is_web = address.starts_with("https://") || address.starts_with("http://");
    html! {
        @if is_web { a href=(address) rel="noreferrer noopener external" { (address) } } @else { code { (address) } }
    }
}

/// Whether what was asked for a moment ago has been seen to work.
fn asked(pairs: &Pairs, view: &SagaView, items: &[HistoryItem]) -> Markup {
    let revision: Option<u32> = pairs.get("revision").and_then(|revision| revision.parse().ok());
    let (Some(word), Some(revision)) = (pairs.get("asked"), revision) else { return html! {} };
    let mut words = actions::WORDS.iter().map(|(known, ..)| *known).chain(["migrate"]);
    let Some(word) = words.find(|known| *known == word) else { return html! {} };
    let is_over = matches!(view.state.as_str(), "COMPLETED" | "COMPENSATED" | "ABANDONED");
    let has_answer = items
        .iter()
        .any(|item| item.revision > revision && item.kind == "verified" && item.outcome.as_deref() == Some("success"));
    let is_tried = matches!(word, "retry" | "skip" | "compensate" | "cancel");
    let is_stuck_again = is_tried && view.stuck.is_some() && view.revision > revision;
    let at_once = match word {
        "pause" => view.paused,
        "resume" => !view.paused,
        "skip" => view.stuck.is_none(),
        "migrate" => true,
        _ => false,
    };
    html! {
        @if is_stuck_again {
            div.note.bad role="status" { strong { "Stuck again. " } "What you asked for (" (word) ") was tried and has not helped; the reason below is the new one." }
        } @else if is_over || has_answer || at_once {
            div.note.good role="status" { strong { "Done. " } (word) " was asked for, and the saga is " (view.state) " now." }
        } @else {
            div.note.open role="status" { strong { "Asked, not yet seen to work. " } (word) " is recorded and under way; this changes by itself once the saga has moved." }
        }
    }
}

/// Why it is where it is.
fn reason(dossier: &Dossier, view: &SagaView) -> Markup {
    let secrets = &dossier.secrets;
    html! {
        div class={ "reason " (view.state.to_ascii_lowercase()) } {
            @if let Some(waiting) = &view.waiting_for {
                p.sentence { (waits(&secrets.text(waiting))) }
            } @else {
                p.sentence { (ended(view)) }
            }
            @if let Some(stuck) = &view.stuck {
                (problem(&format!("Stuck at {} ({})", stuck.step, stuck.direction), &stuck.error, secrets))
            }
            @if let Some(cause) = &view.cause { (problem("It went back because of", cause, secrets)) }
        }
    }
}

fn ended(view: &SagaView) -> &'static str {
    match view.state.as_str() {
        "COMPLETED" => "It is complete: every step is done.",
        "COMPENSATED" => "It is undone: every effect was compensated.",
        _ => "It was given up by an operator: nothing more is done or undone.",
    }
}

fn problem(title: &str, error: &StepError, secrets: &Secrets) -> Markup {
    html! {
        dl.problem {
            dt { (title) }
            dd { code.error-type { (error.kind) } " " (secrets.text(&error.title))
                @if let Some(detail) = &error.detail { pre { (secrets.text(detail)) } }
            }
        }
    }
}

fn steps(visit: &Visit, dossier: &Dossier, view: &SagaView, now: Timestamp) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Where each step stands" {
            table.steps {
                caption.unseen { "Steps of the saga" }
                thead { tr { th scope="col" { "Step" } th scope="col" { "Status" } th.number scope="col" { "Attempts" } th scope="col" { "What is to be told" } } }
                tbody {
                    @for step in &view.steps { (step_row(visit, dossier, view, step, now)) }
                }
            }
        }
    }
}

fn step_row(visit: &Visit, dossier: &Dossier, view: &SagaView, step: &StepView, now: Timestamp) -> Markup {
    let secrets = &dossier.secrets;
    let can = |word: &str| actions::is_possible(dossier, word, Some(&step.name), now);
    // The graph has one card for all elements of a `forEach` step: it leads to the first.
    let place = step.name.strip_suffix("[0]").unwrap_or(&step.name);
    let act = |word: &str| visit.to(&format!("sagas/{}/{word}?step={}", view.id, encode(&step.name)));
    html! {
        tr id={ "step-" (place) } {
            th scope="row" { (step.name) div.soft { code { (step.participant) "." (step.action) } } }
            td { (badge(&step.status)) }
            td.number { (step.attempts) }
            td.wide {
                @if let Some(error) = &step.error { div { code.error-type { (error.kind) } " " (secrets.text(&error.title)) } }
                @if let Some(due) = step.next_due { div.soft { "next look " (ago(due, now)) } }
                @if let Some(back) = &step.compensation {
                    div { span.soft { "compensation: " } (back.status) ", " (back.attempts) (if back.attempts == 1 { " attempt" } else { " attempts" })
                        @if let Some(error) = &back.error { " · " code.error-type { (error.kind) } " " (secrets.text(&error.title)) }
                        @if let Some(due) = back.next_due { span.soft { " · next look " (ago(due, now)) } }
                    }
                }
                @if let Some(child) = &step.child { div { "saga " a href=(visit.to(&format!("sagas/{}", child.id))) { "…" (short(&child.id)) } " " (badge(&child.state)) } }
                @if visit.may(crate::api::Right::Operate) {
                    div.inline {
                        @if can("retry") { a href=(act("retry")) { "Retry " span.unseen { (step.name) } } }
                        @if can("skip") { a href=(act("skip")) { "Skip " span.unseen { (step.name) } } }
                    }
                }
            }
        }
    }
}

fn commands(dossier: &Dossier, items: &[HistoryItem]) -> Markup {
    let commands = &dossier.record.commands;
    if commands.is_empty() {
        return crate::console::layout::empty("No command yet", "The saga has not sent anything so far.");
    }
    html! {
        ol.commands {
            @for entry in commands.iter().take(MOST_COMMANDS) { li { (command(dossier, entry, items)) } }
        }
        @if commands.len() > MOST_COMMANDS { p.soft { "The first " (MOST_COMMANDS) " of " (commands.len()) "." } }
    }
}

fn command(dossier: &Dossier, entry: &OutboxEntry, items: &[HistoryItem]) -> Markup {
    let secrets = &dossier.secrets;
    let word = entry.verified.as_ref().map_or("pending", |verified| verified.outcome.as_str());
    let attempt = entry
        .verified
        .as_ref()
        .map(|verified| verified.attempt)
        .or(entry.in_flight.map(|flight| flight.attempt))
        .unwrap_or(1);
    let key = idempotency_key(entry.id.saga, &entry.step, entry.direction.as_str(), entry.generation);
    let mut headers = vec![
        ("routing key", format!("{}.{}", entry.participant, entry.action)),
        ("message-id", entry.id.message_id(attempt).to_string()),
        ("amends-saga-id", entry.id.saga.to_string()),
        ("amends-saga", entry.definition.name.clone()),
        ("amends-version", entry.definition.version.to_string()),
        ("amends-step", entry.step.clone()),
        ("amends-direction", entry.direction.to_string()),
        ("amends-attempt", attempt.to_string()),
        ("amends-key", key),
    ];
    if let Some(generation) = entry.compensates {
        let key = idempotency_key(entry.id.saga, &entry.step, "action", generation);
        headers.push(("amends-compensates", key));
    }
    html! {
        details id={ "command-" (entry.id.seq) } {
            summary {
                span.seq { "#" (entry.id.seq) } " " code { (entry.participant) "." (entry.action) } " "
                span.soft { "for " (entry.step) @if entry.direction.as_str() == "compensation" { ", back" } } " " (badge(word))
            }
            div.columns {
                div {
                    h3 { "Command" }
                    dl.headers { @for (name, value) in &headers { div { dt { (name) } dd { code { (value) } } } } }
                    (tree(entry.body.text(), secrets))
                }
                div {
                    h3 { "Reply" }
                    @match &entry.verified {
                        None => p.soft { "None that settles it yet." },
                        Some(verified) => {
                            p { (badge(verified.outcome.as_str())) " at " (clock(verified.at)) ", attempt " (verified.attempt) ", after " (span(verified.at.signed_duration_since(entry.decided_at))) }
                            @if let Some(told) = &verified.problem {
                                p { code.error-type { (told.kind) } " " (secrets.text(&told.title)) }
                                @if let Some(detail) = &told.detail { pre { (secrets.text(detail)) } }
                            }
                            @if let Some(output) = &verified.output { (tree(output.text(), secrets)) }
                        }
                    }
                }
            }
            h3 { "Attempts" }
            (attempts::list(items, entry, secrets))
        }
    }
}
