//! Who did what, and why.

use axum::extract::State;
use maud::{Markup, html};

use crate::console::House;
use crate::console::failure::Failure;
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::{Pairs, query};
use crate::console::visit::Visit;
use crate::console::words::{clock, short};
use crate::store::{AuditRecord, Page};

/// Rows of a page.
const ROWS: u32 = 50;

pub(super) async fn show(State(house): State<House>, visit: Visit, pairs: Pairs) -> Result<Html, Failure> {
    let saga = pairs.get("saga").and_then(|id| id.parse().ok());
    let after = pairs.get("after").and_then(|id| id.parse().ok());
    let mut rows = house.store().audit(saga, &Page { after, limit: ROWS + 1 }).await?;
    let has_more = rows.len() > ROWS as usize;
    rows.truncate(ROWS as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.id.to_string());
    let saga = saga.map(|id: crate::id::SagaId| id.to_string()).unwrap_or_default();
    let body = html! {
        h1 { "Audit" }
        p.soft { "Who did what, and why. Written in the same transaction as what was done." }
        @if !saga.is_empty() {
            p { "Of saga " a href=(visit.to(&format!("sagas/{saga}"))) { code { (saga) } } " · " a href=(visit.to("audit")) { "of everything" } }
        }
        @if rows.is_empty() {
            (empty("Nobody has done anything yet", "Registrations and what operators do to sagas are written down here."))
        } @else {
            (table(&visit, &rows, true))
        }
        nav.pages aria-label="Pages" {
            @if after.is_some() { a.button href=(visit.to(&format!("audit?{}", query(&[("saga", &saga)])))) { "Newest" } }
            @if let Some(next) = next {
                a.button rel="next" href=(visit.to(&format!("audit?{}", query(&[("saga", &saga), ("after", &next)])))) { "Older" }
            }
        }
    };
    Ok(page(&visit, "Audit", body))
}

/// Rows of the audit log.
pub(super) fn table(visit: &Visit, rows: &[AuditRecord], with_saga: bool) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="What people did" {
            table {
                caption.unseen { "What people did, newest first" }
                thead { tr { th scope="col" { "When (" span data-zone { "UTC" } ")" } th scope="col" { "Who" } th scope="col" { "What" } @if with_saga { th scope="col" { "About" } } th scope="col" { "Why" } } }
                tbody {
                    @for row in rows {
                        tr {
                            td.tight { (clock(row.at)) }
                            td { (row.actor) }
                            td { code { (row.action) } }
                            @if with_saga {
                                td {
                                    @if let Some(saga) = row.saga {
                                        @let id = saga.to_string();
                                        a href=(visit.to(&format!("sagas/{id}"))) title=(id) { "…" (short(&id)) }
                                    } @else { (about(row)) }
                                }
                            }
                            td.wide { (row.reason) }
                        }
                    }
                }
            }
        }
    }
}

/// The definition, participant, queue or token that a row is about, if it is about one.
fn about(row: &AuditRecord) -> String {
    let detail = row.detail.value();
    if let Some(token) = detail["token"].as_str() {
        return format!("token {token}");
    }
    if let Some(participant) = detail["participant"].as_str() {
        return detail["action"]
            .as_str()
            .map_or_else(|| participant.to_owned(), |action| format!("{participant}.{action}"));
    }
    if let (Some(queue), Some(message)) = (detail["queue"].as_str(), detail["message"].as_str()) {
        return format!("{queue}: {message}");
    }
    let definition = &detail["definition"];
    match (definition["name"].as_str(), definition["version"].as_u64()) {
        (Some(name), Some(version)) => format!("{name} v{version}"),
        _ => definition.as_str().unwrap_or_default().to_owned(),
    }
}
