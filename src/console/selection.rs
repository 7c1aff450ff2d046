//! What a selection of sagas is: looked at before anything is done to many at once.

use axum::extract::State;
use maud::{Markup, html};

use crate::api::redact::{must_be_whole, secrets_of};
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::Signed;
use crate::console::layout::{Page as Html, empty, page};
use crate::console::query::Pairs;
use crate::console::sagas::filter;
use crate::console::visit::Visit;
use crate::console::words::{badge, command_line, number, sentence, short, up_to};
use crate::coordinator::overview::MOST;
use crate::id::SagaId;
use crate::saga::SagaState;
use crate::store::{Page, SagaSummary};

/// Sagas that are shown as samples.
const SAMPLES: usize = 10;
/// Sagas that are selected one by one, at most.
const SELECTED: usize = 1_000;

pub(super) async fn show(State(house): State<House>, visit: Visit, Signed(pairs): Signed) -> Result<Html, Failure> {
    let is_all = pairs.get("scope") == Some("all");
    let (count, samples, lines) = if is_all { all(&house, &pairs).await? } else { some(&house, &pairs).await? };
    let address = pairs.get("filter").unwrap_or_default();
    let samples = redacted(&house, samples).await?;
    let body = html! {
        h1 { "Selection" }
        @if count == 0 {
            (empty("Nothing is selected", "Select rows of the list, or take all that match its filter."))
        } @else {
            p.lead { strong { (up_to(count, MOST)) } @if is_all { " sagas match the filter." } @else { " sagas are selected." } }
            (table(&visit, &samples))
            @if count > samples.len() as u64 { p.soft { "The newest " (number(samples.len() as u64)) " of them." } }
            @if !lines.is_empty() {
                h2 { "One after the other, from the command line" }
                p.soft { "Each is refused when its saga does not allow it." }
                @for line in &lines { (command_line(line)) }
            }
        }
        p.buttons { a.button href=(visit.to(&format!("sagas?{address}"))) { "Back to the list" } }
    };
    Ok(page(&visit, "Selection", body))
}

/// The sagas without what is sensitive in what a sample shows.
async fn redacted(house: &House, samples: Vec<SagaSummary>) -> Result<Vec<SagaSummary>, Failure> {
    let mut shown = Vec::with_capacity(samples.len());
    for SagaSummary { mut saga } in samples {
        let definition = house.coordinator().definition(&saga.definition).await?;
        if must_be_whole(&definition, &saga)
            && let Some(record) = house.store().saga(saga.id).await?
        {
            let secrets = secrets_of(&definition, &record);
            saga.key = saga.key.map(|key| secrets.text(&key));
            if let SagaState::Stuck(stuck) = &mut saga.state {
                stuck.problem = stuck.problem.clone().redacted(&secrets);
            }
        }
        shown.push(SagaSummary { saga });
    }
    Ok(shown)
}

type Chosen = (u64, Vec<SagaSummary>, Vec<String>);

async fn all(house: &House, pairs: &Pairs) -> Result<Chosen, Failure> {
    let uri = format!("/?{}", pairs.get("filter").unwrap_or_default())
        .parse()
        .map_err(|_| Failure::wrong("The filter cannot be read", ""))?;
    let given = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map_err(|error| Failure::wrong("The filter cannot be read", error.to_string()))?;
    let filter = filter(&Pairs(given.0), house.now())?;
    let mut found = house.store().sagas(&filter, &Page { after: None, limit: MOST + 1 }).await?;
    let count = found.len() as u64;
    found.truncate(SAMPLES);
    Ok((count, found, Vec::new()))
}

async fn some(house: &House, pairs: &Pairs) -> Result<Chosen, Failure> {
    let ids: Vec<SagaId> = pairs.all("id").filter_map(|id| id.parse().ok()).take(SELECTED).collect();
    let mut samples = Vec::new();
    for id in ids.iter().take(SAMPLES) {
        samples.extend(house.store().saga(*id).await?.map(|record| SagaSummary { saga: record.saga }));
    }
    let lines = ids.iter().take(SAMPLES).map(|id| format!("amends sagas retry {id} --reason '...'")).collect();
    Ok((ids.len() as u64, samples, lines))
}

fn table(visit: &Visit, samples: &[SagaSummary]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Samples" {
            table.rows {
                caption.unseen { "Samples of the selection" }
                thead { tr { th scope="col" { "State" } th scope="col" { "Definition" } th scope="col" { "Saga" } th scope="col" { "Error" } } }
                tbody {
                    @for SagaSummary { saga } in samples {
                        @let id = saga.id.to_string();
                        tr data-row {
                            td { (badge(saga.state.as_str())) }
                            td { (saga.definition.name) " " span.soft { "v" (saga.definition.version) } }
                            th scope="row" { a href=(visit.to(&format!("sagas/{id}"))) { (saga.key.as_deref().unwrap_or_else(|| short(&id))) } }
                            td.wide { @if let Some(stuck) = saga.state.stuck() { (sentence(&stuck.problem.to_string())) } @else { span.soft { "–" } } }
                        }
                    }
                }
            }
        }
    }
}
