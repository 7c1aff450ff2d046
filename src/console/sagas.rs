//! The list of sagas, filtered by what stands in the address.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use maud::{Markup, html};
use serde_json::Value;

use crate::api::Right;
use crate::api::filter::{FILTERS, STATUSES, saga_filter};
use crate::api::query::Query;
use crate::api::redact::must_be_whole;
use crate::api::saga_view::unreadable;
use crate::api::sagas::listed;
use crate::client::views::SagaSummaryView;
use crate::clock::Timestamp;
use crate::console::failure::Failure;
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::Pairs;
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, command_line, number, sentence, shell, short, span};
use crate::console::{House, migrate};
use crate::coordinator::overview::MOST;
use crate::definition::source::to_json;
use crate::id::SagaId;
use crate::saga::StepState;
use crate::store::overview::{SEARCHED, STATES};
use crate::store::{Page, SagaFilter};

/// Sagas of a page.
const ROWS: u32 = 50;
/// Words that a field of the filter offers, at most.
const OFFERED: usize = 100;
/// Views that everybody has.
const VIEWS: [(&str, &str); 6] = [
    ("Everything", ""),
    ("Needs a person", "state=STUCK"),
    ("Undoing is stuck", "state=STUCK&status=compensating"),
    ("Under way", "state=RUNNING&state=COMPENSATING"),
    ("Paused", "paused=true"),
    ("Unknown outcomes", "status=unknown"),
];

/// One row.
struct Row {
    view: SagaSummaryView,
    /// Names of the steps that something is being done about.
    current: Vec<String>,
}

/// The filter that an address asks for.
///
/// # Errors
/// What in it makes no sense.
fn filter(pairs: &Pairs, now: Timestamp) -> Result<SagaFilter, Failure> {
    let given = pairs.0.iter().map(|(name, value)| (name.clone(), value.trim().to_owned())).collect();
    saga_filter(&Query::of(given), now)
        .map_err(|problem| Failure::wrong("The filter makes no sense", problem.detail()).back("sagas", "All sagas"))
}

pub(super) async fn show(State(house): State<House>, visit: Visit, pairs: Pairs) -> Result<Html, Failure> {
    let now = house.now();
    let filter = filter(&pairs, now)?;
    house.coordinator().may_search(&filter).await?;
    let after = match pairs.get("after") {
        Some(id) => {
            Some(id.parse::<SagaId>().map_err(|_| Failure::wrong("The address cannot be read", "`after` is no id."))?)
        }
        None => None,
    };
    let mut found = house.store().sagas(&filter, &Page { after, limit: ROWS + 1 }).await?;
    let has_more = found.len() > ROWS as usize;
    found.truncate(ROWS as usize);
    let next = found.last().filter(|_| has_more).map(|last| last.saga.id.to_string());
    let mut rows = Vec::with_capacity(found.len());
    for found in found {
        rows.extend(row(&house, found.saga).await?);
    }
    let known = known(&house).await?;
    let address = pairs.without(&["after"]);
    let body = html! {
        div.headline { h1 { "Sagas" } (views(&visit, &address)) }
        (filters(&visit, &pairs, &known))
        @if filter.is_search() {
            p.soft.note { "Step status, error type, place and field are looked for among the newest " (number(u64::from(SEARCHED))) " sagas that match the rest; a time or a state narrows that down." }
        }
        @if rows.is_empty() { (nothing(&filter, after.is_some())) } @else { (table(&visit, &pairs, &rows, &known, now)) }
        nav.pages aria-label="Pages" {
            @if after.is_some() { a.button href=(visit.to(&format!("sagas?{address}"))) { "Newest" } }
            @if let Some(next) = &next {
                a.button rel="next" href=(visit.to(&format!("sagas?{address}{}after={next}", if address.is_empty() { "" } else { "&" }))) { "Older" }
            }
        }
        (command_line(&as_command(&pairs)))
    };
    Ok(page(&visit, "Sagas", body))
}

async fn row(house: &House, saga: crate::saga::Saga) -> Result<Option<Row>, Failure> {
    let Ok(definition) = house.coordinator().definition(&saga.definition).await else { return Ok(None) };
    let (saga, definition) = if definition.has_loops() || must_be_whole(&definition, &saga) {
        // Which steps it has, and what of it is sensitive, depends on its input, which lists come without.
        let record = match house.store().saga(saga.id).await {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) if error.is_transient() => return Err(error.into()),
            // The others are listed all the same.
            Err(error) => return Ok(Some(Row { view: unreadable(&saga, &error), current: Vec::new() })),
        };
        let Some(expanded) = record.saga.expand(&definition) else { return Ok(None) };
        (record.saga, expanded)
    } else {
        (saga, definition)
    };
    let is_current = |state: &StepState| state.in_flight().is_some() || state.problem().is_some();
    let steps =
        definition.steps.iter().zip(&saga.steps).filter(|(_, state)| !saga.state.is_terminal() && is_current(state));
    let current = steps.map(|(step, _)| step.name.clone()).collect();
    Ok(Some(Row { view: listed(house.coordinator(), &definition, &saga), current }))
}

/// What filters and rows are completed from.
#[derive(Default)]
struct Known {
    /// The newest version of each definition that takes in sagas.
    newest: BTreeMap<String, Option<u32>>,
    /// Types of the errors that sagas are stuck with.
    errors: BTreeSet<String>,
    /// Members of inputs that the definitions' schemas name and do not mark as sensitive.
    fields: BTreeSet<String>,
}

async fn known(house: &House) -> Result<Known, Failure> {
    let mut known = Known::default();
    for record in house.store().definitions(None).await? {
        let newest = known.newest.entry(record.reference.name).or_default();
        if record.deprecated.is_none() {
            *newest = (*newest).max(Some(record.reference.version));
        }
        if let Some(definition) = to_json(&record.source) {
            fields(&definition["input"]["schema"], "", &mut known.fields);
        }
    }
    known.errors.extend(house.store().stuck_groups(MOST).await?.into_iter().map(|group| group.error));
    Ok(known)
}

fn fields(schema: &Value, before: &str, found: &mut BTreeSet<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if found.len() >= OFFERED || before.matches('.').count() > 2 || schema["sensitive"] == true {
            continue;
        }
        if schema["properties"].is_object() {
            fields(schema, &format!("{before}{name}."), found);
        } else {
            found.insert(format!("{before}{name}="));
        }
    }
}

fn views(visit: &Visit, address: &str) -> Markup {
    html! {
        nav.views aria-label="Saved views" {
            @for (name, view) in VIEWS {
                a href=(visit.to(&if view.is_empty() { "sagas".to_owned() } else { format!("sagas?{view}") })) aria-current=[(address == view).then_some("true")] { (name) }
            }
            span data-views {}
            button.quiet type="button" data-save-view hidden { "Save this view" }
        }
        dialog #save-view aria-labelledby="save-view-title" {
            h2 #save-view-title { "Save this view" }
            form method="dialog" {
                label { span { "Its name, kept in this browser" } input type="text" name="view" maxlength="40" required autocomplete="off"; }
                div.buttons { button.primary value="save" { "Save" } button.quiet value="" formnovalidate { "Cancel" } }
            }
        }
    }
}

fn filters(visit: &Visit, pairs: &Pairs, known: &Known) -> Markup {
    let value = |name: &'static str| pairs.get(name).unwrap_or_default();
    let has_more = ["version", "since", "until", "status", "error", "at", "field", "paused"]
        .iter()
        .any(|name| pairs.get(name).is_some());
    let text = |name: &'static str, label: &str, hint: &str, list: Option<&BTreeSet<String>>| {
        let offered = list.map(|_| format!("known-{name}"));
        html! {
            label { span { (label) } input type="text" name=(name) value=(value(name)) placeholder=(hint) list=[offered.as_ref()] autocomplete="off" spellcheck="false"; }
            @if let (Some(list), Some(offered)) = (list, &offered) {
                datalist id=(offered) { @for word in list.iter().take(OFFERED) { option value=(word) {} } }
            }
        }
    };
    html! {
        form.filters method="get" action=(visit.to("sagas")) role="search" aria-label="Filter sagas" {
            fieldset.states {
                legend.unseen { "State" }
                @for state in STATES {
                    label.chip { input type="checkbox" name="state" value=(state) checked[pairs.all("state").any(|given| given == state)]; (badge(state)) }
                }
            }
            div.fields {
                label { span { "Definition" }
                    select name="saga" {
                        option value="" { "any" }
                        @for name in known.newest.keys() { option value=(name) selected[value("saga") == name] { (name) } }
                    }
                }
                (text("key", "Key", "exactly", None))
                button.primary { "Filter" }
                @if !pairs.without(&["after"]).is_empty() { a.button.quiet href=(visit.to("sagas")) { "Clear" } }
            }
            details.more open[has_more] {
                summary { "More filters" }
                div.fields {
                    (text("version", "Version", "1", None))
                    (text("since", "Started since", "24h or a time", None))
                    (text("until", "Started before", "1h or a time", None))
                    label { span { "A step is" }
                        select name="status" {
                            option value="" { "any" }
                            @for status in STATUSES { option value=(status) selected[value("status") == status] { (status) } }
                        }
                    }
                    (text("error", "Error type", "card-declined", Some(&known.errors)))
                    (text("field", "Input field", "customer.id=c-7", Some(&known.fields)))
                    label { span { "Paused" }
                        select name="paused" {
                            option value="" { "any" }
                            option value="true" selected[value("paused") == "true"] { "yes" }
                            option value="false" selected[value("paused") == "false"] { "no" }
                        }
                    }
                    @if !value("at").is_empty() { (text("at", "Stuck at step number", "0", None)) }
                }
            }
        }
    }
}

fn nothing(filter: &SagaFilter, is_later_page: bool) -> Markup {
    let is_filtered = !filter.states.is_empty()
        || filter.definition.is_some()
        || filter.key.is_some()
        || filter.since.is_some()
        || filter.until.is_some()
        || filter.version.is_some()
        || filter.paused.is_some()
        || filter.is_search();
    match (is_later_page, is_filtered) {
        (true, _) => empty("No older sagas", "This was the last page."),
        (false, true) => empty("No saga matches", "The filter leaves nothing over. Clear it, or widen the time."),
        (false, false) => empty(
            "No sagas yet",
            "They are shown here as soon as one is started, for example with `amends sagas start`.",
        ),
    }
}

fn table(visit: &Visit, pairs: &Pairs, rows: &[Row], known: &Known, now: Timestamp) -> Markup {
    html! {
        form method="post" action=(visit.to("selection")) data-selection {
            input type="hidden" name="csrf" value=(visit.csrf);
            input type="hidden" name="filter" value=(pairs.without(&["after"]));
            div.scroll tabindex="0" role="region" aria-label="Sagas" {
                table.rows.sagas {
                    caption.unseen { "Sagas, newest first" }
                    thead { tr {
                        th.check scope="col" { input type="checkbox" data-all aria-label="Select all on this page"; }
                        th scope="col" { "State" } th scope="col" { "Definition" } th scope="col" { "Key" } th scope="col" { "Age" }
                        th scope="col" { "At" } th scope="col" { "Waiting for" }
                    } }
                    tbody {
                        @for row in rows { (line(visit, row, known, now)) }
                    }
                }
            }
            div.selection {
                span data-selected { }
                button name="scope" value="selected" { "Act on the selected…" }
                button name="scope" value="all" { "Act on all that match…" }
            }
        }
    }
}

fn line(visit: &Visit, row: &Row, known: &Known, now: Timestamp) -> Markup {
    let saga = &row.view;
    let name = saga.key.as_deref().unwrap_or_else(|| short(&saga.id));
    html! {
        tr data-row data-live={ "row-" (saga.id) } data-id=(saga.id) data-rev=(saga.revision) {
            td.check { input type="checkbox" name="id" value=(saga.id) aria-label={ "Select " (name) }; }
            td.state { (badge(&saga.state)) @if saga.paused { " " (badge("paused")) } }
            td.of { (saga.saga) " " span.soft { "v" (saga.version) } }
            th.key scope="row" { a href=(visit.to(&format!("sagas/{}", saga.id))) { @if saga.key.is_none() { "…" } (name) } }
            td.tight { (ago(saga.created_at, now)) }
            td.place { @if row.current.is_empty() { span.soft { "–" } } @else { code { (row.current.join(", ")) } } }
            td.wide {
                @match (&saga.waiting_for, saga.ended_at) {
                    (Some(waiting), _) => (sentence(waiting)),
                    (None, Some(end)) => span.soft { "nothing: it ended after " (span(end.signed_duration_since(saga.created_at))) },
                    (None, None) => span.soft { "nothing: it has ended" },
                }
                (cures(visit, saga, name, known))
            }
        }
    }
}

/// What cures a stuck saga, one step from the list: each link leads to what it would do.
fn cures(visit: &Visit, saga: &SagaSummaryView, name: &str, known: &Known) -> Markup {
    let Some(stuck) = saga.stuck.as_ref().filter(|_| visit.may(Right::Operate)) else { return html! {} };
    let can = |word: &str| stuck.actions.iter().any(|action| action == word);
    let newest = known.newest.get(&saga.saga).copied().flatten();
    html! {
        div.inline {
            @for (word, label) in [("retry", "Retry…"), ("skip", "Skip…"), ("compensate", "Compensate…")] {
                @if can(word) { a href=(visit.to(&format!("sagas/{}/{word}", saga.id))) { (label) " " span.unseen { (name) } } }
            }
            (migrate::link(visit, &saga.id, saga.version, newest, name))
        }
    }
}

/// The command line that lists the same.
fn as_command(pairs: &Pairs) -> String {
    let mut line = "amends sagas list".to_owned();
    for name in FILTERS {
        for value in pairs.all(name).take(if name == "state" { STATES.len() } else { 1 }) {
            line.push_str(&format!(" --{name}={}", shell(value)));
        }
    }
    line
}
