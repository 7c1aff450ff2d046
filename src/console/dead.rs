//! Dead letters: messages that nobody could take, by queue; what they say, and what can be done with them.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::Right;
use crate::api::dead::{SHOWN, shown};
use crate::client::views::DeadLetterView;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::{Signed, reason, reason_field};
use crate::console::layout::{Page, empty, page};
use crate::console::query::{Pairs, encode, query};
use crate::console::visit::Visit;
use crate::console::words::{clock, command_line, number, shell, short};
use crate::coordinator::dead::{DeadChange, DeadLetter, MOST, Which};

/// Messages of a page.
const ROWS: u32 = 50;

pub(super) async fn show(State(house): State<House>, visit: Visit) -> Result<Page, Failure> {
    let queues = house.coordinator().dead_queues().await?;
    let messages: u64 = queues.iter().filter_map(|queue| queue.messages).map(u64::from).sum();
    let may = visit.may(Right::Operate);
    let body = html! {
        h1 { "Dead letters" }
        p.soft { "Messages that nobody could take: replies with a wrong token or that contradict what is recorded, and commands that a service rejected." }
        @if messages == 0 {
            (empty("No dead letters", "Every message found somebody who could take it, as far as the broker tells."))
        }
        div.scroll tabindex="0" role="region" aria-label="Queues of dead letters" {
            table {
                caption.unseen { "Queues of dead letters" }
                thead { tr { th scope="col" { "Queue" } th.number scope="col" { "Messages" } } }
                tbody {
                    @for queue in &queues {
                        tr {
                            th scope="row" {
                                @if may { a href=(visit.to(&format!("dead/{}", encode(&queue.name)))) { code { (house.namespace().prefix(&queue.name)) } } } @else { code { (house.namespace().prefix(&queue.name)) } }
                            }
                            td.number { @match queue.messages { Some(count) => (number(u64::from(count))), None => span.soft { "the broker does not tell" } } }
                        }
                    }
                }
            }
        }
        @if !may { p.soft { "What a message says is shown to operators." } }
    };
    Ok(page(&visit, "Dead letters", body))
}

pub(super) async fn list(State(house): State<House>, visit: Visit, Path(queue): Path<String>) -> Result<Page, Failure> {
    let (letters, has_more) = house.coordinator().dead_letters(&queue, ROWS).await?;
    let views = shown(house.coordinator(), &letters).await?;
    let here = format!("dead/{}", encode(&queue));
    let body = html! {
        p.crumbs { a href=(visit.to("dead")) { "Dead letters" } }
        h1 { code { (house.namespace().prefix(&queue)) } }
        @if letters.is_empty() {
            (empty("No dead letters", "Nothing lies in this queue, or somebody else is looking at it at the moment."))
        } @else {
            p.soft { "The oldest first. They stay where they are; while somebody looks, nobody else sees them, and another consumer of this queue may change their order." }
            form.letters method="get" action=(visit.to(&format!("{here}/replay"))) {
                ol.commands {
                    @for letter in &views { (line(&visit, &letter.id, letter)) }
                }
                @if has_more { p.soft { "The first " (ROWS) "; there are more." } }
                div.buttons {
                    button.primary { "Replay the selected…" }
                    button.danger formaction=(visit.to(&format!("{here}/drop"))) { "Drop the selected…" }
                    a.button href=(visit.to(&format!("{here}/replay?count={MOST}"))) { "Replay all…" }
                    a.button.danger href=(visit.to(&format!("{here}/drop?count={MOST}"))) { "Drop all…" }
                }
            }
        }
    };
    Ok(page(&visit, &queue, body))
}

fn line(visit: &Visit, id: &str, letter: &DeadLetterView) -> Markup {
    html! {
        li {
            label { input type="checkbox" name="id" value=(id); span.unseen { "Select " (id) } }
            details {
                summary {
                    code { (letter.kind.as_deref().unwrap_or("message")) } " " code.error-type { (letter.reason) }
                    @if let Some(at) = letter.timestamp { " " span.soft { (clock(at)) } }
                }
                (told(visit, id, letter))
            }
        }
    }
}

/// Everything that there is to know of a message.
fn told(visit: &Visit, id: &str, letter: &DeadLetterView) -> Markup {
    html! {
        dl.headers {
            div { dt { "id" } dd { code { (visible(id)) } } }
            div { dt { "replayed to" } dd { @match &letter.replay_to { Some(to) => code { (visible(to)) }, None => "nobody knows where it came from: it can only be dropped" } } }
            @for death in &letter.deaths { div { dt { "died in" } dd { code { (death.queue) } ": " (visible(&death.reason)) ", " (death.count) " times" } } }
            @for (name, value) in &letter.headers {
                div { dt { (visible(name)) } dd { code { (visible(value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str())) } } }
            }
            @if let Some(saga) = letter.saga_id.as_ref().and_then(|id| id.parse::<crate::id::SagaId>().ok()) {
                @let saga = saga.to_string();
                div { dt { "saga" } dd { a href=(visit.to(&format!("sagas/{saga}"))) { "…" (short(&saga)) } } }
            }
        }
        @if letter.body_bytes > SHOWN { p.soft { "The first " (number(SHOWN as u64)) " of " (number(letter.body_bytes as u64)) " bytes." } }
        pre tabindex="0" aria-label="Body" { (visible(&letter.body)) }
    }
}

/// Text with control characters, and those that turn its direction, made visible; line ends stay.
fn visible(text: &str) -> String {
    let is_hidden = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

struct Asked {
    queue: String,
    is_replay: bool,
    which: Which,
}

impl Asked {
    fn of(queue: String, word: &str, pairs: &Pairs) -> Result<Self, Failure> {
        let is_replay = match word {
            "replay" => true,
            "drop" => false,
            _ => return Err(Failure::missing("There is no such page", "Dead letters are replayed or dropped.")),
        };
        let back = format!("dead/{}", encode(&queue));
        let ids: Vec<String> = pairs.all("id").map(str::to_owned).take(MOST as usize).collect();
        let count = pairs.get("count").and_then(|count| count.parse().ok()).filter(|count| (1..=MOST).contains(count));
        let which = match (ids.is_empty(), count) {
            (false, _) => Which::Ids(ids),
            (true, Some(count)) => Which::First(count),
            (true, None) => {
                return Err(
                    Failure::wrong("Nothing is selected", "Select messages of the list first.").back(back, "Back")
                );
            }
        };
        Ok(Self { queue, is_replay, which })
    }

    fn word(&self) -> &'static str {
        if self.is_replay { "replay" } else { "drop" }
    }
}

pub(super) async fn confirm(
    State(house): State<House>,
    visit: Visit,
    Path((queue, word)): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Page, Failure> {
    let asked = Asked::of(queue, &word, &pairs)?;
    let found = house.coordinator().find_dead_letters(&asked.queue, &asked.which).await?;
    asking(&house, &visit, &asked, &found, None).await
}

async fn asking(
    house: &House,
    visit: &Visit,
    asked: &Asked,
    found: &[DeadLetter],
    wrong: Option<&str>,
) -> Result<Page, Failure> {
    let seen = shown(house.coordinator(), found.get(..ROWS as usize).unwrap_or(found)).await?;
    let (word, here) = (asked.word(), format!("dead/{}", encode(&asked.queue)));
    let label = if asked.is_replay { "Replay" } else { "Drop" };
    let flags = match &asked.which {
        Which::First(count) => format!("--count {}", (*count).min(u32::try_from(found.len()).unwrap_or(*count)).max(1)),
        Which::Ids(ids) => ids.iter().map(|id| format!("--message {}", shell(id))).collect::<Vec<_>>().join(" "),
    };
    let title = format!("{label} {} messages", found.len());
    let body = html! {
        p.crumbs { a href=(visit.to("dead")) { "Dead letters" } " / " a href=(visit.to(&here)) { (asked.queue) } }
        h1 { (title) }
        @if asked.is_replay {
            p.lead { "Each is published to where it came from, and removed from here once the broker has it safe. Should that be cut off in between, it is there twice, which participants and the coordinator know as one." }
        } @else {
            p.lead { "They are removed for good. The audit log keeps their ids, not what they say." }
        }
        ol.planned {
            @for seen in &seen {
                li {
                    div.planned-head { code { (visible(seen.kind.as_deref().unwrap_or("message"))) } code.error-type { (visible(&seen.reason)) } @if asked.is_replay { span.soft { "to " (visible(seen.replay_to.as_deref().unwrap_or("nobody knows where"))) } } }
                    details { summary { "What it says" } (told(visit, &seen.id, seen)) }
                }
            }
        }
        @if found.len() > ROWS as usize { p.soft { "and " (found.len() - ROWS as usize) " more" } }
        form.ask method="post" action=(visit.to(&format!("{here}/{word}"))) {
            input type="hidden" name="csrf" value=(visit.csrf);
            // Exactly what is shown here: others that have come since stay.
            @for letter in found { input type="hidden" name="id" value=(letter.id); }
            (reason_field("Kept in the audit log with your name, once for each message.", wrong, !found.is_empty()))
            div.buttons {
                @let class = if asked.is_replay { "primary" } else { "danger" };
                button class=(class) disabled[found.is_empty()] { (label) }
                a.button.quiet href=(visit.to(&here)) { "Do nothing" }
            }
        }
        h2 { "The same from the command line" }
        (command_line(&format!("amends dead-letters {word} {} {flags} --reason '...'", shell(&asked.queue))))
    };
    Ok(page(visit, &title, body))
}

pub(super) async fn carry_out(
    State(house): State<House>,
    visit: Visit,
    Path((queue, word)): Path<(String, String)>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let asked = Asked::of(queue, &word, &pairs)?;
    let reason = match reason(&pairs) {
        Ok(reason) => reason,
        Err(wrong) => {
            let found = house.coordinator().find_dead_letters(&asked.queue, &asked.which).await?;
            let page = asking(&house, &visit, &asked, &found, Some(&wrong)).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    let Asked { queue, is_replay, which } = asked;
    let here = format!("dead/{}", encode(&queue));
    let change = DeadChange { queue, is_replay, which, actor: visit.name.clone(), reason };
    let outcomes = house.coordinator().change_dead_letters(&change).await?;
    let problems: Vec<String> =
        outcomes.iter().filter_map(|outcome| Some(format!("{}: {}", outcome.id, outcome.problem.as_ref()?))).collect();
    if !problems.is_empty() {
        let detail = format!("Nothing is lost. Still there: {}.", visible(&problems.join("; ")));
        return Err(Failure::conflict("Not everything was done", detail).back(here, "Look again"));
    }
    let done = outcomes.len().to_string();
    let target = visit.to(&format!("{here}?{}", query(&[("done", &done)])));
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}
