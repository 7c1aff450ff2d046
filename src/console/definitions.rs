//! Definitions: which versions there are, how they do, what they look like.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use chrono::TimeDelta;
use maud::{Markup, html};

use crate::console::House;
use crate::console::failure::Failure;
use crate::console::home::percent;
use crate::console::layout::{Page, empty, page};
use crate::console::query::{Pairs, encode};
use crate::console::saga::link;
use crate::console::visit::Visit;
use crate::console::words::{ago, command_line, drawing, number, sentence, shell, span};
use crate::coordinator::overview::MOST;
use crate::definition::{Definition, Diagnostic, Severity};
use crate::id::DefinitionRef;
use crate::picture::Picture;
use crate::saga::advise;
use crate::store::overview::Lifetime;

/// How far back figures go.
const DAYS: i64 = 7;

/// How the sagas of a version have done.
#[derive(Default)]
struct Doing {
    sagas: u64,
    live: u64,
    stuck: u64,
    undone: u64,
    took: Vec<i64>,
}

impl Doing {
    fn of(lifetimes: &[Lifetime]) -> BTreeMap<DefinitionRef, Self> {
        let mut all: BTreeMap<DefinitionRef, Self> = BTreeMap::new();
        for lifetime in lifetimes {
            let doing = all.entry(lifetime.definition.clone()).or_default();
            doing.sagas += 1;
            match lifetime.state.as_str() {
                "RUNNING" | "COMPENSATING" => doing.live += 1,
                "STUCK" => doing.stuck += 1,
                "COMPENSATED" | "ABANDONED" => doing.undone += 1,
                _ => {}
            }
            if let Some(end) = lifetime.ended_at {
                doing.took.push(end.signed_duration_since(lifetime.created_at).num_milliseconds());
            }
        }
        all.values_mut().for_each(|doing| doing.took.sort_unstable());
        all
    }

    fn median(&self) -> Option<TimeDelta> {
        self.took.get(self.took.len() / 2).copied().map(TimeDelta::milliseconds)
    }
}

pub(super) async fn list(State(house): State<House>, visit: Visit) -> Result<Page, Failure> {
    let now = house.now();
    let records = house.store().definitions(None).await?;
    let lifetimes = house.store().lifetimes(now - TimeDelta::days(DAYS), MOST).await?;
    let doing = Doing::of(&lifetimes);
    let body = html! {
        h1 { "Definitions" }
        p.soft { "Figures are of the newest " (number(u64::from(MOST))) " sagas of the last " (DAYS) " days." }
        @if records.is_empty() {
            (empty("No definitions yet", "Register one with `amends definitions register FILE`."))
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Definitions" {
                table.rows {
                    caption.unseen { "Definitions by name and version" }
                    thead { tr {
                        th scope="col" { "Definition" } th.number scope="col" { "Sagas" } th.number scope="col" { "Under way" } th.number scope="col" { "Stuck" }
                        th.number scope="col" { "Undone" } th.number scope="col" { "Median time" } th scope="col" { "Owner" } th scope="col" { "Registered" }
                    } }
                    tbody {
                        @for record in records.iter().rev() {
                            @let (name, version) = (&record.reference.name, record.reference.version);
                            @let doing = doing.get(&record.reference);
                            @let owner = house.coordinator().definition(&record.reference).await.ok().and_then(|definition| definition.owner.clone());
                            tr data-row {
                                th scope="row" { a href=(visit.to(&format!("definitions/{}/{version}", encode(name)))) { (name) " v" (version) } @if record.deprecated.is_some() { " " span.tag { "deprecated" } } }
                                td.number { (number(doing.map_or(0, |doing| doing.sagas))) }
                                td.number { (number(doing.map_or(0, |doing| doing.live))) }
                                td.number { @let stuck = doing.map_or(0, |doing| doing.stuck);
                                    @if stuck > 0 { a href=(visit.to(&format!("sagas?state=STUCK&saga={}&version={version}", encode(name)))) { (number(stuck)) } } @else { "0" } }
                                td.number { @match doing { Some(doing) if doing.sagas > 0 => (percent(doing.undone, doing.sagas)), _ => "–" } }
                                td.number { (doing.and_then(Doing::median).map_or("–".to_owned(), span)) }
                                td { (owner.unwrap_or_default()) }
                                td.tight { (ago(record.registered_at, now)) span.soft { " by " (record.registered_by) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page(&visit, "Definitions", body))
}

pub(super) async fn show(
    State(house): State<House>,
    visit: Visit,
    Path((name, version)): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Page, Failure> {
    let unknown = || {
        Failure::missing("There is no such definition", "Neither this name nor this version is registered.")
            .back("definitions", "All definitions")
    };
    let reference = DefinitionRef { name, version: version.parse().map_err(|_| unknown())? };
    let record = house.store().definition(&reference).await?.ok_or_else(unknown)?;
    let definition = house.coordinator().definition(&reference).await?;
    let versions = house.store().definitions(Some(&reference.name)).await?;
    let found = house.coordinator().check(&record.source).await?.diagnostics;
    let title = reference.to_string();
    let address = format!("definitions/{}", encode(&reference.name));
    let now = house.now();
    let body = html! {
        p.crumbs { a href=(visit.to("definitions")) { "Definitions" } }
        div.headline {
            h1 { (reference.name) " " span.soft { "v" (reference.version) } }
            nav.views aria-label="Versions" {
                @for other in &versions {
                    a href=(visit.to(&format!("{address}/{}", other.reference.version))) aria-current=[(other.reference == reference).then_some("page")] { "v" (other.reference.version) }
                }
            }
        }
        @if let Some(deprecated) = &record.deprecated {
            div.note.open { strong { "Deprecated " } (ago(deprecated.at, now)) " by " (deprecated.actor) ": " (deprecated.reason) ". Nothing new is started with it." }
        }
        dl.facts {
            div { dt { "Registered" } dd { (ago(record.registered_at, now)) " by " (record.registered_by) } }
            @if let Some(owner) = &definition.owner { div { dt { "Owner" } dd { (owner) } } }
            @if let Some(runbook) = &definition.runbook { div { dt { "Runbook" } dd { (link(runbook)) } } }
            div { dt { "Sagas" } dd { a href=(visit.to(&format!("sagas?saga={}&version={}", encode(&reference.name), reference.version))) { "of this version" } } }
        }
        div.columns {
            section aria-labelledby="graph-title" { h2 #graph-title { "Steps" }
                div.graph.scroll tabindex="0" role="region" aria-label="The steps as a graph" { (drawing(Picture::of(&definition).svg_in_page())) }
            }
            div {
                section aria-labelledby="checks-title" { h2 #checks-title { "Checks" } (checks(&found)) }
                section aria-labelledby="advice-title" { h2 #advice-title { "Advice" }
                    @if pairs.get("advice").is_some() { (advice(&house, &definition, &reference).await?) }
                    @else {
                        p.soft { "What the recorded outcomes say about order, time-outs and retries. Reads every saga of the version that has ended." }
                        p { a.button href=(visit.to(&format!("{address}/{}?advice=1", reference.version))) { "Work it out" } }
                    }
                    (command_line(&format!("amends definitions advise {}", shell(&reference.name))))
                }
                section aria-labelledby="source-title" { h2 #source-title { "Source" }
                    details { summary { "As it was registered" } pre.source tabindex="0" { (record.source) } }
                }
            }
        }
    };
    Ok(page(&visit, &title, body))
}

fn checks(found: &[Diagnostic]) -> Markup {
    if found.is_empty() {
        return html! { p.soft { "Nothing was found." } };
    }
    html! {
        ul.checks {
            @for found in found {
                li {
                    span class={ "tag " (if found.severity == Severity::Error { "bad" } else { "warn" }) } { (if found.severity == Severity::Error { "error" } else { "warning" }) }
                    " " code { (found.code) } " " span.soft { "line " (found.line) } p { (sentence(&found.message)) }
                }
            }
        }
    }
}

async fn advice(house: &House, definition: &Definition, reference: &DefinitionRef) -> Result<Markup, Failure> {
    let figures = house.store().figures(reference, None).await?;
    let advice = advise(definition, &figures);
    let told: Vec<String> = (advice.moves.iter().map(ToString::to_string))
        .chain(advice.timeouts.iter().map(ToString::to_string))
        .chain(advice.retries.iter().map(ToString::to_string))
        .collect();
    Ok(html! {
        p.soft { "From " (number(figures.sagas())) " sagas that have ended." }
        @if told.is_empty() { p { "Nothing to change, as far as the figures tell." } }
        ul.checks { @for text in &told { li { (sentence(text)) } } }
        @if !advice.silent.is_empty() {
            details { summary { "What nothing can be said about yet" } ul { @for text in &advice.silent { li { (sentence(text)) } } } }
        }
    })
}
