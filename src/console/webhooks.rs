//! What webhooks are still to be told, and what they did not take.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use uuid::Uuid;

use crate::api::Right;
use crate::api::webhooks::change;
use crate::clock::Timestamp;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::{Signed, reason, reason_field};
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::{Pairs, query};
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, command_line, short};
use crate::store::Page;
use crate::store::webhooks::Delivery;

/// Rows of a page.
const ROWS: u32 = 50;
/// The states by which the list can be narrowed.
const STATES: [(&str, &str); 3] = [("", "all"), ("PENDING", "still tried"), ("PARKED", "parked")];

fn state(delivery: &Delivery) -> &'static str {
    if delivery.due.is_some() { "PENDING" } else { "PARKED" }
}

pub(super) async fn show(State(house): State<House>, visit: Visit, pairs: Pairs) -> Result<Html, Failure> {
    let wanted = pairs.get("state").filter(|state| STATES.iter().any(|(known, _)| known == state)).unwrap_or_default();
    let parked = match wanted {
        "" => None,
        state => Some(state == "PARKED"),
    };
    let after = pairs.get("after").and_then(|id| id.parse().ok());
    let mut found = match house.store().webhooks() {
        Some(store) => store.deliveries(parked, &Page { after, limit: ROWS + 1 }).await?,
        None => Vec::new(),
    };
    let has_more = found.len() > ROWS as usize;
    found.truncate(ROWS as usize);
    let next = found.last().filter(|_| has_more).map(|last| last.id.to_string());
    let body = html! {
        div.headline {
            h1 { "Webhooks" }
            nav.views aria-label="Which messages" {
                @for (state, words) in STATES {
                    a href=(visit.to(&format!("webhooks?{}", query(&[("state", state)])))) aria-current=[(state == wanted).then_some("true")] { (words) }
                }
            }
        }
        p.soft { "Messages that a webhook has not taken yet. One whose attempts are spent is parked: it waits here until a person has it tried again, or drops it." }
        @if found.is_empty() {
            (empty("Nothing is waiting", "Each webhook has taken what it was told; without `[[webhooks]]` in the settings nobody is told anything."))
        } @else {
            (table(&visit, &found, house.now()))
        }
        nav.pages aria-label="Pages" {
            @if after.is_some() { a.button href=(visit.to(&format!("webhooks?{}", query(&[("state", wanted)])))) { "First" } }
            @if let Some(next) = next {
                a.button rel="next" href=(visit.to(&format!("webhooks?{}", query(&[("state", wanted), ("after", &next)])))) { "Next" }
            }
        }
    };
    Ok(page(&visit, "Webhooks", body))
}

fn table(visit: &Visit, found: &[Delivery], now: Timestamp) -> Markup {
    let may = visit.may(Right::Operate);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Messages to webhooks" {
            table {
                caption.unseen { "Messages that webhooks have not taken, in the order of their sagas" }
                thead { tr {
                    th scope="col" { "Webhook" } th scope="col" { "Event" } th scope="col" { "Saga" } th scope="col" { "State" }
                    th.number scope="col" { "Attempts" } th scope="col" { "Next" } th scope="col" { "What went wrong" } th scope="col" { "What you can do" }
                } }
                tbody {
                    @for delivery in found {
                        @let (id, saga) = (delivery.id.to_string(), delivery.saga.to_string());
                        tr {
                            th scope="row" { (delivery.webhook) }
                            td { code { (delivery.event) } div.soft { (ago(delivery.at, now)) } }
                            td.tight { a href=(visit.to(&format!("sagas/{saga}"))) title=(saga) { "…" (short(&saga)) } }
                            td { (badge(if delivery.due.is_some() { "pending" } else { "parked" })) }
                            td.number { (delivery.attempts) }
                            td.tight { @match delivery.due { Some(due) => (ago(due, now)), None => "–" } }
                            td.wide { @match &delivery.problem { Some(problem) => (problem), None => span.soft { "nothing so far" } } }
                            td {
                                @if may {
                                    div.inline {
                                        a href=(visit.to(&format!("webhooks/{id}/retry"))) { "Retry " span.unseen { (delivery.event) " of " (short(&saga)) } }
                                        a href=(visit.to(&format!("webhooks/{id}/drop"))) { "Drop " span.unseen { (delivery.event) " of " (short(&saga)) } }
                                    }
                                } @else { span.soft { "Not possible: your role only reads." } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn gone(id: &str) -> Failure {
    let told: String = id.chars().take(60).collect();
    let detail = format!("There is no message `{told}`: the webhook may have taken it by now.");
    Failure::missing("There is no such message", detail).back("webhooks", "Webhooks")
}

/// Whether `word` asks for another attempt; the other word drops.
fn is_retry(word: &str) -> Result<bool, Failure> {
    match word {
        "retry" => Ok(true),
        "drop" => Ok(false),
        _ => Err(Failure::missing("There is no such page", "A message is tried again or dropped.")),
    }
}

impl House {
    async fn delivery(&self, id: &str) -> Result<Delivery, Failure> {
        let (Ok(wanted), Some(store)) = (Uuid::parse_str(id), self.store().webhooks()) else { return Err(gone(id)) };
        store.delivery(wanted).await?.ok_or_else(|| gone(id))
    }
}

pub(super) async fn confirm(
    State(house): State<House>,
    visit: Visit,
    Path((id, word)): Path<(String, String)>,
) -> Result<Html, Failure> {
    let is_retry = is_retry(&word)?;
    Ok(asking(&visit, &house.delivery(&id).await?, is_retry, house.now(), None))
}

fn asking(visit: &Visit, delivery: &Delivery, is_retry: bool, now: Timestamp, wrong: Option<&str>) -> Html {
    let may = visit.may(Right::Operate);
    let (word, label) = if is_retry { ("retry", "Try again") } else { ("drop", "Drop") };
    let (id, saga) = (delivery.id.to_string(), delivery.saga.to_string());
    let title = format!("{label}: {} to {}", delivery.event, delivery.webhook);
    let body = html! {
        p.crumbs { a href=(visit.to("webhooks")) { "Webhooks" } }
        h1 { (title) }
        @if is_retry {
            p.lead { "It is sent again within seconds, if the webhook is still in the settings, with the same id and with all its attempts before it. A webhook that has it already knows it by that id." }
        } @else {
            p.lead { "It is removed for good: the webhook is not told. The saga is not touched." }
        }
        dl.facts {
            div { dt { "Saga" } dd { a href=(visit.to(&format!("sagas/{saga}"))) title=(saga) { "…" (short(&saga)) } } }
            div { dt { "Happened" } dd { (ago(delivery.at, now)) } }
            div { dt { "State" } dd { (badge(&state(delivery).to_ascii_lowercase())) } }
            div { dt { "Attempts" } dd { (delivery.attempts) } }
            @if let Some(problem) = &delivery.problem { div { dt { "What went wrong" } dd { (problem) } } }
        }
        form.ask method="post" action=(visit.to(&format!("webhooks/{id}/{word}"))) {
            input type="hidden" name="csrf" value=(visit.csrf);
            (reason_field("Kept in the audit log with your name.", wrong, may))
            div.buttons {
                button class=(if is_retry { "primary" } else { "danger" }) disabled[!may] { (label) }
                a.button.quiet href=(visit.to("webhooks")) { "Do nothing" }
                @if !may { span { "Not possible: your role only reads." } }
            }
        }
        h2 { "The same from the command line" }
        (command_line(&format!("amends webhooks {word} {id} --reason '...'")))
    };
    page(visit, &title, body)
}

pub(super) async fn carry_out(
    State(house): State<House>,
    visit: Visit,
    Path((id, word)): Path<(String, String)>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let is_retry = is_retry(&word)?;
    let delivery = house.delivery(&id).await?;
    let reason = match reason(&pairs) {
        Ok(reason) => reason,
        Err(wrong) => {
            let asked = asking(&visit, &delivery, is_retry, house.now(), Some(&wrong));
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, asked).into_response());
        }
    };
    let by = (visit.name.clone(), reason);
    change(house.store(), delivery.id, is_retry, by).await?.ok_or_else(|| gone(&id))?;
    Ok((StatusCode::SEE_OTHER, [(LOCATION, visit.to("webhooks"))]).into_response())
}
