//! The start: what needs a person, how much there is of everything, who answers and who does not.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use maud::{Markup, html};

use crate::broker::QueueStatus;
use crate::clock::Timestamp;
use crate::console::House;
use crate::console::chart::charts;
use crate::console::failure::Failure;
use crate::console::layout::{Page, empty, page};
use crate::console::query::{encode, query};
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, number, span, up_to};
use crate::coordinator::Standing;
use crate::coordinator::overview::{Cause, MOST, Overview, overview};
use crate::saga::Direction;
use crate::store::overview::{Service, StateCount};

/// How long the broker may take to tell of a queue.
const LOOK: Duration = Duration::from_millis(500);
/// Groups of failures that are shown.
const GROUPS: usize = 20;

/// What the broker tells of a participant's queue.
enum Told {
    Queue(QueueStatus),
    Missing,
    Silent,
}

/// `/console` without its slash would spoil every relative link.
pub(super) async fn slash() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, "console/")]).into_response()
}

impl House {
    /// The services that the registered definitions name, in order.
    pub(super) async fn participants(&self) -> Result<Vec<String>, Failure> {
        let mut names = Vec::new();
        for record in self.store().definitions(None).await? {
            let definition = self.coordinator().definition(&record.reference).await?;
            names.extend(definition.participants().into_iter().map(str::to_owned));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn queues(&self, participants: &[String]) -> Vec<Told> {
        let broker = self.coordinator().broker();
        let ask = async |participant: &String| {
            let queue = format!("{participant}.commands");
            match tokio::time::timeout(LOOK, broker.queue(&queue)).await {
                Ok(Ok(Some(status))) => Told::Queue(status),
                Ok(Ok(None)) => Told::Missing,
                _ => Told::Silent,
            }
        };
        join_all(participants.iter().map(ask)).await
    }
}

pub(super) async fn show(State(house): State<House>, visit: Visit) -> Result<Page, Failure> {
    let now = house.now();
    let participants = house.participants().await?;
    let (found, queues) = tokio::join!(overview(house.coordinator(), now), house.queues(&participants));
    let parked = match house.store().webhooks() {
        Some(webhooks) => webhooks.delivery_counts(MOST).await?.parked,
        None => 0,
    };
    let Overview { states, causes, activity, services } = found?;
    let told = participants.into_iter().zip(queues);
    let standing = |name: &str| house.coordinator().standing(name);
    let told: Vec<_> = told.map(|(name, told)| (name.clone(), told, standing(&name))).collect();
    let body = html! {
        h1.unseen { "Home" }
        (tiles(&visit, &states))
        section aria-labelledby="stuck-title" {
            h2 #stuck-title { "What needs a person" }
            (failures(&visit, &causes, now))
            (untold(&visit, parked))
        }
        section.charts aria-labelledby="activity-title" {
            h2 #activity-title { "The last hour" }
            div.chart-row { (charts(&activity)) }
            @if activity.started.iter().sum::<u64>() >= u64::from(MOST) { p.soft { "Of the newest " (number(u64::from(MOST))) " sagas." } }
        }
        section aria-labelledby="services-title" {
            h2 #services-title { "Participants" }
            (table(&visit, &told, &services, now))
        }
        (outbox_age(&services, now))
    };
    Ok(page(&visit, "Home", html! { div.home data-live="home" data-every="5" { (body) } }))
}

fn tiles(visit: &Visit, counts: &[StateCount]) -> Markup {
    html! {
        ul.tiles aria-label="Sagas by state" {
            @for count in counts {
                li {
                    a class={ "tile " (count.state.to_ascii_lowercase()) @if count.count == 0 { " none" } } href=(visit.to(&format!("sagas?state={}", count.state))) {
                        span.count { (up_to(count.count, MOST)) }
                        (badge(&count.state))
                    }
                }
            }
        }
        p.soft { "Of those that have ended, the newest " (number(u64::from(MOST))) " are counted." }
    }
}

fn failures(visit: &Visit, causes: &[Cause], now: Timestamp) -> Markup {
    if causes.is_empty() {
        return empty(
            "Nothing is stuck",
            "Every saga goes on by itself. One that cannot is shown here with its cause.",
        );
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Stuck sagas by cause" {
            table.rows {
                caption.unseen { "Stuck sagas by cause, the most frequent first" }
                thead { tr {
                    th.number scope="col" { "Stuck" } th scope="col" { "Error" } th scope="col" { "At" } th scope="col" { "Way" }
                    th scope="col" { "Definition" } th scope="col" { "Since" }
                } }
                tbody {
                    @for cause in causes.iter().take(GROUPS) {
                        @let group = &cause.group;
                        @let (version, step) = (group.definition.version.to_string(), group.step_index.to_string());
                        @let link = query(&[("state", "STUCK"), ("saga", &group.definition.name), ("version", &version), ("error", &group.error), ("at", &step)]);
                        tr data-row {
                            td.number { a.count-link href=(visit.to(&format!("sagas?{link}"))) aria-label={ (group.count) " sagas stuck with " (group.error) } { (up_to(group.count, MOST)) } }
                            th scope="row" { code.error-type { (group.error) } }
                            td { @if cause.participant.is_empty() { (cause.step) } @else { code { (cause.participant) "." (cause.action) } } }
                            td { @if group.direction == Direction::Compensation { (badge("compensating")) } @else { span.soft { "forward" } } }
                            td { (group.definition.name) " " span.soft { "v" (group.definition.version) } }
                            td.tight { (ago(group.since, now)) }
                        }
                    }
                }
            }
        }
        @if causes.len() > GROUPS { p.soft { "and " (causes.len() - GROUPS) " more causes" } }
    }
}

/// What nobody was told.
fn untold(visit: &Visit, parked: u64) -> Markup {
    html! {
        @if parked > 0 {
            div.note.bad {
                @if parked == 1 { "A message to a webhook is parked: its attempts are spent. " }
                @else { (up_to(parked, MOST)) " messages to webhooks are parked: their attempts are spent. " }
                a href=(visit.to("webhooks?state=PARKED")) { "See what went wrong" }
            }
        }
    }
}

fn table(visit: &Visit, participants: &[(String, Told, Standing)], services: &[Service], now: Timestamp) -> Markup {
    if participants.is_empty() {
        return empty(
            "No participants yet",
            "They come with the definitions: register one with `amends definitions register FILE`.",
        );
    }
    let service = |name: &str| services.iter().find(|service| service.participant == name);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Participants" {
            table {
                caption.unseen { "Participants, and whether they answer" }
                thead { tr {
                    th scope="col" { "Participant" } th scope="col" { "Alive" } th.number scope="col" { "Consumers" } th.number scope="col" { "In its queue" } th.number scope="col" { "Held back" }
                    th.number scope="col" { "Unanswered" } th scope="col" { "Oldest" } th.number scope="col" { "Failed lately" }
                } }
                tbody {
                    @for (name, told, standing) in participants {
                        @let service = service(name);
                        tr {
                            th scope="row" { a href=(visit.to(&format!("participants/{}", encode(name)))) { code { (name) } } }
                            td { @match told {
                                _ if !standing.pauses.is_empty() => (alive("unsure", if standing.pauses.iter().any(|pause| pause.action.is_none()) { "paused" } else { "an action is paused" })),
                                _ if standing.open_since.is_some() => (alive("bad", "only fails: circuit open")),
                                Told::Queue(status) if status.consumers > 0 => (alive("ok", "yes")),
                                Told::Queue(_) => (alive("bad", "no consumer")),
                                Told::Missing => (alive("bad", "no queue")),
                                Told::Silent => (alive("unsure", "broker does not tell")),
                            } }
                            @match told {
                                Told::Queue(status) => { td.number { (status.consumers) } td.number { (number(u64::from(status.messages))) } }
                                _ => { td.number { "–" } td.number { "–" } }
                            }
                            td.number { @match standing.held { 0 => "0", held => { (held) @if standing.holds_more { "+" } } } }
                            td.number { @match service { Some(service) => (up_to(service.waiting, MOST)), None => "0" } }
                            td.tight { @if let Some(oldest) = service.and_then(|service| service.oldest) { (ago(oldest, now)) } @else { "–" } }
                            td.number { @match service {
                                Some(service) if service.settled > 0 => { (percent(service.failed, service.settled)) span.soft { " of " (number(service.settled)) } }
                                _ => "–",
                            } }
                        }
                    }
                }
            }
        }
        p.soft { "Details of a queue: " a href=(visit.to("dead")) { "dead letters" } }
    }
}

fn alive(class: &str, words: &str) -> Markup {
    html! { span class={ "alive " (class) } { span.dot aria-hidden="true" {} (words) } }
}

pub(super) fn percent(part: u64, whole: u64) -> String {
    let tenths = part.saturating_mul(1_000).checked_div(whole).unwrap_or_default();
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn outbox_age(services: &[Service], now: Timestamp) -> Markup {
    let oldest = services.iter().filter_map(|service| service.oldest).min();
    let waiting: u64 = services.iter().map(|service| service.waiting).sum();
    html! {
        p.outbox {
            @match oldest {
                Some(oldest) => { "Outbox: " strong { (up_to(waiting, MOST)) } " commands are PENDING, the oldest for " strong { (span(now.signed_duration_since(oldest))) } "." }
                None => { "Outbox: no command is PENDING." }
            }
        }
    }
}
