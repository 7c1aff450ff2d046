//! The list of sagas, filtered by what stands in the address.

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};

use crate::api::redact::must_be_whole;
use crate::api::saga_view::summary;
use crate::client::views::SagaSummaryView;
use crate::clock::Timestamp;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::Pairs;
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, command_line, number, sentence, shell, short};
use crate::id::SagaId;
use crate::saga::StepState;
use crate::store::overview::{FieldIs, SEARCHED, STATES};
use crate::store::{Page, SagaFilter};

/// Sagas of a page.
const ROWS: u32 = 50;
/// Statuses of steps, in the order in which people look for them.
const STATUSES: [&str; 8] =
    ["failed", "unknown", "pending", "compensating", "waiting", "verified", "compensated", "skipped"];
/// Views that everybody has.
const VIEWS: [(&str, &str); 5] = [
    ("Everything", ""),
    ("Needs a person", "state=STUCK"),
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
pub(super) fn filter(pairs: &Pairs, now: Timestamp) -> Result<SagaFilter, Failure> {
    let wrong = |name: &str, help: &str| {
        Failure::wrong("The filter makes no sense", format!("`{name}`: {help}")).back("sagas", "All sagas")
    };
    let states: Vec<String> = pairs.all("state").map(str::to_owned).collect();
    if let Some(state) = states.iter().find(|state| !STATES.contains(&state.as_str())) {
        return Err(wrong("state", &format!("`{state}` is no state; there are {}", STATES.join(", "))));
    }
    let number = |name: &str| match pairs.get(name) {
        Some(text) => text.parse().map(Some).map_err(|_| wrong(name, "a whole number is wanted")),
        None => Ok(None),
    };
    let at = |name: &str| match pairs.get(name) {
        Some(text) => time(text, now)
            .map(Some)
            .ok_or_else(|| wrong(name, "a time like 2026-11-23T14:00:00Z or a span like 90m, 24h, 7d is wanted")),
        None => Ok(None),
    };
    let status = pairs.get("status").map(str::to_owned);
    if status.as_ref().is_some_and(|status| !STATUSES.contains(&status.as_str())) {
        return Err(wrong("status", &format!("statuses of steps are {}", STATUSES.join(", "))));
    }
    let field =
        match pairs.get("field") {
            Some(text) => Some(field(text).ok_or_else(|| {
                wrong("field", "write a path into the input and its value, for example customer.id=c-7")
            })?),
            None => None,
        };
    Ok(SagaFilter {
        definition: pairs.get("saga").map(str::to_owned),
        states,
        key: pairs.get("key").map(str::to_owned),
        since: at("since")?,
        paused: pairs.get("paused").map(|paused| paused == "true"),
        version: number("version")?,
        until: at("until")?,
        step_status: status,
        error_type: pairs.get("error").map(str::to_owned),
        stuck_step: number("at")?.and_then(|step| u16::try_from(step).ok()),
        field,
    })
}

fn field(text: &str) -> Option<FieldIs> {
    let (path, value) = text.split_once('=')?;
    let path: Vec<String> = path.trim().trim_start_matches("input.").split('.').map(str::to_owned).collect();
    let is_sane = path.len() <= 16 && path.iter().all(|name| !name.is_empty());
    is_sane.then(|| FieldIs { path, value: value.trim().to_owned() })
}

/// A time, or how long ago.
fn time(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<DateTime<Utc>>() {
        return Some(time);
    }
    let unit = text.chars().last().filter(char::is_ascii)?;
    let count: i64 = text.get(..text.len() - 1)?.parse().ok().filter(|count| (0..100_000).contains(count))?;
    let delta = match unit {
        's' => TimeDelta::seconds(count),
        'm' => TimeDelta::minutes(count),
        'h' => TimeDelta::hours(count),
        'd' => TimeDelta::days(count),
        _ => return None,
    };
    now.checked_sub_signed(delta)
}

pub(super) async fn show(State(house): State<House>, visit: Visit, pairs: Pairs) -> Result<Html, Failure> {
    let now = house.now();
    let filter = filter(&pairs, now)?;
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
    let names = names(&house).await?;
    let address = pairs.without(&["after"]);
    let body = html! {
        div.headline { h1 { "Sagas" } (views(&visit, &address)) }
        (filters(&visit, &pairs, &names))
        @if filter.is_search() {
            p.soft.note { "Step status, error type, place and field are looked for among the newest " (number(u64::from(SEARCHED))) " sagas that match the rest; a time or a state narrows that down." }
        }
        @if rows.is_empty() { (nothing(&filter, after.is_some())) } @else { (table(&visit, &pairs, &rows, now)) }
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
        let Some(record) = house.store().saga(saga.id).await? else { return Ok(None) };
        let Some(expanded) = record.saga.expand(&definition) else { return Ok(None) };
        (record.saga, expanded)
    } else {
        (saga, definition)
    };
    let is_current = |state: &StepState| state.in_flight().is_some() || state.problem().is_some();
    let steps =
        definition.steps.iter().zip(&saga.steps).filter(|(_, state)| !saga.state.is_terminal() && is_current(state));
    let current = steps.map(|(step, _)| step.name.clone()).collect();
    Ok(Some(Row { view: summary(&definition, &saga), current }))
}

async fn names(house: &House) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> =
        house.store().definitions(None).await?.into_iter().map(|record| record.reference.name).collect();
    names.dedup();
    Ok(names)
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
    }
}

fn filters(visit: &Visit, pairs: &Pairs, names: &[String]) -> Markup {
    let value = |name: &'static str| pairs.get(name).unwrap_or_default();
    let has_more = ["version", "since", "until", "status", "error", "at", "field", "paused"]
        .iter()
        .any(|name| pairs.get(name).is_some());
    let text = |name: &'static str, label: &str, hint: &str| {
        html! {
            label { span { (label) } input type="text" name=(name) value=(value(name)) placeholder=(hint) autocomplete="off" spellcheck="false"; }
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
                        @for name in names { option value=(name) selected[value("saga") == name] { (name) } }
                    }
                }
                (text("key", "Key", "exactly"))
                button.primary { "Filter" }
                @if !pairs.without(&["after"]).is_empty() { a.button.quiet href=(visit.to("sagas")) { "Clear" } }
            }
            details.more open[has_more] {
                summary { "More filters" }
                div.fields {
                    (text("version", "Version", "1"))
                    (text("since", "Started since", "24h or a time"))
                    (text("until", "Started before", "1h or a time"))
                    label { span { "A step is" }
                        select name="status" {
                            option value="" { "any" }
                            @for status in STATUSES { option value=(status) selected[value("status") == status] { (status) } }
                        }
                    }
                    (text("error", "Error type", "card-declined"))
                    (text("field", "Input field", "customer.id=c-7"))
                    label { span { "Paused" }
                        select name="paused" {
                            option value="" { "any" }
                            option value="true" selected[value("paused") == "true"] { "yes" }
                            option value="false" selected[value("paused") == "false"] { "no" }
                        }
                    }
                    @if !value("at").is_empty() { (text("at", "Stuck at step number", "0")) }
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

fn table(visit: &Visit, pairs: &Pairs, rows: &[Row], now: Timestamp) -> Markup {
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
                        @for row in rows { (line(visit, row, now)) }
                    }
                }
            }
            div.selection {
                span data-selected { }
                button name="scope" value="selected" { "Look at the selected" }
                button name="scope" value="all" { "Look at all that match" }
            }
        }
    }
}

fn line(visit: &Visit, row: &Row, now: Timestamp) -> Markup {
    let saga = &row.view;
    let name = saga.key.as_deref().unwrap_or_else(|| short(&saga.id));
    html! {
        tr data-row data-live={ "row-" (saga.id) } data-id=(saga.id) data-rev=(saga.revision) {
            td.check { input type="checkbox" name="id" value=(saga.id) aria-label={ "Select " (name) }; }
            td { (badge(&saga.state)) @if saga.paused { " " (badge("paused")) } }
            td { (saga.saga) " " span.soft { "v" (saga.version) } }
            th.key scope="row" { a href=(visit.to(&format!("sagas/{}", saga.id))) { @if saga.key.is_none() { "…" } (name) } }
            td.tight { (ago(saga.created_at, now)) }
            td { @if row.current.is_empty() { span.soft { "–" } } @else { code { (row.current.join(", ")) } } }
            td.wide { @if let Some(waiting) = &saga.waiting_for { (sentence(waiting)) } @else { span.soft { "nothing: it has ended" } } }
        }
    }
}

/// The command line that lists the same, as far as it knows the filters.
fn as_command(pairs: &Pairs) -> String {
    let mut line = "amends sagas list".to_owned();
    for (name, flag) in [("saga", "--saga"), ("key", "--key"), ("since", "--since")] {
        if let Some(value) = pairs.get(name) {
            line.push_str(&format!(" {flag} {}", shell(value)));
        }
    }
    for state in pairs.all("state") {
        line.push_str(&format!(" --state {}", shell(state)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_path_and_a_value() {
        let found = field("input.customer.id = a=b").expect("a field");
        assert_eq!((found.path, found.value.as_str()), (vec!["customer".to_owned(), "id".to_owned()], "a=b"));
        for wrong in ["customer", "=x", "a..b=1"] {
            assert_eq!(field(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_exact_or_ago() {
        let now: Timestamp = "2026-11-23T14:00:00Z".parse().expect("a time");
        assert_eq!(time("90m", now), "2026-11-23T12:30:00Z".parse().ok());
        assert_eq!(time("2026-11-23T12:30:00Z", now), "2026-11-23T12:30:00Z".parse().ok());
        for wrong in ["", "h", "-1h", "1ü", "99999999h", "1y"] {
            assert_eq!(time(wrong, now), None, "{wrong}");
        }
    }
}
