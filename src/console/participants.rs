//! A participant: whether it answers, what it is asked to do, and what operators have paused.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::Right;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::{Signed, reason, reason_field};
use crate::console::layout::{Page, page};
use crate::console::query::{Pairs, encode};
use crate::console::visit::Visit;
use crate::console::words::{ago, badge, clock, command_line, number, shell, up_to};
use crate::coordinator::CoordinatorError;
use crate::coordinator::pauses::{MOST, PausePreview, in_words};
use crate::store::pauses::{ParticipantPause, PauseChange};

pub(super) async fn show(State(house): State<House>, visit: Visit, Path(name): Path<String>) -> Result<Page, Failure> {
    let found = house.coordinator().look_at_pause(&name, None).await.map_err(missing)?;
    let standing = house.coordinator().standing(&name);
    let (now, may) = (house.now(), visit.may(Right::Operate));
    let pause_of = |action: Option<&str>| standing.pauses.iter().find(|pause| pause.action.as_deref() == action);
    let whole = pause_of(None);
    let body = html! {
        p.crumbs { a href=(visit.to("")) { "Home" } " / participants" }
        div.headline {
            h1 { code { (name) } }
            div.states { @if whole.is_some() { (badge("paused")) } }
        }
        @for pause in &standing.pauses { div.note.open { strong { "Paused. " } (in_words(pause)) "." } }
        dl.facts {
            div { dt { "Unanswered commands" } dd { (up_to(found.unanswered, MOST)) } }
            div { dt { "Held back" } dd { (number(standing.held as u64)) @if standing.holds_more { "+" } } }
            div { dt { "Window" } dd { @if standing.window == 0 { "no bound" } @else { (number(u64::from(standing.window))) } } }
            div { dt { "Circuit" } dd { @match standing.open_since { Some(since) => { "open since " (ago(since, now)) } None => "closed" } } }
        }
        (button(&visit, &name, None, whole, may))
        h2 { "Its actions" }
        div.scroll tabindex="0" role="region" aria-label="Actions" {
            table {
                caption.unseen { "What it is asked to do" }
                thead { tr { th scope="col" { "Action" } th scope="col" { "State" } th scope="col" { "What you can do" } } }
                tbody {
                    @for action in &found.actions {
                        @let pause = pause_of(Some(action));
                        tr {
                            th scope="row" { code { (name) "." (action) } }
                            td { @match pause { Some(pause) => { (badge("paused")) " since " (clock(pause.since)) } None => span.soft { "goes out" } } }
                            td { (button(&visit, &name, Some(action), pause, may)) }
                        }
                    }
                }
            }
        }
        p.soft { "Its dead letters: " a href=(visit.to(&format!("dead/{}", encode(&format!("{name}.commands.dead"))))) { code { (name) ".commands.dead" } } }
    };
    Ok(page(&visit, &name, body))
}

fn missing(error: CoordinatorError) -> Failure {
    match error {
        CoordinatorError::UnknownParticipant { .. } | CoordinatorError::UnknownAction { .. } => {
            Failure::missing("There is no such participant", format!("{error}.")).back("", "Home")
        }
        other => other.into(),
    }
}

fn button(visit: &Visit, name: &str, action: Option<&str>, pause: Option<&ParticipantPause>, may: bool) -> Markup {
    let (word, label) = if pause.is_some() { ("resume", "Resume") } else { ("pause", "Pause") };
    let query = action.map(|action| format!("?action={}", encode(action))).unwrap_or_default();
    let address = visit.to(&format!("participants/{}/{word}{query}", encode(name)));
    html! {
        @if may { a.button href=(address) { (label) " " @match action { Some(action) => (action), None => "the participant" } "…" } }
        @else { button type="button" disabled { (label) } " " span.soft { "Not possible: your role only reads." } }
    }
}

/// What is asked for, as the form and the address say it.
struct Asked<'a> {
    name: &'a str,
    is_pause: bool,
    action: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn of(name: &'a str, word: &str, pairs: &'a Pairs) -> Result<Self, Failure> {
        let is_pause = match word {
            "pause" => true,
            "resume" => false,
            _ => return Err(Failure::missing("There is no such page", "A participant can be paused and resumed.")),
        };
        Ok(Self { name, is_pause, action: pairs.get("action") })
    }
}

pub(super) async fn confirm(
    State(house): State<House>,
    visit: Visit,
    Path((name, word)): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Page, Failure> {
    let asked = Asked::of(&name, &word, &pairs)?;
    let found = house.coordinator().look_at_pause(&name, asked.action).await.map_err(missing)?;
    asking(&visit, &asked, &found, None)
}

fn asking(visit: &Visit, asked: &Asked<'_>, found: &PausePreview, wrong: Option<&str>) -> Result<Page, Failure> {
    let Asked { name, is_pause, action } = *asked;
    if found.now.is_some() == is_pause {
        let (title, detail) = match &found.now {
            Some(pause) => ("It is paused already", format!("{}.", in_words(pause))),
            None => ("It is not paused", "Somebody may have resumed it in the meantime.".to_owned()),
        };
        return Err(Failure::conflict(title, detail).back(format!("participants/{}", encode(name)), "Look again"));
    }
    let (word, label) = if is_pause { ("pause", "Pause") } else { ("resume", "Resume") };
    let what = action.map_or_else(|| name.to_owned(), |action| format!("{name}.{action}"));
    let flag = action.map(|action| format!(" --action {}", shell(action))).unwrap_or_default();
    let may = visit.may(Right::Operate);
    let here = format!("participants/{}", encode(name));
    let body = html! {
        p.crumbs { a href=(visit.to("")) { "Home" } " / " a href=(visit.to(&here)) { (name) } }
        h1 { (label) " " code { (what) } }
        @if is_pause {
            p.lead { "Its commands are held back in the store until it is resumed; no attempt is spent, and every coordinator knows within seconds." }
            p { strong { (up_to(found.unanswered, MOST)) } " commands for " code { (name) } " are unanswered. What is in its queue already may still be done, and its answers are taken. Time-outs of whole sagas run on." }
        } @else {
            p.lead { "What was held back goes out bit by bit, as much as its window takes." }
            p { strong { (up_to(found.unanswered, MOST)) } " commands for " code { (name) } " are unanswered." }
        }
        form.ask method="post" action=(visit.to(&format!("{here}/{word}"))) {
            input type="hidden" name="csrf" value=(visit.csrf);
            @if let Some(action) = action { input type="hidden" name="action" value=(action); }
            @if let Some(pause) = &found.now { input type="hidden" name="since" value=(pause.since.to_rfc3339()); }
            (reason_field("Kept in the audit log with your name, and shown with every saga that waits for it.", wrong, may))
            div.buttons {
                button.primary disabled[!may] { (label) }
                a.button.quiet href=(visit.to(&here)) { "Do nothing" }
                @if !may { span { "Not possible: your role only reads." } }
            }
        }
        h2 { "The same from the command line" }
        (command_line(&format!("amends participants {word} {}{flag} --reason '...'", shell(name))))
    };
    Ok(page(visit, &format!("{label}: {what}"), body))
}

pub(super) async fn carry_out(
    State(house): State<House>,
    visit: Visit,
    Path((name, word)): Path<(String, String)>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let asked = Asked::of(&name, &word, &pairs)?;
    let reason = match reason(&pairs) {
        Ok(reason) => reason,
        Err(wrong) => {
            let found = house.coordinator().look_at_pause(&name, asked.action).await.map_err(missing)?;
            return Ok(
                (StatusCode::UNPROCESSABLE_ENTITY, asking(&visit, &asked, &found, Some(&wrong))?).into_response()
            );
        }
    };
    let seen = pairs.get("since").map(str::parse).transpose();
    let seen = seen.map_err(|_| Failure::wrong("The form cannot be read", "`since` is no time. Nothing was done."))?;
    let change = PauseChange {
        participant: name.clone(),
        action: asked.action.map(str::to_owned),
        is_paused: asked.is_pause,
        seen,
        actor: visit.name.clone(),
        reason,
    };
    house.coordinator().change_pause(change).await.map_err(missing)?;
    let target = visit.to(&format!("participants/{}", encode(&name)));
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}
