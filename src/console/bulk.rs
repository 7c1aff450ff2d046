//! Bulk jobs: all of them, and one with its progress, its steering, and what became of each saga.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::Right;
use crate::api::bulk::{item_filter, view};
use crate::client::views::{BulkCheckView, BulkView};
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::Signed;
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::{Pairs, query};
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, clock, command_line, number, sentence, short};
use crate::coordinator::bulk::BulkError;
use crate::id::{BulkId, SagaId};
use crate::store::Page;
use crate::store::bulk::{BulkItem, ItemOutcome, JobState};

/// Rows of a page.
const ROWS: u32 = 50;
/// How often the page of a job that is under way asks for a fresh copy of itself, in seconds.
const EVERY: u32 = 2;

impl From<BulkError> for Failure {
    fn from(error: BulkError) -> Self {
        let told = error.to_string();
        match error {
            BulkError::Unsupported => Self::new(StatusCode::NOT_IMPLEMENTED, "This store keeps no bulk jobs", told),
            BulkError::Nothing => Self::wrong("No saga is meant", "Nothing matches any more. Nothing was done."),
            BulkError::Unconfirmed { .. } | BulkError::OtherCount { .. } => {
                let detail = format!("{told}. Nothing was done: look again, then decide.");
                Self::conflict("The number of sagas is another than you confirmed", detail).back("sagas", "Look again")
            }
            BulkError::Unknown(_) => Self::missing("There is no such bulk job", told).back("bulk", "All jobs"),
            BulkError::NotAllowed { id, .. } => Self::conflict("The job's state does not allow this", told)
                .back(format!("bulk/{id}"), "Back to the job"),
            BulkError::Store(error) => error.into(),
        }
    }
}

pub(super) async fn list(State(house): State<House>, visit: Visit, pairs: Pairs) -> Result<Html, Failure> {
    let after = pairs.get("after").and_then(|id| id.parse::<BulkId>().ok());
    let mut jobs = match house.coordinator().bulk_jobs() {
        Ok(store) => store.jobs(&Page { after, limit: ROWS + 1 }).await?,
        // Only a store for tests keeps none.
        Err(_) => Vec::new(),
    };
    let has_more = jobs.len() > ROWS as usize;
    jobs.truncate(ROWS as usize);
    let next = jobs.last().filter(|_| has_more).map(|last| last.of.id.to_string());
    let jobs: Vec<BulkView> = jobs.iter().map(|job| view(job, None)).collect();
    let now = house.now();
    let is_live = jobs.iter().any(|job| job.state == "RUNNING");
    let body = html! {
        h1 { "Bulk jobs" }
        p.soft { "One action on many sagas. To make one, filter the " a href=(visit.to("sagas?state=STUCK")) { "list of sagas" } " and act on all that match, or on the rows that you select." }
        @if jobs.is_empty() {
            (empty("No bulk jobs", "None was made yet, or this was the last page."))
        } @else {
            div data-live="jobs" data-every=[is_live.then_some(EVERY)] {
                div.scroll tabindex="0" role="region" aria-label="Bulk jobs" {
                    table.rows {
                        caption.unseen { "Bulk jobs, newest first" }
                        thead { tr { th scope="col" { "State" } th scope="col" { "Job" } th scope="col" { "Sagas" } th scope="col" { "How it stands" } th scope="col" { "By" } th scope="col" { "Why" } th scope="col" { "Age" } } }
                        tbody {
                            @for job in &jobs {
                                tr data-row {
                                    td { (badge(&job.state)) }
                                    th scope="row" { a href=(visit.to(&format!("bulk/{}", job.id))) { (job.action) " …" (short(&job.id)) } }
                                    td.tight { (number(u64::from(job.total))) }
                                    td.wide { (job.summary) }
                                    td { (job.actor) }
                                    td.wide { (job.reason) }
                                    td.tight { (ago(job.created_at, now)) }
                                }
                            }
                        }
                    }
                }
            }
        }
        nav.pages aria-label="Pages" {
            @if after.is_some() { a.button href=(visit.to("bulk")) { "Newest" } }
            @if let Some(next) = next { a.button rel="next" href=(visit.to(&format!("bulk?after={next}"))) { "Older" } }
        }
        (command_line("amends bulk list"))
    };
    Ok(page(&visit, "Bulk jobs", body))
}

fn read(id: &str) -> Result<BulkId, Failure> {
    id.parse().map_err(|_| {
        Failure::missing("There is no such bulk job", "The address holds no job's id.").back("bulk", "All jobs")
    })
}

pub(super) async fn show(
    State(house): State<House>,
    visit: Visit,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Html, Failure> {
    let id = read(&id)?;
    let outcome = pairs.get("outcome");
    let wrong = || Failure::wrong("The address cannot be read", "`outcome` is open, applied, refused or failed.");
    let filter = item_filter(outcome).ok_or_else(wrong)?;
    let after = pairs.get("after").and_then(|id| id.parse::<SagaId>().ok());
    let coordinator = house.coordinator();
    let job = coordinator.bulk_job(id).await?;
    let now = if pairs.get("check").is_some() { Some(coordinator.bulk_check(id).await?) } else { None };
    let mut items = coordinator.bulk_jobs()?.items(id, filter, &Page { after, limit: ROWS + 1 }).await?;
    let has_more = items.len() > ROWS as usize;
    items.truncate(ROWS as usize);
    let next = items.last().filter(|_| has_more).map(|last| last.saga.to_string());
    let state = job.state;
    let job = view(&job, now);
    let is_live = state == JobState::Running || job.next_check_at.is_some();
    let title = format!("{} {} sagas", job.action, job.total);
    let here = format!("bulk/{id}");
    let body = html! {
        p.crumbs { a href=(visit.to("bulk")) { "Bulk jobs" } " / …" (short(&job.id)) }
        h1 { (job.action) @if let Some(step) = &job.step { " " code { (step) } } " " (number(u64::from(job.total))) " sagas" }
        div data-live="job" data-every=[is_live.then_some(EVERY)] {
            (standing(&visit, &job, state))
            @if let Some(check) = &job.check { (checked(check)) }
        }
        p.buttons { a.button href=(visit.to(&format!("{here}?check=1"))) { "Look now how they stand" } }
        (facts(&job))
        h2 #items { "Sagas" }
        nav.views aria-label="Outcomes" {
            @for (name, word) in [("All", ""), ("Open", "open"), ("Applied", "applied"), ("Refused", "refused"), ("Failed", "failed")] {
                a href=(visit.to(&format!("{here}?{}", query(&[("outcome", word)])))) aria-current=[(outcome.unwrap_or_default() == word).then_some("true")] { (name) }
            }
        }
        @if items.is_empty() { (empty("No sagas here", "None of the job's sagas has this outcome, or this was the last page.")) } @else { (rows(&visit, &items)) }
        nav.pages aria-label="Pages" {
            @if after.is_some() { a.button href=(visit.to(&format!("{here}?{}", query(&[("outcome", outcome.unwrap_or_default())])))) { "First" } }
            @if let Some(next) = &next {
                a.button rel="next" href=(visit.to(&format!("{here}?{}", query(&[("outcome", outcome.unwrap_or_default()), ("after", next)])))) { "Next" }
            }
        }
        (command_line(&format!("amends bulk watch {id}")))
    };
    Ok(page(&visit, &title, body))
}

/// How far it is, and what can be done to it.
fn standing(visit: &Visit, job: &BulkView, state: JobState) -> Markup {
    let may = visit.may(Right::Operate);
    let words: &[(&str, &str, &str)] = match state {
        JobState::Running => &[("pause", "Pause", "button"), ("stop", "Stop for good", "danger")],
        JobState::Paused => &[("resume", "Resume", "primary"), ("stop", "Stop for good", "danger")],
        JobState::Stopped | JobState::Done => &[],
    };
    let closed = job.total.saturating_sub(job.open);
    html! {
        p.lead { (badge(&job.state)) " " (job.summary) "." }
        p { progress max=(job.total.max(1)) value=(closed) aria-label="Sagas seen to" {} " " (number(u64::from(closed))) " of " (number(u64::from(job.total))) " seen to" }
        @if !words.is_empty() {
            div.buttons {
                @for (word, label, class) in words {
                    form method="post" action=(visit.to(&format!("bulk/{}/{word}", job.id))) {
                        input type="hidden" name="csrf" value=(visit.csrf);
                        button class=(class) disabled[!may] { (label) }
                    }
                }
                @if !may { span { "Not possible: your role only reads." } }
            }
        }
    }
}

fn checked(check: &BulkCheckView) -> Markup {
    html! {
        section aria-label="How the sagas stand" {
            p { strong { (number(check.stuck)) } " still stuck, " strong { (number(check.working)) } " asked, not yet seen to work, " strong { (number(check.ended)) } " ended; looked at " (clock(check.at)) " UTC." }
            @if !check.reasons.is_empty() {
                ul { @for reason in &check.reasons { li { code { (reason.error) } ": " (number(reason.count)) } } }
            }
        }
    }
}

fn facts(job: &BulkView) -> Markup {
    html! {
        table {
            caption.unseen { "About the job" }
            tbody {
                tr { th scope="row" { "Reason" } td.wide { (job.reason) } }
                tr { th scope="row" { "By" } td { (job.actor) } }
                tr { th scope="row" { "Filter" } td.wide { code { (job.filter.to_string()) } @if job.bounded { " (more matched than a job takes)" } } }
                tr { th scope="row" { "Sagas per second, at most" } td { (job.rate_per_second) } }
                tr { th scope="row" { "Made" } td { (clock(job.created_at)) } }
                @if let Some(ended) = job.ended_at { tr { th scope="row" { "Over" } td { (clock(ended)) } } }
            }
        }
    }
}

fn rows(visit: &Visit, items: &[BulkItem]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Sagas of the job" {
            table.rows {
                caption.unseen { "Sagas of the job, the oldest first" }
                thead { tr { th scope="col" { "Saga" } th scope="col" { "Outcome" } th scope="col" { "Why" } th scope="col" { "When (UTC)" } } }
                tbody {
                    @for item in items {
                        @let id = item.saga.to_string();
                        tr data-row {
                            th scope="row" { a href=(visit.to(&format!("sagas/{id}"))) title=(id) { "…" (short(&id)) } }
                            td { (badge(item.outcome.map_or("open", ItemOutcome::as_str))) }
                            td.wide { @if let Some(code) = &item.code { code { (code) } " " } (sentence(item.detail.as_deref().unwrap_or_default())) }
                            td.tight { @if let Some(at) = item.at { (clock(at)) } @else { span.soft { "–" } } }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn steer(
    State(house): State<House>,
    visit: Visit,
    Path((id, word)): Path<(String, String)>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let to = match word.as_str() {
        "pause" => JobState::Paused,
        "resume" => JobState::Running,
        "stop" => JobState::Stopped,
        _ => return Err(Failure::missing("There is no such page", "It is no action on a bulk job.")),
    };
    let id = read(&id)?;
    let reason: String = pairs.get("reason").unwrap_or_default().chars().take(1_000).collect();
    house.coordinator().bulk_steer(id, to, &visit.name, &reason).await?;
    let target = format!("{}bulk/{id}", visit.root);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}
